// Asks, after a crash, what is in no blob that was found, before any of it counts as free.
// Why: a root page whose bytes are garbage does not say that it was one. But the blob's other pages
// still name it, as do its clones and the mask of the last export. A crash leaves old, new or empty
// blocks of pages, never bytes that nobody wrote, nor a root in another's place: what a crash
// cannot have left stops the import when anything may have depended on it. Nothing is written here.
#include <algorithm>
#include <set>

#include "core/reactor.h"
#include "lvs/blobstore.h"
#include "lvs/blobstore_scan.h"

namespace mayastor {

using lvs_format::blob_id_of;
using lvs_format::kPageSize;
using lvs_format::root_page_of;

void Blobstore::note_stray(uint32_t page, std::span<const uint8_t, kPageSize> bytes,
                           Scan* scan) const {
  const auto extent = lvs_format::parse_extent_page(bytes, limits());
  if (!extent.ok()) {
    scan->misplaced_roots.emplace_back(page, lvs_format::page_header(bytes).blob_id);
    return;
  }
  scan->extent_pages.emplace_back(page, extent.value().blob_id);
}

// By the mask of blob ids, which is as old as the last export or recovery. Unreadable or never
// written: it knows of none.
Task<BitArray> Blobstore::roots_of_last_export() {
  BitArray none(super_.md_len);
  if (super_.blobid_mask_len == 0) co_return none;
  auto roots = co_await roots_of_clean_store();
  if (!roots.ok()) co_return none;
  for (const uint32_t root : roots.value()) none.set(root);
  co_return none;
}

Task<Result<void>> Blobstore::ask_what_nobody_owns(
    const Scan* scan, const std::vector<std::shared_ptr<Blob>>& dropped) {
  if (!recovered_) co_return Result<void>();
  // Blobs whose fate is known, whatever still names them.
  std::set<uint32_t> settled(scan->half_deleted.begin(), scan->half_deleted.end());
  settled.insert(scan->emptied.begin(), scan->emptied.end());
  std::set<uint32_t> in_dropped;
  for (const auto& blob : dropped) {
    settled.insert(blob->root_page());
    in_dropped.insert(blob->chain.begin(), blob->chain.end());
    in_dropped.insert(blob->meta.extent_pages.begin(), blob->meta.extent_pages.end());
  }
  const auto missing = [&](uint64_t id) {
    const uint32_t root = root_page_of(id);
    return root < super_.md_len && id == blob_id_of(root) && !blobs_.contains(id) &&
           !settled.contains(root);
  };
  const auto free = [&](uint32_t page) { return !pages_.test(page) && !in_dropped.contains(page); };

  std::set<uint32_t> named, chained;  // roots that are missing
  bool clusters_at_stake = false;     // pages that no blob has name clusters that no blob has
  for (const auto& [page, id] : scan->extent_pages) {
    if (!free(page)) continue;
    if (missing(id)) named.insert(root_page_of(id));
    auto got = co_await read_page(page, nullptr);
    if (!got.ok()) co_return got;
    const std::span<const uint8_t, kPageSize> bytes(page_buffer_.data(), kPageSize);
    const auto extent = lvs_format::parse_extent_page(bytes, limits());
    if (!extent.ok()) continue;
    clusters_at_stake |=
        std::any_of(extent.value().clusters.begin(), extent.value().clusters.end(),
                    [this](uint32_t at) { return at != 0 && !clusters_.test(at); });
  }
  for (const auto& [page, id] : scan->chain_pages) {
    if (free(page) && missing(id)) chained.insert(root_page_of(id));
  }
  for (const auto& [id, blob] : blobs_) {
    const auto parent = blob->meta.internal_id(lvs_format::kXattrParent);
    if (parent && missing(*parent)) named.insert(root_page_of(*parent));
  }

  std::set<uint32_t> garbage, told;
  for (const Scan::Torn& torn : scan->torn) {
    // What a shadow names was a root that is repaired or deleted, or an extent page.
    if (!free(torn.page) || settled.contains(torn.page) || scan->shadows.contains(torn.page)) {
      continue;
    }
    const uint32_t of = root_page_of(torn.blob_id);
    if (torn.blob_id == 0) {  // its first block was being emptied, or not yet written
      told.insert(torn.page);
    } else if (of >= super_.md_len || torn.blob_id != blob_id_of(of)) {
      garbage.insert(torn.page);
    }
  }
  // Anything but a root may lie in the place of one that is named: that of a blob which has gone,
  // used again before all that named it was durably empty.
  std::set<uint32_t> lost, misplaced;
  for (const auto& [page, id] : scan->misplaced_roots) {
    if (free(page)) misplaced.insert(page);
  }
  for (const auto& [page, id] : scan->misplaced_roots) {
    if (!free(page)) continue;
    const uint32_t root = root_page_of(id);
    if (named.contains(page)) lost.insert(page);
    if (!missing(id)) continue;
    const bool asked_for = clusters_at_stake || named.contains(root) || misplaced.contains(root);
    if (asked_for) lost.insert(page);
    told.insert(root);
  }
  if (!garbage.empty()) {
    const BitArray exported = co_await roots_of_last_export();
    for (const uint32_t page : garbage) {
      const bool asked_for =
          clusters_at_stake || garbage.size() > 1 || chained.contains(page) || exported.test(page);
      (asked_for ? lost : told).insert(page);
    }
  }
  if (!lost.empty()) co_return lost_roots(std::vector<uint32_t>(lost.begin(), lost.end()));
  told.insert(named.begin(), named.end());
  told.insert(scan->half_deleted.begin(), scan->half_deleted.end());
  for (const auto& [original, shadow] : scan->shadows) {
    auto got = co_await read_page(shadow, nullptr);
    if (!got.ok()) co_return got;
    const uint64_t id =
        lvs_format::page_header(std::span<const uint8_t, kPageSize>(page_buffer_.data(), kPageSize))
            .blob_id;
    if (id == 0) told.erase(original);  // it was deleted: that is no news
    if (original < super_.md_len && id == blob_id_of(original) && missing(id) && free(original)) {
      told.insert(original);  // the creation did not come so far, or the root has gone since
    }
  }
  gone_roots_.assign(told.begin(), told.end());
  co_return Result<void>();
}

}  // namespace mayastor

// Formatting, loading, recovery after a crash, clean unload: see blobstore.h.
// Both ways of loading rebuild the maps of taken clusters and pages from the blobs themselves; a
// clean store only spares the scan of the whole metadata region, its mask tells where blobs are.
#include <algorithm>
#include <cstring>

#include "core/reactor.h"
#include "lvs/blobstore.h"
#include "lvs/blobstore_scan.h"
#include "lvs/io_error.h"

namespace mayastor {

using lvs_format::ExtentPage;
using lvs_format::kPageSize;
using lvs_format::Page;
using lvs_format::SuperBlock;

namespace {

constexpr uint32_t kScanPages = 256;   // metadata pages per read: 1 MiB
constexpr size_t kLeastWritten = 512;  // bytes that every device writes whole or not at all

std::span<const uint8_t, kPageSize> as_page(const uint8_t* bytes) {
  return std::span<const uint8_t, kPageSize>(bytes, kPageSize);
}

Error damaged(std::string what) {
  return Error{ErrorCode::kInternal, std::move(what), 117};
}

}  // namespace

Task<Result<SuperBlock>> Blobstore::read_super(std::shared_ptr<Bdev> base) {
  if (base->size_bytes() < kPageSize) {
    co_return Error{ErrorCode::kNotFound, "no pool found", 2};
  }
  auto channel = co_await base->open_channel();
  if (!channel.ok()) co_return channel_error(channel.error());
  AlignedBuffer page(kPageSize);
  const IoStatus status = co_await read(*channel.value(), 0, page.data(), kPageSize);
  if (!status.ok()) co_return io_error(status, "Cannot read the super block");
  co_return lvs_format::parse_super(as_page(page.data()), base->size_bytes());
}

Task<Result<std::vector<lvs_format::Xattr>>> Blobstore::read_super_blob_xattrs(
    std::shared_ptr<Bdev> base, SuperBlock super) {
  const uint32_t root = lvs_format::root_page_of(super.super_blob);
  if (super.super_blob == lvs_format::kNoBlob || root >= super.md_len) {
    co_return std::vector<lvs_format::Xattr>();
  }
  Blobstore reader(base);
  auto opened = co_await reader.open_base();
  if (!opened.ok()) co_return opened.error();
  reader.super_ = std::move(super);
  auto blob = co_await reader.load_blob(root, nullptr);
  if (!blob.ok()) co_return blob.error();
  co_return blob.value()->meta.xattrs;
}

Task<Result<std::unique_ptr<Blobstore>>> Blobstore::format(std::shared_ptr<Bdev> base,
                                                           BlobstoreFormatOptions options) {
  auto store = std::unique_ptr<Blobstore>(new Blobstore(base));
  lvs_format::LayoutOptions layout;
  layout.device_bytes = base->size_bytes();
  layout.cluster_size = options.cluster_size;
  layout.block_size = base->block_size();
  layout.md_reserve_ratio_percent = options.md_reserve_ratio_percent;
  auto planned = lvs_format::plan_layout(layout);
  if (!planned.ok()) co_return planned.error();
  auto opened = co_await store->open_base();
  if (!opened.ok()) co_return opened.error();
  SuperBlock& super = store->super_;
  super = planned.take();

  const uint64_t md_end = (uint64_t{super.md_start} + super.md_len) * kPageSize;
  const IoStatus zeroed = co_await store->zero_range(0, md_end);
  if (!zeroed.ok()) co_return io_error(zeroed, "Cannot zero the metadata region");
  // The super blob first, then the super block: half a store is no store.
  super.super_blob = lvs_format::blob_id_of(0);
  lvs_format::BlobMetadata meta;
  meta.xattrs = options.super_xattrs;
  std::vector<Page> chain = lvs_format::encode_chain(super.super_blob, meta);
  CHECK(chain.size() == 1);
  const std::vector<uint32_t> numbers(1, 0u);
  lvs_format::link_chain(chain, numbers);
  auto written = co_await store->write_page(0, &chain.front(), false);
  if (!written.ok()) co_return written.error();
  IoStatus flushed = co_await store->barrier();
  if (!flushed.ok()) co_return io_error(flushed, "Cannot flush the metadata region");

  // All that differs from zero is in the first block but the CRC in the last: with the signature
  // last, a torn write cannot look like a damaged pool.
  uint8_t* image = store->super_image_.data();
  lvs_format::encode_super(super, std::span<uint8_t, kPageSize>(image, kPageSize));
  Channel& channel = *store->channel_;
  const uint32_t block = base->block_size();
  if (block < kPageSize) {
    const IoStatus tail = co_await write(channel, block, image + block, kPageSize - block, false);
    if (!tail.ok()) co_return io_error(tail, "Cannot write the super block");
    flushed = co_await store->barrier();
    if (!flushed.ok()) co_return io_error(flushed, "Cannot flush the super block");
  }
  const IoStatus head = co_await write(channel, 0, image, std::min(block, kPageSize), true);
  if (!head.ok()) co_return io_error(head, "Cannot write the super block");
  store.reset();
  co_return co_await load(std::move(base));
}

Task<Result<std::unique_ptr<Blobstore>>> Blobstore::load(std::shared_ptr<Bdev> base) {
  auto store = std::unique_ptr<Blobstore>(new Blobstore(base));
  auto opened = co_await store->open_base();
  if (!opened.ok()) co_return opened.error();
  auto loaded = co_await store->load_all();
  if (!loaded.ok()) co_return loaded.error();
  co_return store;
}

Task<Result<void>> Blobstore::load_all() {
  const IoStatus status = co_await read(*channel_, 0, super_image_.data(), kPageSize);
  if (!status.ok()) co_return io_error(status, "Cannot read the super block");
  auto parsed = lvs_format::parse_super(as_page(super_image_.data()), base_->size_bytes());
  if (!parsed.ok()) co_return parsed.error();
  super_ = parsed.take();
  on_disk_clean_ = super_.clean;
  if (super_.io_unit_size % base_->block_size() != 0) {
    co_return Error{ErrorCode::kInvalidArgument,
                    "pool was made with blocks of " + std::to_string(super_.io_unit_size) +
                        " bytes, the device has " + std::to_string(base_->block_size()) +
                        "; open it with a block size the former is a multiple of",
                    22};
  }
  recovered_ = !super_.clean || super_.blobid_mask_len == 0;
  Scan found;
  if (recovered_) {
    auto scanned = co_await scan(&found);
    if (!scanned.ok()) co_return scanned;
    auto repaired = co_await repair_torn_roots(&found);
    if (!repaired.ok()) co_return repaired;
  } else {
    auto roots = co_await roots_of_clean_store();
    if (!roots.ok()) co_return roots.error();
    found.roots = roots.take();
  }
  for (const uint32_t root : found.roots) {
    auto blob = co_await load_blob(root, recovered_ ? &found : nullptr);
    if (!blob.ok()) co_return blob.error();
    if (blob.value() == nullptr) continue;
    blob_clusters_ += blob.value()->meta.clusters.size();
    blobs_.emplace(blob.value()->id(), blob.value());
  }
  auto linked = link_parents();
  if (!linked.ok()) co_return linked;
  auto settled = co_await settle_snapshots(&found);
  if (!settled.ok()) co_return settled;
  if (recovered_) co_return co_await finish_recovery(&found);
  if (!shadow_page_) take_shadow_page();
  co_return Result<void>();
}

Task<Result<std::vector<uint32_t>>> Blobstore::roots_of_clean_store() {
  AlignedBuffer region(uint64_t{super_.blobid_mask_len} * kPageSize);
  const uint64_t offset = uint64_t{super_.blobid_mask_start} * kPageSize;
  const IoStatus status = co_await read(*channel_, offset, region.data(), region.size());
  if (!status.ok()) co_return io_error(status, "Cannot read the blob id mask");
  const std::span<const uint8_t> bytes(region.data(), region.size());
  auto words = lvs_format::parse_mask(bytes, lvs_format::MaskType::kBlobIds, super_.md_len);
  if (!words.ok()) co_return words.error();
  const BitArray mask(words.take(), super_.md_len);
  std::vector<uint32_t> roots;
  for (uint32_t page = 0; page < super_.md_len; ++page) {
    if (mask.test(page)) roots.push_back(page);
  }
  co_return roots;
}

Task<Result<void>> Blobstore::scan(Scan* scan) {
  AlignedBuffer buffer(uint64_t{kScanPages} * kPageSize);
  for (uint32_t first = 0; first < super_.md_len; first += kScanPages) {
    const uint32_t count = std::min(kScanPages, super_.md_len - first);
    const uint64_t bytes = uint64_t{count} * kPageSize;
    const uint64_t offset = page_offset(first);
    const IoStatus status = co_await read(*channel_, offset, buffer.data(), bytes);
    if (!status.ok()) co_return io_error(status, "Cannot read the metadata region");
    for (uint32_t i = 0; i < count; ++i) {
      const auto page = as_page(buffer.data() + uint64_t{i} * kPageSize);
      if (lvs_format::all_zero(page)) continue;
      if (!lvs_format::crc_ok(page)) {
        const bool no_tail = lvs_format::all_zero(page.last<kLeastWritten>());
        scan->torn.push_back({first + i, lvs_format::page_header(page).blob_id, no_tail});
        continue;
      }
      const lvs_format::PageHeader header = lvs_format::page_header(page);
      if (header.sequence != 0) {  // of a chain, or left over from one
        scan->chain_pages.emplace_back(first + i, header.blob_id);
        continue;
      }
      if (header.blob_id == lvs_format::blob_id_of(first + i)) {
        scan->roots.push_back(first + i);
      } else {
        scan->stray.push_back(first + i);
        if (const auto original = lvs_format::shadow_original(page)) {
          scan->shadows[*original] = first + i;
        } else {
          note_stray(first + i, page, scan);
        }
      }
    }
  }
  co_return Result<void>();
}

// A page as it is, or as it is going to be repaired.
Task<Result<void>> Blobstore::read_page(uint32_t page, const Scan* scan) {
  if (scan != nullptr) {
    if (const auto at = scan->repaired.find(page); at != scan->repaired.end()) {
      std::memcpy(page_buffer_.data(), at->second.data(), kPageSize);
      co_return Result<void>();
    }
  }
  const uint64_t offset = page_offset(page);
  const IoStatus status = co_await read(*channel_, offset, page_buffer_.data(), kPageSize);
  if (!status.ok()) co_return io_error(status, "Cannot read pool metadata");
  co_return Result<void>();
}

// Takes what a torn page was to hold from its shadow, which names it: nothing else that looks alike
// (an extent page of a snapshot, one that is left over) is a copy of it. Written only when the
// whole store is known to be sound.
Task<Result<bool>> Blobstore::repair_from_shadow(uint32_t page, Scan* scan) {
  const auto at = scan->shadows.find(page);
  if (at == scan->shadows.end() || at->second == page) co_return false;
  auto got = co_await read_page(at->second, nullptr);
  if (!got.ok()) co_return got.error();
  scan->repaired[page] = lvs_format::unshadowed(as_page(page_buffer_.data()));
  co_return true;
}

// What a torn root was to become is known from its shadow. Without one (the metadata region was
// full, or another implementation wrote it) a root whose checksum's block is all zero was written
// onto an empty page, or is being emptied, and that did not come to its end: a rewrite leaves a
// checksum there, the old one or the new. Anything else may be all that is left of a lvol.
Task<Result<void>> Blobstore::repair_torn_roots(Scan* scan) {
  std::vector<uint32_t> lost;
  for (const Scan::Torn& torn : scan->torn) {
    const uint64_t own_id = lvs_format::blob_id_of(torn.page);
    auto repaired = co_await repair_from_shadow(torn.page, scan);
    if (!repaired.ok()) co_return repaired.error();
    bool to_be_empty = false;
    if (repaired.value()) {
      const Page& page = scan->repaired.at(torn.page);
      const uint64_t id = lvs_format::page_header(page).blob_id;
      if (id == own_id && !lvs_format::parse_extent_page(page, limits()).ok()) {
        scan->roots.push_back(torn.page);
        continue;
      }
      to_be_empty = id == 0;
      scan->repaired.erase(torn.page);  // an extent page: repaired when a blob asks for it
    }
    if (torn.blob_id != own_id)
      continue;  // no root, and nothing refers to it, or its blob will tell
    if (to_be_empty || torn.no_tail) {
      scan->emptied.push_back(torn.page);
      if (!to_be_empty) cut_off_roots_.push_back(torn.page);
    } else {
      lost.push_back(torn.page);
    }
  }
  std::sort(scan->roots.begin(), scan->roots.end());
  if (!lost.empty()) co_return lost_roots(lost);
  co_return Result<void>();
}

Error Blobstore::lost_roots(const std::vector<uint32_t>& pages) const {
  std::string blobs, commands;
  for (const uint32_t page : pages) {
    blobs += (blobs.empty() ? "" : ", ") + std::to_string(page);
    commands += (commands.empty() ? "" : "; ") +
                ("dd if=/dev/zero of=<device> bs=4096 count=1 conv=notrunc,fsync seek=" +
                 std::to_string(page_offset(page) / kPageSize));
  }
  return damaged("the metadata of blob " + blobs +
                 " is damaged, and no copy of it is left; nothing was changed. Copy the device "
                 "first if no other replica has the data. To load the pool without what is lost: " +
                 commands);
}

Task<Result<void>> Blobstore::write_repairs(const Scan* scan) {
  for (const auto& [page, image] : scan->repaired) {
    auto written = co_await write_page(page, &image, true);
    if (!written.ok()) co_return written;
  }
  co_return co_await zero_pages(scan->emptied, true);
}

Task<Result<ExtentPage>> Blobstore::load_extent_page(uint64_t blob_id, uint32_t index,
                                                     uint32_t page, Scan* scan) {
  auto got = co_await read_page(page, scan);
  if (!got.ok()) co_return got.error();
  auto parsed = lvs_format::parse_extent_page(as_page(page_buffer_.data()), limits());
  if (parsed.ok() || scan == nullptr || lvs_format::crc_ok(as_page(page_buffer_.data()))) {
    co_return parsed;
  }
  auto repaired = co_await repair_from_shadow(page, scan);
  if (!repaired.ok()) co_return repaired.error();
  if (!repaired.value()) co_return parsed;
  auto copy = lvs_format::parse_extent_page(scan->repaired.at(page), limits());
  const uint64_t start = uint64_t{index} * lvs_format::kClustersPerExtentPage;
  if (copy.ok() && copy.value().blob_id == blob_id && copy.value().start == start) co_return copy;
  scan->repaired.erase(page);
  co_return parsed;
}

Task<Result<std::shared_ptr<Blob>>> Blobstore::load_blob(uint32_t root, Scan* scan) {
  const uint64_t id = lvs_format::blob_id_of(root);
  const std::string name = "blob " + std::to_string(root) + ": ";
  lvs_format::ChainParser parser(id, limits(), scan != nullptr);
  std::vector<uint32_t> chain;
  uint32_t page = root;
  while (page != lvs_format::kNoPage) {
    auto got = co_await read_page(page, scan);
    if (!got.ok()) co_return got.error();
    const auto bytes = as_page(page_buffer_.data());
    if (scan != nullptr && page != root && lvs_format::all_zero(bytes)) {
      // Other implementations empty a chain before its root when they delete: finish that.
      const bool torn = scan->repaired.erase(root) > 0;
      (torn ? scan->emptied : scan->half_deleted).push_back(root);
      scan->half_chains.insert(scan->half_chains.end(), chain.begin(), chain.end());
      scan->half_chains.push_back(page);
      co_return std::shared_ptr<Blob>();
    }
    auto added = parser.add(bytes);
    if (!added.ok()) co_return added.error();
    if (page != root) chain.push_back(page);
    if (chain.size() > super_.md_len) co_return damaged(name + "its chain of pages is a circle");
    page = parser.next_page();
  }
  auto parsed = parser.finish();
  if (!parsed.ok()) co_return parsed.error();
  lvs_format::BlobMetadata meta = parsed.take();
  for (uint32_t index = 0; index < meta.extent_pages.size(); ++index) {
    if (meta.extent_pages[index] == 0) continue;
    auto extent = co_await load_extent_page(id, index, meta.extent_pages[index], scan);
    if (!extent.ok()) co_return damaged(name + extent.error().message);
    auto applied = lvs_format::apply_extent_page(extent.value(), index, meta);
    if (!applied.ok()) co_return damaged(name + applied.error().message);
  }
  auto complete = lvs_format::check_complete(meta);
  if (!complete.ok()) co_return damaged(name + complete.error().message);
  auto blob = std::make_shared<Blob>(id, std::move(meta));
  blob->chain = std::move(chain);
  co_return blob;
}

Result<void> Blobstore::link_parents() {
  for (const auto& [id, blob] : blobs_) {
    blob->backing_missing = (blob->meta.invalid_flags & lvs_format::kInvalidExternalClone) != 0;
    const auto parent = blob->meta.internal_id(lvs_format::kXattrParent);
    if (!parent) continue;
    const auto at = blobs_.find(*parent);
    if (at == blobs_.end()) {
      blob->backing_missing = true;
      continue;
    }
    blob->parent = at->second;
    ++at->second->clone_count;
  }
  for (const auto& [id, blob] : blobs_) {
    size_t depth = 0;
    for (const Blob* at = blob.get(); at != nullptr; at = at->parent.get()) {
      if (++depth <= blobs_.size()) continue;
      for (const auto& [other_id, other] : blobs_) other->parent.reset();  // no leak by the circle
      return damaged("the snapshots of the pool form a circle");
    }
  }
  return {};
}

// Finishes or undoes the making or removal of a snapshot that was cut off.
Task<Result<void>> Blobstore::settle_snapshots(const Scan* scan) {
  std::vector<std::shared_ptr<Blob>> kept, dropped;
  for (const auto& [id, blob] : blobs_) {
    auto other = blob->meta.internal_id(lvs_format::kXattrSnapshotInProgress);
    if (!other) other = blob->meta.internal_id(lvs_format::kXattrSnapshotRemoval);
    if (!other) continue;
    const auto at = blobs_.find(*other);
    const bool in_use = at != blobs_.end() && at->second->parent == blob;
    (in_use ? kept : dropped).push_back(blob);
  }
  for (const auto& blob : dropped) {
    // Its clusters belong to the other blob as far as they are used at all.
    if (blob->parent != nullptr) --blob->parent->clone_count;
    blobs_.erase(blob->id());
    blob_clusters_ -= blob->meta.clusters.size();
  }
  auto claimed = claim_all();
  if (!claimed.ok()) co_return claimed;
  auto asked = co_await ask_what_nobody_owns(scan, dropped);
  if (!asked.ok()) co_return asked;
  // Sound so far: from here on it may be written.
  auto repaired = co_await write_repairs(scan);
  if (!repaired.ok()) co_return repaired;
  if (kept.empty() && dropped.empty() && scan->half_deleted.empty()) co_return Result<void>();
  auto begun = co_await begin_change();
  if (!begun.ok()) co_return begun;
  // The power may go once more: from here on with a shadow. No older one is needed now, nor lies on
  // a higher page; and it takes no page that a blob which is still to go is loaded by.
  std::vector<uint32_t> roots = scan->half_deleted, loaded_by = scan->half_chains;
  for (const auto& blob : dropped) {
    roots.push_back(blob->root_page());
    loaded_by.insert(loaded_by.end(), blob->chain.begin(), blob->chain.end());
    for (const uint32_t page : blob->meta.extent_pages) {
      if (page != 0) loaded_by.push_back(page);
    }
  }
  loaded_by.insert(loaded_by.end(), roots.begin(), roots.end());
  std::sort(loaded_by.begin(), loaded_by.end());
  loaded_by.erase(std::unique(loaded_by.begin(), loaded_by.end()), loaded_by.end());
  std::erase_if(loaded_by, [this](uint32_t page) { return pages_.test(page); });
  for (const uint32_t page : loaded_by) pages_.set(page);
  take_shadow_page();
  for (const uint32_t page : loaded_by) pages_.clear(page);
  for (const uint32_t root : roots) {
    auto emptied = co_await empty_root(root);
    if (!emptied.ok()) co_return emptied;
  }
  for (const auto& blob : kept) {
    lvs_format::BlobMetadata next = blob->meta;
    next.remove_internal(lvs_format::kXattrSnapshotInProgress);
    next.remove_internal(lvs_format::kXattrSnapshotRemoval);
    next.data_ro_flags |= lvs_format::kDataReadOnly;
    auto committed = co_await commit(blob.get(), std::move(next));
    if (!committed.ok()) co_return committed;
  }
  co_return Result<void>();
}

Result<void> Blobstore::claim_all() {
  pages_ = BitArray(super_.md_len);
  clusters_ = BitArray(super_.total_clusters());
  for (uint32_t i = 0; i < super_.md_clusters(); ++i) clusters_.set(i);
  for (const auto& [id, blob] : blobs_) {
    std::vector<uint32_t> pages = blob->chain;
    pages.push_back(blob->root_page());
    for (const uint32_t page : blob->meta.extent_pages) {
      if (page != 0) pages.push_back(page);
    }
    for (const uint32_t page : pages) {
      if (pages_.test(page)) {
        return damaged("metadata page " + std::to_string(page) + " has two owners");
      }
      pages_.set(page);
    }
    for (const uint32_t cluster : blob->meta.clusters) {
      if (cluster == 0) continue;
      if (clusters_.test(cluster)) {
        return damaged("cluster " + std::to_string(cluster) + " has two owners");
      }
      clusters_.set(cluster);
    }
  }
  return {};
}

Task<Result<void>> Blobstore::finish_recovery(const Scan* scan) {
  auto begun = co_await begin_change();  // an old version may be marked clean and still be scanned
  if (!begun.ok()) co_return begun;
  // Strays are emptied, so that an old shadow is never taken for a new one.
  std::vector<uint32_t> stale;
  for (const uint32_t page : scan->stray) {
    if (!pages_.test(page)) stale.push_back(page);
  }
  auto zeroed = co_await zero_pages(std::move(stale), false);
  if (!zeroed.ok()) co_return zeroed;
  if (shadow_page_) pages_.clear(*shadow_page_);  // no mask marks it
  auto written = co_await write_masks();
  if (!written.ok()) co_return written;
  if (shadow_page_) pages_.set(*shadow_page_);
  if (!shadow_page_) take_shadow_page();
  co_return Result<void>();
}

Task<Result<void>> Blobstore::write_masks() {
  BitArray blob_ids(super_.md_len);
  for (const auto& [id, blob] : blobs_) blob_ids.set(blob->root_page());
  struct Mask {
    const BitArray* bits;
    lvs_format::MaskType type;
    uint32_t start, length;
  };
  const Mask masks[] = {
      {&pages_, lvs_format::MaskType::kPages, super_.page_mask_start, super_.page_mask_len},
      {&blob_ids, lvs_format::MaskType::kBlobIds, super_.blobid_mask_start, super_.blobid_mask_len},
      {&clusters_, lvs_format::MaskType::kClusters, super_.cluster_mask_start,
       super_.cluster_mask_len}};
  for (const Mask& mask : masks) {
    if (mask.length == 0) continue;  // a version without blob ids
    AlignedBuffer region(uint64_t{mask.length} * kPageSize);
    const std::span<uint8_t> bytes(region.data(), region.size());
    lvs_format::encode_mask(mask.bits->words(), mask.type, mask.bits->size(), bytes);
    const uint64_t offset = uint64_t{mask.start} * kPageSize;
    const IoStatus status = co_await write(*channel_, offset, region.data(), region.size(), false);
    if (!status.ok()) co_return io_error(status, "Cannot write the pool's masks");
  }
  const IoStatus flushed = co_await barrier();
  if (!flushed.ok()) co_return io_error(flushed, "Cannot flush the pool's masks");
  co_return Result<void>();
}

Task<Result<void>> Blobstore::unload() {
  co_await metadata_.lock();
  const AsyncLock held(metadata_);
  // What is in memory may differ from the disk, which stays marked as not clean.
  if (failed_) co_return *failed_;
  if (on_disk_clean_) co_return Result<void>();  // nothing changed since it was loaded
  if (shadow_page_) {
    std::vector<uint32_t> shadow(1, *shadow_page_);
    auto zeroed = co_await zero_pages(std::move(shadow), false);
    if (!zeroed.ok()) co_return zeroed;
    pages_.clear(*shadow_page_);
    shadow_page_.reset();
  }
  auto emptied = co_await empty_old_shadow();
  if (!emptied.ok()) co_return emptied;
  auto masks = co_await write_masks();
  if (!masks.ok()) co_return masks;
  super_.clean = true;
  auto written = co_await write_super();
  if (written.ok()) on_disk_clean_ = true;
  co_return written;
}

Task<Result<void>> Blobstore::wipe() {
  co_await metadata_.lock();
  const AsyncLock held(metadata_);
  std::memset(super_image_.data(), 0, kPageSize);
  const IoStatus status = co_await write(*channel_, 0, super_image_.data(), kPageSize, true);
  if (!status.ok()) co_return fail(status, "Cannot wipe the pool's super block");
  failed_ = Error{ErrorCode::kFailedPrecondition, "pool was destroyed", 2};
  co_return Result<void>();
}

}  // namespace mayastor

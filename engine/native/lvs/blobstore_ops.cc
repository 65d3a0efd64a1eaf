// Operations on blobs: create, delete, resize, xattrs. See blobstore.h.
#include <algorithm>

#include "core/reactor.h"
#include "lvs/blobstore.h"
#include "lvs/io_error.h"

namespace mayastor {

using lvs_format::BlobMetadata;
using lvs_format::kClustersPerExtentPage;

namespace {

Error no_space(uint64_t wanted, uint64_t free) {
  return Error{ErrorCode::kResourceExhausted,
               "pool has " + std::to_string(free) + " free clusters, " + std::to_string(wanted) +
                   " are needed",
               28};
}
Error no_pages() {
  return Error{ErrorCode::kResourceExhausted, "pool has no free metadata pages", 28};
}
// More could not be imported again.
Error too_many_clusters(uint64_t wanted, uint64_t left) {
  return Error{ErrorCode::kResourceExhausted,
               "all lvols of the pool together may only have " + std::to_string(left) +
                   " more clusters, allocated or not; " + std::to_string(wanted) +
                   " are needed: use another pool, or one with larger clusters",
               28};
}
Error locked() {
  return Error{ErrorCode::kFailedPrecondition,
               "its metadata has flags of a newer version: it is read-only here", 30};
}
uint64_t extent_pages_for(uint64_t clusters) {
  return (clusters + kClustersPerExtentPage - 1) / kClustersPerExtentPage;
}

}  // namespace

Task<Result<std::shared_ptr<Blob>>> Blobstore::create_blob(BlobOptions options) {
  const uint64_t wanted = options.thin ? 0 : options.num_clusters;
  if (failed_) co_return *failed_;
  if (wanted > clusters_.free()) co_return no_space(wanted, clusters_.free());
  if (options.num_clusters > limits().max_blob_clusters) {
    co_return too_many_clusters(options.num_clusters, limits().max_blob_clusters);
  }
  auto root = claim_pages(1, 0);
  if (!root) co_return no_pages();
  auto extents = claim_pages(extent_pages_for(wanted), 1);
  if (!extents) {
    release_pages(*root);
    co_return no_pages();
  }
  auto clusters = claim_clusters(wanted);
  CHECK(clusters.has_value());

  BlobMetadata meta;
  meta.invalid_flags = lvs_format::kInvalidExtentTable;
  if (options.thin) meta.invalid_flags |= lvs_format::kInvalidThin;
  meta.md_ro_flags =
      base_->supports(IoType::kUnmap) ? lvs_format::kClearUnmap : lvs_format::kClearNone;
  meta.xattrs = std::move(options.xattrs);
  meta.clusters.assign(options.num_clusters, 0);
  std::copy(clusters->begin(), clusters->end(), meta.clusters.begin());
  meta.extent_pages.assign(extent_pages_for(options.num_clusters), 0);
  std::copy(extents->begin(), extents->end(), meta.extent_pages.begin());

  const uint64_t id = lvs_format::blob_id_of(root->front());
  auto blob = std::make_shared<Blob>(id, BlobMetadata());
  // Without the lock: first writes to other blobs go on meanwhile.
  auto done = co_await clear_new_clusters(*clusters);
  co_await metadata_.lock();
  const AsyncLock held(metadata_);
  if (done.ok()) done = co_await begin_change();
  if (done.ok()) {
    std::vector<uint32_t> indexes(extents->size());
    for (uint32_t i = 0; i < indexes.size(); ++i) indexes[i] = i;
    done = co_await write_extent_pages(id, &meta, std::move(indexes));
  }
  if (done.ok()) done = co_await commit(blob.get(), std::move(meta));
  if (!done.ok()) {
    if (!failed_) {
      release_clusters(*clusters);
      release_pages(*extents);
      release_pages(*root);
    }
    co_return done.error();
  }
  blob->publish_map();
  blobs_.emplace(id, blob);
  blob_clusters_ += blob->meta.clusters.size();
  co_return blob;
}

Task<Result<void>> Blobstore::delete_blob(std::shared_ptr<Blob> blob) {
  std::vector<uint32_t> clusters;
  {
    co_await metadata_.lock();
    const AsyncLock held(metadata_);
    CHECK(blob->pending.empty());
    if (blob->clone_count > 0) {
      co_return Error{ErrorCode::kFailedPrecondition, "clones depend on it", 16};
    }
    if (blob->metadata_locked()) co_return locked();
    auto begun = co_await begin_change();
    if (!begun.ok()) co_return begun;
    auto gone = co_await empty_root(blob->root_page());
    if (!gone.ok()) co_return gone;
    blobs_.erase(blob->id());
    blob_clusters_ -= blob->meta.clusters.size();
    if (blob->parent != nullptr) --blob->parent->clone_count;
    std::vector<uint32_t> pages = blob->chain;
    for (const uint32_t page : blob->meta.extent_pages) {
      if (page != 0) pages.push_back(page);
    }
    auto zeroed = co_await zero_pages(pages, false);
    // Nothing refers to them; those that could not be zeroed stay claimed until the next import.
    if (zeroed.ok()) release_pages(pages);
    release_pages(std::vector<uint32_t>(1, blob->root_page()));
    for (const uint32_t cluster : blob->meta.clusters) {
      if (cluster != 0) clusters.push_back(cluster);
    }
  }
  const uint64_t method = blob->meta.md_ro_flags & lvs_format::kClearMethodMask;
  co_await clear_freed_clusters(method, clusters);
  release_clusters(clusters);
  co_return Result<void>();
}

Task<Result<void>> Blobstore::resize_blob(std::shared_ptr<Blob> blob, uint64_t num_clusters) {
  // The number of clusters changes only here, and the caller lets one resize run at a time.
  const uint64_t old_count = blob->meta.clusters.size();
  const uint64_t kept = std::min<uint64_t>(old_count, num_clusters);
  const uint64_t added = blob->meta.thin() ? 0 : num_clusters - kept;
  if (num_clusters == old_count) co_return Result<void>();
  if (failed_) co_return *failed_;
  if (blob->metadata_locked() || blob->read_only()) co_return locked();
  if (added > clusters_.free()) co_return no_space(added, clusters_.free());
  if (num_clusters > kept && num_clusters - kept > blob_clusters_left()) {
    co_return too_many_clusters(num_clusters - kept, blob_clusters_left());
  }
  if (num_clusters > lvs_format::kBlobClustersMax) {
    co_return too_many_clusters(num_clusters, lvs_format::kBlobClustersMax);
  }
  auto clusters = claim_clusters(added);
  CHECK(clusters.has_value());
  auto done = co_await clear_new_clusters(*clusters);
  std::vector<uint32_t> freed;
  {
    co_await metadata_.lock();
    const AsyncLock held(metadata_);
    if (done.ok()) done = co_await begin_change();
    if (!done.ok()) {
      release_clusters(*clusters);
      co_return done;
    }
    const BlobMetadata& now = blob->meta;
    BlobMetadata next = now;
    for (uint64_t i = kept; i < old_count; ++i) {
      if (now.clusters[i] != 0) freed.push_back(now.clusters[i]);
    }
    next.clusters.resize(num_clusters, 0);
    std::copy(clusters->begin(), clusters->end(),
              next.clusters.begin() + static_cast<std::ptrdiff_t>(kept));

    // Extent pages at and after the resize point are written anew elsewhere, so that the root alone
    // decides which size is true.
    std::vector<uint32_t> indexes, old_pages;
    std::optional<std::vector<uint32_t>> pages = std::vector<uint32_t>();
    if (next.has_table()) {
      const auto first = static_cast<uint32_t>(kept / kClustersPerExtentPage);
      for (uint64_t i = first; i < now.extent_pages.size(); ++i) {
        if (now.extent_pages[i] != 0) old_pages.push_back(now.extent_pages[i]);
      }
      next.extent_pages.resize(extent_pages_for(num_clusters), 0);
      for (uint32_t i = first; i < next.extent_pages.size(); ++i) {
        const bool had_one = i < now.extent_pages.size() && now.extent_pages[i] != 0;
        if (had_one || !now.thin()) indexes.push_back(i);
      }
      pages = claim_pages(indexes.size(), 1);
      if (!pages) {
        release_clusters(*clusters);
        co_return no_pages();
      }
      for (size_t i = 0; i < indexes.size(); ++i) next.extent_pages[indexes[i]] = (*pages)[i];
    }
    done = co_await write_extent_pages(blob->id(), &next, indexes);
    if (done.ok()) done = co_await commit(blob.get(), std::move(next));
    if (!done.ok()) {
      if (!failed_) {
        release_clusters(*clusters);
        release_pages(*pages);
      }
      co_return done;
    }
    blob->publish_map();
    blob_clusters_ = blob_clusters_ - old_count + num_clusters;
    auto zeroed = co_await zero_pages(old_pages, false);
    if (zeroed.ok()) release_pages(old_pages);
  }
  const uint64_t method = blob->meta.md_ro_flags & lvs_format::kClearMethodMask;
  co_await clear_freed_clusters(method, freed);
  release_clusters(freed);
  co_return Result<void>();
}

Task<Result<void>> Blobstore::change_xattrs(std::shared_ptr<Blob> blob,
                                            std::vector<XattrChange> changes) {
  co_await metadata_.lock();
  const AsyncLock held(metadata_);
  if (blob->metadata_locked()) co_return locked();
  BlobMetadata next = blob->meta;
  for (XattrChange& change : changes) {
    if (change.value) {
      next.set(change.name, std::move(*change.value));
    } else {
      next.remove(change.name);
    }
  }
  if (next.xattrs == blob->meta.xattrs) co_return Result<void>();
  auto begun = co_await begin_change();
  if (!begun.ok()) co_return begun;
  co_return co_await commit(blob.get(), std::move(next));
}

}  // namespace mayastor

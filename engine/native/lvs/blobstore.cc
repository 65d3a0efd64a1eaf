// Metadata writes and claims: see blobstore.h. Loading is in blobstore_load.cc, operations on blobs
// in blobstore_ops.cc, data areas in blobstore_data.cc.
#include "lvs/blobstore.h"

#include <algorithm>
#include <cstring>

#include "core/reactor.h"
#include "lvs/io_error.h"

namespace mayastor {

using lvs_format::BlobMetadata;
using lvs_format::kPageSize;
using lvs_format::Page;

Blobstore::~Blobstore() = default;

Task<Result<void>> Blobstore::open_base() {
  home_ = &Reactor::current();
  auto channel = co_await base_->open_channel();
  if (!channel.ok()) co_return channel_error(channel.error());
  channel_ = channel.take();
  page_buffer_ = AlignedBuffer(kPageSize);
  super_image_ = AlignedBuffer(kPageSize);
  co_return Result<void>();
}

lvs_format::Limits Blobstore::limits() const noexcept {
  lvs_format::Limits limits;
  limits.total_clusters = super_.total_clusters();
  limits.first_data_cluster = super_.md_clusters();
  limits.md_len = super_.md_len;
  limits.max_blob_clusters = std::min(limits.max_blob_clusters, blob_clusters_left());
  return limits;
}

std::shared_ptr<Blob> Blobstore::super_blob() const {
  const auto at = blobs_.find(super_.super_blob);
  return at == blobs_.end() ? nullptr : at->second;
}

Error Blobstore::fail(IoStatus status, std::string_view what) {
  Error error = io_error(status, std::string(what));
  if (!failed_) {
    failed_ = Error{ErrorCode::kFailedPrecondition,
                    "pool takes no changes since its metadata could not be written; repair the "
                    "device, export the pool and import it again (" +
                        error.message + ")",
                    error.error_number};
  }
  return error;
}

Task<IoStatus> Blobstore::barrier() {
  if (!base_->has_volatile_cache()) co_return io_status::kOk;
  co_return co_await flush(*channel_);
}

Task<Result<void>> Blobstore::begin_change() {
  if (failed_) co_return *failed_;
  if (on_disk_clean_) {
    super_.clean = false;
    auto written = co_await write_super();
    if (!written.ok()) co_return written;
    on_disk_clean_ = false;
  }
  co_return co_await empty_old_shadow();
}

// An image that is not kept up must not be taken for one. A page that is taken again is written by
// its owner.
Task<Result<void>> Blobstore::empty_old_shadow() {
  if (!old_shadow_ || (pages_.test(*old_shadow_) && old_shadow_ != shadow_page_)) {
    co_return Result<void>();
  }
  std::vector<uint32_t> page(1, *old_shadow_);
  co_return co_await zero_pages(std::move(page), true);
}

Task<Result<void>> Blobstore::write_super() {
  lvs_format::encode_super(super_, std::span<uint8_t, kPageSize>(super_image_.data(), kPageSize));
  const IoStatus status = co_await write(*channel_, 0, super_image_.data(), kPageSize, true);
  if (!status.ok()) co_return fail(status, "Cannot write the pool's super block");
  co_return Result<void>();
}

Task<Result<void>> Blobstore::write_page(uint32_t page, const Page* image, bool durable) {
  std::memcpy(page_buffer_.data(), image->data(), kPageSize);
  const uint64_t offset = page_offset(page);
  const IoStatus status =
      co_await write(*channel_, offset, page_buffer_.data(), kPageSize, durable);
  if (!status.ok()) co_return io_error(status, "Cannot write pool metadata");
  if (old_shadow_ == page) old_shadow_.reset();
  co_return Result<void>();
}

Task<Result<void>> Blobstore::rewrite_page(uint32_t page, const Page* image) {
  // Whatever the block size: it may be one that was asked for, larger than what the device writes
  // whole or not at all.
  if (shadow_page_) {
    const Page copy = lvs_format::shadow_of(*image, page);
    auto written = co_await write_page(*shadow_page_, &copy, true);
    if (!written.ok()) co_return written;  // the page itself is untouched
  }
  std::memcpy(page_buffer_.data(), image->data(), kPageSize);
  const uint64_t offset = page_offset(page);
  const IoStatus status = co_await write(*channel_, offset, page_buffer_.data(), kPageSize, true);
  if (!status.ok()) co_return fail(status, "Cannot write pool metadata");
  co_return Result<void>();
}

Task<Result<void>> Blobstore::zero_pages(std::vector<uint32_t> pages, bool durable) {
  const Page zeroes{};
  for (const uint32_t page : pages) {
    auto written = co_await write_page(page, &zeroes, durable);
    if (!written.ok()) co_return written;
  }
  co_return Result<void>();
}

// The shadow says before that the root is to be empty: recovery must take a torn one neither for a
// damaged one nor, from an older shadow, for one that is to be brought back.
Task<Result<void>> Blobstore::empty_root(uint32_t page) {
  if (shadow_page_) {
    const Page nothing = lvs_format::shadow_of(Page{}, page);
    auto marked = co_await write_page(*shadow_page_, &nothing, true);
    if (!marked.ok()) co_return marked;  // the page itself is untouched
  }
  std::vector<uint32_t> root(1, page);
  auto gone = co_await zero_pages(std::move(root), true);
  if (!gone.ok()) {
    const IoStatus status = io_status_from_errno(gone.error().error_number, true);
    co_return fail(status, "Cannot write pool metadata");
  }
  co_return Result<void>();
}

// Makes `next` the metadata of `blob`, on disk and in memory. New extent pages it names must have
// been written. On an error before the commit point nothing changed.
Task<Result<void>> Blobstore::commit(Blob* blob, BlobMetadata next) {
  std::vector<Page> images = lvs_format::encode_chain(blob->id(), next);
  auto claimed = claim_pages(images.size() - 1, 0);
  if (!claimed) {
    co_return Error{ErrorCode::kResourceExhausted, "pool has no free metadata pages", 28};
  }
  const std::vector<uint32_t> chain = std::move(*claimed);
  std::vector<uint32_t> numbers = {blob->root_page()};
  numbers.insert(numbers.end(), chain.begin(), chain.end());
  lvs_format::link_chain(images, numbers);
  for (size_t i = 1; i < images.size(); ++i) {
    auto written = co_await write_page(numbers[i], &images[i], false);
    if (!written.ok()) {
      release_pages(chain);
      co_return written;
    }
  }
  const IoStatus flushed = co_await barrier();
  if (!flushed.ok()) {
    release_pages(chain);
    co_return io_error(flushed, "Cannot flush pool metadata");
  }
  // A new root page has a shadow too: torn, it could not be told from one that is damaged. Without
  // one, only onto an empty page: what lay there, such as the shadow that was given up, would not.
  if (!shadow_page_ && !blobs_.contains(blob->id())) {
    std::vector<uint32_t> root(1, blob->root_page());
    auto zeroed = co_await zero_pages(std::move(root), true);
    if (!zeroed.ok()) {
      release_pages(chain);
      co_return zeroed;
    }
  }
  auto written = co_await rewrite_page(numbers[0], &images[0]);
  if (!written.ok()) {
    if (!failed_) release_pages(chain);
    co_return written;
  }
  const std::vector<uint32_t> old_chain = std::exchange(blob->chain, chain);
  blob->meta = std::move(next);
  // Hygiene only: nothing refers to these pages any more. One that cannot be zeroed stays claimed
  // until the next import.
  auto zeroed = co_await zero_pages(old_chain, false);
  if (zeroed.ok()) release_pages(old_chain);
  co_return Result<void>();
}

Task<Result<void>> Blobstore::write_extent_pages(uint64_t blob_id, const BlobMetadata* next,
                                                 std::vector<uint32_t> indexes) {
  for (const uint32_t index : indexes) {
    const Page image = lvs_format::encode_extent_page(
        blob_id, index * lvs_format::kClustersPerExtentPage, next->clusters);
    auto written = co_await write_page(next->extent_pages[index], &image, false);
    if (!written.ok()) co_return written;
  }
  co_return Result<void>();  // commit() flushes before the root
}

std::optional<std::vector<uint32_t>> Blobstore::claim_clusters(uint64_t count) {
  if (count > clusters_.free()) return std::nullopt;
  std::vector<uint32_t> claimed;
  claimed.reserve(count);
  uint32_t from = 0;
  while (claimed.size() < count) {
    const auto cluster = clusters_.find_clear(from);
    CHECK(cluster.has_value());
    clusters_.set(*cluster);
    claimed.push_back(*cluster);
    from = *cluster;
  }
  return claimed;
}

std::optional<std::vector<uint32_t>> Blobstore::claim_pages(uint64_t count, uint32_t from) {
  std::vector<uint32_t> claimed;
  claimed.reserve(count);
  while (claimed.size() < count) {
    auto page = pages_.find_clear(from);
    if (!page && shadow_page_) {
      // The last free page: give up the protection against torn pages rather than the operation.
      pages_.clear(*shadow_page_);
      old_shadow_ = std::exchange(shadow_page_, std::nullopt);
      page = pages_.find_clear(from);
    }
    if (!page) {
      release_pages(claimed);
      return std::nullopt;
    }
    pages_.set(*page);
    claimed.push_back(*page);
  }
  return claimed;
}

void Blobstore::release_clusters(const std::vector<uint32_t>& clusters) {
  for (const uint32_t cluster : clusters) clusters_.clear(cluster);
}

void Blobstore::release_pages(const std::vector<uint32_t>& pages) {
  for (const uint32_t page : pages) pages_.clear(page);
  if (shadow_page_ || pages.empty() || !protects_) return;
  take_shadow_page();  // it was given up for want of pages
}

void Blobstore::take_shadow_page() {
  CHECK(!shadow_page_);
  protects_ = true;
  shadow_page_ = pages_.find_last_clear();
  if (shadow_page_) pages_.set(*shadow_page_);
}

std::string Blobstore::audit() const {
  std::map<uint32_t, uint64_t> cluster_owner, page_owner;
  std::string problems;
  const auto own = [&](std::map<uint32_t, uint64_t>& owners, const BitArray& taken, uint32_t what,
                       uint64_t id, const char* kind) {
    if (!owners.emplace(what, id).second) {
      problems += std::string(kind) + " " + std::to_string(what) + " has two owners; ";
    }
    if (!taken.test(what)) {
      problems += std::string(kind) + " " + std::to_string(what) + " is not marked; ";
    }
  };
  for (uint32_t i = 0; i < super_.md_clusters(); ++i)
    own(cluster_owner, clusters_, i, 0, "cluster");
  if (shadow_page_) own(page_owner, pages_, *shadow_page_, 0, "page");
  for (const auto& [id, blob] : blobs_) {
    own(page_owner, pages_, blob->root_page(), id, "page");
    for (const uint32_t page : blob->chain) own(page_owner, pages_, page, id, "page");
    for (const uint32_t page : blob->meta.extent_pages) {
      if (page != 0) own(page_owner, pages_, page, id, "page");
    }
    for (const uint32_t cluster : blob->meta.clusters) {
      if (cluster != 0) own(cluster_owner, clusters_, cluster, id, "cluster");
    }
    for (const auto& [index, pending] : blob->pending) {
      own(cluster_owner, clusters_, pending->device_cluster, id, "cluster");
    }
  }
  uint64_t mapped = 0;
  for (const auto& [id, blob] : blobs_) mapped += blob->meta.clusters.size();
  if (mapped != blob_clusters_) problems += "clusters of blobs are miscounted; ";
  if (cluster_owner.size() != clusters_.used()) problems += "clusters leaked; ";
  if (page_owner.size() != pages_.used()) problems += "metadata pages leaked; ";
  return problems;
}

}  // namespace mayastor

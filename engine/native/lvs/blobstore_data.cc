// What happens in the data area: giving a thin blob a cluster, zeroing, copying, clearing.
// See blobstore.h.
#include <algorithm>

#include "core/reactor.h"
#include "lvs/blobstore.h"
#include "lvs/io_error.h"

namespace mayastor {
namespace {

constexpr uint64_t kCopyPiece = 1u << 20;       // of copying and of zeroing by writes
constexpr uint64_t kLargestRange = 1ull << 30;  // one unmap or write zeroes request
constexpr uint64_t kWipeBytes = 8ull << 20;     // of a new lvol, where unmap is missing

struct Range {
  uint64_t offset, length;
};

// Whole runs of neighbouring clusters, for few large requests.
std::vector<Range> ranges_of(std::vector<uint32_t> clusters, uint64_t cluster_size) {
  std::sort(clusters.begin(), clusters.end());
  std::vector<Range> ranges;
  for (const uint32_t cluster : clusters) {
    const uint64_t offset = cluster * cluster_size;
    const bool joins = !ranges.empty() && ranges.back().offset + ranges.back().length == offset &&
                       ranges.back().length + cluster_size <= kLargestRange;
    if (joins) {
      ranges.back().length += cluster_size;
    } else {
      ranges.push_back({offset, cluster_size});
    }
  }
  return ranges;
}

}  // namespace

Task<IoStatus> Blobstore::zero_range(uint64_t offset, uint64_t length) {
  if (base_->supports(IoType::kWriteZeroes)) {
    while (length > 0) {
      const uint64_t piece = std::min(length, kLargestRange);
      const IoStatus status = co_await write_zeroes(*channel_, offset, piece);
      if (!status.ok()) {
        if (status.is(io_status::kInvalidOpcode)) break;  // write the rest
        co_return status;
      }
      offset += piece;
      length -= piece;
    }
  }
  if (length == 0) co_return io_status::kOk;
  const AlignedBuffer zeroes(std::min(length, kCopyPiece));
  while (length > 0) {
    const uint64_t piece = std::min(length, kCopyPiece);
    const IoStatus status = co_await write(*channel_, offset, zeroes.data(), piece, false);
    if (!status.ok()) co_return status;
    offset += piece;
    length -= piece;
  }
  co_return io_status::kOk;
}

Task<IoStatus> Blobstore::copy_range(uint64_t from, uint64_t to, uint64_t length) {
  AlignedBuffer buffer(std::min(length, kCopyPiece));
  while (length > 0) {
    const uint64_t piece = std::min(length, kCopyPiece);
    const IoStatus got = co_await read(*channel_, from, buffer.data(), piece);
    if (!got.ok()) co_return got;
    const IoStatus put = co_await write(*channel_, to, buffer.data(), piece, false);
    if (!put.ok()) co_return put;
    from += piece;
    to += piece;
    length -= piece;
  }
  co_return io_status::kOk;
}

Task<IoStatus> Blobstore::fill_cluster(const Blob* blob, uint32_t index, uint32_t device_cluster) {
  if (!blob->backing_readable()) co_return io_status::kUnrecoveredRead;
  const uint64_t to = cluster_offset(device_cluster);
  const uint64_t size = super_.cluster_size;
  IoStatus status;
  if (const uint32_t source = blob->resolve(index); source != 0) {
    const uint64_t from = cluster_offset(source);
    status = co_await copy_range(from, to, size);
  } else {
    status = co_await zero_range(to, size);
  }
  if (!status.ok()) co_return status;
  co_return co_await barrier();
}

Task<IoStatus> Blobstore::allocate_cluster(std::shared_ptr<Blob> blob, uint32_t index) {
  CHECK(index < blob->map().size());
  if (blob->map().get(index) != 0) co_return io_status::kOk;
  if (const auto at = blob->pending.find(index); at != blob->pending.end()) {
    const std::shared_ptr<PendingCluster> pending = at->second;
    co_await pending->finished;
    co_return pending->status;
  }
  auto claimed = claim_clusters(1);
  if (!claimed) co_return io_status::kNoSpace;
  auto pending = std::make_shared<PendingCluster>();
  pending->device_cluster = claimed->front();
  pending->finished.add();
  blob->pending.emplace(index, pending);
  pending->status = co_await allocate_first(blob, index, pending);
  blob->pending.erase(index);
  // After a failed in-place write the cluster may be referred to on disk: it stays claimed.
  if (!pending->committed && !failed_) release_clusters(*claimed);
  pending->finished.done();
  co_return pending->status;
}

Task<IoStatus> Blobstore::allocate_first(std::shared_ptr<Blob> blob, uint32_t index,
                                         std::shared_ptr<PendingCluster> pending) {
  const IoStatus filled = co_await fill_cluster(blob.get(), index, pending->device_cluster);
  if (!filled.ok()) co_return filled;
  pending->filled = true;
  co_await metadata_.lock();
  const AsyncLock held(metadata_);
  if (pending->committed) co_return io_status::kOk;  // a neighbour took it along
  auto begun = co_await begin_change();
  auto done = begun;
  if (begun.ok()) done = co_await commit_allocation(blob.get(), index);
  if (done.ok()) co_return io_status::kOk;
  // By the errno, not by the code: memory may be exhausted too, and that is no lack of space.
  co_return io_status_from_errno(done.error().error_number, true);
}

// Puts all filled clusters of index's extent page into the metadata, in one write.
Task<Result<void>> Blobstore::commit_allocation(Blob* blob, uint32_t index) {
  const uint32_t extent = index / lvs_format::kClustersPerExtentPage;
  const uint32_t first = extent * lvs_format::kClustersPerExtentPage;
  std::vector<std::pair<uint32_t, std::shared_ptr<PendingCluster>>> ready;
  for (auto at = blob->pending.lower_bound(first);
       at != blob->pending.end() && at->first - first < lvs_format::kClustersPerExtentPage; ++at) {
    if (at->second->filled && !at->second->committed) ready.emplace_back(at->first, at->second);
  }
  const bool in_place = blob->meta.has_table() && blob->meta.extent_pages[extent] != 0;
  if (in_place) {
    for (const auto& [at, pending] : ready) blob->meta.clusters[at] = pending->device_cluster;
    const lvs_format::Page image =
        lvs_format::encode_extent_page(blob->id(), first, blob->meta.clusters);
    auto written = co_await rewrite_page(blob->meta.extent_pages[extent], &image);
    if (!written.ok()) {
      for (const auto& [at, pending] : ready) blob->meta.clusters[at] = 0;
      co_return written;
    }
  } else {
    lvs_format::BlobMetadata next = blob->meta;
    for (const auto& [at, pending] : ready) next.clusters[at] = pending->device_cluster;
    std::optional<std::vector<uint32_t>> pages;
    if (next.has_table()) {
      pages = claim_pages(1, 1);
      if (!pages) {
        co_return Error{ErrorCode::kResourceExhausted, "pool has no free metadata pages", 28};
      }
      next.extent_pages[extent] = pages->front();
      std::vector<uint32_t> indexes(1, extent);
      auto written = co_await write_extent_pages(blob->id(), &next, indexes);
      if (!written.ok()) {
        release_pages(*pages);
        co_return written;
      }
    }
    auto committed = co_await commit(blob, std::move(next));
    if (!committed.ok()) {
      if (pages && !failed_) release_pages(*pages);
      co_return committed;
    }
  }
  for (const auto& [at, pending] : ready) {
    pending->committed = true;
    blob->publish_cluster(at);
  }
  co_return Result<void>();
}

Task<Result<void>> Blobstore::clear_new_clusters(std::vector<uint32_t> clusters) {
  const bool unmaps = base_->supports(IoType::kUnmap) && base_->unmap_zeroes();
  // A device that unmaps, but may show old data afterwards, is told to zero all of it.
  const bool all =
      unmaps || (base_->supports(IoType::kUnmap) && base_->supports(IoType::kWriteZeroes));
  uint64_t left = all ? UINT64_MAX : kWipeBytes;
  if (!all) {
    // The start of the lvol, where file systems and partition tables are recognised.
    const uint64_t wiped = (kWipeBytes + super_.cluster_size - 1) / super_.cluster_size;
    if (clusters.size() > wiped) clusters.resize(wiped);
  }
  const std::vector<Range> ranges = ranges_of(std::move(clusters), super_.cluster_size);
  for (const Range range : ranges) {
    if (left == 0) break;
    IoStatus status;
    if (unmaps) {
      status = co_await unmap(*channel_, range.offset, range.length);
    } else {
      const uint64_t length = std::min(range.length, left);
      status = co_await zero_range(range.offset, length);
      left -= length;
    }
    if (!status.ok()) co_return io_error(status, "Cannot clear the clusters of a new lvol");
  }
  co_return Result<void>();
}

Task<void> Blobstore::clear_freed_clusters(uint64_t method, std::vector<uint32_t> clusters) {
  const bool unmaps = method == lvs_format::kClearUnmap || method == 0;
  const bool zeroes = method == lvs_format::kClearWriteZeroes;
  if (!zeroes && !(unmaps && base_->supports(IoType::kUnmap))) co_return;
  const std::vector<Range> ranges = ranges_of(std::move(clusters), super_.cluster_size);
  for (const Range range : ranges) {
    IoStatus status;
    if (zeroes) {
      status = co_await zero_range(range.offset, range.length);
    } else {
      status = co_await unmap(*channel_, range.offset, range.length);
    }
    // Giving space back is a courtesy: whoever gets these clusters next clears them first.
    if (!status.ok()) co_return;
  }
}

}  // namespace mayastor

// Blobstore: the metadata engine of a pool: which clusters and metadata pages are taken, the blobs,
// and how each change reaches the disk.
// Why the order of writes matters: a crash may leave any subset of what was not flushed. So new
// pages are durable before the root page that refers to them (the commit point), and what the old
// root referred to is given up only after the new one is durable. A page rewritten in place could
// tear between device blocks, as could a root page that is new or is emptied; a copy that names
// that page is therefore written first into a spare page ("the shadow"), from which recovery
// repairs it. Other implementations ignore the shadow: its blob id does not belong to the page it
// lies in and nothing links to it. A root page that is damaged all the same stops the import: it
// may be all that is left of a lvol. Owner: the home reactor. Invariants: metadata writes happen
// with metadata_ held; a claimed cluster or page has at most one owner; after a failed in-place
// write nothing more is changed
// (`failed`), since memory and disk may differ.
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bdev/bdev.h"
#include "core/buffer.h"
#include "core/reactor.h"
#include "core/task.h"
#include "lvs/bit_array.h"
#include "lvs/blob.h"
#include "lvs/format.h"

namespace mayastor {

struct BlobstoreFormatOptions {
  uint32_t cluster_size = 0;
  uint32_t md_reserve_ratio_percent = 100;
  std::vector<lvs_format::Xattr> super_xattrs;  // of the super blob
};

struct BlobOptions {
  std::vector<lvs_format::Xattr> xattrs;
  uint64_t num_clusters = 0;
  bool thin = false;
};

class Blobstore final {
 public:
  // Writes an empty store and loads it. Overwrites whatever was there: check first.
  static Task<Result<std::unique_ptr<Blobstore>>> format(std::shared_ptr<Bdev> base,
                                                         BlobstoreFormatOptions options);
  static Task<Result<std::unique_ptr<Blobstore>>> load(std::shared_ptr<Bdev> base);
  // Only the super block. kNotFound: it was read, and is none; kUnavailable: it cannot be read.
  static Task<Result<lvs_format::SuperBlock>> read_super(std::shared_ptr<Bdev> base);
  // The xattrs of the super blob, without loading and changing nothing; empty when there is none.
  static Task<Result<std::vector<lvs_format::Xattr>>> read_super_blob_xattrs(
      std::shared_ptr<Bdev> base, lvs_format::SuperBlock super);
  ~Blobstore();
  Blobstore(const Blobstore&) = delete;
  Blobstore& operator=(const Blobstore&) = delete;

  // Writes the masks and the clean mark. On an error the disk is as after a crash: the next load
  // recovers everything that was acknowledged.
  Task<Result<void>> unload();
  Task<Result<void>> wipe();  // the store is gone

  Task<Result<std::shared_ptr<Blob>>> create_blob(BlobOptions options);
  Task<Result<void>> delete_blob(std::shared_ptr<Blob> blob);
  Task<Result<void>> resize_blob(std::shared_ptr<Blob> blob, uint64_t num_clusters);
  struct XattrChange {
    std::string name;
    std::optional<std::string> value;  // raw; nullopt removes
  };
  Task<Result<void>> change_xattrs(std::shared_ptr<Blob> blob, std::vector<XattrChange> changes);
  // Gives a thin blob its cluster `index`: zeroes or the parent's data, durable with its metadata
  // on return. Many may ask for the same one.
  Task<IoStatus> allocate_cluster(std::shared_ptr<Blob> blob, uint32_t index);

  [[nodiscard]] const lvs_format::SuperBlock& super() const noexcept { return super_; }
  [[nodiscard]] const std::map<uint64_t, std::shared_ptr<Blob>>& blobs() const noexcept {
    return blobs_;
  }
  [[nodiscard]] std::shared_ptr<Blob> super_blob() const;
  [[nodiscard]] uint64_t data_clusters() const noexcept {
    return super_.total_clusters() - super_.md_clusters();
  }
  [[nodiscard]] uint64_t free_clusters() const noexcept { return clusters_.free(); }
  [[nodiscard]] uint64_t free_pages() const noexcept {
    return pages_.free() + (shadow_page_ ? 1u : 0u);
  }
  [[nodiscard]] bool recovered() const noexcept { return recovered_; }
  // Root pages without a shadow that the crash cut in two: by what is left of them, those of blobs
  // whose making or removal did not come to its end. They were emptied.
  [[nodiscard]] const std::vector<uint32_t>& cut_off_roots() const noexcept {
    return cut_off_roots_;
  }
  // Pages that are named as the root of a blob, or damaged, though nothing of it is left to load:
  // what was there has gone, by a deletion or creation that was cut off or by damage.
  [[nodiscard]] const std::vector<uint32_t>& gone_roots() const noexcept { return gone_roots_; }
  // Takes no more changes: a metadata write failed.
  [[nodiscard]] bool failed() const noexcept { return failed_.has_value(); }
  [[nodiscard]] Reactor& home() const noexcept { return *home_; }
  // Every cluster and page has exactly the owner the maps say; for tests. Empty when all is well.
  [[nodiscard]] std::string audit() const;

 private:
  struct Scan;  // what recovery found in the metadata region
  explicit Blobstore(std::shared_ptr<Bdev> base) : base_(std::move(base)) {}
  Task<Result<void>> open_base();

  // Loading (blobstore_load.cc).
  Task<Result<void>> load_all();
  Task<Result<std::vector<uint32_t>>> roots_of_clean_store();
  Task<Result<void>> scan(Scan* scan);
  Task<Result<void>> read_page(uint32_t page, const Scan* scan);  // into page_buffer_
  Task<Result<bool>> repair_from_shadow(uint32_t page, Scan* scan);
  Task<Result<void>> repair_torn_roots(Scan* scan);
  [[nodiscard]] Error lost_roots(const std::vector<uint32_t>& pages) const;
  // What is in no blob that was found (blobstore_orphans.cc).
  void note_stray(uint32_t page, std::span<const uint8_t, lvs_format::kPageSize> bytes,
                  Scan* scan) const;
  Task<Result<void>> ask_what_nobody_owns(const Scan* scan,
                                          const std::vector<std::shared_ptr<Blob>>& dropped);
  Task<BitArray> roots_of_last_export();
  Task<Result<void>> write_repairs(const Scan* scan);
  Task<Result<std::shared_ptr<Blob>>> load_blob(uint32_t root, Scan* scan);  // null: dropped
  Task<Result<lvs_format::ExtentPage>> load_extent_page(uint64_t blob_id, uint32_t index,
                                                        uint32_t page, Scan* scan);
  Result<void> link_parents();
  Task<Result<void>> settle_snapshots(const Scan* scan);
  Result<void> claim_all();
  Task<Result<void>> finish_recovery(const Scan* scan);
  Task<Result<void>> write_masks();

  // Metadata writes (blobstore.cc); metadata_ is held.
  Task<Result<void>> begin_change();  // refuses after a failure; marks the store dirty once
  Task<Result<void>> empty_old_shadow();
  Task<Result<void>> write_super();
  Task<Result<void>> write_page(uint32_t page, const lvs_format::Page* image, bool durable);
  Task<Result<void>> rewrite_page(uint32_t page, const lvs_format::Page* image);  // in place
  Task<Result<void>> zero_pages(std::vector<uint32_t> pages, bool durable);
  Task<Result<void>> empty_root(uint32_t page);  // the commit point of a delete
  Task<Result<void>> commit(Blob* blob, lvs_format::BlobMetadata next);
  Task<Result<void>> write_extent_pages(uint64_t blob_id, const lvs_format::BlobMetadata* next,
                                        std::vector<uint32_t> indexes);
  Task<Result<void>> commit_allocation(Blob* blob, uint32_t index);
  Task<IoStatus> allocate_first(std::shared_ptr<Blob> blob, uint32_t index,
                                std::shared_ptr<PendingCluster> pending);

  // Data areas.
  Task<IoStatus> fill_cluster(const Blob* blob, uint32_t index, uint32_t device_cluster);
  Task<IoStatus> zero_range(uint64_t offset, uint64_t length);
  Task<IoStatus> copy_range(uint64_t from, uint64_t to, uint64_t length);
  Task<Result<void>> clear_new_clusters(std::vector<uint32_t> clusters);
  Task<void> clear_freed_clusters(uint64_t method, std::vector<uint32_t> clusters);
  Task<IoStatus> barrier();  // flush when the base has a volatile cache

  // Claims, in memory. All or nothing.
  [[nodiscard]] std::optional<std::vector<uint32_t>> claim_clusters(uint64_t count);
  [[nodiscard]] std::optional<std::vector<uint32_t>> claim_pages(uint64_t count, uint32_t from);
  void release_clusters(const std::vector<uint32_t>& clusters);
  void release_pages(const std::vector<uint32_t>& pages);
  void take_shadow_page();

  [[nodiscard]] uint64_t page_offset(uint32_t page) const noexcept {
    return (uint64_t{super_.md_start} + page) * lvs_format::kPageSize;
  }
  [[nodiscard]] uint64_t cluster_offset(uint32_t cluster) const noexcept {
    return uint64_t{cluster} * super_.cluster_size;
  }
  [[nodiscard]] lvs_format::Limits limits() const noexcept;
  // What blobs may yet grow by (SuperBlock::max_blob_clusters).
  [[nodiscard]] uint64_t blob_clusters_left() const noexcept {
    const uint64_t most = super_.max_blob_clusters();
    return most - std::min(most, blob_clusters_);
  }
  [[nodiscard]] Error fail(IoStatus status, std::string_view what);  // and refuse changes from now

  std::shared_ptr<Bdev> base_;
  Reactor* home_ = nullptr;
  std::unique_ptr<Channel> channel_;
  AlignedBuffer page_buffer_;  // of the holder of metadata_
  lvs_format::SuperBlock super_;
  AlignedBuffer super_image_;  // as on disk, so that reserved bytes survive
  bool on_disk_clean_ = false;
  bool recovered_ = false;
  std::optional<Error> failed_;
  BitArray pages_;     // of the metadata region
  BitArray clusters_;  // of the device, metadata ones included
  std::map<uint64_t, std::shared_ptr<Blob>> blobs_;
  uint64_t blob_clusters_ = 0;  // sizes of all blobs
  std::optional<uint32_t> shadow_page_;
  std::optional<uint32_t> old_shadow_;  // was given up, and may hold its image still
  bool protects_ = false;  // loading is done: there is a shadow whenever a page is free
  std::vector<uint32_t> cut_off_roots_, gone_roots_;
  AsyncMutex metadata_;
};

}  // namespace mayastor

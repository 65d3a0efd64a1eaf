// LvolStore: one pool on one base bdev, in the blobstore + lvolstore format (FORMAT.md).
// Why: replicas are lvols; a pool made here opens in other implementations and the other way round.
// Owner: the home reactor; every method runs there. Operations that change the store are queued
// one after the other. Invariants: an operation that has returned ok is on stable storage; one that
// was cut off by a crash happened fully or not at all after the next import; an error leaves the
// store as it was.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bdev/bdev.h"
#include "core/task.h"
#include "util/result.h"
#include "util/uuid.h"

namespace mayastor {

class Blob;
class Blobstore;
class Lvol;
class LvolChannel;

inline constexpr uint32_t kDefaultClusterSize = 4u << 20;
inline constexpr uint32_t kMinClusterSize = 1u << 20;  // limits of Mayastor's pools
inline constexpr uint32_t kMaxClusterSize = 1u << 30;
inline constexpr size_t kLvolStoreNameMax = 63;  // 64 on disk with its NUL
inline constexpr size_t kLvolNameMax = 63;

struct LvolStoreOptions {
  std::string name;
  std::optional<Uuid> uuid;  // none: random
  uint32_t cluster_size = kDefaultClusterSize;
  uint32_t md_reserve_ratio_percent = 100;  // metadata pages per 100 clusters
};

struct LvolOptions {
  std::string name;
  Uuid uuid;
  uint64_t size_bytes = 0;  // rounded up to whole clusters
  bool thin = false;
  // Written together with the lvol, in this order (see Lvol::set_property for the encoding).
  std::vector<std::pair<std::string, std::string>> properties;
};

// What a device holds, found without changing it.
struct StoreProbe {
  bool found = false;  // a readable lvol store
  std::string name;
  Uuid uuid;
};

class LvolStore final : public std::enable_shared_from_this<LvolStore> {
 public:
  // Formats `base`. kInvalidArgument: bad option, too small, or the device holds something (a file
  // system, a partition table, another pool: named in the message, with how to wipe it).
  static Task<Result<std::shared_ptr<LvolStore>>> create(std::shared_ptr<Bdev> base,
                                                         LvolStoreOptions options);
  // Loads the store on `base`, after a crash too. kNotFound: no store there; kInvalidArgument:
  // another name (named) or uuid; kInternal: damaged (says what); kUnavailable: cannot be read.
  static Task<Result<std::shared_ptr<LvolStore>>> import(std::shared_ptr<Bdev> base,
                                                         std::string name,
                                                         std::optional<Uuid> uuid);
  static Task<Result<StoreProbe>> probe(std::shared_ptr<Bdev> base);
  ~LvolStore();
  LvolStore(const LvolStore&) = delete;
  LvolStore& operator=(const LvolStore&) = delete;

  // Unloads; data stays. kFailedPrecondition while a channel of a lvol is open. Afterwards the
  // store and its lvols only answer questions; the base bdev is let go. A device that does not take
  // the clean mark (unclean_export() says why) keeps none of this back: the next import recovers.
  Task<Result<void>> export_store();
  [[nodiscard]] const std::string& unclean_export() const noexcept { return unclean_export_; }
  // Metadata pages of lvols that, by the look of it, were being made or deleted when the crash
  // came, without a copy that proves it. They are gone.
  [[nodiscard]] std::vector<uint32_t> cut_off_lvols() const;
  // Metadata pages that other pages name as a lvol's, or that are damaged, and where no lvol is.
  [[nodiscard]] std::vector<uint32_t> gone_lvols() const;
  // Takes no more changes since its metadata could not be written, or its device has gone; export
  // and import it again.
  [[nodiscard]] bool failed() const noexcept;
  // Called once, on the home reactor, when the device has gone; the lvols are told afterwards.
  void set_lost_handler(std::function<void()> handler) { lost_handler_ = std::move(handler); }
  // Wipes the super block: the pool and all its lvols are gone. Same precondition.
  Task<Result<void>> destroy();

  // kAlreadyExists: name or uuid taken; kInvalidArgument: bad name, size 0, or larger than the
  // whole pool; kResourceExhausted: not enough free clusters (thick) or metadata pages, or the
  // sizes of all lvols together beyond what is kept in memory.
  Task<Result<std::shared_ptr<Lvol>>> create_lvol(LvolOptions options);
  // kNotFound; kFailedPrecondition while a channel of it is open or clones depend on it.
  Task<Result<void>> destroy_lvol(Uuid uuid);
  // Grows at any time; shrinks only while no channel is open.
  Task<Result<void>> resize_lvol(Uuid uuid, uint64_t size_bytes);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] const Uuid& uuid() const noexcept { return uuid_; }
  // Null once exported or destroyed.
  [[nodiscard]] const std::shared_ptr<Bdev>& base() const noexcept { return base_; }
  [[nodiscard]] uint32_t cluster_size() const noexcept;
  [[nodiscard]] uint64_t total_clusters() const noexcept;  // data clusters, free or not
  [[nodiscard]] uint64_t free_clusters() const noexcept;
  [[nodiscard]] uint64_t capacity_bytes() const noexcept;
  [[nodiscard]] uint64_t used_bytes() const noexcept;
  [[nodiscard]] uint64_t committed_bytes() const noexcept;  // sum of lvol sizes, thin ones too
  [[nodiscard]] uint64_t metadata_pages() const noexcept;
  [[nodiscard]] uint64_t free_metadata_pages() const noexcept;
  [[nodiscard]] bool loaded() const noexcept { return store_ != nullptr; }
  // Snapshots included (Lvol::is_snapshot), ordered by creation (metadata page).
  [[nodiscard]] std::vector<std::shared_ptr<Lvol>> lvols() const;
  [[nodiscard]] std::shared_ptr<Lvol> find_lvol(const Uuid& uuid) const;         // or nullptr
  [[nodiscard]] std::shared_ptr<Lvol> find_lvol(const std::string& name) const;  // or nullptr
  // What is wrong with the maps of taken clusters and pages ("" when nothing); for tests.
  [[nodiscard]] std::string audit() const;

 private:
  friend class Lvol;
  friend class LvolChannel;
  LvolStore() = default;
  static Task<Result<std::shared_ptr<LvolStore>>> adopt(std::shared_ptr<Bdev> base,
                                                        std::unique_ptr<Blobstore> store);
  void adopt_blobs();
  std::shared_ptr<Lvol> adopt_blob(std::shared_ptr<Blob> blob, std::string lvol_name, Uuid uuid);
  [[nodiscard]] Result<void> close_lvols(const std::string& what);
  [[nodiscard]] Result<void> check_loaded(const std::string& what) const;
  void detach();

  std::shared_ptr<Bdev> base_;
  std::unique_ptr<Blobstore> store_;  // null once exported or destroyed
  std::string name_;
  Uuid uuid_;
  std::map<uint64_t, std::shared_ptr<Lvol>> lvols_;  // by blob id
  std::string unclean_export_;
  bool lost_ = false;  // its device has gone
  std::function<void()> lost_handler_;
  AsyncMutex operations_;  // one change at a time
};

}  // namespace mayastor

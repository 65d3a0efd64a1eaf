// Nexus: the bdev that mirrors a volume's I/O over its children, and keeps the promise that an
// acknowledged write survives. Writes go to every child in sync and are acknowledged when all of
// them have it; reads go round-robin over the healthy ones.
// Why faults are slow on purpose: a child that fails is cut off on every core and recorded as
// unhealthy in the NexusInfo store *before* any write it missed is acknowledged; if that cannot be
// recorded, or the record is somebody else's by now, the nexus shuts itself down rather than lie.
// Owner: control methods run on the home reactor; channels belong to their own reactor.
// Invariants: an acknowledged write is on every child whose stored record is healthy; whatever a
// child missed since it was last in sync is in its write log; the stored record always has a
// healthy child.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bdev/bdev.h"
#include "bdev/io_counters.h"
#include "core/reactor.h"
#include "core/task.h"
#include "nexus/nexus_info.h"
#include "nexus/rebuild.h"
#include "nexus/write_order.h"
#include "util/result.h"
#include "util/uuid.h"

namespace mayastor::nexus {

class NexusCore;
class RebuildJob;
struct Child;
enum class FaultReason : uint8_t;

inline constexpr uint32_t kMaxChildren = 16;              // bits of the per-I/O child masks used
inline constexpr uint64_t kDataOffsetBytes = 5ull << 20;  // user data on each child starts here
inline constexpr uint64_t kGptCopyBytes = 16 * 1024;      // room for a backup GPT at the end
inline constexpr uint64_t kGptTailBlocks = 2;             // and two more blocks
inline constexpr size_t kRebuildHistoryLimit = 64;        // records kept per nexus

// Repairs of places that could not be read. A disk with more of them is failing as a whole.
inline constexpr size_t kRepairsAtOnce = 4;  // a child
inline constexpr size_t kRepairsMax = 64;    // a child, within kRepairWindowNs
inline constexpr uint64_t kRepairWindowNs = 600ull * 1'000'000'000;
inline constexpr uint64_t kRepairAgainNs = 60ull * 1'000'000'000;  // a place that stays bad
inline constexpr size_t kUnrepairedMax = 64;  // places a child that others answer for

// Numbers of the published interface.
enum class NexusState : uint8_t {
  kUnknown = 0,
  kOnline = 1,
  kDegraded = 2,
  kFaulted = 3,
  kShuttingDown = 4,
  kShutdown = 5,
};
enum class ChildState : uint8_t { kUnknown = 0, kOnline = 1, kDegraded = 2, kFaulted = 3 };
enum class ChildStateReason : uint8_t {
  kNone = 0,
  kInit = 1,
  kClosed = 2,
  kCannotOpen = 3,
  kConfigInvalid = 4,
  kRebuildFailed = 5,
  kIoFailure = 6,
  kByClient = 7,
  kOutOfSync = 8,
  kNoSpace = 9,
  kTimedOut = 10,
  kAdminFailed = 11,
};
enum class ChildAction : uint8_t {
  kOffline = 0,  // fault, may come back
  kOnline = 1,
  kFaultIoError = 2,
  kOfflinePermanent = 3,
};
enum class PreemptPolicy : uint8_t { kArgKey = 0, kHolder = 1 };

struct NexusOptions {
  std::string name;
  Uuid uuid;
  uint64_t size_bytes = 0;            // as requested; the namespace is shorter if the children are
  std::vector<std::string> children;  // URIs
  std::string nexus_info_key;         // "": the nexus uuid
  // Reservations on children (NVMe base specification); skipped when disabled, or key or type is 0.
  bool reservations_enabled = false;
  uint64_t resv_key = 0;
  uint64_t preempt_key = 0;
  std::optional<uint8_t> resv_type;  // absent: write exclusive, all registrants (5)
  PreemptPolicy preempt_policy = PreemptPolicy::kArgKey;
  bool resv_persist = false;  // CPTPL: the target has a ptpl directory
  bool partial_rebuild = true;
  uint64_t rebuild_bytes_per_second = 0;  // 0: no limit
  // The range of controller ids, kept here for whoever shares the nexus.
  uint16_t min_cntlid = 1;
  uint16_t max_cntlid = 0xFFEF;
};

struct ChildInfo {
  std::string uri;
  std::string uuid;  // as in the NexusInfo record
  ChildState state = ChildState::kUnknown;
  ChildStateReason reason = ChildStateReason::kNone;
  int32_t rebuild_progress = -1;           // percent; -1: no rebuild
  std::optional<std::string> device_name;  // while its device is open
  std::optional<uint64_t> fault_time_ns;   // wall clock, since the epoch
  bool has_io_log = false;                 // a partial rebuild is possible
  uint64_t repaired = 0;                   // places that writing made readable again
  uint64_t unrepaired = 0;                 // places that stay unreadable: others answer for it
};

class Nexus final : public Bdev, public std::enable_shared_from_this<Nexus> {
 public:
  // Opens all children, records them as healthy, adds itself to the registry. On any failure what
  // was opened is closed again. `store` may be null: nothing is recorded then. All three must
  // outlive the nexus.
  // Errors: kInvalidArgument (no or bad children, mixed block sizes, too small, reservation not
  // obtained), kAlreadyExists (name), kUnavailable (the record could not be stored).
  [[nodiscard]] static Task<Result<std::shared_ptr<Nexus>>> create(Reactors& reactors,
                                                                   BdevRegistry& registry,
                                                                   NexusInfoStore* store,
                                                                   NexusOptions options);
  ~Nexus() override;  // after destroy()
  Nexus(const Nexus&) = delete;
  Nexus& operator=(const Nexus&) = delete;

  // Bdev. uri() is "": a nexus is not made by URI.
  [[nodiscard]] const std::string& name() const noexcept override { return options_.name; }
  [[nodiscard]] const Uuid& uuid() const noexcept override { return options_.uuid; }
  [[nodiscard]] std::string product_name() const override { return "Nexus_CAS_Driver"; }
  [[nodiscard]] std::string uri() const override { return ""; }
  [[nodiscard]] uint32_t block_size() const noexcept override { return block_size_; }
  [[nodiscard]] uint64_t size_bytes() const noexcept override { return size_bytes_; }
  [[nodiscard]] bool supports(IoType type) const noexcept override;
  [[nodiscard]] bool has_volatile_cache() const noexcept override;
  // That of the child which has most, where all are thin.
  [[nodiscard]] std::optional<uint64_t> allocated_bytes() const override;
  Task<Result<std::unique_ptr<Channel>>> open_channel() override;  // any reactor
  [[nodiscard]] IoStats stats() const override { return counters_.sum(); }
  void add_latencies(IoLatencies& total) const override { counters_.add_latencies(total); }
  void reset_stats() noexcept override { counters_.reset(); }

  // Home reactor only, all of the rest. The caller unshares first.
  Task<Result<void>> destroy();   // closes the children, records clean_shutdown=true
  Task<Result<void>> shutdown();  // the same, but stays listed as kShutdown; I/O gets a path error
  Task<Result<void>> add_child(std::string uri, bool norebuild);
  Task<Result<void>> remove_child(std::string uri);  // unknown child: ok
  Task<Result<void>> fault_child(std::string uri);   // for good (kOfflinePermanent)
  Task<Result<void>> child_operation(std::string uri, ChildAction action);

  Task<Result<void>> start_rebuild(std::string uri);
  Task<Result<void>> stop_rebuild(std::string uri);  // ok when there is none left to stop
  Task<Result<void>> pause_rebuild(std::string uri);
  Task<Result<void>> resume_rebuild(std::string uri);
  [[nodiscard]] Result<RebuildState> rebuild_state(const std::string& uri) const;  // or kNotFound
  [[nodiscard]] Result<RebuildStats> rebuild_stats(const std::string& uri) const;  // or kNotFound
  [[nodiscard]] std::vector<RebuildRecord> rebuild_history() const;                // oldest first
  [[nodiscard]] uint32_t rebuild_count() const noexcept;                           // running now

  [[nodiscard]] const NexusOptions& options() const noexcept { return options_; }
  [[nodiscard]] uint64_t requested_size_bytes() const noexcept { return options_.size_bytes; }
  [[nodiscard]] NexusState state() const noexcept;
  [[nodiscard]] std::vector<ChildInfo> children() const;
  // Called after each change of the nexus's or a child's state, or a rebuild's end.
  void set_listener(std::function<void()> changed) { changed_ = std::move(changed); }

  // Holds new I/O on every core and returns when none is in flight; resume() lets it go. Nests.
  Task<void> pause();
  Task<void> resume();

 private:
  friend class NexusCore;
  friend class RebuildJob;
  enum class Lifecycle : uint8_t { kInit, kOpen, kShuttingDown, kShutdown, kClosed };
  using ChildPtr = std::shared_ptr<Child>;
  Nexus(Reactors& reactors, BdevRegistry& registry, NexusInfoStore* store, NexusOptions options);

  // nexus.cc
  Task<Result<void>> open();
  Task<Result<void>> open_children();
  Task<void> take_down();  // stops I/O and rebuilds, closes every child
  Task<bool> flush_children();
  Task<void> each_core(std::function<void(NexusCore&)> work);
  Task<void> on_cores(std::function<Task<void>(NexusCore&)> work);
  static Task<void> on_core(NexusCore* core, const std::function<Task<void>(NexusCore&)>* work,
                            Latch* all);
  void refresh_features();
  void notify();
  [[nodiscard]] ChildPtr find_child(const std::string& uri) const;
  [[nodiscard]] ChildPtr find_child_id(uint64_t id) const;
  [[nodiscard]] bool other_healthy_than(const Child& child) const noexcept;
  [[nodiscard]] uint32_t free_slot() const noexcept;
  [[nodiscard]] Result<void> check_open(const char* what) const;

  // nexus_fault.cc
  void on_child_failed(uint64_t child_id, IoStatus cause);
  void on_device_removed(uint64_t child_id, IoStatus cause);
  void begin_fault(ChildPtr child, FaultReason reason);
  Task<void> retire(std::shared_ptr<Nexus> self, ChildPtr child, bool was_synced);
  Task<void> lose_last(std::shared_ptr<Nexus> self, ChildPtr child);
  Task<void> refuse_on_cores(std::shared_ptr<Nexus> self, uint32_t slot);
  Task<Result<void>> persist(std::function<void(NexusInfo&)> change);
  void fail_self();
  Task<void> shut_down_self(std::shared_ptr<Nexus> self);

  // nexus_repair.cc
  void on_unreadable(uint64_t child_id, uint64_t begin, uint64_t end);
  Task<void> repair(std::shared_ptr<Nexus> self, ChildPtr child, uint64_t begin, uint64_t end);
  Task<void> repair_piece(ChildPtr child, uint64_t begin, uint8_t* data, uint64_t length);
  Task<IoStatus> write_back(ChildPtr child, uint64_t begin, uint8_t* data, uint64_t length);
  void give_up_repair(const ChildPtr& child, uint64_t begin, uint64_t end);

  // nexus_children.cc
  Task<Result<void>> open_child(ChildPtr child);  // device, checks, reservation
  [[nodiscard]] Result<void> check_child(const Child& child) const;
  [[nodiscard]] bool has_room(const Bdev& device) const;
  [[nodiscard]] Uuid exported_uuid() const;
  Task<Result<void>> connect_child(ChildPtr child, bool synced);
  Task<void> disconnect_child(ChildPtr child);  // and closes its channels and device
  Task<Result<void>> online_child(ChildPtr child);
  Task<Result<void>> fault_by_client(std::string uri, FaultReason reason);

  // nexus_rebuild.cc
  [[nodiscard]] Result<void> begin_rebuild(ChildPtr child);
  [[nodiscard]] ChildPtr pick_source() const;
  Task<bool> try_promote(ChildPtr child);
  Task<void> run_rebuild(std::shared_ptr<Nexus> self, ChildPtr child,
                         std::shared_ptr<RebuildJob> job);
  [[nodiscard]] Result<std::shared_ptr<RebuildJob>> find_rebuild(const std::string& uri,
                                                                 const char* what) const;

  Reactors& reactors_;
  BdevRegistry& registry_;
  NexusInfoStore* const store_;
  const NexusOptions options_;
  uint32_t block_size_ = 0;
  uint64_t size_bytes_ = 0;
  uint64_t data_offset_ = 0;
  Lifecycle lifecycle_ = Lifecycle::kInit;
  IoCounterSet counters_;                          // outlives the cores
  WriteOrder order_;                               // of all cores
  std::vector<std::unique_ptr<NexusCore>> cores_;  // by reactor
  std::vector<ChildPtr> children_;
  uint64_t next_child_id_ = 1;
  NexusInfo info_;                         // as stored, or being stored
  AsyncMutex info_mutex_;                  // one put at a time, in order
  std::optional<uint64_t> info_revision_;  // of our last put; nobody else's may be replaced
  bool store_lost_ = false;
  AsyncMutex control_mutex_;  // one change by the outside at a time; faults do not wait for it
  Latch background_;          // faults being worked off, rebuilds
  Latch ending_;              // a shutdown under way
  std::vector<RebuildRecord> history_;
  std::atomic<uint32_t> supported_{0};  // bits by IoType
  std::atomic<bool> volatile_cache_{false};
  std::function<void()> changed_;
};

}  // namespace mayastor::nexus

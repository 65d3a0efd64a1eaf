// Child: one leg of a nexus as the home reactor sees it: its device, its state, its write log.
// Why apart from the per-core legs (nexus_core.h): states change slowly and in one place, I/O runs
// everywhere. Owner: the home reactor; only `log` is touched by other cores.
// Invariants: `device` is set exactly in kOpen and kFaulting; `synced` only in kOpen; a synced
// child has every acknowledged write.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bdev/bdev.h"
#include "core/task.h"
#include "nexus/nexus.h"
#include "nexus/write_log.h"

namespace mayastor::nexus {

enum class ChildPhase : uint8_t {
  kInit,
  kOpen,
  kFaulting,  // cut off; being recorded, its device still closing
  kFaulted,
  kClosed,
};

enum class FaultReason : uint8_t {
  kNone,
  kNoSpace,
  kTimedOut,
  kIoError,
  kOffline,
  kOfflinePermanent,
  kAdminFailed,
  kRebuildFailed,
  kCannotOpen,
};

struct Child {
  Child(uint64_t id_, std::string uri_) : id(id_), uri(std::move(uri_)) {}
  const uint64_t id;  // never used twice in a nexus
  const std::string uri;
  std::string uuid;   // of the NexusInfo record
  uint32_t slot = 0;  // its bit in the masks of each core
  ChildPhase phase = ChildPhase::kInit;
  FaultReason reason = FaultReason::kNone;
  std::optional<IoStatus> early_failure;  // of a write, while it was being connected
  bool synced = false;
  bool counts = false;       // its record is, or will be, healthy: writes need it
  bool ever_synced = false;  // the log tells what it missed since
  Uuid power_cycle;          // of its device, when it was opened last
  Uuid medium;               // likewise
  Uuid device_uuid;          // likewise, whatever its URI says
  std::optional<uint64_t> fault_time_ns;
  std::shared_ptr<Bdev> device;
  std::string device_name;
  bool device_owned = false;  // created for us by URI, destroyed with the child
  std::unique_ptr<WriteLog> log;
  std::shared_ptr<RebuildJob> rebuild;
  struct Range {
    uint64_t begin = 0, end = 0;
    uint64_t tried_ns = 0;
  };
  std::vector<Range> repairing;    // being read from another child and written back
  std::vector<Range> unrepaired;   // writing did not help; read from others
  std::vector<uint64_t> repaired;  // when, for those of the last while
  uint64_t repaired_total = 0;
  Latch retiring;  // a fault being worked off

  [[nodiscard]] bool is_open() const noexcept { return phase == ChildPhase::kOpen; }
  [[nodiscard]] bool healthy() const noexcept { return is_open() && synced; }
  [[nodiscard]] bool local() const noexcept { return !uri.starts_with("nvmf"); }
  [[nodiscard]] bool recoverable() const noexcept;  // may come back by ChildAction::kOnline
  [[nodiscard]] ChildState api_state() const noexcept;
  [[nodiscard]] ChildStateReason api_reason() const noexcept;
};

[[nodiscard]] FaultReason fault_reason(IoStatus status) noexcept;

// The medium could not be read at that place; all else of the child may be as good as ever.
[[nodiscard]] constexpr bool is_unreadable(IoStatus status) noexcept {
  // NVMe base specification, media and data integrity errors: unrecovered read, guard,
  // application tag and reference tag check errors.
  return status.type == 2 && status.code >= 0x81 && status.code <= 0x84;
}

// The uuid a child's record gets: ?uuid= of the URI, else of the device.
[[nodiscard]] std::string record_uuid(const std::string& uri, const Bdev& device);

// Finds or creates the child's device and claims it for `nexus_name`. On error nothing is left
// behind and the child is as before.
Task<Result<void>> open_device(BdevRegistry& registry, Child& child, std::string nexus_name);
// Gives the device back. Its channels are closed already.
Task<void> close_device(BdevRegistry& registry, Child& child);

// Takes the nexus's reservation on a child's device (section "Reservations" of the NVMe base
// specification); devices that know none are left alone. kInvalidArgument when it can't be had.
Task<Result<void>> reserve(Reservations* device, const NexusOptions& options);

}  // namespace mayastor::nexus

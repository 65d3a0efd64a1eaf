// The nexus's reservation on a child: fences an older nexus of the same volume, whose writes the
// child's target then refuses. Steps: register our key, take the reservation (evicting whoever
// holds it), read it back.
#include <cstring>

#include "nexus/child.h"

namespace mayastor::nexus {
namespace {

constexpr uint8_t kWriteExclusiveAllRegistrants = 5;
constexpr uint8_t kExclusiveAccessAllRegistrants = 6;
constexpr uint8_t kPersistClear = 2, kPersistSet = 3;

[[nodiscard]] bool all_registrants(uint8_t type) {
  return type == kWriteExclusiveAllRegistrants || type == kExclusiveAccessAllRegistrants;
}
[[nodiscard]] bool same_type(uint8_t a, uint8_t b) {
  return a == b || (all_registrants(a) && all_registrants(b));
}
[[nodiscard]] bool is_self(const Reservations& device, const ReservationReport::Registrant& entry,
                           uint64_t key) {
  return entry.key == key && std::memcmp(entry.host_id, device.host_id(), 16) == 0;
}
[[nodiscard]] const ReservationReport::Registrant* holder_of(const ReservationReport& info) {
  for (const auto& entry : info.registrants) {
    if (entry.holder) return &entry;
  }
  return nullptr;
}
[[nodiscard]] Error failed(const char* step, IoStatus status) {
  return Error{ErrorCode::kInvalidArgument,
               std::string("cannot reserve the child: ") + step + " answered NVMe status " +
                   std::to_string(status.type) + "/" + std::to_string(status.code),
               status.error_number};
}

// Evicts whoever holds the reservation, then takes it. IoStatus of the step that failed.
Task<Result<void>> take_from_holder(Reservations* device, uint64_t key, uint8_t type) {
  Result<ReservationReport> report = co_await device->report();
  if (!report.ok()) co_return report.error();
  const uint8_t held_type = report.value().type;
  const ReservationReport::Registrant* holder =
      held_type == 0 ? nullptr : holder_of(report.value());
  if (holder != nullptr) {
    const bool self = is_self(*device, *holder, key);
    if (self && same_type(held_type, type)) co_return Result<void>();
    if (all_registrants(held_type) && !all_registrants(type)) {
      const IoStatus status =
          co_await device->release(Reservations::ReleaseAction::kRelease, key, held_type);
      if (!status.ok()) co_return failed("release", status);
    } else {
      const uint64_t holder_key = holder->key;
      const IoStatus status =
          co_await device->acquire(Reservations::AcquireAction::kPreempt, key, holder_key, type);
      if (!status.ok()) co_return failed("preempt", status);
      if (self) {
        const IoStatus again =
            co_await device->register_key(Reservations::RegisterAction::kRegister, 0, key, true, 0);
        if (!again.ok()) co_return failed("register", again);
      }
    }
  }
  const IoStatus status =
      co_await device->acquire(Reservations::AcquireAction::kAcquire, key, 0, type);
  if (!status.ok()) co_return failed("acquire", status);
  co_return Result<void>();
}

}  // namespace

Task<Result<void>> reserve(Reservations* device, const NexusOptions& options) {
  const uint8_t type = options.resv_type.value_or(kWriteExclusiveAllRegistrants);
  const uint64_t key = options.resv_key;
  const bool wanted = options.reservations_enabled && key != 0 && type != 0;
  if (!wanted || device == nullptr) co_return Result<void>();
  const uint8_t persist = options.resv_persist ? kPersistSet : kPersistClear;
  const IoStatus registered =
      co_await device->register_key(Reservations::RegisterAction::kReplace, 0, key, true, persist);
  if (registered.is(io_status::kInvalidOpcode)) co_return Result<void>();  // knows none
  if (!registered.ok()) co_return failed("register", registered);
  if (options.preempt_policy == PreemptPolicy::kHolder) {
    Result<void> taken = co_await take_from_holder(device, key, type);
    if (!taken.ok()) co_return taken;
  } else {
    const auto action = options.preempt_key != 0 ? Reservations::AcquireAction::kPreempt
                                                 : Reservations::AcquireAction::kAcquire;
    const uint64_t victim = options.preempt_key;
    const IoStatus acquired = co_await device->acquire(action, key, victim, type);
    if (!acquired.ok()) co_return failed("acquire", acquired);
  }
  Result<ReservationReport> report = co_await device->report();
  if (!report.ok()) co_return report.error();
  if (!same_type(report.value().type, type)) {
    co_return Error{ErrorCode::kInvalidArgument,
                    "cannot reserve the child: it holds a reservation of type " +
                        std::to_string(report.value().type) + " instead of " +
                        std::to_string(type)};
  }
  if (!all_registrants(type)) {
    const ReservationReport::Registrant* holder = holder_of(report.value());
    if (holder == nullptr || !is_self(*device, *holder, key)) {
      co_return Error{ErrorCode::kInvalidArgument,
                      "cannot reserve the child: another host holds the reservation"};
    }
  }
  co_return Result<void>();
}

}  // namespace mayastor::nexus

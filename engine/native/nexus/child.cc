#include "nexus/child.h"

#include "util/uri.h"

namespace mayastor::nexus {

bool Child::recoverable() const noexcept {
  if (phase == ChildPhase::kClosed) return true;
  if (phase != ChildPhase::kFaulted) return false;
  switch (reason) {
    case FaultReason::kNoSpace:
    case FaultReason::kTimedOut:
    case FaultReason::kIoError:
    case FaultReason::kOffline:
    case FaultReason::kAdminFailed:
    case FaultReason::kRebuildFailed:
      return true;
    case FaultReason::kNone:
    case FaultReason::kOfflinePermanent:
    case FaultReason::kCannotOpen:
      return false;
  }
  return false;
}

ChildState Child::api_state() const noexcept {
  switch (phase) {
    case ChildPhase::kInit:
    case ChildPhase::kClosed:
      return ChildState::kDegraded;
    case ChildPhase::kOpen:
      return synced ? ChildState::kOnline : ChildState::kDegraded;
    case ChildPhase::kFaulting:
      return ChildState::kUnknown;
    case ChildPhase::kFaulted:
      return reason == FaultReason::kNoSpace || reason == FaultReason::kOffline
                 ? ChildState::kDegraded
                 : ChildState::kFaulted;
  }
  return ChildState::kUnknown;
}

ChildStateReason Child::api_reason() const noexcept {
  switch (phase) {
    case ChildPhase::kInit:
      return ChildStateReason::kInit;
    case ChildPhase::kClosed:
      return ChildStateReason::kClosed;
    case ChildPhase::kOpen:
      return synced ? ChildStateReason::kNone : ChildStateReason::kOutOfSync;
    case ChildPhase::kFaulting:
    case ChildPhase::kFaulted:
      break;
  }
  switch (reason) {
    case FaultReason::kNone:
      return ChildStateReason::kNone;
    case FaultReason::kNoSpace:
      return ChildStateReason::kNoSpace;
    case FaultReason::kTimedOut:
      return ChildStateReason::kTimedOut;
    case FaultReason::kIoError:
      return ChildStateReason::kIoFailure;
    case FaultReason::kOffline:
    case FaultReason::kOfflinePermanent:
      return ChildStateReason::kByClient;
    case FaultReason::kAdminFailed:
      return ChildStateReason::kAdminFailed;
    case FaultReason::kRebuildFailed:
      return ChildStateReason::kRebuildFailed;
    case FaultReason::kCannotOpen:
      return ChildStateReason::kCannotOpen;
  }
  return ChildStateReason::kNone;
}

FaultReason fault_reason(IoStatus status) noexcept {
  const bool no_space = status.is(io_status::kNoSpace) || status.is(io_status::kCapacityExceeded);
  if (no_space) return FaultReason::kNoSpace;
  // The way to it, or its patience: nothing is said of its medium.
  const bool path = status.type == 3 || status.is(io_status::kTransientTransport) ||
                    status.is(io_status::kAborted) || status.is(io_status::kQueueDeleted);
  return path ? FaultReason::kTimedOut : FaultReason::kIoError;
}

std::string record_uuid(const std::string& uri, const Bdev& device) {
  const Result<Uri> parsed = Uri::parse(uri);
  if (parsed.ok()) {
    const Result<std::optional<Uuid>> uuid = parsed.value().find_uuid("uuid");
    if (uuid.ok() && uuid.value().has_value()) return uuid.value()->to_string();
  }
  return device.uuid().to_string();
}

Task<Result<void>> open_device(BdevRegistry& registry, Child& child, std::string nexus_name) {
  const Result<Uri> parsed = Uri::parse(child.uri);
  if (!parsed.ok()) co_return parsed.error();
  const Result<std::optional<Uuid>> uuid = parsed.value().find_uuid("uuid");
  if (!uuid.ok()) co_return uuid.error();
  const std::string scheme = parsed.value().scheme();
  const bool existing = scheme == "bdev" || scheme == "loopback";
  std::string uri = child.uri;
  Result<std::shared_ptr<Bdev>> device = co_await registry.create(std::move(uri));
  if (!device.ok()) co_return device.error();
  child.device = device.take();
  child.device_name = child.device->name();
  child.device_owned = !existing;
  child.power_cycle = child.device->power_cycle();
  child.medium = child.device->medium();
  child.device_uuid = child.device->uuid();
  if (child.uuid.empty()) child.uuid = record_uuid(child.uri, *child.device);
  Result<void> claimed = registry.claim(child.device_name, "nexus " + nexus_name);
  if (claimed.ok()) co_return claimed;
  // Taken by another: not ours to destroy, even if it was made a moment ago for us.
  const Error error = claimed.error();
  child.device.reset();
  child.device_name.clear();
  co_return error;
}

Task<void> close_device(BdevRegistry& registry, Child& child) {
  if (child.device == nullptr) co_return;
  child.device->set_removed_handler(nullptr);
  const std::string name = std::exchange(child.device_name, std::string());
  const bool still_listed = registry.find(name) == child.device;
  child.device.reset();
  if (!still_listed) co_return;  // another device may have the name by now
  registry.unclaim(name);
  if (child.device_owned) {
    // It may be gone already (its peer vanished): nothing is left to close then.
    const Result<void> ignored = co_await registry.destroy(name);
    static_cast<void>(ignored);
  }
}

}  // namespace mayastor::nexus

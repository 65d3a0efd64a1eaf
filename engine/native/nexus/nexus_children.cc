// Changes of a nexus's children from outside: add, remove, offline, online.
#include "nexus/child.h"
#include "nexus/geometry.h"
#include "nexus/nexus.h"
#include "nexus/nexus_core.h"
#include "nexus/rebuild_job.h"

namespace mayastor::nexus {
namespace {
[[nodiscard]] Error child_error(ErrorCode code, const char* what, const std::string& uri,
                                const char* why) {
  return Error{code, std::string("Cannot ") + what + " child '" + uri + "': " + why};
}
}  // namespace

// Opens the device and takes its reservation. The channels come later.
Task<Result<void>> Nexus::open_child(ChildPtr child) {
  std::string name = options_.name;
  Result<void> opened = co_await open_device(registry_, *child, std::move(name));
  if (opened.ok()) {
    opened = co_await reserve(child->device->reservations(), options_);
    if (!opened.ok()) co_await close_device(registry_, *child);
  }
  if (!opened.ok()) {
    Error error = opened.error();
    error.code = ErrorCode::kInvalidArgument;  // as published for any child that can't be opened
    error.message = "child '" + child->uri + "': " + error.message;
    co_return error;
  }
  // The device may speak up inside its own completion: act in a later turn.
  std::weak_ptr<Nexus> weak = weak_from_this();
  Reactor* home = &reactors_.home();
  const uint64_t id = child->id;
  child->device->set_removed_handler([weak, home, id](IoStatus why) {
    home->post([weak, id, why] {
      if (const std::shared_ptr<Nexus> nexus = weak.lock()) nexus->on_device_removed(id, why);
    });
  });
  co_return Result<void>();
}

// What every child has to be, whichever way it comes in; its device is open and claimed, so that
// what is found here can only change by the device itself: connect_child() looks again.
Result<void> Nexus::check_child(const Child& child) const {
  const Bdev& device = *child.device;
  const auto misfit = [&child](ErrorCode code, const std::string& why) {
    return Error{code, "child '" + child.uri + "' " + why};
  };
  if (&device == this || device.uuid() == options_.uuid || device.uuid() == exported_uuid()) {
    return misfit(ErrorCode::kInvalidArgument, "is the nexus itself");
  }
  for (const ChildPtr& other : children_) {
    if (other.get() == &child) continue;
    const bool same_record = other->uuid == child.uuid;
    const bool same_device = !child.device_uuid.is_nil() && other->device_uuid == child.device_uuid;
    if (!same_record && !same_device) continue;
    return misfit(ErrorCode::kAlreadyExists,
                  std::string(same_device ? "is the same device" : "has the same uuid") +
                      " as child '" + other->uri + "'");
  }
  if (block_size_ == 0) return {};  // the first: the others are compared with it
  if (device.block_size() != block_size_) {
    return misfit(ErrorCode::kInvalidArgument,
                  "has blocks of " + std::to_string(device.block_size()) + " bytes, others of " +
                      std::to_string(block_size_));
  }
  if (size_bytes_ > 0 && !has_room(device)) {
    return misfit(ErrorCode::kInvalidArgument,
                  "has " + std::to_string(device.size_bytes()) +
                      " bytes, too few for the data of the nexus: " + std::to_string(size_bytes_));
  }
  return {};
}

bool Nexus::has_room(const Bdev& device) const {
  const Result<DataArea> area =
      data_area(device.size_bytes() / device.block_size(), device.block_size(), size_bytes_);
  return area.ok() && area.value().block_count * block_size_ >= size_bytes_;
}

// The volume's where the name tells it: hosts see that one (Sharing).
Uuid Nexus::exported_uuid() const {
  const auto uuid = Uuid::parse(options_.name.substr(0, options_.name.find(':')));
  return uuid.ok() ? uuid.value() : options_.uuid;
}

// Connects an open device on every core; from then on the child gets writes.
Task<Result<void>> Nexus::connect_child(ChildPtr child, bool synced) {
  std::optional<Error> failure;
  std::vector<std::optional<Error>> failures(cores_.size());
  child->early_failure.reset();
  std::function<Task<void>(NexusCore&)> connect = [&](NexusCore& core) -> Task<void> {
    std::shared_ptr<Bdev> device = child->device;
    WriteLog* log = child->log.get();
    const uint32_t slot = child->slot;
    Result<void> connected = co_await core.connect(slot, child->id, device, log, synced);
    if (!connected.ok()) failures[core.reactor().index()] = connected.error();
  };
  co_await on_cores(connect);
  for (const auto& error : failures) {
    if (error.has_value()) failure = error;
  }
  // Its channels are open now: from here on it can't shrink.
  if (!failure.has_value() && !has_room(*child->device)) {
    failure = Error{ErrorCode::kFailedPrecondition, "it has become too small meanwhile"};
  }
  if (!failure.has_value() && child->early_failure.has_value()) {
    failure = Error{ErrorCode::kUnavailable, "its first write failed",
                    child->early_failure->error_number};
  }
  if (failure.has_value()) {
    co_await disconnect_child(child);
    co_return Error{ErrorCode::kInvalidArgument, "child '" + child->uri + "': " + failure->message,
                    failure->error_number};
  }
  child->phase = ChildPhase::kOpen;
  child->unrepaired.clear();  // a rebuild writes some of them anew
  child->synced = synced;
  child->counts = synced;
  child->ever_synced = child->ever_synced || synced;
  refresh_features();
  co_return Result<void>();
}

Task<void> Nexus::disconnect_child(ChildPtr child) {
  const uint32_t slot = child->slot;
  std::function<void(NexusCore&)> cut = [slot](NexusCore& core) { core.disconnect(slot); };
  co_await each_core(cut);
  std::function<Task<void>(NexusCore&)> close = [slot](NexusCore& core) {
    return core.close(slot);
  };
  co_await on_cores(close);
  co_await close_device(registry_, *child);
}

Task<Result<void>> Nexus::add_child(std::string uri, bool norebuild) {
  const std::shared_ptr<Nexus> self = shared_from_this();
  co_await control_mutex_.lock();
  const AsyncLock held(control_mutex_);
  Result<void> open = check_open("add child");
  if (!open.ok()) co_return open;
  if (find_child(uri) != nullptr) {
    co_return child_error(ErrorCode::kAlreadyExists, "add", uri, "it is a child already");
  }
  if (free_slot() == kMaxChildren) {
    co_return child_error(ErrorCode::kResourceExhausted, "add", uri, "too many children");
  }
  ChildPtr child = std::make_shared<Child>(next_child_id_++, uri);
  child->slot = free_slot();
  Result<void> opened = co_await open_child(child);
  if (!opened.ok()) co_return opened;
  Result<void> accepted = check_child(*child);
  if (accepted.ok()) accepted = check_open("add child");
  if (!accepted.ok()) {
    co_await close_device(registry_, *child);
    co_return accepted;
  }
  child->log = std::make_unique<WriteLog>(size_bytes_);
  child->log->mark_everything();
  children_.push_back(child);
  std::function<void(NexusInfo&)> appended = [&child](NexusInfo& info) {
    info.set(child->uuid, false);
  };
  Result<void> recorded = co_await persist(appended);
  if (!recorded.ok()) {
    co_await close_device(registry_, *child);
    std::erase(children_, child);
    fail_self();
    co_return recorded;
  }
  Result<void> connected = co_await connect_child(child, false);
  if (!connected.ok()) {
    // Some cores may have connected it, and log there what it misses: in a log that goes with it.
    const uint32_t slot = child->slot;
    std::function<void(NexusCore&)> detach = [slot](NexusCore& core) { core.detach(slot); };
    co_await each_core(detach);
    std::erase(children_, child);
    std::function<void(NexusInfo&)> removed = [&child](NexusInfo& info) {
      info.remove(child->uuid);
    };
    const Result<void> forgotten = co_await persist(removed);
    if (!forgotten.ok()) fail_self();
    co_return connected;
  }
  if (!norebuild && check_open("rebuild").ok()) {
    const Result<void> rebuilding = begin_rebuild(child);
    if (!rebuilding.ok()) begin_fault(child, FaultReason::kRebuildFailed);
  }
  notify();
  co_return Result<void>();
}

Task<Result<void>> Nexus::remove_child(std::string uri) {
  const std::shared_ptr<Nexus> self = shared_from_this();
  co_await control_mutex_.lock();
  const AsyncLock held(control_mutex_);
  Result<void> open = check_open("remove child");
  if (!open.ok()) co_return open;
  const ChildPtr child = find_child(uri);
  if (child == nullptr) co_return Result<void>();
  co_await child->retiring;  // its fault may still be worked off
  open = check_open("remove child");
  if (!open.ok()) co_return open;
  if (children_.size() == 1) {
    co_return child_error(ErrorCode::kFailedPrecondition, "remove", uri, "it is the only child");
  }
  if (child->counts && !other_healthy_than(*child)) {
    co_return child_error(ErrorCode::kFailedPrecondition, "remove", uri,
                          "it is the last healthy child");
  }
  const uint32_t slot = child->slot;
  const bool was_open = child->is_open();
  child->phase = ChildPhase::kFaulting;
  child->synced = child->counts = false;
  notify();
  if (was_open) {
    if (child->rebuild != nullptr) child->rebuild->stop();
    std::function<void(NexusCore&)> cut = [slot](NexusCore& core) { core.disconnect(slot); };
    co_await each_core(cut);
  }
  std::function<void(NexusInfo&)> removed = [&child](NexusInfo& info) { info.remove(child->uuid); };
  Result<void> recorded = co_await persist(removed);
  if (recorded.ok()) {
    std::function<void(NexusCore&)> release = [slot](NexusCore& core) { core.release(slot); };
    co_await each_core(release);
  } else {
    fail_self();
  }
  if (const std::shared_ptr<RebuildJob> job = child->rebuild) {
    Latch& ended = job->ended();
    co_await ended;
  }
  if (was_open) co_await disconnect_child(child);
  if (!recorded.ok()) {
    child->phase = ChildPhase::kClosed;
    co_return recorded;
  }
  std::function<void(NexusCore&)> detach = [slot](NexusCore& core) { core.detach(slot); };
  co_await each_core(detach);
  std::erase(children_, child);
  refresh_features();
  notify();
  co_return Result<void>();
}

Task<Result<void>> Nexus::fault_child(std::string uri) {
  return fault_by_client(std::move(uri), FaultReason::kOfflinePermanent);
}

Task<Result<void>> Nexus::child_operation(std::string uri, ChildAction action) {
  const std::shared_ptr<Nexus> self = shared_from_this();
  FaultReason reason = FaultReason::kOffline;
  switch (action) {
    case ChildAction::kOffline:
      break;
    case ChildAction::kFaultIoError:
      reason = FaultReason::kIoError;
      break;
    case ChildAction::kOfflinePermanent:
      reason = FaultReason::kOfflinePermanent;
      break;
    case ChildAction::kOnline: {
      co_await control_mutex_.lock();
      const AsyncLock held(control_mutex_);
      Result<void> open = check_open("online child");
      if (!open.ok()) co_return open;
      const ChildPtr child = find_child(uri);
      if (child == nullptr) {
        co_return child_error(ErrorCode::kNotFound, "online", uri, "there is no such child");
      }
      Result<void> onlined = co_await online_child(child);
      co_return onlined;
    }
  }
  Result<void> faulted = co_await fault_by_client(std::move(uri), reason);
  co_return faulted;
}

Task<Result<void>> Nexus::fault_by_client(std::string uri, FaultReason reason) {
  const std::shared_ptr<Nexus> self = shared_from_this();
  co_await control_mutex_.lock();
  const AsyncLock held(control_mutex_);
  Result<void> open = check_open("fault child");
  if (!open.ok()) co_return open;
  const ChildPtr child = find_child(uri);
  if (child == nullptr) {
    co_return child_error(ErrorCode::kNotFound, "fault", uri, "there is no such child");
  }
  if (children_.size() == 1) {
    co_return child_error(ErrorCode::kFailedPrecondition, "fault", uri, "it is the only child");
  }
  if (child->counts && !other_healthy_than(*child)) {
    co_return child_error(ErrorCode::kFailedPrecondition, "fault", uri,
                          "it is the last healthy child");
  }
  if (child->is_open()) {
    begin_fault(child, reason);
  } else {
    child->reason = reason;
    notify();
  }
  co_await child->retiring;
  Result<void> still_open = check_open("fault child");  // it may not have been recorded
  co_return still_open;
}

Task<Result<void>> Nexus::online_child(ChildPtr child) {
  co_await child->retiring;
  if (child->is_open()) co_return Result<void>();
  if (!child->recoverable()) {
    co_return child_error(ErrorCode::kFailedPrecondition, "online", child->uri,
                          "it was taken out for good");
  }
  const Uuid power_cycle_before = child->power_cycle;
  const Uuid medium_before = child->medium;
  // Until the log has heard of it, what was there before is what the next attempt compares with.
  const auto as_before = [&child, power_cycle_before, medium_before] {
    child->power_cycle = power_cycle_before;
    child->medium = medium_before;
  };
  Result<void> opened = co_await open_child(child);
  if (!opened.ok()) {
    as_before();
    co_return opened;
  }
  const Bdev& device = *child->device;
  std::optional<Error> misfit;
  if (const Result<void> accepted = check_child(*child); !accepted.ok()) misfit = accepted.error();
  const bool same_medium = medium_before.is_nil() || child->medium == medium_before;
  if (child->counts && !same_medium) {
    misfit = child_error(ErrorCode::kFailedPrecondition, "online", child->uri,
                         "it alone has the data, and its disk was changed or plugged in anew: make "
                         "sure that it is the same disk, and create the nexus again");
  }
  Result<void> open = check_open("online child");
  if (!open.ok()) misfit = open.error();
  if (misfit.has_value()) {
    co_await close_device(registry_, *child);
    as_before();
    co_return *misfit;
  }
  // A device whose power went away in between may have lost writes that it had acknowledged and
  // nobody had flushed: the log does not know them. Of a local one we may also have been told. And
  // of another disk under the same name the log knows nothing at all.
  const bool same_power =
      child->power_cycle == power_cycle_before && (child->local() || !power_cycle_before.is_nil());
  const bool kept_all =
      same_medium && !child->log->incomplete() && (same_power || !device.has_volatile_cache());
  if (!kept_all) child->log->set_incomplete();
  const bool last_healthy = child->counts;  // it went away, but nobody was written to since
  const bool partial = options_.partial_rebuild && child->ever_synced && kept_all;
  if (last_healthy) {
    child->log->unmark(0, size_bytes_);  // it defines the data: the others differ from it
    child->log->set_complete();
    if (!kept_all) {
      // Others may hold writes that it has lost, and nobody knows which.
      for (const ChildPtr& other : children_) {
        if (other != child) other->log->mark_everything();
      }
    }
  } else if (!partial) {
    child->log->mark_everything();
    child->log->set_complete();
  }
  Result<void> connected = co_await connect_child(child, last_healthy);
  if (!connected.ok()) co_return connected;
  child->reason = FaultReason::kNone;
  child->fault_time_ns.reset();
  if (last_healthy) {
    if (check_open("online child").ok()) {
      std::function<void(NexusCore&)> restart = [](NexusCore& core) { core.restart(); };
      co_await each_core(restart);
    }
  } else if (child->is_open()) {
    const Result<void> rebuilding = begin_rebuild(child);
    if (!rebuilding.ok()) begin_fault(child, FaultReason::kRebuildFailed);
  }
  notify();
  co_return Result<void>();
}

}  // namespace mayastor::nexus

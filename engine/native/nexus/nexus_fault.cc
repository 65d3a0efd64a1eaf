// How a nexus loses a child: the order of steps here is what keeps acknowledged writes safe.
//   1. home: the child is no longer healthy; nobody picks it as a source or counts it
//   2. every core: cut off, answered (no core reads from it any more; writes it misses are logged,
//      and held back because it still counts)
//   3. its record: healthy=false, durable
//   4. every core: it no longer counts; the held writes are acknowledged
//   5. its channels and its device are closed
// If 3 fails for good, the nexus shuts itself down and the held writes end with an error. The last
// healthy child is never recorded as unhealthy: its failures go to the host.
#include "nexus/child.h"
#include "nexus/nexus.h"
#include "nexus/nexus_core.h"
#include "nexus/rebuild_job.h"

namespace mayastor::nexus {

// From a core or a rebuild: the child failed a request. Home, never inside a completion of a core.
void Nexus::on_child_failed(uint64_t child_id, IoStatus cause) {
  const ChildPtr child = find_child_id(child_id);
  if (child == nullptr) return;
  if (!child->is_open()) {
    // Being worked off already, or connected on some cores while others are still at it.
    if (child->phase != ChildPhase::kFaulting) child->early_failure = cause;
    return;
  }
  if (cause.is(io_status::kReservationConflict)) {
    fail_self();  // fenced: a newer nexus owns the children
    return;
  }
  if (child->synced && !other_healthy_than(*child)) {
    background_.add();
    spawn(refuse_on_cores(shared_from_this(), child->slot));
    return;
  }
  begin_fault(child, fault_reason(cause));
}

Task<void> Nexus::refuse_on_cores(std::shared_ptr<Nexus> self, uint32_t slot) {
  std::function<void(NexusCore&)> refuse = [slot](NexusCore& core) { core.refuse(slot); };
  co_await each_core(refuse);
  self->background_.done();
}

// The device itself says that it is gone, with or without I/O.
void Nexus::on_device_removed(uint64_t child_id, IoStatus cause) {
  const ChildPtr child = find_child_id(child_id);
  if (child == nullptr) return;
  // A device of this machine that went away may have lost what it held in its cache; of a remote
  // one, the power cycle of its machine tells. A request that failed on it may have been here
  // first.
  const bool keeps_all = child->device != nullptr && !child->device->has_volatile_cache();
  if (child->local() && !keeps_all && child->log != nullptr) child->log->set_incomplete();
  if (!child->is_open()) {
    if (child->phase != ChildPhase::kFaulting) child->early_failure = cause;
    return;
  }
  if (!child->synced || other_healthy_than(*child)) {
    begin_fault(child, fault_reason(cause));
    return;
  }
  child->phase = ChildPhase::kFaulting;
  child->reason = fault_reason(cause);
  child->synced = false;
  child->fault_time_ns = reactors_.home().clock().wall_time_ns();
  child->retiring.add();
  background_.add();
  notify();
  spawn(lose_last(shared_from_this(), child));
}

void Nexus::begin_fault(ChildPtr child, FaultReason reason) {
  CHECK(child->is_open());
  const bool was_synced = child->synced;
  CHECK(!was_synced || other_healthy_than(*child));
  child->phase = ChildPhase::kFaulting;
  child->reason = reason;
  child->synced = false;
  child->counts = false;
  child->fault_time_ns = reactors_.home().clock().wall_time_ns();
  if (child->rebuild != nullptr) child->rebuild->fail();
  child->retiring.add();
  background_.add();
  notify();
  spawn(retire(shared_from_this(), child, was_synced));
}

Task<void> Nexus::retire(std::shared_ptr<Nexus> self, ChildPtr child, bool was_synced) {
  const uint32_t slot = child->slot;
  std::function<void(NexusCore&)> cut = [slot](NexusCore& core) { core.disconnect(slot); };
  co_await each_core(cut);
  bool recorded = true;
  if (was_synced) {
    std::function<void(NexusInfo&)> unhealthy = [&child](NexusInfo& info) {
      CHECK(info.other_healthy_than(child->uuid));
      info.set(child->uuid, false);
    };
    const Result<void> stored = co_await persist(unhealthy);
    recorded = stored.ok();
  }
  if (recorded) {
    std::function<void(NexusCore&)> release = [slot](NexusCore& core) { core.release(slot); };
    co_await each_core(release);
  } else {
    fail_self();
  }
  if (const std::shared_ptr<RebuildJob> job = child->rebuild) {
    Latch& ended = job->ended();
    co_await ended;
  }
  co_await disconnect_child(child);
  child->phase = ChildPhase::kFaulted;
  refresh_features();
  notify();
  child->retiring.done();
  self->background_.done();
}

// The last healthy child's device is gone. Its record stays healthy: it alone has the data. I/O
// ends with a path error until it is brought back online or the nexus is built anew.
Task<void> Nexus::lose_last(std::shared_ptr<Nexus> self, ChildPtr child) {
  const uint32_t slot = child->slot;
  std::function<void(NexusCore&)> cut = [slot](NexusCore& core) { core.disconnect(slot); };
  co_await each_core(cut);
  if (lifecycle_ == Lifecycle::kOpen || lifecycle_ == Lifecycle::kInit) {
    std::function<Task<void>(NexusCore&)> stop = [slot](NexusCore& core) {
      return core.stop(io_status::kInternalPathError, slot);
    };
    co_await on_cores(stop);
  }
  co_await disconnect_child(child);
  child->phase = ChildPhase::kFaulted;
  notify();
  child->retiring.done();
  self->background_.done();
}

Task<Result<void>> Nexus::persist(std::function<void(NexusInfo&)> change) {
  co_await info_mutex_.lock();
  const AsyncLock held(info_mutex_);
  if (store_lost_) {
    co_return Error{ErrorCode::kUnavailable, "Cannot record the state of nexus '" + options_.name +
                                                 "': the store gave up before"};
  }
  // A child that was just promoted may be all that is left before its own record is stored; it has
  // everything, on stable storage: any record may say so.
  for (const ChildPtr& child : children_) {
    if (child->counts) info_.set(child->uuid, true);
  }
  change(info_);
  if (store_ == nullptr) co_return Result<void>();
  std::string key =
      options_.nexus_info_key.empty() ? options_.uuid.to_string() : options_.nexus_info_key;
  std::string json = info_.to_json();
  const std::optional<uint64_t> replaces = info_revision_;
  const Result<uint64_t> stored = co_await store_->put(std::move(key), std::move(json), replaces);
  if (!stored.ok()) {
    store_lost_ = true;  // what is stored is unknown, or somebody else's: nothing may build on it
    co_return stored.error();
  }
  info_revision_ = stored.value();
  co_return Result<void>();
}

// The nexus can't keep its promises any more: no write is acknowledged from here on.
void Nexus::fail_self() {
  if (lifecycle_ != Lifecycle::kOpen) return;  // being created or ended: its caller sees to it
  lifecycle_ = Lifecycle::kShuttingDown;
  ending_.add();
  notify();
  spawn(shut_down_self(shared_from_this()));
}

Task<void> Nexus::shut_down_self(std::shared_ptr<Nexus> self) {
  std::function<Task<void>(NexusCore&)> stop = [](NexusCore& core) {
    return core.stop(io_status::kAnaInaccessible, kMaxChildren);
  };
  co_await on_cores(stop);
  co_await control_mutex_.lock();
  const AsyncLock held(control_mutex_);
  co_await take_down();
  lifecycle_ = Lifecycle::kShutdown;  // its record does not say clean_shutdown
  self->notify();
  self->ending_.done();
}

}  // namespace mayastor::nexus

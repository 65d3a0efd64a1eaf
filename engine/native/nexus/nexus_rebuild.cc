// The nexus's side of rebuilds: start, end, the moment a child counts as healthy, and control.
#include "nexus/child.h"
#include "nexus/nexus.h"
#include "nexus/nexus_core.h"
#include "nexus/rebuild_job.h"

namespace mayastor::nexus {

// The first healthy child, a local one if there is any.
Nexus::ChildPtr Nexus::pick_source() const {
  ChildPtr remote;
  for (const ChildPtr& child : children_) {
    if (!child->healthy()) continue;
    if (child->local()) return child;
    if (remote == nullptr) remote = child;
  }
  return remote;
}

Result<void> Nexus::begin_rebuild(ChildPtr child) {
  const std::string what = "Cannot rebuild child '" + child->uri + "': ";
  if (child->rebuild != nullptr) {
    return Error{ErrorCode::kAlreadyExists, what + "its rebuild is running"};
  }
  if (!child->is_open()) return Error{ErrorCode::kFailedPrecondition, what + "it is not open"};
  if (child->synced) return Error{ErrorCode::kFailedPrecondition, what + "it is in sync"};
  if (pick_source() == nullptr) {
    return Error{ErrorCode::kFailedPrecondition, what + "no healthy child to copy from"};
  }
  const bool partial = child->ever_synced && child->log->count() < child->log->segment_count();
  child->rebuild = std::make_shared<RebuildJob>(*this, child, partial);
  background_.add();
  spawn(run_rebuild(shared_from_this(), child, child->rebuild));
  return Result<void>();
}

Task<void> Nexus::run_rebuild(std::shared_ptr<Nexus> self, ChildPtr child,
                              std::shared_ptr<RebuildJob> job) {
  co_await job->run();
  if (job->state() == RebuildState::kCompleted) {
    std::function<void(NexusInfo&)> healthy = [&child](NexusInfo& info) {
      if (child->counts) info.set(child->uuid, true);  // not if it failed again meanwhile
    };
    const Result<void> recorded = co_await persist(healthy);
    if (!recorded.ok()) fail_self();
  }
  history_.push_back(job->record());
  if (history_.size() > kRebuildHistoryLimit) history_.erase(history_.begin());
  child->rebuild.reset();
  if (job->state() == RebuildState::kFailed && child->is_open() && !child->synced) {
    const IoStatus cause = job->cause();
    if (cause.is(io_status::kReservationConflict)) fail_self();
    // Its own failure by its own name: whoever places replicas must know whose disk is bad.
    const bool own = !cause.ok() && !job->source_failed();
    begin_fault(child, own ? fault_reason(cause) : FaultReason::kRebuildFailed);
  }
  notify();
  job->ended().done();
  self->background_.done();
}

// Counts the child as healthy on every core, if it misses nothing. Writes stand still meanwhile: so
// every write is wholly before (and logged if it missed the child) or wholly after.
Task<bool> Nexus::try_promote(ChildPtr child) {
  std::function<Task<void>(NexusCore&)> freeze = [](NexusCore& core) { return core.freeze(false); };
  co_await on_cores(freeze);
  const bool in_sync = lifecycle_ == Lifecycle::kOpen && child->is_open() && !child->synced &&
                       child->log->empty() && !child->log->incomplete() && pick_source() != nullptr;
  if (in_sync) {
    child->synced = child->counts = child->ever_synced = true;
    const uint32_t slot = child->slot;
    std::function<void(NexusCore&)> promote = [slot](NexusCore& core) { core.promote(slot); };
    co_await each_core(promote);
  }
  std::function<void(NexusCore&)> thaw = [](NexusCore& core) { core.thaw(false); };
  co_await each_core(thaw);
  co_return in_sync;
}

// ---- Control

Task<Result<void>> Nexus::start_rebuild(std::string uri) {
  const std::shared_ptr<Nexus> self = shared_from_this();
  co_await control_mutex_.lock();
  const AsyncLock held(control_mutex_);
  Result<void> open = check_open("start rebuild");
  if (!open.ok()) co_return open;
  const ChildPtr child = find_child(uri);
  if (child == nullptr) {
    co_return Error{ErrorCode::kNotFound, "Cannot start rebuild: nexus '" + options_.name +
                                              "' has no child '" + uri + "'"};
  }
  Result<void> begun = begin_rebuild(child);
  if (begun.ok()) notify();
  co_return begun;
}

Result<std::shared_ptr<RebuildJob>> Nexus::find_rebuild(const std::string& uri,
                                                        const char* what) const {
  const ChildPtr child = find_child(uri);
  const std::string prefix = std::string("Cannot ") + what + " rebuild: ";
  if (child == nullptr) {
    return Error{ErrorCode::kNotFound,
                 prefix + "nexus '" + options_.name + "' has no child '" + uri + "'"};
  }
  if (child->rebuild == nullptr) {
    return Error{ErrorCode::kNotFound, prefix + "child '" + uri + "' has none running"};
  }
  return child->rebuild;
}

Task<Result<void>> Nexus::stop_rebuild(std::string uri) {
  const std::shared_ptr<Nexus> self = shared_from_this();
  const ChildPtr child = find_child(uri);
  if (child != nullptr && child->rebuild == nullptr) co_return Result<void>();
  Result<std::shared_ptr<RebuildJob>> job = find_rebuild(uri, "stop");
  if (!job.ok()) co_return job.error();
  const std::shared_ptr<RebuildJob> running = job.take();
  running->stop();
  Latch& ended = running->ended();
  co_await ended;
  co_return Result<void>();
}

Task<Result<void>> Nexus::pause_rebuild(std::string uri) {
  Result<std::shared_ptr<RebuildJob>> job = find_rebuild(uri, "pause");
  if (!job.ok()) co_return job.error();
  job.value()->pause();
  notify();
  co_return Result<void>();
}

Task<Result<void>> Nexus::resume_rebuild(std::string uri) {
  Result<std::shared_ptr<RebuildJob>> job = find_rebuild(uri, "resume");
  if (!job.ok()) co_return job.error();
  job.value()->resume();
  notify();
  co_return Result<void>();
}

Result<RebuildState> Nexus::rebuild_state(const std::string& uri) const {
  const Result<std::shared_ptr<RebuildJob>> job = find_rebuild(uri, "read state of");
  if (!job.ok()) return job.error();
  return job.value()->state();
}

Result<RebuildStats> Nexus::rebuild_stats(const std::string& uri) const {
  const Result<std::shared_ptr<RebuildJob>> job = find_rebuild(uri, "read statistics of");
  if (!job.ok()) return job.error();
  return job.value()->stats();
}

std::vector<RebuildRecord> Nexus::rebuild_history() const {
  return history_;
}

uint32_t Nexus::rebuild_count() const noexcept {
  uint32_t count = 0;
  for (const ChildPtr& child : children_) count += child->rebuild != nullptr ? 1 : 0;
  return count;
}

}  // namespace mayastor::nexus

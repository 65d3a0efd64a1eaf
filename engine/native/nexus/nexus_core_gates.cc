// What keeps I/O out of a core for a while: freezes, which hold all of it, the end of the nexus,
// which answers it, and the range locks of rebuilds, which hold the writes that meet them.
// Invariants: an admitted write never waits for any of these, so that each of them ends; a lock and
// the writes that meet it are served in the order they came; nothing is admitted while it is
// frozen.
#include "nexus/nexus_core.h"
#include "nexus/nexus_core_request.h"

namespace mayastor::nexus {

// ---- Freezing and stopping

Task<void> NexusCore::freeze(bool reads_too) {
  struct DrainAwaiter {
    NexusCore& core;
    bool reads_too;
    [[nodiscard]] bool await_ready() const noexcept {
      return core.writes_in_flight_ == 0 && (!reads_too || core.reads_in_flight_ == 0);
    }
    void await_suspend(std::coroutine_handle<> waiter) const {
      core.drain_waiters_.push_back(DrainWaiter{waiter, reads_too});
    }
    void await_resume() const noexcept {}
  };
  ++frozen_writes_;
  if (reads_too) ++frozen_reads_;
  DrainAwaiter drained{*this, reads_too};
  co_await drained;
}

void NexusCore::drain_check() noexcept {
  if (drain_waiters_.empty() || writes_in_flight_ > 0) return;
  for (size_t i = 0; i < drain_waiters_.size();) {
    if (drain_waiters_[i].reads_too && reads_in_flight_ > 0) {
      ++i;
      continue;
    }
    resume_later(drain_waiters_[i].handle);
    drain_waiters_.erase(drain_waiters_.begin() + static_cast<ptrdiff_t>(i));
  }
}

void NexusCore::thaw(bool reads_too) {
  CHECK(frozen_writes_ > 0 && (!reads_too || frozen_reads_ > 0));
  --frozen_writes_;
  if (reads_too) --frozen_reads_;
  IoQueue queued = std::exchange(frozen_queue_, IoQueue{});
  while (!queued.empty()) submit(queued.pop());
  retry_waiting();
}

Task<void> NexusCore::stop(IoStatus why, uint32_t authority) {
  stopped_ = true;
  stop_status_ = why;
  stop_authority_ = authority;
  IoQueue queued = std::exchange(frozen_queue_, IoQueue{});
  IoQueue waiting = std::exchange(waiting_, IoQueue{});
  while (!queued.empty()) submit(queued.pop());
  while (!waiting.empty()) {
    Io* io = waiting.pop();
    give_way(io->offset, io->offset + io->length, io->scratch[0]);
    io->complete(stop_status_);
  }
  settle_held();
  Task<void> drained = freeze(true);
  co_await drained;
  thaw(true);
}

void NexusCore::restart() {
  stopped_ = false;
  stop_authority_ = kMaxChildren;
}

// ---- Writes that meet a lock

// Does it meet a lock that came before it?
bool NexusCore::locked_out(const Io& io, uint64_t arrival) const noexcept {
  for (const RangeLock::Part* part : locks_) {
    if (part->arrival < arrival && part->lock->overlaps(io.offset, io.offset + io.length)) {
      return true;
    }
  }
  return false;
}

void NexusCore::wait_for_lock(Io* io) noexcept {
  io->scratch[0] = ++arrivals_;
  waiting_.push(io);
}

// A write that came at `arrival` is over: the locks that came after it wait for one less.
void NexusCore::give_way(uint64_t begin, uint64_t end, uint64_t arrival) noexcept {
  for (RangeLock::Part* part : locks_) {
    if (part->waiting == 0 || part->arrival < arrival) continue;
    if (!part->lock->overlaps(begin, end)) continue;
    if (--part->waiting == 0) {
      reactor_.post([part] { part->core->lock_range(part); });
    }
  }
}

// A range was unlocked, or writes go on: those that still meet an earlier lock wait on. What comes
// meanwhile goes to the end of the queue, behind the last one looked at.
void NexusCore::retry_waiting() noexcept {
  if (frozen_writes_ > 0 || waiting_.empty()) return;
  const Io* const last = waiting_.last;
  for (bool more = true; more;) {
    Io* io = waiting_.pop();
    more = io != last;
    if (locked_out(*io, io->scratch[0])) {
      waiting_.push(io);
    } else {
      start_write(io);
    }
  }
}

// ---- Range locks

RangeLock::RangeLock(const std::vector<std::unique_ptr<NexusCore>>& cores) : parts_(cores.size()) {
  for (size_t i = 0; i < cores.size(); ++i) {
    parts_[i].lock = this;
    parts_[i].core = cores[i].get();
  }
}

void RangeLock::broadcast(void (*fn)(Message*) noexcept) noexcept {
  CHECK(outstanding_ == 0 && !waiter_);
  outstanding_ = static_cast<uint32_t>(parts_.size());
  for (Part& part : parts_) {
    if (&part.core->reactor() == &Reactor::current()) {
      fn(&part);
    } else {
      part.fn = fn;
      part.core->reactor().send(&part);
    }
  }
}

RangeLock::Awaiter RangeLock::lock(uint64_t begin, uint64_t end) noexcept {
  CHECK(!held_);
  held_ = true;
  begin_ = begin;
  end_ = end;
  broadcast([](Message* message) noexcept {
    auto* part = static_cast<Part*>(message);
    NexusCore& core = *part->core;
    core.locks_.push_back(part);
    part->arrival = ++core.arrivals_;
    for (auto* request = core.landing_.first; request != nullptr; request = request->next) {
      if (part->lock->overlaps(request->begin, request->end)) ++part->waiting;
    }
    for (const Io* io = core.waiting_.first; io != nullptr; io = io->next) {
      if (part->lock->overlaps(io->offset, io->offset + io->length)) ++part->waiting;
    }
    if (part->waiting == 0) core.lock_range(part);
  });
  return Awaiter{*this};
}

RangeLock::Awaiter RangeLock::unlock() noexcept {
  CHECK(held_);
  held_ = false;
  broadcast([](Message* message) noexcept {
    auto* part = static_cast<Part*>(message);
    part->core->unlock_range(part);
  });
  return Awaiter{*this};
}

void RangeLock::answered() noexcept {
  CHECK(outstanding_ > 0);
  if (--outstanding_ == 0 && waiter_) std::exchange(waiter_, {}).resume();
}

// The range is free of writes on this core: tell home.
void NexusCore::lock_range(RangeLock::Part* part) noexcept {
  Reactor& home = nexus_.reactors_.home();
  if (&home == &Reactor::current()) {
    part->lock->answered();
    return;
  }
  part->fn = [](Message* message) noexcept {
    static_cast<RangeLock::Part*>(message)->lock->answered();
  };
  home.send(part);
}

void NexusCore::unlock_range(RangeLock::Part* part) noexcept {
  std::erase(locks_, part);
  lock_range(part);  // the answer is the same; after it `part` is home's again
  retry_waiting();
}

}  // namespace mayastor::nexus

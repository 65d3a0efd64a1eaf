#include "nexus/rebuild_job.h"

#include <algorithm>

namespace mayastor::nexus {
namespace {
constexpr uint64_t kSourceRetryNs = 1'000'000;  // while a failing source is being worked off
constexpr uint64_t kNsPerSecond = 1'000'000'000;
}  // namespace

const char* to_string(RebuildState state) noexcept {
  switch (state) {
    case RebuildState::kInit:
      return "init";
    case RebuildState::kRunning:
      return "running";
    case RebuildState::kStopped:
      return "stopped";
    case RebuildState::kPaused:
      return "paused";
    case RebuildState::kFailed:
      return "failed";
    case RebuildState::kCompleted:
      return "completed";
  }
  return "failed";
}

RebuildJob::RebuildJob(Nexus& nexus, std::shared_ptr<Child> destination, bool partial)
    : nexus_(nexus), destination_(std::move(destination)), partial_(partial) {
  start_time_ns_ = nexus_.reactors_.home().clock().wall_time_ns();
  const std::shared_ptr<Child> source = nexus_.pick_source();
  if (source != nullptr) source_uri_ = source->uri;
  for (uint32_t i = 0; i < kRebuildTaskCount; ++i) {
    buffers_.emplace_back(kSegmentBytes);
    locks_.push_back(std::make_unique<RangeLock>(nexus_.cores_));
  }
  ended_.add();
}

void RebuildJob::wake() noexcept {
  const auto waiter = std::exchange(resumer_, {});
  if (waiter) Reactor::current().post([waiter] { waiter.resume(); });
}

void RebuildJob::stop() {
  stop_ = true;
  wake();
}

void RebuildJob::fail() {
  failed_ = true;
  wake();
}

void RebuildJob::pause() {
  paused_ = true;
  if (state_ == RebuildState::kInit) state_ = RebuildState::kPaused;
}

void RebuildJob::resume() {
  paused_ = false;
  wake();
}

Task<void> RebuildJob::run() {
  struct Resumed {
    RebuildJob& job;
    [[nodiscard]] bool await_ready() const noexcept {
      return !job.paused_ || job.stop_ || job.failed_;
    }
    void await_suspend(std::coroutine_handle<> waiter) const noexcept { job.resumer_ = waiter; }
    void await_resume() const noexcept {}
  };
  Yield yield;
  co_await yield;  // whoever started us finishes first
  while (true) {
    if (stop_) {
      state_ = RebuildState::kStopped;
      break;
    }
    if (failed_) {
      state_ = RebuildState::kFailed;
      break;
    }
    if (paused_) {
      state_ = RebuildState::kPaused;
      Resumed resumed{*this};
      co_await resumed;
      continue;
    }
    state_ = RebuildState::kRunning;
    co_await copy_all();
    if (halted()) continue;
    if (!destination_->log->empty()) {
      co_await yield;
      continue;
    }
    // What was copied must be as durable as what hosts flushed before.
    NexusCore& home = *nexus_.cores_[Reactor::current().index()];
    const uint32_t slot = destination_->slot;
    const uint64_t id = destination_->id;
    const IoStatus flushed = co_await home.leg_flush(slot, id);
    if (!flushed.ok() && !flushed.is(io_status::kInvalidOpcode)) {
      cause_ = flushed;
      failed_ = true;
      continue;
    }
    if (halted()) continue;
    const bool promoted = co_await nexus_.try_promote(destination_);
    if (promoted) {
      state_ = RebuildState::kCompleted;
      break;
    }
    if (nexus_.pick_source() == nullptr) failed_ = true;
    co_await yield;
  }
  end_time_ns_ = nexus_.reactors_.home().clock().wall_time_ns();
}

Task<void> RebuildJob::copy_all() {
  cursor_ = 0;
  for (uint32_t i = 0; i < kRebuildTaskCount; ++i) {
    workers_.add();
    spawn(worker(i));
  }
  co_await workers_;
}

Task<void> RebuildJob::worker(uint32_t index) {
  Yield yield;
  co_await yield;  // so that the latch counts all workers before one ends
  while (!halted()) {
    const std::optional<uint64_t> segment = destination_->log->take(cursor_);
    if (!segment.has_value()) break;
    cursor_ = *segment + 1;
    ++active_;
    co_await wait_for_rate(kSegmentBytes);
    bool copied = false;
    if (!halted()) {
      const uint64_t which = *segment;
      copied = co_await copy_segment(index, which);
    }
    if (!copied) destination_->log->mark_segment(*segment);
    --active_;
    co_await yield;  // other work of this reactor gets its turn
  }
  workers_.done();
}

// From the preferred source, and what it cannot read from whichever other can.
Task<RebuildJob::Fetched> RebuildJob::fetch(uint64_t begin, uint8_t* data, uint64_t length) {
  NexusCore& home = *nexus_.cores_[Reactor::current().index()];
  const std::shared_ptr<Child> source = nexus_.pick_source();
  if (source == nullptr) {
    failed_ = true;
    co_return Fetched::kNot;
  }
  // It missed a write here: its fault is on the way.
  if (source->log->is_marked(begin / kSegmentBytes)) co_return Fetched::kLater;
  source_uri_ = source->uri;
  IoStatus got = co_await home.leg_read(source->slot, source->id, begin, data, length);
  if (got.ok()) co_return Fetched::kYes;
  if (is_unreadable(got)) {
    constexpr uint32_t kNobody = kMaxChildren;
    uint32_t unreadable = 0;
    got = co_await home.read_any(begin, data, length, kNobody, &unreadable);
    if (got.ok()) {
      nexus_.on_unreadable(source->id, begin, begin + length);
      co_return Fetched::kYes;
    }
    if (is_unreadable(got)) {  // nobody can: none of them is to blame more than the others
      cause_ = got;
      failed_ = source_failed_ = true;
      co_return Fetched::kNot;
    }
    co_return Fetched::kLater;  // somebody failed otherwise, and was told of
  }
  nexus_.on_child_failed(source->id, got);
  if (source->healthy()) {  // the last one: there is no other to read from
    cause_ = got;
    failed_ = source_failed_ = true;
    co_return Fetched::kNot;
  }
  co_return Fetched::kLater;
}

Task<bool> RebuildJob::copy_segment(uint32_t index, uint64_t segment) {
  const uint64_t begin = segment * kSegmentBytes;
  const uint64_t length = std::min(kSegmentBytes, nexus_.size_bytes_ - begin);
  RangeLock& lock = *locks_[index];
  uint8_t* data = buffers_[index].data();
  NexusCore& home = *nexus_.cores_[Reactor::current().index()];
  bool copied = false;
  co_await lock.lock(begin, begin + length);
  const Fetched fetched = co_await fetch(begin, data, length);
  if (fetched == Fetched::kYes) {
    const uint32_t slot = destination_->slot;
    const uint64_t id = destination_->id;
    const IoStatus put = co_await home.leg_write(slot, id, begin, data, length);
    copied = put.ok();
    if (!copied) {
      cause_ = put;
      failed_ = true;
    }
  }
  co_await lock.unlock();
  if (copied) copied_bytes_ += length;
  if (fetched == Fetched::kLater && !halted()) {
    auto pause = sleep_for(kSourceRetryNs);
    co_await pause;
  }
  co_return copied;
}

Task<void> RebuildJob::wait_for_rate(uint64_t bytes) {
  const uint64_t rate = nexus_.options_.rebuild_bytes_per_second;
  if (rate == 0) co_return;
  const uint64_t now = Reactor::current().now_ns();
  next_copy_ns_ = std::max(next_copy_ns_, now);
  const uint64_t at = next_copy_ns_;
  next_copy_ns_ += bytes * kNsPerSecond / rate;
  if (at > now) {
    auto pause = sleep_for(at - now);
    co_await pause;
  }
}

RebuildStats RebuildJob::stats() const {
  RebuildStats stats;
  const uint64_t block = nexus_.block_size_;
  const uint64_t per_segment = kSegmentBytes / block;
  stats.blocks_total = nexus_.size_bytes_ / block;
  stats.blocks_transferred = copied_bytes_ / block;
  stats.blocks_remaining =
      std::min(stats.blocks_total, (destination_->log->count() + active_) * per_segment);
  if (state_ == RebuildState::kCompleted) stats.blocks_remaining = 0;
  stats.blocks_recovered = stats.blocks_total - stats.blocks_remaining;
  stats.progress = stats.blocks_recovered * 100 / std::max<uint64_t>(stats.blocks_total, 1);
  stats.blocks_per_task = per_segment;
  stats.block_size = block;
  stats.tasks_total = kRebuildTaskCount;
  stats.tasks_active = active_;
  stats.is_partial = partial_;
  stats.start_time_ns = start_time_ns_;
  return stats;
}

RebuildRecord RebuildJob::record() const {
  const RebuildStats now = stats();
  RebuildRecord record;
  record.child_uri = destination_->uri;
  record.source_uri = source_uri_;
  record.state = state_;
  record.blocks_total = now.blocks_total;
  record.blocks_recovered = now.blocks_recovered;
  record.blocks_transferred = now.blocks_transferred;
  record.blocks_remaining = now.blocks_remaining;
  record.blocks_per_task = now.blocks_per_task;
  record.block_size = now.block_size;
  record.is_partial = now.is_partial;
  record.start_time_ns = now.start_time_ns;
  record.end_time_ns = end_time_ns_;
  return record;
}

}  // namespace mayastor::nexus

// RebuildJob: copies what one child's write log marks from a healthy child, until the child is in
// sync. Sixteen tasks each lock a segment on all cores, read, write, unlock; then the nexus stops
// writes for a moment and, if nothing is marked any more, counts the child as healthy.
// Owner: home reactor. Invariants: a segment is copied only while no front-end write is under way
// in it; one that could not be copied is marked again; a source that missed a write in the segment
// is never copied from.
#pragma once
#include <coroutine>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/task.h"
#include "nexus/child.h"
#include "nexus/nexus.h"
#include "nexus/nexus_core.h"
#include "nexus/rebuild.h"

namespace mayastor::nexus {

class RebuildJob final {
 public:
  RebuildJob(Nexus& nexus, std::shared_ptr<Child> destination, bool partial);
  RebuildJob(const RebuildJob&) = delete;
  RebuildJob& operator=(const RebuildJob&) = delete;

  Task<void> run();  // once, to the end
  void stop();
  void fail();  // the destination is being faulted for another reason
  void pause();
  void resume();
  [[nodiscard]] Latch& ended() noexcept { return ended_; }  // `co_await job->ended()`
  [[nodiscard]] RebuildState state() const noexcept { return state_; }
  [[nodiscard]] RebuildStats stats() const;
  [[nodiscard]] RebuildRecord record() const;
  // The status that made it fail, if a child's answer did.
  [[nodiscard]] IoStatus cause() const noexcept { return cause_; }
  // It was a source's answer: the destination may be well.
  [[nodiscard]] bool source_failed() const noexcept { return source_failed_; }

 private:
  Task<void> copy_all();
  Task<void> worker(uint32_t index);
  Task<bool> copy_segment(uint32_t index, uint64_t segment);  // false: mark it again
  enum class Fetched : uint8_t { kYes, kLater, kNot };
  Task<Fetched> fetch(uint64_t begin, uint8_t* data, uint64_t length);
  Task<void> wait_for_rate(uint64_t bytes);
  [[nodiscard]] bool halted() const noexcept { return stop_ || failed_ || paused_; }
  void wake() noexcept;

  Nexus& nexus_;
  const std::shared_ptr<Child> destination_;
  const bool partial_;
  RebuildState state_ = RebuildState::kInit;
  bool stop_ = false, failed_ = false, paused_ = false;
  bool source_failed_ = false;
  IoStatus cause_;
  uint64_t cursor_ = 0;  // segments before it were offered in this round
  uint64_t copied_bytes_ = 0;
  uint64_t next_copy_ns_ = 0;  // rate limit
  uint32_t active_ = 0;
  uint64_t start_time_ns_ = 0, end_time_ns_ = 0;  // wall clock
  std::string source_uri_;
  std::vector<AlignedBuffer> buffers_;
  std::vector<std::unique_ptr<RangeLock>> locks_;
  Latch workers_;
  Latch ended_;
  std::coroutine_handle<> resumer_;  // waits while paused
};

}  // namespace mayastor::nexus

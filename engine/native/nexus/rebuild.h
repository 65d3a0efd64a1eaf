// Rebuild: what the outside sees of a job that brings one child in sync with the others.
// States, statistics and the history record are those of the published nexus interface.
#pragma once
#include <cstdint>
#include <string>

namespace mayastor::nexus {

// Segments copied at once by one job, and their size: also the grain of the write log.
inline constexpr uint32_t kRebuildTaskCount = 16;
inline constexpr uint64_t kSegmentBytes = 64 * 1024;

enum class RebuildState : uint8_t {  // numbers of the published RebuildJobState
  kInit = 0,
  kRunning = 1,
  kStopped = 2,
  kPaused = 3,
  kFailed = 4,
  kCompleted = 5,
};
// "init", "running", "stopped", "paused", "failed", "completed".
[[nodiscard]] const char* to_string(RebuildState state) noexcept;

struct RebuildStats {
  uint64_t blocks_total = 0;        // of the nexus
  uint64_t blocks_recovered = 0;    // in sync by now: never dirty, or copied
  uint64_t blocks_transferred = 0;  // copied by this job
  uint64_t blocks_remaining = 0;    // still to copy
  uint64_t progress = 0;            // percent, 100 only when nothing remains
  uint64_t blocks_per_task = 0;     // segment size
  uint64_t block_size = 0;          // bytes
  uint64_t tasks_total = 0;
  uint64_t tasks_active = 0;
  bool is_partial = false;
  uint64_t start_time_ns = 0;  // wall clock, since the epoch
};

struct RebuildRecord {
  std::string child_uri;
  std::string source_uri;
  RebuildState state = RebuildState::kInit;
  uint64_t blocks_total = 0;
  uint64_t blocks_recovered = 0;
  uint64_t blocks_transferred = 0;
  uint64_t blocks_remaining = 0;
  uint64_t blocks_per_task = 0;
  uint64_t block_size = 0;
  bool is_partial = false;
  uint64_t start_time_ns = 0;  // wall clock, since the epoch
  uint64_t end_time_ns = 0;
};

}  // namespace mayastor::nexus

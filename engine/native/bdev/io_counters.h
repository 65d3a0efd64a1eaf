// IoCounters: what a bdev counts about its I/O, latency buckets included, without contention. Each
// channel owns one set, which only its reactor writes (relaxed atomics); whoever asks sums them.
// Usage: the bdev keeps an IoCounterSet; each channel opens a ChannelCounters from it and calls
// record() per request.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "bdev/bdev.h"
#include "util/latency_histogram.h"

namespace mayastor {

class IoCounterSet;

// Counters of one channel. Written by one thread, read by any; on cache lines of its own, so that
// channels of two cores never share one.
class alignas(64) ChannelCounters final {
 public:
  explicit ChannelCounters(IoCounterSet& set) noexcept;
  ~ChannelCounters();
  ChannelCounters(const ChannelCounters&) = delete;
  ChannelCounters& operator=(const ChannelCounters&) = delete;
  void record(IoType type, uint64_t length, uint64_t latency_ns) noexcept;  // successful ones

 private:
  friend class IoCounterSet;
  struct Kind {
    std::atomic<uint64_t> ops{0}, bytes{0}, latency_ns{0}, latency_ns_max{0}, latency_ns_min{0};
    LatencyRecorder latencies;
  };
  void clear() noexcept;
  [[nodiscard]] IoStats snapshot() const noexcept;
  void add_to(IoLatencies& total) const noexcept;
  IoCounterSet& set_;
  std::atomic<uint32_t> epoch_;
  Kind read_, write_, unmap_;
};

// All counters of one bdev; outlives its channels.
class IoCounterSet final {
 public:
  IoCounterSet() = default;
  IoCounterSet(const IoCounterSet&) = delete;
  IoCounterSet& operator=(const IoCounterSet&) = delete;
  [[nodiscard]] IoStats sum() const;             // any thread
  void add_latencies(IoLatencies& total) const;  // any thread
  void reset() noexcept;                         // any thread

 private:
  friend class ChannelCounters;
  mutable std::mutex mutex_;  // control path: opening, closing, summing
  std::vector<ChannelCounters*> open_;
  IoStats closed_;
  IoLatencies closed_latencies_;
  std::atomic<uint32_t> epoch_{0};  // counters of an older epoch count as zero
};

}  // namespace mayastor

// IoCounters: single-writer counters and their sum.
#include "bdev/io_counters.h"

#include <algorithm>

namespace mayastor {
namespace {

void bump(std::atomic<uint64_t>& counter, uint64_t by) noexcept {  // one writer: no RMW needed
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

uint64_t get(const std::atomic<uint64_t>& counter) noexcept {
  return counter.load(std::memory_order_relaxed);
}

uint64_t least(uint64_t a, uint64_t b) noexcept {  // 0: none yet
  if (a == 0 || b == 0) return std::max(a, b);
  return std::min(a, b);
}

}  // namespace

void IoStats::add(const IoStats& other) noexcept {
  read_ops += other.read_ops;
  read_bytes += other.read_bytes;
  write_ops += other.write_ops;
  write_bytes += other.write_bytes;
  unmap_ops += other.unmap_ops;
  unmap_bytes += other.unmap_bytes;
  read_latency_ns += other.read_latency_ns;
  write_latency_ns += other.write_latency_ns;
  unmap_latency_ns += other.unmap_latency_ns;
  read_latency_ns_max = std::max(read_latency_ns_max, other.read_latency_ns_max);
  write_latency_ns_max = std::max(write_latency_ns_max, other.write_latency_ns_max);
  unmap_latency_ns_max = std::max(unmap_latency_ns_max, other.unmap_latency_ns_max);
  read_latency_ns_min = least(read_latency_ns_min, other.read_latency_ns_min);
  write_latency_ns_min = least(write_latency_ns_min, other.write_latency_ns_min);
  unmap_latency_ns_min = least(unmap_latency_ns_min, other.unmap_latency_ns_min);
}

ChannelCounters::ChannelCounters(IoCounterSet& set) noexcept
    : set_(set), epoch_(set.epoch_.load(std::memory_order_relaxed)) {
  const std::lock_guard lock(set_.mutex_);
  set_.open_.push_back(this);
}

ChannelCounters::~ChannelCounters() {
  const std::lock_guard lock(set_.mutex_);
  std::erase(set_.open_, this);
  if (epoch_.load(std::memory_order_relaxed) == set_.epoch_.load(std::memory_order_relaxed)) {
    set_.closed_.add(snapshot());
    add_to(set_.closed_latencies_);
  }
}

void ChannelCounters::clear() noexcept {
  for (Kind* kind : {&read_, &write_, &unmap_}) {
    for (auto* counter : {&kind->ops, &kind->bytes, &kind->latency_ns, &kind->latency_ns_max,
                          &kind->latency_ns_min}) {
      counter->store(0, std::memory_order_relaxed);
    }
    kind->latencies.clear();
  }
}

void ChannelCounters::record(IoType type, uint64_t length, uint64_t latency_ns) noexcept {
  const uint32_t epoch = set_.epoch_.load(std::memory_order_relaxed);
  if (epoch_.load(std::memory_order_relaxed) != epoch) [[unlikely]] {
    clear();
    epoch_.store(epoch, std::memory_order_release);
  }
  Kind* kind = nullptr;
  switch (type) {
    case IoType::kRead:
    case IoType::kCompare:
      kind = &read_;
      break;
    case IoType::kWrite:
    case IoType::kWriteZeroes:
      kind = &write_;
      break;
    case IoType::kUnmap:
      kind = &unmap_;
      break;
    case IoType::kFlush:
      return;
  }
  bump(kind->ops, 1);
  bump(kind->bytes, length);
  bump(kind->latency_ns, latency_ns);
  kind->latencies.record(latency_ns);
  if (latency_ns > get(kind->latency_ns_max)) {
    kind->latency_ns_max.store(latency_ns, std::memory_order_relaxed);
  }
  const uint64_t smallest = get(kind->latency_ns_min);
  if (smallest == 0 || latency_ns < smallest) {
    kind->latency_ns_min.store(latency_ns, std::memory_order_relaxed);
  }
}

IoStats ChannelCounters::snapshot() const noexcept {
  IoStats stats;
  stats.read_ops = get(read_.ops);
  stats.read_bytes = get(read_.bytes);
  stats.read_latency_ns = get(read_.latency_ns);
  stats.read_latency_ns_max = get(read_.latency_ns_max);
  stats.read_latency_ns_min = get(read_.latency_ns_min);
  stats.write_ops = get(write_.ops);
  stats.write_bytes = get(write_.bytes);
  stats.write_latency_ns = get(write_.latency_ns);
  stats.write_latency_ns_max = get(write_.latency_ns_max);
  stats.write_latency_ns_min = get(write_.latency_ns_min);
  stats.unmap_ops = get(unmap_.ops);
  stats.unmap_bytes = get(unmap_.bytes);
  stats.unmap_latency_ns = get(unmap_.latency_ns);
  stats.unmap_latency_ns_max = get(unmap_.latency_ns_max);
  stats.unmap_latency_ns_min = get(unmap_.latency_ns_min);
  return stats;
}

void ChannelCounters::add_to(IoLatencies& total) const noexcept {
  const auto add = [](const Kind& kind, LatencyHistogram& histogram) {
    if (get(kind.ops) == 0) return;
    kind.latencies.add_to(histogram);
    histogram.sum_ns += get(kind.latency_ns);
  };
  add(read_, total.read);
  add(write_, total.write);
  add(unmap_, total.unmap);
}

IoStats IoCounterSet::sum() const {
  const std::lock_guard lock(mutex_);
  IoStats total = closed_;
  const uint32_t epoch = epoch_.load(std::memory_order_relaxed);
  for (const ChannelCounters* counters : open_) {
    if (counters->epoch_.load(std::memory_order_acquire) == epoch) total.add(counters->snapshot());
  }
  return total;
}

void IoCounterSet::add_latencies(IoLatencies& total) const {
  const std::lock_guard lock(mutex_);
  total.add(closed_latencies_);
  const uint32_t epoch = epoch_.load(std::memory_order_relaxed);
  for (const ChannelCounters* counters : open_) {
    if (counters->epoch_.load(std::memory_order_acquire) == epoch) counters->add_to(total);
  }
}

void IoCounterSet::reset() noexcept {
  const std::lock_guard lock(mutex_);
  closed_ = IoStats{};
  closed_latencies_ = IoLatencies{};
  epoch_.store(epoch_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace mayastor

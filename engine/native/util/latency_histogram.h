// Latency distribution in log-linear buckets: LatencyRecorder counts, LatencyHistogram sums.
// Why this layout: it is the exponential one of Prometheus native histograms, schema 3, in seconds,
// so that what is counted here reaches a query unchanged: bucket i holds (2^((i-1)/8), 2^(i/8)],
// 9 % wide. Up to 2^-23 s (119 ns, less than the clock resolves) counts as zero; what takes longer
// than 2^10 s (17 minutes) is in the last bucket, and exact in the sum.
// Invariants: a recorder has one writer, which neither locks nor allocates; any thread may read it.
#pragma once
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace mayastor {

struct LatencyBuckets {
  static constexpr int32_t kSchema = 3;  // 2^3 buckets per doubling
  static constexpr int32_t kPerDoubling = 1 << kSchema;
  static constexpr int32_t kZeroExponent = -23, kLastExponent = 10;  // of 2, in seconds
  static constexpr double kZeroThresholdSec = 1.0 / (1 << -kZeroExponent);
  static constexpr int32_t kZeroIndex = kZeroExponent * kPerDoubling;  // slot 0
  static constexpr size_t kSlots = (kLastExponent - kZeroExponent) * kPerDoubling + 1;

  // Where a latency is counted: 0 for zero, else slot s is bucket kZeroIndex + s.
  [[nodiscard]] static size_t slot_of(uint64_t latency_ns) noexcept {
    constexpr uint64_t kZeroNs = 119, kMostNs = 1'024'000'000'000;
    if (latency_ns <= kZeroNs) return 0;
    if (latency_ns >= kMostNs) [[unlikely]]
      return kSlots - 1;
    // Divided, not multiplied by 1e-9: correctly rounded, so that an exact bound stays exact.
    const auto bits = std::bit_cast<uint64_t>(static_cast<double>(latency_ns) / 1e9);
    const auto exponent = static_cast<int32_t>(bits >> kMantissaBits) - kExponentBias;
    const uint64_t mantissa = bits & ((uint64_t{1} << kMantissaBits) - 1);
    const double scaled = std::bit_cast<double>(mantissa | kOne);  // [1, 2)
    const int32_t guess = kGuesses[mantissa >> (kMantissaBits - kCellBits)];
    const int32_t within = guess + (scaled > kBounds[static_cast<size_t>(guess)] ? 1 : 0);
    return static_cast<size_t>(exponent * kPerDoubling + within - kZeroIndex);
  }

 private:
  static constexpr int kMantissaBits = 52, kExponentBias = 1023, kCellBits = 5;  // IEEE 754 double
  static constexpr uint64_t kOne = uint64_t{kExponentBias} << kMantissaBits;
  // 2^(j/8). A cell of [1, 2) / 32 holds at most one of them.
  static constexpr std::array<double, kPerDoubling + 1> kBounds = {1.0,
                                                                   1.0905077326652577,
                                                                   1.1892071150027210,
                                                                   1.2968395546510096,
                                                                   1.4142135623730950,
                                                                   1.5422108254079407,
                                                                   1.6817928305074290,
                                                                   1.8340080864093424,
                                                                   2.0};
  // The first bound at or above the start of each cell.
  static constexpr std::array<uint8_t, 1 << kCellBits> kGuesses = [] {
    std::array<uint8_t, 1 << kCellBits> guesses{};
    for (size_t cell = 0; cell < guesses.size(); ++cell) {
      const double start = 1.0 + static_cast<double>(cell) / static_cast<double>(guesses.size());
      while (kBounds[guesses[cell]] < start) ++guesses[cell];
    }
    return guesses;
  }();
};

// Counts by slot, and the exact sum.
struct LatencyHistogram {
  std::array<uint64_t, LatencyBuckets::kSlots> counts{};
  uint64_t sum_ns = 0;
  void add(const LatencyHistogram& other) noexcept {
    for (size_t slot = 0; slot < counts.size(); ++slot) counts[slot] += other.counts[slot];
    sum_ns += other.sum_ns;
  }
};

class LatencyRecorder final {
 public:
  void record(uint64_t latency_ns) noexcept {  // the writer
    std::atomic<uint64_t>& count = counts_[LatencyBuckets::slot_of(latency_ns)];
    count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  void clear() noexcept {  // the writer
    for (auto& count : counts_) count.store(0, std::memory_order_relaxed);
  }
  void add_to(LatencyHistogram& total) const noexcept {  // any thread; not the sum
    for (size_t slot = 0; slot < counts_.size(); ++slot) {
      total.counts[slot] += counts_[slot].load(std::memory_order_relaxed);
    }
  }

 private:
  std::array<std::atomic<uint64_t>, LatencyBuckets::kSlots> counts_{};
};

}  // namespace mayastor

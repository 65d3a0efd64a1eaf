// DeviceHealth: what a device did wrong, and whether it still answers: its failed requests by kind
// with the last one's place and cause, its slow ones, and since when the oldest unfinished one has
// been waiting. Why: a disk fails before it dies; whoever places data must know of it, and an
// operator must read it somewhere.
// Each channel opens a ChannelWatch, which only its reactor writes; failures are rare enough for a
// mutex. Times are those of the reactors' monotonic clock.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

namespace mayastor {

enum class IoType : uint8_t;

struct DeviceHealth {
  uint64_t read_errors = 0;
  uint64_t write_errors = 0;  // all that would have changed the medium, and flushes
  uint64_t slow_requests = 0;
  // The last failure; last_error_ns 0: none yet.
  uint64_t last_error_ns = 0;
  uint64_t last_error_offset = 0, last_error_length = 0;
  int32_t last_error_number = 0;
  bool last_error_was_read = false;
  uint64_t last_slow_ns = 0;  // when the last slow one ended
  // When the oldest read, write or flush that has not ended was submitted; 0: none is in flight.
  uint64_t waiting_since_ns = 0;
};

// Reads, writes and flushes that take longer are slow: a remote nexus gives up soon after.
inline constexpr uint64_t kSlowRequestNs = 4'000'000'000;

// One that has not ended by then says that the device does not answer.
inline constexpr uint64_t kSilentNs = 10'000'000'000;

class DeviceHealthRecord;

class alignas(64) ChannelWatch final {
 public:
  explicit ChannelWatch(DeviceHealthRecord& record);
  ~ChannelWatch();
  ChannelWatch(const ChannelWatch&) = delete;
  ChannelWatch& operator=(const ChannelWatch&) = delete;
  void set_oldest(uint64_t start_ns) noexcept {  // 0: none in flight
    oldest_ns_.store(start_ns, std::memory_order_relaxed);
  }
  void set_flush(uint64_t start_ns) noexcept {
    flush_ns_.store(start_ns, std::memory_order_relaxed);
  }

 private:
  friend class DeviceHealthRecord;
  DeviceHealthRecord& record_;
  std::atomic<uint64_t> oldest_ns_{0}, flush_ns_{0};
};

// Of one device; outlives its channels. Any thread.
class DeviceHealthRecord final {
 public:
  DeviceHealthRecord() = default;
  DeviceHealthRecord(const DeviceHealthRecord&) = delete;
  DeviceHealthRecord& operator=(const DeviceHealthRecord&) = delete;
  void failed(IoType type, uint64_t offset, uint64_t length, int32_t error_number, uint64_t now_ns);
  void slow(uint64_t now_ns);
  [[nodiscard]] DeviceHealth read() const;

 private:
  friend class ChannelWatch;
  mutable std::mutex mutex_;
  std::vector<ChannelWatch*> open_;
  DeviceHealth totals_;
};

}  // namespace mayastor

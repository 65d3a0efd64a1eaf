// DeviceHealth: see device_health.h.
#include "bdev/device_health.h"

#include <algorithm>

#include "bdev/bdev.h"

namespace mayastor {

ChannelWatch::ChannelWatch(DeviceHealthRecord& record) : record_(record) {
  const std::lock_guard lock(record_.mutex_);
  record_.open_.push_back(this);
}

ChannelWatch::~ChannelWatch() {
  const std::lock_guard lock(record_.mutex_);
  std::erase(record_.open_, this);
}

void DeviceHealthRecord::failed(IoType type, uint64_t offset, uint64_t length, int32_t error_number,
                                uint64_t now_ns) {
  const bool read = type == IoType::kRead || type == IoType::kCompare;
  const std::lock_guard lock(mutex_);
  ++(read ? totals_.read_errors : totals_.write_errors);
  totals_.last_error_ns = std::max<uint64_t>(now_ns, 1);
  totals_.last_error_offset = offset;
  totals_.last_error_length = length;
  totals_.last_error_number = error_number;
  totals_.last_error_was_read = read;
}

void DeviceHealthRecord::slow(uint64_t now_ns) {
  const std::lock_guard lock(mutex_);
  ++totals_.slow_requests;
  totals_.last_slow_ns = std::max<uint64_t>(now_ns, 1);
}

DeviceHealth DeviceHealthRecord::read() const {
  const std::lock_guard lock(mutex_);
  DeviceHealth health = totals_;
  for (const ChannelWatch* watch : open_) {
    for (const auto* since : {&watch->oldest_ns_, &watch->flush_ns_}) {
      const uint64_t start_ns = since->load(std::memory_order_relaxed);
      if (start_ns == 0) continue;
      const uint64_t first = health.waiting_since_ns;
      health.waiting_since_ns = first == 0 ? start_ns : std::min(first, start_ns);
    }
  }
  return health;
}

}  // namespace mayastor

// make_ring: io_uring if the kernel lets us, else the fallback, with the reason.
#include "core/make_ring.h"

#include <time.h>

#include "core/epoll_ring.h"
#include "core/uring_ring.h"

namespace mayastor {
namespace {

class SystemClock final : public Clock {
 public:
  [[nodiscard]] uint64_t now_ns() noexcept override { return read(CLOCK_MONOTONIC); }
  [[nodiscard]] uint64_t wall_time_ns() noexcept override { return read(CLOCK_REALTIME); }

 private:
  static uint64_t read(clockid_t which) noexcept {
    timespec now{};
    clock_gettime(which, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
  }
};

}  // namespace

std::shared_ptr<Clock> system_clock() {
  return std::make_shared<SystemClock>();
}

Result<MadeRing> make_ring(const RingOptions& options) {
  MadeRing made;
  if (options.kind != RingKind::kEpoll) {
    auto uring = UringRing::make(options);
    if (uring.ok()) {
      made.ring = uring.take();
      made.kind = RingKind::kUring;
      return made;
    }
    if (options.kind == RingKind::kUring) return uring.error();
    made.note = uring.error().message + "; using epoll and threads instead, which is slower";
  }
  auto epoll = EpollRing::make();
  if (!epoll.ok()) return epoll.error();
  made.ring = epoll.take();
  made.kind = RingKind::kEpoll;
  return made;
}

}  // namespace mayastor

// make_ring: the Ring for this kernel. io_uring where it is allowed, else epoll with a few threads
// for the disks: slower, never wrong.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "core/ring.h"

namespace mayastor {

enum class RingKind : uint8_t { kAuto, kUring, kEpoll };

struct RingOptions {
  RingKind kind = RingKind::kAuto;  // kAuto: io_uring, or the fallback when it is refused
  uint32_t entries = 1024;          // submissions per turn before an extra system call
};

struct MadeRing {
  std::unique_ptr<Ring> ring;
  RingKind kind = RingKind::kUring;  // never kAuto
  std::string note;                  // why the fallback was chosen and the remedy; "" when not
};

// May be called on any thread; the ring belongs to the thread that first polls it.
[[nodiscard]] Result<MadeRing> make_ring(const RingOptions& options);

// The kernel's monotonic and wall clocks.
[[nodiscard]] std::shared_ptr<Clock> system_clock();

}  // namespace mayastor

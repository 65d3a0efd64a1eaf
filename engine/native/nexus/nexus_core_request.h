// What the parts of NexusCore share: a host's request, and children as bits of a mask.
// Owner: the core that the request came to; its `turn` is lent to the nexus's WriteOrder, whose
// grant may come from another core. Invariant: a request and its buffers are in use until `pending`
// is 0; only then has_it, refused and error are final.
#pragma once
#include <bit>

#include "nexus/nexus_core.h"

namespace mayastor::nexus {

[[nodiscard]] constexpr uint32_t bit_of(uint32_t slot) {
  return 1u << slot;
}

// Calls fn(slot) for each bit set.
template <typename Fn>
void for_each_slot(uint32_t mask, Fn fn) {
  for (; mask != 0; mask &= mask - 1) fn(static_cast<uint32_t>(std::countr_zero(mask)));
}

// One host request on its way through the children.
struct NexusCore::Request {
  Io* host = nullptr;
  NexusCore* core = nullptr;
  Request* next = nullptr;
  Request* previous = nullptr;
  uint64_t begin = 0, end = 0;  // nexus offsets; equal for a flush
  uint64_t start_ns = 0;
  uint32_t pending = 0;     // legs not done, plus one while starting
  uint32_t has_it = 0;      // children that did it
  uint32_t refused = 0;     // children that do not know the operation
  uint32_t tried = 0;       // children a read was sent to
  uint32_t unreadable = 0;  // of those: their medium could not be read there
  IoStatus error;           // the first failure
  struct Turn : Message, WriteOrder::Ticket {
    Request* request = nullptr;
  };
  Turn turn;              // a write's place among those that overlap it
  Io legs[kMaxChildren];  // by slot
};

}  // namespace mayastor::nexus

#include "nexus/write_order.h"

#include <algorithm>
#include <thread>

#include "util/check.h"

namespace mayastor::nexus {
namespace {
constexpr uint32_t kSpinLimit = 200;  // then the holder may have lost its core: let it run

void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}
}  // namespace

WriteOrder::~WriteOrder() {
  for (const Shard& shard : shards_) CHECK(shard.first == nullptr);
}

WriteOrder::Span WriteOrder::span_of(uint64_t begin, uint64_t end) noexcept {
  const uint64_t first = begin / kRegionBytes;
  const uint64_t count = (end - 1) / kRegionBytes - first + 1;
  if (count >= kShards) return Span{0, kShards};
  return Span{static_cast<uint32_t>(first % kShards), static_cast<uint32_t>(count)};
}

WriteOrder::Place* WriteOrder::places_of(Ticket& ticket, uint32_t count) noexcept {
  if (count <= kInlinePlaces) return ticket.inline_places_.data();
  if (ticket.more_capacity_ < count) {
    ticket.more_places_ = std::make_unique<Place[]>(count);
    ticket.more_capacity_ = count;
  }
  return ticket.more_places_.get();
}

void WriteOrder::lock(Shard& shard) noexcept {
  if (!many_cores_) return;
  while (shard.locked.exchange(true, std::memory_order_acquire)) {
    for (uint32_t spins = 0; shard.locked.load(std::memory_order_relaxed); ++spins) {
      if (spins < kSpinLimit) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
  }
}

void WriteOrder::unlock(Shard& shard) noexcept {
  if (many_cores_) shard.locked.store(false, std::memory_order_release);
}

// In ascending order, whatever wraps around: so two writes never hold what the other waits for.
void WriteOrder::lock_all(Span span) noexcept {
  const uint32_t end = span.first + span.count;
  const uint32_t wrapped = end > kShards ? end - kShards : 0;
  for (uint32_t i = 0; i < wrapped; ++i) lock(shards_[i]);
  for (uint32_t i = span.first; i < std::min(end, kShards); ++i) lock(shards_[i]);
}

bool WriteOrder::enter(Ticket& ticket, uint64_t begin, uint64_t end) noexcept {
  CHECK(begin < end);
  ticket.begin_ = begin;
  ticket.end_ = end;
  ticket.next_granted = nullptr;
  const Span span = span_of(begin, end);
  Place* const places = places_of(ticket, span.count);
  if (many_cores_) lock_all(span);
  uint32_t blockers = 0;
  for (uint32_t i = 0; i < span.count; ++i) {
    Shard& shard = shards_[(span.first + i) % kShards];
    for (const Place* place = shard.first; place != nullptr; place = place->next) {
      const Ticket& other = *place->ticket;
      if (begin < other.end_ && other.begin_ < end) ++blockers;
    }
    Place& mine = places[i];
    mine.ticket = &ticket;
    mine.next = nullptr;
    mine.previous = shard.last;
    (shard.last != nullptr ? shard.last->next : shard.first) = &mine;
    shard.last = &mine;
  }
  // Before any of them can be taken away.
  ticket.blockers_.store(blockers, std::memory_order_relaxed);
  for (uint32_t i = 0; i < span.count; ++i) unlock(shards_[(span.first + i) % kShards]);
  return blockers == 0;
}

WriteOrder::Ticket* WriteOrder::leave(Ticket& ticket) noexcept {
  const Span span = span_of(ticket.begin_, ticket.end_);
  Place* const places = places_of(ticket, span.count);
  Ticket* granted = nullptr;
  Ticket** end_of_granted = &granted;
  for (uint32_t i = 0; i < span.count; ++i) {
    Shard& shard = shards_[(span.first + i) % kShards];
    Place& mine = places[i];
    lock(shard);
    for (Place* place = mine.next; place != nullptr; place = place->next) {
      Ticket& later = *place->ticket;
      if (ticket.begin_ >= later.end_ || later.begin_ >= ticket.end_) continue;
      if (later.blockers_.fetch_sub(1, std::memory_order_acq_rel) != 1) continue;
      *end_of_granted = &later;
      end_of_granted = &later.next_granted;
    }
    (mine.previous != nullptr ? mine.previous->next : shard.first) = mine.next;
    (mine.next != nullptr ? mine.next->previous : shard.last) = mine.previous;
    unlock(shard);
  }
  return granted;
}

}  // namespace mayastor::nexus

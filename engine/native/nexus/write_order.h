// WriteOrder: the order in which a nexus's overlapping writes go to its children, over all cores.
// Why: children answer at their own pace. Two writes of one block that are under way together may
// land in one order here and in another there, and then replicas differ without anybody noticing.
// So each write takes a place in a queue before it goes to any child, and goes only when no earlier
// write that overlaps it is under way. First come, first served: nobody starves.
// Any core enters and leaves. The device is divided into regions, hashed to shards; a shard keeps
// the writes that touch it in the order of arrival, behind a spin lock that is held for a few
// steps of a short list. With one core there is nobody to exclude, and the locks are left out.
// Invariants: if two overlapping writes are both in, the later one counts the earlier one as a
// blocker once for each shard they share; all shards that two writes share have them in one order
// (entering holds all of its shards at once), so they never wait for each other; who takes the last
// blocker away, and only he, is told to grant.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

namespace mayastor::nexus {

class WriteOrder final {
 public:
  static constexpr uint64_t kRegionBytes = 64 * 1024;
  static constexpr uint32_t kShards = 128;      // more than writes under way, as a rule
  static constexpr uint32_t kInlinePlaces = 3;  // 128 KiB, the usual largest write, unaligned

  class Ticket;

  // One write's place in one shard.
  struct Place {
    Ticket* ticket = nullptr;
    Place* next = nullptr;
    Place* previous = nullptr;
  };

  // A write that is in. Owned by its core; others only touch `blockers_`, and `next_granted` while
  // they hand it over.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    Ticket* next_granted = nullptr;  // of the list that leave() returns

   private:
    friend class WriteOrder;
    uint64_t begin_ = 0, end_ = 0;
    std::atomic<uint32_t> blockers_{0};
    uint32_t more_capacity_ = 0;
    std::array<Place, kInlinePlaces> inline_places_;
    std::unique_ptr<Place[]> more_places_;  // of a wide write; kept for the next one
  };

  explicit WriteOrder(bool many_cores) noexcept : many_cores_(many_cores) {}
  ~WriteOrder();
  WriteOrder(const WriteOrder&) = delete;
  WriteOrder& operator=(const WriteOrder&) = delete;

  // The write of [begin, end), bytes, not empty. True: it may go now. False: when it is granted.
  [[nodiscard]] bool enter(Ticket& ticket, uint64_t begin, uint64_t end) noexcept;
  // It has landed. Returns those that may go now, of any core.
  [[nodiscard]] Ticket* leave(Ticket& ticket) noexcept;

 private:
  struct alignas(64) Shard {
    std::atomic<bool> locked{false};
    Place* first = nullptr;
    Place* last = nullptr;
  };
  // The shards of a range: `count` of them, from `first`, wrapping around.
  struct Span {
    uint32_t first = 0, count = 0;
  };
  [[nodiscard]] static Span span_of(uint64_t begin, uint64_t end) noexcept;
  [[nodiscard]] static Place* places_of(Ticket& ticket, uint32_t count) noexcept;
  void lock(Shard& shard) noexcept;
  void unlock(Shard& shard) noexcept;
  void lock_all(Span span) noexcept;

  const bool many_cores_;
  std::array<Shard, kShards> shards_;
};

}  // namespace mayastor::nexus

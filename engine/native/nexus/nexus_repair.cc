// Places that a child in sync cannot read: read from another child and written back, which makes a
// disk put the block elsewhere. Why: one bad sector is no reason to give up a whole copy, and to
// rebuild it would hit the same sector again.
// Invariants: front-end writes stay out of the range meanwhile; only data of a child that is in
// sync is written; what was written is read again before it counts; repairs are bounded by child
// and time. A place that stays unreadable costs the child its place in the nexus only while two
// others are in sync, or when it has too many of them: the copy of all else on it may be the only
// one of what another cannot read.
#include <algorithm>
#include <cstring>

#include "core/buffer.h"
#include "nexus/child.h"
#include "nexus/nexus.h"
#include "nexus/nexus_core.h"

namespace mayastor::nexus {
namespace {
constexpr uint64_t kPieceBytes = 4096;  // no smaller than a block, and what disks lose at once

[[nodiscard]] bool overlaps(const Child::Range& range, uint64_t begin, uint64_t end) {
  return begin < range.end && range.begin < end;
}
}  // namespace

// From a core or a rebuild: another child could read the range, this one could not. Home, never
// inside a completion of a core.
void Nexus::on_unreadable(uint64_t child_id, uint64_t begin, uint64_t end) {
  const ChildPtr child = find_child_id(child_id);
  if (child == nullptr || !child->healthy() || lifecycle_ != Lifecycle::kOpen) return;
  if (!other_healthy_than(*child)) return;
  const uint64_t now_ns = reactors_.home().now_ns();
  for (const Child::Range& range : child->repairing) {
    if (overlaps(range, begin, end)) return;
  }
  for (const Child::Range& range : child->unrepaired) {
    if (overlaps(range, begin, end) && now_ns - range.tried_ns < kRepairAgainNs) return;
  }
  if (child->repairing.size() >= kRepairsAtOnce) return;  // the next read asks again
  std::erase_if(child->repaired,
                [now_ns](uint64_t then_ns) { return now_ns - then_ns >= kRepairWindowNs; });
  if (child->repaired.size() >= kRepairsMax) {
    begin_fault(child, FaultReason::kIoError);
    return;
  }
  child->repairing.push_back({begin, end, now_ns});
  background_.add();
  spawn(repair(shared_from_this(), child, begin, end));
}

Task<void> Nexus::repair(std::shared_ptr<Nexus> self, ChildPtr child, uint64_t begin,
                         uint64_t end) {
  AlignedBuffer buffer(kPieceBytes);
  RangeLock lock(cores_);
  co_await lock.lock(begin, end);
  for (uint64_t at = begin; at < end && child->healthy();) {
    const uint64_t next = std::min(end, (at / kPieceBytes + 1) * kPieceBytes);
    uint8_t* data = buffer.data();
    const uint64_t length = next - at;
    co_await repair_piece(child, at, data, length);
    at = next;
  }
  co_await lock.unlock();
  std::erase_if(child->repairing,
                [begin, end](const Child::Range& r) { return r.begin == begin && r.end == end; });
  notify();
  self->background_.done();
}

Task<void> Nexus::repair_piece(ChildPtr child, uint64_t begin, uint8_t* data, uint64_t length) {
  NexusCore& home = *cores_[Reactor::current().index()];
  const uint32_t slot = child->slot;
  const uint64_t id = child->id;
  IoStatus status = co_await home.leg_read(slot, id, begin, data, length);
  if (!is_unreadable(status)) co_return;  // well, or not a matter of its medium
  uint32_t unreadable = 0;
  status = co_await home.read_any(begin, data, length, slot, &unreadable);
  if (!status.ok() || !child->healthy()) co_return;  // nobody has it
  status = co_await write_back(child, begin, data, length);
  if (status.ok()) {
    child->repaired.push_back(reactors_.home().now_ns());
    ++child->repaired_total;
  } else if (status.is(io_status::kReservationConflict)) {
    fail_self();
  } else if (child->healthy()) {
    give_up_repair(child, begin, begin + length);
  }
}

Task<IoStatus> Nexus::write_back(ChildPtr child, uint64_t begin, uint8_t* data, uint64_t length) {
  NexusCore& home = *cores_[Reactor::current().index()];
  const uint32_t slot = child->slot;
  const uint64_t id = child->id;
  IoStatus status = co_await home.leg_write(slot, id, begin, data, length);
  if (!status.ok()) co_return status;
  status = co_await home.leg_flush(slot, id);
  if (!status.ok() && !status.is(io_status::kInvalidOpcode)) co_return status;
  AlignedBuffer again(length);
  status = co_await home.leg_read(slot, id, begin, again.data(), length);
  if (status.ok() && std::memcmp(again.data(), data, length) != 0) {
    status = io_status::kUnrecoveredRead;
  }
  co_return status;
}

// Writing did not help.
void Nexus::give_up_repair(const ChildPtr& child, uint64_t begin, uint64_t end) {
  std::erase_if(child->unrepaired,
                [begin, end](const Child::Range& range) { return overlaps(range, begin, end); });
  child->unrepaired.push_back({begin, end, reactors_.home().now_ns()});
  const auto healthy = std::count_if(children_.begin(), children_.end(),
                                     [](const ChildPtr& other) { return other->healthy(); });
  const bool others_suffice = healthy > 2;
  const bool too_many = child->unrepaired.size() >= kUnrepairedMax;
  if (others_suffice || (too_many && other_healthy_than(*child))) {
    begin_fault(child, FaultReason::kIoError);
  }
}

}  // namespace mayastor::nexus

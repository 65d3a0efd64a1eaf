// Reads of places where the media of some children fail: piece by piece, each from whichever child
// in sync can. Why: two disks with a bad block each, in one request, hold all of it between them.
// Owner: the core that the request came to. Invariant: a child that missed a write in the range is
// not asked.
#include <cstring>

#include "core/buffer.h"
#include "nexus/nexus_core.h"
#include "nexus/nexus_core_request.h"

namespace mayastor::nexus {
namespace {
// No smaller than any child's block, and what disks lose at once.
constexpr uint64_t kPieceBytes = 4096;
}  // namespace

// From the first child that can read all of it.
Task<IoStatus> NexusCore::read_piece(uint64_t offset, uint8_t* buffer, uint64_t length,
                                     uint32_t except, uint32_t* unreadable) {
  IoStatus failure = io_status::kInternalPathError;
  for (uint32_t slot = 0; slot < kMaxChildren; ++slot) {
    if (slot == except || (read_mask_ & bit_of(slot)) == 0) continue;
    const Leg& leg = legs_[slot];
    const uint64_t id = leg.child_id;
    const uint64_t first = offset / kSegmentBytes;
    const uint64_t last = (offset + length - 1) / kSegmentBytes;
    bool missed = false;
    for (uint64_t segment = first; segment <= last; ++segment) {
      missed = missed || leg.log->is_marked(segment);
    }
    if (missed) continue;
    const IoStatus got = co_await leg_read(slot, id, offset, buffer, length);
    if (got.ok()) co_return got;
    if (is_unreadable(got)) {
      *unreadable |= bit_of(slot);
      failure = got;
    } else if (!got.is(io_status::kAborted) && legs_[slot].child_id == id) {
      report(slot, got);
    }
  }
  co_return failure;
}

Task<IoStatus> NexusCore::read_any(uint64_t offset, uint8_t* buffer, uint64_t length,
                                   uint32_t except, uint32_t* unreadable) {
  IoStatus status = co_await read_piece(offset, buffer, length, except, unreadable);
  if (status.ok() || !is_unreadable(status)) co_return status;
  const uint64_t end = offset + length;
  for (uint64_t at = offset; at < end;) {
    const uint64_t next = std::min(end, (at / kPieceBytes + 1) * kPieceBytes);
    uint8_t* into = buffer + (at - offset);
    const uint64_t piece = next - at;
    status = co_await read_piece(at, into, piece, except, unreadable);
    if (!status.ok()) co_return status;
    at = next;
  }
  co_return status;
}

Task<void> NexusCore::salvage(Request* request) {
  AlignedBuffer buffer(request->end - request->begin);
  uint8_t* data = buffer.data();
  const uint64_t begin = request->begin;
  const uint64_t length = request->end - begin;
  constexpr uint32_t kNobody = kMaxChildren;
  uint32_t unreadable = 0;
  const Yield yield;  // out of the completion that this began in
  co_await yield;
  const IoStatus status = co_await read_any(begin, data, length, kNobody, &unreadable);
  if (status.ok()) {
    const Io& host = *request->host;
    for (uint32_t i = 0; i < host.iov_count; ++i) {
      std::memcpy(host.iov[i].iov_base, data, host.iov[i].iov_len);
      data += host.iov[i].iov_len;
    }
    report_unreadable(request->unreadable, request->begin, request->end);
  }
  complete(request, stopped_ && !status.ok() ? stop_status_ : status);
}

void NexusCore::report_unreadable(uint32_t slots, uint64_t begin, uint64_t end) noexcept {
  for_each_slot(slots, [&](uint32_t slot) {
    const uint64_t child_id = legs_[slot].child_id;
    nexus_.reactors_.home().post([nexus = nexus_.shared_from_this(), child_id, begin, end] {
      nexus->on_unreadable(child_id, begin, end);
    });
  });
}

}  // namespace mayastor::nexus

// The way of a host's request through the children: reads by turns, writes to all of them, held
// back until each child that counts has them. See nexus_core.h for what holds.
#include "nexus/nexus_core.h"

#include <bit>

#include "nexus/nexus_core_request.h"

namespace mayastor::nexus {
namespace {
constexpr uint32_t kRequestsPerSlab = 32;
[[nodiscard]] bool is_read(IoType type) {
  return type == IoType::kRead || type == IoType::kCompare;
}
// The request was at fault, not the child.
[[nodiscard]] bool not_the_childs_fault(IoStatus status) {
  return status.is(io_status::kInvalidOpcode) || status.is(io_status::kCompareFailure);
}
}  // namespace

NexusCore::NexusCore(Nexus& nexus, Reactor& reactor)
    : nexus_(nexus), reactor_(reactor), counters_(nexus.counters_) {}

NexusCore::~NexusCore() {
  CHECK(writes_in_flight_ == 0 && reads_in_flight_ == 0);
  CHECK(frozen_queue_.empty() && waiting_.empty() && locks_.empty() && drain_waiters_.empty());
  for (const Leg& leg : legs_) CHECK(leg.channel == nullptr && leg.in_flight == 0);
}

void NexusCore::RequestList::push(Request* request) noexcept {
  request->previous = nullptr;
  request->next = first;
  if (first != nullptr) first->previous = request;
  first = request;
}

void NexusCore::RequestList::remove(Request* request) noexcept {
  if (request->previous != nullptr) {
    request->previous->next = request->next;
  } else {
    CHECK(first == request);
    first = request->next;
  }
  if (request->next != nullptr) request->next->previous = request->previous;
  request->next = request->previous = nullptr;
}

void NexusCore::IoQueue::push(Io* io) noexcept {
  io->next = nullptr;
  if (last != nullptr) {
    last->next = io;
  } else {
    first = io;
  }
  last = io;
}

Io* NexusCore::IoQueue::pop() noexcept {
  Io* io = first;
  first = io->next;
  if (first == nullptr) last = nullptr;
  io->next = nullptr;
  return io;
}

NexusCore::Request* NexusCore::acquire(Io* io) noexcept {
  if (free_ == nullptr) {
    slabs_.emplace_back(new Request[kRequestsPerSlab]);
    for (uint32_t i = 0; i < kRequestsPerSlab; ++i) {
      slabs_.back()[i].next = free_;
      free_ = &slabs_.back()[i];
    }
  }
  Request* request = free_;
  free_ = request->next;
  request->host = io;
  request->core = this;
  request->turn.request = request;
  request->next = request->previous = nullptr;
  request->begin = io->offset;
  request->end = io->offset + io->length;
  request->start_ns = reactor_.now_ns();
  request->pending = 0;
  request->has_it = request->refused = request->tried = request->unreadable = 0;
  request->error = io_status::kOk;
  return request;
}

void NexusCore::free_request(Request* request) noexcept {
  request->next = free_;
  free_ = request;
}

void NexusCore::submit(Io* io) noexcept {
  if (stopped_) {
    io->complete(stop_status_);
    return;
  }
  if (is_read(io->type)) {
    if (frozen_reads_ > 0) {
      frozen_queue_.push(io);
    } else {
      start_read(io);
    }
    return;
  }
  if (frozen_writes_ > 0) {
    frozen_queue_.push(io);
  } else if (locked_out(*io, UINT64_MAX)) {
    wait_for_lock(io);
  } else {
    start_write(io);
  }
}

// ---- Reads

void NexusCore::start_read(Io* io) noexcept {
  Request* request = acquire(io);
  ++reads_in_flight_;
  try_read(request);
}

void NexusCore::try_read(Request* request) noexcept {
  const uint32_t readers = read_mask_ & ~request->tried;
  if (readers == 0) {
    const bool may_differ = (request->unreadable & (request->unreadable - 1)) != 0;
    if (may_differ && request->host->type == IoType::kRead) {
      spawn(salvage(request));  // what one cannot read, another may
    } else {
      complete(request, request->error.ok() ? io_status::kInternalPathError : request->error);
    }
    return;
  }
  // Round-robin: the first reader after the last one used.
  const uint32_t after = readers & ~(bit_of(read_cursor_) | (bit_of(read_cursor_) - 1));
  read_cursor_ = static_cast<uint32_t>(std::countr_zero(after != 0 ? after : readers));
  request->tried |= bit_of(read_cursor_);
  send_to_leg(request, read_cursor_);
}

void NexusCore::read_done(Request* request, uint32_t slot, IoStatus status) noexcept {
  if (status.ok() || not_the_childs_fault(status)) {
    // Another child could read it: those that could not are mended from it, at home.
    if (request->unreadable != 0) [[unlikely]]
      report_unreadable(request->unreadable, request->begin, request->end);
    complete(request, status);
    return;
  }
  request->error = status;
  if (is_unreadable(status)) {  // a place on its medium, not the child: its writes are all there
    request->unreadable |= bit_of(slot);
  } else {
    report(slot, status);
  }
  if (status.is(io_status::kReservationConflict)) {  // fenced: no other child may answer either
    complete(request, io_status::kAnaInaccessible);
    return;
  }
  if (stopped_) {
    complete(request, stop_status_);
    return;
  }
  try_read(request);
}

// ---- Writes

// Admits it: from here on it runs to its end. A flush (an empty range) overlaps nothing.
void NexusCore::start_write(Io* io) noexcept {
  Request* request = acquire(io);
  ++writes_in_flight_;
  landing_.push(request);
  if (request->begin == request->end ||
      nexus_.order_.enter(request->turn, request->begin, request->end)) {
    fan_out(request);
  }
}

void NexusCore::fan_out(Request* request) noexcept {
  const uint32_t targets = write_mask_;
  request->tried = targets;
  request->pending = static_cast<uint32_t>(std::popcount(targets)) + 1;
  for_each_slot(targets, [this, request](uint32_t slot) { send_to_leg(request, slot); });
  write_done_one(request);
}

// Its range is free again: for the next write, of whichever core, and for range locks.
void NexusCore::leave_order(Request* request) noexcept {
  landing_.remove(request);
  if (request->begin == request->end) return;
  WriteOrder::Ticket* next = nexus_.order_.leave(request->turn);
  while (next != nullptr) {
    auto* turn = static_cast<Request::Turn*>(next);
    next = std::exchange(turn->next_granted, nullptr);
    NexusCore& core = *turn->request->core;
    if (&core == this) {
      go_on(turn->request);
      continue;
    }
    turn->fn = [](Message* message) noexcept {
      Request* granted = static_cast<Request::Turn*>(message)->request;
      granted->core->go_on(granted);
      granted->core->run_ready();
    };
    core.reactor_.send(turn);
  }
  // Whoever was admitted came before every lock that it overlaps and that is not granted yet.
  give_way(request->begin, request->end, 0);
}

void NexusCore::go_on(Request* request) noexcept {
  *ready_end_ = &request->turn;
  ready_end_ = &request->turn.next_granted;
}

// Iterative: a write may land at once, and so give the next one its turn.
void NexusCore::run_ready() noexcept {
  if (running_ready_) return;
  running_ready_ = true;
  while (ready_ != nullptr) {
    Request* request = static_cast<Request::Turn*>(ready_)->request;
    ready_ = std::exchange(request->turn.next_granted, nullptr);
    if (ready_ == nullptr) ready_end_ = &ready_;
    if (stopped_) {  // no child has seen it
      leave_order(request);
      complete(request, stop_status_);
    } else {
      fan_out(request);
    }
  }
  running_ready_ = false;
}

void NexusCore::send_to_leg(Request* request, uint32_t slot) noexcept {
  const Io& host = *request->host;
  Io& io = request->legs[slot];
  io.type = host.type;
  io.fua = host.fua;
  io.iov_count = host.iov_count;
  io.iov = host.iov;  // shared by all legs: nobody changes it
  io.offset = host.type == IoType::kFlush ? 0 : host.offset + data_offset_;
  io.length = host.length;
  io.done = &NexusCore::on_leg_done;
  io.owner = request;
  ++legs_[slot].in_flight;
  legs_[slot].channel->submit(&io);
}

void NexusCore::on_leg_done(Io* io, IoStatus status) noexcept {
  auto* request = static_cast<Request*>(io->owner);
  request->core->leg_done(request, static_cast<uint32_t>(io - request->legs), status);
}

void NexusCore::leg_done(Request* request, uint32_t slot, IoStatus status) noexcept {
  Leg& leg = legs_[slot];
  if (is_read(request->host->type)) {
    read_done(request, slot, status);
  } else {
    if (status.ok()) {
      request->has_it |= bit_of(slot);
    } else {
      if (request->error.ok()) request->error = status;
      if (not_the_childs_fault(status)) {
        request->refused |= bit_of(slot);
      } else {
        // Older writes may have been in the cache that could not be flushed.
        if (request->host->type == IoType::kFlush) leg.log->set_incomplete();
        report(slot, status);
      }
    }
    write_done_one(request);
  }
  CHECK(leg.in_flight > 0);
  --leg.in_flight;  // last: close() must not see the leg idle before this is over
  leg_idle_check(leg);
}

void NexusCore::write_done_one(Request* request) noexcept {
  CHECK(request->pending > 0);
  if (--request->pending == 0) landed(request);
}

// No child uses the buffers any more and the outcome on each is known.
void NexusCore::landed(Request* request) noexcept {
  const uint32_t missed = member_mask_ & ~request->has_it;
  for_each_slot(missed, [this, request](uint32_t slot) {
    legs_[slot].log->mark(request->begin, request->end);
  });
  leave_order(request);
  // All agreed that they can't do this: the host's business. Disagreement would leave children that
  // differ, so then those that could not have failed.
  if (request->has_it == 0 && request->refused != 0 && request->refused == request->tried) {
    complete(request, request->error);
  } else {
    for_each_slot(request->refused,
                  [this, request](uint32_t slot) { report(slot, request->error); });
    settle(request);
  }
  run_ready();
}

void NexusCore::settle(Request* request) noexcept {
  const uint32_t lacking = must_ack_mask_ & ~request->has_it;
  if (lacking == 0 && request->has_it != 0) {
    complete(request, io_status::kOk);
  } else if (stopped_) {
    fail_write(request, stop_status_, stop_authority_);
  } else {
    held_.push(request);
    // The verdict on an earlier report may have come before this request landed.
    for_each_slot(lacking & request->tried & write_mask_,
                  [this, request](uint32_t slot) { report(slot, request->error); });
  }
}

// The host gets an error: what the range holds is open, but all children must come to agree.
void NexusCore::fail_write(Request* request, IoStatus status, uint32_t authority) noexcept {
  for_each_slot(member_mask_, [&](uint32_t slot) {
    if (slot == authority) {
      legs_[slot].log->unmark(request->begin, request->end);
    } else {
      legs_[slot].log->mark(request->begin, request->end);
    }
  });
  complete(request, status);
}

void NexusCore::complete(Request* request, IoStatus status) noexcept {
  Io* host = request->host;
  const bool read = is_read(host->type);
  CHECK((read ? reads_in_flight_ : writes_in_flight_) > 0);
  --(read ? reads_in_flight_ : writes_in_flight_);
  if (status.ok()) {
    const bool counts =
        host->type == IoType::kRead || host->type == IoType::kWrite || host->type == IoType::kUnmap;
    if (counts) counters_.record(host->type, host->length, reactor_.now_ns() - request->start_ns);
  }
  free_request(request);
  drain_check();
  host->complete(status);
}

void NexusCore::settle_held() noexcept {
  Request* request = std::exchange(held_.first, nullptr);
  while (request != nullptr) {
    Request* next = request->next;
    request->next = request->previous = nullptr;
    settle(request);
    request = next;
  }
}

void NexusCore::report(uint32_t slot, IoStatus status) noexcept {
  Leg& leg = legs_[slot];
  if (leg.report_pending) return;  // until release(), refuse() or connect()
  leg.report_pending = true;
  // A message of its own: an earlier one of this leg may still be under way when a later failure,
  // after release(), is told.
  nexus_.reactors_.home().post([nexus = nexus_.shared_from_this(), child_id = leg.child_id,
                                status] { nexus->on_child_failed(child_id, status); });
}

}  // namespace mayastor::nexus

// The legs of a nexus on one core: how a child is connected, promoted, cut off, released and closed
// there, and a rebuild's own I/O on it. Why here: each step changes which masks a request sees, and
// the home reactor takes them in an order that loses no acknowledged write (nexus_fault.cc).
// Invariants: a channel is destroyed idle, and never inside a completion of its own; a child that
// was cut off counts until release(), refuse() or detach() says what becomes of the writes it
// missed.
#include "nexus/nexus_core.h"
#include "nexus/nexus_core_request.h"

namespace mayastor::nexus {

Task<Result<void>> NexusCore::connect(uint32_t slot, uint64_t child_id,
                                      std::shared_ptr<Bdev> device, WriteLog* log, bool synced) {
  CHECK(legs_[slot].channel == nullptr && legs_[slot].in_flight == 0);
  Result<std::unique_ptr<Channel>> channel = co_await device->open_channel();
  if (!channel.ok()) co_return channel.error();
  Leg& leg = legs_[slot];
  leg.channel = channel.take();
  leg.child_id = child_id;
  leg.log = log;
  leg.report_pending = false;
  member_mask_ |= bit_of(slot);
  write_mask_ |= bit_of(slot);
  if (synced) promote(slot);
  co_return Result<void>();
}

void NexusCore::promote(uint32_t slot) {
  CHECK(legs_[slot].channel != nullptr);
  read_mask_ |= bit_of(slot);
  must_ack_mask_ |= bit_of(slot);
}

void NexusCore::disconnect(uint32_t slot) {
  write_mask_ &= ~bit_of(slot);
  read_mask_ &= ~bit_of(slot);
}

void NexusCore::release(uint32_t slot) {
  CHECK((write_mask_ & bit_of(slot)) == 0);
  must_ack_mask_ &= ~bit_of(slot);
  legs_[slot].report_pending = false;
  settle_held();
}

void NexusCore::refuse(uint32_t slot) {
  legs_[slot].report_pending = false;
  Request* request = held_.first;
  while (request != nullptr) {
    Request* next = request->next;
    if ((must_ack_mask_ & ~request->has_it & bit_of(slot)) != 0) {
      held_.remove(request);
      fail_write(request, request->error.ok() ? io_status::kInternalPathError : request->error,
                 slot);
    }
    request = next;
  }
}

struct NexusCore::LegUse {  // counts one request of a rebuild on a leg
  NexusCore& core;
  Leg& leg;
  LegUse(NexusCore& on, Leg& of) : core(on), leg(of) { ++leg.in_flight; }
  ~LegUse() {
    --leg.in_flight;
    core.leg_idle_check(leg);
  }
  LegUse(const LegUse&) = delete;
  LegUse& operator=(const LegUse&) = delete;
};

Task<void> NexusCore::close(uint32_t slot) {
  struct IdleAwaiter {
    Leg& leg;
    [[nodiscard]] bool await_ready() const noexcept { return leg.in_flight == 0; }
    void await_suspend(std::coroutine_handle<> waiter) const noexcept {
      CHECK(!leg.idle_waiter);
      leg.idle_waiter = waiter;
    }
    void await_resume() const noexcept {}
  };
  Leg& leg = legs_[slot];
  CHECK((write_mask_ & bit_of(slot)) == 0);
  Yield yield;  // we may be inside a completion of this very channel
  co_await yield;
  IdleAwaiter idle{leg};
  co_await idle;
  leg.channel.reset();
}

void NexusCore::detach(uint32_t slot) {
  Leg& leg = legs_[slot];
  CHECK(leg.channel == nullptr && (write_mask_ & bit_of(slot)) == 0);
  member_mask_ &= ~bit_of(slot);
  must_ack_mask_ &= ~bit_of(slot);
  leg.child_id = 0;
  leg.log = nullptr;
  leg.report_pending = false;
  settle_held();
}

void NexusCore::leg_idle_check(Leg& leg) noexcept {
  if (leg.in_flight == 0 && leg.idle_waiter) resume_later(std::exchange(leg.idle_waiter, {}));
}

// Never from inside a completion: the waiter may destroy what is completing.
void NexusCore::resume_later(std::coroutine_handle<> waiter) {
  reactor_.post([waiter] { waiter.resume(); });
}

Task<IoStatus> NexusCore::leg_read(uint32_t slot, uint64_t child_id, uint64_t offset, void* buffer,
                                   uint64_t length) {
  Leg& leg = legs_[slot];
  if (leg.child_id != child_id || (read_mask_ & bit_of(slot)) == 0) co_return io_status::kAborted;
  const LegUse use(*this, leg);
  const IoStatus status = co_await read(*leg.channel, offset + data_offset_, buffer, length);
  co_return status;
}

Task<IoStatus> NexusCore::leg_write(uint32_t slot, uint64_t child_id, uint64_t offset,
                                    const void* buffer, uint64_t length) {
  Leg& leg = legs_[slot];
  if (leg.child_id != child_id || (write_mask_ & bit_of(slot)) == 0) co_return io_status::kAborted;
  const LegUse use(*this, leg);
  const IoStatus status =
      co_await write(*leg.channel, offset + data_offset_, buffer, length, false);
  co_return status;
}

Task<IoStatus> NexusCore::leg_flush(uint32_t slot, uint64_t child_id) {
  Leg& leg = legs_[slot];
  if (leg.child_id != child_id || (write_mask_ & bit_of(slot)) == 0) co_return io_status::kAborted;
  const LegUse use(*this, leg);
  const IoStatus status = co_await flush(*leg.channel);
  co_return status;
}

}  // namespace mayastor::nexus

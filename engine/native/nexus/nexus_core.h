// NexusCore: a nexus's I/O engine on one reactor: legs (one channel per child), fan-out of writes,
// round-robin reads, writes held back until every child that counts has them or is recorded as
// unhealthy, and the range locks of rebuilds.
// Why per core: no lock and no contended word on the I/O path; the home reactor changes children by
// messages (every method below says where it runs; "own" is this core's reactor).
// Invariants: a write is acknowledged only if each child of must_ack_ has it; a child leaves
// must_ack_ only when its unhealthy record is durable and no core reads from it any more; whatever
// a write missed is in the child's log before the write completes; two overlapping writes of the
// nexus are never at the children together, so children agree on the order (write_order.h); an
// admitted write waits only for writes admitted before it, never for a freeze or a range lock; a
// request completes only when no child uses its buffers any more.
#pragma once
#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "bdev/bdev.h"
#include "bdev/io_counters.h"
#include "core/reactor.h"
#include "nexus/child.h"
#include "nexus/nexus.h"
#include "nexus/write_log.h"
#include "nexus/write_order.h"

namespace mayastor::nexus {

// `co_await yield`: goes on in a later turn of this reactor, outside of any completion.
struct Yield {
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) const {
    Reactor::current().post([waiter] { waiter.resume(); });
  }
  void await_resume() const noexcept {}
};

// Front-end writes stay out of [begin, end) on every core. Owned by a rebuild task on the home
// reactor; lock() returns when the writes that came before it have landed. First come, first served
// on each core: a wide write waits for the locks that it met, not for all those of a long rebuild.
// Locks come to all cores in one order, so a lock and a write never wait for each other.
class RangeLock final {
 public:
  explicit RangeLock(const std::vector<std::unique_ptr<NexusCore>>& cores);
  ~RangeLock() { CHECK(!held_ && outstanding_ == 0); }
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;
  struct Awaiter {
    RangeLock& lock;
    [[nodiscard]] bool await_ready() const noexcept { return lock.outstanding_ == 0; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { lock.waiter_ = waiter; }
    void await_resume() const noexcept {}
  };
  [[nodiscard]] Awaiter lock(uint64_t begin, uint64_t end) noexcept;
  [[nodiscard]] Awaiter unlock() noexcept;
  [[nodiscard]] bool overlaps(uint64_t begin, uint64_t end) const noexcept {
    return begin < end_ && begin_ < end;
  }

 private:
  friend class NexusCore;
  struct Part : Message {
    RangeLock* lock = nullptr;
    NexusCore* core = nullptr;
    uint64_t arrival = 0;  // on that core
    uint32_t waiting = 0;  // writes there that came before it and have not landed
  };
  void broadcast(void (*fn)(Message*) noexcept) noexcept;
  void answered() noexcept;  // home
  std::vector<Part> parts_;
  uint64_t begin_ = 0, end_ = 0;
  uint32_t outstanding_ = 0;
  bool held_ = false;
  std::coroutine_handle<> waiter_;
};

class NexusCore final {
 public:
  NexusCore(Nexus& nexus, Reactor& reactor);
  ~NexusCore();  // every leg closed, nothing in flight
  NexusCore(const NexusCore&) = delete;
  NexusCore& operator=(const NexusCore&) = delete;
  [[nodiscard]] Reactor& reactor() noexcept { return reactor_; }
  void set_geometry(uint64_t data_offset_bytes) noexcept { data_offset_ = data_offset_bytes; }

  void submit(Io* io) noexcept;  // own

  // Legs; own reactor. A leg's life: connect, [promote], disconnect, [release], close, detach.
  Task<Result<void>> connect(uint32_t slot, uint64_t child_id, std::shared_ptr<Bdev> device,
                             WriteLog* log, bool synced);
  void promote(uint32_t slot);      // in sync: read from it, count it
  void disconnect(uint32_t slot);   // no new I/O; still counted until release()
  void release(uint32_t slot);      // recorded as unhealthy: completes the writes that missed it
  Task<void> close(uint32_t slot);  // waits for its I/O, then destroys the channel
  void detach(uint32_t slot);       // the child left the nexus
  // The child failed but defines the data (no other is healthy): writes that missed it fail, and
  // the others are marked as differing from it.
  void refuse(uint32_t slot);

  // Freezing; own reactor. Nests. The freeze returns when nothing of that kind is in flight.
  Task<void> freeze(bool reads_too);
  void thaw(bool reads_too);
  // From now on all I/O ends with `why` (what is with the children already goes on to its end);
  // `authority`: see refuse(); kMaxChildren if none. Returns when nothing is in flight.
  Task<void> stop(IoStatus why, uint32_t authority);
  void restart();  // undoes stop()

  // Rebuild and tests: I/O of a leg, in nexus offsets. Own reactor. kAborted if the leg is gone.
  Task<IoStatus> leg_read(uint32_t slot, uint64_t child_id, uint64_t offset, void* buffer,
                          uint64_t length);
  Task<IoStatus> leg_write(uint32_t slot, uint64_t child_id, uint64_t offset, const void* buffer,
                           uint64_t length);
  Task<IoStatus> leg_flush(uint32_t slot, uint64_t child_id);
  // Reads what the host would get, in small pieces if need be, each from whichever child in sync
  // can. `unreadable` gains the slots of those whose medium failed; `except` is not asked.
  Task<IoStatus> read_any(uint64_t offset, uint8_t* buffer, uint64_t length, uint32_t except,
                          uint32_t* unreadable);

 private:
  friend class RangeLock;
  struct Request;
  struct RequestList {
    Request* first = nullptr;
    void push(Request* request) noexcept;
    void remove(Request* request) noexcept;
  };
  struct IoQueue {
    Io* first = nullptr;
    Io* last = nullptr;
    [[nodiscard]] bool empty() const noexcept { return first == nullptr; }
    void push(Io* io) noexcept;
    [[nodiscard]] Io* pop() noexcept;
  };
  struct Leg {
    std::unique_ptr<Channel> channel;
    uint64_t child_id = 0;
    WriteLog* log = nullptr;
    uint32_t in_flight = 0;
    bool report_pending = false;  // the home reactor knows, or will: once is enough
    std::coroutine_handle<> idle_waiter;
  };
  struct LegUse;

  [[nodiscard]] Request* acquire(Io* io) noexcept;
  void free_request(Request* request) noexcept;
  void start_read(Io* io) noexcept;
  void try_read(Request* request) noexcept;
  Task<void> salvage(Request* request);
  Task<IoStatus> read_piece(uint64_t offset, uint8_t* buffer, uint64_t length, uint32_t except,
                            uint32_t* unreadable);
  void report_unreadable(uint32_t slots, uint64_t begin, uint64_t end) noexcept;
  void start_write(Io* io) noexcept;
  [[nodiscard]] bool locked_out(const Io& io, uint64_t arrival) const noexcept;
  void wait_for_lock(Io* io) noexcept;
  void give_way(uint64_t begin, uint64_t end, uint64_t arrival) noexcept;
  void fan_out(Request* request) noexcept;
  void leave_order(Request* request) noexcept;
  void go_on(Request* request) noexcept;
  void run_ready() noexcept;
  void send_to_leg(Request* request, uint32_t slot) noexcept;
  static void on_leg_done(Io* io, IoStatus status) noexcept;
  void leg_done(Request* request, uint32_t slot, IoStatus status) noexcept;
  void read_done(Request* request, uint32_t slot, IoStatus status) noexcept;
  void write_done_one(Request* request) noexcept;
  void landed(Request* request) noexcept;
  void settle(Request* request) noexcept;  // acknowledge, fail, or hold
  void fail_write(Request* request, IoStatus status, uint32_t authority) noexcept;
  void complete(Request* request, IoStatus status) noexcept;
  void report(uint32_t slot, IoStatus status) noexcept;
  void leg_idle_check(Leg& leg) noexcept;
  void settle_held() noexcept;
  void retry_waiting() noexcept;
  void drain_check() noexcept;
  void resume_later(std::coroutine_handle<> waiter);
  void lock_range(RangeLock::Part* part) noexcept;
  void unlock_range(RangeLock::Part* part) noexcept;

  Nexus& nexus_;
  Reactor& reactor_;
  uint64_t data_offset_ = 0;
  Leg legs_[kMaxChildren];
  uint32_t member_mask_ = 0;    // has a log
  uint32_t write_mask_ = 0;     // gets writes
  uint32_t read_mask_ = 0;      // in sync and connected
  uint32_t must_ack_mask_ = 0;  // recorded as healthy, or about to be
  uint32_t read_cursor_ = 0;
  bool stopped_ = false;
  IoStatus stop_status_;
  uint32_t stop_authority_ = kMaxChildren;
  uint32_t frozen_writes_ = 0, frozen_reads_ = 0;
  uint32_t writes_in_flight_ = 0, reads_in_flight_ = 0;  // accepted, not completed
  RequestList landing_;                                  // writes admitted, not landed
  RequestList held_;  // landed, waiting for a child to be recorded as unhealthy
  IoQueue frozen_queue_;
  IoQueue waiting_;        // writes that overlap a locked range; their scratch[0]: the arrival
  uint64_t arrivals_ = 0;  // of range locks and of writes that wait for them
  WriteOrder::Ticket* ready_ = nullptr;  // admitted writes whose turn has come
  WriteOrder::Ticket** ready_end_ = &ready_;
  bool running_ready_ = false;
  std::vector<RangeLock::Part*> locks_;
  struct DrainWaiter {
    std::coroutine_handle<> handle;
    bool reads_too;
  };
  std::vector<DrainWaiter> drain_waiters_;
  Request* free_ = nullptr;
  std::vector<std::unique_ptr<Request[]>> slabs_;
  ChannelCounters counters_;
};

}  // namespace mayastor::nexus

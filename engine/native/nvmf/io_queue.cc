#include "nvmf/io_queue.h"

#include <cstring>

#include "util/check.h"

namespace mayastor::nvmf::target {
namespace {

// Request::scratch of half a fused pair: index of the other half + 1, and how far it is.
constexpr uint32_t kPartnerMask = 0xFFFFF, kFusedReady = 1U << 24, kFusedMissing = 1U << 25,
                   kFusedFailed = 1U << 26;

constexpr uint32_t block_count_of(const Sqe& sqe) noexcept {
  return (sqe.cdw12 & kCdw12NlbMask) + 1;
}
constexpr bool is_read(uint8_t opcode) noexcept {
  return opcode == kIoRead || opcode == kIoCompare;
}
constexpr bool is_reservation(uint8_t opcode) noexcept {
  return opcode == kIoReservationRegister || opcode == kIoReservationReport ||
         opcode == kIoReservationAcquire || opcode == kIoReservationRelease;
}
constexpr Plan failed(IoStatus status) noexcept {
  return {status, Transfer::kNone, 0};
}

IoStatus ana_status(AnaState state) noexcept {
  switch (state) {
    case AnaState::kOptimized:
    case AnaState::kNonOptimized:
      return io_status::kOk;
    case AnaState::kPersistentLoss:
      return status::kAnaPersistentLoss;
    case AnaState::kChange:
      return status::kAnaTransition;
    case AnaState::kInaccessible:
      break;
  }
  return io_status::kAnaInaccessible;
}

}  // namespace

IoQueue::IoQueue(Connection& connection, Subsystem& subsystem, NamespaceShard& shard,
                 std::unique_ptr<Channel> channel, const IoQueueOptions& options)
    : connection_(connection),
      subsystem_(subsystem),
      shard_(shard),
      channel_(std::move(channel)),
      options_(options) {
  denied_ = shard_.reservations().denied(options_.host);
  shard_.add_queue(this);
}

IoQueue::~IoQueue() {
  CHECK(reads_in_flight_ == 0 && writes_in_flight_ == 0 && held_ == nullptr);
  shard_.remove_queue(this);
}

IoQueue& IoQueue::of(Io* io) noexcept {
  return static_cast<IoQueue&>(*static_cast<Request*>(io->owner)->connection->handler());
}

// ---- Before the data
// -----------------------------------------------------------------------------

Plan IoQueue::plan(Request& request) noexcept {
  request.scratch = 0;
  Plan plan = plan_transfer(request.sqe);
  if (!plan.status.ok()) {
    if (fused_first_ != nullptr) on_transfer_failed(*fused_first_), fused_first_ = nullptr;
    return plan;
  }
  if (fused_first_ != nullptr || (request.sqe.flags & kFuseMask) != 0) {
    plan.status = pair_fused(request);
  }
  return plan;
}

Plan IoQueue::plan_transfer(const Sqe& sqe) const noexcept {
  switch (sqe.opcode) {
    case kIoRead:
    case kIoWrite:
    case kIoCompare: {
      if (sqe.nsid != 1) return failed(io_status::kInvalidNamespace);
      const uint64_t length = uint64_t{block_count_of(sqe)} << shard_.block_shift();
      if (length > options_.max_io_bytes) return failed(io_status::kInvalidField);
      return {io_status::kOk, sqe.opcode == kIoRead ? Transfer::kToHost : Transfer::kToController,
              static_cast<uint32_t>(length)};
    }
    case kIoFlush:
      if (sqe.nsid != 1 && sqe.nsid != kBroadcastNsid) return failed(io_status::kInvalidNamespace);
      return {};
    case kIoWriteZeroes:
      if (sqe.nsid != 1) return failed(io_status::kInvalidNamespace);
      return {};
    case kIoDatasetManagement:
      if (sqe.nsid != 1) return failed(io_status::kInvalidNamespace);
      return {io_status::kOk, Transfer::kToController,
              static_cast<uint32_t>(((sqe.cdw10 & 0xFF) + 1) * sizeof(DsmRange))};
    case kIoReservationRegister:
    case kIoReservationAcquire:
      if (sqe.nsid != 1) return failed(io_status::kInvalidNamespace);
      return {io_status::kOk, Transfer::kToController, sizeof(ReservationRegisterData)};
    case kIoReservationRelease:
      if (sqe.nsid != 1) return failed(io_status::kInvalidNamespace);
      return {io_status::kOk, Transfer::kToController, sizeof(ReservationReleaseData)};
    case kIoReservationReport: {
      if (sqe.nsid != 1) return failed(io_status::kInvalidNamespace);
      const uint64_t length = (uint64_t{sqe.cdw10} + 1) * 4;
      if (length > options_.max_io_bytes) return failed(io_status::kInvalidField);
      return {io_status::kOk, Transfer::kToHost, static_cast<uint32_t>(length)};
    }
    default:
      return failed(io_status::kInvalidOpcode);
  }
}

// Pairs halves in the order of submission; data may arrive in another order.
IoStatus IoQueue::pair_fused(Request& request) noexcept {
  const uint8_t fuse = request.sqe.flags & kFuseMask;
  Request* const first = std::exchange(fused_first_, nullptr);
  if (fuse == kFuseSecond && first != nullptr) {
    const bool same = request.sqe.slba() == first->sqe.slba() &&
                      block_count_of(request.sqe) == block_count_of(first->sqe);
    if (request.sqe.opcode == kIoWrite && same) {
      request.scratch = first->index + 1U;
      first->scratch = (first->scratch & ~kPartnerMask) | (request.index + 1U);
      return io_status::kOk;
    }
    on_transfer_failed(*first);
    return io_status::kInvalidField;
  }
  if (first != nullptr) on_transfer_failed(*first);  // something else came in between
  if (fuse == kFuseSecond) return status::kMissingFused;
  if (fuse == 0) return io_status::kOk;
  if (fuse != kFuseFirst || request.sqe.opcode != kIoCompare) return io_status::kInvalidField;
  fused_first_ = &request;
  return io_status::kOk;
}

// A half will not run: so won't the other. Called for the failing half, or for a first half that
// has no second.
void IoQueue::on_transfer_failed(Request& request) noexcept {
  if ((request.sqe.flags & kFuseMask) == 0) return;
  const uint32_t partner = request.scratch & kPartnerMask;
  if (fused_first_ == &request && request.state == RequestState::kExecuting &&
      (request.scratch & kFusedReady) == 0) {
    fused_first_ = nullptr;  // it is answered by the connection; its second half finds none
    return;
  }
  if (partner == 0) {  // first half without a second
    if ((request.scratch & kFusedReady) != 0) {
      request.scratch = 0;
      connection_.complete(request, status::kMissingFused);
    } else {
      request.scratch |= kFusedMissing;
    }
    return;
  }
  Request& other = connection_.request_at(partner - 1);
  request.scratch = 0;
  if ((other.scratch & kFusedReady) != 0) {
    other.scratch = 0;
    connection_.complete(other, status::kFailedFused);
  } else {
    other.scratch = kFusedFailed;
  }
}

// ---- Running
// -------------------------------------------------------------------------------------

IoStatus IoQueue::admit(const Sqe& sqe) const noexcept {
  if (shard_.ana() != AnaState::kOptimized) [[unlikely]] {
    const IoStatus ana = ana_status(shard_.ana());
    if (!ana.ok()) return ana;
  }
  if (denied_ != 0) [[unlikely]] {
    const uint8_t access = is_read(sqe.opcode) ? kDenyRead : kDenyWrite;
    if ((denied_ & access) != 0 && !is_reservation(sqe.opcode)) {
      return io_status::kReservationConflict;
    }
  }
  switch (sqe.opcode) {
    case kIoRead:
    case kIoWrite:
    case kIoCompare:
    case kIoWriteZeroes: {
      const uint64_t count = block_count_of(sqe);
      if (sqe.slba() > shard_.block_count() || count > shard_.block_count() - sqe.slba()) {
        return io_status::kLbaOutOfRange;
      }
      return io_status::kOk;
    }
    default:
      return io_status::kOk;
  }
}

void IoQueue::execute(Request& request) noexcept {
  if (connection_.closing()) {
    connection_.complete(request, io_status::kAborted);
    return;
  }
  if ((request.sqe.flags & kFuseMask) != 0) [[unlikely]] {
    fused_ready(request);
    return;
  }
  if (shard_.paused()) [[unlikely]] {
    hold(request);
    return;
  }
  const IoStatus admitted = admit(request.sqe);
  if (!admitted.ok()) [[unlikely]] {
    connection_.complete(request, admitted);
    return;
  }
  switch (request.sqe.opcode) {
    case kIoRead:
      return begin(request, IoType::kRead);
    case kIoWrite:
      return begin(request, IoType::kWrite);
    case kIoFlush:
      if (!shard_.bdev().has_volatile_cache()) {
        connection_.complete(request, io_status::kOk);
        return;
      }
      return begin(request, IoType::kFlush);
    case kIoCompare:
      return compare(request);
    case kIoWriteZeroes:
      return write_zeroes(request);
    case kIoDatasetManagement:
      return deallocate(request);
    default:
      spawn(run_reservation(&request));
  }
}

void IoQueue::count_started(uint8_t opcode) noexcept {
  shard_.io_started();
  ++(is_read(opcode) ? reads_in_flight_ : writes_in_flight_);
}
void IoQueue::count_ended(uint8_t opcode) noexcept {
  --(is_read(opcode) ? reads_in_flight_ : writes_in_flight_);
  shard_.io_ended();
}

void IoQueue::begin(Request& request, IoType type) noexcept {
  Io& io = request.io;
  const bool data = request.transfer != Transfer::kNone;
  io.type = type;
  io.fua = type == IoType::kWrite && (request.sqe.cdw12 & kCdw12Fua) != 0;
  io.iov = data ? &request.data : nullptr;
  io.iov_count = data ? 1 : 0;
  io.offset = type == IoType::kFlush ? 0 : request.sqe.slba() << shard_.block_shift();
  io.length = data ? request.length : 0;
  io.next = nullptr;
  io.done = [](Io* done, IoStatus status) noexcept {
    of(done).end(*static_cast<Request*>(done->owner), status);
  };
  count_started(request.sqe.opcode);
  channel_->submit(&io);
}

void IoQueue::end(Request& request, IoStatus status) noexcept {
  const uint8_t opcode = request.sqe.opcode;
  connection_.complete(request, status);
  count_ended(opcode);
}

void IoQueue::write_zeroes(Request& request) noexcept {
  if (!shard_.bdev().supports(IoType::kWriteZeroes)) {
    connection_.complete(request, io_status::kInvalidOpcode);
    return;
  }
  Io& io = request.io;
  io.type = IoType::kWriteZeroes;
  io.fua = false;
  io.iov = nullptr;
  io.iov_count = 0;
  io.offset = request.sqe.slba() << shard_.block_shift();
  io.length = uint64_t{block_count_of(request.sqe)} << shard_.block_shift();
  io.next = nullptr;
  io.done = [](Io* done, IoStatus status) noexcept {
    IoQueue& self = of(done);
    auto& same = *static_cast<Request*>(done->owner);
    const bool fua = (same.sqe.cdw12 & kCdw12Fua) != 0;
    if (!status.ok() || !fua || !self.shard_.bdev().has_volatile_cache()) {
      self.end(same, status);
      return;
    }
    done->type = IoType::kFlush;
    done->offset = done->length = 0;
    done->done = [](Io* flushed, IoStatus flush_status) noexcept {
      of(flushed).end(*static_cast<Request*>(flushed->owner), flush_status);
    };
    self.channel_->submit(done);
  };
  count_started(request.sqe.opcode);
  channel_->submit(&io);
}

// Ranges one after the other; request.scratch counts them.
void IoQueue::deallocate(Request& request) noexcept {
  const uint32_t count = (request.sqe.cdw10 & 0xFF) + 1;
  for (uint32_t i = 0; i < count; ++i) {
    DsmRange range;
    std::memcpy(&range, request.buffer + i * sizeof(range), sizeof(range));
    if (range.slba > shard_.block_count() ||
        range.block_count > shard_.block_count() - range.slba) {
      connection_.complete(request, io_status::kLbaOutOfRange);
      return;
    }
  }
  if ((request.sqe.cdw11 & kDsmDeallocate) == 0) {  // the other attributes are hints
    connection_.complete(request, io_status::kOk);
    return;
  }
  if (!shard_.bdev().supports(IoType::kUnmap)) {
    connection_.complete(request, io_status::kInvalidOpcode);
    return;
  }
  request.scratch = 0;
  count_started(request.sqe.opcode);
  deallocate_next(request);
}

void IoQueue::deallocate_next(Request& request) noexcept {
  const uint32_t count = (request.sqe.cdw10 & 0xFF) + 1;
  while (request.scratch < count) {
    DsmRange range;
    std::memcpy(&range, request.buffer + request.scratch++ * sizeof(range), sizeof(range));
    if (range.block_count == 0) continue;
    Io& io = request.io;
    io.type = IoType::kUnmap;
    io.fua = false;
    io.iov = nullptr;
    io.iov_count = 0;
    io.offset = range.slba << shard_.block_shift();
    io.length = uint64_t{range.block_count} << shard_.block_shift();
    io.next = nullptr;
    io.done = [](Io* done, IoStatus status) noexcept {
      auto& same = *static_cast<Request*>(done->owner);
      if (status.ok()) {
        of(done).deallocate_next(same);
      } else {
        of(done).end(same, status);
      }
    };
    channel_->submit(&io);
    return;
  }
  end(request, io_status::kOk);
}

void IoQueue::compare(Request& request) noexcept {
  if (shard_.bdev().supports(IoType::kCompare)) return begin(request, IoType::kCompare);
  count_started(request.sqe.opcode);
  spawn(run_compare(&request));
}

Task<void> IoQueue::run_compare(Request* request) {
  const IoStatus status = co_await compare_data(request);
  end(*request, status);
}

Task<IoStatus> IoQueue::compare_data(const Request* request) {
  const uint32_t length = request->length;
  const uint64_t offset = request->sqe.slba() << shard_.block_shift();
  bool heap = false;
  uint8_t* const stored = Connection::acquire_buffer(length, true, &heap);
  IoStatus status = co_await read(*channel_, offset, stored, length);
  if (status.ok() && std::memcmp(stored, request->buffer, length) != 0) {
    status = io_status::kCompareFailure;
  }
  Connection::release_buffer(stored, length, heap);
  co_return status;
}

// ---- Fused compare and write
// ---------------------------------------------------------------------

void IoQueue::fused_ready(Request& request) noexcept {
  if ((request.scratch & kFusedMissing) != 0) {
    connection_.complete(request, status::kMissingFused);
    return;
  }
  if ((request.scratch & kFusedFailed) != 0) {
    connection_.complete(request, status::kFailedFused);
    return;
  }
  request.scratch |= kFusedReady;
  const uint32_t partner = request.scratch & kPartnerMask;
  if (partner == 0) return;
  Request& other = connection_.request_at(partner - 1);
  if ((other.scratch & kFusedReady) == 0) return;
  const bool other_is_first = (other.sqe.flags & kFuseMask) == kFuseFirst;
  request.scratch = other.scratch = 0;
  spawn(run_fused(other_is_first ? &other : &request, other_is_first ? &request : &other));
}

// The namespace stands still on every reactor from the compare to the write.
Task<void> IoQueue::run_fused(Request* first, Request* second) {
  Subsystem* const subsystem = &subsystem_;
  std::function<Task<bool>()> begin_exclusive = [subsystem] {
    return subsystem->begin_exclusive();
  };
  const bool exclusive = co_await call_on<bool>(subsystem->home(), begin_exclusive);
  IoStatus compared = exclusive ? admit(first->sqe) : io_status::kAborted;
  IoStatus written = status::kFailedFused;
  if (compared.ok() && (denied_ & kDenyWrite) != 0) compared = io_status::kReservationConflict;
  if (compared.ok()) compared = co_await compare_data(first);
  if (compared.ok()) {
    const uint64_t offset = second->sqe.slba() << shard_.block_shift();
    const bool fua = (second->sqe.cdw12 & kCdw12Fua) != 0;
    written = co_await write(*channel_, offset, second->buffer, second->length, fua);
  }
  if (exclusive) {
    std::function<Task<void>()> end_exclusive = [subsystem] { return subsystem->end_exclusive(); };
    co_await call_on<void>(subsystem->home(), end_exclusive);
  }
  connection_.complete(*first, compared);
  connection_.complete(*second, written);
}

// ---- Reservations
// --------------------------------------------------------------------------------

Task<void> IoQueue::run_reservation(Request* request) {
  Subsystem* const subsystem = &subsystem_;
  const Sqe sqe = request->sqe;
  if (sqe.opcode == kIoReservationReport) {
    if ((sqe.cdw11 & 1) == 0) {  // hosts here have 128-bit identifiers
      connection_.complete(*request, status::kHostIdInconsistent);
      co_return;
    }
    std::function<Task<std::vector<uint8_t>>()> make_report =
        [subsystem]() -> Task<std::vector<uint8_t>> {
      co_return subsystem->reservations().report(true);
    };
    const std::vector<uint8_t> report =
        co_await call_on<std::vector<uint8_t>>(subsystem->home(), make_report);
    const size_t copied = std::min<size_t>(report.size(), request->length);
    std::memcpy(request->buffer, report.data(), copied);
    std::memset(request->buffer + copied, 0, request->length - copied);
    connection_.complete(*request, io_status::kOk);
    co_return;
  }
  std::vector<uint8_t> data(request->buffer, request->buffer + request->length);
  const HostId host = options_.host;
  std::function<Task<IoStatus>()> reserve = [subsystem, &sqe, &host, &data] {
    return subsystem->reserve(sqe, host, std::move(data));
  };
  const IoStatus status = co_await call_on<IoStatus>(subsystem->home(), reserve);
  connection_.complete(*request, status);
}

// ---- Waiting and ending
// --------------------------------------------------------------------------

void IoQueue::hold(Request& request) noexcept {
  request.next = nullptr;
  *held_end_ = &request;
  held_end_ = &request.next;
}

void IoQueue::run_held() noexcept {
  Request* next = std::exchange(held_, nullptr);
  held_end_ = &held_;
  while (next != nullptr) {
    Request& request = *next;
    next = request.next;
    request.next = nullptr;
    execute(request);
  }
}

// What waits for the end of a pause has not begun; whatever else executes is with the bdev, or is
// half of a pair.
bool IoQueue::abort(Request& request) noexcept {
  Request** link = &held_;
  while (*link != nullptr && *link != &request) link = &(*link)->next;
  if (*link == nullptr) return false;
  *link = request.next;
  if (request.next == nullptr) held_end_ = link;
  request.next = nullptr;
  connection_.complete(request, io_status::kAborted);
  return true;
}

void IoQueue::on_closing() noexcept {
  run_held();  // execute() answers all of them: the connection is closing
  for (uint32_t i = 0; i < connection_.request_count(); ++i) {
    Request& request = connection_.request_at(i);
    if (request.state == RequestState::kExecuting && (request.scratch & kFusedReady) != 0) {
      request.scratch = 0;
      connection_.complete(request, io_status::kAborted);
    }
  }
  fused_first_ = nullptr;
}

}  // namespace mayastor::nvmf::target

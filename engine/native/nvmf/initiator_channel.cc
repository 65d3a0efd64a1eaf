#include "nvmf/initiator_channel.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace mayastor::nvmf {

namespace {

// The state of an Io while the channel has it, in its scratch space.
struct Progress {
  uint64_t issued = 0;  // bytes turned into commands
  uint64_t started_ns = 0;
  uint32_t outstanding = 0;  // commands
  IoStatus status;           // the first error
};
static_assert(sizeof(Progress) <= sizeof(Io::scratch));
static_assert(std::is_trivially_copyable_v<Progress>);

Progress& progress_of(Io& io) noexcept {
  return *reinterpret_cast<Progress*>(static_cast<void*>(io.scratch));
}

bool is_bulk(IoType type) noexcept {
  return type == IoType::kUnmap || type == IoType::kWriteZeroes;
}

// Flushes have no length; everything else has at least one byte.
uint64_t work_of(const Io& io) noexcept {
  return io.type == IoType::kFlush ? 1 : io.length;
}

}  // namespace

IoChannel::IoChannel(std::shared_ptr<InitiatorQueue> queue, const NamespaceLimits& limits,
                     IoCounterSet& counters, std::function<void()> closed)
    : queue_(std::move(queue)), limits_(limits), closed_(std::move(closed)), counters_(counters) {}

IoChannel::~IoChannel() {
  CHECK(pending_ == 0);
  queue_->close(io_status::kQueueDeleted);
  closed_();
}

bool IoChannel::supported(IoType type) const noexcept {
  if (type == IoType::kCompare) return limits_.compare;
  if (type == IoType::kUnmap) return limits_.unmap;
  if (type == IoType::kWriteZeroes) return limits_.write_zeroes;
  return true;
}

uint64_t IoChannel::piece_limit(IoType type) const noexcept {
  if (type == IoType::kUnmap) return kBulkPieceBytes;
  if (type == IoType::kWriteZeroes) {
    return std::min(kBulkPieceBytes, uint64_t{65536} << limits_.block_shift);
  }
  return limits_.max_transfer_bytes;
}

IoChannel::WaitList& IoChannel::waiting_of(IoType type) noexcept {
  return is_bulk(type) ? bulk_waiting_ : waiting_;
}

void IoChannel::submit(Io* io) noexcept {
  ++pending_;
  Progress& progress = progress_of(*io);
  progress = Progress();
  progress.started_ns = Reactor::current().now_ns();
  io->next = nullptr;
  if (queue_->closed()) {
    finish(io, io_status::kHostPathError);
    return;
  }
  if (!supported(io->type)) {
    finish(io, io_status::kInvalidOpcode);
    return;
  }
  if (work_of(*io) == 0) {
    finish(io, io_status::kOk);
    return;
  }
  WaitList& waiting = waiting_of(io->type);
  if (waiting.first == nullptr && issue(io)) return;
  (waiting.last != nullptr ? waiting.last->next : waiting.first) = io;
  waiting.last = io;
}

bool IoChannel::issue(Io* io) noexcept {
  Progress& progress = progress_of(*io);
  const uint64_t work = work_of(*io);
  const uint64_t limit = piece_limit(io->type);
  const bool bulk = is_bulk(io->type);
  while (progress.issued < work) {
    if (!progress.status.ok()) {  // no use in starting the rest
      progress.issued = work;
      break;
    }
    if (bulk && bulk_commands_ == kBulkCommandsMax) return false;
    Command* command = queue_->acquire();
    if (command == nullptr) return false;
    const uint64_t length = std::min(limit, work - progress.issued);
    fill(*command, *io, progress.issued, length);
    progress.issued += length;
    ++progress.outstanding;
    command->bulk = bulk;
    bulk_commands_ += bulk ? 1 : 0;
    queue_->submit(command);  // never completes inline: the queue is open
  }
  return true;
}

void IoChannel::fill(Command& command, Io& io, uint64_t at, uint64_t length) noexcept {
  Sqe& sqe = command.sqe;
  sqe.nsid = limits_.nsid;
  command.owner = &io;
  command.user = reinterpret_cast<uintptr_t>(this);
  command.done = [](Command* done, const Answer& answer) noexcept {
    auto* channel = reinterpret_cast<IoChannel*>(static_cast<uintptr_t>(done->user));
    channel->on_done(static_cast<Io*>(done->owner), answer.status);
  };
  if (io.type == IoType::kFlush) {
    sqe.opcode = kIoFlush;
    return;
  }
  const uint64_t lba = (io.offset + at) >> limits_.block_shift;
  const uint64_t blocks = length >> limits_.block_shift;
  if (io.type == IoType::kUnmap) {
    sqe.opcode = kIoDatasetManagement;
    sqe.cdw11 = kDsmDeallocate;
    const DsmRange range{0, static_cast<uint32_t>(blocks), lba};
    static_assert(sizeof(range) <= sizeof(command.own_data));
    std::memcpy(command.own_data.data(), &range, sizeof(range));
    command.own_iov = iovec{command.own_data.data(), sizeof(range)};
    command.iov = &command.own_iov;
    command.iov_count = 1;
    command.length = sizeof(range);
    command.direction = DataDirection::kToController;
    return;
  }
  sqe.set_slba(lba);
  sqe.cdw12 = static_cast<uint32_t>(blocks - 1) | (io.fua ? kCdw12Fua : 0);
  if (io.type == IoType::kWriteZeroes) {
    sqe.opcode = kIoWriteZeroes;
    return;
  }
  sqe.opcode = io.type == IoType::kRead    ? kIoRead
               : io.type == IoType::kWrite ? kIoWrite
                                           : kIoCompare;
  command.direction =
      io.type == IoType::kRead ? DataDirection::kToHost : DataDirection::kToController;
  command.exact = true;
  command.length = static_cast<uint32_t>(length);
  command.iov = io.iov;
  command.iov_count = io.iov_count;
  command.iov_offset = at;
}

// Waiting Ios go first, what has ended is handed back last: after that the channel may be gone.
void IoChannel::on_done(Io* io, IoStatus status) noexcept {
  Progress& progress = progress_of(*io);
  --progress.outstanding;
  if (is_bulk(io->type)) --bulk_commands_;
  if (!status.ok() && progress.status.ok()) progress.status = status;
  Io* ended = nullptr;
  if (progress.outstanding == 0 && progress.issued >= work_of(*io)) {
    io->next = nullptr;
    ended = io;
  }
  pump(bulk_waiting_, &ended);  // first: few of them can be out, so they keep nobody waiting
  pump(waiting_, &ended);
  while (ended != nullptr) {  // the channel lives until the last one is handed back
    Io* next = std::exchange(ended->next, nullptr);
    finish(ended, progress_of(*ended).status);
    ended = next;
  }
}

// Starts what it can. Those that an error cut short before anything of them was out join `ended`.
void IoChannel::pump(WaitList& waiting, Io** ended) noexcept {
  while (waiting.first != nullptr) {
    Io* io = waiting.first;
    Progress& progress = progress_of(*io);
    if (queue_->closed() && progress.status.ok()) progress.status = io_status::kHostPathError;
    if (!issue(io)) return;
    waiting.first = io->next;
    if (waiting.first == nullptr) waiting.last = nullptr;
    io->next = nullptr;
    if (progress.outstanding > 0) continue;
    io->next = *ended;
    *ended = io;
  }
}

void IoChannel::finish(Io* io, IoStatus status) noexcept {
  --pending_;
  if (status.ok()) {
    counters_.record(io->type, io->length,
                     Reactor::current().now_ns() - progress_of(*io).started_ns);
  }
  io->complete(status);
}

}  // namespace mayastor::nvmf

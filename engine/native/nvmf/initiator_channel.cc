#include "nvmf/initiator_channel.h"

#include <algorithm>
#include <cstring>

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
  if (type == IoType::kUnmap) return uint64_t{0xFFFFFFFF} << limits_.block_shift;
  if (type == IoType::kWriteZeroes) return uint64_t{65536} << limits_.block_shift;
  return limits_.max_transfer_bytes;
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
  if (waiting_first_ == nullptr && issue(io)) return;
  (waiting_last_ != nullptr ? waiting_last_->next : waiting_first_) = io;
  waiting_last_ = io;
}

bool IoChannel::issue(Io* io) noexcept {
  Progress& progress = progress_of(*io);
  const uint64_t work = work_of(*io);
  const uint64_t limit = piece_limit(io->type);
  while (progress.issued < work) {
    if (!progress.status.ok()) {  // no use in starting the rest
      progress.issued = work;
      break;
    }
    Command* command = queue_->acquire();
    if (command == nullptr) return false;
    const uint64_t length = std::min(limit, work - progress.issued);
    fill(*command, *io, progress.issued, length);
    progress.issued += length;
    ++progress.outstanding;
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

// Waiting Ios go first, the finished one is handed back last: after that the channel may be gone.
void IoChannel::on_done(Io* io, IoStatus status) noexcept {
  Progress& progress = progress_of(*io);
  --progress.outstanding;
  if (!status.ok() && progress.status.ok()) progress.status = status;
  const bool over = progress.outstanding == 0 && progress.issued >= work_of(*io);
  if (waiting_first_ != nullptr) {
    if (over) {
      pump();
    } else {
      pump();  // may hand back `io` itself, cut short by an error
      return;
    }
  }
  if (over) finish(io, progress.status);
}

void IoChannel::pump() noexcept {
  while (waiting_first_ != nullptr) {
    Io* io = waiting_first_;
    Progress& progress = progress_of(*io);
    if (queue_->closed()) {
      if (progress.status.ok()) progress.status = io_status::kHostPathError;
    }
    if (!issue(io)) return;
    waiting_first_ = io->next;
    if (waiting_first_ == nullptr) waiting_last_ = nullptr;
    if (progress.outstanding > 0) continue;
    const bool more = waiting_first_ != nullptr;
    finish(io, progress.status);
    if (!more) return;
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

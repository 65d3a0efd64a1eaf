// UringRing: setup with fallbacks, submission, completion.
#include "core/uring_ring.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "util/check.h"

namespace mayastor {
namespace {

constexpr uint32_t kCompletionFactor = 8;  // completion entries per submission entry
constexpr size_t kOpSlab = 256;
// Kernel threads for what cannot be done without blocking, made as needed: for several disks that
// do not answer, and those that do.
constexpr uint32_t kWorkersMax = 64;
constexpr uint32_t kWorkersPerFile = 8;

// It takes a thread of the kernel's.
bool takes_thread(const DiskOp& op) noexcept {
  return op.type == DiskOpType::kFlush || op.by_fallocate() || op.file->may_block_submitter();
}

// The low bits of user_data say what the rest points to.
constexpr uint64_t kTagMask = 3;
constexpr uint64_t kTagDisk = 0;
constexpr uint64_t kTagPoll = 1;
constexpr uint64_t kTagSpecial = 2;
constexpr uint64_t kUserDataWake = kTagSpecial;
constexpr uint64_t kUserDataIgnored = kTagSpecial | 4;
static_assert(alignof(DiskOp) >= 4 && alignof(PollWaiter) >= 4);

uint32_t load_acquire(const uint32_t* from) noexcept {
  return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}
uint32_t load_relaxed(const uint32_t* from) noexcept {
  return __atomic_load_n(from, __ATOMIC_RELAXED);
}
void store_release(uint32_t* to, uint32_t value) noexcept {
  __atomic_store_n(to, value, __ATOMIC_RELEASE);
}

uint64_t monotonic_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

Error refused(int error_number) {
  Error error = errno_error(error_number, "Cannot create io_uring");
  if (error_number == EPERM || error_number == EACCES) {
    error.message +=
        "; allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp "
        "profile, and set sysctl kernel.io_uring_disabled=0";
  } else if (error_number == ENOSYS) {
    error.message += "; this kernel is built without io_uring";
  } else if (error_number == ENOMEM) {
    error.message += "; raise the locked memory limit (ulimit -l)";
  }
  return error;
}

// A seccomp profile may allow the set-up and refuse what comes after it, which would be found out
// when it is too late for the fallback. 0: both are allowed. A ring that is not enabled yet answers
// EBADFD to an entry, io_uring_enter(2).
int later_calls(int fd) noexcept {
  if (sys_io_uring_enter(fd, 0, 0, 0, nullptr, 0) < 0 && errno != EBADFD) return errno;
  io_uring_probe probe{};
  return sys_io_uring_register(fd, IORING_REGISTER_PROBE, &probe, 0) < 0 ? errno : 0;
}

}  // namespace

Result<std::unique_ptr<UringRing>> UringRing::make(const RingOptions& options) {
  std::unique_ptr<UringRing> ring(new UringRing);
  const auto ready = ring->set_up(options.entries);
  if (!ready.ok()) return ready.error();
  return ring;
}

UringRing::UringRing() : gate_(kWorkersPerFile), sockets_(*this) {}

UringRing::~UringRing() {
  CHECK(disk_in_flight_ == 0);  // the kernel would write into memory that is given back
  if (fd_ >= 0) close(fd_);
  if (wake_fd_ >= 0) close(wake_fd_);
  if (ring_memory_ != nullptr) munmap(ring_memory_, ring_bytes_);
  if (sqes_ != nullptr) munmap(sqes_, sqes_bytes_);
}

Result<void> UringRing::set_up(uint32_t entries) {
  // Best first; what an older kernel does not know is left away.
  static constexpr uint32_t kFlagSets[] = {
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
      IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
      0,
  };
  io_uring_params params{};
  int failed = 0;
  for (const uint32_t flags : kFlagSets) {
    params = io_uring_params{};
    params.flags = flags | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = entries * kCompletionFactor;
    fd_ = sys_io_uring_setup(entries, &params);
    if (fd_ >= 0) break;
    failed = errno;
    if (failed != EINVAL) break;
  }
  if (fd_ < 0) return refused(failed);
  constexpr uint32_t kNeeded = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
  if ((params.features & kNeeded) != kNeeded) {
    return Error{ErrorCode::kUnimplemented,
                 "Cannot use io_uring: this kernel's is too old; Linux 5.11 or newer is needed",
                 ENOSYS};
  }
  if (const int error_number = later_calls(fd_); error_number != 0) return refused(error_number);
  if (auto mapped = map_rings(params); !mapped.ok()) return mapped;
  wake_fd_ = eventfd(0, EFD_CLOEXEC);
  if (wake_fd_ < 0) return errno_error(errno, "Cannot create an eventfd");
  return {};
}

Result<void> UringRing::map_rings(const io_uring_params& params) {
  const size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
  const size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
  ring_bytes_ = std::max(sq_bytes, cq_bytes);
  void* memory = mmap(nullptr, ring_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_,
                      IORING_OFF_SQ_RING);
  if (memory == MAP_FAILED) return errno_error(errno, "Cannot map io_uring");
  ring_memory_ = memory;
  sqes_bytes_ = params.sq_entries * sizeof(io_uring_sqe);
  memory = mmap(nullptr, sqes_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_,
                IORING_OFF_SQES);
  if (memory == MAP_FAILED) return errno_error(errno, "Cannot map io_uring");
  sqes_ = static_cast<io_uring_sqe*>(memory);
  auto* base = static_cast<uint8_t*>(ring_memory_);
  const auto word = [base](uint32_t at) { return reinterpret_cast<uint32_t*>(base + at); };
  sq_head_ = word(params.sq_off.head);
  sq_tail_ = word(params.sq_off.tail);
  sq_flags_ = word(params.sq_off.flags);
  sq_mask_ = *word(params.sq_off.ring_mask);
  sq_entries_ = params.sq_entries;
  cq_head_ = word(params.cq_off.head);
  cq_tail_ = word(params.cq_off.tail);
  cq_mask_ = *word(params.cq_off.ring_mask);
  cqes_ = reinterpret_cast<io_uring_cqe*>(base + params.cq_off.cqes);
  uint32_t* array = word(params.sq_off.array);
  for (uint32_t i = 0; i < params.sq_entries; ++i) array[i] = i;  // entries in order, always
  tail_ = *sq_tail_;
  return {};
}

// On the loop's thread: makes it the one that may submit.
void UringRing::enable() noexcept {
  enabled_ = true;
  CHECK(sys_io_uring_register(fd_, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) == 0);
  enter_fd_ = fd_;
  io_uring_rsrc_update update{};
  update.offset = UINT32_MAX;  // any slot
  update.data = static_cast<uint64_t>(fd_);
  if (sys_io_uring_register(fd_, IORING_REGISTER_RING_FDS, &update, 1) == 1) {
    enter_fd_ = static_cast<int>(update.offset);
    enter_flags_ = IORING_ENTER_REGISTERED_RING;
  }
  uint32_t workers[2] = {kWorkersMax, kWorkersMax};
  // A refusal leaves the kernel's own, larger limit.
  static_cast<void>(sys_io_uring_register(fd_, IORING_REGISTER_IOWQ_MAX_WORKERS, workers, 2));
}

// --- submission ----------------------------------------------------------------------------------

uint32_t UringRing::queued() const noexcept {
  return tail_ - load_acquire(sq_head_);
}

io_uring_sqe* UringRing::next_sqe() noexcept {
  if (queued() == sq_entries_ && enabled_) enter(0, 0);
  if (queued() == sq_entries_) return nullptr;
  io_uring_sqe* sqe = &sqes_[tail_ & sq_mask_];
  ++tail_;
  std::memset(sqe, 0, sizeof *sqe);
  return sqe;
}

void UringRing::enter(uint32_t min_complete, uint64_t wait_ns) noexcept {
  if (!enabled_) enable();
  store_release(sq_tail_, tail_);
  ++enter_count_;
  int done = 0;
  uint32_t flags = enter_flags_ | IORING_ENTER_GETEVENTS;
  if (min_complete > 0) {
    __kernel_timespec timeout{};
    timeout.tv_sec = static_cast<int64_t>(wait_ns / 1'000'000'000u);
    timeout.tv_nsec = static_cast<long long>(wait_ns % 1'000'000'000u);
    io_uring_getevents_arg argument{};
    argument.ts = reinterpret_cast<uint64_t>(&timeout);
    flags |= IORING_ENTER_EXT_ARG;
    done = sys_io_uring_enter(enter_fd_, queued(), min_complete, flags, &argument, sizeof argument);
  } else {
    done = sys_io_uring_enter(enter_fd_, queued(), 0, flags, nullptr, 0);
  }
  if (done >= 0) return;
  // A signal, the timeout, or no memory just now (EAGAIN) or completions to take first (EBUSY): all
  // are settled by coming again. Anything else is a misuse of the interface.
  CHECK(errno == EINTR || errno == ETIME || errno == EAGAIN || errno == EBUSY);
}

DiskOp* UringRing::take_op() {
  if (free_ops_ == nullptr) {
    op_slabs_.push_back(std::make_unique<DiskOp[]>(kOpSlab));
    for (size_t i = 0; i < kOpSlab; ++i) give_back(&op_slabs_.back()[i]);
  }
  DiskOp* op = free_ops_;
  free_ops_ = op->next;
  return op;
}

void UringRing::give_back(DiskOp* op) noexcept {
  op->next = free_ops_;
  free_ops_ = op;
}

void UringRing::fill(io_uring_sqe& sqe, DiskOp& op) noexcept {
  sqe.fd = op.file->fd();
  if (op.file->may_block_submitter()) sqe.flags = IOSQE_ASYNC;
  sqe.user_data = reinterpret_cast<uint64_t>(&op) | kTagDisk;
  if (op.type == DiskOpType::kFlush) {
    sqe.opcode = IORING_OP_FSYNC;
    sqe.fsync_flags = IORING_FSYNC_DATASYNC;
    return;
  }
  sqe.off = op.offset;
  if (op.by_fallocate()) {
    sqe.opcode = IORING_OP_FALLOCATE;
    sqe.len = static_cast<uint32_t>(op.fallocate_mode());
    sqe.addr = op.left;
    return;
  }
  const bool read = op.type == DiskOpType::kRead;
  if (op.count == 1 && op.parts[0].iov_len <= UINT32_MAX) {
    sqe.opcode = read ? IORING_OP_READ : IORING_OP_WRITE;
    sqe.addr = reinterpret_cast<uint64_t>(op.parts[0].iov_base);
    sqe.len = static_cast<uint32_t>(op.parts[0].iov_len);
  } else {
    sqe.opcode = read ? IORING_OP_READV : IORING_OP_WRITEV;
    sqe.addr = reinterpret_cast<uint64_t>(op.parts);
    sqe.len = static_cast<uint32_t>(std::min(op.count, 1024));  // IOV_MAX; the rest follows
  }
  if (op.durable) sqe.rw_flags = RWF_DSYNC;
}

void UringRing::submit(DiskOp* op) noexcept {
  io_uring_sqe* sqe = disk_backlog_.empty() ? next_sqe() : nullptr;
  if (sqe == nullptr) {
    disk_backlog_.push_back(op);
    return;
  }
  fill(*sqe, *op);
}

void UringRing::start(DiskOp* op) noexcept {
  ++disk_in_flight_;
  op->gated = takes_thread(*op);
  if (!op->gated || gate_.enter(op)) submit(op);
}

void UringRing::readv(File& file, const iovec* parts, int count, uint64_t offset,
                      RingOp* op) noexcept {
  DiskOp* disk_op = take_op();
  disk_op->start_data(DiskOpType::kRead, file, parts, count, offset, false, op);
  start(disk_op);
}

void UringRing::writev(File& file, const iovec* parts, int count, uint64_t offset, bool durable,
                       RingOp* op) noexcept {
  DiskOp* disk_op = take_op();
  disk_op->start_data(DiskOpType::kWrite, file, parts, count, offset, durable, op);
  start(disk_op);
}

void UringRing::flush(File& file, RingOp* op) noexcept {
  DiskOp* disk_op = take_op();
  disk_op->start_range(DiskOpType::kFlush, file, 0, 0, op);
  start(disk_op);
}

void UringRing::punch_hole(File& file, uint64_t offset, uint64_t length, RingOp* op) noexcept {
  DiskOp* disk_op = take_op();
  disk_op->start_range(DiskOpType::kPunchHole, file, offset, length, op);
  start(disk_op);
}

void UringRing::write_zeroes(File& file, uint64_t offset, uint64_t length, RingOp* op) noexcept {
  DiskOp* disk_op = take_op();
  disk_op->start_range(DiskOpType::kWriteZeroes, file, offset, length, op);
  start(disk_op);
}

void UringRing::arm(PollWaiter& waiter) noexcept {
  io_uring_sqe* sqe = next_sqe();
  if (sqe == nullptr) {
    poll_backlog_.push_back(&waiter);
    return;
  }
  sqe->opcode = IORING_OP_POLL_ADD;
  sqe->fd = waiter.fd;
  sqe->poll32_events = waiter.events;
  sqe->user_data = reinterpret_cast<uint64_t>(&waiter) | kTagPoll;
}

void UringRing::cancel(PollWaiter& waiter) noexcept {
  if (std::erase(poll_backlog_, &waiter) > 0) {  // was never submitted
    waiter.armed = false;
    return;
  }
  io_uring_sqe* sqe = next_sqe();
  if (sqe == nullptr) {
    cancel_backlog_.push_back(&waiter);
    return;
  }
  sqe->opcode = IORING_OP_POLL_REMOVE;
  sqe->fd = -1;
  sqe->addr = reinterpret_cast<uint64_t>(&waiter) | kTagPoll;
  sqe->user_data = kUserDataIgnored;
}

void UringRing::arm_wake() noexcept {
  if (wake_armed_) return;
  io_uring_sqe* sqe = next_sqe();
  if (sqe == nullptr) return;  // the queue is full: this turn will not sleep for long
  wake_armed_ = true;
  sqe->opcode = IORING_OP_READ;
  sqe->fd = wake_fd_;
  sqe->addr = reinterpret_cast<uint64_t>(&wake_value_);
  sqe->len = sizeof wake_value_;
  sqe->user_data = kUserDataWake;
}

void UringRing::wake() noexcept {
  const uint64_t one = 1;
  const ssize_t written = ::write(wake_fd_, &one, sizeof one);
  CHECK(written == sizeof one);
}

// --- completion ----------------------------------------------------------------------------------

void UringRing::complete(uint64_t user_data, int32_t result) noexcept {
  switch (user_data & kTagMask) {
    case kTagDisk: {
      auto* op = reinterpret_cast<DiskOp*>(user_data & ~kTagMask);
      if (op->advance(result)) {
        submit(op);
        return;
      }
      --disk_in_flight_;
      if (op->gated) {
        if (DiskOp* next = gate_.leave(op->file)) submit(next);
      }
      RingOp* owner = op->op;
      give_back(op);
      owner->done(owner, result);
      return;
    }
    case kTagPoll: {
      auto* waiter = reinterpret_cast<PollWaiter*>(user_data & ~kTagMask);
      waiter->armed = false;
      waiter->ready(waiter, result);
      return;
    }
    default:
      if (user_data == kUserDataWake) wake_armed_ = false;
      return;
  }
}

uint32_t UringRing::reap() noexcept {
  uint32_t count = 0;
  uint32_t head = load_relaxed(cq_head_);
  const uint32_t tail = load_acquire(cq_tail_);  // those that arrive meanwhile: next turn
  while (head != tail) {
    const io_uring_cqe cqe = cqes_[head & cq_mask_];
    ++head;
    store_release(cq_head_, head);  // before the handler, which may enter the kernel
    complete(cqe.user_data, cqe.res);
    ++count;
  }
  return count;
}

uint32_t UringRing::poll(uint64_t wait_ns) noexcept {
  uint32_t events = 0;
  if (sockets_.needs_run()) events = sockets_.run(monotonic_ns());
  if (!disk_backlog_.empty() || !poll_backlog_.empty() || !cancel_backlog_.empty()) {
    for (DiskOp* op : std::exchange(disk_backlog_, {})) submit(op);
    for (PollWaiter* waiter : std::exchange(poll_backlog_, {})) arm(*waiter);
    for (PollWaiter* waiter : std::exchange(cancel_backlog_, {})) cancel(*waiter);
  }
  bool sleep = wait_ns > 0 && events == 0;
  if (sleep) {
    sleep = sockets_.prepare_sleep() && disk_backlog_.empty() && poll_backlog_.empty();
    arm_wake();
    if (!wake_armed_ || load_relaxed(cq_head_) != load_acquire(cq_tail_)) sleep = false;
  }
  const uint32_t pending = load_relaxed(sq_flags_) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
  if (sleep || pending != 0 || queued() > 0) enter(sleep ? 1 : 0, wait_ns);
  events += reap();
  sockets_.collect();
  return events;
}

// --- files and sockets ---------------------------------------------------------------------------

Result<std::shared_ptr<File>> UringRing::open_file(const std::string& path,
                                                   const FileOptions& options) {
  auto opened = PosixFile::open(path, options);
  if (!opened.ok()) return opened.error();
  return std::shared_ptr<File>(opened.take());
}

Result<std::unique_ptr<Listener>> UringRing::listen(const std::string& address, uint16_t port,
                                                    AcceptHandler* handler) {
  return sockets_.listen(address, port, handler);
}

std::unique_ptr<Socket> UringRing::connect(const std::string& address, uint16_t port,
                                           SocketHandler* handler) {
  return sockets_.connect(address, port, handler);
}

std::unique_ptr<Socket> UringRing::attach(std::unique_ptr<Socket> socket, SocketHandler* handler) {
  return sockets_.attach(std::move(socket), handler);
}

}  // namespace mayastor

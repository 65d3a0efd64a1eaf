// EpollRing: see epoll_ring.h. Two one-shot polls of one socket (in and out) are two registrations,
// so the out side registers a duplicate of the descriptor.
#include "core/epoll_ring.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "util/check.h"

namespace mayastor {
namespace {

constexpr size_t kWorkers = 16;
constexpr uint32_t kWorkersPerFile = 4;
constexpr int kEventsPerTurn = 64;

uint64_t monotonic_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

void signal_eventfd(int fd) noexcept {
  const uint64_t one = 1;
  const ssize_t written = ::write(fd, &one, sizeof one);
  CHECK(written == sizeof one || errno == EAGAIN);  // EAGAIN: it is signalled already
}

}  // namespace

Result<std::unique_ptr<EpollRing>> EpollRing::make() {
  std::unique_ptr<EpollRing> ring(new EpollRing);
  ring->epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (ring->epoll_fd_ < 0) return errno_error(errno, "Cannot create an epoll instance");
  ring->wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (ring->wake_fd_ < 0) return errno_error(errno, "Cannot create an eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;
  if (epoll_ctl(ring->epoll_fd_, EPOLL_CTL_ADD, ring->wake_fd_, &event) != 0) {
    return errno_error(errno, "Cannot watch an eventfd");
  }
  return ring;
}

EpollRing::EpollRing() : gate_(kWorkersPerFile), sockets_(*this) {}

EpollRing::~EpollRing() {
  CHECK(disk_in_flight_ == 0);
  {
    const std::lock_guard lock(to_do_mutex_);
    stopping_ = true;
  }
  to_do_ready_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  if (epoll_fd_ >= 0) close(epoll_fd_);
  if (wake_fd_ >= 0) close(wake_fd_);
}

// --- disks ---------------------------------------------------------------------------------------

void EpollRing::start_workers() {
  for (size_t i = 0; i < kWorkers; ++i) workers_.emplace_back([this] { work(); });
}

int32_t EpollRing::perform(DiskOp& op) noexcept {
  const int fd = op.file->fd();
  const auto offset = static_cast<off_t>(op.offset);
  ssize_t result = 0;
  if (op.type == DiskOpType::kFlush) {
    result = fdatasync(fd);
  } else if (op.by_fallocate()) {
    result = fallocate(fd, op.fallocate_mode(), offset, static_cast<off_t>(op.left));
  } else if (op.type == DiskOpType::kRead) {
    result = preadv(fd, op.parts, std::min(op.count, 1024), offset);
  } else {
    result = pwritev2(fd, op.parts, std::min(op.count, 1024), offset, op.durable ? RWF_DSYNC : 0);
  }
  return result < 0 ? -errno : static_cast<int32_t>(result);
}

void EpollRing::work() noexcept {
  for (;;) {
    DiskOp* op = nullptr;
    {
      std::unique_lock lock(to_do_mutex_);
      to_do_ready_.wait(lock, [this] { return stopping_ || !to_do_.empty(); });
      if (to_do_.empty()) return;
      op = to_do_.front();
      to_do_.erase(to_do_.begin());
    }
    int32_t result = perform(*op);
    while (op->advance(result)) result = perform(*op);
    bool first = false;
    {
      const std::lock_guard lock(finished_mutex_);
      first = finished_.empty();
      finished_.push_back(Finished{op, result});
    }
    if (first) signal_eventfd(wake_fd_);
  }
}

void EpollRing::start(DiskOp* op) noexcept {
  if (workers_.empty()) start_workers();
  ++disk_in_flight_;
  if (gate_.enter(op)) hand_over(op);
}

void EpollRing::hand_over(DiskOp* op) noexcept {
  {
    const std::lock_guard lock(to_do_mutex_);
    to_do_.push_back(op);
  }
  to_do_ready_.notify_one();
}

void EpollRing::readv(File& file, const iovec* parts, int count, uint64_t offset,
                      RingOp* op) noexcept {
  auto* disk_op = new DiskOp;
  disk_op->start_data(DiskOpType::kRead, file, parts, count, offset, false, op);
  start(disk_op);
}

void EpollRing::writev(File& file, const iovec* parts, int count, uint64_t offset, bool durable,
                       RingOp* op) noexcept {
  auto* disk_op = new DiskOp;
  disk_op->start_data(DiskOpType::kWrite, file, parts, count, offset, durable, op);
  start(disk_op);
}

void EpollRing::flush(File& file, RingOp* op) noexcept {
  auto* disk_op = new DiskOp;
  disk_op->start_range(DiskOpType::kFlush, file, 0, 0, op);
  start(disk_op);
}

void EpollRing::punch_hole(File& file, uint64_t offset, uint64_t length, RingOp* op) noexcept {
  auto* disk_op = new DiskOp;
  disk_op->start_range(DiskOpType::kPunchHole, file, offset, length, op);
  start(disk_op);
}

void EpollRing::write_zeroes(File& file, uint64_t offset, uint64_t length, RingOp* op) noexcept {
  auto* disk_op = new DiskOp;
  disk_op->start_range(DiskOpType::kWriteZeroes, file, offset, length, op);
  start(disk_op);
}

uint32_t EpollRing::finish_disk_ops() noexcept {
  if (disk_in_flight_ == 0) return 0;
  std::vector<Finished> finished;
  {
    const std::lock_guard lock(finished_mutex_);
    finished.swap(finished_);
  }
  for (const Finished& one : finished) {
    --disk_in_flight_;
    if (DiskOp* next = gate_.leave(one.op->file)) hand_over(next);
    RingOp* owner = one.op->op;
    delete one.op;
    owner->done(owner, one.result);
  }
  return static_cast<uint32_t>(finished.size());
}

// --- readiness -----------------------------------------------------------------------------------

void EpollRing::arm(PollWaiter& waiter) noexcept {
  epoll_event event{};
  static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLRDHUP == EPOLLRDHUP);
  event.events = EPOLLONESHOT | waiter.events;
  event.data.ptr = &waiter;
  if (waiter.events == POLLOUT) waiter.duplicate_fd = fcntl(waiter.fd, F_DUPFD_CLOEXEC, 0);
  const int fd = waiter.events == POLLOUT ? waiter.duplicate_fd : waiter.fd;
  const bool armed = epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0;
  // Out of descriptors or memory: answer "ready" next turn; the user finds out by trying.
  if (!armed) canceled_.push_back(&waiter);
}

void EpollRing::cancel(PollWaiter& waiter) noexcept {
  if (std::find(canceled_.begin(), canceled_.end(), &waiter) == canceled_.end()) {
    canceled_.push_back(&waiter);
  }
  disarm(waiter);
}

void EpollRing::disarm(PollWaiter& waiter) noexcept {
  const int fd = waiter.events == POLLOUT ? waiter.duplicate_fd : waiter.fd;
  // ENOENT and EBADF mean it is not registered, which is what is wanted.
  if (fd >= 0) static_cast<void>(epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr));
  if (waiter.events == POLLOUT && waiter.duplicate_fd >= 0) {
    close(waiter.duplicate_fd);
    waiter.duplicate_fd = -1;
  }
}

uint32_t EpollRing::wait_for_events(uint64_t wait_ns) noexcept {
  epoll_event events[kEventsPerTurn];
  timespec timeout{};
  timeout.tv_sec = static_cast<time_t>(wait_ns / 1'000'000'000u);
  timeout.tv_nsec = static_cast<long>(wait_ns % 1'000'000'000u);
  int count = -1;
  if (fine_wait_) {
    count = epoll_pwait2(epoll_fd_, events, kEventsPerTurn, &timeout, nullptr);
    // Linux before 5.11 does not know the call; a seccomp profile as old may say so with EPERM.
    fine_wait_ = count >= 0 || errno == EINTR;
  }
  if (!fine_wait_) {  // milliseconds, rounded up
    const uint64_t wait_ms = std::min<uint64_t>((wait_ns + 999'999u) / 1'000'000u, 60'000u);
    count = epoll_wait(epoll_fd_, events, kEventsPerTurn, static_cast<int>(wait_ms));
    CHECK(count >= 0 || errno == EINTR);  // else nothing would ever be heard of any socket again
  }
  uint32_t delivered = 0;
  for (int i = 0; i < count; ++i) {
    auto* waiter = static_cast<PollWaiter*>(events[i].data.ptr);
    if (waiter == nullptr) {
      uint64_t value = 0;
      const ssize_t got = ::read(wake_fd_, &value, sizeof value);
      CHECK(got == sizeof value || errno == EAGAIN);
      continue;
    }
    if (!waiter->armed || waiter->canceled) continue;  // canceled by an earlier event of this turn
    disarm(*waiter);
    waiter->armed = false;
    waiter->ready(waiter, static_cast<int32_t>(waiter->events));
    ++delivered;
  }
  return delivered;
}

uint32_t EpollRing::poll(uint64_t wait_ns) noexcept {
  uint32_t events = 0;
  for (PollWaiter* waiter : std::exchange(canceled_, {})) {
    waiter->armed = false;
    waiter->ready(waiter, -ECANCELED);
    ++events;
  }
  if (sockets_.needs_run()) events += sockets_.run(monotonic_ns());
  events += finish_disk_ops();
  const bool sleep = wait_ns > 0 && events == 0 && sockets_.prepare_sleep() && canceled_.empty();
  events += wait_for_events(sleep ? wait_ns : 0);
  events += finish_disk_ops();
  sockets_.collect();
  return events;
}

void EpollRing::wake() noexcept {
  signal_eventfd(wake_fd_);
}

// --- files and sockets ---------------------------------------------------------------------------

Result<std::shared_ptr<File>> EpollRing::open_file(const std::string& path,
                                                   const FileOptions& options) {
  auto opened = PosixFile::open(path, options);
  if (!opened.ok()) return opened.error();
  return std::shared_ptr<File>(opened.take());
}

Result<std::unique_ptr<Listener>> EpollRing::listen(const std::string& address, uint16_t port,
                                                    AcceptHandler* handler) {
  return sockets_.listen(address, port, handler);
}

std::unique_ptr<Socket> EpollRing::connect(const std::string& address, uint16_t port,
                                           SocketHandler* handler) {
  return sockets_.connect(address, port, handler);
}

std::unique_ptr<Socket> EpollRing::attach(std::unique_ptr<Socket> socket, SocketHandler* handler) {
  return sockets_.attach(std::move(socket), handler);
}

}  // namespace mayastor

// SocketSet: see socket_set.h. TCP details: TCP_NODELAY everywhere (PDUs are batched above), large
// buffers so that a 128 KiB transfer fits without waiting, SO_REUSEADDR for quick restarts.
#include "core/socket_set.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "util/check.h"

namespace mayastor {
namespace {

constexpr int kSocketBufferBytes = 2 << 20;  // the kernel caps it at net.core.[rw]mem_max
constexpr int kListenBacklog = 1024;
constexpr uint32_t kAcceptBatch = 64;
// A hot socket goes cold after this long without data: a little more than the reactor spins, so
// that request and answer do not pay for polls. Few sockets are cheap to try for longer.
constexpr uint64_t kHotIdleNs = 50'000;
constexpr uint64_t kHotIdleFewNs = 1'000'000;
constexpr size_t kFew = 4;
constexpr uint32_t kLeft = POLLRDHUP;  // with it come, unasked, an error and the end of both sides
// A caller that vanished without a word (its machine lost power) is noticed: by probes when nothing
// is under way, and by what it does not acknowledge.
constexpr int kProbeAfterSeconds = 30, kProbeEverySeconds = 10, kProbes = 3;
constexpr int kUnacknowledgedMs = 60'000;

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  [[nodiscard]] const sockaddr* get() const noexcept {
    return reinterpret_cast<const sockaddr*>(&storage);
  }
};

bool parse_address(const std::string& text, uint16_t port, Address& out) noexcept {
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
  if (inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    out.length = sizeof *v4;
    return true;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
  if (inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    out.length = sizeof *v6;
    return true;
  }
  return false;
}

std::string format_address(const sockaddr_storage& storage) {
  char text[INET6_ADDRSTRLEN] = {};
  if (storage.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage);
    inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(v6->sin6_port));
  }
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage);
  inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
  return std::string(text) + ":" + std::to_string(ntohs(v4->sin_port));
}

void set_option(int fd, int level, int name, int value) noexcept {
  // Refused options cost speed only: the connection works without them.
  static_cast<void>(setsockopt(fd, level, name, &value, sizeof value));
}

void tune(int fd) noexcept {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

void notice_vanished(int fd) noexcept {
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kProbeAfterSeconds);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kProbeEverySeconds);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, kProbes);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUnacknowledgedMs);
}

void tune_buffers(int fd) noexcept {  // before connect or listen: decides the window scale
  set_option(fd, SOL_SOCKET, SO_RCVBUF, kSocketBufferBytes);
  set_option(fd, SOL_SOCKET, SO_SNDBUF, kSocketBufferBytes);
}

bool would_block(int error_number) noexcept {
  return error_number == EAGAIN || error_number == EWOULDBLOCK || error_number == EINTR;
}

}  // namespace

// --- socket --------------------------------------------------------------------------------------

class PosixSocket final : public Socket {
 public:
  explicit PosixSocket(SocketCore* core) noexcept : core_(core) {}
  ~PosixSocket() override {
    if (core_ == nullptr) return;
    if (core_->set != nullptr) {
      core_->set->close(*core_);
      return;
    }
    if (core_->fd >= 0) ::close(core_->fd);
    delete core_;
  }
  PosixSocket(const PosixSocket&) = delete;
  PosixSocket& operator=(const PosixSocket&) = delete;

  [[nodiscard]] ssize_t recv(void* buffer, size_t length) noexcept override {
    return received(::recv(core_->fd, buffer, length, MSG_DONTWAIT));
  }
  [[nodiscard]] ssize_t recvv(const iovec* parts, int count) noexcept override {
    if (count == 1) return recv(parts[0].iov_base, parts[0].iov_len);
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts);  // the kernel does not change it
    message.msg_iovlen = static_cast<size_t>(count);
    return received(::recvmsg(core_->fd, &message, MSG_DONTWAIT));
  }
  [[nodiscard]] ssize_t sendv(const iovec* parts, int count) noexcept override {
    size_t wanted = 0;
    for (int i = 0; i < count; ++i) wanted += parts[i].iov_len;
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts);  // the kernel does not change it
    message.msg_iovlen = static_cast<size_t>(std::min(count, 1024));  // IOV_MAX
    const ssize_t sent = ::sendmsg(core_->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && !would_block(errno)) return -errno;
    if (sent < 0 || static_cast<size_t>(sent) < wanted) {
      core_->want_write = true;
      if (core_->set != nullptr && !core_->connecting) core_->set->arm(core_->out);
    }
    return sent < 0 ? -EAGAIN : sent;
  }
  void set_handler(SocketHandler* handler) noexcept override { core_->handler = handler; }
  [[nodiscard]] std::string peer_address() const override {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    if (getpeername(core_->fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return "";
    return format_address(storage);
  }
  [[nodiscard]] std::string local_address() const override {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    if (getsockname(core_->fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return "";
    return format_address(storage);
  }
  void pause_reading(bool paused) noexcept override {
    if (core_->set != nullptr) core_->set->pause(*core_, paused);
  }
  [[nodiscard]] std::unique_ptr<Socket> detach() noexcept override {
    CHECK(core_->set != nullptr && !core_->connecting);
    auto* loose = new SocketCore;
    loose->fd = std::exchange(core_->fd, -1);  // so that close() leaves the stream alone
    loose->want_write = core_->want_write;
    core_->set->close(*core_);
    core_ = nullptr;
    return std::make_unique<PosixSocket>(loose);
  }

 private:
  friend class SocketSet;
  [[nodiscard]] ssize_t received(ssize_t got) noexcept {
    if (got > 0) {
      core_->got_data = true;
      return got;
    }
    if (got < 0 && would_block(errno)) return -EAGAIN;
    core_->read_ended = true;
    return got < 0 ? -errno : 0;
  }
  SocketCore* core_;
};

// --- listener ------------------------------------------------------------------------------------

// The waiter outlives the listener while its poll is armed.
struct ListenWaiter : PollWaiter {
  class PosixListener* owner = nullptr;
};

class PosixListener final : public Listener {
 public:
  PosixListener(SocketSet& set, int fd, uint16_t port, AcceptHandler* handler)
      : set_(&set), fd_(fd), port_(port), handler_(handler), waiter_(new ListenWaiter) {
    waiter_->fd = fd;
    waiter_->events = POLLIN;
    waiter_->owner = this;
    waiter_->ready = [](PollWaiter* waiter, int32_t) noexcept {
      auto* self = static_cast<ListenWaiter*>(waiter)->owner;
      if (self != nullptr) self->on_ready();
    };
    spare_fd_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    set_->listeners_.push_back(this);
    set_->arm(*waiter_);
  }
  ~PosixListener() override {
    if (alive_flag_ != nullptr) *alive_flag_ = false;
    waiter_->owner = nullptr;
    if (set_ != nullptr) {
      std::erase(set_->listeners_, this);
      if (waiter_->armed) {
        waiter_->canceled = true;
        set_->poller_.cancel(*waiter_);
        set_->dead_listeners_.push_back(waiter_);
        waiter_ = nullptr;
      }
    }
    delete waiter_;
    ::shutdown(fd_, SHUT_RDWR);  // frees the port at once, even while a poll holds the file
    ::close(fd_);
    if (spare_fd_ >= 0) ::close(spare_fd_);
  }
  PosixListener(const PosixListener&) = delete;
  PosixListener& operator=(const PosixListener&) = delete;
  [[nodiscard]] uint16_t port() const noexcept override { return port_; }

 private:
  friend class SocketSet;
  void on_ready() {
    bool alive = true;
    alive_flag_ = &alive;
    for (uint32_t i = 0; i < kAcceptBatch; ++i) {
      int fd = ::accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
        drop_one();
        continue;
      }
      if (fd < 0 && (errno == ECONNABORTED || errno == EINTR)) continue;
      if (fd < 0) break;
      tune(fd);
      notice_vanished(fd);
      handler_->on_accept(set_->adopt(fd, nullptr));
      if (!alive) return;
    }
    alive_flag_ = nullptr;
    set_->arm(*waiter_);
  }
  // Out of descriptors: a spare one lets us close the caller, who else would wait forever (and the
  // poll would fire forever).
  void drop_one() noexcept {
    if (spare_fd_ >= 0) ::close(spare_fd_);
    const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) ::close(fd);
    spare_fd_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  }
  SocketSet* set_;
  const int fd_;
  const uint16_t port_;
  AcceptHandler* const handler_;
  ListenWaiter* waiter_;
  bool* alive_flag_ = nullptr;
  int spare_fd_ = -1;
};

// --- set -----------------------------------------------------------------------------------------

SocketSet::~SocketSet() {
  for (SocketCore* core : cores_) {
    if (core->closed) {
      delete core;
    } else {
      core->set = nullptr;
    }
  }
  for (PosixListener* listener : listeners_) listener->set_ = nullptr;
  for (PollWaiter* waiter : dead_listeners_) delete static_cast<ListenWaiter*>(waiter);
}

Result<std::unique_ptr<Listener>> SocketSet::listen(const std::string& address, uint16_t port,
                                                    AcceptHandler* handler) {
  const std::string what = "Cannot listen on " + address + ":" + std::to_string(port);
  Address where;
  if (!parse_address(address, port, where)) {
    return Error{ErrorCode::kInvalidArgument, what + ": not an IPv4 or IPv6 address", EINVAL};
  }
  const int fd = ::socket(where.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno_error(errno, what);
  set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  tune_buffers(fd);
  if (::bind(fd, where.get(), where.length) != 0 || ::listen(fd, kListenBacklog) != 0) {
    const int failed = errno;
    ::close(fd);
    return errno_error(failed, what);
  }
  Address bound;
  bound.length = sizeof bound.storage;
  CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&bound.storage), &bound.length) == 0);
  const uint16_t bound_port =
      ntohs(bound.storage.ss_family == AF_INET6
                ? reinterpret_cast<const sockaddr_in6*>(&bound.storage)->sin6_port
                : reinterpret_cast<const sockaddr_in*>(&bound.storage)->sin_port);
  return std::unique_ptr<Listener>(std::make_unique<PosixListener>(*this, fd, bound_port, handler));
}

std::unique_ptr<Socket> SocketSet::adopt(int fd, SocketHandler* handler) {
  auto* core = new SocketCore;
  core->fd = fd;
  core->set = this;
  core->handler = handler;
  core->in.fd = core->out.fd = fd;
  core->in.events = POLLIN;
  core->out.events = POLLOUT;
  core->in.ready = on_in;
  core->out.ready = on_out;
  cores_.push_back(core);
  if (fd >= 0) make_hot(*core);  // tried in the next turn: data may be waiting
  return std::make_unique<PosixSocket>(core);
}

std::unique_ptr<Socket> SocketSet::connect(const std::string& address, uint16_t port,
                                           SocketHandler* handler) {
  Address where;
  int32_t failed = 0;
  int fd = -1;
  if (!parse_address(address, port, where)) {
    failed = -EINVAL;
  } else {
    fd = ::socket(where.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) failed = -errno;
  }
  auto socket = adopt(-1, handler);
  SocketCore& core = *static_cast<PosixSocket&>(*socket).core_;
  core.fd = core.in.fd = core.out.fd = fd;
  core.connecting = core.outbound = true;
  if (failed == 0) {
    tune_buffers(fd);
    tune(fd);
    if (::connect(fd, where.get(), where.length) != 0 && errno != EINPROGRESS) failed = -errno;
  }
  if (failed != 0) {
    core.failed = failed;
    failed_.push_back(&core);
  } else {
    arm(core.out);
  }
  return socket;
}

std::unique_ptr<Socket> SocketSet::attach(std::unique_ptr<Socket> socket, SocketHandler* handler) {
  auto& loose = static_cast<PosixSocket&>(*socket);  // every kernel-backed ring has this kind
  CHECK(loose.core_->set == nullptr);
  const int fd = std::exchange(loose.core_->fd, -1);
  const bool want_write = loose.core_->want_write;
  auto attached = adopt(fd, handler);
  if (want_write) {
    SocketCore& core = *static_cast<PosixSocket&>(*attached).core_;
    core.want_write = true;
    arm(core.out);
  }
  return attached;
}

void SocketSet::make_hot(SocketCore& core) {
  if (core.hot) return;
  core.hot = true;
  core.last_data_ns = now_ns_;
  hot_.push_back(&core);
}

void SocketSet::arm(PollWaiter& waiter) {
  if (waiter.armed) return;
  waiter.armed = true;
  poller_.arm(waiter);
}

void SocketSet::arm_in(SocketCore& core) {
  if (core.in.armed) return;
  core.in.events = core.paused ? kLeft : POLLIN;
  arm(core.in);
}

void SocketSet::pause(SocketCore& core, bool paused) {
  if (core.paused == paused || core.read_ended) return;
  core.paused = paused;
  make_hot(core);  // armed for the right thing when it goes cold
  if (core.in.armed && (core.in.events == kLeft) != paused) poller_.cancel(core.in);
}

bool SocketSet::attend(SocketCore& core) {
  core.got_data = false;
  if (core.paused) {
    core.again = false;
    return false;
  }
  if (core.handler == nullptr) {  // nobody to read yet: the poll would fire at once, so stay hot
    core.again = false;
    return false;
  }
  const bool again = core.handler->on_readable();
  if (core.closed) return true;
  core.again = again && !core.read_ended;
  return core.got_data || core.again || core.read_ended;
}

uint32_t SocketSet::run(uint64_t now_ns) {
  now_ns_ = now_ns;
  uint32_t count = 0;
  for (size_t i = 0; i < failed_.size(); ++i) {
    SocketCore& core = *failed_[i];
    if (core.closed) continue;
    ++count;
    finish_connect(core, core.failed);
  }
  failed_.clear();
  const uint64_t idle_limit = hot_.size() <= kFew ? kHotIdleFewNs : kHotIdleNs;
  const size_t size = hot_.size();
  size_t kept = 0;
  for (size_t i = 0; i < size; ++i) {
    SocketCore& core = *hot_[i];
    if (!core.closed && attend(core)) {
      core.last_data_ns = now_ns;
      ++count;
    }
    const bool idle = !core.again && now_ns - core.last_data_ns > idle_limit;
    if (core.closed || core.read_ended || core.paused || (idle && core.handler != nullptr)) {
      core.hot = false;
      if (!core.closed && !core.read_ended) arm_in(core);
      continue;
    }
    hot_[kept++] = &core;
  }
  for (size_t i = size; i < hot_.size(); ++i) hot_[kept++] = hot_[i];  // came in meanwhile
  hot_.resize(kept);
  return count;
}

bool SocketSet::prepare_sleep() {
  for (const SocketCore* core : hot_) {
    if (core->again) return false;
  }
  for (SocketCore* core : hot_) {
    core->hot = false;
    if (!core->closed && !core->read_ended) arm_in(*core);
  }
  hot_.clear();
  return failed_.empty();
}

void SocketSet::on_in(PollWaiter* waiter, int32_t result) noexcept {
  auto* core =
      reinterpret_cast<SocketCore*>(reinterpret_cast<uint8_t*>(waiter) - offsetof(SocketCore, in));
  if (core->closed || core->set == nullptr) return;
  SocketSet& set = *core->set;
  if (core->paused && core->in.events == kLeft && result > 0) {
    core->read_ended = true;
    if (core->handler != nullptr) core->handler->on_peer_left();
    return;
  }
  set.make_hot(*core);
  if (set.attend(*core) && !core->closed) core->last_data_ns = set.now_ns_;
}

void SocketSet::on_out(PollWaiter* waiter, int32_t) noexcept {
  auto* core =
      reinterpret_cast<SocketCore*>(reinterpret_cast<uint8_t*>(waiter) - offsetof(SocketCore, out));
  if (core->closed || core->set == nullptr) return;
  if (core->connecting) {
    int error_number = 0;
    socklen_t length = sizeof error_number;
    if (getsockopt(core->fd, SOL_SOCKET, SO_ERROR, &error_number, &length) != 0) {
      error_number = errno;
    }
    core->set->finish_connect(*core, -error_number);
    return;
  }
  core->want_write = false;
  if (core->handler != nullptr) core->handler->on_writable();
}

void SocketSet::finish_connect(SocketCore& core, int32_t result) {
  core.connecting = false;
  if (result == 0) {
    make_hot(core);
    if (core.want_write) arm(core.out);
  } else {
    core.read_ended = true;
  }
  if (core.handler != nullptr) core.handler->on_connected(result);
}

namespace {
// Bytes that the peer has not got yet are not to reach it later: a kernel goes on sending for
// minutes after close(), and a write that was given up long ago would land on newer data.
void drop_unsent(int fd) noexcept {
  int unsent = 0;
  if (::ioctl(fd, SIOCOUTQ, &unsent) != 0 || unsent == 0) return;
  const linger at_once{.l_onoff = 1, .l_linger = 0};  // close() resets the connection
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}
}  // namespace

void SocketSet::close(SocketCore& core) noexcept {
  core.closed = true;
  core.handler = nullptr;
  for (PollWaiter* waiter : {&core.in, &core.out}) {
    if (!waiter->armed) continue;
    waiter->canceled = true;
    poller_.cancel(*waiter);
  }
  if (core.fd >= 0) {
    if (core.outbound) drop_unsent(core.fd);
    // An armed poll keeps the file open until it is canceled: tell the peer now.
    if (core.in.armed || core.out.armed) ::shutdown(core.fd, SHUT_RDWR);
    ::close(core.fd);
    core.fd = -1;
  }
  closing_.push_back(&core);
}

void SocketSet::collect() {
  if (closing_.empty() && dead_listeners_.empty()) return;
  std::erase_if(closing_, [this](SocketCore* core) {
    if (core->in.armed || core->out.armed) return false;
    std::erase(hot_, core);
    std::erase(failed_, core);
    std::erase(cores_, core);
    delete core;
    return true;
  });
  std::erase_if(dead_listeners_, [](PollWaiter* waiter) {
    if (waiter->armed) return false;
    delete static_cast<ListenWaiter*>(waiter);
    return true;
  });
}

}  // namespace mayastor

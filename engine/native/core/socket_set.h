// SocketSet: the TCP sockets and listeners of one kernel-backed ring. Why shared by the rings: only
// how to wait for readiness differs between them.
// How: data moves by direct non-blocking calls. A socket that had data lately is *hot*: it is
// simply tried in each turn, without asking the kernel. One that was idle for a while, and every
// one before the reactor sleeps, is *cold*: a one-shot poll is armed for it. So a turn under load
// costs a recv and a send per busy socket and nothing for the others. Invariants: a SocketCore
// lives until its socket is destroyed and none of its polls is armed; its handler is never called
// after that destruction.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/ring.h"

namespace mayastor {

class SocketSet;

// One armed or idle one-shot poll.
struct PollWaiter {
  int fd = -1;
  uint32_t events = 0;    // POLLIN, POLLOUT or, for a peer that leaves, POLLRDHUP
  int duplicate_fd = -1;  // for pollers that take a descriptor only once
  bool armed = false;
  bool canceled = false;  // nobody cares for the outcome any more
  // `result`: ready events or negative errno; called from the ring's poll().
  void (*ready)(PollWaiter* waiter, int32_t result) noexcept = nullptr;
};

class Poller {
 public:
  virtual ~Poller() = default;
  virtual void arm(PollWaiter& waiter) noexcept = 0;     // ready() follows, exactly once
  virtual void cancel(PollWaiter& waiter) noexcept = 0;  // hurries that up
};

struct SocketCore {
  int fd = -1;
  SocketSet* set = nullptr;  // null: detached
  SocketHandler* handler = nullptr;
  PollWaiter in{}, out{};
  bool closed = false;  // its Socket is gone
  bool connecting = false;
  bool outbound = false;  // we called the peer
  bool hot = false;
  bool again = false;       // the handler asked to be called again
  bool got_data = false;    // recv gave data in this call of the handler
  bool read_ended = false;  // end of stream or error was handed out
  bool paused = false;      // only the peer's leaving is of interest
  bool want_write = false;
  int32_t failed = 0;  // connect() refused at once: negative errno
  uint64_t last_data_ns = 0;
};

class SocketSet final {
 public:
  explicit SocketSet(Poller& poller) : poller_(poller) {}
  ~SocketSet();
  SocketSet(const SocketSet&) = delete;
  SocketSet& operator=(const SocketSet&) = delete;

  [[nodiscard]] Result<std::unique_ptr<Listener>> listen(const std::string& address, uint16_t port,
                                                         AcceptHandler* handler);
  [[nodiscard]] std::unique_ptr<Socket> connect(const std::string& address, uint16_t port,
                                                SocketHandler* handler);
  [[nodiscard]] std::unique_ptr<Socket> attach(std::unique_ptr<Socket> socket,
                                               SocketHandler* handler);
  // Tries the hot sockets. Returns how many had something.
  uint32_t run(uint64_t now_ns);
  [[nodiscard]] bool needs_run() const noexcept { return !hot_.empty() || !failed_.empty(); }
  // Arms every hot socket; false when one must be called again: then the reactor must not sleep.
  [[nodiscard]] bool prepare_sleep();
  // Frees what was destroyed meanwhile; call when no handler is on the stack.
  void collect();

 private:
  friend class PosixSocket;
  friend class PosixListener;
  [[nodiscard]] std::unique_ptr<Socket> adopt(int fd, SocketHandler* handler);
  void make_hot(SocketCore& core);
  bool attend(SocketCore& core);  // one call of on_readable(); true if there was something
  void arm(PollWaiter& waiter);
  void arm_in(SocketCore& core);
  void pause(SocketCore& core, bool paused);
  void close(SocketCore& core) noexcept;
  void release(SocketCore& core) noexcept;
  static void on_in(PollWaiter* waiter, int32_t result) noexcept;
  static void on_out(PollWaiter* waiter, int32_t result) noexcept;
  void finish_connect(SocketCore& core, int32_t result);

  Poller& poller_;
  std::vector<SocketCore*> hot_;
  std::vector<SocketCore*> failed_;   // to be told that connect() failed
  std::vector<SocketCore*> closing_;  // closed, maybe with polls armed
  std::vector<SocketCore*> cores_;    // all
  std::vector<class PosixListener*> listeners_;
  std::vector<PollWaiter*> dead_listeners_;  // closed with the poll armed
  uint64_t now_ns_ = 0;
};

}  // namespace mayastor

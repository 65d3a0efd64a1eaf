// Where the kernel refuses io_uring, in whole or in part, as containers' seccomp profiles do: the
// fallback is taken, says why, and works. Each test runs in a child process under a real filter.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/buffer.h"
#include "core/make_ring.h"
#include "core/ring.h"

namespace mayastor {
namespace {

constexpr uint64_t kLimitNs = 20'000'000'000;

// These system calls fail with `error_number` from here on, in this thread and those it starts.
bool refuse(const std::vector<long>& calls, int error_number) {
  std::vector<sock_filter> program;
  program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
  for (const long call : calls) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1));
    const uint32_t fail = SECCOMP_RET_ERRNO | static_cast<uint32_t>(error_number);
    program.push_back(BPF_STMT(BPF_RET | BPF_K, fail));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<uint16_t>(program.size()), program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// What `work` finds wrong in a child process where `calls` fail; "" when nothing.
std::string in_container(const std::vector<long>& calls, int error_number,
                         const std::function<std::string()>& work) {
  int out[2] = {-1, -1};
  if (pipe(out) != 0) return "no pipe";
  const pid_t child = fork();
  if (child < 0) return "no fork";
  if (child == 0) {
    close(out[0]);
    const std::string wrong = refuse(calls, error_number) ? work() : "no filter";
    const ssize_t written = ::write(out[1], wrong.data(), wrong.size());
    _exit(written == static_cast<ssize_t>(wrong.size()) ? 0 : 1);
  }
  close(out[1]);
  std::string wrong;
  char chunk[512];
  for (ssize_t got = 0; (got = ::read(out[0], chunk, sizeof chunk)) > 0;) {
    wrong.append(chunk, static_cast<size_t>(got));
  }
  close(out[0]);
  int status = 0;
  if (waitpid(child, &status, 0) != child) return "no child";
  if (WIFSIGNALED(status)) return "ended by signal " + std::to_string(WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? wrong : "exit code " + std::to_string(WEXITSTATUS(status));
}

struct Op : RingOp {
  std::optional<int32_t> result;
  Op() {
    done = [](RingOp* op, int32_t value) noexcept { static_cast<Op*>(op)->result = value; };
  }
};

bool poll_until(Ring& ring, const std::function<bool()>& done) {
  const auto clock = system_clock();
  const uint64_t end = clock->now_ns() + kLimitNs;
  while (!done()) {
    if (clock->now_ns() > end) return false;
    ring.poll(10'000'000);
  }
  return true;
}

int32_t wait(Ring& ring, Op& op) {
  return poll_until(ring, [&] { return op.result.has_value(); }) ? *op.result : -ETIMEDOUT;
}

// Accepts one, sends back what it says.
struct Echo final : AcceptHandler, SocketHandler {
  std::unique_ptr<Socket> socket;
  void on_accept(std::unique_ptr<Socket> accepted) override {
    socket = std::move(accepted);
    socket->set_handler(this);
  }
  void on_connected(int32_t) override {}
  bool on_readable() override {
    char data[64];
    const ssize_t got = socket->recv(data, sizeof data);
    if (got <= 0) return false;
    const iovec part{data, static_cast<size_t>(got)};
    return socket->sendv(&part, 1) == got;
  }
  void on_writable() override {}
};

struct Caller final : SocketHandler {
  std::unique_ptr<Socket> socket;
  std::string heard;
  bool connected = false;
  void on_connected(int32_t result) override { connected = result == 0; }
  bool on_readable() override {
    char data[64];
    const ssize_t got = socket->recv(data, sizeof data);
    if (got <= 0) return false;
    heard.append(data, static_cast<size_t>(got));
    return true;
  }
  void on_writable() override {}
};

std::string talk(Ring& ring) {
  Echo echo;
  auto listener = ring.listen("127.0.0.1", 0, &echo);
  if (!listener.ok()) return listener.error().message;
  Caller caller;
  caller.socket = ring.connect("127.0.0.1", listener.value()->port(), &caller);
  if (!poll_until(ring, [&] { return caller.connected && echo.socket != nullptr; })) {
    return "no connection";
  }
  for (int32_t i = 0; i < 3; ++i) ring.poll(5'000'000);  // sockets go cold: polls are armed
  char hello[] = "hello";
  const iovec part{hello, 5};
  if (caller.socket->sendv(&part, 1) != 5) return "not sent";
  if (!poll_until(ring, [&] { return caller.heard == "hello"; })) return "no echo";
  return "";
}

std::string store(Ring& ring, const std::string& path) {
  auto opened = ring.open_file(path, {});
  if (!opened.ok()) return opened.error().message;
  const auto file = opened.take();
  AlignedBuffer data(1 << 20), back(1 << 20);
  std::memset(data.data(), 0x5A, data.size());
  const iovec from{data.data(), data.size()}, to{back.data(), back.size()};
  Op write, zero, flush, read;
  ring.writev(*file, &from, 1, 4096, true, &write);
  if (wait(ring, write) != 1 << 20) return "not written";
  ring.write_zeroes(*file, 8192, 4096, &zero);
  if (wait(ring, zero) != 4096) return "not zeroed";
  ring.flush(*file, &flush);
  if (wait(ring, flush) != 0) return "not flushed";
  ring.readv(*file, &to, 1, 4096, &read);
  if (wait(ring, read) != 1 << 20) return "not read";
  std::memset(data.data() + 4096, 0, 4096);
  return std::memcmp(data.data(), back.data(), data.size()) == 0 ? "" : "other data";
}

std::string wake_up(Ring& ring) {
  const auto clock = system_clock();
  const uint64_t start = clock->now_ns();
  std::thread other([&ring] { ring.wake(); });
  ring.poll(kLimitNs);
  other.join();
  return clock->now_ns() - start < kLimitNs / 2 ? "" : "not woken";
}

class RefusedTest : public ::testing::Test {
 protected:
  RefusedTest() {
    char name[] = "/tmp/mayastor-refused-XXXXXX";
    const int fd = mkstemp(name);
    CHECK(fd >= 0 && ftruncate(fd, 2 << 20) == 0);
    close(fd);
    path = name;
  }
  ~RefusedTest() override { unlink(path.c_str()); }
  // Everything a ring does, on whatever kind is made.
  [[nodiscard]] std::string use(RingKind expected, const std::string& in_note) const {
    auto made = make_ring({});
    if (!made.ok()) return made.error().message;
    if (made.value().kind != expected) return "the other kind of ring";
    if (made.value().note.find(in_note) == std::string::npos) return made.value().note;
    Ring& ring = *made.value().ring;
    if (auto wrong = store(ring, path); !wrong.empty()) return wrong;
    if (auto wrong = wake_up(ring); !wrong.empty()) return wrong;
    return talk(ring);
  }
  std::string path;
};

TEST_F(RefusedTest, NothingRefusedIsIoUring) {
  EXPECT_EQ(in_container({}, 0, [this] { return use(RingKind::kUring, ""); }), "");
}

TEST_F(RefusedTest, AllOfIoUring) {
  const std::vector<long> calls = {SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register};
  EXPECT_EQ(in_container(calls, EPERM, [this] { return use(RingKind::kEpoll, "seccomp"); }), "");
  EXPECT_EQ(in_container(calls, ENOSYS, [this] { return use(RingKind::kEpoll, "without"); }), "");
}

TEST_F(RefusedTest, OnlyWhatComesAfterSetUp) {
  for (const long call : {SYS_io_uring_enter, SYS_io_uring_register}) {
    for (const int error_number : {EPERM, EACCES, ENOSYS}) {
      EXPECT_EQ(in_container({call}, error_number, [this] { return use(RingKind::kEpoll, ""); }),
                "")
          << "call " << call << ", errno " << error_number;
    }
  }
}

// Profiles older than Linux 5.11 know neither.
TEST_F(RefusedTest, TheNewerEpollCallToo) {
  const std::vector<long> calls = {SYS_io_uring_setup, SYS_epoll_pwait2};
  for (const int error_number : {EPERM, ENOSYS}) {
    EXPECT_EQ(in_container(calls, error_number, [this] { return use(RingKind::kEpoll, ""); }), "");
  }
}

TEST_F(RefusedTest, SaysSoWhenIoUringIsInsistedOn) {
  const auto work = [] {
    auto made = make_ring({.kind = RingKind::kUring});
    return made.ok() ? std::string("a ring") : made.error().message;
  };
  const std::string said = in_container({SYS_io_uring_setup}, EPERM, work);
  EXPECT_NE(said.find("Cannot create io_uring"), std::string::npos) << said;
  EXPECT_NE(said.find("kernel.io_uring_disabled=0"), std::string::npos) << said;
}

}  // namespace
}  // namespace mayastor

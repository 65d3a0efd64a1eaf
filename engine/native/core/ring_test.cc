// The kernel-backed rings against real files and loopback sockets, both by the same tests.
#include "core/ring.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/make_ring.h"
#include "core/task.h"
#include "core/uring_ring.h"

namespace mayastor {
namespace {

constexpr uint64_t kLimitNs = 20'000'000'000;  // a test that takes longer has failed

struct Op : RingOp {
  std::optional<int32_t> result;
  Op() {
    done = [](RingOp* op, int32_t value) noexcept { static_cast<Op*>(op)->result = value; };
  }
};

class RingTest : public ::testing::TestWithParam<RingKind> {
 protected:
  RingTest() {
    auto made = make_ring({.kind = GetParam()});
    CHECK(made.ok());
    ring = std::move(made.value().ring);
    char name[] = "/tmp/mayastor-ring-XXXXXX";
    CHECK(mkdtemp(name) != nullptr);
    folder = name;
  }
  ~RingTest() override {
    ring.reset();
    for (const std::string& path : files) unlink(path.c_str());
    rmdir(folder.c_str());
  }
  std::string make_file(const std::string& name, uint64_t size) {
    const std::string path = folder + "/" + name;
    const int fd = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0);
    close(fd);
    files.push_back(path);
    return path;
  }
  std::shared_ptr<File> open_file(const std::string& path, FileOptions options = {}) {
    auto file = ring->open_file(path, options);
    if (!file.ok()) ADD_FAILURE() << file.error().message;
    return file.take();
  }
  template <typename Predicate>
  bool poll_until(Predicate done) {
    const auto clock = system_clock();
    const uint64_t end = clock->now_ns() + kLimitNs;
    while (!done()) {
      if (clock->now_ns() > end) return false;
      ring->poll(10'000'000);
    }
    return true;
  }
  int32_t wait(Op& op) {
    EXPECT_TRUE(poll_until([&] { return op.result.has_value(); }));
    return op.result.value_or(-ETIMEDOUT);
  }
  std::unique_ptr<Ring> ring;
  std::string folder;
  std::vector<std::string> files;
};

TEST_P(RingTest, WritesReadsAndFlushes) {
  const auto file = open_file(make_file("a", 1 << 20));
  EXPECT_EQ(file->size_bytes(), 1u << 20);
  EXPECT_FALSE(file->is_block_device());
  AlignedBuffer data(65536), back(65536);
  for (size_t i = 0; i < data.size(); ++i) data.data()[i] = static_cast<uint8_t>(i ^ (i >> 8));
  const iovec parts[3] = {
      {data.data(), 4096}, {data.data() + 4096, 57344}, {data.data() + 61440, 4096}};
  Op write, flush, read;
  ring->writev(*file, parts, 3, 8192, true, &write);
  EXPECT_FALSE(write.result.has_value());  // never from inside the call
  EXPECT_EQ(wait(write), 65536);
  ring->flush(*file, &flush);
  EXPECT_EQ(wait(flush), 0);
  const iovec whole{back.data(), back.size()};
  ring->readv(*file, &whole, 1, 8192, &read);
  EXPECT_EQ(wait(read), 65536);
  EXPECT_EQ(std::memcmp(data.data(), back.data(), back.size()), 0);
}

TEST_P(RingTest, ZeroesAndPunches) {
  const auto file = open_file(make_file("a", 4 << 20));
  AlignedBuffer data(3 << 20);
  std::memset(data.data(), 7, data.size());
  const iovec whole{data.data(), data.size()};
  Op write, zero, punch, read;
  ring->writev(*file, &whole, 1, 0, false, &write);
  EXPECT_EQ(wait(write), 3 << 20);
  ring->write_zeroes(*file, 4096, 2 << 20, &zero);
  EXPECT_EQ(wait(zero), 2 << 20);
  if (file->supports_discard()) {
    ring->punch_hole(*file, (2 << 20) + 4096, 8192, &punch);
    EXPECT_EQ(wait(punch), 8192);
  }
  ring->readv(*file, &whole, 1, 0, &read);
  EXPECT_EQ(wait(read), 3 << 20);
  const size_t zero_end = (2u << 20) + 4096 + (file->supports_discard() ? 8192 : 0);
  for (size_t i = 0; i < data.size(); ++i) {
    ASSERT_EQ(data.data()[i], i >= 4096 && i < zero_end ? 0 : 7) << i;
  }
}

TEST_P(RingTest, ZeroesByWritingWhereNothingElseWorks) {
  const auto file = open_file(make_file("a", 4 << 20));
  AlignedBuffer data(3 << 20);
  std::memset(data.data(), 7, data.size());
  const iovec whole{data.data(), data.size()};
  Op write, zero, read;
  ring->writev(*file, &whole, 1, 0, false, &write);
  EXPECT_EQ(wait(write), 3 << 20);
  static_cast<PosixFile&>(*file).set_zero_mode(ZeroMode::kWrite);
  ring->write_zeroes(*file, 4096, (2 << 20) + 8192, &zero);  // more than one piece
  EXPECT_EQ(wait(zero), (2 << 20) + 8192);
  ring->readv(*file, &whole, 1, 0, &read);
  EXPECT_EQ(wait(read), 3 << 20);
  for (size_t i = 0; i < data.size(); ++i) {
    ASSERT_EQ(data.data()[i], i >= 4096 && i < (2u << 20) + 12288 ? 0 : 7) << i;
  }
}

TEST_P(RingTest, ReadsBeyondTheEndFail) {
  const auto file = open_file(make_file("a", 8192));
  AlignedBuffer data(8192);
  const iovec whole{data.data(), data.size()};
  Op read;
  ring->readv(*file, &whole, 1, 4096, &read);  // half of it is there
  EXPECT_EQ(wait(read), -EIO);
}

TEST_P(RingTest, TakesMoreOperationsThanItHasEntries) {
  const auto file = open_file(make_file("a", 1 << 20));
  constexpr size_t kOps = 2500;
  AlignedBuffer data(kOps * 4096);
  std::vector<iovec> parts(kOps);
  std::vector<Op> ops(kOps);
  for (size_t i = 0; i < kOps; ++i) {
    parts[i] = iovec{data.data() + i * 4096, 4096};
    ring->readv(*file, &parts[i], 1, i % 256 * 4096, &ops[i]);
  }
  for (Op& op : ops) EXPECT_EQ(wait(op), 4096);
}

TEST_P(RingTest, OpenSaysWhatIsWrong) {
  const auto error = [&](const std::string& path) {
    auto opened = ring->open_file(path, {});
    EXPECT_FALSE(opened.ok()) << path;
    return opened.ok() ? Error{} : opened.error();
  };
  EXPECT_EQ(error(folder + "/none").error_number, ENOENT);
  EXPECT_EQ(error(folder).error_number, EISDIR);
  EXPECT_EQ(error("/dev/null").code, ErrorCode::kInvalidArgument);
  const std::string path = make_file("a", 8192);
  const auto file = open_file(path);
  const Error busy = error(path);
  EXPECT_EQ(busy.error_number, EBUSY);
  EXPECT_NE(busy.message.find("in use"), std::string::npos);
}

// --- sockets ---

struct Peer final : SocketHandler {
  std::unique_ptr<Socket> socket;
  std::optional<int32_t> connected;
  std::string received, to_send;
  std::optional<int32_t> ended;
  int left = 0;   // on_peer_left()
  int calls = 0;  // of on_readable()
  bool echo = false;
  bool drop_when_read = false;
  void on_connected(int32_t result) override { connected = result; }
  void on_peer_left() override { ++left; }
  bool on_readable() override {
    ++calls;
    char buffer[70000];
    for (;;) {
      const ssize_t got = socket->recv(buffer, sizeof buffer);
      if (got == -EAGAIN) return false;
      if (got <= 0) {
        ended = static_cast<int32_t>(got);
        return false;
      }
      if (drop_when_read) {
        socket.reset();
        return false;
      }
      const std::string text(buffer, static_cast<size_t>(got));
      if (echo) {
        send(text);
      } else {
        received += text;
      }
    }
  }
  void on_writable() override { push(); }
  void send(const std::string& text) {
    to_send += text;
    push();
  }
  void push() {
    while (!to_send.empty()) {
      const iovec part{to_send.data(), to_send.size()};
      const ssize_t sent = socket->sendv(&part, 1);
      if (sent <= 0) return;
      to_send.erase(0, static_cast<size_t>(sent));
    }
  }
};

struct Server final : AcceptHandler {
  std::vector<std::unique_ptr<Peer>> peers;
  bool drop_when_read = false;
  void on_accept(std::unique_ptr<Socket> socket) override {
    auto peer = std::make_unique<Peer>();
    peer->socket = std::move(socket);
    peer->socket->set_handler(peer.get());
    peer->echo = true;
    peer->drop_when_read = drop_when_read;
    peers.push_back(std::move(peer));
  }
};

TEST_P(RingTest, EchoesManyBytesOverManyConnections) {
  Server server;
  auto listener = ring->listen("127.0.0.1", 0, &server);
  ASSERT_TRUE(listener.ok()) << listener.error().message;
  std::string text;
  for (size_t i = 0; i < 3'000'000; ++i) text.push_back(static_cast<char>('a' + i * 7 % 26));
  std::vector<std::unique_ptr<Peer>> clients;
  for (int32_t i = 0; i < 8; ++i) {
    auto client = std::make_unique<Peer>();
    client->socket = ring->connect("127.0.0.1", listener.value()->port(), client.get());
    clients.push_back(std::move(client));
  }
  for (const auto& client : clients) {
    ASSERT_TRUE(poll_until([&] { return client->connected.has_value(); }));
    ASSERT_EQ(*client->connected, 0);
    client->send(text);
  }
  for (const auto& client : clients) {
    ASSERT_TRUE(poll_until([&] { return client->received.size() >= text.size(); }));
    EXPECT_EQ(client->received, text);
    EXPECT_EQ(client->socket->peer_address(),
              "127.0.0.1:" + std::to_string(listener.value()->port()));
  }
  server.peers.clear();
  for (const auto& client : clients) {
    ASSERT_TRUE(poll_until([&] { return client->ended.has_value(); }));
    EXPECT_EQ(*client->ended, 0);
  }
}

TEST_P(RingTest, ConnectReportsFailure) {
  Server server;
  uint16_t free_port = 0;
  {
    auto listener = ring->listen("127.0.0.1", 0, &server);
    free_port = listener.value()->port();
  }
  Peer refused, malformed;
  refused.socket = ring->connect("127.0.0.1", free_port, &refused);
  malformed.socket = ring->connect("not an address", 1, &malformed);
  EXPECT_FALSE(malformed.connected.has_value());
  ASSERT_TRUE(poll_until([&] { return refused.connected && malformed.connected; }));
  EXPECT_EQ(*refused.connected, -ECONNREFUSED);
  EXPECT_EQ(*malformed.connected, -EINVAL);
}

TEST_P(RingTest, ListenReportsFailure) {
  Server server;
  auto first = ring->listen("127.0.0.1", 0, &server);
  auto second = ring->listen("127.0.0.1", first.value()->port(), &server);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().error_number, EADDRINUSE);
  EXPECT_EQ(ring->listen("localhost", 0, &server).error().code, ErrorCode::kInvalidArgument);
}

TEST_P(RingTest, SocketMayDieInItsOwnHandler) {
  Server server;
  server.drop_when_read = true;
  auto listener = ring->listen("127.0.0.1", 0, &server);
  Peer client;
  client.socket = ring->connect("127.0.0.1", listener.value()->port(), &client);
  ASSERT_TRUE(poll_until([&] { return client.connected.has_value(); }));
  client.send("x");
  ASSERT_TRUE(poll_until([&] { return client.ended.has_value(); }));
}

// Behind data that nobody takes, and without being called for that data.
TEST_P(RingTest, PausedSocketTellsWhenItsPeerLeaves) {
  for (const bool reset : {false, true}) {
    Server server;
    auto listener = ring->listen("127.0.0.1", 0, &server);
    Peer client;
    client.socket = ring->connect("127.0.0.1", listener.value()->port(), &client);
    ASSERT_TRUE(poll_until([&] { return client.connected && !server.peers.empty(); }));
    Peer& served = *server.peers.front();
    served.echo = reset;  // what the client has not read when it closes makes its end a reset
    client.send("first");
    ASSERT_TRUE(poll_until([&] { return served.calls > 0 && served.to_send.empty(); }));
    ASSERT_TRUE(poll_until([&] { return reset || served.received == "first"; }));
    served.socket->pause_reading(true);
    for (int i = 0; i < 3; ++i) ring->poll(1'000'000);
    const int calls = served.calls;
    client.send("second");
    for (int i = 0; i < 10; ++i) ring->poll(1'000'000);
    EXPECT_EQ(served.calls, calls);
    EXPECT_EQ(served.left, 0);
    served.socket->pause_reading(false);
    served.echo = false;
    ASSERT_TRUE(poll_until([&] { return served.received.ends_with("second"); }));
    served.socket->pause_reading(true);
    client.send("third");
    ring->poll(1'000'000);
    client.socket.reset();
    ASSERT_TRUE(poll_until([&] { return served.left > 0; }));
    for (int i = 0; i < 3; ++i) ring->poll(1'000'000);
    EXPECT_EQ(served.left, 1);
    EXPECT_TRUE(served.received.ends_with("second"));
  }
}

// A peer that did not read sees the stream cut short, not all that was given up.
TEST_P(RingTest, WhatAClosedCallerHadNotDeliveredIsDropped) {
  struct Idle final : AcceptHandler {
    std::unique_ptr<Socket> socket;
    void on_accept(std::unique_ptr<Socket> accepted) override { socket = std::move(accepted); }
  };
  Idle server;
  auto listener = ring->listen("127.0.0.1", 0, &server);
  Peer client;
  client.socket = ring->connect("127.0.0.1", listener.value()->port(), &client);
  ASSERT_TRUE(poll_until([&] { return client.connected && server.socket; }));
  constexpr size_t kBytes = 64 << 20;  // more than the buffers of both sides
  client.send(std::string(kBytes, 'x'));
  ASSERT_FALSE(client.to_send.empty());
  const size_t taken = kBytes - client.to_send.size();
  client.socket.reset();
  std::vector<char> buffer(1 << 20);
  size_t got = 0;
  ssize_t last = 0;
  ASSERT_TRUE(poll_until([&] {
    for (last = 1; last > 0;) {
      last = server.socket->recv(buffer.data(), buffer.size());
      if (last > 0) got += static_cast<size_t>(last);
    }
    return last != -EAGAIN;
  }));
  EXPECT_EQ(last, -ECONNRESET);
  EXPECT_LT(got, taken);
}

TEST_P(RingTest, SocketMovesToAnotherRing) {
  auto other = make_ring({.kind = GetParam()});
  ASSERT_TRUE(other.ok());
  Server server;
  auto listener = ring->listen("127.0.0.1", 0, &server);
  Peer client;
  client.socket = ring->connect("127.0.0.1", listener.value()->port(), &client);
  ASSERT_TRUE(poll_until([&] { return client.connected && server.peers.size() == 1; }));
  for (int32_t i = 0; i < 3; ++i) ring->poll(1'000'000);  // long enough to arm polls
  Peer& peer = *server.peers[0];
  auto loose = peer.socket->detach();
  peer.socket.reset();
  client.send("ping");
  ring->poll(1'000'000);
  peer.socket = other.value().ring->attach(std::move(loose), &peer);
  ASSERT_TRUE(poll_until([&] {
    other.value().ring->poll(0);
    return client.received == "ping";
  }));
  peer.socket.reset();  // before its ring
}

TEST_P(RingTest, WakeEndsAWait) {
  const auto clock = system_clock();
  ring->poll(1'000'000);  // its thread is now this one
  ring->wake();
  const uint64_t start = clock->now_ns();
  ring->poll(kLimitNs);
  EXPECT_LT(clock->now_ns() - start, kLimitNs / 2);
}

INSTANTIATE_TEST_SUITE_P(Kernel, RingTest, ::testing::Values(RingKind::kUring, RingKind::kEpoll),
                         [](const auto& info) {
                           return std::string(info.param == RingKind::kUring ? "Uring" : "Epoll");
                         });

TEST(UringRing, EntersTheKernelOnlyWithAReason) {
  auto made = UringRing::make({});
  ASSERT_TRUE(made.ok()) << made.error().message;
  UringRing& ring = *made.value();
  Server server;
  auto listener = ring.listen("127.0.0.1", 0, &server);
  ASSERT_TRUE(listener.ok());
  for (int32_t i = 0; i < 10; ++i) ring.poll(0);  // submits the listener's poll
  const uint64_t before = ring.enter_count();
  for (int32_t i = 0; i < 1000; ++i) ring.poll(0);
  EXPECT_EQ(ring.enter_count(), before);
}

}  // namespace
}  // namespace mayastor

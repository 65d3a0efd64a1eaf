// The simulation must be deterministic, and its disks as treacherous as real ones, no more.
#include "core/sim_world.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "core/sim_harness.h"

namespace mayastor {
namespace {

struct AwaitOp : RingOp {
  Completion<int32_t> result;
  AwaitOp() {
    done = [](RingOp* op, int32_t value) noexcept { static_cast<AwaitOp*>(op)->result.set(value); };
  }
};

Task<int32_t> write_block(File* file, uint64_t offset, uint8_t fill, bool durable) {
  AlignedBuffer buffer(4096);
  std::memset(buffer.data(), fill, buffer.size());
  const iovec part{buffer.data(), buffer.size()};
  AwaitOp op;
  Reactor::current().ring().writev(*file, &part, 1, offset, durable, &op);
  const int32_t result = co_await op.result;
  co_return result;
}

Task<int32_t> flush_file(File* file) {
  AwaitOp op;
  Reactor::current().ring().flush(*file, &op);
  const int32_t result = co_await op.result;
  co_return result;
}

Task<int32_t> read_block(File* file, uint64_t offset, uint8_t* first) {
  AlignedBuffer buffer(4096);
  const iovec part{buffer.data(), buffer.size()};
  AwaitOp op;
  Reactor::current().ring().readv(*file, &part, 1, offset, &op);
  const int32_t result = co_await op.result;
  *first = buffer.data()[0];
  co_return result;
}

std::shared_ptr<File> open_disk(Sim& sim, const std::string& path) {
  auto file = sim.home().ring().open_file(path, FileOptions{});
  CHECK(file.ok());
  return file.take();
}

TEST(SimDisk, ReadsWhatWasWritten) {
  Sim sim(1);
  sim.world().add_disk("/dev/a");
  const auto file = open_disk(sim, "/dev/a");
  EXPECT_EQ(sim.run(write_block(file.get(), 8192, 0x5A, false)), 4096);
  uint8_t first = 0;
  EXPECT_EQ(sim.run(read_block(file.get(), 8192, &first)), 4096);
  EXPECT_EQ(first, 0x5A);
}

TEST(SimDisk, RefusesWhatODirectRefuses) {
  Sim sim(1);
  sim.world().add_disk("/dev/a");
  const auto file = open_disk(sim, "/dev/a");
  uint8_t first = 0;
  EXPECT_EQ(sim.run(read_block(file.get(), 100, &first)), -EINVAL);
  EXPECT_EQ(sim.run(read_block(file.get(), uint64_t{64} << 20, &first)), -ENOSPC);
  EXPECT_EQ(sim.home().ring().open_file("/dev/none", {}).error().error_number, ENOENT);
  EXPECT_EQ(sim.home().ring().open_file("/dev/a", {}).error().error_number, EBUSY);
}

TEST(SimDisk, KeepsFlushedAndDurableWritesThroughEveryCrash) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Sim sim(seed);
    SimDisk& disk = sim.world().add_disk("/dev/a");
    auto file = open_disk(sim, "/dev/a");
    sim.run(write_block(file.get(), 0, 0xEE, false));
    sim.run(write_block(file.get(), 0, 1, false));
    sim.run(flush_file(file.get()));
    sim.run(write_block(file.get(), 4096, 9, false));
    sim.run(write_block(file.get(), 4096, 2, true));
    disk.crash();
    EXPECT_EQ(sim.run(write_block(file.get(), 0, 3, false)), -EIO);
    file = open_disk(sim, "/dev/a");
    uint8_t first = 0;
    sim.run(read_block(file.get(), 0, &first));
    EXPECT_EQ(first, 1) << "seed " << seed;
    sim.run(read_block(file.get(), 4096, &first));
    EXPECT_EQ(first, 2) << "seed " << seed;
  }
}

TEST(SimDisk, LosesKeepsAndTearsUnflushedWrites) {
  int32_t kept = 0, lost = 0, torn = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Sim sim(seed);
    SimDisk& disk = sim.world().add_disk("/dev/a");
    const auto file = open_disk(sim, "/dev/a");
    sim.run(write_block(file.get(), 0, 7, false));
    disk.crash();
    uint8_t block[4096];
    disk.peek(0, block, sizeof block);
    int32_t sectors = 0;
    for (size_t at = 0; at < sizeof block; at += 512) {
      const uint8_t fill = block[at];
      for (size_t i = 0; i < 512; ++i) ASSERT_EQ(block[at + i], fill);  // never inside a block
      sectors += fill == 7 ? 1 : 0;
    }
    (sectors == 8 ? kept : sectors == 0 ? lost : torn)++;
  }
  EXPECT_GT(kept, 20);
  EXPECT_GT(lost, 20);
  EXPECT_GT(torn, 10);
}

TEST(SimDisk, CrashAfterStopsAtTheWantedMutation) {
  Sim sim(3);
  SimDisk& disk = sim.world().add_disk("/dev/a");
  const auto file = open_disk(sim, "/dev/a");
  disk.crash_after(2);
  EXPECT_EQ(sim.run(write_block(file.get(), 0, 1, true)), 4096);
  EXPECT_EQ(sim.run(write_block(file.get(), 4096, 1, true)), 4096);
  EXPECT_EQ(sim.run(write_block(file.get(), 8192, 1, true)), -EIO);
  EXPECT_TRUE(disk.crashed());
  uint8_t byte = 0;
  disk.peek(4096, &byte, 1);
  EXPECT_EQ(byte, 1);
  disk.peek(8192, &byte, 1);
  EXPECT_EQ(byte, 0);
}

TEST(SimDisk, InjectsFaultsAndStalls) {
  Sim sim(3);
  SimDisk& disk = sim.world().add_disk("/dev/a");
  const auto file = open_disk(sim, "/dev/a");
  disk.set_fault_hook(
      [](const SimDiskOp& op) { return op.type == SimDiskOpType::kWrite ? -ENOSPC : 0; });
  EXPECT_EQ(sim.run(write_block(file.get(), 0, 1, true)), -ENOSPC);
  disk.set_fault_hook(nullptr);
  disk.set_stalled(true);
  bool finished = false;
  const auto write = [](File* target, bool* flag) -> Task<void> {
    co_await write_block(target, 0, 1, true);
    *flag = true;
  };
  spawn(write(file.get(), &finished));
  sim.run_for(1'000'000'000);
  EXPECT_FALSE(finished);
  disk.set_stalled(false);
  EXPECT_TRUE(sim.run_until([&] { return finished; }));
}

// --- network ---

struct Peer final : SocketHandler {
  std::unique_ptr<Socket> socket;
  std::optional<int32_t> connected;
  std::string received;
  std::optional<int32_t> ended;
  std::string to_send;
  bool echo = false;
  void on_connected(int32_t result) override { connected = result; }
  bool on_readable() override {
    char buffer[1000];
    for (;;) {
      const ssize_t got = socket->recv(buffer, sizeof buffer);
      if (got == -EAGAIN) return false;
      if (got <= 0) {
        ended = static_cast<int32_t>(got);
        return false;
      }
      received.append(buffer, static_cast<size_t>(got));
      if (echo) send(std::string(buffer, static_cast<size_t>(got)));
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

struct EchoServer final : AcceptHandler {
  std::vector<std::unique_ptr<Peer>> peers;
  void on_accept(std::unique_ptr<Socket> socket) override {
    auto peer = std::make_unique<Peer>();
    peer->socket = std::move(socket);
    peer->socket->set_handler(peer.get());
    peer->echo = true;
    peers.push_back(std::move(peer));
  }
};

TEST(SimNetwork, EchoesBetweenHosts) {
  Sim sim(5);
  sim.world().set_network({.window_bytes = 3000, .segment_bytes_max = 100});
  SimHost other(sim.world(), "10.0.0.2", 1);
  EchoServer server;
  auto listener = other.home().ring().listen("10.0.0.2", 4420, &server);
  ASSERT_TRUE(listener.ok());
  Peer client;
  client.socket = sim.home().ring().connect("10.0.0.2", 4420, &client);
  ASSERT_TRUE(sim.run_until([&] { return client.connected.has_value(); }));
  EXPECT_EQ(*client.connected, 0);
  std::string text;
  for (int32_t i = 0; i < 20000; ++i) text.push_back(static_cast<char>('a' + i % 26));
  client.send(text);
  ASSERT_TRUE(sim.run_until([&] { return client.received.size() == text.size(); }));
  EXPECT_EQ(client.received, text);
  server.peers.clear();
  ASSERT_TRUE(sim.run_until([&] { return client.ended.has_value(); }));
  EXPECT_EQ(*client.ended, 0);
}

TEST(SimNetwork, RefusesResetsAndHoldsBack) {
  Sim sim(5);
  SimHost other(sim.world(), "10.0.0.2", 1);
  Peer refused;
  refused.socket = sim.home().ring().connect("10.0.0.2", 1, &refused);
  ASSERT_TRUE(sim.run_until([&] { return refused.connected.has_value(); }));
  EXPECT_EQ(*refused.connected, -ECONNREFUSED);

  EchoServer server;
  auto listener = other.home().ring().listen("0.0.0.0", 4420, &server);
  Peer client;
  client.socket = sim.home().ring().connect("10.0.0.2", 4420, &client);
  ASSERT_TRUE(sim.run_until([&] { return client.connected.has_value(); }));
  sim.world().set_partitioned("10.0.0.1", "10.0.0.2", true);
  client.send("hello");
  sim.run_for(10'000'000'000);
  EXPECT_EQ(client.received, "");
  sim.world().set_partitioned("10.0.0.1", "10.0.0.2", false);
  ASSERT_TRUE(sim.run_until([&] { return client.received == "hello"; }));
  sim.world().reset_host("10.0.0.2");
  ASSERT_TRUE(sim.run_until([&] { return client.ended.has_value(); }));
  EXPECT_EQ(*client.ended, -ECONNRESET);
}

TEST(SimNetwork, MovesASocketToAnotherReactor) {
  Sim sim(5, 2);
  EchoServer server;
  auto listener = sim.home().ring().listen("10.0.0.1", 4420, &server);
  Peer client;
  client.socket = sim.home().ring().connect("10.0.0.1", 4420, &client);
  ASSERT_TRUE(sim.run_until([&] { return client.connected && server.peers.size() == 1; }));
  Peer& peer = *server.peers[0];
  std::unique_ptr<Socket> loose = peer.socket->detach();
  peer.socket.reset();
  client.send("ping");
  sim.run_for(1'000'000);
  peer.socket = sim.reactor(1).ring().attach(std::move(loose), &peer);
  ASSERT_TRUE(sim.run_until([&] { return client.received == "ping"; }));
}

uint64_t run_traced(uint64_t seed) {
  Sim sim(seed, 2);
  sim.world().add_disk("/dev/a");
  const auto file = open_disk(sim, "/dev/a");
  std::vector<AwaitOp> ops(32);
  AlignedBuffer buffer(4096);
  const iovec part{buffer.data(), buffer.size()};
  size_t finished = 0;
  const auto wait = [](AwaitOp* op, size_t* count) -> Task<void> {
    co_await op->result;
    ++*count;
  };
  for (size_t i = 0; i < ops.size(); ++i) {
    sim.reactor(i % 2).ring().writev(*file, &part, 1, i * 4096, false, &ops[i]);
    spawn(wait(&ops[i], &finished));
  }
  CHECK(sim.run_until([&] { return finished == ops.size(); }));
  return sim.world().trace_hash();
}

TEST(SimWorld, SameSeedGivesTheSameTrace) {
  EXPECT_EQ(run_traced(11), run_traced(11));
  EXPECT_NE(run_traced(11), run_traced(12));
}

TEST(SimWorld, SaysWhenNothingCanHappenAnyMore) {
  Sim sim(1);
  EXPECT_FALSE(sim.run_until([] { return false; }));
}

Task<uint64_t> sleeper(uint64_t ns) {
  co_await sleep_for(ns);
  co_return Reactor::current().clock().now_ns();
}

TEST(SimWorld, SleepsInVirtualTime) {
  Sim sim(1, 2);
  const uint64_t start = sim.world().now_ns();
  const uint64_t end = sim.run(sleeper(300'000'000'000));
  EXPECT_GE(end - start, 300'000'000'000u);
  EXPECT_LT(end - start, 300'000'100'000u);
  const auto remote = [](Reactor* target) -> Task<uint32_t> {
    const std::function<Task<uint32_t>()> make = []() -> Task<uint32_t> {
      co_return Reactor::current().index();
    };
    const uint32_t index = co_await call_on<uint32_t>(*target, make);
    co_return index * 10 + Reactor::current().index();
  };
  EXPECT_EQ(sim.run(remote(&sim.reactor(1))), 10u);
}

}  // namespace
}  // namespace mayastor

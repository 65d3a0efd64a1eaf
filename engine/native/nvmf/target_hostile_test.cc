// Hosts that take and do not give: data that never comes, answers that nobody takes, halves of
// PDUs, floods. Beside each, a host that behaves goes on, and what was taken comes back.
#include "core/buffer.h"
#include "nvmf/target_test_host.h"

namespace mayastor::nvmf::test {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint32_t kLarge = 131072;  // bytes

class TargetHostileTest : public TargetFixture {
 protected:
  static HostConnect as(const std::string& name, uint8_t id) {
    HostConnect connect;
    connect.host_nqn = "nqn.2019-05.io.openebs:node-name:" + name;
    connect.host_id = id;
    connect.sqsize = 127;
    return connect;
  }
  TestHost& queue(const HostConnect& who, uint16_t cntlid, uint16_t qid) {
    HostConnect connect = who;
    connect.qid = qid;
    return open_io(cntlid, connect);
  }
  static HostConnect admin_of(HostConnect who) {
    who.sqsize = 31;
    return who;
  }
  void begin() {
    start();
    uint16_t cntlid = 0;
    const HostConnect who = as("honest", 1);
    open_admin(admin_of(who), &cntlid);
    honest = &queue(who, cntlid, 1);
  }
  void expect_honest_goes_on(uint64_t seed) {
    const uint64_t begun = sim.world().now_ns();
    const Bytes data = pattern(kLarge, seed);
    EXPECT_TRUE(honest->write(0, data, false).status().ok());
    EXPECT_EQ(honest->read(0, kLarge / 512).data, data);
    EXPECT_TRUE(honest->write(512, pattern(4096, seed), true).status().ok());
    EXPECT_LT(sim.world().now_ns() - begun, 100 * kMs);
  }
  static void flood(TestHost& io, uint8_t opcode, uint16_t count) {
    for (uint16_t cid = 0; cid < count; ++cid) {
      Sqe sqe = TestHost::io(opcode, 0, kLarge / 512);
      sqe.cid = static_cast<uint16_t>(1000 + cid);
      sqe.sgl = {0, kLarge, {}, kSglTransport};
      io.send_command(sqe);
    }
  }
  TestHost* honest = nullptr;
};

TEST_F(TargetHostileTest, DataThatNeverComesTakesAShareAndHasADeadline) {
  begin();
  const size_t before = sim.home().buffers().in_use_bytes();
  std::vector<TestHost*> bad;
  for (uint8_t host = 2; host < 5; ++host) {
    uint16_t cntlid = 0;
    const HostConnect who = as("bad-" + std::to_string(host), host);
    open_admin(admin_of(who), &cntlid);
    for (uint16_t qid = 1; qid <= 20; ++qid) bad.push_back(&queue(who, cntlid, qid));
  }
  for (TestHost* io : bad) flood(*io, kIoWrite, 127);  // 7,500 * 128 KiB of a pool of 256 MiB
  sim.run_for(100 * kMs);
  EXPECT_GT(sim.home().buffers().in_use_bytes(), 64u << 20);
  EXPECT_GE(sim.home().buffers().free_bytes(), (256u << 20) / 4);
  for (uint64_t i = 0; i < 10; ++i) {
    expect_honest_goes_on(i);
    sim.run_for(1000 * kMs);
  }
  sim.run_for(10'000 * kMs);
  const auto term = bad.front()->expect_term_request();
  ASSERT_TRUE(term.has_value());
  EXPECT_EQ(term->error, kPduErrorSequence);
  // Those that waited for a buffer meanwhile got one, and their own deadline.
  for (uint64_t i = 0; i < 20; ++i) {
    sim.run_for(2000 * kMs);
    expect_honest_goes_on(i);
  }
  for (TestHost* io : bad) EXPECT_TRUE(io->wire().ended());
  EXPECT_EQ(sim.home().buffers().in_use_bytes(), before);
  expect_honest_goes_on(99);
  sim.run_for(20'000 * kMs);
  EXPECT_LE(sim.home().buffers().mapped_bytes(), BufferPool::kKeptBytes);
}

TEST_F(TargetHostileTest, ADripOfDataEndsToo) {
  begin();
  uint16_t cntlid = 0;
  const HostConnect who = as("bad", 2);
  open_admin(admin_of(who), &cntlid);
  TestHost& io = queue(who, cntlid, 1);
  flood(io, kIoWrite, 1);
  const auto r2t_pdu = io.receive_pdu();
  ASSERT_TRUE(r2t_pdu.has_value());
  R2tPdu r2t;
  std::memcpy(&r2t, r2t_pdu->bytes.data(), sizeof(r2t));
  uint32_t seconds = 0;
  for (; seconds < 100 && target->find(kNqn).value().hosts.back().io_queues == 1; ++seconds) {
    io.send_data(r2t.cid, r2t.transfer_tag, seconds, Bytes(1), false);
    sim.run_for(1000 * kMs);
  }
  EXPECT_GE(seconds, 55U);
  EXPECT_LE(seconds, 66U);
  expect_honest_goes_on(1);
}

TEST_F(TargetHostileTest, HalfAPduHasADeadlineWhetherItDripsOrNot) {
  begin();
  for (const bool drip : {false, true}) {
    uint16_t cntlid = 0;
    const HostConnect who = as("bad", 2);
    TestHost& admin = open_admin(admin_of(who), &cntlid);
    TestHost& io = queue(who, cntlid, 1);
    CapsuleCmdPdu pdu{};
    pdu.sqe = TestHost::io(kIoWrite, 0, 8);
    const PduLayout layout = layout_for(kPduCapsuleCmd, 4096, io.format);
    encode_header(pdu.header, kPduCapsuleCmd, 0, layout);
    io.wire().send(&pdu, 20);
    uint32_t seconds = 0;
    const auto alive = [&] { return target->find(kNqn).value().hosts.back().io_queues == 1; };
    for (; seconds < 100 && alive(); ++seconds) {
      const uint8_t byte = 0;
      if (drip) io.wire().send(&byte, 1);
      sim.run_for(1000 * kMs);
    }
    EXPECT_GE(seconds, drip ? 55U : 14U);
    EXPECT_LE(seconds, drip ? 66U : 20U);
    close(io);
    close(admin);
    sim.run_for(100 * kMs);
  }
  expect_honest_goes_on(1);
}

// It takes an answer's beginning and nothing more; its wire holds what its window does.
TEST_F(TargetHostileTest, AnswersThatNobodyTakesHaveADeadline) {
  begin();
  uint16_t cntlid = 0;
  const HostConnect who = as("bad", 2);
  open_admin(admin_of(who), &cntlid);
  TestHost& io = queue(who, cntlid, 1);
  static_cast<SimWire&>(io.wire()).stop_reading();
  flood(io, kIoRead, 127);
  sim.run_for(1000 * kMs);
  EXPECT_GT(sim.home().buffers().in_use_bytes(), 4u << 20);
  expect_honest_goes_on(1);
  sim.run_for(20'000 * kMs);
  EXPECT_EQ(sim.home().buffers().in_use_bytes(), 0U);
  EXPECT_EQ(target->find(kNqn).value().hosts.back().io_queues, 0U);
  expect_honest_goes_on(2);
}

// ---- Admission

TEST_F(TargetHostileTest, ControllersOfAHostAndInAllAreLimitedAndComeFreeAgain) {
  options.max_controllers = 6;
  options.max_controllers_per_host = 4;
  subsystem.ana_reporting = true;
  start();
  std::vector<TestHost*> first;
  for (int i = 0; i < 4; ++i) first.push_back(&open_admin(as("first", 1)));
  EXPECT_TRUE(open().connect(admin_of(as("first", 1))).status().is(status::kConnectControllerBusy));
  for (uint8_t i = 0; i < 2; ++i) open_admin(as("other-" + std::to_string(i), i));
  TestHost& waiting = open();
  const TestAnswer busy = waiting.connect(admin_of(as("last", 9)));
  EXPECT_TRUE(busy.status().is(status::kConnectControllerBusy));
  EXPECT_FALSE(busy.status().do_not_retry);
  close(*first[0]);
  sim.run_for(10 * kMs);
  EXPECT_TRUE(waiting.connect(admin_of(as("last", 9))).status().ok());
}

TEST_F(TargetHostileTest, DiscoveryIsLimitedApart) {
  options.max_discovery_controllers = 3;
  begin();
  for (uint8_t i = 0; i < 5; ++i) {
    HostConnect connect = admin_of(as("d-" + std::to_string(i), i));
    connect.nqn = kDiscoveryNqn;
    connect.kato_ms = UINT32_MAX;
    const IoStatus status = open().connect(connect).status();
    EXPECT_TRUE(i < 3 ? status.ok() : status.is(status::kConnectControllerBusy)) << int{i};
  }
  expect_honest_goes_on(1);
}

TEST_F(TargetHostileTest, AHostHasNoMoreConnectionsThanItLeavesFree) {
  options.max_connections = 20;  // 15 with a queue
  start();
  uint16_t cntlid = 0;
  const HostConnect who = as("greedy", 2);
  open_admin(admin_of(who), &cntlid);
  for (uint16_t qid = 1; qid <= 7; ++qid) queue(who, cntlid, qid);
  HostConnect more = who;
  more.cntlid = cntlid;
  more.qid = 8;
  EXPECT_TRUE(open().connect(more).status().is(status::kConnectControllerBusy));
  uint16_t other = 0;
  open_admin(admin_of(as("honest", 1)), &other);
  EXPECT_TRUE(queue(as("honest", 1), other, 1).read(0, 8).status().ok());
}

TEST_F(TargetHostileTest, OfTheSilentTheOldestGoes) {
  options.max_early_connections = 4;
  start();
  std::vector<std::unique_ptr<SimWire>> silent;
  for (int i = 0; i < 20; ++i) {
    silent.push_back(std::make_unique<SimWire>(sim, other.home(), options.address, 8420));
    sim.run_for(10 * kMs);
    EXPECT_LE(target->connection_count(), 4U);
  }
  open_admin();  // still gets in
}

// A queue that was connected costs little until it is used, and a deep one no more than is used.
TEST_F(TargetHostileTest, AQueuesMemoryIsAllocatedAsItIsUsed) {
  begin();
  const size_t before = sim.home().spare().in_use();
  uint16_t cntlid = 0;
  const HostConnect who = as("idle", 2);
  TestHost& admin = open_admin(admin_of(who), &cntlid);
  const size_t with_admin = sim.home().spare().in_use();
  std::vector<TestHost*> queues;
  for (uint16_t qid = 1; qid <= 31; ++qid) queues.push_back(&queue(who, cntlid, qid));
  EXPECT_EQ(sim.home().spare().in_use(), with_admin);
  EXPECT_TRUE(queues[0]->read(0, 8).status().ok());
  EXPECT_LE(sim.home().spare().in_use() - with_admin, 8192U);
  for (TestHost* io : queues) close(*io);
  close(admin);
  sim.run_for(10 * kMs);
  EXPECT_EQ(sim.home().spare().in_use(), before);
}

}  // namespace
}  // namespace mayastor::nvmf::test

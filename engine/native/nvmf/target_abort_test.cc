// The Abort command over the simulated network: what has not begun is answered as aborted and never
// runs; what is with the device, or on its way, goes on to its own end; the host is told which.
#include "core/buffer.h"
#include "nvmf/target_test_host.h"

namespace mayastor::nvmf::test {
namespace {

constexpr uint64_t kMs = 1'000'000;

// Two reactors: the I/O queues 1 and 2 are on the first and the second.
class TargetAbortTest : public TargetFixture {
 protected:
  TargetAbortTest() : TargetFixture(2) {}
  void begin() {
    start();
    admin = &open_admin({}, &cntlid);
    for (uint16_t qid = 1; qid <= 2; ++qid) {
      HostConnect connect;
      connect.qid = qid;
      queues.push_back(&open_io(cntlid, connect));
    }
  }
  static uint16_t send(TestHost& on, uint8_t opcode, uint64_t lba, uint32_t blocks,
                       const Bytes& data = {}) {
    Sqe sqe = TestHost::io(opcode, lba, blocks);
    sqe.cid = on.next_cid();
    sqe.sgl = {0, blocks * 512, {}, data.empty() ? kSglTransport : kSglInCapsule};
    on.send_command(sqe, data);
    return sqe.cid;
  }
  static Sqe abort_sqe(uint16_t qid, uint16_t cid) {
    Sqe sqe{};
    sqe.opcode = kAdminAbort;
    sqe.cdw10 = uint32_t{cid} << 16 | qid;
    return sqe;
  }
  // Bit 0 of the answer: not aborted.
  bool aborted(uint16_t qid, uint16_t cid) {
    const TestAnswer answer = admin->command(abort_sqe(qid, cid));
    EXPECT_TRUE(answer.status().ok());
    EXPECT_LE(uint32_t{answer.cqe.dw0}, 1U);
    return answer.cqe.dw0 == 0;
  }
  void release_held() {
    for (size_t i = 0; i < 2; ++i) {
      const Reactor::Scope scope(sim.reactor(i));
      fault->release_held();
    }
  }
  TestHost* admin = nullptr;
  std::vector<TestHost*> queues;
  uint16_t cntlid = 0;
};

TEST_F(TargetAbortTest, WhatWaitsForTheEndOfAPauseNeverRuns) {
  begin();
  ASSERT_TRUE(sim.run(target->pause(kNqn)).ok());
  for (uint16_t qid = 1; qid <= 2; ++qid) {
    TestHost& io = *queues[qid - 1U];
    const uint64_t lba = qid * 100U;
    const uint16_t before = send(io, kIoWrite, lba, 1, pattern(512, 1));
    const uint16_t victim = send(io, kIoWrite, lba, 1, pattern(512, 2));
    const uint16_t after = send(io, kIoWrite, lba + 1, 1, pattern(512, 3));
    sim.run_for(kMs);
    EXPECT_TRUE(aborted(qid, victim)) << qid;
    EXPECT_TRUE(io.finish(victim).status().is(io_status::kAborted)) << qid;
    EXPECT_FALSE(aborted(qid, victim)) << "it has been answered";
    EXPECT_TRUE(aborted(qid, after)) << "the last one in the list";
    EXPECT_TRUE(io.finish(after).status().is(io_status::kAborted));
    const uint16_t last = send(io, kIoWrite, lba + 2, 1, pattern(512, 4));
    sim.run_for(kMs);
    ASSERT_TRUE(sim.run(target->resume(kNqn)).ok());
    EXPECT_TRUE(io.finish(before).status().ok());
    EXPECT_TRUE(io.finish(last).status().ok());
    Bytes stored = pattern(512, 1);
    stored.resize(1024);
    const Bytes end = pattern(512, 4);
    stored.insert(stored.end(), end.begin(), end.end());
    EXPECT_EQ(io.read(lba, 3).data, stored) << qid;
    ASSERT_TRUE(sim.run(target->pause(kNqn)).ok());
  }
  ASSERT_TRUE(sim.run(target->resume(kNqn)).ok());
}

TEST_F(TargetAbortTest, WhatIsWithTheDeviceGoesOn) {
  begin();
  for (uint16_t qid = 1; qid <= 2; ++qid) {
    TestHost& io = *queues[qid - 1U];
    fault->add_rule({.type = IoType::kWrite, .count = 1, .hold = true});
    const uint16_t cid = send(io, kIoWrite, qid, 1, pattern(512, 1));
    sim.run_until([&] { return fault->held_count() == 1; });
    EXPECT_FALSE(aborted(qid, cid)) << qid;
    release_held();
    EXPECT_TRUE(io.finish(cid).status().ok()) << qid;
    EXPECT_EQ(io.read(qid, 1).data, pattern(512, 1)) << qid;
  }
}

// The host would send data for a command that it takes for ended.
TEST_F(TargetAbortTest, WhatDataIsComingForGoesOn) {
  begin();
  TestHost& io = *queues[0];
  const uint16_t cid = send(io, kIoWrite, 0, 16);
  const auto pdu = io.receive_pdu();
  ASSERT_TRUE(pdu.has_value());
  ASSERT_EQ(pdu->header.type, kPduR2t);
  R2tPdu r2t;
  std::memcpy(&r2t, pdu->bytes.data(), sizeof(r2t));
  EXPECT_FALSE(aborted(1, cid));
  io.send_data(cid, r2t.transfer_tag, 0, pattern(8192, 1), true);
  EXPECT_TRUE(io.finish(cid).status().ok());
}

TEST_F(TargetAbortTest, WhatWaitsForABufferNeverRuns) {
  begin();
  const Bytes data = pattern(131072, 9);
  for (uint16_t qid = 1; qid <= 2; ++qid) {
    TestHost& io = *queues[qid - 1U];
    ASSERT_TRUE(io.write(0, data, false).status().ok());
    std::vector<std::pair<uint8_t*, size_t>> taken;
    {
      const Reactor::Scope scope(sim.reactor(qid - 1U));
      for (const size_t size :
           {size_t{1} << 20, size_t{131072}, size_t{65536}, size_t{16384}, size_t{4096}}) {
        while (uint8_t* const buffer = BufferPool::current().acquire(size)) {
          taken.emplace_back(buffer, size);
        }
      }
    }
    const uint16_t first = send(io, kIoRead, 0, 256);
    const uint16_t victim = send(io, kIoRead, 0, 256);
    const uint16_t last = send(io, kIoRead, 0, 256);
    sim.run_for(kMs);
    for (const uint16_t cid : {victim, last, first}) {
      EXPECT_TRUE(aborted(qid, cid)) << qid;
      EXPECT_TRUE(io.finish(cid).status().is(io_status::kAborted)) << qid;
    }
    const uint16_t again = send(io, kIoRead, 0, 256);
    sim.run_for(kMs);
    {
      const Reactor::Scope scope(sim.reactor(qid - 1U));
      for (const auto& [buffer, size] : taken) BufferPool::current().release(buffer, size);
    }
    EXPECT_EQ(io.finish(again).data, data) << qid;
  }
}

TEST_F(TargetAbortTest, HalfOfAPairThatNeverRunsFailsTheOther) {
  begin();
  TestHost& io = *queues[0];
  std::vector<std::pair<uint8_t*, size_t>> taken;
  for (const size_t size :
       {size_t{1} << 20, size_t{131072}, size_t{65536}, size_t{16384}, size_t{4096}}) {
    while (uint8_t* const buffer = BufferPool::current().acquire(size)) {
      taken.emplace_back(buffer, size);
    }
  }
  Sqe compare = TestHost::io(kIoCompare, 0, 256);
  compare.flags = kFuseFirst;
  compare.cid = io.next_cid();
  compare.sgl = {0, 131072, {}, kSglTransport};
  io.send_command(compare);
  Sqe write = TestHost::io(kIoWrite, 0, 256);
  write.flags = kFuseSecond;
  write.cid = io.next_cid();
  write.sgl = {0, 131072, {}, kSglTransport};
  io.send_command(write);
  sim.run_for(kMs);
  EXPECT_TRUE(aborted(1, compare.cid));
  EXPECT_TRUE(io.finish(compare.cid).status().is(io_status::kAborted));
  for (const auto& [buffer, size] : taken) BufferPool::current().release(buffer, size);
  const TestAnswer other = io.finish(write.cid, Bytes(131072));
  ASSERT_TRUE(other.arrived);
  EXPECT_TRUE(other.status().is(status::kFailedFused)) << int{other.status().code};
}

TEST_F(TargetAbortTest, UnknownCommandsAndQueues) {
  begin();
  ASSERT_TRUE(sim.run(target->pause(kNqn)).ok());
  const uint16_t cid = send(*queues[0], kIoRead, 0, 1);
  sim.run_for(kMs);
  EXPECT_FALSE(aborted(1, static_cast<uint16_t>(cid + 1)));
  EXPECT_FALSE(aborted(2, cid)) << "of another queue";
  EXPECT_FALSE(aborted(0, cid)) << "the admin queue has no such command";
  EXPECT_TRUE(admin->command(abort_sqe(3, cid)).status().is(io_status::kInvalidField));
  ASSERT_TRUE(sim.run(target->resume(kNqn)).ok());
  EXPECT_TRUE(queues[0]->finish(cid).arrived);
}

TEST_F(TargetAbortTest, NoMoreAtATimeThanAnnounced) {
  begin();
  IdentifyController id{};
  const Bytes page = admin->identify(kCnsController, 0).data;
  ASSERT_EQ(page.size(), sizeof(id));
  std::memcpy(&id, page.data(), sizeof(id));
  const uint32_t limit = id.acl + 1U;
  std::vector<uint16_t> cids;
  Bytes together;
  for (uint32_t i = 0; i <= limit; ++i) {
    CapsuleCmdPdu pdu{};
    pdu.sqe = abort_sqe(2, 0xAAAA);
    pdu.sqe.cid = admin->next_cid();
    cids.push_back(pdu.sqe.cid);
    encode_header(pdu.header, kPduCapsuleCmd, 0, layout_for(kPduCapsuleCmd, 0, admin->format));
    const auto* const bytes = reinterpret_cast<const uint8_t*>(&pdu);
    together.insert(together.end(), bytes, bytes + sizeof(pdu));
  }
  admin->wire().send(together.data(), together.size());
  for (uint32_t i = 0; i < limit; ++i) {
    const TestAnswer answer = admin->finish(cids[i]);
    EXPECT_TRUE(answer.status().ok()) << i;
    EXPECT_EQ(uint32_t{answer.cqe.dw0}, 1U) << i;
  }
  const IoStatus excessive = admin->finish(cids[limit]).status();
  EXPECT_TRUE(excessive.is(status::kAbortLimit) && !excessive.do_not_retry);
  EXPECT_FALSE(aborted(2, 0xAAAA)) << "the others have been answered";
}

TEST_F(TargetAbortTest, HostThatLeavesMeanwhileLeavesNothingBehind) {
  begin();
  ASSERT_TRUE(sim.run(target->pause(kNqn)).ok());
  const uint16_t cid = send(*queues[1], kIoRead, 0, 1);
  sim.run_for(kMs);
  admin->send_command(abort_sqe(2, cid));
  for (TestHost* const io : queues) close(*io);
  close(*admin);
  ASSERT_TRUE(sim.run(target->resume(kNqn)).ok());
  EXPECT_TRUE(sim.run_until([&] { return target->connection_count() == 0; }));
}

}  // namespace
}  // namespace mayastor::nvmf::test

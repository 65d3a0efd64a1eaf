// Connections that the control path closes while they move to their reactor: at every step of the
// way they end once, and leave nothing behind.
#include "nvmf/target_test_host.h"

namespace mayastor::nvmf::test {
namespace {

class TargetCloseTest : public TargetFixture {
 protected:
  TargetCloseTest() : TargetFixture(2) {}
  // Sends the Connect of I/O queue 2, which goes to the second reactor, and goes on until the
  // target has taken it.
  TestHost& begin_connect(uint16_t cntlid) {
    TestHost& host = open();
    HostConnect connect;
    connect.qid = 2;
    connect.cntlid = cntlid;
    Sqe sqe = TestHost::connect_sqe(connect);
    const Bytes data = TestHost::connect_data(connect);
    sqe.cid = host.next_cid();
    sqe.flags = kPsdtSgl;
    sqe.sgl = {0, static_cast<uint32_t>(data.size()), {}, kSglInCapsule};
    host.send_command(sqe, data);
    const auto taken = [&] {
      const auto info = target->find(kNqn);
      return info.value().hosts.size() == 1 && info.value().hosts[0].io_queues == 2;
    };
    EXPECT_TRUE(sim.run_until(taken, 1'000'000'000));
    return host;
  }
  void run_turns(uint32_t count) {
    sim.run_until([&count] { return count-- == 0; });
  }
};

// The close was posted to where the connection still was; it ran behind the move.
TEST_F(TargetCloseTest, WhatMovesIsClosedWhereItIs) {
  start();
  for (uint32_t turns = 0; turns < 6; ++turns) {
    uint16_t cntlid = 0;
    open_admin({}, &cntlid);
    TestHost& first = open_io(cntlid);
    TestHost& moving = begin_connect(cntlid);
    run_turns(turns);
    ASSERT_TRUE(sim.run(target->remove_subsystem(kNqn)).ok());
    EXPECT_TRUE(first.wire().ended()) << turns;
    EXPECT_TRUE(moving.wire().ended()) << turns;
    EXPECT_EQ(target->connection_count(), 0u) << turns;
    ASSERT_TRUE(sim.run(target->add_subsystem(subsystem)).ok());
  }
}

TEST_F(TargetCloseTest, TargetThatStopsClosesWhatMoves) {
  for (uint32_t turns = 0; turns < 6; ++turns) {
    start();
    uint16_t cntlid = 0;
    open_admin({}, &cntlid);
    open_io(cntlid);
    TestHost& moving = begin_connect(cntlid);
    run_turns(turns);
    sim.run(target->stop());
    EXPECT_EQ(target->connection_count(), 0u) << turns;
    EXPECT_TRUE(moving.wire().ended()) << turns;
    target.reset();
  }
}

}  // namespace
}  // namespace mayastor::nvmf::test

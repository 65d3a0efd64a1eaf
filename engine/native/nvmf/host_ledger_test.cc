// Who left a subsystem how: what tells a host that is gone from one that was cut off and may come
// back.
#include "nvmf/host_ledger.h"

#include <gtest/gtest.h>

#include "nvmf/target_test_host.h"

namespace mayastor::nvmf::test {
namespace {

class HostLedgerTest : public TargetFixture {
 protected:
  std::shared_ptr<HostLedger> ledger = std::make_shared<HostLedger>();
  void begin() {
    subsystem.ledger = ledger;
    start();
  }
  // Connected controllers and lost ones, of all hosts.
  [[nodiscard]] std::pair<uint32_t, uint32_t> sums() const {
    std::pair<uint32_t, uint32_t> all{0, 0};
    for (const HostLedger::Host& host : ledger->hosts()) {
      all.first += host.live;
      all.second += host.lost;
    }
    return all;
  }
  static constexpr uint32_t kShutDown = kCcDefault | 1U << kCcShnShift;
};

TEST_F(HostLedgerTest, AHostThatShutsItsControllerDownHasLeft) {
  begin();
  TestHost& host = open_admin();
  EXPECT_EQ(sums(), (std::pair<uint32_t, uint32_t>{1, 0}));
  ASSERT_TRUE(host.property(kPropertyCc, false, kShutDown).status().ok());
  EXPECT_EQ(sums(), (std::pair<uint32_t, uint32_t>{0, 0})) << "before its connection closes";
  close(host);
  sim.run_for(1'000'000);
  EXPECT_EQ(sums(), (std::pair<uint32_t, uint32_t>{0, 0}));
  EXPECT_EQ(ledger->hosts().size(), 1U) << "it was here";
}

TEST_F(HostLedgerTest, AHostWhoseConnectionEndsIsLostUntilItComesBack) {
  begin();
  close(open_admin());
  sim.run_for(1'000'000);
  EXPECT_EQ(sums(), (std::pair<uint32_t, uint32_t>{0, 1}));
  TestHost& again = open_admin();
  EXPECT_EQ(sums(), (std::pair<uint32_t, uint32_t>{1, 0}));
  ASSERT_TRUE(again.property(kPropertyCc, false, kShutDown).status().ok());
  EXPECT_EQ(sums(), (std::pair<uint32_t, uint32_t>{0, 0}));
}

TEST_F(HostLedgerTest, AHostThatEnablesItsControllerAgainIsBack) {
  begin();
  TestHost& host = open_admin();
  ASSERT_TRUE(host.property(kPropertyCc, false, kShutDown).status().ok());
  ASSERT_TRUE(host.property(kPropertyCc, false, 0).status().ok());
  ASSERT_TRUE(host.property(kPropertyCc, false, kCcDefault).status().ok());
  EXPECT_EQ(sums(), (std::pair<uint32_t, uint32_t>{1, 0}));
  close(host);
  sim.run_for(1'000'000);
  EXPECT_EQ(sums(), (std::pair<uint32_t, uint32_t>{0, 1}));
}

TEST_F(HostLedgerTest, WhoIsConnectedWhenTheSubsystemGoesIsLost) {
  begin();
  open_admin();
  ASSERT_TRUE(sim.run(target->remove_subsystem(kNqn)).ok());
  EXPECT_EQ(sums(), (std::pair<uint32_t, uint32_t>{0, 1}));
}

TEST(HostLedger, MoreHostsThanAreKeptAreTold) {
  HostLedger ledger;
  HostLedger::Id id{};
  for (size_t i = 0; i < HostLedger::kHostsMax; ++i) {
    ledger.joined("nqn.2014-08.org.example:" + std::to_string(i), id);
  }
  EXPECT_TRUE(ledger.complete());
  id[0] = 1;  // another machine of a known name
  ledger.joined("nqn.2014-08.org.example:0", id);
  EXPECT_FALSE(ledger.complete());
  ledger.lost("nqn.2014-08.org.example:0", id);
  ledger.shut_down("nobody", id);
  EXPECT_EQ(ledger.hosts().size(), HostLedger::kHostsMax);
}

}  // namespace
}  // namespace mayastor::nvmf::test

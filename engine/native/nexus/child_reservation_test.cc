// reserve(): the steps of taking a reservation, against a model of one namespace's reservations.
#include <gtest/gtest.h>

#include <cstring>

#include "core/sim_harness.h"
#include "nexus/child.h"

namespace mayastor::nexus {
namespace {

constexpr uint8_t kWriteExclusive = 1, kExclusiveAccess = 2, kAllRegistrants = 5;

// One namespace as the NVMe base specification has it, as far as the nexus uses it.
struct Namespace {
  struct Registrant {
    uint64_t key;
    uint8_t host;
  };
  std::vector<Registrant> registrants;
  uint8_t type = 0;
  uint8_t holder = 0;  // host
  uint8_t cptpl = 0;
  bool supported = true;
  bool steal_after_acquire = false;  // another host comes in between
  [[nodiscard]] Registrant* find(uint8_t host) {
    for (auto& entry : registrants) {
      if (entry.host == host) return &entry;
    }
    return nullptr;
  }
};

class HostView final : public Reservations {
 public:
  HostView(Namespace& on, uint8_t host) : on_(on), host_(host) { id_[0] = host; }
  Task<IoStatus> register_key(RegisterAction action, uint64_t, uint64_t new_key, bool ignore,
                              uint8_t cptpl) override {
    if (!on_.supported) co_return io_status::kInvalidOpcode;
    CHECK(ignore && action != RegisterAction::kUnregister);
    on_.cptpl = cptpl;
    if (auto* own = on_.find(host_)) {
      own->key = new_key;
    } else {
      on_.registrants.push_back({new_key, host_});
    }
    co_return io_status::kOk;
  }
  Task<IoStatus> acquire(AcquireAction action, uint64_t key, uint64_t preempt,
                         uint8_t type) override {
    const auto* own = on_.find(host_);
    if (own == nullptr || own->key != key) co_return io_status::kReservationConflict;
    if (action == AcquireAction::kAcquire) {
      const bool held_by_other = on_.type != 0 && on_.holder != host_;
      if (held_by_other || (on_.type != 0 && on_.type != type)) {
        co_return io_status::kReservationConflict;
      }
    } else {
      const bool evicts_holder = on_.type != 0 && on_.find(on_.holder)->key == preempt;
      std::erase_if(on_.registrants,
                    [&](const auto& entry) { return entry.key == preempt && entry.host != host_; });
      if (!evicts_holder) co_return io_status::kOk;
    }
    on_.type = type;
    on_.holder = host_;
    if (on_.steal_after_acquire) on_.holder = 99;
    co_return io_status::kOk;
  }
  Task<IoStatus> release(ReleaseAction, uint64_t key, uint8_t type) override {
    const auto* own = on_.find(host_);
    if (own == nullptr || own->key != key || type != on_.type) {
      co_return io_status::kReservationConflict;
    }
    on_.type = 0;
    co_return io_status::kOk;
  }
  Task<Result<ReservationReport>> report() override {
    ReservationReport made;
    made.type = on_.type;
    for (const auto& entry : on_.registrants) {
      ReservationReport::Registrant out{entry.key, on_.type != 0 && entry.host == on_.holder, {}};
      out.host_id[0] = entry.host;
      made.registrants.push_back(out);
    }
    co_return made;
  }
  [[nodiscard]] const uint8_t* host_id() const noexcept override { return id_; }

 private:
  Namespace& on_;
  const uint8_t host_;
  uint8_t id_[16] = {};
};

NexusOptions with_key(uint64_t key, PreemptPolicy policy, uint8_t type = kExclusiveAccess) {
  NexusOptions options;
  options.reservations_enabled = true;
  options.resv_key = key;
  options.resv_type = type;
  options.preempt_policy = policy;
  return options;
}

class ReservationTest : public testing::Test {
 protected:
  Result<void> take(HostView& host, const NexusOptions& options) {
    return sim_.run(reserve(&host, options));
  }
  Sim sim_;
  Namespace space_;
  HostView one_{space_, 1}, two_{space_, 2};
};

TEST_F(ReservationTest, FreeNamespaceIsTaken) {
  ASSERT_TRUE(take(one_, with_key(0xA, PreemptPolicy::kHolder)).ok());
  EXPECT_EQ(space_.type, kExclusiveAccess);
  EXPECT_EQ(space_.holder, 1);
  EXPECT_EQ(space_.cptpl, 2);
  NexusOptions persistent = with_key(0xA, PreemptPolicy::kHolder);
  persistent.resv_persist = true;
  ASSERT_TRUE(take(one_, persistent).ok());
  EXPECT_EQ(space_.cptpl, 3);
}

TEST_F(ReservationTest, NewNexusEvictsTheOldOne) {
  ASSERT_TRUE(take(one_, with_key(0xA, PreemptPolicy::kHolder)).ok());
  ASSERT_TRUE(take(two_, with_key(0xB, PreemptPolicy::kHolder)).ok());
  EXPECT_EQ(space_.holder, 2);
  EXPECT_EQ(space_.find(1), nullptr);
}

TEST_F(ReservationTest, SameHostWithANewKeyTakesOver) {
  ASSERT_TRUE(take(one_, with_key(0xA, PreemptPolicy::kHolder)).ok());
  ASSERT_TRUE(take(one_, with_key(0xB, PreemptPolicy::kHolder)).ok());
  EXPECT_EQ(space_.holder, 1);
  EXPECT_EQ(space_.find(1)->key, 0xBu);
}

TEST_F(ReservationTest, TypeIsChanged) {
  ASSERT_TRUE(take(one_, with_key(0xA, PreemptPolicy::kHolder, kWriteExclusive)).ok());
  ASSERT_TRUE(take(one_, with_key(0xA, PreemptPolicy::kHolder, kExclusiveAccess)).ok());
  EXPECT_EQ(space_.type, kExclusiveAccess);
  space_.type = kAllRegistrants;
  ASSERT_TRUE(take(one_, with_key(0xA, PreemptPolicy::kHolder, kExclusiveAccess)).ok());
  EXPECT_EQ(space_.type, kExclusiveAccess);
}

TEST_F(ReservationTest, ArgKeyPolicyPreemptsTheGivenKeyOnly) {
  ASSERT_TRUE(take(one_, with_key(0xA, PreemptPolicy::kArgKey)).ok());
  const auto refused = take(two_, with_key(0xB, PreemptPolicy::kArgKey));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  NexusOptions preempting = with_key(0xB, PreemptPolicy::kArgKey);
  preempting.preempt_key = 0xA;
  ASSERT_TRUE(take(two_, preempting).ok());
  EXPECT_EQ(space_.holder, 2);
}

TEST_F(ReservationTest, LosingItInBetweenIsNoticed) {
  space_.steal_after_acquire = true;
  EXPECT_FALSE(take(one_, with_key(0xA, PreemptPolicy::kHolder)).ok());
}

TEST_F(ReservationTest, SkippedWhenDisabledOrUnknownToTheDevice) {
  NexusOptions off = with_key(0xA, PreemptPolicy::kHolder);
  off.reservations_enabled = false;
  EXPECT_TRUE(take(one_, off).ok());
  EXPECT_TRUE(take(one_, with_key(0, PreemptPolicy::kHolder)).ok());
  EXPECT_TRUE(take(one_, with_key(0xA, PreemptPolicy::kHolder, 0)).ok());
  EXPECT_TRUE(space_.registrants.empty());
  const NexusOptions on = with_key(0xA, PreemptPolicy::kHolder);
  EXPECT_TRUE(sim_.run(reserve(nullptr, on)).ok());
  space_.supported = false;
  EXPECT_TRUE(take(one_, on).ok());
}

}  // namespace
}  // namespace mayastor::nexus

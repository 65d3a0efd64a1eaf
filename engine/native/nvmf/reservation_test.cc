// Reservation rules: a table of who may do what under every type, and each command's effects.
#include "nvmf/reservation.h"

#include <gtest/gtest.h>

namespace mayastor::nvmf::target {
namespace {

using Register = Reservations::RegisterAction;
using Acquire = Reservations::AcquireAction;
using Release = Reservations::ReleaseAction;

HostId host(uint8_t id) {
  HostId out;
  out.fill(id);
  return out;
}
const HostId kA = host(1), kB = host(2), kC = host(3);
constexpr uint64_t kKeyA = 0xA, kKeyB = 0xB, kKeyC = 0xC;

class ReservationTest : public testing::Test {
 protected:
  IoStatus add(const HostId& who, uint64_t key, uint8_t cptpl = 0) {
    return state.register_key(who, {0, key}, Register::kRegister, false, cptpl, true);
  }
  IoStatus acquire(const HostId& who, uint64_t key, uint8_t type) {
    return state.acquire(who, {key, 0}, Acquire::kAcquire, false, type);
  }
  IoStatus preempt(const HostId& who, uint64_t key, uint64_t prkey, uint8_t type) {
    return state.acquire(who, {key, prkey}, Acquire::kPreempt, false, type);
  }
  IoStatus unregister(const HostId& who, uint64_t key) {
    return state.register_key(who, {key, 0}, Register::kUnregister, false, 0, true);
  }
  void all_three() {
    ASSERT_TRUE(add(kA, kKeyA).ok());
    ASSERT_TRUE(add(kB, kKeyB).ok());
  }
  [[nodiscard]] size_t events(const HostId& who, ReservationNotice notice) {
    size_t count = 0;
    for (const ReservationEvent& event : state.take_events()) {
      if (event.host == who && event.notice == notice) ++count;
    }
    return count;
  }
  ReservationState state;
};

struct Row {
  uint8_t type;
  uint8_t holder, registrant, stranger;  // denied accesses
};
class ReservationTableTest : public ReservationTest, public testing::WithParamInterface<Row> {};

TEST_P(ReservationTableTest, DeniesAsTheTypeSays) {
  all_three();
  const Row row = GetParam();
  EXPECT_EQ(state.denied(kC), kDenyNothing);
  ASSERT_TRUE(acquire(kA, kKeyA, row.type).ok());
  EXPECT_EQ(state.denied(kA), row.holder);
  EXPECT_EQ(state.denied(kB), row.registrant);
  EXPECT_EQ(state.denied(kC), row.stranger);
  EXPECT_TRUE(state.is_holder(kA));
  EXPECT_EQ(state.is_holder(kB), row.type >= 5);
  EXPECT_FALSE(state.is_holder(kC));
}

constexpr uint8_t kBoth = kDenyRead | kDenyWrite;
INSTANTIATE_TEST_SUITE_P(Types, ReservationTableTest,
                         testing::Values(Row{1, 0, kDenyWrite, kDenyWrite}, Row{2, 0, kBoth, kBoth},
                                         Row{3, 0, 0, kDenyWrite}, Row{4, 0, 0, kBoth},
                                         Row{5, 0, 0, kDenyWrite}, Row{6, 0, 0, kBoth}));

TEST_F(ReservationTest, RegisterRules) {
  EXPECT_TRUE(add(kA, 0).is(io_status::kInvalidField));
  EXPECT_TRUE(add(kA, kKeyA).ok());
  EXPECT_TRUE(add(kA, kKeyA).ok());  // again, the same key
  EXPECT_EQ(state.generation(), 1U);
  EXPECT_TRUE(add(kA, kKeyB).is(io_status::kReservationConflict));
  EXPECT_TRUE(unregister(kA, kKeyB).is(io_status::kReservationConflict));
  EXPECT_TRUE(unregister(kB, kKeyB).is(io_status::kReservationConflict));
  EXPECT_TRUE(state.register_key(kA, {kKeyB, kKeyC}, Register::kReplace, false, 0, true)
                  .is(io_status::kReservationConflict));
  EXPECT_TRUE(state.register_key(kA, {kKeyA, kKeyC}, Register::kReplace, false, 0, true).ok());
  EXPECT_EQ(state.find(kA)->key, kKeyC);
  EXPECT_EQ(state.generation(), 1U);  // a new key is no new registrant
  EXPECT_TRUE(state.register_key(kB, {0, kKeyB}, Register::kReplace, false, 0, true)
                  .is(io_status::kReservationConflict));
  EXPECT_TRUE(state.register_key(kB, {0, kKeyB}, Register::kReplace, true, 0, true).ok());
  EXPECT_EQ(state.generation(), 2U);
  EXPECT_TRUE(state.register_key(kB, {9, 0}, Register::kUnregister, true, 0, true).ok());
  EXPECT_EQ(state.generation(), 3U);
  EXPECT_TRUE(state.register_key(kB, {0, 1}, static_cast<Register>(5), true, 0, true)
                  .is(io_status::kInvalidField));
}

TEST_F(ReservationTest, AcquireRules) {
  EXPECT_TRUE(acquire(kA, kKeyA, 1).is(io_status::kReservationConflict));  // not registered
  all_three();
  EXPECT_TRUE(acquire(kA, kKeyB, 1).is(io_status::kReservationConflict));
  EXPECT_TRUE(acquire(kA, kKeyA, 0).is(io_status::kInvalidField));
  EXPECT_TRUE(acquire(kA, kKeyA, 7).is(io_status::kInvalidField));
  EXPECT_TRUE(state.acquire(kA, {kKeyA, 0}, Acquire::kAcquire, true, 1)
                  .is(io_status::kInvalidField));  // IEKEY
  EXPECT_TRUE(acquire(kA, kKeyA, 2).ok());
  EXPECT_TRUE(acquire(kA, kKeyA, 2).ok());
  EXPECT_TRUE(acquire(kA, kKeyA, 1).is(io_status::kReservationConflict));
  EXPECT_TRUE(acquire(kB, kKeyB, 2).is(io_status::kReservationConflict));
  EXPECT_EQ(state.generation(), 2U);
}

TEST_F(ReservationTest, PreemptTakesTheReservationAndTheRegistration) {
  all_three();
  ASSERT_TRUE(acquire(kA, kKeyA, 2).ok());
  EXPECT_TRUE(preempt(kB, kKeyB, 0, 2).is(io_status::kInvalidField));
  EXPECT_TRUE(preempt(kB, kKeyB, 0x77, 2).is(io_status::kReservationConflict));
  EXPECT_TRUE(preempt(kB, kKeyB, kKeyA, 2).ok());
  EXPECT_EQ(state.find(kA), nullptr);
  EXPECT_TRUE(state.is_holder(kB));
  EXPECT_EQ(state.denied(kA), kBoth);
  EXPECT_EQ(state.generation(), 3U);
  EXPECT_EQ(events(kA, kNoticeRegistrationPreempted), 1U);
}

TEST_F(ReservationTest, PreemptOfAnotherRegistrantLeavesTheHolder) {
  all_three();
  ASSERT_TRUE(add(kC, kKeyC).ok());
  ASSERT_TRUE(acquire(kA, kKeyA, 1).ok());
  EXPECT_TRUE(preempt(kB, kKeyB, kKeyC, 1).ok());
  EXPECT_EQ(state.find(kC), nullptr);
  EXPECT_TRUE(state.is_holder(kA));
}

TEST_F(ReservationTest, PreemptOfOneselfChangesTheType) {
  all_three();
  ASSERT_TRUE(acquire(kA, kKeyA, 2).ok());
  EXPECT_TRUE(preempt(kA, kKeyA, kKeyA, 3).ok());
  EXPECT_EQ(state.type(), ReservationType::kWriteExclusiveRegistrantsOnly);
  EXPECT_TRUE(state.is_holder(kA));
  EXPECT_EQ(events(kB, kNoticeReservationReleased), 1U);
}

TEST_F(ReservationTest, PreemptWithoutAHolderOnlyRemoves) {
  all_three();
  EXPECT_TRUE(preempt(kA, kKeyA, kKeyB, 1).ok());
  EXPECT_EQ(state.find(kB), nullptr);
  EXPECT_EQ(state.type(), ReservationType::kNone);
}

TEST_F(ReservationTest, PreemptUnderAllRegistrants) {
  all_three();
  ASSERT_TRUE(add(kC, kKeyC).ok());
  ASSERT_TRUE(acquire(kA, kKeyA, 5).ok());
  EXPECT_TRUE(preempt(kB, kKeyB, 0x99, 5).is(io_status::kReservationConflict));
  EXPECT_TRUE(preempt(kB, kKeyB, kKeyC, 5).ok());
  EXPECT_EQ(state.registrants().size(), 2U);
  EXPECT_TRUE(preempt(kB, kKeyB, 0, 6).ok());  // all others
  EXPECT_EQ(state.registrants().size(), 1U);
  EXPECT_EQ(state.type(), ReservationType::kExclusiveAccessAllRegistrants);
  EXPECT_TRUE(state.is_holder(kB));
}

TEST_F(ReservationTest, ReleaseRules) {
  all_three();
  const auto release = [&](const HostId& who, uint64_t key, uint8_t type) {
    return state.release(who, {key}, Release::kRelease, false, type);
  };
  EXPECT_TRUE(release(kA, kKeyA, 1).ok());  // nothing held
  ASSERT_TRUE(acquire(kA, kKeyA, 3).ok());
  EXPECT_TRUE(release(kC, kKeyC, 3).is(io_status::kReservationConflict));
  EXPECT_TRUE(release(kB, kKeyB, 3).ok());  // not the holder: no effect
  EXPECT_TRUE(state.is_holder(kA));
  EXPECT_TRUE(release(kA, kKeyA, 1).is(io_status::kInvalidField));
  EXPECT_TRUE(release(kA, kKeyA, 3).ok());
  EXPECT_EQ(state.type(), ReservationType::kNone);
  EXPECT_EQ(events(kB, kNoticeReservationReleased), 1U);
  ASSERT_TRUE(acquire(kA, kKeyA, 1).ok());
  EXPECT_TRUE(state.release(kB, {kKeyB}, Release::kClear, false, 0).ok());
  EXPECT_TRUE(state.registrants().empty());
  EXPECT_EQ(state.type(), ReservationType::kNone);
  EXPECT_EQ(events(kA, kNoticeReservationPreempted), 1U);
}

TEST_F(ReservationTest, UnregisteringTheHolderReleases) {
  all_three();
  ASSERT_TRUE(acquire(kA, kKeyA, 4).ok());
  EXPECT_TRUE(unregister(kA, kKeyA).ok());
  EXPECT_EQ(state.type(), ReservationType::kNone);
  EXPECT_EQ(events(kB, kNoticeReservationReleased), 1U);
  ASSERT_TRUE(add(kA, kKeyA).ok());
  ASSERT_TRUE(acquire(kA, kKeyA, 6).ok());
  EXPECT_TRUE(unregister(kA, kKeyA).ok());  // others still hold it
  EXPECT_EQ(state.type(), ReservationType::kExclusiveAccessAllRegistrants);
  EXPECT_TRUE(unregister(kB, kKeyB).ok());
  EXPECT_EQ(state.type(), ReservationType::kNone);
}

TEST_F(ReservationTest, ReportListsEveryRegistrant) {
  all_three();
  ASSERT_TRUE(acquire(kB, kKeyB, 1).ok());
  const std::vector<uint8_t> report = state.report(true);
  ASSERT_EQ(report.size(), 64U + 2 * 64);
  EXPECT_EQ(report[0], 2);  // generation
  EXPECT_EQ(report[4], 1);  // type
  EXPECT_EQ(report[5], 2);  // registrants
  EXPECT_EQ(report[64 + 2], 0);
  EXPECT_EQ(report[64 + 8], kKeyA);
  EXPECT_EQ(report[64 + 16], 1);
  EXPECT_EQ(report[128], 0xFF);
  EXPECT_EQ(report[128 + 2], 1);
  EXPECT_EQ(report[128 + 8], kKeyB);
  EXPECT_EQ(state.report(false).size(), 24U + 2 * 24);
}

TEST_F(ReservationTest, PersistenceIsARequestOfTheRegistrant) {
  EXPECT_TRUE(state.register_key(kA, {0, 1}, Register::kRegister, false, 3, false)
                  .is(io_status::kInvalidField));  // no place to persist
  EXPECT_TRUE(state.register_key(kA, {0, 1}, Register::kRegister, false, 1, true)
                  .is(io_status::kInvalidField));  // reserved
  EXPECT_TRUE(add(kA, kKeyA, 3).ok());
  EXPECT_TRUE(state.persists());
  EXPECT_TRUE(add(kB, kKeyB, 0).ok());
  EXPECT_TRUE(state.persists());
  EXPECT_TRUE(add(kB, kKeyB, 2).ok());
  EXPECT_FALSE(state.persists());
}

TEST_F(ReservationTest, TextKeepsTheState) {
  const Uuid uuid = Uuid::from_name("bdev");
  all_three();
  ASSERT_TRUE(add(kC, 0xFFFFFFFFFFFFFFFF, 3).ok());
  for (const uint8_t type : {uint8_t{1}, uint8_t{6}}) {
    if (type == 6) {
      ASSERT_TRUE(state.release(kA, {kKeyA}, Release::kRelease, false, 1).ok());
    }
    ASSERT_TRUE(acquire(kA, kKeyA, type).ok());
    const auto loaded = ReservationState::from_json(state.to_json(uuid), uuid);
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    EXPECT_EQ(loaded.value().type(), state.type());
    EXPECT_TRUE(loaded.value().persists());
    EXPECT_EQ(loaded.value().registrants().size(), 3U);
    EXPECT_EQ(loaded.value().find(kC)->key, 0xFFFFFFFFFFFFFFFF);
    for (const HostId& who : {kA, kB, kC}) {
      EXPECT_EQ(loaded.value().is_holder(who), state.is_holder(who));
      EXPECT_EQ(loaded.value().denied(who), state.denied(who));
    }
  }
}

TEST_F(ReservationTest, BadTextIsRefused) {
  const Uuid uuid = Uuid::from_name("bdev");
  all_three();
  ASSERT_TRUE(add(kC, kKeyC, 3).ok());
  ASSERT_TRUE(acquire(kA, kKeyA, 1).ok());
  const std::string good = state.to_json(uuid);
  EXPECT_EQ(ReservationState::from_json(good, Uuid::from_name("other")).error().code,
            ErrorCode::kFailedPrecondition);
  for (size_t length = 0; length + 2 < good.size(); ++length) {
    EXPECT_FALSE(ReservationState::from_json(good.substr(0, length), uuid).ok()) << length;
  }
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return ReservationState::from_json(text, uuid).ok();
  };
  EXPECT_TRUE(replaced("\"crkey\": 10", "\"crkey\": 11"));
  EXPECT_FALSE(replaced("\"rtype\": 1", "\"rtype\": 7"));
  EXPECT_FALSE(replaced("\"rkey\": 10", "\"rkey\": 0"));
  EXPECT_FALSE(replaced("\"rtype\"", "\"other\""));
  EXPECT_FALSE(replaced("01010101-", "09090909-"));  // the holder is nobody
}

}  // namespace
}  // namespace mayastor::nvmf::target

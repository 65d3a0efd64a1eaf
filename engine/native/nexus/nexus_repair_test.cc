// Places that a child cannot read: served from others, mended where writing helps, and what becomes
// of the child where it does not.
#include <gtest/gtest.h>

#include "nexus/rebuild.h"
#include "nexus/test_rig.h"

namespace mayastor::nexus {
namespace {

// A bad place on the medium, in nexus offsets: reads of it fail.
FaultRule bad_place(uint64_t offset, uint64_t length = 4096) {
  FaultRule rule = fail_reads(io_status::kUnrecoveredRead);
  rule.offset = kDataOffsetBytes + offset;
  rule.length = length;
  return rule;
}
FaultRule bad_write(uint64_t offset, uint64_t length = 4096) {
  FaultRule rule = fail_writes(io_status::kWriteFault);
  rule.offset = kDataOffsetBytes + offset;
  rule.length = length;
  return rule;
}

struct Three : NexusRig {
  explicit Three(uint32_t reactors = 1) : NexusRig(1, reactors) {
    a = add_device("a");
    b = add_device("b");
    c = add_device("c");
    create({"a", "b", "c"});
    CHECK(write(0, 256 * 1024, 0x77).ok());
  }
  // Often enough that each child is asked.
  void read_all_round(uint64_t offset, uint64_t length, uint8_t fill) {
    for (int i = 0; i < 6; ++i) EXPECT_TRUE(holds(offset, length, fill));
  }
  std::shared_ptr<FaultBdev> a, b, c;
};

TEST(NexusRepair, APlaceThatAWriteMendsCostsTheChildNothing) {
  Three rig(2);
  FaultRule once = bad_place(8192);
  once.count = 2;  // to the host, and to the repair; then the disk has put it elsewhere
  rig.a->add_rule(once);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(rig.holds(0, 65536, 0x77));
    rig.sim.run_for(10 * kMs);
  }
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("a").repaired == 1; }));
  EXPECT_EQ(rig.child("a").state, ChildState::kOnline);
  EXPECT_EQ(rig.child("a").unrepaired, 0u);
  EXPECT_EQ(rig.nexus->state(), NexusState::kOnline);
  EXPECT_TRUE(rig.identical("a", "b"));
}

TEST(NexusRepair, OfThreeChildrenOneThatWritingDoesNotMendIsFaulted) {
  for (const bool writes_fail : {false, true}) {
    Three rig;
    rig.a->add_rule(bad_place(8192));
    if (writes_fail) rig.a->add_rule(bad_write(8192));
    rig.read_all_round(0, 65536, 0x77);
    ASSERT_TRUE(rig.wait_for([&] { return rig.child("a").state == ChildState::kFaulted; }));
    EXPECT_EQ(rig.child("a").reason, ChildStateReason::kIoFailure);
    EXPECT_EQ(rig.store.last(), rig.record({{"a", false}, {"b", true}, {"c", true}}, false));
    rig.read_all_round(0, 65536, 0x77);
  }
}

TEST(NexusRepair, EveryChildBadAtAnotherPlaceLosesNothing) {
  Three rig;
  rig.a->add_rule(bad_place(0));
  rig.b->add_rule(bad_place(65536));
  rig.c->add_rule(bad_place(131072));
  for (int round = 0; round < 3; ++round) {
    rig.read_all_round(0, 4096, 0x77);
    rig.read_all_round(65536, 4096, 0x77);
    rig.read_all_round(131072, 4096, 0x77);
    rig.sim.run_for(100 * kMs);
  }
  // One may go, since two others have all it has; of those neither can spare the other.
  int online = 0;
  for (const char* name : {"a", "b", "c"}) {
    online += rig.child(name).state == ChildState::kOnline ? 1 : 0;
  }
  EXPECT_EQ(online, 2);
  EXPECT_EQ(rig.nexus->state(), NexusState::kDegraded);
}

TEST(NexusRepair, TwoBadBlocksOfOneRequestOnTwoChildrenAreReadFromTheOther) {
  NexusRig rig;
  auto a = rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  ASSERT_TRUE(rig.write(0, 65536, 0x55).ok());
  a->add_rule(bad_place(4096));
  b->add_rule(bad_place(32768));
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(rig.holds(0, 65536, 0x55));
  rig.sim.run_for(100 * kMs);
  EXPECT_EQ(rig.nexus->state(), NexusState::kOnline);
  EXPECT_EQ(rig.child("a").unrepaired, 1u);
  // What neither can read is an error to the host, and costs nobody its place.
  b->add_rule(bad_place(4096));
  EXPECT_TRUE(
      rig.finish(rig.start(IoType::kRead, 4096, 4096))->status.is(io_status::kUnrecoveredRead));
  rig.sim.run_for(100 * kMs);
  EXPECT_EQ(rig.nexus->state(), NexusState::kOnline);
  EXPECT_TRUE(rig.write(4096, 4096, 0x66).ok());
}

TEST(NexusRepair, AnUnmendedPlaceIsTriedOnceNotAtEachRead) {
  NexusRig rig;
  auto a = rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  ASSERT_TRUE(rig.write(0, 65536, 0x55).ok());
  a->add_rule(bad_place(4096));
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(rig.holds(4096, 4096, 0x55));
  rig.sim.run_for(100 * kMs);
  const uint64_t writes = a->stats().write_ops;
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(rig.holds(4096, 4096, 0x55));
  rig.sim.run_for(100 * kMs);
  EXPECT_EQ(a->stats().write_ops, writes);
  EXPECT_EQ(rig.child("a").unrepaired, 1u);
}

TEST(NexusRepair, ADiskWithTooManyBadPlacesIsFaultedThoughOnlyOneOtherIsLeft) {
  NexusRig rig;
  auto a = rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  ASSERT_TRUE(rig.write(0, 1 << 20, 0x55).ok());
  a->add_rule(bad_place(0, 8 * kMiB));
  for (uint64_t at = 0; at < (1 << 20) && rig.child("a").state == ChildState::kOnline; at += 4096) {
    EXPECT_TRUE(rig.holds(at, 4096, 0x55));
    EXPECT_TRUE(rig.holds(at, 4096, 0x55));
    rig.sim.run_for(kMs);
  }
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("a").state == ChildState::kFaulted; }));
  EXPECT_EQ(rig.store.last(), rig.record({{"a", false}, {"b", true}}, false));
}

TEST(NexusRepair, WritesOfTheHostAndTheRepairOfTheirPlaceNeverMix) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    NexusRig rig(seed, 2);
    auto a = rig.add_device("a");
    auto b = rig.add_device("b");
    rig.create({"a", "b"});
    ASSERT_TRUE(rig.write(0, 65536, 1).ok());
    FaultRule once = bad_place(4096);
    once.count = 2;
    a->add_rule(once);
    b->add_rule(slow(seed * 100'000));
    rig.start(IoType::kRead, 4096, 4096, 0, 0);
    rig.start(IoType::kRead, 4096, 4096, 0, 1);
    for (uint8_t fill = 2; fill < 12; ++fill) {
      rig.start(IoType::kWrite, 4096, 4096, fill, fill % 2);
      rig.sim.run_for(seed * 37'000);
    }
    for (const auto& request : std::deque(rig.requests)) rig.finish(request);
    rig.sim.run_for(100 * kMs);
    EXPECT_TRUE(rig.identical("a", "b")) << "seed " << seed;
  }
}

TEST(NexusRepair, TheSourceOfARebuildMayBeBadWhereAnotherIsGood) {
  NexusRig rig;
  auto a = rig.add_device("a");
  auto b = rig.add_device("b");
  rig.add_device("c");
  rig.create({"a", "b"});
  ASSERT_TRUE(rig.write(0, 1 << 20, 0x55).ok());
  a->add_rule(bad_place(8192));
  b->add_rule(bad_place(40960));  // of the same segment
  ASSERT_TRUE(rig.sim.run(rig.nexus->add_child(rig.uri_of("c"), false)).ok());
  ASSERT_TRUE(rig.wait_online("c"));
  EXPECT_TRUE(rig.device_holds("c", 0, 1 << 20, 0x55));
}

TEST(NexusRepair, ARebuildTellsWhoseDiskIsBad) {
  NexusRig rig;
  auto a = rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a"});
  ASSERT_TRUE(rig.write(0, 1 << 20, 0x55).ok());
  b->add_rule(bad_write(8192));
  ASSERT_TRUE(rig.sim.run(rig.nexus->add_child(rig.uri_of("b"), false)).ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("b").state == ChildState::kFaulted; }));
  EXPECT_EQ(rig.child("b").reason, ChildStateReason::kIoFailure);
  b->clear_rules();
  a->add_rule(bad_place(8192));
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(rig.uri_of("b"), ChildAction::kOnline)).ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("b").state == ChildState::kFaulted; }));
  EXPECT_EQ(rig.child("b").reason, ChildStateReason::kRebuildFailed);
  EXPECT_EQ(rig.child("a").state, ChildState::kOnline);
}

TEST(NexusRepair, ANexusThatEndsMeanwhileWaitsForItsRepairs) {
  for (uint64_t at = 0; at < 40; ++at) {
    NexusRig rig(at, 2);
    auto a = rig.add_device("a");
    auto b = rig.add_device("b");
    rig.create({"a", "b"});
    ASSERT_TRUE(rig.write(0, 65536, 1).ok());
    a->add_rule(bad_place(4096));
    b->add_rule(slow(kMs));
    rig.start(IoType::kRead, 4096, 4096, 0, 0);
    rig.start(IoType::kRead, 4096, 4096, 0, 1);
    rig.sim.run_for(at * 100'000);
    EXPECT_TRUE(rig.sim.run(rig.nexus->shutdown()).ok());
  }
}

}  // namespace
}  // namespace mayastor::nexus

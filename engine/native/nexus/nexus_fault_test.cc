// Faults: what is acknowledged when, what is recorded, what the host sees.
#include "nexus/test_rig.h"

namespace mayastor::nexus {
namespace {

TEST(NexusFault, WriteIsAcknowledgedOnlyOnceTheFaultIsRecorded) {
  NexusRig rig;
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  b->add_rule(fail_writes(io_status::kWriteFault));
  rig.store.down = true;
  auto missed = rig.start(IoType::kWrite, 4096, 4096, 0x11);
  rig.sim.run_for(20'000 * kMs);  // the store is away for 20 s
  EXPECT_FALSE(missed->done);
  EXPECT_EQ(rig.store.started, 2u);
  EXPECT_EQ(rig.child("b").state, ChildState::kUnknown);  // still being worked off
  auto later = rig.start(IoType::kWrite, 8192, 4096, 0x22);
  EXPECT_TRUE(rig.holds(0, 4096, 0));  // reads go on
  rig.sim.run_for(1000 * kMs);
  EXPECT_FALSE(later->done);  // it misses the child too
  rig.store.down = false;
  EXPECT_TRUE(rig.finish(missed)->status.ok());
  EXPECT_TRUE(rig.finish(later)->status.ok());
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", false}}, false));
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("b").state == ChildState::kFaulted; }));
  const ChildInfo child = rig.child("b");
  EXPECT_EQ(child.reason, ChildStateReason::kIoFailure);
  EXPECT_TRUE(child.has_io_log);
  EXPECT_TRUE(child.fault_time_ns.has_value());
  EXPECT_FALSE(child.device_name.has_value());
  EXPECT_EQ(rig.nexus->state(), NexusState::kDegraded);
  EXPECT_EQ(rig.registry.claimed_by("b"), "");
  EXPECT_TRUE(rig.write(0, 512, 1).ok());
}

TEST(NexusFault, NexusShutsItselfDownWhenTheFaultCannotBeRecorded) {
  NexusRig rig(1, 2);
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  b->add_rule(fail_writes(io_status::kWriteFault));
  rig.store.broken = true;
  auto first = rig.start(IoType::kWrite, 0, 4096, 1, 0);
  auto second = rig.start(IoType::kWrite, 8192, 4096, 2, 1);
  EXPECT_FALSE(rig.finish(first)->status.ok());
  EXPECT_FALSE(rig.finish(second)->status.ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.nexus->state() == NexusState::kShutdown; }));
  EXPECT_FALSE(rig.write(0, 512, 3).ok());
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", true}}, false));  // as before
  EXPECT_EQ(rig.registry.claimed_by("a"), "");
  rig.store.broken = false;
  EXPECT_TRUE(rig.sim.run(rig.nexus->shutdown()).ok());  // it is down already
}

// Its successor holds "a" or "b" and judges by the record that it fenced.
TEST(NexusFault, NexusWhoseRecordIsFencedAcknowledgesNothingThatAChildMissed) {
  NexusRig rig(1, 2);
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  rig.store.foreign_write("fenced");
  EXPECT_TRUE(rig.write(0, 512, 1).ok());  // every child has it
  const auto id = b->add_rule(fail_writes(io_status::kWriteFault));
  EXPECT_FALSE(rig.write(0, 4096, 2).ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.nexus->state() == NexusState::kShutdown; }));
  EXPECT_FALSE(rig.write(0, 512, 3).ok());
  const uint64_t started = rig.store.started;
  rig.close();  // its end asks the store for nothing more
  EXPECT_EQ(rig.store.started, started);
  EXPECT_EQ(rig.store.last(), "fenced");
  b->remove_rule(id);
  rig.create({"a", "b"});  // made again: its first record overwrites, later ones follow on it
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", true}}, false));
  b->add_rule(fail_writes(io_status::kWriteFault));
  EXPECT_TRUE(rig.write(0, 4096, 4).ok());
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", false}}, false));
}

TEST(NexusFault, NexusWhoseRecordIsFencedEndsWithoutTouchingIt) {
  NexusRig rig;
  rig.add_device("a");
  rig.create({"a"});
  rig.store.foreign_write("fenced");
  EXPECT_TRUE(rig.sim.run(rig.nexus->shutdown()).ok());
  EXPECT_EQ(rig.nexus->state(), NexusState::kShutdown);
  EXPECT_EQ(rig.store.last(), "fenced");
}

TEST(NexusFault, LastHealthyChildIsNeverFaultedByIo) {
  NexusRig rig;
  auto a = rig.add_device("a");
  rig.create({"a"});
  const auto id = a->add_rule(fail_writes(io_status::kWriteFault));
  EXPECT_TRUE(rig.write(0, 4096, 1).is(io_status::kWriteFault));
  EXPECT_TRUE(rig.write(0, 4096, 1).is(io_status::kWriteFault));
  a->add_rule(fail_reads(io_status::kUnrecoveredRead, 1));
  EXPECT_TRUE(rig.finish(rig.start(IoType::kRead, 0, 512))->status.is(io_status::kUnrecoveredRead));
  EXPECT_EQ(rig.child("a").state, ChildState::kOnline);
  EXPECT_EQ(rig.nexus->state(), NexusState::kOnline);
  EXPECT_EQ(rig.store.history.size(), 1u);
  a->remove_rule(id);
  EXPECT_TRUE(rig.write(0, 4096, 2).ok());
}

// The failure is reported, and judged, before the write is back from the slower child.
TEST(NexusFault, WriteRefusedByTheLastHealthyChildEndsHoweverSlowTheOthers) {
  NexusRig rig;
  auto a = rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a"});
  ASSERT_TRUE(rig.sim.run(rig.nexus->add_child(rig.uri_of("b"), true)).ok());
  b->add_rule(slow(10 * kMs));
  a->add_rule(fail_writes(io_status::kWriteFault, 1));
  auto refused = rig.start(IoType::kWrite, 0, 4096, 1);
  ASSERT_TRUE(rig.wait_for([&] { return refused->done; }, 1000 * kMs));
  EXPECT_TRUE(refused->status.is(io_status::kWriteFault));
}

TEST(NexusFault, AllChildrenFailingLeavesOneAndTheHostGetsTheError) {
  NexusRig rig(1, 2);
  auto a = rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  a->add_rule(fail_writes(io_status::kWriteFault, 1));
  b->add_rule(fail_writes(io_status::kWriteFault, 1));
  EXPECT_FALSE(rig.write(0, 4096, 1, 1).ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.nexus->state() == NexusState::kDegraded; }));
  const bool a_left = rig.child("a").state == ChildState::kOnline;
  EXPECT_EQ(rig.child("b").state == ChildState::kOnline, !a_left);
  EXPECT_TRUE(rig.write(0, 4096, 2, 1).ok());
}

// The failed write is on one child only; the rebuild must even that out.
TEST(NexusFault, WriteThatFailedOnTheLastHealthyChildIsEvenedOutLater) {
  NexusRig rig;
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  auto a_front = find_fault_bdev(rig.registry, "a");
  ASSERT_TRUE(rig.write(0, 8192, 1).ok());
  a_front->add_rule(fail_writes(io_status::kWriteFault, 1));
  b->add_rule(slow(5 * kMs));
  auto w1 = rig.start(IoType::kWrite, 0, 4096, 2);  // a fails; b has it
  FaultRule second = fail_writes(io_status::kWriteFault, 1);
  second.offset = kDataOffsetBytes + 2 * kSegmentBytes;
  b->clear_rules();
  b->add_rule(second);
  auto w2 = rig.start(IoType::kWrite, 2 * kSegmentBytes, 4096, 3);  // in flight before the fault
  EXPECT_TRUE(rig.finish(w1)->status.ok());
  rig.finish(w2);
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("a").state == ChildState::kFaulted; }));
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(rig.uri_of("a"), ChildAction::kOnline)).ok());
  ASSERT_TRUE(rig.wait_online("a"));
  EXPECT_TRUE(rig.identical("a", "b"));
}

TEST(NexusFault, PathErrorOfAReadIsRetriedElsewhereAndFaultsTheChild) {
  NexusRig rig;
  auto a = rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  ASSERT_TRUE(rig.write(0, 4096, 0x77).ok());
  a->add_rule(fail_reads(io_status::kHostPathError));
  EXPECT_TRUE(rig.holds(0, 4096, 0x77));
  EXPECT_TRUE(rig.holds(0, 4096, 0x77));
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("a").state == ChildState::kFaulted; }));
  EXPECT_EQ(rig.child("a").reason, ChildStateReason::kTimedOut);  // nothing is said of its medium
  EXPECT_EQ(rig.store.last(), rig.record({{"a", false}, {"b", true}}, false));
}

TEST(NexusFault, NoSpaceHasItsOwnReason) {
  NexusRig rig;
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  b->add_rule(fail_writes(io_status::kNoSpace));
  EXPECT_TRUE(rig.write(0, 4096, 1).ok());
  ASSERT_TRUE(rig.wait_for([&] { return !rig.child("b").device_name.has_value(); }));
  EXPECT_EQ(rig.child("b").state, ChildState::kDegraded);
  EXPECT_EQ(rig.child("b").reason, ChildStateReason::kNoSpace);
}

TEST(NexusFault, SecondFaultWhileTheFirstIsBeingRecorded) {
  NexusRig rig(1, 3);
  rig.add_device("a");
  auto b = rig.add_device("b");
  auto c = rig.add_device("c");
  rig.create({"a", "b", "c"});
  rig.store.down = true;
  b->add_rule(fail_writes(io_status::kWriteFault));
  auto first = rig.start(IoType::kWrite, 0, 4096, 1, 0);
  rig.sim.run_for(100 * kMs);
  c->add_rule(fail_writes(io_status::kWriteFault));
  auto second = rig.start(IoType::kWrite, 4096, 4096, 2, 1);
  auto third = rig.start(IoType::kWrite, 8192, 4096, 3, 2);
  rig.sim.run_for(100 * kMs);
  EXPECT_FALSE(first->done || second->done || third->done);
  rig.store.down = false;
  for (const auto& request : {first, second, third}) {
    EXPECT_TRUE(rig.finish(request)->status.ok());
  }
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", false}, {"c", false}}, false));
  // The record never lost both at once, and never the survivor.
  for (const auto& json : rig.store.history) EXPECT_NE(json.find("\"healthy\":true"), json.npos);
}

// A child that is not in sync is let go in the turn in which its device's removal is heard of. A
// request that failed just before is still being told to the home reactor, and another fails then.
TEST(NexusFault, FailureIsToldWhileAnEarlierOneOfTheSameChildIsUnderWay) {
  NexusRig rig;
  rig.add_device("a");
  const std::string memory_uri =
      "malloc:///mem-b?size_mb=16&blk_size=512&uuid=" + NexusRig::uuid_of("b");
  auto memory = rig.sim.run(rig.registry.create(memory_uri));
  ASSERT_TRUE(memory.ok());
  auto inner = FaultBdev::create("inner-b", memory.take());
  auto outer = FaultBdev::create("b", inner);
  ASSERT_TRUE(rig.registry.add(outer).ok());
  rig.create({"a"});
  ASSERT_TRUE(rig.sim.run(rig.nexus->add_child(rig.uri_of("b"), true)).ok());
  FaultRule rule = fail_writes(io_status::kWriteFault);
  rule.hold = true;
  inner->add_rule(rule);
  rule.length = kDataOffsetBytes + 4096;
  outer->add_rule(rule);
  auto first = rig.start(IoType::kWrite, 0, 4096, 1);
  auto second = rig.start(IoType::kWrite, 8192, 4096, 2);
  ASSERT_TRUE(rig.wait_for([&] { return outer->held_count() + inner->held_count() == 2; }));
  {
    Reactor& home = rig.sim.reactor(0);
    const Reactor::Scope scope(home);
    outer->remove_device(io_status::kWriteFault);
    home.post([&] { inner->release_held(); });
    outer->release_held();
  }
  EXPECT_TRUE(rig.finish(first)->status.ok());
  EXPECT_TRUE(rig.finish(second)->status.ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("b").state == ChildState::kFaulted; }));
  EXPECT_TRUE(rig.write(0, 4096, 3).ok());
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", false}}, false));
}

TEST(NexusFault, FailureAtSubmissionIsHandledLikeAnyOther) {
  NexusRig rig;
  auto a = rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  a->add_rule(fail_writes(io_status::kInternalError));  // answers from inside submit()
  for (uint64_t i = 0; i < 8; ++i) rig.start(IoType::kWrite, i * 4096, 4096, 5);
  for (const auto& request : rig.requests) EXPECT_TRUE(rig.finish(request)->status.ok());
  EXPECT_TRUE(rig.device_holds("b", 0, 8 * 4096, 5));
}

TEST(NexusFault, WriteInFlightAtTheFaultIsLogged) {
  NexusRig rig;
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  rig.faulty_held.push_back(b);
  b->add_rule(hold_writes());
  auto held = rig.start(IoType::kWrite, 3 * kSegmentBytes, 4096, 0x33);  // b does not answer
  rig.sim.run_for(kMs);
  std::optional<Result<void>> faulted;
  const auto offline = [&]() -> Task<void> {
    const std::string uri = rig.uri_of("b");
    faulted = co_await rig.nexus->child_operation(uri, ChildAction::kOffline);
  };
  spawn(offline());
  rig.sim.run_for(100 * kMs);
  EXPECT_FALSE(held->done);  // b still uses its buffer
  b->clear_rules();
  // b answers with an error now: the outcome there is unknown.
  b->remove_device(io_status::kAborted);
  b->release_held();
  EXPECT_TRUE(rig.finish(held)->status.ok());
  ASSERT_TRUE(rig.wait_for([&] { return faulted.has_value(); }));
  EXPECT_TRUE(faulted->ok());
  rig.put_in_front("b");
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(rig.uri_of("b"), ChildAction::kOnline)).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_TRUE(rig.identical("a", "b"));
}

TEST(NexusFault, ReservationConflictShutsTheNexusDownWithoutFaulting) {
  NexusRig rig(1, 2);
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  b->add_rule(fail_writes(io_status::kReservationConflict));
  EXPECT_FALSE(rig.write(0, 4096, 1, 1).ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.nexus->state() == NexusState::kShutdown; }));
  EXPECT_EQ(rig.store.history.size(), 1u);  // nothing recorded by the fenced one
  EXPECT_FALSE(rig.finish(rig.start(IoType::kRead, 0, 512))->status.ok());
}

TEST(NexusFault, InvalidOpcodeByAllIsTheHostsAffair) {
  NexusRig rig;
  auto a = rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  for (auto& device : {a, b}) device->add_rule(fail_writes(io_status::kInvalidOpcode, 1));
  EXPECT_TRUE(rig.finish(rig.start(IoType::kUnmap, 0, 4096))->status.is(io_status::kInvalidOpcode));
  EXPECT_EQ(rig.nexus->state(), NexusState::kOnline);
  // By one of two, they would differ from here on.
  b->add_rule(fail_writes(io_status::kInvalidOpcode, 1));
  EXPECT_TRUE(rig.finish(rig.start(IoType::kUnmap, 0, 4096))->status.ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("b").state == ChildState::kFaulted; }));
}

TEST(NexusFault, VanishedDeviceIsFaultedWithoutIo) {
  NexusRig rig;
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  b->remove_device(io_status::kHostPathError);
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("b").state == ChildState::kFaulted; }));
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", false}}, false));
}

TEST(NexusFault, LastDeviceVanishingKeepsItsRecordAndComesBackWithoutRebuild) {
  NexusRig rig(1, 2);
  auto a = rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(rig.uri_of("b"), ChildAction::kOffline)).ok());
  ASSERT_TRUE(rig.write(0, 4096, 1).ok());
  a->remove_device(io_status::kHostPathError);
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("a").state == ChildState::kFaulted; }));
  EXPECT_EQ(rig.nexus->state(), NexusState::kFaulted);
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", false}}, false));
  EXPECT_TRUE(rig.write(0, 4096, 2, 1).is(io_status::kInternalPathError));
  // b has no source to come back from.
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(rig.uri_of("b"), ChildAction::kOnline)).ok());
  ASSERT_TRUE(
      rig.wait_for([&] { return rig.child("b").reason == ChildStateReason::kRebuildFailed; }));
  rig.put_in_front("a");
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(rig.uri_of("a"), ChildAction::kOnline)).ok());
  EXPECT_EQ(rig.nexus->state(), NexusState::kDegraded);
  EXPECT_TRUE(rig.holds(0, 4096, 1));
  EXPECT_TRUE(rig.write(0, 4096, 3, 1).ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("b").state == ChildState::kFaulted; }));
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(rig.uri_of("b"), ChildAction::kOnline)).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_TRUE(rig.identical("a", "b"));
}

// A child is connected core by core: its first write may fail on one before the last is ready.
TEST(NexusFault, AFailureWhileAChildIsBeingConnectedIsNotForgotten) {
  NexusRig rig(1, 2);
  rig.add_device("a");
  const auto b = rig.add_device("b");
  rig.create({"a", "b"});
  const std::string uri = rig.uri_of("b");
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(uri, ChildAction::kOffline)).ok());
  b->add_rule(fail_writes(io_status::kWriteFault, 1));
  std::optional<bool> onlined;
  spawn([](NexusRig* on, std::string child, std::optional<bool>* result) -> Task<void> {
    *result = (co_await on->nexus->child_operation(child, ChildAction::kOnline)).ok();
  }(&rig, uri, &onlined));
  ASSERT_FALSE(onlined.has_value());  // the other core's part is on its way
  const auto early = rig.start(IoType::kWrite, 0, 4096, 0x11, 0);
  ASSERT_EQ(b->hit_count(), 1u);
  ASSERT_TRUE(rig.wait_for([&] { return onlined.has_value() && early->done; }));
  EXPECT_TRUE(early->status.ok());
  EXPECT_FALSE(*onlined);
  EXPECT_EQ(rig.registry.claimed_by("b"), "");
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(uri, ChildAction::kOnline)).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_TRUE(rig.identical("a", "b"));
  b->add_rule(fail_writes(io_status::kWriteFault, 1));
  const auto later = rig.start(IoType::kWrite, 0, 4096, 0x22, 0);
  ASSERT_TRUE(rig.wait_for([&] { return later->done; }));  // its failure is news again
  EXPECT_TRUE(later->status.ok());
}

TEST(NexusFault, ClientFaultsFollowTheRules) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  const auto operate = [&rig](const char* name, ChildAction action) {
    return rig.sim.run(rig.nexus->child_operation(rig.uri_of(name), action));
  };
  EXPECT_EQ(operate("x", ChildAction::kOffline).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(operate("x", ChildAction::kOnline).error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(operate("b", ChildAction::kOnline).ok());  // is open
  EXPECT_TRUE(operate("b", ChildAction::kOffline).ok());
  EXPECT_EQ(rig.child("b").state, ChildState::kDegraded);
  EXPECT_EQ(rig.child("b").reason, ChildStateReason::kByClient);
  EXPECT_EQ(operate("a", ChildAction::kOffline).error().code, ErrorCode::kFailedPrecondition);
  EXPECT_TRUE(operate("b", ChildAction::kOnline).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_TRUE(operate("b", ChildAction::kFaultIoError).ok());
  EXPECT_EQ(rig.child("b").reason, ChildStateReason::kIoFailure);
  EXPECT_TRUE(rig.sim.run(rig.nexus->fault_child(rig.uri_of("b"))).ok());
  EXPECT_EQ(rig.child("b").state, ChildState::kFaulted);
  EXPECT_EQ(rig.child("b").reason, ChildStateReason::kByClient);
  EXPECT_EQ(operate("b", ChildAction::kOnline).error().code, ErrorCode::kFailedPrecondition);
}

TEST(NexusFault, ShutdownWhileAFaultWaitsForTheStore) {
  NexusRig rig;
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  b->add_rule(fail_writes(io_status::kWriteFault));
  rig.store.down = true;
  auto missed = rig.start(IoType::kWrite, 0, 4096, 1);
  rig.sim.run_for(100 * kMs);
  std::optional<Result<void>> down;
  const auto shut = [&]() -> Task<void> { down = co_await rig.nexus->shutdown(); };
  spawn(shut());
  EXPECT_TRUE(rig.finish(missed)->status.is(io_status::kAnaInaccessible));  // at once
  rig.sim.run_for(100 * kMs);
  EXPECT_FALSE(down.has_value());
  EXPECT_EQ(rig.sim.run(rig.nexus->shutdown()).error().code, ErrorCode::kFailedPrecondition);
  rig.store.down = false;
  ASSERT_TRUE(rig.wait_for([&] { return down.has_value(); }));
  EXPECT_TRUE(down->ok());
  // Clean, but b is not to be trusted: it may lack the write.
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", false}}, true));
}

TEST(NexusFault, WriteCutShortByShutdownDoesNotLeaveTwoDifferentHealthyChildren) {
  NexusRig rig(1, 2);
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  FaultRule late = fail_writes(io_status::kWriteFault);
  late.delay_ns = 20 * kMs;
  b->add_rule(late);
  auto torn = rig.start(IoType::kWrite, 0, 4096, 1, 1);
  ASSERT_TRUE(rig.sim.run(rig.nexus->shutdown()).ok());
  EXPECT_TRUE(torn->done);
  EXPECT_FALSE(torn->status.ok());
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", false}}, true));
}

TEST(NexusFault, FailedFlushMeansAFullRebuild) {
  NexusRig rig;
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  FaultRule rule;
  rule.type = IoType::kFlush;
  rule.status = io_status::kWriteFault;
  b->add_rule(rule);
  EXPECT_TRUE(rig.finish(rig.start(IoType::kFlush, 0, 0))->status.ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("b").state == ChildState::kFaulted; }));
  EXPECT_FALSE(rig.child("b").has_io_log);
  b->clear_rules();
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(rig.uri_of("b"), ChildAction::kOnline)).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_FALSE(rig.nexus->rebuild_history().back().is_partial);
  EXPECT_EQ(rig.nexus->rebuild_history().back().blocks_transferred, 8 * kMiB / 512);
}

}  // namespace
}  // namespace mayastor::nexus

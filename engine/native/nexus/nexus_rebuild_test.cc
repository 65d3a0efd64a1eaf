// Rebuilds: full and partial, under I/O, with failing sources and destinations, and their control.
#include "nexus/test_rig.h"

namespace mayastor::nexus {
namespace {

constexpr uint64_t kBlocks = 8 * kMiB / 512;

// Fills the nexus with a pattern that differs from segment to segment.
void fill(NexusRig& rig) {
  for (uint64_t at = 0; at < rig.nexus->size_bytes(); at += kSegmentBytes) {
    ASSERT_TRUE(
        rig.write(at, kSegmentBytes, static_cast<uint8_t>(1 + at / kSegmentBytes % 250)).ok());
  }
}

Result<void> add(NexusRig& rig, const char* name, bool norebuild = false) {
  return rig.sim.run(rig.nexus->add_child(rig.uri_of(name), norebuild));
}
Result<void> operate(NexusRig& rig, const char* name, ChildAction action) {
  return rig.sim.run(rig.nexus->child_operation(rig.uri_of(name), action));
}

TEST(Rebuild, AddedChildIsFilledFromAHealthyOne) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  rig.create({"a"});
  fill(rig);
  ASSERT_TRUE(add(rig, "b").ok());
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", false}}, false));
  EXPECT_EQ(rig.child("b").state, ChildState::kDegraded);
  EXPECT_EQ(rig.child("b").reason, ChildStateReason::kOutOfSync);
  EXPECT_GE(rig.child("b").rebuild_progress, 0);
  EXPECT_FALSE(rig.child("b").has_io_log);
  EXPECT_EQ(rig.nexus->state(), NexusState::kDegraded);
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_EQ(rig.nexus->state(), NexusState::kOnline);
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", true}}, false));
  EXPECT_TRUE(rig.identical("a", "b"));
  const auto history = rig.nexus->rebuild_history();
  ASSERT_EQ(history.size(), 1u);
  EXPECT_EQ(history[0].state, RebuildState::kCompleted);
  EXPECT_EQ(history[0].child_uri, rig.uri_of("b"));
  EXPECT_EQ(history[0].source_uri, rig.uri_of("a"));
  EXPECT_EQ(history[0].blocks_total, kBlocks);
  EXPECT_EQ(history[0].blocks_transferred, kBlocks);
  EXPECT_EQ(history[0].blocks_remaining, 0u);
  EXPECT_EQ(history[0].blocks_per_task, 128u);
  EXPECT_FALSE(history[0].is_partial);
  EXPECT_EQ(rig.nexus->rebuild_state(rig.uri_of("b")).error().code, ErrorCode::kNotFound);
}

TEST(Rebuild, SizeThatIsNoMultipleOfASegmentIsCopiedWhole) {
  NexusRig rig;
  rig.add_device("a", 9);
  rig.add_device("b", 9);
  rig.create_with(rig.options({"a"}, 9));
  ASSERT_NE(rig.nexus->size_bytes() % kSegmentBytes, 0u);
  ASSERT_TRUE(rig.write(rig.nexus->size_bytes() - 512, 512, 0x5A).ok());
  ASSERT_TRUE(add(rig, "b").ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_TRUE(rig.identical("a", "b"));
}

TEST(Rebuild, AddFollowsTheRules) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  rig.add_device("blocks", 16, 4096);
  rig.add_device("small", 12);
  rig.create({"a"});
  EXPECT_EQ(add(rig, "a").error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(add(rig, "blocks").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(add(rig, "small").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(add(rig, "none").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(rig.nexus->children().size(), 1u);
  EXPECT_EQ(rig.registry.claimed_by("small"), "");
  EXPECT_EQ(rig.store.history.size(), 1u);
  ASSERT_TRUE(add(rig, "b", true).ok());
  rig.sim.run_for(1000 * kMs);
  EXPECT_EQ(rig.child("b").reason, ChildStateReason::kOutOfSync);
  EXPECT_EQ(rig.nexus->rebuild_count(), 0u);
  ASSERT_TRUE(rig.write(0, 4096, 1).ok());  // it gets writes already
  EXPECT_TRUE(rig.device_holds("b", 0, 4096, 1));
  EXPECT_EQ(rig.sim.run(rig.nexus->start_rebuild(rig.uri_of("a"))).error().code,
            ErrorCode::kFailedPrecondition);
  EXPECT_EQ(rig.sim.run(rig.nexus->start_rebuild(rig.uri_of("x"))).error().code,
            ErrorCode::kNotFound);
  ASSERT_TRUE(rig.sim.run(rig.nexus->start_rebuild(rig.uri_of("b"))).ok());
  EXPECT_EQ(rig.sim.run(rig.nexus->start_rebuild(rig.uri_of("b"))).error().code,
            ErrorCode::kAlreadyExists);
  ASSERT_TRUE(rig.wait_online("b"));
}

TEST(Rebuild, ReturningChildOnlyGetsWhatItMissed) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  fill(rig);
  ASSERT_TRUE(operate(rig, "b", ChildAction::kOffline).ok());
  ASSERT_TRUE(rig.write(5 * kSegmentBytes + 512, 512, 0xEE).ok());
  ASSERT_TRUE(rig.write(7 * kSegmentBytes - 512, 1024, 0xEF).ok());  // touches two segments
  ASSERT_TRUE(rig.finish(rig.start(IoType::kUnmap, 20 * kSegmentBytes, 4096))->status.ok());
  EXPECT_TRUE(rig.child("b").has_io_log);
  ASSERT_TRUE(operate(rig, "b", ChildAction::kOnline).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  const auto record = rig.nexus->rebuild_history().back();
  EXPECT_TRUE(record.is_partial);
  EXPECT_EQ(record.blocks_transferred, 4 * kSegmentBytes / 512);
  EXPECT_TRUE(rig.identical("a", "b"));
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", true}}, false));
}

TEST(Rebuild, PartialRebuildCanBeTurnedOff) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  NexusOptions options = rig.options({"a", "b"});
  options.partial_rebuild = false;
  rig.create_with(options);
  ASSERT_TRUE(operate(rig, "b", ChildAction::kOffline).ok());
  EXPECT_FALSE(rig.child("b").has_io_log);
  ASSERT_TRUE(operate(rig, "b", ChildAction::kOnline).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_EQ(rig.nexus->rebuild_history().back().blocks_transferred, kBlocks);
}

// Writes race the copy on every core; the range locks must keep each segment whole.
TEST(Rebuild, ConcurrentWritesOnSeveralCoresAreKept) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    NexusRig rig(seed, 3);
    auto a = rig.add_device("a");
    auto b = rig.add_device("b");
    rig.create({"a"});
    fill(rig);
    SimRandom& random = rig.sim.world().random();
    for (auto& device : {a, b}) {
      for (int i = 0; i < 400; ++i) {
        FaultRule rule = slow(1000 + random.below(kMs));
        rule.count = 1;
        device->add_rule(rule);
      }
    }
    ASSERT_TRUE(add(rig, "b").ok());
    for (int i = 0; i < 300; ++i) {
      const size_t core = random.below(3);
      // Each core has its own blocks: two hosts never race for one.
      const uint64_t block = random.below(kBlocks / 3 - 8) * 3;
      const uint64_t offset = (block / 24 * 24 + core * 8) * 512;
      rig.start(IoType::kWrite, offset, 4096, static_cast<uint8_t>(random.next()), core);
      rig.sim.run_for(random.below(200'000));
    }
    ASSERT_TRUE(rig.wait_online("b"));
    for (const auto& request : rig.requests) {
      ASSERT_TRUE(rig.finish(request)->status.ok());
    }
    ASSERT_TRUE(rig.identical("a", "b")) << "seed " << seed;
  }
}

TEST(Rebuild, PauseResumeStop) {
  NexusRig rig;
  auto a = rig.add_device("a");
  rig.add_device("b");
  rig.create({"a"});
  fill(rig);
  a->add_rule(slow(kMs));
  const std::string b = rig.uri_of("b");
  ASSERT_TRUE(add(rig, "b").ok());
  rig.sim.run_for(2 * kMs);
  EXPECT_EQ(rig.nexus->rebuild_state(b).value(), RebuildState::kRunning);
  const RebuildStats running = rig.nexus->rebuild_stats(b).value();
  EXPECT_EQ(running.blocks_total, kBlocks);
  EXPECT_EQ(running.tasks_total, 16u);
  EXPECT_EQ(running.tasks_active, 16u);
  EXPECT_EQ(running.blocks_recovered + running.blocks_remaining, kBlocks);
  ASSERT_TRUE(rig.sim.run(rig.nexus->pause_rebuild(b)).ok());
  rig.sim.run_for(10 * kMs);
  EXPECT_EQ(rig.nexus->rebuild_state(b).value(), RebuildState::kPaused);
  const uint64_t transferred = rig.nexus->rebuild_stats(b).value().blocks_transferred;
  EXPECT_GT(transferred, 0u);
  rig.sim.run_for(1000 * kMs);
  EXPECT_EQ(rig.nexus->rebuild_stats(b).value().blocks_transferred, transferred);
  ASSERT_TRUE(rig.write(0, 4096, 0x99).ok());  // nothing stays locked
  ASSERT_TRUE(rig.sim.run(rig.nexus->resume_rebuild(b)).ok());
  rig.sim.run_for(kMs);
  EXPECT_EQ(rig.nexus->rebuild_state(b).value(), RebuildState::kRunning);
  ASSERT_TRUE(rig.sim.run(rig.nexus->stop_rebuild(b)).ok());
  EXPECT_EQ(rig.nexus->rebuild_history().back().state, RebuildState::kStopped);
  EXPECT_EQ(rig.child("b").reason, ChildStateReason::kOutOfSync);  // left as it is
  EXPECT_TRUE(rig.sim.run(rig.nexus->stop_rebuild(b)).ok());
  EXPECT_EQ(rig.sim.run(rig.nexus->pause_rebuild(b)).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(rig.sim.run(rig.nexus->start_rebuild(b)).ok());
  ASSERT_TRUE(rig.sim.run(rig.nexus->pause_rebuild(b)).ok());  // before it began
  rig.sim.run_for(10 * kMs);
  ASSERT_TRUE(rig.sim.run(rig.nexus->resume_rebuild(b)).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_TRUE(rig.identical("a", "b"));
}

TEST(Rebuild, RateIsLimited) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  NexusOptions options = rig.options({"a"});
  options.rebuild_bytes_per_second = 2 * kMiB;
  rig.create_with(options);
  const uint64_t begin = rig.sim.world().now_ns();
  ASSERT_TRUE(add(rig, "b").ok());
  ASSERT_TRUE(rig.wait_online("b"));
  const uint64_t took = rig.sim.world().now_ns() - begin;
  EXPECT_GT(took, 3900 * kMs);
  EXPECT_LT(took, 4200 * kMs);
}

TEST(Rebuild, SourceFailingMidwayIsReplacedByAnother) {
  NexusRig rig;
  auto a = rig.add_device("a");
  auto b = rig.add_device("b");
  rig.add_device("c");
  rig.create({"a", "b"});
  fill(rig);
  a->add_rule(slow(kMs));
  ASSERT_TRUE(add(rig, "c").ok());
  rig.sim.run_for(3 * kMs);
  a->clear_rules();
  a->add_rule(fail_reads(io_status::kUnrecoveredRead));
  ASSERT_TRUE(rig.wait_online("c"));
  EXPECT_EQ(rig.child("a").state, ChildState::kFaulted);
  EXPECT_EQ(rig.nexus->rebuild_history().back().source_uri, rig.uri_of("b"));
  EXPECT_TRUE(rig.identical("b", "c"));
}

TEST(Rebuild, OnlySourceFailingFailsTheRebuild) {
  NexusRig rig;
  auto a = rig.add_device("a");
  rig.add_device("b");
  rig.create({"a"});
  fill(rig);
  a->add_rule(fail_reads(io_status::kUnrecoveredRead));
  ASSERT_TRUE(add(rig, "b").ok());
  ASSERT_TRUE(
      rig.wait_for([&] { return rig.child("b").reason == ChildStateReason::kRebuildFailed; }));
  EXPECT_EQ(rig.nexus->rebuild_history().back().state, RebuildState::kFailed);
  EXPECT_EQ(rig.child("a").state, ChildState::kOnline);
  a->clear_rules();
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("b").state == ChildState::kFaulted; }));
  ASSERT_TRUE(operate(rig, "b", ChildAction::kOnline).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_TRUE(rig.identical("a", "b"));
}

TEST(Rebuild, DestinationFailingFailsTheRebuildButNoWrite) {
  NexusRig rig(1, 2);
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a"});
  fill(rig);
  FaultRule late = fail_writes(io_status::kWriteFault);
  late.skip = 20;
  b->add_rule(late);
  ASSERT_TRUE(add(rig, "b").ok());
  for (uint64_t i = 0; i < 64; ++i) rig.start(IoType::kWrite, i * 8192, 4096, 0x41, i % 2);
  for (const auto& request : rig.requests) EXPECT_TRUE(rig.finish(request)->status.ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("b").state == ChildState::kFaulted; }));
  EXPECT_EQ(rig.nexus->rebuild_history().back().state, RebuildState::kFailed);
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", false}}, false));
  b->clear_rules();
  ASSERT_TRUE(operate(rig, "b", ChildAction::kOnline).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_TRUE(rig.identical("a", "b"));
}

TEST(Rebuild, FailedPartialRebuildGoesOnWhereItStopped) {
  NexusRig rig;
  rig.add_device("a");
  auto b = rig.add_device("b");
  rig.create({"a", "b"});
  fill(rig);
  ASSERT_TRUE(operate(rig, "b", ChildAction::kOffline).ok());
  for (uint64_t i = 0; i < 40; ++i) ASSERT_TRUE(rig.write(i * kSegmentBytes, 4096, 0x42).ok());
  FaultRule late = fail_writes(io_status::kWriteFault);
  late.skip = 25;
  b->add_rule(late);
  ASSERT_TRUE(operate(rig, "b", ChildAction::kOnline).ok());
  ASSERT_TRUE(rig.wait_for([&] { return rig.child("b").state == ChildState::kFaulted; }));
  EXPECT_TRUE(rig.child("b").has_io_log);
  const auto failed = rig.nexus->rebuild_history().back();
  EXPECT_EQ(failed.state, RebuildState::kFailed);
  b->clear_rules();
  ASSERT_TRUE(rig.write(100 * kSegmentBytes, 4096, 0x43).ok());
  ASSERT_TRUE(operate(rig, "b", ChildAction::kOnline).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_LT(rig.nexus->rebuild_history().back().blocks_transferred, 40u * 128);
  EXPECT_TRUE(rig.identical("a", "b"));
}

TEST(Rebuild, OfAnotherChildGoesOnDuringAFault) {
  NexusRig rig(1, 2);
  auto a = rig.add_device("a");
  auto b = rig.add_device("b");
  rig.add_device("c");
  rig.create({"a", "b"});
  fill(rig);
  b->add_rule(slow(kMs));
  a->add_rule(slow(kMs));
  ASSERT_TRUE(add(rig, "c").ok());
  rig.sim.run_for(3 * kMs);
  rig.store.down = true;
  a->clear_rules();
  a->add_rule(fail_writes(io_status::kWriteFault));
  auto missed = rig.start(IoType::kWrite, 4 * kMiB, 4096, 0x61, 1);
  rig.sim.run_for(2000 * kMs);
  EXPECT_FALSE(missed->done);
  rig.store.down = false;
  EXPECT_TRUE(rig.finish(missed)->status.ok());
  ASSERT_TRUE(rig.wait_online("c"));
  EXPECT_TRUE(rig.identical("b", "c"));
  EXPECT_TRUE(rig.device_holds("c", 4 * kMiB, 4096, 0x61));
}

// A write that missed the source is held (unacknowledged) while its segment is being copied: the
// copy must not come from the source.
TEST(Rebuild, NeverCopiesFromASourceThatMissedAWrite) {
  NexusRig rig(1, 2);
  auto a = rig.add_device("a");
  rig.add_device("b");
  auto c = rig.add_device("c");
  rig.create({"a", "b"});
  fill(rig);
  ASSERT_TRUE(add(rig, "c", true).ok());
  rig.store.down = true;
  a->add_rule(fail_writes(io_status::kWriteFault, 1));
  auto missed = rig.start(IoType::kWrite, 0, 4096, 0x71, 1);
  ASSERT_TRUE(rig.sim.run(rig.nexus->start_rebuild(rig.uri_of("c"))).ok());
  rig.sim.run_for(100 * kMs);
  rig.store.down = false;
  EXPECT_TRUE(rig.finish(missed)->status.ok());
  ASSERT_TRUE(rig.wait_online("c"));
  EXPECT_TRUE(rig.device_holds("c", 0, 4096, 0x71));
  EXPECT_TRUE(rig.identical("b", "c"));
}

// The only healthy child refuses a write that the child being rebuilt took: the host is told, and
// the copy must undo the difference.
TEST(Rebuild, WriteRefusedByTheOnlySourceIsEvenedOut) {
  NexusRig rig(1, 2);
  auto a = rig.add_device("a");
  rig.add_device("b");
  rig.create({"a"});
  fill(rig);
  ASSERT_TRUE(add(rig, "b", true).ok());
  ASSERT_TRUE(rig.sim.run(rig.nexus->start_rebuild(rig.uri_of("b"))).ok());
  a->add_rule(slow(kMs));
  rig.sim.run_for(3 * kMs);  // the first segments are copied
  a->clear_rules();
  a->add_rule(fail_writes(io_status::kWriteFault, 1));
  EXPECT_TRUE(rig.write(0, 4096, 0x99, 1).is(io_status::kWriteFault));
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_TRUE(rig.identical("a", "b"));
}

TEST(Rebuild, CompletionThatCannotBeRecordedShutsTheNexusDown) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  rig.create({"a"});
  ASSERT_TRUE(add(rig, "b").ok());
  rig.store.broken = true;
  ASSERT_TRUE(rig.wait_for([&] { return rig.nexus->state() == NexusState::kShutdown; }));
  rig.store.broken = false;
}

TEST(Rebuild, RemovalOfTheDestinationEndsIt) {
  NexusRig rig;
  auto a = rig.add_device("a");
  rig.add_device("b");
  rig.create({"a"});
  a->add_rule(slow(kMs));
  ASSERT_TRUE(add(rig, "b").ok());
  rig.sim.run_for(2 * kMs);
  ASSERT_TRUE(rig.sim.run(rig.nexus->remove_child(rig.uri_of("b"))).ok());
  EXPECT_EQ(rig.nexus->rebuild_count(), 0u);
  EXPECT_EQ(rig.nexus->rebuild_history().back().state, RebuildState::kStopped);
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}}, false));
  EXPECT_EQ(rig.nexus->state(), NexusState::kOnline);
  ASSERT_TRUE(add(rig, "b").ok());  // its slot is free again
  ASSERT_TRUE(rig.wait_online("b"));
}

TEST(Rebuild, ShutdownAndDestroyEndIt) {
  NexusRig rig;
  auto a = rig.add_device("a");
  rig.add_device("b");
  rig.create({"a"});
  a->add_rule(slow(kMs));
  ASSERT_TRUE(add(rig, "b").ok());
  rig.sim.run_for(2 * kMs);
  ASSERT_TRUE(rig.sim.run(rig.nexus->shutdown()).ok());
  EXPECT_EQ(rig.nexus->rebuild_count(), 0u);
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", false}}, true));
}

}  // namespace
}  // namespace mayastor::nexus

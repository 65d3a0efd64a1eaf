// Nexus: creation, geometry, mirrored I/O, shutdown, changes of children.
#include "nexus/nexus.h"

#include <set>

#include "nexus/geometry.h"
#include "nexus/nexus_info.h"
#include "nexus/test_rig.h"
#include "nexus/write_log.h"

namespace mayastor::nexus {
namespace {

TEST(NexusInfo, JsonHasAlphabeticalKeys) {
  NexusInfo info;
  EXPECT_EQ(info.to_json(), "{\"children\":[],\"clean_shutdown\":false}");
  info.set("u-1", true);
  info.set("u-2", false);
  info.clean_shutdown = true;
  EXPECT_EQ(info.to_json(),
            "{\"children\":[{\"healthy\":true,\"uuid\":\"u-1\"},"
            "{\"healthy\":false,\"uuid\":\"u-2\"}],\"clean_shutdown\":true}");
  EXPECT_FALSE(info.other_healthy_than("u-1"));
  EXPECT_TRUE(info.other_healthy_than("u-2"));
  info.set("u-1", false);  // replaced, not added
  info.remove("u-2");
  EXPECT_EQ(info.to_json(),
            "{\"children\":[{\"healthy\":false,\"uuid\":\"u-1\"}],\"clean_shutdown\":true}");
}

TEST(WriteLog, BehavesLikeASetOfSegments) {
  constexpr uint64_t kSize = 131 * kSegmentBytes + 512;
  WriteLog log(kSize);
  std::set<uint64_t> model;
  SimRandom random(3);
  ASSERT_EQ(log.segment_count(), 132u);
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t begin = random.below(kSize);
    const uint64_t end = std::min(kSize, begin + random.below(5 * kSegmentBytes));
    if (random.chance(1, 2)) {
      log.mark(begin, end);
      for (uint64_t at = begin / kSegmentBytes; begin < end && at * kSegmentBytes < end; ++at) {
        model.insert(at);
      }
    } else if (random.chance(1, 10)) {
      log.unmark(begin, end);
      for (uint64_t at = begin / kSegmentBytes; begin < end && at * kSegmentBytes < end; ++at) {
        model.erase(at);
      }
    } else {
      const uint64_t from = random.below(log.segment_count());
      const auto expected = model.lower_bound(from);
      const auto taken = log.take(from);
      ASSERT_EQ(taken.has_value(), expected != model.end());
      if (taken.has_value()) {
        ASSERT_EQ(*taken, *expected);
        model.erase(expected);
      }
    }
    ASSERT_EQ(log.count(), model.size());
    ASSERT_EQ(log.empty(), model.empty());
  }
  log.mark_everything();
  EXPECT_EQ(log.count(), log.segment_count());
}

TEST(Geometry, DataStartsAtFiveMiBAndEndsBeforeTheBackupTable) {
  const auto fits = data_area(20'000 + 10'240 + 32 + 2, 512, 20'000 * 512);
  ASSERT_TRUE(fits.ok());
  EXPECT_EQ(fits.value().start_block, 10'240u);
  EXPECT_EQ(fits.value().block_count, 20'000u);
  const auto shorter = data_area(20'000, 512, 20'000 * 512);
  ASSERT_TRUE(shorter.ok());
  EXPECT_EQ(shorter.value().block_count, 20'000u - 10'240 - 32 - 2);
  const auto large_blocks = data_area(8192, 4096, 8 * kMiB);
  ASSERT_TRUE(large_blocks.ok());
  EXPECT_EQ(large_blocks.value().start_block, 1280u);
  EXPECT_EQ(large_blocks.value().block_count, 2048u);
  EXPECT_FALSE(data_area(10'240 + 34, 512, kMiB).ok());
  EXPECT_TRUE(data_area(10'240 + 35, 512, kMiB).ok());
  EXPECT_FALSE(data_area(100'000, 512, 511).ok());
}

TEST(Nexus, WritesGoToEveryChildAtTheDataOffset) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  EXPECT_EQ(rig.nexus->state(), NexusState::kOnline);
  EXPECT_EQ(rig.nexus->size_bytes(), 8 * kMiB);
  EXPECT_EQ(rig.store.last_key, "/key");
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", true}}, false));
  EXPECT_TRUE(rig.write(65'536, 4096, 0xA5).ok());
  EXPECT_TRUE(rig.device_holds("a", 65'536, 4096, 0xA5));
  EXPECT_TRUE(rig.device_holds("b", 65'536, 4096, 0xA5));
  EXPECT_TRUE(rig.holds(65'536, 4096, 0xA5));
  EXPECT_TRUE(rig.finish(rig.start(IoType::kWriteZeroes, 65'536, 512))->status.ok());
  EXPECT_TRUE(rig.device_holds("b", 65'536, 512, 0));
  EXPECT_TRUE(rig.finish(rig.start(IoType::kUnmap, 0, kMiB))->status.ok());
  EXPECT_TRUE(rig.finish(rig.start(IoType::kFlush, 0, 0))->status.ok());
  EXPECT_EQ(rig.child("a").device_name, "a");
  EXPECT_EQ(rig.child("a").rebuild_progress, -1);
  const IoStats stats = rig.nexus->stats();
  EXPECT_EQ(stats.write_ops, 1u);
  EXPECT_EQ(stats.write_bytes, 4096u);
  EXPECT_EQ(stats.unmap_ops, 1u);
  EXPECT_EQ(stats.read_ops, 1u);
  IoLatencies latencies;
  rig.nexus->add_latencies(latencies);
  EXPECT_EQ(latencies.write.counts[LatencyBuckets::slot_of(stats.write_latency_ns)], 1u);
  EXPECT_EQ(latencies.write.sum_ns, stats.write_latency_ns);
  EXPECT_EQ(latencies.unmap.sum_ns, stats.unmap_latency_ns);
  rig.nexus->reset_stats();
  EXPECT_EQ(rig.nexus->stats().write_ops, 0u);
}

TEST(Nexus, ReadsTakeTurns) {
  NexusRig rig;
  std::vector<std::shared_ptr<FaultBdev>> devices;
  for (const char* name : {"a", "b", "c"}) devices.push_back(rig.add_device(name));
  rig.create({"a", "b", "c"});
  for (auto& device : devices) device->add_rule(slow(1000));
  for (int i = 0; i < 30; ++i) rig.read(0, 512);
  for (auto& device : devices) EXPECT_EQ(device->hit_count(), 10u);
}

TEST(Nexus, IsShortenedWhenChildrenHaveExactlyItsSize) {
  NexusRig rig;
  rig.add_device("a", 16);
  rig.create_with(rig.options({"a"}, 16));
  EXPECT_EQ(rig.nexus->requested_size_bytes(), 16 * kMiB);
  EXPECT_EQ(rig.nexus->size_bytes(), (32'768u - 10'240 - 32 - 2) * 512);
  EXPECT_TRUE(rig.write(rig.nexus->size_bytes() - 512, 512, 1).ok());
}

TEST(Nexus, CreationFailsWithASpecificErrorAndLeavesNothing) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b", 16, 4096);
  rig.add_device("small", 4);
  rig.add_device("tiny", 1);
  const auto error = [&rig](NexusOptions made) {
    auto result = rig.try_create(std::move(made));
    CHECK(!result.ok());
    EXPECT_EQ(rig.registry.claimed_by("a"), "");
    EXPECT_EQ(rig.registry.find("nexus-0"), nullptr);
    return result.error();
  };
  EXPECT_EQ(error(rig.options({})).code, ErrorCode::kInvalidArgument);
  EXPECT_NE(error(rig.options({"a", "b"})).message.find("blocks of 4096"), std::string::npos);
  EXPECT_NE(error(rig.options({"a", "small"})).message.find("fewer than"), std::string::npos);
  EXPECT_NE(error(rig.options({"tiny"}, 1)).message.find("too small"), std::string::npos);
  const Error missing = error(rig.options({"a", "none"}));
  EXPECT_EQ(missing.code, ErrorCode::kInvalidArgument);
  EXPECT_NE(missing.message.find("none"), std::string::npos);
  EXPECT_EQ(error(rig.options({"a", "a"})).code, ErrorCode::kInvalidArgument);
  NexusOptions bad_uri = rig.options({"a"});
  bad_uri.children.push_back("iscsi://host/x");
  EXPECT_EQ(error(bad_uri).code, ErrorCode::kInvalidArgument);
  NexusOptions taken = rig.options({"a"});
  taken.name = "small";
  EXPECT_EQ(error(taken).code, ErrorCode::kAlreadyExists);
  rig.store.broken = true;
  EXPECT_EQ(error(rig.options({"a"})).code, ErrorCode::kUnavailable);
  rig.store.broken = false;
  rig.create({"a"});  // all of it could be undone
  EXPECT_EQ(rig.nexus->state(), NexusState::kOnline);
}

TEST(Nexus, ChildrenOfAnotherNexusAreRefused) {
  NexusRig rig;
  rig.add_device("a");
  rig.create({"a"});
  NexusOptions second = rig.options({"a"});
  second.name = "nexus-1";
  const auto result = rig.try_create(second);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().message.find("in use by nexus nexus-0"), std::string::npos);
  EXPECT_EQ(rig.registry.claimed_by("a"), "nexus nexus-0");
}

// One device under two names: what one leg loses the other loses too, and a record has one line for
// both. However it is spelled, and at whichever entrance.
TEST(Nexus, OneDeviceIsNoTwoChildren) {
  for (const bool uri_tells : {true, false}) {
    NexusRig rig;
    rig.add_device("a");
    rig.add_device("b");
    auto twin = FaultBdev::create("twin", rig.registry.find("mem-a"));
    ASSERT_TRUE(rig.registry.add(twin).ok());
    const std::string uri =
        uri_tells ? "bdev:///twin?uuid=" + NexusRig::uuid_of("a") : std::string("bdev:///twin");
    NexusOptions options = rig.options({"a", "b"});
    options.children.push_back(uri);
    const auto created = rig.try_create(options);
    ASSERT_FALSE(created.ok());
    EXPECT_EQ(created.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(created.error().message.find("is the same device as child"), std::string::npos);
    EXPECT_EQ(rig.registry.claimed_by("a"), "");
    EXPECT_EQ(rig.registry.claimed_by("twin"), "");

    rig.create({"a", "b"});
    const auto added = rig.sim.run(rig.nexus->add_child(uri, false));
    ASSERT_FALSE(added.ok());
    EXPECT_EQ(added.error().code, ErrorCode::kAlreadyExists);
    EXPECT_EQ(rig.nexus->children().size(), 2u);
    EXPECT_EQ(rig.registry.claimed_by("twin"), "");
    EXPECT_TRUE(rig.write(0, 4096, 1).ok());
  }
}

TEST(Nexus, IsNoChildOfItself) {
  NexusRig rig;
  rig.add_device("a");
  rig.create({"a"});
  const auto added = rig.sim.run(rig.nexus->add_child("bdev:///nexus-0", false));
  ASSERT_FALSE(added.ok());
  EXPECT_NE(added.error().message.find("is the nexus itself"), std::string::npos);
  EXPECT_EQ(rig.registry.claimed_by("nexus-0"), "");
}

// Its size was looked at; then its record is stored, slowly, and it shrinks before it is connected.
TEST(Nexus, ChildThatShrinksWhileItIsTakenIsRefused) {
  NexusRig rig;
  rig.add_device("a");
  auto late = rig.add_device("b");
  rig.create({"a"});
  rig.store.on_stored = [&] { late->shrink_to(8 * kMiB); };
  const auto added = rig.sim.run(rig.nexus->add_child(NexusRig::uri_of("b"), false));
  rig.store.on_stored = nullptr;
  ASSERT_FALSE(added.ok());
  EXPECT_NE(added.error().message.find("too small"), std::string::npos);
  EXPECT_EQ(rig.nexus->children().size(), 1u);
  EXPECT_EQ(rig.store.last().find(NexusRig::uuid_of("b")), std::string::npos);
  EXPECT_TRUE(rig.write(0, 8 * kMiB, 1).ok());
}

TEST(Nexus, ShutdownRecordsCleanAndIsIdempotent) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  ASSERT_TRUE(rig.write(0, 512, 7).ok());
  ASSERT_TRUE(rig.sim.run(rig.nexus->shutdown()).ok());
  EXPECT_EQ(rig.nexus->state(), NexusState::kShutdown);
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", true}}, true));
  EXPECT_EQ(rig.registry.claimed_by("a"), "");
  EXPECT_EQ(rig.child("a").reason, ChildStateReason::kClosed);
  EXPECT_TRUE(rig.write(0, 512, 8).is(io_status::kAnaInaccessible));
  EXPECT_TRUE(rig.device_holds("a", 0, 512, 7));
  ASSERT_TRUE(rig.sim.run(rig.nexus->shutdown()).ok());
  const auto add = rig.sim.run(rig.nexus->add_child(rig.uri_of("c"), false));
  EXPECT_EQ(add.error().code, ErrorCode::kFailedPrecondition);
  ASSERT_TRUE(rig.sim.run(rig.nexus->destroy()).ok());
  EXPECT_EQ(rig.registry.find("nexus-0"), nullptr);
  EXPECT_EQ(rig.sim.run(rig.nexus->destroy()).error().code, ErrorCode::kNotFound);
}

TEST(Nexus, DestroyDrainsWhatIsInFlight) {
  NexusRig rig(1, 2);
  rig.add_device("a");
  auto slow_one = rig.add_device("b");
  rig.create({"a", "b"});
  slow_one->add_rule(slow(50 * kMs));
  auto first = rig.start(IoType::kWrite, 0, 4096, 1, 0);
  auto second = rig.start(IoType::kWrite, 8192, 4096, 2, 1);
  ASSERT_TRUE(rig.sim.run(rig.nexus->destroy()).ok());
  EXPECT_TRUE(first->done && first->status.ok());
  EXPECT_TRUE(second->done && second->status.ok());
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}, {"b", true}}, true));
}

TEST(Nexus, PauseHoldsIoUntilResume) {
  NexusRig rig(1, 2);
  rig.add_device("a");
  rig.create({"a"});
  rig.sim.run(rig.nexus->pause());
  auto held = rig.start(IoType::kWrite, 0, 512, 9, 1);
  auto held_read = rig.start(IoType::kRead, 0, 512, 0, 0);
  rig.sim.run_for(10 * kMs);
  EXPECT_FALSE(held->done);
  EXPECT_FALSE(held_read->done);
  rig.sim.run(rig.nexus->resume());
  EXPECT_TRUE(rig.finish(held)->status.ok());
  EXPECT_TRUE(rig.finish(held_read)->status.ok());
}

TEST(Nexus, OverlappingWritesReachAllChildrenInOneOrder) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    NexusRig rig(seed);
    auto a = rig.add_device("a");
    auto b = rig.add_device("b");
    rig.create({"a", "b"});
    // The first write is slow on one child, the second on the other.
    for (auto& device : {a, b}) {
      for (int i = 0; i < 40; ++i) {
        FaultRule rule = slow(1 + rig.sim.world().random().below(5 * kMs));
        rule.count = 1;
        device->add_rule(rule);
      }
    }
    for (int i = 0; i < 20; ++i) {
      rig.start(IoType::kWrite, rig.sim.world().random().below(4) * 512, 2048,
                static_cast<uint8_t>(i + 1));
    }
    rig.sim.run_for(500 * kMs);
    for (const auto& request : rig.requests) ASSERT_TRUE(request->done);
    ASSERT_TRUE(rig.identical("a", "b")) << "seed " << seed;
  }
}

TEST(Nexus, RemoveFollowsTheRules) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  EXPECT_TRUE(rig.sim.run(rig.nexus->remove_child("bdev:///unknown")).ok());
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(rig.uri_of("b"), ChildAction::kOffline)).ok());
  EXPECT_EQ(rig.sim.run(rig.nexus->remove_child(rig.uri_of("a"))).error().code,
            ErrorCode::kFailedPrecondition);  // the last healthy one
  ASSERT_TRUE(rig.sim.run(rig.nexus->remove_child(rig.uri_of("b"))).ok());
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}}, false));
  EXPECT_EQ(rig.registry.claimed_by("b"), "");
  EXPECT_EQ(rig.sim.run(rig.nexus->remove_child(rig.uri_of("a"))).error().code,
            ErrorCode::kFailedPrecondition);  // the only one
  EXPECT_EQ(rig.nexus->state(), NexusState::kOnline);
  EXPECT_TRUE(rig.write(0, 512, 3).ok());
}

TEST(Nexus, RemovedHealthyChildGetsNoMoreWrites) {
  NexusRig rig(1, 2);
  rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  ASSERT_TRUE(rig.write(0, 512, 1).ok());
  ASSERT_TRUE(rig.sim.run(rig.nexus->remove_child(rig.uri_of("a"))).ok());
  ASSERT_TRUE(rig.write(0, 512, 2, 1).ok());
  EXPECT_TRUE(rig.device_holds("a", 0, 512, 1));
  EXPECT_TRUE(rig.device_holds("b", 0, 512, 2));
  EXPECT_EQ(rig.nexus->children().size(), 1u);
}

TEST(Nexus, ListenerHearsOfChanges) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  rig.create({"a", "b"});
  int calls = 0;
  rig.nexus->set_listener([&calls] { ++calls; });
  ASSERT_TRUE(rig.sim.run(rig.nexus->fault_child(rig.uri_of("b"))).ok());
  EXPECT_GE(calls, 2);  // cut off, then faulted
}

}  // namespace
}  // namespace mayastor::nexus

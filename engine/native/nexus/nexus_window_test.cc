// The moments between two reactors: home has decided something about a child and another core has
// not heard of it yet. What fails right then must be worked off as if it had come later.
#include "nexus/test_rig.h"

namespace mayastor::nexus {
namespace {

// The child is connected on one core, and logged there, when its failure ends the attempt.
TEST(NexusWindow, AChildThatFailsWhileItIsAddedLeavesNothingBehind) {
  NexusRig rig(1, 2);
  rig.add_device("a");
  const auto b = rig.add_device("b");
  rig.create({"a"});
  const std::string uri = rig.uri_of("b");
  b->add_rule(fail_writes(io_status::kWriteFault, 1));
  std::optional<bool> added;
  spawn([](NexusRig* on, std::string child, std::optional<bool>* result) -> Task<void> {
    *result = (co_await on->nexus->add_child(child, false)).ok();
  }(&rig, uri, &added));
  ASSERT_TRUE(rig.wait_for([&] { return rig.store.history.size() == 2; }));
  ASSERT_FALSE(added.has_value());  // the other core's part is on its way
  const auto early = rig.start(IoType::kWrite, 0, 4096, 0x11, 0);
  ASSERT_EQ(b->hit_count(), 1u);
  ASSERT_TRUE(rig.wait_for([&] { return added.has_value() && early->done; }));
  EXPECT_TRUE(early->status.ok());
  EXPECT_FALSE(*added);
  EXPECT_EQ(rig.nexus->children().size(), 1u);
  for (size_t core = 0; core < 2; ++core) {
    EXPECT_TRUE(rig.write(4096 * core, 4096, 0x22, core).ok());
  }
  EXPECT_EQ(rig.store.last(), rig.record({{"a", true}}, false));
  ASSERT_TRUE(rig.sim.run(rig.nexus->add_child(uri, false)).ok());
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_TRUE(rig.identical("a", "b"));
}

// `b` is being rebuilt from `a`; `act` comes `turns` turns of all reactors after the last segment
// was copied. True once that is too late: the promotion of `b` is recorded.
bool at_promotion(uint64_t turns, const std::function<void(NexusRig&, FaultBdev&)>& act) {
  NexusRig rig(1, 2);
  const auto a = rig.add_device("a", 7);
  rig.add_device("b", 7);
  rig.create_with(rig.options({"a"}, 1));
  EXPECT_TRUE(rig.sim.run(rig.nexus->add_child(rig.uri_of("b"), false)).ok());
  EXPECT_TRUE(rig.wait_for([&] {
    const auto stats = rig.nexus->rebuild_stats(rig.uri_of("b"));
    return !stats.ok() || stats.value().blocks_remaining == 0;
  }));
  uint64_t turn = 0;
  rig.wait_for([&] { return turn++ == turns; });
  const bool recorded = rig.store.last() == rig.record({{"a", true}, {"b", true}}, false);
  act(rig, *a);
  EXPECT_TRUE(rig.wait_for([&] { return rig.nexus->rebuild_count() == 0; }));
  rig.sim.run_for(10 * kMs);
  for (const std::string& json : rig.store.history) {
    EXPECT_NE(json.find("\"healthy\":true"), json.npos) << json;
  }
  // Whom the record trusts answers, or nobody does.
  if (rig.nexus->state() != NexusState::kFaulted) {
    EXPECT_EQ(rig.nexus->children().back().state, ChildState::kOnline);
    EXPECT_TRUE(rig.write(0, 4096, 0x33, 1).ok());
    EXPECT_TRUE(rig.device_holds("b", 0, 4096, 0x33));
  }
  return recorded;
}

TEST(NexusWindow, TheSourceMayVanishAtAnyInstantOfAPromotion) {
  uint64_t turns = 0;
  while (!at_promotion(
      turns, [](NexusRig&, FaultBdev& a) { a.remove_device(io_status::kHostPathError); })) {
    ASSERT_LT(++turns, 1000u);
  }
  EXPECT_GT(turns, 3u);  // else nothing was tried
}

TEST(NexusWindow, TheSourceMayBeRemovedAtAnyInstantOfAPromotion) {
  uint64_t turns = 0, removed = 0;
  while (!at_promotion(turns, [&removed](NexusRig& rig, FaultBdev&) {
    removed += rig.sim.run(rig.nexus->remove_child(rig.uri_of("a"))).ok() ? 1 : 0;
  })) {
    ASSERT_LT(++turns, 1000u);
  }
  EXPECT_GT(removed, 1u);
}

}  // namespace
}  // namespace mayastor::nexus

// A child whose device, or its machine, lost power may have lost writes that it acknowledged and
// nobody had flushed. The write log does not know those: such a child is rebuilt in full.
#include "nexus/test_rig.h"

namespace mayastor::nexus {
namespace {

constexpr uint64_t kNexusBytes = 8 * kMiB;

// What the initiator would give: a device with a volatile cache on a machine that can lose power.
class RemoteDisk final : public Bdev {
 public:
  RemoteDisk(std::shared_ptr<Bdev> disk, Uuid power_cycle, bool volatile_cache, Uuid medium = {})
      : disk_(std::move(disk)),
        power_cycle_(power_cycle),
        volatile_cache_(volatile_cache),
        medium_(medium) {}
  const std::string& name() const noexcept override { return name_; }
  const Uuid& uuid() const noexcept override { return disk_->uuid(); }
  std::string product_name() const override { return "remote disk"; }
  std::string uri() const override { return ""; }
  uint32_t block_size() const noexcept override { return disk_->block_size(); }
  uint64_t size_bytes() const noexcept override { return disk_->size_bytes(); }
  bool supports(IoType type) const noexcept override { return disk_->supports(type); }
  bool has_volatile_cache() const noexcept override { return volatile_cache_; }
  Uuid power_cycle() const noexcept override { return power_cycle_; }
  Uuid medium() const noexcept override { return medium_; }
  Task<Result<std::unique_ptr<Channel>>> open_channel() override { return disk_->open_channel(); }
  IoStats stats() const override { return disk_->stats(); }
  void reset_stats() noexcept override { disk_->reset_stats(); }
  void vanish() { notify_removed(io_status::kHostPathError); }

 private:
  const std::string name_ = "remote-b";
  std::shared_ptr<Bdev> disk_;
  const Uuid power_cycle_;
  const bool volatile_cache_;
  const Uuid medium_;
};

constexpr const char* kRemoteUri = "nvmf://10.0.0.2:8420/nqn.test:b?uuid=";
std::string remote_uri() {
  return kRemoteUri + NexusRig::uuid_of("b");
}

struct Outcome {
  bool partial = false;
  uint64_t blocks_transferred = 0;
};

// Takes a child away and back; `before` and `after` name its power cycles.
Outcome away_and_back(const Uuid& before, const Uuid& after, bool volatile_cache,
                      bool local = false) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  Uuid now = before;
  const auto make = [&] {
    return std::make_shared<RemoteDisk>(rig.registry.find("b"), now, volatile_cache);
  };
  rig.registry.add_scheme("nvmf", [&](std::string) -> Task<Result<std::shared_ptr<Bdev>>> {
    std::shared_ptr<Bdev> made = make();
    co_return made;
  });
  const std::string uri = local ? "bdev:///remote-b?uuid=" + NexusRig::uuid_of("b") : remote_uri();
  if (local) {
    EXPECT_TRUE(rig.registry.add(make()).ok());
  }
  NexusOptions options = rig.options({"a"});
  options.children.push_back(uri);
  rig.create_with(options);
  EXPECT_TRUE(rig.sim.run(rig.nexus->child_operation(uri, ChildAction::kOffline)).ok());
  EXPECT_TRUE(rig.write(0, 4096, 0x42).ok());
  now = after;
  if (local) {
    rig.registry.remove("remote-b");
    EXPECT_TRUE(rig.registry.add(make()).ok());
  }
  EXPECT_TRUE(rig.sim.run(rig.nexus->child_operation(uri, ChildAction::kOnline)).ok());
  EXPECT_TRUE(rig.wait_for([&] {  // the record comes a moment after the state
    return rig.nexus->state() == NexusState::kOnline && !rig.nexus->rebuild_history().empty();
  }));
  if (rig.nexus->rebuild_history().empty()) return {};
  const auto record = rig.nexus->rebuild_history().back();
  rig.close();
  return {record.is_partial, record.blocks_transferred};
}

TEST(NexusPower, SamePowerCycleIsRebuiltFromTheLog) {
  const Uuid machine = Uuid::from_name("run-1");
  const Outcome outcome = away_and_back(machine, machine, true);
  EXPECT_TRUE(outcome.partial);
  EXPECT_LT(outcome.blocks_transferred, kNexusBytes / 512);
}

TEST(NexusPower, AnotherPowerCycleIsRebuiltInFull) {
  const Outcome outcome = away_and_back(Uuid::from_name("run-1"), Uuid::from_name("run-2"), true);
  EXPECT_EQ(outcome.blocks_transferred, kNexusBytes / 512);
}

TEST(NexusPower, AnUnknownPowerCycleIsRebuiltInFull) {
  EXPECT_EQ(away_and_back(Uuid(), Uuid(), true).blocks_transferred, kNexusBytes / 512);
}

TEST(NexusPower, WithoutAVolatileCacheTheLogIsEnough) {
  EXPECT_TRUE(away_and_back(Uuid::from_name("run-1"), Uuid::from_name("run-2"), false).partial);
}

TEST(NexusPower, ALocalDiskThatLostPowerIsRebuiltInFull) {
  const Uuid before = Uuid::from_name("run-1"), after = Uuid::from_name("run-2");
  EXPECT_EQ(away_and_back(before, after, true, true).blocks_transferred, kNexusBytes / 512);
  EXPECT_TRUE(away_and_back(before, before, true, true).partial);
  // While we run, the machine of a local disk has not lost power.
  EXPECT_TRUE(away_and_back(Uuid(), Uuid(), true, true).partial);
  EXPECT_TRUE(away_and_back(before, after, false, true).partial);
}

// One local child and one on a remote machine that has a volatile cache.
struct Pair {
  explicit Pair(bool remote_only = false) {
    rig.add_device("a");
    disk = rig.add_device("b");
    rig.registry.add_scheme("nvmf", [this](std::string) -> Task<Result<std::shared_ptr<Bdev>>> {
      remote = std::make_shared<RemoteDisk>(rig.registry.find("b"), machine, true);
      std::shared_ptr<Bdev> made = remote;
      co_return made;
    });
    NexusOptions options = rig.options({"a"});
    if (remote_only) options.children.clear();
    options.children.push_back(remote_uri());
    rig.create_with(options);
  }
  bool action(const std::string& uri, ChildAction what) {
    return rig.sim.run(rig.nexus->child_operation(uri, what)).ok();
  }
  bool is(const std::string& uri, ChildState state) {
    return rig.wait_for([&] {
      for (const ChildInfo& child : rig.nexus->children()) {
        if (child.uri == uri) return child.state == state && rig.nexus->rebuild_count() == 0;
      }
      return false;
    });
  }
  NexusRig rig;
  Uuid machine = Uuid::from_name("run-1");
  std::shared_ptr<FaultBdev> disk;
  std::shared_ptr<RemoteDisk> remote;
};

// What the last healthy child lost with its machine's power, others may still have.
TEST(NexusPower, OthersFollowTheLastHealthyChildThatLostPower) {
  Pair pair;
  NexusRig& rig = pair.rig;
  const std::string a = NexusRig::uri_of("a");
  EXPECT_TRUE(rig.write(kMiB, 4096, 0x11).ok());
  EXPECT_TRUE(pair.action(a, ChildAction::kOffline));
  EXPECT_TRUE(rig.write(0, 4096, 0x22).ok());
  pair.remote->vanish();
  ASSERT_TRUE(pair.is(remote_uri(), ChildState::kFaulted));
  // The write at 1 MiB was never flushed: b comes back without it.
  const std::vector<uint8_t> old(4096, 0x00);
  const auto medium = rig.sim.run(rig.registry.find("mem-b")->open_channel()).take();
  ASSERT_TRUE(
      rig.sim.run(write(*medium, kDataOffsetBytes + kMiB, old.data(), old.size(), false)).ok());
  pair.machine = Uuid::from_name("run-2");
  ASSERT_TRUE(pair.action(remote_uri(), ChildAction::kOnline));
  ASSERT_TRUE(pair.is(remote_uri(), ChildState::kOnline));
  ASSERT_TRUE(pair.action(a, ChildAction::kOnline));
  ASSERT_TRUE(pair.is(a, ChildState::kOnline));
  EXPECT_TRUE(rig.identical("a", "b"));
}

// The same when the last one is local: its device went away, and said so.
TEST(NexusPower, OthersFollowTheLastHealthyLocalChildThatWentAway) {
  NexusRig rig;
  rig.add_device("a");
  rig.add_device("b");
  const auto local = [&rig] {
    return std::make_shared<RemoteDisk>(rig.registry.find("b"), Uuid(), true);
  };
  std::shared_ptr<RemoteDisk> disk = local();
  ASSERT_TRUE(rig.registry.add(disk).ok());
  const std::string a = NexusRig::uri_of("a");
  const std::string b = "bdev:///remote-b?uuid=" + NexusRig::uuid_of("b");
  NexusOptions options = rig.options({"a"});
  options.children.push_back(b);
  rig.create_with(options);
  const auto online = [&](const std::string& uri) {
    return rig.wait_for([&] {
      for (const ChildInfo& child : rig.nexus->children()) {
        if (child.uri == uri) {
          return child.state == ChildState::kOnline && rig.nexus->rebuild_count() == 0;
        }
      }
      return false;
    });
  };
  EXPECT_TRUE(rig.write(kMiB, 4096, 0x11).ok());
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(a, ChildAction::kOffline)).ok());
  EXPECT_TRUE(rig.write(0, 4096, 0x22).ok());
  disk->vanish();
  ASSERT_TRUE(rig.wait_for([&] { return rig.nexus->state() == NexusState::kFaulted; }));
  rig.sim.run_for(10 * kMs);
  // The write at 1 MiB was never flushed: b comes back without it.
  const std::vector<uint8_t> old(4096, 0x00);
  const auto medium = rig.sim.run(rig.registry.find("mem-b")->open_channel()).take();
  ASSERT_TRUE(
      rig.sim.run(write(*medium, kDataOffsetBytes + kMiB, old.data(), old.size(), false)).ok());
  rig.registry.remove("remote-b");
  disk = local();
  ASSERT_TRUE(rig.registry.add(disk).ok());
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(b, ChildAction::kOnline)).ok());
  ASSERT_TRUE(online(b));
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(a, ChildAction::kOnline)).ok());
  ASSERT_TRUE(online(a));
  EXPECT_TRUE(rig.identical("a", "b"));
  // From here on b is whole again: what it misses next, its log tells.
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(b, ChildAction::kOffline)).ok());
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(b, ChildAction::kOnline)).ok());
  ASSERT_TRUE(online(b));
  EXPECT_TRUE(rig.nexus->rebuild_history().back().is_partial);
}

// A disk without a volatile cache, taken away and back while its child is offline.
class NexusMedium : public ::testing::Test {
 protected:
  void plug_in(const std::string& medium) {
    rig.registry.remove("remote-b");
    disk = std::make_shared<RemoteDisk>(rig.registry.find("b"), Uuid(), false,
                                        Uuid::from_name(medium));
    ASSERT_TRUE(rig.registry.add(disk).ok());
  }
  void begin() {
    rig.add_device("a");
    rig.add_device("b");
    plug_in("disk 1");
    NexusOptions options = rig.options({"a"});
    options.children.push_back(uri);
    rig.create_with(options);
  }
  Result<void> act(const std::string& child, ChildAction action) {
    return rig.sim.run(rig.nexus->child_operation(child, action));
  }
  bool healed() {
    return rig.wait_for([&] {
      return rig.nexus->state() == NexusState::kOnline && !rig.nexus->rebuild_history().empty();
    });
  }
  NexusRig rig;
  std::shared_ptr<RemoteDisk> disk;
  const std::string uri = "bdev:///remote-b?uuid=" + NexusRig::uuid_of("b");
};

TEST_F(NexusMedium, TheSameDiskIsRebuiltFromTheLog) {
  begin();
  ASSERT_TRUE(act(uri, ChildAction::kOffline).ok());
  EXPECT_TRUE(rig.write(0, 4096, 0x42).ok());
  plug_in("disk 1");
  ASSERT_TRUE(act(uri, ChildAction::kOnline).ok());
  ASSERT_TRUE(healed());
  EXPECT_TRUE(rig.nexus->rebuild_history().back().is_partial);
}

TEST_F(NexusMedium, AnotherDiskUnderTheSameNameIsRebuiltInFull) {
  begin();
  EXPECT_TRUE(rig.write(kMiB, 4096, 0x41).ok());
  ASSERT_TRUE(act(uri, ChildAction::kOffline).ok());
  EXPECT_TRUE(rig.write(0, 4096, 0x42).ok());
  const std::vector<uint8_t> other(4096, 0x77);  // what the other disk holds
  const auto medium = rig.sim.run(rig.registry.find("mem-b")->open_channel()).take();
  ASSERT_TRUE(
      rig.sim.run(write(*medium, kDataOffsetBytes + kMiB, other.data(), other.size(), false)).ok());
  plug_in("disk 2");
  ASSERT_TRUE(act(uri, ChildAction::kOnline).ok());
  ASSERT_TRUE(healed());
  EXPECT_EQ(rig.nexus->rebuild_history().back().blocks_transferred, kNexusBytes / 512);
  EXPECT_TRUE(rig.identical("a", "b"));
}

// It alone has the data: which disk that is, is not for the engine to guess.
TEST_F(NexusMedium, AnotherDiskIsNotTakenForTheLastHealthyOne) {
  begin();
  ASSERT_TRUE(act(NexusRig::uri_of("a"), ChildAction::kOffline).ok());
  EXPECT_TRUE(rig.write(0, 4096, 0x42).ok());
  disk->vanish();
  ASSERT_TRUE(rig.wait_for([&] { return rig.nexus->state() == NexusState::kFaulted; }));
  rig.sim.run_for(10 * kMs);
  plug_in("disk 2");
  for (int again = 0; again < 2; ++again) {
    const Result<void> refused = act(uri, ChildAction::kOnline);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::kFailedPrecondition);
    EXPECT_EQ(rig.nexus->state(), NexusState::kFaulted);
  }
  plug_in("disk 1");
  EXPECT_TRUE(act(uri, ChildAction::kOnline).ok());
  EXPECT_TRUE(rig.holds(0, 4096, 0x42));
}

// A failed write may be what tells first that the device has gone.
TEST(NexusPower, ALocalDiskThatWentAwayAfterAFailedWriteIsRebuiltInFull) {
  NexusRig rig;
  rig.add_device("a");
  const std::shared_ptr<FaultBdev> disk = rig.add_device("b");
  const auto local = [&rig] {
    return std::make_shared<RemoteDisk>(rig.registry.find("b"), Uuid(), true);
  };
  const std::shared_ptr<RemoteDisk> first = local();
  ASSERT_TRUE(rig.registry.add(first).ok());
  const std::string uri = "bdev:///remote-b?uuid=" + NexusRig::uuid_of("b");
  NexusOptions options = rig.options({"a"});
  options.children.push_back(uri);
  rig.create_with(options);
  const auto child = [&] { return rig.nexus->children().at(1); };
  rig.store.down = true;  // the fault is being worked off while the second news comes
  disk->add_rule(fail_writes(io_status::kWriteFault));
  const auto held = rig.start(IoType::kWrite, 0, 4096, 0x42);
  ASSERT_TRUE(rig.wait_for([&] { return child().state == ChildState::kUnknown; }));
  first->vanish();
  rig.sim.run_for(kMs);
  rig.store.down = false;
  ASSERT_TRUE(rig.wait_for([&] { return held->done && child().state == ChildState::kFaulted; }));
  disk->clear_rules();
  rig.registry.remove("remote-b");
  ASSERT_TRUE(rig.registry.add(local()).ok());
  ASSERT_TRUE(rig.sim.run(rig.nexus->child_operation(uri, ChildAction::kOnline)).ok());
  ASSERT_TRUE(rig.wait_for([&] {
    return child().state == ChildState::kOnline && !rig.nexus->rebuild_history().empty();
  }));
  EXPECT_EQ(rig.nexus->rebuild_history().back().blocks_transferred, kNexusBytes / 512);
}

FaultRule flushes(IoStatus status) {
  FaultRule rule;
  rule.type = IoType::kFlush;
  rule.status = status;
  rule.delay_ns = 1000;
  return rule;
}

TEST(NexusPower, ACleanEndFlushesWhatWasAcknowledged) {
  Pair pair;
  pair.disk->add_rule(flushes(io_status::kOk));
  EXPECT_TRUE(pair.rig.write(0, 4096, 0x33).ok());
  ASSERT_TRUE(pair.rig.sim.run(pair.rig.nexus->destroy()).ok());
  EXPECT_EQ(pair.disk->hit_count(), 1u);
  EXPECT_EQ(pair.rig.store.last(), pair.rig.record({{"a", true}, {"b", true}}, true));
}

TEST(NexusPower, AChildThatCannotFlushAtTheEndIsRecordedAsUnhealthy) {
  Pair pair;
  pair.disk->add_rule(flushes(io_status::kWriteFault));
  ASSERT_TRUE(pair.rig.sim.run(pair.rig.nexus->destroy()).ok());
  EXPECT_EQ(pair.rig.store.last(), pair.rig.record({{"a", true}, {"b", false}}, true));
}

TEST(NexusPower, TheEndIsNotCleanWhenTheLastChildCannotFlush) {
  Pair pair(true);
  pair.disk->add_rule(flushes(io_status::kWriteFault));
  ASSERT_TRUE(pair.rig.sim.run(pair.rig.nexus->destroy()).ok());
  EXPECT_EQ(pair.rig.store.last(), pair.rig.record({{"b", true}}, false));
}

}  // namespace
}  // namespace mayastor::nexus

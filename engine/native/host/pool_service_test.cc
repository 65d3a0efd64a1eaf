// Pools of an engine on simulated disks: what a failing disk, a disk that is somebody else's, or a
// replica that exists twice may and may not do to what is loaded and served.
#include "host/pool_service.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "bdev/builtin.h"
#include "core/sim_harness.h"
#include "host/replica_service.h"

namespace mayastor::host {
namespace {

constexpr uint64_t kMiB = 1u << 20;
constexpr char kReplica[] = "5f0c1d2e-0000-4000-8000-000000000001";

class Events final : public EngineEvents {
 public:
  void on_log(LogLevel level, std::string message, LogFields) override {
    if (level == LogLevel::kError) errors.push_back(std::move(message));
  }
  void on_nexus_changed(std::string) override {}
  std::vector<std::string> errors;
};

nvmf::TargetOptions target_options() {
  nvmf::TargetOptions options;
  options.address = "10.0.0.1";
  return options;
}

class PoolServiceTest : public ::testing::Test {
 protected:
  PoolServiceTest()
      : disk(sim.world().add_disk("/dev/d0", {.size_bytes = 64 * kMiB})),
        other_disk(sim.world().add_disk("/dev/d1", {.size_bytes = 64 * kMiB})),
        target(sim.reactors(), target_options()),
        sharing(target, "10.0.0.1", ""),
        pools(registry, sharing, events),
        replicas(registry, sharing, pools, events) {
    register_builtin_schemes(registry);
    const auto started = sim.run(target.start());
    EXPECT_TRUE(started.ok()) << started.error().message;
  }
  ~PoolServiceTest() override {
    disk.set_fault_hook(nullptr);
    other_disk.set_fault_hook(nullptr);
    const auto exported = sim.run(pools.export_all());
    EXPECT_TRUE(exported.ok()) << exported.error().message;
    sim.run(target.stop());
    sim.run_for(1'000'000);
  }

  static PoolRequest request(std::string name, std::string disk_uri) {
    PoolRequest wanted;
    wanted.name = std::move(name);
    wanted.disks = {std::move(disk_uri)};
    wanted.cluster_size = 1u << 20;
    return wanted;
  }
  Result<PoolInfo> create(std::string name, std::string disk_uri) {
    return sim.run(pools.create(request(std::move(name), std::move(disk_uri))));
  }
  Result<PoolInfo> import(std::string name, std::string disk_uri) {
    return sim.run(pools.import(request(std::move(name), std::move(disk_uri))));
  }
  Result<void> export_pool(std::string name) {
    return sim.run(pools.export_pool(std::move(name), std::nullopt));
  }
  Result<ReplicaInfo> create_replica(std::string pool, bool share) {
    ReplicaRequest wanted;
    wanted.name = kReplica;
    wanted.uuid = kReplica;
    wanted.pool = std::move(pool);
    wanted.size = 4 * kMiB;
    wanted.thin = true;
    wanted.share = share;
    return sim.run(replicas.create(wanted));
  }

  Sim sim;
  SimDisk& disk;
  SimDisk& other_disk;
  Events events;
  BdevRegistry registry;
  nvmf::Target target;
  Sharing sharing;
  PoolService pools;
  ReplicaService replicas;
};

TEST_F(PoolServiceTest, CreateNeverFormatsAPoolWhoseDiskIsAwayForAMoment) {
  ASSERT_TRUE(create("p", "/dev/d0").ok());
  ASSERT_TRUE(create_replica("p", false).ok());
  ASSERT_TRUE(export_pool("p").ok());
  for (uint32_t failures = 1; failures <= 4; ++failures) {
    const uint64_t mutations = disk.mutation_count();
    uint32_t left = failures;
    disk.set_fault_hook([&left](const SimDiskOp& op) -> int32_t {
      if (op.type != SimDiskOpType::kRead || op.offset != 0 || left == 0) return 0;
      --left;
      return -ENODEV;
    });
    const auto refused = create("p", "/dev/d0");
    ASSERT_FALSE(refused.ok()) << failures;
    EXPECT_EQ(disk.mutation_count(), mutations) << failures;
  }
  disk.set_fault_hook(nullptr);
  const auto back = create("p", "/dev/d0");
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(replicas.list().size(), 1u);
}

// Whoever runs the node reads its log; agent-core tries again every few seconds.
TEST_F(PoolServiceTest, WhatCannotBeLoadedIsToldOnce) {
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(import("p", "/dev/d0").ok());
  ASSERT_EQ(events.errors.size(), 1u);
  EXPECT_TRUE(events.errors[0].starts_with("pool not loaded: Cannot import pool p: "))
      << events.errors[0];
  ASSERT_TRUE(create("p", "/dev/d0").ok());
  ASSERT_TRUE(export_pool("p").ok());
  EXPECT_FALSE(import("p", "/dev/d1").ok());
  EXPECT_EQ(events.errors.size(), 2u);
}

TEST_F(PoolServiceTest, BdevThatWasThereBeforeOutlivesThePoolOnIt) {
  ASSERT_TRUE(sim.run(registry.create("malloc:///m0?size_mb=64")).ok());
  for (const char* disk_uri : {"bdev:///m0", "loopback:///m0", "malloc:///m0?size_mb=64"}) {
    const auto made = create("p", disk_uri);
    ASSERT_TRUE(made.ok()) << made.error().message;
    ASSERT_TRUE(export_pool("p").ok());
    ASSERT_NE(registry.find("m0"), nullptr) << disk_uri;
    EXPECT_EQ(registry.claimed_by("m0"), "");
    EXPECT_FALSE(create("q", disk_uri).ok());  // holds "p"
    ASSERT_NE(registry.find("m0"), nullptr) << disk_uri;
  }
}

TEST_F(PoolServiceTest, ReplicaIsNoDisk) {
  ASSERT_TRUE(create("p", "/dev/d0").ok());
  ASSERT_TRUE(create_replica("p", false).ok());
  const auto refused = create("q", std::string("bdev:///") + kReplica);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(registry.find(kReplica), nullptr);
  EXPECT_EQ(registry.claimed_by(kReplica), "");
}

TEST_F(PoolServiceTest, PoolWithAReplicaThatIsLoadedElsewhereLeavesThatOneAlone) {
  ASSERT_TRUE(create("a", "/dev/d0").ok());
  ASSERT_TRUE(create_replica("a", true).ok());
  ASSERT_TRUE(export_pool("a").ok());
  ASSERT_TRUE(create("b", "/dev/d1").ok());
  ASSERT_TRUE(create_replica("b", true).ok());
  const auto theirs = registry.find(kReplica);
  for (const bool in_use : {false, true}) {
    if (in_use) {
      ASSERT_TRUE(registry.claim(kReplica, "a nexus").ok());
    }
    const auto refused = import("a", "/dev/d0");
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(refused.error().message.find("pool b"), std::string::npos) << refused.error().message;
    EXPECT_EQ(registry.find(kReplica), theirs);
    EXPECT_TRUE(sharing.is_shared(kReplica));
    EXPECT_EQ(registry.find("/dev/d0"), nullptr) << "the disk is let go";
  }
  registry.unclaim(kReplica);
  ASSERT_TRUE(export_pool("b").ok());
  const auto back = import("a", "/dev/d0");
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_TRUE(sharing.is_shared(kReplica));
}

TEST_F(PoolServiceTest, PoolWhoseMetadataCannotBeWrittenIsFaultedAndCanBeLoadedAgain) {
  ASSERT_TRUE(create("p", "/dev/d0").ok());
  ASSERT_TRUE(create_replica("p", false).ok());
  EXPECT_FALSE(pools.list().at(0).faulted);
  // The replica's root page: page 1 of the metadata region, which starts at page 4.
  disk.set_fault_hook([](const SimDiskOp& op) {
    return op.type == SimDiskOpType::kWrite && op.offset == 5 * 4096 ? -EIO : 0;
  });
  EXPECT_FALSE(sim.run(replicas.set_entity_id(kReplica, "volume")).ok());
  EXPECT_TRUE(pools.list().at(0).faulted);
  const auto exported = export_pool("p");
  ASSERT_TRUE(exported.ok()) << exported.error().message;
  disk.set_fault_hook(nullptr);
  const auto back = import("p", "/dev/d0");
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_FALSE(back.value().faulted);
  EXPECT_TRUE(sim.run(replicas.set_entity_id(kReplica, "volume")).ok());
}

// Whoever has claimed its replicas: they hear of it themselves.
TEST_F(PoolServiceTest, PoolWhoseDiskWasPulledIsFaultedAndLetGo) {
  sim.world().add_disk("/dev/d2", {.size_bytes = 64 * kMiB});
  ASSERT_TRUE(create("p", "/dev/d2").ok());
  ASSERT_TRUE(create_replica("p", false).ok());
  const auto replica = registry.find(kReplica);
  uint32_t told = 0;
  replica->set_removed_handler([&told](IoStatus) { ++told; });  // as a nexus does
  sim.world().remove_disk_path("/dev/d2");
  EXPECT_FALSE(sim.run(replicas.set_entity_id(kReplica, "volume")).ok());
  sim.run_for(1'000'000);
  EXPECT_EQ(told, 1u);
  EXPECT_TRUE(pools.list().at(0).faulted);
  EXPECT_EQ(events.errors, std::vector<std::string>{"pool lost its disk"});
  EXPECT_TRUE(export_pool("p").ok());
}

TEST_F(PoolServiceTest, ADiskThatDoesNotAnswerHoldsUpItsOwnPoolAlone) {
  constexpr char kOther[] = "5f0c1d2e-0000-4000-8000-000000000002";
  constexpr uint64_t kSecondNs = 1'000'000'000;
  ASSERT_TRUE(create("p", "/dev/d0").ok());
  ASSERT_TRUE(create_replica("p", false).ok());
  disk.set_stalled(true);
  bool labelled = false;
  const auto label = [](ReplicaService* service, bool* done) -> Task<void> {
    std::string uuid = kReplica, volume = "volume";
    const auto outcome = co_await service->set_entity_id(std::move(uuid), std::move(volume));
    *done = outcome.ok();
  };
  {
    const Reactor::Scope scope(sim.reactor(0));
    spawn(label(&replicas, &labelled));
  }
  sim.run_for(kSecondNs);
  EXPECT_FALSE(labelled);
  // Before anybody can know that the disk will not answer, and after.
  for (const uint64_t wait_ns : {kSecondNs, 30 * kSecondNs}) {
    sim.run_for(wait_ns);
    const std::string name = "q" + std::to_string(wait_ns);
    ASSERT_TRUE(create(name, "/dev/d1").ok());
    ReplicaRequest wanted;
    wanted.name = wanted.uuid = kOther;
    wanted.pool = name;
    wanted.size = 4 * kMiB;
    ASSERT_TRUE(sim.run(replicas.create(wanted)).ok());
    EXPECT_EQ(replicas.list().size(), 2u);
    EXPECT_EQ(pools.list().size(), 2u);
    ASSERT_TRUE(sim.run(replicas.destroy(kOther, std::nullopt)).ok());
    std::string gone = name;
    ASSERT_TRUE(sim.run(pools.destroy(std::move(gone), std::nullopt)).ok());
  }
  EXPECT_GE(pools.list().at(0).waiting_ms, 30'000u);
  bool refused = false;
  const auto ask = [](PoolService* service, bool* done) -> Task<void> {
    std::string name = "p";
    const std::optional<std::string> any;
    const auto outcome = co_await service->destroy(std::move(name), any);
    *done = !outcome.ok() && outcome.error().code == ErrorCode::kUnavailable;
  };
  disk.set_stalled(false);
  ASSERT_TRUE(sim.run_until([&] { return labelled; }));
  disk.set_stalled(true);
  // One that holds no lock: refused at once, instead of waiting with the lock held.
  const auto read_on = [](Bdev* device, bool* done) -> Task<void> {
    auto channel = co_await device->open_channel();
    AlignedBuffer buffer(4096);
    *done = (co_await read(*channel.value(), 0, buffer.data(), 4096)).ok();
  };
  bool was_read = false;
  {
    const Reactor::Scope scope(sim.reactor(0));
    spawn(read_on(registry.find("/dev/d0").get(), &was_read));
  }
  sim.run_for(20 * kSecondNs);
  {
    const Reactor::Scope scope(sim.reactor(0));
    spawn(ask(&pools, &refused));
  }
  sim.run_for(kSecondNs);
  EXPECT_TRUE(refused);
  EXPECT_FALSE(sim.run(replicas.set_entity_id(kReplica, "other")).ok());
  disk.set_stalled(false);
  ASSERT_TRUE(sim.run_until([&] { return was_read; }));
  EXPECT_TRUE(sim.run(replicas.set_entity_id(kReplica, "other")).ok());
}

}  // namespace
}  // namespace mayastor::host

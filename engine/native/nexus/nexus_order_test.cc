// Writes that overlap reach all children in one order, whichever cores they came from: in the
// simulation with children that reorder, and on real threads (meant for TSan as well).
#include <atomic>
#include <future>

#include "core/make_ring.h"
#include "nexus/nexus_core.h"
#include "nexus/test_rig.h"

namespace mayastor::nexus {
namespace {

FaultRule slow_nth_write(uint64_t nth, uint64_t delay_ns) {
  FaultRule rule;
  rule.writes = true;
  rule.skip = nth;
  rule.count = 1;
  rule.delay_ns = delay_ns;
  return rule;
}

TEST(NexusOrder, ChildrenAgreeOnWritesOfTwoCores) {
  NexusRig rig(1, 2);
  const auto a = rig.add_device("a");
  const auto b = rig.add_device("b");
  rig.create({"a", "b"});
  a->add_rule(slow_nth_write(0, 5 * kMs));  // a would have the first one last, b the second one
  b->add_rule(slow_nth_write(1, 5 * kMs));
  const auto first = rig.start(IoType::kWrite, 0, 8192, 0x11, 0);
  const auto second = rig.start(IoType::kWrite, 4096, 8192, 0x22, 1);
  rig.finish(first);
  rig.finish(second);
  EXPECT_TRUE(first->status.ok() && second->status.ok());
  EXPECT_TRUE(rig.identical("a", "b"));
}

TEST(NexusOrder, ChildrenAgreeOnEveryKindOfWriteFromEveryCore) {
  uint64_t crossed = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    const auto cores = static_cast<uint32_t>(2 + seed % 3);
    NexusRig rig(seed, cores);
    std::vector<std::shared_ptr<FaultBdev>> devices;
    for (const char* name : {"a", "b", "c"}) devices.push_back(rig.add_device(name, 16, 4096));
    rig.create({"a", "b", "c"});
    SimRandom random(seed);
    uint64_t under_way = 0, writes = 0;
    const uint64_t size = rig.nexus->size_bytes();
    std::function<void(size_t)> next = [&](size_t core) {
      if (++writes > 400) return;
      const uint64_t dice = random.below(20);
      const IoType type = dice == 0   ? IoType::kUnmap
                          : dice == 1 ? IoType::kWriteZeroes
                                      : IoType::kWrite;
      // Mostly around a border of two segments; now and then most of the device.
      uint64_t offset = 60 * 1024 + random.below(4) * 4096;
      uint64_t length = 4096 * random.between(1, 4);
      if (random.chance(1, 10)) length = 4096 * random.between(20, 70);
      if (type != IoType::kWrite && random.chance(1, 4)) {
        offset = random.below(2) * 4096;
        length = size - offset;
      }
      ++under_way;
      const auto request = rig.start(type, offset, length, static_cast<uint8_t>(writes), core);
      const auto ended = [&, core] {
        --under_way;
        rig.sim.reactor(core).post([&, core] { next(core); });
      };
      if (request->done) {
        ended();
      } else {
        request->on_done = ended;
      }
    };
    for (int i = 0; i < 60; ++i) {  // delays come and go on each device
      for (const auto& device : devices) {
        FaultRule rule = slow(1 + random.below(kMs));
        rule.count = 1 + random.below(3);
        rule.skip = random.below(3);
        device->add_rule(rule);
      }
    }
    for (uint32_t i = 0; i < cores * 3; ++i) next(i % cores);
    ASSERT_TRUE(rig.wait_for([&] { return writes > 400 && under_way == 0; })) << under_way;
    rig.sim.run_for(kMs);  // the last ones find nothing more to do
    EXPECT_TRUE(rig.identical("a", "b"));
    EXPECT_TRUE(rig.identical("b", "c"));
    for (const auto& device : devices) crossed += device->hit_count();
  }
  EXPECT_GT(crossed, 1000u);
}

// Unmapping a volume during a rebuild takes about as long as a few copies, not as the rebuild.
TEST(NexusOrder, AWideWriteIsNotStarvedByARebuild) {
  NexusRig rig(1, 2);
  rig.add_device("a", 80);
  const auto b = rig.add_device("b", 80);
  rig.create_with(rig.options({"a", "b"}, 64));
  const std::string uri = rig.uri_of("b");
  ASSERT_TRUE(rig.sim.run(rig.nexus->remove_child(uri)).ok());
  for (uint64_t i = 0; i <= kRebuildTaskCount; ++i) {  // the tasks get out of step, and stay so
    FaultRule lazy = slow(i < kRebuildTaskCount ? (i + 1) * kMs / 3 : 5 * kMs);
    lazy.type = IoType::kWrite;
    if (i < kRebuildTaskCount) lazy.count = 1;
    b->add_rule(lazy);
  }
  const uint64_t began = rig.sim_now_ns();
  ASSERT_TRUE(rig.sim.run(rig.nexus->add_child(uri, false)).ok());
  rig.sim.run_for(7 * kMs);
  const uint64_t sent = rig.sim_now_ns();
  const auto wide = rig.start(IoType::kUnmap, 0, rig.nexus->size_bytes(), 0, 1);
  const auto small = rig.start(IoType::kWrite, 3 * kMiB, 4096, 0x77, 0);
  EXPECT_TRUE(rig.finish(wide)->status.ok());
  const uint64_t took = rig.sim_now_ns() - sent;
  EXPECT_TRUE(rig.finish(small)->status.ok());
  EXPECT_EQ(rig.nexus->rebuild_count(), 1u);
  ASSERT_TRUE(rig.wait_online("b"));
  EXPECT_LT(took, (rig.sim_now_ns() - began) / 8);
  EXPECT_TRUE(rig.identical("a", "b"));
}

// ---- Real threads

constexpr uint32_t kReactors = 3;
constexpr uint64_t kBlock = 4096;

struct Shared {
  Reactors* reactors = nullptr;
  BdevRegistry registry;
  FakeStore store;
  std::shared_ptr<Nexus> nexus;
  std::atomic<uint64_t> writes{0}, failures{0};
  uint64_t different_rounds = 0;
};

Task<void> writer(Shared* shared, uint64_t seed) {
  Result<std::unique_ptr<Channel>> opened = co_await shared->nexus->open_channel();
  CHECK(opened.ok());
  const std::unique_ptr<Channel> channel = opened.take();
  SimRandom random(seed);
  std::vector<uint8_t> data(8 * kBlock);
  for (int i = 0; i < 150; ++i) {
    const uint64_t length = kBlock * random.between(1, 8);
    const uint64_t offset = kBlock * random.below(24);
    std::memset(data.data(), static_cast<int>(random.below(256)), length);
    const IoStatus status = co_await write(*channel, offset, data.data(), length, false);
    if (!status.ok()) shared->failures.fetch_add(1);
    shared->writes.fetch_add(1);
    if (random.chance(1, 4)) {
      Yield yield;
      co_await yield;
    }
  }
}

Task<void> writer_on(Shared* shared, uint32_t core, uint64_t seed, Latch* running) {
  std::function<Task<void>()> make = [shared, seed] { return writer(shared, seed); };
  CallOn<void> there(shared->reactors->at(core), std::move(make));
  co_await there;
  running->done();
}

Task<std::vector<uint8_t>> contents(BdevRegistry* registry, std::string name) {
  const std::shared_ptr<Bdev> device = registry->find(name);
  Result<std::unique_ptr<Channel>> channel = co_await device->open_channel();
  std::vector<uint8_t> data(40 * kBlock);
  const IoStatus status =
      co_await read(*channel.value(), kDataOffsetBytes, data.data(), data.size());
  CHECK(status.ok());
  co_return data;
}

Task<void> scenario(Shared* shared, std::promise<void>* finished) {
  NexusOptions options;
  options.name = "nexus-0";
  options.uuid = Uuid::from_name("nexus-0");
  options.size_bytes = 2 * kMiB;
  for (const char* name : {"a", "b", "c"}) {
    const std::string uri = std::string("malloc:///mem-") + name +
                            "?size_mb=8&blk_size=4096&uuid=" + NexusRig::uuid_of(name);
    auto memory = co_await shared->registry.create(uri);
    CHECK(memory.ok());
    const auto device = FaultBdev::create(name, memory.take());
    CHECK(shared->registry.add(device).ok());
    options.children.push_back(NexusRig::uri_of(name));
  }
  auto created =
      co_await Nexus::create(*shared->reactors, shared->registry, &shared->store, options);
  CHECK(created.ok());
  shared->nexus = created.take();
  for (uint64_t round = 0; round < 12; ++round) {
    SimRandom random(round + 1);
    for (const char* name : {"a", "b", "c"}) {
      const auto device = find_fault_bdev(shared->registry, name);
      device->clear_rules();
      for (int i = 0; i < 200; ++i) {  // every third request is late, on each device another one
        FaultRule rule = slow(1000 + random.below(100'000));
        rule.count = 1;
        rule.skip = random.below(5);
        device->add_rule(rule);
      }
    }
    Latch running;
    for (uint32_t i = 0; i < kReactors * 4; ++i) {
      running.add();
      spawn(writer_on(shared, i % kReactors, round * 100 + i, &running));
    }
    co_await running;
    const std::string a = "mem-a", b = "mem-b", c = "mem-c";
    const std::vector<uint8_t> in_a = co_await contents(&shared->registry, a);
    const std::vector<uint8_t> in_b = co_await contents(&shared->registry, b);
    const std::vector<uint8_t> in_c = co_await contents(&shared->registry, c);
    if (in_a != in_b || in_b != in_c) ++shared->different_rounds;
  }
  auto gone = co_await shared->nexus->destroy();
  CHECK(gone.ok());
  shared->nexus.reset();
  finished->set_value();
}

TEST(NexusOrder, ChildrenAgreeOnOverlappingWritesOfThreads) {
  std::vector<std::unique_ptr<Reactor>> list;
  for (uint32_t i = 0; i < kReactors; ++i) {
    auto made = make_ring({});
    ASSERT_TRUE(made.ok()) << made.error().message;
    ReactorOptions options;
    options.index = i;
    list.push_back(
        std::make_unique<Reactor>(options, std::move(made.value().ring), system_clock()));
  }
  Reactors reactors(std::move(list));
  Shared shared;
  shared.reactors = &reactors;
  register_builtin_schemes(shared.registry);
  reactors.start();
  std::promise<void> finished;
  reactors.home().post([&] { spawn(scenario(&shared, &finished)); });
  finished.get_future().wait();
  reactors.stop_and_join();
  EXPECT_EQ(shared.different_rounds, 0u);
  EXPECT_EQ(shared.failures.load(), 0u);
  EXPECT_EQ(shared.writes.load(), 12u * kReactors * 4 * 150);
}

}  // namespace
}  // namespace mayastor::nexus

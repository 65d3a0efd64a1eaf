// Nexus on real threads: writers on every core while a child is faulted and rebuilt again and
// again. Meant for TSan: what crosses cores must be ordered by messages or be atomic.
#include <atomic>
#include <future>

#include "bdev/builtin.h"
#include "bdev/fault_bdev.h"
#include "core/make_ring.h"
#include "nexus/nexus_core.h"
#include "nexus/test_rig.h"

namespace mayastor::nexus {
namespace {

constexpr uint32_t kReactors = 3;
constexpr uint32_t kWritersPerCore = 4;
constexpr uint64_t kBlock = 4096;

struct Shared {
  Reactors* reactors = nullptr;
  BdevRegistry registry;
  FakeStore store;
  std::shared_ptr<Nexus> nexus;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> writes{0}, failures{0}, stale_reads{0};
  uint64_t cycles = 0;
  bool identical = false;
};

// Writes and reads back its own blocks; a block has one writer, so reads are exact.
Task<void> writer(Shared* shared, uint64_t index) {
  Result<std::unique_ptr<Channel>> opened = co_await shared->nexus->open_channel();
  CHECK(opened.ok());
  const std::unique_ptr<Channel> channel = opened.take();
  std::vector<uint8_t> out(kBlock), in(kBlock);
  const uint64_t writers = kReactors * kWritersPerCore;
  const uint64_t blocks = shared->nexus->size_bytes() / kBlock;
  for (uint64_t i = 0; !shared->stop.load(); ++i) {
    const uint64_t offset = (i * writers + index) % (blocks / writers * writers) * kBlock;
    std::memset(out.data(), static_cast<int>(1 + i % 255), kBlock);
    const IoStatus written = co_await write(*channel, offset, out.data(), kBlock, false);
    if (!written.ok()) shared->failures.fetch_add(1);
    const IoStatus got = co_await read(*channel, offset, in.data(), kBlock);
    if (!got.ok()) shared->failures.fetch_add(1);
    if (written.ok() && got.ok() && in != out) shared->stale_reads.fetch_add(1);
    shared->writes.fetch_add(1);
    Yield yield;
    co_await yield;
  }
}

Task<void> writer_on(Shared* shared, uint32_t core, uint64_t index, Latch* running) {
  std::function<Task<void>()> make = [shared, index] { return writer(shared, index); };
  CallOn<void> there(shared->reactors->at(core), std::move(make));
  co_await there;
  running->done();
}

bool is_online(const Shared& shared, size_t child) {
  return shared.nexus->children()[child].state == ChildState::kOnline &&
         shared.nexus->rebuild_count() == 0;
}

Task<std::vector<uint8_t>> contents(BdevRegistry* registry, std::string name, uint64_t size) {
  const std::shared_ptr<Bdev> device = registry->find(name);
  Result<std::unique_ptr<Channel>> channel = co_await device->open_channel();
  std::vector<uint8_t> data(size);
  const IoStatus status = co_await read(*channel.value(), kDataOffsetBytes, data.data(), size);
  CHECK(status.ok());
  co_return data;
}

Task<void> scenario(Shared* shared, std::promise<void>* finished) {
  NexusOptions options;
  options.name = "nexus-0";
  options.uuid = Uuid::from_name("nexus-0");
  options.size_bytes = 2 * kMiB;
  for (const char* name : {"a", "b"}) {
    const std::string uri =
        std::string("malloc:///mem-") + name + "?size_mb=8&uuid=" + NexusRig::uuid_of(name);
    auto memory = co_await shared->registry.create(uri);
    CHECK(memory.ok());
    CHECK(shared->registry.add(FaultBdev::create(name, memory.take())).ok());
    options.children.push_back(NexusRig::uri_of(name));
  }
  auto created =
      co_await Nexus::create(*shared->reactors, shared->registry, &shared->store, options);
  CHECK(created.ok());
  shared->nexus = created.take();
  Latch running;
  for (uint32_t i = 0; i < kReactors * kWritersPerCore; ++i) {
    running.add();
    spawn(writer_on(shared, i % kReactors, i, &running));
  }
  const std::string b = NexusRig::uri_of("b");
  for (int cycle = 0; cycle < 6; ++cycle) {
    if (cycle % 2 == 0) {  // by its own error, or by request
      find_fault_bdev(shared->registry, "b")->add_rule(fail_writes(io_status::kWriteFault, 1));
      while (shared->nexus->children()[1].state != ChildState::kFaulted) {
        auto pause = sleep_for(kMs);
        co_await pause;
      }
    } else {
      const std::string uri = b;
      auto offline = co_await shared->nexus->child_operation(uri, ChildAction::kOffline);
      CHECK(offline.ok());
    }
    auto degraded = sleep_for(3 * kMs);
    co_await degraded;
    const std::string uri = b;
    auto online = co_await shared->nexus->child_operation(uri, ChildAction::kOnline);
    CHECK(online.ok());
    while (!is_online(*shared, 1)) {
      auto pause = sleep_for(kMs);
      co_await pause;
    }
    ++shared->cycles;
  }
  shared->stop.store(true);
  co_await running;
  const uint64_t size = shared->nexus->size_bytes();
  const std::string mem_a = "mem-a", mem_b = "mem-b";
  const std::vector<uint8_t> in_a = co_await contents(&shared->registry, mem_a, size);
  const std::vector<uint8_t> in_b = co_await contents(&shared->registry, mem_b, size);
  shared->identical = in_a == in_b;
  auto gone = co_await shared->nexus->destroy();
  CHECK(gone.ok());
  shared->nexus.reset();
  finished->set_value();
}

TEST(NexusThreads, FaultsAndRebuildsUnderWritesFromAllCores) {
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
  EXPECT_EQ(shared.cycles, 6u);
  EXPECT_EQ(shared.failures.load(), 0u);
  EXPECT_EQ(shared.stale_reads.load(), 0u);
  EXPECT_TRUE(shared.identical);
  EXPECT_GT(shared.writes.load(), 100u);
}

}  // namespace
}  // namespace mayastor::nexus

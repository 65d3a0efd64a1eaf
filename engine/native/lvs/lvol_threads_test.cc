// A thin lvol written by real threads while it grows and its properties change: for the thread
// sanitizer, and because the simulated machine has one thread only.
#include <gtest/gtest.h>

#include <cstring>
#include <future>

#include "bdev/builtin.h"
#include "core/buffer.h"
#include "core/make_ring.h"
#include "core/reactor.h"
#include "lvs/lvol.h"
#include "lvs/lvol_store.h"

namespace mayastor {
namespace {

constexpr uint64_t kMiB = 1u << 20;
constexpr uint32_t kWriters = 2;
constexpr uint32_t kClusters = 24;
constexpr uint64_t kStripe = 4096;

std::unique_ptr<Reactor> make_reactor(uint32_t index) {
  auto made = make_ring({});
  CHECK(made.ok());
  ReactorOptions options;
  options.index = index;
  return std::make_unique<Reactor>(options, std::move(made.value().ring), system_clock());
}

template <typename T>
T run_on(Reactor& reactor, std::function<Task<T>()> make) {
  std::promise<T> promise;
  reactor.post([&promise, &make] {
    spawn([](std::promise<T>* out, std::function<Task<T>()>* task) -> Task<void> {
      out->set_value(co_await (*task)());
    }(&promise, &make));
  });
  return promise.get_future().get();
}

// Writes its stripe of every cluster, then reads all of it back. Its number of failures.
Task<int> writer(std::shared_ptr<Lvol> lvol, uint32_t number) {
  auto channel = co_await lvol->open_channel();
  if (!channel.ok()) co_return 1000;
  int failures = 0;
  AlignedBuffer data(kStripe);
  std::memset(data.data(), static_cast<int>(number + 1), data.size());
  for (uint32_t i = 0; i < kClusters; ++i) {
    const uint64_t offset = i * kMiB + number * kStripe;
    const IoStatus status = co_await write(*channel.value(), offset, data.data(), kStripe, false);
    if (!status.ok()) ++failures;
  }
  for (uint32_t i = 0; i < kClusters; ++i) {
    const uint64_t offset = i * kMiB + number * kStripe;
    const IoStatus status = co_await read(*channel.value(), offset, data.data(), kStripe);
    if (!status.ok()) ++failures;
    for (size_t at = 0; at < kStripe; ++at) failures += data.data()[at] != number + 1 ? 1 : 0;
  }
  co_return failures;
}

TEST(LvolThreads, FirstWritesFromManyCoresWhileTheLvolGrows) {
  std::vector<std::unique_ptr<Reactor>> all;
  for (uint32_t i = 0; i <= kWriters; ++i) all.push_back(make_reactor(i));
  Reactors reactors(std::move(all));
  reactors.start();
  std::shared_ptr<LvolStore> store;
  std::shared_ptr<Lvol> lvol;
  const auto set_up = [&]() -> Task<int> {
    auto base = co_await create_malloc_bdev("malloc:///lvol-threads?size_mb=64");
    CHECK(base.ok());
    LvolStoreOptions options;
    options.name = "pool";
    options.cluster_size = kMiB;
    auto made = co_await LvolStore::create(base.take(), options);
    CHECK(made.ok());
    store = made.take();
    LvolOptions lvol_options;
    lvol_options.name = "lvol";
    lvol_options.uuid = Uuid::from_name("lvol");
    lvol_options.size_bytes = kClusters * kMiB;
    lvol_options.thin = true;
    auto created = co_await store->create_lvol(lvol_options);
    CHECK(created.ok());
    lvol = created.take();
    co_return 0;
  };
  run_on<int>(reactors.home(), set_up);
  std::vector<std::future<int>> results;
  for (uint32_t i = 0; i < kWriters; ++i) {
    results.push_back(std::async(std::launch::async, [&reactors, &lvol, i] {
      return run_on<int>(reactors.at(i + 1), [&lvol, i] { return writer(lvol, i); });
    }));
  }
  const auto change = [&]() -> Task<int> {
    int failures = 0;
    for (uint64_t i = 1; i <= 8; ++i) {
      const Uuid uuid = lvol->uuid();
      auto grown = co_await store->resize_lvol(uuid, (kClusters + i) * kMiB);
      const std::string value = std::to_string(i);
      auto set = co_await lvol->set_property("entity_id", value);
      failures += grown.ok() && set.ok() ? 0 : 1;
    }
    co_return failures;
  };
  EXPECT_EQ(run_on<int>(reactors.home(), change), 0);
  for (auto& result : results) EXPECT_EQ(result.get(), 0);
  const IoStats stats = lvol->stats();
  EXPECT_EQ(stats.write_ops, kWriters * kClusters);
  const auto tear_down = [&]() -> Task<int> {
    EXPECT_EQ(lvol->allocated_clusters(), kClusters);
    EXPECT_EQ(lvol->property("entity_id"), "8");
    EXPECT_EQ(store->audit(), "");
    auto exported = co_await store->export_store();
    EXPECT_TRUE(exported.ok());
    lvol.reset();
    store.reset();
    co_return 0;
  };
  run_on<int>(reactors.home(), tear_down);
  reactors.stop_and_join();
}

}  // namespace
}  // namespace mayastor

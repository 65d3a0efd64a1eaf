// For the tests of this layer: a simulated machine with one disk, and I/O on a lvol as single
// calls.
#pragma once
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "bdev/builtin.h"
#include "core/sim_harness.h"
#include "lvs/lvol.h"
#include "lvs/lvol_store.h"

namespace mayastor {

inline constexpr uint64_t kTestMiB = 1u << 20;

inline Uuid test_uuid(uint32_t number) {
  return Uuid::from_name("lvol-" + std::to_string(number));
}

class LvsRig {
 public:
  explicit LvsRig(uint64_t seed = 1, SimDiskOptions options = {.size_bytes = 64 * kTestMiB},
                  uint32_t reactors = 1)
      : sim(seed, reactors), disk(sim.world().add_disk("/dev/d0", options)) {}

  std::shared_ptr<Bdev> open_disk(const std::string& query = "") {
    auto bdev = sim.run(create_file_bdev("aio:///dev/d0" + query));
    if (!bdev.ok()) ADD_FAILURE() << bdev.error().message;
    return bdev.take();
  }
  std::shared_ptr<LvolStore> create(uint32_t cluster_size = kTestMiB) {
    LvolStoreOptions options;
    options.name = "pool";
    options.cluster_size = cluster_size;
    auto store = sim.run(LvolStore::create(open_disk(), options));
    if (!store.ok()) ADD_FAILURE() << store.error().message;
    return store.take();
  }
  std::shared_ptr<LvolStore> import() {
    auto store = sim.run(LvolStore::import(open_disk(), "pool", std::nullopt));
    if (!store.ok()) ADD_FAILURE() << store.error().message << " seed " << sim.world().seed();
    return store.take();
  }
  Result<std::shared_ptr<Lvol>> try_lvol(const std::shared_ptr<LvolStore>& store, uint32_t number,
                                         uint64_t size_bytes, bool thin) {
    LvolOptions options;
    options.name = "lvol-" + std::to_string(number);
    options.uuid = test_uuid(number);
    options.size_bytes = size_bytes;
    options.thin = thin;
    return sim.run(store->create_lvol(options));
  }
  std::shared_ptr<Lvol> lvol(const std::shared_ptr<LvolStore>& store, uint32_t number,
                             uint64_t size_bytes, bool thin) {
    auto made = try_lvol(store, number, size_bytes, thin);
    if (!made.ok()) ADD_FAILURE() << made.error().message;
    return made.take();
  }
  std::unique_ptr<Channel> channel(const std::shared_ptr<Bdev>& bdev, size_t reactor = 0) {
    auto opened = sim.run_on(sim.reactor(reactor), bdev->open_channel());
    if (!opened.ok()) ADD_FAILURE() << opened.error().message;
    return opened.take();
  }
  IoStatus write(Channel& channel, uint64_t offset, uint64_t length, uint8_t fill, bool fua = false,
                 size_t reactor = 0) {
    std::vector<uint8_t> data(length, fill);
    return sim.run_on(sim.reactor(reactor),
                      mayastor::write(channel, offset, data.data(), length, fua));
  }
  // The byte all of the range holds, or -1 when it differs or the read fails.
  int read(Channel& channel, uint64_t offset, uint64_t length, size_t reactor = 0) {
    std::vector<uint8_t> data(length, 0xEE);
    const IoStatus status =
        sim.run_on(sim.reactor(reactor), mayastor::read(channel, offset, data.data(), length));
    if (!status.ok()) return -1;
    for (const uint8_t byte : data) {
      if (byte != data[0]) return -1;
    }
    return data[0];
  }

  Sim sim;
  SimDisk& disk;
};

}  // namespace mayastor

// Pools and lvols on a simulated disk: life cycle, data, refusals.
#include "lvs/lvol_store.h"

#include <cerrno>
#include <cstring>

#include "lvs/device_probe.h"
#include "lvs/format.h"
#include "lvs/lvs_test_support.h"

namespace mayastor {
namespace {

constexpr uint64_t kMiB = kTestMiB;
// Metadata region of a 64 MiB pool with 1 MiB clusters: masks on pages 1-3, so it starts at page 4.
constexpr uint64_t kRegion = 4 * 4096;

TEST(LvolStore, CreatedPoolIsEmptyAndImportsAgainCleanOrNot) {
  LvsRig rig;
  auto store = rig.create();
  EXPECT_EQ(store->name(), "pool");
  EXPECT_EQ(store->total_clusters(), 63u);
  EXPECT_EQ(store->free_clusters(), 63u);
  EXPECT_EQ(store->capacity_bytes(), 63 * kMiB);
  EXPECT_EQ(store->used_bytes(), 0u);
  EXPECT_EQ(store->metadata_pages(), 64u);
  EXPECT_EQ(store->free_metadata_pages(), 63u);
  const Uuid uuid = store->uuid();
  ASSERT_TRUE(rig.sim.run(store->export_store()).ok());
  EXPECT_FALSE(store->loaded());
  store.reset();
  store = rig.import();
  EXPECT_EQ(store->uuid(), uuid);
  store.reset();  // no export: as after kill -9
  store = rig.import();
  EXPECT_EQ(store->uuid(), uuid);
  EXPECT_EQ(store->free_clusters(), 63u);
}

TEST(LvolStore, ThickLvolKeepsDataAndSpaceAcrossImports) {
  LvsRig rig;
  auto store = rig.create();
  auto lvol = rig.lvol(store, 1, 10 * kMiB + 512, false);
  EXPECT_EQ(lvol->size_bytes(), 11 * kMiB);
  EXPECT_EQ(lvol->allocated_clusters(), 11u);
  EXPECT_EQ(store->free_clusters(), 52u);
  EXPECT_EQ(store->committed_bytes(), 11 * kMiB);
  EXPECT_FALSE(lvol->thin());
  EXPECT_FALSE(lvol->allocated_bytes().has_value());
  {
    auto channel = rig.channel(lvol);
    EXPECT_EQ(rig.read(*channel, 0, 11 * kMiB), 0);
    EXPECT_TRUE(rig.write(*channel, kMiB - 4096, 3 * kMiB, 0x5A).ok());
    EXPECT_EQ(rig.read(*channel, kMiB - 4096, 3 * kMiB), 0x5A);
    EXPECT_EQ(rig.read(*channel, 0, kMiB - 4096), 0);
    EXPECT_EQ(lvol->stats().write_ops, 1u);
    EXPECT_EQ(lvol->stats().write_bytes, 3 * kMiB);
  }
  for (const bool clean : {true, false}) {
    if (clean) {
      ASSERT_TRUE(rig.sim.run(store->export_store()).ok());
    }
    lvol.reset();
    store.reset();
    store = rig.import();
    lvol = store->find_lvol("lvol-1");
    ASSERT_NE(lvol, nullptr);
    EXPECT_EQ(lvol->uuid(), test_uuid(1));
    EXPECT_EQ(store->free_clusters(), 52u);
    auto channel = rig.channel(lvol);
    EXPECT_EQ(rig.read(*channel, kMiB - 4096, 3 * kMiB), 0x5A);
  }
}

TEST(LvolStore, LvolMeasuresEveryRequestAsItsDiskDoes) {
  LvsRig rig;
  auto store = rig.create();
  auto lvol = rig.lvol(store, 1, 4 * kMiB, false);
  auto channel = rig.channel(lvol);
  store->base()->reset_stats();
  for (uint64_t i = 0; i < 40; ++i) EXPECT_EQ(rig.read(*channel, i * 4096, 4096), 0);
  for (uint64_t i = 0; i < 24; ++i) EXPECT_TRUE(rig.write(*channel, i * 4096, 4096, 0x11).ok());
  IoLatencies lvols, disks;
  lvol->add_latencies(lvols);
  store->base()->add_latencies(disks);
  EXPECT_EQ(lvols.read.counts, disks.read.counts);
  EXPECT_EQ(lvols.write.counts, disks.write.counts);
  EXPECT_EQ(lvols.read.sum_ns, disks.read.sum_ns);
  EXPECT_EQ(lvols.read.sum_ns, lvol->stats().read_latency_ns);
  EXPECT_GT(lvols.write.sum_ns, 0u);
}

TEST(LvolStore, ThinLvolTakesClustersOnFirstWriteAndReadsZeroElsewhere) {
  LvsRig rig;
  // Old data under every cluster: none of it may shine through.
  const std::vector<uint8_t> old(kMiB, 0xCC);
  for (uint64_t at = 2 * kMiB; at < 64 * kMiB; at += kMiB) rig.disk.poke(at, old.data(), kMiB);
  auto store = rig.create();
  auto lvol = rig.lvol(store, 1, 40 * kMiB, true);
  EXPECT_TRUE(lvol->thin());
  EXPECT_EQ(store->free_clusters(), 63u);
  auto channel = rig.channel(lvol);
  EXPECT_EQ(rig.read(*channel, 0, 40 * kMiB), 0);
  EXPECT_TRUE(rig.write(*channel, 5 * kMiB + 4096, 512, 0x77).ok());
  EXPECT_EQ(lvol->allocated_clusters(), 1u);
  EXPECT_EQ(store->free_clusters(), 62u);
  EXPECT_EQ(rig.read(*channel, 5 * kMiB, 4096), 0);
  EXPECT_EQ(rig.read(*channel, 5 * kMiB + 4096, 512), 0x77);
  EXPECT_EQ(rig.read(*channel, 5 * kMiB + 4608, kMiB - 4608), 0);
  EXPECT_EQ(rig.read(*channel, 6 * kMiB, 34 * kMiB), 0);
  // Over three clusters, the middle of which is there.
  EXPECT_TRUE(rig.write(*channel, 4 * kMiB + 512, 2 * kMiB, 0x78).ok());
  EXPECT_EQ(rig.read(*channel, 4 * kMiB + 512, 2 * kMiB), 0x78);
  EXPECT_EQ(lvol->allocated_clusters(), 3u);
  EXPECT_EQ(lvol->allocated_bytes(), 3 * kMiB);
  // Zeroes where nothing is need no cluster.
  EXPECT_TRUE(rig.sim.run(write_zeroes(*channel, 20 * kMiB, 5 * kMiB)).ok());
  EXPECT_TRUE(rig.sim.run(unmap(*channel, 3 * kMiB, 2 * kMiB)).ok());
  EXPECT_EQ(lvol->allocated_clusters(), 3u);
  EXPECT_EQ(rig.read(*channel, 3 * kMiB, 2 * kMiB), 0);
  EXPECT_EQ(rig.read(*channel, 5 * kMiB, kMiB), 0x78);
}

TEST(LvolStore, ThinLvolSurvivesKillWithItsMap) {
  LvsRig rig;
  auto store = rig.create();
  auto lvol = rig.lvol(store, 1, 40 * kMiB, true);
  {
    auto channel = rig.channel(lvol);
    for (uint32_t i = 0; i < 40; i += 3) {
      EXPECT_TRUE(rig.write(*channel, i * kMiB + 512 * i, 512, static_cast<uint8_t>(i + 1)).ok());
    }
  }
  lvol.reset();
  store.reset();
  store = rig.import();
  lvol = store->find_lvol(test_uuid(1));
  ASSERT_NE(lvol, nullptr);
  EXPECT_EQ(lvol->allocated_clusters(), 14u);
  auto channel = rig.channel(lvol);
  for (uint32_t i = 0; i < 40; i += 3) {
    EXPECT_EQ(rig.read(*channel, i * kMiB + 512 * i, 512), static_cast<int>(i + 1));
    EXPECT_EQ(rig.read(*channel, i * kMiB + 512 * (i + 1), 4096), 0);
  }
}

TEST(LvolStore, FullPoolAnswersNoSpaceToThinWritesAndKeepsServingReads) {
  LvsRig rig;
  auto store = rig.create();
  auto thick = rig.lvol(store, 1, 60 * kMiB, false);
  auto thin = rig.lvol(store, 2, 10 * kMiB, true);
  auto channel = rig.channel(thin);
  for (uint64_t i = 0; i < 3; ++i) EXPECT_TRUE(rig.write(*channel, i * kMiB, 4096, 1).ok());
  EXPECT_TRUE(rig.write(*channel, 3 * kMiB, 4096, 1).is(io_status::kNoSpace));
  EXPECT_EQ(rig.read(*channel, 3 * kMiB, 4096), 0);
  EXPECT_TRUE(rig.write(*channel, 4096, 4096, 2).ok());
  channel.reset();
  ASSERT_TRUE(rig.sim.run(store->destroy_lvol(test_uuid(1))).ok());
  channel = rig.channel(thin);
  EXPECT_TRUE(rig.write(*channel, 3 * kMiB, 4096, 1).ok());
}

TEST(LvolStore, ConcurrentFirstWritesToOneClusterShareIt) {
  LvsRig rig(3, {.size_bytes = 64 * kMiB}, 3);
  auto store = rig.create();
  auto lvol = rig.lvol(store, 1, 8 * kMiB, true);
  std::vector<std::unique_ptr<Channel>> channels;
  for (size_t i = 0; i < 3; ++i) channels.push_back(rig.channel(lvol, i));
  std::vector<std::vector<uint8_t>> data;
  for (uint8_t i = 0; i < 24; ++i) data.emplace_back(8192, static_cast<uint8_t>(i + 1));
  uint32_t done = 0;
  const auto one = [](Channel* channel, uint64_t offset, const uint8_t* bytes,
                      uint32_t* count) -> Task<void> {
    const IoStatus status = co_await write(*channel, offset, bytes, 8192, false);
    EXPECT_TRUE(status.ok());
    ++*count;
  };
  for (uint32_t i = 0; i < 24; ++i) {
    const Reactor::Scope scope(rig.sim.reactor(i % 3));
    spawn(one(channels[i % 3].get(), (i / 12) * kMiB + i * 8192, data[i].data(), &done));
  }
  ASSERT_TRUE(rig.sim.run_until([&done] { return done == 24; }));
  EXPECT_EQ(lvol->allocated_clusters(), 2u);
  for (uint32_t i = 0; i < 24; ++i) {
    EXPECT_EQ(rig.read(*channels[0], (i / 12) * kMiB + i * 8192, 8192), static_cast<int>(i + 1));
  }
  for (size_t i = 0; i < 3; ++i) {
    const Reactor::Scope scope(rig.sim.reactor(i));
    channels[i].reset();
  }
}

TEST(LvolStore, DestroyedLvolGivesSpaceBackAndNewLvolReadsZero) {
  for (const bool discard : {true, false}) {
    LvsRig rig(1, {.size_bytes = 64 * kMiB, .supports_discard = discard});
    auto store = rig.create();
    auto lvol = rig.lvol(store, 1, 12 * kMiB, false);
    {
      auto channel = rig.channel(lvol);
      EXPECT_TRUE(rig.write(*channel, 0, 12 * kMiB, 0x11).ok());
      auto refused = rig.sim.run(store->destroy_lvol(test_uuid(1)));
      ASSERT_FALSE(refused.ok());
      EXPECT_EQ(refused.error().code, ErrorCode::kFailedPrecondition);
    }
    ASSERT_TRUE(rig.sim.run(store->destroy_lvol(test_uuid(1))).ok());
    EXPECT_EQ(store->free_clusters(), 63u);
    EXPECT_EQ(store->free_metadata_pages(), 63u);
    EXPECT_FALSE(rig.sim.run(lvol->open_channel()).ok());
    EXPECT_EQ(rig.sim.run(store->destroy_lvol(test_uuid(1))).error().code, ErrorCode::kNotFound);
    lvol = rig.lvol(store, 2, 12 * kMiB, false);
    auto channel = rig.channel(lvol);
    EXPECT_EQ(rig.read(*channel, 0, 8 * kMiB), 0);  // without unmap only the start is wiped
    if (discard) {
      EXPECT_EQ(rig.read(*channel, 8 * kMiB, 4 * kMiB), 0);
    }
  }
}

// Takes an unmap for a hint that it does not follow, as a remote namespace may.
class HintedBdev final : public Bdev {
 public:
  explicit HintedBdev(std::shared_ptr<Bdev> base) : base_(std::move(base)) {}
  const std::string& name() const noexcept override { return base_->name(); }
  const Uuid& uuid() const noexcept override { return base_->uuid(); }
  std::string product_name() const override { return "Hinted"; }
  std::string uri() const override { return base_->uri(); }
  uint32_t block_size() const noexcept override { return base_->block_size(); }
  uint64_t size_bytes() const noexcept override { return base_->size_bytes(); }
  bool supports(IoType type) const noexcept override { return base_->supports(type); }
  bool has_volatile_cache() const noexcept override { return base_->has_volatile_cache(); }
  IoStats stats() const override { return base_->stats(); }
  void reset_stats() noexcept override { base_->reset_stats(); }
  Task<Result<std::unique_ptr<Channel>>> open_channel() override {
    auto base = co_await base_->open_channel();
    if (!base.ok()) co_return base.error();
    std::unique_ptr<Channel> channel = std::make_unique<HintedChannel>(base.take());
    co_return channel;
  }

 private:
  class HintedChannel final : public Channel {
   public:
    explicit HintedChannel(std::unique_ptr<Channel> base) : base_(std::move(base)) {}
    void submit(Io* io) noexcept override {
      if (io->type == IoType::kUnmap) {
        io->complete(io_status::kOk);
      } else {
        base_->submit(io);
      }
    }

   private:
    std::unique_ptr<Channel> base_;
  };
  std::shared_ptr<Bdev> base_;
};

TEST(LvolStore, NewLvolReadsZeroWhereUnmapLeavesOldDataBehind) {
  LvsRig rig;
  LvolStoreOptions options;
  options.name = "pool";
  options.cluster_size = kMiB;
  auto made =
      rig.sim.run(LvolStore::create(std::make_shared<HintedBdev>(rig.open_disk()), options));
  ASSERT_TRUE(made.ok()) << made.error().message;
  auto store = made.take();
  auto lvol = rig.lvol(store, 1, 12 * kMiB, false);
  { EXPECT_TRUE(rig.write(*rig.channel(lvol), 0, 12 * kMiB, 0x11).ok()); }
  ASSERT_TRUE(rig.sim.run(store->destroy_lvol(test_uuid(1))).ok());
  lvol = rig.lvol(store, 2, 12 * kMiB, false);
  EXPECT_EQ(rig.read(*rig.channel(lvol), 0, 12 * kMiB), 0);
}

TEST(LvolStore, ResizeGrowsThickAndThinAndShrinksWhenIdle) {
  LvsRig rig(1, {.size_bytes = 2048 * kMiB});
  auto store = rig.create();
  const uint64_t free = store->free_clusters();
  auto thick = rig.lvol(store, 1, 500 * kMiB, false);
  auto thin = rig.lvol(store, 2, 500 * kMiB, true);
  {
    auto a = rig.channel(thick), b = rig.channel(thin);
    EXPECT_TRUE(rig.write(*a, 499 * kMiB, kMiB, 1).ok());
    EXPECT_TRUE(rig.write(*b, 499 * kMiB, kMiB, 2).ok());
    EXPECT_TRUE(rig.sim.run(store->resize_lvol(test_uuid(1), 600 * kMiB)).ok());
    EXPECT_TRUE(rig.sim.run(store->resize_lvol(test_uuid(2), 600 * kMiB)).ok());
    EXPECT_TRUE(rig.write(*a, 500 * kMiB - 4096, 4096 + kMiB, 3).ok());
    EXPECT_TRUE(rig.write(*b, 560 * kMiB, kMiB, 4).ok());
    EXPECT_EQ(rig.sim.run(store->resize_lvol(test_uuid(2), 400 * kMiB)).error().code,
              ErrorCode::kFailedPrecondition);
  }
  thick.reset();
  thin.reset();
  store.reset();
  store = rig.import();
  thick = store->find_lvol(test_uuid(1));
  thin = store->find_lvol(test_uuid(2));
  EXPECT_EQ(thick->size_bytes(), 600 * kMiB);
  EXPECT_EQ(store->free_clusters(), free - 602);
  {
    auto a = rig.channel(thick), b = rig.channel(thin);
    EXPECT_EQ(rig.read(*a, 499 * kMiB, kMiB - 4096), 1);
    EXPECT_EQ(rig.read(*a, 500 * kMiB - 4096, 4096 + kMiB), 3);
    EXPECT_EQ(rig.read(*b, 499 * kMiB, kMiB), 2);
    EXPECT_EQ(rig.read(*b, 560 * kMiB, kMiB), 4);
    EXPECT_EQ(rig.read(*b, 500 * kMiB, 60 * kMiB), 0);
  }
  EXPECT_TRUE(rig.sim.run(store->resize_lvol(test_uuid(1), 100 * kMiB)).ok());
  EXPECT_TRUE(rig.sim.run(store->resize_lvol(test_uuid(2), 100 * kMiB)).ok());
  EXPECT_EQ(store->free_clusters(), free - 100);
  ASSERT_TRUE(rig.sim.run(store->export_store()).ok());
  thick.reset();
  thin.reset();
  store = rig.import();
  EXPECT_EQ(store->find_lvol(test_uuid(1))->num_clusters(), 100u);
  EXPECT_EQ(store->free_clusters(), free - 100);
}

TEST(LvolStore, PropertiesAreDurableAndNamesProtected) {
  LvsRig rig;
  auto store = rig.create();
  auto lvol = rig.lvol(store, 1, kMiB, true);
  EXPECT_EQ(lvol->property("shared"), std::nullopt);
  EXPECT_TRUE(rig.sim.run(lvol->set_property("shared", "true")).ok());
  EXPECT_TRUE(rig.sim.run(lvol->set_property("entity_id", "volume-1")).ok());
  // Long lists need chain pages.
  const std::string hosts(3900, 'n');
  EXPECT_TRUE(rig.sim.run(lvol->set_property("allowed-hosts", hosts)).ok());
  EXPECT_TRUE(rig.sim.run(lvol->set_property("entity_id", std::nullopt)).ok());
  EXPECT_FALSE(rig.sim.run(lvol->set_property("uuid", "x")).ok());
  EXPECT_FALSE(rig.sim.run(lvol->set_property("big", std::string(4080, 'x'))).ok());
  lvol.reset();
  store.reset();
  store = rig.import();
  lvol = store->find_lvol(test_uuid(1));
  EXPECT_EQ(lvol->property("shared"), "true");
  EXPECT_EQ(lvol->property("allowed-hosts"), hosts);
  EXPECT_EQ(lvol->property("entity_id"), std::nullopt);
}

TEST(LvolStore, ImportTellsApartWhatIsWrong) {
  LvsRig rig;
  auto base = rig.open_disk();
  auto none = rig.sim.run(LvolStore::import(base, "pool", std::nullopt));
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
  LvolStoreOptions options;
  options.name = "pool";
  options.cluster_size = kMiB;
  { ASSERT_TRUE(rig.sim.run(LvolStore::create(base, options)).ok()); }
  auto other = rig.sim.run(LvolStore::import(base, "lake", std::nullopt));
  EXPECT_EQ(other.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(other.error().message.find("'pool'"), std::string::npos);
  auto wrong = rig.sim.run(LvolStore::import(base, "pool", test_uuid(9)));
  EXPECT_EQ(wrong.error().code, ErrorCode::kInvalidArgument);
  auto again = rig.sim.run(LvolStore::create(base, options));
  EXPECT_EQ(again.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(again.error().message.find("'pool'"), std::string::npos);
  rig.disk.flip_bit(30, 0);  // cluster size
  auto torn = rig.sim.run(LvolStore::import(base, "pool", std::nullopt));
  EXPECT_EQ(torn.error().code, ErrorCode::kInternal);
  EXPECT_NE(torn.error().message.find("checksum"), std::string::npos);
  EXPECT_EQ(rig.sim.run(LvolStore::create(base, options)).error().code,
            ErrorCode::kInvalidArgument);
}

// A disk that is gone for a moment (an offline SCSI disk answers ENODEV, a removed one ENXIO).
TEST(LvolStore, DiskThatCannotBeReadIsNeverTakenForAnEmptyOne) {
  for (const int32_t error_number : {ENODEV, ENXIO, ENODATA, EILSEQ, ENOLINK, EIO}) {
    // The more reads fail, the later the disk is back: at no point may that look like no pool.
    for (uint32_t failures = 1; failures <= 4; ++failures) {
      LvsRig rig;
      auto store = rig.create();
      auto lvol = rig.lvol(store, 1, 4 * kMiB, true);
      ASSERT_TRUE(rig.sim.run(store->export_store()).ok());
      lvol.reset(), store.reset();
      const uint64_t mutations = rig.disk.mutation_count();
      uint32_t left = failures;
      rig.disk.set_fault_hook([&left, error_number](const SimDiskOp& op) -> int32_t {
        if (op.type != SimDiskOpType::kRead || op.offset != 0 || left == 0) return 0;
        --left;
        return -error_number;
      });
      const std::string where = std::to_string(error_number) + ", " + std::to_string(failures);
      auto base = rig.open_disk();
      auto imported = rig.sim.run(LvolStore::import(base, "pool", std::nullopt));
      ASSERT_FALSE(imported.ok()) << where;
      EXPECT_EQ(imported.error().code, ErrorCode::kUnavailable) << where;
      LvolStoreOptions options;
      options.name = "pool";
      options.cluster_size = kMiB;
      auto made = rig.sim.run(LvolStore::create(base, options));
      ASSERT_FALSE(made.ok()) << where;
      EXPECT_EQ(made.error().message.find("damaged"), std::string::npos) << made.error().message;
      EXPECT_EQ(rig.disk.mutation_count(), mutations) << where;
      base.reset();
      rig.disk.set_fault_hook(nullptr);
      EXPECT_EQ(rig.import()->lvols().size(), 1u) << where;
    }
  }
}

TEST(LvolStore, ThinLvolWhoseDiskWasPulledHasNotRunOutOfSpace) {
  LvsRig rig;
  auto store = rig.create();
  auto lvol = rig.lvol(store, 1, 8 * kMiB, true);
  uint32_t pool_told = 0, lvol_told = 0;
  store->set_lost_handler([&] { pool_told = 1 + lvol_told; });
  lvol->set_removed_handler([&](IoStatus why) {
    ++lvol_told;
    EXPECT_TRUE(why.is(io_status::kWriteFault));
  });
  auto channel = rig.channel(lvol);
  EXPECT_TRUE(rig.write(*channel, 0, 4096, 1).ok());
  EXPECT_FALSE(store->failed());
  rig.sim.world().remove_disk_path("/dev/d0");
  EXPECT_TRUE(rig.write(*channel, 0, 4096, 2).is(io_status::kWriteFault));         // has a cluster
  EXPECT_TRUE(rig.write(*channel, 3 * kMiB, 4096, 3).is(io_status::kWriteFault));  // wants one
  rig.sim.run_for(1'000'000);
  EXPECT_EQ(pool_told, 1u) << "once, and before its lvols";
  EXPECT_EQ(lvol_told, 1u);
  EXPECT_TRUE(store->failed());
}

// Memory that the kernel has not got is no space that the pool has not got.
TEST(LvolStore, ThinWriteWhoseMetadataWriteFailsIsNotOutOfSpace) {
  for (const int32_t error_number : {ENOMEM, EIO, ENODEV}) {
    LvsRig rig;
    auto store = rig.create();
    auto lvol = rig.lvol(store, 1, 8 * kMiB, true);
    auto channel = rig.channel(lvol);
    rig.disk.set_fault_hook([error_number](const SimDiskOp& op) {
      const bool metadata = op.offset >= kRegion && op.offset < kMiB;
      return op.type == SimDiskOpType::kWrite && metadata ? -error_number : 0;
    });
    EXPECT_TRUE(rig.write(*channel, 0, 4096, 1).is(io_status::kWriteFault)) << error_number;
    rig.disk.set_fault_hook(nullptr);
  }
}

TEST(LvolStore, DestroyedPoolCanBeMadeAnew) {
  LvsRig rig;
  auto store = rig.create();
  auto lvol = rig.lvol(store, 1, 5 * kMiB, false);
  {
    auto channel = rig.channel(lvol);
    EXPECT_FALSE(rig.sim.run(store->destroy()).ok());
    EXPECT_FALSE(rig.sim.run(store->export_store()).ok());
    EXPECT_TRUE(rig.write(*channel, 0, 4096, 1).ok());
  }
  ASSERT_TRUE(rig.sim.run(store->destroy()).ok());
  EXPECT_FALSE(rig.sim.run(lvol->set_property("shared", "true")).ok());
  EXPECT_FALSE(rig.sim.run(store->destroy()).ok());
  lvol.reset();
  store.reset();
  store = rig.create();
  EXPECT_TRUE(store->lvols().empty());
}

TEST(LvolStore, CreateLvolRefusesBadRequests) {
  LvsRig rig;
  auto store = rig.create();
  auto kept = rig.lvol(store, 1, kMiB, true);
  EXPECT_EQ(rig.try_lvol(store, 1, kMiB, true).error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(rig.try_lvol(store, 2, 0, true).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(rig.try_lvol(store, 2, 64 * kMiB, true).error().code, ErrorCode::kInvalidArgument);
  auto big = rig.lvol(store, 3, 60 * kMiB, false);
  EXPECT_EQ(rig.try_lvol(store, 4, 4 * kMiB, false).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(store->free_clusters(), 3u);
  EXPECT_TRUE(rig.try_lvol(store, 4, 4 * kMiB, true).ok());
}

TEST(LvolStore, CreateRefusesBadOptionsAndDevices) {
  LvsRig rig(1, {.size_bytes = 3 * kMiB});
  auto base = rig.open_disk();
  const auto refused = [&](LvolStoreOptions options) {
    auto made = rig.sim.run(LvolStore::create(base, options));
    return !made.ok() && made.error().code == ErrorCode::kInvalidArgument;
  };
  LvolStoreOptions options;
  options.name = "pool";
  EXPECT_TRUE(refused(options));  // 4 MiB clusters on 3 MiB
  options.cluster_size = 4096;
  EXPECT_TRUE(refused(options));
  options.cluster_size = kMiB;
  options.name = "";
  EXPECT_TRUE(refused(options));
  options.name = std::string(64, 'x');
  EXPECT_TRUE(refused(options));
  options.name = std::string(63, 'x');
  EXPECT_FALSE(refused(options));
}

struct Foreign {
  uint64_t offset;
  std::string bytes;
  const char* name;
};
TEST(LvolStore, CreateRefusesDevicesWithSomebodysData) {
  const uint64_t size = 64 * kMiB;
  const Foreign all[] = {
      {1080, "\x53\xef", "ext2"},
      {0, "XFSB", "XFS"},
      {65600, "_BHRfS_M", "btrfs"},
      {4086, "SWAPSPACE2", "swap"},
      {512, "LABELONE", "LVM2"},
      {0, "LUKS\xba\xbe", "LUKS"},
      {512, "EFI PART", "GPT"},
      {size - 512, "EFI PART", "GPT"},
      {4096, std::string("\xfc\x4e\x2b\xa9", 4), "md raid"},
      {size - 8192, std::string("\xfc\x4e\x2b\xa9", 4), "md raid"},
      {size - 65536, std::string("\xfc\x4e\x2b\xa9", 4), "md raid"},
      {128 << 10, std::string("\x0c\xb1\xba\0\0\0\0\0", 8), "ZFS"},
      {size - (128 << 10), std::string("\x0c\xb1\xba\0\0\0\0\0", 8), "ZFS"},
      {4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", "bcachefs"},
      {1024, "OCFSV2", "OCFS2"},
      {8192, "OCFSV2", "OCFS2"},
      {65536, "\x01\x16\x19\x70", "GFS2"},
      {528, "!Stra0tis\x86\xff\x02^\x41rh", "Stratis"},
      {0, std::string("integrt\0", 8), "dm-integrity"},
      {32769, "BEA01", "UDF"},
      {1024, std::string("H+\0\4", 4), "HFS+"},
      {32, "NXSB", "APFS"},
      {3, "-FVE-FS-", "BitLocker"},
      {1024, std::string("\2\0\0\0\0\0\x34\x34", 8), "NILFS2"},
      {1024, "\xe2\xe1\xf5\xe0", "EROFS"},
      {32, "ORCLDISK", "Oracle ASM"},
      {0, "vhdxfile", "VHDX"},
      {0, "KDMV", "VMDK"},
      {size - 4096 + 60, "\x83\x74\x02\x6b", "DRBD"},
      {446,
       std::string("\0\0\0\0\x83\0\0\0\0\x08\0\0\0\x10\0\0", 16) + std::string(48, '\0') +
           "\x55\xaa",
       "MBR"},
  };
  for (const Foreign& each : all) {
    LvsRig rig;
    rig.disk.poke(each.offset, each.bytes.data(), each.bytes.size());
    LvolStoreOptions options;
    options.name = "pool";
    options.cluster_size = kMiB;
    auto made = rig.sim.run(LvolStore::create(rig.open_disk(), options));
    ASSERT_FALSE(made.ok()) << each.name;
    EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(made.error().message.find(each.name), std::string::npos) << made.error().message;
    EXPECT_NE(made.error().message.find("wipefs"), std::string::npos);
  }
}

TEST(LvolStore, PoolIsRecognisedAsSomebodysData) {
  std::vector<uint8_t> head(4096, 0);
  std::memcpy(head.data(), "SPDKBLOB", 8);
  const auto found = recognise_contents(head, {}, 64 * kMiB);
  ASSERT_TRUE(found.has_value());
  EXPECT_NE(found->find("blobstore"), std::string::npos);
}

TEST(LvolStore, DeviceWith4096ByteBlocksWorks) {
  LvsRig rig(1, {.size_bytes = 64 * kMiB, .block_size = 4096});
  LvolStoreOptions options;
  options.name = "pool";
  options.cluster_size = kMiB;
  auto made = rig.sim.run(LvolStore::create(rig.open_disk("?blk_size=4096"), options));
  ASSERT_TRUE(made.ok()) << made.error().message;
  auto store = made.take();
  auto lvol = rig.lvol(store, 1, 4 * kMiB, true);
  EXPECT_EQ(lvol->block_size(), 4096u);
  { EXPECT_TRUE(rig.write(*rig.channel(lvol), 4096, 4096, 5).ok()); }
  lvol.reset();
  store.reset();
  auto again =
      rig.sim.run(LvolStore::import(rig.open_disk("?blk_size=4096"), "pool", std::nullopt));
  ASSERT_TRUE(again.ok()) << again.error().message;
}

void tear_page(SimDisk& disk, uint32_t page) {
  const std::vector<uint8_t> half(512, 0xA5);
  disk.poke(kRegion + page * 4096u + 1024, half.data(), half.size());
}

TEST(LvolStore, TornRootAndExtentPagesAreRepairedFromTheShadow) {
  LvsRig rig;
  auto store = rig.create();
  auto lvol =
      rig.lvol(store, 1, 8 * kMiB, true);  // root page 1, extent page 2 with its first write
  ASSERT_TRUE(rig.sim.run(lvol->set_property("shared", "true")).ok());
  lvol.reset(), store.reset();
  tear_page(rig.disk, 1);
  store = rig.import();
  lvol = store->find_lvol(test_uuid(1));
  ASSERT_NE(lvol, nullptr);
  EXPECT_EQ(lvol->property("shared"), "true");
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(rig.write(*rig.channel(lvol), i * kMiB, 4096, 0x21, true).ok());
  }
  lvol.reset(), store.reset();
  tear_page(rig.disk, 2);
  store = rig.import();
  lvol = store->find_lvol(test_uuid(1));
  EXPECT_EQ(lvol->allocated_clusters(), 3u);
  EXPECT_EQ(rig.read(*rig.channel(lvol), 2 * kMiB, 4096), 0x21);
}

TEST(LvolStore, TornRootIsRepairedWhereTheBlockSizeIsOnlyAskedFor) {
  LvsRig rig;  // blocks of 512 bytes
  LvolStoreOptions options;
  options.name = "pool";
  options.cluster_size = kMiB;
  auto made = rig.sim.run(LvolStore::create(rig.open_disk("?blk_size=4096"), options));
  ASSERT_TRUE(made.ok()) << made.error().message;
  auto store = made.take();
  auto lvol = rig.lvol(store, 1, 8 * kMiB, true);
  ASSERT_TRUE(rig.sim.run(lvol->set_property("shared", "true")).ok());
  lvol.reset(), store.reset();
  tear_page(rig.disk, 1);
  auto again =
      rig.sim.run(LvolStore::import(rig.open_disk("?blk_size=4096"), "pool", std::nullopt));
  ASSERT_TRUE(again.ok()) << again.error().message;
  lvol = again.value()->find_lvol(test_uuid(1));
  ASSERT_NE(lvol, nullptr);
  EXPECT_EQ(lvol->property("shared"), "true");
}

Result<std::shared_ptr<LvolStore>> try_import(LvsRig& rig) {
  return rig.sim.run(LvolStore::import(rig.open_disk(), "pool", std::nullopt));
}

// A replica must not go silently: the import stops, changes nothing and says how to go on.
TEST(LvolStore, DamagedRootWithoutAShadowStopsTheImportAndNothingIsWritten) {
  LvsRig rig;
  auto store = rig.create();
  auto first = rig.lvol(store, 1, 2 * kMiB, false);   // root page 1, extent page 2
  auto second = rig.lvol(store, 2, 2 * kMiB, false);  // root page 3
  ASSERT_TRUE(rig.sim.run(second->set_property("shared", "true")).ok());
  first.reset(), second.reset(), store.reset();
  std::vector<uint8_t> root(4096);
  rig.disk.peek(kRegion + 4096, root.data(), root.size());
  tear_page(rig.disk, 1);
  const uint64_t mutations = rig.disk.mutation_count();
  for (int again = 0; again < 2; ++again) {
    const auto refused = try_import(rig);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::kInternal);
    const std::string& why = refused.error().message;
    EXPECT_NE(why.find("metadata of blob 1 is damaged"), std::string::npos) << why;
    EXPECT_NE(why.find("dd if=/dev/zero of=<device> bs=4096 count=1 conv=notrunc,fsync seek=5"),
              std::string::npos)
        << why;
    EXPECT_EQ(rig.disk.mutation_count(), mutations);
  }
  // Either the page can be had again,
  rig.disk.poke(kRegion + 4096, root.data(), root.size());
  store = rig.import();
  EXPECT_EQ(store->lvols().size(), 2u);
  store.reset();
  // or the replica is given up, as the message says.
  const std::vector<uint8_t> zeroes(4096);
  rig.disk.poke(5 * 4096, zeroes.data(), zeroes.size());
  store = rig.import();
  EXPECT_EQ(store->lvols().size(), 1u);
  EXPECT_EQ(store->free_clusters(), 63u - 2u);
  EXPECT_EQ(store->audit(), "");
}

// The metadata region of a crashed pool, put back after each import.
class TornRoot {
 public:
  static constexpr uint64_t kBytes = kRegion + 64 * 4096;
  TornRoot(LvsRig& rig, uint32_t page) : rig_(rig), page_(page), all_(kBytes) {
    rig_.disk.peek(0, all_.data(), all_.size());
  }
  // Imports with those blocks of the page new whose bits are set, the others old.
  std::shared_ptr<LvolStore> import(uint32_t blocks, const std::vector<uint8_t>& before,
                                    const std::vector<uint8_t>& after) {
    rig_.disk.poke(0, all_.data(), all_.size());
    for (uint32_t i = 0; i < 8; ++i) {
      const std::vector<uint8_t>& from = (blocks & 1u << i) != 0 ? after : before;
      rig_.disk.poke(kRegion + page_ * 4096u + i * 512u, from.data() + i * 512u, 512);
    }
    auto imported = try_import(rig_);
    EXPECT_TRUE(imported.ok()) << imported.error().message << ", blocks " << blocks;
    if (!imported.ok()) return nullptr;
    auto store = imported.take();
    EXPECT_EQ(store->audit(), "") << blocks;
    EXPECT_NE(store->find_lvol(test_uuid(1)), nullptr) << blocks;
    return store;
  }

 private:
  LvsRig& rig_;
  const uint32_t page_;
  std::vector<uint8_t> all_;
};

// Long enough for all blocks of the root page to hold something.
LvolOptions wordy_lvol() {
  LvolOptions options;
  options.name = "lvol-2";
  options.uuid = test_uuid(2);
  options.size_bytes = 2 * kMiB;
  for (char key = 'a'; key < 'm'; ++key) {
    options.properties.emplace_back(std::string(1, key), std::string(280, key));
  }
  return options;
}

std::vector<uint8_t> root_page(LvsRig& rig, uint32_t page) {
  std::vector<uint8_t> bytes(4096);
  rig.disk.peek(kRegion + page * 4096u, bytes.data(), bytes.size());
  return bytes;
}

TEST(LvolStore, RootThatWasTornWhileItWasMadeIsMadeOrGone) {
  LvsRig rig;
  auto store = rig.create();
  auto first = rig.lvol(store, 1, 2 * kMiB, false);  // pages 1 and 2
  const std::vector<uint8_t> before = root_page(rig, 3);
  ASSERT_TRUE(lvs_format::all_zero(before));
  ASSERT_TRUE(rig.sim.run(store->create_lvol(wordy_lvol())).ok());
  const std::vector<uint8_t> after = root_page(rig, 3);
  first.reset(), store.reset();
  TornRoot torn(rig, 3);
  for (uint32_t blocks = 0; blocks < 256; ++blocks) {
    store = torn.import(blocks, before, after);
    ASSERT_NE(store, nullptr);
    EXPECT_EQ(store->find_lvol(test_uuid(2)) != nullptr, blocks != 0) << blocks;
    EXPECT_TRUE(store->cut_off_lvols().empty()) << "the shadow is a proof";
    store.reset();
  }
}

TEST(LvolStore, RootThatWasTornWhileItWasDeletedIsGone) {
  LvsRig rig;
  auto store = rig.create();
  auto first = rig.lvol(store, 1, 2 * kMiB, false);
  ASSERT_TRUE(rig.sim.run(store->create_lvol(wordy_lvol())).ok());
  const std::vector<uint8_t> before = root_page(rig, 3);
  // Cut off right after the root page: its extent page is as it was.
  rig.disk.set_fault_hook([](const SimDiskOp& op) {
    return op.type == SimDiskOpType::kWrite && op.offset == kRegion + 4 * 4096 ? -EIO : 0;
  });
  ASSERT_TRUE(rig.sim.run(store->destroy_lvol(test_uuid(2))).ok());
  rig.disk.set_fault_hook(nullptr);
  const std::vector<uint8_t> after = root_page(rig, 3);
  ASSERT_TRUE(lvs_format::all_zero(after));
  first.reset(), store.reset();
  TornRoot torn(rig, 3);
  for (uint32_t blocks = 0; blocks < 256; ++blocks) {
    store = torn.import(blocks, before, after);
    ASSERT_NE(store, nullptr);
    EXPECT_EQ(store->find_lvol(test_uuid(2)) != nullptr, blocks == 0) << blocks;
    EXPECT_TRUE(store->cut_off_lvols().empty()) << "the shadow is a proof";
    store.reset();
  }
}

// As another implementation leaves it, or a pool with a full metadata region: no shadow. The
// checksum's block alone tells, and only when it is all zero.
TEST(LvolStore, RootWithoutAShadowThatHasNoTailWasNeverWholeOrIsBeingDeleted) {
  LvsRig rig;
  auto store = rig.create();
  auto first = rig.lvol(store, 1, 2 * kMiB, false);
  ASSERT_TRUE(rig.sim.run(store->create_lvol(wordy_lvol())).ok());
  const std::vector<uint8_t> whole = root_page(rig, 3), zeroes(4096);
  ASSERT_TRUE(rig.sim.run(first->set_property("shared", "true")).ok());  // the shadow is its
  first.reset(), store.reset();
  TornRoot torn(rig, 3);
  store = torn.import(0x7F, zeroes, whole);
  ASSERT_NE(store, nullptr);
  EXPECT_EQ(store->find_lvol(test_uuid(2)), nullptr);
  EXPECT_EQ(store->cut_off_lvols(), std::vector<uint32_t>{3});
  EXPECT_EQ(store->free_clusters(), 63u - 2u);
  EXPECT_EQ(root_page(rig, 3), zeroes);
  store.reset();
  store = rig.import();  // that was its end
  EXPECT_TRUE(store->cut_off_lvols().empty());
}

TEST(LvolStore, ShadowThatWasGivenUpIsTakenAgainAndLeavesNoOldImage) {
  LvsRig rig(1, {.size_bytes = 8 * kMiB});
  auto store = rig.create();  // eight metadata pages: the super blob's and seven
  auto lvol = rig.lvol(store, 1, 2 * kMiB, true);
  ASSERT_TRUE(rig.sim.run(lvol->set_property("shared", "true")).ok());  // its image: the shadow
  uint32_t number = 2;
  while (rig.try_lvol(store, number, kMiB, true).ok()) ++number;
  EXPECT_EQ(store->free_metadata_pages(), 0u);
  EXPECT_EQ(store->audit(), "");
  ASSERT_TRUE(rig.sim.run(store->destroy_lvol(test_uuid(number - 1))).ok());
  EXPECT_EQ(store->free_metadata_pages(), 1u);
  ASSERT_TRUE(rig.sim.run(lvol->set_property("shared", "again")).ok());
  EXPECT_EQ(store->audit(), "");
  lvol.reset(), store.reset();
  tear_page(rig.disk, 1);
  store = rig.import();
  lvol = store->find_lvol(test_uuid(1));
  ASSERT_NE(lvol, nullptr);
  EXPECT_EQ(lvol->property("shared"), "again");
}

// The last free page was the shadow: what it held must not make a torn root look damaged.
TEST(LvolStore, RootThatIsMadeWhereTheShadowWasIsMadeOrGone) {
  LvsRig rig(1, {.size_bytes = 8 * kMiB});
  auto store = rig.create();  // eight metadata pages: the super blob's, six, the shadow
  for (uint32_t number = 1; number <= 6; ++number) rig.lvol(store, number, kMiB, true);
  ASSERT_EQ(store->free_metadata_pages(), 1u);
  const std::vector<uint8_t> shadow = root_page(rig, 7);
  ASSERT_FALSE(lvs_format::all_zero(shadow));
  std::vector<uint8_t> before;  // when the root is written
  rig.disk.set_fault_hook([&](const SimDiskOp& op) {
    if (op.type == SimDiskOpType::kWrite && op.offset == kRegion + 7 * 4096) {
      before = root_page(rig, 7);
    }
    return 0;
  });
  rig.lvol(store, 7, kMiB, true);
  rig.disk.set_fault_hook(nullptr);
  ASSERT_EQ(store->free_metadata_pages(), 0u);
  const std::vector<uint8_t> after = root_page(rig, 7);
  ASSERT_EQ(before.size(), after.size());
  store.reset();
  TornRoot torn(rig, 7);
  for (uint32_t blocks = 0; blocks < 256; ++blocks) {
    store = torn.import(blocks, before, after);
    ASSERT_NE(store, nullptr);
    EXPECT_EQ(store->lvols().size(), (blocks & 0x81) == 0x81 ? 7u : 6u) << blocks;
    store.reset();
  }
}

TEST(LvolStore, DestroyedLvolIsNotBroughtBackByTheShadow) {
  LvsRig rig;
  auto store = rig.create();
  auto lvol = rig.lvol(store, 1, 8 * kMiB, false);
  ASSERT_TRUE(rig.sim.run(lvol->set_property("shared", "true")).ok());
  ASSERT_TRUE(rig.sim.run(store->destroy_lvol(test_uuid(1))).ok());
  lvol.reset(), store.reset();
  tear_page(rig.disk, 1);  // as a page of somebody else would, there
  store = rig.import();
  EXPECT_TRUE(store->lvols().empty());
  EXPECT_EQ(store->free_clusters(), 63u);
}

TEST(LvolStore, FailedMetadataWriteStopsChangesUntilImport) {
  for (const bool works_again : {true, false}) {
    LvsRig rig;
    auto store = rig.create();
    auto lvol = rig.lvol(store, 1, 4 * kMiB, true);
    rig.disk.set_fault_hook([](const SimDiskOp& op) {
      // The lvol's root page, where it lies; then its shadow is fine.
      return op.type == SimDiskOpType::kWrite && op.offset == kRegion + 4096 ? -EIO : 0;
    });
    EXPECT_FALSE(rig.sim.run(lvol->set_property("shared", "true")).ok());
    {
      auto channel = rig.channel(lvol);
      EXPECT_FALSE(rig.write(*channel, 0, 4096, 1).ok());
      EXPECT_EQ(rig.read(*channel, 0, 4096), 0);
    }
    EXPECT_TRUE(store->failed());
    lvol.reset();
    // The disk still fails, or works again: either way the pool is let go.
    rig.disk.set_fault_hook([works_again](const SimDiskOp& op) {
      return op.type == SimDiskOpType::kWrite && !works_again ? -EIO : 0;
    });
    const auto exported = rig.sim.run(store->export_store());
    EXPECT_TRUE(exported.ok()) << exported.error().message;
    EXPECT_NE(store->unclean_export(), "");
    EXPECT_FALSE(store->loaded());
    store.reset();
    rig.disk.set_fault_hook(nullptr);
    store = rig.import();
    EXPECT_EQ(store->audit(), "");
    EXPECT_FALSE(store->failed());
    lvol = store->find_lvol(test_uuid(1));
    EXPECT_TRUE(rig.sim.run(lvol->set_property("shared", "true")).ok());
    EXPECT_TRUE(rig.sim.run(store->export_store()).ok());
    EXPECT_EQ(store->unclean_export(), "");
  }
}

}  // namespace
}  // namespace mayastor

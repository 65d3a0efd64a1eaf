// Stores as other implementations leave them, built page by page: snapshots and clones, run-length
// blobs, interrupted snapshot operations, interrupted deletes, unknown parts.
#include <cstring>

#include "lvs/format.h"
#include "lvs/lvs_test_support.h"

namespace mayastor {
namespace {

using lvs_format::BlobMetadata;
using lvs_format::Page;

constexpr uint64_t kMiB = kTestMiB;
constexpr uint64_t kSize = 32 * kMiB;

std::string id_value(uint32_t root) {
  const uint64_t id = lvs_format::blob_id_of(root);
  return std::string(reinterpret_cast<const char*>(&id), sizeof id);
}

// Writes metadata straight to the disk; every cluster is filled with its own number.
class Image {
 public:
  explicit Image(SimDisk& disk) : disk_(disk) {
    lvs_format::LayoutOptions options;
    options.device_bytes = kSize;
    options.cluster_size = kMiB;
    super_ = lvs_format::plan_layout(options).take();
    super_.super_blob = lvs_format::blob_id_of(0);
    BlobMetadata super_blob;
    super_blob.set("uuid", lvs_format::uuid_value(Uuid::from_name("foreign")));
    super_blob.set("name", lvs_format::nul_terminated("pool"));
    put(0, super_blob);
    write_super();
    for (uint32_t cluster = super_.md_clusters(); cluster < super_.total_clusters(); ++cluster) {
      const std::vector<uint8_t> data(kMiB, static_cast<uint8_t>(cluster));
      disk_.poke(cluster * kMiB, data.data(), data.size());
    }
  }
  void write_super() {
    Page page{};
    lvs_format::encode_super(super_, page);
    disk_.poke(0, page.data(), page.size());
  }
  void put_page(uint32_t number, const Page& page) {
    disk_.poke((uint64_t{super_.md_start} + number) * 4096, page.data(), page.size());
  }
  void put(uint32_t root, const BlobMetadata& blob, uint32_t chain_from = 20) {
    std::vector<Page> pages = lvs_format::encode_chain(lvs_format::blob_id_of(root), blob);
    std::vector<uint32_t> numbers = {root};
    for (uint32_t i = 1; i < pages.size(); ++i) numbers.push_back(chain_from + i - 1);
    lvs_format::link_chain(pages, numbers);
    for (size_t i = 0; i < pages.size(); ++i) put_page(numbers[i], pages[i]);
  }
  void put_extents(uint32_t page, uint32_t owner, const std::vector<uint32_t>& clusters) {
    put_page(page, lvs_format::encode_extent_page(lvs_format::blob_id_of(owner), 0, clusters));
  }
  [[nodiscard]] bool page_is_zero(uint32_t number) const {
    Page page;
    disk_.peek((uint64_t{super_.md_start} + number) * 4096, page.data(), page.size());
    return lvs_format::all_zero(page);
  }
  lvs_format::SuperBlock super_;

 private:
  SimDisk& disk_;
};

BlobMetadata lvol_blob(uint32_t number, std::vector<uint32_t> clusters, uint32_t extent_page,
                       bool thin) {
  BlobMetadata blob;
  blob.set("name", lvs_format::name_value_padded("lvol-" + std::to_string(number)));
  blob.set("uuid", lvs_format::uuid_value(test_uuid(number)));
  if (thin) blob.invalid_flags |= lvs_format::kInvalidThin;
  blob.clusters = std::move(clusters);
  blob.extent_pages = {extent_page};
  return blob;
}

// Snapshot 1 of (then thick) volume 2, which has overwritten one cluster since; clone 3 of the
// snapshot, larger than it.
void put_family(Image& image) {
  BlobMetadata snapshot = lvol_blob(1, {5, 6, 7}, 2, false);
  snapshot.data_ro_flags = lvs_format::kDataReadOnly;
  snapshot.set("io-engine.snapshot_create_time", "2024-10-01T00:00:00Z");
  image.put_extents(2, 4, snapshot.clusters);  // still names the volume it was taken of
  image.put(1, snapshot);
  BlobMetadata volume = lvol_blob(2, {0, 8, 0}, 3, true);
  volume.set_internal(lvs_format::kXattrParent, id_value(1));
  image.put_extents(3, 4, volume.clusters);
  image.put(4, volume);
  BlobMetadata clone = lvol_blob(3, {0, 0, 0, 0, 0}, 0, true);
  clone.set_internal(lvs_format::kXattrParent, id_value(1));
  clone.set("io-engine.source_uuid", test_uuid(1).to_string());
  image.put(5, clone);
}

TEST(Foreign, SnapshotsAndClonesReadThroughTheirParents) {
  LvsRig rig(1, {.size_bytes = kSize});
  Image image(rig.disk);
  put_family(image);
  auto store = rig.import();
  EXPECT_EQ(store->audit(), "");
  auto snapshot = store->find_lvol(test_uuid(1));
  auto volume = store->find_lvol(test_uuid(2));
  auto clone = store->find_lvol(test_uuid(3));
  ASSERT_TRUE(snapshot != nullptr && volume != nullptr && clone != nullptr);
  EXPECT_TRUE(snapshot->is_snapshot());
  EXPECT_TRUE(snapshot->read_only());
  EXPECT_FALSE(volume->is_snapshot());
  EXPECT_TRUE(clone->is_clone());
  EXPECT_FALSE(volume->is_clone());
  EXPECT_EQ(store->free_clusters(), store->total_clusters() - 4);
  {
    auto s = rig.channel(snapshot), v = rig.channel(volume), c = rig.channel(clone);
    EXPECT_EQ(rig.read(*s, 0, kMiB), 5);
    EXPECT_FALSE(rig.write(*s, 0, 4096, 1).ok());
    EXPECT_EQ(rig.read(*v, 0, kMiB), 5);
    EXPECT_EQ(rig.read(*v, kMiB, kMiB), 8);
    EXPECT_EQ(rig.read(*v, 2 * kMiB, kMiB), 7);
    EXPECT_EQ(rig.read(*c, kMiB, kMiB), 6);
    EXPECT_EQ(rig.read(*c, 3 * kMiB, 2 * kMiB), 0);  // beyond the parent
    // A first write copies the rest of the cluster.
    EXPECT_TRUE(rig.write(*c, kMiB + 4096, 4096, 0x99).ok());
    EXPECT_EQ(rig.read(*c, kMiB, 4096), 6);
    EXPECT_EQ(rig.read(*c, kMiB + 4096, 4096), 0x99);
    EXPECT_EQ(rig.read(*c, kMiB + 8192, kMiB - 8192), 6);
    EXPECT_EQ(rig.read(*s, kMiB, kMiB), 6);
    // Zeroes must hide the parent's data.
    EXPECT_TRUE(rig.sim.run(write_zeroes(*c, 2 * kMiB, 4096)).ok());
    EXPECT_TRUE(rig.sim.run(unmap(*c, 4096, 4096)).ok());
    EXPECT_EQ(rig.read(*c, 2 * kMiB, 4096), 0);
    EXPECT_EQ(rig.read(*c, 2 * kMiB + 4096, 4096), 7);
    EXPECT_EQ(rig.read(*c, 0, 4096), 5);
    EXPECT_EQ(rig.read(*c, 4096, 4096), 0);
    EXPECT_EQ(clone->allocated_clusters(), 3u);
  }
  EXPECT_EQ(rig.sim.run(store->destroy_lvol(test_uuid(1))).error().code,
            ErrorCode::kFailedPrecondition);
  EXPECT_TRUE(rig.sim.run(volume->set_property("shared", "true")).ok());
  for (const bool clean : {true, false}) {
    if (clean) {
      ASSERT_TRUE(rig.sim.run(store->export_store()).ok());
    }
    snapshot.reset(), volume.reset(), clone.reset(), store.reset();
    store = rig.import();
    EXPECT_EQ(store->audit(), "");
    volume = store->find_lvol(test_uuid(2));
    clone = store->find_lvol(test_uuid(3));
    EXPECT_EQ(volume->property("shared"), "true");
    auto v = rig.channel(volume), c = rig.channel(clone);
    EXPECT_EQ(rig.read(*v, 2 * kMiB, kMiB), 7);
    EXPECT_EQ(rig.read(*c, kMiB + 4096, 4096), 0x99);
  }
  EXPECT_TRUE(rig.sim.run(store->destroy_lvol(test_uuid(3))).ok());
  EXPECT_TRUE(rig.sim.run(store->destroy_lvol(test_uuid(2))).ok());
  EXPECT_TRUE(rig.sim.run(store->destroy_lvol(test_uuid(1))).ok());
  EXPECT_EQ(store->free_clusters(), store->total_clusters());
  EXPECT_EQ(store->audit(), "");
}

TEST(Foreign, TornExtentPageIsNotTakenFromTheSnapshotsOne) {
  LvsRig rig(1, {.size_bytes = kSize});
  Image image(rig.disk);
  put_family(image);
  auto store = rig.import();
  auto volume = store->find_lvol(test_uuid(2));
  EXPECT_TRUE(rig.write(*rig.channel(volume), 0, 4096, 0x42, true).ok());
  volume.reset(), store.reset();
  const std::vector<uint8_t> half(512, 0xA5);
  rig.disk.poke((uint64_t{image.super_.md_start} + 3) * 4096 + 1024, half.data(), half.size());
  store = rig.import();
  EXPECT_EQ(store->audit(), "");
  volume = store->find_lvol(test_uuid(2));
  ASSERT_NE(volume, nullptr);
  auto channel = rig.channel(volume);
  EXPECT_EQ(rig.read(*channel, 0, 4096), 0x42);
  EXPECT_EQ(rig.read(*channel, 4096, 4096), 5);
  EXPECT_EQ(rig.read(*channel, kMiB, kMiB), 8);
  EXPECT_EQ(rig.read(*channel, 2 * kMiB, kMiB), 7);
}

TEST(Foreign, TornExtentPageWithoutAShadowStopsTheImport) {
  LvsRig rig(1, {.size_bytes = kSize});
  Image image(rig.disk);
  put_family(image);
  const std::vector<uint8_t> half(512, 0xA5);
  rig.disk.poke((uint64_t{image.super_.md_start} + 3) * 4096 + 1024, half.data(), half.size());
  auto imported = rig.sim.run(LvolStore::import(rig.open_disk(), "pool", std::nullopt));
  ASSERT_FALSE(imported.ok());
  EXPECT_EQ(imported.error().code, ErrorCode::kInternal);
  EXPECT_EQ(rig.disk.mutation_count(), 0u);
}

TEST(Foreign, CloneOfAnExternalSnapshotKeepsWhatItHasAndFailsTheRest) {
  LvsRig rig(1, {.size_bytes = kSize});
  Image image(rig.disk);
  BlobMetadata clone = lvol_blob(1, {0, 5}, 2, true);
  clone.invalid_flags |= lvs_format::kInvalidExternalClone;
  clone.set_internal(lvs_format::kXattrExternalSnapshot, "elsewhere");
  image.put_extents(2, 1, clone.clusters);
  image.put(1, clone);
  auto store = rig.import();
  auto channel = rig.channel(store->find_lvol(test_uuid(1)));
  EXPECT_EQ(rig.read(*channel, 0, 4096), -1);
  EXPECT_EQ(rig.read(*channel, kMiB, 4096), 5);
  EXPECT_TRUE(rig.write(*channel, kMiB, 4096, 1).ok());
  EXPECT_FALSE(rig.write(*channel, 0, 4096, 1).ok());
}

TEST(Foreign, RunLengthBlobsWorkThickAndThin) {
  LvsRig rig(1, {.size_bytes = kSize});
  Image image(rig.disk);
  BlobMetadata thin = lvol_blob(1, {0, 5, 6, 0}, 0, true);
  thin.invalid_flags = lvs_format::kInvalidThin;
  thin.extent_pages.clear();
  image.put(1, thin);
  auto store = rig.import();
  {
    auto channel = rig.channel(store->find_lvol(test_uuid(1)));
    EXPECT_EQ(rig.read(*channel, kMiB, kMiB), 5);
    EXPECT_TRUE(rig.write(*channel, 3 * kMiB, 4096, 0x44).ok());
  }
  EXPECT_TRUE(rig.sim.run(store->resize_lvol(test_uuid(1), 6 * kMiB)).ok());
  store.reset();
  store = rig.import();
  EXPECT_EQ(store->audit(), "");
  auto lvol = store->find_lvol(test_uuid(1));
  EXPECT_EQ(lvol->num_clusters(), 6u);
  EXPECT_EQ(lvol->allocated_clusters(), 3u);
  auto channel = rig.channel(lvol);
  EXPECT_EQ(rig.read(*channel, 3 * kMiB, 4096), 0x44);
  EXPECT_EQ(rig.read(*channel, 2 * kMiB, kMiB), 6);
}

TEST(Foreign, SnapshotCutOffBeforeItsVolumeLetGoIsUndone) {
  LvsRig rig(1, {.size_bytes = kSize});
  Image image(rig.disk);
  // Both have the map; the volume does not name a parent yet.
  BlobMetadata volume = lvol_blob(1, {5, 6}, 2, false);
  image.put_extents(2, 1, volume.clusters);
  image.put(1, volume);
  BlobMetadata snapshot = lvol_blob(2, {5, 6}, 2, false);
  snapshot.set_internal(lvs_format::kXattrSnapshotInProgress, id_value(1));
  image.put(3, snapshot);
  auto store = rig.import();
  EXPECT_EQ(store->audit(), "");
  EXPECT_EQ(store->lvols().size(), 1u);
  EXPECT_EQ(store->free_clusters(), store->total_clusters() - 2);
  EXPECT_TRUE(image.page_is_zero(3));
  EXPECT_FALSE(image.page_is_zero(2));
  auto channel = rig.channel(store->find_lvol(test_uuid(1)));
  EXPECT_EQ(rig.read(*channel, kMiB, kMiB), 6);
}

TEST(Foreign, SnapshotCutOffAfterItsVolumeLetGoIsKept) {
  LvsRig rig(1, {.size_bytes = kSize});
  Image image(rig.disk);
  BlobMetadata volume = lvol_blob(1, {0, 0}, 0, true);
  volume.set_internal(lvs_format::kXattrParent, id_value(3));
  image.put(1, volume);
  BlobMetadata snapshot = lvol_blob(2, {5, 6}, 2, false);
  snapshot.set_internal(lvs_format::kXattrSnapshotInProgress, id_value(1));
  image.put_extents(2, 1, snapshot.clusters);
  image.put(3, snapshot);
  auto store = rig.import();
  EXPECT_EQ(store->audit(), "");
  EXPECT_TRUE(store->find_lvol(test_uuid(2))->read_only());
  {
    auto channel = rig.channel(store->find_lvol(test_uuid(1)));
    EXPECT_EQ(rig.read(*channel, kMiB, kMiB), 6);
  }
  ASSERT_TRUE(rig.sim.run(store->export_store()).ok());
  store = rig.import();
  EXPECT_TRUE(store->find_lvol(test_uuid(2))->read_only());
}

TEST(Foreign, DeleteThatEmptiedTheChainFirstIsFinished) {
  LvsRig rig(1, {.size_bytes = kSize});
  Image image(rig.disk);
  BlobMetadata blob = lvol_blob(1, {5}, 2, false);
  blob.set("note", std::string(3000, 'x'));
  blob.set("more", std::string(3000, 'y'));
  image.put_extents(2, 1, blob.clusters);
  image.put(1, blob, 20);
  image.put_page(20, Page{});
  auto store = rig.import();
  EXPECT_EQ(store->audit(), "");
  EXPECT_TRUE(store->lvols().empty());
  EXPECT_EQ(store->free_clusters(), store->total_clusters());
  EXPECT_TRUE(image.page_is_zero(1));
}

// The power goes again while what another implementation left is put in order: whatever was written
// is torn, and the import after it finds its way all the same.
TEST(Foreign, RecoveryThatIsCutOffItselfIsDoneAnew) {
  const auto make = [](Image& image) {
    const std::string note(700, 'x');  // into blocks between the first and the checksum's
    BlobMetadata half_deleted = lvol_blob(4, {9}, 30, false);
    half_deleted.set("note", std::string(3000, 'x'));
    half_deleted.set("more", std::string(3000, 'y'));
    image.put_extents(30, 25, half_deleted.clusters);
    image.put(25, half_deleted, 31);
    image.put_page(31, Page{});
    BlobMetadata volume = lvol_blob(1, {0, 0}, 0, true);
    volume.set_internal(lvs_format::kXattrParent, id_value(3));
    image.put(1, volume);
    BlobMetadata kept = lvol_blob(2, {5, 6}, 2, false);
    kept.set_internal(lvs_format::kXattrSnapshotInProgress, id_value(1));
    kept.set("note", note);
    image.put_extents(2, 1, kept.clusters);
    image.put(3, kept);
    BlobMetadata dropped = lvol_blob(3, {7}, 33, false);
    dropped.set_internal(lvs_format::kXattrSnapshotInProgress, id_value(40));
    dropped.set("note", std::string(2500, 'z'));
    image.put_extents(33, 32, dropped.clusters);
    image.put(32, dropped);
  };
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    bool crashed = true;
    for (uint64_t cut = 0; crashed; ++cut) {
      LvsRig rig(seed * 1000 + cut, {.size_bytes = kSize});
      Image image(rig.disk);
      make(image);
      rig.disk.set_crash_odds(0, 100);
      uint64_t mutations = 0;
      rig.disk.set_fault_hook([&](const SimDiskOp& op) {
        // While the disk is at it: the write is torn, durable or not.
        if (op.type != SimDiskOpType::kRead && mutations++ == cut) {
          rig.sim.world().at(rig.sim.home().clock().now_ns() + 1, [&] { rig.disk.crash(); });
        }
        return 0;
      });
      {
        const auto first = rig.sim.run(LvolStore::import(rig.open_disk(), "pool", std::nullopt));
        crashed = rig.disk.crashed();
        EXPECT_TRUE(crashed || first.ok());
      }
      rig.disk.set_fault_hook(nullptr);
      if (!crashed) rig.disk.crash();
      auto again = rig.sim.run(LvolStore::import(rig.open_disk(), "pool", std::nullopt));
      ASSERT_TRUE(again.ok()) << again.error().message << ", cut " << cut << " seed " << seed;
      const auto store = again.take();
      EXPECT_EQ(store->audit(), "");
      ASSERT_EQ(store->lvols().size(), 2u) << "cut " << cut << " seed " << seed;
      EXPECT_TRUE(store->find_lvol(test_uuid(2))->read_only());
      EXPECT_TRUE(store->cut_off_lvols().empty());
      EXPECT_EQ(store->free_clusters(), store->total_clusters() - 2);
      auto channel = rig.channel(store->find_lvol(test_uuid(1)));
      EXPECT_EQ(rig.read(*channel, kMiB, kMiB), 6);
    }
  }
}

TEST(Foreign, DamageIsNamedAndNothingIsWritten) {
  struct Damage {
    const char* expected;
    void (*make)(Image&);
  };
  const Damage all[] = {
      {"two owners",
       [](Image& image) {
         image.put_extents(2, 1, {5});
         image.put(1, lvol_blob(1, {5}, 2, false));
         image.put_extents(4, 3, {5});
         image.put(3, lvol_blob(2, {5}, 4, false));
       }},
      {"two owners",
       [](Image& image) {
         image.put_extents(2, 1, {5});
         image.put(1, lvol_blob(1, {5}, 2, false));
         image.put(3, lvol_blob(2, {5}, 2, false));
       }},
      {"extent page", [](Image& image) { image.put(1, lvol_blob(1, {5}, 9, false)); }},
      {"unallocated",
       [](Image& image) {
         image.put_extents(2, 1, {5, 0});
         image.put(1, lvol_blob(1, {5, 0}, 2, false));
       }},
      {"circle",
       [](Image& image) {
         BlobMetadata a = lvol_blob(1, {0}, 0, true), b = lvol_blob(2, {0}, 0, true);
         a.set_internal(lvs_format::kXattrParent, id_value(2));
         b.set_internal(lvs_format::kXattrParent, id_value(1));
         image.put(1, a);
         image.put(2, b);
       }},
      {"newer version",
       [](Image& image) {
         BlobMetadata blob = lvol_blob(1, {0}, 0, true);
         blob.invalid_flags |= 0x100;
         image.put(1, blob);
       }},
  };
  for (const Damage& each : all) {
    LvsRig rig(1, {.size_bytes = kSize});
    Image image(rig.disk);
    each.make(image);
    auto imported = rig.sim.run(LvolStore::import(rig.open_disk(), "pool", std::nullopt));
    ASSERT_FALSE(imported.ok()) << each.expected;
    EXPECT_EQ(imported.error().code, ErrorCode::kInternal);
    EXPECT_NE(imported.error().message.find(each.expected), std::string::npos)
        << imported.error().message;
    EXPECT_EQ(rig.disk.mutation_count(), 0u) << each.expected;
  }
}

TEST(Foreign, BlobsThatClaimMoreThanFitsInMemoryAreRefused) {
  LvsRig rig(1, {.size_bytes = kSize});
  Image image(rig.disk);
  // Each is as large as a blob may be; all together are not. No page lists their clusters.
  for (uint32_t root = 1; root <= 3; ++root) {
    BlobMetadata blob = lvol_blob(root, {}, 0, true);
    blob.clusters.assign(lvs_format::kBlobClustersMax / 2, 0);
    blob.extent_pages.assign(lvs_format::kBlobClustersMax / 2 / 512, 0);
    image.put(root, blob);
  }
  auto imported = rig.sim.run(LvolStore::import(rig.open_disk(), "pool", std::nullopt));
  ASSERT_FALSE(imported.ok());
  EXPECT_EQ(imported.error().code, ErrorCode::kInternal);
  EXPECT_NE(imported.error().message.find("too large"), std::string::npos)
      << imported.error().message;
  EXPECT_EQ(rig.disk.mutation_count(), 0u);
}

TEST(Foreign, BlobsThatAreNotLvolsAreCarried) {
  LvsRig rig(1, {.size_bytes = kSize});
  Image image(rig.disk);
  BlobMetadata blob;
  blob.set("owner", "somebody");
  blob.clusters = {9};
  blob.extent_pages = {2};
  image.put_extents(2, 1, blob.clusters);
  image.put(1, blob);
  BlobMetadata nameless = lvol_blob(4, {0}, 0, true);
  nameless.remove("uuid");
  image.put(3, nameless);
  auto store = rig.import();
  EXPECT_EQ(store->lvols().size(), 1u);
  EXPECT_FALSE(store->lvols()[0]->uuid().is_nil());
  EXPECT_EQ(store->free_clusters(), store->total_clusters() - 1);
  ASSERT_TRUE(rig.sim.run(store->export_store()).ok());
  store = rig.import();
  EXPECT_EQ(store->free_clusters(), store->total_clusters() - 1);
}

TEST(Foreign, VersionTwoStoreWithoutBlobIdMaskLoads) {
  LvsRig rig(1, {.size_bytes = kSize});
  Image image(rig.disk);
  image.super_.version = 2;
  image.super_.blobid_mask_start = image.super_.blobid_mask_len = 0;
  image.super_.clean = true;
  image.super_.size_bytes = 0;
  image.write_super();
  put_family(image);
  auto store = rig.import();
  EXPECT_EQ(store->lvols().size(), 3u);
  EXPECT_TRUE(rig.sim.run(store->find_lvol(test_uuid(3))->set_property("a", "b")).ok());
  ASSERT_TRUE(rig.sim.run(store->export_store()).ok());
  store = rig.import();
  EXPECT_EQ(store->find_lvol(test_uuid(3))->property("a"), "b");
}

}  // namespace
}  // namespace mayastor

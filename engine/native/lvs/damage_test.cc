// Damage: after an unclean stop one page of the metadata region is spoilt, each in turn and in each
// way. No replica that is there may differ, no cluster may have two owners, and one that is missing
// is told of: the import refuses, having written nothing, or names its page.
#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <utility>

#include "lvs/format.h"
#include "lvs/lvs_test_support.h"

namespace mayastor {
namespace {

constexpr uint64_t kMiB = kTestMiB;
constexpr uint64_t kRegion = 4 * 4096;  // the super block and three masks lie before it
constexpr uint32_t kPages = 64;
constexpr uint32_t kUnwrittenRoot = 8;  // of the replica that was never written
using Bytes = std::vector<uint8_t>;

Bytes page_of(SimDisk& disk, uint32_t page) {
  Bytes bytes(4096);
  disk.peek(kRegion + page * 4096u, bytes.data(), bytes.size());
  return bytes;
}
void put_page(SimDisk& disk, uint32_t page, const Bytes& bytes) {
  disk.poke(kRegion + page * 4096u, bytes.data(), bytes.size());
}
Bytes garbage(uint32_t seed) {
  Bytes bytes(4096);
  uint32_t state = seed * 2654435761u + 12345;
  for (uint8_t& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<uint8_t>(state >> 24);
  }
  return bytes;
}
bool empty(const Bytes& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

// Four replicas, thick and thin, one with a chain of pages, one thin one that was never written.
// `exported`: some were there at the last export, so that the masks know of them.
class Damaged {
 public:
  explicit Damaged(bool exported) {
    auto store = rig.create();
    make(store, 1, false);
    make(store, 2, true);
    if (exported) {
      EXPECT_TRUE(rig.sim.run(store->export_store()).ok());
      store.reset();
      store = rig.import();
    }
    make(store, 3, true);
    const auto long_one = store->find_lvol(test_uuid(3));
    EXPECT_TRUE(rig.sim.run(long_one->set_property("shared", std::string(3900, 's'))).ok());
    early.resize(kPages);
    for (uint32_t page = 0; page < kPages; ++page) early[page] = page_of(rig.disk, page);
    rig.lvol(store, 4, 4 * kMiB, true);
    EXPECT_TRUE(empty(early[kUnwrittenRoot]) && !empty(page_of(rig.disk, kUnwrittenRoot)));
    const auto second = store->find_lvol(test_uuid(2));
    EXPECT_TRUE(rig.write(*rig.channel(second), 3 * kMiB, 4096, 0x77, true).ok());
    // The shadow is of one replica alone.
    const auto first = store->find_lvol(test_uuid(1));
    EXPECT_TRUE(rig.sim.run(first->set_property("shared", "true")).ok());
    image.resize(64 * kMiB);
    rig.disk.peek(0, image.data(), image.size());
  }
  void restore() { rig.disk.poke(0, image.data(), kRegion + kPages * 4096u); }

  // True: refused.
  bool import_and_compare(const std::string& what) {
    const uint64_t before = rig.disk.mutation_count();
    const Bytes spoilt_root = page_of(rig.disk, kUnwrittenRoot);
    auto imported = rig.sim.run(LvolStore::import(rig.open_disk(), "pool", std::nullopt));
    if (!imported.ok()) {
      EXPECT_EQ(rig.disk.mutation_count(), before) << what;
      EXPECT_FALSE(imported.error().message.empty()) << what;
      return true;
    }
    const auto store = imported.take();
    EXPECT_EQ(store->audit(), "") << what;
    size_t missing = 0, traceless = 0;
    for (uint32_t number = 1; number <= 4; ++number) {
      const auto lvol = store->find_lvol(test_uuid(number));
      if (lvol == nullptr) {
        ++missing;
        // It had one page and no cluster. Where that page is empty nothing on the disk knows of it.
        if (number == 4 && empty(spoilt_root)) ++traceless;
        continue;
      }
      if (number == 4) continue;
      EXPECT_EQ(rig.read(*rig.channel(lvol), kMiB, kMiB), static_cast<int>(number)) << what;
    }
    const size_t told = store->gone_lvols().size() + store->cut_off_lvols().size();
    EXPECT_GE(told + traceless, missing) << what << ": a replica is gone without a word";
    // What is handed out now is nobody's.
    if (missing == 0) {
      rig.lvol(store, 9, 8 * kMiB, false);
      const auto ninth = store->find_lvol(test_uuid(9));
      EXPECT_TRUE(rig.write(*rig.channel(ninth), 0, 8 * kMiB, 0x99).ok());
      for (uint32_t number = 1; number <= 3; ++number) {
        const auto lvol = store->find_lvol(test_uuid(number));
        EXPECT_EQ(rig.read(*rig.channel(lvol), kMiB, kMiB), static_cast<int>(number)) << what;
      }
      EXPECT_EQ(store->audit(), "") << what;
    }
    return false;
  }

  LvsRig rig;
  Bytes image;
  std::vector<Bytes> early;

 private:
  void make(const std::shared_ptr<LvolStore>& store, uint32_t number, bool thin) {
    const auto lvol = rig.lvol(store, number, 4 * kMiB, thin);
    const auto fill = static_cast<uint8_t>(number);
    EXPECT_TRUE(rig.write(*rig.channel(lvol), kMiB, kMiB, fill, true).ok());
  }
};

struct Kind {
  const char* name;
  std::function<void(Damaged&, uint32_t)> spoil;
};
const Kind kKinds[] = {
    {"garbage", [](Damaged& d, uint32_t page) { put_page(d.rig.disk, page, garbage(page)); }},
    {"zeros", [](Damaged& d, uint32_t page) { put_page(d.rig.disk, page, Bytes(4096)); }},
    {"first half garbage",
     [](Damaged& d, uint32_t page) {
       Bytes bytes = page_of(d.rig.disk, page);
       const Bytes spoilt = garbage(page);
       std::copy_n(spoilt.begin(), 2048, bytes.begin());
       put_page(d.rig.disk, page, bytes);
     }},
    {"second half garbage",
     [](Damaged& d, uint32_t page) {
       Bytes bytes = page_of(d.rig.disk, page);
       const Bytes spoilt = garbage(page);
       std::copy_n(spoilt.begin() + 2048, 2048, bytes.begin() + 2048);
       put_page(d.rig.disk, page, bytes);
     }},
    {"first half zeros",
     [](Damaged& d, uint32_t page) {
       Bytes bytes = page_of(d.rig.disk, page);
       std::fill_n(bytes.begin(), 2048, uint8_t{0});
       put_page(d.rig.disk, page, bytes);
     }},
    {"second half zeros",
     [](Damaged& d, uint32_t page) {
       Bytes bytes = page_of(d.rig.disk, page);
       std::fill_n(bytes.begin() + 2048, 2048, uint8_t{0});
       put_page(d.rig.disk, page, bytes);
     }},
    {"swapped with the next",
     [](Damaged& d, uint32_t page) {
       const uint32_t other = (page + 1) % kPages;
       const Bytes one = page_of(d.rig.disk, page), two = page_of(d.rig.disk, other);
       put_page(d.rig.disk, page, two);
       put_page(d.rig.disk, other, one);
     }},
    {"overwritten by the next",
     [](Damaged& d, uint32_t page) {
       put_page(d.rig.disk, page, page_of(d.rig.disk, (page + 1) % kPages));
     }},
};

TEST(Damage, EachPageInEachWayNeverLosesAReplicaWithoutAWord) {
  for (const bool exported : {false, true}) {
    Damaged damaged(exported);
    for (const Kind& kind : kKinds) {
      for (uint32_t page = 0; page < kPages; ++page) {
        damaged.restore();
        // Of the free pages a few stand for all.
        const uint32_t next = (page + 1) % kPages;
        const bool in_use =
            !empty(page_of(damaged.rig.disk, page)) || !empty(page_of(damaged.rig.disk, next));
        if (!in_use && page % 16 != 0) continue;
        kind.spoil(damaged, page);
        damaged.import_and_compare(std::string(kind.name) + ", page " + std::to_string(page) +
                                   (exported ? ", exported before" : ""));
      }
    }
  }
}

TEST(Damage, GarbageRootThatOtherPagesNameStopsTheImport) {
  Damaged damaged(false);
  // Found by their shape: a root carries its own number.
  size_t refused = 0, roots = 0;
  for (uint32_t page = 1; page < kPages; ++page) {
    damaged.restore();
    const Bytes whole = page_of(damaged.rig.disk, page);
    uint64_t id = 0;
    std::memcpy(&id, whole.data(), sizeof id);
    uint32_t sequence = 0;
    std::memcpy(&sequence, whole.data() + 8, sizeof sequence);
    if (empty(whole) || id != lvs_format::blob_id_of(page) || sequence != 0) continue;
    ++roots;
    put_page(damaged.rig.disk, page, garbage(page));
    if (damaged.import_and_compare("root page " + std::to_string(page))) ++refused;
  }
  EXPECT_EQ(roots, 4u);
  // The one with the shadow is repaired, the empty one is told of.
  EXPECT_EQ(refused, 2u);
}

TEST(Damage, StalePagesNeverGiveAClusterTwoOwners) {
  Damaged damaged(true);
  for (uint32_t page = 0; page < kPages; ++page) {
    damaged.restore();
    if (damaged.early[page] == page_of(damaged.rig.disk, page)) continue;
    put_page(damaged.rig.disk, page, damaged.early[page]);
    damaged.import_and_compare("stale page " + std::to_string(page));
  }
}

}  // namespace
}  // namespace mayastor

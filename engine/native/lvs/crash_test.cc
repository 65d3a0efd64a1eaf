// Crash consistency: random operations on a pool, power cut after any number of disk operations
// (inside recovery too) or, on even seeds, during one, un-flushed writes kept, lost or torn by the
// seed, and so what the disk was at, durable or not; then the pool is
// imported and compared with a model. Acknowledged operations must have survived, cut-off ones
// happened fully or not at all, no cluster has two owners, none is lost, and nothing old shines
// through. MAYASTOR_CRASH_SEEDS sets the number of seeds, MAYASTOR_CRASH_SEED runs a single one.
#include <cstdlib>
#include <map>
#include <set>

#include "lvs/lvs_test_support.h"

namespace mayastor {
namespace {

constexpr uint64_t kMiB = kTestMiB;
constexpr uint64_t kBlock = 512;
constexpr uint64_t kClusterBlocks = kMiB / kBlock;
constexpr uint64_t kProbedBlocks[] = {0, 3, 7, kClusterBlocks - 1};
constexpr uint8_t kOld = 0xCC;  // what lay on the disk before

// What one lvol may hold. Blocks not listed hold zero (or anything, when `dirty_start`).
struct ModelLvol {
  std::set<uint64_t> clusters;  // possible sizes; one unless a resize was cut off
  bool thin = false;
  bool dirty_start = false;  // thick without unmap: only the first 8 MiB are wiped
  bool may_be_absent = false, may_be_present = true;
  std::set<std::string> shared = {""};  // possible values of the property
  struct Block {
    std::set<int> possible;  // after a crash
    int now = 0;             // while running
  };
  std::map<uint64_t, Block> blocks;
};

class CrashRun {
 public:
  explicit CrashRun(uint64_t seed)
      : random_(seed * 77 + 5),
        discard_(random_.chance(1, 2)),
        midway_(seed % 2 == 0),
        rig_(seed, {.size_bytes = 24 * kMiB, .supports_discard = discard_}, 2) {
    const std::vector<uint8_t> old(4096, kOld);
    for (uint64_t at = kMiB; at < 24 * kMiB; at += kMiB) {
      rig_.disk.poke(at, old.data(), old.size());
      rig_.disk.poke(at + kMiB - 4096, old.data(), old.size());
    }
    rig_.disk.set_crash_odds(40, 30);
    store_ = rig_.create();
  }

  // `cut`: crash after so many more disk operations; nullopt: random.
  void round(std::optional<uint64_t> cut) {
    arm(cut ? *cut : random_.below(250));
    const uint64_t before = rig_.disk.crash_count();
    for (int step = 0; step < 60 && rig_.disk.crash_count() == before; ++step) batch();
    if (rig_.disk.crash_count() == before) rig_.disk.crash();
    close_all();
    // Power may fail again during recovery.
    for (int again = 0; again < 3 && random_.chance(1, 2); ++again) {
      arm(random_.below(20));
      auto tried = try_import();
      arm(std::nullopt);
      if (tried.ok()) {
        tried.take().reset();
        rig_.disk.crash();
      }
    }
    import_and_compare("after a crash");
  }

  void clean_restart() {
    close_channels();
    auto exported = rig_.sim.run(store_->export_store());
    ASSERT_TRUE(exported.ok()) << exported.error().message;
    // A clean export is durable: cutting the power now changes nothing.
    for (auto& [number, lvol] : model_) settle(lvol);
    close_all();
    rig_.disk.crash();
    import_and_compare("after an export");
  }

  // The same operations for every cut; true once the whole script ran without a crash.
  bool scripted(uint64_t cut) {
    arm(cut);
    const uint64_t before = rig_.disk.crash_count();
    const auto alive = [&] { return rig_.disk.crash_count() == before; };
    const uint64_t script[][4] = {
        // {kind, lvol, argument, argument}
        {0, 1, 3, 0}, {0, 2, 12, 1}, {4, 2, 5, 1},  {4, 2, 9, 1}, {4, 1, 1, 0}, {3, 2, 1, 0},
        {2, 1, 5, 0}, {2, 2, 14, 0}, {4, 2, 13, 1}, {4, 1, 4, 1}, {5, 2, 0, 0}, {3, 1, 2, 0},
        {2, 1, 2, 0}, {1, 1, 0, 0},  {0, 3, 4, 0},  {4, 3, 3, 1}, {0, 1, 6, 1}, {1, 2, 0, 0},
        {4, 1, 5, 0}, {3, 3, 40, 0}, {2, 3, 1, 0},  {1, 3, 0, 0}};
    for (const auto& step : script) {
      if (!alive()) break;
      const auto number = static_cast<uint32_t>(step[1]);
      if (step[0] >= 4) channel(number, 0);  // opened out here: a task cannot run the simulation
      const auto run = [&](Task<void> task) { rig_.sim.run(std::move(task)); };
      switch (step[0]) {
        case 0:
          run(create(number, step[2], step[3] != 0));
          break;
        case 1:
          run(destroy(number));
          break;
        case 2:
          run(resize(number, step[2]));
          break;
        case 3:
          run(share(number, step[2]));
          break;
        case 4:
          run(write_block(number, 0, step[2] * kClusterBlocks + 7, 1, step[3] != 0));
          break;
        default:
          run(flush_lvol(number));
          break;
      }
    }
    const bool finished = alive();
    if (finished) rig_.disk.crash();
    close_all();
    import_and_compare("after a cut script");
    return finished;
  }

 private:
  // Power goes after so many more operations that change the disk: while it is at the next one,
  // which is then torn, durable or not, or before that one.
  void arm(std::optional<uint64_t> count) {
    ++armed_;
    rig_.disk.set_fault_hook(nullptr);
    rig_.disk.crash_after(std::nullopt);
    if (!count) return;
    if (!midway_) {
      rig_.disk.crash_after(count);
      return;
    }
    rig_.disk.set_fault_hook([this, left = *count](const SimDiskOp& op) mutable {
      if (op.type != SimDiskOpType::kRead && left-- == 0) {
        rig_.sim.world().at(rig_.sim.home().clock().now_ns() + 1, [this, mine = armed_] {
          if (mine == armed_) rig_.disk.crash();
        });
      }
      return 0;
    });
  }
  using ModelMap = std::map<uint32_t, ModelLvol>;

  Result<std::shared_ptr<LvolStore>> try_import() {
    auto base = rig_.sim.run(create_file_bdev("aio:///dev/d0"));
    if (!base.ok()) return base.error();
    return rig_.sim.run(LvolStore::import(base.take(), "pool", std::nullopt));
  }
  void close_channels() {
    for (auto& [key, channel] : channels_) {
      const Reactor::Scope scope(rig_.sim.reactor(key.second));
      channel.reset();
    }
    channels_.clear();
  }
  void close_all() {
    arm(std::nullopt);
    close_channels();
    store_.reset();
  }
  Channel* channel(uint32_t number, size_t reactor) {
    auto& slot = channels_[{number, reactor}];
    if (slot == nullptr) slot = rig_.channel(store_->find_lvol(test_uuid(number)), reactor);
    return slot.get();
  }
  void close_channels_of(uint32_t number) {
    for (size_t reactor = 0; reactor < 2; ++reactor) {
      const auto at = channels_.find({number, reactor});
      if (at == channels_.end()) continue;
      const Reactor::Scope scope(rig_.sim.reactor(reactor));
      channels_.erase(at);
    }
  }

  // One operation that changes the pool and a few writes to other lvols, all at once.
  void batch() {
    uint32_t running = 0;
    const auto start = [this, &running](size_t reactor, Task<void> task) {
      ++running;
      const Reactor::Scope scope(rig_.sim.reactor(reactor));
      spawn(count_down(std::move(task), &running));
    };
    std::vector<uint32_t> present;
    for (const auto& [number, lvol] : model_) present.push_back(number);
    uint32_t changed = 0;
    struct Write {
      uint32_t number;
      size_t reactor;
      uint64_t block, count;
      bool fua;
    };
    std::vector<Write> writes;
    if (random_.chance(1, 2)) {
      changed = static_cast<uint32_t>(random_.between(1, 4));
      close_channels_of(changed);
    }
    std::set<uint64_t> taken;  // no two writes of a batch to one block
    for (uint64_t i = random_.below(5); i > 0 && !present.empty(); --i) {
      const uint32_t number = present[random_.below(present.size())];
      if (number == changed) continue;
      const uint64_t clusters = *model_.at(number).clusters.begin();
      uint64_t block = random_.below(clusters) * kClusterBlocks + kProbedBlocks[random_.below(4)];
      const bool crosses = block % kClusterBlocks == kClusterBlocks - 1 &&
                           block + 1 < clusters * kClusterBlocks && random_.chance(1, 2);
      const uint64_t count = crosses ? 2 : 1;
      if (!taken.insert(uint64_t{number} << 32 | block).second) continue;
      if (!taken.insert(uint64_t{number} << 32 | (block + count - 1)).second && crosses) continue;
      const size_t reactor = random_.below(2);
      channel(number, reactor);
      writes.push_back({number, reactor, block, count, random_.chance(1, 2)});
    }
    for (const Write& w : writes) {
      start(w.reactor, write_block(w.number, w.reactor, w.block, w.count, w.fua));
    }
    if (changed != 0) {
      if (!model_.contains(changed)) {
        start(0, create(changed, random_.between(1, 12), random_.chance(1, 2)));
      } else {
        const uint64_t what = random_.below(6);
        if (what == 0) start(0, destroy(changed));
        if (what == 1 || what == 2) start(0, resize(changed, random_.between(1, 14)));
        if (what > 2) start(0, share(changed, random_.below(60)));
      }
    }
    ASSERT_TRUE(rig_.sim.run_until([&running] { return running == 0; }));
    if (!present.empty() && random_.chance(1, 4)) {
      const uint32_t number = present[random_.below(present.size())];
      if (model_.contains(number) && store_->find_lvol(test_uuid(number)) != nullptr) {
        channel(number, 0);
        rig_.sim.run(flush_lvol(number));
      }
    }
    if (!rig_.disk.crashed()) {
      ASSERT_EQ(store_->audit(), "") << "seed " << rig_.sim.world().seed();
    }
  }
  static Task<void> count_down(Task<void> task, uint32_t* running) {
    co_await task;
    --*running;
  }

  Task<void> create(uint32_t number, uint64_t clusters, bool thin) {
    LvolOptions options;
    options.name = "lvol-" + std::to_string(number);
    options.uuid = test_uuid(number);
    options.size_bytes = clusters * kMiB;
    options.thin = thin;
    ModelLvol& lvol = model_[number];
    lvol = ModelLvol();
    lvol.clusters = {clusters};
    lvol.thin = thin;
    lvol.dirty_start = !thin && !discard_;
    lvol.may_be_absent = true;
    auto made = co_await store_->create_lvol(options);
    if (made.ok()) {
      lvol.may_be_absent = false;
    } else if (made.error().code == ErrorCode::kResourceExhausted) {
      model_.erase(number);
    }
  }
  Task<void> destroy(uint32_t number) {
    ModelLvol& lvol = model_.at(number);
    lvol.may_be_absent = true;
    const Uuid uuid = test_uuid(number);
    auto gone = co_await store_->destroy_lvol(uuid);
    if (gone.ok()) model_.erase(number);
  }
  Task<void> resize(uint32_t number, uint64_t clusters) {
    ModelLvol& lvol = model_.at(number);
    const uint64_t old = *lvol.clusters.begin();
    close_channels_of(number);
    lvol.clusters.insert(clusters);
    const Uuid uuid = test_uuid(number);
    auto resized = co_await store_->resize_lvol(uuid, clusters * kMiB);
    if (resized.ok()) {
      lvol.clusters = {clusters};
      lvol.blocks.erase(lvol.blocks.lower_bound(clusters * kClusterBlocks), lvol.blocks.end());
      // Without unmap, a thick lvol's added clusters are not all wiped.
      if (!lvol.thin && !discard_) lvol.dirty_start = true;
    } else if (resized.error().code == ErrorCode::kResourceExhausted) {
      lvol.clusters = {old};
    }
  }
  Task<void> share(uint32_t number, uint64_t value) {
    ModelLvol& lvol = model_.at(number);
    // Long values make the metadata a chain of pages.
    const std::string text(value * 65, static_cast<char>('a' + value % 26));
    lvol.shared.insert(text);
    const auto held = store_->find_lvol(test_uuid(number));
    auto set = co_await held->set_property("shared", text);
    if (set.ok()) {
      lvol.shared = {text};
    } else if (set.error().code == ErrorCode::kResourceExhausted) {
      lvol.shared = {held->property("shared").value_or("")};
    }
  }
  Task<void> write_block(uint32_t number, size_t reactor, uint64_t block, uint64_t count,
                         bool fua) {
    const auto fill = static_cast<uint8_t>(random_.between(1, 200) % 0xCC);
    ModelLvol& lvol = model_.at(number);
    for (uint64_t i = 0; i < count; ++i) {
      ModelLvol::Block& entry = touch(lvol, block + i);
      entry.possible.insert(fill);
    }
    Channel* to = channel(number, reactor);
    const std::vector<uint8_t> data(count * kBlock, fill);
    const IoStatus status = co_await write(*to, block * kBlock, data.data(), data.size(), fua);
    if (!status.ok()) {
      if (status.is(io_status::kNoSpace)) {
        // Nothing, or with two clusters neither half, was written.
        co_return;
      }
      co_return;
    }
    for (uint64_t i = 0; i < count; ++i) {
      ModelLvol::Block& entry = lvol.blocks.at(block + i);
      entry.now = fill;
      if (fua) entry.possible = {fill};
    }
  }
  Task<void> flush_lvol(uint32_t number) {
    ModelLvol& lvol = model_.at(number);
    Channel* to = channel(number, 0);
    const IoStatus status = co_await flush(*to);
    if (status.ok()) settle(lvol);
  }
  static void settle(ModelLvol& lvol) {
    for (auto& [block, entry] : lvol.blocks) {
      if (entry.now >= 0) entry.possible = {entry.now};
    }
  }
  ModelLvol::Block& touch(ModelLvol& lvol, uint64_t block) {
    const auto at = lvol.blocks.find(block);
    if (at != lvol.blocks.end()) return at->second;
    ModelLvol::Block& entry = lvol.blocks[block];
    entry.possible = {0};
    if (lvol.dirty_start) {
      entry.possible = anything();
      entry.now = -1;
    }
    return entry;
  }
  static std::set<int> anything() {
    std::set<int> all;
    for (int i = 0; i < 256; ++i) all.insert(i);
    return all;
  }

  void import_and_compare(const char* when) {
    const std::string where =
        std::string(when) + ", seed " + std::to_string(rig_.sim.world().seed());
    auto imported = try_import();
    ASSERT_TRUE(imported.ok()) << imported.error().message << " " << where;
    store_ = imported.take();
    ASSERT_EQ(store_->audit(), "") << where;
    for (const auto& lvol : store_->lvols()) {
      const bool known = std::any_of(model_.begin(), model_.end(), [&lvol](const auto& entry) {
        return test_uuid(entry.first) == lvol->uuid();
      });
      ASSERT_TRUE(known) << lvol->lvol_name() << " came back " << where;
    }
    for (auto at = model_.begin(); at != model_.end();) {
      const auto lvol = store_->find_lvol(test_uuid(at->first));
      if (lvol == nullptr) {
        ASSERT_TRUE(at->second.may_be_absent) << at->first << " is lost " << where;
        at = model_.erase(at);
        continue;
      }
      compare(at->first, *lvol, at->second, where);
      if (testing::Test::HasFatalFailure()) return;
      ++at;
    }
  }

  void compare(uint32_t number, Lvol& lvol, ModelLvol& model, const std::string& where) {
    const std::string which = "lvol " + std::to_string(number) + " " + where;
    model.may_be_absent = false;
    ASSERT_EQ(lvol.thin(), model.thin) << which;
    ASSERT_TRUE(model.clusters.contains(lvol.num_clusters())) << which;
    model.clusters = {lvol.num_clusters()};
    const std::string shared = lvol.property("shared").value_or("");
    ASSERT_TRUE(model.shared.contains(shared)) << which;
    model.shared = {shared};
    const uint64_t end = lvol.num_clusters() * kClusterBlocks;
    model.blocks.erase(model.blocks.lower_bound(end), model.blocks.end());
    Channel& reader = *channel(number, 0);
    for (uint64_t cluster = 0; cluster < lvol.num_clusters(); ++cluster) {
      for (const uint64_t within : kProbedBlocks) {
        const uint64_t block = cluster * kClusterBlocks + within;
        const int value = rig_.read(reader, block * kBlock, kBlock);
        const auto at = model.blocks.find(block);
        if (at == model.blocks.end()) {
          ASSERT_TRUE(model.dirty_start || value == 0)
              << "block " << block << " holds " << value << " " << which;
          continue;
        }
        ASSERT_TRUE(at->second.possible.contains(value))
            << "block " << block << " holds " << value << " " << which;
        at->second = {{value}, value};
      }
    }
  }

  SimRandom random_;
  const bool discard_;
  const bool midway_;
  uint64_t armed_ = 0;
  LvsRig rig_;
  std::shared_ptr<LvolStore> store_;
  ModelMap model_;
  std::map<std::pair<uint32_t, size_t>, std::unique_ptr<Channel>> channels_;

 public:
  ~CrashRun() { close_all(); }
};

TEST(Crash, EveryPrefixOfAScriptRecovers) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    uint64_t cut = 0;
    for (bool finished = false; !finished; ++cut) {
      CrashRun run(seed);
      finished = run.scripted(cut);
      if (HasFatalFailure()) FAIL() << "cut after " << cut;
    }
    EXPECT_GT(cut, 60u);  // the script was not cut short
  }
}

TEST(Crash, RandomOperationsSurviveRandomCrashes) {
  const char* single = std::getenv("MAYASTOR_CRASH_SEED");
  const char* count = std::getenv("MAYASTOR_CRASH_SEEDS");
  const uint64_t first = single != nullptr ? std::strtoull(single, nullptr, 10) : 1;
  const uint64_t seeds = single != nullptr  ? 1
                         : count != nullptr ? std::strtoull(count, nullptr, 10)
                                            : 150;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    CrashRun run(seed);
    for (int round = 0; round < 4; ++round) {
      run.round(std::nullopt);
      if (HasFatalFailure()) FAIL() << "seed " << seed << " round " << round;
      run.clean_restart();
      if (HasFatalFailure()) FAIL() << "seed " << seed << " round " << round << " clean";
    }
  }
}

}  // namespace
}  // namespace mayastor

// WriteOrder against a naive model, and on threads that would see each other in one range.
#include "nexus/write_order.h"

#include <gtest/gtest.h>

#include <deque>
#include <thread>
#include <vector>

#include "core/sim_world.h"

namespace mayastor::nexus {
namespace {

struct Entry {
  WriteOrder::Ticket ticket;
  uint64_t begin = 0, end = 0;
  bool going = false;
};

std::pair<uint64_t, uint64_t> pick_range(SimRandom& random) {
  const uint64_t region = WriteOrder::kRegionBytes;
  const uint64_t dice = random.below(100);
  if (dice < 3) return {0, region * (1 + random.below(3 * WriteOrder::kShards))};  // wraps around
  const uint64_t begin = random.below(dice < 60 ? region * 3 : region * 500) / 512 * 512;
  return {begin, begin + 512 * random.between(1, dice < 80 ? 16 : 2000)};
}

class WriteOrderModel : public testing::TestWithParam<bool> {};

TEST_P(WriteOrderModel, LetsGoWhatMeetsNoEarlierWrite) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SimRandom random(seed);
    WriteOrder order(GetParam());
    std::deque<std::unique_ptr<Entry>> in;  // in the order of arrival
    std::vector<std::unique_ptr<Entry>> spare;
    const auto may_go = [&in](const Entry& entry) {
      for (const auto& earlier : in) {
        if (earlier.get() == &entry) return true;
        if (earlier->begin < entry.end && entry.begin < earlier->end) return false;
      }
      return true;
    };
    uint64_t waited = 0;
    for (int step = 0; step < 5000 || !in.empty(); ++step) {
      if (step < 5000 && (in.empty() || random.below(40) > in.size())) {
        if (spare.empty()) spare.push_back(std::make_unique<Entry>());
        std::unique_ptr<Entry> entry = std::move(spare.back());  // tickets are used again
        spare.pop_back();
        std::tie(entry->begin, entry->end) = pick_range(random);
        entry->going = order.enter(entry->ticket, entry->begin, entry->end);
        ASSERT_EQ(entry->going, may_go(*entry)) << "seed " << seed << " step " << step;
        waited += entry->going ? 0 : 1;
        in.push_back(std::move(entry));
        continue;
      }
      const uint64_t from = random.below(in.size());
      uint64_t at = from;
      while (!in[at]->going) at = (at + 1) % in.size();  // the oldest always goes
      std::unique_ptr<Entry> entry = std::move(in[at]);
      in.erase(in.begin() + static_cast<ptrdiff_t>(at));
      WriteOrder::Ticket* next = order.leave(entry->ticket);
      while (next != nullptr) {
        bool found = false;
        for (const auto& other : in) {
          if (&other->ticket != next) continue;
          ASSERT_FALSE(other->going) << "granted twice";
          other->going = found = true;
        }
        ASSERT_TRUE(found);
        next = std::exchange(next->next_granted, nullptr);
      }
      for (const auto& other : in) {
        ASSERT_EQ(other->going, may_go(*other)) << "seed " << seed << " step " << step;
      }
      spare.push_back(std::move(entry));
    }
    EXPECT_GT(waited, 100u);
  }
}
INSTANTIATE_TEST_SUITE_P(OneCoreAndMany, WriteOrderModel, testing::Bool());

TEST(WriteOrder, ThreadsAreNeverInOneRangeTogether) {
  constexpr uint64_t kCell = 16 * 1024;
  constexpr uint64_t kCells = 4096;
  constexpr uint32_t kThreads = 4;
  struct Turn : WriteOrder::Ticket {
    std::atomic<bool> granted{false};
  };
  WriteOrder order(true);
  std::vector<uint64_t> cells(kCells);  // plain memory: TSan sees who comes in between
  std::atomic<uint64_t> touched{0}, waited{0};
  const auto leave = [&order](Turn& turn) {
    WriteOrder::Ticket* next = order.leave(turn);
    while (next != nullptr) {
      auto* other = static_cast<Turn*>(next);
      next = std::exchange(other->next_granted, nullptr);
      other->granted.store(true, std::memory_order_release);
    }
  };
  const auto work = [&](uint64_t seed) {
    SimRandom random(seed);
    Turn turn;
    for (int i = 0; i < 3000; ++i) {
      const bool wide = random.chance(1, 50);
      const uint64_t count = wide ? random.between(1, kCells) : random.between(1, 12);
      const uint64_t first = random.below(wide ? kCells - count + 1 : 20);
      turn.granted.store(false, std::memory_order_relaxed);
      if (!order.enter(turn, first * kCell, (first + count) * kCell)) {
        waited.fetch_add(1);
        while (!turn.granted.load(std::memory_order_acquire)) std::this_thread::yield();
      }
      for (uint64_t cell = first; cell < first + count; ++cell) ++cells[cell];
      touched.fetch_add(count);
      leave(turn);
    }
  };
  // All begin by waiting for one that has everything: so they meet, however few cores there are.
  Turn all;
  ASSERT_TRUE(order.enter(all, 0, kCells * kCell));
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kThreads; ++i) threads.emplace_back(work, i + 1);
  while (waited.load() < kThreads) std::this_thread::yield();
  leave(all);
  for (std::thread& thread : threads) thread.join();
  uint64_t sum = 0;
  for (const uint64_t cell : cells) sum += cell;
  EXPECT_EQ(sum, touched.load());
  EXPECT_GE(waited.load(), kThreads);
}

}  // namespace
}  // namespace mayastor::nexus

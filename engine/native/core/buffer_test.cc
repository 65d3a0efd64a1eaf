// BufferPool: what one size gives back the others may have; against a model of single pages.
#include "core/buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "core/sim_world.h"

namespace mayastor {
namespace {

constexpr size_t kPage = 4096, kMiB = 1u << 20;
constexpr size_t kSizes[] = {4096, 16384, 65536, 131072, 1048576};

// Every buffer of one size that the pool has left.
std::vector<uint8_t*> take_all(BufferPool& pool, size_t size) {
  std::vector<uint8_t*> out;
  while (uint8_t* const buffer = pool.acquire(size)) out.push_back(buffer);
  return out;
}

TEST(BufferPool, ReusesAndKeepsItsLimit) {
  BufferPool pool(4 * kMiB);
  uint8_t* small = pool.acquire(100);
  ASSERT_NE(small, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(small) % kBufferAlignment, 0u);
  EXPECT_EQ(pool.in_use_bytes(), 4096u);
  pool.release(small, 100);
  EXPECT_EQ(pool.in_use_bytes(), 0u);
  EXPECT_EQ(pool.acquire(4096), small);
  const std::vector<uint8_t*> large = take_all(pool, kMiB);
  EXPECT_EQ(large.size(), 3u);  // two slabs are the limit
  pool.release(large[0], kMiB);
  EXPECT_EQ(pool.acquire(kMiB), large[0]);
  BufferPool none(2 * kMiB - 1);
  EXPECT_EQ(none.acquire(1), nullptr);
}

// All of the limit was given to one size once: requests of the other sizes waited for ever.
TEST(BufferPool, WhatOneSizeGaveBackEachOtherMayHave) {
  constexpr size_t kLimit = 6 * kMiB;
  BufferPool pool(kLimit);
  for (const size_t first : kSizes) {
    for (const size_t second : kSizes) {
      for (const size_t size : {first, second}) {
        const std::vector<uint8_t*> all = take_all(pool, size);
        EXPECT_EQ(all.size(), kLimit / size) << "after " << first;
        EXPECT_EQ(pool.in_use_bytes(), all.size() * size);
        for (uint8_t* const buffer : all) pool.release(buffer, size);
        EXPECT_EQ(pool.in_use_bytes(), 0u);
      }
    }
  }
}

// Small requests never pause, each for a while: once those that were spread out have ended, the
// rest is together again.
TEST(BufferPool, SmallBuffersInUseDoNotKeepALargeOneAway) {
  constexpr size_t kLimit = 16 * kMiB, kBusy = 64;
  BufferPool pool(kLimit);
  std::vector<uint8_t*> all = take_all(pool, kPage);
  SimRandom random(5);
  for (size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[random.next() % i]);
  while (all.size() > kBusy) {
    pool.release(all.back(), kPage);
    all.pop_back();
  }
  for (size_t i = 0; i < kBusy; ++i) {
    pool.release(all[i], kPage);
    all[i] = pool.acquire(kPage);
    ASSERT_NE(all[i], nullptr);
  }
  EXPECT_EQ(take_all(pool, kMiB).size(), kLimit / kMiB - 1);
}

// A MiB as 256 pages: a buffer fits where all pages of one of its places are free.
TEST(BufferPool, DoesWhatTheModelDoes) {
  constexpr size_t kMibs = 6;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SimRandom random(seed);
    BufferPool pool(kMibs * kMiB);
    std::map<uint8_t*, std::vector<bool>> used;  // by the address of its MiB
    for (uint8_t* const mib : take_all(pool, kMiB)) {
      used[mib].resize(kMiB / kPage);
      pool.release(mib, kMiB);
    }
    ASSERT_EQ(used.size(), kMibs);
    const auto each_page = [&](uint8_t* buffer, size_t size, bool now) {
      auto& [mib, pages] = *std::prev(used.upper_bound(buffer));
      const auto at = static_cast<size_t>(buffer - mib);
      ASSERT_TRUE(at % size == 0 && at + size <= kMiB);
      for (size_t page = at / kPage; page < (at + size) / kPage; ++page) {
        ASSERT_NE(pages[page], now) << "seed " << seed;
        pages[page] = now;
      }
    };
    const auto fits = [&](size_t size) {
      for (const auto& [mib, pages] : used) {
        for (size_t at = 0; at < pages.size(); at += size / kPage) {
          const auto begin = pages.begin() + static_cast<ptrdiff_t>(at);
          const auto end = begin + static_cast<ptrdiff_t>(size / kPage);
          if (std::find(begin, end, true) == end) return true;
        }
      }
      return false;
    };
    std::vector<std::pair<uint8_t*, size_t>> taken;
    size_t in_use = 0, refused = 0;
    for (uint32_t step = 0; step < 4000; ++step) {
      const bool growing = step / 500 % 2 == 0;
      if (taken.empty() || random.next() % 10 < (growing ? 7 : 3)) {
        const size_t size = kSizes[random.next() % std::size(kSizes)];
        const bool expected = fits(size);
        uint8_t* const buffer = pool.acquire(size - random.next() % 4000);
        ASSERT_EQ(buffer != nullptr, expected) << "seed " << seed << " size " << size;
        if (buffer == nullptr) {
          ++refused;
          continue;
        }
        each_page(buffer, size, true);
        taken.emplace_back(buffer, size);
        in_use += size;
      } else {
        std::swap(taken[random.next() % taken.size()], taken.back());
        const auto [buffer, size] = taken.back();
        taken.pop_back();
        pool.release(buffer, size);
        each_page(buffer, size, false);
        in_use -= size;
      }
      ASSERT_EQ(pool.in_use_bytes(), in_use);
    }
    EXPECT_GT(refused, 0u);
  }
}

TEST(BufferPoolDeathTest, RefusesWhatIsNotInUse) {
  BufferPool pool(2 * kMiB);
  uint8_t* const buffer = pool.acquire(65536);
  EXPECT_DEATH(pool.release(buffer + kPage, 65536), "");
  EXPECT_DEATH(pool.release(buffer + 65536, 65536), "");
  pool.release(buffer, 65536);
  EXPECT_DEATH(pool.release(buffer, 65536), "");
}

TEST(BufferPool, TrimGivesBackWhatALullDoesNotNeed) {
  constexpr size_t kSize = 1u << 20;
  BufferPool pool(256u << 20);
  std::vector<uint8_t*> taken;
  while (uint8_t* const buffer = pool.acquire(kSize)) taken.push_back(buffer);
  ASSERT_EQ(pool.mapped_bytes(), 256u << 20);
  EXPECT_TRUE(pool.wants_trim());
  pool.trim();
  EXPECT_EQ(pool.mapped_bytes(), 256u << 20);  // all in use
  uint8_t* const kept = taken.front();
  std::memset(kept, 0x5A, kSize);
  for (size_t i = 1; i < taken.size(); ++i) pool.release(taken[i], kSize);
  pool.trim();
  EXPECT_EQ(pool.mapped_bytes(), 256u << 20);  // was needed a moment ago
  pool.trim();
  EXPECT_EQ(pool.mapped_bytes(), BufferPool::kKeptBytes);
  EXPECT_FALSE(pool.wants_trim());
  EXPECT_EQ(kept[kSize - 1], 0x5A);
  pool.release(kept, kSize);
  // It grows again, and every size finds its place.
  taken.clear();
  for (const size_t size : {kSize, size_t{131072}, size_t{4096}}) {
    for (int i = 0; i < 64; ++i) {
      uint8_t* const buffer = pool.acquire(size);
      ASSERT_NE(buffer, nullptr);
      std::memset(buffer, 1, size);
      taken.push_back(buffer);
    }
  }
  for (size_t i = 0; i < taken.size(); ++i) {
    pool.release(taken[i], i < 64 ? kSize : i < 128 ? 131072 : 4096);
  }
  EXPECT_EQ(pool.in_use_bytes(), 0u);
}

}  // namespace
}  // namespace mayastor

// Shares: how far greedy users get, alone and together, and what they leave for a newcomer.
#include "core/share.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace mayastor {
namespace {

constexpr size_t kWhole = 1200;

size_t fill(Budget& budget, Share& share) {
  size_t taken = 0;
  while (budget.take(share, 1)) ++taken;
  return taken;
}

TEST(Share, AloneHalfOfTheWhole) {
  Budget budget(kWhole);
  Share host;
  EXPECT_EQ(fill(budget, host), kWhole / 2);
  budget.give_back(host, kWhole / 2);
  EXPECT_EQ(budget.in_use(), 0U);
}

TEST(Share, OneConnectionLeavesRoomForItsSiblingsAndOthers) {
  Budget budget(kWhole);
  ShareBook book;
  const auto host = book.find_or_make("host"), controller = book.find_or_make("c", host);
  Share stuck(controller), sibling(controller), other(book.find_or_make("other"));
  EXPECT_EQ(fill(budget, stuck), kWhole / 4);
  EXPECT_GE(fill(budget, sibling), kWhole / 16);
  EXPECT_GE(fill(budget, other), kWhole / 8);
  EXPECT_EQ(host->in_use(), controller->in_use());
  EXPECT_EQ(host->in_use(), stuck.in_use() + sibling.in_use());
  for (Share* share : {&stuck, &sibling, &other}) budget.give_back(*share, share->in_use());
  EXPECT_EQ(host->in_use(), 0U);
}

// However many come one after the other, as much as the greediest has stays free.
TEST(Share, ANewcomerFindsRoomBesideManyGreedyOnes) {
  for (const size_t hosts : {1U, 3U, 11U}) {
    Budget budget(kWhole);
    std::vector<std::unique_ptr<Share>> greedy;
    for (size_t i = 0; i < hosts; ++i) greedy.push_back(std::make_unique<Share>());
    for (bool more = true; more;) {  // in turns
      more = false;
      for (const auto& share : greedy) more |= budget.take(*share, 1);
    }
    const size_t free = kWhole - budget.in_use();
    EXPECT_GE(free, kWhole / (hosts + 1)) << hosts;
    Share newcomer;
    EXPECT_GE(fill(budget, newcomer), free / 2) << hosts;
    budget.give_back(newcomer, newcomer.in_use());
    for (const auto& share : greedy) budget.give_back(*share, share->in_use());
  }
}

TEST(Share, WhatIsTakenAnywayCounts) {
  Budget budget(10);
  Share share;
  budget.take_anyway(share, 15);
  EXPECT_FALSE(budget.take(share, 1));
  budget.give_back(share, 15);
  EXPECT_TRUE(budget.take(share, 5));
  budget.give_back(share, 5);
}

TEST(Share, TheBookForgetsWhoHasGone) {
  ShareBook book;
  const auto kept = book.find_or_make("kept");
  for (int i = 0; i < 10'000; ++i) {
    static_cast<void>(book.find_or_make("host " + std::to_string(i)));
  }
  EXPECT_LE(book.size(), 129U);
  EXPECT_EQ(book.find_or_make("kept"), kept);
}

}  // namespace
}  // namespace mayastor

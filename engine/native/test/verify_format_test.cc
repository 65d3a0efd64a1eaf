// verify_io can tell: its sectors and journal catch what they exist to catch.
#include "tools/verify_format.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <random>

#include "tools/tool_support.h"

namespace mayastor::tool {
namespace {

constexpr uint32_t kBlock = 4096;

std::vector<uint8_t> block_of(uint64_t seed, uint64_t block, uint32_t generation) {
  std::vector<uint8_t> data(kBlock);
  fill_sectors(data.data(), kBlock, seed, block, generation);
  return data;
}
std::string check(const std::vector<uint8_t>& data, uint32_t oldest, uint32_t newest) {
  return check_sectors(data.data(), kBlock, 7, 3, oldest, newest);
}

TEST(VerifyFormatTest, AcceptsWhatWasAcknowledged) {
  EXPECT_EQ(check(block_of(7, 3, 5), 5, 5), "");
  EXPECT_EQ(check(block_of(7, 3, 6), 5, 6), "");
}

TEST(VerifyFormatTest, SeesALostWrite) {
  EXPECT_NE(check(block_of(7, 3, 4), 5, 5), "");
  EXPECT_NE(check(std::vector<uint8_t>(kBlock), 5, 5), "");
  std::vector<uint8_t> torn = block_of(7, 3, 5);
  const std::vector<uint8_t> old = block_of(7, 3, 4);
  std::memcpy(torn.data() + 7 * 512, old.data() + 7 * 512, 512);
  EXPECT_NE(check(torn, 5, 5), "");
  EXPECT_EQ(check(torn, 4, 5), "");  // a write in doubt may be torn between sectors
}

TEST(VerifyFormatTest, SeesWhatDoesNotBelong) {
  EXPECT_NE(check(block_of(7, 4, 5), 5, 5), "");  // another block's
  EXPECT_NE(check(block_of(8, 3, 5), 5, 5), "");  // another run's
  EXPECT_NE(check(block_of(7, 3, 6), 5, 5), "");  // from the future
  std::vector<uint8_t> flipped = block_of(7, 3, 5);
  flipped[1000] ^= 4;
  EXPECT_NE(check(flipped, 5, 5), "");
}

TEST(VerifyFormatTest, NeverAcknowledgedMayBeAnythingOlder) {
  EXPECT_EQ(check(std::vector<uint8_t>(kBlock), 0, 1), "");
  EXPECT_EQ(check(block_of(7, 3, 1), 0, 1), "");
  EXPECT_NE(check(block_of(7, 3, 2), 0, 1), "");
}

TEST(VerifyFormatTest, ContentHashTellsSectorsApart) {
  // A CRC would not: sectors that carry their own CRC all have the same one.
  const auto a = block_of(7, 3, 1), b = block_of(7, 3, 2);
  ContentHash first, second;
  first.update(a.data(), a.size());
  second.update(b.data(), b.size());
  EXPECT_NE(first.value(), second.value());
}

class JournalTest : public testing::Test {
 protected:
  JournalTest() {
    char name[] = "/tmp/verify-journal-XXXXXX";
    const int fd = mkstemp(name);
    CHECK(fd >= 0);
    ::close(fd);
    path_ = name;
  }
  ~JournalTest() override { unlink(path_.c_str()); }
  static JournalHeader wanted(uint64_t seed, uint64_t blocks, uint32_t bytes) {
    JournalHeader header{};
    header.seed = seed;
    header.blocks = blocks;
    header.block_bytes = bytes;
    return header;
  }
  std::string path_;
};

TEST_F(JournalTest, IsContinuedWithItsOwnValues) {
  {
    Journal journal;
    ASSERT_TRUE(journal.open(path_, wanted(9, 100, kBlock), true).ok());
    journal.entry(42).sent = 3;
  }
  Journal again;
  ASSERT_TRUE(again.open(path_, wanted(0, 0, 0), false).ok());
  EXPECT_EQ(again.header().seed, 9u);
  EXPECT_EQ(again.entry(42).sent, 3u);
  EXPECT_EQ(again.entry(41).sent, 0u);
}

TEST_F(JournalTest, RefusesContradictionsAndForeignFiles) {
  {
    Journal journal;
    ASSERT_TRUE(journal.open(path_, wanted(9, 100, kBlock), true).ok());
  }
  for (const auto& other : {wanted(8, 0, 0), wanted(0, 99, 0), wanted(0, 0, 512)}) {
    Journal journal;
    EXPECT_FALSE(journal.open(path_, other, true).ok());
  }
  ASSERT_EQ(truncate(path_.c_str(), 100), 0);
  Journal cut;
  EXPECT_FALSE(cut.open(path_, wanted(0, 0, 0), true).ok());
  Journal missing;
  EXPECT_FALSE(missing.open(path_ + ".none", wanted(0, 0, 0), false).ok());
}

TEST(HistogramTest, PercentilesAreWithinOnePercent) {
  Histogram histogram;
  std::vector<uint64_t> values;
  std::mt19937_64 random(5);
  for (uint32_t i = 0; i < 20'000; ++i) {
    const uint64_t value = random() >> (random() % 50 + 10);
    values.push_back(value);
    histogram.record(value);
  }
  std::sort(values.begin(), values.end());
  for (const double part : {0.0, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const auto exact = values[static_cast<size_t>(part * static_cast<double>(values.size() - 1))];
    const auto got = histogram.percentile(part);
    EXPECT_GE(got, exact);
    EXPECT_LE(static_cast<double>(got), static_cast<double>(exact) * 1.01 + 1) << part;
  }
  EXPECT_EQ(histogram.max(), values.back());
}

TEST(ParseSizeTest, KnowsBinaryUnits) {
  EXPECT_EQ(parse_size("4096"), 4096u);
  EXPECT_EQ(parse_size("128KiB"), 131072u);
  EXPECT_EQ(parse_size("2GiB"), 2147483648u);
  EXPECT_FALSE(parse_size("1MB").has_value());
  EXPECT_FALSE(parse_size("99999999999TiB").has_value());
  EXPECT_FALSE(parse_size("").has_value());
}

}  // namespace
}  // namespace mayastor::tool

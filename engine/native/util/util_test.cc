// util: known answers, round trips and refusals.
#include <gtest/gtest.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "util/crc32c.h"
#include "util/io_status.h"
#include "util/latency_histogram.h"
#include "util/result.h"
#include "util/uri.h"
#include "util/uuid.h"

namespace mayastor {
namespace {

TEST(Crc32c, KnownAnswers) {  // RFC 3720, B.4
  EXPECT_EQ(crc32c("123456789", 9), 0xE3069283u);
  std::vector<uint8_t> bytes(32, 0);
  EXPECT_EQ(crc32c(bytes.data(), 32), 0x8A9136AAu);
  std::fill(bytes.begin(), bytes.end(), uint8_t{0xFF});
  EXPECT_EQ(crc32c(bytes.data(), 32), 0x62A8AB43u);
  for (size_t i = 0; i < 32; ++i) bytes[i] = static_cast<uint8_t>(i);
  EXPECT_EQ(crc32c(bytes.data(), 32), 0x46DD794Eu);
  EXPECT_EQ(crc32c("", 0), 0u);
}

// 2^(i/8) seconds in nanoseconds, by slot.
const std::vector<long double>& slot_ends_ns() {
  static const std::vector<long double> ends = [] {
    std::vector<long double> made(LatencyBuckets::kSlots);
    for (size_t slot = 0; slot < made.size(); ++slot) {
      const int index = LatencyBuckets::kZeroIndex + static_cast<int>(slot);
      made[slot] = std::exp2(static_cast<long double>(index) / 8) * 1e9L;
    }
    return made;
  }();
  return ends;
}

size_t naive_slot(uint64_t latency_ns) {
  size_t slot = 0;
  while (slot + 1 < LatencyBuckets::kSlots &&
         slot_ends_ns()[slot] < static_cast<long double>(latency_ns)) {
    ++slot;
  }
  return slot;
}

TEST(LatencyBuckets, EverySlotIsTheBucketOfItsBounds) {
  for (size_t slot = 0; slot + 1 < LatencyBuckets::kSlots; ++slot) {
    const auto end_ns = static_cast<uint64_t>(slot_ends_ns()[slot]);
    EXPECT_EQ(LatencyBuckets::slot_of(end_ns), slot) << end_ns;
    EXPECT_EQ(LatencyBuckets::slot_of(end_ns + 1), slot + 1) << end_ns;
  }
}

TEST(LatencyBuckets, AgreeWithTheNaiveSearch) {
  for (uint64_t ns = 0; ns < 3000; ++ns) ASSERT_EQ(LatencyBuckets::slot_of(ns), naive_slot(ns));
  uint64_t state = 7;
  for (int i = 0; i < 20'000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint64_t ns = state >> (20 + i % 40);
    ASSERT_EQ(LatencyBuckets::slot_of(ns), naive_slot(ns)) << ns;
  }
  EXPECT_EQ(LatencyBuckets::slot_of(1'000'000'000),
            static_cast<size_t>(-LatencyBuckets::kZeroIndex));
  EXPECT_EQ(LatencyBuckets::slot_of(UINT64_MAX), LatencyBuckets::kSlots - 1);
}

TEST(LatencyRecorder, SumsAndClears) {
  LatencyRecorder recorder;
  recorder.record(0);
  recorder.record(1'000'000);
  recorder.record(1'000'000);
  LatencyHistogram total;
  recorder.add_to(total);
  recorder.add_to(total);
  EXPECT_EQ(total.counts[0], 2u);
  EXPECT_EQ(total.counts[LatencyBuckets::slot_of(1'000'000)], 4u);
  recorder.clear();
  LatencyHistogram none;
  recorder.add_to(none);
  EXPECT_EQ(none.counts, LatencyHistogram{}.counts);
}

TEST(Crc32c, TableAndHardwareAgreeInAnyPieces) {
  std::vector<uint8_t> bytes(5000);
  uint32_t state = 7;
  for (uint8_t& byte : bytes)
    byte = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
  for (size_t length = 0; length < 64; ++length) {
    for (size_t start = 0; start < 9; ++start) {
      EXPECT_EQ(crc32c_update(kCrc32cInitial, bytes.data() + start, length),
                crc32c_update_table(kCrc32cInitial, bytes.data() + start, length));
    }
  }
  uint32_t pieces = kCrc32cInitial;
  for (size_t at = 0; at < bytes.size(); at += 100) pieces = crc32c_update(pieces, &bytes[at], 100);
  EXPECT_EQ(~pieces, crc32c(bytes.data(), bytes.size()));
}

TEST(Uuid, RoundTripsAndRefuses) {
  const std::string text = "3f8ec8d6-9a2e-4b4b-8f5e-1112131415ff";
  EXPECT_EQ(Uuid::parse(text).value().to_string(), text);
  EXPECT_EQ(Uuid::parse("3F8EC8D6-9A2E-4B4B-8F5E-1112131415FF").value().to_string(), text);
  for (const std::string bad :
       {"", "3f8ec8d6", "3f8ec8d6-9a2e-4b4b-8f5e-1112131415fg",
        "3f8ec8d69a2e-4b4b-8f5e-1112131415ff-", "3f8ec8d6-9a2e-4b4b-8f5e-1112131415ff0"}) {
    EXPECT_EQ(Uuid::parse(bad).error().code, ErrorCode::kInvalidArgument) << bad;
  }
}

TEST(Uuid, RandomAndNamed) {
  const Uuid one = Uuid::random();
  EXPECT_NE(one, Uuid::random());
  EXPECT_EQ(one.to_string()[14], '4');
  EXPECT_EQ(Uuid::from_name("a"), Uuid::from_name("a"));
  EXPECT_NE(Uuid::from_name("a"), Uuid::from_name("b"));
  EXPECT_EQ(Uuid::from_name("a").to_string()[14], '5');
  EXPECT_TRUE(Uuid{}.is_nil());
  EXPECT_FALSE(one.is_nil());
}

TEST(Result, ErrnoErrorSaysWhatAndWhy) {
  const Error error = errno_error(ENOSPC, "Cannot write");
  EXPECT_EQ(error.message, "Cannot write: No space left on device (errno 28)");
  EXPECT_EQ(error.code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(error.error_number, ENOSPC);
  EXPECT_EQ(errno_error(ENOENT, "x").code, ErrorCode::kNotFound);
  EXPECT_EQ(errno_error(EBUSY, "x").code, ErrorCode::kFailedPrecondition);
}

TEST(ResultDeathTest, WrongSideIsABug) {
  Result<int> held(Error{});
  EXPECT_DEATH(static_cast<void>(held.value()), "CHECK failed");
}

TEST(Uri, ParsesEachPart) {
  const auto parsed =
      Uri::parse("NVMF://10.0.0.2:8420/nqn.2019-05.io.openebs:a%20b?uuid=x%3Dy&flag&empty=");
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  const Uri& uri = parsed.value();
  EXPECT_EQ(uri.scheme(), "nvmf");
  EXPECT_EQ(uri.host(), "10.0.0.2");
  EXPECT_EQ(uri.port(), 8420);
  EXPECT_EQ(uri.name(), "nqn.2019-05.io.openebs:a b");
  EXPECT_EQ(uri.find("uuid"), "x=y");
  EXPECT_EQ(uri.find("flag"), "");
  EXPECT_EQ(uri.find("empty"), "");
  EXPECT_EQ(uri.find("none"), std::nullopt);
  EXPECT_EQ(uri.without_query(), "NVMF://10.0.0.2:8420/nqn.2019-05.io.openebs:a%20b");
}

TEST(Uri, ParsesPlainPathsAndIpv6) {
  EXPECT_EQ(Uri::parse("/dev/sda").value().scheme(), "");
  EXPECT_EQ(Uri::parse("/dev/sda?blk_size=512").value().path(), "/dev/sda");
  const auto v6 = Uri::parse("nvmf://[fe80::1]:99/n");
  EXPECT_EQ(v6.value().host(), "fe80::1");
  EXPECT_EQ(v6.value().port(), 99);
  EXPECT_EQ(Uri::parse("nvmf://[fe80::1]/n").value().port(), std::nullopt);
}

TEST(Uri, RefusesMalformedText) {
  for (const std::string bad : {"",
                                "dev/sda",
                                "aio:/x",
                                "1aio:///x",
                                "://x",
                                "a b:///x",
                                "aio:///%",
                                "aio:///%0",
                                "aio:///%zz",
                                "aio:///%00",
                                "nvmf://h:0/x",
                                "nvmf://h:65536/x",
                                "nvmf://h:/x",
                                "nvmf://h:1x/x",
                                "nvmf://[::1/x",
                                "nvmf://[::1]x/x",
                                "aio:///x?=1",
                                "aio:///x?a=1&a=2",
                                "aio:///x?a=%",
                                "aio:///x\n"}) {
    const auto parsed = Uri::parse(bad);
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(parsed.error().message.find("Cannot parse URI"), std::string::npos);
  }
  EXPECT_FALSE(Uri::parse(std::string(5000, '/')).ok());
}

TEST(Uri, TypedParameters) {
  const Uri uri = Uri::parse("aio:///x?n=18446744073709551615&big=18446744073709551616&u=1").take();
  EXPECT_EQ(*uri.find_u64("n").value(), UINT64_MAX);
  EXPECT_FALSE(uri.find_u64("big").ok());
  EXPECT_EQ(uri.find_u64("none").value(), std::nullopt);
  EXPECT_FALSE(uri.find_uuid("u").ok());
  EXPECT_TRUE(uri.allow_only({"n", "big", "u"}).ok());
  EXPECT_NE(uri.allow_only({"n", "u"}).error().message.find("'big'"), std::string::npos);
}

TEST(Uri, EncodesWhatItDecodes) {
  std::string all;
  for (int32_t byte = 1; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(percent_decode(percent_encode(all)), all);
  EXPECT_EQ(percent_encode("a/b c"), "a/b%20c");
}

TEST(IoStatus, KeepsTheErrno) {
  EXPECT_TRUE(io_status_from_errno(ENOSPC, true).is(io_status::kNoSpace));
  EXPECT_TRUE(io_status_from_errno(EDQUOT, true).is(io_status::kNoSpace));
  EXPECT_TRUE(io_status_from_errno(ENOSPC, false).is(io_status::kUnrecoveredRead));
  for (const int32_t gone : {ENXIO, ENODEV, ENOMEM}) {
    EXPECT_TRUE(io_status_from_errno(gone, true).is(io_status::kWriteFault));
  }
  EXPECT_TRUE(io_status_from_errno(EIO, true).is(io_status::kWriteFault));
  EXPECT_TRUE(io_status_from_errno(EIO, false).is(io_status::kUnrecoveredRead));
  EXPECT_EQ(io_status_from_errno(EIO, false).error_number, EIO);
}

}  // namespace
}  // namespace mayastor

// The format's bytes: numbers known from stores of other implementations, and refusal of damage.
#include "lvs/format.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "lvs/bit_array.h"

namespace mayastor::lvs_format {
namespace {

constexpr uint64_t kMiB = 1u << 20;

LayoutOptions layout_of(uint64_t device_bytes, uint32_t cluster_size) {
  LayoutOptions options;
  options.device_bytes = device_bytes;
  options.cluster_size = cluster_size;
  return options;
}

TEST(Format, LayoutOf1100MiBIsTheKnownOne) {
  auto planned = plan_layout(layout_of(1100 * kMiB, 4 * kMiB));
  ASSERT_TRUE(planned.ok());
  const SuperBlock& super = planned.value();
  EXPECT_EQ(super.total_clusters(), 275u);
  EXPECT_EQ(super.page_mask_start, 1u);
  EXPECT_EQ(super.cluster_mask_start, 2u);
  EXPECT_EQ(super.blobid_mask_start, 3u);
  EXPECT_EQ(super.page_mask_len, 1u);
  EXPECT_EQ(super.cluster_mask_len, 1u);
  EXPECT_EQ(super.blobid_mask_len, 1u);
  EXPECT_EQ(super.md_start, 4u);
  EXPECT_EQ(super.md_len, 275u);
  EXPECT_EQ(super.md_clusters(), 1u);
}

TEST(Format, LayoutReservesRoomForTheClusterMaskToGrow) {
  LayoutOptions options = layout_of(200'000 * kMiB, kMiB);
  options.md_reserve_ratio_percent = 300;
  auto planned = plan_layout(options);
  ASSERT_TRUE(planned.ok());
  const SuperBlock& super = planned.value();
  EXPECT_EQ(super.md_len, 600'000u);
  EXPECT_EQ(super.cluster_mask_len, mask_pages(200'000));
  EXPECT_EQ(super.blobid_mask_start, super.cluster_mask_start + mask_pages(600'000));
  Page page{};
  encode_super(super, page);
  EXPECT_TRUE(parse_super(page, options.device_bytes).ok());
}

TEST(Format, MaskPagesCountTheFiveByteHeader) {
  EXPECT_EQ(mask_pages(1), 1u);
  EXPECT_EQ(mask_pages((4096 - 5) * 8), 1u);
  EXPECT_EQ(mask_pages((4096 - 5) * 8 + 1), 2u);
}

TEST(Format, LayoutRefusesWhatCannotHoldAPool) {
  EXPECT_FALSE(plan_layout(layout_of(3 * kMiB, 4 * kMiB)).ok());
  EXPECT_FALSE(plan_layout(layout_of(4 * kMiB, 4 * kMiB)).ok());
  EXPECT_FALSE(plan_layout(layout_of(100 * kMiB, 5000)).ok());
  EXPECT_FALSE(plan_layout(layout_of(100 * kMiB, 0)).ok());
  LayoutOptions odd = layout_of(100 * kMiB, kMiB);
  odd.block_size = 520;
  EXPECT_FALSE(plan_layout(odd).ok());
}

TEST(Format, SuperBlockBytesAreWhereTheyBelong) {
  SuperBlock super = plan_layout(layout_of(1100 * kMiB, 4 * kMiB)).take();
  super.super_blob = blob_id_of(0);
  super.clean = true;
  Page page{};
  encode_super(super, page);
  EXPECT_EQ(std::memcmp(page.data(), "SPDKBLOB\x03\0\0\0\0\x10\0\0\x01\0\0\0", 20), 0);
  EXPECT_EQ(std::memcmp(page.data() + 20, "\0\0\0\0\x01\0\0\0", 8), 0);
  EXPECT_EQ(std::memcmp(page.data() + 28, "\0\0\x40\0", 4), 0);
  EXPECT_EQ(std::memcmp(page.data() + 56, "LVOLSTORE\0\0\0\0\0\0\0", 16), 0);
  EXPECT_EQ(std::memcmp(page.data() + 88, "\0\x02\0\0", 4), 0);
  auto parsed = parse_super(page, 1100 * kMiB);
  ASSERT_TRUE(parsed.ok());
  EXPECT_TRUE(parsed.value().clean);
  EXPECT_EQ(parsed.value().super_blob, 0x100000000u);
  EXPECT_EQ(parsed.value().size_bytes, 1100 * kMiB);
  EXPECT_EQ(parsed.value().type, "LVOLSTORE");
}

TEST(Format, SuperBlockThatIsDamagedIsRefusedButATornCleanMarkIsNot) {
  SuperBlock super = plan_layout(layout_of(1100 * kMiB, 4 * kMiB)).take();
  Page page{};
  EXPECT_EQ(parse_super(page, 1100 * kMiB).error().code, ErrorCode::kNotFound);
  encode_super(super, page);
  EXPECT_FALSE(parse_super(page, 1099 * kMiB).ok());  // device shrank
  EXPECT_TRUE(parse_super(page, 1200 * kMiB).ok());
  Page torn = page;
  torn[16] = 1;
  auto taken = parse_super(torn, 1100 * kMiB);
  ASSERT_TRUE(taken.ok());
  EXPECT_FALSE(taken.value().clean);
  for (const size_t at : {8u, 12u, 29u, 36u, 90u, 3000u}) {
    Page bad = page;
    bad[at] ^= 0x11;
    EXPECT_FALSE(parse_super(bad, 1100 * kMiB).ok()) << at;
    seal(bad);
    if (at == 29u || at == 36u) {
      EXPECT_FALSE(parse_super(bad, 1100 * kMiB).ok()) << at;
    }
  }
}

TEST(Format, MasksLongerThanTheStoreNeedsAreRefused) {
  // A device that would have the room: only the length itself is wrong.
  constexpr uint64_t kDevice = 1ull << 40;
  const SuperBlock good = plan_layout(layout_of(64 * kMiB, kMiB)).take();
  Page page{};
  encode_super(good, page);
  ASSERT_TRUE(parse_super(page, kDevice).ok());
  for (const int which : {0, 1, 2}) {
    SuperBlock super = good;
    super.size_bytes = kDevice;
    super.cluster_size = 1u << 30;
    super.page_mask_start = 1;
    super.page_mask_len = which == 0 ? 1u << 20 : 1;
    super.cluster_mask_start = super.page_mask_start + super.page_mask_len;
    super.cluster_mask_len = which == 1 ? 1u << 20 : 1;
    super.blobid_mask_start = super.cluster_mask_start + super.cluster_mask_len;
    super.blobid_mask_len = which == 2 ? 1u << 20 : 1;
    super.md_start = super.blobid_mask_start + super.blobid_mask_len;
    Page crafted{};
    encode_super(super, crafted);
    auto parsed = parse_super(crafted, kDevice);
    ASSERT_FALSE(parsed.ok()) << which;
    EXPECT_NE(parsed.error().message.find("too long"), std::string::npos) << parsed.error().message;
  }
}

TEST(Format, MasksRoundTripAndCheckTheirHeader) {
  std::vector<uint64_t> words = {0x8000000000000001, 0x5};
  std::vector<uint8_t> bytes(kPageSize);
  encode_mask(words, MaskType::kClusters, 70, bytes);
  EXPECT_EQ(bytes[0], 1);
  EXPECT_EQ(bytes[1], 70);
  EXPECT_EQ(bytes[5], 1);
  EXPECT_EQ(bytes[12], 0x80);
  EXPECT_EQ(parse_mask(bytes, MaskType::kClusters, 70).value(), words);
  EXPECT_TRUE(parse_mask(bytes, MaskType::kClusters, 60).ok());  // left over from a grow
  EXPECT_FALSE(parse_mask(bytes, MaskType::kClusters, 71).ok());
  EXPECT_FALSE(parse_mask(bytes, MaskType::kPages, 70).ok());
  EXPECT_FALSE(parse_mask({bytes.data(), 10}, MaskType::kClusters, 70).ok());
}

Limits test_limits() {
  Limits limits;
  limits.total_clusters = 5000;
  limits.first_data_cluster = 3;
  limits.md_len = 5000;
  return limits;
}

Result<BlobMetadata> parse_chain(const std::vector<Page>& pages, uint64_t id, bool strict = true) {
  ChainParser parser(id, test_limits(), strict);
  for (const Page& page : pages) {
    if (auto added = parser.add(page); !added.ok()) return added.error();
  }
  return parser.finish();
}

TEST(Format, SuperBlobPageHasTheKnownBytes) {
  BlobMetadata blob;
  blob.set("uuid", uuid_value(Uuid::from_name("x")));
  blob.set("name", nul_terminated("pool"));
  std::vector<Page> pages = encode_chain(blob_id_of(0), blob);
  ASSERT_EQ(pages.size(), 1u);
  const std::vector<uint32_t> numbers(1, 0u);
  link_chain(pages, numbers);
  const uint8_t* at = pages[0].data();
  EXPECT_EQ(std::memcmp(at, "\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0", 16), 0);
  EXPECT_EQ(std::memcmp(at + 16, "\x03\x18\0\0\0\x04\0\0\0\0\0\0\0", 13), 0);  // flags, table
  const uint8_t* uuid = at + 16 + 29;
  EXPECT_EQ(std::memcmp(uuid, "\x02\x2d\0\0\0\x04\0\x25\0uuid", 13), 0);
  const uint8_t* name = uuid + 5 + 45;
  EXPECT_EQ(std::memcmp(name, "\x02\x0d\0\0\0\x04\0\x05\0namepool\0", 18), 0);
  EXPECT_EQ(std::memcmp(name + 18, "\x05\x08\0\0\0\0\0\0\0\0\0\0\0", 13), 0);  // empty table
  EXPECT_EQ(std::memcmp(at + 4088, "\xff\xff\xff\xff", 4), 0);
  EXPECT_TRUE(crc_ok(pages[0]));
  EXPECT_TRUE(parse_chain(pages, blob_id_of(0)).ok());
}

BlobMetadata big_blob() {
  BlobMetadata blob;
  blob.invalid_flags = kInvalidExtentTable | kInvalidThin;
  blob.md_ro_flags = kClearUnmap;
  for (int i = 0; i < 5; ++i) {
    blob.set("attribute-" + std::to_string(i), std::string(1500, static_cast<char>('a' + i)));
  }
  blob.set_internal(kXattrParent, std::string("\x07\0\0\0\1\0\0\0", 8));
  blob.clusters.assign(512 * 1200 + 3, 0);
  blob.extent_pages.assign(1201, 0);
  for (uint32_t i = 0; i < 1201; i += 3) blob.extent_pages[i] = i + 1;
  return blob;
}

TEST(Format, ChainOfManyPagesRoundTrips) {
  const BlobMetadata blob = big_blob();
  std::vector<Page> pages = encode_chain(blob_id_of(9), blob);
  ASSERT_GT(pages.size(), 3u);
  std::vector<uint32_t> numbers;
  for (uint32_t i = 0; i < pages.size(); ++i) numbers.push_back(9 + i * 2);
  link_chain(pages, numbers);
  EXPECT_EQ(page_header(pages[0]).next, 11u);
  auto parsed = parse_chain(pages, blob_id_of(9));
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed.value().xattrs, blob.xattrs);
  EXPECT_EQ(parsed.value().internal_xattrs, blob.internal_xattrs);
  EXPECT_EQ(parsed.value().extent_pages, blob.extent_pages);
  EXPECT_EQ(parsed.value().clusters.size(), blob.clusters.size());
  EXPECT_EQ(parsed.value().invalid_flags, 0x7u);
  EXPECT_EQ(parsed.value().internal_id(kXattrParent), blob_id_of(7));
  std::swap(pages[1], pages[2]);
  EXPECT_FALSE(parse_chain(pages, blob_id_of(9)).ok());
  EXPECT_FALSE(parse_chain(pages, blob_id_of(8)).ok());
}

TEST(Format, RunLengthBlobRoundTrips) {
  BlobMetadata blob;
  blob.invalid_flags = kInvalidThin;
  blob.clusters = {0, 0, 5, 6, 7, 0, 9, 8, 4999};
  std::vector<Page> pages = encode_chain(blob_id_of(1), blob);
  const std::vector<uint32_t> numbers(1, 1u);
  link_chain(pages, numbers);
  auto parsed = parse_chain(pages, blob_id_of(1));
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed.value().clusters, blob.clusters);
  EXPECT_FALSE(parsed.value().has_table());
}

TEST(Format, ExtentPageRoundTripsAndChecksItsContents) {
  BlobMetadata blob;
  blob.clusters.resize(700);
  for (uint32_t i = 0; i < 700; ++i) blob.clusters[i] = i + 3;
  const Page page = encode_extent_page(blob_id_of(4), 512, blob.clusters);
  auto parsed = parse_extent_page(page, test_limits());
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed.value().start, 512u);
  EXPECT_EQ(parsed.value().clusters.size(), 188u);
  BlobMetadata other;
  other.clusters.resize(600);
  EXPECT_TRUE(apply_extent_page(parsed.value(), 1, other).ok());  // surplus entries dropped
  EXPECT_EQ(other.clusters[599], 602u);
  EXPECT_FALSE(apply_extent_page(parsed.value(), 0, other).ok());
  EXPECT_FALSE(check_complete(other).ok());
  Limits tight = test_limits();
  tight.total_clusters = 700;
  EXPECT_FALSE(parse_extent_page(page, tight).ok());
  tight = test_limits();
  tight.first_data_cluster = 600;
  EXPECT_FALSE(parse_extent_page(page, tight).ok());
}

// One descriptor of a type and payload, alone in a sealed root page.
Page page_with(uint8_t type, const std::string& payload) {
  PageDisk disk{};
  disk.blob_id = blob_id_of(1);
  disk.next = kNoPage;
  const auto length = static_cast<uint32_t>(payload.size());
  disk.descriptors[0] = type;
  std::memcpy(disk.descriptors + 1, &length, 4);
  std::memcpy(disk.descriptors + 5, payload.data(), std::min<size_t>(payload.size(), 4000));
  Page page;
  std::memcpy(page.data(), &disk, sizeof disk);
  seal(page);
  return page;
}

TEST(Format, DamagedDescriptorsAreRefused) {
  const std::string u32_1("\1\0\0\0", 4);
  const std::string u32_5000("\x88\x13\0\0", 4);
  const struct {
    uint8_t type;
    std::string payload;
  } all[] = {
      {3, std::string(23, '\0')},                                  // flags
      {3, std::string(7, '\0') + "\x80" + std::string(16, '\0')},  // unknown flag
      {2, std::string("\4\0\4\0ab", 6)},                           // xattr
      {2, "ab"},
      {1, ""},  // runs
      {1, u32_1},
      {1, u32_5000 + u32_1},
      {1, std::string("\x87\x13\0\0\2\0\0\0", 8)},
      {1, std::string("\0\0\0\0\xff\xff\xff\xff", 8)},
      {5, u32_1},  // table
      {5, std::string("\1\0\0\0\0\0\0\0", 8) + u32_5000 + u32_1},
      {5, std::string("\1\0\0\0\0\0\0\0", 8) + u32_1 + std::string("\2\0\0\0", 4)},
      {5, std::string("\xff\xff\xff\xff\xff\0\0\0", 8)},
      {6, u32_1 + u32_1},           // extent page in a chain
      {9, ""},                      // unknown
      {2, std::string(5000, 'x')},  // over its page
  };
  for (const auto& each : all) {
    std::vector<Page> pages = {page_with(each.type, each.payload)};
    EXPECT_FALSE(parse_chain(pages, blob_id_of(1)).ok()) << int{each.type};
  }
  const std::vector<Page> unknown = {page_with(9, "abc")};
  EXPECT_TRUE(parse_chain(unknown, blob_id_of(1), false).ok());
  const std::vector<Page> padding = {page_with(0, "abc")};
  EXPECT_TRUE(parse_chain(padding, blob_id_of(1)).ok());
}

TEST(BitArray, AgreesWithANaiveOne) {
  uint64_t state = 12345;
  for (const uint32_t size : {1u, 63u, 64u, 65u, 500u}) {
    BitArray bits(size);
    std::vector<bool> naive(size);
    for (int step = 0; step < 3000; ++step) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const auto at = static_cast<uint32_t>((state >> 33) % size);
      const auto naive_clear = [&](uint32_t from) -> std::optional<uint32_t> {
        for (uint32_t i = from; i < size; ++i) {
          if (!naive[i]) return i;
        }
        return std::nullopt;
      };
      ASSERT_EQ(bits.find_clear(at), naive_clear(at));
      ASSERT_EQ(bits.find_clear(0), naive_clear(0));
      const uint32_t target = step % 3 == 0 ? at : bits.find_clear(at).value_or(at);
      if (bits.test(target)) {
        bits.clear(target);
      } else {
        bits.set(target);
      }
      naive[target] = !naive[target];
      ASSERT_EQ(bits.used(), static_cast<uint32_t>(std::count(naive.begin(), naive.end(), true)));
    }
  }
}

}  // namespace
}  // namespace mayastor::lvs_format

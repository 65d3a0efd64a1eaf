// Feeds bytes to every parser of the pool's on-disk format. The first byte chooses the parser;
// pages get a right checksum, for otherwise nothing behind it would ever be reached. What parses
// must encode and parse again to the same.
#include <algorithm>
#include <cstring>

#include "lvs/device_probe.h"
#include "lvs/format.h"
#include "util/check.h"

namespace {

using namespace mayastor::lvs_format;

Limits fuzz_limits() {
  Limits limits;
  limits.total_clusters = 100'000;
  limits.first_data_cluster = 2;
  limits.md_len = 100'000;
  limits.max_blob_clusters = 1 << 16;
  return limits;
}

Page page_from(const uint8_t* data, size_t size) {
  Page page{};
  std::memcpy(page.data(), data, std::min<size_t>(size, kPageSize));
  return page;
}

void chain(const uint8_t* data, size_t size, bool strict) {
  constexpr uint64_t kId = 0x1'0000'0007;
  ChainParser parser(kId, fuzz_limits(), strict);
  uint32_t sequence = 0;
  do {
    Page page = page_from(data, size);
    const size_t taken = std::min<size_t>(size, kPageSize);
    data += taken;
    size -= taken;
    const uint64_t id = kId;
    const uint32_t next = size > 0 ? 1 : kNoPage;
    std::memcpy(page.data(), &id, sizeof id);
    std::memcpy(page.data() + 8, &sequence, sizeof sequence);
    std::memcpy(page.data() + 4088, &next, sizeof next);
    seal(page);
    if (!parser.add(page).ok()) return;
    ++sequence;
  } while (size > 0);
  auto parsed = parser.finish();
  if (!parsed.ok()) return;
  const BlobMetadata blob = parsed.take();
  std::vector<Page> pages = encode_chain(kId, blob);
  std::vector<uint32_t> numbers(pages.size());
  for (uint32_t i = 0; i < numbers.size(); ++i) numbers[i] = 7 + i;
  link_chain(pages, numbers);
  ChainParser again(kId, fuzz_limits(), true);
  for (const Page& page : pages) CHECK(again.add(page).ok());
  auto second = again.finish();
  CHECK(second.ok());
  CHECK(second.value().xattrs == blob.xattrs);
  CHECK(second.value().internal_xattrs == blob.internal_xattrs);
  CHECK(second.value().clusters == blob.clusters);
  CHECK(second.value().extent_pages == blob.extent_pages);
  CHECK(second.value().invalid_flags == blob.invalid_flags);
}

void extent_page(const uint8_t* data, size_t size) {
  Page page = page_from(data, size);
  seal(page);
  auto parsed = parse_extent_page(page, fuzz_limits());
  if (!parsed.ok()) return;
  const uint32_t index = parsed.value().start / kClustersPerExtentPage;
  if (index > 1000) return;
  BlobMetadata blob;
  blob.clusters.resize(parsed.value().start + 100u);
  CHECK(apply_extent_page(parsed.value(), index, blob).ok());
}

void super(const uint8_t* data, size_t size) {
  Page page = page_from(data, size);
  std::memcpy(page.data(), kSignature, 8);
  seal(page);
  constexpr uint64_t kDevice = 1ull << 40;
  auto parsed = parse_super(page, kDevice);
  if (!parsed.ok()) return;
  CHECK(parsed.value().md_clusters() <= parsed.value().total_clusters());
  CHECK(parsed.value().size_bytes <= kDevice);
  // What is read and kept in memory is bounded by the device, not by the super block's words.
  const uint32_t longest =
      std::max(mask_pages(parsed.value().md_len), mask_pages(parsed.value().total_clusters()));
  CHECK(parsed.value().page_mask_len <= longest);
  CHECK(parsed.value().cluster_mask_len <= longest);
  CHECK(parsed.value().blobid_mask_len <= longest);
  encode_super(parsed.value(), page);
  CHECK(parse_super(page, kDevice).ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint8_t kind = data[0];
  ++data;
  --size;
  switch (kind % 6) {
    case 0:
      super(data, size);
      break;
    case 1:
    case 2:
      chain(data, size, kind % 6 == 1);
      break;
    case 3:
      extent_page(data, size);
      break;
    case 4: {
      const uint32_t bits = kind * 40u;
      const auto type = static_cast<MaskType>(kind % 3);
      auto parsed = parse_mask({data, size}, type, bits);
      if (!parsed.ok()) break;
      std::vector<uint8_t> bytes(mask_pages(bits) * size_t{kPageSize});
      encode_mask(parsed.value(), type, bits, bytes);
      CHECK(parse_mask(bytes, type, bits).value() == parsed.value());
      break;
    }
    default: {
      const size_t half = size / 2;
      static_cast<void>(mayastor::recognise_contents({data, half}, {data + half, size - half},
                                                     uint64_t{kind} << 20 | (size - half)));
      break;
    }
  }
  return 0;
}

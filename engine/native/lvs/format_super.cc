// Super block, layout and masks: see format.h.
#include <algorithm>
#include <cstring>

#include "lvs/format.h"
#include "util/crc32c.h"

namespace mayastor::lvs_format {
namespace {

Error damaged_super(std::string what) {
  return Error{ErrorCode::kInternal, "pool super block is damaged: " + std::move(what), 117};
}

SuperBlock decode(const SuperBlockDisk& disk) {
  SuperBlock super;
  super.version = disk.version;
  super.clean = disk.clean == 1;
  super.super_blob = disk.super_blob;
  super.cluster_size = disk.cluster_size;
  super.page_mask_start = disk.page_mask_start;
  super.page_mask_len = disk.page_mask_len;
  super.cluster_mask_start = disk.cluster_mask_start;
  super.cluster_mask_len = disk.cluster_mask_len;
  super.md_start = disk.md_start;
  super.md_len = disk.md_len;
  super.type.assign(disk.type, strnlen(disk.type, sizeof disk.type));
  if (disk.version >= 3) {  // before, these bytes meant nothing
    super.blobid_mask_start = disk.blobid_mask_start;
    super.blobid_mask_len = disk.blobid_mask_len;
  }
  super.size_bytes = disk.size_bytes;
  super.io_unit_size = disk.io_unit_size == 0 ? kPageSize : disk.io_unit_size;
  return super;
}

struct Region {
  uint64_t start, length, bits;
  const char* name;
};

// Every region lies between the super block and the metadata, apart from the others, and can hold
// its bits. None is longer than the longest mask of the store: a mask is read into memory.
Result<void> check_regions(const SuperBlock& super) {
  const uint32_t longest = std::max(mask_pages(super.md_len), mask_pages(super.total_clusters()));
  std::vector<Region> regions = {
      {super.page_mask_start, super.page_mask_len, super.md_len, "used page mask"},
      {super.cluster_mask_start, super.cluster_mask_len, super.total_clusters(),
       "used cluster mask"}};
  if (super.blobid_mask_len != 0) {
    regions.push_back(
        {super.blobid_mask_start, super.blobid_mask_len, super.md_len, "used blob id mask"});
  }
  std::sort(regions.begin(), regions.end(),
            [](const Region& a, const Region& b) { return a.start < b.start; });
  uint64_t end = 1;
  for (const Region& region : regions) {
    if (region.start < end) return damaged_super(std::string(region.name) + " overlaps");
    if (region.length < mask_pages(region.bits)) {
      return damaged_super(std::string(region.name) + " is too short");
    }
    if (region.length > longest) return damaged_super(std::string(region.name) + " is too long");
    end = region.start + region.length;
  }
  if (super.md_start < end) return damaged_super("metadata region overlaps a mask");
  const uint64_t md_bytes = (uint64_t{super.md_start} + super.md_len) * kPageSize;
  if (md_bytes > super.size_bytes) return damaged_super("metadata region is beyond the end");
  return {};
}

}  // namespace

bool crc_ok(std::span<const uint8_t, kPageSize> page) noexcept {
  uint32_t stored;
  std::memcpy(&stored, page.data() + kCrcOffset, sizeof stored);
  return stored == crc32c(page.data(), kCrcOffset);
}

void seal(std::span<uint8_t, kPageSize> page) noexcept {
  const uint32_t crc = crc32c(page.data(), kCrcOffset);
  std::memcpy(page.data() + kCrcOffset, &crc, sizeof crc);
}

bool all_zero(std::span<const uint8_t> bytes) noexcept {
  if (bytes.empty()) return true;
  return bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

uint32_t mask_pages(uint64_t bits) noexcept {
  const uint64_t bytes = sizeof(MaskHeaderDisk) + (bits + 7) / 8;
  return static_cast<uint32_t>((bytes + kPageSize - 1) / kPageSize);
}

uint32_t SuperBlock::md_clusters() const noexcept {
  const uint64_t bytes = (uint64_t{md_start} + md_len) * kPageSize;
  return static_cast<uint32_t>((bytes + cluster_size - 1) / cluster_size);
}

Result<SuperBlock> plan_layout(const LayoutOptions& options) {
  const auto invalid = [](std::string what) {
    return Error{ErrorCode::kInvalidArgument, std::move(what), 22};
  };
  if (options.cluster_size == 0 || options.cluster_size % kPageSize != 0) {
    return invalid("cluster size " + std::to_string(options.cluster_size) +
                   " is not a multiple of 4096 bytes");
  }
  if (options.block_size == 0 || kPageSize % options.block_size != 0) {
    return invalid("block size " + std::to_string(options.block_size) +
                   " does not divide 4096; use a device with 512 or 4096 byte blocks");
  }
  if (options.md_reserve_ratio_percent == 0) return invalid("metadata reserve ratio is 0");
  const uint64_t total = options.device_bytes / options.cluster_size;
  if (total > UINT32_MAX - 1) return invalid("device has too many clusters; use larger ones");

  SuperBlock super;
  super.cluster_size = options.cluster_size;
  super.size_bytes = options.device_bytes;
  super.io_unit_size = options.block_size;
  super.type = kLvolStoreType;
  const uint64_t md_len = total * options.md_reserve_ratio_percent / 100;
  if (md_len > UINT32_MAX / 2) return invalid("metadata reserve is too large");
  super.md_len = static_cast<uint32_t>(md_len);
  super.page_mask_start = 1;
  super.page_mask_len = mask_pages(super.md_len);
  super.cluster_mask_start = super.page_mask_start + super.page_mask_len;
  super.cluster_mask_len = mask_pages(total);
  // Room to grow: the mask may later need as many bits as there are metadata pages.
  const uint32_t reserved = std::max(super.cluster_mask_len, mask_pages(super.md_len));
  super.blobid_mask_start = super.cluster_mask_start + reserved;
  super.blobid_mask_len = mask_pages(super.md_len);
  super.md_start = super.blobid_mask_start + super.blobid_mask_len;
  // One page for the super blob and one for a lvol, one cluster for its data.
  if (total == 0 || super.md_len < 2 || super.md_clusters() >= total) {
    return invalid("device of " + std::to_string(options.device_bytes) +
                   " bytes is too small for a pool with clusters of " +
                   std::to_string(options.cluster_size) + " bytes");
  }
  return super;
}

Result<SuperBlock> parse_super(std::span<const uint8_t, kPageSize> page, uint64_t device_bytes) {
  SuperBlockDisk disk;
  std::memcpy(&disk, page.data(), sizeof disk);
  if (std::memcmp(disk.signature, kSignature, sizeof disk.signature) != 0) {
    return Error{ErrorCode::kNotFound, "no pool found", 2};
  }
  if (disk.version < 1 || disk.version > kVersion) {
    return damaged_super("unsupported version " + std::to_string(disk.version));
  }
  if (!crc_ok(page)) {
    Page other;
    std::memcpy(other.data(), page.data(), kPageSize);
    disk.clean = disk.clean == 0 ? 1 : 0;
    std::memcpy(other.data() + offsetof(SuperBlockDisk, clean), &disk.clean, sizeof disk.clean);
    if (!crc_ok(other)) return damaged_super("checksum mismatch");
    disk.clean = 0;
  }
  if (disk.length != kPageSize) return damaged_super("length is not 4096");
  if (disk.md_page_size != 0 && disk.md_page_size != kPageSize) {
    return damaged_super("metadata pages of " + std::to_string(disk.md_page_size) +
                         " bytes are not supported");
  }
  SuperBlock super = decode(disk);
  if (super.size_bytes == 0) super.size_bytes = device_bytes;
  if (super.size_bytes > device_bytes) {
    return damaged_super("pool has " + std::to_string(super.size_bytes) +
                         " bytes, the device only " + std::to_string(device_bytes));
  }
  if (super.cluster_size == 0 || super.cluster_size % kPageSize != 0) {
    return damaged_super("cluster size " + std::to_string(super.cluster_size));
  }
  if (super.io_unit_size > kPageSize || kPageSize % super.io_unit_size != 0) {
    return damaged_super("I/O unit of " + std::to_string(super.io_unit_size) + " bytes");
  }
  if (super.md_len == 0 || super.size_bytes / super.cluster_size > UINT32_MAX - 1) {
    return damaged_super("impossible number of clusters or metadata pages");
  }
  if (auto checked = check_regions(super); !checked.ok()) return checked.error();
  if (super.md_clusters() > super.total_clusters()) {
    return damaged_super("no room for data");
  }
  return super;
}

void encode_super(const SuperBlock& super, std::span<uint8_t, kPageSize> page) {
  SuperBlockDisk disk;
  std::memcpy(&disk, page.data(), sizeof disk);
  std::memcpy(disk.signature, kSignature, sizeof disk.signature);
  disk.version = super.version;
  disk.length = kPageSize;
  disk.clean = super.clean ? 1 : 0;
  disk.super_blob = super.super_blob;
  disk.cluster_size = super.cluster_size;
  disk.page_mask_start = super.page_mask_start;
  disk.page_mask_len = super.page_mask_len;
  disk.cluster_mask_start = super.cluster_mask_start;
  disk.cluster_mask_len = super.cluster_mask_len;
  disk.md_start = super.md_start;
  disk.md_len = super.md_len;
  std::memset(disk.type, 0, sizeof disk.type);
  std::memcpy(disk.type, super.type.data(), std::min(super.type.size(), sizeof disk.type));
  disk.blobid_mask_start = super.blobid_mask_start;
  disk.blobid_mask_len = super.blobid_mask_len;
  disk.size_bytes = super.size_bytes;
  disk.io_unit_size = super.io_unit_size;
  std::memcpy(page.data(), &disk, sizeof disk);
  seal(page);
}

Result<std::vector<uint64_t>> parse_mask(std::span<const uint8_t> bytes, MaskType type,
                                         uint32_t bits) {
  const auto damaged = [](const char* what) {
    return Error{ErrorCode::kInternal, std::string("pool mask is damaged: ") + what, 117};
  };
  MaskHeaderDisk header;
  if (bytes.size() < sizeof header) return damaged("too short");
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.type != static_cast<uint8_t>(type)) return damaged("wrong type");
  const bool longer_allowed = type == MaskType::kClusters;
  if (header.bits != bits && !(longer_allowed && header.bits > bits)) {
    return damaged("wrong length");
  }
  const std::span<const uint8_t> map = bytes.subspan(sizeof header);
  if (map.size() < (uint64_t{bits} + 7) / 8) return damaged("too short");
  std::vector<uint64_t> words((uint64_t{bits} + 63) / 64);
  for (uint32_t bit = 0; bit < bits; ++bit) {
    if ((map[bit / 8] >> (bit % 8) & 1) != 0) words[bit / 64] |= 1ull << (bit % 64);
  }
  return words;
}

void encode_mask(std::span<const uint64_t> words, MaskType type, uint32_t bits,
                 std::span<uint8_t> bytes) {
  const MaskHeaderDisk header{static_cast<uint8_t>(type), bits};
  CHECK(bytes.size() >= sizeof header + (uint64_t{bits} + 7) / 8);
  std::fill(bytes.begin(), bytes.end(), uint8_t{0});
  std::memcpy(bytes.data(), &header, sizeof header);
  // Little-endian words are the bitmap's bytes in order.
  std::memcpy(bytes.data() + sizeof header, words.data(), (uint64_t{bits} + 7) / 8);
}

}  // namespace mayastor::lvs_format

// The pool's on-disk format (FORMAT.md) as pure functions over bytes: what a super block, a mask, a
// metadata page and an extent page say, and how they are written.
// Why: foreign bytes are parsed in one place without I/O, so that they can be fuzzed.
// Invariants: parsers never trust a length or an index and never allocate more than `Limits` allow;
// encode(parse(x)) keeps everything another implementation wrote in a known descriptor.
// Source: the published blobstore and lvolstore formats, version 3. All integers little-endian.
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "util/result.h"
#include "util/uuid.h"

namespace mayastor::lvs_format {

inline constexpr uint32_t kPageSize = 4096;
inline constexpr uint32_t kCrcOffset = 4092;
inline constexpr uint32_t kNoPage = 0xFFFFFFFF;  // end of a chain
inline constexpr uint64_t kNoBlob = UINT64_MAX;
inline constexpr uint32_t kClustersPerExtentPage = 512;
inline constexpr uint64_t kBlobClustersMax = 1 << 26;  // of one blob, which may exceed the device
inline constexpr uint32_t kVersion = 3;
inline constexpr char kSignature[] = "SPDKBLOB";  // 8 bytes on disk, no NUL
inline constexpr char kLvolStoreType[] = "LVOLSTORE";

inline constexpr uint64_t kInvalidThin = 0x1;  // invalid_flags
inline constexpr uint64_t kInvalidInternalXattr = 0x2;
inline constexpr uint64_t kInvalidExtentTable = 0x4;
inline constexpr uint64_t kInvalidExternalClone = 0x8;
inline constexpr uint64_t kInvalidKnown = 0xF;
inline constexpr uint64_t kDataReadOnly = 0x1;  // data_ro_flags
inline constexpr uint64_t kDataReadOnlyKnown = 0x1;
inline constexpr uint64_t kClearMethodMask = 0x3;  // md_ro_flags
inline constexpr uint64_t kClearNone = 1, kClearUnmap = 2, kClearWriteZeroes = 3;

inline constexpr char kXattrParent[] = "SNAP";
inline constexpr char kXattrSnapshotInProgress[] = "SNAPTMP";
inline constexpr char kXattrSnapshotRemoval[] = "SNAPRM";
inline constexpr char kXattrExternalSnapshot[] = "EXTSNAP";

struct __attribute__((packed)) SuperBlockDisk {
  char signature[8];
  uint32_t version, length, clean;
  uint64_t super_blob;
  uint32_t cluster_size;
  uint32_t page_mask_start, page_mask_len;
  uint32_t cluster_mask_start, cluster_mask_len;
  uint32_t md_start, md_len;
  char type[16];
  uint32_t blobid_mask_start, blobid_mask_len;
  uint64_t size_bytes;
  uint32_t io_unit_size;
  uint32_t md_page_size;
  uint8_t reserved[3996];
  uint32_t crc;
};
static_assert(sizeof(SuperBlockDisk) == kPageSize && offsetof(SuperBlockDisk, super_blob) == 20 &&
              offsetof(SuperBlockDisk, type) == 56 && offsetof(SuperBlockDisk, size_bytes) == 80 &&
              offsetof(SuperBlockDisk, md_page_size) == 92 &&
              offsetof(SuperBlockDisk, crc) == kCrcOffset &&
              std::is_trivially_copyable_v<SuperBlockDisk>);

struct __attribute__((packed)) PageDisk {
  uint64_t blob_id;
  uint32_t sequence;
  uint32_t reserved;
  uint8_t descriptors[4072];
  uint32_t next;
  uint32_t crc;
};
static_assert(sizeof(PageDisk) == kPageSize && offsetof(PageDisk, descriptors) == 16 &&
              offsetof(PageDisk, next) == 4088 && std::is_trivially_copyable_v<PageDisk>);

struct __attribute__((packed)) MaskHeaderDisk {
  uint8_t type;
  uint32_t bits;
};
static_assert(sizeof(MaskHeaderDisk) == 5);
enum class MaskType : uint8_t { kPages = 0, kClusters = 1, kBlobIds = 2 };

using Page = std::array<uint8_t, kPageSize>;

[[nodiscard]] bool crc_ok(std::span<const uint8_t, kPageSize> page) noexcept;
void seal(std::span<uint8_t, kPageSize> page) noexcept;  // writes the CRC
[[nodiscard]] bool all_zero(std::span<const uint8_t> bytes) noexcept;

struct SuperBlock {
  uint32_t version = kVersion;
  bool clean = false;
  uint64_t super_blob = kNoBlob;
  uint32_t cluster_size = 0;
  uint32_t page_mask_start = 0, page_mask_len = 0;        // pages
  uint32_t cluster_mask_start = 0, cluster_mask_len = 0;  // pages
  uint32_t blobid_mask_start = 0, blobid_mask_len = 0;    // pages; len 0: none (old version)
  uint32_t md_start = 0, md_len = 0;                      // pages
  std::string type;
  uint64_t size_bytes = 0;
  uint32_t io_unit_size = 0;

  [[nodiscard]] uint32_t total_clusters() const noexcept {
    return static_cast<uint32_t>(size_bytes / cluster_size);
  }
  [[nodiscard]] uint32_t md_clusters() const noexcept;  // clusters taken by everything before data
  // What all blobs together may have, allocated or not: their maps are held in memory. 256 TiB with
  // clusters of 4 MiB, or sixteen times the device.
  [[nodiscard]] uint64_t max_blob_clusters() const noexcept {
    return std::max(kBlobClustersMax, uint64_t{16} * total_clusters());
  }
};

// Sizes and places of everything on a device. kInvalidArgument when it cannot hold a store.
struct LayoutOptions {
  uint64_t device_bytes = 0;
  uint32_t cluster_size = 0;
  uint32_t block_size = 512;
  uint32_t md_reserve_ratio_percent = 100;
};
[[nodiscard]] Result<SuperBlock> plan_layout(const LayoutOptions& options);
[[nodiscard]] uint32_t mask_pages(uint64_t bits) noexcept;

// kNotFound: no such signature; kInternal: a damaged or unsupported super block (says what).
// A page whose CRC is only right with the opposite `clean` (a torn update of that flag) is taken as
// not clean.
[[nodiscard]] Result<SuperBlock> parse_super(std::span<const uint8_t, kPageSize> page,
                                             uint64_t device_bytes);
// Into a page that is zeroed or holds the present super block: unknown reserved bytes stay.
void encode_super(const SuperBlock& super, std::span<uint8_t, kPageSize> page);

// Masks. `bytes` is the whole region. Bits beyond `bits` are dropped (left-over of a grow).
[[nodiscard]] Result<std::vector<uint64_t>> parse_mask(std::span<const uint8_t> bytes,
                                                       MaskType type, uint32_t bits);
void encode_mask(std::span<const uint64_t> words, MaskType type, uint32_t bits,
                 std::span<uint8_t> bytes);

// Blob metadata.
[[nodiscard]] constexpr uint64_t blob_id_of(uint32_t page) noexcept {
  return (1ull << 32) | page;
}
[[nodiscard]] constexpr uint32_t root_page_of(uint64_t id) noexcept {
  return static_cast<uint32_t>(id);
}

struct Xattr {
  std::string name;
  std::string value;  // raw bytes
  bool operator==(const Xattr&) const = default;
};
inline constexpr size_t kXattrBytesMax = 4072 - 5 - 4;  // name and value together

struct BlobMetadata {
  uint64_t invalid_flags = kInvalidExtentTable;
  uint64_t data_ro_flags = 0;
  uint64_t md_ro_flags = 0;
  std::vector<Xattr> xattrs;  // in the order written
  std::vector<Xattr> internal_xattrs;
  std::vector<uint32_t> clusters;      // per cluster of the blob: device cluster, 0 unallocated
  std::vector<uint32_t> extent_pages;  // per 512 clusters: metadata page, 0 none (tables only)

  [[nodiscard]] bool thin() const noexcept { return (invalid_flags & kInvalidThin) != 0; }
  [[nodiscard]] bool has_table() const noexcept {
    return (invalid_flags & kInvalidExtentTable) != 0;
  }
  [[nodiscard]] const Xattr* find(std::string_view name) const noexcept;
  void set(std::string_view name, std::string value);  // in place, or appended
  bool remove(std::string_view name);
  [[nodiscard]] std::optional<uint64_t> internal_id(std::string_view name) const noexcept;
  void set_internal(std::string_view name, std::string value);
  bool remove_internal(std::string_view name);
};

struct Limits {
  uint32_t total_clusters = 0;      // device cluster numbers are below this
  uint32_t first_data_cluster = 1;  // and not below this
  uint32_t md_len = 0;              // metadata page numbers are below this
  uint64_t max_blob_clusters = kBlobClustersMax;
};

struct PageHeader {
  uint64_t blob_id;
  uint32_t sequence;
  uint32_t next;
};
[[nodiscard]] PageHeader page_header(std::span<const uint8_t, kPageSize> page) noexcept;

// A shadow is a copy of the metadata page `original` that lies elsewhere: it says so in the page's
// reserved field, which nobody else reads, under its own checksum.
[[nodiscard]] Page shadow_of(std::span<const uint8_t, kPageSize> page, uint32_t original);
[[nodiscard]] Page unshadowed(std::span<const uint8_t, kPageSize> page);  // as the original was
// The page that a shadow is a copy of; nullopt: not a shadow.
[[nodiscard]] std::optional<uint32_t> shadow_original(
    std::span<const uint8_t, kPageSize> page) noexcept;

// Reads a blob's chain page by page. `strict` refuses unknown descriptor types, as recovery must.
class ChainParser final {
 public:
  ChainParser(uint64_t blob_id, const Limits& limits, bool strict)
      : blob_id_(blob_id), limits_(limits), strict_(strict) {}
  // Pages in order, CRC already checked here. kInternal: damaged.
  [[nodiscard]] Result<void> add(std::span<const uint8_t, kPageSize> page);
  [[nodiscard]] uint32_t next_page() const noexcept { return next_; }  // kNoPage at the end
  // The whole; `clusters` is filled for run-length blobs and zeroed for tables (extent pages
  // follow). Their number is in clusters.size().
  [[nodiscard]] Result<BlobMetadata> finish();

 private:
  [[nodiscard]] Result<void> descriptor(uint8_t type, std::span<const uint8_t> payload);
  [[nodiscard]] Result<void> xattr(std::span<const uint8_t> payload, std::vector<Xattr>& into);
  [[nodiscard]] Result<void> run_lengths(std::span<const uint8_t> payload);
  [[nodiscard]] Result<void> table(std::span<const uint8_t> payload);
  [[nodiscard]] Error damaged(std::string what) const;

  const uint64_t blob_id_;
  const Limits limits_;
  const bool strict_;
  uint32_t sequence_ = 0;
  uint32_t next_ = kNoPage;
  bool saw_flags_ = false, saw_runs_ = false, saw_table_ = false;
  uint64_t table_clusters_ = 0;
  BlobMetadata blob_;
};

struct ExtentPage {
  uint64_t blob_id = 0;  // of the writer: a snapshot's pages name the volume they came from
  uint32_t start = 0;    // first cluster of the blob described
  std::vector<uint32_t> clusters;
};
[[nodiscard]] Result<ExtentPage> parse_extent_page(std::span<const uint8_t, kPageSize> page,
                                                   const Limits& limits);
// Puts an extent page into `blob.clusters`; fewer entries than the blob has are filled with
// "unallocated", surplus ones dropped (left by a resize cut off by a crash).
[[nodiscard]] Result<void> apply_extent_page(const ExtentPage& extent, uint32_t index,
                                             BlobMetadata& blob);
// Call when all extent pages are in: a thick blob may not have holes.
[[nodiscard]] Result<void> check_complete(const BlobMetadata& blob);

// The chain of a blob: pages without links and CRC, root first; then link_chain() with the page
// numbers chosen for them.
[[nodiscard]] std::vector<Page> encode_chain(uint64_t blob_id, const BlobMetadata& blob);
void link_chain(std::vector<Page>& pages, std::span<const uint32_t> numbers);
// Entries [start, start + 512) of `clusters`, sealed.
[[nodiscard]] Page encode_extent_page(uint64_t blob_id, uint32_t start,
                                      std::span<const uint32_t> clusters);

// Lvolstore conventions on top of xattrs.
[[nodiscard]] std::string text_value(std::string_view raw);          // up to the first NUL
[[nodiscard]] std::string uuid_value(const Uuid& uuid);              // 37 bytes with NUL
[[nodiscard]] std::string name_value_padded(std::string_view name);  // 64 bytes
[[nodiscard]] std::string nul_terminated(std::string_view text);

}  // namespace mayastor::lvs_format

// Metadata pages of blobs and extent pages: see format.h.
#include <algorithm>
#include <cstring>

#include "lvs/format.h"

namespace mayastor::lvs_format {
namespace {

constexpr uint8_t kPadding = 0, kExtentRuns = 1, kXattr = 2, kFlags = 3, kInternalXattr = 4,
                  kExtentTable = 5, kExtentPage = 6;
constexpr size_t kDescriptorHeader = 5;  // type and length
constexpr size_t kStreamBytes = sizeof(PageDisk::descriptors);

uint16_t load16(const uint8_t* from) noexcept {
  uint16_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
uint32_t load32(const uint8_t* from) noexcept {
  uint32_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
uint64_t load64(const uint8_t* from) noexcept {
  uint64_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

struct Descriptor {
  uint8_t type;
  std::span<const uint8_t> payload;
};

// Walks a page's descriptors. nullopt at the end; an Error when one runs over the page.
class DescriptorReader {
 public:
  explicit DescriptorReader(std::span<const uint8_t, kPageSize> page)
      : rest_(page.subspan(offsetof(PageDisk, descriptors), kStreamBytes)) {}
  Result<std::optional<Descriptor>> next() {
    while (rest_.size() >= kDescriptorHeader) {
      const uint8_t type = rest_[0];
      const uint32_t length = load32(rest_.data() + 1);
      if (type == kPadding && length == 0) break;
      if (length > rest_.size() - kDescriptorHeader) {
        return Error{ErrorCode::kInternal, "descriptor runs over its page", 117};
      }
      const Descriptor found{type, rest_.subspan(kDescriptorHeader, length)};
      rest_ = rest_.subspan(kDescriptorHeader + length);
      if (type != kPadding) return std::optional<Descriptor>(found);
    }
    return std::optional<Descriptor>();
  }

 private:
  std::span<const uint8_t> rest_;
};

// Appends descriptors; one that does not fit starts a new page.
class ChainWriter {
 public:
  explicit ChainWriter(uint64_t blob_id) : blob_id_(blob_id) { add_page(); }
  [[nodiscard]] size_t room() const noexcept { return kStreamBytes - used_; }
  void reserve(size_t bytes) {
    CHECK(bytes <= kStreamBytes);
    if (room() < bytes) add_page();
  }
  void header(uint8_t type, size_t payload) {
    put8(type);
    put32(static_cast<uint32_t>(payload));
  }
  void put8(uint8_t value) { put(&value, sizeof value); }
  void put16(uint16_t value) { put(&value, sizeof value); }
  void put32(uint32_t value) { put(&value, sizeof value); }
  void put64(uint64_t value) { put(&value, sizeof value); }
  void put(const void* data, size_t size) {
    CHECK(size <= room());
    std::memcpy(pages_.back().data() + offsetof(PageDisk, descriptors) + used_, data, size);
    used_ += size;
  }
  [[nodiscard]] std::vector<Page> take() { return std::move(pages_); }

 private:
  void add_page() {
    PageDisk page{};
    page.blob_id = blob_id_;
    page.sequence = static_cast<uint32_t>(pages_.size());
    page.next = kNoPage;
    pages_.emplace_back();
    std::memcpy(pages_.back().data(), &page, sizeof page);
    used_ = 0;
  }
  const uint64_t blob_id_;
  std::vector<Page> pages_;
  size_t used_ = 0;
};

void write_xattr(ChainWriter& writer, uint8_t type, const Xattr& xattr) {
  const size_t payload = 4 + xattr.name.size() + xattr.value.size();
  writer.reserve(kDescriptorHeader + payload);
  writer.header(type, payload);
  writer.put16(static_cast<uint16_t>(xattr.name.size()));
  writer.put16(static_cast<uint16_t>(xattr.value.size()));
  writer.put(xattr.name.data(), xattr.name.size());
  writer.put(xattr.value.data(), xattr.value.size());
}

struct Run {
  uint32_t first, count;
};

// Pairs written as runs, as many descriptors as pages need. `prefix` is put in front of each one.
void write_runs(ChainWriter& writer, uint8_t type, const std::vector<Run>& runs,
                std::optional<uint64_t> prefix) {
  const size_t fixed = kDescriptorHeader + (prefix ? sizeof(uint64_t) : 0);
  size_t at = 0;
  do {
    const size_t need = fixed + (runs.empty() ? 0 : sizeof(Run));
    writer.reserve(need);
    const size_t fit = (writer.room() - fixed) / sizeof(Run);
    const size_t count = std::min(fit, runs.size() - at);
    writer.header(type, fixed - kDescriptorHeader + count * sizeof(Run));
    if (prefix) writer.put64(*prefix);
    for (size_t i = 0; i < count; ++i, ++at) {
      writer.put32(runs[at].first);
      writer.put32(runs[at].count);
    }
  } while (at < runs.size());
}

std::vector<Run> cluster_runs(std::span<const uint32_t> clusters) {
  std::vector<Run> runs;
  for (const uint32_t cluster : clusters) {
    if (!runs.empty()) {
      Run& last = runs.back();
      const bool extends =
          cluster == 0 ? last.first == 0 : last.first != 0 && cluster == last.first + last.count;
      if (extends) {
        ++last.count;
        continue;
      }
    }
    runs.push_back({cluster, 1});
  }
  return runs;
}

std::vector<Run> table_runs(std::span<const uint32_t> pages) {
  std::vector<Run> runs;
  for (const uint32_t page : pages) {
    if (page == 0 && !runs.empty() && runs.back().first == 0) {
      ++runs.back().count;
    } else {
      runs.push_back({page, 1});
    }
  }
  return runs;
}

const Xattr* find_in(const std::vector<Xattr>& xattrs, std::string_view name) noexcept {
  const auto at = std::find_if(xattrs.begin(), xattrs.end(),
                               [&](const Xattr& xattr) { return xattr.name == name; });
  return at == xattrs.end() ? nullptr : &*at;
}

void set_in(std::vector<Xattr>& xattrs, std::string_view name, std::string value) {
  for (Xattr& xattr : xattrs) {
    if (xattr.name == name) {
      xattr.value = std::move(value);
      return;
    }
  }
  xattrs.push_back({std::string(name), std::move(value)});
}

bool remove_in(std::vector<Xattr>& xattrs, std::string_view name) {
  return std::erase_if(xattrs, [&](const Xattr& xattr) { return xattr.name == name; }) > 0;
}

}  // namespace

const Xattr* BlobMetadata::find(std::string_view name) const noexcept {
  return find_in(xattrs, name);
}
void BlobMetadata::set(std::string_view name, std::string value) {
  set_in(xattrs, name, std::move(value));
}
bool BlobMetadata::remove(std::string_view name) {
  return remove_in(xattrs, name);
}
void BlobMetadata::set_internal(std::string_view name, std::string value) {
  set_in(internal_xattrs, name, std::move(value));
  invalid_flags |= kInvalidInternalXattr;
}
bool BlobMetadata::remove_internal(std::string_view name) {
  const bool removed = remove_in(internal_xattrs, name);
  if (internal_xattrs.empty()) invalid_flags &= ~kInvalidInternalXattr;
  return removed;
}
std::optional<uint64_t> BlobMetadata::internal_id(std::string_view name) const noexcept {
  const Xattr* xattr = find_in(internal_xattrs, name);
  if (xattr == nullptr || xattr->value.size() != sizeof(uint64_t)) return std::nullopt;
  return load64(reinterpret_cast<const uint8_t*>(xattr->value.data()));
}

PageHeader page_header(std::span<const uint8_t, kPageSize> page) noexcept {
  return {load64(page.data()), load32(page.data() + offsetof(PageDisk, sequence)),
          load32(page.data() + offsetof(PageDisk, next))};
}

namespace {
Page with_reserved(std::span<const uint8_t, kPageSize> page, uint32_t value) {
  Page copy;
  std::memcpy(copy.data(), page.data(), kPageSize);
  std::memcpy(copy.data() + offsetof(PageDisk, reserved), &value, sizeof value);
  seal(copy);
  return copy;
}
}  // namespace

Page shadow_of(std::span<const uint8_t, kPageSize> page, uint32_t original) {
  return with_reserved(page, original + 1);
}
Page unshadowed(std::span<const uint8_t, kPageSize> page) {
  return with_reserved(page, 0);
}
std::optional<uint32_t> shadow_original(std::span<const uint8_t, kPageSize> page) noexcept {
  const uint32_t mark = load32(page.data() + offsetof(PageDisk, reserved));
  if (mark == 0) return std::nullopt;
  return mark - 1;
}

Error ChainParser::damaged(std::string what) const {
  return Error{ErrorCode::kInternal,
               "metadata of blob " + std::to_string(root_page_of(blob_id_)) +
                   " is damaged: " + std::move(what),
               117};
}

Result<void> ChainParser::add(std::span<const uint8_t, kPageSize> page) {
  if (!crc_ok(page)) return damaged("checksum mismatch");
  const PageHeader header = page_header(page);
  if (header.blob_id != blob_id_) return damaged("page of another blob in its chain");
  if (header.sequence != sequence_) return damaged("page out of order in its chain");
  if (header.next != kNoPage && header.next >= limits_.md_len) return damaged("link out of range");
  DescriptorReader reader(page);
  while (true) {
    auto read = reader.next();
    if (!read.ok()) return damaged(read.error().message);
    if (!read.value()) break;
    if (auto done = descriptor(read.value()->type, read.value()->payload); !done.ok()) return done;
  }
  next_ = header.next;
  ++sequence_;
  return {};
}

Result<void> ChainParser::descriptor(uint8_t type, std::span<const uint8_t> payload) {
  switch (type) {
    case kFlags:
      if (payload.size() != 24) return damaged("wrong length of flags");
      if (saw_flags_) return damaged("flags twice");
      saw_flags_ = true;
      blob_.invalid_flags = load64(payload.data());
      blob_.data_ro_flags = load64(payload.data() + 8);
      blob_.md_ro_flags = load64(payload.data() + 16);
      return {};
    case kXattr:
      return xattr(payload, blob_.xattrs);
    case kInternalXattr:
      return xattr(payload, blob_.internal_xattrs);
    case kExtentRuns:
      return run_lengths(payload);
    case kExtentTable:
      return table(payload);
    case kExtentPage:
      return damaged("extent page in its chain");
    default:
      if (strict_) return damaged("unknown descriptor type " + std::to_string(type));
      return {};
  }
}

Result<void> ChainParser::xattr(std::span<const uint8_t> payload, std::vector<Xattr>& into) {
  if (payload.size() < 4) return damaged("short xattr");
  const size_t name_length = load16(payload.data()), value_length = load16(payload.data() + 2);
  if (payload.size() != 4 + name_length + value_length) return damaged("wrong length of xattr");
  const char* text = reinterpret_cast<const char*>(payload.data()) + 4;
  Xattr read{std::string(text, name_length), std::string(text + name_length, value_length)};
  if (find_in(into, read.name) != nullptr) return damaged("xattr twice");
  into.push_back(std::move(read));
  return {};
}

Result<void> ChainParser::run_lengths(std::span<const uint8_t> payload) {
  if (payload.empty() || payload.size() % sizeof(Run) != 0) return damaged("wrong run length");
  if (saw_table_) return damaged("both kinds of extents");
  saw_runs_ = true;
  for (; !payload.empty(); payload = payload.subspan(sizeof(Run))) {
    const uint32_t first = load32(payload.data()), count = load32(payload.data() + 4);
    if (blob_.clusters.size() + count > limits_.max_blob_clusters) return damaged("too large");
    if (first != 0 && (first < limits_.first_data_cluster || first >= limits_.total_clusters ||
                       count > limits_.total_clusters - first)) {
      return damaged("cluster out of range");
    }
    for (uint32_t i = 0; i < count; ++i) blob_.clusters.push_back(first == 0 ? 0 : first + i);
  }
  return {};
}

Result<void> ChainParser::table(std::span<const uint8_t> payload) {
  if (payload.size() < 8 || payload.size() % sizeof(Run) != 0) return damaged("wrong table length");
  if (saw_runs_) return damaged("both kinds of extents");
  const uint64_t clusters = load64(payload.data());
  if (saw_table_ && clusters != table_clusters_) return damaged("two different sizes");
  if (clusters > limits_.max_blob_clusters) return damaged("too large");
  saw_table_ = true;
  table_clusters_ = clusters;
  const uint64_t pages = (clusters + kClustersPerExtentPage - 1) / kClustersPerExtentPage;
  for (payload = payload.subspan(8); !payload.empty(); payload = payload.subspan(sizeof(Run))) {
    const uint32_t page = load32(payload.data()), count = load32(payload.data() + 4);
    if (page != 0 && (count != 1 || page >= limits_.md_len)) return damaged("bad extent table");
    if (blob_.extent_pages.size() + uint64_t{count} > pages) return damaged("table too long");
    blob_.extent_pages.insert(blob_.extent_pages.end(), count, page);
  }
  return {};
}

Result<BlobMetadata> ChainParser::finish() {
  CHECK(next_ == kNoPage && sequence_ > 0);
  if (!saw_flags_) blob_.invalid_flags = saw_table_ ? kInvalidExtentTable : 0;
  if ((blob_.invalid_flags & ~kInvalidKnown) != 0) return damaged("flags of a newer version");
  if (blob_.has_table() != saw_table_ && (saw_table_ || saw_runs_)) {
    return damaged("extents are not of the kind its flags say");
  }
  if (saw_table_) {
    const uint64_t pages = (table_clusters_ + kClustersPerExtentPage - 1) / kClustersPerExtentPage;
    blob_.extent_pages.resize(pages, 0);
    blob_.clusters.assign(table_clusters_, 0);
  }
  return std::move(blob_);
}

Result<ExtentPage> parse_extent_page(std::span<const uint8_t, kPageSize> page,
                                     const Limits& limits) {
  const auto damaged = [](const char* what) {
    return Error{ErrorCode::kInternal, std::string("extent page is damaged: ") + what, 117};
  };
  if (!crc_ok(page)) return damaged("checksum mismatch");
  const PageHeader header = page_header(page);
  if (header.sequence != 0) return damaged("part of a chain");
  DescriptorReader reader(page);
  auto read = reader.next();
  if (!read.ok()) return damaged("descriptor runs over its page");
  if (!read.value() || read.value()->type != kExtentPage) return damaged("not an extent page");
  const std::span<const uint8_t> payload = read.value()->payload;
  if (payload.size() < 8 || payload.size() % 4 != 0) return damaged("wrong length");
  auto more = reader.next();
  if (!more.ok() || more.value()) return damaged("more than one descriptor");
  ExtentPage extent;
  extent.blob_id = header.blob_id;
  extent.start = load32(payload.data());
  if (extent.start % kClustersPerExtentPage != 0) return damaged("odd first cluster");
  const size_t count = payload.size() / 4 - 1;
  if (count > kClustersPerExtentPage) return damaged("too many clusters");
  extent.clusters.resize(count);
  std::memcpy(extent.clusters.data(), payload.data() + 4, count * 4);
  for (const uint32_t cluster : extent.clusters) {
    if (cluster != 0 && (cluster < limits.first_data_cluster || cluster >= limits.total_clusters)) {
      return damaged("cluster out of range");
    }
  }
  return extent;
}

Result<void> apply_extent_page(const ExtentPage& extent, uint32_t index, BlobMetadata& blob) {
  if (extent.start != uint64_t{index} * kClustersPerExtentPage) {
    return Error{ErrorCode::kInternal, "extent page describes another part of its blob", 117};
  }
  CHECK(extent.start < blob.clusters.size());
  const size_t count = std::min(extent.clusters.size(), blob.clusters.size() - extent.start);
  std::copy_n(extent.clusters.begin(), count, blob.clusters.begin() + extent.start);
  return {};
}

Result<void> check_complete(const BlobMetadata& blob) {
  if (blob.thin()) return {};
  if (std::find(blob.clusters.begin(), blob.clusters.end(), 0u) != blob.clusters.end()) {
    return Error{ErrorCode::kInternal, "a thick blob has unallocated clusters", 117};
  }
  return {};
}

std::vector<Page> encode_chain(uint64_t blob_id, const BlobMetadata& blob) {
  ChainWriter writer(blob_id);
  writer.reserve(kDescriptorHeader + 24);
  writer.header(kFlags, 24);
  writer.put64(blob.invalid_flags);
  writer.put64(blob.data_ro_flags);
  writer.put64(blob.md_ro_flags);
  for (const Xattr& each : blob.xattrs) write_xattr(writer, kXattr, each);
  for (const Xattr& each : blob.internal_xattrs) write_xattr(writer, kInternalXattr, each);
  if (blob.has_table()) {
    write_runs(writer, kExtentTable, table_runs(blob.extent_pages), blob.clusters.size());
  } else if (!blob.clusters.empty()) {
    write_runs(writer, kExtentRuns, cluster_runs(blob.clusters), std::nullopt);
  }
  return writer.take();
}

void link_chain(std::vector<Page>& pages, std::span<const uint32_t> numbers) {
  CHECK(pages.size() == numbers.size());
  for (size_t i = 0; i < pages.size(); ++i) {
    const uint32_t next = i + 1 < pages.size() ? numbers[i + 1] : kNoPage;
    std::memcpy(pages[i].data() + offsetof(PageDisk, next), &next, sizeof next);
    seal(pages[i]);
  }
}

Page encode_extent_page(uint64_t blob_id, uint32_t start, std::span<const uint32_t> clusters) {
  CHECK(start % kClustersPerExtentPage == 0 && start < clusters.size());
  const size_t count = std::min<size_t>(kClustersPerExtentPage, clusters.size() - start);
  ChainWriter writer(blob_id);
  writer.header(kExtentPage, 4 + count * 4);
  writer.put32(start);
  writer.put(clusters.data() + start, count * 4);
  std::vector<Page> pages = writer.take();
  seal(pages.front());
  return pages.front();
}

std::string text_value(std::string_view raw) {
  return std::string(raw.substr(0, raw.find('\0')));
}
std::string nul_terminated(std::string_view text) {
  return std::string(text) + '\0';
}
std::string uuid_value(const Uuid& uuid) {
  return nul_terminated(uuid.to_string());
}
std::string name_value_padded(std::string_view name) {
  std::string value(name);
  value.resize(64, '\0');
  return value;
}

}  // namespace mayastor::lvs_format

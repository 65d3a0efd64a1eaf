// malloc:///name?size_mb=|num_blocks=&blk_size=&uuid= : a RAM disk, one mapping shared by all cores
// (2 MiB hugepages when free), each request done inline. null:///name: takes writes, reads zeroes.
// Invariant: concurrent requests to one block are the users' race, as on a real disk: each byte
// holds one of the values written.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "bdev/builtin.h"
#include "bdev/io_counters.h"
#include "core/reactor.h"
#include "util/uri.h"

namespace mayastor {
namespace {

constexpr uint64_t kMiB = 1u << 20;
constexpr uint64_t kNullDefaultBytes = 1u << 30;
constexpr uint64_t kSizeLimitBytes = uint64_t{1} << 48;  // address space
constexpr uint32_t kLatencySample =
    16;  // the clock is read once in as many requests: it is not free

struct Geometry {
  std::string name;
  Uuid uuid;
  uint32_t block_size = 512;
  uint64_t size_bytes = 0;
};

Error bad(const std::string& uri, const std::string& why) {
  return Error{ErrorCode::kInvalidArgument, "Cannot create bdev '" + uri + "': " + why};
}

Result<Geometry> parse_geometry(const std::string& text, uint64_t default_bytes) {
  const auto parsed = Uri::parse(text);
  if (!parsed.ok()) return parsed.error();
  const Uri& uri = parsed.value();
  const auto known = uri.allow_only({"size_mb", "num_blocks", "blk_size", "uuid"});
  if (!known.ok()) return known.error();
  const auto size_mb = uri.find_u64("size_mb");
  const auto num_blocks = uri.find_u64("num_blocks");
  const auto blk_size = uri.find_u64("blk_size");
  const auto uuid = uri.find_uuid("uuid");
  if (!size_mb.ok()) return size_mb.error();
  if (!num_blocks.ok()) return num_blocks.error();
  if (!blk_size.ok()) return blk_size.error();
  if (!uuid.ok()) return uuid.error();
  Geometry geometry;
  geometry.name = uri.name();
  if (!uri.host().empty()) return bad(text, "use three slashes: " + uri.scheme() + ":///name");
  if (geometry.name.empty()) return bad(text, "the name is empty");
  const uint64_t block_size = blk_size.value().value_or(512);
  if (block_size != 512 && block_size != 4096) return bad(text, "blk_size must be 512 or 4096");
  geometry.block_size = static_cast<uint32_t>(block_size);
  if (size_mb.value() && num_blocks.value()) {
    return bad(text, "give either size_mb or num_blocks, not both");
  }
  if (size_mb.value()) {
    if (*size_mb.value() > kSizeLimitBytes / kMiB) return bad(text, "size_mb is too large");
    geometry.size_bytes = *size_mb.value() * kMiB;
  } else if (num_blocks.value()) {
    if (*num_blocks.value() > kSizeLimitBytes / block_size) {
      return bad(text, "num_blocks is too large");
    }
    geometry.size_bytes = *num_blocks.value() * block_size;
  } else {
    geometry.size_bytes = default_bytes;
    if (default_bytes == 0) return bad(text, "size_mb or num_blocks is needed");
  }
  if (geometry.size_bytes == 0) return bad(text, "the size is zero");
  geometry.uuid = uuid.value() ? *uuid.value() : Uuid::random();
  return geometry;
}

class MemoryBdev final : public Bdev {
 public:
  // memory == nullptr: the null bdev.
  MemoryBdev(Geometry geometry, std::string uri, uint8_t* memory)
      : geometry_(std::move(geometry)), uri_(std::move(uri)), memory_(memory) {}
  ~MemoryBdev() override {
    if (memory_ != nullptr) munmap(memory_, geometry_.size_bytes);
  }
  [[nodiscard]] const std::string& name() const noexcept override { return geometry_.name; }
  [[nodiscard]] const Uuid& uuid() const noexcept override { return geometry_.uuid; }
  [[nodiscard]] std::string product_name() const override {
    return memory_ != nullptr ? "Malloc disk" : "Null disk";
  }
  [[nodiscard]] std::string uri() const override { return uri_; }
  [[nodiscard]] uint32_t block_size() const noexcept override { return geometry_.block_size; }
  [[nodiscard]] uint64_t size_bytes() const noexcept override { return geometry_.size_bytes; }
  [[nodiscard]] bool supports(IoType type) const noexcept override {
    return memory_ != nullptr || type != IoType::kCompare;
  }
  [[nodiscard]] bool unmap_zeroes() const noexcept override { return true; }
  [[nodiscard]] bool has_volatile_cache() const noexcept override { return false; }
  Task<Result<std::unique_ptr<Channel>>> open_channel() override;
  [[nodiscard]] IoStats stats() const override { return counters_.sum(); }
  void add_latencies(IoLatencies& total) const override { counters_.add_latencies(total); }
  void reset_stats() noexcept override { counters_.reset(); }

 private:
  friend class MemoryChannel;
  const Geometry geometry_;
  const std::string uri_;
  uint8_t* const memory_;
  IoCounterSet counters_;
};

class MemoryChannel final : public Channel {
 public:
  explicit MemoryChannel(MemoryBdev& bdev)
      : memory_(bdev.memory_),
        size_bytes_(bdev.geometry_.size_bytes),
        counters_(bdev.counters_),
        clock_(Reactor::current().clock()) {}

  void submit(Io* io) noexcept override {
    CHECK(io->offset <= size_bytes_ && io->length <= size_bytes_ - io->offset);
    IoStatus status;
    if (++requests_ % kLatencySample == 0) {
      const uint64_t start_ns = clock_.now_ns();
      status = run(*io);
      latency_ns_ = clock_.now_ns() - start_ns;
    } else {
      status = run(*io);
    }
    if (status.ok()) counters_.record(io->type, io->length, latency_ns_);
    io->complete(status);
  }

 private:
  [[nodiscard]] IoStatus run(const Io& io) noexcept {
    uint8_t* at = memory_ == nullptr ? nullptr : memory_ + io.offset;
    switch (io.type) {
      case IoType::kRead:
        for (uint32_t i = 0; i < io.iov_count; ++i) {
          if (at == nullptr) {
            std::memset(io.iov[i].iov_base, 0, io.iov[i].iov_len);
            continue;
          }
          std::memcpy(io.iov[i].iov_base, at, io.iov[i].iov_len);
          at += io.iov[i].iov_len;
        }
        return io_status::kOk;
      case IoType::kWrite:
        for (uint32_t i = 0; at != nullptr && i < io.iov_count; ++i) {
          std::memcpy(at, io.iov[i].iov_base, io.iov[i].iov_len);
          at += io.iov[i].iov_len;
        }
        return io_status::kOk;
      case IoType::kUnmap:
      case IoType::kWriteZeroes:
        if (at != nullptr) zero(at, io.length);
        return io_status::kOk;
      case IoType::kCompare:
        if (at == nullptr) return io_status::kInvalidOpcode;
        for (uint32_t i = 0; i < io.iov_count; ++i) {
          if (std::memcmp(io.iov[i].iov_base, at, io.iov[i].iov_len) != 0) {
            return io_status::kCompareFailure;
          }
          at += io.iov[i].iov_len;
        }
        return io_status::kOk;
      case IoType::kFlush:
        return io_status::kOk;
    }
    return io_status::kInvalidOpcode;
  }

  // Whole hugepage-sized pieces go back to the kernel; the rest is cleared in place.
  static void zero(uint8_t* at, uint64_t length) noexcept {
    constexpr uint64_t kPiece = 2 * kMiB;
    const uint64_t skew = reinterpret_cast<uintptr_t>(at) % kPiece;
    const uint64_t head = std::min(length, skew == 0 ? 0 : kPiece - skew);
    const uint64_t middle = (length - head) / kPiece * kPiece;
    std::memset(at, 0, head);
    if (middle > 0 && madvise(at + head, middle, MADV_DONTNEED) != 0) {
      std::memset(at + head, 0, middle);
    }
    std::memset(at + head + middle, 0, length - head - middle);
  }

  uint8_t* const memory_;
  const uint64_t size_bytes_;
  ChannelCounters counters_;
  Clock& clock_;
  uint64_t latency_ns_ = 1;
  uint32_t requests_ = kLatencySample - 1;  // the first one is measured
};

Task<Result<std::unique_ptr<Channel>>> MemoryBdev::open_channel() {
  std::unique_ptr<Channel> channel = std::make_unique<MemoryChannel>(*this);
  co_return channel;
}

uint8_t* map_memory(uint64_t size_bytes) noexcept {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS;
  void* memory = MAP_FAILED;
  if (size_bytes % (2 * kMiB) == 0) {
    memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, kFlags | MAP_HUGETLB, -1, 0);
  }
  if (memory == MAP_FAILED) {
    memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, kFlags | MAP_NORESERVE, -1, 0);
  }
  return memory == MAP_FAILED ? nullptr : static_cast<uint8_t*>(memory);
}

}  // namespace

Task<Result<std::shared_ptr<Bdev>>> create_malloc_bdev(std::string uri) {
  auto geometry = parse_geometry(uri, 0);
  if (!geometry.ok()) co_return geometry.error();
  uint8_t* memory = map_memory(geometry.value().size_bytes);
  if (memory == nullptr) co_return errno_error(ENOMEM, "Cannot create bdev '" + uri + "'");
  std::shared_ptr<Bdev> bdev = std::make_shared<MemoryBdev>(geometry.take(), uri, memory);
  co_return bdev;
}

Task<Result<std::shared_ptr<Bdev>>> create_null_bdev(std::string uri) {
  auto geometry = parse_geometry(uri, kNullDefaultBytes);
  if (!geometry.ok()) co_return geometry.error();
  std::shared_ptr<Bdev> bdev = std::make_shared<MemoryBdev>(geometry.take(), uri, nullptr);
  co_return bdev;
}

}  // namespace mayastor

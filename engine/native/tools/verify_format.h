// What verify_io writes and remembers: sectors that identify themselves, and the journal.
// A sector (512 bytes): magic, seed, block, sector in block, generation, filler from those, crc32c.
// The journal: a mapped file, so that what was stored in it survives kill -9 of the tool, with one
// entry a block: the generation last acknowledged by the device and the one last sent.
// Invariant: acknowledged <= sent <= acknowledged + 1; `sent` is stored before the write leaves,
// `acknowledged` after its completion. Between the two the block may hold either generation, each
// sector on its own (a write is atomic per sector only).
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "util/check.h"
#include "util/crc32c.h"
#include "util/result.h"

namespace mayastor::tool {

inline constexpr uint32_t kSectorBytes = 512;

struct Sector {
  uint64_t magic;
  uint64_t seed;
  uint64_t block;
  uint32_t sector;
  uint32_t generation;
  uint64_t filler[59];
  uint32_t reserved;
  uint32_t crc;  // crc32c of all bytes before it
};
static_assert(sizeof(Sector) == kSectorBytes);
inline constexpr uint64_t kSectorMagic = 0x316F695F76797274u;

inline void fill_sectors(uint8_t* data, uint32_t bytes, uint64_t seed, uint64_t block,
                         uint32_t generation) {
  for (uint32_t i = 0; i < bytes / kSectorBytes; ++i) {
    Sector sector{};
    sector.magic = kSectorMagic;
    sector.seed = seed;
    sector.block = block;
    sector.sector = i;
    sector.generation = generation;
    uint64_t state = seed ^ (block * 0x9E3779B97F4A7C15u) ^ (uint64_t{generation} << 32 | i);
    for (uint64_t& word : sector.filler) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      word = state;
    }
    sector.crc = crc32c(&sector, offsetof(Sector, crc));
    std::memcpy(data + i * kSectorBytes, &sector, sizeof(sector));
  }
}

// "" when the block is intact and every sector's generation lies in [oldest, newest].
inline std::string check_sectors(const uint8_t* data, uint32_t bytes, uint64_t seed, uint64_t block,
                                 uint32_t oldest, uint32_t newest) {
  for (uint32_t i = 0; i < bytes / kSectorBytes; ++i) {
    Sector sector;
    std::memcpy(&sector, data + i * kSectorBytes, sizeof(sector));
    const std::string where = "sector " + std::to_string(i) + ": ";
    if (oldest == 0 && sector.magic != kSectorMagic) continue;  // perhaps never reached the device
    if (sector.magic != kSectorMagic) {
      bool zero = true;
      for (uint32_t at = 0; at < kSectorBytes && zero; ++at) {
        zero = data[i * kSectorBytes + at] == 0;
      }
      return where + (zero ? "all zero" : "not written by this tool");
    }
    if (sector.crc != crc32c(&sector, offsetof(Sector, crc))) return where + "checksum is wrong";
    if (oldest == 0 && sector.seed != seed) continue;  // left by an earlier run
    if (sector.seed != seed) return where + "belongs to seed " + std::to_string(sector.seed);
    if (sector.block != block || sector.sector != i) {
      return where + "belongs to block " + std::to_string(sector.block) + " sector " +
             std::to_string(sector.sector);
    }
    if (sector.generation < oldest || sector.generation > newest) {
      return where + "has generation " + std::to_string(sector.generation) + ", acknowledged was " +
             std::to_string(oldest) + ", last sent " + std::to_string(newest);
    }
  }
  return "";
}

// Hash of any content, for comparing devices. Not a CRC: data that carries its own CRC, as these
// sectors do, has the same CRC whatever it says.
class ContentHash final {
 public:
  void update(const uint8_t* data, size_t bytes) noexcept {  // whole 8-byte words
    for (size_t at = 0; at + 8 <= bytes; at += 8) {
      uint64_t word = 0;
      std::memcpy(&word, data + at, 8);
      state_ = (state_ ^ word) * 0x9FB21C651E98DF25u;
      state_ ^= state_ >> 32;
    }
  }
  [[nodiscard]] uint64_t value() const noexcept { return state_; }

 private:
  uint64_t state_ = 0x2545F4914F6CDD1Du;
};

struct JournalHeader {
  uint64_t magic;
  uint64_t seed;
  uint64_t blocks;
  uint32_t block_bytes;
  uint32_t reserved;
};
struct JournalEntry {
  uint32_t acknowledged, sent;
};
inline constexpr uint64_t kJournalMagic = 0x316C6E6A5F6F6976u;

class Journal final {
 public:
  Journal() = default;
  ~Journal() {
    if (map_ != nullptr) munmap(map_, bytes_);
  }
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // An existing file is continued, and must agree with `wanted` where that is not 0.
  Result<void> open(const std::string& path, const JournalHeader& wanted, bool create) {
    const std::string what = "Cannot open journal " + path;
    const int fd =
        ::open(path.c_str(), create ? O_RDWR | O_CREAT | O_CLOEXEC : O_RDWR | O_CLOEXEC, 0644);
    if (fd < 0) return errno_error(errno, what);
    Result<void> result = map(fd, what, wanted, create);
    ::close(fd);
    return result;
  }
  [[nodiscard]] const JournalHeader& header() const {
    return *static_cast<const JournalHeader*>(map_);
  }
  [[nodiscard]] JournalEntry& entry(uint64_t block) {
    CHECK(block < header().blocks);
    return entries_[block];
  }

 private:
  Result<void> map(int fd, const std::string& what, const JournalHeader& wanted, bool create) {
    struct stat status {};
    if (fstat(fd, &status) != 0) return errno_error(errno, what);
    JournalHeader header = wanted;
    const bool fresh = status.st_size == 0;
    if (fresh) {
      if (!create) return Error{ErrorCode::kInvalidArgument, what + ": it is empty"};
      if (wanted.blocks == 0) {
        return Error{ErrorCode::kInvalidArgument, what + ": a new one needs --bytes"};
      }
    } else {
      if (pread(fd, &header, sizeof(header), 0) != sizeof(header) ||
          header.magic != kJournalMagic || header.block_bytes == 0 ||
          header.blocks > (UINT64_MAX >> 8) ||
          static_cast<uint64_t>(status.st_size) != size_of(header)) {
        return Error{ErrorCode::kInvalidArgument, what + ": it is not a journal of verify_io"};
      }
      if ((wanted.seed != 0 && wanted.seed != header.seed) ||
          (wanted.blocks != 0 && wanted.blocks != header.blocks) ||
          (wanted.block_bytes != 0 && wanted.block_bytes != header.block_bytes)) {
        return Error{ErrorCode::kInvalidArgument,
                     what + ": it was made with other --seed, --bytes or --bs"};
      }
    }
    header.magic = kJournalMagic;
    bytes_ = size_of(header);
    if (fresh && ftruncate(fd, static_cast<off_t>(bytes_)) != 0) return errno_error(errno, what);
    void* map = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return errno_error(errno, what);
    map_ = map;
    if (fresh) std::memcpy(map_, &header, sizeof(header));
    entries_ = reinterpret_cast<JournalEntry*>(static_cast<uint8_t*>(map_) + sizeof(header));
    return Result<void>();
  }
  static size_t size_of(const JournalHeader& header) {
    return sizeof(JournalHeader) + header.blocks * sizeof(JournalEntry);
  }
  void* map_ = nullptr;
  size_t bytes_ = 0;
  JournalEntry* entries_ = nullptr;
};

}  // namespace mayastor::tool

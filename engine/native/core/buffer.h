// Buffers for I/O data: page-aligned, from a per-reactor pool, so that O_DIRECT works and the I/O
// path allocates nothing once warm. Memory is anonymous and mapped on first use (2 MiB hugepages
// when the node has them free, never required). Owner: the reactor it came from; release it there.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace mayastor {

inline constexpr size_t kBufferAlignment = 4096;

// Plain aligned memory for control paths (metadata pages, rebuild segments). Zero-filled.
class AlignedBuffer final {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size_bytes);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  [[nodiscard]] uint8_t* data() noexcept { return data_; }
  [[nodiscard]] const uint8_t* data() const noexcept { return data_; }
  [[nodiscard]] size_t size() const noexcept { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// Buffers of 4 KiB, 16 KiB, 64 KiB, 128 KiB and 1 MiB, each aligned to its size within a slab of
// 2 MiB. A slab belongs to no size: what one size gives back, page (4 KiB) by page, each other may
// have. The lowest fit is taken, which keeps the high slabs whole for large buffers.
// Invariants: acquire() fails only when no slab has such a run of pages and the limit is reached;
// a page has one user; only mapping a slab allocates. Slabs stay mapped until trim() finds more of
// them than were needed lately.
class BufferPool final {
 public:
  explicit BufferPool(size_t limit_bytes);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  // Of the current reactor; made on first use.
  [[nodiscard]] static BufferPool& current();
  // At least `size_bytes` (<= 1 MiB), or nullptr when the limit is reached: the caller waits and
  // retries when something is released.
  [[nodiscard]] uint8_t* acquire(size_t size_bytes) noexcept;
  void release(uint8_t* buffer, size_t size_bytes) noexcept;  // same size as acquired
  [[nodiscard]] size_t in_use_bytes() const noexcept { return in_use_bytes_; }
  [[nodiscard]] size_t free_bytes() const noexcept { return limit_bytes_ - in_use_bytes_; }
  [[nodiscard]] size_t mapped_bytes() const noexcept;
  [[nodiscard]] static size_t size_of(size_t size_bytes) noexcept;  // what acquire() takes for it
  // More is mapped than stays for good: trim() is to be called every few seconds.
  [[nodiscard]] bool wants_trim() const noexcept { return mapped_bytes() > kKeptBytes; }
  // Gives the kernel back what is free beyond the most that was in use since the last call.
  void trim() noexcept;

  static constexpr size_t kKeptBytes = 32u << 20;

 private:
  static constexpr size_t kClassCount = 5;
  static constexpr size_t kSlabWords = 8;  // 512 pages
  struct Slab {
    uint8_t* memory;
    uint64_t free[kSlabWords];   // bit per page
    uint8_t roomy[kClassCount];  // bit per word that has room; 1 MiB: bit per word that is free
  };
  bool map_slab() noexcept;
  static void note_word(Slab& slab, size_t word) noexcept;
  void note_slab(size_t index) noexcept;

  std::vector<Slab> slabs_;                     // by address
  std::vector<uint64_t> fitting_[kClassCount];  // bit per slab that has room for such a buffer
  size_t limit_bytes_;
  size_t in_use_bytes_ = 0;
  size_t most_in_use_bytes_ = 0;  // since the last trim()
};

}  // namespace mayastor

// WriteLog: which 64 KiB segments of one child may differ from the rest of the nexus. Why: a child
// that comes back only needs what it missed, and a rebuild ends when nothing is left.
// Any core marks (a write that missed the child); the rebuild takes segments away. Bits are atomic;
// a core only writes a word when its bits are not set yet, so a busy degraded nexus mostly reads.
// Invariant: a segment is unmarked only by the rebuild that copies it (and marks it again if that
// fails), or when this child became the one that defines the data.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "nexus/rebuild.h"

namespace mayastor::nexus {

class WriteLog final {
 public:
  explicit WriteLog(uint64_t size_bytes);
  [[nodiscard]] uint64_t segment_count() const noexcept { return segment_count_; }
  void mark(uint64_t begin, uint64_t end) noexcept;  // bytes; every segment they touch
  void mark_segment(uint64_t segment) noexcept;
  void unmark(uint64_t begin, uint64_t end) noexcept;  // every segment they touch
  void mark_everything() noexcept;
  [[nodiscard]] bool is_marked(uint64_t segment) const noexcept;
  [[nodiscard]] bool empty() const noexcept;
  [[nodiscard]] uint64_t count() const noexcept;
  // The child may have lost writes that were acknowledged long ago: the marks do not tell all.
  void set_incomplete() noexcept { incomplete_.store(true, std::memory_order_relaxed); }
  [[nodiscard]] bool incomplete() const noexcept {
    return incomplete_.load(std::memory_order_relaxed);
  }
  void set_complete() noexcept { incomplete_.store(false, std::memory_order_relaxed); }
  // Unmarks and returns the first marked segment at or after `from`, else nothing.
  [[nodiscard]] std::optional<uint64_t> take(uint64_t from) noexcept;

 private:
  uint64_t segment_count_;
  uint64_t word_count_;
  std::unique_ptr<std::atomic<uint64_t>[]> words_;
  std::atomic<bool> incomplete_{false};
};

}  // namespace mayastor::nexus

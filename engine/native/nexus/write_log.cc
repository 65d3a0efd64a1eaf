#include "nexus/write_log.h"

#include <bit>

#include "util/check.h"

namespace mayastor::nexus {

WriteLog::WriteLog(uint64_t size_bytes)
    : segment_count_((size_bytes + kSegmentBytes - 1) / kSegmentBytes),
      word_count_((segment_count_ + 63) / 64),
      words_(new std::atomic<uint64_t>[word_count_]()) {}

void WriteLog::mark_segment(uint64_t segment) noexcept {
  CHECK(segment < segment_count_);
  const uint64_t bit = 1ull << (segment % 64);
  std::atomic<uint64_t>& word = words_[segment / 64];
  if ((word.load(std::memory_order_relaxed) & bit) == 0) {
    word.fetch_or(bit, std::memory_order_relaxed);
  }
}

void WriteLog::mark(uint64_t begin, uint64_t end) noexcept {
  if (begin == end) return;
  const uint64_t last = (end - 1) / kSegmentBytes;
  for (uint64_t segment = begin / kSegmentBytes; segment <= last; ++segment) mark_segment(segment);
}

void WriteLog::unmark(uint64_t begin, uint64_t end) noexcept {
  if (begin == end) return;
  const uint64_t last = (end - 1) / kSegmentBytes;
  CHECK(last < segment_count_);
  for (uint64_t segment = begin / kSegmentBytes; segment <= last; ++segment) {
    words_[segment / 64].fetch_and(~(1ull << (segment % 64)), std::memory_order_relaxed);
  }
}

void WriteLog::mark_everything() noexcept {
  for (uint64_t i = 0; i < word_count_; ++i) {
    const uint64_t used = segment_count_ - i * 64;
    words_[i].store(used >= 64 ? ~0ull : (1ull << used) - 1, std::memory_order_relaxed);
  }
}

bool WriteLog::is_marked(uint64_t segment) const noexcept {
  CHECK(segment < segment_count_);
  return (words_[segment / 64].load(std::memory_order_relaxed) >> (segment % 64) & 1) != 0;
}

bool WriteLog::empty() const noexcept {
  for (uint64_t i = 0; i < word_count_; ++i) {
    if (words_[i].load(std::memory_order_relaxed) != 0) return false;
  }
  return true;
}

uint64_t WriteLog::count() const noexcept {
  uint64_t total = 0;
  for (uint64_t i = 0; i < word_count_; ++i) {
    total += static_cast<uint64_t>(std::popcount(words_[i].load(std::memory_order_relaxed)));
  }
  return total;
}

std::optional<uint64_t> WriteLog::take(uint64_t from) noexcept {
  for (uint64_t i = from / 64; i < word_count_; ++i) {
    uint64_t bits = words_[i].load(std::memory_order_relaxed);
    if (i == from / 64) bits &= ~0ull << (from % 64);
    if (bits == 0) continue;
    const auto index = static_cast<uint64_t>(std::countr_zero(bits));
    words_[i].fetch_and(~(1ull << index), std::memory_order_relaxed);
    return i * 64 + index;
  }
  return std::nullopt;
}

}  // namespace mayastor::nexus

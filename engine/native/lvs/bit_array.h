// BitArray: which numbered things (clusters, metadata pages) are taken, with a count and a fast
// search for the lowest free one. Invariant: bits at and beyond size() are never set.
#pragma once
#include <bit>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "util/check.h"

namespace mayastor {

class BitArray final {
 public:
  BitArray() = default;
  explicit BitArray(uint32_t size) : words_((uint64_t{size} + 63) / 64), size_(size) {}
  BitArray(std::vector<uint64_t> words, uint32_t size) : words_(std::move(words)), size_(size) {
    CHECK(words_.size() == (uint64_t{size} + 63) / 64);
    if (size % 64 != 0) words_.back() &= (1ull << (size % 64)) - 1;
    for (const uint64_t word : words_) used_ += static_cast<uint32_t>(std::popcount(word));
  }
  [[nodiscard]] uint32_t size() const noexcept { return size_; }
  [[nodiscard]] uint32_t used() const noexcept { return used_; }
  [[nodiscard]] uint32_t free() const noexcept { return size_ - used_; }
  [[nodiscard]] const std::vector<uint64_t>& words() const noexcept { return words_; }
  [[nodiscard]] bool test(uint32_t bit) const noexcept {
    CHECK(bit < size_);
    return (words_[bit / 64] >> (bit % 64) & 1) != 0;
  }
  void set(uint32_t bit) noexcept {
    CHECK(!test(bit));
    words_[bit / 64] |= 1ull << (bit % 64);
    ++used_;
  }
  void clear(uint32_t bit) noexcept {
    CHECK(test(bit));
    words_[bit / 64] &= ~(1ull << (bit % 64));
    --used_;
    if (bit / 64 < first_free_word_) first_free_word_ = bit / 64;
  }
  // Lowest clear bit at or after `from`.
  [[nodiscard]] std::optional<uint32_t> find_clear(uint32_t from) const noexcept {
    size_t word = from / 64;
    uint64_t taken = from % 64 == 0 ? 0 : (1ull << (from % 64)) - 1;  // skip what is before
    if (word < first_free_word_) {
      word = first_free_word_;
      taken = 0;
    }
    bool all_full_before = word == first_free_word_ && taken == 0;
    for (; word < words_.size(); ++word, taken = 0) {
      const uint64_t full = words_[word] | taken;
      if (full != UINT64_MAX) {
        if (all_full_before) first_free_word_ = word;
        const auto bit =
            static_cast<uint32_t>(word * 64) + static_cast<uint32_t>(std::countr_one(full));
        return bit < size_ ? std::optional<uint32_t>(bit) : std::nullopt;
      }
    }
    if (all_full_before) first_free_word_ = words_.size();
    return std::nullopt;
  }
  // Highest clear bit.
  [[nodiscard]] std::optional<uint32_t> find_last_clear() const noexcept {
    for (uint32_t bit = size_; bit > 0; --bit) {
      if (!test(bit - 1)) return bit - 1;
    }
    return std::nullopt;
  }

 private:
  std::vector<uint64_t> words_;
  uint32_t size_ = 0;
  uint32_t used_ = 0;
  mutable size_t first_free_word_ = 0;  // no clear bit in any word before it
};

}  // namespace mayastor

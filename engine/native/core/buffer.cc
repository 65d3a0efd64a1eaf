// Buffers: AlignedBuffer is one aligned allocation; BufferPool finds its slab by a bit per slab and
// size, and the place within by the bits of its pages: a few words are read and written a call.
#include "core/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "core/reactor.h"
#include "util/check.h"

namespace mayastor {
namespace {

constexpr size_t kClassSizes[] = {4096, 16384, 65536, 131072, 1048576};
constexpr size_t kPageBytes = 4096;
constexpr size_t kSlabBytes = 2u << 20;  // one hugepage
constexpr size_t kLargeClass = 4;        // larger than the 64 pages of a word
constexpr size_t kLargeWords = kClassSizes[kLargeClass] / kPageBytes / 64;

uint8_t* map_memory() noexcept {
  void* memory = mmap(nullptr, kSlabBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (memory == MAP_FAILED) {
    memory = mmap(nullptr, kSlabBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  return memory == MAP_FAILED ? nullptr : static_cast<uint8_t*>(memory);
}

// The bits at which a whole free buffer of each class begins; a buffer of the last class is larger
// than a word.
struct Starts {
  uint64_t by_class[4];
};
Starts starts_in(uint64_t free) noexcept {
  uint64_t four = free & free >> 1;
  four &= four >> 2 & 0x1111111111111111;
  uint64_t sixteen = four & four >> 4;
  sixteen &= sixteen >> 8 & 0x0001000100010001;
  return {{free, four, sixteen, sixteen & sixteen >> 16 & 0x0000000100000001}};
}

size_t class_of(size_t size_bytes) noexcept {
  size_t index = 0;
  while (kClassSizes[index] < size_bytes) {
    ++index;
    CHECK(index < std::size(kClassSizes));
  }
  return index;
}

// The pages of one buffer of a class that fits a word, from bit 0.
uint64_t run_of(size_t index) noexcept {
  return (uint64_t{1} << kClassSizes[index] / kPageBytes) - 1;
}

}  // namespace

AlignedBuffer::AlignedBuffer(size_t size_bytes) : size_(size_bytes) {
  if (size_bytes == 0) return;
  const size_t rounded = (size_bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
  data_ = static_cast<uint8_t*>(std::aligned_alloc(kBufferAlignment, rounded));
  CHECK(data_ != nullptr);
  std::memset(data_, 0, rounded);
}

AlignedBuffer::~AlignedBuffer() {
  std::free(data_);
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  if (this == &other) return *this;
  std::free(data_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

BufferPool::BufferPool(size_t limit_bytes) : limit_bytes_(limit_bytes) {}

BufferPool::~BufferPool() {
  for (const Slab& slab : slabs_) munmap(slab.memory, kSlabBytes);
}

BufferPool& BufferPool::current() {
  return Reactor::current().buffers();
}

size_t BufferPool::mapped_bytes() const noexcept {
  return slabs_.size() * kSlabBytes;
}

size_t BufferPool::size_of(size_t size_bytes) noexcept {
  return kClassSizes[class_of(size_bytes)];
}

// The highest first: the lowest fit is taken, so that they are whole soonest.
void BufferPool::trim() noexcept {
  const size_t keep = std::max(kKeptBytes, most_in_use_bytes_ + most_in_use_bytes_ / 4);
  most_in_use_bytes_ = in_use_bytes_;
  const auto whole = [](const Slab& slab) {
    return std::all_of(std::begin(slab.free), std::end(slab.free),
                       [](uint64_t word) { return word == ~uint64_t{0}; });
  };
  bool changed = false;
  for (size_t i = slabs_.size(); i-- > 0 && mapped_bytes() > keep;) {
    if (!whole(slabs_[i])) continue;
    munmap(slabs_[i].memory, kSlabBytes);
    slabs_.erase(slabs_.begin() + static_cast<ptrdiff_t>(i));
    changed = true;
  }
  if (!changed) return;
  for (std::vector<uint64_t>& bits : fitting_) bits.assign(slabs_.size() / 64 + 1, 0);
  for (size_t i = 0; i < slabs_.size(); ++i) note_slab(i);
}

bool BufferPool::map_slab() noexcept {
  if ((slabs_.size() + 1) * kSlabBytes > limit_bytes_) return false;
  Slab slab{map_memory(), {}, {}};
  if (slab.memory == nullptr) return false;
  std::fill(std::begin(slab.free), std::end(slab.free), ~uint64_t{0});
  std::fill(std::begin(slab.roomy), std::end(slab.roomy), uint8_t{0xFF});
  const auto after = std::find_if(slabs_.begin(), slabs_.end(),
                                  [&](const Slab& other) { return other.memory > slab.memory; });
  slabs_.insert(after, slab);
  for (std::vector<uint64_t>& bits : fitting_) bits.resize(slabs_.size() / 64 + 1);
  for (size_t i = 0; i < slabs_.size(); ++i) note_slab(i);
  return true;
}

void BufferPool::note_word(Slab& slab, size_t word) noexcept {
  const uint64_t free = slab.free[word];
  const Starts starts = starts_in(free);
  const auto bit = static_cast<uint8_t>(1U << word);
  const auto note = [bit](uint8_t& words, bool roomy) {
    words = static_cast<uint8_t>(roomy ? words | bit : words & ~bit);
  };
  for (size_t i = 0; i < kLargeClass; ++i) note(slab.roomy[i], starts.by_class[i] != 0);
  note(slab.roomy[kLargeClass], free == ~uint64_t{0});
}

void BufferPool::note_slab(size_t index) noexcept {
  const Slab& slab = slabs_[index];
  const uint64_t bit = uint64_t{1} << index % 64;
  const auto note = [&](size_t i, bool roomy) {
    uint64_t& slabs = fitting_[i][index / 64];
    slabs = roomy ? slabs | bit : slabs & ~bit;
  };
  for (size_t i = 0; i < kLargeClass; ++i) note(i, slab.roomy[i] != 0);
  const uint32_t whole = slab.roomy[kLargeClass];
  note(kLargeClass, (whole & 0x0F) == 0x0F || (whole & 0xF0) == 0xF0);
}

uint8_t* BufferPool::acquire(size_t size_bytes) noexcept {
  const size_t index = class_of(size_bytes);
  const auto found = [this, index] {
    const std::vector<uint64_t>& bits = fitting_[index];
    size_t at = 0;
    while (at < bits.size() && bits[at] == 0) ++at;
    return at == bits.size() ? SIZE_MAX : at * 64 + static_cast<size_t>(std::countr_zero(bits[at]));
  };
  size_t which = found();
  if (which == SIZE_MAX) {
    if (!map_slab()) return nullptr;
    which = found();
  }
  Slab& slab = slabs_[which];
  const uint32_t roomy = slab.roomy[index];
  size_t word = 0, bit = 0;
  if (index == kLargeClass) {
    word = (roomy & 0x0F) == 0x0F ? 0 : kLargeWords;
    for (size_t i = word; i < word + kLargeWords; ++i) {
      slab.free[i] = 0;
      note_word(slab, i);
    }
  } else {
    word = static_cast<size_t>(std::countr_zero(roomy));
    bit = static_cast<size_t>(std::countr_zero(starts_in(slab.free[word]).by_class[index]));
    slab.free[word] &= ~(run_of(index) << bit);
    note_word(slab, word);
  }
  note_slab(which);
  in_use_bytes_ += kClassSizes[index];
  most_in_use_bytes_ = std::max(most_in_use_bytes_, in_use_bytes_);
  return slab.memory + (word * 64 + bit) * kPageBytes;
}

void BufferPool::release(uint8_t* buffer, size_t size_bytes) noexcept {
  const size_t index = class_of(size_bytes);
  const auto after =
      std::upper_bound(slabs_.begin(), slabs_.end(), buffer,
                       [](const uint8_t* at, const Slab& slab) { return at < slab.memory; });
  CHECK(after != slabs_.begin());
  Slab& slab = *(after - 1);
  const auto offset = static_cast<size_t>(buffer - slab.memory);
  CHECK(offset < kSlabBytes && offset % kClassSizes[index] == 0);  // one of ours
  const size_t page = offset / kPageBytes, word = page / 64;
  if (index == kLargeClass) {
    for (size_t i = word; i < word + kLargeWords; ++i) {
      CHECK(slab.free[i] == 0);  // in use
      slab.free[i] = ~uint64_t{0};
      note_word(slab, i);
    }
  } else {
    const uint64_t run = run_of(index) << page % 64;
    CHECK((slab.free[word] & run) == 0);  // in use
    slab.free[word] |= run;
    note_word(slab, word);
  }
  CHECK(in_use_bytes_ >= kClassSizes[index]);
  in_use_bytes_ -= kClassSizes[index];
  note_slab(static_cast<size_t>(after - 1 - slabs_.begin()));
}

}  // namespace mayastor

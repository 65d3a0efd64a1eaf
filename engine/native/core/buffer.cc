// Buffers: AlignedBuffer is one mapping or aligned allocation; BufferPool carves 2 MiB slabs into
// one size class each and keeps free lists, newest first (its lines are likely still in the cache).
#include "core/buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "core/reactor.h"
#include "util/check.h"

namespace mayastor {
namespace {

constexpr size_t kClassSizes[] = {4096, 16384, 65536, 131072, 1048576};
constexpr size_t kSlabBytes = 2u << 20;  // one hugepage

uint8_t* map_slab() noexcept {
  void* memory = mmap(nullptr, kSlabBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (memory == MAP_FAILED) {
    memory = mmap(nullptr, kSlabBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  return memory == MAP_FAILED ? nullptr : static_cast<uint8_t*>(memory);
}

size_t class_of(size_t size_bytes) noexcept {
  size_t index = 0;
  while (kClassSizes[index] < size_bytes) {
    ++index;
    CHECK(index < std::size(kClassSizes));
  }
  return index;
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
  for (const auto& [memory, size] : slabs_) munmap(memory, size);
}

BufferPool& BufferPool::current() {
  return Reactor::current().buffers();
}

uint8_t* BufferPool::acquire(size_t size_bytes) noexcept {
  const size_t index = class_of(size_bytes);
  std::vector<uint8_t*>& free = free_[index];
  if (free.empty()) {
    if (mapped_bytes_ + kSlabBytes > limit_bytes_) return nullptr;
    uint8_t* slab = map_slab();
    if (slab == nullptr) return nullptr;
    slabs_.emplace_back(slab, kSlabBytes);
    mapped_bytes_ += kSlabBytes;
    for (size_t at = kSlabBytes; at > 0; at -= kClassSizes[index]) {
      free.push_back(slab + at - kClassSizes[index]);
    }
  }
  uint8_t* buffer = free.back();
  free.pop_back();
  in_use_bytes_ += kClassSizes[index];
  return buffer;
}

void BufferPool::release(uint8_t* buffer, size_t size_bytes) noexcept {
  const size_t index = class_of(size_bytes);
  CHECK(buffer != nullptr && in_use_bytes_ >= kClassSizes[index]);
  in_use_bytes_ -= kClassSizes[index];
  free_[index].push_back(buffer);
}

}  // namespace mayastor

// SimDisk: two images of the same disk (what reads see, what certainly survives) and the list of
// writes between them. A crash walks that list with the seed.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/sim_world.h"

namespace mayastor {
namespace {

constexpr uint64_t kPageBytes = 4096;

uint8_t* map_image(uint64_t size_bytes) noexcept {
  void* memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED);
  return static_cast<uint8_t*>(memory);
}

// Zeroes a range; whole pages are given back, so that big disks stay small in memory.
void zero_range(uint8_t* image, uint64_t offset, uint64_t length) noexcept {
  const uint64_t end = offset + length;
  const uint64_t first_page = (offset + kPageBytes - 1) / kPageBytes * kPageBytes;
  const uint64_t last_page = end / kPageBytes * kPageBytes;
  if (first_page >= last_page) {
    std::memset(image + offset, 0, length);
    return;
  }
  std::memset(image + offset, 0, first_page - offset);
  CHECK(madvise(image + first_page, last_page - first_page, MADV_DONTNEED) == 0);
  std::memset(image + last_page, 0, end - last_page);
}

}  // namespace

SimRandom::SimRandom(uint64_t seed) noexcept {
  for (uint64_t& word : state_) {  // splitmix64 spreads the seed
    seed += 0x9E3779B97F4A7C15u;
    uint64_t mixed = seed;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    word = mixed ^ (mixed >> 31);
  }
}

uint64_t SimRandom::next() noexcept {
  const auto rotate = [](uint64_t value, uint32_t by) {
    return (value << by) | (value >> (64 - by));
  };
  const uint64_t result = rotate(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = rotate(state_[3], 45);
  return result;
}

uint64_t SimRandom::below(uint64_t limit) noexcept {
  CHECK(limit > 0);
  return next() % limit;  // the bias does not matter to a simulation
}

uint64_t SimRandom::between(uint64_t low, uint64_t high) noexcept {
  CHECK(low <= high);
  return high - low == UINT64_MAX ? next() : low + below(high - low + 1);
}

bool SimRandom::chance(uint32_t numerator, uint32_t denominator) noexcept {
  return below(denominator) < numerator;
}

SimDisk::SimDisk(SimDiskOptions options, SimRandom random)
    : options_(options),
      random_(random),
      current_(map_image(options.size_bytes)),
      durable_(map_image(options.size_bytes)) {
  CHECK(options.block_size >= 512 && options.size_bytes % options.block_size == 0);
}

SimDisk::~SimDisk() {
  munmap(current_, options_.size_bytes);
  munmap(durable_, options_.size_bytes);
}

void SimDisk::set_crash_odds(uint32_t kept_percent, uint32_t torn_percent) noexcept {
  CHECK(kept_percent + torn_percent <= 100);
  kept_percent_ = kept_percent;
  torn_percent_ = torn_percent;
}

void SimDisk::set_latency(uint64_t min_ns, uint64_t max_ns) noexcept {
  options_.latency_min_ns = min_ns;
  options_.latency_max_ns = std::max(min_ns, max_ns);
}

void SimDisk::set_stalled(bool stalled) {
  stalled_ = stalled;
  if (stalled) return;
  const auto waiting = std::exchange(stalled_ops_, {});
  for (const auto& resume : waiting) resume();
}

void SimDisk::flip_bit(uint64_t offset, uint32_t bit) noexcept {
  CHECK(offset < options_.size_bytes && bit < 8);
  current_[offset] = static_cast<uint8_t>(current_[offset] ^ (1u << bit));
  durable_[offset] = static_cast<uint8_t>(durable_[offset] ^ (1u << bit));
}

void SimDisk::peek(uint64_t offset, void* buffer, uint64_t length) const noexcept {
  CHECK(offset <= options_.size_bytes && length <= options_.size_bytes - offset);
  std::memcpy(buffer, current_ + offset, length);
}

void SimDisk::poke(uint64_t offset, const void* data, uint64_t length) noexcept {
  CHECK(offset <= options_.size_bytes && length <= options_.size_bytes - offset);
  std::memcpy(current_ + offset, data, length);
  std::memcpy(durable_ + offset, data, length);
}

void SimDisk::copy_from(const SimDisk& other) {
  CHECK(options_.size_bytes == other.options_.size_bytes && pending_.empty());
  static constexpr uint8_t kZeroPage[kPageBytes] = {};
  for (uint64_t at = 0; at < options_.size_bytes; at += kPageBytes) {
    const uint64_t length = std::min(kPageBytes, options_.size_bytes - at);
    if (std::memcmp(current_ + at, other.current_ + at, length) != 0 ||
        std::memcmp(durable_ + at, kZeroPage, length) != 0) {
      poke(at, other.current_ + at, length);
    }
  }
}

uint64_t SimDisk::pick_latency() noexcept {
  return random_.between(options_.latency_min_ns, options_.latency_max_ns);
}

int32_t SimDisk::admit(const SimDiskOp& op) {
  if (op.type != SimDiskOpType::kRead) {
    if (crash_countdown_ && (*crash_countdown_)-- == 0) {
      crash_countdown_.reset();
      crash();
      return EIO;
    }
    ++mutation_count_;
  }
  if (recording_) recorded_.push_back(op);
  const bool aligned = op.offset % options_.block_size == 0 && op.length % options_.block_size == 0;
  if (!aligned) return EINVAL;
  if (op.offset > options_.size_bytes || op.length > options_.size_bytes - op.offset) return ENOSPC;
  if (op.type == SimDiskOpType::kPunchHole && !options_.supports_discard) return EOPNOTSUPP;
  return hook_ ? -hook_(op) : 0;
}

void SimDisk::apply(uint8_t* image, const SimDiskOp& op, const uint8_t* data) noexcept {
  if (data == nullptr) {
    zero_range(image, op.offset, op.length);
  } else {
    std::memcpy(image + op.offset, data, op.length);
  }
}

void SimDisk::complete_mutation(const SimDiskOp& op, std::vector<uint8_t> data) {
  apply(current_, op, data.empty() ? nullptr : data.data());
  if (op.durable && pending_.empty()) {
    apply(durable_, op, data.empty() ? nullptr : data.data());
    return;
  }
  // Durable ones queue too, so that an older unflushed write cannot land on top of them.
  pending_.push_back(Pending{next_sequence_++, op, std::move(data)});
}

void SimDisk::complete_flush(uint64_t up_to_sequence) {
  size_t count = 0;
  for (const Pending& write : pending_) {
    if (write.sequence > up_to_sequence) break;
    apply(durable_, write.op, write.data.empty() ? nullptr : write.data.data());
    ++count;
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(count));
}

void SimDisk::settle(Pending& write) {
  const uint64_t draw = random_.below(100);
  const uint8_t* data = write.data.empty() ? nullptr : write.data.data();
  if (write.op.durable || draw < kept_percent_) {
    apply(durable_, write.op, data);
    return;
  }
  if (draw >= kept_percent_ + torn_percent_) return;  // lost
  for (uint64_t at = 0; at < write.op.length; at += options_.block_size) {
    if (!random_.chance(1, 2)) continue;
    SimDiskOp piece = write.op;
    piece.offset += at;
    piece.length = options_.block_size;
    apply(durable_, piece, data == nullptr ? nullptr : data + at);
  }
}

void SimDisk::crash() {
  ++crash_count_;
  crash_countdown_.reset();
  for (Pending& write : pending_) settle(write);
  for (auto& [sequence, write] : in_flight_) {
    write.op.durable = false;  // not acknowledged: no promise made
    settle(write);
  }
  const auto resync = [this](const SimDiskOp& op) {
    std::memcpy(current_ + op.offset, durable_ + op.offset, op.length);
  };
  for (const Pending& write : pending_) resync(write.op);
  for (const auto& [sequence, write] : in_flight_) resync(write.op);
  pending_.clear();
  in_flight_.clear();
  const auto waiting = std::exchange(stalled_ops_, {});
  for (const auto& resume : waiting) resume();  // they find the crash and fail
}

}  // namespace mayastor

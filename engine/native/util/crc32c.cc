// CRC32C: hardware instruction with a slicing-by-8 table fallback, chosen once at start.
#include "util/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace mayastor {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;  // reflected 0x1EDC6F41

using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int32_t bit = 0; bit < 8; ++bit) {
      value = (value & 1) != 0 ? (value >> 1) ^ kPolynomial : value >> 1;
    }
    tables[0][i] = value;
  }
  for (uint32_t i = 0; i < 256; ++i) {
    for (size_t slice = 1; slice < 8; ++slice) {
      const uint32_t previous = tables[slice - 1][i];
      tables[slice][i] = (previous >> 8) ^ tables[0][previous & 0xFF];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

uint64_t load_u64(const uint8_t* from) noexcept {
  uint64_t value = 0;
  std::memcpy(&value, from, sizeof value);
  return value;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t update_sse42(uint32_t state, const void* data,
                                                        size_t length) noexcept {
  const auto* at = static_cast<const uint8_t*>(data);
  uint64_t wide = state;
  for (; length >= 8; length -= 8, at += 8) wide = _mm_crc32_u64(wide, load_u64(at));
  auto narrow = static_cast<uint32_t>(wide);
  for (; length > 0; --length, ++at) narrow = _mm_crc32_u8(narrow, *at);
  return narrow;
}
#endif

using Update = uint32_t (*)(uint32_t, const void*, size_t) noexcept;

Update choose() noexcept {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return update_sse42;
#endif
  return crc32c_update_table;
}

}  // namespace

uint32_t crc32c_update_table(uint32_t state, const void* data, size_t length) noexcept {
  const auto* at = static_cast<const uint8_t*>(data);
  for (; length >= 8; length -= 8, at += 8) {
    const uint64_t word = load_u64(at) ^ state;
    state = 0;
    for (size_t slice = 0; slice < 8; ++slice) {
      state ^= kTables[7 - slice][(word >> (8 * slice)) & 0xFF];
    }
  }
  for (; length > 0; --length, ++at) state = (state >> 8) ^ kTables[0][(state ^ *at) & 0xFF];
  return state;
}

uint32_t crc32c_update(uint32_t state, const void* data, size_t length) noexcept {
  static const Update update = choose();
  return update(state, data, length);
}

uint32_t crc32c(const void* data, size_t length) noexcept {
  return ~crc32c_update(kCrc32cInitial, data, length);
}

}  // namespace mayastor

// CRC32C (Castagnoli), the checksum of NVMe/TCP digests and of the pool's metadata. RFC 3720,
// appendix B.4. Uses the SSE4.2 instruction where the CPU has it, a table otherwise.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mayastor {

// Checksum of a whole message: starts from all ones, ends with the final inversion.
[[nodiscard]] uint32_t crc32c(const void* data, size_t length) noexcept;

// For a message in parts: start with kCrc32cInitial, feed each part, then invert (~) the last
// value. crc32c(x) == ~crc32c_update(kCrc32cInitial, x). No final inversion is what some formats
// store.
inline constexpr uint32_t kCrc32cInitial = 0xFFFFFFFFu;
[[nodiscard]] uint32_t crc32c_update(uint32_t state, const void* data, size_t length) noexcept;

// The portable version, always the table; for tests.
[[nodiscard]] uint32_t crc32c_update_table(uint32_t state, const void* data,
                                           size_t length) noexcept;

}  // namespace mayastor

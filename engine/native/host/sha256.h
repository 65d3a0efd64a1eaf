// SHA-256 of a short text or byte string. Source: FIPS 180-4, sections 5 and 6.2.
// Used for names (subsystem serial numbers), not on the I/O path.
#pragma once
#include <array>
#include <cstdint>
#include <span>

namespace mayastor::host {

[[nodiscard]] std::array<uint8_t, 32> sha256(std::span<const uint8_t> bytes);

}  // namespace mayastor::host

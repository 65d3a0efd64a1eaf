// Recognises what a device holds before it is formatted, from its first and last bytes, so that a
// pool is never made over somebody's data. Pure functions over bytes.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace mayastor {

inline constexpr uint64_t kProbeHeadBytes = 512u << 10;  // covers the first two ZFS labels
inline constexpr uint64_t kProbeTailBytes = 512u << 10;  // from the last multiple of 256 KiB back

// A word or two for the user ("an ext4 file system"), or nothing recognised. `tail` are the last
// bytes of a device of `device_bytes`; both may be shorter on a small device.
[[nodiscard]] std::optional<std::string> recognise_contents(std::span<const uint8_t> head,
                                                            std::span<const uint8_t> tail,
                                                            uint64_t device_bytes);

}  // namespace mayastor

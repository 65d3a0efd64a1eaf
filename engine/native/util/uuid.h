// Uuid: 16 raw bytes and their lower-case hyphenated text.
#pragma once
#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "util/result.h"

namespace mayastor {

struct Uuid {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const Uuid&) const = default;
  [[nodiscard]] bool is_nil() const noexcept;
  [[nodiscard]] std::string to_string() const;  // 36 characters, lower case
  [[nodiscard]] static Result<Uuid> parse(std::string_view text);
  [[nodiscard]] static Uuid random();                          // version 4, from the kernel
  [[nodiscard]] static Uuid from_name(std::string_view name);  // stable, version 5 style
};

}  // namespace mayastor

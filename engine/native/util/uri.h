// Uri: a device address as users write it: scheme://host[:port]/path?key=value&key=value, or a
// plain absolute path. Parser of foreign bytes: never trusts lengths, percent-decodes once.
// Invariant: a parsed Uri has a scheme ("" for a plain path) and decoded components.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "util/result.h"
#include "util/uuid.h"

namespace mayastor {

class Uri final {
 public:
  inline static constexpr size_t kMaxLength = 4096;  // PATH_MAX

  // kInvalidArgument when malformed: bad scheme, percent code, port, repeated key, control
  // character.
  [[nodiscard]] static Result<Uri> parse(std::string_view text);

  [[nodiscard]] const std::string& text() const noexcept { return text_; }      // as given
  [[nodiscard]] const std::string& scheme() const noexcept { return scheme_; }  // lower case
  [[nodiscard]] const std::string& host() const noexcept { return host_; }      // IPv6: no brackets
  [[nodiscard]] std::optional<uint16_t> port() const noexcept { return port_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }  // with leading '/'
  [[nodiscard]] std::string name() const;  // path without its leading '/'
  // Everything before the query: identifies the device whatever its parameters.
  [[nodiscard]] std::string without_query() const;
  [[nodiscard]] const std::map<std::string, std::string>& query() const noexcept { return query_; }

  [[nodiscard]] std::optional<std::string> find(std::string_view key) const;
  // Typed parameters: absent -> nullopt; present but malformed -> kInvalidArgument naming both.
  [[nodiscard]] Result<std::optional<uint64_t>> find_u64(std::string_view key) const;
  [[nodiscard]] Result<std::optional<Uuid>> find_uuid(std::string_view key) const;
  // kInvalidArgument naming the first parameter that is not in `known`.
  [[nodiscard]] Result<void> allow_only(const std::vector<std::string_view>& known) const;

 private:
  std::string text_, scheme_, host_, path_;
  std::optional<uint16_t> port_;
  std::map<std::string, std::string> query_;
};

// Decimal, whole text, fits 64 bits.
[[nodiscard]] std::optional<uint64_t> parse_u64(std::string_view text) noexcept;
// %XX decoding; nullopt when a code is cut or not hexadecimal, or decodes to NUL.
[[nodiscard]] std::optional<std::string> percent_decode(std::string_view text);
[[nodiscard]] std::string percent_encode(std::string_view text);  // keeps unreserved and '/', ':'

}  // namespace mayastor

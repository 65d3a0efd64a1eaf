// Uri parser: one pass from left to right (RFC 3986, without user names and fragments).
#include "util/uri.h"

#include <algorithm>

namespace mayastor {
namespace {

bool is_alpha(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}
char lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

int32_t hex_value(char c) noexcept {
  if (is_digit(c)) return c - '0';
  const char l = lower(c);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

Error bad_uri(std::string_view text, std::string why) {
  std::string shown;
  for (const char c : text.substr(0, 256)) {
    shown.push_back(static_cast<uint8_t>(c) < 0x20 || c == 0x7F ? '?' : c);
  }
  return Error{ErrorCode::kInvalidArgument, "Cannot parse URI '" + shown + "': " + std::move(why)};
}

bool valid_scheme(std::string_view scheme) noexcept {
  if (scheme.empty() || !is_alpha(scheme.front())) return false;
  return std::all_of(scheme.begin(), scheme.end(), [](char c) {
    return is_alpha(c) || is_digit(c) || c == '+' || c == '-' || c == '.';
  });
}

struct Authority {
  std::string host;
  std::optional<uint16_t> port;
};

// "" on success, else what is wrong.
std::string parse_authority(std::string_view text, Authority& out) {
  std::string_view port;
  bool has_port = false;
  if (!text.empty() && text.front() == '[') {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return "IPv6 address without closing ']'";
    out.host = std::string(text.substr(1, close - 1));
    const std::string_view rest = text.substr(close + 1);
    if (!rest.empty() && rest.front() != ':') return "unexpected text after ']'";
    has_port = !rest.empty();
    if (has_port) port = rest.substr(1);
  } else {
    const size_t colon = text.find(':');
    has_port = colon != std::string_view::npos;
    if (has_port) port = text.substr(colon + 1);
    const auto host = percent_decode(text.substr(0, colon));
    if (!host) return "bad percent code in the host";
    out.host = *host;
  }
  if (!has_port) return "";
  const auto number = parse_u64(port);
  if (!number || *number == 0 || *number > 65535) return "port is not a number from 1 to 65535";
  out.port = static_cast<uint16_t>(*number);
  return "";
}

std::string parse_query(std::string_view text, std::map<std::string, std::string>& out) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    const auto key = percent_decode(pair.substr(0, equals));
    const auto value = percent_decode(pair.substr(std::min(equals + 1, pair.size())));
    if (!key || !value) return "bad percent code in the query";
    if (key->empty()) return "parameter without a name";
    if (!out.emplace(*key, *value).second) return "parameter '" + *key + "' is given twice";
  }
  return "";
}

}  // namespace

std::optional<uint64_t> parse_u64(std::string_view text) noexcept {
  if (text.empty() || text.size() > 20) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (!is_digit(c)) return std::nullopt;
    const auto digit = static_cast<uint64_t>(c - '0');
    if (value > (UINT64_MAX - digit) / 10) return std::nullopt;
    value = value * 10 + digit;
  }
  return value;
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (text.size() - i < 3) return std::nullopt;
    const int32_t high = hex_value(text[i + 1]);
    const int32_t low = hex_value(text[i + 2]);
    if (high < 0 || low < 0 || (high == 0 && low == 0)) return std::nullopt;
    out.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return out;
}

std::string percent_encode(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  static constexpr std::string_view kPlain = "-._~/:";
  std::string out;
  for (const char c : text) {
    if (is_alpha(c) || is_digit(c) || kPlain.find(c) != std::string_view::npos) {
      out.push_back(c);
      continue;
    }
    const auto byte = static_cast<uint8_t>(c);
    out.push_back('%');
    out.push_back(kDigits[byte >> 4]);
    out.push_back(kDigits[byte & 0x0F]);
  }
  return out;
}

Result<Uri> Uri::parse(std::string_view text) {
  if (text.empty()) return bad_uri(text, "it is empty");
  if (text.size() > kMaxLength) return bad_uri(text, "longer than 4096 bytes");
  for (const char c : text) {
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7F) return bad_uri(text, "control character");
  }
  Uri uri;
  uri.text_ = std::string(text);
  std::string_view rest = text;
  if (rest.front() != '/') {
    const size_t end = rest.find("://");
    if (end == std::string_view::npos) {
      return bad_uri(text, "neither scheme://... nor an absolute path");
    }
    if (!valid_scheme(rest.substr(0, end))) return bad_uri(text, "malformed scheme");
    for (const char c : rest.substr(0, end)) uri.scheme_.push_back(lower(c));
    rest.remove_prefix(end + 3);
    const size_t authority_end = std::min(rest.find_first_of("/?"), rest.size());
    Authority authority;
    if (auto why = parse_authority(rest.substr(0, authority_end), authority); !why.empty()) {
      return bad_uri(text, std::move(why));
    }
    uri.host_ = std::move(authority.host);
    uri.port_ = authority.port;
    rest.remove_prefix(authority_end);
  }
  const size_t path_end = std::min(rest.find('?'), rest.size());
  const auto path = percent_decode(rest.substr(0, path_end));
  if (!path) return bad_uri(text, "bad percent code in the path");
  uri.path_ = *path;
  rest.remove_prefix(std::min(path_end + 1, rest.size()));
  if (auto why = parse_query(rest, uri.query_); !why.empty()) return bad_uri(text, std::move(why));
  return uri;
}

std::string Uri::name() const {
  return path_.empty() ? path_ : path_.substr(1);
}

std::string Uri::without_query() const {
  return text_.substr(0, text_.find('?'));
}

std::optional<std::string> Uri::find(std::string_view key) const {
  const auto found = query_.find(std::string(key));
  if (found == query_.end()) return std::nullopt;
  return found->second;
}

Result<std::optional<uint64_t>> Uri::find_u64(std::string_view key) const {
  const auto value = find(key);
  if (!value) return std::optional<uint64_t>();
  const auto number = parse_u64(*value);
  if (!number) {
    return bad_uri(text_, "parameter '" + std::string(key) + "' is '" + *value +
                              "', which is not a whole number");
  }
  return std::optional<uint64_t>(number);
}

Result<std::optional<Uuid>> Uri::find_uuid(std::string_view key) const {
  const auto value = find(key);
  if (!value) return std::optional<Uuid>();
  const auto uuid = Uuid::parse(*value);
  if (!uuid.ok()) return uuid.error();
  return std::optional<Uuid>(uuid.value());
}

Result<void> Uri::allow_only(const std::vector<std::string_view>& known) const {
  for (const auto& [key, value] : query_) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string list;
    for (const auto name : known) list += (list.empty() ? "" : ", ") + std::string(name);
    return bad_uri(text_, "unknown parameter '" + key + "'; known: " + list);
  }
  return {};
}

}  // namespace mayastor

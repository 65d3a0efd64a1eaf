// Uuid: text form per RFC 4122; random ones are version 4, named ones carry version 5 over our own
// mixing (stable across builds and machines, which is all their users need).
#include "util/uuid.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>

namespace mayastor {
namespace {

int32_t hex_value(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void set_version(Uuid& uuid, uint8_t version) noexcept {
  uuid.bytes[6] = static_cast<uint8_t>((uuid.bytes[6] & 0x0F) | (version << 4));
  uuid.bytes[8] = static_cast<uint8_t>((uuid.bytes[8] & 0x3F) | 0x80);
}

uint64_t mix(uint64_t value) noexcept {  // splitmix64 finalizer
  value ^= value >> 30;
  value *= 0xBF58476D1CE4E5B9u;
  value ^= value >> 27;
  value *= 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

}  // namespace

bool Uuid::is_nil() const noexcept {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

std::string Uuid::to_string() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(36);
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text.push_back('-');
    text.push_back(kDigits[bytes[i] >> 4]);
    text.push_back(kDigits[bytes[i] & 0x0F]);
  }
  return text;
}

Result<Uuid> Uuid::parse(std::string_view text) {
  const auto bad = [&text] {
    return Error{ErrorCode::kInvalidArgument,
                 "Cannot parse uuid: '" + std::string(text.substr(0, 64)) +
                     "' is not of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"};
  };
  if (text.size() != 36) return bad();
  Uuid uuid;
  size_t digit = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      if (text[i] != '-') return bad();
      continue;
    }
    const int32_t value = hex_value(text[i]);
    if (value < 0) return bad();
    uuid.bytes[digit / 2] = static_cast<uint8_t>((uuid.bytes[digit / 2] << 4) | value);
    ++digit;
  }
  return uuid;
}

Uuid Uuid::random() {
  Uuid uuid;
  size_t have = 0;
  while (have < uuid.bytes.size()) {
    const ssize_t got = getrandom(uuid.bytes.data() + have, uuid.bytes.size() - have, 0);
    if (got > 0) have += static_cast<size_t>(got);
    CHECK(got > 0 || errno == EINTR);
  }
  set_version(uuid, 4);
  return uuid;
}

Uuid Uuid::from_name(std::string_view name) {
  uint64_t high = 0xCBF29CE484222325u;  // FNV-1a, two differently seeded lanes
  uint64_t low = 0x6C62272E07BB0142u;
  for (const char c : name) {
    const auto byte = static_cast<uint8_t>(c);
    high = (high ^ byte) * 0x100000001B3u;
    low = (low ^ static_cast<uint8_t>(byte + 0x5A)) * 0x100000001B3u;
  }
  high = mix(high ^ name.size());
  low = mix(low + high);
  Uuid uuid;
  for (size_t i = 0; i < 8; ++i) {
    uuid.bytes[i] = static_cast<uint8_t>(high >> (56 - 8 * i));
    uuid.bytes[8 + i] = static_cast<uint8_t>(low >> (56 - 8 * i));
  }
  set_version(uuid, 5);
  return uuid;
}

}  // namespace mayastor

// Fuzz target: device URIs, as they come from users, gRPC and etcd.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "util/check.h"
#include "util/uri.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using mayastor::Uri;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parsed = Uri::parse(text);
  if (!parsed.ok()) {
    CHECK(!parsed.error().message.empty());
    return 0;
  }
  const Uri& uri = parsed.value();
  CHECK(uri.text() == text);
  CHECK(uri.path().empty() || uri.path().front() == '/');
  CHECK(uri.without_query().find('?') == std::string::npos);
  for (const auto& [key, value] : uri.query()) {
    CHECK(!key.empty() && uri.find(key) == value);
    static_cast<void>(uri.find_u64(key).ok());
    static_cast<void>(uri.find_uuid(key).ok());
  }
  static_cast<void>(uri.allow_only({"uuid", "blk_size"}).ok());
  static_cast<void>(uri.name());
  // What was decoded can be encoded and decoded again.
  const auto again = mayastor::percent_decode(mayastor::percent_encode(uri.path()));
  CHECK(again && *again == uri.path());
  return 0;
}

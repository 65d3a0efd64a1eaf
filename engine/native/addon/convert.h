// Conversion between JavaScript values and the host facade's records. 64-bit numbers are bigint,
// "none" is null, every property is present (engine/ts/native.ts lists the same records).
// Invariant: nothing throws; a Reader remembers the first wrong argument and the caller reports it.
#pragma once
#include <napi.h>

#include <optional>
#include <string>
#include <vector>

#include "host/types.h"
#include "nexus/rebuild.h"
#include "util/result.h"

namespace mayastor::addon {

// Reads arguments and properties, keeping the first failure.
class Reader final {
 public:
  explicit Reader(Napi::Env env) : env_(env) {}
  [[nodiscard]] bool failed() const noexcept { return !failure_.empty(); }
  [[nodiscard]] const std::string& failure() const noexcept { return failure_; }

  [[nodiscard]] std::string text(const Napi::Value& value, const char* what);
  [[nodiscard]] std::optional<std::string> maybe_text(const Napi::Value& value, const char* what);
  [[nodiscard]] std::vector<std::string> texts(const Napi::Value& value, const char* what);
  [[nodiscard]] uint64_t u64(const Napi::Value& value, const char* what);  // bigint
  [[nodiscard]] uint32_t u32(const Napi::Value& value, const char* what);  // number
  [[nodiscard]] std::optional<uint32_t> maybe_u32(const Napi::Value& value, const char* what);
  [[nodiscard]] bool flag(const Napi::Value& value, const char* what);
  [[nodiscard]] Napi::Object object(const Napi::Value& value, const char* what);

 private:
  void fail(const char* what, const char* wanted);
  Napi::Env env_;
  std::string failure_;
};

[[nodiscard]] host::EngineOptions read_engine_options(Reader& reader, const Napi::Value& value);
[[nodiscard]] host::PoolRequest read_pool_request(Reader& reader, const Napi::Value& value);
[[nodiscard]] host::ReplicaRequest read_replica_request(Reader& reader, const Napi::Value& value);
[[nodiscard]] host::NexusRequest read_nexus_request(Reader& reader, const Napi::Value& value);

// One name for every answer, so that templates find theirs.
[[nodiscard]] Napi::Value encode(Napi::Env env, const std::string& text);
[[nodiscard]] Napi::Value encode(Napi::Env env, const uint8_t& number);
[[nodiscard]] Napi::Value encode(Napi::Env env, const host::PoolInfo& pool);
[[nodiscard]] Napi::Value encode(Napi::Env env, const host::ReplicaInfo& replica);
[[nodiscard]] Napi::Value encode(Napi::Env env, const host::BdevInfo& bdev);
[[nodiscard]] Napi::Value encode(Napi::Env env, const host::ChildStatus& child);
[[nodiscard]] Napi::Value encode(Napi::Env env, const host::HostStatus& host);
[[nodiscard]] Napi::Value encode(Napi::Env env, const host::NexusStatus& nexus);
[[nodiscard]] Napi::Value encode(Napi::Env env, const host::NvmeControllerInfo& controller);
[[nodiscard]] Napi::Value encode(Napi::Env env, const host::NamedStats& stats);
[[nodiscard]] Napi::Value encode(Napi::Env env, const host::NamedLatencies& named);
[[nodiscard]] Napi::Value encode(Napi::Env env, const host::ReactorInfo& reactor);
[[nodiscard]] Napi::Value encode(Napi::Env env, const nexus::RebuildStats& stats);
[[nodiscard]] Napi::Value encode(Napi::Env env, const nexus::RebuildRecord& record);
template <typename T>
[[nodiscard]] Napi::Value encode(Napi::Env env, const std::vector<T>& items) {
  auto array = Napi::Array::New(env, items.size());
  for (uint32_t i = 0; i < items.size(); ++i) array.Set(i, encode(env, items[i]));
  return array;
}

// An Error object with `code` (the kind's published name) and `errno`.
[[nodiscard]] Napi::Value encode_error(Napi::Env env, const Error& error);

}  // namespace mayastor::addon

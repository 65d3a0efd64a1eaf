#include "addon/convert.h"

#include <cmath>
#include <utility>

namespace mayastor::addon {
namespace {

// Builds one record; every property is set exactly once.
class Record final {
 public:
  explicit Record(Napi::Env env) : env_(env), object_(Napi::Object::New(env)) {}
  Record& text(const char* key, const std::string& value) {
    object_.Set(key, Napi::String::New(env_, value));
    return *this;
  }
  Record& maybe_text(const char* key, const std::optional<std::string>& value) {
    if (value) return text(key, *value);
    object_.Set(key, env_.Null());
    return *this;
  }
  Record& texts(const char* key, const std::vector<std::string>& values) {
    object_.Set(key, encode(env_, values));
    return *this;
  }
  Record& u64(const char* key, uint64_t value) {
    object_.Set(key, Napi::BigInt::New(env_, value));
    return *this;
  }
  Record& maybe_u64(const char* key, const std::optional<uint64_t>& value) {
    if (value) return u64(key, *value);
    object_.Set(key, env_.Null());
    return *this;
  }
  Record& number(const char* key, double value) {
    object_.Set(key, Napi::Number::New(env_, value));
    return *this;
  }
  Record& flag(const char* key, bool value) {
    object_.Set(key, Napi::Boolean::New(env_, value));
    return *this;
  }
  Record& value(const char* key, const Napi::Value& value) {
    object_.Set(key, value);
    return *this;
  }
  [[nodiscard]] Napi::Value take() { return object_; }

 private:
  Napi::Env env_;
  Napi::Object object_;
};

[[nodiscard]] Napi::Value encode_io_stats(Napi::Env env, const IoStats& stats) {
  return Record(env)
      .u64("readOps", stats.read_ops)
      .u64("readBytes", stats.read_bytes)
      .u64("writeOps", stats.write_ops)
      .u64("writeBytes", stats.write_bytes)
      .u64("unmapOps", stats.unmap_ops)
      .u64("unmapBytes", stats.unmap_bytes)
      .u64("readLatencyNs", stats.read_latency_ns)
      .u64("writeLatencyNs", stats.write_latency_ns)
      .u64("unmapLatencyNs", stats.unmap_latency_ns)
      .u64("readLatencyNsMax", stats.read_latency_ns_max)
      .u64("readLatencyNsMin", stats.read_latency_ns_min)
      .u64("writeLatencyNsMax", stats.write_latency_ns_max)
      .u64("writeLatencyNsMin", stats.write_latency_ns_min)
      .u64("unmapLatencyNsMax", stats.unmap_latency_ns_max)
      .u64("unmapLatencyNsMin", stats.unmap_latency_ns_min)
      .take();
}

// Only the buckets that hold something, ascending; their indexes are those of the published layout.
[[nodiscard]] Napi::Value encode_histogram(Napi::Env env, const LatencyHistogram& histogram) {
  auto indexes = Napi::Array::New(env);
  auto counts = Napi::Array::New(env);
  uint32_t used = 0;
  for (size_t slot = 1; slot < histogram.counts.size(); ++slot) {
    if (histogram.counts[slot] == 0) continue;
    const int32_t index = LatencyBuckets::kZeroIndex + static_cast<int32_t>(slot);
    indexes.Set(used, Napi::Number::New(env, index));
    counts.Set(used, Napi::BigInt::New(env, histogram.counts[slot]));
    ++used;
  }
  return Record(env)
      .u64("sumNs", histogram.sum_ns)
      .u64("zeroCount", histogram.counts[0])
      .value("indexes", indexes)
      .value("counts", counts)
      .take();
}

[[nodiscard]] const char* error_kind(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid-argument";
    case ErrorCode::kOutOfRange:
      return "out-of-range";
    case ErrorCode::kNotFound:
      return "not-found";
    case ErrorCode::kAlreadyExists:
      return "already-exists";
    case ErrorCode::kFailedPrecondition:
      return "failed-precondition";
    case ErrorCode::kAborted:
      return "aborted";
    case ErrorCode::kResourceExhausted:
      return "resource-exhausted";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kDeadlineExceeded:
      return "deadline-exceeded";
    case ErrorCode::kUnimplemented:
      return "unimplemented";
    case ErrorCode::kInternal:
      break;
  }
  return "internal";
}

[[nodiscard]] bool is_none(const Napi::Value& value) {
  return value.IsNull() || value.IsUndefined();
}

}  // namespace

void Reader::fail(const char* what, const char* wanted) {
  if (failure_.empty()) failure_ = std::string(what) + " must be " + wanted;
}

std::string Reader::text(const Napi::Value& value, const char* what) {
  if (!value.IsString()) {
    fail(what, "a string");
    return "";
  }
  return value.As<Napi::String>().Utf8Value();
}

std::optional<std::string> Reader::maybe_text(const Napi::Value& value, const char* what) {
  if (is_none(value)) return std::nullopt;
  return text(value, what);
}

std::vector<std::string> Reader::texts(const Napi::Value& value, const char* what) {
  std::vector<std::string> all;
  if (!value.IsArray()) {
    fail(what, "an array of strings");
    return all;
  }
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    all.push_back(text(item, what));
  }
  return all;
}

uint64_t Reader::u64(const Napi::Value& value, const char* what) {
  if (value.IsBigInt()) {
    bool lossless = false;
    const uint64_t number = value.As<Napi::BigInt>().Uint64Value(&lossless);
    if (lossless) return number;
  }
  fail(what, "a bigint from 0 to 2^64 - 1");
  return 0;
}

uint32_t Reader::u32(const Napi::Value& value, const char* what) {
  if (value.IsNumber()) {
    const double number = value.As<Napi::Number>().DoubleValue();
    if (number >= 0 && number <= 4294967295.0 && number == std::floor(number)) {
      return static_cast<uint32_t>(number);
    }
  }
  fail(what, "a whole number from 0 to 2^32 - 1");
  return 0;
}

std::optional<uint32_t> Reader::maybe_u32(const Napi::Value& value, const char* what) {
  if (is_none(value)) return std::nullopt;
  return u32(value, what);
}

bool Reader::flag(const Napi::Value& value, const char* what) {
  if (value.IsBoolean()) return value.As<Napi::Boolean>().Value();
  fail(what, "true or false");
  return false;
}

Napi::Object Reader::object(const Napi::Value& value, const char* what) {
  if (value.IsObject()) return value.As<Napi::Object>();
  fail(what, "an object");
  return Napi::Object::New(env_);
}

host::EngineOptions read_engine_options(Reader& reader, const Napi::Value& value) {
  const auto given = reader.object(value, "options");
  host::EngineOptions options;
  const Napi::Value cores = given.Get("cores");
  if (cores.IsArray()) {
    const auto list = cores.As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); ++i) {
      const Napi::Value core = list.Get(i);
      options.cores.push_back(core.IsNull() ? -1 : static_cast<int32_t>(reader.u32(core, "cores")));
    }
  }
  options.poll = reader.flag(given.Get("poll"), "poll");
  options.spin_us = reader.u32(given.Get("spinUs"), "spinUs");
  options.node_name = reader.text(given.Get("nodeName"), "nodeName");
  options.target_address = reader.text(given.Get("targetAddress"), "targetAddress");
  options.replica_port = static_cast<uint16_t>(reader.u32(given.Get("replicaPort"), "replicaPort"));
  options.nexus_port = static_cast<uint16_t>(reader.u32(given.Get("nexusPort"), "nexusPort"));
  options.target_queue_depth = reader.u32(given.Get("targetQueueDepth"), "targetQueueDepth");
  options.target_qpairs = reader.u32(given.Get("targetQpairs"), "targetQpairs");
  const Napi::Value delays = given.Get("targetRetryDelays100ms");
  if (delays.IsArray()) {
    const auto list = delays.As<Napi::Array>();
    for (uint32_t i = 0; i < 3; ++i) {
      const Napi::Value delay = list.Get(i);
      options.target_retry_delay_100ms[i] =
          static_cast<uint16_t>(reader.u32(delay, "targetRetryDelays100ms"));
    }
  }
  options.host_nqn = reader.text(given.Get("hostNqn"), "hostNqn");
  if (const auto host_id = reader.maybe_text(given.Get("hostId"), "hostId")) {
    const auto uuid = Uuid::parse(*host_id);
    if (uuid.ok()) options.host_id = uuid.value();
  }
  options.keep_alive_ms = reader.u32(given.Get("keepAliveMs"), "keepAliveMs");
  options.io_timeout_ms = reader.u32(given.Get("ioTimeoutMs"), "ioTimeoutMs");
  options.admin_timeout_ms = reader.u32(given.Get("adminTimeoutMs"), "adminTimeoutMs");
  options.ana_enabled = reader.flag(given.Get("anaEnabled"), "anaEnabled");
  options.reservations_enabled =
      reader.flag(given.Get("reservationsEnabled"), "reservationsEnabled");
  options.partial_rebuild = reader.flag(given.Get("partialRebuild"), "partialRebuild");
  options.rebuild_bytes_per_second =
      reader.u64(given.Get("rebuildBytesPerSecond"), "rebuildBytesPerSecond");
  options.ptpl_dir = reader.maybe_text(given.Get("ptplDir"), "ptplDir").value_or("");
  return options;
}

host::PoolRequest read_pool_request(Reader& reader, const Napi::Value& value) {
  const auto given = reader.object(value, "request");
  host::PoolRequest request;
  request.name = reader.text(given.Get("name"), "name");
  request.uuid = reader.maybe_text(given.Get("uuid"), "uuid");
  request.disks = reader.texts(given.Get("disks"), "disks");
  request.cluster_size = reader.maybe_u32(given.Get("clusterSize"), "clusterSize");
  return request;
}

host::ReplicaRequest read_replica_request(Reader& reader, const Napi::Value& value) {
  const auto given = reader.object(value, "request");
  host::ReplicaRequest request;
  request.name = reader.text(given.Get("name"), "name");
  request.uuid = reader.text(given.Get("uuid"), "uuid");
  request.pool = reader.text(given.Get("pool"), "pool");
  request.size = reader.u64(given.Get("size"), "size");
  request.thin = reader.flag(given.Get("thin"), "thin");
  request.share = reader.flag(given.Get("share"), "share");
  request.allowed_hosts = reader.texts(given.Get("allowedHosts"), "allowedHosts");
  request.entity_id = reader.maybe_text(given.Get("entityId"), "entityId");
  return request;
}

host::NexusRequest read_nexus_request(Reader& reader, const Napi::Value& value) {
  const auto given = reader.object(value, "request");
  host::NexusRequest request;
  request.name = reader.text(given.Get("name"), "name");
  request.uuid = reader.text(given.Get("uuid"), "uuid");
  request.size = reader.u64(given.Get("size"), "size");
  request.cntlid_min = reader.u32(given.Get("cntlidMin"), "cntlidMin");
  request.cntlid_max = reader.u32(given.Get("cntlidMax"), "cntlidMax");
  request.resv_key = reader.u64(given.Get("resvKey"), "resvKey");
  request.preempt_key = reader.u64(given.Get("preemptKey"), "preemptKey");
  request.children = reader.texts(given.Get("children"), "children");
  request.info_key = reader.text(given.Get("infoKey"), "infoKey");
  if (const auto type = reader.maybe_u32(given.Get("resvType"), "resvType")) {
    request.resv_type = static_cast<uint8_t>(*type > 255 ? 255 : *type);
  }
  const uint32_t policy = reader.u32(given.Get("preemptPolicy"), "preemptPolicy");
  request.preempt_policy = static_cast<uint8_t>(policy > 255 ? 255 : policy);
  return request;
}

Napi::Value encode(Napi::Env env, const std::string& text) {
  return Napi::String::New(env, text);
}

Napi::Value encode(Napi::Env env, const uint8_t& number) {
  return Napi::Number::New(env, number);
}

Napi::Value encode(Napi::Env env, const host::PoolInfo& pool) {
  return Record(env)
      .text("name", pool.name)
      .text("uuid", pool.uuid)
      .texts("disks", pool.disks)
      .u64("capacity", pool.capacity)
      .u64("used", pool.used)
      .u64("committed", pool.committed)
      .u64("diskCapacity", pool.disk_capacity)
      .number("clusterSize", pool.cluster_size)
      .number("pageSize", pool.page_size)
      .number("blockSize", pool.block_size)
      .flag("faulted", pool.faulted)
      .u64("readErrors", pool.read_errors)
      .u64("writeErrors", pool.write_errors)
      .u64("slowRequests", pool.slow_requests)
      .u64("waitingMs", pool.waiting_ms)
      .maybe_u64("sinceLastErrorMs", pool.since_last_error_ms)
      .maybe_u64("sinceLastSlowMs", pool.since_last_slow_ms)
      .u64("lastErrorOffset", pool.last_error_offset)
      .u64("lastErrorLength", pool.last_error_length)
      .number("lastErrorNumber", pool.last_error_number)
      .flag("lastErrorWasRead", pool.last_error_was_read)
      .take();
}

Napi::Value encode(Napi::Env env, const host::ReplicaInfo& replica) {
  const auto usage = Record(env)
                         .u64("capacity", replica.usage.capacity)
                         .u64("allocated", replica.usage.allocated)
                         .u64("clusterSize", replica.usage.cluster_size)
                         .u64("clusters", replica.usage.clusters)
                         .u64("allocatedClusters", replica.usage.allocated_clusters)
                         .take();
  return Record(env)
      .text("name", replica.name)
      .text("uuid", replica.uuid)
      .text("poolName", replica.pool_name)
      .text("poolUuid", replica.pool_uuid)
      .u64("size", replica.size)
      .flag("thin", replica.thin)
      .flag("shared", replica.shared)
      .flag("isSnapshot", replica.is_snapshot)
      .flag("isClone", replica.is_clone)
      .text("uri", replica.uri)
      .value("usage", usage)
      .texts("allowedHosts", replica.allowed_hosts)
      .maybe_text("entityId", replica.entity_id)
      .maybe_text("snapshotUuid", replica.snapshot_uuid)
      .take();
}

Napi::Value encode(Napi::Env env, const host::BdevInfo& bdev) {
  return Record(env)
      .text("name", bdev.name)
      .text("uuid", bdev.uuid)
      .text("uri", bdev.uri)
      .text("productName", bdev.product_name)
      .text("claimedBy", bdev.claimed_by)
      .text("shareUri", bdev.share_uri)
      .u64("blockCount", bdev.block_count)
      .number("blockSize", bdev.block_size)
      .take();
}

Napi::Value encode(Napi::Env env, const host::ChildStatus& child) {
  return Record(env)
      .text("uri", child.uri)
      .number("state", child.state)
      .number("reason", child.reason)
      .number("rebuildProgress", child.rebuild_progress)
      .maybe_text("deviceName", child.device_name)
      .maybe_u64("faultTimeNs", child.fault_time_ns)
      .flag("hasIoLog", child.has_io_log)
      .take();
}

Napi::Value encode(Napi::Env env, const host::HostStatus& host) {
  return Record(env)
      .text("nqn", host.nqn)
      .number("live", host.live)
      .number("lost", host.lost)
      .take();
}

Napi::Value encode(Napi::Env env, const host::NexusStatus& nexus) {
  return Record(env)
      .text("name", nexus.name)
      .text("uuid", nexus.uuid)
      .text("deviceUri", nexus.device_uri)
      .text("infoKey", nexus.info_key)
      .u64("size", nexus.size)
      .number("state", nexus.state)
      .number("anaState", nexus.ana_state)
      .number("rebuilds", nexus.rebuilds)
      .value("children", encode(env, nexus.children))
      .texts("allowedHosts", nexus.allowed_hosts)
      .number("connectedHosts", nexus.connected_hosts)
      .value("hosts", encode(env, nexus.hosts))
      .flag("hostsComplete", nexus.hosts_complete)
      .take();
}

Napi::Value encode(Napi::Env env, const host::NvmeControllerInfo& controller) {
  return Record(env)
      .text("name", controller.name)
      .number("state", controller.state)
      .u64("blockCount", controller.block_count)
      .number("blockSize", controller.block_size)
      .value("stats", encode_io_stats(env, controller.stats))
      .take();
}

Napi::Value encode(Napi::Env env, const host::NamedStats& stats) {
  return Record(env)
      .text("name", stats.name)
      .text("uuid", stats.uuid)
      .maybe_text("entityId", stats.entity_id)
      .value("stats", encode_io_stats(env, stats.stats))
      .take();
}

Napi::Value encode(Napi::Env env, const host::NamedLatencies& named) {
  return Record(env)
      .text("name", named.name)
      .text("uuid", named.uuid)
      .maybe_text("entityId", named.entity_id)
      .number("schema", LatencyBuckets::kSchema)
      .number("zeroThresholdSec", LatencyBuckets::kZeroThresholdSec)
      .value("read", encode_histogram(env, named.latencies.read))
      .value("write", encode_histogram(env, named.latencies.write))
      .value("unmap", encode_histogram(env, named.latencies.unmap))
      .take();
}

Napi::Value encode(Napi::Env env, const host::ReactorInfo& reactor) {
  return Record(env)
      .number("index", reactor.index)
      .number("core", reactor.core)
      .u64("turns", reactor.turns)
      .u64("busyTurns", reactor.busy_turns)
      .u64("sleeps", reactor.sleeps)
      .u64("messages", reactor.messages)
      .u64("cpuTimeNs", reactor.cpu_time_ns)
      .take();
}

Napi::Value encode(Napi::Env env, const nexus::RebuildStats& stats) {
  return Record(env)
      .u64("blocksTotal", stats.blocks_total)
      .u64("blocksRecovered", stats.blocks_recovered)
      .u64("blocksTransferred", stats.blocks_transferred)
      .u64("blocksRemaining", stats.blocks_remaining)
      .u64("progress", stats.progress)
      .u64("blocksPerTask", stats.blocks_per_task)
      .u64("blockSize", stats.block_size)
      .u64("tasksTotal", stats.tasks_total)
      .u64("tasksActive", stats.tasks_active)
      .flag("isPartial", stats.is_partial)
      .u64("startTimeNs", stats.start_time_ns)
      .take();
}

Napi::Value encode(Napi::Env env, const nexus::RebuildRecord& record) {
  return Record(env)
      .text("childUri", record.child_uri)
      .text("sourceUri", record.source_uri)
      .number("state", static_cast<double>(record.state))
      .u64("blocksTotal", record.blocks_total)
      .u64("blocksRecovered", record.blocks_recovered)
      .u64("blocksTransferred", record.blocks_transferred)
      .u64("blocksRemaining", record.blocks_remaining)
      .u64("blocksPerTask", record.blocks_per_task)
      .u64("blockSize", record.block_size)
      .flag("isPartial", record.is_partial)
      .u64("startTimeNs", record.start_time_ns)
      .u64("endTimeNs", record.end_time_ns)
      .take();
}

Napi::Value encode_error(Napi::Env env, const Error& error) {
  auto object = Napi::Error::New(env, error.message).Value();
  object.Set("code", Napi::String::New(env, error_kind(error.code)));
  object.Set("errno", Napi::Number::New(env, error.error_number));
  return object;
}

}  // namespace mayastor::addon

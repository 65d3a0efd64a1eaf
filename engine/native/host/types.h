// Plain records of the host facade: what an engine is told at start, and what it answers.
// Why: the facade's users (the Node addon, tests) need no header of the layers below.
// Invariants: sizes are bytes; uuids are lower-case text; "" and empty optionals mean none.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bdev/bdev.h"

namespace mayastor::host {

struct EngineOptions {
  std::vector<int32_t> cores;  // CPU numbers, one reactor each; -1: not pinned. At least one.
  bool poll = false;           // reactors never sleep
  uint64_t spin_us = 20;       // how long an idle reactor spins before it sleeps
  std::string node_name;
  std::string target_address;  // IPv4 or IPv6 literal
  uint16_t replica_port = 8420;
  uint16_t nexus_port = 4421;
  uint32_t target_queue_depth = 128;
  uint32_t target_qpairs = 32;
  uint16_t target_retry_delay_100ms[3] = {0, 0, 0};
  std::string host_nqn;
  std::optional<Uuid> host_id;  // none: derived from the host NQN
  uint32_t keep_alive_ms = 10'000;
  uint32_t io_timeout_ms = 5'000;
  uint32_t admin_timeout_ms = 5'000;
  bool ana_enabled = false;
  bool reservations_enabled = false;
  bool partial_rebuild = true;
  uint64_t rebuild_bytes_per_second = 0;  // 0: no limit
  std::string ptpl_dir;                   // "": reservations do not persist
};

struct PoolInfo {
  std::string name, uuid;
  std::vector<std::string> disks;
  uint64_t capacity = 0, used = 0, committed = 0, disk_capacity = 0;
  uint32_t cluster_size = 0, page_size = 0;
  uint32_t block_size = 0;  // of its disk, and so of its replicas
  bool faulted = false;     // its disk has gone, or did not take its metadata
  // What its disk did wrong since the pool was loaded.
  uint64_t read_errors = 0, write_errors = 0, slow_requests = 0;
  uint64_t waiting_ms = 0;                      // of the oldest request that has not ended
  std::optional<uint64_t> since_last_error_ms;  // none: there was no error
  std::optional<uint64_t> since_last_slow_ms;
  uint64_t last_error_offset = 0, last_error_length = 0;  // on the disk
  int32_t last_error_number = 0;
  bool last_error_was_read = false;
};

struct PoolRequest {
  std::string name;
  std::optional<std::string> uuid;
  std::vector<std::string> disks;
  std::optional<uint32_t> cluster_size;
};

struct ReplicaUsage {
  uint64_t capacity = 0, allocated = 0, cluster_size = 0, clusters = 0, allocated_clusters = 0;
};

struct ReplicaInfo {
  std::string name, uuid, pool_name, pool_uuid;
  uint64_t size = 0;
  bool thin = false, shared = false, is_snapshot = false, is_clone = false;
  std::string uri;
  ReplicaUsage usage;
  std::vector<std::string> allowed_hosts;
  std::optional<std::string> entity_id, snapshot_uuid;
};

struct ReplicaRequest {
  std::string name, uuid;
  std::string pool;  // uuid or name
  uint64_t size = 0;
  bool thin = false, share = false;
  std::vector<std::string> allowed_hosts;
  std::optional<std::string> entity_id;
};

struct BdevInfo {
  std::string name, uuid, uri, product_name, claimed_by, share_uri;
  uint64_t block_count = 0;
  uint32_t block_size = 0;
};

struct NexusRequest {
  std::string name, uuid;
  uint64_t size = 0;
  uint32_t cntlid_min = 0, cntlid_max = 0;  // 0: the default
  uint64_t resv_key = 0, preempt_key = 0;
  std::vector<std::string> children;
  std::string info_key;
  std::optional<uint8_t> resv_type;
  uint8_t preempt_policy = 0;
};

struct ChildStatus {
  std::string uri;
  uint8_t state = 0, reason = 0;  // numbers of the published interface
  int32_t rebuild_progress = -1;
  std::optional<std::string> device_name;
  std::optional<uint64_t> fault_time_ns;
  bool has_io_log = false;
};

// A host that was connected to a nexus while it was shared, now or earlier.
struct HostStatus {
  std::string nqn;
  uint32_t live = 0, lost = 0;  // controllers: connected; ended without a shutdown and not back
};

struct NexusStatus {
  std::string name, uuid, device_uri;
  std::string info_key;  // as it was asked for
  uint64_t size = 0;
  uint8_t state = 0, ana_state = 0;  // numbers of the published interface; ANA 0: not published
  uint32_t rebuilds = 0;
  std::vector<ChildStatus> children;
  std::vector<std::string> allowed_hosts;
  uint32_t connected_hosts = 0;  // controllers that hosts have now
  std::vector<HostStatus> hosts;
  bool hosts_complete = true;  // false: there were more than are kept
};

struct NvmeControllerInfo {
  std::string name;
  uint8_t state = 0;
  uint64_t block_count = 0;
  uint32_t block_size = 0;
  IoStats stats;
};

struct NamedStats {
  std::string name, uuid;
  std::optional<std::string> entity_id;
  IoStats stats;
};

struct NamedLatencies {
  std::string name, uuid;
  std::optional<std::string> entity_id;
  IoLatencies latencies;
};

struct ReactorInfo {
  uint32_t index = 0;
  int32_t core = -1;
  uint64_t turns = 0, busy_turns = 0, sleeps = 0, messages = 0, cpu_time_ns = 0;
};

enum class LogLevel : uint8_t { kDebug, kInfo, kWarn, kError };
using LogFields = std::vector<std::pair<std::string, std::string>>;

// What the engine tells without being asked. Called on the home reactor.
class EngineEvents {
 public:
  virtual ~EngineEvents() = default;
  virtual void on_log(LogLevel level, std::string message, LogFields fields) = 0;
  virtual void on_nexus_changed(std::string uuid) = 0;
};

}  // namespace mayastor::host

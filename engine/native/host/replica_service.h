// Replicas of one engine: lvols of its pools, offered to nexuses here or elsewhere.
// Owner: the home reactor. Invariants: a call waits for others of its own pool alone; "shared" on
// disk says what was asked for last, so that an import after a crash serves exactly what was served
// before it.
#pragma once
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/task.h"
#include "host/pool_service.h"
#include "host/sharing.h"
#include "host/types.h"
#include "util/result.h"

namespace mayastor::host {

class ReplicaService final {
 public:
  ReplicaService(BdevRegistry& registry, Sharing& sharing, PoolService& pools,
                 EngineEvents& events);
  ReplicaService(const ReplicaService&) = delete;
  ReplicaService& operator=(const ReplicaService&) = delete;

  // kFailedPrecondition: pool not loaded; kAlreadyExists: uuid or name taken; kResourceExhausted:
  // no room; kInvalidArgument: bad uuid, name or size.
  Task<Result<ReplicaInfo>> create(ReplicaRequest request);
  // `pool`: name or uuid, none for any. kFailedPrecondition: that pool is not loaded, or a nexus
  // uses the replica; kNotFound; kAborted: the replica is on another pool.
  Task<Result<void>> destroy(std::string uuid, std::optional<std::string> pool);
  // Shared already: only the allowed hosts change. kNotFound.
  Task<Result<ReplicaInfo>> share(std::string uuid, std::vector<std::string> allowed_hosts);
  Task<Result<ReplicaInfo>> unshare(std::string uuid);  // idempotent
  Task<Result<ReplicaInfo>> resize(std::string uuid, uint64_t size);
  Task<Result<ReplicaInfo>> set_entity_id(std::string uuid, std::string entity_id);
  [[nodiscard]] std::vector<ReplicaInfo> list() const;
  [[nodiscard]] std::vector<NamedStats> stats() const;
  [[nodiscard]] std::vector<NamedLatencies> latencies() const;

 private:
  Task<Result<void>> share_and_record(std::shared_ptr<Lvol> lvol, std::vector<std::string> hosts);
  // The pool that has the replica, "" if none is known: whose lock to take.
  [[nodiscard]] std::string pool_of(const std::string& uuid) const;
  [[nodiscard]] Result<std::shared_ptr<Lvol>> find(const char* verb, const std::string& uuid,
                                                   const std::string& home) const;
  [[nodiscard]] ReplicaInfo describe(const Lvol& lvol) const;

  BdevRegistry& registry_;
  Sharing& sharing_;
  PoolService& pools_;
  EngineEvents& events_;
  std::set<std::string> being_made_;  // uuids and names of replicas in the making
};

}  // namespace mayastor::host

// Pools of one engine: create-or-import, import, export, destroy, list; and the way from a
// replica's uuid to its lvol. Replicas themselves: host/replica_service.h. Owner: the home reactor.
// Invariants: every lvol of a loaded pool is in the registry; a pool's disk is claimed while it is
// loaded; changes of one pool and its replicas happen one at a time (lock()). Pools do not wait for
// each other: the disk of one may take for ever.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bdev/bdev.h"
#include "core/task.h"
#include "host/sharing.h"
#include "host/types.h"
#include "lvs/lvol.h"
#include "lvs/lvol_store.h"
#include "util/result.h"

namespace mayastor::host {

struct Pool {
  std::shared_ptr<LvolStore> store;
  std::string disk_uri;   // as given
  std::string disk_name;  // of the base bdev
  bool owns_disk = true;  // made by this pool, so gone with it
  bool faulted = false;
};

class PoolService final {
 public:
  PoolService(BdevRegistry& registry, Sharing& sharing, EngineEvents& events);
  PoolService(const PoolService&) = delete;
  PoolService& operator=(const PoolService&) = delete;

  // Loads the pool if the disk holds it, else formats the disk. kAlreadyExists: loaded already;
  // kInvalidArgument: bad disk, another pool on it, wrong uuid, a replica that another loaded pool
  // has too. A disk given as bdev:///name stays when the pool goes.
  Task<Result<PoolInfo>> create(PoolRequest request);
  Task<Result<PoolInfo>> import(PoolRequest request);
  // kNotFound: not loaded; kFailedPrecondition: a nexus uses one of its replicas.
  Task<Result<void>> export_pool(std::string name, std::optional<std::string> uuid);
  Task<Result<void>> destroy(std::string name, std::optional<std::string> uuid);
  Task<Result<void>> export_all();
  [[nodiscard]] std::vector<PoolInfo> list() const;
  [[nodiscard]] std::vector<NamedStats> stats() const;
  [[nodiscard]] std::vector<NamedLatencies> latencies() const;
  void reset_stats() noexcept;

  // For the replica service.
  // Of the pool of that name, loaded or not. Keep it while it is held.
  [[nodiscard]] std::shared_ptr<AsyncMutex> lock(const std::string& name);
  // kUnavailable while the pool's disk does not answer: nothing is begun that would wait for it.
  [[nodiscard]] static Result<void> check_answers(const Pool& pool);
  [[nodiscard]] Pool* find(const std::string& name_or_uuid);
  [[nodiscard]] const std::map<std::string, std::unique_ptr<Pool>>& pools() const noexcept {
    return pools_;
  }
  [[nodiscard]] std::shared_ptr<Lvol> find_lvol(const Uuid& uuid) const;  // or nullptr
  [[nodiscard]] std::shared_ptr<Lvol> find_lvol_named(const std::string& name) const;
  Task<Result<void>> share_lvol(std::shared_ptr<Lvol> lvol, std::vector<std::string> hosts);

 private:
  enum class IfMissing : uint8_t { kFormat, kFail };
  Task<Result<PoolInfo>> load(PoolRequest request, IfMissing if_missing);
  Task<Result<PoolInfo>> load_unlogged(PoolRequest request, IfMissing if_missing);
  void log_failure(const std::string& name, const Result<PoolInfo>& outcome);
  Task<Result<std::shared_ptr<LvolStore>>> open_store(std::shared_ptr<Bdev> base,
                                                      PoolRequest request, IfMissing if_missing);
  [[nodiscard]] Result<void> check_names(const Pool& loading) const;
  Task<Result<void>> attach(Pool* pool);
  Task<Result<void>> detach(Pool* pool, bool destroy);
  Task<void> release_disk(Pool* pool);
  [[nodiscard]] Result<Pool*> find_loaded(const char* verb, const std::string& name,
                                          const std::optional<std::string>& uuid);
  [[nodiscard]] PoolInfo describe(const Pool& pool) const;

  BdevRegistry& registry_;
  Sharing& sharing_;
  EngineEvents& events_;
  std::map<std::string, std::weak_ptr<AsyncMutex>> locks_;  // by name, or by disk
  std::map<std::string, std::unique_ptr<Pool>> pools_;      // by name
  std::map<std::string, std::string> failures_;             // by name: why it was not loaded last
};

// Comma-joined, as in the lvol's property.
[[nodiscard]] std::string join_hosts(const std::vector<std::string>& hosts);
[[nodiscard]] std::vector<std::string> split_hosts(const std::string& text);
[[nodiscard]] std::string replica_ptpl_file(const Uuid& pool, const Uuid& replica);

}  // namespace mayastor::host

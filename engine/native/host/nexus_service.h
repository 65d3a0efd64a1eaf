// Nexuses of one engine: create, publish, change children, rebuild, shut down, destroy.
// Owner: the home reactor. Invariants: changes of one nexus happen one at a time, creations one at
// a time; a nexus is unpublished before it is destroyed.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bdev/bdev.h"
#include "core/reactor.h"
#include "core/task.h"
#include "host/sharing.h"
#include "host/types.h"
#include "nexus/nexus.h"
#include "util/result.h"

namespace mayastor::host {

class NexusService final {
 public:
  NexusService(Reactors& reactors, BdevRegistry& registry, Sharing& sharing,
               nexus::NexusInfoStore* store, EngineEvents& events, const EngineOptions& options);
  NexusService(const NexusService&) = delete;
  NexusService& operator=(const NexusService&) = delete;

  // Every call with a uuid: kInvalidArgument (not a uuid), kNotFound (no such nexus).
  Task<Result<NexusStatus>> create(NexusRequest request);
  Task<Result<void>> destroy(std::string uuid);
  Task<Result<void>> destroy_all();
  Task<Result<NexusStatus>> shutdown(std::string uuid);
  // Published already: only the allowed hosts change.
  Task<Result<NexusStatus>> publish(std::string uuid, std::vector<std::string> allowed_hosts);
  Task<Result<NexusStatus>> unpublish(std::string uuid);  // idempotent
  Task<Result<NexusStatus>> add_child(std::string uuid, std::string uri, bool norebuild);
  Task<Result<NexusStatus>> remove_child(std::string uuid, std::string uri);
  Task<Result<NexusStatus>> fault_child(std::string uuid, std::string uri);
  Task<Result<NexusStatus>> child_operation(std::string uuid, std::string uri, uint8_t action);
  // kInvalidArgument: not published.
  [[nodiscard]] Result<uint8_t> ana_state(const std::string& uuid) const;
  Task<Result<NexusStatus>> set_ana_state(std::string uuid, uint8_t state);

  enum class RebuildAction : uint8_t { kStart, kStop, kPause, kResume };
  Task<Result<NexusStatus>> rebuild(std::string uuid, std::string uri, RebuildAction action);
  [[nodiscard]] Result<std::string> rebuild_state(const std::string& uuid,
                                                  const std::string& uri) const;
  [[nodiscard]] Result<nexus::RebuildStats> rebuild_stats(const std::string& uuid,
                                                          const std::string& uri) const;
  [[nodiscard]] Result<std::vector<nexus::RebuildRecord>> rebuild_history(
      const std::string& uuid) const;

  [[nodiscard]] std::vector<NexusStatus> list() const;
  [[nodiscard]] std::vector<NamedStats> stats() const;
  [[nodiscard]] std::vector<NamedLatencies> latencies() const;
  void reset_stats() noexcept;

 private:
  using NexusPtr = std::shared_ptr<nexus::Nexus>;
  using Change = std::function<Task<Result<void>>(NexusPtr)>;
  // Runs `change` under the nexus's lock and describes the outcome.
  Task<Result<NexusStatus>> changed(std::string verb, std::string uuid, Change change);
  Task<Result<void>> destroy_locked(NexusPtr nexus);
  Task<void> close_path(std::string uuid);
  [[nodiscard]] Result<NexusPtr> find(const std::string& verb, const std::string& uuid) const;
  [[nodiscard]] std::shared_ptr<AsyncMutex> lock_of(const Uuid& uuid);
  void forget_lock(const Uuid& uuid, const std::shared_ptr<AsyncMutex>& lock);
  [[nodiscard]] NexusStatus describe(const nexus::Nexus& nexus) const;
  void log_children(const std::string& uuid, const nexus::Nexus& nexus);

  struct ChildSeen {
    bool faulted = false;
    uint64_t repaired = 0, unrepaired = 0;
  };
  Reactors& reactors_;
  BdevRegistry& registry_;
  Sharing& sharing_;
  nexus::NexusInfoStore* const store_;
  EngineEvents& events_;
  const EngineOptions& options_;
  AsyncMutex creating_;
  std::map<Uuid, NexusPtr> nexuses_;
  std::map<Uuid, std::shared_ptr<nvmf::HostLedger>> ledgers_;  // of the hosts of each
  std::map<Uuid, std::shared_ptr<AsyncMutex>> locks_;
  std::map<std::string, std::map<std::string, ChildSeen>>
      children_seen_;  // by uuid, by URI: logged
};

}  // namespace mayastor::host

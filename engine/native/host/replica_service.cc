#include "host/replica_service.h"

#include <algorithm>
#include <utility>

namespace mayastor::host {
namespace {

// What old data a new thick replica must not show: the places of partition tables and file systems.
constexpr uint64_t kWipeBytes = 8ull << 20;

Task<Result<void>> wipe_head(std::shared_ptr<Lvol> lvol) {
  auto channel = co_await lvol->open_channel();
  if (!channel.ok()) co_return channel.error();
  const uint64_t length = std::min(kWipeBytes, lvol->size_bytes());
  const IoStatus wiped = co_await write_zeroes(*channel.value(), 0, length);
  if (!wiped.ok()) {
    co_return errno_error(wiped.error_number, "cannot wipe replica " + lvol->name());
  }
  co_return Result<void>();
}

// Keys that nobody else has while this lives.
class Reserved final {
 public:
  Reserved(std::set<std::string>& all, std::vector<std::string> keys)
      : all_(all), keys_(std::move(keys)) {
    for (const auto& key : keys_) ok_ = ok_ && !all_.contains(key);
    if (ok_) all_.insert(keys_.begin(), keys_.end());
  }
  Reserved(const Reserved&) = delete;
  Reserved& operator=(const Reserved&) = delete;
  ~Reserved() {
    for (const auto& key : keys_) {
      if (ok_) all_.erase(key);
    }
  }
  [[nodiscard]] bool ok() const noexcept { return ok_; }

 private:
  std::set<std::string>& all_;
  const std::vector<std::string> keys_;
  bool ok_ = true;
};

}  // namespace

ReplicaService::ReplicaService(BdevRegistry& registry, Sharing& sharing, PoolService& pools,
                               EngineEvents& events)
    : registry_(registry), sharing_(sharing), pools_(pools), events_(events) {}

Task<Result<ReplicaInfo>> ReplicaService::create(ReplicaRequest request) {
  const std::string what = "Cannot create replica " + request.uuid + ": ";
  auto uuid = Uuid::parse(request.uuid);
  if (!uuid.ok()) co_return Error{ErrorCode::kInvalidArgument, what + uuid.error().message};
  if (request.size == 0) co_return Error{ErrorCode::kInvalidArgument, what + "its size is 0"};
  if (request.name.empty()) request.name = uuid.value().to_string();

  const Pool* named = pools_.find(request.pool);
  const auto lock = pools_.lock(named != nullptr ? named->store->name() : request.pool);
  co_await lock->lock();
  const AsyncLock held(*lock);
  const Pool* pool = pools_.find(request.pool);
  if (pool == nullptr) {
    co_return Error{ErrorCode::kFailedPrecondition,
                    what + "pool " + request.pool + " is not loaded here"};
  }
  if (const auto answers = PoolService::check_answers(*pool); !answers.ok()) {
    co_return Error{answers.error().code, what + answers.error().message};
  }
  if (pools_.find_lvol(uuid.value())) {
    co_return Error{ErrorCode::kAlreadyExists, what + "a replica of that uuid exists"};
  }
  if (pools_.find_lvol_named(request.name)) {
    co_return Error{ErrorCode::kAlreadyExists,
                    what + "a replica of the name " + request.name + " exists"};
  }
  if (request.size > pool->store->capacity_bytes()) {
    co_return Error{ErrorCode::kInvalidArgument, what + "its size " + std::to_string(request.size) +
                                                     " is beyond the capacity " +
                                                     std::to_string(pool->store->capacity_bytes()) +
                                                     " of pool " + pool->store->name()};
  }
  // Another pool may be making one at the same time.
  const Reserved reserved(being_made_, {uuid.value().to_string(), "name " + request.name});
  if (!reserved.ok()) {
    co_return Error{ErrorCode::kAlreadyExists,
                    what + "a replica of that uuid or name is being made on another pool"};
  }
  LvolOptions options;
  options.name = request.name;
  options.uuid = uuid.value();
  options.size_bytes = request.size;
  options.thin = request.thin;
  if (request.entity_id)
    options.properties.emplace_back(lvol_property::kEntityId, *request.entity_id);
  const auto store = pool->store;
  auto created = co_await store->create_lvol(std::move(options));
  if (!created.ok()) {
    Error error = created.error();
    error.message = what + error.message;
    co_return error;
  }
  const std::shared_ptr<Lvol> lvol = created.take();
  Result<void> ready = registry_.add(lvol);
  const bool added = ready.ok();
  if (ready.ok() && !request.thin) ready = co_await wipe_head(lvol);
  if (ready.ok() && request.share) {
    std::vector<std::string> hosts = request.allowed_hosts;
    ready = co_await share_and_record(lvol, std::move(hosts));
  }
  if (!ready.ok()) {
    const auto unshared = co_await sharing_.unshare(lvol->lvol_name());
    if (added) registry_.remove(lvol->name());
    const auto undone = co_await store->destroy_lvol(uuid.value());
    if (!unshared.ok() || !undone.ok()) {
      events_.on_log(LogLevel::kError, "half made replica left behind",
                     {{"replica.uuid", lvol->name()}});
    }
    Error error = ready.error();
    error.message = what + error.message;
    co_return error;
  }
  events_.on_log(LogLevel::kInfo, "replica created",
                 {{"replica.uuid", lvol->name()}, {"pool.id", store->name()}});
  co_return describe(*lvol);
}

std::string ReplicaService::pool_of(const std::string& text) const {
  const auto uuid = Uuid::parse(text);
  const auto lvol = uuid.ok() ? pools_.find_lvol(uuid.value()) : nullptr;
  const auto store = lvol ? lvol->store() : nullptr;
  return store ? store->name() : "";
}

// `home`: the pool whose lock is held.
Result<std::shared_ptr<Lvol>> ReplicaService::find(const char* verb, const std::string& text,
                                                   const std::string& home) const {
  const std::string what = std::string("Cannot ") + verb + " replica " + text + ": ";
  const auto uuid = Uuid::parse(text);
  if (!uuid.ok()) return Error{ErrorCode::kInvalidArgument, what + uuid.error().message};
  auto lvol = pools_.find_lvol(uuid.value());
  if (!lvol) return Error{ErrorCode::kNotFound, what + "no loaded pool has it"};
  const auto store = lvol->store();
  if (store == nullptr || store->name() != home) {
    return Error{ErrorCode::kAborted, what + "its pool was being loaded; try again"};
  }
  if (const Pool* pool = pools_.find(home)) {
    const auto answers = PoolService::check_answers(*pool);
    if (!answers.ok()) return Error{answers.error().code, what + answers.error().message};
  }
  return lvol;
}

Task<Result<void>> ReplicaService::destroy(std::string uuid, std::optional<std::string> pool) {
  const std::string home = pool_of(uuid);
  const auto lock = pools_.lock(home);
  co_await lock->lock();
  const AsyncLock held(*lock);
  const std::string what = "Cannot destroy replica " + uuid + ": ";
  const Pool* wanted = pool ? pools_.find(*pool) : nullptr;
  if (pool && wanted == nullptr) {
    co_return Error{ErrorCode::kFailedPrecondition, what + "pool " + *pool + " is not loaded here"};
  }
  const auto found = find("destroy", uuid, home);
  if (!found.ok()) co_return found.error();
  const auto lvol = found.value();
  const auto store = lvol->store();
  if (wanted != nullptr && wanted->store != store) {
    co_return Error{ErrorCode::kAborted, what + "it is on another pool than " + *pool};
  }
  const std::string by = registry_.claimed_by(lvol->name());
  if (!by.empty()) {
    co_return Error{ErrorCode::kFailedPrecondition, what + "it is in use by " + by};
  }
  const bool was_shared = sharing_.is_shared(lvol->lvol_name());
  auto hosts = sharing_.allowed_hosts(lvol->lvol_name());
  // Out of the registry before anything is awaited: no nexus can take it from here on.
  registry_.remove(lvol->name());
  auto destroyed = co_await sharing_.unshare(lvol->lvol_name());
  if (destroyed.ok()) destroyed = co_await store->destroy_lvol(lvol->uuid());
  if (!destroyed.ok()) {
    const auto added = registry_.add(lvol);
    if (added.ok() && was_shared) {
      const auto shared = co_await pools_.share_lvol(lvol, std::move(hosts));
      if (!shared.ok()) {
        events_.on_log(LogLevel::kWarn, "replica not shared again: " + shared.error().message,
                       {{"replica.uuid", uuid}});
      }
    }
    Error error = destroyed.error();
    error.message = what + error.message;
    co_return error;
  }
  sharing_.forget_reservations(replica_ptpl_file(store->uuid(), lvol->uuid()));
  events_.on_log(LogLevel::kInfo, "replica destroyed",
                 {{"replica.uuid", uuid}, {"pool.id", store->name()}});
  co_return Result<void>();
}

Task<Result<void>> ReplicaService::share_and_record(std::shared_ptr<Lvol> lvol,
                                                    std::vector<std::string> hosts) {
  const bool was_shared = sharing_.is_shared(lvol->lvol_name());
  const bool same_hosts = hosts.empty() || hosts == sharing_.allowed_hosts(lvol->lvol_name());
  std::vector<std::string> wanted = hosts;
  auto shared = co_await pools_.share_lvol(lvol, std::move(wanted));
  if (!shared.ok()) co_return shared;
  if (was_shared && same_hosts) co_return Result<void>();
  std::vector<std::pair<std::string, std::optional<std::string>>> changes;
  changes.emplace_back(lvol_property::kShared, "true");
  if (!hosts.empty()) changes.emplace_back(lvol_property::kAllowedHosts, join_hosts(hosts));
  if (hosts.empty() && !was_shared)
    changes.emplace_back(lvol_property::kAllowedHosts, std::nullopt);
  auto recorded = co_await lvol->set_properties(std::move(changes));
  if (!recorded.ok() && !was_shared) {
    const auto unshared = co_await sharing_.unshare(lvol->lvol_name());
    if (!unshared.ok()) co_return unshared;
  }
  co_return recorded;
}

Task<Result<ReplicaInfo>> ReplicaService::share(std::string uuid,
                                                std::vector<std::string> allowed_hosts) {
  const std::string home = pool_of(uuid);
  const auto lock = pools_.lock(home);
  co_await lock->lock();
  const AsyncLock held(*lock);
  const auto lvol = find("share", uuid, home);
  if (!lvol.ok()) co_return lvol.error();
  const auto shared = co_await share_and_record(lvol.value(), std::move(allowed_hosts));
  if (!shared.ok()) {
    Error error = shared.error();
    error.message = "Cannot share replica " + uuid + ": " + error.message;
    co_return error;
  }
  co_return describe(*lvol.value());
}

Task<Result<ReplicaInfo>> ReplicaService::unshare(std::string uuid) {
  const std::string home = pool_of(uuid);
  const auto lock = pools_.lock(home);
  co_await lock->lock();
  const AsyncLock held(*lock);
  const auto lvol = find("unshare", uuid, home);
  if (!lvol.ok()) co_return lvol.error();
  // The record first: a crash in between must not serve it again.
  Result<void> recorded;
  if (lvol.value()->property(lvol_property::kShared) == "true") {
    std::vector<std::pair<std::string, std::optional<std::string>>> changes;
    changes.emplace_back(lvol_property::kShared, "false");
    changes.emplace_back(lvol_property::kAllowedHosts, std::nullopt);
    recorded = co_await lvol.value()->set_properties(std::move(changes));
  }
  if (recorded.ok()) recorded = co_await sharing_.unshare(lvol.value()->lvol_name());
  if (!recorded.ok()) {
    Error error = recorded.error();
    error.message = "Cannot unshare replica " + uuid + ": " + error.message;
    co_return error;
  }
  co_return describe(*lvol.value());
}

Task<Result<ReplicaInfo>> ReplicaService::resize(std::string uuid, uint64_t size) {
  const std::string home = pool_of(uuid);
  const auto lock = pools_.lock(home);
  co_await lock->lock();
  const AsyncLock held(*lock);
  const auto lvol = find("resize", uuid, home);
  if (!lvol.ok()) co_return lvol.error();
  const auto store = lvol.value()->store();
  const bool shrinks = size < lvol.value()->size_bytes();
  if (shrinks) {
    // Nobody may have looked at its size and come to rely on it, nor do so until it is done.
    const auto served = sharing_.target().find(nqn_of(lvol.value()->lvol_name()));
    if (served.ok() && !served.value().hosts.empty()) {
      co_return Error{ErrorCode::kFailedPrecondition,
                      "Cannot resize replica " + uuid + ": it would shrink, and host " +
                          served.value().hosts.front().nqn + " is connected to it"};
    }
    const auto claimed = registry_.claim(lvol.value()->name(), "a resize that shrinks it");
    if (!claimed.ok()) {
      co_return Error{
          ErrorCode::kFailedPrecondition,
          "Cannot resize replica " + uuid + ": it would shrink, and " + claimed.error().message};
    }
  }
  const auto resized = co_await store->resize_lvol(lvol.value()->uuid(), size);
  if (shrinks) registry_.unclaim(lvol.value()->name());
  if (!resized.ok()) {
    Error error = resized.error();
    error.message = "Cannot resize replica " + uuid + ": " + error.message;
    co_return error;
  }
  std::string nqn = nqn_of(lvol.value()->lvol_name());
  if (sharing_.target().contains(nqn)) {
    const auto told = co_await sharing_.target().namespace_changed(std::move(nqn));
    if (!told.ok()) co_return told.error();
  }
  co_return describe(*lvol.value());
}

Task<Result<ReplicaInfo>> ReplicaService::set_entity_id(std::string uuid, std::string entity_id) {
  const std::string home = pool_of(uuid);
  const auto lock = pools_.lock(home);
  co_await lock->lock();
  const AsyncLock held(*lock);
  const auto lvol = find("label", uuid, home);
  if (!lvol.ok()) co_return lvol.error();
  std::string key = lvol_property::kEntityId;
  std::optional<std::string> value = std::move(entity_id);
  const auto recorded = co_await lvol.value()->set_property(std::move(key), std::move(value));
  if (!recorded.ok()) co_return recorded.error();
  co_return describe(*lvol.value());
}

ReplicaInfo ReplicaService::describe(const Lvol& lvol) const {
  ReplicaInfo info;
  info.name = lvol.lvol_name();
  info.uuid = lvol.name();
  info.size = lvol.size_bytes();
  info.thin = lvol.thin();
  info.is_snapshot = lvol.is_snapshot();
  info.is_clone = lvol.is_clone();
  info.entity_id = lvol.property(lvol_property::kEntityId);
  if (info.is_clone) info.snapshot_uuid = lvol.property(lvol_property::kSourceUuid);
  info.shared = sharing_.is_shared(info.name);
  const std::string base =
      info.shared ? sharing_.uri(ShareAs::kReplica, info.name) : "bdev:///" + lvol.name();
  info.uri = base + "?uuid=" + info.uuid;
  if (info.shared) info.allowed_hosts = sharing_.allowed_hosts(info.name);
  if (const auto store = lvol.store()) {
    info.pool_name = store->name();
    info.pool_uuid = store->uuid().to_string();
    info.usage.cluster_size = store->cluster_size();
    info.usage.clusters = lvol.num_clusters();
    info.usage.allocated_clusters = lvol.allocated_clusters();
    info.usage.capacity = info.usage.clusters * info.usage.cluster_size;
    info.usage.allocated = info.usage.allocated_clusters * info.usage.cluster_size;
  }
  return info;
}

std::vector<ReplicaInfo> ReplicaService::list() const {
  std::vector<ReplicaInfo> infos;
  for (const auto& [name, pool] : pools_.pools()) {
    for (const auto& lvol : pool->store->lvols()) infos.push_back(describe(*lvol));
  }
  return infos;
}

std::vector<NamedStats> ReplicaService::stats() const {
  std::vector<NamedStats> all;
  for (const auto& [name, pool] : pools_.pools()) {
    for (const auto& lvol : pool->store->lvols()) {
      NamedStats entry;
      entry.name = lvol->lvol_name();
      entry.uuid = lvol->name();
      entry.entity_id = lvol->property(lvol_property::kEntityId);
      entry.stats = lvol->stats();
      all.push_back(std::move(entry));
    }
  }
  return all;
}

std::vector<NamedLatencies> ReplicaService::latencies() const {
  std::vector<NamedLatencies> all;
  for (const auto& [name, pool] : pools_.pools()) {
    for (const auto& lvol : pool->store->lvols()) {
      NamedLatencies& entry = all.emplace_back();
      entry.name = lvol->lvol_name();
      entry.uuid = lvol->name();
      entry.entity_id = lvol->property(lvol_property::kEntityId);
      lvol->add_latencies(entry.latencies);
    }
  }
  return all;
}

}  // namespace mayastor::host

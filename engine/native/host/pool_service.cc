#include "host/pool_service.h"

#include <algorithm>

#include "util/uri.h"

namespace mayastor::host {
namespace {

// What names the device in a disk URI, whatever its scheme and parameters.
[[nodiscard]] Result<std::string> disk_key(const std::string& disk) {
  auto uri = Uri::parse(disk);
  if (!uri.ok()) return uri.error();
  if (!uri.value().host().empty()) return uri.value().without_query();
  return uri.value().path();
}

[[nodiscard]] bool names_existing_bdev(const std::string& disk) {
  const auto uri = Uri::parse(disk);
  return uri.ok() && (uri.value().scheme() == "bdev" || uri.value().scheme() == "loopback");
}

// A bad disk or pool is the caller's argument, as published: import failures are InvalidArgument.
[[nodiscard]] Error as_argument(Error error) {
  if (error.code == ErrorCode::kNotFound || error.code == ErrorCode::kInternal ||
      error.code == ErrorCode::kFailedPrecondition || error.code == ErrorCode::kUnavailable) {
    error.code = ErrorCode::kInvalidArgument;
  }
  return error;
}

// As published: a pool's disk is told with the uuid of its bdev.
[[nodiscard]] std::string disk_with_uuid(const std::string& disk, const Uuid& uuid) {
  const auto uri = Uri::parse(disk);
  if (!uri.ok() || uri.value().find("uuid")) return disk;
  const char separator = disk.find('?') == std::string::npos ? '?' : '&';
  return disk + separator + "uuid=" + uuid.to_string();
}

void describe_health(const DeviceHealth& health, uint64_t now_ns, PoolInfo& info) {
  constexpr uint64_t kNsPerMs = 1'000'000;
  // Other reactors' times of this turn may be a moment ahead.
  const auto since = [now_ns](uint64_t then_ns) {
    return now_ns > then_ns ? (now_ns - then_ns) / kNsPerMs : 0;
  };
  info.read_errors = health.read_errors;
  info.write_errors = health.write_errors;
  info.slow_requests = health.slow_requests;
  if (health.waiting_since_ns != 0) info.waiting_ms = since(health.waiting_since_ns);
  if (health.last_error_ns != 0) info.since_last_error_ms = since(health.last_error_ns);
  if (health.last_slow_ns != 0) info.since_last_slow_ms = since(health.last_slow_ns);
  info.last_error_offset = health.last_error_offset;
  info.last_error_length = health.last_error_length;
  info.last_error_number = health.last_error_number;
  info.last_error_was_read = health.last_error_was_read;
}

}  // namespace

std::string join_hosts(const std::vector<std::string>& hosts) {
  std::string text;
  for (const auto& host : hosts) text += (text.empty() ? "" : ",") + host;
  return text;
}

std::vector<std::string> split_hosts(const std::string& text) {
  std::vector<std::string> hosts;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find(',', at), text.size());
    if (end > at) hosts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return hosts;
}

std::string replica_ptpl_file(const Uuid& pool, const Uuid& replica) {
  return "pool/" + pool.to_string() + "/replica/" + replica.to_string() + ".json";
}

PoolService::PoolService(BdevRegistry& registry, Sharing& sharing, EngineEvents& events)
    : registry_(registry), sharing_(sharing), events_(events) {}

std::shared_ptr<AsyncMutex> PoolService::lock(const std::string& name) {
  std::erase_if(locks_, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<AsyncMutex>& known = locks_[name];
  std::shared_ptr<AsyncMutex> mutex = known.lock();
  if (mutex == nullptr) known = mutex = std::make_shared<AsyncMutex>();
  return mutex;
}

Result<void> PoolService::check_answers(const Pool& pool) {
  const uint64_t since_ns = pool.store->base()->health().waiting_since_ns;
  const uint64_t now_ns = Reactor::current().clock().now_ns();
  if (since_ns == 0 || now_ns < since_ns + kSilentNs) return {};
  return Error{ErrorCode::kUnavailable, "the disk of pool " + pool.store->name() +
                                            " has not answered for " +
                                            std::to_string((now_ns - since_ns) / 1'000'000'000) +
                                            " s; it can be tried again when the disk answers"};
}

Task<Result<PoolInfo>> PoolService::create(PoolRequest request) {
  co_return co_await load(std::move(request), IfMissing::kFormat);
}

Task<Result<PoolInfo>> PoolService::import(PoolRequest request) {
  co_return co_await load(std::move(request), IfMissing::kFail);
}

Task<Result<PoolInfo>> PoolService::load(PoolRequest request, IfMissing if_missing) {
  const std::string name = request.name;
  Result<PoolInfo> outcome = co_await load_unlogged(std::move(request), if_missing);
  log_failure(name, outcome);
  co_return outcome;
}

// Said once until something else comes of it: callers try again and again.
void PoolService::log_failure(const std::string& name, const Result<PoolInfo>& outcome) {
  constexpr size_t kNamesMax = 256;
  if (outcome.ok() || outcome.error().code == ErrorCode::kAlreadyExists) {
    failures_.erase(name);
    return;
  }
  if (failures_.size() >= kNamesMax) failures_.clear();
  std::string& told = failures_[name];
  if (told == outcome.error().message) return;
  told = outcome.error().message;
  events_.on_log(LogLevel::kError, "pool not loaded: " + told, {{"pool.id", name}});
}

Task<Result<PoolInfo>> PoolService::load_unlogged(PoolRequest request, IfMissing if_missing) {
  const std::string what =
      (if_missing == IfMissing::kFormat ? "Cannot create pool " : "Cannot import pool ") +
      request.name + ": ";
  if (request.name.empty()) {
    co_return Error{ErrorCode::kInvalidArgument, what + "the name is empty"};
  }
  if (request.disks.size() != 1) {
    co_return Error{
        ErrorCode::kInvalidArgument,
        what + "it needs exactly one disk, " + std::to_string(request.disks.size()) + " given"};
  }
  if (request.uuid) {
    auto uuid = Uuid::parse(*request.uuid);
    if (!uuid.ok()) co_return Error{ErrorCode::kInvalidArgument, what + uuid.error().message};
  }
  const std::string disk = request.disks.front();
  const auto key = disk_key(disk);
  if (!key.ok()) co_return Error{ErrorCode::kInvalidArgument, what + key.error().message};

  const auto name_lock = lock(request.name);
  co_await name_lock->lock();
  const AsyncLock held(*name_lock);
  const auto disk_lock = lock("disk " + key.value());  // always after that of a name
  co_await disk_lock->lock();
  const AsyncLock disk_held(*disk_lock);
  if (const Pool* loaded = find(request.name)) {
    const auto loaded_key = disk_key(loaded->disk_uri);
    if (loaded_key.ok() && loaded_key.value() == key.value()) {
      co_return Error{ErrorCode::kAlreadyExists, what + "it is loaded already"};
    }
    co_return Error{ErrorCode::kInvalidArgument,
                    what + "a pool of that name is loaded from " + loaded->disk_uri};
  }
  for (const auto& [other, pool] : pools_) {
    const auto other_key = disk_key(pool->disk_uri);
    if (other_key.ok() && other_key.value() == key.value()) {
      co_return Error{ErrorCode::kInvalidArgument,
                      what + "disk " + disk + " is in use by pool " + other};
    }
  }

  auto pool = std::make_unique<Pool>();
  pool->disk_uri = disk;
  // A bdev that was there before, by whatever name it is found, stays when the pool goes.
  pool->owns_disk = !names_existing_bdev(disk);
  auto base = co_await registry_.create(disk);
  if (!base.ok() && base.error().code == ErrorCode::kAlreadyExists) {
    pool->owns_disk = false;
    const auto uri = Uri::parse(disk);
    auto existing = registry_.find(uri.value().path());
    if (!existing) existing = registry_.find(uri.value().name());
    if (existing) base = std::move(existing);
  }
  if (!base.ok()) {
    Error error = as_argument(base.error());
    error.message = what + error.message;
    co_return error;
  }
  pool->disk_name = base.value()->name();
  if (base.value()->uri().empty()) {
    co_return Error{ErrorCode::kInvalidArgument, what + "bdev " + pool->disk_name + " is a " +
                                                     base.value()->product_name() +
                                                     " of this engine; a pool needs a disk"};
  }
  const auto claimed = registry_.claim(pool->disk_name, "pool " + request.name);
  if (!claimed.ok()) {
    co_return Error{ErrorCode::kInvalidArgument, what + claimed.error().message};
  }
  const std::string name = request.name;
  auto store = co_await open_store(base.value(), std::move(request), if_missing);
  if (!store.ok()) {
    co_await release_disk(pool.get());
    Error error = as_argument(store.error());
    error.message = what + error.message;
    co_return error;
  }
  pool->store = store.take();
  Pool* loaded = pool.get();
  pools_[name] = std::move(pool);
  const auto attached = co_await attach(loaded);
  if (!attached.ok()) {
    // Nothing of it is served: only its disk is to be let go.
    const auto unloaded = co_await loaded->store->export_store();
    if (!unloaded.ok()) {
      events_.on_log(LogLevel::kWarn, "pool not unloaded cleanly: " + unloaded.error().message,
                     {{"pool.id", name}});
    }
    const auto gone = std::move(pools_.at(name));  // no half pool is seen while it is awaited
    pools_.erase(name);
    gone->store.reset();
    co_await release_disk(gone.get());
    Error error = attached.error();
    error.message = what + error.message;
    co_return error;
  }
  for (const uint32_t page : loaded->store->cut_off_lvols()) {
    events_.on_log(
        LogLevel::kWarn,
        "a replica of the pool was being made or deleted when its node went down, and is "
        "gone: its metadata page " +
            std::to_string(page) + " was half written",
        {{"pool.id", name}});
  }
  for (const uint32_t page : loaded->store->gone_lvols()) {
    events_.on_log(LogLevel::kWarn,
                   "metadata page " + std::to_string(page) +
                       " of the pool holds no replica, though it is damaged or others name it: one "
                       "that was being made or deleted when its node went down is gone; if another "
                       "is missing, its volume has to be healed from its other replicas",
                   {{"pool.id", name}});
  }
  events_.on_log(LogLevel::kInfo, "pool loaded",
                 {{"pool.id", name}, {"pool.uuid", loaded->store->uuid().to_string()}});
  co_return describe(*loaded);
}

Task<Result<std::shared_ptr<LvolStore>>> PoolService::open_store(std::shared_ptr<Bdev> base,
                                                                 PoolRequest request,
                                                                 IfMissing if_missing) {
  std::optional<Uuid> uuid;
  if (request.uuid) uuid = Uuid::parse(*request.uuid).take();
  std::string name = request.name;
  std::shared_ptr<Bdev> device = base;
  auto store = co_await LvolStore::import(std::move(device), std::move(name), uuid);
  const bool missing = !store.ok() && store.error().code == ErrorCode::kNotFound;
  if (!missing || if_missing == IfMissing::kFail) co_return store;
  LvolStoreOptions options;
  options.name = request.name;
  options.uuid = uuid;
  if (request.cluster_size) options.cluster_size = *request.cluster_size;
  co_return co_await LvolStore::create(std::move(base), std::move(options));
}

// Names are the engine's: a bdev is found and served by them, whichever pool it is in.
Result<void> PoolService::check_names(const Pool& loading) const {
  for (const auto& lvol : loading.store->lvols()) {
    for (const auto& [other, pool] : pools_) {
      if (pool.get() == &loading) continue;
      const bool twice = pool->store->find_lvol(lvol->uuid()) != nullptr ||
                         pool->store->find_lvol(lvol->lvol_name()) != nullptr;
      if (!twice) continue;
      return Error{ErrorCode::kInvalidArgument,
                   "its replica " + lvol->lvol_name() + " (" + lvol->name() +
                       ") is in the loaded pool " + other +
                       " too, by its name or uuid; destroy the one that is not needed, or export " +
                       "that pool first"};
    }
  }
  return {};
}

// Lvols into the registry, and served again where their properties say so. On an error nothing of
// the pool is in the registry or served.
Task<Result<void>> PoolService::attach(Pool* pool) {
  if (auto unique = check_names(*pool); !unique.ok()) co_return unique;
  std::vector<std::string> registered;
  for (const auto& lvol : pool->store->lvols()) {
    const auto added = registry_.add(lvol);
    if (!added.ok()) {
      for (const auto& mine : registered) registry_.remove(mine);
      co_return added;
    }
    registered.push_back(lvol->name());
  }
  // Not the lvols' own handlers: each belongs to whoever claims the lvol.
  pool->store->set_lost_handler([this, pool, name = pool->store->name()] {
    pool->faulted = true;
    events_.on_log(LogLevel::kError, "pool lost its disk", {{"pool.id", name}});
  });
  for (const auto& lvol : pool->store->lvols()) {
    if (lvol->property(lvol_property::kShared) != "true") continue;
    auto hosts = split_hosts(lvol->property(lvol_property::kAllowedHosts).value_or(""));
    const auto shared = co_await share_lvol(lvol, std::move(hosts));
    if (!shared.ok()) {
      events_.on_log(LogLevel::kWarn, "replica not shared again: " + shared.error().message,
                     {{"replica.uuid", lvol->name()}});
    }
  }
  co_return Result<void>();
}

Task<Result<void>> PoolService::share_lvol(std::shared_ptr<Lvol> lvol,
                                           std::vector<std::string> hosts) {
  ShareRequest request;
  request.name = lvol->lvol_name();
  request.allowed_hosts = std::move(hosts);
  if (const auto store = lvol->store()) {
    request.ptpl_file = replica_ptpl_file(store->uuid(), lvol->uuid());
  }
  request.bdev = std::move(lvol);
  co_return co_await sharing_.share(std::move(request));
}

// Takes a pool out of service; on failure it is put back as it was.
Task<Result<void>> PoolService::detach(Pool* pool, bool destroy) {
  for (const auto& lvol : pool->store->lvols()) {
    const std::string by = registry_.claimed_by(lvol->name());
    if (!by.empty()) {
      co_return Error{ErrorCode::kFailedPrecondition,
                      "replica " + lvol->name() + " is in use by " + by};
    }
  }
  // Out of the registry before anything is awaited: no nexus can take one from here on.
  const auto lvols = pool->store->lvols();
  const Uuid uuid = pool->store->uuid();
  pool->store->set_lost_handler(nullptr);
  for (const auto& lvol : lvols) registry_.remove(lvol->name());
  Result<void> left;
  for (const auto& lvol : lvols) {
    auto unshared = co_await sharing_.unshare(lvol->lvol_name());
    if (!unshared.ok()) left = std::move(unshared);
  }
  if (left.ok() && destroy) {
    left = co_await pool->store->destroy();
  } else if (left.ok()) {
    left = co_await pool->store->export_store();
  }
  if (!left.ok() && !pool->faulted) {
    const auto again = co_await attach(pool);
    if (!again.ok()) {
      events_.on_log(LogLevel::kError, "pool half unloaded: " + again.error().message,
                     {{"pool.id", pool->store->name()}});
    }
    co_return left;
  }
  if (const std::string& why = pool->store->unclean_export(); !why.empty()) {
    events_.on_log(LogLevel::kWarn,
                   "pool let go as after a crash, its next import recovers: " + why,
                   {{"pool.id", pool->store->name()}});
  }
  if (destroy) sharing_.forget_reservations("pool/" + uuid.to_string());
  co_await release_disk(pool);
  co_return Result<void>();
}

Task<void> PoolService::release_disk(Pool* pool) {
  registry_.unclaim(pool->disk_name);
  if (!pool->owns_disk) co_return;
  std::string name = pool->disk_name;
  const auto gone = co_await registry_.destroy(std::move(name));
  if (!gone.ok()) {
    events_.on_log(LogLevel::kWarn, "disk not closed: " + gone.error().message,
                   {{"disk", pool->disk_name}});
  }
}

Result<Pool*> PoolService::find_loaded(const char* verb, const std::string& name,
                                       const std::optional<std::string>& uuid) {
  Pool* pool = nullptr;
  if (const auto found = pools_.find(name); found != pools_.end()) pool = found->second.get();
  const std::string what = std::string("Cannot ") + verb + " pool " + name + ": ";
  if (pool == nullptr) return Error{ErrorCode::kNotFound, what + "it is not loaded here"};
  if (uuid && pool->store->uuid().to_string() != *uuid) {
    return Error{ErrorCode::kNotFound,
                 what + "its uuid is " + pool->store->uuid().to_string() + ", not " + *uuid};
  }
  return pool;
}

Task<Result<void>> PoolService::export_pool(std::string name, std::optional<std::string> uuid) {
  const auto name_lock = lock(name);
  co_await name_lock->lock();
  const AsyncLock held(*name_lock);
  const auto pool = find_loaded("export", name, uuid);
  if (!pool.ok()) co_return pool.error();
  auto left = check_answers(*pool.value());
  if (left.ok()) left = co_await detach(pool.value(), false);
  if (!left.ok()) {
    Error error = left.error();
    error.message = "Cannot export pool " + name + ": " + error.message;
    co_return error;
  }
  pools_.erase(name);
  events_.on_log(LogLevel::kInfo, "pool exported", {{"pool.id", name}});
  co_return Result<void>();
}

Task<Result<void>> PoolService::destroy(std::string name, std::optional<std::string> uuid) {
  const auto name_lock = lock(name);
  co_await name_lock->lock();
  const AsyncLock held(*name_lock);
  const auto pool = find_loaded("destroy", name, uuid);
  if (!pool.ok()) co_return pool.error();
  auto left = check_answers(*pool.value());
  if (left.ok()) left = co_await detach(pool.value(), true);
  if (!left.ok()) {
    Error error = left.error();
    error.message = "Cannot destroy pool " + name + ": " + error.message;
    co_return error;
  }
  pools_.erase(name);
  events_.on_log(LogLevel::kInfo, "pool destroyed", {{"pool.id", name}});
  co_return Result<void>();
}

Task<Result<void>> PoolService::export_all() {
  Result<void> worst;
  std::vector<std::string> names;
  for (const auto& [name, pool] : pools_) names.push_back(name);
  for (const auto& name : names) {
    const std::optional<std::string> any_uuid;
    auto left = co_await export_pool(name, any_uuid);
    if (!left.ok()) worst = left;
  }
  co_return worst;
}

Pool* PoolService::find(const std::string& name_or_uuid) {
  if (const auto found = pools_.find(name_or_uuid); found != pools_.end()) {
    return found->second.get();
  }
  for (const auto& [name, pool] : pools_) {
    if (pool->store->uuid().to_string() == name_or_uuid) return pool.get();
  }
  return nullptr;
}

std::shared_ptr<Lvol> PoolService::find_lvol(const Uuid& uuid) const {
  for (const auto& [name, pool] : pools_) {
    if (auto lvol = pool->store->find_lvol(uuid)) return lvol;
  }
  return nullptr;
}

std::shared_ptr<Lvol> PoolService::find_lvol_named(const std::string& lvol_name) const {
  for (const auto& [name, pool] : pools_) {
    if (auto lvol = pool->store->find_lvol(lvol_name)) return lvol;
  }
  return nullptr;
}

PoolInfo PoolService::describe(const Pool& pool) const {
  const LvolStore& store = *pool.store;
  PoolInfo info;
  info.name = store.name();
  info.uuid = store.uuid().to_string();
  const std::string uri = store.base()->uri();
  info.disks.push_back(disk_with_uuid(uri.empty() ? pool.disk_uri : uri, store.base()->uuid()));
  info.capacity = store.capacity_bytes();
  info.used = store.used_bytes();
  info.committed = store.committed_bytes();
  info.disk_capacity = store.base()->size_bytes();
  info.cluster_size = store.cluster_size();
  info.page_size = 4096;
  info.block_size = store.base()->block_size();
  info.faulted = pool.faulted || store.failed();
  describe_health(store.base()->health(), Reactor::current().clock().now_ns(), info);
  return info;
}

std::vector<PoolInfo> PoolService::list() const {
  std::vector<PoolInfo> infos;
  for (const auto& [name, pool] : pools_) {
    if (pool->store && pool->store->loaded()) infos.push_back(describe(*pool));
  }
  return infos;
}

std::vector<NamedStats> PoolService::stats() const {
  std::vector<NamedStats> all;
  for (const auto& [name, pool] : pools_) {
    NamedStats entry;
    entry.name = name;
    entry.uuid = pool->store->uuid().to_string();
    entry.stats = pool->store->base()->stats();
    all.push_back(std::move(entry));
  }
  return all;
}

std::vector<NamedLatencies> PoolService::latencies() const {
  std::vector<NamedLatencies> all;
  for (const auto& [name, pool] : pools_) {
    NamedLatencies& entry = all.emplace_back();
    entry.name = name;
    entry.uuid = pool->store->uuid().to_string();
    pool->store->base()->add_latencies(entry.latencies);
  }
  return all;
}

void PoolService::reset_stats() noexcept {
  for (const auto& [name, pool] : pools_) {
    pool->store->base()->reset_stats();
    for (const auto& lvol : pool->store->lvols()) lvol->reset_stats();
  }
}

}  // namespace mayastor::host

#include "host/nexus_service.h"

#include <utility>

namespace mayastor::host {
namespace {

constexpr uint32_t kMaxCntlid = 0xFFEF;  // NVMe over Fabrics: larger ids are reserved
constexpr uint8_t kMaxReservationType = 6;

[[nodiscard]] std::string ptpl_file(const Uuid& uuid) {
  return "nexus/" + uuid.to_string() + ".json";
}

[[nodiscard]] Error with_prefix(const std::string& what, const Error& error) {
  Error prefixed = error;
  prefixed.message = what + error.message;
  return prefixed;
}

[[nodiscard]] Result<nexus::NexusOptions> parse_request(const NexusRequest& request,
                                                        const EngineOptions& engine) {
  const auto invalid = [](std::string message) {
    return Error{ErrorCode::kInvalidArgument, std::move(message)};
  };
  const auto uuid = Uuid::parse(request.uuid);
  if (!uuid.ok()) return invalid(uuid.error().message);
  if (uuid.value().is_nil()) return invalid("the uuid is nil");
  if (request.size == 0) return invalid("its size is 0");
  nexus::NexusOptions options;
  options.name = request.name.empty() ? uuid.value().to_string() : request.name;
  options.uuid = uuid.value();
  options.size_bytes = request.size;
  options.children = request.children;
  options.nexus_info_key = request.info_key;
  options.reservations_enabled = engine.reservations_enabled;
  options.resv_key = request.resv_key;
  options.preempt_key = request.preempt_key;
  if (request.resv_type && *request.resv_type > kMaxReservationType) {
    return invalid("reservation type " + std::to_string(*request.resv_type) + " does not exist");
  }
  options.resv_type = request.resv_type;
  if (request.preempt_policy > 1) {
    return invalid("preempt policy " + std::to_string(request.preempt_policy) + " does not exist");
  }
  options.preempt_policy = static_cast<nexus::PreemptPolicy>(request.preempt_policy);
  options.resv_persist = !engine.ptpl_dir.empty();
  options.partial_rebuild = engine.partial_rebuild;
  options.rebuild_bytes_per_second = engine.rebuild_bytes_per_second;
  const uint32_t first = request.cntlid_min == 0 ? 1 : request.cntlid_min;
  const uint32_t last = request.cntlid_max == 0 ? kMaxCntlid : request.cntlid_max;
  if (first > last || last > kMaxCntlid) {
    return invalid("controller ids " + std::to_string(first) + " to " + std::to_string(last) +
                   " are not a range within 1 to " + std::to_string(kMaxCntlid));
  }
  options.min_cntlid = static_cast<uint16_t>(first);
  options.max_cntlid = static_cast<uint16_t>(last);
  return options;
}

[[nodiscard]] const char* to_string(nexus::ChildStateReason reason) noexcept {
  switch (reason) {
    case nexus::ChildStateReason::kNone:
      return "none";
    case nexus::ChildStateReason::kInit:
      return "init";
    case nexus::ChildStateReason::kClosed:
      return "closed";
    case nexus::ChildStateReason::kCannotOpen:
      return "cannot open";
    case nexus::ChildStateReason::kConfigInvalid:
      return "configuration invalid";
    case nexus::ChildStateReason::kRebuildFailed:
      return "rebuild failed";
    case nexus::ChildStateReason::kIoFailure:
      return "I/O error";
    case nexus::ChildStateReason::kByClient:
      return "by client";
    case nexus::ChildStateReason::kOutOfSync:
      return "out of sync";
    case nexus::ChildStateReason::kNoSpace:
      return "no space";
    case nexus::ChildStateReason::kTimedOut:
      return "timed out, or its path was lost";
    case nexus::ChildStateReason::kAdminFailed:
      return "admin command failed";
  }
  return "unknown";
}

}  // namespace

NexusService::NexusService(Reactors& reactors, BdevRegistry& registry, Sharing& sharing,
                           nexus::NexusInfoStore* store, EngineEvents& events,
                           const EngineOptions& options)
    : reactors_(reactors),
      registry_(registry),
      sharing_(sharing),
      store_(store),
      events_(events),
      options_(options) {}

std::shared_ptr<AsyncMutex> NexusService::lock_of(const Uuid& uuid) {
  auto& lock = locks_[uuid];
  if (!lock) lock = std::make_shared<AsyncMutex>();
  return lock;
}

// `lock` and the map's own are the last two references when nobody else waits.
void NexusService::forget_lock(const Uuid& uuid, const std::shared_ptr<AsyncMutex>& lock) {
  if (lock.use_count() == 2) locks_.erase(uuid);
}

Result<NexusService::NexusPtr> NexusService::find(const std::string& verb,
                                                  const std::string& text) const {
  const std::string what = "Cannot " + verb + " nexus " + text + ": ";
  const auto uuid = Uuid::parse(text);
  if (!uuid.ok()) return Error{ErrorCode::kInvalidArgument, what + uuid.error().message};
  const auto found = nexuses_.find(uuid.value());
  if (found == nexuses_.end()) return Error{ErrorCode::kNotFound, what + "it does not exist here"};
  return found->second;
}

Task<Result<NexusStatus>> NexusService::create(NexusRequest request) {
  const std::string what = "Cannot create nexus " + request.uuid + ": ";
  auto options = parse_request(request, options_);
  if (!options.ok()) co_return with_prefix(what, options.error());
  const Uuid uuid = options.value().uuid;
  co_await creating_.lock();
  AsyncLock held(creating_);
  for (const auto& [other, nexus] : nexuses_) {
    if (other == uuid || nexus->name() == options.value().name) {
      co_return Error{ErrorCode::kAlreadyExists, what + "nexus " + other.to_string() +
                                                     " of the name " + nexus->name() + " exists"};
    }
  }
  auto created = co_await nexus::Nexus::create(reactors_, registry_, store_, options.take());
  if (!created.ok()) co_return with_prefix(what, created.error());
  const NexusPtr nexus = created.take();
  nexus->set_listener(
      [this, watched = nexus.get(), text = uuid.to_string(), open = true]() mutable {
        const nexus::NexusState state = watched->state();
        const bool ended =
            state == nexus::NexusState::kShuttingDown || state == nexus::NexusState::kShutdown;
        if (open && ended) spawn(close_path(text));
        open = open && !ended;
        log_children(text, *watched);
        events_.on_nexus_changed(text);
      });
  nexuses_[uuid] = nexus;
  ledgers_[uuid] = std::make_shared<nvmf::HostLedger>();
  events_.on_log(LogLevel::kInfo, "nexus created",
                 {{"nexus.uuid", uuid.to_string()}, {"nexus.name", nexus->name()}});
  co_return describe(*nexus);
}

// A child's loss, and what was mended on it, are told here and once: nobody else may be listening.
void NexusService::log_children(const std::string& uuid, const nexus::Nexus& nexus) {
  std::map<std::string, ChildSeen> now;
  std::map<std::string, ChildSeen>& before = children_seen_[uuid];
  for (const nexus::ChildInfo& child : nexus.children()) {
    const ChildSeen seen{child.state == nexus::ChildState::kFaulted, child.repaired,
                         child.unrepaired};
    const ChildSeen was = before[child.uri];
    const LogFields fields = {{"nexus.uuid", uuid},
                              {"child.uri", child.uri},
                              {"reason", to_string(child.reason)},
                              {"repaired", std::to_string(child.repaired)},
                              {"unreadable", std::to_string(child.unrepaired)}};
    if (seen.faulted && !was.faulted) {
      events_.on_log(LogLevel::kWarn, "child faulted", fields);
    }
    if (seen.repaired > was.repaired) {
      events_.on_log(LogLevel::kWarn,
                     "a place that a child could not read was written anew from another child",
                     fields);
    }
    if (seen.unrepaired > was.unrepaired) {
      events_.on_log(LogLevel::kError,
                     "a place on a child stays unreadable: its data is read from other children",
                     fields);
    }
    now.emplace(child.uri, seen);
  }
  before = std::move(now);
}

Task<Result<NexusStatus>> NexusService::changed(std::string verb, std::string text, Change change) {
  const auto first = find(verb, text);
  if (!first.ok()) co_return first.error();
  const Uuid uuid = first.value()->uuid();
  const auto lock = lock_of(uuid);
  co_await lock->lock();
  Result<NexusStatus> outcome = Error{};
  {
    AsyncLock held(*lock);
    const auto nexus = find(verb, text);  // it may have gone while this waited
    if (!nexus.ok()) {
      outcome = nexus.error();
    } else {
      NexusPtr target = nexus.value();
      const auto done = co_await change(std::move(target));
      if (done.ok()) {
        outcome = describe(*nexus.value());
      } else {
        outcome = with_prefix("Cannot " + verb + " nexus " + text + ": ", done.error());
      }
    }
  }
  forget_lock(uuid, lock);
  co_return outcome;
}

// A nexus that ended, by itself or by request, refuses all I/O with a path error. Its hosts look up
// the state of the path then: told "optimized" they would come back to it for ever.
Task<void> NexusService::close_path(std::string uuid) {
  Change change = [this](NexusPtr nexus) {
    return sharing_.target().set_ana_state(nqn_of(nexus->name()), nvmf::AnaState::kInaccessible);
  };
  // Not published, or gone meanwhile: there is nobody to tell.
  const auto ignored = co_await changed("close the path to", std::move(uuid), std::move(change));
  static_cast<void>(ignored);
}

Task<Result<void>> NexusService::destroy_locked(NexusPtr nexus) {
  const auto unshared = co_await sharing_.unshare(nexus->name());
  if (!unshared.ok()) co_return unshared;
  nexus->set_listener(nullptr);
  const auto destroyed = co_await nexus->destroy();
  if (!destroyed.ok()) co_return destroyed;
  sharing_.forget_reservations(ptpl_file(nexus->uuid()));
  nexuses_.erase(nexus->uuid());
  children_seen_.erase(nexus->uuid().to_string());
  ledgers_.erase(nexus->uuid());
  events_.on_log(LogLevel::kInfo, "nexus destroyed", {{"nexus.uuid", nexus->uuid().to_string()}});
  co_return Result<void>();
}

Task<Result<void>> NexusService::destroy(std::string uuid) {
  Change change = [this](NexusPtr nexus) { return destroy_locked(std::move(nexus)); };
  const auto done = co_await changed("destroy", std::move(uuid), std::move(change));
  if (!done.ok()) co_return done.error();
  co_return Result<void>();
}

Task<Result<void>> NexusService::destroy_all() {
  Result<void> worst;
  std::vector<std::string> uuids;
  for (const auto& [uuid, nexus] : nexuses_) uuids.push_back(uuid.to_string());
  for (const auto& uuid : uuids) {
    std::string doomed = uuid;
    auto done = co_await destroy(std::move(doomed));
    if (!done.ok()) worst = done;
  }
  co_return worst;
}

Task<Result<NexusStatus>> NexusService::shutdown(std::string uuid) {
  Change change = [](NexusPtr nexus) { return nexus->shutdown(); };
  co_return co_await changed("shut down", std::move(uuid), std::move(change));
}

Task<Result<NexusStatus>> NexusService::publish(std::string uuid,
                                                std::vector<std::string> allowed_hosts) {
  Change change = [this, allowed_hosts](NexusPtr nexus) {
    ShareRequest request;
    request.as = ShareAs::kNexus;
    request.name = nexus->name();
    request.allowed_hosts = allowed_hosts;
    request.cntlid_min = nexus->options().min_cntlid;
    request.cntlid_max = nexus->options().max_cntlid;
    request.ana = options_.ana_enabled;
    request.ptpl_file = ptpl_file(nexus->uuid());
    request.ledger = ledgers_[nexus->uuid()];
    request.bdev = std::move(nexus);
    return sharing_.share(std::move(request));
  };
  co_return co_await changed("publish", std::move(uuid), std::move(change));
}

Task<Result<NexusStatus>> NexusService::unpublish(std::string uuid) {
  Change change = [this](NexusPtr nexus) { return sharing_.unshare(nexus->name()); };
  co_return co_await changed("unpublish", std::move(uuid), std::move(change));
}

Task<Result<NexusStatus>> NexusService::add_child(std::string uuid, std::string uri,
                                                  bool norebuild) {
  Change change = [uri, norebuild](NexusPtr nexus) { return nexus->add_child(uri, norebuild); };
  co_return co_await changed("add a child to", std::move(uuid), std::move(change));
}

Task<Result<NexusStatus>> NexusService::remove_child(std::string uuid, std::string uri) {
  Change change = [uri](NexusPtr nexus) { return nexus->remove_child(uri); };
  co_return co_await changed("remove a child from", std::move(uuid), std::move(change));
}

Task<Result<NexusStatus>> NexusService::fault_child(std::string uuid, std::string uri) {
  Change change = [uri](NexusPtr nexus) { return nexus->fault_child(uri); };
  co_return co_await changed("fault a child of", std::move(uuid), std::move(change));
}

Task<Result<NexusStatus>> NexusService::child_operation(std::string uuid, std::string uri,
                                                        uint8_t action) {
  if (action > static_cast<uint8_t>(nexus::ChildAction::kOfflinePermanent)) {
    co_return Error{ErrorCode::kInvalidArgument, "Cannot change a child of nexus " + uuid +
                                                     ": action " + std::to_string(action) +
                                                     " does not exist"};
  }
  const auto wanted = static_cast<nexus::ChildAction>(action);
  Change change = [uri, wanted](NexusPtr nexus) { return nexus->child_operation(uri, wanted); };
  co_return co_await changed("change a child of", std::move(uuid), std::move(change));
}

Result<uint8_t> NexusService::ana_state(const std::string& uuid) const {
  const auto nexus = find("read the ANA state of", uuid);
  if (!nexus.ok()) return nexus.error();
  if (!sharing_.is_shared(nexus.value()->name())) {
    return Error{ErrorCode::kInvalidArgument,
                 "Cannot read the ANA state of nexus " + uuid + ": it is not published"};
  }
  const auto state = sharing_.target().ana_state(nqn_of(nexus.value()->name()));
  if (!state.ok()) return state.error();
  return static_cast<uint8_t>(state.value());
}

Task<Result<NexusStatus>> NexusService::set_ana_state(std::string uuid, uint8_t state) {
  const std::string verb = "set the ANA state of";
  // 1 optimized, 2 non-optimized, 3 inaccessible; the others cannot be asked for.
  if (state < 1 || state > 3) {
    co_return Error{ErrorCode::kInvalidArgument, "Cannot " + verb + " nexus " + uuid + ": state " +
                                                     std::to_string(state) + " cannot be set"};
  }
  Change change = [this, state](NexusPtr nexus) -> Task<Result<void>> {
    return sharing_.target().set_ana_state(nqn_of(nexus->name()),
                                           static_cast<nvmf::AnaState>(state));
  };
  const auto nexus = find(verb, uuid);
  if (nexus.ok() && !sharing_.is_shared(nexus.value()->name())) {
    co_return Error{ErrorCode::kInvalidArgument,
                    "Cannot " + verb + " nexus " + uuid + ": it is not published"};
  }
  co_return co_await changed(verb, std::move(uuid), std::move(change));
}

Task<Result<NexusStatus>> NexusService::rebuild(std::string uuid, std::string uri,
                                                RebuildAction action) {
  Change change = [uri, action](NexusPtr nexus) {
    switch (action) {
      case RebuildAction::kStart:
        return nexus->start_rebuild(uri);
      case RebuildAction::kStop:
        return nexus->stop_rebuild(uri);
      case RebuildAction::kPause:
        return nexus->pause_rebuild(uri);
      case RebuildAction::kResume:
        break;
    }
    return nexus->resume_rebuild(uri);
  };
  co_return co_await changed("change a rebuild of", std::move(uuid), std::move(change));
}

Result<std::string> NexusService::rebuild_state(const std::string& uuid,
                                                const std::string& uri) const {
  const auto nexus = find("read a rebuild of", uuid);
  if (!nexus.ok()) return nexus.error();
  const auto state = nexus.value()->rebuild_state(uri);
  if (!state.ok()) return state.error();
  return std::string(nexus::to_string(state.value()));
}

Result<nexus::RebuildStats> NexusService::rebuild_stats(const std::string& uuid,
                                                        const std::string& uri) const {
  const auto nexus = find("read a rebuild of", uuid);
  if (!nexus.ok()) return nexus.error();
  return nexus.value()->rebuild_stats(uri);
}

Result<std::vector<nexus::RebuildRecord>> NexusService::rebuild_history(
    const std::string& uuid) const {
  const auto nexus = find("read the rebuilds of", uuid);
  if (!nexus.ok()) return nexus.error();
  return nexus.value()->rebuild_history();
}

NexusStatus NexusService::describe(const nexus::Nexus& nexus) const {
  NexusStatus status;
  status.name = nexus.name();
  status.uuid = nexus.uuid().to_string();
  status.info_key = nexus.options().nexus_info_key;
  status.size = nexus.requested_size_bytes();
  status.state = static_cast<uint8_t>(nexus.state());
  status.rebuilds = nexus.rebuild_count();
  if (sharing_.is_shared(nexus.name())) {
    status.device_uri = sharing_.uri(ShareAs::kNexus, nexus.name());
    status.allowed_hosts = sharing_.allowed_hosts(nexus.name());
    const auto ana = sharing_.target().ana_state(nqn_of(nexus.name()));
    if (ana.ok()) status.ana_state = static_cast<uint8_t>(ana.value());
    const auto served = sharing_.target().find(nqn_of(nexus.name()));
    if (served.ok()) status.connected_hosts = static_cast<uint32_t>(served.value().hosts.size());
  }
  if (const auto ledger = ledgers_.find(nexus.uuid()); ledger != ledgers_.end()) {
    for (auto& host : ledger->second->hosts()) {
      status.hosts.push_back({std::move(host.nqn), host.live, host.lost});
    }
    status.hosts_complete = ledger->second->complete();
  }
  for (auto& child : nexus.children()) {
    ChildStatus leg;
    leg.uri = std::move(child.uri);
    leg.state = static_cast<uint8_t>(child.state);
    leg.reason = static_cast<uint8_t>(child.reason);
    leg.rebuild_progress = child.rebuild_progress;
    leg.device_name = std::move(child.device_name);
    leg.fault_time_ns = child.fault_time_ns;
    leg.has_io_log = child.has_io_log;
    status.children.push_back(std::move(leg));
  }
  return status;
}

std::vector<NexusStatus> NexusService::list() const {
  std::vector<NexusStatus> all;
  for (const auto& [uuid, nexus] : nexuses_) all.push_back(describe(*nexus));
  return all;
}

std::vector<NamedStats> NexusService::stats() const {
  std::vector<NamedStats> all;
  for (const auto& [uuid, nexus] : nexuses_) {
    NamedStats entry;
    entry.name = nexus->name();
    entry.uuid = uuid.to_string();
    entry.stats = nexus->stats();
    all.push_back(std::move(entry));
  }
  return all;
}

std::vector<NamedLatencies> NexusService::latencies() const {
  std::vector<NamedLatencies> all;
  for (const auto& [uuid, nexus] : nexuses_) {
    NamedLatencies& entry = all.emplace_back();
    entry.name = nexus->name();
    entry.uuid = uuid.to_string();
    nexus->add_latencies(entry.latencies);
  }
  return all;
}

void NexusService::reset_stats() noexcept {
  for (const auto& [uuid, nexus] : nexuses_) nexus->reset_stats();
}

}  // namespace mayastor::host

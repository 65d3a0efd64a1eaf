// Nexus: creation, shutdown and what can be asked of it. Faults are in nexus_fault.cc, changes of
// children in nexus_children.cc, rebuilds in nexus_rebuild.cc.
#include "nexus/nexus.h"

#include <algorithm>
#include <set>

#include "nexus/child.h"
#include "nexus/geometry.h"
#include "nexus/nexus_core.h"
#include "nexus/rebuild_job.h"

namespace mayastor::nexus {
namespace {

// One user's way in on one core. Keeps the nexus's memory; I/O after destroy() gets a path error.
class NexusChannel final : public Channel {
 public:
  NexusChannel(std::shared_ptr<Nexus> nexus, NexusCore& core)
      : nexus_(std::move(nexus)), core_(core) {}
  void submit(Io* io) noexcept override { core_.submit(io); }

 private:
  std::shared_ptr<Nexus> nexus_;
  NexusCore& core_;
};

}  // namespace

Nexus::Nexus(Reactors& reactors, BdevRegistry& registry, NexusInfoStore* store,
             NexusOptions options)
    : reactors_(reactors),
      registry_(registry),
      store_(store),
      options_(std::move(options)),
      order_(reactors.size() > 1) {
  for (size_t i = 0; i < reactors.size(); ++i) {
    cores_.push_back(std::make_unique<NexusCore>(*this, reactors.at(i)));
  }
}

Nexus::~Nexus() = default;

Task<Result<std::shared_ptr<Nexus>>> Nexus::create(Reactors& reactors, BdevRegistry& registry,
                                                   NexusInfoStore* store, NexusOptions options) {
  const std::string what = "Cannot create nexus '" + options.name + "': ";
  const auto invalid = [&what](const std::string& why) {
    return Error{ErrorCode::kInvalidArgument, what + why};
  };
  if (options.name.empty()) co_return invalid("it has no name");
  if (options.uuid.is_nil()) co_return invalid("it has no uuid");
  if (options.size_bytes == 0) co_return invalid("its size is 0");
  if (options.children.empty()) co_return invalid("it needs at least one child");
  if (options.children.size() > kMaxChildren) {
    co_return invalid("more than " + std::to_string(kMaxChildren) + " children");
  }
  const std::set<std::string> unique(options.children.begin(), options.children.end());
  if (unique.size() != options.children.size()) co_return invalid("a child is listed twice");
  if (registry.find(options.name) != nullptr) {
    co_return Error{ErrorCode::kAlreadyExists, what + "the name is taken"};
  }
  std::shared_ptr<Nexus> nexus(new Nexus(reactors, registry, store, std::move(options)));
  Result<void> opened = co_await nexus->open();
  if (!opened.ok()) {
    Error error = opened.error();
    error.message = what + error.message;
    co_return error;
  }
  co_return nexus;
}

Task<Result<void>> Nexus::open() {
  Result<void> result = co_await open_children();
  bool listed = false;
  if (result.ok()) {
    std::shared_ptr<Bdev> self = shared_from_this();
    result = registry_.add(std::move(self));
    listed = result.ok();
  }
  if (result.ok()) {
    // All healthy, or not so any more: faults are recorded from here on.
    std::function<void(NexusInfo&)> begun = [](NexusInfo& info) { info.clean_shutdown = false; };
    result = co_await persist(begun);
  }
  if (result.ok() && lifecycle_ == Lifecycle::kInit && pick_source() == nullptr) {
    result = Error{ErrorCode::kUnavailable, "every child failed meanwhile"};
  }
  if (result.ok() && lifecycle_ == Lifecycle::kInit) {
    lifecycle_ = Lifecycle::kOpen;
    notify();
    co_return result;
  }
  if (result.ok()) result = Error{ErrorCode::kUnavailable, "its record could not be stored"};
  co_await take_down();
  lifecycle_ = Lifecycle::kClosed;
  if (listed) registry_.remove(options_.name);
  co_return result;
}

Task<Result<void>> Nexus::open_children() {
  for (const std::string& uri : options_.children) {
    ChildPtr child = std::make_shared<Child>(next_child_id_++, uri);
    child->slot = free_slot();
    Result<void> opened = co_await open_child(child);
    if (!opened.ok()) co_return opened;
    const Result<void> accepted = check_child(*child);
    children_.push_back(child);  // closed with the others
    if (!accepted.ok()) {
      co_return Error{ErrorCode::kInvalidArgument, accepted.error().message};
    }
    block_size_ = child->device->block_size();
  }
  uint64_t blocks = UINT64_MAX;
  for (const ChildPtr& child : children_) {
    const Bdev& device = *child->device;
    const std::string who = "child '" + child->uri + "' ";
    if (device.size_bytes() < options_.size_bytes) {
      co_return Error{ErrorCode::kInvalidArgument,
                      who + "has " + std::to_string(device.size_bytes()) +
                          " bytes, fewer than the nexus: " + std::to_string(options_.size_bytes)};
    }
    const Result<DataArea> area =
        data_area(device.size_bytes() / block_size_, block_size_, options_.size_bytes);
    if (!area.ok()) co_return area.error();
    blocks = std::min(blocks, area.value().block_count);
    data_offset_ = area.value().start_block * block_size_;
  }
  size_bytes_ = blocks * block_size_;
  for (const auto& core : cores_) core->set_geometry(data_offset_);
  const std::vector<ChildPtr> children = children_;
  for (const ChildPtr& child : children) {
    child->log = std::make_unique<WriteLog>(size_bytes_);
    info_.set(child->uuid, true);
  }
  for (const ChildPtr& child : children) {
    Result<void> connected = co_await connect_child(child, true);
    if (!connected.ok()) co_return connected;
  }
  co_return Result<void>();
}

// ---- Ending

Task<void> Nexus::take_down() {
  std::function<Task<void>(NexusCore&)> stop = [](NexusCore& core) {
    return core.stop(io_status::kAnaInaccessible, kMaxChildren);
  };
  co_await on_cores(stop);
  const std::vector<ChildPtr> children = children_;
  for (const ChildPtr& child : children) {
    if (child->rebuild != nullptr) child->rebuild->stop();
  }
  co_await background_;  // rebuilds, and faults that the last I/O brought to light
  for (const ChildPtr& child : children) {
    if (child->phase == ChildPhase::kOpen || child->phase == ChildPhase::kInit) {
      child->phase = ChildPhase::kFaulting;  // closing: nothing else may touch it
      child->synced = false;
      co_await disconnect_child(child);
      child->phase = ChildPhase::kClosed;
    }
  }
  co_await background_;  // devices that vanished while others were closed
}

// "Clean" lets the next nexus use all healthy children at once, so they must agree even if one
// loses power meanwhile: what was acknowledged goes to stable storage on each. One that can't do so
// is recorded as unhealthy; false when it is the last.
Task<bool> Nexus::flush_children() {
  const std::vector<ChildPtr> children = children_;
  NexusCore& home = *cores_[Reactor::current().index()];
  bool all = true;
  for (const ChildPtr& child : children) {
    if (!child->healthy() || !child->device->has_volatile_cache()) continue;
    const uint32_t slot = child->slot;
    const uint64_t id = child->id;
    const IoStatus status = co_await home.leg_flush(slot, id);
    if (status.ok() || status.is(io_status::kInvalidOpcode) || !child->healthy()) continue;
    child->log->set_incomplete();
    if (other_healthy_than(*child)) {
      begin_fault(child, fault_reason(status));
    } else {
      all = false;
    }
  }
  co_return all;
}

Task<Result<void>> Nexus::shutdown() {
  const std::shared_ptr<Nexus> self = shared_from_this();
  if (lifecycle_ == Lifecycle::kShutdown) co_return Result<void>();
  Result<void> open = check_open("shut down nexus");
  if (!open.ok()) co_return open;
  lifecycle_ = Lifecycle::kShuttingDown;
  ending_.add();
  notify();
  // Ends held I/O now, even while a change of children is under way.
  std::function<Task<void>(NexusCore&)> stop = [](NexusCore& core) {
    return core.stop(io_status::kAnaInaccessible, kMaxChildren);
  };
  co_await on_cores(stop);
  co_await control_mutex_.lock();
  const AsyncLock held(control_mutex_);
  const bool flushed = co_await flush_children();
  co_await take_down();
  if (flushed) {
    std::function<void(NexusInfo&)> clean = [](NexusInfo& info) { info.clean_shutdown = true; };
    // A record that can't be stored stays "not clean": the next nexus is built with more care.
    const Result<void> recorded = co_await persist(clean);
    static_cast<void>(recorded);
  }
  lifecycle_ = Lifecycle::kShutdown;
  notify();
  ending_.done();
  co_return Result<void>();
}

Task<Result<void>> Nexus::destroy() {
  const std::shared_ptr<Nexus> self = shared_from_this();
  if (lifecycle_ == Lifecycle::kInit) co_return check_open("destroy nexus");
  if (lifecycle_ == Lifecycle::kOpen) {
    Result<void> down = co_await shutdown();
    if (!down.ok()) co_return down;
  }
  co_await ending_;
  co_await control_mutex_.lock();
  const AsyncLock held(control_mutex_);
  if (lifecycle_ == Lifecycle::kClosed) {
    co_return Error{ErrorCode::kNotFound,
                    "Cannot destroy nexus '" + options_.name + "': it is destroyed already"};
  }
  CHECK(lifecycle_ == Lifecycle::kShutdown);
  lifecycle_ = Lifecycle::kClosed;
  registry_.remove(options_.name);
  notify();
  changed_ = nullptr;
  co_return Result<void>();
}

// ---- Cores

Task<void> Nexus::on_core(NexusCore* core, const std::function<Task<void>(NexusCore&)>* work,
                          Latch* all) {
  if (&core->reactor() == &Reactor::current()) {
    Task<void> here = (*work)(*core);
    co_await here;
  } else {
    std::function<Task<void>()> make = [core, work] { return (*work)(*core); };
    CallOn<void> there(core->reactor(), std::move(make));
    co_await there;
  }
  all->done();
}

Task<void> Nexus::on_cores(std::function<Task<void>(NexusCore&)> work) {
  Latch all;
  for (const auto& core : cores_) {
    all.add();
    spawn(on_core(core.get(), &work, &all));
  }
  co_await all;
}

Task<void> Nexus::each_core(std::function<void(NexusCore&)> work) {
  std::function<Task<void>(NexusCore&)> run = [&work](NexusCore& core) -> Task<void> {
    work(core);
    co_return;
  };
  co_await on_cores(run);
}

Task<void> Nexus::pause() {
  const std::shared_ptr<Nexus> self = shared_from_this();
  std::function<Task<void>(NexusCore&)> freeze = [](NexusCore& core) { return core.freeze(true); };
  co_await on_cores(freeze);
}

Task<void> Nexus::resume() {
  const std::shared_ptr<Nexus> self = shared_from_this();
  std::function<void(NexusCore&)> thaw = [](NexusCore& core) { core.thaw(true); };
  co_await each_core(thaw);
}

// ---- Bdev

Task<Result<std::unique_ptr<Channel>>> Nexus::open_channel() {
  const uint32_t index = Reactor::current().index();
  CHECK(index < cores_.size() && &cores_[index]->reactor() == &Reactor::current());
  std::unique_ptr<Channel> channel =
      std::make_unique<NexusChannel>(shared_from_this(), *cores_[index]);
  co_return channel;
}

bool Nexus::supports(IoType type) const noexcept {
  return (supported_.load(std::memory_order_relaxed) >> static_cast<uint32_t>(type) & 1) != 0;
}

bool Nexus::has_volatile_cache() const noexcept {
  return volatile_cache_.load(std::memory_order_relaxed);
}

std::optional<uint64_t> Nexus::allocated_bytes() const {
  std::optional<uint64_t> most;
  for (const ChildPtr& child : children_) {
    if (!child->is_open() || !child->synced) continue;
    const auto allocated = child->device->allocated_bytes();
    if (!allocated.has_value()) return std::nullopt;
    most = std::max(most.value_or(0), std::min(*allocated, size_bytes_));
  }
  return most;
}

// What all open children can do. Kept when none is open: the target's promises stay as they were.
void Nexus::refresh_features() {
  constexpr IoType kTypes[] = {IoType::kRead,  IoType::kWrite,       IoType::kFlush,
                               IoType::kUnmap, IoType::kWriteZeroes, IoType::kCompare};
  uint32_t supported = ~0u;
  bool cache = false, any = false;
  for (const ChildPtr& child : children_) {
    if (!child->is_open()) continue;
    any = true;
    cache = cache || child->device->has_volatile_cache();
    for (const IoType type : kTypes) {
      if (!child->device->supports(type)) supported &= ~(1u << static_cast<uint32_t>(type));
    }
  }
  if (!any) return;
  supported_.store(supported, std::memory_order_relaxed);
  volatile_cache_.store(cache, std::memory_order_relaxed);
}

// ---- Queries

NexusState Nexus::state() const noexcept {
  switch (lifecycle_) {
    case Lifecycle::kInit:
      return NexusState::kDegraded;
    case Lifecycle::kShuttingDown:
      return NexusState::kShuttingDown;
    case Lifecycle::kShutdown:
      return NexusState::kShutdown;
    case Lifecycle::kClosed:
      return NexusState::kFaulted;
    case Lifecycle::kOpen:
      break;
  }
  const auto healthy = [](const ChildPtr& child) { return child->healthy(); };
  if (std::all_of(children_.begin(), children_.end(), healthy)) return NexusState::kOnline;
  return std::any_of(children_.begin(), children_.end(), healthy) ? NexusState::kDegraded
                                                                  : NexusState::kFaulted;
}

std::vector<ChildInfo> Nexus::children() const {
  std::vector<ChildInfo> infos;
  for (const ChildPtr& child : children_) {
    ChildInfo info;
    info.uri = child->uri;
    info.uuid = child->uuid;
    info.state = child->api_state();
    info.reason = child->api_reason();
    if (child->rebuild != nullptr) {
      info.rebuild_progress = static_cast<int32_t>(child->rebuild->stats().progress);
    }
    if (child->device != nullptr) info.device_name = child->device_name;
    info.fault_time_ns = child->fault_time_ns;
    info.has_io_log = options_.partial_rebuild && !child->healthy() && child->ever_synced &&
                      !child->log->incomplete();
    info.repaired = child->repaired_total;
    info.unrepaired = child->unrepaired.size();
    infos.push_back(std::move(info));
  }
  return infos;
}

void Nexus::notify() {
  if (changed_) changed_();
}

Nexus::ChildPtr Nexus::find_child(const std::string& uri) const {
  for (const ChildPtr& child : children_) {
    if (child->uri == uri) return child;
  }
  return nullptr;
}

Nexus::ChildPtr Nexus::find_child_id(uint64_t id) const {
  for (const ChildPtr& child : children_) {
    if (child->id == id) return child;
  }
  return nullptr;
}

bool Nexus::other_healthy_than(const Child& child) const noexcept {
  return std::any_of(children_.begin(), children_.end(), [&child](const ChildPtr& other) {
    return other.get() != &child && other->healthy();
  });
}

uint32_t Nexus::free_slot() const noexcept {
  uint32_t used = 0;
  for (const ChildPtr& child : children_) used |= 1u << child->slot;
  uint32_t slot = 0;
  while (slot < kMaxChildren && (used >> slot & 1) != 0) ++slot;
  return slot;
}

Result<void> Nexus::check_open(const char* what) const {
  if (lifecycle_ == Lifecycle::kOpen) return Result<void>();
  const char* state = lifecycle_ == Lifecycle::kShuttingDown ? "it is shutting down"
                      : lifecycle_ == Lifecycle::kShutdown   ? "it is shut down"
                      : lifecycle_ == Lifecycle::kInit       ? "it is being created"
                                                             : "it is destroyed";
  return Error{ErrorCode::kFailedPrecondition,
               std::string("Cannot ") + what + ": nexus '" + options_.name + "': " + state};
}

}  // namespace mayastor::nexus

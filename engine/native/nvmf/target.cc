#include "nvmf/target.h"

#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <set>
#include <thread>

#include "nvmf/connection.h"
#include "nvmf/controller.h"
#include "nvmf/discovery.h"
#include "nvmf/io_queue.h"
#include "nvmf/subsystem.h"
#include "util/check.h"

namespace mayastor::nvmf {

using target::Connection;
using target::Controller;
using target::Subsystem;

namespace {

constexpr size_t kSerialMaxLength = 20, kModelMaxLength = 40;
constexpr uint64_t kRefusalLogNs = 10'000'000'000;
// So many connections have to end for the allocator to be asked for what it keeps, a little later.
constexpr uint32_t kClosedToTrim = 256;
constexpr uint64_t kTrimAfterNs = 2'000'000'000;
constexpr uint32_t kInData = 1U << 16;  // iattr: the offset is in the data of Connect

constexpr uint32_t bad_sqe(size_t offset) noexcept {
  return static_cast<uint32_t>(offset);
}
constexpr uint32_t bad_data(size_t offset) noexcept {
  return static_cast<uint32_t>(offset) | kInData;
}

// A NUL-terminated NQN of 1..223 characters, or nothing.
std::string nqn_of(const char (&field)[kNqnFieldSize]) {
  const size_t length = ::strnlen(field, sizeof(field));
  return length > kNqnMaxLength ? std::string() : std::string(field, length);
}

bool printable(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7F; });
}

// Whose part of the reactors' memory a queue uses. Those who only discover have one part together.
void share_of(Controller& controller, Connection::Queue* queue) {
  Subsystem& subsystem = controller.subsystem();
  queue->host = subsystem.discovery() ? kDiscoveryNqn : controller.host_nqn();
  queue->controller = subsystem.discovery()
                          ? controller.host_nqn()
                          : subsystem.options().nqn + " " + std::to_string(controller.id());
}

Result<void> check_options(const SubsystemOptions& options) {
  const auto bad = [&](const std::string& why) {
    return Error{ErrorCode::kInvalidArgument, "Cannot add subsystem " + options.nqn + ": " + why};
  };
  if (options.nqn.empty() || options.nqn.size() > kNqnMaxLength || !printable(options.nqn)) {
    return bad("its NQN is not 1 to 223 printable characters");
  }
  if (options.nqn.rfind("nqn.", 0) != 0) return bad("its NQN does not start with \"nqn.\"");
  if (options.nqn == kDiscoveryNqn) return bad("the discovery NQN is reserved");
  if (options.serial.size() > kSerialMaxLength || !printable(options.serial)) {
    return bad("its serial number is not at most 20 printable characters");
  }
  if (options.model.size() > kModelMaxLength || !printable(options.model)) {
    return bad("its model is not at most 40 printable characters");
  }
  if (options.cntlid_min == 0 || options.cntlid_max > kMaxControllerId ||
      options.cntlid_min > options.cntlid_max) {
    return bad("its controller id range is not within 1..65519");
  }
  if (options.bdev == nullptr) return bad("it has no bdev");
  const uint32_t block = options.bdev->block_size();
  if (!std::has_single_bit(block) || block < 512 || block > kPageSize) {
    return bad("block size " + std::to_string(block) + " is not 512 to 4096");
  }
  return {};
}

Result<void> check_options(const TargetOptions& options) {
  const auto bad = [](const std::string& why) {
    return Error{ErrorCode::kInvalidArgument, "Cannot start the NVMe-oF target: " + why};
  };
  if (options.max_queue_depth < 2 || options.max_queue_depth > 4096) {
    return bad("the queue depth is not 2..4096");
  }
  if (options.max_admin_depth < 32 || options.max_admin_depth > 4096) {
    return bad("the admin queue depth is not 32..4096");
  }
  if (options.max_qpairs < 2 || options.max_qpairs > 1024) {
    return bad("the number of queue pairs is not 2..1024");
  }
  if (options.max_io_bytes < kPageSize || options.max_io_bytes > (1U << 20) ||
      !std::has_single_bit(options.max_io_bytes)) {
    return bad("the largest I/O is not a power of two from 4 KiB to 1 MiB");
  }
  if (options.in_capsule_bytes % 16 != 0 ||
      options.in_capsule_bytes > Connection::kMaxInCapsuleBytes) {
    return bad("in-capsule data is not a multiple of 16 up to 16384 bytes");
  }
  return {};
}

}  // namespace

class Target::Impl final : public AcceptHandler,
                           public target::ConnectionOwner,
                           public target::ControllerEnvironment {
 public:
  Impl(Reactors& reactors, TargetOptions options)
      : reactors_(reactors),
        options_(std::move(options)),
        // Below what is accepted: who finds no place is to be told so, by the answer to its
        // Connect.
        places_(places_for(options_) -
                std::min<size_t>(options_.max_early_connections, places_for(options_) / 4)),
        trim_timer_([this] { give_back_memory(); }) {
    SubsystemOptions discovery;
    discovery.nqn = kDiscoveryNqn;
    discovery.serial = "0";
    discovery.model = "Mayastor discovery";
    discovery.cntlid_max =
        static_cast<uint16_t>(std::min<uint32_t>(options_.max_discovery_controllers, 0xFFEF));
    discovery_ = std::make_shared<Subsystem>(reactors_, std::move(discovery));
  }
  ~Impl() override { CHECK(connections_.empty() && subsystems_.empty()); }

  Result<void> start();
  Task<void> stop();
  Task<Result<void>> add_subsystem(SubsystemOptions options);
  Task<Result<void>> remove_subsystem(std::string nqn);
  [[nodiscard]] std::shared_ptr<Subsystem> subsystem(const std::string& nqn) const {
    const auto found = subsystems_.find(nqn);
    return found == subsystems_.end() || found->second->removing() ? nullptr : found->second;
  }
  [[nodiscard]] SubsystemInfo info(const Subsystem& subsystem) const;

  [[nodiscard]] const TargetOptions& target_options() const noexcept override { return options_; }
  [[nodiscard]] uint16_t replica_port() const noexcept {
    return replica_listener_ ? replica_listener_->port() : uint16_t{0};
  }
  [[nodiscard]] uint16_t nexus_port() const noexcept {
    return nexus_listener_ ? nexus_listener_->port() : uint16_t{0};
  }
  [[nodiscard]] const std::map<std::string, std::shared_ptr<Subsystem>>& subsystems() const {
    return subsystems_;
  }
  [[nodiscard]] size_t connection_count() const noexcept { return connections_.size(); }

 private:
  struct Owner {
    std::shared_ptr<Controller> controller;
    std::shared_ptr<Share> place;  // its host's share of the connections; with a controller
    uint64_t turn = 0;             // of its acceptance
  };

  void on_accept(std::unique_ptr<Socket> socket) override;
  void on_connect(std::shared_ptr<Connection> connection, const ConnectSqe& sqe,
                  const ConnectData& data) override;
  void on_closed(std::shared_ptr<Connection> connection) override;
  [[nodiscard]] std::vector<uint8_t> discovery_log(const std::string& host_nqn,
                                                   const std::string& local_address) const override;
  void on_controller_ended(std::shared_ptr<Controller> controller) override;

  Task<void> connect_admin(std::shared_ptr<Connection> connection,
                           std::shared_ptr<Subsystem> subsystem, ConnectSqe sqe, ConnectData data);
  void connect_io(const std::shared_ptr<Connection>& connection, Subsystem& subsystem,
                  const ConnectSqe& sqe, const ConnectData& data);
  Task<void> open_io_queue(std::shared_ptr<Connection> connection, Subsystem* subsystem,
                           ConnectSqe sqe, target::HostId host, std::string share_host,
                           std::string share_controller);
  [[nodiscard]] bool may_join(const Subsystem& subsystem, const std::string& host_nqn) const;
  [[nodiscard]] bool take_place(Connection& connection, const std::string& host_nqn);
  void end_earliest();
  void give_back_memory();
  [[nodiscard]] static size_t places_for(const TargetOptions& options) noexcept;
  void log_refusal(const std::string& line);
  void discovery_changed();
  void log(const std::string& line) const {
    if (options_.log) options_.log(line);
  }

  Reactors& reactors_;
  TargetOptions options_;
  std::unique_ptr<Listener> replica_listener_, nexus_listener_;
  std::shared_ptr<Subsystem> discovery_;
  std::map<std::string, std::shared_ptr<Subsystem>> subsystems_;
  std::map<Connection*, Owner> connections_;
  std::map<Connection*, std::shared_ptr<Connection>> alive_;
  std::map<uint64_t, Connection*> early_;  // without a controller, by turn
  Budget places_;                          // of connections with a controller
  ShareBook hosts_;
  uint64_t accept_turns_ = 0;
  uint32_t controllers_ = 0;  // of all subsystems
  uint64_t refusals_ = 0, refusal_told_ns_ = 0;
  uint32_t closed_since_trim_ = 0;
  Timer trim_timer_;
  Latch live_connections_;
  uint64_t generation_ = 1;
  size_t next_reactor_ = 0;
  bool stopping_ = false;
};

// ---- Life
// ----------------------------------------------------------------------------------------

Result<void> Target::Impl::start() {
  if (auto checked = check_options(options_); !checked.ok()) return checked;
  Ring& ring = reactors_.home().ring();
  auto replica = ring.listen(options_.address, options_.replica_port, this);
  if (!replica.ok()) return replica.error();
  auto nexus = ring.listen(options_.address, options_.nexus_port, this);
  if (!nexus.ok()) return nexus.error();
  replica_listener_ = replica.take();
  nexus_listener_ = nexus.take();
  return {};
}

Task<void> Target::Impl::stop() {
  stopping_ = true;
  replica_listener_.reset();
  nexus_listener_.reset();
  while (!subsystems_.empty()) {
    std::string nqn = subsystems_.begin()->first;
    if (subsystems_.begin()->second->removing()) {  // someone else is at it
      const auto other = subsystems_.begin()->second;
      co_await other->remove();
      subsystems_.erase(nqn);
      continue;
    }
    const auto removed = co_await remove_subsystem(std::move(nqn));
    CHECK(removed.ok());
  }
  co_await discovery_->remove();
  const auto alive = alive_;
  for (const auto& [pointer, connection] : alive) connection->post_close("the target stops");
  co_await live_connections_;
}

Task<Result<void>> Target::Impl::add_subsystem(SubsystemOptions options) {
  if (auto checked = check_options(options); !checked.ok()) co_return checked;
  const std::string nqn = options.nqn;
  if (stopping_) {
    co_return Error{ErrorCode::kFailedPrecondition,
                    "Cannot add subsystem " + nqn + ": the target is stopping"};
  }
  if (subsystems_.count(nqn) != 0) {
    co_return Error{ErrorCode::kAlreadyExists,
                    "Cannot add subsystem " + nqn + ": it exists already"};
  }
  auto subsystem = std::make_shared<Subsystem>(reactors_, std::move(options), options_.log);
  const auto loaded = subsystem->load_reservations();
  if (!loaded.ok()) co_return loaded;
  subsystems_.emplace(nqn, std::move(subsystem));
  discovery_changed();
  co_return Result<void>();
}

Task<Result<void>> Target::Impl::remove_subsystem(std::string nqn) {
  const auto subsystem = this->subsystem(nqn);
  if (!subsystem) {
    co_return Error{ErrorCode::kNotFound, "Cannot remove subsystem " + nqn + ": it does not exist"};
  }
  co_await subsystem->remove();
  subsystems_.erase(nqn);
  discovery_changed();
  co_return Result<void>();
}

void Target::Impl::discovery_changed() {
  ++generation_;
  for (const auto& [id, controller] : discovery_->controllers()) {
    controller->notify_discovery_changed();
  }
}

// ---- Connections
// ---------------------------------------------------------------------------------

// Some are kept for disks, for this engine's own replicas' connections and for its callers.
size_t Target::Impl::places_for(const TargetOptions& options) noexcept {
  rlimit descriptors{};
  if (getrlimit(RLIMIT_NOFILE, &descriptors) != 0) return options.max_connections;
  return static_cast<size_t>(
      std::min<rlim_t>(options.max_connections, descriptors.rlim_cur / 4 * 3));
}

// One line every few seconds for as long as it goes on.
void Target::Impl::log_refusal(const std::string& line) {
  ++refusals_;
  const uint64_t now = Reactor::current().now_ns();
  if (refusal_told_ns_ != 0 && now - refusal_told_ns_ < kRefusalLogNs) return;
  log(line + " (" + std::to_string(refusals_) + " refusals since the last such line)");
  refusals_ = 0;
  refusal_told_ns_ = now;
}

// Hosts say who they are within milliseconds: the oldest that has not is the least likely to.
void Target::Impl::end_earliest() {
  for (auto it = early_.begin(); it != early_.end(); ++it) {
    if (it->second->connecting()) continue;
    it->second->post_close("too many connections without a Connect");
    early_.erase(it);
    return;
  }
}

bool Target::Impl::may_join(const Subsystem& subsystem, const std::string& host_nqn) const {
  const auto& controllers = subsystem.controllers();
  if (!subsystem.discovery() && controllers_ >= options_.max_controllers) return false;
  const auto has = std::count_if(controllers.begin(), controllers.end(), [&](const auto& entry) {
    return entry.second->host_nqn() == host_nqn;
  });
  return static_cast<size_t>(has) < options_.max_controllers_per_host;
}

bool Target::Impl::take_place(Connection& connection, const std::string& host_nqn) {
  Owner& owner = connections_.at(&connection);
  if (owner.place) return true;
  auto place = hosts_.find_or_make(host_nqn);
  if (!places_.take(*place, 1)) return false;
  owner.place = std::move(place);
  early_.erase(owner.turn);
  return true;
}

// After a flood: the allocator keeps what was freed, and knows not that it was the most for long.
// On a thread of its own: it takes a while.
void Target::Impl::give_back_memory() {
  closed_since_trim_ = 0;
  std::thread([] { malloc_trim(0); }).detach();
}

void Target::Impl::on_accept(std::unique_ptr<Socket> socket) {
  if (connections_.size() >= places_for(options_)) {
    return log_refusal("connection from " + socket->peer_address() +
                       " dropped: there are as many as may be");
  }
  target::ConnectionOptions options;
  options.in_capsule_bytes = options_.in_capsule_bytes;
  options.max_h2c_bytes = options_.max_io_bytes;
  options.c2h_success = options_.c2h_success;
  options.ic_timeout_ms = options_.ic_timeout_ms;
  options.still_timeout_ms = options_.still_timeout_ms;
  options.transfer_timeout_ms = options_.transfer_timeout_ms;
  auto connection = std::make_shared<Connection>(*this, options);
  const uint64_t turn = ++accept_turns_;
  connections_[connection.get()].turn = turn;
  if (early_.size() >= options_.max_early_connections) end_earliest();
  early_[turn] = connection.get();
  alive_[connection.get()] = connection;
  live_connections_.add();
  connection->start(std::move(socket));
}

void Target::Impl::on_closed(std::shared_ptr<Connection> connection) {
  const auto found = connections_.find(connection.get());
  CHECK(found != connections_.end());
  const std::shared_ptr<Controller> controller = found->second.controller;
  if (found->second.place) places_.give_back(*found->second.place, 1);
  early_.erase(found->second.turn);
  connections_.erase(found);
  if (++closed_since_trim_ >= kClosedToTrim && !trim_timer_.armed()) {
    trim_timer_.arm_after(kTrimAfterNs);
  }
  alive_.erase(connection.get());
  if (controller) {
    if (controller->is_admin(*connection)) {
      log("host " + controller->host_nqn() + " left " + controller->subsystem().options().nqn +
          ": " + connection->close_reason());
    }
    controller->on_connection_closed(*connection);
  }
  live_connections_.done();
}

void Target::Impl::on_controller_ended(std::shared_ptr<Controller> controller) {
  Subsystem& subsystem = controller->subsystem();  // may be gone with its last controller
  if (!subsystem.discovery()) --controllers_;
  subsystem.remove_controller(controller->id());
}

void Target::Impl::on_connect(std::shared_ptr<Connection> connection, const ConnectSqe& sqe,
                              const ConnectData& data) {
  const auto refuse = [&](IoStatus status, uint32_t parameter) {
    connection->reject_connect(status, parameter);
  };
  const auto invalid = [&](uint32_t parameter) {
    refuse(status::kConnectInvalidParameters, parameter);
  };
  // From here on: the status of Connect says "do not retry" for what is malformed, and never for
  // what the target lacks, is still making, or is set up for: its next start may be set up
  // otherwise.
  if (sqe.recfmt != 0) return refuse(status::kConnectIncompatibleFormat, 0);
  const std::string subnqn = nqn_of(data.subnqn), hostnqn = nqn_of(data.hostnqn);
  if (subnqn.empty()) return invalid(bad_data(offsetof(ConnectData, subnqn)));
  if (hostnqn.empty()) return invalid(bad_data(offsetof(ConnectData, hostnqn)));
  const std::shared_ptr<Subsystem> subsystem =
      subnqn == kDiscoveryNqn ? discovery_ : this->subsystem(subnqn);
  if (subsystem == nullptr || stopping_) {  // most often: an engine that has just started
    return refuse(not_yet(status::kConnectInvalidParameters),
                  bad_data(offsetof(ConnectData, subnqn)));
  }
  if (!subsystem->allows(hostnqn)) return refuse(status::kConnectInvalidHost, 0);
  if (sqe.sqsize == 0) return invalid(bad_sqe(offsetof(ConnectSqe, sqsize)));
  if (sqe.qid == 0) {
    spawn(connect_admin(connection, subsystem, sqe, data));
  } else {
    connect_io(connection, *subsystem, sqe, data);
  }
}

// May wait for the host's older controllers; the connection is not closed before it is answered.
Task<void> Target::Impl::connect_admin(std::shared_ptr<Connection> connection,
                                       std::shared_ptr<Subsystem> subsystem, ConnectSqe sqe,
                                       ConnectData data) {
  const auto invalid = [&](uint32_t parameter) {
    connection->reject_connect(status::kConnectInvalidParameters, parameter);
  };
  const auto invalid_now = [&](uint32_t parameter) {
    connection->reject_connect(not_yet(status::kConnectInvalidParameters), parameter);
  };
  if (data.cntlid != kDynamicControllerId) {
    invalid(bad_data(offsetof(ConnectData, cntlid)));
    co_return;
  }
  if (sqe.sqsize >= options_.max_admin_depth) {
    invalid_now(bad_sqe(offsetof(ConnectSqe, sqsize)));
    co_return;
  }
  target::ControllerOptions options;
  std::memcpy(options.host.data(), data.host_id, options.host.size());
  options.host_nqn = nqn_of(data.hostnqn);
  options.keep_alive_ms = sqe.kato_ms;
  options.connect_turn = subsystem->next_connect_turn();
  const bool alone =
      co_await subsystem->replace_controllers(options.host, options.host_nqn, options.connect_turn);
  if (alone && !connection->closing()) {
    if (may_join(*subsystem, options.host_nqn)) options.id = subsystem->allocate_controller_id();
    if (options.id == 0 || !take_place(*connection, options.host_nqn)) {
      options.id = 0;
      log_refusal("host " + options.host_nqn + " at " + connection->peer() + " refused at " +
                  subsystem->options().nqn + ": it has as many controllers as it may, or all have");
    }
  }
  if (options.id == 0) {
    connection->reject_connect(status::kConnectControllerBusy, 0);
    co_return;
  }
  log("host " + options.host_nqn + " at " + connection->peer() + " joined " +
      subsystem->options().nqn);
  const uint16_t id = options.id;
  auto controller = std::make_shared<Controller>(*this, *subsystem, std::move(options));
  subsystem->add_controller(controller);
  if (!subsystem->discovery()) ++controllers_;
  controller->add_connection(0, connection);
  connections_[connection.get()].controller = controller;
  Connection::Queue queue;
  queue.handler = std::make_unique<target::AdminQueue>(*connection, controller);
  queue.entries = sqe.sqsize + 1U;
  queue.flow_control = (sqe.cattr & kConnectDisableSqFlow) == 0;
  queue.controller_id = id;
  share_of(*controller, &queue);
  connection->accept_queue(std::move(queue));
}

// A controller that is unknown, or another host's, is one from before a restart of the target: the
// host connects anew.
void Target::Impl::connect_io(const std::shared_ptr<Connection>& connection, Subsystem& subsystem,
                              const ConnectSqe& sqe, const ConnectData& data) {
  if (subsystem.discovery()) {
    return connection->reject_connect(status::kConnectInvalidParameters,
                                      bad_sqe(offsetof(ConnectSqe, qid)));
  }
  const auto invalid_now = [&](uint32_t parameter) {
    connection->reject_connect(not_yet(status::kConnectInvalidParameters), parameter);
  };
  if (sqe.qid >= options_.max_qpairs) return invalid_now(bad_sqe(offsetof(ConnectSqe, qid)));
  if (sqe.sqsize >= options_.max_queue_depth) {
    return invalid_now(bad_sqe(offsetof(ConnectSqe, sqsize)));
  }
  const auto controller = subsystem.find_controller(data.cntlid);
  if (!controller) return invalid_now(bad_data(offsetof(ConnectData, cntlid)));
  target::HostId host;
  std::memcpy(host.data(), data.host_id, host.size());
  if (controller->host_id() != host) return invalid_now(bad_data(offsetof(ConnectData, host_id)));
  if (controller->host_nqn() != nqn_of(data.hostnqn)) {
    return invalid_now(bad_data(offsetof(ConnectData, hostnqn)));
  }
  if (!controller->enabled()) {
    return connection->reject_connect(status::kCommandSequence, 0);
  }
  if (!controller->io_queue_sizes_valid()) return invalid_now(0);
  if (controller->has_queue(sqe.qid)) {
    return connection->reject_connect(status::kInvalidQueueId, 0);
  }
  if (!take_place(*connection, controller->host_nqn())) {
    log_refusal("host " + controller->host_nqn() + " at " + connection->peer() +
                " refused another queue: it has as many as it may");
    return connection->reject_connect(status::kConnectControllerBusy, 0);
  }
  controller->add_connection(sqe.qid, connection);
  connections_[connection.get()].controller = controller;
  Connection::Queue queue;
  share_of(*controller, &queue);
  Reactor& reactor = reactors_.at(next_reactor_++ % reactors_.size());
  Subsystem* const owner = &subsystem;  // outlives its controllers' connections
  connection->move_to(reactor, [this, owner, sqe, host, of = queue.host,
                                at = queue.controller](std::shared_ptr<Connection> moved) {
    spawn(open_io_queue(std::move(moved), owner, sqe, host, of, at));
  });
}

// On the queue's reactor.
Task<void> Target::Impl::open_io_queue(std::shared_ptr<Connection> connection, Subsystem* subsystem,
                                       ConnectSqe sqe, target::HostId host, std::string share_host,
                                       std::string share_controller) {
  target::NamespaceShard& shard = subsystem->shard(Reactor::current().index());
  auto channel = co_await shard.bdev().open_channel();
  if (!channel.ok()) {
    connection->reject_connect(status::kConnectControllerBusy, 0);
    co_return;
  }
  target::IoQueueOptions options;
  options.host = host;
  options.max_io_bytes = options_.max_io_bytes;
  Connection::Queue queue;
  queue.handler =
      std::make_unique<target::IoQueue>(*connection, *subsystem, shard, channel.take(), options);
  queue.qid = sqe.qid;
  queue.host = std::move(share_host);
  queue.controller = std::move(share_controller);
  queue.entries = sqe.sqsize + 1U;
  queue.flow_control = (sqe.cattr & kConnectDisableSqFlow) == 0;
  connection->accept_queue(std::move(queue));
}

// ---- Views
// ---------------------------------------------------------------------------------------

std::vector<uint8_t> Target::Impl::discovery_log(const std::string& host_nqn,
                                                 const std::string& local_address) const {
  target::DiscoveryLogBuilder log(generation_, target::host_part(local_address));
  for (const auto& [nqn, subsystem] : subsystems_) {
    if (subsystem->removing() || !subsystem->allows(host_nqn)) continue;
    const uint16_t wanted = subsystem->options().port;
    log.add(nqn, wanted != 0 ? wanted : replica_port(), options_.max_admin_depth);
  }
  return log.take();
}

SubsystemInfo Target::Impl::info(const Subsystem& subsystem) const {
  SubsystemInfo out;
  out.nqn = subsystem.options().nqn;
  out.serial = subsystem.options().serial;
  out.bdev_name = subsystem.options().bdev->name();
  out.allowed_hosts = subsystem.options().allowed_hosts;
  out.ana_state = subsystem.ana_state();
  out.paused = subsystem.paused();
  for (const auto& [id, controller] : subsystem.controllers()) {
    out.hosts.push_back({controller->host_nqn(), Uuid{controller->host_id()}, id,
                         controller->io_queue_count(), controller->peer()});
  }
  return out;
}

// ---- Target
// --------------------------------------------------------------------------------------

namespace {
Error unknown(const std::string& what, const std::string& nqn) {
  return {ErrorCode::kNotFound, "Cannot " + what + " subsystem " + nqn + ": it does not exist"};
}
}  // namespace

Target::Target(Reactors& reactors, TargetOptions options)
    : impl_(std::make_unique<Impl>(reactors, std::move(options))) {}
Target::~Target() = default;

Task<Result<void>> Target::start() {
  co_return impl_->start();
}
Task<void> Target::stop() {
  return impl_->stop();
}
Task<Result<void>> Target::add_subsystem(SubsystemOptions options) {
  return impl_->add_subsystem(std::move(options));
}
Task<Result<void>> Target::remove_subsystem(std::string nqn) {
  return impl_->remove_subsystem(std::move(nqn));
}

Task<Result<void>> Target::set_allowed_hosts(std::string nqn, std::vector<std::string> hosts) {
  const auto subsystem = impl_->subsystem(nqn);
  if (!subsystem) co_return unknown("set the allowed hosts of", nqn);
  co_await subsystem->set_allowed_hosts(std::move(hosts));
  co_return Result<void>();
}

Task<Result<void>> Target::set_ana_state(std::string nqn, AnaState state) {
  const auto subsystem = impl_->subsystem(nqn);
  if (!subsystem) co_return unknown("set the ANA state of", nqn);
  co_await subsystem->set_ana_state(state);
  co_return Result<void>();
}

Result<AnaState> Target::ana_state(const std::string& nqn) const {
  const auto subsystem = impl_->subsystem(nqn);
  if (!subsystem) return unknown("get the ANA state of", nqn);
  return subsystem->ana_state();
}

Task<Result<void>> Target::pause(std::string nqn) {
  const auto subsystem = impl_->subsystem(nqn);
  if (!subsystem) co_return unknown("pause", nqn);
  co_await subsystem->pause();
  co_return Result<void>();
}

Task<Result<void>> Target::resume(std::string nqn) {
  const auto subsystem = impl_->subsystem(nqn);
  if (!subsystem) co_return unknown("resume", nqn);
  co_return co_await subsystem->resume();
}

Task<Result<void>> Target::namespace_changed(std::string nqn) {
  const auto subsystem = impl_->subsystem(nqn);
  if (!subsystem) co_return unknown("refresh", nqn);
  co_await subsystem->namespace_changed();
  co_return Result<void>();
}

bool Target::contains(const std::string& nqn) const {
  return impl_->subsystem(nqn) != nullptr;
}

Result<SubsystemInfo> Target::find(const std::string& nqn) const {
  const auto subsystem = impl_->subsystem(nqn);
  if (!subsystem) return unknown("find", nqn);
  return impl_->info(*subsystem);
}

std::vector<SubsystemInfo> Target::list() const {
  std::vector<SubsystemInfo> out;
  for (const auto& [nqn, subsystem] : impl_->subsystems()) out.push_back(impl_->info(*subsystem));
  return out;
}

const TargetOptions& Target::options() const noexcept {
  return impl_->target_options();
}
uint16_t Target::replica_port() const noexcept {
  return impl_->replica_port();
}
uint16_t Target::nexus_port() const noexcept {
  return impl_->nexus_port();
}
uint32_t Target::connection_count() const noexcept {
  return static_cast<uint32_t>(impl_->connection_count());
}

}  // namespace mayastor::nvmf

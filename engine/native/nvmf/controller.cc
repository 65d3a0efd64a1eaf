#include "nvmf/controller.h"

#include <algorithm>
#include <cstring>

#include "nvmf/subsystem.h"
#include "util/check.h"

namespace mayastor::nvmf::target {
namespace {

constexpr uint64_t kNsPerMs = 1'000'000;
constexpr uint64_t kCapContiguousQueues = 1ULL << 16, kCapTimeoutShift = 24,
                   kCapNvmCommandSet = 1ULL << 37;
constexpr uint64_t kCapTimeout500ms = 30;
constexpr uint8_t kSetHostBehaviorBytesLog2 = 9;

}  // namespace

Controller::Controller(ControllerEnvironment& environment, Subsystem& subsystem,
                       ControllerOptions options)
    : environment_(environment),
      subsystem_(subsystem),
      options_(std::move(options)),
      host_behavior_(1U << kSetHostBehaviorBytesLog2),
      keep_alive_timer_([this] { on_keep_alive_timer(); }),
      association_timer_([this] { on_association_timer(); }) {
  const TargetOptions& target = environment_.target_options();
  cap_ = (target.max_queue_depth - 1) | kCapContiguousQueues |
         kCapTimeout500ms << kCapTimeoutShift | kCapNvmCommandSet;
  uint64_t kato_ms = options_.keep_alive_ms;
  if (discovery() && kato_ms == 0) kato_ms = target.discovery_keep_alive_ms;
  set_keep_alive(static_cast<uint32_t>(std::min(kato_ms, target.keep_alive_max_ms)));
  update_association_timer();
}

Controller::~Controller() {
  CHECK(connections_.empty() && async_events_.empty());
}

bool Controller::discovery() const noexcept {
  return subsystem_.discovery();
}

// ---- Connections
// ---------------------------------------------------------------------------------

uint32_t Controller::io_queue_count() const noexcept {
  return static_cast<uint32_t>(connections_.size() - connections_.count(0));
}

std::string Controller::peer() const {
  return admin_ ? admin_->peer() : std::string();
}

void Controller::add_connection(uint16_t qid, std::shared_ptr<Connection> connection) {
  if (qid == 0) admin_ = connection;
  CHECK(connections_.emplace(qid, std::move(connection)).second);
  update_association_timer();
}

void Controller::on_connection_closed(const Connection& connection) {
  const auto found = std::find_if(connections_.begin(), connections_.end(), [&](const auto& entry) {
    return entry.second.get() == &connection;
  });
  if (found == connections_.end()) return;
  const bool was_admin = found->first == 0;
  connections_.erase(found);
  if (was_admin) {
    admin_.reset();
    terminate("the admin queue closed");
  }
  if (io_queue_count() == 0) io_queues_gone();
  update_association_timer();
  if (ending_ && connections_.empty()) {
    keep_alive_timer_.disarm();
    association_timer_.disarm();
    environment_.on_controller_ended(shared_from_this());
  }
}

void Controller::terminate(const char* why) {
  if (ending_) return;
  ending_ = true;
  keep_alive_timer_.disarm();
  association_timer_.disarm();
  const auto connections = connections_;
  for (const auto& [qid, connection] : connections) connection->post_close(why);
}

void Controller::drop_io_queues(const char* why) {
  for (const auto& [qid, connection] : connections_) {
    if (qid != 0) connection->post_close(why);
  }
  if (io_queue_count() == 0) io_queues_gone();
}

void Controller::io_queues_gone() {
  if (disabling_) csts_ = 0;
  if (shutting_down_) csts_ = (csts_ & ~kCstsShutdownMask) | kCstsShutdownComplete;
  disabling_ = shutting_down_ = false;
}

// ---- Timers
// --------------------------------------------------------------------------------------

// A host that neither enables the controller nor makes I/O queues holds a controller id for
// nothing.
void Controller::update_association_timer() {
  const bool useless = !ending_ && !discovery() && (!enabled() || io_queue_count() == 0);
  if (!useless) {
    association_timer_.disarm();
  } else if (!association_timer_.armed()) {
    association_timer_.arm_after(environment_.target_options().association_timeout_ms * kNsPerMs);
  }
}

void Controller::on_association_timer() {
  const auto self = shared_from_this();
  terminate("no I/O queues in time");
}

void Controller::on_keep_alive_timer() {
  const auto self = shared_from_this();
  const uint64_t limit_ns = keep_alive_ms_ * kNsPerMs;
  const uint64_t silent_ns = Reactor::current().now_ns() - last_alive_ns_;
  if (silent_ns < limit_ns) {
    keep_alive_timer_.arm_after(limit_ns - silent_ns);
    return;
  }
  csts_ |= kCstsFatal;
  terminate("keep-alive expired");
}

Controller::Answer Controller::set_keep_alive(uint32_t kato_ms) {
  const TargetOptions& target = environment_.target_options();
  if (kato_ms > target.keep_alive_max_ms) return {status::kKeepAliveInvalid};
  keep_alive_timer_.disarm();
  keep_alive_ms_ = 0;
  features_[kFeatureKeepAlive] = kato_ms;
  if (kato_ms == 0) return {};
  const uint64_t unit = std::max<uint64_t>(target.keep_alive_granularity_ms, 1);
  const uint64_t wanted = std::max<uint64_t>(kato_ms, target.keep_alive_min_ms);
  keep_alive_ms_ = (wanted + unit - 1) / unit * unit;
  last_alive_ns_ = Reactor::current().now_ns();
  keep_alive_timer_.arm_after(keep_alive_ms_ * kNsPerMs);
  return {};
}

// ---- Commands
// ------------------------------------------------------------------------------------

Plan Controller::plan(const Request& request) const noexcept {
  const Sqe& sqe = request.sqe;
  const auto to_host = [](uint32_t length) { return Plan{{}, Transfer::kToHost, length}; };
  switch (sqe.opcode) {
    case kOpcodeFabrics:
      switch (sqe.fctype) {
        case kFabricsPropertyGet:
        case kFabricsPropertySet:
          return {};
        case kFabricsConnect:
          return {status::kCommandSequence, Transfer::kNone, 0};
        default:
          return {io_status::kInvalidOpcode, Transfer::kNone, 0};
      }
    case kAdminIdentify:
      return to_host(kPageSize);
    case kAdminGetLogPage:
      return plan_log_page(sqe);
    case kAdminSetFeatures:
      if ((sqe.cdw10 & 0xFF) == kFeatureHostBehavior) {
        return {{}, Transfer::kToController, static_cast<uint32_t>(host_behavior_.size())};
      }
      return {};
    case kAdminGetFeatures:
      if (feature_select(sqe) == kSelectSupported) return {};  // only what can be done with it
      if ((sqe.cdw10 & 0xFF) == kFeatureHostBehavior) {
        return to_host(static_cast<uint32_t>(host_behavior_.size()));
      }
      if ((sqe.cdw10 & 0xFF) == kFeatureHostId) return to_host((sqe.cdw11 & 1) != 0 ? 16 : 8);
      return {};
    case kAdminAbort:
    case kAdminAsyncEvent:
    case kAdminKeepAlive:
      return {};
    default:
      return {io_status::kInvalidOpcode, Transfer::kNone, 0};
  }
}

Plan Controller::plan_log_page(const Sqe& sqe) const noexcept {
  const uint64_t dwords = (uint64_t{sqe.cdw11 & 0xFFFF} << 16 | uint64_t{sqe.cdw10 >> 16}) + 1;
  if (dwords * 4 > environment_.target_options().max_io_bytes) {
    return {io_status::kInvalidField, Transfer::kNone, 0};
  }
  return {{}, Transfer::kToHost, static_cast<uint32_t>(dwords * 4)};
}

void Controller::execute(Connection& connection, Request& request) {
  last_alive_ns_ = Reactor::current().now_ns();  // any admin command shows that the host lives
  if (request.transfer == Transfer::kToHost) std::memset(request.buffer, 0, request.length);
  const Sqe& sqe = request.sqe;
  const bool ready = enabled() || sqe.opcode == kOpcodeFabrics || sqe.opcode == kAdminKeepAlive;
  Answer answer;
  if (!ready) {
    answer.status = status::kCommandSequence;
  } else {
    switch (sqe.opcode) {
      case kOpcodeFabrics:
        answer = fabrics(request);
        break;
      case kAdminIdentify:
        answer = identify(request);
        break;
      case kAdminGetLogPage:
        answer = get_log_page(request, connection.local());
        break;
      case kAdminSetFeatures:
        answer = set_features(request);
        break;
      case kAdminGetFeatures:
        answer = get_features(request);
        break;
      case kAdminAbort:
        abort(connection, request);
        return;
      case kAdminAsyncEvent:
        async_event(connection, request);
        return;
      default:
        CHECK(sqe.opcode == kAdminKeepAlive);
        break;
    }
  }
  connection.complete(request, answer.status, answer.dw0, answer.dw1);
}

// The command's queue may be on another reactor: only there is known how far it is.
void Controller::abort(Connection& connection, Request& request) {
  const auto queue = connections_.find(static_cast<uint16_t>(request.sqe.cdw10));
  if (queue == connections_.end()) return connection.complete(request, io_status::kInvalidField);
  if (aborts_ >= kAbortLimit) return connection.complete(request, status::kAbortLimit);
  ++aborts_;
  spawn(run_abort(connection.shared_from_this(), &request, queue->second));
}

// NVMe base specification, Abort command: bit 0 of the answer is 1 when nothing was aborted. A
// command that was is answered before.
Task<void> Controller::run_abort(std::shared_ptr<Connection> admin, Request* request,
                                 std::shared_ptr<Connection> queue) {
  const std::shared_ptr<Controller> self = shared_from_this();
  const auto cid = static_cast<uint16_t>(request->sqe.cdw10 >> 16);
  std::function<Task<bool>()> abort_there = [queue, cid]() -> Task<bool> {
    // One that is on its way to its reactor has no commands yet.
    co_return &queue->reactor() == &Reactor::current() && queue->abort(cid);
  };
  const bool aborted = co_await call_on<bool>(queue->reactor(), abort_there);
  --aborts_;
  admin->complete(*request, io_status::kOk, aborted ? 0 : 1);
}

bool Controller::abort_async_event(Connection& connection, Request& request) {
  const auto found = std::find(async_events_.begin(), async_events_.end(), &request);
  if (found == async_events_.end()) return false;
  async_events_.erase(found);
  connection.complete(request, io_status::kAborted);
  return true;
}

// ---- Properties
// ----------------------------------------------------------------------------------

Controller::Answer Controller::fabrics(const Request& request) {
  PropertySqe sqe;
  std::memcpy(&sqe, &request.sqe, sizeof(sqe));
  return sqe.fctype == kFabricsPropertyGet ? get_property(sqe) : set_property(sqe);
}

Controller::Answer Controller::get_property(const PropertySqe& sqe) const {
  const bool wide = (sqe.attrib & 7) == 1;
  uint64_t value = 0;
  switch (sqe.offset) {
    case kPropertyCap:
      if (!wide) return {io_status::kInvalidField};
      value = cap_;
      break;
    case kPropertyVs:
      value = kVersion14;
      break;
    case kPropertyCc:
      value = cc_;
      break;
    case kPropertyCsts:
      value = csts_;
      break;
    case kPropertyNssr:
      break;
    default:  // nvme-cli goes on to the next property from this status alone, and without DNR
      return {not_yet(io_status::kInvalidField)};
  }
  if (sqe.offset != kPropertyCap && wide) return {io_status::kInvalidField};
  return {io_status::kOk, static_cast<uint32_t>(value), static_cast<uint32_t>(value >> 32)};
}

Controller::Answer Controller::set_property(const PropertySqe& sqe) {
  if (sqe.offset != kPropertyCc || (sqe.attrib & 7) != 0) return {io_status::kInvalidField};
  set_configuration(static_cast<uint32_t>(sqe.value));
  return {};
}

void Controller::set_configuration(uint32_t cc) {
  const uint32_t before = std::exchange(cc_, cc);
  const bool was_enabled = (before & kCcEnable) != 0, enable = (cc & kCcEnable) != 0;
  if (!was_enabled && enable) {
    disabling_ = shutting_down_ = false;
    csts_ = kCstsReady;
    set_shut_down(false);
  } else if (was_enabled && !enable) {
    disabling_ = true;
    drop_io_queues("the controller was disabled");
  }
  if ((cc & kCcShnMask) != 0 && (before & kCcShnMask) == 0) {
    csts_ = (csts_ & ~kCstsShutdownMask) | 1U << 2;  // occurring
    shutting_down_ = true;
    set_shut_down(true);
    drop_io_queues("the controller was shut down");
  }
  update_association_timer();
}

void Controller::set_shut_down(bool shut_down) {
  if (shut_down_ == shut_down) return;
  shut_down_ = shut_down;
  const auto& ledger = subsystem_.options().ledger;
  if (!ledger) return;
  if (shut_down) {
    ledger->shut_down(host_nqn(), host_id());
  } else {
    ledger->resumed(host_nqn(), host_id());
  }
}

// ---- Asynchronous events
// -------------------------------------------------------------------------

void Controller::async_event(Connection& connection, Request& request) {
  if (async_events_.size() >= kAsyncEventLimit) {
    connection.complete(request, status::kAsyncEventLimit);
    return;
  }
  async_events_.push_back(&request);
  deliver_events();
}

void Controller::drop_async_events(Connection& connection) {
  for (Request* event : std::exchange(async_events_, {})) {
    connection.complete(*event, io_status::kAborted);
  }
}

void Controller::raise(uint8_t log_page, uint32_t dw0) {
  if (ending_ || masked_events_[log_page]) return;
  masked_events_[log_page] = true;
  pending_events_[log_page] = dw0;
  deliver_events();
}

void Controller::unmask(uint8_t log_page) {
  masked_events_[log_page] = false;
  pending_events_.erase(log_page);
}

void Controller::deliver_events() {
  while (!pending_events_.empty() && !async_events_.empty()) {
    const uint32_t dw0 = pending_events_.begin()->second;
    pending_events_.erase(pending_events_.begin());
    Request& event = *async_events_.back();
    async_events_.pop_back();
    admin_->complete(event, io_status::kOk, dw0);
  }
}

void Controller::notify_ana_changed() {
  if ((features_[kFeatureAsyncEvents] & kOaesAna) != 0) raise(kLogAna, kEventAnaChanged);
}

void Controller::notify_namespace_changed() {
  namespace_changed_ = true;
  if ((features_[kFeatureAsyncEvents] & kOaesNamespaceAttribute) != 0) {
    raise(kLogChangedNamespaces, kEventNamespaceChanged);
  }
}

void Controller::notify_discovery_changed() {
  if ((features_[kFeatureAsyncEvents] & kOaesDiscovery) != 0) {
    raise(kLogDiscovery, kEventDiscoveryChanged);
  }
}

void Controller::notify_reservation(ReservationNotice notice) {
  if ((features_[kFeatureReservationMask] & (1U << notice)) != 0) return;  // masked by the host
  ReservationLog entry{};
  entry.count = ++reservation_log_count_;
  entry.type = notice;
  entry.nsid = 1;
  if (reservation_log_.size() >= kReservationLogLimit) reservation_log_.pop_front();
  reservation_log_.push_back(entry);
  raise(kLogReservation, kEventReservation);
}

}  // namespace mayastor::nvmf::target

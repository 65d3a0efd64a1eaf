#include "nvmf/initiator_controller.h"

#include <algorithm>
#include <cstring>

namespace mayastor::nvmf {

namespace {
constexpr uint32_t kAdminEntries = 32;
constexpr uint64_t kMillisecond = 1'000'000;
constexpr uint64_t kBulkPatience = 6;  // times the timeout of an I/O; 30 s by default
constexpr uint32_t kMaxTransferUnlimited = 1U << 20;  // MDTS 0: our own choice
}  // namespace

std::string RemoteAddress::name() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port) + "/" + nqn + "n1";
}

Controller::Controller(Reactor& home, const InitiatorOptions& options, RemoteAddress address)
    : home_(home), options_(options), address_(std::move(address)), keep_alive_timer_([this] {
        if (state_ != ControllerState::kRunning) return;
        keep_alive_timer_.arm_after(options_.kato_ms * kMillisecond / 2);
        spawn(keep_alive());
      }) {}

Controller::~Controller() {
  CHECK(admin_ == nullptr || admin_->closed());
}

Task<Result<void>> Controller::start() {
  CHECK(state_ == ControllerState::kNew && Reactor::current_or_null() == &home_);
  auto self = shared_from_this();
  state_ = ControllerState::kInitializing;
  Result<void> result = co_await set_up();
  if (result.ok() && state_ != ControllerState::kInitializing) result = not_running();
  if (!result.ok()) {
    if (admin_ != nullptr) admin_->close(io_status::kQueueDeleted);
    if (state_ == ControllerState::kInitializing) state_ = ControllerState::kFaulted;
    co_return result;
  }
  state_ = ControllerState::kRunning;
  admin_->handshake_done();
  admin_->set_lost_handler([weak = weak_from_this()](const std::string& why) {
    if (auto controller = weak.lock()) controller->lose(why);
  });
  if (options_.kato_ms > 0) keep_alive_timer_.arm_after(options_.kato_ms * kMillisecond / 2);
  if (events_) spawn(watch_events());
  co_return result;
}

Task<Result<void>> Controller::set_up() {
  QueueOptions queue_options;
  queue_options.depth = kAdminEntries - 1;
  queue_options.timeout_ns = options_.admin_timeout_ms * kMillisecond;
  queue_options.header_digest = address_.header_digest;
  queue_options.data_digest = address_.data_digest;
  admin_ = std::make_shared<InitiatorQueue>(queue_options);
  Result<void> step = co_await admin_->connect(address_.host, address_.port,
                                               options_.connect_timeout_ms * kMillisecond);
  if (!step.ok()) co_return step;

  ConnectParameters connect;
  connect.subsystem_nqn = address_.nqn;
  connect.host_nqn = address_.host_nqn;
  connect.host_id = address_.host_id;
  connect.queue_entries = kAdminEntries;
  connect.kato_ms = options_.kato_ms;
  const Result<uint16_t> id = co_await fabrics_connect(admin_, connect);
  if (!id.ok()) co_return id.error();
  controller_id_ = id.value();

  const Result<uint64_t> cap = co_await enable_controller(admin_);
  if (!cap.ok()) co_return cap.error();
  max_entries_ = std::max<uint32_t>(2, static_cast<uint32_t>(cap.value() & 0xFFFF) + 1);

  step = co_await identify_controller();
  if (!step.ok()) co_return step;

  const uint32_t wanted = std::clamp<uint32_t>(options_.io_queues, 1, 65535) - 1;
  const Result<uint32_t> granted =
      co_await set_feature(admin_, kFeatureQueues, wanted << 16 | wanted);
  if (!granted.ok()) co_return granted.error();
  const uint32_t queues = std::min({granted.value() & 0xFFFF, granted.value() >> 16, wanted}) + 1;
  queue_id_used_.assign(queues + 1, false);
  if (events_) {  // only asked for when offered; a refusal just means no events
    const Result<uint32_t> ignored =
        co_await set_feature(admin_, kFeatureAsyncEvents, kOaesNamespaceAttribute);
    events_ = ignored.ok();
  }
  step = co_await find_namespace();
  co_return step;
}

Task<Result<void>> Controller::identify_controller() {
  auto data = std::make_unique<IdentifyController>();
  const Result<void> got = co_await identify(admin_, kCnsController, 0, data.get());
  if (!got.ok()) co_return got;
  if (data->ioccsz < 4 || data->iorcsz < 1 || data->icdoff != 0) {
    co_return Error{ErrorCode::kUnimplemented, "the target's capsule sizes are not usable"};
  }
  if ((data->sgls & 3) == 0) {
    co_return Error{ErrorCode::kUnimplemented, "the target does not support SGLs"};
  }
  in_capsule_bytes_ = std::min<uint32_t>(data->ioccsz, 1U << 20) * 16 - 64;
  max_commands_ = data->maxcmd;
  limits_.max_transfer_bytes =
      data->mdts == 0 ? kMaxTransferUnlimited
                      : kPageSize << std::min<uint32_t>(data->mdts, 8);  // at most 1 MiB
  limits_.compare = (data->oncs & kOncsCompare) != 0;
  limits_.unmap = (data->oncs & kOncsDatasetManagement) != 0;
  limits_.write_zeroes = (data->oncs & kOncsWriteZeroes) != 0;
  reservations_ = (data->oncs & kOncsReservations) != 0;
  volatile_cache_ = (data->vwc & 1) != 0;
  const auto* tag = reinterpret_cast<const uint8_t*>(data.get()) + kPowerCycleOffset;
  power_cycle_ = {};
  if (std::memcmp(tag, kPowerCycleTag, sizeof(kPowerCycleTag)) == 0) {
    std::memcpy(power_cycle_.bytes.data(), tag + sizeof(kPowerCycleTag), power_cycle_.bytes.size());
  }
  events_ = (data->oaes & kOaesNamespaceAttribute) != 0;
  co_return Result<void>();
}

Task<Result<void>> Controller::find_namespace() {
  alignas(8) std::array<uint8_t, 4096> page{};
  Result<void> got = co_await identify(admin_, kCnsActiveNamespaces, 0, page.data());
  if (!got.ok()) co_return got;
  std::memcpy(&limits_.nsid, page.data(), sizeof(limits_.nsid));
  if (limits_.nsid == 0) {
    co_return Error{ErrorCode::kNotFound, "the subsystem has no namespace"};
  }
  got = co_await read_namespace(true);
  if (!got.ok()) co_return got;

  page.fill(0);
  got = co_await identify(admin_, kCnsNamespaceDescriptors, limits_.nsid, page.data());
  if (got.ok()) {  // optional: the NGUID stands in for targets without the list
    for (size_t at = 0; at + sizeof(NamespaceDescriptorHeader) <= page.size();) {
      NamespaceDescriptorHeader header;
      std::memcpy(&header, page.data() + at, sizeof(header));
      at += sizeof(header);
      if (header.length == 0 || at + header.length > page.size()) break;
      if (header.type == kNidUuid && header.length == 16) {
        std::memcpy(uuid_.bytes.data(), page.data() + at, 16);
      }
      at += header.length;
    }
  } else if (admin_->closed()) {
    co_return got;
  }
  if (address_.uuid.has_value() && *address_.uuid != uuid_) {
    co_return Error{ErrorCode::kInvalidArgument, "the namespace there has uuid " +
                                                     uuid_.to_string() + ", not " +
                                                     address_.uuid->to_string()};
  }
  co_return Result<void>();
}

Task<Result<void>> Controller::read_namespace(bool first) {
  auto data = std::make_unique<IdentifyNamespace>();
  const Result<void> got = co_await identify(admin_, kCnsNamespace, limits_.nsid, data.get());
  if (!got.ok()) co_return got;
  const LbaFormat format = data->lbaf[data->flbas & 0x0F];
  if (format.metadata_size != 0) {
    co_return Error{ErrorCode::kUnimplemented, "the namespace has metadata in its blocks"};
  }
  if (format.data_size_log2 < 9 || format.data_size_log2 > 12 || data->nsze == 0 ||
      data->nsze > UINT64_MAX >> format.data_size_log2) {
    co_return Error{ErrorCode::kUnavailable, "the namespace has no usable size (" +
                                                 std::to_string(data->nsze) + " blocks of 2^" +
                                                 std::to_string(format.data_size_log2) + " bytes)"};
  }
  if (first) {
    limits_.block_shift = format.data_size_log2;
    std::memcpy(uuid_.bytes.data(), data->nguid, 16);
  } else if (format.data_size_log2 != limits_.block_shift) {
    co_return Error{ErrorCode::kUnavailable, "the namespace changed its block size"};
  }
  blocks_.store(data->nsze, std::memory_order_relaxed);
  used_blocks_.reset();
  if ((data->nsfeat & kNsfeatThin) != 0) used_blocks_ = std::min<uint64_t>(data->nuse, data->nsze);
  co_return Result<void>();
}

std::optional<uint64_t> Controller::allocated_bytes() {
  if (!used_blocks_.has_value()) return std::nullopt;
  if (!refreshing_usage_ && state_ == ControllerState::kRunning) spawn(refresh_usage());
  return *used_blocks_ << limits_.block_shift;
}

// A failure leaves what was known; whether the connection is good is for the keep-alive to find.
Task<void> Controller::refresh_usage() {
  auto self = shared_from_this();
  refreshing_usage_ = true;
  const Result<void> ignored = co_await read_namespace(false);
  (void)ignored;
  refreshing_usage_ = false;
}

// One asynchronous event request is always outstanding. Of its answers only "a namespace changed"
// means something to us: the size is read again.
Task<void> Controller::watch_events() {
  auto self = shared_from_this();
  while (state_ == ControllerState::kRunning) {
    Sqe sqe{};
    sqe.opcode = kAdminAsyncEvent;
    const Answer answer = co_await admin_->execute(sqe, DataDirection::kNone, nullptr, 0, true);
    if (!answer.status.ok() || state_ != ControllerState::kRunning) co_return;
    const uint8_t log = static_cast<uint8_t>(answer.dw0 >> 16);
    std::vector<uint8_t> page(kChangedNamespacesSize);
    const auto length = static_cast<uint32_t>(page.size());
    // Reading the log re-enables the event; what it says is found out by looking.
    const Result<void> read = co_await get_log_page(admin_, log, 0, page.data(), length);
    if (!read.ok() && admin_->closed()) co_return;
    if ((answer.dw0 & 0xFFFFFF) == kEventNamespaceChanged) {
      const Result<void> changed = co_await read_namespace(false);
      if (!changed.ok()) {
        lose(changed.error().message);
        co_return;
      }
    }
  }
}

Task<void> Controller::keep_alive() {
  if (keep_alive_running_) co_return;  // the last one is still out: its timeout decides
  auto self = shared_from_this();
  keep_alive_running_ = true;
  Sqe sqe{};
  sqe.opcode = kAdminKeepAlive;
  const Answer answer = co_await admin_->execute(sqe, DataDirection::kNone, nullptr, 0);
  keep_alive_running_ = false;
  if (!answer.status.ok() && state_ == ControllerState::kRunning) {
    lose("keep-alive refused: " + describe_status(answer.status));
  }
}

Error Controller::not_running() const {
  return Error{ErrorCode::kUnavailable,
               lost_reason_.empty() ? "the controller is not connected" : lost_reason_, 111};
}

void Controller::lose(const std::string& why) {
  CHECK(Reactor::current_or_null() == &home_);
  if (state_ != ControllerState::kRunning) return;
  auto self = shared_from_this();
  state_ = ControllerState::kFaulted;
  lost_reason_ = why;
  end_queues();
  if (auto handler = std::exchange(lost_handler_, nullptr)) handler(io_status::kHostPathError);
}

void Controller::stop() {
  CHECK(Reactor::current_or_null() == &home_);
  if (state_ == ControllerState::kUnconfigured) return;
  auto self = shared_from_this();
  state_ = ControllerState::kUnconfigured;
  lost_handler_ = nullptr;
  end_queues();
}

void Controller::end_queues() {
  keep_alive_timer_.disarm();
  if (admin_ != nullptr) admin_->close(io_status::kQueueDeleted);
  for (LiveQueue& live : std::exchange(queues_, {})) {
    // On its reactor, so that the reference taken there is also dropped there.
    live.reactor->post([weak = std::move(live.queue)] {
      if (auto queue = weak.lock()) queue->close(io_status::kHostPathError);
    });
  }
}

Task<Result<uint16_t>> Controller::take_queue_id() {
  if (state_ != ControllerState::kRunning) co_return not_running();
  const size_t count = queue_id_used_.size() - 1;
  for (size_t i = 0; i < count; ++i) {
    const uint16_t id = next_queue_id_;
    next_queue_id_ = static_cast<uint16_t>(id >= count ? 1 : id + 1);
    if (queue_id_used_[id]) continue;
    queue_id_used_[id] = true;
    co_return id;
  }
  co_return Error{ErrorCode::kResourceExhausted,
                  "all " + std::to_string(count) + " I/O queues the target grants are in use"};
}

void Controller::close_queue_id(uint16_t id) {
  home_.post([self = shared_from_this(), id] { self->queue_id_used_[id] = false; });
}

// A weak reference: the last strong one must go on the queue's own reactor.
Task<Result<void>> Controller::register_queue(Reactor* reactor,
                                              std::weak_ptr<InitiatorQueue> queue) {
  if (state_ != ControllerState::kRunning) co_return not_running();
  std::erase_if(queues_, [](const LiveQueue& live) { return live.queue.expired(); });
  queues_.push_back(LiveQueue{reactor, std::move(queue)});
  co_return Result<void>();
}

Task<Result<Controller::OpenQueue>> Controller::open_queue(uint32_t depth) {
  auto self = shared_from_this();
  Reactor* here = &Reactor::current();
  const std::string what = "Cannot open a channel to " + address_.name() + ": ";
  // A queue id may be busy at the target for a moment after its last connection went: try others.
  for (uint32_t attempt = 0;; ++attempt) {
    std::function<Task<Result<uint16_t>>()> take = [self] { return self->take_queue_id(); };
    const Result<uint16_t> id = co_await call_on<Result<uint16_t>>(home_, take);
    if (!id.ok()) co_return Error{id.error().code, what + id.error().message};

    QueueOptions queue_options;
    const uint32_t entries =
        std::clamp<uint32_t>(depth + 1, 2, std::min(max_entries_, InitiatorQueue::kMaxDepth));
    queue_options.depth = entries - 1;
    if (max_commands_ > 0) queue_options.depth = std::min(queue_options.depth, max_commands_);
    queue_options.timeout_ns = options_.io_timeout_ms * kMillisecond;
    queue_options.bulk_timeout_ns = queue_options.timeout_ns * kBulkPatience;
    queue_options.header_digest = address_.header_digest;
    queue_options.data_digest = address_.data_digest;
    auto queue = std::make_shared<InitiatorQueue>(queue_options);
    const uint64_t deadline = options_.connect_timeout_ms * kMillisecond;
    Result<void> step = co_await queue->connect(address_.host, address_.port, deadline);
    if (step.ok()) {
      ConnectParameters connect;
      connect.subsystem_nqn = address_.nqn;
      connect.host_nqn = address_.host_nqn;
      connect.host_id = address_.host_id;
      connect.queue_id = id.value();
      connect.queue_entries = static_cast<uint16_t>(entries);
      connect.controller_id = controller_id_;
      const Result<uint16_t> connected = co_await fabrics_connect(queue, connect);
      if (!connected.ok()) step = connected.error();
    }
    if (step.ok()) {
      queue->handshake_done();
      queue->set_in_capsule_bytes(in_capsule_bytes_);
      std::weak_ptr<InitiatorQueue> weak = queue;
      std::function<Task<Result<void>>()> enlist = [self, here, weak] {
        return self->register_queue(here, weak);
      };
      step = co_await call_on<Result<void>>(home_, enlist);
    }
    if (step.ok() && queue->closed()) {
      step = Error{ErrorCode::kUnavailable, "the connection was lost"};
    }
    if (step.ok()) {
      queue->set_lost_handler([weak = weak_from_this(), home = &home_](const std::string& why) {
        home->post([weak, why] {
          if (auto controller = weak.lock()) controller->lose(why);
        });
      });
      co_return OpenQueue{queue, id.value()};
    }
    queue->close(io_status::kQueueDeleted);
    close_queue_id(id.value());
    if (step.error().code != ErrorCode::kAlreadyExists || attempt == 2) {
      co_return Error{step.error().code, what + step.error().message, step.error().error_number};
    }
  }
}

Task<Result<std::unique_ptr<Channel>>> Controller::open_channel() {
  auto self = shared_from_this();
  Result<OpenQueue> opened = co_await open_queue(options_.queue_depth);
  if (!opened.ok()) co_return opened.error();
  const uint16_t id = opened.value().id;
  auto closed = [self, id] { self->close_queue_id(id); };
  std::unique_ptr<Channel> channel =
      std::make_unique<IoChannel>(opened.value().queue, limits_, counters_, std::move(closed));
  co_return channel;
}

}  // namespace mayastor::nvmf

// URIs in, bdevs out: parsing, the bdev itself, and discovery.
#include "nvmf/initiator.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "nvmf/initiator_controller.h"
#include "nvmf/initiator_reservations.h"
#include "util/uri.h"

namespace mayastor::nvmf {

namespace {

constexpr uint16_t kDefaultPort = 8420;
constexpr uint64_t kMillisecond = 1'000'000;

class NvmfBdev final : public Bdev {
 public:
  explicit NvmfBdev(std::shared_ptr<Controller> controller)
      : controller_(std::move(controller)), name_(controller_->address().name()) {
    if (controller_->has_reservations()) {
      reservations_ = std::make_shared<RemoteReservations>(controller_);
    }
  }
  // The controller's end becomes the bdev's bad news, if it still lives then.
  static void watch(const std::shared_ptr<NvmfBdev>& bdev) {
    bdev->controller_->set_lost_handler([weak = std::weak_ptr<NvmfBdev>(bdev)](IoStatus why) {
      if (auto alive = weak.lock()) alive->notify_removed(why);
    });
  }
  // Normally on the home reactor; from elsewhere the rest is left to it.
  ~NvmfBdev() override {
    auto end = [controller = std::move(controller_), reservations = std::move(reservations_)] {
      if (reservations != nullptr) reservations->close();
      controller->stop();
    };
    Reactor& home = end_home_;
    if (Reactor::current_or_null() == &home) {
      end();
    } else {
      home.post(std::move(end));
    }
  }
  NvmfBdev(const NvmfBdev&) = delete;
  NvmfBdev& operator=(const NvmfBdev&) = delete;

  const std::string& name() const noexcept override { return name_; }
  const Uuid& uuid() const noexcept override { return controller_->uuid(); }
  std::string product_name() const override { return "NVMe disk"; }
  std::string uri() const override { return controller_->address().uri; }
  uint32_t block_size() const noexcept override { return controller_->block_size(); }
  uint64_t size_bytes() const noexcept override { return controller_->size_bytes(); }
  bool supports(IoType type) const noexcept override {
    const NamespaceLimits& limits = controller_->limits();
    if (type == IoType::kUnmap) return limits.unmap;
    if (type == IoType::kWriteZeroes) return limits.write_zeroes;
    if (type == IoType::kCompare) return limits.compare;
    return true;
  }
  bool has_volatile_cache() const noexcept override { return controller_->has_volatile_cache(); }
  std::optional<uint64_t> allocated_bytes() const override {
    return controller_->allocated_bytes();
  }
  Uuid power_cycle() const noexcept override { return controller_->power_cycle(); }
  Reservations* reservations() noexcept override { return reservations_.get(); }
  Task<Result<std::unique_ptr<Channel>>> open_channel() override {
    return controller_->open_channel();
  }
  IoStats stats() const override { return controller_->stats(); }
  void add_latencies(IoLatencies& total) const override { controller_->add_latencies(total); }
  void reset_stats() noexcept override { controller_->reset_stats(); }

 private:
  std::shared_ptr<Controller> controller_;
  Reactor& end_home_ = controller_->home();
  const std::string name_;
  std::shared_ptr<RemoteReservations> reservations_;
};

bool is_ip_address(const std::string& text) {
  std::array<uint8_t, 16> ignored;
  return inet_pton(AF_INET, text.c_str(), ignored.data()) == 1 ||
         inet_pton(AF_INET6, text.c_str(), ignored.data()) == 1;
}

Error bad_uri(const std::string& uri, const std::string& why) {
  return Error{ErrorCode::kInvalidArgument, "Invalid NVMe-oF URI " + uri + ": " + why};
}

Result<bool> boolean_parameter(const Uri& uri, std::string_view key) {
  const auto value = uri.find(key);
  if (!value.has_value() || *value == "0" || *value == "false" || *value == "no") return false;
  if (value->empty() || *value == "1" || *value == "true" || *value == "yes") return true;
  return bad_uri(uri.text(), std::string(key) + " must be true or false, not " + *value);
}

Result<RemoteAddress> parse_address(const std::string& text, const InitiatorOptions& options) {
  const Result<Uri> parsed = Uri::parse(text);
  if (!parsed.ok()) return parsed.error();
  const Uri& uri = parsed.value();
  RemoteAddress address;
  address.uri = text;
  if (uri.scheme() != "nvmf" && uri.scheme() != "nvmf+tcp") {
    return bad_uri(text, "the scheme must be nvmf");
  }
  address.host = uri.host();
  if (!is_ip_address(address.host)) {
    return bad_uri(text, "the host must be an IPv4 or IPv6 address, not '" + address.host + "'");
  }
  address.port = uri.port().value_or(kDefaultPort);
  if (address.port == 0) return bad_uri(text, "the port must not be 0");
  address.nqn = uri.name();
  if (!address.nqn.starts_with("nqn.") || address.nqn.size() > kNqnMaxLength) {
    return bad_uri(text, "the path must be an NQN (nqn.…, at most 223 characters)");
  }
  const auto uuid = uri.find_uuid("uuid");
  if (!uuid.ok()) return uuid.error();
  address.uuid = uuid.value();
  address.host_nqn = uri.find("hostnqn").value_or(options.host_nqn);
  if (!address.host_nqn.starts_with("nqn.") || address.host_nqn.size() > kNqnMaxLength) {
    return bad_uri(text, "hostnqn must be an NQN (nqn.…, at most 223 characters)");
  }
  const auto host_id = uri.find_uuid("hostid");
  if (!host_id.ok()) return host_id.error();
  address.host_id = host_id.value().value_or(options.host_id);
  if (address.host_id.is_nil()) address.host_id = Uuid::from_name(address.host_nqn);
  const Result<bool> header_digest = boolean_parameter(uri, "hdgst");
  if (!header_digest.ok()) return header_digest.error();
  const Result<bool> data_digest = boolean_parameter(uri, "ddgst");
  if (!data_digest.ok()) return data_digest.error();
  address.header_digest = header_digest.value();
  address.data_digest = data_digest.value();
  return address;
}

// A fixed-width text field: ends at its first NUL or with trailing spaces.
template <size_t kSize>
std::string field_text(const char (&field)[kSize]) {
  std::string text(field, strnlen(field, kSize));
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

std::string transport_name(uint8_t type) {
  if (type == kTransportTcp) return "tcp";
  if (type == 1) return "rdma";
  if (type == 2) return "fc";
  if (type == 254) return "loop";
  return "type " + std::to_string(type);
}

}  // namespace

const char* controller_state_name(ControllerState state) noexcept {
  switch (state) {
    case ControllerState::kNew:
      return "new";
    case ControllerState::kInitializing:
      return "initializing";
    case ControllerState::kRunning:
      return "running";
    case ControllerState::kFaulted:
      return "faulted";
    case ControllerState::kUnconfiguring:
      return "unconfiguring";
    case ControllerState::kUnconfigured:
      return "unconfigured";
  }
  return "unknown";
}

Initiator::Initiator(Reactor& home, InitiatorOptions options)
    : home_(home), options_(std::move(options)) {}

Initiator::~Initiator() = default;

Task<Result<std::shared_ptr<Bdev>>> Initiator::create(std::string uri) {
  Result<RemoteAddress> address = parse_address(uri, options_);
  if (!address.ok()) co_return address.error();
  auto controller = std::make_shared<Controller>(home_, options_, address.take());
  std::erase_if(controllers_, [](const auto& weak) { return weak.expired(); });
  controllers_.push_back(controller);
  const Result<void> started = co_await controller->start();
  if (!started.ok()) {
    controller->stop();
    co_return Error{started.error().code,
                    "Cannot connect to " + uri + ": " + started.error().message,
                    started.error().error_number};
  }
  auto remote = std::make_shared<NvmfBdev>(std::move(controller));
  NvmfBdev::watch(remote);
  std::shared_ptr<Bdev> bdev = std::move(remote);
  co_return bdev;
}

std::vector<ControllerInfo> Initiator::list() const {
  std::vector<ControllerInfo> infos;
  for (const auto& weak : controllers_) {
    const auto controller = weak.lock();
    if (controller == nullptr || controller->state() == ControllerState::kUnconfigured) continue;
    ControllerInfo info;
    info.name = controller->address().name();
    info.state = controller->state();
    info.block_size = controller->block_size();
    info.size_blocks = controller->size_bytes() / info.block_size;
    info.stats = controller->stats();
    infos.push_back(std::move(info));
  }
  return infos;
}

bool Initiator::reset_stats(const std::string& name) noexcept {
  bool found = name.empty();
  for (const auto& weak : controllers_) {
    const auto controller = weak.lock();
    if (controller == nullptr) continue;
    if (!name.empty() && controller->address().name() != name) continue;
    controller->reset_stats();
    found = true;
  }
  return found;
}

namespace {

Task<Result<std::vector<DiscoveryEntry>>> read_discovery_log(QueuePtr queue,
                                                             ConnectParameters connect) {
  const Result<uint16_t> connected = co_await fabrics_connect(queue, connect);
  if (!connected.ok()) co_return connected.error();
  const Result<uint64_t> enabled = co_await enable_controller(queue);
  if (!enabled.ok()) co_return enabled.error();
  // Header, entries, header again: unchanged generation means a consistent view.
  for (uint32_t attempt = 0; attempt < 5; ++attempt) {
    DiscoveryLogHeader before{};
    Result<void> got = co_await get_log_page(queue, kLogDiscovery, 0, &before, sizeof(before));
    if (!got.ok()) co_return got.error();
    std::vector<DiscoveryEntry> entries;
    const uint64_t count = std::min<uint64_t>(before.record_count, 65536);
    for (uint64_t i = 0; i < count; ++i) {
      DiscoveryLogEntry record{};
      const uint64_t offset = sizeof(before) + i * sizeof(record);
      got = co_await get_log_page(queue, kLogDiscovery, offset, &record, sizeof(record));
      if (!got.ok()) co_return got.error();
      DiscoveryEntry entry;
      entry.transport = transport_name(record.trtype);
      entry.address = field_text(record.traddr);
      entry.port = field_text(record.trsvcid);
      entry.nqn = field_text(record.subnqn);
      entry.subsystem_type = record.subtype;
      entries.push_back(std::move(entry));
    }
    DiscoveryLogHeader after{};
    got = co_await get_log_page(queue, kLogDiscovery, 0, &after, sizeof(after));
    if (!got.ok()) co_return got.error();
    if (after.generation == before.generation) co_return entries;
  }
  co_return Error{ErrorCode::kAborted, "the discovery log keeps changing"};
}

}  // namespace

Task<Result<std::vector<DiscoveryEntry>>> Initiator::discover(std::string address, uint16_t port) {
  const std::string what = "Cannot discover subsystems at " + address + ":" + std::to_string(port);
  if (!is_ip_address(address)) {
    co_return Error{ErrorCode::kInvalidArgument, what + ": not an IPv4 or IPv6 address"};
  }
  QueueOptions queue_options;
  queue_options.timeout_ns = options_.admin_timeout_ms * kMillisecond;
  auto queue = std::make_shared<InitiatorQueue>(queue_options);
  const Result<void> connected =
      co_await queue->connect(address, port, options_.connect_timeout_ms * kMillisecond);
  if (!connected.ok()) {
    co_return Error{connected.error().code, what + ": " + connected.error().message,
                    connected.error().error_number};
  }
  ConnectParameters connect;
  connect.subsystem_nqn = kDiscoveryNqn;
  connect.host_nqn = options_.host_nqn;
  connect.host_id =
      options_.host_id.is_nil() ? Uuid::from_name(options_.host_nqn) : options_.host_id;
  Result<std::vector<DiscoveryEntry>> entries = co_await read_discovery_log(queue, connect);
  queue->close(io_status::kQueueDeleted);
  if (!entries.ok()) co_return Error{entries.error().code, what + ": " + entries.error().message};
  co_return entries;
}

std::shared_ptr<Initiator> register_nvmf_scheme(BdevRegistry& registry, Reactor& home,
                                                InitiatorOptions options) {
  auto initiator = std::make_shared<Initiator>(home, std::move(options));
  registry.add_scheme("nvmf",
                      [initiator](std::string uri) { return initiator->create(std::move(uri)); });
  return initiator;
}

}  // namespace mayastor::nvmf

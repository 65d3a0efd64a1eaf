#include "host/engine.h"

#include <fstream>
#include <string>
#include <utility>

#include "bdev/builtin.h"
#include "core/make_ring.h"

namespace mayastor::host {
namespace {

constexpr size_t kReactorCountMax = 64;

// The kernel names each of its runs; a reboot or a power failure starts another.
[[nodiscard]] Uuid machine_power_cycle() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string text;
  std::getline(file, text);
  const Result<Uuid> parsed = Uuid::parse(text);
  return parsed.ok() ? parsed.value() : Uuid();
}

[[nodiscard]] nvmf::TargetOptions target_options(const EngineOptions& options) {
  nvmf::TargetOptions target;
  target.address = options.target_address;
  target.replica_port = options.replica_port;
  target.nexus_port = options.nexus_port;
  target.max_queue_depth = options.target_queue_depth;
  target.max_qpairs = options.target_qpairs;
  target.power_cycle = machine_power_cycle();
  for (size_t i = 0; i < 3; ++i) {
    target.retry_delay_100ms[i] = options.target_retry_delay_100ms[i];
  }
  return target;
}

[[nodiscard]] nvmf::InitiatorOptions initiator_options(const EngineOptions& options) {
  nvmf::InitiatorOptions initiator;
  initiator.host_nqn = options.host_nqn;
  if (options.host_id) initiator.host_id = *options.host_id;
  initiator.kato_ms = options.keep_alive_ms;
  initiator.io_timeout_ms = options.io_timeout_ms;
  initiator.admin_timeout_ms = options.admin_timeout_ms;
  return initiator;
}

}  // namespace

Engine::Engine(EngineOptions options, nexus::NexusInfoStore* store, EngineEvents& events)
    : options_(std::move(options)), store_(store), events_(events) {}

Engine::~Engine() {
  CHECK(!reactors_ && !parts_);
}

Result<std::unique_ptr<Engine>> Engine::open(EngineOptions options, nexus::NexusInfoStore* store,
                                             EngineEvents& events) {
  if (options.cores.empty() || options.cores.size() > kReactorCountMax) {
    return Error{ErrorCode::kInvalidArgument, "Cannot start the engine: the core list has " +
                                                  std::to_string(options.cores.size()) +
                                                  " entries, not 1 to 64"};
  }
  std::unique_ptr<Engine> engine(new Engine(std::move(options), store, events));
  auto clock = system_clock();
  std::vector<std::unique_ptr<Reactor>> reactors;
  for (size_t i = 0; i < engine->options_.cores.size(); ++i) {
    auto ring = make_ring(RingOptions{});
    if (!ring.ok()) return ring.error();
    engine->ring_note_ = ring.value().note;
    ReactorOptions reactor;
    reactor.index = static_cast<uint32_t>(i);
    reactor.core = engine->options_.cores[i];
    reactor.poll = engine->options_.poll;
    reactor.spin_ns = engine->options_.spin_us * 1000;
    reactors.push_back(std::make_unique<Reactor>(reactor, std::move(ring.value().ring), clock));
  }
  engine->reactors_ = std::make_unique<Reactors>(std::move(reactors));
  engine->reactors_->start();
  return engine;
}

void Engine::close() {
  if (!reactors_) return;
  reactors_->stop_and_join();
  if (parts_) {
    // Not stopped in order: connections, channels and timers are still there and may only end on
    // their reactors, which are gone. The process is about to end; the kernel takes them back.
    (void)parts_.release();
    (void)reactors_.release();
    return;
  }
  reactors_.reset();
}

Engine::Parts::Parts(Engine& engine, nvmf::TargetOptions target_options)
    : target(*engine.reactors_, std::move(target_options)),
      initiator(nvmf::register_nvmf_scheme(registry, *engine.reactors_,
                                           initiator_options(engine.options_))),
      sharing(target, engine.options_.target_address, engine.options_.ptpl_dir),
      pools(registry, sharing, engine.events_),
      replicas(registry, sharing, pools, engine.events_),
      nexuses(*engine.reactors_, registry, sharing, engine.store_, engine.events_, engine.options_),
      bdevs(registry, sharing, engine.events_) {}

Engine::Parts& Engine::parts() noexcept {
  CHECK(parts_);
  return *parts_;
}

Task<Result<void>> Engine::start() {
  CHECK(!parts_);
  parts_ = std::make_unique<Parts>(*this, target_options(options_));
  register_builtin_schemes(parts_->registry);
  const auto listening = co_await parts_->target.start();
  if (!listening.ok()) {
    parts_.reset();
    Error error = listening.error();
    error.message = "Cannot serve NVMe-oF on " + options_.target_address + ": " + error.message;
    co_return error;
  }
  if (!ring_note_.empty()) events_.on_log(LogLevel::kWarn, ring_note_, {});
  events_.on_log(LogLevel::kInfo, "target listening",
                 {{"address", options_.target_address},
                  {"replica.port", std::to_string(parts_->target.replica_port())},
                  {"nexus.port", std::to_string(parts_->target.nexus_port())}});
  co_return Result<void>();
}

// Nexuses first: they use replicas, here and elsewhere.
Task<Result<void>> Engine::stop() {
  if (!parts_) co_return Result<void>();
  auto worst = co_await parts_->nexuses.destroy_all();
  auto pools = co_await parts_->pools.export_all();
  if (worst.ok()) worst = std::move(pools);
  auto bdevs = co_await parts_->bdevs.destroy_all();
  if (worst.ok()) worst = std::move(bdevs);
  co_await parts_->target.stop();
  if (worst.ok()) parts_.reset();
  co_return worst;
}

std::vector<NvmeControllerInfo> Engine::controllers() const {
  CHECK(parts_);
  std::vector<NvmeControllerInfo> infos;
  for (const auto& controller : parts_->initiator->list()) {
    NvmeControllerInfo info;
    info.name = controller.name;
    info.state = static_cast<uint8_t>(controller.state);
    info.block_count = controller.size_blocks;
    info.block_size = controller.block_size;
    info.stats = controller.stats;
    infos.push_back(std::move(info));
  }
  return infos;
}

std::vector<ReactorInfo> Engine::reactor_infos() const {
  std::vector<ReactorInfo> infos;
  for (size_t i = 0; i < reactors_->size(); ++i) {
    const ReactorStats& stats = reactors_->at(i).stats();
    ReactorInfo info;
    info.index = static_cast<uint32_t>(i);
    info.core = options_.cores[i];
    info.turns = stats.turns.load(std::memory_order_relaxed);
    info.busy_turns = stats.busy_turns.load(std::memory_order_relaxed);
    info.sleeps = stats.sleeps.load(std::memory_order_relaxed);
    info.messages = stats.messages.load(std::memory_order_relaxed);
    info.cpu_time_ns = stats.cpu_time_ns.load(std::memory_order_relaxed);
    infos.push_back(info);
  }
  return infos;
}

void Engine::reset_stats() noexcept {
  CHECK(parts_);
  parts_->pools.reset_stats();
  parts_->nexuses.reset_stats();
}

}  // namespace mayastor::host

// Random simulation: reads and writes from several cores over two or three children, while devices
// fail, stall, vanish and return, clients fault and add children, rebuilds start and stop, and the
// store goes away. Checked all the time: every child that the stored record calls healthy holds
// every acknowledged write (so an engine may die at any instant), reads never go back in time; at
// the end all children are byte-identical. A failure prints the seed; the same seed replays it.
#include <map>

#include "nexus/test_rig.h"

namespace mayastor::nexus {
namespace {

constexpr uint64_t kCell = 4096;         // the grain of the model
constexpr uint64_t kRegion = 4 * kCell;  // requests stay inside one: so they overlap often
constexpr uint64_t kSizeMb = 1;
constexpr uint64_t kCells = kSizeMb * kMiB / kCell;
constexpr uint32_t kDevices = 3;
constexpr const char* kNames[kDevices] = {"a", "b", "c"};

// A value that a cell may hold, and when the write that put it there was under way.
struct Candidate {
  uint64_t value;
  uint64_t issued;
  uint64_t ended;  // UINT64_MAX while under way
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : seed_(seed),
        rig_(seed, static_cast<uint32_t>(1 + seed % 3)),
        random_(seed * 77 + 5),
        cells_(kCells) {
    for (auto& cell : cells_) cell.push_back(Candidate{0, 0, 0});
    std::vector<std::string> names;
    for (uint32_t i = 0; i < kDevices; ++i) {
      devices_[i] = rig_.add_device(kNames[i], 7);
      memory_[i] =
          rig_.sim.run(rig_.registry.find(std::string("mem-") + kNames[i])->open_channel()).take();
      if (i < 2 || random_.chance(1, 2)) names.push_back(kNames[i]);
    }
    rig_.store.on_stored = [this] { strike_after_a_record(); };
    rig_.create_with(rig_.options(names, kSizeMb));
  }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) {
      step();
      const uint64_t end =
          rig_.sim_now_ns() + 1 + random_.below(random_.chance(1, 10) ? 5 * kMs : 200'000);
      rig_.sim.world().at(end, [] {});
      rig_.sim.run_until([&] {
        strike_at_a_promotion();
        return rig_.sim_now_ns() >= end;
      });
      check_healthy_children();
      if (rig_.nexus->state() == NexusState::kShutdown) rebuild_nexus();
    }
    settle();
  }
  [[nodiscard]] uint64_t acknowledged() const { return acknowledged_; }
  [[nodiscard]] uint64_t faults() const { return faults_; }
  [[nodiscard]] uint64_t self_shutdowns() const { return self_shutdowns_; }

 private:
  struct Request {
    TestIo io;
    uint64_t first_cell = 0, cell_count = 0;
    uint64_t issued = 0;
    std::vector<uint64_t> values;                // a write's, by cell
    std::vector<std::vector<uint64_t>> allowed;  // a read's, by cell
  };

  std::string where() const { return "seed " + std::to_string(seed_); }
  template <typename... Args>
  void log(const char* format, Args... args) const {  // NEXUS_SIM_TRACE=1
    if (!verbose_) return;
    std::printf("%10.3f ms ", static_cast<double>(rig_.sim_now_ns()) / 1e6);
    std::printf(format, args...);
    std::printf("\n");
  }

  void step() {
    const uint64_t dice = random_.below(100);
    if (dice < 45) return start_write();
    if (dice < 70) return start_read();
    if (verbose_ && rig_.store.last() != shown_) {
      shown_ = rig_.store.last();
      log("record %s", shown_.c_str());
    }
    if (dice < 72) return flush();
    if (dice < 84) return disturb_device();
    if (dice < 94) return client_action();
    disturb_store();
  }

  // ---- I/O and its model

  // Any core may go anywhere, and half of the requests go where others are likely to be.
  std::pair<uint64_t, uint64_t> pick_cells() {
    const uint64_t regions = random_.chance(1, 2) ? 3 : kSizeMb * kMiB / kRegion;
    const uint64_t region = random_.below(regions);
    const uint64_t first = random_.below(4);
    return {region * 4 + first, 1 + random_.below(4 - first)};
  }

  std::shared_ptr<Request> make_request(IoType type) {
    auto request = std::make_shared<Request>();
    std::tie(request->first_cell, request->cell_count) = pick_cells();
    request->issued = ++tick_;
    TestIo& io = request->io;
    io.data.resize(request->cell_count * kCell);
    io.part = iovec{io.data.data(), io.data.size()};
    io.io.type = type;
    io.io.offset = request->first_cell * kCell;
    io.io.length = io.data.size();
    io.io.iov = &io.part;
    io.io.iov_count = 1;
    io.io.owner = request.get();
    requests_.push_back(request);
    ++in_flight_;
    return request;
  }

  void submit(const std::shared_ptr<Request>& request, size_t core) {
    request->io.io.done = [](Io* io, IoStatus status) noexcept {
      auto* self = static_cast<Request*>(io->owner);
      self->io.status = status;
      self->io.done = true;
      self->io.on_done();
    };
    const Reactor::Scope scope(rig_.sim.reactor(core));
    rig_.channels[core]->submit(&request->io.io);
  }

  void start_write() {
    const size_t core = random_.below(rig_.channels.size());
    auto request = make_request(IoType::kWrite);
    const bool zeroes = random_.chance(1, 12);
    for (uint64_t i = 0; i < request->cell_count; ++i) {
      const uint64_t value = zeroes ? 0 : ++last_value_;
      request->values.push_back(value);
      for (uint64_t at = 0; at < kCell; at += sizeof value) {
        std::memcpy(request->io.data.data() + i * kCell + at, &value, sizeof value);
      }
      cells_[request->first_cell + i].push_back(Candidate{value, request->issued, UINT64_MAX});
      for (Request* reading : reads_) {
        const uint64_t cell = request->first_cell + i;
        if (cell < reading->first_cell || cell >= reading->first_cell + reading->cell_count) {
          continue;
        }
        reading->allowed[cell - reading->first_cell].push_back(value);
      }
    }
    if (zeroes) {
      request->io.io.type = IoType::kWriteZeroes;
      request->io.io.iov_count = 0;
      request->io.io.iov = nullptr;
    }
    Request* raw = request.get();
    request->io.on_done = [this, raw] { write_ended(*raw); };
    log("write cells %lu+%lu core %zu value %lu", request->first_cell, request->cell_count, core,
        request->values.front());
    submit(request, core);
  }

  void write_ended(Request& request) {
    --in_flight_;
    const uint64_t now = ++tick_;
    const bool ok = request.io.status.ok();
    acknowledged_ += ok ? 1 : 0;
    log("write value %lu %s", request.values.front(), ok ? "ok" : "failed");
    for (uint64_t i = 0; i < request.cell_count; ++i) {
      auto& cell = cells_[request.first_cell + i];
      for (Candidate& candidate : cell) {
        if (candidate.issued == request.issued) candidate.ended = now;
      }
      // What ended before an acknowledged write began can't come back.
      if (ok) std::erase_if(cell, [&](const Candidate& c) { return c.ended < request.issued; });
    }
  }

  void start_read() {
    const size_t core = random_.below(rig_.channels.size());
    auto request = make_request(IoType::kRead);
    for (uint64_t i = 0; i < request->cell_count; ++i) {
      auto& allowed = request->allowed.emplace_back();
      for (const Candidate& c : cells_[request->first_cell + i]) allowed.push_back(c.value);
    }
    reads_.push_back(request.get());
    Request* raw = request.get();
    request->io.on_done = [this, raw] {
      --in_flight_;
      std::erase(reads_, raw);
      if (!raw->io.status.ok()) return;
      for (uint64_t i = 0; i < raw->cell_count; ++i) {
        const auto value = cell_value(raw->io.data.data() + i * kCell);
        ASSERT_TRUE(value.has_value()) << where() << ": torn read";
        const auto& allowed = raw->allowed[i];
        ASSERT_TRUE(std::find(allowed.begin(), allowed.end(), *value) != allowed.end())
            << where() << ": cell " << raw->first_cell + i << " read as " << *value;
      }
    };
    submit(request, core);
  }

  void flush() {
    const size_t core = random_.below(rig_.channels.size());
    auto request = make_request(IoType::kFlush);
    request->io.io.offset = request->io.io.length = 0;
    request->io.io.iov_count = 0;
    request->io.on_done = [this] { --in_flight_; };
    submit(request, core);
  }

  static std::optional<uint64_t> cell_value(const uint8_t* data) {
    uint64_t value = 0;
    std::memcpy(&value, data, sizeof value);
    if (std::memcmp(data, data + sizeof value, kCell - sizeof value) != 0) return std::nullopt;
    return value;
  }

  void peek(uint32_t device, std::vector<uint8_t>& out) {
    out.resize(kSizeMb * kMiB);
    const auto status =
        rig_.sim.run(read(*memory_[device], kDataOffsetBytes, out.data(), out.size()));
    CHECK(status.ok());
  }

  // If the engine died now, the next nexus would be built from one of these.
  void check_healthy_children() {
    for (uint32_t i = 0; i < kDevices; ++i) {
      const std::string entry = "{\"healthy\":true,\"uuid\":\"" + rig_.uuid_of(kNames[i]) + "\"}";
      if (rig_.store.last().find(entry) == std::string::npos) continue;
      peek(i, scratch_);
      for (uint64_t cell = 0; cell < kCells; ++cell) {
        const auto value = cell_value(scratch_.data() + cell * kCell);
        const auto& candidates = cells_[cell];
        const bool known =
            value.has_value() && std::any_of(candidates.begin(), candidates.end(),
                                             [&](const Candidate& c) { return c.value == *value; });
        ASSERT_TRUE(known) << where() << ": healthy child " << kNames[i] << " lost cell " << cell
                           << " (holds " << value.value_or(UINT64_MAX) << ")";
      }
    }
  }

  // ---- Disturbances

  void disturb_device() {
    const auto i = static_cast<uint32_t>(random_.below(kDevices));
    FaultBdev& device = *devices_[i];
    FaultRule rule;
    switch (random_.below(8)) {
      case 0:
      case 1:  // a few slow requests
      case 2:
        rule = slow(1 + random_.below(3 * kMs));
        rule.count = 1 + random_.below(20);
        break;
      case 3:  // a write fails, done or not
        rule = fail_writes(random_.chance(1, 4) ? io_status::kNoSpace : io_status::kWriteFault, 1);
        rule.forward_anyway = random_.chance(1, 2);
        rule.delay_ns = random_.below(2) * random_.below(2 * kMs);
        break;
      case 4:
        rule = fail_reads(io_status::kUnrecoveredRead, 1 + random_.below(3));
        if (random_.chance(1, 2)) {  // a bad place, which writing does not mend
          rule.offset =
              kDataOffsetBytes + random_.below(random_.chance(1, 2) ? 12 : kCells) * kCell;
          rule.length = kCell;
          rule.count = UINT64_MAX;
        }
        break;
      case 5: {
        rule = hold_writes();
        rule.count = 1 + random_.below(4);
        const std::shared_ptr<FaultBdev> held = devices_[i];
        rig_.sim.world().at(rig_.sim.world().now_ns() + random_.below(5 * kMs), [this, held] {
          const Reactor::Scope scope(rig_.sim.home());
          held->clear_rules();
          held->release_held();
        });
        break;
      }
      case 6:  // broken for good, until it is replaced
        if (!random_.chance(1, 3)) return;
        device.release_held();
        device.remove_device(io_status::kHostPathError);
        ++faults_;
        log("device %s removed", kNames[i]);
        return;
      default: {  // it comes back, healthy
        if (rig_.registry.claimed_by(kNames[i]) != "") return;
        devices_[i] = rig_.put_in_front(kNames[i]);
        log("device %s is back", kNames[i]);
        return;
      }
    }
    log("device %s: rule status %u/%u hold %d delay %lu count %lu anyway %d read %d", kNames[i],
        rule.status.type, rule.status.code, rule.hold, rule.delay_ns, rule.count,
        rule.forward_anyway, rule.type.has_value());
    if (!rule.status.ok()) ++faults_;
    device.add_rule(rule);
  }

  static Task<void> perform(Simulation* self, Task<Result<void>> action) {
    const Result<void> result = co_await action;  // rules may forbid it: tested elsewhere
    self->log("action: %s", result.ok() ? "ok" : result.error().message.c_str());
    --self->actions_;
  }

  void client_action() {
    if (actions_ > 2) return;
    const std::string uri = rig_.uri_of(kNames[random_.below(kDevices)]);
    Nexus& nexus = *rig_.nexus;
    ++actions_;
    const uint64_t which = random_.below(12);
    log("action %lu on %s", which, uri.c_str());
    switch (which) {
      case 0:
        return spawn(perform(this, nexus.child_operation(uri, ChildAction::kOffline)));
      case 1:
        return spawn(perform(this, nexus.remove_child(uri)));
      case 2:
        return spawn(perform(this, nexus.add_child(uri, random_.chance(1, 5))));
      case 3:
        return spawn(perform(this, nexus.stop_rebuild(uri)));
      case 4:
        return spawn(perform(this, nexus.pause_rebuild(uri)));
      case 5:
      case 6:
        return spawn(perform(this, nexus.resume_rebuild(uri)));
      case 7:
        return spawn(perform(this, nexus.start_rebuild(uri)));
      case 8:
        return spawn(perform(this, nexus.child_operation(uri, ChildAction::kFaultIoError)));
      default:
        return spawn(perform(this, nexus.child_operation(uri, ChildAction::kOnline)));
    }
  }

  void disturb_store() {
    FakeStore& store = rig_.store;
    store.latency_ns = random_.below(3 * kMs);
    store.early = random_.chance(1, 3);
    if (random_.chance(1, 4)) store.broken = random_.chance(1, 4);
    if (store.down || !random_.chance(1, 2)) return;
    store.down = true;
    log("store down");
    rig_.sim.world().at(rig_.sim.world().now_ns() + random_.below(20 * kMs),
                        [&store] { store.down = false; });
  }

  // A change was recorded and is carried out on one core after the other: right now a write comes
  // to the first of them, and a device may refuse it.
  void strike_after_a_record() {
    if (settling_ || !random_.chance(1, 4)) return;
    if (random_.chance(1, 3)) {
      devices_[random_.below(kDevices)]->add_rule(fail_writes(io_status::kWriteFault, 1));
    }
    rig_.sim.home().post([this] {
      if (!settling_ && !rig_.channels.empty()) start_write();
    });
  }

  // A rebuild has copied everything: now that its child is about to count, another goes away.
  void strike_at_a_promotion() {
    if (rig_.nexus->rebuild_count() == 0) return;
    for (const ChildInfo& child : rig_.nexus->children()) {
      const auto stats = rig_.nexus->rebuild_stats(child.uri);
      if (!stats.ok() || stats.value().blocks_remaining > 0 || !random_.chance(1, 16)) continue;
      const auto other = static_cast<uint32_t>(random_.below(kDevices));
      if (rig_.uri_of(kNames[other]) == child.uri) continue;
      devices_[other]->release_held();
      devices_[other]->remove_device(io_status::kHostPathError);
      ++faults_;
      log("device %s removed at a promotion", kNames[other]);
    }
  }

  // ---- Ends

  void heal() {
    rig_.store.down = rig_.store.broken = false;
    for (auto& device : devices_) {
      device->clear_rules();
      device->release_held();
    }
  }

  void wait_idle() {
    ASSERT_TRUE(rig_.wait_for([this] { return in_flight_ == 0 && actions_ == 0; }))
        << where() << ": " << in_flight_ << " requests and " << actions_ << " actions hang";
  }

  // The nexus gave up: as the control plane would, build a new one from one healthy child.
  void rebuild_nexus() {
    ++self_shutdowns_;
    const bool were_settling = std::exchange(settling_, true);  // nothing new strikes meanwhile
    heal();
    for (const ChildInfo& child : rig_.nexus->children()) {
      // A paused one would keep its waiters.
      static_cast<void>(rig_.sim.run(rig_.nexus->stop_rebuild(child.uri)));
    }
    wait_idle();
    check_healthy_children();
    ASSERT_TRUE(rig_.sim.run(rig_.nexus->destroy()).ok());
    rig_.channels.clear();
    rig_.nexus.reset();
    rig_.sim.run_for(kMs);
    for (uint32_t i = 0; i < kDevices; ++i) devices_[i] = rig_.put_in_front(kNames[i]);
    std::string healthy;
    for (const char* name : kNames) {
      const std::string entry = "{\"healthy\":true,\"uuid\":\"" + rig_.uuid_of(name) + "\"}";
      if (rig_.store.last().find(entry) != std::string::npos) healthy = name;
    }
    ASSERT_FALSE(healthy.empty()) << where() << ": the record has no healthy child";
    rig_.create_with(rig_.options({healthy}, kSizeMb));
    settling_ = were_settling;
  }

  // Everything is repaired; all children must end up online and equal.
  void settle() {
    settling_ = true;
    heal();
    rig_.sim.run_for(50 * kMs);
    if (rig_.nexus->state() == NexusState::kShutdown) rebuild_nexus();
    for (int round = 0; round < 20 && !all_online(); ++round) {
      heal();
      for (uint32_t i = 0; i < kDevices; ++i) {
        const std::string uri = rig_.uri_of(kNames[i]);
        static_cast<void>(rig_.sim.run(rig_.nexus->resume_rebuild(uri)));
        static_cast<void>(rig_.sim.run(rig_.nexus->start_rebuild(uri)));
        if (rig_.registry.claimed_by(kNames[i]).empty()) devices_[i] = rig_.put_in_front(kNames[i]);
        const auto onlined = rig_.sim.run(rig_.nexus->child_operation(uri, ChildAction::kOnline));
        if (!onlined.ok()) static_cast<void>(rig_.sim.run(rig_.nexus->add_child(uri, false)));
      }
      rig_.sim.run_for(100 * kMs);
    }
    wait_idle();
    ASSERT_TRUE(all_online()) << where() << ": not all children came back";
    check_healthy_children();
    ASSERT_TRUE(rig_.identical("a", "b") && rig_.identical("b", "c")) << where();
    // What the acknowledged state is, the host reads too.
    for (int i = 0; i < 40; ++i) start_read();
    wait_idle();
    ASSERT_TRUE(rig_.sim.run(rig_.nexus->destroy()).ok());
    EXPECT_NE(rig_.store.last().find("\"clean_shutdown\":true"), std::string::npos) << where();
    for (auto& channel : memory_) channel.reset();
  }

  bool all_online() const {
    return rig_.nexus->children().size() == kDevices &&
           rig_.nexus->state() == NexusState::kOnline && rig_.nexus->rebuild_count() == 0;
  }

  const uint64_t seed_;
  const bool verbose_ = std::getenv("NEXUS_SIM_TRACE") != nullptr;
  std::deque<std::shared_ptr<Request>> requests_;  // outlive the rig, whose end completes them
  NexusRig rig_;
  SimRandom random_;
  std::vector<std::vector<Candidate>> cells_;
  std::shared_ptr<FaultBdev> devices_[kDevices];
  std::unique_ptr<Channel> memory_[kDevices];
  std::vector<Request*> reads_;
  std::vector<uint8_t> scratch_;
  std::string shown_;
  bool settling_ = false;
  uint64_t tick_ = 0, last_value_ = 0;
  uint64_t in_flight_ = 0, actions_ = 0;
  uint64_t acknowledged_ = 0, faults_ = 0, self_shutdowns_ = 0;
};

TEST(NexusSimulation, RandomFaultsLoseNoAcknowledgedWrite) {
  uint64_t first = 1, last = 80;
  // NEXUS_SIM_SEED=n replays one, NEXUS_SIM_SEEDS=n runs more.
  if (const char* seed = std::getenv("NEXUS_SIM_SEED"))
    first = last = std::strtoull(seed, nullptr, 10);
  if (const char* count = std::getenv("NEXUS_SIM_SEEDS")) last = std::strtoull(count, nullptr, 10);
  uint64_t acknowledged = 0, faults = 0, self_shutdowns = 0;
  for (uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE("NEXUS_SIM_SEED=" + std::to_string(seed));
    Simulation simulation(seed);
    simulation.run(250);
    acknowledged += simulation.acknowledged();
    faults += simulation.faults();
    self_shutdowns += simulation.self_shutdowns();
    if (HasFailure()) return;
  }
  std::printf("%llu acknowledged writes, %llu faults, %llu self-shutdowns\n",
              static_cast<unsigned long long>(acknowledged),
              static_cast<unsigned long long>(faults),
              static_cast<unsigned long long>(self_shutdowns));
  EXPECT_GT(acknowledged, (last - first + 1) * 40);  // else the test tests nothing
}

}  // namespace
}  // namespace mayastor::nexus

// SimWorld: time and turns. Time moves only when no reactor has anything to do, or by a little per
// round, so that a busy loop cannot stop it.
#include "core/sim_world.h"

#include <algorithm>

#include "core/sim_network.h"
#include "core/sim_ring.h"

namespace mayastor {
namespace {

constexpr uint64_t kRoundNs = 100;                         // what one busy round takes
constexpr uint64_t kEpochNs = 1'767'225'600'000'000'000u;  // 2026-01-01, wall time at zero
constexpr uint64_t kFnvPrime = 0x100000001B3u;

}  // namespace

class SimWorld::WorldClock final : public Clock {
 public:
  explicit WorldClock(const uint64_t& now_ns) : now_ns_(now_ns) {}
  [[nodiscard]] uint64_t now_ns() noexcept override { return now_ns_; }
  [[nodiscard]] uint64_t wall_time_ns() noexcept override { return kEpochNs + now_ns_; }

 private:
  const uint64_t& now_ns_;
};

SimWorld::SimWorld(uint64_t seed)
    : seed_(seed),
      random_(seed),
      clock_(std::make_shared<WorldClock>(now_ns_)),
      network_(std::make_unique<SimNetwork>(*this)) {}

SimWorld::~SimWorld() {
  CHECK(members_.empty());
}  // reactors are destroyed before their world

std::shared_ptr<Clock> SimWorld::clock() const noexcept {
  return clock_;
}

SimDisk& SimWorld::add_disk(const std::string& path, SimDiskOptions options) {
  CHECK(!disks_.contains(path));
  DiskSlot slot;
  slot.disk = std::make_shared<SimDisk>(options, SimRandom(random_.next()));
  slot.present = std::make_shared<bool>(true);
  return *disks_.emplace(path, std::move(slot)).first->second.disk;
}

SimDisk& SimWorld::disk(const std::string& path) {
  const auto found = disks_.find(path);
  CHECK(found != disks_.end());
  return *found->second.disk;
}

void SimWorld::remove_disk_path(const std::string& path) {
  const auto found = disks_.find(path);
  CHECK(found != disks_.end());
  *found->second.present = false;
  disks_.erase(found);
}

void SimWorld::set_network(SimNetworkOptions options) {
  network_->options = options;
}

void SimWorld::set_partitioned(const std::string& a, const std::string& b, bool partitioned) {
  network_->set_partitioned(a, b, partitioned);
}

void SimWorld::reset_connections(const std::string& a, const std::string& b) {
  network_->reset_between(a, b);
}

void SimWorld::reset_host(const std::string& address) {
  network_->reset_host(address);
}

std::unique_ptr<Reactor> SimWorld::make_reactor(const std::string& address, uint32_t index) {
  auto ring = std::make_unique<SimRing>(*this, address);
  SimRing* raw = ring.get();
  ReactorOptions options;
  options.index = index;
  auto reactor = std::make_unique<Reactor>(options, std::move(ring), clock_);
  members_.push_back(Member{raw, reactor.get()});
  return reactor;
}

void SimWorld::at(uint64_t time_ns, std::function<void()> action) {
  actions_.emplace(std::max(time_ns, now_ns_), std::move(action));
}

void SimWorld::trace(uint64_t value) noexcept {
  trace_hash_ = (trace_hash_ ^ value) * kFnvPrime;
  trace_hash_ = (trace_hash_ ^ now_ns_) * kFnvPrime;
}

bool SimWorld::turn() {
  bool any = false;
  while (!actions_.empty() && actions_.begin()->first <= now_ns_) {
    const auto action = std::move(actions_.begin()->second);
    actions_.erase(actions_.begin());
    action();
    any = true;
  }
  std::vector<Member> order = members_;
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_.below(i)]);
  for (const Member& member : order) {
    const bool still_there =
        std::any_of(members_.begin(), members_.end(),
                    [&](const Member& other) { return other.ring == member.ring; });
    if (still_there && member.reactor->run_turn(0)) any = true;
  }
  if (any) now_ns_ += kRoundNs;
  return any;
}

bool SimWorld::advance(uint64_t end) {
  uint64_t next = actions_.empty() ? UINT64_MAX : actions_.begin()->first;
  for (const Member& member : members_) {
    next = std::min({next, member.ring->next_event_ns(), member.reactor->next_timer_ns()});
  }
  if (next == UINT64_MAX || next > end) return false;
  now_ns_ = std::max(now_ns_, next);
  return true;
}

bool SimWorld::run_until(const std::function<bool()>& done, uint64_t limit_ns) {
  const uint64_t end = now_ns_ > UINT64_MAX - limit_ns ? UINT64_MAX : now_ns_ + limit_ns;
  for (;;) {
    if (done()) return true;
    if (now_ns_ > end) return false;
    if (turn()) continue;
    if (!advance(end)) return done();
  }
}

void SimWorld::run_for(uint64_t duration_ns) {
  const uint64_t end = now_ns_ + duration_ns;
  at(end, [] {});
  run_until([this, end] { return now_ns_ >= end; }, duration_ns + 1);
  now_ns_ = std::max(now_ns_, end);
}

}  // namespace mayastor

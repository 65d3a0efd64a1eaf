// Sim: a SimWorld with one host and its reactors, for unit tests: runs a Task to its end in virtual
// time. Usage:
//   Sim sim(/*seed=*/7);
//   SimDisk& disk = sim.world().add_disk("/dev/d0", {.size_bytes = 64u << 20});
//   auto result = sim.run(make_pool(registry, "aio:///dev/d0"));       // any Task<T>
//   sim.run([&]() -> Task<void> { co_await sleep_for(1000); }());      // captures outlive run()
// While a Sim lives, its home reactor is this thread's Reactor::current() outside of tasks too.
// Destroy what lives on the reactors (channels, sockets) before the Sim. Several hosts:
//   SimHost other(sim.world(), "10.0.0.2", /*reactors=*/1);  sim.run_on(other.home(), task);
#pragma once
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/reactor.h"
#include "core/sim_world.h"

namespace mayastor {

// One simulated machine: its reactors share an address on the simulated network.
class SimHost final {
 public:
  SimHost(SimWorld& world, const std::string& address, uint32_t reactor_count)
      : address_(address), reactors_(make(world, address, reactor_count)) {}
  [[nodiscard]] const std::string& address() const noexcept { return address_; }
  [[nodiscard]] Reactors& reactors() noexcept { return reactors_; }
  [[nodiscard]] Reactor& home() noexcept { return reactors_.home(); }

 private:
  static std::vector<std::unique_ptr<Reactor>> make(SimWorld& world, const std::string& address,
                                                    uint32_t count) {
    std::vector<std::unique_ptr<Reactor>> reactors;
    for (uint32_t i = 0; i < count; ++i) reactors.push_back(world.make_reactor(address, i));
    return reactors;
  }
  std::string address_;
  Reactors reactors_;
};

class Sim final {
 public:
  inline static constexpr uint64_t kRunLimitNs = 600'000'000'000;  // virtual

  explicit Sim(uint64_t seed = 1, uint32_t reactor_count = 1, std::string address = "10.0.0.1")
      : world_(seed), host_(world_, address, reactor_count), scope_(host_.home()) {}
  Sim(const Sim&) = delete;
  Sim& operator=(const Sim&) = delete;

  [[nodiscard]] SimWorld& world() noexcept { return world_; }
  [[nodiscard]] SimHost& host() noexcept { return host_; }
  [[nodiscard]] Reactors& reactors() noexcept { return host_.reactors(); }
  [[nodiscard]] Reactor& home() noexcept { return host_.home(); }
  [[nodiscard]] Reactor& reactor(size_t index) noexcept { return host_.reactors().at(index); }

  // Runs `task` on the home reactor until it ends. A task that never ends is a failed CHECK which
  // prints the seed.
  template <typename T>
  T run(Task<T> task) {
    return run_on(host_.home(), std::move(task));
  }
  template <typename T>
  T run_on(Reactor& reactor, Task<T> task) {
    struct Nothing {};
    using Value = std::conditional_t<std::is_void_v<T>, Nothing, T>;
    std::optional<Value> value;
    {
      const Reactor::Scope scope(reactor);
      spawn(store<T, Value>(std::move(task), &value));
    }
    if (!world_.run_until([&value] { return value.has_value(); }, kRunLimitNs)) {
      std::fprintf(stderr, "simulated task never ended: seed %llu\n",
                   static_cast<unsigned long long>(world_.seed()));
      CHECK(value.has_value());
    }
    if constexpr (!std::is_void_v<T>) return std::move(*value);
  }
  bool run_until(const std::function<bool()>& done, uint64_t limit_ns = kRunLimitNs) {
    return world_.run_until(done, limit_ns);
  }
  void run_for(uint64_t duration_ns) { world_.run_for(duration_ns); }

 private:
  template <typename T, typename Value>
  static Task<void> store(Task<T> task, std::optional<Value>* out) {
    if constexpr (std::is_void_v<T>) {
      co_await task;
      out->emplace();
    } else {
      out->emplace(co_await task);
    }
  }
  SimWorld world_;
  SimHost host_;
  Reactor::Scope scope_;
};

}  // namespace mayastor

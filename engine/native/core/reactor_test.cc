// Reactors on real threads: messages, sleeping and waking, timers, hooks. Meant for TSan too.
#include "core/reactor.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "core/make_ring.h"

namespace mayastor {
namespace {

std::unique_ptr<Reactor> make_reactor(uint32_t index, uint64_t max_sleep_ns = 1'000'000'000) {
  auto made = make_ring({});
  CHECK(made.ok());
  ReactorOptions options;
  options.index = index;
  options.max_sleep_ns = max_sleep_ns;
  return std::make_unique<Reactor>(options, std::move(made.value().ring), system_clock());
}

std::unique_ptr<Reactors> start_reactors(uint32_t count, uint64_t max_sleep_ns = 1'000'000'000) {
  std::vector<std::unique_ptr<Reactor>> all;
  for (uint32_t i = 0; i < count; ++i) all.push_back(make_reactor(i, max_sleep_ns));
  auto reactors = std::make_unique<Reactors>(std::move(all));
  reactors->start();
  return reactors;
}

// Blocks a test's thread until a reactor says so.
class Signal final {
 public:
  void set() {
    const std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

struct Ball final : Message {
  Reactor* players[2] = {};
  uint32_t bounces = 0;
  Signal* finished = nullptr;
};

void bounce(Message* message) noexcept {
  auto* ball = static_cast<Ball*>(message);
  if (ball->bounces == 0) {
    ball->finished->set();
    return;
  }
  --ball->bounces;
  ball->players[ball->bounces % 2]->send(ball);
}

TEST(Reactor, PassesMessagesBetweenThreadsHoweverAsleep) {
  const auto reactors = start_reactors(2);
  Signal finished;
  Ball ball;
  ball.fn = bounce;
  ball.players[0] = &reactors->at(0);
  ball.players[1] = &reactors->at(1);
  ball.bounces = 20000;
  ball.finished = &finished;
  reactors->at(1).send(&ball);
  finished.wait();
}

TEST(Reactor, WakesFromSleepForAMessage) {
  const auto reactors = start_reactors(1, /*max_sleep_ns=*/2'000'000);
  for (int32_t i = 0; i < 50; ++i) {
    const uint64_t before = reactors->home().stats().sleeps.load();
    while (reactors->home().stats().sleeps.load() == before) std::this_thread::yield();
    Signal seen;  // sent while it sleeps, or is just about to
    reactors->home().post([&seen] { seen.set(); });
    seen.wait();
  }
}

TEST(Reactor, ManySendersLoseNothing) {
  const auto reactors = start_reactors(1);
  constexpr uint32_t kSenders = 4, kEach = 5000;
  uint32_t received = 0;  // the reactor's own
  std::vector<std::thread> senders;
  for (uint32_t i = 0; i < kSenders; ++i) {
    senders.emplace_back([&] {
      for (uint32_t n = 0; n < kEach; ++n) reactors->home().post([&received] { ++received; });
    });
  }
  for (std::thread& sender : senders) sender.join();
  Signal checked;
  reactors->home().post([&] {
    EXPECT_EQ(received, kSenders * kEach);
    checked.set();
  });
  checked.wait();
}

TEST(Reactor, CallsTasksOnOtherReactors) {
  const auto reactors = start_reactors(2);
  Signal finished;
  const auto run = [](Reactors* all, Signal* signal) -> Task<void> {
    for (uint32_t i = 0; i < 500; ++i) {
      const std::function<Task<uint32_t>()> make = []() -> Task<uint32_t> {
        co_return Reactor::current().index();
      };
      const uint32_t there = co_await call_on<uint32_t>(all->at(1), make);
      EXPECT_EQ(there, 1u);
      EXPECT_EQ(Reactor::current().index(), 0u);
    }
    signal->set();
  };
  reactors->home().post([&] { spawn(run(reactors.get(), &finished)); });
  finished.wait();
}

TEST(Reactor, SleepsLongEnoughAndNotMuchLonger) {
  const auto reactors = start_reactors(1);
  Signal finished;
  const auto run = [](Signal* signal) -> Task<void> {
    Clock& clock = Reactor::current().clock();
    for (const uint64_t wanted : {1'000u, 100'000u, 3'000'000u}) {
      const uint64_t start = clock.now_ns();
      co_await sleep_for(wanted);
      EXPECT_GE(clock.now_ns() - start, wanted);
    }
    signal->set();
  };
  reactors->home().post([&] { spawn(run(&finished)); });
  finished.wait();
}

TEST(Reactor, IdleReactorsSleep) {
  const auto reactors = start_reactors(2);
  Signal passed;
  const auto run = [](Signal* signal) -> Task<void> {
    co_await sleep_for(200'000'000);
    signal->set();
  };
  reactors->home().post([&] { spawn(run(&passed)); });
  passed.wait();
  EXPECT_LT(reactors->at(1).stats().turns.load(), 20'000u);  // spinning would be millions
  EXPECT_GE(reactors->at(1).stats().sleeps.load(), 1u);
}

// --- single-threaded parts ---

// Time that moves only when told to: a busy machine must not reorder these.
class ManualClock final : public Clock {
 public:
  uint64_t ns = 1'000'000;
  [[nodiscard]] uint64_t now_ns() noexcept override { return ns; }
  [[nodiscard]] uint64_t wall_time_ns() noexcept override { return ns; }
};

struct ManualReactor {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  std::unique_ptr<Reactor> reactor;
  ManualReactor() {
    auto made = make_ring({});
    CHECK(made.ok());
    reactor = std::make_unique<Reactor>(ReactorOptions{}, std::move(made.value().ring), clock);
  }
  void pass(uint64_t ns) {
    clock->ns += ns;
    reactor->run_turn(0);
  }
};

TEST(Timer, FireInOrderAndCanBeDisarmed) {
  ManualReactor manual;
  const Reactor::Scope scope(*manual.reactor);
  std::vector<int32_t> order;
  Timer third([&] { order.push_back(3); });
  Timer first([&] { order.push_back(1); });
  Timer never([&] { order.push_back(99); });
  Timer second([&] {
    order.push_back(2);
    never.disarm();
  });
  third.arm_after(3000);
  first.arm_after(10'000);
  never.arm_after(2500);
  second.arm_after(2000);
  first.arm_after(500);  // re-arming moves it
  manual.pass(499);
  EXPECT_TRUE(order.empty());
  manual.pass(1);
  EXPECT_EQ(order, (std::vector<int32_t>{1}));
  manual.pass(5000);  // several due in one turn
  EXPECT_EQ(order, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_FALSE(third.armed());
}

TEST(Timer, HeapAgreesWithASortedList) {
  ManualReactor manual;
  const Reactor::Scope scope(*manual.reactor);
  constexpr size_t kTimers = 300;
  constexpr uint64_t kSlots = 50;
  std::vector<std::unique_ptr<Timer>> timers;
  std::vector<uint64_t> at(kTimers, 0);
  uint64_t now = 0, fired = 0, disarmed = 0, state = 1;
  for (size_t i = 0; i < kTimers; ++i) {
    timers.push_back(std::make_unique<Timer>([&, i] {
      EXPECT_EQ(at[i], now);  // neither early nor late, nor after its disarming
      ++fired;
    }));
    state = state * 6364136223846793005u + 1442695040888963407u;
    at[i] = 1 + (state >> 33) % kSlots;
    timers[i]->arm_after(at[i] * 1000);
  }
  for (size_t i = 0; i < kTimers; i += 3, ++disarmed) {
    timers[i]->disarm();
    at[i] = UINT64_MAX;
  }
  for (now = 1; now <= kSlots; ++now) manual.pass(1000);
  EXPECT_EQ(fired + disarmed, kTimers);
}

struct CountingHook final : TurnEndHook {
  uint32_t count = 0;
  bool again = false;
  void on_turn_end() override {
    ++count;
    if (again) Reactor::current().request_turn_end(this);
  }
};

TEST(TurnEndHook, RunsOncePerRequestedTurn) {
  const auto reactor = make_reactor(0);
  CountingHook hook;
  reactor->request_turn_end(&hook);
  reactor->request_turn_end(&hook);
  reactor->run_turn(0);
  EXPECT_EQ(hook.count, 1u);
  reactor->run_turn(0);
  EXPECT_EQ(hook.count, 1u);
  hook.again = true;
  reactor->request_turn_end(&hook);
  reactor->run_turn(0);
  EXPECT_EQ(hook.count, 2u);
  {
    CountingHook gone;
    reactor->request_turn_end(&gone);
  }
  reactor->run_turn(1'000'000'000);  // must not sleep: the hook asked again
  EXPECT_EQ(hook.count, 3u);
  hook.again = false;
  reactor->run_turn(0);
}

}  // namespace
}  // namespace mayastor

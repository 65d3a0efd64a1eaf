// Reactor: one event loop, one thread, one core. It owns its Ring, timers and everything that runs
// on it. Why: no locks and no contended atomics on the I/O path; cores talk only by messages.
// Adaptive by default: spins while work arrives within the spin budget, then sleeps in the kernel
// until a completion, a message or a timer; `poll` mode never sleeps. Turn order: messages, ring
// events, timers, then the end-of-turn hooks (batched sends).
#pragma once
#include <atomic>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "core/buffer.h"
#include "core/ring.h"
#include "core/share.h"
#include "core/task.h"

namespace mayastor {

class Reactor;

// A message to another core: intrusive, so that the I/O path allocates nothing. Owned by the
// receiver from send() until fn is called, then by whatever fn does with it.
struct Message {
  void (*fn)(Message* message) noexcept = nullptr;
  Message* next = nullptr;
};

// Calls back once at its time unless disarmed. Owned by its user; must be disarmed before
// destruction.
class Timer final {
 public:
  explicit Timer(std::function<void()> callback) : callback_(std::move(callback)) {}
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  void arm_after(uint64_t delay_ns);  // on the current reactor; re-arming moves it
  void disarm() noexcept;
  [[nodiscard]] bool armed() const noexcept { return reactor_ != nullptr; }

 private:
  friend class Reactor;
  std::function<void()> callback_;
  Reactor* reactor_ = nullptr;
  uint64_t at_ns_ = 0;
  size_t heap_index_ = 0;
};

// Runs at the end of each turn in which it was requested (see Reactor::request_turn_end).
class TurnEndHook {
 public:
  virtual ~TurnEndHook();
  virtual void on_turn_end() = 0;

 private:
  friend class Reactor;
  Reactor* requested_on_ = nullptr;
};

struct ReactorOptions {
  uint32_t index = 0;         // position in the engine's list of reactors
  int32_t core = -1;          // CPU to pin to; -1: not pinned
  bool poll = false;          // never sleep
  uint64_t spin_ns = 20'000;  // how long to spin without work before sleeping
  uint64_t max_sleep_ns = 1'000'000'000;
  size_t buffer_limit_bytes = 256u << 20;  // of its BufferPool; mapped as needed
  size_t spare_limit_bytes = 128u << 20;   // of what its users hold besides, each its share
};

struct ReactorStats {  // since start; written by the reactor, read by anyone
  std::atomic<uint64_t> turns{0}, busy_turns{0}, sleeps{0}, messages{0}, cpu_time_ns{0};
};

class Reactor final {
 public:
  Reactor(ReactorOptions options, std::unique_ptr<Ring> ring, std::shared_ptr<Clock> clock);
  ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  [[nodiscard]] static Reactor& current() noexcept;  // CHECKs that this thread runs one
  [[nodiscard]] static Reactor* current_or_null() noexcept;
  [[nodiscard]] uint32_t index() const noexcept { return options_.index; }
  [[nodiscard]] Ring& ring() noexcept { return *ring_; }
  [[nodiscard]] Clock& clock() noexcept { return *clock_; }
  [[nodiscard]] uint64_t now_ns() const noexcept { return now_ns_; }  // as of this turn's start
  [[nodiscard]] const ReactorStats& stats() const noexcept { return stats_; }
  // Own thread.
  [[nodiscard]] BufferPool& buffers() noexcept { return buffers_; }
  [[nodiscard]] Budget& spare() noexcept { return spare_; }
  [[nodiscard]] ShareBook& shares() noexcept { return shares_; }
  // Room for what is looked at within a turn; nullptr while another has it.
  static constexpr size_t kScratchBytes = 256 * 1024;
  [[nodiscard]] uint8_t* borrow_scratch() noexcept;
  void return_scratch() noexcept { scratch_lent_ = false; }

  // Any thread.
  void send(Message* message) noexcept;
  void post(std::function<void()> work);  // allocates: control path only
  void stop() noexcept;                   // run() returns after the current turn

  // Own thread.
  void request_turn_end(TurnEndHook* hook);
  void run();                       // until stop(); makes this thread's current() reactor
  bool run_turn(uint64_t wait_ns);  // one turn; true if it did anything (tests, simulation)
  [[nodiscard]] uint64_t next_timer_ns() const noexcept;  // UINT64_MAX when none

  // Makes this thread's current() for a scope: tests and simulation drive several on one thread.
  class Scope final {
   public:
    explicit Scope(Reactor& reactor) noexcept;
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Reactor* previous_;
  };

 private:
  friend class Timer;
  friend class TurnEndHook;
  bool turn(uint64_t wait_ns);
  bool run_messages();
  bool run_timers();
  bool run_turn_end_hooks();
  [[nodiscard]] uint64_t sleep_limit_ns(uint64_t wanted_ns) noexcept;
  void refresh_cpu_time() noexcept;
  void arm(Timer& timer, uint64_t at_ns);
  void disarm(Timer& timer) noexcept;
  void sift_up(size_t index) noexcept;
  void sift_down(size_t index) noexcept;
  void place(size_t index, Timer* timer) noexcept;

  const ReactorOptions options_;
  std::unique_ptr<Ring> ring_;
  std::shared_ptr<Clock> clock_;
  BufferPool buffers_;
  Budget spare_;
  ShareBook shares_;
  std::unique_ptr<uint8_t[]> scratch_;
  bool scratch_lent_ = false;
  uint64_t now_ns_ = 0;
  std::atomic<Message*> inbox_{nullptr};  // LIFO of senders, reversed by the reader
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> stopping_{false};
  std::vector<Timer*> timers_;  // binary heap by at_ns_
  std::vector<TurnEndHook*> turn_end_hooks_;
  Timer trim_timer_;
  ReactorStats stats_;
};

// `co_await sleep_for(ns)`: continues on the same reactor.
class SleepFor final {
 public:
  explicit SleepFor(uint64_t delay_ns) noexcept
      : delay_ns_(delay_ns), timer_([this] { waiter_.resume(); }) {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    timer_.arm_after(delay_ns_);
  }
  void await_resume() const noexcept {}

 private:
  uint64_t delay_ns_;
  std::coroutine_handle<> waiter_;
  Timer timer_;
};
[[nodiscard]] inline SleepFor sleep_for(uint64_t delay_ns) noexcept {
  return SleepFor(delay_ns);
}

// `T result = co_await call_on<T>(reactor, [] -> Task<T> {...})`: runs the task on `target`, then
// continues on the calling reactor. Works when target is the caller itself (runs inline).
template <typename T>
class CallOn final {
 public:
  CallOn(Reactor& target, std::function<Task<T>()> make)
      : target_(target), make_(std::move(make)) {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    Reactor* home = &Reactor::current();
    waiter_ = waiter;
    target_.post([this, home] { spawn(run(home)); });
  }
  T await_resume() {
    if constexpr (!std::is_void_v<T>) return std::move(*value_);
  }

 private:
  struct Nothing {};
  Task<void> run(Reactor* home) {
    if constexpr (std::is_void_v<T>) {
      co_await make_();
    } else {
      value_.emplace(co_await make_());
    }
    home->post([this] { waiter_.resume(); });
  }
  Reactor& target_;
  std::function<Task<T>()> make_;
  std::coroutine_handle<> waiter_;
  std::optional<std::conditional_t<std::is_void_v<T>, Nothing, T>> value_;
};
template <typename T>
[[nodiscard]] CallOn<T> call_on(Reactor& target, std::function<Task<T>()> make) {
  return CallOn<T>(target, std::move(make));
}

// All reactors of an engine, started and joined together. The first is `home`: control paths
// (pools, nexus changes, the target's admin queues) run there.
class Reactors final {
 public:
  explicit Reactors(std::vector<std::unique_ptr<Reactor>> reactors)
      : reactors_(std::move(reactors)) {}
  ~Reactors();
  Reactors(const Reactors&) = delete;
  Reactors& operator=(const Reactors&) = delete;
  void start();          // one thread each
  void stop_and_join();  // idempotent
  [[nodiscard]] Reactor& home() noexcept { return *reactors_.front(); }
  [[nodiscard]] Reactor& at(size_t index) noexcept { return *reactors_.at(index); }
  [[nodiscard]] size_t size() const noexcept { return reactors_.size(); }

 private:
  std::vector<std::unique_ptr<Reactor>> reactors_;
  std::vector<std::thread> threads_;
};

}  // namespace mayastor

// Task<T>: a lazy coroutine for the control path (open, create, import, connect, rebuild steps).
// Why: ordered disk and network steps read top to bottom. The per-I/O path does not use it.
// Invariants: a Task runs on the reactor that awaits it, never moves between threads by itself, and
// is destroyed only when finished or never started. No exceptions: an escaped one ends the process.
// GCC 12: bind arguments of a co_await'ed call to named locals first; no braced lists inside
// co_await. A coroutine must take its parameters by value (or refer only to things that outlive
// it).
#pragma once
#include <coroutine>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "util/check.h"

namespace mayastor {

template <typename T>
class Task;

namespace task_detail {
struct FinalAwaiter {
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  template <typename Promise>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> handle) const noexcept {
    auto next = handle.promise().continuation;
    return next ? next : std::noop_coroutine();
  }
  void await_resume() const noexcept {}
};
struct PromiseBase {
  std::coroutine_handle<> continuation;
  [[nodiscard]] std::suspend_always initial_suspend() const noexcept { return {}; }
  [[nodiscard]] FinalAwaiter final_suspend() const noexcept { return {}; }
  [[noreturn]] void unhandled_exception() const noexcept { std::abort(); }
};
template <typename T>
struct Promise : PromiseBase {
  std::optional<T> value;
  Task<T> get_return_object() noexcept;
  void return_value(T result) { value.emplace(std::move(result)); }
};
template <>
struct Promise<void> : PromiseBase {
  Task<void> get_return_object() noexcept;
  void return_void() const noexcept {}
};
}  // namespace task_detail

template <typename T>
class [[nodiscard]] Task final {
 public:
  using promise_type = task_detail::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;
  explicit Task(Handle handle) noexcept : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&&) = delete;
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
    handle_.promise().continuation = awaiting;
    return handle_;
  }
  T await_resume() {
    if constexpr (!std::is_void_v<T>) {
      CHECK(handle_.promise().value.has_value());
      return std::move(*handle_.promise().value);
    }
  }

 private:
  Handle handle_;
};

namespace task_detail {
template <typename T>
Task<T> Promise<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Task<void> Promise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}
struct Detached {
  struct promise_type {
    [[nodiscard]] Detached get_return_object() const noexcept { return {}; }
    [[nodiscard]] std::suspend_never initial_suspend() const noexcept { return {}; }
    [[nodiscard]] std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    [[noreturn]] void unhandled_exception() const noexcept { std::abort(); }
  };
};
}  // namespace task_detail

// Starts a task now, on this reactor; nothing waits for it. Its owner must outlive it (use a
// Latch).
inline void spawn(Task<void> task) {
  [](Task<void> owned) -> task_detail::Detached { co_await owned; }(std::move(task));
}

// One value handed from a callback to one waiting coroutine: set() once, `co_await` once, any
// order, both on one reactor. set() resumes the waiter inline.
template <typename T>
class Completion final {
 public:
  Completion() = default;
  Completion(const Completion&) = delete;
  Completion& operator=(const Completion&) = delete;
  void set(T value) {
    CHECK(!value_.has_value());
    value_.emplace(std::move(value));
    if (auto waiter = std::exchange(waiter_, {})) waiter.resume();
  }
  [[nodiscard]] bool is_set() const noexcept { return value_.has_value(); }
  [[nodiscard]] bool await_ready() const noexcept { return value_.has_value(); }
  void await_suspend(std::coroutine_handle<> waiter) noexcept {
    CHECK(!waiter_);
    waiter_ = waiter;
  }
  T await_resume() { return std::move(*value_); }

 private:
  std::optional<T> value_;
  std::coroutine_handle<> waiter_;
};

// Counts things in flight; `co_await latch` continues when the count is zero. Many may wait.
class Latch final {
 public:
  Latch() = default;
  Latch(const Latch&) = delete;
  Latch& operator=(const Latch&) = delete;
  ~Latch() { CHECK(count_ == 0 && waiters_.empty()); }
  void add() noexcept { ++count_; }
  void done() {
    CHECK(count_ > 0);
    if (--count_ > 0) return;
    auto waiters = std::exchange(waiters_, {});
    for (auto waiter : waiters) waiter.resume();
  }
  [[nodiscard]] uint32_t count() const noexcept { return count_; }
  [[nodiscard]] bool await_ready() const noexcept { return count_ == 0; }
  void await_suspend(std::coroutine_handle<> waiter) { waiters_.push_back(waiter); }
  void await_resume() const noexcept {}

 private:
  uint32_t count_ = 0;
  std::vector<std::coroutine_handle<>> waiters_;
};

// Mutual exclusion between coroutines of one reactor, first come first served.
// Usage: `co_await mutex.lock(); ... mutex.unlock();` with no early exit between, or AsyncLock.
class AsyncMutex final {
 public:
  AsyncMutex() = default;
  AsyncMutex(const AsyncMutex&) = delete;
  AsyncMutex& operator=(const AsyncMutex&) = delete;
  struct LockAwaiter {
    AsyncMutex& mutex;
    [[nodiscard]] bool await_ready() const noexcept {
      if (mutex.locked_) return false;
      mutex.locked_ = true;
      return true;
    }
    void await_suspend(std::coroutine_handle<> waiter) const { mutex.waiters_.push_back(waiter); }
    void await_resume() const noexcept {}
  };
  [[nodiscard]] LockAwaiter lock() noexcept { return LockAwaiter{*this}; }
  void unlock() {
    CHECK(locked_);
    if (waiters_.empty()) {
      locked_ = false;
      return;
    }
    auto next = waiters_.front();
    waiters_.erase(waiters_.begin());
    next.resume();  // the lock passes on without being free in between
  }

 private:
  bool locked_ = false;
  std::vector<std::coroutine_handle<>> waiters_;
};

// Unlocks at the end of a scope: `co_await mutex.lock(); AsyncLock held(mutex);`
class AsyncLock final {
 public:
  explicit AsyncLock(AsyncMutex& mutex) noexcept : mutex_(mutex) {}
  AsyncLock(const AsyncLock&) = delete;
  AsyncLock& operator=(const AsyncLock&) = delete;
  ~AsyncLock() { mutex_.unlock(); }

 private:
  AsyncMutex& mutex_;
};

}  // namespace mayastor

// Reactor: the loop itself, its inbox, its timers (a binary heap that knows each timer's place).
// The sleep handshake: the reactor sets sleeping_ and then looks at the inbox; a sender fills the
// inbox and then looks at sleeping_. Both sides are sequentially consistent, so at least one of
// them sees the other: a message never waits for a sleeping reactor.
#include "core/reactor.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <cstdio>

namespace mayastor {
namespace {

constexpr uint64_t kTrimEveryNs = 5'000'000'000;

thread_local Reactor* current_reactor = nullptr;

constexpr uint64_t kCpuTimeRefreshTurns = 4096;  // between readings while busy (a system call)

struct PostedWork final : Message {
  explicit PostedWork(std::function<void()> to_do) : work(std::move(to_do)) {
    fn = [](Message* message) noexcept {
      const std::unique_ptr<PostedWork> self(static_cast<PostedWork*>(message));
      self->work();
    };
  }
  std::function<void()> work;
};

void prepare_thread(const ReactorOptions& options) noexcept {
  const std::string name = "reactor_" + std::to_string(options.index);
  pthread_setname_np(pthread_self(), name.c_str());
  // Sleeps end on time: the default slack of 50 us is longer than most of our timers.
  prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
  if (options.core < 0 || options.core >= CPU_SETSIZE) return;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(static_cast<size_t>(options.core), &cpus);
  const int32_t failed = pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
  if (failed != 0) {  // still correct, only slower: a container may forbid the core
    std::fprintf(stderr, "reactor %u: cannot pin to core %d (errno %d), running unpinned\n",
                 options.index, options.core, failed);
  }
}

}  // namespace

// --- Timer ---------------------------------------------------------------------------------------

Timer::~Timer() {
  disarm();
}

void Timer::arm_after(uint64_t delay_ns) {
  disarm();
  Reactor& reactor = Reactor::current();
  // At least one tick ahead, so that a timer re-armed by its own callback waits for the next turn.
  const uint64_t now = std::max(reactor.clock().now_ns(), reactor.now_ns());
  const uint64_t step = std::max<uint64_t>(delay_ns, 1);
  reactor.arm(*this, now > UINT64_MAX - step ? UINT64_MAX : now + step);
}

void Timer::disarm() noexcept {
  if (reactor_ != nullptr) reactor_->disarm(*this);
}

TurnEndHook::~TurnEndHook() {
  if (requested_on_ == nullptr) return;
  for (TurnEndHook*& hook : requested_on_->turn_end_hooks_) {
    if (hook == this) hook = nullptr;
  }
}

// --- Reactor -------------------------------------------------------------------------------------

Reactor::Reactor(ReactorOptions options, std::unique_ptr<Ring> ring, std::shared_ptr<Clock> clock)
    : options_(options),
      ring_(std::move(ring)),
      clock_(std::move(clock)),
      buffers_(options.buffer_limit_bytes),
      spare_(options.spare_limit_bytes),
      now_ns_(clock_->now_ns()),
      trim_timer_([this] { buffers_.trim(); }) {
  CHECK(ring_ != nullptr);
}

Reactor::~Reactor() {
  const Scope scope(*this);
  // Messages that never ran own things (a posted function its captures): running them is the only
  // way to release those, and they may send further ones.
  while (run_messages()) {
  }
  for (Timer* timer : timers_) timer->reactor_ = nullptr;
  for (TurnEndHook* hook : turn_end_hooks_) {
    if (hook != nullptr) hook->requested_on_ = nullptr;
  }
  ring_.reset();
}

Reactor& Reactor::current() noexcept {
  CHECK(current_reactor != nullptr);
  return *current_reactor;
}

Reactor* Reactor::current_or_null() noexcept {
  return current_reactor;
}

Reactor::Scope::Scope(Reactor& reactor) noexcept : previous_(current_reactor) {
  current_reactor = &reactor;
}

Reactor::Scope::~Scope() {
  current_reactor = previous_;
}

void Reactor::send(Message* message) noexcept {
  Message* head = inbox_.load(std::memory_order_relaxed);
  do {
    message->next = head;
  } while (!inbox_.compare_exchange_weak(head, message, std::memory_order_seq_cst,
                                         std::memory_order_relaxed));
  if (sleeping_.load(std::memory_order_seq_cst) &&
      sleeping_.exchange(false, std::memory_order_seq_cst)) {
    ring_->wake();
  }
}

void Reactor::post(std::function<void()> work) {
  send(new PostedWork(std::move(work)));
}

void Reactor::stop() noexcept {
  stopping_.store(true, std::memory_order_seq_cst);
  if (sleeping_.exchange(false, std::memory_order_seq_cst)) ring_->wake();
}

void Reactor::request_turn_end(TurnEndHook* hook) {
  if (hook->requested_on_ != nullptr) return;
  hook->requested_on_ = this;
  turn_end_hooks_.push_back(hook);
}

bool Reactor::run_messages() {
  if (inbox_.load(std::memory_order_relaxed) == nullptr) return false;
  Message* newest = inbox_.exchange(nullptr, std::memory_order_acquire);
  Message* oldest = nullptr;
  while (newest != nullptr) {
    Message* next = newest->next;
    newest->next = oldest;
    oldest = newest;
    newest = next;
  }
  uint64_t count = 0;
  while (oldest != nullptr) {
    Message* message = oldest;
    oldest = oldest->next;
    message->fn(message);
    ++count;
  }
  stats_.messages.store(stats_.messages.load(std::memory_order_relaxed) + count,
                        std::memory_order_relaxed);
  return count > 0;
}

bool Reactor::run_turn_end_hooks() {
  const size_t count = turn_end_hooks_.size();
  if (count == 0) return false;
  for (size_t i = 0; i < count; ++i) {  // those requested meanwhile wait for the next turn
    TurnEndHook* hook = std::exchange(turn_end_hooks_[i], nullptr);
    if (hook == nullptr) continue;
    hook->requested_on_ = nullptr;
    hook->on_turn_end();
  }
  turn_end_hooks_.erase(turn_end_hooks_.begin(),
                        turn_end_hooks_.begin() + static_cast<ptrdiff_t>(count));
  return true;
}

uint64_t Reactor::sleep_limit_ns(uint64_t wanted_ns) noexcept {
  if (!turn_end_hooks_.empty()) return 0;
  const uint64_t next = next_timer_ns();
  return next <= now_ns_ ? 0 : std::min(wanted_ns, next - now_ns_);
}

uint8_t* Reactor::borrow_scratch() noexcept {
  if (scratch_lent_) return nullptr;
  scratch_lent_ = true;
  if (!scratch_) scratch_ = std::make_unique_for_overwrite<uint8_t[]>(kScratchBytes);
  return scratch_.get();
}

bool Reactor::turn(uint64_t wait_ns) {
  now_ns_ = clock_->now_ns();
  if (buffers_.wants_trim() && !trim_timer_.armed()) [[unlikely]] {
    trim_timer_.arm_after(kTrimEveryNs);
  }
  bool busy = run_messages();
  uint64_t wait = busy ? 0 : wait_ns;
  if (wait > 0) wait = sleep_limit_ns(wait);
  if (wait > 0) {
    sleeping_.store(true, std::memory_order_seq_cst);
    if (inbox_.load(std::memory_order_seq_cst) != nullptr ||
        stopping_.load(std::memory_order_seq_cst)) {
      wait = 0;
    } else {
      stats_.sleeps.store(stats_.sleeps.load(std::memory_order_relaxed) + 1,
                          std::memory_order_relaxed);
      refresh_cpu_time();
    }
  }
  busy |= ring_->poll(wait) > 0;
  if (wait_ns > 0) {
    sleeping_.store(false, std::memory_order_relaxed);
    now_ns_ = clock_->now_ns();
  }
  busy |= run_timers();
  busy |= run_turn_end_hooks();
  const uint64_t turns = stats_.turns.load(std::memory_order_relaxed) + 1;
  stats_.turns.store(turns, std::memory_order_relaxed);
  if (busy) {
    stats_.busy_turns.store(stats_.busy_turns.load(std::memory_order_relaxed) + 1,
                            std::memory_order_relaxed);
  }
  if (turns % kCpuTimeRefreshTurns == 0) refresh_cpu_time();
  return busy;
}

bool Reactor::run_turn(uint64_t wait_ns) {
  const Scope scope(*this);
  return turn(wait_ns);
}

void Reactor::run() {
  const Scope scope(*this);
  prepare_thread(options_);
  uint64_t last_work_ns = clock_->now_ns();
  while (!stopping_.load(std::memory_order_relaxed)) {
    const bool may_sleep = !options_.poll && now_ns_ - last_work_ns >= options_.spin_ns;
    if (turn(may_sleep ? options_.max_sleep_ns : 0)) last_work_ns = now_ns_;
  }
  while (run_messages()) {  // what was sent before stop() is done
  }
  refresh_cpu_time();
  stopping_.store(false, std::memory_order_relaxed);
}

void Reactor::refresh_cpu_time() noexcept {
  timespec used{};
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) != 0) return;
  stats_.cpu_time_ns.store(
      static_cast<uint64_t>(used.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(used.tv_nsec),
      std::memory_order_relaxed);
}

// --- timers --------------------------------------------------------------------------------------

uint64_t Reactor::next_timer_ns() const noexcept {
  return timers_.empty() ? UINT64_MAX : timers_.front()->at_ns_;
}

bool Reactor::run_timers() {
  bool any = false;
  while (!timers_.empty() && timers_.front()->at_ns_ <= now_ns_) {
    Timer* timer = timers_.front();
    disarm(*timer);
    timer->callback_();  // may re-arm or destroy it
    any = true;
  }
  return any;
}

void Reactor::place(size_t index, Timer* timer) noexcept {
  timers_[index] = timer;
  timer->heap_index_ = index;
}

void Reactor::sift_up(size_t index) noexcept {
  Timer* timer = timers_[index];
  while (index > 0) {
    const size_t parent = (index - 1) / 2;
    if (timers_[parent]->at_ns_ <= timer->at_ns_) break;
    place(index, timers_[parent]);
    index = parent;
  }
  place(index, timer);
}

void Reactor::sift_down(size_t index) noexcept {
  Timer* timer = timers_[index];
  for (;;) {
    size_t child = 2 * index + 1;
    if (child >= timers_.size()) break;
    if (child + 1 < timers_.size() && timers_[child + 1]->at_ns_ < timers_[child]->at_ns_) ++child;
    if (timer->at_ns_ <= timers_[child]->at_ns_) break;
    place(index, timers_[child]);
    index = child;
  }
  place(index, timer);
}

void Reactor::arm(Timer& timer, uint64_t at_ns) {
  CHECK(current_reactor == this && timer.reactor_ == nullptr);
  timer.reactor_ = this;
  timer.at_ns_ = at_ns;
  timers_.push_back(&timer);
  sift_up(timers_.size() - 1);
}

void Reactor::disarm(Timer& timer) noexcept {
  CHECK(timer.reactor_ == this && timers_[timer.heap_index_] == &timer);
  const size_t index = timer.heap_index_;
  timer.reactor_ = nullptr;
  Timer* last = timers_.back();
  timers_.pop_back();
  if (last == &timer) return;
  place(index, last);
  sift_up(index);
  sift_down(last->heap_index_);
}

// --- Reactors ------------------------------------------------------------------------------------

Reactors::~Reactors() {
  stop_and_join();
}

void Reactors::start() {
  CHECK(threads_.empty());
  threads_.reserve(reactors_.size());
  for (const auto& reactor : reactors_) {
    threads_.emplace_back([raw = reactor.get()] { raw->run(); });
  }
}

void Reactors::stop_and_join() {
  for (size_t i = 0; i < threads_.size(); ++i) reactors_[i]->stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace mayastor

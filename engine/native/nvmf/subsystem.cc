#include "nvmf/subsystem.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "nvmf/controller.h"
#include "nvmf/io_queue.h"
#include "nvmf/ptpl_file.h"
#include "util/check.h"

namespace mayastor::nvmf::target {

// ---- NamespaceShard
// ------------------------------------------------------------------------------

NamespaceShard::NamespaceShard(std::shared_ptr<Bdev> bdev, AnaState ana,
                               std::shared_ptr<const ReservationState> reservations)
    : bdev_(std::move(bdev)), ana_(ana), reservations_(std::move(reservations)) {
  block_shift_ = static_cast<uint32_t>(std::countr_zero(bdev_->block_size()));
  set_size(bdev_->size_bytes());
}

void NamespaceShard::add_queue(IoQueue* queue) {
  queues_.push_back(queue);
}

void NamespaceShard::remove_queue(IoQueue* queue) noexcept {
  std::erase(queues_, queue);
  if (!waiters_.empty()) check_waiters();
}

Task<void> NamespaceShard::wait_for(std::function<bool()> over) {
  if (over()) co_return;
  Completion<bool> done;
  waiters_.push_back({std::move(over), &done});
  co_await done;
}

void NamespaceShard::check_waiters() noexcept {
  std::vector<Completion<bool>*> ready;
  std::erase_if(waiters_, [&](const Waiter& waiter) {
    if (!waiter.over()) return false;
    ready.push_back(waiter.done);
    return true;
  });
  for (Completion<bool>* done : ready) done->set(true);
}

Task<void> NamespaceShard::pause() {
  ++pauses_;
  return drain();
}

Task<void> NamespaceShard::drain() {
  std::function<bool()> over = [this] { return in_flight_ == 0; };
  co_await wait_for(std::move(over));
}

void NamespaceShard::resume() {
  CHECK(pauses_ > 0);
  if (--pauses_ > 0) return;
  const std::vector<IoQueue*> queues = queues_;
  for (IoQueue* queue : queues) queue->run_held();
}

Task<void> NamespaceShard::set_reservations(std::shared_ptr<const ReservationState> reservations) {
  reservations_ = std::move(reservations);
  for (IoQueue* queue : queues_) queue->set_denied(reservations_->denied(queue->host()));
  // What a host may no longer do, and has begun, ends before the command that fenced it answers.
  std::function<bool()> over = [this] {
    return std::all_of(queues_.begin(), queues_.end(),
                       [](const IoQueue* queue) { return queue->drained_of_denied(); });
  };
  co_await wait_for(std::move(over));
}

// ---- Subsystem
// -----------------------------------------------------------------------------------

Subsystem::Subsystem(Reactors& reactors, SubsystemOptions options,
                     std::function<void(const std::string&)> log)
    : reactors_(reactors),
      options_(std::move(options)),
      log_(std::move(log)),
      ana_(options_.ana_state),
      reservations_(std::make_shared<ReservationState>()) {
  if (!discovery()) make_shards();
}

void Subsystem::make_shards() {
  shards_.clear();
  for (size_t i = 0; i < reactors_.size(); ++i) {
    shards_.push_back(std::make_unique<NamespaceShard>(options_.bdev, ana_, reservations_));
  }
}

Subsystem::~Subsystem() {
  CHECK(controllers_.empty());
}

bool Subsystem::allows(const std::string& host_nqn) const {
  return options_.allowed_hosts.empty() ||
         std::find(options_.allowed_hosts.begin(), options_.allowed_hosts.end(), host_nqn) !=
             options_.allowed_hosts.end();
}

Task<void> Subsystem::on_shard(size_t index, std::function<Task<void>(NamespaceShard&)>* step,
                               Latch* latch) {
  NamespaceShard* const shard = shards_[index].get();
  std::function<Task<void>()> make = [step, shard] { return (*step)(*shard); };
  co_await call_on<void>(reactors_.at(index), make);
  latch->done();
}

Task<void> Subsystem::on_all_shards(std::function<Task<void>(NamespaceShard&)> step) {
  Latch latch;
  for (size_t i = 0; i < shards_.size(); ++i) {
    latch.add();
    spawn(on_shard(i, &step, &latch));
  }
  co_await latch;
}

Result<void> Subsystem::load_reservations() {
  CHECK(controllers_.empty());
  if (discovery() || options_.ptpl_path.empty()) return {};
  const auto content = read_file(options_.ptpl_path);
  if (!content.ok()) return content.error();
  if (content.value().empty()) return {};
  auto loaded = ReservationState::from_json(content.value(), options_.bdev->uuid());
  if (!loaded.ok()) return loaded.error();
  saved_ = true;
  reservations_ = std::make_shared<ReservationState>(loaded.take());
  make_shards();
  return {};
}

Task<void> Subsystem::set_allowed_hosts(std::vector<std::string> hosts) {
  options_.allowed_hosts = std::move(hosts);
  auto controllers = controllers_;
  for (const auto& [id, controller] : controllers) {
    if (!allows(controller->host_nqn())) controller->terminate("the host is no longer allowed");
  }
  co_return;
}

Task<void> Subsystem::set_ana_state(AnaState state) {
  co_await mutex_.lock();
  AsyncLock held(mutex_);
  if (ana_ != state) {
    ana_ = state;
    ++ana_changes_;
    std::function<Task<void>(NamespaceShard&)> step = [state](NamespaceShard& shard) -> Task<void> {
      shard.set_ana(state);
      co_return;
    };
    co_await on_all_shards(std::move(step));
    if (options_.ana_reporting) {
      for (const auto& [id, controller] : controllers_) controller->notify_ana_changed();
    }
  }
  if (state == AnaState::kOptimized || state == AnaState::kNonOptimized) co_return;
  std::function<Task<void>(NamespaceShard&)> drain = [](NamespaceShard& shard) {
    return shard.drain();
  };
  co_await on_all_shards(std::move(drain));
}

Task<void> Subsystem::pause() {
  co_await mutex_.lock();
  AsyncLock held(mutex_);
  ++user_pauses_;
  std::function<Task<void>(NamespaceShard&)> step = [](NamespaceShard& shard) {
    return shard.pause();
  };
  co_await on_all_shards(std::move(step));
}

Task<Result<void>> Subsystem::resume() {
  co_await mutex_.lock();
  AsyncLock held(mutex_);
  if (user_pauses_ == 0) {
    co_return Error{ErrorCode::kFailedPrecondition,
                    "Cannot resume subsystem " + options_.nqn + ": it is not paused"};
  }
  --user_pauses_;
  std::function<Task<void>(NamespaceShard&)> step = [](NamespaceShard& shard) -> Task<void> {
    shard.resume();
    co_return;
  };
  co_await on_all_shards(std::move(step));
  if (user_pauses_ == 0) {
    for (Completion<bool>* waiter : std::exchange(resume_waiters_, {})) waiter->set(true);
  }
  co_return Result<void>();
}

Task<void> Subsystem::namespace_changed() {
  co_await mutex_.lock();
  AsyncLock held(mutex_);
  const uint64_t size_bytes = options_.bdev->size_bytes();
  std::function<Task<void>(NamespaceShard&)> step =
      [size_bytes](NamespaceShard& shard) -> Task<void> {
    shard.set_size(size_bytes);
    co_return;
  };
  co_await on_all_shards(std::move(step));
  for (const auto& [id, controller] : controllers_) controller->notify_namespace_changed();
}

Task<void> Subsystem::remove() {
  removing_ = true;
  for (Completion<bool>* waiter : std::exchange(resume_waiters_, {})) waiter->set(false);
  wake(std::exchange(replacements_, {}), false);
  const auto controllers = controllers_;
  for (const auto& [id, controller] : controllers) {
    controller->terminate("the subsystem was removed");
  }
  co_await live_controllers_;
  co_await mutex_.lock();  // whatever still runs on the home reactor
  AsyncLock held(mutex_);
}

// ---- Reservations
// --------------------------------------------------------------------------------

IoStatus Subsystem::apply(const Sqe& sqe, const HostId& host, const std::vector<uint8_t>& data,
                          ReservationState& state) const {
  const bool ignore_key = (sqe.cdw10 & 8) != 0;
  const auto type = static_cast<uint8_t>(sqe.cdw10 >> 8);
  const uint8_t action = sqe.cdw10 & 7;
  switch (sqe.opcode) {
    case kIoReservationRegister: {
      ReservationRegisterData keys;
      std::memcpy(&keys, data.data(), sizeof(keys));
      return state.register_key(host, keys, static_cast<Reservations::RegisterAction>(action),
                                ignore_key, static_cast<uint8_t>(sqe.cdw10 >> 30),
                                !options_.ptpl_path.empty());
    }
    case kIoReservationAcquire: {
      ReservationAcquireData keys;
      std::memcpy(&keys, data.data(), sizeof(keys));
      return state.acquire(host, keys, static_cast<Reservations::AcquireAction>(action), ignore_key,
                           type);
    }
    default: {
      CHECK(sqe.opcode == kIoReservationRelease);
      ReservationReleaseData keys;
      std::memcpy(&keys, data.data(), sizeof(keys));
      return state.release(host, keys, static_cast<Reservations::ReleaseAction>(action), ignore_key,
                           type);
    }
  }
}

Task<Result<void>> Subsystem::save(const ReservationState* state) {
  if (options_.ptpl_path.empty()) co_return Result<void>();
  if (state->persists()) {
    saved_ = true;
    std::string path = options_.ptpl_path;
    std::string content = state->to_json(options_.bdev->uuid());
    co_return co_await replace_file_async(std::move(path), std::move(content));
  }
  if (!saved_) co_return Result<void>();
  std::string path = options_.ptpl_path;
  auto removed = co_await remove_file_async(std::move(path));
  if (removed.ok()) saved_ = false;
  co_return removed;
}

Task<IoStatus> Subsystem::reserve(Sqe sqe, HostId host, std::vector<uint8_t> data) {
  co_await mutex_.lock();
  AsyncLock held(mutex_);
  auto next = std::make_shared<ReservationState>(*reservations_);
  const IoStatus status = apply(sqe, host, data, *next);
  if (!status.ok()) co_return status;
  const auto saved = co_await save(next.get());
  if (!saved.ok()) {
    // Nothing has changed here; the file may have the new state though, and a restart would believe
    // it: put the old one back.
    const auto restored = co_await save(reservations_.get());
    if (log_ && restored.ok()) log_(saved.error().message + "; its content is as before");
    if (log_ && !restored.ok()) {
      log_(saved.error().message + "; what it holds is unknown until a reservation of " +
           options_.nqn + " is saved: " + restored.error().message);
    }
    co_return io_status::kInternalError;
  }
  const std::vector<ReservationEvent> events = next->take_events();
  reservations_ = next;
  std::function<Task<void>(NamespaceShard&)> step = [next](NamespaceShard& shard) {
    return shard.set_reservations(next);
  };
  co_await on_all_shards(std::move(step));
  for (const ReservationEvent& event : events) {
    for (const auto& [id, controller] : controllers_) {
      if (controller->host_id() == event.host) controller->notify_reservation(event.notice);
    }
  }
  co_return io_status::kOk;
}

Task<bool> Subsystem::begin_exclusive() {
  co_await mutex_.lock();
  while (user_pauses_ > 0 && !removing_) {
    mutex_.unlock();
    Completion<bool> resumed;
    resume_waiters_.push_back(&resumed);
    co_await resumed;
    co_await mutex_.lock();
  }
  if (removing_) {
    mutex_.unlock();
    co_return false;
  }
  std::function<Task<void>(NamespaceShard&)> step = [](NamespaceShard& shard) {
    return shard.pause();
  };
  co_await on_all_shards(std::move(step));
  co_return true;
}

Task<void> Subsystem::end_exclusive() {
  std::function<Task<void>(NamespaceShard&)> step = [](NamespaceShard& shard) -> Task<void> {
    shard.resume();
    co_return;
  };
  co_await on_all_shards(std::move(step));
  mutex_.unlock();
}

// ---- Controllers
// ---------------------------------------------------------------------------------

uint16_t Subsystem::allocate_controller_id() {
  const uint32_t range = options_.cntlid_max - options_.cntlid_min + 1U;
  for (uint32_t i = 0; i < range; ++i) {
    const auto id = static_cast<uint16_t>(options_.cntlid_min + (next_controller_id_ + i) % range);
    if (controllers_.count(id) != 0) continue;
    next_controller_id_ = static_cast<uint16_t>(id - options_.cntlid_min + 1U);
    return id;
  }
  return 0;
}

void Subsystem::add_controller(std::shared_ptr<Controller> controller) {
  live_controllers_.add();
  const uint16_t id = controller->id();
  if (options_.ledger) options_.ledger->joined(controller->host_nqn(), controller->host_id());
  CHECK(controllers_.emplace(id, std::move(controller)).second);
}

void Subsystem::remove_controller(uint16_t id) {
  const auto found = controllers_.find(id);
  CHECK(found != controllers_.end());
  const Controller& gone = *found->second;
  if (options_.ledger && !gone.shut_down()) {
    options_.ledger->lost(gone.host_nqn(), gone.host_id());
  }
  controllers_.erase(found);
  wake(std::exchange(replacements_, {}), true);
  live_controllers_.done();
}

// In a later turn: nothing of the controller that went is on the stack then.
void Subsystem::wake(std::vector<Replacement*> waiters, bool go_on) {
  for (Replacement* waiter : waiters) {
    home().post([waiter, go_on] { waiter->go_on.set(go_on); });
  }
}

Task<bool> Subsystem::replace_controllers(HostId host, std::string host_nqn, uint64_t turn) {
  if (!options_.one_controller_per_host || options_.ana_reporting || discovery()) co_return true;
  std::vector<Replacement*> superseded;
  std::erase_if(replacements_, [&](Replacement* waiting) {
    if (waiting->host != host || waiting->host_nqn != host_nqn) return false;
    superseded.push_back(waiting);
    return true;
  });
  wake(std::move(superseded), false);
  while (!removing_ && allows(host_nqn)) {
    bool alone = true;
    for (const auto& [id, controller] : controllers_) {
      if (controller->host_id() != host || controller->host_nqn() != host_nqn) continue;
      if (controller->connect_turn() > turn) co_return false;
      controller->terminate("the host connected anew");
      alone = false;
    }
    if (alone) co_return true;
    Replacement waiting{host, host_nqn, {}};
    replacements_.push_back(&waiting);
    const bool go_on = co_await waiting.go_on;
    if (!go_on) co_return false;
  }
  co_return false;
}

std::shared_ptr<Controller> Subsystem::find_controller(uint16_t id) const {
  const auto found = controllers_.find(id);
  return found == controllers_.end() ? nullptr : found->second;
}

}  // namespace mayastor::nvmf::target

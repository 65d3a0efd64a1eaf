// One exported namespace: what every reactor must know of it (NamespaceShard), and the home
// reactor's truth (Subsystem): allowed hosts, ANA state, pauses, reservations, controllers.
// Why shards: an I/O tests plain fields of its own reactor; a change is told to all reactors and
// counts only when all have acknowledged.
// Invariants: a shard is touched on its reactor only; a change of admission (pause, ANA, denied
// access) is acknowledged when the I/O it forbids, already with the bdev, has ended.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bdev/bdev.h"
#include "core/reactor.h"
#include "core/task.h"
#include "nvmf/reservation.h"
#include "nvmf/target.h"

namespace mayastor::nvmf::target {

class Controller;
class IoQueue;

class NamespaceShard final {
 public:
  NamespaceShard(std::shared_ptr<Bdev> bdev, AnaState ana,
                 std::shared_ptr<const ReservationState> reservations);
  NamespaceShard(const NamespaceShard&) = delete;
  NamespaceShard& operator=(const NamespaceShard&) = delete;

  void add_queue(IoQueue* queue);
  void remove_queue(IoQueue* queue) noexcept;
  void io_started() noexcept { ++in_flight_; }
  void io_ended() noexcept {
    --in_flight_;
    if (!waiters_.empty()) [[unlikely]]
      check_waiters();
  }
  [[nodiscard]] bool paused() const noexcept { return pauses_ > 0; }
  [[nodiscard]] AnaState ana() const noexcept { return ana_; }
  [[nodiscard]] Bdev& bdev() const noexcept { return *bdev_; }
  [[nodiscard]] uint64_t block_count() const noexcept { return block_count_; }
  [[nodiscard]] uint32_t block_shift() const noexcept { return block_shift_; }
  [[nodiscard]] const ReservationState& reservations() const noexcept { return *reservations_; }

  // Told by the subsystem; each task ends when the I/O it forbids has.
  Task<void> pause();
  Task<void> drain();  // no I/O is with the bdev
  void resume();
  void set_ana(AnaState state) noexcept { ana_ = state; }
  Task<void> set_reservations(std::shared_ptr<const ReservationState> reservations);
  void set_size(uint64_t size_bytes) noexcept { block_count_ = size_bytes >> block_shift_; }

 private:
  struct Waiter {
    std::function<bool()> over;
    Completion<bool>* done;
  };
  Task<void> wait_for(std::function<bool()> over);
  void check_waiters() noexcept;

  const std::shared_ptr<Bdev> bdev_;
  uint32_t block_shift_ = 9;
  uint64_t block_count_ = 0;
  AnaState ana_;
  uint32_t pauses_ = 0;
  uint32_t in_flight_ = 0;  // I/O with the bdev
  std::shared_ptr<const ReservationState> reservations_;
  std::vector<IoQueue*> queues_;
  std::vector<Waiter> waiters_;
};

class Subsystem final {
 public:
  // Discovery when options.bdev is null.
  Subsystem(Reactors& reactors, SubsystemOptions options,
            std::function<void(const std::string&)> log = nullptr);
  ~Subsystem();
  Subsystem(const Subsystem&) = delete;
  Subsystem& operator=(const Subsystem&) = delete;

  [[nodiscard]] const SubsystemOptions& options() const noexcept { return options_; }
  [[nodiscard]] bool discovery() const noexcept { return options_.bdev == nullptr; }
  [[nodiscard]] AnaState ana_state() const noexcept { return ana_; }
  [[nodiscard]] uint64_t ana_change_count() const noexcept { return ana_changes_; }
  [[nodiscard]] bool paused() const noexcept { return user_pauses_ > 0; }
  [[nodiscard]] bool removing() const noexcept { return removing_; }
  [[nodiscard]] const ReservationState& reservations() const noexcept { return *reservations_; }
  [[nodiscard]] NamespaceShard& shard(uint32_t reactor_index) noexcept {
    return *shards_.at(reactor_index);
  }
  [[nodiscard]] Reactor& home() noexcept { return reactors_.home(); }

  [[nodiscard]] bool allows(const std::string& host_nqn) const;
  // Those kept in ptpl_path; blocks. Before any host can connect: a fence has no gap.
  Result<void> load_reservations();
  Task<void> set_allowed_hosts(std::vector<std::string> hosts);
  Task<void> set_ana_state(AnaState state);
  Task<void> pause();
  Task<Result<void>> resume();
  Task<void> namespace_changed();
  Task<void> remove();  // ends all controllers

  // Reservation commands; called on the home reactor with the data of the command.
  Task<IoStatus> reserve(Sqe sqe, HostId host, std::vector<uint8_t> data);
  // Brackets a fused compare and write: nothing else runs on the namespace in between. False: the
  // subsystem is going away.
  Task<bool> begin_exclusive();
  Task<void> end_exclusive();

  // Ends the controllers that the host has, where it may have only one; true when the last of their
  // I/O has ended. False: a newer Connect of the host came, or the subsystem is closed to it.
  [[nodiscard]] uint64_t next_connect_turn() noexcept { return ++connect_turns_; }
  Task<bool> replace_controllers(HostId host, std::string host_nqn, uint64_t turn);

  // 0: none free.
  [[nodiscard]] uint16_t allocate_controller_id();
  void add_controller(std::shared_ptr<Controller> controller);
  void remove_controller(uint16_t id);
  [[nodiscard]] std::shared_ptr<Controller> find_controller(uint16_t id) const;
  [[nodiscard]] const std::map<uint16_t, std::shared_ptr<Controller>>& controllers() const {
    return controllers_;
  }

 private:
  // A Connect that waits for the host's older controllers to go. At most one a host.
  struct Replacement {
    HostId host;
    std::string host_nqn;
    Completion<bool> go_on;
  };
  void wake(std::vector<Replacement*> waiters, bool go_on);

  void make_shards();
  Task<void> on_all_shards(std::function<Task<void>(NamespaceShard&)> step);
  Task<void> on_shard(size_t index, std::function<Task<void>(NamespaceShard&)>* step, Latch* latch);
  IoStatus apply(const Sqe& sqe, const HostId& host, const std::vector<uint8_t>& data,
                 ReservationState& state) const;
  Task<Result<void>> save(const ReservationState* state);

  Reactors& reactors_;
  SubsystemOptions options_;
  const std::function<void(const std::string&)> log_;
  AnaState ana_;
  uint64_t ana_changes_ = 1;
  uint32_t user_pauses_ = 0;
  bool removing_ = false;
  bool saved_ = false;  // the PTPL file exists
  std::shared_ptr<const ReservationState> reservations_;
  std::vector<std::unique_ptr<NamespaceShard>> shards_;
  std::map<uint16_t, std::shared_ptr<Controller>> controllers_;
  uint16_t next_controller_id_ = 0;
  uint64_t connect_turns_ = 0;
  std::vector<Replacement*> replacements_;
  AsyncMutex mutex_;  // one change at a time
  std::vector<Completion<bool>*> resume_waiters_;
  Latch live_controllers_;
};

}  // namespace mayastor::nvmf::target

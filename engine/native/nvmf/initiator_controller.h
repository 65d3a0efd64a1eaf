// A connected controller and its one namespace of interest: the admin queue, keep-alives, events,
// queue ids, and the end of it all.
// Invariants: lives on the home reactor, except open_channel(), stats() and the atomics. The states
// only go kNew -> kInitializing -> kRunning -> kFaulted or kUnconfigured (kInitializing may end
// either way too). lose() ends every queue on its own reactor; the lost handler runs once. stop()
// must have been called before the last reference goes.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nvmf/initiator.h"
#include "nvmf/initiator_channel.h"
#include "nvmf/initiator_fabrics.h"

namespace mayastor::nvmf {

// Where a namespace is and who we are there: a parsed nvmf:// URI.
struct RemoteAddress {
  std::string uri;
  std::string host;
  uint16_t port = 8420;
  std::string nqn;
  std::string host_nqn;
  Uuid host_id;
  std::optional<Uuid> uuid;  // the namespace must have it
  bool header_digest = false;
  bool data_digest = false;
  [[nodiscard]] std::string name() const;  // the bdev's: "host:port/nqnn1"
};

class Controller final : public std::enable_shared_from_this<Controller> {
 public:
  Controller(Reactor& home, const InitiatorOptions& options, RemoteAddress address);
  ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  Task<Result<void>> start();  // an error leaves it kFaulted, with nothing open
  void stop();                 // idempotent
  void lose(const std::string& why);
  void set_lost_handler(std::function<void(IoStatus)> handler) {
    lost_handler_ = std::move(handler);
  }

  // On the calling reactor.
  Task<Result<std::unique_ptr<Channel>>> open_channel();
  struct OpenQueue {
    QueuePtr queue;
    uint16_t id = 0;
  };
  Task<Result<OpenQueue>> open_queue(uint32_t depth);
  void close_queue_id(uint16_t id);  // any reactor; after the queue closed

  [[nodiscard]] const RemoteAddress& address() const noexcept { return address_; }
  [[nodiscard]] ControllerState state() const noexcept { return state_; }
  [[nodiscard]] const std::string& lost_reason() const noexcept { return lost_reason_; }
  [[nodiscard]] const NamespaceLimits& limits() const noexcept { return limits_; }
  [[nodiscard]] const Uuid& uuid() const noexcept { return uuid_; }
  [[nodiscard]] uint32_t block_size() const noexcept { return 1U << limits_.block_shift; }
  [[nodiscard]] uint64_t size_bytes() const noexcept {
    return blocks_.load(std::memory_order_relaxed) << limits_.block_shift;
  }
  // As last told by the target; asks it again for the next time. Nothing: not a thin namespace.
  [[nodiscard]] std::optional<uint64_t> allocated_bytes();
  [[nodiscard]] bool has_volatile_cache() const noexcept { return volatile_cache_; }
  [[nodiscard]] const Uuid& power_cycle() const noexcept { return power_cycle_; }
  [[nodiscard]] bool has_reservations() const noexcept { return reservations_; }
  [[nodiscard]] Reactor& home() noexcept { return home_; }
  [[nodiscard]] IoStats stats() const { return counters_.sum(); }  // any thread
  void add_latencies(IoLatencies& total) const { counters_.add_latencies(total); }
  void reset_stats() noexcept { counters_.reset(); }  // any thread

 private:
  Task<Result<void>> set_up();
  Task<Result<void>> identify_controller();
  Task<Result<void>> find_namespace();
  Task<Result<void>> read_namespace(bool first);
  Task<void> refresh_usage();
  Task<void> watch_events();
  Task<void> keep_alive();
  Task<Result<uint16_t>> take_queue_id();
  Task<Result<void>> register_queue(Reactor* reactor, std::weak_ptr<InitiatorQueue> queue);
  [[nodiscard]] Error not_running() const;
  void end_queues();

  Reactor& home_;
  const InitiatorOptions options_;
  const RemoteAddress address_;
  ControllerState state_ = ControllerState::kNew;
  std::string lost_reason_;
  std::function<void(IoStatus)> lost_handler_;

  QueuePtr admin_;
  uint16_t controller_id_ = 0;
  uint32_t max_entries_ = 2;   // of an I/O queue
  uint32_t max_commands_ = 0;  // in flight per queue; 0: not said
  uint32_t in_capsule_bytes_ = 0;
  bool volatile_cache_ = true;
  Uuid power_cycle_;
  bool reservations_ = false;
  bool events_ = false;
  NamespaceLimits limits_;
  Uuid uuid_;
  std::atomic<uint64_t> blocks_{0};
  std::optional<uint64_t> used_blocks_;  // of a thin namespace
  bool refreshing_usage_ = false;

  struct LiveQueue {
    Reactor* reactor;
    std::weak_ptr<InitiatorQueue> queue;
  };
  std::vector<LiveQueue> queues_;
  std::vector<bool> queue_id_used_;  // index 0 is the admin queue's
  uint16_t next_queue_id_ = 1;
  Timer keep_alive_timer_;
  bool keep_alive_running_ = false;

  IoCounterSet counters_;
};

}  // namespace mayastor::nvmf

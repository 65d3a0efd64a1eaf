// One association of a host with a subsystem: its admin queue's commands, its properties, and its
// list of I/O queues. Home reactor.
// Invariants: lives as long as any of its connections; terminate() ends them all, and the subsystem
// forgets the controller when the last has closed. cntlid is unique in the subsystem until then.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nvmf/connection.h"
#include "nvmf/reservation.h"
#include "nvmf/target.h"

namespace mayastor::nvmf::target {

class Controller;
class Subsystem;

// What controllers need of the target. Home reactor.
class ControllerEnvironment {
 public:
  virtual ~ControllerEnvironment() = default;
  [[nodiscard]] virtual const TargetOptions& target_options() const noexcept = 0;
  // Discovery log for a host that came in at `local_address` ("ip:port").
  [[nodiscard]] virtual std::vector<uint8_t> discovery_log(
      const std::string& host_nqn, const std::string& local_address) const = 0;
  virtual void on_controller_ended(std::shared_ptr<Controller> controller) = 0;
};

struct ControllerOptions {
  uint16_t id = 0;
  HostId host{};
  std::string host_nqn;
  uint32_t keep_alive_ms = 0;
  uint64_t connect_turn = 0;  // of its Connect among those of the subsystem
};

class Controller final : public std::enable_shared_from_this<Controller> {
 public:
  static constexpr uint32_t kAsyncEventLimit = 4;
  static constexpr uint32_t kAbortLimit = 4;  // Abort commands at a time
  static constexpr size_t kReservationLogLimit = 255;

  Controller(ControllerEnvironment& environment, Subsystem& subsystem, ControllerOptions options);
  ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  [[nodiscard]] uint16_t id() const noexcept { return options_.id; }
  [[nodiscard]] const HostId& host_id() const noexcept { return options_.host; }
  [[nodiscard]] const std::string& host_nqn() const noexcept { return options_.host_nqn; }
  [[nodiscard]] uint64_t connect_turn() const noexcept { return options_.connect_turn; }
  [[nodiscard]] Subsystem& subsystem() noexcept { return subsystem_; }
  [[nodiscard]] bool enabled() const noexcept {
    return (csts_ & kCstsReady) != 0 && (cc_ & kCcEnable) != 0 && !ending_;
  }
  [[nodiscard]] bool io_queue_sizes_valid() const noexcept {
    return ((cc_ >> kCcIosqesShift) & 0xF) == 6 && ((cc_ >> kCcIocqesShift) & 0xF) == 4;
  }
  [[nodiscard]] uint32_t io_queue_count() const noexcept;
  // By its host: it has nothing left to write.
  [[nodiscard]] bool shut_down() const noexcept { return shut_down_; }
  [[nodiscard]] std::string peer() const;
  [[nodiscard]] bool is_admin(const Connection& connection) const noexcept {
    return admin_.get() == &connection;
  }

  void add_connection(uint16_t qid, std::shared_ptr<Connection> connection);
  [[nodiscard]] bool has_queue(uint16_t qid) const { return connections_.count(qid) != 0; }
  void on_connection_closed(const Connection& connection);
  void terminate(const char* why);

  void notify_ana_changed();
  void notify_namespace_changed();
  void notify_discovery_changed();
  void notify_reservation(ReservationNotice notice);

  // Admin commands (AdminQueue forwards to these).
  [[nodiscard]] Plan plan(const Request& request) const noexcept;
  void execute(Connection& connection, Request& request);
  [[nodiscard]] bool abort_async_event(Connection& connection, Request& request);
  void drop_async_events(Connection& connection);

 private:
  struct Answer {
    IoStatus status;
    uint32_t dw0 = 0, dw1 = 0;
  };
  [[nodiscard]] bool discovery() const noexcept;
  [[nodiscard]] Plan plan_log_page(const Sqe& sqe) const noexcept;

  // identify.cc
  Answer identify(const Request& request) const;
  void identify_controller(uint8_t* page) const;
  void identify_namespace(uint8_t* page) const;
  void identify_controllers(uint8_t* page, uint16_t first) const;
  void identify_descriptors(uint8_t* page) const;
  void identify_independent(uint8_t* page) const;

  // log_pages.cc
  Answer get_log_page(const Request& request, const std::string& local_address);
  [[nodiscard]] std::vector<uint8_t> smart_log() const;
  [[nodiscard]] std::vector<uint8_t> ana_log(bool groups_only) const;
  [[nodiscard]] std::vector<uint8_t> effects_log() const;
  [[nodiscard]] std::vector<uint8_t> take_changed_namespaces(bool keep);
  [[nodiscard]] std::vector<uint8_t> take_reservation_log(bool keep);

  // features.cc
  [[nodiscard]] uint32_t current_feature(uint8_t feature) const;
  [[nodiscard]] uint32_t default_feature(uint8_t feature) const;
  Answer get_features(const Request& request) const;
  Answer set_features(const Request& request);
  Answer set_keep_alive(uint32_t kato_ms);

  Answer fabrics(const Request& request);
  Answer get_property(const PropertySqe& sqe) const;
  Answer set_property(const PropertySqe& sqe);
  void set_configuration(uint32_t cc);
  void set_shut_down(bool shut_down);
  void drop_io_queues(const char* why);
  void io_queues_gone();
  void abort(Connection& connection, Request& request);
  Task<void> run_abort(std::shared_ptr<Connection> admin, Request* request,
                       std::shared_ptr<Connection> queue);
  void on_keep_alive_timer();
  void on_association_timer();
  void update_association_timer();

  void async_event(Connection& connection, Request& request);
  // Completes or stores the event; masked until its log page is read.
  void raise(uint8_t log_page, uint32_t dw0);
  void unmask(uint8_t log_page);
  void deliver_events();

  ControllerEnvironment& environment_;
  Subsystem& subsystem_;
  const ControllerOptions options_;
  uint64_t cap_ = 0;
  uint32_t cc_ = 0, csts_ = 0;
  bool ending_ = false;
  bool shut_down_ = false;                          // asked for, and not enabled again since
  bool disabling_ = false, shutting_down_ = false;  // once the I/O queues are gone
  std::map<uint16_t, std::shared_ptr<Connection>> connections_;  // by qid; 0 is the admin queue
  std::shared_ptr<Connection> admin_;
  std::map<uint8_t, uint32_t> features_;
  std::vector<uint8_t> host_behavior_;
  uint64_t keep_alive_ms_ = 0;
  uint64_t last_alive_ns_ = 0;
  Timer keep_alive_timer_, association_timer_;

  uint32_t aborts_ = 0;  // Abort commands not answered yet

  std::vector<Request*> async_events_;
  std::map<uint8_t, uint32_t> pending_events_;  // log page -> dw0
  std::map<uint8_t, bool> masked_events_;       // by log page
  bool namespace_changed_ = false;
  std::deque<ReservationLog> reservation_log_;
  uint64_t reservation_log_count_ = 0;
};

// The admin queue's handler; the controller may outlive it.
class AdminQueue final : public CommandHandler {
 public:
  AdminQueue(Connection& connection, std::shared_ptr<Controller> controller)
      : connection_(connection), controller_(std::move(controller)) {}
  [[nodiscard]] Plan plan(Request& request) noexcept override { return controller_->plan(request); }
  void execute(Request& request) noexcept override { controller_->execute(connection_, request); }
  void on_transfer_failed(Request&) noexcept override {}
  [[nodiscard]] bool abort(Request& request) noexcept override {
    return controller_->abort_async_event(connection_, request);
  }
  void on_closing() noexcept override { controller_->drop_async_events(connection_); }

 private:
  Connection& connection_;
  const std::shared_ptr<Controller> controller_;
};

}  // namespace mayastor::nvmf::target

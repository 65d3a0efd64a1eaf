// I/O commands of one queue: NVMe command -> Io on the queue's own bdev channel -> answer.
// Owner: its connection; lives on the connection's reactor.
// Invariants: no I/O reaches the bdev while the shard is paused, in an ANA state that forbids it,
// or against a reservation; the checks are made when the data is there, right before submit().
#pragma once
#include <memory>

#include "bdev/bdev.h"
#include "nvmf/connection.h"
#include "nvmf/subsystem.h"

namespace mayastor::nvmf::target {

struct IoQueueOptions {
  HostId host{};
  uint32_t max_io_bytes = 131072;
};

class IoQueue final : public CommandHandler {
 public:
  IoQueue(Connection& connection, Subsystem& subsystem, NamespaceShard& shard,
          std::unique_ptr<Channel> channel, const IoQueueOptions& options);
  ~IoQueue() override;
  IoQueue(const IoQueue&) = delete;
  IoQueue& operator=(const IoQueue&) = delete;

  // CommandHandler.
  [[nodiscard]] Plan plan(Request& request) noexcept override;
  void execute(Request& request) noexcept override;
  void on_transfer_failed(Request& request) noexcept override;
  [[nodiscard]] bool abort(Request& request) noexcept override;
  void on_closing() noexcept override;

  // The shard's.
  void run_held() noexcept;
  void set_denied(uint8_t denied) noexcept { denied_ = denied; }
  [[nodiscard]] const HostId& host() const noexcept { return options_.host; }
  [[nodiscard]] bool drained_of_denied() const noexcept {
    return ((denied_ & kDenyRead) == 0 || reads_in_flight_ == 0) &&
           ((denied_ & kDenyWrite) == 0 || writes_in_flight_ == 0);
  }

 private:
  [[nodiscard]] Plan plan_transfer(const Sqe& sqe) const noexcept;
  [[nodiscard]] IoStatus pair_fused(Request& request) noexcept;
  [[nodiscard]] IoStatus admit(const Sqe& sqe) const noexcept;
  void hold(Request& request) noexcept;
  void begin(Request& request, IoType type) noexcept;
  void end(Request& request, IoStatus status) noexcept;
  void count_started(uint8_t opcode) noexcept;
  void count_ended(uint8_t opcode) noexcept;
  void write_zeroes(Request& request) noexcept;
  void deallocate(Request& request) noexcept;
  void deallocate_next(Request& request) noexcept;
  void compare(Request& request) noexcept;
  Task<void> run_compare(Request* request);
  Task<IoStatus> compare_data(const Request* request);
  void fused_ready(Request& request) noexcept;
  Task<void> run_fused(Request* first, Request* second);
  Task<void> run_reservation(Request* request);
  static IoQueue& of(Io* io) noexcept;

  Connection& connection_;
  Subsystem& subsystem_;
  NamespaceShard& shard_;
  std::unique_ptr<Channel> channel_;
  const IoQueueOptions options_;
  uint8_t denied_ = 0;
  uint32_t reads_in_flight_ = 0, writes_in_flight_ = 0;
  Request* held_ = nullptr;
  Request** held_end_ = &held_;
  Request* fused_first_ = nullptr;  // planned last, waiting for its second half
};

}  // namespace mayastor::nvmf::target

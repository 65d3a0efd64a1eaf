// Reservation commands on a remote namespace: how a nexus fences its children.
// Why a queue of its own: these are I/O commands, but sent from the home reactor, which may have no
// channel; it is opened with the first command. Home reactor only.
#pragma once
#include <memory>

#include "core/task.h"
#include "nvmf/initiator_controller.h"

namespace mayastor::nvmf {

class RemoteReservations final : public Reservations {
 public:
  explicit RemoteReservations(std::shared_ptr<Controller> controller);
  ~RemoteReservations() override;  // after close()
  RemoteReservations(const RemoteReservations&) = delete;
  RemoteReservations& operator=(const RemoteReservations&) = delete;
  void close();

  Task<IoStatus> register_key(RegisterAction action, uint64_t current_key, uint64_t new_key,
                              bool ignore_existing_key, uint8_t cptpl) override;
  Task<IoStatus> acquire(AcquireAction action, uint64_t current_key, uint64_t preempt_key,
                         uint8_t type) override;
  Task<IoStatus> release(ReleaseAction action, uint64_t current_key, uint8_t type) override;
  Task<Result<ReservationReport>> report() override;
  [[nodiscard]] const uint8_t* host_id() const noexcept override;

 private:
  Task<QueuePtr> queue();  // nullptr: cannot be opened
  Task<IoStatus> send(Sqe sqe, uint64_t first_key, uint64_t second_key, uint32_t length);
  Task<Result<ReservationReport>> read_report(uint32_t length, uint32_t* registrants);

  std::shared_ptr<Controller> controller_;
  Controller::OpenQueue queue_;
  AsyncMutex opening_;
  bool closed_ = false;
};

}  // namespace mayastor::nvmf

#include "nvmf/initiator_reservations.h"

#include <array>
#include <cstring>

namespace mayastor::nvmf {

namespace {
constexpr uint32_t kDepth = 4;
constexpr uint32_t kIgnoreExistingKey = 1U << 3;
constexpr uint32_t kReportExtended = 1U;  // cdw11: 128-bit host identifiers
constexpr uint32_t kFirstReportEntries = 15;

constexpr uint32_t report_bytes(uint32_t registrants) {
  return static_cast<uint32_t>(kReservationExtendedHeaderSize) +
         registrants * static_cast<uint32_t>(sizeof(ReservationRegistrantExtended));
}
}  // namespace

RemoteReservations::RemoteReservations(std::shared_ptr<Controller> controller)
    : controller_(std::move(controller)) {}

RemoteReservations::~RemoteReservations() {
  CHECK(queue_.queue == nullptr);
}

void RemoteReservations::close() {
  closed_ = true;
  if (queue_.queue == nullptr) return;
  queue_.queue->close(io_status::kQueueDeleted);
  queue_.queue = nullptr;
  controller_->close_queue_id(queue_.id);
}

Task<QueuePtr> RemoteReservations::queue() {
  co_await opening_.lock();
  AsyncLock held(opening_);
  if (queue_.queue == nullptr && !closed_) {
    Result<Controller::OpenQueue> opened = co_await controller_->open_queue(kDepth);
    if (opened.ok()) {
      queue_ = opened.take();
      if (closed_) {
        closed_ = false;
        close();
      }
    }
  }
  co_return queue_.queue;
}

Task<IoStatus> RemoteReservations::send(Sqe sqe, uint64_t first_key, uint64_t second_key,
                                        uint32_t length) {
  QueuePtr open = co_await queue();
  if (open == nullptr) co_return io_status::kHostPathError;
  uint64_t keys[2] = {first_key, second_key};
  sqe.nsid = controller_->limits().nsid;
  const Answer answer = co_await open->execute(sqe, DataDirection::kToController, keys, length);
  co_return answer.status;
}

Task<IoStatus> RemoteReservations::register_key(RegisterAction action, uint64_t current_key,
                                                uint64_t new_key, bool ignore_existing_key,
                                                uint8_t cptpl) {
  Sqe sqe{};
  sqe.opcode = kIoReservationRegister;
  sqe.cdw10 = static_cast<uint32_t>(action) | (ignore_existing_key ? kIgnoreExistingKey : 0) |
              static_cast<uint32_t>(cptpl & 3) << 30;
  return send(sqe, current_key, new_key, sizeof(ReservationRegisterData));
}

Task<IoStatus> RemoteReservations::acquire(AcquireAction action, uint64_t current_key,
                                           uint64_t preempt_key, uint8_t type) {
  Sqe sqe{};
  sqe.opcode = kIoReservationAcquire;
  sqe.cdw10 = static_cast<uint32_t>(action) | static_cast<uint32_t>(type) << 8;
  return send(sqe, current_key, preempt_key, sizeof(ReservationAcquireData));
}

Task<IoStatus> RemoteReservations::release(ReleaseAction action, uint64_t current_key,
                                           uint8_t type) {
  Sqe sqe{};
  sqe.opcode = kIoReservationRelease;
  sqe.cdw10 = static_cast<uint32_t>(action) | static_cast<uint32_t>(type) << 8;
  return send(sqe, current_key, 0, sizeof(ReservationReleaseData));
}

// Reads `length` bytes; *registrants is how many there are, which may be more than fit.
Task<Result<ReservationReport>> RemoteReservations::read_report(uint32_t length,
                                                                uint32_t* registrants) {
  QueuePtr open = co_await queue();
  if (open == nullptr) {
    co_return Error{ErrorCode::kUnavailable,
                    "Cannot read the reservation report: no connection to the target", 5};
  }
  std::vector<uint8_t> page(length);
  Sqe sqe{};
  sqe.opcode = kIoReservationReport;
  sqe.nsid = controller_->limits().nsid;
  sqe.cdw10 = length / 4 - 1;
  sqe.cdw11 = kReportExtended;
  const Answer answer = co_await open->execute(sqe, DataDirection::kToHost, page.data(), length);
  if (!answer.status.ok()) {
    co_return Error{ErrorCode::kInternal,
                    "Cannot read the reservation report: " + describe_status(answer.status),
                    answer.status.error_number};
  }
  ReservationStatusHeader header;
  std::memcpy(&header, page.data(), sizeof(header));
  *registrants = header.registrant_count;
  ReservationReport report;
  report.generation = header.generation;
  report.type = header.type;
  for (uint32_t i = 0; i < header.registrant_count && report_bytes(i + 1) <= length; ++i) {
    ReservationRegistrantExtended entry;
    std::memcpy(&entry, page.data() + report_bytes(i), sizeof(entry));
    ReservationReport::Registrant registrant{};
    registrant.key = entry.key;
    registrant.holder = (entry.status & 1) != 0;
    std::memcpy(registrant.host_id, entry.host_id, sizeof(registrant.host_id));
    report.registrants.push_back(registrant);
  }
  co_return report;
}

Task<Result<ReservationReport>> RemoteReservations::report() {
  uint32_t room = kFirstReportEntries;
  while (true) {
    uint32_t registrants = 0;
    Result<ReservationReport> report = co_await read_report(report_bytes(room), &registrants);
    if (!report.ok() || registrants <= room) co_return report;
    room = registrants;
  }
}

const uint8_t* RemoteReservations::host_id() const noexcept {
  return controller_->address().host_id.bytes.data();
}

}  // namespace mayastor::nvmf

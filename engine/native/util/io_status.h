// IoStatus: how one I/O ended, as an NVMe status (type and code) plus the errno that caused it, if
// any. Why: the same value travels from a disk or a remote target to the host without losing its
// meaning. Codes: NVMe base specification, status code types 0-3; type 7 is vendor specific.
#pragma once
#include <cstdint>

namespace mayastor {

struct IoStatus {
  uint8_t type = 0;           // SCT
  uint8_t code = 0;           // SC
  uint16_t error_number = 0;  // positive errno or 0; not sent on the wire
  bool do_not_retry = false;  // DNR

  [[nodiscard]] constexpr bool ok() const noexcept { return type == 0 && code == 0; }
  [[nodiscard]] constexpr bool is(const IoStatus& other) const noexcept {
    return type == other.type && code == other.code;
  }
};

namespace io_status {
inline constexpr IoStatus kOk{};
inline constexpr IoStatus kInvalidOpcode{0, 0x01, 95, true};
inline constexpr IoStatus kInvalidField{0, 0x02, 22, true};
inline constexpr IoStatus kDataTransferError{0, 0x04, 5, false};
inline constexpr IoStatus kInternalError{0, 0x06, 5, false};
inline constexpr IoStatus kAborted{0, 0x07, 125, false};
inline constexpr IoStatus kQueueDeleted{0, 0x08, 103, false};
inline constexpr IoStatus kInvalidNamespace{0, 0x0B, 19, true};
inline constexpr IoStatus kDataLengthInvalid{0, 0x0F, 22, true};
inline constexpr IoStatus kTransientTransport{0, 0x22, 5, false};
inline constexpr IoStatus kLbaOutOfRange{0, 0x80, 22, true};
inline constexpr IoStatus kCapacityExceeded{0, 0x81, 28, false};
inline constexpr IoStatus kNamespaceNotReady{0, 0x82, 11, false};
inline constexpr IoStatus kReservationConflict{0, 0x83, 52, true};
inline constexpr IoStatus kWriteFault{2, 0x80, 5, false};
inline constexpr IoStatus kUnrecoveredRead{2, 0x81, 5, false};
inline constexpr IoStatus kCompareFailure{2, 0x85, 84, true};
inline constexpr IoStatus kInternalPathError{3, 0x00, 5, false};
inline constexpr IoStatus kAnaInaccessible{3, 0x02, 11, false};
inline constexpr IoStatus kHostPathError{3, 0x70, 5, false};
inline constexpr IoStatus kNoSpace{7, 28, 28,
                                   false};  // what a thin replica without clusters answers
}  // namespace io_status

// Status of a failed disk operation. `write`: the operation would have changed the medium; nothing
// else can lack space. A device that has gone has no space either: its bdev sees to it that no such
// ENOSPC comes here (File::medium_gone).
[[nodiscard]] constexpr IoStatus io_status_from_errno(int32_t error_number, bool write) noexcept {
  IoStatus status = write ? io_status::kWriteFault : io_status::kUnrecoveredRead;
  const bool no_space = error_number == 28 || error_number == 122;  // ENOSPC, EDQUOT
  if (write && no_space) status = io_status::kNoSpace;
  if (error_number == 95) status = io_status::kInvalidOpcode;
  if (error_number == 125) status = io_status::kAborted;
  status.error_number = static_cast<uint16_t>(error_number);
  return status;
}

}  // namespace mayastor

// Turns the status of a failed metadata I/O into an Error of the control path.
// Invariant: it never says "not found": a device that cannot be read (ENODEV and ENXIO too, which
// an offline disk answers) may hold a pool, and "no pool there" would let it be formatted.
#pragma once
#include <string>
#include <utility>

#include "util/io_status.h"
#include "util/result.h"

namespace mayastor {

[[nodiscard]] inline Error io_error(IoStatus status, std::string what) {
  Error error = errno_error(status.error_number == 0 ? 5 : status.error_number, std::move(what));
  if (error.code != ErrorCode::kResourceExhausted) error.code = ErrorCode::kUnavailable;
  return error;
}

// The same for a channel that does not open.
[[nodiscard]] inline Error channel_error(Error error) {
  if (error.code == ErrorCode::kNotFound) error.code = ErrorCode::kUnavailable;
  return error;
}

}  // namespace mayastor

// Turns the status of a failed metadata I/O into an Error of the control path.
#pragma once
#include <string>
#include <utility>

#include "util/io_status.h"
#include "util/result.h"

namespace mayastor {

[[nodiscard]] inline Error io_error(IoStatus status, std::string what) {
  Error error = errno_error(status.error_number == 0 ? 5 : status.error_number, std::move(what));
  if (error.error_number == 5) error.code = ErrorCode::kUnavailable;
  return error;
}

}  // namespace mayastor

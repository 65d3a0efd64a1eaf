// Result<T>: a value or an Error, for fallible calls of the control path (open, create, import,
// ...). Why our own: std::expected is C++23. The I/O path uses IoStatus instead (util/io_status.h).
// Invariants: value() and error() CHECK which one is held; an Error's message says what was tried,
// then the state, in the words shown to the user.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "util/check.h"

namespace mayastor {

// Same set and meaning as the gRPC status codes they become at the surface.
enum class ErrorCode : uint8_t {
  kInvalidArgument,
  kOutOfRange,
  kNotFound,
  kAlreadyExists,
  kFailedPrecondition,
  kAborted,
  kResourceExhausted,
  kUnavailable,
  kDeadlineExceeded,
  kUnimplemented,
  kInternal,
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  int32_t error_number = 0;  // positive errno if one caused it, else 0
};

// Error from an errno: message is `what: strerror (errno)`; code chosen from the errno.
[[nodiscard]] Error errno_error(int32_t error_number, std::string what);

template <typename T>
class [[nodiscard]] Result final {
 public:
  Result(T value) : value_(std::move(value)) {}      // NOLINT: implicit on purpose
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit on purpose
  [[nodiscard]] bool ok() const noexcept { return value_.has_value(); }
  [[nodiscard]] T& value() noexcept {
    CHECK(ok());
    return *value_;
  }
  [[nodiscard]] const T& value() const noexcept {
    CHECK(ok());
    return *value_;
  }
  [[nodiscard]] T take() noexcept {
    CHECK(ok());
    return std::move(*value_);
  }
  [[nodiscard]] const Error& error() const noexcept {
    CHECK(!ok());
    return *error_;
  }

 private:
  std::optional<T> value_;
  std::optional<Error> error_;
};

template <>
class [[nodiscard]] Result<void> final {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit on purpose
  [[nodiscard]] bool ok() const noexcept { return !error_.has_value(); }
  [[nodiscard]] const Error& error() const noexcept {
    CHECK(!ok());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace mayastor

// Errors made from an errno: one place that decides which kind of failure each errno is.
#include "util/result.h"

#include <cerrno>
#include <cstring>

namespace mayastor {
namespace {

ErrorCode code_of(int32_t error_number) noexcept {
  switch (error_number) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return ErrorCode::kNotFound;
    case EEXIST:
      return ErrorCode::kAlreadyExists;
    case EINVAL:
    case EISDIR:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ENOTBLK:
      return ErrorCode::kInvalidArgument;
    case EBUSY:
    case EPERM:
    case EACCES:
    case EROFS:
    case ETXTBSY:
      return ErrorCode::kFailedPrecondition;
    case ENOSPC:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EDQUOT:
      return ErrorCode::kResourceExhausted;
    case ETIMEDOUT:
      return ErrorCode::kDeadlineExceeded;
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EADDRINUSE:
    case EADDRNOTAVAIL:
    case EAGAIN:
      return ErrorCode::kUnavailable;
    case EOPNOTSUPP:
    case ENOSYS:
      return ErrorCode::kUnimplemented;
    case ECANCELED:
      return ErrorCode::kAborted;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace

Error errno_error(int32_t error_number, std::string what) {
  char text[128] = {};
  const char* name = strerror_r(error_number, text, sizeof text);  // GNU: may not use `text`
  what += ": ";
  what += name;
  what += " (errno " + std::to_string(error_number) + ")";
  return Error{code_of(error_number), std::move(what), error_number};
}

}  // namespace mayastor

// What linux/io_uring.h of our oldest build host (Debian 12, Linux 6.1) may lack, and the three
// system calls, which glibc does not wrap. Source: Linux user-space API, io_uring_setup(2),
// io_uring_enter(2), io_uring_register(2).
#pragma once
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#ifndef IORING_SETUP_TASKRUN_FLAG
#define IORING_SETUP_TASKRUN_FLAG (1U << 9)
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif
#ifndef IORING_SQ_TASKRUN
#define IORING_SQ_TASKRUN (1U << 2)
#endif

namespace mayastor {

inline int sys_io_uring_setup(uint32_t entries, io_uring_params* params) noexcept {
  return static_cast<int>(syscall(__NR_io_uring_setup, entries, params));
}

inline int sys_io_uring_enter(int fd, uint32_t to_submit, uint32_t min_complete, uint32_t flags,
                              const void* argument, size_t size) noexcept {
  return static_cast<int>(
      syscall(__NR_io_uring_enter, fd, to_submit, min_complete, flags, argument, size));
}

inline int sys_io_uring_register(int fd, uint32_t opcode, const void* argument,
                                 uint32_t count) noexcept {
  return static_cast<int>(syscall(__NR_io_uring_register, fd, opcode, argument, count));
}

}  // namespace mayastor

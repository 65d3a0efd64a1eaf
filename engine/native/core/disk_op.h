// DiskOp: one disk operation of a kernel-backed ring on its way, with what is needed to finish a
// short transfer or to try the next way of zeroing a range. Which system call carries it out is the
// ring's business; what to do next is decided here, once, for every ring.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "core/posix_file.h"

namespace mayastor {

enum class DiskOpType : uint8_t { kRead, kWrite, kFlush, kPunchHole, kWriteZeroes };

struct DiskOp {
  DiskOpType type = DiskOpType::kRead;
  bool durable = false;
  RingOp* op = nullptr;
  PosixFile* file = nullptr;
  uint64_t offset = 0;  // of what is left
  uint64_t left = 0;    // bytes
  uint64_t total = 0;
  const iovec* parts = nullptr;  // of what is left
  int count = 0;
  iovec one{};                  // the single part, or the piece of zeroes
  std::vector<iovec> advanced;  // own copy after a short transfer
  ZeroMode zero_mode = ZeroMode::kZeroRange;
  DiskOp* next = nullptr;  // free list, backlog, gate
  bool gated = false;      // has a place in its file's FileGate, or waits for one

  void start_data(DiskOpType its_type, File& its_file, const iovec* its_parts, int its_count,
                  uint64_t its_offset, bool is_durable, RingOp* its_op) noexcept;
  void start_range(DiskOpType its_type, File& its_file, uint64_t its_offset, uint64_t length,
                   RingOp* its_op) noexcept;
  // Takes the result of one system call. True: submit again (the rest); false: finished, and
  // `result` became what to report.
  [[nodiscard]] bool advance(int32_t& result);
  // For a range: carried out by fallocate(mode) rather than by writing zeroes.
  [[nodiscard]] bool by_fallocate() const noexcept {
    return type == DiskOpType::kPunchHole ||
           (type == DiskOpType::kWriteZeroes && zero_mode != ZeroMode::kWrite);
  }
  [[nodiscard]] int fallocate_mode() const noexcept {
    const bool punch = type == DiskOpType::kPunchHole || zero_mode == ZeroMode::kPunchHole;
    return punch ? punch_hole_mode() : zero_range_mode();
  }

 private:
  void next_zero_piece() noexcept;
  void skip(uint64_t bytes);
};

}  // namespace mayastor

// DiskOp: the steps of one disk operation.
#include "core/disk_op.h"

#include <algorithm>
#include <cerrno>

#include "util/check.h"

namespace mayastor {

void DiskOp::start_data(DiskOpType its_type, File& its_file, const iovec* its_parts, int its_count,
                        uint64_t its_offset, bool is_durable, RingOp* its_op) noexcept {
  type = its_type;
  durable = is_durable;
  op = its_op;
  file = &static_cast<PosixFile&>(its_file);  // made by this ring's open_file
  offset = its_offset;
  total = 0;
  for (int i = 0; i < its_count; ++i) total += its_parts[i].iov_len;
  left = total;
  parts = its_parts;
  count = its_count;
}

void DiskOp::start_range(DiskOpType its_type, File& its_file, uint64_t its_offset, uint64_t length,
                         RingOp* its_op) noexcept {
  type = its_type;
  durable = false;
  op = its_op;
  file = &static_cast<PosixFile&>(its_file);  // made by this ring's open_file
  offset = its_offset;
  left = total = length;
  parts = nullptr;
  count = 0;
  zero_mode = file->zero_mode();
  if (type == DiskOpType::kWriteZeroes && zero_mode == ZeroMode::kWrite) next_zero_piece();
}

void DiskOp::next_zero_piece() noexcept {
  one = iovec{zero_bytes(), std::min<uint64_t>(left, kZeroBytes)};
  parts = &one;
  count = 1;
}

void DiskOp::skip(uint64_t bytes) {
  offset += bytes;
  left -= bytes;
  if (type == DiskOpType::kWriteZeroes) {
    next_zero_piece();
    return;
  }
  std::vector<iovec> rest;
  for (int i = 0; i < count; ++i) {
    const uint64_t gone = std::min<uint64_t>(bytes, parts[i].iov_len);
    bytes -= gone;
    if (gone == parts[i].iov_len) continue;
    rest.push_back(iovec{static_cast<uint8_t*>(parts[i].iov_base) + gone, parts[i].iov_len - gone});
  }
  advanced = std::move(rest);
  parts = advanced.data();
  count = static_cast<int>(advanced.size());
}

bool DiskOp::advance(int32_t& result) {
  if (result == -EINTR || result == -EAGAIN) return true;
  const bool zeroing = type == DiskOpType::kWriteZeroes;
  const bool refused = result == -EOPNOTSUPP || result == -EINVAL;
  if (zeroing && zero_mode != ZeroMode::kWrite && refused) {
    zero_mode = zero_mode == ZeroMode::kZeroRange ? ZeroMode::kPunchHole : ZeroMode::kWrite;
    file->set_zero_mode(zero_mode);
    if (zero_mode == ZeroMode::kWrite) next_zero_piece();
    return true;
  }
  if (result < 0) return false;
  const bool transfers = type == DiskOpType::kRead || type == DiskOpType::kWrite ||
                         (zeroing && zero_mode == ZeroMode::kWrite);
  if (transfers) {
    const auto moved = static_cast<uint64_t>(result);
    CHECK(moved <= left);
    if (moved == 0 && left > 0) {  // beyond the end of a file that shrank
      result = -EIO;
      return false;
    }
    if (moved < left) {
      skip(moved);
      return true;
    }
  }
  result = static_cast<int32_t>(std::min<uint64_t>(total, INT32_MAX));
  return false;
}

}  // namespace mayastor

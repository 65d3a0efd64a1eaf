#include "nexus/geometry.h"

#include <algorithm>
#include <string>

#include "nexus/nexus.h"

namespace mayastor::nexus {

Result<DataArea> data_area(uint64_t child_blocks, uint32_t block_size, uint64_t wanted_bytes) {
  const uint64_t wanted = wanted_bytes / block_size;
  const uint64_t start = (kDataOffsetBytes + block_size - 1) / block_size;
  const uint64_t gpt = (kGptCopyBytes + block_size - 1) / block_size;
  const uint64_t overhead = start + gpt + kGptTailBlocks;
  if (wanted == 0) {
    return Error{ErrorCode::kInvalidArgument, "a nexus of " + std::to_string(wanted_bytes) +
                                                  " bytes has no whole block of " +
                                                  std::to_string(block_size)};
  }
  if (child_blocks <= overhead) {
    return Error{ErrorCode::kInvalidArgument,
                 "child of " + std::to_string(child_blocks * block_size) + " bytes is too small: " +
                     std::to_string(overhead * block_size) + " bytes are taken before user data"};
  }
  DataArea area;
  area.start_block = start;
  area.block_count = std::min(wanted, child_blocks - overhead);
  return area;
}

}  // namespace mayastor::nexus

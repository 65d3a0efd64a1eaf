// Where a nexus keeps user data on a child: from 5 MiB (room for partition tables and nexus
// metadata, which we never write) to before the place of a backup GPT. Pure arithmetic.
#pragma once
#include <cstdint>

#include "util/result.h"

namespace mayastor::nexus {

struct DataArea {
  uint64_t start_block = 0;
  uint64_t block_count = 0;  // at most what was asked for
};

// kInvalidArgument when nothing, or not even one block, fits.
[[nodiscard]] Result<DataArea> data_area(uint64_t child_blocks, uint32_t block_size,
                                         uint64_t wanted_bytes);

}  // namespace mayastor::nexus

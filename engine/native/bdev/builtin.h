// The bdevs of this layer, by scheme: aio and uring (files and block devices), malloc, null, error
// and delay (faults, for tests).
#pragma once
#include "bdev/bdev.h"

namespace mayastor {

// Adds all of them. The registry must outlive its schemes (error and delay look up their base).
void register_builtin_schemes(BdevRegistry& registry);

// One factory each; `uri` was parsed by the registry already, so a scheme is known to match.
Task<Result<std::shared_ptr<Bdev>>> create_file_bdev(std::string uri);  // on the current ring
Task<Result<std::shared_ptr<Bdev>>> create_malloc_bdev(std::string uri);
Task<Result<std::shared_ptr<Bdev>>> create_null_bdev(std::string uri);

}  // namespace mayastor

// The schemes of this layer.
#include "bdev/builtin.h"

#include "bdev/fault_bdev.h"

namespace mayastor {

void register_builtin_schemes(BdevRegistry& registry) {
  registry.add_scheme("aio", create_file_bdev);
  registry.add_scheme("uring", create_file_bdev);
  registry.add_scheme("malloc", create_malloc_bdev);
  registry.add_scheme("null", create_null_bdev);
  registry.add_scheme("error", fault_bdev_factory(registry));
  registry.add_scheme("delay", fault_bdev_factory(registry));
}

}  // namespace mayastor

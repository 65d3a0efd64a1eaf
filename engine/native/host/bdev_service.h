// Raw bdevs of one engine: create and destroy by URI, share, unshare, list.
// Owner: the home reactor. Invariant: a bdev shared here is claimed, so that no pool or nexus
// writes to it behind its hosts' back.
#pragma once
#include <string>
#include <vector>

#include "bdev/bdev.h"
#include "core/task.h"
#include "host/sharing.h"
#include "host/types.h"
#include "util/result.h"

namespace mayastor::host {

class BdevService final {
 public:
  BdevService(BdevRegistry& registry, Sharing& sharing, EngineEvents& events);
  BdevService(const BdevService&) = delete;
  BdevService& operator=(const BdevService&) = delete;

  Task<Result<BdevInfo>> create(std::string uri);
  // By URI. kNotFound; kFailedPrecondition: shared, or used by a pool or nexus.
  Task<Result<void>> destroy(std::string uri);
  Task<Result<BdevInfo>> share(std::string name, std::vector<std::string> allowed_hosts);
  Task<Result<void>> unshare(std::string name);  // idempotent; kNotFound: no such bdev
  Task<Result<void>> destroy_all();              // at the end: what nothing claims any more
  [[nodiscard]] std::vector<BdevInfo> list() const;

 private:
  [[nodiscard]] BdevInfo describe(const Bdev& bdev) const;

  BdevRegistry& registry_;
  Sharing& sharing_;
  EngineEvents& events_;
};

}  // namespace mayastor::host

// Engine: the whole data plane of one node behind one object: reactors, bdevs, pools, replicas,
// nexuses, the NVMe-oF target and the initiators.
// Why: whoever hosts it (the Node addon, a test, a tool) sees plain records and tasks, never a
// layer below. Threads: open() and close() on the hosting thread; everything else on home().
// Invariants: start() before any other call, stop() before close(); stop() leaves nothing served,
// every nexus recorded as cleanly shut down and every pool cleanly unloaded, or says what failed.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "bdev/bdev.h"
#include "core/reactor.h"
#include "core/task.h"
#include "host/bdev_service.h"
#include "host/nexus_service.h"
#include "host/pool_service.h"
#include "host/replica_service.h"
#include "host/sharing.h"
#include "host/types.h"
#include "nexus/nexus_info.h"
#include "nvmf/initiator.h"
#include "nvmf/target.h"
#include "util/result.h"

namespace mayastor::host {

class Engine final {
 public:
  // Makes the rings and starts the threads. `store` (may be null) and `events` must outlive it.
  [[nodiscard]] static Result<std::unique_ptr<Engine>> open(EngineOptions options,
                                                            nexus::NexusInfoStore* store,
                                                            EngineEvents& events);
  ~Engine();  // after close()
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  // Stops and joins the threads; idempotent. What stop() could not undo stays as it is in memory.
  void close();

  [[nodiscard]] Reactor& home() noexcept { return reactors_->home(); }
  [[nodiscard]] const EngineOptions& options() const noexcept { return options_; }

  Task<Result<void>> start();  // the target listens afterwards
  Task<Result<void>> stop();   // the first failure, after having tried everything else
  [[nodiscard]] bool started() const noexcept { return parts_ != nullptr; }

  [[nodiscard]] PoolService& pools() noexcept { return parts().pools; }
  [[nodiscard]] ReplicaService& replicas() noexcept { return parts().replicas; }
  [[nodiscard]] NexusService& nexuses() noexcept { return parts().nexuses; }
  [[nodiscard]] BdevService& bdevs() noexcept { return parts().bdevs; }
  [[nodiscard]] nvmf::Target& target() noexcept { return parts().target; }
  [[nodiscard]] std::vector<NvmeControllerInfo> controllers() const;
  [[nodiscard]] std::vector<ReactorInfo> reactor_infos() const;
  void reset_stats() noexcept;

 private:
  struct Parts {
    Parts(Engine& engine, nvmf::TargetOptions target_options);
    BdevRegistry registry;
    nvmf::Target target;
    std::shared_ptr<nvmf::Initiator> initiator;
    Sharing sharing;
    PoolService pools;
    ReplicaService replicas;
    NexusService nexuses;
    BdevService bdevs;
  };
  Engine(EngineOptions options, nexus::NexusInfoStore* store, EngineEvents& events);
  [[nodiscard]] Parts& parts() noexcept;

  const EngineOptions options_;
  nexus::NexusInfoStore* const store_;
  EngineEvents& events_;
  std::string ring_note_;  // why reactors run on the slower fallback; "" when not
  std::unique_ptr<Reactors> reactors_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace mayastor::host

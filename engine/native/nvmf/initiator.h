// NVMe/TCP initiator: a remote namespace as a bdev (nvmf://host[:port]/nqn?uuid=...).
// Why: nexus children on other nodes, and every tool that reads or writes through a target.
// How: the admin connection (identify, keep-alive, events) lives on the home reactor; every
// open_channel() makes an I/O queue of its own, one TCP connection on the calling reactor.
// Invariants: nothing is retried or reconnected behind the user's back. The first sign of a lost
// peer (end of stream, reset, a command unanswered for io_timeout_ms, a dead keep-alive) ends the
// whole controller: every pending Io completes with kHostPathError, later ones at once, and the
// removed handler runs once. Whoever wants the device back creates it again.
// Source: NVMe base 1.4, NVMe over Fabrics 1.1, NVMe/TCP transport 1.0.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bdev/bdev.h"
#include "core/reactor.h"
#include "util/uuid.h"

namespace mayastor::nvmf {

struct InitiatorOptions {
  std::string host_nqn = "nqn.2019-05.io.openebs:node-name:mayastor-node";
  Uuid host_id;                         // nil: derived from host_nqn, so that it survives restarts
  uint32_t kato_ms = 10'000;            // keep-alive timeout told to the target; 0: none
  uint32_t io_timeout_ms = 5'000;       // an unanswered I/O ends the controller
  uint32_t admin_timeout_ms = 5'000;    // the same for admin commands and keep-alives
  uint32_t connect_timeout_ms = 5'000;  // one deadline for the steps of each connection
  uint32_t queue_depth = 128;           // commands in flight per channel; the target may allow less
  uint32_t io_queues = 31;              // asked for; each open channel uses one
};

// As in HostRpc.ListNvmeControllers.
enum class ControllerState : uint8_t {
  kNew = 0,
  kInitializing = 1,
  kRunning = 2,
  kFaulted = 3,
  kUnconfiguring = 4,
  kUnconfigured = 5,
};
[[nodiscard]] const char* controller_state_name(ControllerState state) noexcept;

struct ControllerInfo {
  std::string name;  // "host:port/nqn" + "n1", the bdev's name
  ControllerState state = ControllerState::kNew;
  uint64_t size_blocks = 0;
  uint32_t block_size = 0;
  IoStats stats;
};

struct DiscoveryEntry {
  std::string transport;  // "tcp", "rdma", ...
  std::string address;
  std::string port;
  std::string nqn;
  uint8_t subsystem_type = 0;  // 1 referral, 2 NVM, 3 this discovery service
};

class Controller;

// All initiators of one engine. Home reactor only.
class Initiator final {
 public:
  Initiator(Reactor& home, InitiatorOptions options);
  ~Initiator();
  Initiator(const Initiator&) = delete;
  Initiator& operator=(const Initiator&) = delete;

  // Connects and identifies. Parameters: uuid (must be the namespace's), hostnqn, hostid, hdgst,
  // ddgst (boolean); others are ignored. kInvalidArgument: bad URI or another namespace than asked
  // for; kUnavailable / kDeadlineExceeded: peer down or silent; kNotFound: no such subsystem;
  // kFailedPrecondition: host not allowed.
  Task<Result<std::shared_ptr<Bdev>>> create(std::string uri);
  [[nodiscard]] std::vector<ControllerInfo> list() const;
  // `name` of list(), or "" for all; false: no such controller.
  bool reset_stats(const std::string& name) noexcept;
  // What the discovery service at address:port offers to our host NQN.
  Task<Result<std::vector<DiscoveryEntry>>> discover(std::string address, uint16_t port);
  [[nodiscard]] const InitiatorOptions& options() const noexcept { return options_; }

 private:
  Reactor& home_;
  InitiatorOptions options_;
  std::vector<std::weak_ptr<Controller>> controllers_;
};

// Adds the scheme nvmf to the registry. The result may be kept for list() and discover(); the
// registry keeps it alive too. The reactors must outlive both, and the bdevs.
std::shared_ptr<Initiator> register_nvmf_scheme(BdevRegistry& registry, Reactor& home,
                                                InitiatorOptions options);
inline std::shared_ptr<Initiator> register_nvmf_scheme(BdevRegistry& registry, Reactors& reactors,
                                                       InitiatorOptions options) {
  return register_nvmf_scheme(registry, reactors.home(), std::move(options));
}

}  // namespace mayastor::nvmf

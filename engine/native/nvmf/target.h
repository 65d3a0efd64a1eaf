// NVMe/TCP target: serves bdevs to hosts, one subsystem with one namespace (NSID 1) each, plus the
// discovery subsystem. Any subsystem is reachable on both ports.
// Threads: every method runs on the home reactor. Accepting, admin queues and reservations live
// there too; I/O queues are spread over all reactors, each with its own bdev channel.
// Invariants: after remove_subsystem() and stop() complete, no I/O of theirs is in flight and no
// channel of their bdevs is open; an admin change (ANA, reservation, pause, hosts) holds on every
// reactor before the call that made it completes.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bdev/bdev.h"
#include "core/reactor.h"
#include "core/task.h"
#include "nvmf/host_ledger.h"
#include "nvmf/spec.h"
#include "util/result.h"
#include "util/uuid.h"

namespace mayastor::nvmf {

struct TargetOptions {
  std::string address = "127.0.0.1";  // IPv4 or IPv6 literal
  uint16_t replica_port = 8420;       // 0: any free port
  uint16_t nexus_port = 4421;
  uint32_t max_queue_depth = 128;    // entries of an I/O queue; env NVMF_TCP_MAX_QUEUE_DEPTH
  uint32_t max_qpairs = 32;          // per controller, admin queue included
  uint32_t max_admin_depth = 128;    // entries of an admin queue; hosts use 32
  uint32_t in_capsule_bytes = 4096;  // per I/O command; admin and fabrics commands: 8192
  uint32_t max_io_bytes = 131072;    // MDTS; power of two of 4 KiB, at most 1 MiB
  bool c2h_success = true;           // reads end with their data where the host allows it
  uint64_t ic_timeout_ms = 10'000;   // from accept to Connect
  // Of a host's transfer of which no byte moves, and of one that moves, to its end. Hosts give up a
  // command after 30 s themselves.
  uint64_t still_timeout_ms = 15'000;
  uint64_t transfer_timeout_ms = 60'000;
  // Admission. What is above is refused as busy, and may come again. A host has at most as many
  // connections as are then still free for others.
  uint32_t max_connections = 16'384;      // also at most 3/4 of the process's descriptors
  uint32_t max_early_connections = 1024;  // without a queue yet; the oldest goes
  uint32_t max_controllers = 4096;        // of all subsystems
  uint32_t max_discovery_controllers = 512;
  uint32_t max_controllers_per_host = 16;       // of one subsystem, by the host's NQN
  uint64_t association_timeout_ms = 120'000;    // controller neither enabled nor with I/O queues
  uint64_t discovery_keep_alive_ms = 120'000;   // when the host asked for none
  uint64_t keep_alive_min_ms = 10'000;          // shorter ones are raised to it
  uint64_t keep_alive_granularity_ms = 10'000;  // KAS
  // Longer ones: at Connect they are lowered to it, later they are refused.
  uint64_t keep_alive_max_ms = 600'000;
  uint16_t retry_delay_100ms[3] = {0, 0, 0};  // CRDT1..3
  // Of this machine, told to initiators for bdevs that do not know theirs (Bdev::power_cycle); nil:
  // not told.
  Uuid power_cycle;
  // Told of hosts that come and go, one line each; home reactor. May be empty.
  std::function<void(const std::string&)> log;
};

struct SubsystemOptions {
  std::string nqn;
  std::string serial;  // at most 20 ASCII characters
  std::string model = "Mayastor NVMe controller";
  std::shared_ptr<Bdev> bdev;
  Uuid nguid;                              // also the namespace's UUID
  std::vector<std::string> allowed_hosts;  // NQNs; empty: any host
  uint16_t cntlid_min = 1, cntlid_max = kMaxControllerId;
  bool ana_reporting = false;
  // A host that connects anew ends the controllers that it had, and is answered when their last I/O
  // has ended: what it had given up on can't land later than what it writes then. Not where ANA is
  // reported: there a host may come by several paths at once.
  bool one_controller_per_host = true;
  AnaState ana_state = AnaState::kOptimized;
  std::string ptpl_path;  // file for reservations that persist; empty: PTPL not offered
  uint16_t port = 0;      // port named in the discovery log; 0: the replica port
  std::shared_ptr<HostLedger> ledger;  // told of the hosts that come and go; null: nobody asks
};

struct HostInfo {
  std::string nqn;
  Uuid host_id;
  uint16_t controller_id = 0;
  uint32_t io_queues = 0;
  std::string peer;  // "ip:port" of the admin queue
};
struct SubsystemInfo {
  std::string nqn;
  std::string serial;
  std::string bdev_name;
  std::vector<std::string> allowed_hosts;
  AnaState ana_state = AnaState::kOptimized;
  bool paused = false;
  std::vector<HostInfo> hosts;  // connected controllers
};

class Target final {
 public:
  Target(Reactors& reactors, TargetOptions options);
  ~Target();  // after stop()
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  Task<Result<void>> start();
  Task<void> stop();  // removes every subsystem, closes every connection; idempotent

  // Bad NQN, serial or cntlid range -> kInvalidArgument; NQN taken -> kAlreadyExists.
  Task<Result<void>> add_subsystem(SubsystemOptions options);
  // Disconnects its hosts and waits for I/O in flight. Unknown -> kNotFound.
  Task<Result<void>> remove_subsystem(std::string nqn);
  // Disconnects hosts that are not allowed any more. Empty: any host.
  Task<Result<void>> set_allowed_hosts(std::string nqn, std::vector<std::string> hosts);
  // Hosts get an asynchronous event where ANA reporting is on; I/O that is not allowed in the new
  // state fails with a path status from then on, and what was with the bdev has ended.
  Task<Result<void>> set_ana_state(std::string nqn, AnaState state);
  [[nodiscard]] Result<AnaState> ana_state(const std::string& nqn) const;
  // Holds new I/O and waits for I/O in flight; admin commands go on. Pauses nest.
  Task<Result<void>> pause(std::string nqn);
  Task<Result<void>> resume(std::string nqn);
  // The bdev changed its size: hosts get an asynchronous event and look again.
  Task<Result<void>> namespace_changed(std::string nqn);

  [[nodiscard]] bool contains(const std::string& nqn) const;
  [[nodiscard]] Result<SubsystemInfo> find(const std::string& nqn) const;
  [[nodiscard]] std::vector<SubsystemInfo> list() const;
  [[nodiscard]] const TargetOptions& options() const noexcept;
  [[nodiscard]] uint16_t replica_port() const noexcept;  // bound; 0 before start()
  [[nodiscard]] uint16_t nexus_port() const noexcept;
  [[nodiscard]] uint32_t connection_count() const noexcept;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayastor::nvmf

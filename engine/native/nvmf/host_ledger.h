// Which hosts were connected to a subsystem, and how each of them left it.
// Why: a host that was cut off keeps its controller, reconnects by the subsystem's name and goes on
// with what it has in its memory. Only who shut its controllers down (CC.SHN) has nothing left to
// write. Owner: the home reactor of the target; it outlives the subsystem, so that it can be asked
// after the end. Invariants: a host with a controller is live; one whose controller ended in any
// other way than by a shutdown is lost until it connects again; beyond the limit complete() is
// false for good.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace mayastor::nvmf {

class HostLedger final {
 public:
  // A volume is published to a node or a few; more are somebody's experiment.
  static constexpr size_t kHostsMax = 256;

  struct Host {
    std::string nqn;
    uint32_t live = 0;  // controllers now
    uint32_t lost = 0;  // controllers that ended without a shutdown, and have not come back
  };

  using Id = std::array<uint8_t, 16>;

  void joined(const std::string& nqn, const Id& id);
  void shut_down(const std::string& nqn, const Id& id);  // a live controller
  void resumed(const std::string& nqn, const Id& id);    // enabled again after a shutdown
  void lost(const std::string& nqn, const Id& id);       // a live controller

  [[nodiscard]] std::vector<Host> hosts() const;
  [[nodiscard]] bool complete() const noexcept { return complete_; }

 private:
  [[nodiscard]] Host* find(const std::string& nqn, const Id& id);

  std::map<std::pair<std::string, Id>, Host> hosts_;
  bool complete_ = true;
};

}  // namespace mayastor::nvmf

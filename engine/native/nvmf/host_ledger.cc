#include "nvmf/host_ledger.h"

namespace mayastor::nvmf {

HostLedger::Host* HostLedger::find(const std::string& nqn, const Id& id) {
  const auto found = hosts_.find({nqn, id});
  return found == hosts_.end() ? nullptr : &found->second;
}

void HostLedger::joined(const std::string& nqn, const Id& id) {
  Host* host = find(nqn, id);
  if (host == nullptr) {
    if (hosts_.size() >= kHostsMax) {
      complete_ = false;
      return;
    }
    host = &hosts_[{nqn, id}];
    host->nqn = nqn;
  }
  ++host->live;
  if (host->lost > 0) --host->lost;  // the reconnect of one that was lost
}

void HostLedger::shut_down(const std::string& nqn, const Id& id) {
  Host* host = find(nqn, id);
  if (host != nullptr && host->live > 0) --host->live;
}

void HostLedger::resumed(const std::string& nqn, const Id& id) {
  Host* host = find(nqn, id);
  if (host != nullptr) ++host->live;
}

void HostLedger::lost(const std::string& nqn, const Id& id) {
  Host* host = find(nqn, id);
  if (host == nullptr || host->live == 0) return;
  --host->live;
  ++host->lost;
}

std::vector<HostLedger::Host> HostLedger::hosts() const {
  std::vector<Host> all;
  for (const auto& [key, host] : hosts_) all.push_back(host);
  return all;
}

}  // namespace mayastor::nvmf

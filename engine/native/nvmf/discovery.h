// Discovery log page: where a host finds the subsystems it may use.
// Source: NVMe over Fabrics 1.1, discovery log page; TCP entries per the TCP transport
// specification.
#pragma once
#include <string>
#include <vector>

#include "nvmf/spec.h"

namespace mayastor::nvmf::target {

// "10.0.0.1" of "10.0.0.1:8420", "::1" of "[::1]:8420".
[[nodiscard]] std::string host_part(const std::string& address_and_port);

class DiscoveryLogBuilder final {
 public:
  DiscoveryLogBuilder(uint64_t generation, std::string address);
  void add(const std::string& nqn, uint16_t port, uint32_t admin_queue_size);
  [[nodiscard]] std::vector<uint8_t> take();

 private:
  const std::string address_;
  DiscoveryLogHeader header_{};
  std::vector<uint8_t> log_;
};

}  // namespace mayastor::nvmf::target

#include "nvmf/discovery.h"

#include <algorithm>
#include <cstring>

namespace mayastor::nvmf::target {
namespace {

// Of TREQ: "not specified". "Not required" (2) makes libnvme 1.3 (Debian 12) ask for TLS in
// connect-all.
constexpr uint8_t kSecureChannelNotSpecified = 0;

template <size_t N>
void copy_padded(char (&field)[N], const std::string& text) {
  std::memset(field, ' ', N);
  std::memcpy(field, text.data(), std::min(N, text.size()));
}

}  // namespace

std::string host_part(const std::string& address_and_port) {
  const size_t colon = address_and_port.rfind(':');
  std::string host = address_and_port.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return host;
}

DiscoveryLogBuilder::DiscoveryLogBuilder(uint64_t generation, std::string address)
    : address_(std::move(address)), log_(sizeof(DiscoveryLogHeader)) {
  header_.generation = generation;
}

void DiscoveryLogBuilder::add(const std::string& nqn, uint16_t port, uint32_t admin_queue_size) {
  DiscoveryLogEntry entry{};
  entry.trtype = kTransportTcp;
  entry.adrfam = address_.find(':') == std::string::npos ? kAddressIpv4 : kAddressIpv6;
  entry.subtype = kSubtypeNvm;
  entry.treq = kSecureChannelNotSpecified;
  entry.cntlid = kDynamicControllerId;
  entry.asqsz = static_cast<uint16_t>(admin_queue_size);
  copy_padded(entry.trsvcid, std::to_string(port));
  copy_padded(entry.traddr, address_);
  std::memcpy(entry.subnqn, nqn.data(), std::min(nqn.size(), kNqnMaxLength));
  const auto* const bytes = reinterpret_cast<const uint8_t*>(&entry);
  log_.insert(log_.end(), bytes, bytes + sizeof(entry));
  ++header_.record_count;
}

std::vector<uint8_t> DiscoveryLogBuilder::take() {
  std::memcpy(log_.data(), &header_, sizeof(header_));
  return std::move(log_);
}

}  // namespace mayastor::nvmf::target

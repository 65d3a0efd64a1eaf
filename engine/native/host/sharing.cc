#include "host/sharing.h"

#include <cerrno>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "host/sha256.h"

namespace mayastor::host {

std::string nqn_of(std::string_view name) {
  std::string nqn(kNqnPrefix);
  nqn += name;
  return nqn;
}

std::string serial_of(const Uuid& uuid) {
  constexpr size_t kDigits = 17;
  constexpr char kHex[] = "0123456789ABCDEF";
  const auto digest = sha256(std::span<const uint8_t>(uuid.bytes));
  std::string serial = "DCS";
  for (size_t i = 0; i < kDigits; ++i) {
    const uint8_t byte = digest[i / 2];
    serial += kHex[i % 2 == 0 ? byte >> 4 : byte & 15];
  }
  return serial;
}

Sharing::Sharing(nvmf::Target& target, std::string address, std::string ptpl_dir)
    : target_(target), address_(std::move(address)), ptpl_dir_(std::move(ptpl_dir)) {}

Result<std::string> Sharing::prepare_ptpl(const std::string& file) const {
  if (ptpl_dir_.empty() || file.empty()) return std::string();
  const auto path = std::filesystem::path(ptpl_dir_) / file;
  std::error_code failed;
  std::filesystem::create_directories(path.parent_path(), failed);
  if (failed) {
    return errno_error(failed.value(), "Cannot create folder " + path.parent_path().string() +
                                           " for persistent reservations");
  }
  return path.string();
}

void Sharing::forget_reservations(const std::string& ptpl_path) const {
  if (ptpl_dir_.empty()) return;
  std::error_code ignored;  // a left-over file is overwritten when its subsystem is made again
  std::filesystem::remove_all(std::filesystem::path(ptpl_dir_) / ptpl_path, ignored);
}

// Each target of a volume is another nexus, yet initiators join paths only when the ids agree: a
// nexus named by a uuid (its volume's) is known by that one on the wire. What follows a colon tells
// one publication of the volume from the next: the name is another, the identity the same.
[[nodiscard]] static Uuid identity_of(const ShareRequest& request) {
  const auto volume = Uuid::parse(request.name.substr(0, request.name.find(':')));
  return request.as == ShareAs::kNexus && volume.ok() ? volume.value() : request.bdev->uuid();
}

Task<Result<void>> Sharing::share(ShareRequest request) {
  std::string nqn = nqn_of(request.name);
  if (const auto served = target_.find(nqn); served.ok()) {
    if (served.value().bdev_name != request.bdev->name()) {
      co_return Error{ErrorCode::kAlreadyExists, "Cannot share " + request.bdev->name() + " as " +
                                                     nqn + ": that name serves " +
                                                     served.value().bdev_name};
    }
    if (request.allowed_hosts.empty()) co_return Result<void>();
    std::vector<std::string> hosts = request.allowed_hosts;
    co_return co_await target_.set_allowed_hosts(std::move(nqn), std::move(hosts));
  }
  auto ptpl_path = prepare_ptpl(request.ptpl_file);
  if (!ptpl_path.ok()) co_return ptpl_path.error();
  nvmf::SubsystemOptions options;
  options.nqn = std::move(nqn);
  const Uuid identity = identity_of(request);
  options.serial = serial_of(identity);
  options.nguid = identity;
  options.bdev = std::move(request.bdev);
  options.allowed_hosts = std::move(request.allowed_hosts);
  options.cntlid_min = request.cntlid_min;
  options.cntlid_max = request.cntlid_max;
  options.ana_reporting = request.ana;
  options.ptpl_path = ptpl_path.take();
  options.ledger = std::move(request.ledger);
  options.port = request.as == ShareAs::kNexus ? target_.nexus_port() : target_.replica_port();
  co_return co_await target_.add_subsystem(std::move(options));
}

Task<Result<void>> Sharing::unshare(std::string name) {
  std::string nqn = nqn_of(name);
  if (!target_.contains(nqn)) co_return Result<void>();
  co_return co_await target_.remove_subsystem(std::move(nqn));
}

bool Sharing::is_shared(const std::string& name) const {
  return target_.contains(nqn_of(name));
}

std::vector<std::string> Sharing::allowed_hosts(const std::string& name) const {
  const auto found = target_.find(nqn_of(name));
  return found.ok() ? found.value().allowed_hosts : std::vector<std::string>();
}

std::string Sharing::uri(ShareAs as, const std::string& name) const {
  const bool ipv6 = address_.find(':') != std::string::npos;
  const uint16_t port = as == ShareAs::kNexus ? target_.nexus_port() : target_.replica_port();
  return "nvmf://" + (ipv6 ? "[" + address_ + "]" : address_) + ":" + std::to_string(port) + "/" +
         nqn_of(name);
}

}  // namespace mayastor::host

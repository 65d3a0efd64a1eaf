#include "host/bdev_service.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "util/uri.h"

namespace mayastor::host {
namespace {

constexpr char kTargetClaim[] = "the NVMe-oF target";

// Path-like bdev names become part of an NQN and of a URI path: "/dev/sdb" -> "dev-sdb".
[[nodiscard]] std::string share_name(const std::string& bdev_name) {
  std::string name = bdev_name;
  name.erase(0, std::min(name.find_first_not_of('/'), name.size()));
  std::replace(name.begin(), name.end(), '/', '-');
  return name;
}

}  // namespace

BdevService::BdevService(BdevRegistry& registry, Sharing& sharing, EngineEvents& events)
    : registry_(registry), sharing_(sharing), events_(events) {}

Task<Result<BdevInfo>> BdevService::create(std::string uri) {
  const auto created = co_await registry_.create(std::move(uri));
  if (!created.ok()) co_return created.error();
  events_.on_log(LogLevel::kInfo, "bdev created", {{"bdev", created.value()->name()}});
  co_return describe(*created.value());
}

Task<Result<void>> BdevService::destroy(std::string uri) {
  std::shared_ptr<Bdev> bdev = registry_.find(uri);
  if (!bdev) {
    const auto parsed = Uri::parse(uri);
    if (!parsed.ok()) co_return parsed.error();
    bdev = registry_.find(parsed.value().path());
    if (!bdev) bdev = registry_.find(parsed.value().name());
    for (const auto& other : registry_.list()) {
      if (!bdev && other->uri() == uri) bdev = other;
    }
  }
  const std::string what = "Cannot destroy bdev " + uri + ": ";
  if (!bdev) co_return Error{ErrorCode::kNotFound, what + "there is none"};
  const std::string by = registry_.claimed_by(bdev->name());
  if (!by.empty()) co_return Error{ErrorCode::kFailedPrecondition, what + "it is in use by " + by};
  if (bdev->uri().empty()) {
    co_return Error{ErrorCode::kFailedPrecondition,
                    what + "it was not made by a URI; destroy the replica or nexus instead"};
  }
  std::string name = bdev->name();
  bdev.reset();
  co_return co_await registry_.destroy(std::move(name));
}

Task<Result<BdevInfo>> BdevService::share(std::string name,
                                          std::vector<std::string> allowed_hosts) {
  const std::string what = "Cannot share bdev " + name + ": ";
  const auto bdev = registry_.find(name);
  if (!bdev) co_return Error{ErrorCode::kNotFound, what + "there is none"};
  const std::string nqn_name = share_name(bdev->name());
  const bool was_shared = sharing_.is_shared(nqn_name);
  if (!was_shared) {
    const auto claimed = registry_.claim(bdev->name(), kTargetClaim);
    if (!claimed.ok()) co_return Error{claimed.error().code, what + claimed.error().message};
  }
  ShareRequest request;
  request.name = nqn_name;
  request.bdev = bdev;
  request.allowed_hosts = std::move(allowed_hosts);
  const auto shared = co_await sharing_.share(std::move(request));
  if (!shared.ok()) {
    if (!was_shared) registry_.unclaim(bdev->name());
    co_return Error{shared.error().code, what + shared.error().message};
  }
  co_return describe(*bdev);
}

Task<Result<void>> BdevService::unshare(std::string name) {
  const auto bdev = registry_.find(name);
  if (!bdev) {
    co_return Error{ErrorCode::kNotFound, "Cannot unshare bdev " + name + ": there is none"};
  }
  if (registry_.claimed_by(bdev->name()) != kTargetClaim) co_return Result<void>();
  const auto unshared = co_await sharing_.unshare(share_name(bdev->name()));
  if (unshared.ok()) registry_.unclaim(bdev->name());
  co_return unshared;
}

Task<Result<void>> BdevService::destroy_all() {
  Result<void> worst;
  const auto all = registry_.list();
  std::vector<std::string> names;
  for (const auto& bdev : all) {
    if (!bdev->uri().empty()) names.push_back(bdev->name());
  }
  for (const auto& name : names) {
    const auto unshared = co_await unshare(name);
    if (!unshared.ok()) worst = unshared;
    std::string doomed = name;
    auto destroyed = co_await registry_.destroy(std::move(doomed));
    if (!destroyed.ok()) worst = destroyed;
  }
  co_return worst;
}

BdevInfo BdevService::describe(const Bdev& bdev) const {
  BdevInfo info;
  info.name = bdev.name();
  info.uuid = bdev.uuid().to_string();
  info.uri = bdev.uri();
  info.product_name = bdev.product_name();
  info.claimed_by = registry_.claimed_by(bdev.name());
  info.block_size = bdev.block_size();
  info.block_count = bdev.size_bytes() / bdev.block_size();
  const std::string nqn_name = share_name(bdev.name());
  info.share_uri = sharing_.is_shared(nqn_name) ? sharing_.uri(ShareAs::kReplica, nqn_name)
                                                : "bdev:///" + bdev.name();
  if (info.uri.empty()) info.uri = "bdev:///" + bdev.name();
  return info;
}

std::vector<BdevInfo> BdevService::list() const {
  std::vector<BdevInfo> infos;
  for (const auto& bdev : registry_.list()) infos.push_back(describe(*bdev));
  return infos;
}

}  // namespace mayastor::host

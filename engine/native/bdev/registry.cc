// BdevRegistry: names, URIs and claims of the devices of one engine.
#include <algorithm>

#include "bdev/bdev.h"
#include "util/uri.h"

namespace mayastor {

struct BdevRegistry::Entry {
  std::shared_ptr<Bdev> bdev;
  std::string claimed_by;
};

namespace {

bool is_local_scheme(const std::string& scheme) {
  return scheme == "bdev" || scheme == "loopback";
}

Error not_found(const std::string& what, const std::string& name) {
  return Error{ErrorCode::kNotFound, "Cannot " + what + ": bdev '" + name + "' not found"};
}

}  // namespace

IoStatus check_range(const Bdev& bdev, uint64_t offset, uint64_t length) noexcept {
  const uint32_t block_size = bdev.block_size();
  if (offset % block_size != 0 || length % block_size != 0) return io_status::kInvalidField;
  const uint64_t size = bdev.size_bytes();
  if (offset > size || length > size - offset) return io_status::kLbaOutOfRange;
  return io_status::kOk;
}

BdevRegistry::BdevRegistry() = default;
BdevRegistry::~BdevRegistry() = default;

void BdevRegistry::add_scheme(std::string scheme, Factory factory) {
  CHECK(schemes_.emplace(std::move(scheme), std::move(factory)).second);
}

Task<Result<std::shared_ptr<Bdev>>> BdevRegistry::create(std::string uri) {
  const auto parsed = Uri::parse(uri);
  if (!parsed.ok()) co_return parsed.error();
  const std::string scheme = parsed.value().scheme().empty() ? "aio" : parsed.value().scheme();
  if (is_local_scheme(scheme)) {
    const std::string name = parsed.value().name();
    const auto known = parsed.value().allow_only({"uuid"});
    if (!known.ok()) co_return known.error();
    const auto wanted = parsed.value().find_uuid("uuid");
    if (!wanted.ok()) co_return wanted.error();
    const auto bdev = find(name);
    if (!bdev) co_return not_found("open " + uri, name);
    if (wanted.value() && *wanted.value() != bdev->uuid()) {
      co_return Error{ErrorCode::kInvalidArgument,
                      "Cannot open " + uri + ": the bdev's uuid is " + bdev->uuid().to_string()};
    }
    co_return bdev;
  }
  const auto factory = schemes_.find(scheme);
  if (factory == schemes_.end()) {
    std::string list = "bdev, loopback";
    for (const auto& [name, unused] : schemes_) list += ", " + name;
    co_return Error{ErrorCode::kInvalidArgument, "Cannot create bdev '" + uri + "': scheme '" +
                                                     scheme +
                                                     "' is not supported; supported: " + list};
  }
  const std::string identity = parsed.value().without_query();
  for (const auto& [name, entry] : entries_) {
    const std::string& existing = entry->bdev->uri();
    if (!existing.empty() && existing.substr(0, existing.find('?')) == identity) {
      co_return Error{ErrorCode::kAlreadyExists,
                      "Cannot create bdev '" + uri + "': it exists as '" + name + "'"};
    }
  }
  // The factory's task may suspend for long (a connect); the same name is checked again by add().
  auto created = co_await factory->second(uri);
  if (!created.ok()) co_return created.error();
  std::shared_ptr<Bdev> bdev = created.take();
  const auto added = add(bdev);
  if (!added.ok()) co_return added.error();
  co_return bdev;
}

Task<Result<void>> BdevRegistry::destroy(std::string name_or_uri) {
  std::string name = name_or_uri;
  if (!entries_.contains(name)) {
    const std::string identity = name_or_uri.substr(0, name_or_uri.find('?'));
    for (const auto& [candidate, entry] : entries_) {
      const std::string existing = entry->bdev->uri();
      if (!existing.empty() && existing.substr(0, existing.find('?')) == identity) name = candidate;
    }
  }
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    const auto by_uuid = find(name_or_uri);
    if (!by_uuid) co_return not_found("destroy bdev", name_or_uri);
    name = by_uuid->name();
  }
  const auto& entry = entries_.at(name);
  if (!entry->claimed_by.empty()) {
    co_return Error{ErrorCode::kFailedPrecondition,
                    "Cannot destroy bdev '" + name + "': in use by " + entry->claimed_by};
  }
  entries_.erase(name);
  co_return Result<void>();
}

Result<void> BdevRegistry::add(std::shared_ptr<Bdev> bdev) {
  const std::string name = bdev->name();
  if (entries_.contains(name)) {
    return Error{ErrorCode::kAlreadyExists, "Cannot add bdev '" + name + "': the name is taken"};
  }
  auto entry = std::make_unique<Entry>();
  entry->bdev = std::move(bdev);
  entries_.emplace(name, std::move(entry));
  return {};
}

void BdevRegistry::remove(const std::string& name) {
  entries_.erase(name);
}

std::shared_ptr<Bdev> BdevRegistry::find(const std::string& name_or_uuid) const {
  const auto found = entries_.find(name_or_uuid);
  if (found != entries_.end()) return found->second->bdev;
  const auto uuid = Uuid::parse(name_or_uuid);
  if (!uuid.ok() || uuid.value().is_nil()) return nullptr;
  for (const auto& [name, entry] : entries_) {
    if (entry->bdev->uuid() == uuid.value()) return entry->bdev;
  }
  return nullptr;
}

std::vector<std::shared_ptr<Bdev>> BdevRegistry::list() const {
  std::vector<std::shared_ptr<Bdev>> all;
  for (const auto& [name, entry] : entries_) all.push_back(entry->bdev);
  return all;
}

Result<void> BdevRegistry::claim(const std::string& name, const std::string& by) {
  CHECK(!by.empty());
  const auto found = entries_.find(name);
  if (found == entries_.end()) return not_found("claim bdev", name);
  if (!found->second->claimed_by.empty()) {
    return Error{ErrorCode::kFailedPrecondition, "Cannot claim bdev '" + name + "' for " + by +
                                                     ": in use by " + found->second->claimed_by};
  }
  found->second->claimed_by = by;
  return {};
}

void BdevRegistry::unclaim(const std::string& name) {
  const auto found = entries_.find(name);
  if (found != entries_.end()) found->second->claimed_by.clear();
}

std::string BdevRegistry::claimed_by(const std::string& name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? "" : found->second->claimed_by;
}

}  // namespace mayastor

// See lvol.h. The I/O path is in lvol_channel.cc.
#include "lvs/lvol.h"

#include <algorithm>

#include "lvs/blobstore.h"
#include "lvs/lvol_channel.h"
#include "lvs/lvol_store.h"

namespace mayastor {

Lvol::Lvol(std::shared_ptr<LvolStore> store, std::shared_ptr<Blob> blob, std::string lvol_name,
           Uuid uuid)
    : store_(store),
      base_(store->base()),
      home_(store->store_->home()),
      blob_(std::move(blob)),
      lvol_name_(std::move(lvol_name)),
      uuid_(uuid),
      uuid_text_(uuid.to_string()),
      block_size_(store->store_->super().io_unit_size),
      volatile_cache_(base_->has_volatile_cache()),
      read_only_(blob_->read_only()),
      cluster_size_(store->cluster_size()) {
  for (const IoType type : {IoType::kRead, IoType::kWrite, IoType::kFlush, IoType::kUnmap,
                            IoType::kWriteZeroes, IoType::kCompare}) {
    if (base_->supports(type)) supported_ |= 1u << static_cast<uint32_t>(type);
  }
}

Lvol::~Lvol() {
  CHECK(open_channels_.load() == 0);
}

uint64_t Lvol::size_bytes() const noexcept {
  return uint64_t{blob_->map().size()} * cluster_size_;
}

IoStats Lvol::stats() const {
  return counters_.sum();
}
void Lvol::reset_stats() noexcept {
  counters_.reset();
}

// Pairs with open_channel(): each side writes its own mark, then reads the other's.
bool Lvol::close() noexcept {
  closed_.store(true);
  if (open_channels_.load() == 0) return true;
  closed_.store(false);
  return false;
}

Task<Result<std::unique_ptr<Channel>>> Lvol::open_channel() {
  const std::shared_ptr<Lvol> self = shared_from_this();
  open_channels_.fetch_add(1);
  if (closed_.load()) {
    open_channels_.fetch_sub(1);
    co_return Error{ErrorCode::kFailedPrecondition,
                    "Cannot open lvol '" + lvol_name_ +
                        "': it is being destroyed or its pool is "
                        "not loaded",
                    19};
  }
  auto channel = co_await base_->open_channel();
  if (!channel.ok()) {
    open_channels_.fetch_sub(1);
    co_return channel.error();
  }
  std::unique_ptr<Channel> opened = std::make_unique<LvolChannel>(self, channel.take());
  co_return opened;
}

bool Lvol::thin() const noexcept {
  return blob_->meta.thin();
}
bool Lvol::is_snapshot() const {
  return blob_->meta.find(lvol_property::kSnapshotTime) != nullptr;
}
bool Lvol::is_clone() const {
  return blob_->meta.find(lvol_property::kSourceUuid) != nullptr;
}
uint64_t Lvol::num_clusters() const noexcept {
  return blob_->map().size();
}
uint64_t Lvol::allocated_clusters() const noexcept {
  return blob_->allocated;
}
std::optional<uint64_t> Lvol::allocated_bytes() const {
  if (!thin()) return std::nullopt;
  uint64_t clusters = blob_->allocated;
  if (blob_->parent != nullptr) {
    clusters = 0;
    const auto count = static_cast<uint32_t>(num_clusters());
    for (uint32_t i = 0; i < count; ++i) clusters += blob_->resolve(i) != 0 ? 1 : 0;
  }
  return std::min(clusters * cluster_size_, size_bytes());
}

std::optional<std::string> Lvol::property(const std::string& name) const {
  const lvs_format::Xattr* xattr = blob_->meta.find(name);
  if (xattr == nullptr) return std::nullopt;
  return lvs_format::text_value(xattr->value);
}

Task<Result<void>> Lvol::set_property(std::string name, std::optional<std::string> value) {
  std::vector<std::pair<std::string, std::optional<std::string>>> changes;
  changes.emplace_back(std::move(name), std::move(value));
  co_return co_await set_properties(std::move(changes));
}

Task<Result<void>> Lvol::set_properties(
    std::vector<std::pair<std::string, std::optional<std::string>>> changes) {
  const std::string what = "Cannot change properties of lvol '" + lvol_name_ + "': ";
  const std::shared_ptr<Lvol> self = shared_from_this();
  const std::shared_ptr<LvolStore> store = store_.lock();
  if (store == nullptr) {
    co_return Error{ErrorCode::kFailedPrecondition, what + "its pool is not loaded", 19};
  }
  co_await store->operations_.lock();
  const AsyncLock held(store->operations_);
  if (store->store_ == nullptr || closed_.load()) {
    co_return Error{ErrorCode::kFailedPrecondition, what + "it or its pool is gone", 19};
  }
  std::vector<Blobstore::XattrChange> xattrs;
  for (auto& [name, value] : changes) {
    Blobstore::XattrChange change;
    change.name = name;
    if (value) change.value = lvol_property_on_disk(name, *value);
    const size_t bytes = name.size() + (change.value ? change.value->size() : 0);
    if (name.empty() || name == "name" || name == "uuid" || bytes > lvs_format::kXattrBytesMax) {
      co_return Error{ErrorCode::kInvalidArgument,
                      what + "property '" + name + "' is not allowed or too long", 22};
    }
    xattrs.push_back(std::move(change));
  }
  auto changed = co_await store->store_->change_xattrs(blob_, std::move(xattrs));
  if (!changed.ok()) {
    Error error = changed.error();
    error.message = what + error.message;
    co_return error;
  }
  co_return Result<void>();
}

}  // namespace mayastor

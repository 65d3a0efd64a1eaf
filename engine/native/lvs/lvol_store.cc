// See lvol_store.h.
#include "lvs/lvol_store.h"

#include <algorithm>

#include "core/buffer.h"
#include "lvs/blobstore.h"
#include "lvs/device_probe.h"
#include "lvs/io_error.h"
#include "lvs/lvol.h"

namespace mayastor {
namespace {

constexpr char kXattrName[] = "name", kXattrUuid[] = "uuid";

// The same error with what was tried in front.
Error cannot(const std::string& what, Error error) {
  error.message = "Cannot " + what + ": " + error.message;
  return error;
}
Error cannot(const std::string& what, ErrorCode code, std::string why, int32_t error_number) {
  return cannot(what, Error{code, std::move(why), error_number});
}

std::string check_name(const std::string& name, size_t max) {
  if (name.empty()) return "its name is empty";
  if (name.size() > max) {
    return "its name is longer than " + std::to_string(max) + " bytes";
  }
  const bool printable = std::all_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && c != 0x7F;
  });
  return printable ? "" : "its name has control characters";
}

// What the super blob says of the store.
struct StoreIdentity {
  std::string name;
  Uuid uuid;
};
Result<StoreIdentity> identity_of(const Blobstore& store) {
  const auto damaged = [](const char* what) {
    return Error{ErrorCode::kInternal, std::string("pool is damaged: ") + what, 117};
  };
  if (store.super().type != lvs_format::kLvolStoreType && !store.super().type.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "device holds a blobstore of type '" + store.super().type + "', not a pool", 6};
  }
  const std::shared_ptr<Blob> blob = store.super_blob();
  if (blob == nullptr) return damaged("its super blob is missing");
  const lvs_format::Xattr* name = blob->meta.find(kXattrName);
  const lvs_format::Xattr* uuid = blob->meta.find(kXattrUuid);
  if (name == nullptr || name->value.empty() || name->value.size() > kLvolStoreNameMax + 1) {
    return damaged("its name is missing or too long");
  }
  if (uuid == nullptr || uuid->value.size() != 37 || uuid->value.back() != '\0') {
    return damaged("its uuid is missing or malformed");
  }
  auto parsed = Uuid::parse(lvs_format::text_value(uuid->value));
  if (!parsed.ok()) return damaged("its uuid is malformed");
  return StoreIdentity{lvs_format::text_value(name->value), parsed.value()};
}

// Refuses to format over anything that looks like somebody's data.
Task<Result<void>> check_blank(std::shared_ptr<Bdev> base) {
  const uint64_t size = base->size_bytes();
  const uint64_t head_size = std::min(size, kProbeHeadBytes);
  const uint64_t aligned_end = size & ~((uint64_t{256} << 10) - 1);
  const uint64_t tail_start = aligned_end > kProbeTailBytes ? aligned_end - kProbeTailBytes : 0;
  auto channel = co_await base->open_channel();
  if (!channel.ok()) co_return channel_error(channel.error());
  AlignedBuffer head(head_size), tail(size - tail_start);
  IoStatus status = co_await read(*channel.value(), 0, head.data(), head.size());
  if (status.ok()) {
    status = co_await read(*channel.value(), tail_start, tail.data(), tail.size());
  }
  if (!status.ok()) co_return io_error(status, "the device cannot be read");
  const std::span<const uint8_t> head_bytes(head.data(), head.size());
  const std::span<const uint8_t> tail_bytes(tail.data(), tail.size());
  const auto found = recognise_contents(head_bytes, tail_bytes, size);
  if (found) {
    co_return Error{ErrorCode::kInvalidArgument,
                    "device holds " + *found +
                        "; if its data is not needed, wipe it first with "
                        "'wipefs -a' (and its partitions, if any), or, where wipefs finds "
                        "nothing, with 'dd if=/dev/zero of=<device> bs=1M count=1'",
                    17};
  }
  co_return Result<void>();
}

std::string property_on_disk(const std::string& name, std::string_view value) {
  // Snapshot and clone attributes are written without the NUL that the others carry.
  if (name.starts_with("io-engine.")) return std::string(value);
  return lvs_format::nul_terminated(value);
}

}  // namespace

std::string lvol_property_on_disk(const std::string& name, std::string_view value) {
  return property_on_disk(name, value);
}

// Without an export: as after a crash. Lvols with open channels keep the device.
LvolStore::~LvolStore() {
  bool idle = true;
  for (const auto& [id, lvol] : lvols_) idle = lvol->close() && idle;
  if (idle) detach();
}

void LvolStore::detach() {
  if (store_ == nullptr) return;
  base_->set_removed_handler(nullptr);
  store_.reset();
  // The device can be opened by others from now on, whoever still holds the store or its lvols.
  for (const auto& [id, lvol] : lvols_) lvol->base_.reset();
  base_.reset();
}

Task<Result<std::shared_ptr<LvolStore>>> LvolStore::adopt(std::shared_ptr<Bdev> base,
                                                          std::unique_ptr<Blobstore> store) {
  std::shared_ptr<LvolStore> self(new LvolStore());
  self->base_ = std::move(base);
  self->store_ = std::move(store);
  auto identity = identity_of(*self->store_);
  if (!identity.ok()) co_return identity.error();
  self->name_ = identity.value().name;
  self->uuid_ = identity.value().uuid;
  self->adopt_blobs();
  const std::weak_ptr<LvolStore> weak = self;
  self->base_->set_removed_handler([weak](IoStatus why) {
    const auto store = weak.lock();
    if (store == nullptr) return;
    store->lost_ = true;
    if (const auto told = std::exchange(store->lost_handler_, nullptr)) told();
    for (const auto& lvol : store->lvols()) lvol->base_removed(why);
  });
  co_return self;
}

void LvolStore::adopt_blobs() {
  for (const auto& [id, blob] : store_->blobs()) {
    if (id == store_->super().super_blob) continue;
    const lvs_format::Xattr* name = blob->meta.find(kXattrName);
    if (name == nullptr) continue;  // not a lvol: kept on disk, not offered
    const std::string fallback = uuid_.to_string() + "_" + std::to_string(id);
    Uuid uuid = Uuid::from_name(fallback);
    if (const lvs_format::Xattr* stored = blob->meta.find(kXattrUuid)) {
      auto parsed = Uuid::parse(lvs_format::text_value(stored->value));
      if (parsed.ok() && find_lvol(parsed.value()) == nullptr) uuid = parsed.value();
    }
    adopt_blob(blob, lvs_format::text_value(name->value), uuid);
  }
}

std::shared_ptr<Lvol> LvolStore::adopt_blob(std::shared_ptr<Blob> blob, std::string lvol_name,
                                            Uuid uuid) {
  const uint64_t id = blob->id();
  std::shared_ptr<Lvol> lvol(
      new Lvol(shared_from_this(), std::move(blob), std::move(lvol_name), uuid));
  lvols_.emplace(id, lvol);
  return lvol;
}

Task<Result<StoreProbe>> LvolStore::probe(std::shared_ptr<Bdev> base) {
  StoreProbe probe;
  auto super = co_await Blobstore::read_super(base);
  if (!super.ok()) {
    if (super.error().code == ErrorCode::kNotFound) co_return probe;
    co_return super.error();
  }
  auto identity = co_await Blobstore::read_super_blob_xattrs(base, super.take());
  if (!identity.ok()) co_return identity.error();
  for (const lvs_format::Xattr& xattr : identity.value()) {
    const std::string text = lvs_format::text_value(xattr.value);
    if (xattr.name == kXattrName) probe.name = text;
    if (xattr.name == kXattrUuid) {
      if (auto parsed = Uuid::parse(text); parsed.ok()) probe.uuid = parsed.value();
    }
  }
  probe.found = !probe.name.empty();
  co_return probe;
}

Task<Result<std::shared_ptr<LvolStore>>> LvolStore::create(std::shared_ptr<Bdev> base,
                                                           LvolStoreOptions options) {
  const std::string what = "create pool '" + options.name + "' on '" + base->name() + "'";
  const auto invalid = [&what](std::string why) {
    return cannot(what, ErrorCode::kInvalidArgument, std::move(why), 22);
  };
  if (const std::string bad = check_name(options.name, kLvolStoreNameMax); !bad.empty()) {
    co_return invalid(bad);
  }
  const uint32_t cluster_size = options.cluster_size;
  if (cluster_size % kMinClusterSize != 0 || cluster_size < kMinClusterSize ||
      cluster_size > kMaxClusterSize) {
    co_return invalid("cluster size " + std::to_string(cluster_size) +
                      " is not a multiple of 1 MiB between 1 MiB and 1 GiB");
  }
  lvs_format::LayoutOptions layout;
  layout.device_bytes = base->size_bytes();
  layout.cluster_size = cluster_size;
  layout.block_size = base->block_size();
  layout.md_reserve_ratio_percent = options.md_reserve_ratio_percent;
  auto planned = lvs_format::plan_layout(layout);
  if (!planned.ok()) co_return cannot(what, planned.error());

  auto found = co_await probe(base);
  if (!found.ok() && found.error().code != ErrorCode::kInternal) {
    co_return cannot(what, found.error());
  }
  if (!found.ok()) {
    co_return invalid("device holds a damaged pool (" + found.error().message +
                      "); if its data is not needed, wipe the first 4096 bytes of the device");
  }
  if (found.value().found) {
    co_return invalid("device holds the pool '" + found.value().name + "' (" +
                      found.value().uuid.to_string() + "); import it, or destroy it first");
  }
  auto super = co_await Blobstore::read_super(base);
  if (super.ok()) {
    co_return invalid("device holds a blobstore of type '" + super.value().type +
                      "'; if its data is not needed, wipe the first 4096 bytes of the device");
  }
  // Only a super block that was read and is none makes room for a new one.
  if (super.error().code != ErrorCode::kNotFound) co_return cannot(what, super.error());
  auto blank = co_await check_blank(base);
  if (!blank.ok()) co_return cannot(what, blank.error());

  BlobstoreFormatOptions format;
  format.cluster_size = cluster_size;
  format.md_reserve_ratio_percent = options.md_reserve_ratio_percent;
  const Uuid uuid = options.uuid ? *options.uuid : Uuid::random();
  format.super_xattrs.push_back({kXattrUuid, lvs_format::uuid_value(uuid)});
  format.super_xattrs.push_back({kXattrName, lvs_format::nul_terminated(options.name)});
  auto store = co_await Blobstore::format(base, std::move(format));
  if (!store.ok()) co_return cannot(what, store.error());
  auto adopted = co_await adopt(std::move(base), store.take());
  if (!adopted.ok()) co_return cannot(what, adopted.error());
  co_return adopted;
}

Task<Result<std::shared_ptr<LvolStore>>> LvolStore::import(std::shared_ptr<Bdev> base,
                                                           std::string name,
                                                           std::optional<Uuid> uuid) {
  const std::string what = "import pool '" + name + "' from '" + base->name() + "'";
  // Who it is comes before loading, which writes after a crash: not to a pool that is not meant.
  auto found = co_await probe(base);
  if (!found.ok()) co_return cannot(what, found.error());
  if (!found.value().found) {
    co_return cannot(what, ErrorCode::kNotFound, "no pool found on the device", 2);
  }
  if (found.value().name != name) {
    co_return cannot(what, ErrorCode::kInvalidArgument,
                     "device holds the pool '" + found.value().name + "'", 22);
  }
  if (uuid && found.value().uuid != *uuid) {
    co_return cannot(what, ErrorCode::kInvalidArgument,
                     "the pool on the device has another uuid, " + found.value().uuid.to_string() +
                         " instead of " + uuid->to_string(),
                     22);
  }
  auto store = co_await Blobstore::load(base);
  if (!store.ok()) co_return cannot(what, store.error());
  auto adopted = co_await adopt(std::move(base), store.take());
  if (!adopted.ok()) co_return cannot(what, adopted.error());
  co_return adopted;
}

Result<void> LvolStore::check_loaded(const std::string& what) const {
  if (store_ != nullptr) return {};
  return cannot(what, ErrorCode::kFailedPrecondition, "pool '" + name_ + "' is not loaded", 19);
}

Result<void> LvolStore::close_lvols(const std::string& what) {
  for (const auto& [id, lvol] : lvols_) {
    if (lvol->close()) continue;
    for (const auto& [other_id, other] : lvols_) other->reopen();
    return cannot(what, ErrorCode::kFailedPrecondition,
                  "its lvol '" + lvol->lvol_name() + "' is in use", 16);
  }
  return {};
}

Task<Result<void>> LvolStore::export_store() {
  const auto self = shared_from_this();
  const std::string what = "export pool '" + name_ + "'";
  co_await operations_.lock();
  const AsyncLock held(operations_);
  auto ready = check_loaded(what);
  if (ready.ok()) ready = close_lvols(what);
  if (!ready.ok()) co_return ready;
  auto unloaded = co_await store_->unload();
  // Kept loaded it could not be imported again, which is what recovers it.
  if (!unloaded.ok()) unclean_export_ = unloaded.error().message;
  detach();
  co_return Result<void>();
}

Task<Result<void>> LvolStore::destroy() {
  const auto self = shared_from_this();
  const std::string what = "destroy pool '" + name_ + "'";
  co_await operations_.lock();
  const AsyncLock held(operations_);
  auto ready = check_loaded(what);
  if (ready.ok()) ready = close_lvols(what);
  if (!ready.ok()) co_return ready;
  auto wiped = co_await store_->wipe();
  if (!wiped.ok()) {
    for (const auto& [id, lvol] : lvols_) lvol->reopen();
    co_return cannot(what, wiped.error());
  }
  detach();
  lvols_.clear();
  co_return Result<void>();
}

Task<Result<std::shared_ptr<Lvol>>> LvolStore::create_lvol(LvolOptions options) {
  const auto self = shared_from_this();
  const std::string what = "create lvol '" + options.name + "'";
  co_await operations_.lock();
  const AsyncLock held(operations_);
  if (auto ready = check_loaded(what); !ready.ok()) co_return ready.error();
  const auto invalid = [&what](std::string why) {
    return cannot(what, ErrorCode::kInvalidArgument, std::move(why), 22);
  };
  if (const std::string bad = check_name(options.name, kLvolNameMax); !bad.empty()) {
    co_return invalid(bad);
  }
  if (options.uuid.is_nil()) co_return invalid("its uuid is nil");
  if (options.size_bytes == 0) co_return invalid("its size is 0");
  if (options.size_bytes > capacity_bytes()) {
    co_return cannot(what, ErrorCode::kInvalidArgument,
                     "its size of " + std::to_string(options.size_bytes) +
                         " bytes exceeds the pool's capacity of " +
                         std::to_string(capacity_bytes()) + " bytes",
                     75);
  }
  if (find_lvol(options.uuid) != nullptr || find_lvol(options.name) != nullptr) {
    co_return cannot(what, ErrorCode::kAlreadyExists,
                     "pool '" + name_ + "' has a lvol of that name or uuid", 17);
  }
  BlobOptions blob_options;
  blob_options.thin = options.thin;
  blob_options.num_clusters = (options.size_bytes + cluster_size() - 1) / cluster_size();
  blob_options.xattrs.push_back({kXattrName, lvs_format::name_value_padded(options.name)});
  blob_options.xattrs.push_back({kXattrUuid, lvs_format::uuid_value(options.uuid)});
  for (const auto& [key, value] : options.properties) {
    std::string stored = property_on_disk(key, value);
    if (key.empty() || key == kXattrName || key == kXattrUuid ||
        key.size() + stored.size() > lvs_format::kXattrBytesMax) {
      co_return invalid("property '" + key + "' is not allowed or too long");
    }
    blob_options.xattrs.push_back({key, std::move(stored)});
  }
  auto blob = co_await store_->create_blob(std::move(blob_options));
  if (!blob.ok()) co_return cannot(what, blob.error());
  co_return adopt_blob(blob.take(), options.name, options.uuid);
}

Task<Result<void>> LvolStore::destroy_lvol(Uuid uuid) {
  const auto self = shared_from_this();
  const std::string what = "destroy lvol " + uuid.to_string();
  co_await operations_.lock();
  const AsyncLock held(operations_);
  if (auto ready = check_loaded(what); !ready.ok()) co_return ready;
  const std::shared_ptr<Lvol> lvol = find_lvol(uuid);
  if (lvol == nullptr) {
    co_return cannot(what, ErrorCode::kNotFound, "pool '" + name_ + "' has no such lvol", 2);
  }
  if (!lvol->close()) {
    co_return cannot(what, ErrorCode::kFailedPrecondition, "it is in use; unshare it first", 16);
  }
  auto deleted = co_await store_->delete_blob(lvol->blob_);
  if (!deleted.ok()) {
    lvol->reopen();
    co_return cannot(what, deleted.error());
  }
  lvols_.erase(lvol->blob_->id());
  co_return Result<void>();
}

Task<Result<void>> LvolStore::resize_lvol(Uuid uuid, uint64_t size_bytes) {
  const auto self = shared_from_this();
  const std::string what = "resize lvol " + uuid.to_string();
  co_await operations_.lock();
  const AsyncLock held(operations_);
  if (auto ready = check_loaded(what); !ready.ok()) co_return ready;
  const std::shared_ptr<Lvol> lvol = find_lvol(uuid);
  if (lvol == nullptr) {
    co_return cannot(what, ErrorCode::kNotFound, "pool '" + name_ + "' has no such lvol", 2);
  }
  if (size_bytes == 0 || size_bytes > capacity_bytes()) {
    co_return cannot(
        what, ErrorCode::kInvalidArgument,
        "size of " + std::to_string(size_bytes) + " bytes is 0 or exceeds the pool's capacity", 22);
  }
  const uint64_t clusters = (size_bytes + cluster_size() - 1) / cluster_size();
  const bool shrinks = clusters < lvol->num_clusters();
  if (shrinks && !lvol->close()) {
    co_return cannot(what, ErrorCode::kFailedPrecondition, "it is in use and would shrink", 16);
  }
  auto resized = co_await store_->resize_blob(lvol->blob_, clusters);
  if (shrinks) lvol->reopen();
  if (!resized.ok()) co_return cannot(what, resized.error());
  co_return Result<void>();
}

std::vector<uint32_t> LvolStore::cut_off_lvols() const {
  return store_ == nullptr ? std::vector<uint32_t>() : store_->cut_off_roots();
}

std::vector<uint32_t> LvolStore::gone_lvols() const {
  return store_ == nullptr ? std::vector<uint32_t>() : store_->gone_roots();
}

bool LvolStore::failed() const noexcept {
  return store_ != nullptr && (lost_ || store_->failed());
}

uint32_t LvolStore::cluster_size() const noexcept {
  return store_ == nullptr ? kDefaultClusterSize : store_->super().cluster_size;
}
uint64_t LvolStore::total_clusters() const noexcept {
  return store_ == nullptr ? 0 : store_->data_clusters();
}
uint64_t LvolStore::free_clusters() const noexcept {
  return store_ == nullptr ? 0 : store_->free_clusters();
}
uint64_t LvolStore::capacity_bytes() const noexcept {
  return total_clusters() * cluster_size();
}
uint64_t LvolStore::used_bytes() const noexcept {
  return (total_clusters() - free_clusters()) * cluster_size();
}
uint64_t LvolStore::committed_bytes() const noexcept {
  uint64_t sum = 0;
  for (const auto& [id, lvol] : lvols_) sum += lvol->size_bytes();
  return sum;
}
uint64_t LvolStore::metadata_pages() const noexcept {
  return store_ == nullptr ? 0 : store_->super().md_len;
}
uint64_t LvolStore::free_metadata_pages() const noexcept {
  return store_ == nullptr ? 0 : store_->free_pages();
}

std::string LvolStore::audit() const {
  return store_ == nullptr ? "" : store_->audit();
}

std::vector<std::shared_ptr<Lvol>> LvolStore::lvols() const {
  std::vector<std::shared_ptr<Lvol>> all;
  for (const auto& [id, lvol] : lvols_) all.push_back(lvol);
  return all;
}

std::shared_ptr<Lvol> LvolStore::find_lvol(const Uuid& uuid) const {
  for (const auto& [id, lvol] : lvols_) {
    if (lvol->uuid() == uuid) return lvol;
  }
  return nullptr;
}

std::shared_ptr<Lvol> LvolStore::find_lvol(const std::string& name) const {
  for (const auto& [id, lvol] : lvols_) {
    if (lvol->lvol_name() == name) return lvol;
  }
  return nullptr;
}

}  // namespace mayastor

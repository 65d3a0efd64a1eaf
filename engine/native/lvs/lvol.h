// Lvol: a logical volume of a pool, as a bdev. Thick: every cluster is there from the start. Thin:
// clusters come with the first write, and what was never written reads as zeroes (or as the parent
// snapshot, for a clone).
// Owner: the home reactor for everything but I/O; channels may be opened on any reactor.
// Invariants: the cluster map only gains entries while a channel is open, so that other cores read
// it without locks; a write is acknowledged only when the metadata it needs is on stable storage.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bdev/bdev.h"
#include "bdev/io_counters.h"
#include "core/task.h"

namespace mayastor {

class Blob;
class LvolChannel;
class LvolStore;
class Reactor;

// Names of properties (xattrs) that pools of Mayastor know.
namespace lvol_property {
inline constexpr const char* kShared = "shared";               // "true" or "false"
inline constexpr const char* kAllowedHosts = "allowed-hosts";  // comma-joined host NQNs
inline constexpr const char* kEntityId = "entity_id";          // volume the replica belongs to
inline constexpr const char* kSnapshotTime = "io-engine.snapshot_create_time";
inline constexpr const char* kSourceUuid = "io-engine.source_uuid";  // snapshot of a clone
}  // namespace lvol_property

// A property's value as it is stored: with the NUL other implementations expect, where they do.
[[nodiscard]] std::string lvol_property_on_disk(const std::string& name, std::string_view value);

class Lvol final : public Bdev, public std::enable_shared_from_this<Lvol> {
 public:
  ~Lvol() override;
  Lvol(const Lvol&) = delete;
  Lvol& operator=(const Lvol&) = delete;

  // Bdev. name() is the lvol's uuid as text, as in `bdev:///<uuid>`; lvol_name() its given name.
  [[nodiscard]] const std::string& name() const noexcept override { return uuid_text_; }
  [[nodiscard]] const Uuid& uuid() const noexcept override { return uuid_; }
  [[nodiscard]] std::string product_name() const override { return "Logical Volume"; }
  [[nodiscard]] std::string uri() const override { return ""; }
  [[nodiscard]] uint32_t block_size() const noexcept override { return block_size_; }
  [[nodiscard]] uint64_t size_bytes() const noexcept override;
  [[nodiscard]] bool supports(IoType type) const noexcept override {
    return (supported_ >> static_cast<uint32_t>(type) & 1) != 0;
  }
  [[nodiscard]] bool has_volatile_cache() const noexcept override { return volatile_cache_; }
  [[nodiscard]] std::optional<uint64_t> allocated_bytes() const override;
  Task<Result<std::unique_ptr<Channel>>> open_channel() override;
  [[nodiscard]] IoStats stats() const override;
  void add_latencies(IoLatencies& total) const override { counters_.add_latencies(total); }
  void reset_stats() noexcept override;

  // Home reactor.
  [[nodiscard]] const std::string& lvol_name() const noexcept { return lvol_name_; }
  // The store, or nullptr after it was exported or destroyed.
  [[nodiscard]] std::shared_ptr<LvolStore> store() const noexcept { return store_.lock(); }
  [[nodiscard]] bool thin() const noexcept;
  [[nodiscard]] bool read_only() const noexcept { return read_only_; }  // any core
  [[nodiscard]] bool is_snapshot() const;  // has the snapshot time property
  [[nodiscard]] bool is_clone() const;     // made from a snapshot
  [[nodiscard]] uint64_t num_clusters() const noexcept;
  [[nodiscard]] uint64_t allocated_clusters() const noexcept;  // own ones, not a parent's
  [[nodiscard]] uint32_t open_channels() const noexcept {
    return open_channels_.load(std::memory_order_acquire);
  }
  // Properties are xattrs of the lvol on disk. Values are text (the NUL Mayastor adds on disk is
  // hidden). `name` and `uuid` cannot be changed here. An empty optional removes. Durable on
  // return.
  [[nodiscard]] std::optional<std::string> property(const std::string& name) const;
  Task<Result<void>> set_property(std::string name, std::optional<std::string> value);
  // Several at once, all or nothing.
  Task<Result<void>> set_properties(
      std::vector<std::pair<std::string, std::optional<std::string>>> changes);

 private:
  friend class LvolStore;
  friend class LvolChannel;
  Lvol(std::shared_ptr<LvolStore> store, std::shared_ptr<Blob> blob, std::string lvol_name,
       Uuid uuid);
  void base_removed(IoStatus why) { notify_removed(why); }
  // False while a channel is open; else no channel opens until reopen().
  [[nodiscard]] bool close() noexcept;
  void reopen() noexcept { closed_.store(false); }

  std::weak_ptr<LvolStore> store_;
  std::shared_ptr<Bdev> base_;  // null once the pool is exported or destroyed
  Reactor& home_;
  std::shared_ptr<Blob> blob_;
  std::string lvol_name_;
  Uuid uuid_;
  std::string uuid_text_;
  const uint32_t block_size_;
  const bool volatile_cache_;
  const bool read_only_;    // as loaded
  uint32_t supported_ = 0;  // bit per IoType
  const uint32_t cluster_size_;
  std::atomic<uint32_t> open_channels_{0};
  std::atomic<bool> closed_{false};  // no more channels: being destroyed, or the pool is gone
  IoCounterSet counters_;
};

}  // namespace mayastor

// FaultBdev: a bdev in front of another that fails, delays, holds or corrupts chosen requests; for
// tests and drills. By URI: error:///name?base=<bdev>, delay:///name?base=<bdev>&read_us=&write_us=
// Why one class: a slow disk and a broken disk are the same disk at different times.
// Rules are checked in order; the first that matches a request decides. Home reactor only: set
// rules there; channels of every reactor see them from their next request on.
#pragma once
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "bdev/bdev.h"
#include "bdev/io_counters.h"

namespace mayastor {

struct FaultRule {
  std::optional<IoType> type;        // nullopt: any
  bool writes = false;               // true: any request that changes the medium (overrides type)
  uint64_t offset = 0;               // requests that touch [offset, offset + length)
  uint64_t length = UINT64_MAX;      // flushes touch everything
  uint64_t skip = 0;                 // lets so many matching requests pass first (the nth fails)
  uint64_t count = UINT64_MAX;       // then applies to so many
  IoStatus status = io_status::kOk;  // not ok: the request fails with it
  bool forward_anyway = false;       // with a failure: the base still performs it
  uint64_t delay_ns = 0;             // before the request goes on
  bool hold = false;                 // kept until release_held()
  bool corrupt = false;              // reads: the first byte of the data is inverted
};

class FaultBdev final : public Bdev, public std::enable_shared_from_this<FaultBdev> {
 public:
  [[nodiscard]] static std::shared_ptr<FaultBdev> create(std::string name,
                                                         std::shared_ptr<Bdev> base,
                                                         std::string uri = "");
  ~FaultBdev() override;

  uint64_t add_rule(FaultRule rule);  // an id for remove_rule()
  void remove_rule(uint64_t id);
  void clear_rules();
  // Lets held requests go on; call on the reactor whose channel holds them, or through messages.
  void release_held();
  [[nodiscard]] uint64_t held_count() const noexcept { return held_count_.load(); }
  [[nodiscard]] uint64_t hit_count() const noexcept { return hit_count_.load(); }
  // As if the device was pulled out: tells the claimer, and every request fails from now on.
  void remove_device(IoStatus why);
  [[nodiscard]] Bdev& base() noexcept { return *base_; }

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] const Uuid& uuid() const noexcept override { return base_->uuid(); }
  [[nodiscard]] std::string product_name() const override { return "Fault injection"; }
  [[nodiscard]] std::string uri() const override { return uri_; }
  [[nodiscard]] uint32_t block_size() const noexcept override { return base_->block_size(); }
  [[nodiscard]] uint64_t size_bytes() const noexcept override {
    return std::min(base_->size_bytes(), size_limit_.load());
  }
  void shrink_to(uint64_t size_bytes) noexcept { size_limit_ = size_bytes; }
  [[nodiscard]] bool supports(IoType type) const noexcept override { return base_->supports(type); }
  [[nodiscard]] std::optional<uint64_t> allocated_bytes() const override {
    return base_->allocated_bytes();
  }
  [[nodiscard]] bool unmap_zeroes() const noexcept override { return base_->unmap_zeroes(); }
  [[nodiscard]] bool has_volatile_cache() const noexcept override {
    return base_->has_volatile_cache();
  }
  Task<Result<std::unique_ptr<Channel>>> open_channel() override;
  [[nodiscard]] IoStats stats() const override { return base_->stats(); }
  void add_latencies(IoLatencies& total) const override { base_->add_latencies(total); }
  void reset_stats() noexcept override { base_->reset_stats(); }
  [[nodiscard]] DeviceHealth health() const override { return base_->health(); }

 private:
  friend class FaultChannel;
  std::atomic<uint64_t> size_limit_{UINT64_MAX};
  struct Rule {
    uint64_t id;
    FaultRule rule;
  };
  FaultBdev(std::string name, std::shared_ptr<Bdev> base, std::string uri);
  // The rule for this request, with its counters moved on.
  [[nodiscard]] std::optional<FaultRule> decide(const Io& io);
  const std::string name_;
  const std::shared_ptr<Bdev> base_;
  const std::string uri_;
  std::mutex mutex_;  // a test device: contention does not matter
  std::vector<Rule> rules_;
  uint64_t next_id_ = 1;
  std::vector<class FaultChannel*> channels_;
  std::atomic<uint64_t> held_count_{0}, hit_count_{0};
};

// The FaultBdev registered under this name, or nullptr when it is none.
[[nodiscard]] std::shared_ptr<FaultBdev> find_fault_bdev(const BdevRegistry& registry,
                                                         const std::string& name);
// error:// and delay://: the base is looked up in `registry` when a device is created.
[[nodiscard]] BdevRegistry::Factory fault_bdev_factory(BdevRegistry& registry);

}  // namespace mayastor

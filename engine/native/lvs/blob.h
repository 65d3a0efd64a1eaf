// Blob: one object of a pool in memory: its metadata, where that lies on disk, and the cluster map
// that I/O on any core reads.
// Owner: the home reactor, through Blobstore. Other cores only call map(), resolve() and the const
// flags fixed at load. Invariants: map entries go from 0 to a cluster once, after that cluster is
// durable; a map that was replaced (resize) stays readable until the blob is gone.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/task.h"
#include "lvs/format.h"
#include "util/io_status.h"

namespace mayastor {

class ClusterMap final {
 public:
  explicit ClusterMap(std::span<const uint32_t> clusters)
      : size_(static_cast<uint32_t>(clusters.size())),
        entries_(std::make_unique<std::atomic<uint32_t>[]>(clusters.size())) {
    for (uint32_t i = 0; i < size_; ++i) set(i, clusters[i]);
  }
  [[nodiscard]] uint32_t size() const noexcept { return size_; }
  [[nodiscard]] uint32_t get(uint32_t index) const noexcept {
    return entries_[index].load(std::memory_order_acquire);
  }
  void set(uint32_t index, uint32_t cluster) noexcept {
    entries_[index].store(cluster, std::memory_order_release);
  }

 private:
  const uint32_t size_;
  std::unique_ptr<std::atomic<uint32_t>[]> entries_;
};

// A first write in progress: whoever else wants this cluster waits for it.
struct PendingCluster {
  uint32_t device_cluster = 0;
  bool filled = false;  // zeroes or the parent's data are on stable storage
  bool committed = false;
  IoStatus status;
  Latch finished;
};

class Blob final {
 public:
  Blob(uint64_t id, lvs_format::BlobMetadata metadata) : id_(id), meta(std::move(metadata)) {
    publish_map();
  }
  Blob(const Blob&) = delete;
  Blob& operator=(const Blob&) = delete;

  [[nodiscard]] uint64_t id() const noexcept { return id_; }
  [[nodiscard]] uint32_t root_page() const noexcept { return lvs_format::root_page_of(id_); }
  [[nodiscard]] bool read_only() const noexcept {
    return (meta.data_ro_flags & lvs_format::kDataReadOnly) != 0 || data_locked();
  }
  [[nodiscard]] bool data_locked() const noexcept {  // flags this version does not know
    return (meta.data_ro_flags & ~lvs_format::kDataReadOnlyKnown) != 0;
  }
  [[nodiscard]] bool metadata_locked() const noexcept {
    return data_locked() || (meta.md_ro_flags & ~lvs_format::kClearMethodMask) != 0;
  }

  // Any core.
  [[nodiscard]] const ClusterMap& map() const noexcept {
    return *map_.load(std::memory_order_acquire);
  }
  // Device cluster holding the data of `index`, own or an ancestor's; 0: reads as zeroes.
  [[nodiscard]] uint32_t resolve(uint32_t index) const noexcept {
    for (const Blob* blob = this; blob != nullptr; blob = blob->parent.get()) {
      const ClusterMap& clusters = blob->map();
      if (index >= clusters.size()) return 0;
      if (const uint32_t cluster = clusters.get(index); cluster != 0) return cluster;
    }
    return 0;
  }
  // False when what lies under unallocated clusters cannot be read here (an external or a missing
  // parent, of this blob or of an ancestor).
  [[nodiscard]] bool backing_readable() const noexcept {
    for (const Blob* blob = this; blob != nullptr; blob = blob->parent.get()) {
      if (blob->backing_missing) return false;
    }
    return true;
  }

  // Home reactor.
  void publish_map() {
    maps_.push_back(std::make_unique<ClusterMap>(meta.clusters));
    map_.store(maps_.back().get(), std::memory_order_release);
    allocated = 0;
    for (const uint32_t cluster : meta.clusters) allocated += cluster != 0 ? 1 : 0;
  }
  void publish_cluster(uint32_t index) {
    maps_.back()->set(index, meta.clusters[index]);
    ++allocated;
  }

 private:
  const uint64_t id_;
  std::vector<std::unique_ptr<ClusterMap>> maps_;  // the last is current
  std::atomic<const ClusterMap*> map_{nullptr};

 public:
  lvs_format::BlobMetadata meta;
  std::vector<uint32_t> chain;   // metadata pages after the root
  std::shared_ptr<Blob> parent;  // fixed while a channel may read it
  bool backing_missing = false;
  uint32_t clone_count = 0;
  uint64_t allocated = 0;
  std::map<uint32_t, std::shared_ptr<PendingCluster>> pending;
};

}  // namespace mayastor

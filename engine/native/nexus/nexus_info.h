// NexusInfo: the durable record of which children hold a full copy of the volume, and the port
// through which it is stored. Why: after a crash the control plane builds the next nexus only from
// children this record calls healthy, so a write that a child missed may be acknowledged only once
// the record says so. JSON (keys in alphabetical order):
//   {"children":[{"healthy":true,"uuid":"<replica uuid>"}],"clean_shutdown":false}
// Why a put names the revision that it replaces: the control plane fences the record of a nexus
// that another one follows. Should it go on unaware, it can record no further child as unhealthy.
// Owner: the nexus, on the home reactor.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/task.h"
#include "util/result.h"

namespace mayastor::nexus {

// Where the records live (etcd in production). Called on the home reactor.
class NexusInfoStore {
 public:
  virtual ~NexusInfoStore() = default;
  // Returns the revision of the record when `json` is durable under `key`. `replaces` is the one
  // that the nexus put last, absent for its first: that overwrites whatever is there.
  // Errors, each of them for good: the record is not at `replaces` any more, so somebody else wrote
  // it or took it away (told at once); the retry limits are used up.
  virtual Task<Result<uint64_t>> put(std::string key, std::string json,
                                     std::optional<uint64_t> replaces) = 0;
};

class NexusInfo final {
 public:
  struct ChildRecord {
    std::string uuid;
    bool healthy = false;
  };
  bool clean_shutdown = false;

  void set(std::string_view uuid, bool healthy);  // adds or replaces
  void remove(std::string_view uuid);
  [[nodiscard]] bool is_healthy(std::string_view uuid) const noexcept;
  [[nodiscard]] bool other_healthy_than(std::string_view uuid) const noexcept;
  [[nodiscard]] const std::vector<ChildRecord>& children() const noexcept { return children_; }
  [[nodiscard]] std::string to_json() const;

 private:
  std::vector<ChildRecord> children_;
};

}  // namespace mayastor::nexus

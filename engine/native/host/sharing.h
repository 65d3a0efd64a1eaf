// Sharing: what is served by the NVMe-oF target and under which names.
// Why: pools, bdevs and nexuses share alike; names, serial numbers and URIs are a published
// interface and are made here only.
// Owner: the home reactor. Invariant: a subsystem exists exactly while its bdev is shared.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bdev/bdev.h"
#include "core/task.h"
#include "nvmf/target.h"
#include "util/result.h"
#include "util/uuid.h"

namespace mayastor::host {

inline constexpr std::string_view kNqnPrefix = "nqn.2019-05.io.openebs:";

[[nodiscard]] std::string nqn_of(std::string_view name);
// "DCS" and the first 17 upper-case hexadecimal digits of SHA-256 over the uuid's bytes.
[[nodiscard]] std::string serial_of(const Uuid& uuid);

enum class ShareAs : uint8_t { kReplica, kNexus };  // chooses the port in the URI

struct ShareRequest {
  ShareAs as = ShareAs::kReplica;
  std::string name;  // of the NQN
  std::shared_ptr<Bdev> bdev;
  std::vector<std::string> allowed_hosts;
  uint16_t cntlid_min = 1, cntlid_max = 0xFFEF;
  bool ana = false;
  std::string ptpl_file;  // below the ptpl directory; "": none
  std::shared_ptr<nvmf::HostLedger> ledger;
};

class Sharing final {
 public:
  Sharing(nvmf::Target& target, std::string address, std::string ptpl_dir);
  Sharing(const Sharing&) = delete;
  Sharing& operator=(const Sharing&) = delete;

  // Shared already: only the allowed hosts change (an empty list changes nothing). kAlreadyExists:
  // another bdev is shared by that name.
  Task<Result<void>> share(ShareRequest request);
  Task<Result<void>> unshare(std::string name);  // not shared: ok
  [[nodiscard]] bool is_shared(const std::string& name) const;
  [[nodiscard]] std::vector<std::string> allowed_hosts(const std::string& name) const;
  [[nodiscard]] std::string uri(ShareAs as, const std::string& name) const;
  [[nodiscard]] nvmf::Target& target() noexcept { return target_; }
  [[nodiscard]] bool persists_reservations() const noexcept { return !ptpl_dir_.empty(); }
  void forget_reservations(const std::string& ptpl_path) const;  // file or folder; missing: ok

 private:
  [[nodiscard]] Result<std::string> prepare_ptpl(const std::string& file) const;

  nvmf::Target& target_;
  const std::string address_;
  const std::string ptpl_dir_;
};

}  // namespace mayastor::host

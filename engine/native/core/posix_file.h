// PosixFile: a file or block device opened for a kernel-backed ring, with what was found out about
// it once: sizes, alignment, cache, and how it can be zeroed.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "core/ring.h"

namespace mayastor {

// How a range is made zero; a device that refuses one way is asked the next.
enum class ZeroMode : uint8_t { kZeroRange, kPunchHole, kWrite };

class PosixFile final : public File {
 public:
  // Opens and inspects. Errors name the path and the reason.
  [[nodiscard]] static Result<std::shared_ptr<PosixFile>> open(const std::string& path,
                                                               const FileOptions& options);
  ~PosixFile() override;
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;
  [[nodiscard]] uint64_t size_bytes() const noexcept override { return size_bytes_; }
  [[nodiscard]] uint32_t logical_block_size() const noexcept override { return logical_; }
  [[nodiscard]] uint32_t physical_block_size() const noexcept override { return physical_; }
  [[nodiscard]] bool is_block_device() const noexcept override { return is_block_device_; }
  [[nodiscard]] bool direct_io() const noexcept override { return direct_; }
  [[nodiscard]] bool supports_discard() const noexcept override { return discard_; }
  [[nodiscard]] bool has_volatile_cache() const noexcept override { return volatile_cache_; }
  [[nodiscard]] Uuid medium() const noexcept override { return medium_; }
  [[nodiscard]] bool medium_gone() const noexcept override;

  [[nodiscard]] int fd() const noexcept { return fd_; }
  // Its file system may carry out a read or write while it is being submitted, and so keep the
  // submitter for as long as its disk or server takes.
  [[nodiscard]] bool may_block_submitter() const noexcept { return may_block_; }
  [[nodiscard]] ZeroMode zero_mode() const noexcept {
    return zero_mode_.load(std::memory_order_relaxed);
  }
  void set_zero_mode(ZeroMode mode) noexcept { zero_mode_.store(mode, std::memory_order_relaxed); }

 private:
  explicit PosixFile(int fd) noexcept : fd_(fd) {}
  [[nodiscard]] Result<void> inspect(const std::string& path);
  [[nodiscard]] Result<void> inspect_block_device(const std::string& path, uint64_t device);
  void inspect_regular_file() noexcept;

  const int fd_;
  Uuid medium_;
  uint64_t size_bytes_ = 0;
  uint32_t logical_ = 512;
  uint32_t physical_ = 512;
  bool is_block_device_ = false;
  bool direct_ = false;
  bool discard_ = false;
  bool volatile_cache_ = true;
  bool may_block_ = false;
  std::atomic<ZeroMode> zero_mode_{ZeroMode::kZeroRange};
};

// fallocate(2) modes of each ZeroMode; punch is also what an unmap uses.
[[nodiscard]] int punch_hole_mode() noexcept;
[[nodiscard]] int zero_range_mode() noexcept;
// Shared read-only zeroes, for ZeroMode::kWrite.
inline constexpr size_t kZeroBytes = 1u << 20;
[[nodiscard]] uint8_t* zero_bytes() noexcept;

}  // namespace mayastor

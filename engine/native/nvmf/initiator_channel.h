// One core's way to a remote namespace: turns Ios into NVMe commands on an I/O queue of its own.
// Why separate from the queue: splitting, waiting for slots and statistics are about Ios, not PDUs.
// Why unmaps and writes of zeroes wait apart: one command of theirs can keep a disk busy for longer
// than a read may take. They go out in pieces, a few at a time, and nothing else waits behind them.
// Invariants: Ios of a kind (those with data, those without) start in the order they were
// submitted; one that needs several commands (longer than the limit) completes once, with the first
// error if there was one.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

#include "bdev/bdev.h"
#include "bdev/io_counters.h"
#include "nvmf/initiator_queue.h"

namespace mayastor::nvmf {

// What commands of a namespace may look like.
struct NamespaceLimits {
  uint32_t nsid = 1;
  uint32_t block_shift = 9;
  uint32_t max_transfer_bytes = 128 * 1024;
  bool compare = false;
  bool unmap = false;
  bool write_zeroes = false;
};

inline constexpr uint64_t kBulkPieceBytes = 64u << 20;  // of an unmap or a write of zeroes
inline constexpr uint32_t kBulkCommandsMax = 2;         // outstanding on a channel

class IoChannel final : public Channel {
 public:
  // closed() runs when everything of the channel is gone; what it captures outlives `counters`.
  IoChannel(std::shared_ptr<InitiatorQueue> queue, const NamespaceLimits& limits,
            IoCounterSet& counters, std::function<void()> closed);
  ~IoChannel() override;
  IoChannel(const IoChannel&) = delete;
  IoChannel& operator=(const IoChannel&) = delete;
  void submit(Io* io) noexcept override;

 private:
  struct WaitList {
    Io* first = nullptr;
    Io* last = nullptr;
  };
  [[nodiscard]] WaitList& waiting_of(IoType type) noexcept;
  bool issue(Io* io) noexcept;  // false: not all of it, for want of slots
  void fill(Command& command, Io& io, uint64_t at, uint64_t length) noexcept;
  [[nodiscard]] uint64_t piece_limit(IoType type) const noexcept;
  [[nodiscard]] bool supported(IoType type) const noexcept;
  void pump(WaitList& waiting, Io** ended) noexcept;
  void finish(Io* io, IoStatus status) noexcept;
  void on_done(Io* io, IoStatus status) noexcept;

  std::shared_ptr<InitiatorQueue> queue_;
  const NamespaceLimits limits_;
  std::function<void()> closed_;  // before counters_: destroyed after it
  ChannelCounters counters_;
  WaitList waiting_, bulk_waiting_;
  uint32_t bulk_commands_ = 0;  // outstanding
  uint32_t pending_ = 0;
};

}  // namespace mayastor::nvmf

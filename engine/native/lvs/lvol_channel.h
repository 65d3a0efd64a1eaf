// LvolChannel: one core's way to a lvol: maps offsets to clusters and forwards to the base bdev.
// Why it is quick: a request inside one run of neighbouring clusters is one request to the base,
// from a free list, with the submitter's own buffers. First writes to a cluster of a thin lvol go
// to the home reactor, which gives the cluster, and are then done as any other. Owner: the reactor
// that opened it. Invariants: idle when destroyed; while it lives the lvol has no cluster taken
// away.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "bdev/bdev.h"
#include "bdev/io_counters.h"
#include "core/reactor.h"
#include "lvs/lvol.h"

namespace mayastor {

class ClusterMap;

class LvolChannel final : public Channel {
 public:
  LvolChannel(std::shared_ptr<Lvol> lvol, std::unique_ptr<Channel> base);
  ~LvolChannel() override;
  LvolChannel(const LvolChannel&) = delete;
  LvolChannel& operator=(const LvolChannel&) = delete;
  void submit(Io* io) noexcept override;

 private:
  // One submitted request, or one of the pieces it is split into. As a Message it travels to the
  // home reactor and back when clusters are missing.
  struct Request final : Message {
    Io io;
    Io* user = nullptr;
    LvolChannel* channel = nullptr;
    Request* whole = nullptr;  // set in pieces
    uint32_t outstanding = 0;  // pieces of a whole
    IoStatus status;           // the first failure
    uint32_t first_missing = 0, last_missing = 0;
    uint64_t start_ns = 0;     // the reactor's time
    uint64_t clock_ns = 0;     // the clock's; 0: not read for this one
    std::vector<iovec> parts;  // of a piece
  };
  struct Run {
    enum class Kind : uint8_t { kDevice, kZeroes, kUnreadable } kind;
    uint64_t device_offset;  // of kDevice
    uint64_t length;
  };

  [[nodiscard]] Request* take() noexcept;
  void give_back(Request* request) noexcept;
  void start_clock(Request* request) noexcept;
  void forward(Io* io, uint64_t device_offset) noexcept;
  void finish(Request* request, IoStatus status) noexcept;
  void submit_split(Request* whole) noexcept;
  [[nodiscard]] bool find_missing(Request* whole) const noexcept;
  [[nodiscard]] Run next_run(const Io& io, uint64_t offset, uint64_t limit) const noexcept;
  void submit_piece(Request* whole, const Run& run, uint64_t at) noexcept;
  [[nodiscard]] IoStatus zeroes_piece(const Io& io, uint64_t at, uint64_t length) const noexcept;
  void piece_done(Request* whole, IoStatus status) noexcept;
  void request_clusters(Request* whole) noexcept;
  static void on_home(Message* message) noexcept;
  static void on_answer(Message* message) noexcept;
  static Task<void> allocate(std::shared_ptr<Lvol> lvol, Request* whole);
  static void forwarded(Io* io, IoStatus status) noexcept;

  const std::shared_ptr<Lvol> lvol_;
  std::unique_ptr<Channel> base_;
  const Blob* const blob_;
  const uint64_t cluster_size_;
  const uint32_t cluster_shift_;  // 0: not a power of two
  const bool read_only_;
  const bool backing_readable_;
  Reactor& reactor_;
  Clock& clock_;
  ChannelCounters counters_;
  uint32_t requests_ = 0;
  uint32_t in_flight_ = 0;
  uint64_t inline_ns_ = 1;  // what a request takes that is done within one turn
  Request* free_ = nullptr;
  std::vector<std::unique_ptr<Request>> all_;
};

}  // namespace mayastor

// SimWorld: a simulated machine room: virtual time, in-memory disks, an in-memory network, and the
// reactors that live in it. Why: the same compiled core runs here with every fault replayable from
// a seed. Invariants: one thread; nothing depends on real time, addresses or hash order, so the
// same seed and the same calls give the same trace. Every fault is off until asked for.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/reactor.h"
#include "core/ring.h"

namespace mayastor {

class SimRing;
class SimNetwork;

// Small seeded generator (xoshiro256**), ours so that a seed means the same everywhere.
class SimRandom final {
 public:
  explicit SimRandom(uint64_t seed) noexcept;
  [[nodiscard]] uint64_t next() noexcept;
  [[nodiscard]] uint64_t below(uint64_t limit) noexcept;  // 0 <= x < limit; limit > 0
  [[nodiscard]] uint64_t between(uint64_t low, uint64_t high) noexcept;  // inclusive
  [[nodiscard]] bool chance(uint32_t numerator, uint32_t denominator) noexcept;

 private:
  uint64_t state_[4];
};

enum class SimDiskOpType : uint8_t { kRead, kWrite, kFlush, kPunchHole, kWriteZeroes };

struct SimDiskOp {
  SimDiskOpType type = SimDiskOpType::kRead;
  uint64_t offset = 0;
  uint64_t length = 0;
  bool durable = false;
};

struct SimDiskOptions {
  uint64_t size_bytes = 64u << 20;
  uint32_t block_size = 512;          // logical; torn writes tear between blocks, never inside one
  uint64_t latency_min_ns = 10'000;   // each operation takes a seeded time in between: so
  uint64_t latency_max_ns = 100'000;  // operations in flight together complete in any order
  bool supports_discard = true;
  bool supports_write_zeroes = true;
};

// One disk with a volatile write cache. A completed write is visible at once but survives crash()
// only if it was durable (FUA) or a flush submitted after it completed has completed; otherwise the
// seed decides: kept, lost, or torn between blocks, each write on its own (so reordered too).
class SimDisk final {
 public:
  SimDisk(SimDiskOptions options, SimRandom random);
  ~SimDisk();
  SimDisk(const SimDisk&) = delete;
  SimDisk& operator=(const SimDisk&) = delete;
  [[nodiscard]] const SimDiskOptions& options() const noexcept { return options_; }

  // Power. crash(): in-flight operations fail, and so does everything through files opened before,
  // forever; contents become what survived. The disk can be opened anew right afterwards.
  void crash();
  // crash() when `count` more mutating operations (write, punch, write zeroes, flush) have been
  // submitted: the next one finds the power gone. nullopt disarms.
  void crash_after(std::optional<uint64_t> count) noexcept { crash_countdown_ = count; }
  [[nodiscard]] bool crashed() const noexcept { return crash_count_ > 0; }
  [[nodiscard]] uint64_t crash_count() const noexcept { return crash_count_; }
  // Crash outcomes: chances in percent for an unflushed write. Default 40 kept, 20 torn, rest lost.
  void set_crash_odds(uint32_t kept_percent, uint32_t torn_percent) noexcept;

  // Faults. The hook sees each operation as it is submitted: 0 or a negative errno to answer with.
  void set_fault_hook(std::function<int32_t(const SimDiskOp&)> hook) { hook_ = std::move(hook); }
  void set_latency(uint64_t min_ns, uint64_t max_ns) noexcept;
  void set_stalled(bool stalled);  // true: nothing completes until false again
  void flip_bit(uint64_t offset, uint32_t bit) noexcept;

  // Contents as seen by a read, outside of any reactor.
  void peek(uint64_t offset, void* buffer, uint64_t length) const noexcept;
  void poke(uint64_t offset, const void* data, uint64_t length) noexcept;  // durable
  void copy_from(const SimDisk& other);                                    // same size
  // Mutating operations submitted so far (what crash_after() counts).
  [[nodiscard]] uint64_t mutation_count() const noexcept { return mutation_count_; }
  [[nodiscard]] uint64_t unflushed_count() const noexcept { return pending_.size(); }
  // Trace of submitted operations, when wanted.
  void set_recording(bool recording) noexcept { recording_ = recording; }
  [[nodiscard]] const std::vector<SimDiskOp>& recorded() const noexcept { return recorded_; }
  void clear_recorded() noexcept { recorded_.clear(); }

 private:
  friend class SimRing;
  friend class SimFile;
  struct Pending {
    uint64_t sequence;
    SimDiskOp op;
    std::vector<uint8_t> data;  // empty for zeroes
  };
  int32_t admit(const SimDiskOp& op);  // 0 or the errno to fail with
  [[nodiscard]] uint64_t pick_latency() noexcept;
  void apply(uint8_t* image, const SimDiskOp& op, const uint8_t* data) noexcept;
  void complete_mutation(const SimDiskOp& op, std::vector<uint8_t> data);
  void complete_flush(uint64_t up_to_sequence);
  void settle(Pending& write);  // decides a write's fate at a crash

  SimDiskOptions options_;
  SimRandom random_;
  uint8_t* current_ = nullptr;  // what reads see
  uint8_t* durable_ = nullptr;  // what certainly survives
  std::vector<Pending> pending_;
  std::map<uint64_t, Pending> in_flight_;  // submitted, not completed: may survive as well
  uint64_t next_sequence_ = 1;
  uint64_t crash_count_ = 0;
  uint64_t mutation_count_ = 0;
  uint32_t kept_percent_ = 40, torn_percent_ = 20;
  std::optional<uint64_t> crash_countdown_;
  std::function<int32_t(const SimDiskOp&)> hook_;
  bool stalled_ = false;
  std::vector<std::function<void()>> stalled_ops_;
  bool recording_ = false;
  std::vector<SimDiskOp> recorded_;
};

struct SimNetworkOptions {
  uint64_t latency_min_ns = 20'000;  // one way; order within a stream is kept
  uint64_t latency_max_ns = 60'000;
  size_t window_bytes = 256 * 1024;  // in flight or unread per direction; then sendv is short
  size_t segment_bytes_max = 0;      // > 0: streams are cut into seeded pieces of at most this size
};

class SimWorld final {
 public:
  explicit SimWorld(uint64_t seed);
  ~SimWorld();
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;

  [[nodiscard]] uint64_t seed() const noexcept { return seed_; }
  [[nodiscard]] SimRandom& random() noexcept { return random_; }
  [[nodiscard]] std::shared_ptr<Clock> clock() const noexcept;
  [[nodiscard]] uint64_t now_ns() const noexcept { return now_ns_; }

  // Disks are found by path in open_file(); a path without a disk is ENOENT.
  SimDisk& add_disk(const std::string& path, SimDiskOptions options = {});
  [[nodiscard]] SimDisk& disk(const std::string& path);  // CHECKs that it exists
  void remove_disk_path(const std::string& path);        // pulled out: writes end in -ENOSPC

  // Network. Addresses are host names to it: a ring belongs to one.
  void set_network(SimNetworkOptions options);
  void set_partitioned(const std::string& a, const std::string& b, bool partitioned);  // black hole
  void reset_connections(const std::string& a, const std::string& b);  // RST, both ends see it
  void reset_host(const std::string& address);  // all its connections; its listeners close

  // A reactor of this world on host `address`; the caller owns it and must destroy it before the
  // world. Driven by run_until() from then on.
  [[nodiscard]] std::unique_ptr<Reactor> make_reactor(const std::string& address, uint32_t index);

  // Runs turns of all reactors (in a seeded order) and advances time when all are idle, until
  // `done` is true; false when `limit_ns` of virtual time passed or nothing can ever happen again.
  bool run_until(const std::function<bool()>& done, uint64_t limit_ns = 600'000'000'000);
  void run_for(uint64_t duration_ns);
  // Calls `action` at a virtual time, outside of any reactor.
  void at(uint64_t time_ns, std::function<void()> action);
  // Folds an observation into the trace; equal traces mean equal runs. Rings add every completion.
  void trace(uint64_t value) noexcept;
  [[nodiscard]] uint64_t trace_hash() const noexcept { return trace_hash_; }

 private:
  friend class SimRing;
  class WorldClock;
  bool turn();                 // one round of all reactors; true if anything happened
  bool advance(uint64_t end);  // to the next event or timer; false when there is none before `end`

  const uint64_t seed_;
  SimRandom random_;
  uint64_t now_ns_ = 1'000'000'000;
  std::shared_ptr<WorldClock> clock_;
  struct DiskSlot {
    std::shared_ptr<SimDisk> disk;
    std::shared_ptr<bool> present;  // false once pulled out
    std::weak_ptr<File> exclusive_holder;
  };
  std::map<std::string, DiskSlot> disks_;
  std::unique_ptr<SimNetwork> network_;
  struct Member {
    SimRing* ring;
    Reactor* reactor;
  };
  std::vector<Member> members_;
  std::multimap<uint64_t, std::function<void()>> actions_;
  uint64_t trace_hash_ = 0xCBF29CE484222325u;
  uint64_t next_event_ = 1;
};

}  // namespace mayastor

// Bdev: any block device inside the engine (file, memory, lvol, remote namespace, nexus).
// Channel: one core's way to it. Io: one request, owned by its submitter.
// Why one interface: a nexus child, a target's namespace and a rebuild source are the same thing.
// Invariants: offsets and lengths are bytes, multiples of block_size and inside the device
// (submit() of every implementation may rely on it: callers at an edge validate with
// check_range()); done() is called exactly once, on the submitting reactor, possibly inline from
// submit(): callers must allow for that. A Channel is used on the reactor that opened it and is
// destroyed there, idle.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bdev/device_health.h"
#include "core/task.h"
#include "util/io_status.h"
#include "util/latency_histogram.h"
#include "util/result.h"
#include "util/uuid.h"

namespace mayastor {

enum class IoType : uint8_t { kRead, kWrite, kFlush, kUnmap, kWriteZeroes, kCompare };

struct Io {
  IoType type = IoType::kRead;
  bool fua = false;        // write on stable storage before done
  uint32_t iov_count = 0;  // data buffers; 0 for flush, unmap, write zeroes
  const iovec* iov = nullptr;
  uint64_t offset = 0;  // bytes
  uint64_t length = 0;  // bytes; sum of iov lengths where there is data; 0 for flush
  void (*done)(Io* io, IoStatus status) noexcept = nullptr;
  void* owner = nullptr;  // the submitter's context
  // For the implementation while it owns the request.
  Io* next = nullptr;
  uint64_t scratch[8] = {};

  void complete(IoStatus status) noexcept { done(this, status); }
};

// Counters of one device, summed over its channels. Latencies in nanoseconds.
struct IoStats {
  uint64_t read_ops = 0, read_bytes = 0, write_ops = 0, write_bytes = 0, unmap_ops = 0,
           unmap_bytes = 0;
  uint64_t read_latency_ns = 0, write_latency_ns = 0, unmap_latency_ns = 0;
  uint64_t read_latency_ns_max = 0, read_latency_ns_min = 0;
  uint64_t write_latency_ns_max = 0, write_latency_ns_min = 0;
  uint64_t unmap_latency_ns_max = 0, unmap_latency_ns_min = 0;
  void add(const IoStats& other) noexcept;
};

// How long the requests of IoStats took.
struct IoLatencies {
  LatencyHistogram read, write, unmap;
  void add(const IoLatencies& other) noexcept {
    read.add(other.read);
    write.add(other.write);
    unmap.add(other.unmap);
  }
};

class Channel {
 public:
  virtual ~Channel() = default;
  virtual void submit(Io* io) noexcept = 0;
};

// Reservation commands, for bdevs that can pass them on (remote namespaces). NVMe base
// specification.
struct ReservationReport {
  uint32_t generation = 0;
  uint8_t type = 0;  // 0: none held
  struct Registrant {
    uint64_t key;
    bool holder;
    uint8_t host_id[16];
  };
  std::vector<Registrant> registrants;
};
class Reservations {
 public:
  virtual ~Reservations() = default;
  enum class RegisterAction : uint8_t { kRegister = 0, kUnregister = 1, kReplace = 2 };
  enum class AcquireAction : uint8_t { kAcquire = 0, kPreempt = 1, kPreemptAbort = 2 };
  enum class ReleaseAction : uint8_t { kRelease = 0, kClear = 1 };
  // cptpl: 0 no change, 2 clear, 3 persist through power loss.
  virtual Task<IoStatus> register_key(RegisterAction action, uint64_t current_key, uint64_t new_key,
                                      bool ignore_existing_key, uint8_t cptpl) = 0;
  virtual Task<IoStatus> acquire(AcquireAction action, uint64_t current_key, uint64_t preempt_key,
                                 uint8_t type) = 0;
  virtual Task<IoStatus> release(ReleaseAction action, uint64_t current_key, uint8_t type) = 0;
  virtual Task<Result<ReservationReport>> report() = 0;
  [[nodiscard]] virtual const uint8_t* host_id() const noexcept = 0;  // 16 bytes: who we are there
};

class Bdev {
 public:
  virtual ~Bdev() = default;
  [[nodiscard]] virtual const std::string& name() const noexcept = 0;
  [[nodiscard]] virtual const Uuid& uuid() const noexcept = 0;
  [[nodiscard]] virtual std::string product_name() const = 0;
  [[nodiscard]] virtual std::string uri() const = 0;  // as created, "" for lvols and nexuses
  [[nodiscard]] virtual uint32_t block_size() const noexcept = 0;
  [[nodiscard]] virtual uint64_t size_bytes() const noexcept = 0;
  [[nodiscard]] virtual bool supports(IoType type) const noexcept = 0;
  // How much of a thin device has space of its own or of a snapshot below; a remote one's may be a
  // moment old. Nothing: all of it, or not known. Home reactor.
  [[nodiscard]] virtual std::optional<uint64_t> allocated_bytes() const { return std::nullopt; }
  // What was unmapped reads as zeroes. False: it may read as before (a remote namespace's may).
  [[nodiscard]] virtual bool unmap_zeroes() const noexcept { return false; }
  [[nodiscard]] virtual bool has_volatile_cache() const noexcept = 0;
  // Names the machine's run from power-on to power-off that serves the device. As long as it stays
  // the same, a write that was acknowledged but not flushed has not been lost to a power failure.
  // Nil: unknown.
  [[nodiscard]] virtual Uuid power_cycle() const noexcept { return {}; }
  // Names what the device stands on (File::medium): after it was opened anew, another value says
  // that its blocks may be those of another disk. Nil: unknown.
  [[nodiscard]] virtual Uuid medium() const noexcept { return {}; }
  [[nodiscard]] virtual Reservations* reservations() noexcept {
    return nullptr;
  }  // home reactor only
  // Opens a channel on the current reactor.
  virtual Task<Result<std::unique_ptr<Channel>>> open_channel() = 0;
  [[nodiscard]] virtual IoStats stats() const = 0;  // any thread, momentary
  // Adds its own to `total`; nothing where latencies are not measured. Any thread, momentary.
  virtual void add_latencies(IoLatencies& total) const { (void)total; }
  virtual void reset_stats() noexcept = 0;  // latencies too
  // What it did wrong since it was opened; nothing where that is not counted. Any thread.
  [[nodiscard]] virtual DeviceHealth health() const { return {}; }
  // Bad news for whoever uses it (device gone, connection lost for good). Set by the claimer;
  // called on the home reactor, at most once.
  void set_removed_handler(std::function<void(IoStatus why)> handler) {
    removed_ = std::move(handler);
  }

 protected:
  void notify_removed(IoStatus why) {
    if (auto handler = std::exchange(removed_, nullptr)) handler(why);
  }

 private:
  std::function<void(IoStatus)> removed_;
};

// ok, or kLbaOutOfRange / kInvalidField when [offset, offset+length) is not whole blocks of the
// bdev.
[[nodiscard]] IoStatus check_range(const Bdev& bdev, uint64_t offset, uint64_t length) noexcept;

// Single requests for control paths, on an open channel of the current reactor.
Task<IoStatus> read(Channel& channel, uint64_t offset, void* buffer, uint64_t length);
Task<IoStatus> write(Channel& channel, uint64_t offset, const void* buffer, uint64_t length,
                     bool fua);
Task<IoStatus> flush(Channel& channel);
Task<IoStatus> unmap(Channel& channel, uint64_t offset, uint64_t length);
Task<IoStatus> write_zeroes(Channel& channel, uint64_t offset, uint64_t length);

// The devices of one engine by name. Home reactor only. A claim gives one user the right to write
// (a pool, a nexus); sharing an unclaimed bdev claims it too.
class BdevRegistry final {
 public:
  using Factory = std::function<Task<Result<std::shared_ptr<Bdev>>>(std::string uri)>;
  BdevRegistry();
  ~BdevRegistry();
  // Schemes are added by the layers: aio, uring, malloc, null, error, delay (bdev), nvmf (nvmf).
  void add_scheme(std::string scheme, Factory factory);
  // Creates by URI: bad or unknown -> kInvalidArgument, name taken -> kAlreadyExists. A plain path
  // means aio://. `bdev:///name` and `loopback:///name` find an existing one.
  Task<Result<std::shared_ptr<Bdev>>> create(std::string uri);
  Task<Result<void>> destroy(std::string name_or_uri);         // claimed -> kFailedPrecondition
  [[nodiscard]] Result<void> add(std::shared_ptr<Bdev> bdev);  // lvols, nexuses
  void remove(const std::string& name);
  [[nodiscard]] std::shared_ptr<Bdev> find(const std::string& name_or_uuid) const;
  [[nodiscard]] std::vector<std::shared_ptr<Bdev>> list() const;
  [[nodiscard]] Result<void> claim(const std::string& name,
                                   const std::string& by);  // taken -> kFailedPrecondition
  void unclaim(const std::string& name);
  [[nodiscard]] std::string claimed_by(const std::string& name) const;  // "" when free

 private:
  struct Entry;
  std::map<std::string, Factory> schemes_;
  std::map<std::string, std::unique_ptr<Entry>> entries_;
};

}  // namespace mayastor

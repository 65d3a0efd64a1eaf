// aio:///path, uring:///path, /path: a file or block device through the reactor's ring. Both
// schemes behave alike: the ring decides how to reach the kernel. Invariants: the file is opened
// once, exclusively, and used by every core's ring; a request's state lives in Io::scratch, so
// nothing is allocated per request; memory that O_DIRECT would refuse goes through a bounce buffer;
// a block device that has gone never answers "no space", and says that it was removed, once.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include "bdev/builtin.h"
#include "bdev/device_health.h"
#include "bdev/io_counters.h"
#include "core/buffer.h"
#include "core/reactor.h"
#include "util/uri.h"

namespace mayastor {
namespace {

constexpr uint32_t kDefaultBlockSize = 512;

struct FileGeometry {
  std::string path;
  Uuid uuid;
  uint32_t block_size = kDefaultBlockSize;
};

class FileBdev final : public Bdev, public std::enable_shared_from_this<FileBdev> {
 public:
  FileBdev(FileGeometry geometry, std::string uri, std::shared_ptr<File> file)
      : geometry_(std::move(geometry)),
        uri_(std::move(uri)),
        file_(std::move(file)),
        home_(Reactor::current()) {}
  [[nodiscard]] const std::string& name() const noexcept override { return geometry_.path; }
  [[nodiscard]] const Uuid& uuid() const noexcept override { return geometry_.uuid; }
  [[nodiscard]] std::string product_name() const override {
    return uri_.starts_with("uring:") ? "URING bdev" : "AIO disk";
  }
  [[nodiscard]] std::string uri() const override { return uri_; }
  [[nodiscard]] uint32_t block_size() const noexcept override { return geometry_.block_size; }
  [[nodiscard]] uint64_t size_bytes() const noexcept override { return file_->size_bytes(); }
  [[nodiscard]] bool supports(IoType type) const noexcept override {
    return type != IoType::kUnmap || file_->supports_discard();
  }
  [[nodiscard]] bool unmap_zeroes() const noexcept override { return true; }  // a hole is punched
  [[nodiscard]] bool has_volatile_cache() const noexcept override {
    return file_->has_volatile_cache();
  }
  [[nodiscard]] Uuid medium() const noexcept override { return file_->medium(); }
  Task<Result<std::unique_ptr<Channel>>> open_channel() override;
  [[nodiscard]] IoStats stats() const override { return counters_.sum(); }
  void add_latencies(IoLatencies& total) const override { counters_.add_latencies(total); }
  void reset_stats() noexcept override { counters_.reset(); }
  [[nodiscard]] DeviceHealth health() const override { return health_.read(); }

 private:
  friend class FileChannel;
  [[nodiscard]] IoStatus failure(const Io& io, int32_t error_number, uint64_t now_ns) noexcept;
  const FileGeometry geometry_;
  const std::string uri_;
  const std::shared_ptr<File> file_;
  Reactor& home_;
  std::atomic<bool> gone_{false};
  IoCounterSet counters_;
  DeviceHealthRecord health_;
};

// Any core: what a failed operation is answered with. Told from here, the removal is at the home
// reactor before whatever the request's owner sends there because of the answer.
IoStatus FileBdev::failure(const Io& io, int32_t error_number, uint64_t now_ns) noexcept {
  const bool write = io.type != IoType::kRead && io.type != IoType::kCompare;
  const bool gone = file_->is_block_device() && (error_number == ENXIO || file_->medium_gone());
  if (!gone) {
    const IoStatus status = io_status_from_errno(error_number, write);
    // What it can't do, or has no room for, says nothing about how well it is.
    const bool unwell = status.is(io_status::kUnrecoveredRead) || status.is(io_status::kWriteFault);
    if (unwell) health_.failed(io.type, io.offset, io.length, error_number, now_ns);
    return status;
  }
  const IoStatus status = io_status_from_errno(ENXIO, write);
  if (!gone_.exchange(true)) {
    home_.post([weak = weak_from_this(), status] {
      if (const auto self = weak.lock()) self->notify_removed(status);
    });
  }
  return status;
}

class FileChannel;

// What a request needs while the ring owns it; placed in Io::scratch.
struct FileRequest final : RingOp {
  FileChannel* channel = nullptr;
  Io* io = nullptr;
  uint64_t start_ns = 0;
  Io* previous = nullptr;  // submitted before it and not done; the next one: Io::next
  bool bounce_from_pool = false;
  bool watched = false;
  iovec part{};  // the bounce buffer, if there is one
};
static_assert(sizeof(FileRequest) <= sizeof(Io::scratch));
static_assert(alignof(FileRequest) <= alignof(uint64_t));

class FileChannel final : public Channel {
 public:
  explicit FileChannel(FileBdev& bdev)
      : bdev_(bdev),
        file_(*bdev.file_),
        ring_(Reactor::current().ring()),
        reactor_(Reactor::current()),
        counters_(bdev.counters_),
        watch_(bdev.health_),
        alignment_(file_.direct_io() ? file_.logical_block_size() : 1) {}
  ~FileChannel() override { CHECK(in_flight_ == 0 && flush_waiting_ == nullptr); }

  void submit(Io* io) noexcept override {
    ++in_flight_;
    switch (io->type) {
      case IoType::kRead:
      case IoType::kWrite:
      case IoType::kCompare:
        submit_data(io);
        return;
      case IoType::kFlush:
        io->next = flush_waiting_;
        flush_waiting_ = io;
        if (flush_running_ == nullptr) start_flush();
        return;
      case IoType::kUnmap:
        ring_.punch_hole(file_, io->offset, io->length, prepare(io));
        return;
      case IoType::kWriteZeroes:
        ring_.write_zeroes(file_, io->offset, io->length, prepare(io));
        return;
    }
    finish(io, io_status::kInvalidOpcode);
  }

 private:
  FileRequest* prepare(Io* io) noexcept {
    auto* request = new (io->scratch) FileRequest;
    request->done = [](RingOp* op, int32_t result) noexcept {
      auto* done = static_cast<FileRequest*>(op);
      done->channel->on_done(done, result);
    };
    request->channel = this;
    request->io = io;
    request->start_ns = reactor_.now_ns();
    return request;
  }

  [[nodiscard]] bool needs_bounce(const Io& io) const noexcept {
    if (io.type == IoType::kCompare) return true;
    if (alignment_ == 1) return false;
    uint64_t bits = 0;
    for (uint32_t i = 0; i < io.iov_count; ++i) {
      bits |= reinterpret_cast<uintptr_t>(io.iov[i].iov_base) | io.iov[i].iov_len;
    }
    return (bits & (alignment_ - 1)) != 0;
  }

  void submit_data(Io* io) noexcept {
    FileRequest* request = prepare(io);
    const iovec* parts = io->iov;
    int count = static_cast<int>(io->iov_count);
    if (needs_bounce(*io)) [[unlikely]] {
      if (!take_bounce(request)) {
        finish(io, io_status::kInternalError);
        return;
      }
      if (io->type == IoType::kWrite) copy_in(*request);
      parts = &request->part;
      count = 1;
    }
    watch(request);
    if (io->type == IoType::kWrite) {
      ring_.writev(file_, parts, count, io->offset, io->fua, request);
    } else {
      ring_.readv(file_, parts, count, io->offset, request);
    }
  }

  [[nodiscard]] bool take_bounce(FileRequest* request) noexcept {
    const uint64_t length = request->io->length;
    void* bounce = nullptr;
    if (length <= 1u << 20) bounce = BufferPool::current().acquire(length);
    request->bounce_from_pool = bounce != nullptr;
    if (bounce == nullptr) {  // large or the pool is exhausted: rare, so the heap will do
      const uint64_t rounded =
          (length + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
      bounce = std::aligned_alloc(kBufferAlignment, rounded);
    }
    request->part = iovec{bounce, length};
    return bounce != nullptr;
  }

  // The requests in flight, in the order they came: how long the first has waited says whether the
  // device still answers.
  void watch(FileRequest* request) noexcept {
    request->watched = true;
    request->previous = last_;
    request->io->next = nullptr;
    if (last_ != nullptr) {
      last_->next = request->io;
    } else {
      first_ = request->io;
      watch_.set_oldest(request->start_ns);
    }
    last_ = request->io;
  }

  static FileRequest& request_of(Io* io) noexcept {
    return *std::launder(reinterpret_cast<FileRequest*>(io->scratch));
  }

  void unwatch(FileRequest* request) noexcept {
    if (!request->watched) return;
    Io* const next = std::exchange(request->io->next, nullptr);
    if (next != nullptr) {
      request_of(next).previous = request->previous;
    } else {
      last_ = request->previous;
    }
    if (request->previous != nullptr) {
      request->previous->next = next;
    } else {
      first_ = next;
      watch_.set_oldest(next == nullptr ? 0 : request_of(next).start_ns);
    }
    if (reactor_.now_ns() - request->start_ns >= kSlowRequestNs) [[unlikely]] {
      bdev_.health_.slow(reactor_.now_ns());
    }
  }

  static void copy_in(FileRequest& request) noexcept {
    auto* at = static_cast<uint8_t*>(request.part.iov_base);
    for (uint32_t i = 0; i < request.io->iov_count; ++i) {
      std::memcpy(at, request.io->iov[i].iov_base, request.io->iov[i].iov_len);
      at += request.io->iov[i].iov_len;
    }
  }

  static IoStatus copy_out_or_compare(FileRequest& request) noexcept {
    const auto* at = static_cast<const uint8_t*>(request.part.iov_base);
    for (uint32_t i = 0; i < request.io->iov_count; ++i) {
      const iovec& part = request.io->iov[i];
      if (request.io->type == IoType::kRead) {
        std::memcpy(part.iov_base, at, part.iov_len);
      } else if (std::memcmp(part.iov_base, at, part.iov_len) != 0) {
        return io_status::kCompareFailure;
      }
      at += part.iov_len;
    }
    return io_status::kOk;
  }

  void on_done(FileRequest* request, int32_t result) noexcept {
    Io* io = request->io;
    const bool reads = io->type == IoType::kRead || io->type == IoType::kCompare;
    IoStatus status = io_status::kOk;
    unwatch(request);
    if (result < 0) [[unlikely]]
      status = bdev_.failure(*io, -result, reactor_.now_ns());
    if (request->part.iov_base != nullptr) {
      if (status.ok() && reads) status = copy_out_or_compare(*request);
      if (request->bounce_from_pool) {
        BufferPool::current().release(static_cast<uint8_t*>(request->part.iov_base), io->length);
      } else {
        std::free(request->part.iov_base);
      }
    }
    if (status.ok()) {
      counters_.record(io->type, io->length, reactor_.now_ns() - request->start_ns);
    }
    finish(io, status);
  }

  void finish(Io* io, IoStatus status) noexcept {
    --in_flight_;
    io->complete(status);  // may submit again, or close this channel
  }

  // One flush at a time; those that arrive meanwhile share the next one (they cannot share the
  // running one: it may have started before the writes they cover were done).
  void start_flush() noexcept {
    flush_running_ = std::exchange(flush_waiting_, nullptr);
    flush_op_.done = [](RingOp* op, int32_t result) noexcept {
      auto* done = static_cast<FlushOp*>(op);
      done->channel->on_flushed(result);
    };
    flush_op_.channel = this;
    flush_start_ns_ = reactor_.now_ns();
    watch_.set_flush(flush_start_ns_);
    ring_.flush(file_, &flush_op_);
  }

  void on_flushed(int32_t result) noexcept {
    const uint64_t now_ns = reactor_.now_ns();
    watch_.set_flush(0);
    if (now_ns - flush_start_ns_ >= kSlowRequestNs) [[unlikely]] {
      bdev_.health_.slow(now_ns);
    }
    Io* io = std::exchange(flush_running_, nullptr);
    const IoStatus status = result < 0 ? bdev_.failure(*io, -result, now_ns) : io_status::kOk;
    if (flush_waiting_ != nullptr) start_flush();
    while (io != nullptr) {
      Io* next = io->next;
      io->next = nullptr;
      finish(io, status);
      io = next;
    }
  }

  struct FlushOp final : RingOp {
    FileChannel* channel = nullptr;
  };
  FileBdev& bdev_;
  File& file_;
  Ring& ring_;
  Reactor& reactor_;
  ChannelCounters counters_;
  ChannelWatch watch_;
  const uint64_t alignment_;
  uint64_t in_flight_ = 0;
  Io* first_ = nullptr;
  Io* last_ = nullptr;
  uint64_t flush_start_ns_ = 0;
  Io* flush_waiting_ = nullptr;
  Io* flush_running_ = nullptr;
  FlushOp flush_op_;
};

Task<Result<std::unique_ptr<Channel>>> FileBdev::open_channel() {
  std::unique_ptr<Channel> channel = std::make_unique<FileChannel>(*this);
  co_return channel;
}

Error bad(const std::string& uri, const std::string& why) {
  return Error{ErrorCode::kInvalidArgument, "Cannot create bdev '" + uri + "': " + why};
}

struct FileRequestParameters {
  FileGeometry geometry;
  bool block_size_given = false;
};

Result<FileRequestParameters> parse_parameters(const std::string& text) {
  const auto parsed = Uri::parse(text);
  if (!parsed.ok()) return parsed.error();
  const Uri& uri = parsed.value();
  const auto known = uri.allow_only({"blk_size", "uuid"});
  if (!known.ok()) return known.error();
  const auto blk_size = uri.find_u64("blk_size");
  const auto uuid = uri.find_uuid("uuid");
  if (!blk_size.ok()) return blk_size.error();
  if (!uuid.ok()) return uuid.error();
  if (!uri.host().empty() || uri.port()) {
    return bad(text, "use three slashes and an absolute path: " + uri.scheme() + ":///path");
  }
  if (uri.path().size() < 2) return bad(text, "the path is empty");
  FileRequestParameters parameters;
  parameters.geometry.path = uri.path();
  parameters.geometry.uuid = uuid.value() ? *uuid.value() : Uuid::random();
  parameters.block_size_given = blk_size.value().has_value();
  const uint64_t block_size = blk_size.value().value_or(kDefaultBlockSize);
  if (block_size != 512 && block_size != 4096) return bad(text, "blk_size must be 512 or 4096");
  parameters.geometry.block_size = static_cast<uint32_t>(block_size);
  return parameters;
}

}  // namespace

Task<Result<std::shared_ptr<Bdev>>> create_file_bdev(std::string uri) {
  auto parsed = parse_parameters(uri);
  if (!parsed.ok()) co_return parsed.error();
  FileRequestParameters parameters = parsed.take();
  FileGeometry& geometry = parameters.geometry;
  Ring& ring = Reactor::current().ring();
  FileOptions options;
  auto opened = ring.open_file(geometry.path, options);
  if (!opened.ok()) {
    Error error = opened.error();
    error.message = "Cannot create bdev '" + uri + "': " + error.message;
    co_return error;
  }
  std::shared_ptr<File> file = opened.take();
  const uint32_t logical = file->logical_block_size();
  if (geometry.block_size % logical != 0) {
    const std::string device = "the device's logical block size is " + std::to_string(logical);
    if (parameters.block_size_given || logical > 4096 || 4096 % logical != 0) {
      co_return bad(uri, "blk_size " + std::to_string(geometry.block_size) +
                             " is not a multiple of it: " + device);
    }
    geometry.block_size = logical;
  }
  if (file->size_bytes() == 0) co_return bad(uri, "its size is zero");
  if (file->size_bytes() % geometry.block_size != 0) {
    co_return bad(uri, "its size, " + std::to_string(file->size_bytes()) +
                           " bytes, is not a whole number of " +
                           std::to_string(geometry.block_size) + "-byte blocks");
  }
  std::shared_ptr<Bdev> bdev =
      std::make_shared<FileBdev>(std::move(geometry), uri, std::move(file));
  co_return bdev;
}

}  // namespace mayastor

// See lvol_channel.h.
#include "lvs/lvol_channel.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "lvs/blob.h"
#include "lvs/blobstore.h"
#include "lvs/lvol_store.h"

namespace mayastor {
namespace {

// The reactor's time is taken once a turn: it measures what leaves the turn. A request that is done
// within one is as slow as the last such request that the clock itself measured, one in as many.
constexpr uint32_t kLatencySample = 16;
// NVMe base specification, generic command status 20h.
constexpr IoStatus kWriteProtected{0, 0x20, 30, true};

constexpr bool modifies(IoType type) noexcept {
  return type == IoType::kWrite || type == IoType::kUnmap || type == IoType::kWriteZeroes;
}
constexpr bool has_data(IoType type) noexcept {
  return type == IoType::kRead || type == IoType::kWrite || type == IoType::kCompare;
}

// Calls fn(pointer, length) for the bytes [at, at + length) of the buffers.
template <typename Fn>
void for_each_part(const Io& io, uint64_t at, uint64_t length, Fn fn) {
  for (uint32_t i = 0; i < io.iov_count && length > 0; ++i) {
    const iovec& part = io.iov[i];
    if (at >= part.iov_len) {
      at -= part.iov_len;
      continue;
    }
    const uint64_t take = std::min<uint64_t>(part.iov_len - at, length);
    fn(static_cast<uint8_t*>(part.iov_base) + at, take);
    at = 0;
    length -= take;
  }
}

}  // namespace

LvolChannel::LvolChannel(std::shared_ptr<Lvol> lvol, std::unique_ptr<Channel> base)
    : lvol_(std::move(lvol)),
      base_(std::move(base)),
      blob_(lvol_->blob_.get()),
      cluster_size_(lvol_->cluster_size_),
      cluster_shift_(std::has_single_bit(lvol_->cluster_size_)
                         ? static_cast<uint32_t>(std::countr_zero(lvol_->cluster_size_))
                         : 0),
      read_only_(lvol_->read_only()),
      backing_readable_(blob_->backing_readable()),
      reactor_(Reactor::current()),
      clock_(reactor_.clock()),
      counters_(lvol_->counters_) {}

LvolChannel::~LvolChannel() {
  CHECK(in_flight_ == 0);
  base_.reset();  // before the pool may be exported
  lvol_->open_channels_.fetch_sub(1);
}

LvolChannel::Request* LvolChannel::take() noexcept {
  ++in_flight_;
  if (free_ == nullptr) {
    all_.push_back(std::make_unique<Request>());
    Request* made = all_.back().get();
    made->channel = this;
    made->io.owner = made;
    made->io.done = &LvolChannel::forwarded;
    return made;
  }
  Request* request = free_;
  free_ = static_cast<Request*>(request->next);
  return request;
}

void LvolChannel::give_back(Request* request) noexcept {
  --in_flight_;
  request->next = free_;
  free_ = request;
}

void LvolChannel::start_clock(Request* request) noexcept {
  request->start_ns = reactor_.now_ns();
  request->clock_ns = requests_++ % kLatencySample == 0 ? clock_.now_ns() : 0;
}

void LvolChannel::submit(Io* io) noexcept {
  if (read_only_ && modifies(io->type)) {
    io->complete(kWriteProtected);
    return;
  }
  if (io->type == IoType::kFlush) {
    forward(io, 0);
    return;
  }
  const ClusterMap& map = blob_->map();
  const uint64_t index =
      cluster_shift_ != 0 ? io->offset >> cluster_shift_ : io->offset / cluster_size_;
  const uint64_t within = io->offset - index * cluster_size_;
  CHECK(index < map.size());
  if (within + io->length <= cluster_size_) [[likely]] {
    if (const uint32_t cluster = map.get(static_cast<uint32_t>(index)); cluster != 0) [[likely]] {
      forward(io, cluster * cluster_size_ + within);
      return;
    }
  }
  if (io->length == 0) {
    io->complete(io_status::kOk);
    return;
  }
  CHECK((io->offset + io->length - 1) / cluster_size_ < map.size());
  Request* whole = take();
  whole->user = io;
  whole->whole = nullptr;
  start_clock(whole);
  submit_split(whole);
}

void LvolChannel::forward(Io* io, uint64_t device_offset) noexcept {
  Request* request = take();
  request->user = io;
  request->whole = nullptr;
  start_clock(request);
  Io& out = request->io;
  out.type = io->type;
  out.fua = io->fua;
  out.iov = io->iov;
  out.iov_count = io->iov_count;
  out.offset = device_offset;
  out.length = io->length;
  base_->submit(&out);
}

void LvolChannel::forwarded(Io* io, IoStatus status) noexcept {
  auto* request = static_cast<Request*>(io->owner);
  LvolChannel* channel = request->channel;
  if (request->whole != nullptr) {
    Request* whole = request->whole;
    channel->give_back(request);
    channel->piece_done(whole, status);
    return;
  }
  channel->finish(request, status);
}

void LvolChannel::finish(Request* request, IoStatus status) noexcept {
  Io* user = request->user;
  uint64_t latency_ns = reactor_.now_ns() - request->start_ns;
  if (latency_ns == 0) {
    if (request->clock_ns != 0) {
      inline_ns_ = std::max<uint64_t>(1, clock_.now_ns() - request->clock_ns);
    }
    latency_ns = inline_ns_;
  }
  if (status.ok()) counters_.record(user->type, user->length, latency_ns);
  give_back(request);
  user->complete(status);
}

// Clusters that must be given before the request can be done.
bool LvolChannel::find_missing(Request* whole) const noexcept {
  const Io& io = *whole->user;
  if (!modifies(io.type)) return false;
  const ClusterMap& map = blob_->map();
  const auto first = static_cast<uint32_t>(io.offset / cluster_size_);
  const auto last = static_cast<uint32_t>((io.offset + io.length - 1) / cluster_size_);
  bool found = false;
  for (uint32_t index = first; index <= last; ++index) {
    if (map.get(index) != 0) continue;
    // Zeroes over zeroes need no cluster; zeroes over a parent's data do.
    const bool needed =
        io.type == IoType::kWrite || !backing_readable_ || blob_->resolve(index) != 0;
    if (!needed) continue;
    if (!found) whole->first_missing = index;
    whole->last_missing = index;
    found = true;
  }
  return found;
}

void LvolChannel::submit_split(Request* whole) noexcept {
  if (find_missing(whole)) {
    request_clusters(whole);
    return;
  }
  const Io& io = *whole->user;
  whole->outstanding = 1;  // ours, until all pieces are out
  whole->status = IoStatus{};
  uint64_t at = 0;
  while (at < io.length) {
    const Run run = next_run(io, io.offset + at, io.length - at);
    switch (run.kind) {
      case Run::Kind::kDevice:
        ++whole->outstanding;
        submit_piece(whole, run, at);
        break;
      case Run::Kind::kZeroes:
        if (const IoStatus status = zeroes_piece(io, at, run.length); !status.ok()) {
          if (whole->status.ok()) whole->status = status;
        }
        break;
      case Run::Kind::kUnreadable:
        if (whole->status.ok()) whole->status = io_status::kUnrecoveredRead;
        break;
    }
    at += run.length;
  }
  piece_done(whole, IoStatus{});
}

// The longest stretch from `offset` that lies together on the device, or is all unallocated.
LvolChannel::Run LvolChannel::next_run(const Io& io, uint64_t offset,
                                       uint64_t limit) const noexcept {
  const ClusterMap& map = blob_->map();
  const auto cluster_at = [&](uint32_t index) {
    return modifies(io.type) ? map.get(index) : blob_->resolve(index);
  };
  const auto index = static_cast<uint32_t>(offset / cluster_size_);
  const uint64_t within = offset - index * cluster_size_;
  const uint32_t first = cluster_at(index);
  uint64_t length = std::min(cluster_size_ - within, limit);
  for (uint32_t next = index + 1; length < limit; ++next) {
    const uint32_t cluster = cluster_at(next);
    if (cluster != (first == 0 ? 0 : first + (next - index))) break;
    length = std::min(length + cluster_size_, limit);
  }
  if (first != 0) return {Run::Kind::kDevice, first * cluster_size_ + within, length};
  const bool readable = backing_readable_ || modifies(io.type);
  return {readable ? Run::Kind::kZeroes : Run::Kind::kUnreadable, 0, length};
}

void LvolChannel::submit_piece(Request* whole, const Run& run, uint64_t at) noexcept {
  const Io& io = *whole->user;
  Request* piece = take();
  piece->whole = whole;
  Io& out = piece->io;
  out.type = io.type;
  out.fua = io.fua;
  out.offset = run.device_offset;
  out.length = run.length;
  out.iov = nullptr;
  out.iov_count = 0;
  if (has_data(io.type)) {
    piece->parts.clear();
    for_each_part(io, at, run.length, [piece](uint8_t* data, uint64_t length) {
      piece->parts.push_back(iovec{data, length});
    });
    out.iov = piece->parts.data();
    out.iov_count = static_cast<uint32_t>(piece->parts.size());
  }
  base_->submit(&out);
}

IoStatus LvolChannel::zeroes_piece(const Io& io, uint64_t at, uint64_t length) const noexcept {
  bool equal = true;
  if (io.type == IoType::kRead) {
    for_each_part(io, at, length,
                  [](uint8_t* data, uint64_t count) { std::memset(data, 0, count); });
  } else if (io.type == IoType::kCompare) {
    for_each_part(io, at, length, [&equal](const uint8_t* data, uint64_t count) {
      const std::span<const uint8_t> bytes(data, count);
      equal = equal && lvs_format::all_zero(bytes);
    });
  }
  return equal ? io_status::kOk : io_status::kCompareFailure;
}

void LvolChannel::piece_done(Request* whole, IoStatus status) noexcept {
  if (!status.ok() && whole->status.ok()) whole->status = status;
  if (--whole->outstanding > 0) return;
  finish(whole, whole->status);
}

void LvolChannel::request_clusters(Request* whole) noexcept {
  whole->fn = &LvolChannel::on_home;
  if (&lvol_->home_ == &reactor_) {
    on_home(whole);
  } else {
    lvol_->home_.send(whole);
  }
}

void LvolChannel::on_home(Message* message) noexcept {
  auto* whole = static_cast<Request*>(message);
  spawn(allocate(whole->channel->lvol_, whole));
}

Task<void> LvolChannel::allocate(std::shared_ptr<Lvol> lvol, Request* whole) {
  IoStatus status = io_status::kNamespaceNotReady;
  const std::shared_ptr<LvolStore> store = lvol->store_.lock();
  if (store != nullptr && store->store_ != nullptr) {
    status = io_status::kOk;
    const bool zeroing = whole->user->type != IoType::kWrite;
    for (uint32_t i = whole->first_missing; status.ok() && i <= whole->last_missing; ++i) {
      if (zeroing && lvol->blob_->backing_readable() && lvol->blob_->resolve(i) == 0) continue;
      const std::shared_ptr<Blob> blob = lvol->blob_;
      status = co_await store->store_->allocate_cluster(blob, i);
    }
  }
  whole->status = status;
  LvolChannel* channel = whole->channel;
  whole->fn = &LvolChannel::on_answer;
  if (&channel->reactor_ == &lvol->home_) {
    on_answer(whole);
  } else {
    channel->reactor_.send(whole);
  }
}

void LvolChannel::on_answer(Message* message) noexcept {
  auto* whole = static_cast<Request*>(message);
  LvolChannel* channel = whole->channel;
  if (!whole->status.ok()) {
    channel->finish(whole, whole->status);
    return;
  }
  channel->submit_split(whole);
}

}  // namespace mayastor

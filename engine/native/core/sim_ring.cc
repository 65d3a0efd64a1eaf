// SimRing: disk operations against SimDisk with seeded latencies, and the turn that runs events and
// sockets.
#include "core/sim_ring.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/sim_network.h"

namespace mayastor {

// A SimDisk opened once. After a crash of the disk it answers -EIO forever, like the file
// descriptor of a machine that lost power: open the disk anew.
class SimFile final : public File {
 public:
  SimFile(std::shared_ptr<SimDisk> its_disk, std::shared_ptr<bool> its_present)
      : disk(std::move(its_disk)),
        present(std::move(its_present)),
        opened_at_crash(disk->crash_count()) {}
  [[nodiscard]] uint64_t size_bytes() const noexcept override { return disk->options().size_bytes; }
  [[nodiscard]] uint32_t logical_block_size() const noexcept override {
    return disk->options().block_size;
  }
  [[nodiscard]] uint32_t physical_block_size() const noexcept override {
    return disk->options().block_size;
  }
  [[nodiscard]] bool is_block_device() const noexcept override { return true; }
  [[nodiscard]] bool direct_io() const noexcept override { return true; }
  [[nodiscard]] bool supports_discard() const noexcept override {
    return disk->options().supports_discard;
  }
  [[nodiscard]] bool medium_gone() const noexcept override { return !*present; }
  [[nodiscard]] int32_t failure(SimDiskOpType type) const noexcept {
    if (!*present) return type == SimDiskOpType::kWrite ? ENOSPC : EIO;  // as Linux answers
    return disk->crash_count() == opened_at_crash ? 0 : EIO;
  }
  const std::shared_ptr<SimDisk> disk;
  const std::shared_ptr<bool> present;
  const uint64_t opened_at_crash;
};

namespace {

SimFile& sim_file(File& file) noexcept {
  return static_cast<SimFile&>(file);
}  // made by open_file

uint64_t total_length(const iovec* parts, int count) noexcept {
  uint64_t length = 0;
  for (int i = 0; i < count; ++i) length += parts[i].iov_len;
  return length;
}

// As strict about memory as O_DIRECT can be, so that a missing bounce buffer shows up here.
bool memory_aligned(const iovec* parts, int count, uint32_t block_size) noexcept {
  for (int i = 0; i < count; ++i) {
    const auto address = reinterpret_cast<uintptr_t>(parts[i].iov_base);
    if (address % block_size != 0 || parts[i].iov_len % block_size != 0) return false;
  }
  return true;
}

}  // namespace

SimRing::SimRing(SimWorld& world, std::string address)
    : world_(world), address_(std::move(address)) {}

SimRing::~SimRing() {
  for (SimSocket* socket : sockets_) {
    if (socket != nullptr) socket->ring_ = nullptr;
  }
  std::erase_if(world_.members_, [this](const auto& member) { return member.ring == this; });
}

Result<std::shared_ptr<File>> SimRing::open_file(const std::string& path,
                                                 const FileOptions& options) {
  const auto found = world_.disks_.find(path);
  if (found == world_.disks_.end()) return errno_error(ENOENT, "Cannot open " + path);
  SimWorld::DiskSlot& slot = found->second;
  if (options.exclusive) {
    const auto holder = slot.exclusive_holder.lock();
    if (holder && static_cast<SimFile&>(*holder).failure(SimDiskOpType::kRead) == 0) {
      return errno_error(EBUSY, "Cannot open " + path);
    }
  }
  auto file = std::make_shared<SimFile>(slot.disk, slot.present);
  if (options.exclusive) slot.exclusive_holder = file;
  return std::shared_ptr<File>(std::move(file));
}

Result<std::unique_ptr<Listener>> SimRing::listen(const std::string& address, uint16_t port,
                                                  AcceptHandler* handler) {
  return world_.network_->listen(*this, address, port, handler);
}

std::unique_ptr<Socket> SimRing::connect(const std::string& address, uint16_t port,
                                         SocketHandler* handler) {
  return world_.network_->connect(*this, address, port, handler);
}

std::unique_ptr<Socket> SimRing::attach(std::unique_ptr<Socket> socket, SocketHandler* handler) {
  auto& detached = static_cast<SimSocket&>(*socket);  // the world has one kind of socket
  CHECK(detached.ring_ == nullptr);
  detached.ring_ = this;
  detached.handler_ = handler;
  add_socket(&detached);
  return socket;
}

void SimRing::schedule(uint64_t at_ns, std::function<void()> event) {
  events_.emplace(std::make_pair(at_ns, world_.next_event_++), std::move(event));
}

uint64_t SimRing::next_event_ns() const noexcept {
  return events_.empty() ? UINT64_MAX : events_.begin()->first.first;
}

void SimRing::readv(File& file, const iovec* parts, int count, uint64_t offset,
                    RingOp* op) noexcept {
  auto self = std::static_pointer_cast<SimFile>(sim_file(file).shared_from_this());
  SimDisk& disk = *self->disk;
  const SimDiskOp disk_op{SimDiskOpType::kRead, offset, total_length(parts, count), false};
  int32_t failure = self->failure(disk_op.type);
  if (failure == 0) failure = disk.admit(disk_op);
  if (failure == 0 && !memory_aligned(parts, count, disk.options().block_size)) failure = EINVAL;
  std::vector<iovec> copy(parts, parts + count);
  auto finish = [this, self, disk_op, copy = std::move(copy), op, failure]() {
    const int32_t now_failed = failure != 0 ? failure : self->failure(disk_op.type);
    uint64_t at = disk_op.offset;
    for (const iovec& part : copy) {
      if (now_failed != 0) break;
      self->disk->peek(at, part.iov_base, part.iov_len);
      at += part.iov_len;
    }
    world_.trace(disk_op.offset ^ (disk_op.length << 40));
    op->done(op, now_failed != 0 ? -now_failed : static_cast<int32_t>(disk_op.length));
  };
  complete_later(*self, std::move(finish));
}

void SimRing::complete_later(SimFile& file, std::function<void()> finish) {
  SimDisk& disk = *file.disk;
  const uint64_t latency = disk.pick_latency();
  if (disk.stalled_) {
    disk.stalled_ops_.push_back([this, latency, finish = std::move(finish)]() mutable {
      schedule(world_.now_ns() + latency, std::move(finish));
    });
    return;
  }
  schedule(world_.now_ns() + latency, std::move(finish));
}

void SimRing::mutate(File& file, SimDiskOp disk_op, std::vector<uint8_t> data, RingOp* op) {
  auto self = std::static_pointer_cast<SimFile>(sim_file(file).shared_from_this());
  SimDisk& disk = *self->disk;
  int32_t failure = self->failure(disk_op.type);
  if (failure == 0) failure = disk.admit(disk_op);
  if (failure == 0 && self->failure(disk_op.type) != 0) failure = self->failure(disk_op.type);
  uint64_t flush_mark = 0;
  const uint64_t id = world_.next_event_++;
  if (failure == 0) {
    if (disk_op.type == SimDiskOpType::kFlush) {
      flush_mark = disk.next_sequence_ - 1;
    } else {
      disk.in_flight_.emplace(id, SimDisk::Pending{0, disk_op, std::move(data)});
    }
  }
  auto finish = [this, self, disk_op, flush_mark, id, op, failure]() {
    const int32_t now_failed = failure != 0 ? failure : self->failure(disk_op.type);
    SimDisk& its_disk = *self->disk;
    if (now_failed == 0 && disk_op.type == SimDiskOpType::kFlush) {
      its_disk.complete_flush(flush_mark);
    } else if (now_failed == 0) {
      auto node = its_disk.in_flight_.extract(id);
      CHECK(!node.empty());
      its_disk.complete_mutation(disk_op, std::move(node.mapped().data));
    }
    world_.trace(disk_op.offset ^ (disk_op.length << 40) ^ static_cast<uint64_t>(disk_op.type));
    op->done(op, now_failed != 0 ? -now_failed : static_cast<int32_t>(disk_op.length));
  };
  complete_later(*self, std::move(finish));
}

void SimRing::writev(File& file, const iovec* parts, int count, uint64_t offset, bool durable,
                     RingOp* op) noexcept {
  std::vector<uint8_t> data;
  data.reserve(total_length(parts, count));
  for (int i = 0; i < count; ++i) {
    const auto* from = static_cast<const uint8_t*>(parts[i].iov_base);
    data.insert(data.end(), from, from + parts[i].iov_len);
  }
  SimDiskOp disk_op{SimDiskOpType::kWrite, offset, data.size(), durable};
  const uint32_t block_size = sim_file(file).disk->options().block_size;
  if (!memory_aligned(parts, count, block_size)) disk_op.length |= 1;  // admitted as misaligned
  mutate(file, disk_op, std::move(data), op);
}

void SimRing::flush(File& file, RingOp* op) noexcept {
  mutate(file, SimDiskOp{SimDiskOpType::kFlush, 0, 0, false}, {}, op);
}

void SimRing::punch_hole(File& file, uint64_t offset, uint64_t length, RingOp* op) noexcept {
  mutate(file, SimDiskOp{SimDiskOpType::kPunchHole, offset, length, false}, {}, op);
}

void SimRing::write_zeroes(File& file, uint64_t offset, uint64_t length, RingOp* op) noexcept {
  mutate(file, SimDiskOp{SimDiskOpType::kWriteZeroes, offset, length, false}, {}, op);
}

void SimRing::remove_socket(SimSocket* socket) noexcept {
  const auto found = std::find(sockets_.begin(), sockets_.end(), socket);
  if (found == sockets_.end()) return;
  if (walking_) {
    *found = nullptr;
  } else {
    sockets_.erase(found);
  }
}

uint32_t SimRing::run_sockets() {
  uint32_t count = 0;
  walking_ = true;
  const size_t size = sockets_.size();  // those added meanwhile wait for the next turn
  for (size_t i = 0; i < size; ++i) {
    if (sockets_[i] != nullptr && sockets_[i]->attend()) ++count;
  }
  walking_ = false;
  std::erase(sockets_, nullptr);
  return count;
}

uint32_t SimRing::poll(uint64_t) noexcept {
  uint32_t count = run_sockets();
  // Only what is due as of now and already scheduled: events add events for later turns.
  const uint64_t last = world_.next_event_;
  while (!events_.empty()) {
    const auto first = events_.begin();
    if (first->first.first > world_.now_ns() || first->first.second >= last) break;
    const std::function<void()> event = std::move(first->second);
    events_.erase(first);
    event();
    ++count;
  }
  return count;
}

}  // namespace mayastor

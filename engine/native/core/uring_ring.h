// UringRing: the Ring on io_uring, by raw system calls. One io_uring_enter a turn submits what was
// queued and waits for disks, sockets, the wake-up and the timeout together; none at all when there
// is nothing to submit or to collect.
// Invariants: the thread that first polls it is the ring's only submitter (SINGLE_ISSUER); every
// submission carries a tagged pointer to an object that lives until its completion.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/disk_op.h"
#include "core/file_gate.h"
#include "core/make_ring.h"
#include "core/ring.h"
#include "core/socket_set.h"
#include "core/uring_abi.h"

namespace mayastor {

class UringRing final : public Ring, private Poller {
 public:
  // An Error with the remedy where the kernel refuses io_uring.
  [[nodiscard]] static Result<std::unique_ptr<UringRing>> make(const RingOptions& options);
  ~UringRing() override;
  UringRing(const UringRing&) = delete;
  UringRing& operator=(const UringRing&) = delete;

  [[nodiscard]] Result<std::shared_ptr<File>> open_file(const std::string& path,
                                                        const FileOptions& options) override;
  [[nodiscard]] Result<std::unique_ptr<Listener>> listen(const std::string& address, uint16_t port,
                                                         AcceptHandler* handler) override;
  [[nodiscard]] std::unique_ptr<Socket> connect(const std::string& address, uint16_t port,
                                                SocketHandler* handler) override;
  [[nodiscard]] std::unique_ptr<Socket> attach(std::unique_ptr<Socket> socket,
                                               SocketHandler* handler) override;
  void readv(File& file, const iovec* parts, int count, uint64_t offset,
             RingOp* op) noexcept override;
  void writev(File& file, const iovec* parts, int count, uint64_t offset, bool durable,
              RingOp* op) noexcept override;
  void flush(File& file, RingOp* op) noexcept override;
  void punch_hole(File& file, uint64_t offset, uint64_t length, RingOp* op) noexcept override;
  void write_zeroes(File& file, uint64_t offset, uint64_t length, RingOp* op) noexcept override;
  uint32_t poll(uint64_t wait_ns) noexcept override;
  void wake() noexcept override;

  [[nodiscard]] uint64_t enter_count() const noexcept { return enter_count_; }  // for tests

 private:
  UringRing();
  [[nodiscard]] Result<void> set_up(uint32_t entries);
  [[nodiscard]] Result<void> map_rings(const io_uring_params& params);
  void enable() noexcept;
  void arm(PollWaiter& waiter) noexcept override;
  void cancel(PollWaiter& waiter) noexcept override;

  [[nodiscard]] DiskOp* take_op();
  void give_back(DiskOp* op) noexcept;
  void start(DiskOp* op) noexcept;
  void submit(DiskOp* op) noexcept;
  void fill(io_uring_sqe& sqe, DiskOp& op) noexcept;
  [[nodiscard]] io_uring_sqe* next_sqe() noexcept;  // nullptr: queue full even after submitting
  [[nodiscard]] uint32_t queued() const noexcept;
  void enter(uint32_t min_complete, uint64_t wait_ns) noexcept;
  uint32_t reap() noexcept;
  void complete(uint64_t user_data, int32_t result) noexcept;
  void arm_wake() noexcept;

  int fd_ = -1;
  int enter_fd_ = -1;  // the registered index, or fd_
  uint32_t enter_flags_ = 0;
  int wake_fd_ = -1;
  uint64_t wake_value_ = 0;
  bool wake_armed_ = false;
  bool enabled_ = false;
  void* ring_memory_ = nullptr;
  size_t ring_bytes_ = 0;
  io_uring_sqe* sqes_ = nullptr;
  size_t sqes_bytes_ = 0;
  uint32_t *sq_head_ = nullptr, *sq_tail_ = nullptr, *sq_flags_ = nullptr;
  uint32_t *cq_head_ = nullptr, *cq_tail_ = nullptr;
  io_uring_cqe* cqes_ = nullptr;
  uint32_t sq_mask_ = 0, sq_entries_ = 0, cq_mask_ = 0;
  uint32_t tail_ = 0;  // local copy of *sq_tail_
  uint64_t enter_count_ = 0;
  uint64_t disk_in_flight_ = 0;
  std::vector<std::unique_ptr<DiskOp[]>> op_slabs_;
  DiskOp* free_ops_ = nullptr;
  FileGate gate_;
  std::vector<DiskOp*> disk_backlog_;      // no submission entry was free
  std::vector<PollWaiter*> poll_backlog_;  // the same for polls
  std::vector<PollWaiter*> cancel_backlog_;
  SocketSet sockets_;
};

}  // namespace mayastor

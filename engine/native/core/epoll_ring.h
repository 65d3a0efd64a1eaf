// EpollRing: the Ring where io_uring is refused: epoll for sockets and the wake-up, a few threads
// with blocking calls for the disks. Slower (a hand-over per disk operation), never wrong.
// Invariant: only the two queues between the loop and its threads are shared, under one mutex each.
#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/disk_op.h"
#include "core/file_gate.h"
#include "core/ring.h"
#include "core/socket_set.h"

namespace mayastor {

class EpollRing final : public Ring, private Poller {
 public:
  [[nodiscard]] static Result<std::unique_ptr<EpollRing>> make();
  ~EpollRing() override;
  EpollRing(const EpollRing&) = delete;
  EpollRing& operator=(const EpollRing&) = delete;

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

 private:
  struct Finished {
    DiskOp* op;
    int32_t result;
  };
  EpollRing();
  void arm(PollWaiter& waiter) noexcept override;
  void cancel(PollWaiter& waiter) noexcept override;
  void disarm(PollWaiter& waiter) noexcept;
  void start(DiskOp* op) noexcept;
  void hand_over(DiskOp* op) noexcept;
  void start_workers();
  void work() noexcept;
  [[nodiscard]] static int32_t perform(DiskOp& op) noexcept;
  uint32_t finish_disk_ops() noexcept;
  uint32_t wait_for_events(uint64_t wait_ns) noexcept;

  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  bool fine_wait_ = true;  // epoll_pwait2 is there
  uint64_t disk_in_flight_ = 0;
  FileGate gate_;
  std::vector<PollWaiter*> canceled_;  // to be told in the next turn

  std::mutex to_do_mutex_;
  std::condition_variable to_do_ready_;
  std::vector<DiskOp*> to_do_;
  bool stopping_ = false;
  std::mutex finished_mutex_;
  std::vector<Finished> finished_;
  std::vector<std::thread> workers_;
  SocketSet sockets_;
};

}  // namespace mayastor

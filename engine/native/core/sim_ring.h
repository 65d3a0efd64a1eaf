// SimRing: the Ring of a simulated reactor. Files are SimDisks, sockets live in the SimNetwork, and
// every completion is an event in virtual time. Owner: its reactor; made by SimWorld.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/sim_world.h"

namespace mayastor {

class SimSocket;
class SimListener;
class SimFile;
struct SimConnection;

class SimRing final : public Ring {
 public:
  SimRing(SimWorld& world, std::string address);
  ~SimRing() override;
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
  void wake() noexcept override {}

  [[nodiscard]] SimWorld& world() noexcept { return world_; }
  [[nodiscard]] const std::string& address() const noexcept { return address_; }
  [[nodiscard]] uint64_t next_event_ns() const noexcept;
  // Delivers `event` from poll() at `at_ns`, in order of time, then of being scheduled.
  void schedule(uint64_t at_ns, std::function<void()> event);
  void add_socket(SimSocket* socket) { sockets_.push_back(socket); }
  void remove_socket(SimSocket* socket) noexcept;

 private:
  void mutate(File& file, SimDiskOp disk_op, std::vector<uint8_t> data, RingOp* op);
  void complete_later(SimFile& file, std::function<void()> finish);
  uint32_t run_sockets();

  SimWorld& world_;
  const std::string address_;
  std::map<std::pair<uint64_t, uint64_t>, std::function<void()>> events_;
  std::vector<SimSocket*> sockets_;  // with nullptr holes while run_sockets() walks it
  bool walking_ = false;
};

}  // namespace mayastor

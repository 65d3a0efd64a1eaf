// SimNetwork: byte streams between simulated hosts. A stream keeps order and loses nothing while
// the path is up (it stands for TCP); a partition holds bytes back until healed; a reset breaks
// both ends. Private to the simulation: sim_ring.cc and sim_world.cc.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/sim_ring.h"

namespace mayastor {

// One direction of a connection.
struct SimStream {
  std::deque<uint8_t> arrived;  // readable now
  size_t in_flight = 0;         // sent, not arrived
  uint64_t last_arrival_ns = 0;
  bool end_arrived = false;  // the sender closed and all its bytes have arrived
};

struct SimConnection : std::enable_shared_from_this<SimConnection> {
  SimNetwork* network = nullptr;  // null once the network is gone
  std::string address[2];         // "ip:port"; [0] is the side that connected
  std::string host[2];
  SimStream to[2];                             // bytes on their way to side i
  SimSocket* socket[2] = {};                   // null: detached or closed
  bool closed[2] = {};                         // that side destroyed its socket
  bool reset = false;                          // both sides see ECONNRESET
  std::vector<std::function<void()>> held[2];  // arrivals at each side, held by a partition
};

class SimListener final : public Listener {
 public:
  SimListener(SimNetwork& network, SimRing& ring, std::string host, uint16_t port,
              AcceptHandler* handler);
  ~SimListener() override;
  [[nodiscard]] uint16_t port() const noexcept override { return port_; }
  SimNetwork* network;
  SimRing& ring;
  const std::string host;
  AcceptHandler* const handler;

 private:
  const uint16_t port_;
};

class SimSocket final : public Socket {
 public:
  SimSocket(std::shared_ptr<SimConnection> connection, int32_t side, SimRing* ring,
            SocketHandler* handler);
  ~SimSocket() override;
  [[nodiscard]] ssize_t recv(void* buffer, size_t length) noexcept override;
  [[nodiscard]] ssize_t recvv(const iovec* parts, int count) noexcept override;
  [[nodiscard]] ssize_t sendv(const iovec* parts, int count) noexcept override;
  void set_handler(SocketHandler* handler) noexcept override { handler_ = handler; }
  void pause_reading(bool paused) noexcept override { paused_ = paused; }
  [[nodiscard]] std::string peer_address() const override;
  [[nodiscard]] std::string local_address() const override;
  [[nodiscard]] std::unique_ptr<Socket> detach() noexcept override;

  void connected(int32_t result);  // delivers on_connected()
  // One turn's attention; true if a handler ran.
  bool attend();

 private:
  friend class SimRing;
  friend class SimNetwork;
  [[nodiscard]] bool readable() const noexcept;
  std::shared_ptr<SimConnection> connection_;
  const int32_t side_;
  SimRing* ring_;
  SocketHandler* handler_;
  bool* alive_flag_ = nullptr;  // cleared by the destructor while attend() is on the stack
  bool established_ = false;
  bool end_seen_ = false;    // recv() has reported the end of the stream
  bool paused_ = false;      // only the peer's end is of interest
  bool want_write_ = false;  // a send fell short
  bool again_ = false;       // the handler asked to be called again
  bool reset_told_ = false;  // on_readable() was called for a reset
};

class SimNetwork final {
 public:
  explicit SimNetwork(SimWorld& world) : world_(world) {}
  ~SimNetwork();
  SimNetworkOptions options;

  [[nodiscard]] Result<std::unique_ptr<Listener>> listen(SimRing& ring, const std::string& address,
                                                         uint16_t port, AcceptHandler* handler);
  [[nodiscard]] std::unique_ptr<Socket> connect(SimRing& ring, const std::string& address,
                                                uint16_t port, SocketHandler* handler);
  void remove(SimListener* listener) noexcept;
  // Side `from` sends; returns the bytes taken.
  size_t send(const std::shared_ptr<SimConnection>& connection, int32_t from, const uint8_t* data,
              size_t length);
  void close(const std::shared_ptr<SimConnection>& connection, int32_t side);
  void reset(SimConnection& connection);
  void set_partitioned(const std::string& a, const std::string& b, bool partitioned);
  void reset_between(const std::string& a, const std::string& b);
  void reset_host(const std::string& address);

 private:
  friend class SimSocket;
  [[nodiscard]] bool partitioned(const std::string& a, const std::string& b) const;
  [[nodiscard]] uint64_t arrival_ns(SimStream& stream);
  void deliver(const std::shared_ptr<SimConnection>& connection, int32_t to, uint64_t at_ns,
               std::function<void()> what);
  void answer_connect(const std::shared_ptr<SimConnection>& connection, const std::string& host,
                      uint16_t port);
  void tell_connected(const std::shared_ptr<SimConnection>& connection, int32_t result);

  SimWorld& world_;
  std::map<std::pair<std::string, uint16_t>, SimListener*> listeners_;
  std::vector<std::weak_ptr<SimConnection>> connections_;
  std::set<std::pair<std::string, std::string>> partitions_;
  uint16_t next_port_ = 40000;
};

}  // namespace mayastor

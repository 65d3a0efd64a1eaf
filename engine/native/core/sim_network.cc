// SimNetwork: see sim_network.h. Bytes travel as timed actions of the world; handlers run only from
// the poll() of the ring that owns the socket.
#include "core/sim_network.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace mayastor {
namespace {

constexpr uint64_t kRefusedAfterFactor = 2;  // a refusal takes a round trip

std::pair<std::string, std::string> pair_of(const std::string& a, const std::string& b) {
  return a < b ? std::make_pair(a, b) : std::make_pair(b, a);
}

}  // namespace

// --- listener ------------------------------------------------------------------------------------

SimListener::SimListener(SimNetwork& on, SimRing& its_ring, std::string its_host, uint16_t port,
                         AcceptHandler* its_handler)
    : network(&on), ring(its_ring), host(std::move(its_host)), handler(its_handler), port_(port) {}

SimListener::~SimListener() {
  if (network != nullptr) network->remove(this);
}

// --- socket --------------------------------------------------------------------------------------

SimSocket::SimSocket(std::shared_ptr<SimConnection> connection, int32_t side, SimRing* ring,
                     SocketHandler* handler)
    : connection_(std::move(connection)), side_(side), ring_(ring), handler_(handler) {
  connection_->socket[side_] = this;
  if (ring_ != nullptr) ring_->add_socket(this);
}

SimSocket::~SimSocket() {
  if (alive_flag_ != nullptr) *alive_flag_ = false;
  if (ring_ != nullptr) ring_->remove_socket(this);
  if (!connection_) return;  // detached
  connection_->socket[side_] = nullptr;
  connection_->closed[side_] = true;
  if (connection_->network != nullptr) connection_->network->close(connection_, side_);
}

ssize_t SimSocket::recv(void* buffer, size_t length) noexcept {
  const iovec part{buffer, length};
  return recvv(&part, 1);
}

ssize_t SimSocket::recvv(const iovec* parts, int count) noexcept {
  CHECK(connection_ != nullptr);
  if (connection_->reset) {
    end_seen_ = true;
    return -ECONNRESET;
  }
  if (!established_) return -EAGAIN;
  SimStream& stream = connection_->to[side_];
  size_t taken = 0;
  for (int i = 0; i < count && !stream.arrived.empty(); ++i) {
    const size_t length = std::min(parts[i].iov_len, stream.arrived.size());
    const auto end = stream.arrived.begin() + static_cast<ptrdiff_t>(length);
    std::copy(stream.arrived.begin(), end, static_cast<uint8_t*>(parts[i].iov_base));
    stream.arrived.erase(stream.arrived.begin(), end);
    taken += length;
  }
  if (taken > 0) return static_cast<ssize_t>(taken);
  if (!stream.end_arrived) return -EAGAIN;
  end_seen_ = true;
  return 0;
}

ssize_t SimSocket::sendv(const iovec* parts, int count) noexcept {
  CHECK(connection_ != nullptr);
  if (connection_->reset || connection_->closed[1 - side_]) {
    return connection_->reset ? -ECONNRESET : -EPIPE;
  }
  size_t sent = 0;
  for (int i = 0; established_ && i < count; ++i) {
    const size_t taken = connection_->network->send(
        connection_, side_, static_cast<const uint8_t*>(parts[i].iov_base), parts[i].iov_len);
    sent += taken;
    if (taken == parts[i].iov_len) continue;
    want_write_ = true;
    break;
  }
  if (!established_) want_write_ = true;
  return sent > 0 || (established_ && !want_write_) ? static_cast<ssize_t>(sent) : -EAGAIN;
}

std::string SimSocket::peer_address() const {
  return connection_->address[1 - side_];
}
std::string SimSocket::local_address() const {
  return connection_->address[side_];
}

std::unique_ptr<Socket> SimSocket::detach() noexcept {
  CHECK(connection_ != nullptr && established_);
  if (ring_ != nullptr) ring_->remove_socket(this);
  ring_ = nullptr;
  handler_ = nullptr;
  auto moved = std::make_unique<SimSocket>(std::move(connection_), side_, nullptr, nullptr);
  connection_ = nullptr;
  moved->established_ = true;
  return moved;
}

bool SimSocket::readable() const noexcept {
  if (end_seen_ || connection_ == nullptr) return false;
  if (connection_->reset) return !reset_told_;
  const SimStream& stream = connection_->to[side_];
  if (paused_) return established_ && stream.end_arrived;
  return established_ && (!stream.arrived.empty() || stream.end_arrived || again_);
}

void SimSocket::connected(int32_t result) {
  established_ = result == 0;
  if (result != 0) end_seen_ = true;
  if (handler_ != nullptr) handler_->on_connected(result);
}

bool SimSocket::attend() {
  bool alive = true;
  bool* const outer = std::exchange(alive_flag_, &alive);
  CHECK(outer == nullptr);
  bool any = false;
  if (handler_ != nullptr && readable()) {
    any = true;
    if (connection_->reset) reset_told_ = true;
    if (paused_) {
      end_seen_ = true;
      handler_->on_peer_left();
      if (alive) alive_flag_ = nullptr;
      return true;
    }
    const bool again = handler_->on_readable();
    if (!alive) return true;
    again_ = again;
  }
  if (handler_ != nullptr && want_write_ && established_) {
    SimStream& stream = connection_->to[1 - side_];
    const size_t used = stream.in_flight + stream.arrived.size();
    const bool room = used < connection_->network->options.window_bytes;
    if (room || connection_->reset || connection_->closed[1 - side_]) {
      any = true;
      want_write_ = false;
      handler_->on_writable();
      if (!alive) return true;
    }
  }
  alive_flag_ = nullptr;
  return any;
}

// --- network -------------------------------------------------------------------------------------

SimNetwork::~SimNetwork() {
  for (const auto& [where, listener] : listeners_) listener->network = nullptr;
  for (const auto& weak : connections_) {
    const auto connection = weak.lock();
    if (connection == nullptr) continue;
    connection->network = nullptr;
    for (auto& held : connection->held) held.clear();  // each holds the connection: a cycle
  }
}

Result<std::unique_ptr<Listener>> SimNetwork::listen(SimRing& ring, const std::string& address,
                                                     uint16_t port, AcceptHandler* handler) {
  const bool any = address == "0.0.0.0" || address == "::" || address == "127.0.0.1";
  const std::string host = any ? ring.address() : address;
  while (port == 0 || (next_port_ == port && listeners_.contains({host, port}))) {
    port = next_port_++;
    if (listeners_.contains({host, port})) port = 0;
  }
  if (listeners_.contains({host, port})) {
    return errno_error(EADDRINUSE, "Cannot listen on " + address + ":" + std::to_string(port));
  }
  auto listener = std::make_unique<SimListener>(*this, ring, host, port, handler);
  listeners_[{host, port}] = listener.get();
  return std::unique_ptr<Listener>(std::move(listener));
}

void SimNetwork::remove(SimListener* listener) noexcept {
  listeners_.erase({listener->host, listener->port()});
}

bool SimNetwork::partitioned(const std::string& a, const std::string& b) const {
  return partitions_.contains(pair_of(a, b));
}

uint64_t SimNetwork::arrival_ns(SimStream& stream) {
  const uint64_t latency = world_.random().between(options.latency_min_ns, options.latency_max_ns);
  stream.last_arrival_ns = std::max(stream.last_arrival_ns, world_.now_ns() + latency);
  return stream.last_arrival_ns;
}

void SimNetwork::deliver(const std::shared_ptr<SimConnection>& connection, int32_t to,
                         uint64_t at_ns, std::function<void()> what) {
  world_.at(at_ns, [this, connection, to, what = std::move(what)] {
    if (connection->reset || connection->network == nullptr) return;
    if (!connection->held[to].empty() || partitioned(connection->host[0], connection->host[1])) {
      connection->held[to].push_back(what);
      return;
    }
    what();
  });
}

std::unique_ptr<Socket> SimNetwork::connect(SimRing& ring, const std::string& address,
                                            uint16_t port, SocketHandler* handler) {
  const bool local = address == "127.0.0.1" || address == "localhost";
  const std::string host = local ? ring.address() : address;
  auto connection = std::make_shared<SimConnection>();
  connection->network = this;
  connection->host[0] = ring.address();
  connection->host[1] = host;
  connection->address[0] = ring.address() + ":" + std::to_string(next_port_++);
  connection->address[1] = host + ":" + std::to_string(port);
  std::erase_if(connections_, [](const auto& weak) { return weak.expired(); });
  connections_.push_back(connection);
  auto socket = std::make_unique<SimSocket>(connection, 0, &ring, handler);
  deliver(connection, 1, arrival_ns(connection->to[1]),
          [this, connection, host, port] { answer_connect(connection, host, port); });
  return socket;
}

void SimNetwork::answer_connect(const std::shared_ptr<SimConnection>& connection,
                                const std::string& host, uint16_t port) {
  const auto found = listeners_.find({host, port});
  if (found == listeners_.end()) {
    deliver(connection, 0, world_.now_ns() + kRefusedAfterFactor * options.latency_min_ns,
            [this, connection] { tell_connected(connection, -ECONNREFUSED); });
    return;
  }
  found->second->ring.schedule(world_.now_ns(), [this, connection, host, port] {
    const auto still = listeners_.find({host, port});
    if (still == listeners_.end() || connection->reset) {
      tell_connected(connection, -ECONNREFUSED);
      return;
    }
    SimListener& listener = *still->second;
    auto socket = std::make_unique<SimSocket>(connection, 1, &listener.ring, nullptr);
    socket->established_ = true;
    deliver(connection, 0, arrival_ns(connection->to[0]),
            [this, connection] { tell_connected(connection, 0); });
    listener.handler->on_accept(std::move(socket));
  });
}

void SimNetwork::tell_connected(const std::shared_ptr<SimConnection>& connection, int32_t result) {
  SimSocket* waiting = connection->socket[0];
  if (waiting == nullptr || waiting->ring_ == nullptr) return;
  waiting->ring_->schedule(world_.now_ns(), [connection, result] {
    SimSocket* socket = connection->socket[0];
    if (socket != nullptr) socket->connected(connection->reset ? -ECONNRESET : result);
  });
}

size_t SimNetwork::send(const std::shared_ptr<SimConnection>& connection, int32_t from,
                        const uint8_t* data, size_t length) {
  const int32_t to = 1 - from;
  SimStream& stream = connection->to[to];
  const size_t used = stream.in_flight + stream.arrived.size();
  const size_t taken =
      std::min(length, options.window_bytes - std::min(used, options.window_bytes));
  for (size_t at = 0; at < taken;) {
    size_t piece = taken - at;
    if (options.segment_bytes_max > 0) {
      piece = std::min(piece,
                       static_cast<size_t>(world_.random().between(1, options.segment_bytes_max)));
    }
    std::vector<uint8_t> bytes(data + at, data + at + piece);
    stream.in_flight += piece;
    deliver(connection, to, arrival_ns(stream), [&stream, connection, bytes = std::move(bytes)] {
      stream.in_flight -= bytes.size();
      stream.arrived.insert(stream.arrived.end(), bytes.begin(), bytes.end());
    });
    at += piece;
  }
  return taken;
}

void SimNetwork::close(const std::shared_ptr<SimConnection>& connection, int32_t side) {
  SimStream& stream = connection->to[1 - side];
  deliver(connection, 1 - side, arrival_ns(stream),
          [&stream, connection] { stream.end_arrived = true; });
}

void SimNetwork::reset(SimConnection& connection) {
  if (connection.reset) return;
  connection.reset = true;
  for (int32_t side = 0; side < 2; ++side) {
    connection.held[side].clear();
    SimSocket* socket = connection.socket[side];
    if (socket == nullptr || socket->established_ || socket->ring_ == nullptr) continue;
    socket->ring_->schedule(world_.now_ns(), [weak = connection.weak_from_this(), side] {
      const auto still = weak.lock();
      if (still && still->socket[side] != nullptr) still->socket[side]->connected(-ECONNRESET);
    });
  }
}

void SimNetwork::set_partitioned(const std::string& a, const std::string& b, bool partitioned) {
  if (partitioned) {
    partitions_.insert(pair_of(a, b));
    return;
  }
  partitions_.erase(pair_of(a, b));
  for (const auto& weak : connections_) {
    const auto connection = weak.lock();
    if (!connection || pair_of(connection->host[0], connection->host[1]) != pair_of(a, b)) continue;
    for (auto& held : connection->held) {
      const auto released = std::exchange(held, {});
      for (const auto& what : released) what();
    }
  }
}

void SimNetwork::reset_between(const std::string& a, const std::string& b) {
  for (const auto& weak : connections_) {
    const auto connection = weak.lock();
    if (!connection || pair_of(connection->host[0], connection->host[1]) != pair_of(a, b)) continue;
    reset(*connection);
  }
}

void SimNetwork::reset_host(const std::string& address) {
  for (const auto& weak : connections_) {
    const auto connection = weak.lock();
    if (!connection) continue;
    if (connection->host[0] == address || connection->host[1] == address) reset(*connection);
  }
  for (auto it = listeners_.begin(); it != listeners_.end();) {
    if (it->first.first != address) {
      ++it;
      continue;
    }
    it->second->network = nullptr;
    it = listeners_.erase(it);
  }
}

}  // namespace mayastor

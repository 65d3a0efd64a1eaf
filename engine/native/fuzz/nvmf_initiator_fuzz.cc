// Bytes as a target's side of a connection: what may a broken or hostile target do to a queue of
// the initiator. First byte: bit 0 a proper ICResp comes first, bit 1 with digests, bit 2 the bytes
// arrive in small segments. Then a read of 8 KiB (cid 0x0400), a write of 64 KiB (0x0401), a write
// of 512 bytes in its capsule (0x0402) and a flush (0x0403) are out when the rest arrives.
// Whatever it is: no crash, and every command ends exactly once.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/sim_harness.h"
#include "nvmf/initiator_queue.h"

using namespace mayastor;
using namespace mayastor::nvmf;

namespace {

constexpr char kPeer[] = "10.0.0.2";
constexpr uint64_t kMs = 1'000'000;
constexpr uint32_t kCommands = 4;

class Peer final : public AcceptHandler, public SocketHandler {
 public:
  Peer(Reactor& reactor, bool greet, bool digests) : greet_(greet), digests_(digests) {
    const Reactor::Scope scope(reactor);
    listener_ = reactor.ring().listen(kPeer, 4420, this).take();
  }
  void on_accept(std::unique_ptr<Socket> socket) override {
    socket_ = std::move(socket);
    socket_->set_handler(this);
    if (!greet_) return;
    const IcRespPdu response = make_ic_response(make_ic_request(digests_, digests_), 16384);
    send(reinterpret_cast<const uint8_t*>(&response), sizeof(response));
  }
  void on_connected(int32_t) override {}
  void on_writable() override {}
  bool on_readable() override {
    uint8_t chunk[65536];
    while (socket_->recv(chunk, sizeof(chunk)) > 0) {
    }
    return false;
  }
  void send(const uint8_t* data, size_t length) {
    if (socket_ == nullptr || length == 0) return;
    const iovec part{const_cast<uint8_t*>(data), length};
    // What does not fit into the simulated window is as good as never sent.
    [[maybe_unused]] const ssize_t sent = socket_->sendv(&part, 1);
  }
  void close() {
    socket_.reset();
    listener_.reset();
  }

 private:
  const bool greet_, digests_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<Socket> socket_;
};

Task<void> connect(std::shared_ptr<InitiatorQueue> queue, bool* ended) {
  const Result<void> connected = co_await queue->connect(kPeer, 4420, 50 * kMs);
  if (connected.ok()) queue->handshake_done();
  *ended = true;
}

struct Outstanding {
  std::vector<uint8_t> data;
  iovec part{};
  uint32_t ends = 0;
};

void submit(InitiatorQueue& queue, Outstanding& out, uint8_t opcode, DataDirection direction,
            uint32_t length) {
  Command* command = queue.acquire();
  CHECK(command != nullptr);
  out.data.assign(length, 0x5A);
  out.part = iovec{out.data.data(), length};
  command->sqe.opcode = opcode;
  command->direction = direction;
  command->length = length;
  command->iov = &out.part;
  command->iov_count = length > 0 ? 1 : 0;
  command->exact = true;
  command->owner = &out;
  command->done = [](Command* done, const Answer&) noexcept {
    ++static_cast<Outstanding*>(done->owner)->ends;
  };
  queue.submit(command);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1 || size > 200'000) return 0;
  const uint8_t mode = data[0];
  Sim sim(1);
  if ((mode & 4) != 0) sim.world().set_network({.segment_bytes_max = 13});
  SimHost host(sim.world(), kPeer, 1);
  Peer peer(host.home(), (mode & 1) != 0, (mode & 2) != 0);
  QueueOptions options;
  options.depth = 8;
  options.timeout_ns = 20 * kMs;
  options.header_digest = options.data_digest = (mode & 2) != 0;
  auto queue = std::make_shared<InitiatorQueue>(options);
  queue->set_in_capsule_bytes(4096);
  bool ended = false;
  spawn(connect(queue, &ended));
  sim.run_for(2 * kMs);
  Outstanding outstanding[kCommands];
  if (queue->ready()) {
    submit(*queue, outstanding[0], kIoRead, DataDirection::kToHost, 8192);
    submit(*queue, outstanding[1], kIoWrite, DataDirection::kToController, 65536);
    submit(*queue, outstanding[2], kIoWrite, DataDirection::kToController, 512);
    submit(*queue, outstanding[3], kIoFlush, DataDirection::kNone, 0);
    sim.run_for(2 * kMs);
  }
  const bool submitted = outstanding[0].part.iov_len > 0;
  {
    const Reactor::Scope scope(host.home());
    peer.send(data + 1, size - 1);
  }
  sim.run_for(100 * kMs);  // beyond the timeouts
  CHECK(ended);
  for (const Outstanding& one : outstanding) CHECK(one.ends == (submitted ? 1U : 0U));
  queue->close(io_status::kQueueDeleted);
  {
    const Reactor::Scope scope(host.home());
    peer.close();
  }
  return 0;
}

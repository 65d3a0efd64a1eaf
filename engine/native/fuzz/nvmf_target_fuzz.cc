// Bytes into a whole target over a simulated connection. The first byte says how far a proper host
// gets before the bytes take over: 0 nothing, 1 ICReq, 2 an enabled admin queue, 3 an I/O queue;
// bit 2: with digests negotiated (the bytes then mostly test their checks); bit 3: the bytes are
// cut into small segments. Whatever arrives, the target must not crash, and must forget the
// connection when it ends.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "bdev/builtin.h"
#include "core/sim_harness.h"
#include "nvmf/pdu.h"
#include "nvmf/target.h"

using namespace mayastor;
using namespace mayastor::nvmf;

namespace {

constexpr char kNqn[] = "nqn.2019-05.io.openebs:fuzz";
constexpr char kHostNqn[] = "nqn.2019-05.io.openebs:node-name:fuzzer";
constexpr char kAddress[] = "10.0.0.1";
constexpr uint64_t kMs = 1'000'000;

class Client final : private SocketHandler {
 public:
  Client(Sim& sim, Reactor& reactor) : sim_(sim), reactor_(reactor) {
    const Reactor::Scope scope(reactor_);
    socket_ = reactor_.ring().connect(kAddress, 8420, this);
  }
  ~Client() override {
    const Reactor::Scope scope(reactor_);
    socket_.reset();
  }
  void send(const void* data, size_t length) {
    const auto* const bytes = static_cast<const uint8_t*>(data);
    out_.insert(out_.end(), bytes, bytes + length);
    push();
    sim_.run_for(2 * kMs);
  }
  void send_pdu(void* pdu, size_t size, uint8_t type, const void* data, uint32_t data_length) {
    const PduLayout layout = layout_for(type, data_length, format);
    encode_header(*static_cast<PduHeader*>(pdu), type, 0, layout);
    std::vector<uint8_t> out(layout.length);
    std::memcpy(out.data(), pdu, size);
    if (layout.header_digest) {
      const uint32_t digest = header_digest(pdu, size);
      std::memcpy(out.data() + size, &digest, sizeof(digest));
    }
    if (data_length > 0) std::memcpy(out.data() + layout.data_offset, data, data_length);
    if (layout.data_digest) {
      const iovec part{out.data() + layout.data_offset, data_length};
      const uint32_t digest = data_digest(&part, 1);
      std::memcpy(out.data() + layout.data_offset + data_length, &digest, sizeof(digest));
    }
    send(out.data(), out.size());
  }
  void handshake(bool digests) {
    const IcReqPdu request = make_ic_request(digests, digests);
    send(&request, sizeof(request));
    format.header_digest = format.data_digest = digests;
  }
  void connect(uint16_t qid, uint16_t cntlid) {
    ConnectSqe sqe{};
    sqe.opcode = kOpcodeFabrics;
    sqe.fctype = kFabricsConnect;
    sqe.qid = qid;
    sqe.sqsize = 31;
    sqe.cattr = kConnectDisableSqFlow;
    sqe.sgl = {0, sizeof(ConnectData), {}, kSglInCapsule};
    ConnectData data{};
    std::memset(data.host_id, 1, sizeof(data.host_id));
    data.cntlid = cntlid;
    std::memcpy(data.subnqn, kNqn, sizeof(kNqn));
    std::memcpy(data.hostnqn, kHostNqn, sizeof(kHostNqn));
    CapsuleCmdPdu pdu{};
    std::memcpy(&pdu.sqe, &sqe, sizeof(sqe));
    send_pdu(&pdu, sizeof(pdu), kPduCapsuleCmd, &data, sizeof(data));
  }
  void enable() {
    PropertySqe sqe{};
    sqe.opcode = kOpcodeFabrics;
    sqe.fctype = kFabricsPropertySet;
    sqe.offset = kPropertyCc;
    sqe.value = kCcDefault;
    CapsuleCmdPdu pdu{};
    std::memcpy(&pdu.sqe, &sqe, sizeof(sqe));
    send_pdu(&pdu, sizeof(pdu), kPduCapsuleCmd, nullptr, 0);
  }
  PduFormat format;

 private:
  void push() {
    const Reactor::Scope scope(reactor_);
    while (connected_ && !closed_ && !out_.empty()) {
      const iovec part{out_.data(), out_.size()};
      const ssize_t sent = socket_->sendv(&part, 1);
      if (sent == -EAGAIN) return;
      if (sent <= 0) {
        closed_ = true;
        return;
      }
      out_.erase(out_.begin(), out_.begin() + sent);
    }
  }
  void on_connected(int32_t result) override {
    connected_ = result == 0;
    push();
  }
  bool on_readable() override {
    uint8_t dropped[16384];
    while (true) {
      const ssize_t got = socket_->recv(dropped, sizeof(dropped));
      if (got == -EAGAIN) return false;
      if (got <= 0) {
        closed_ = true;
        return false;
      }
    }
  }
  void on_writable() override { push(); }

  Sim& sim_;
  Reactor& reactor_;
  std::unique_ptr<Socket> socket_;
  std::vector<uint8_t> out_;
  bool connected_ = false, closed_ = false;
};

struct World {
  World() : sim(1, 2), hosts(sim.world(), "10.0.0.2", 1) {
    TargetOptions options;
    options.address = kAddress;
    target = std::make_unique<Target>(sim.reactors(), options);
    CHECK(sim.run(target->start()).ok());
  }
  ~World() {
    sim.run(target->stop());
    target.reset();
    sim.run_for(kMs);
  }
  void add_subsystem() {
    SubsystemOptions options;
    options.nqn = kNqn;
    options.ana_reporting = true;
    auto bdev = sim.run(create_malloc_bdev("malloc:///f?num_blocks=256"));
    CHECK(bdev.ok());
    options.bdev = bdev.take();
    options.nguid = options.bdev->uuid();
    CHECK(sim.run(target->add_subsystem(options)).ok());
  }
  Sim sim;
  SimHost hosts;
  std::unique_ptr<Target> target;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1 || size > 65536) return 0;
  static World world;
  Sim& sim = world.sim;
  Target& target = *world.target;
  const uint8_t how = data[0];
  SimNetworkOptions network;
  network.segment_bytes_max = (how & 8) != 0 ? 5 : 0;
  sim.world().set_network(network);
  world.add_subsystem();
  {
    std::unique_ptr<Client> admin, io;
    const bool digests = (how & 4) != 0;
    admin = std::make_unique<Client>(sim, world.hosts.home());
    if ((how & 3) >= 1) admin->handshake(digests);
    if ((how & 3) >= 2) {
      admin->connect(0, kDynamicControllerId);
      admin->enable();
      const auto info = target.find(kNqn);
      CHECK(info.ok() && info.value().hosts.size() == 1);
      if ((how & 3) == 3) {
        io = std::make_unique<Client>(sim, world.hosts.home());
        io->handshake(digests);
        io->connect(1, info.value().hosts[0].controller_id);
        CHECK(target.find(kNqn).value().hosts[0].io_queues == 1);
      }
    }
    (io ? io : admin)->send(data + 1, size - 1);
    sim.run_for(20 * kMs);
  }
  CHECK(sim.run_until([&] { return target.connection_count() == 0; }, 30'000 * kMs));
  CHECK(sim.run(target.remove_subsystem(kNqn)).ok());
  return 0;
}

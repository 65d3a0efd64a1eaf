// TestHost: a small NVMe/TCP host built on pdu.h alone, for the target's tests: it says exactly
// what a test tells it to, also what no host should. TargetFixture: a target on the simulated
// network with a memory-backed subsystem. Tests only.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bdev/builtin.h"
#include "bdev/fault_bdev.h"
#include "core/sim_harness.h"
#include "nvmf/pdu.h"
#include "nvmf/target.h"

namespace mayastor::nvmf::test {

inline constexpr char kNqn[] = "nqn.2019-05.io.openebs:test-volume";
inline constexpr char kHostNqn[] = "nqn.2019-05.io.openebs:node-name:host-1";

using Bytes = std::vector<uint8_t>;

inline Bytes pattern(size_t size, uint64_t seed) {
  SimRandom random(seed);
  Bytes out(size);
  for (auto& byte : out) byte = static_cast<uint8_t>(random.next());
  return out;
}

// A byte stream to the target.
class Wire {
 public:
  virtual ~Wire() = default;
  virtual void send(const void* data, size_t length) = 0;
  // Waits until `length` bytes have arrived and takes them; false: the stream ended before.
  virtual bool receive(void* out, size_t length) = 0;
  virtual bool ended() = 0;  // waits a moment for the end of the stream
};

class SimWire final : public Wire, private SocketHandler {
 public:
  SimWire(Sim& sim, Reactor& reactor, const std::string& address, uint16_t port)
      : sim_(sim), reactor_(reactor) {
    {
      const Reactor::Scope scope(reactor_);
      socket_ = reactor_.ring().connect(address, port, this);
    }
    sim_.run_until([this] { return connected_ || closed_; });
  }
  ~SimWire() override {
    const Reactor::Scope scope(reactor_);
    socket_.reset();
  }
  void send(const void* data, size_t length) override {
    const auto* const bytes = static_cast<const uint8_t*>(data);
    out_.insert(out_.end(), bytes, bytes + length);
    push();
    sim_.run_until([this] { return out_.empty() || closed_; }, 5'000'000'000);
  }
  bool receive(void* out, size_t length) override {
    sim_.run_until([&] { return in_.size() >= length || closed_; }, kReceiveLimitNs);
    if (in_.size() < length) return false;
    std::memcpy(out, in_.data(), length);
    in_.erase(in_.begin(), in_.begin() + static_cast<ptrdiff_t>(length));
    return true;
  }
  bool ended() override {
    sim_.run_until([this] { return closed_; }, 5'000'000'000);
    return closed_;
  }
  [[nodiscard]] size_t waiting() const { return in_.size(); }
  void stop_reading() { socket_->set_handler(nullptr); }

 private:
  static constexpr uint64_t kReceiveLimitNs = 5'000'000'000;
  void push() {
    const Reactor::Scope scope(reactor_);
    while (!out_.empty() && connected_ && !closed_) {
      const iovec part{out_.data(), out_.size()};
      const ssize_t sent = socket_->sendv(&part, 1);
      if (sent == -EAGAIN) return;
      if (sent < 0) {
        closed_ = true;
        return;
      }
      out_.erase(out_.begin(), out_.begin() + sent);
    }
  }
  void on_connected(int32_t result) override { (result == 0 ? connected_ : closed_) = true; }
  bool on_readable() override {
    uint8_t chunk[16384];
    while (true) {
      const ssize_t got = socket_->recv(chunk, sizeof(chunk));
      if (got == -EAGAIN) return false;
      if (got <= 0) {
        closed_ = true;
        return false;
      }
      in_.insert(in_.end(), chunk, chunk + got);
    }
  }
  void on_writable() override { push(); }

  Sim& sim_;
  Reactor& reactor_;
  std::unique_ptr<Socket> socket_;
  Bytes in_, out_;
  bool connected_ = false, closed_ = false;
};

struct TestAnswer {
  bool arrived = false;
  Cqe cqe{};
  Bytes data;
  bool success_flag = false;
  // An answer that never came is no success.
  [[nodiscard]] IoStatus status() const {
    return arrived ? decode_status(cqe.status) : io_status::kHostPathError;
  }
};

struct HostConnect {
  uint16_t qid = 0;
  uint16_t sqsize = 31;
  uint16_t cntlid = kDynamicControllerId;
  std::string nqn = kNqn;
  std::string host_nqn = kHostNqn;
  uint8_t host_id = 1;  // of all 16 bytes
  uint32_t kato_ms = 0;
  uint8_t cattr = kConnectDisableSqFlow;
};

class TestHost final {
 public:
  explicit TestHost(std::unique_ptr<Wire> wire) : wire_(std::move(wire)) {}

  [[nodiscard]] Wire& wire() { return *wire_; }
  PduFormat format;  // digests, as agreed
  uint8_t hpda = 0;
  bool damage_data_digest = false;
  uint32_t r2ts = 0;

  std::optional<IcRespPdu> handshake(bool header_digest = false, bool data_digest = false) {
    IcReqPdu request = make_ic_request(header_digest, data_digest);
    request.host_alignment = hpda;
    wire_->send(&request, sizeof(request));
    IcRespPdu response{};
    if (!wire_->receive(&response, sizeof(response))) return std::nullopt;
    format.header_digest = header_digest;
    format.data_digest = data_digest;
    return response;
  }

  void send_pdu(void* header, uint32_t header_size, uint8_t type, const Bytes& data,
                uint8_t flags = 0) {
    const PduLayout layout = layout_for(type, static_cast<uint32_t>(data.size()), format);
    PduHeader common{};
    encode_header(common, type, flags, layout);
    std::memcpy(header, &common, sizeof(common));
    Bytes out(layout.length);
    std::memcpy(out.data(), header, header_size);
    if (layout.header_digest) {
      const uint32_t digest = header_digest(header, header_size);
      std::memcpy(out.data() + header_size, &digest, sizeof(digest));
    }
    if (!data.empty()) std::memcpy(out.data() + layout.data_offset, data.data(), data.size());
    if (layout.data_digest) {
      const iovec part{const_cast<uint8_t*>(data.data()), data.size()};
      const uint32_t digest = data_digest(&part, 1) ^ (damage_data_digest ? 1U : 0U);
      std::memcpy(out.data() + layout.data_offset + data.size(), &digest, sizeof(digest));
    }
    wire_->send(out.data(), out.size());
  }

  void send_command(const Sqe& sqe, const Bytes& in_capsule = {}) {
    CapsuleCmdPdu pdu{};
    pdu.sqe = sqe;
    send_pdu(&pdu, sizeof(pdu), kPduCapsuleCmd, in_capsule);
  }
  void send_data(uint16_t cid, uint16_t tag, uint32_t offset, const Bytes& data, bool last) {
    DataPdu pdu{};
    pdu.cid = cid;
    pdu.transfer_tag = tag;
    pdu.offset = offset;
    pdu.length = static_cast<uint32_t>(data.size());
    send_pdu(&pdu, sizeof(pdu), kPduH2cData, data, last ? uint8_t{kPduLast} : uint8_t{0});
  }

  struct Pdu {
    PduHeader header{};
    Bytes bytes;  // header
    Bytes data;
  };
  std::optional<Pdu> receive_pdu() {
    Pdu pdu;
    if (!wire_->receive(&pdu.header, sizeof(pdu.header))) return std::nullopt;
    PduFormat expected = format;
    expected.alignment = alignment_of(hpda);
    PduLayout layout;
    const auto fault = check_header(pdu.header, PduDirection::kToHost, expected, 4U << 20, &layout);
    EXPECT_FALSE(fault.has_value()) << "bad PDU of type " << int{pdu.header.type};
    if (fault.has_value()) return std::nullopt;
    Bytes rest(pdu.header.length - sizeof(pdu.header));
    if (!wire_->receive(rest.data(), rest.size())) return std::nullopt;
    pdu.bytes.resize(layout.header_length);
    std::memcpy(pdu.bytes.data(), &pdu.header, sizeof(pdu.header));
    std::memcpy(pdu.bytes.data() + sizeof(pdu.header), rest.data(),
                layout.header_length - sizeof(pdu.header));
    if (layout.header_digest) {
      uint32_t digest = 0;
      std::memcpy(&digest, rest.data() + layout.header_length - sizeof(PduHeader), sizeof(digest));
      EXPECT_EQ(digest, header_digest(pdu.bytes.data(), pdu.bytes.size()));
    }
    if (layout.data_length > 0) {
      const auto begin = rest.begin() + layout.data_offset - static_cast<int>(sizeof(PduHeader));
      pdu.data.assign(begin, begin + layout.data_length);
      if (layout.data_digest) {
        uint32_t digest = 0;
        std::memcpy(&digest, &*begin + layout.data_length, sizeof(digest));
        const iovec part{pdu.data.data(), pdu.data.size()};
        EXPECT_EQ(digest, data_digest(&part, 1));
      }
    }
    return pdu;
  }

  // Sends a command and plays the host's part until its answer comes.
  TestAnswer command(Sqe sqe, const Bytes& out = {}, bool in_capsule = true) {
    sqe.cid = next_cid_++;
    sqe.flags = static_cast<uint8_t>((sqe.flags & kFuseMask) | kPsdtSgl);
    if (sqe.sgl.type == 0) {
      sqe.sgl.type = !out.empty() && in_capsule ? kSglInCapsule : kSglTransport;
      if (!out.empty()) sqe.sgl.length = static_cast<uint32_t>(out.size());
    }
    send_command(sqe, in_capsule ? out : Bytes{});
    return finish(sqe.cid, out);
  }
  // R2Ts of `cid` are answered from `out`; answers of other commands are kept for later.
  TestAnswer finish(uint16_t cid, const Bytes& out = {}) {
    for (auto it = kept_.begin(); it != kept_.end(); ++it) {
      if (it->cqe.cid != cid) continue;
      TestAnswer answer = std::move(*it);
      kept_.erase(it);
      return answer;
    }
    std::map<uint16_t, Bytes> reading;
    while (true) {
      const auto pdu = receive_pdu();
      if (!pdu.has_value()) return {};
      TestAnswer answer;
      answer.arrived = true;
      if (pdu->header.type == kPduR2t) {
        R2tPdu r2t;
        std::memcpy(&r2t, pdu->bytes.data(), sizeof(r2t));
        ++r2ts;
        answer_r2t(r2t, out);
        continue;
      }
      if (pdu->header.type == kPduC2hData) {
        DataPdu data;
        std::memcpy(&data, pdu->bytes.data(), sizeof(data));
        Bytes& sofar = reading[uint16_t{data.cid}];
        EXPECT_EQ(uint32_t{data.offset}, sofar.size());
        sofar.insert(sofar.end(), pdu->data.begin(), pdu->data.end());
        if ((pdu->header.flags & kPduSuccess) == 0) continue;
        EXPECT_NE(pdu->header.flags & kPduLast, 0);
        answer.cqe.cid = data.cid;
        answer.success_flag = true;
      } else if (pdu->header.type == kPduCapsuleResp) {
        std::memcpy(&answer.cqe, pdu->bytes.data() + sizeof(PduHeader), sizeof(Cqe));
      } else {
        last_other = *pdu;
        return {};
      }
      if (auto node = reading.extract(uint16_t{answer.cqe.cid})) {
        answer.data = std::move(node.mapped());
      }
      if (answer.cqe.cid == cid) return answer;
      kept_.push_back(std::move(answer));
    }
  }
  Pdu last_other;  // e.g. a TermReq

  std::optional<TermReqPdu> expect_term_request() {
    while (const auto pdu = receive_pdu()) {
      if (pdu->header.type != kPduC2hTermReq) continue;
      TermReqPdu term;
      std::memcpy(&term, pdu->bytes.data(), sizeof(term));
      return term;
    }
    return std::nullopt;
  }

  static Bytes connect_data(const HostConnect& options) {
    ConnectData data{};
    std::memset(data.host_id, options.host_id, sizeof(data.host_id));
    data.cntlid = options.cntlid;
    std::memcpy(data.subnqn, options.nqn.data(), options.nqn.size());
    std::memcpy(data.hostnqn, options.host_nqn.data(), options.host_nqn.size());
    Bytes out(sizeof(data));
    std::memcpy(out.data(), &data, sizeof(data));
    return out;
  }
  static Sqe connect_sqe(const HostConnect& options) {
    ConnectSqe connect{};
    connect.opcode = kOpcodeFabrics;
    connect.fctype = kFabricsConnect;
    connect.qid = options.qid;
    connect.sqsize = options.sqsize;
    connect.cattr = options.cattr;
    connect.kato_ms = options.kato_ms;
    Sqe sqe;
    std::memcpy(&sqe, &connect, sizeof(sqe));
    return sqe;
  }
  TestAnswer connect(const HostConnect& options) {
    return command(connect_sqe(options), connect_data(options));
  }
  TestAnswer property(uint32_t offset, bool wide, std::optional<uint64_t> value = std::nullopt) {
    PropertySqe property{};
    property.opcode = kOpcodeFabrics;
    property.fctype = value.has_value() ? kFabricsPropertySet : kFabricsPropertyGet;
    property.attrib = wide ? 1 : 0;
    property.offset = offset;
    property.value = value.value_or(0);
    Sqe sqe;
    std::memcpy(&sqe, &property, sizeof(sqe));
    return command(sqe);
  }
  TestAnswer read_data(uint8_t opcode, uint32_t nsid, uint32_t length, uint32_t cdw10,
                       uint32_t cdw11 = 0) {
    Sqe sqe{};
    sqe.opcode = opcode;
    sqe.nsid = nsid;
    sqe.cdw10 = cdw10;
    sqe.cdw11 = cdw11;
    sqe.sgl.type = kSglTransport;
    sqe.sgl.length = length;
    return command(sqe);
  }
  TestAnswer identify(uint8_t cns, uint32_t nsid) {
    return read_data(kAdminIdentify, nsid, 4096, cns);
  }
  TestAnswer log_page(uint8_t page, uint32_t length, bool keep = false, uint8_t specific = 0) {
    return read_data(
        kAdminGetLogPage, kBroadcastNsid, length,
        page | uint32_t{specific} << 8 | (keep ? 1U << 15 : 0U) | (length / 4 - 1) << 16);
  }
  TestAnswer feature(uint32_t id, std::optional<uint32_t> value = std::nullopt, uint32_t nsid = 0) {
    Sqe sqe{};
    sqe.opcode = value.has_value() ? kAdminSetFeatures : kAdminGetFeatures;
    sqe.nsid = nsid;
    sqe.cdw10 = id;
    sqe.cdw11 = value.value_or(0);
    return command(sqe);
  }
  uint16_t send_async_event() {
    Sqe sqe{};
    sqe.opcode = kAdminAsyncEvent;
    sqe.cid = next_cid_++;
    send_command(sqe);
    return sqe.cid;
  }

  static Sqe io(uint8_t opcode, uint64_t lba, uint32_t blocks) {
    Sqe sqe{};
    sqe.opcode = opcode;
    sqe.nsid = 1;
    sqe.set_slba(lba);
    sqe.cdw12 = blocks - 1;
    return sqe;
  }
  TestAnswer write(uint64_t lba, const Bytes& data, bool in_capsule) {
    return command(io(kIoWrite, lba, static_cast<uint32_t>(data.size() / 512)), data, in_capsule);
  }
  TestAnswer read(uint64_t lba, uint32_t blocks) {
    Sqe sqe = io(kIoRead, lba, blocks);
    sqe.sgl.type = kSglTransport;
    sqe.sgl.length = blocks * 512;
    return command(sqe);
  }
  TestAnswer reserve(uint8_t opcode, uint32_t cdw10, std::vector<uint64_t> keys) {
    Sqe sqe{};
    sqe.opcode = opcode;
    sqe.nsid = 1;
    sqe.cdw10 = cdw10;
    Bytes data(keys.size() * 8);
    std::memcpy(data.data(), keys.data(), data.size());
    return command(sqe, data);
  }
  [[nodiscard]] uint16_t next_cid() { return next_cid_++; }

 private:
  static constexpr uint32_t kH2cPiece = 49152;  // several PDUs for one large R2T
  void answer_r2t(const R2tPdu& r2t, const Bytes& out) {
    EXPECT_LE(r2t.offset + r2t.length, out.size());
    for (uint32_t done = 0; done < r2t.length;) {
      const uint32_t piece = std::min(kH2cPiece, r2t.length - done);
      const auto begin = out.begin() + r2t.offset + done;
      done += piece;
      send_data(r2t.cid, r2t.transfer_tag, r2t.offset + done - piece, Bytes(begin, begin + piece),
                done == r2t.length);
    }
  }
  std::unique_ptr<Wire> wire_;
  std::vector<TestAnswer> kept_;
  uint16_t next_cid_ = 1;
};

class TargetFixture : public testing::Test {
 protected:
  explicit TargetFixture(uint32_t reactors = 1, uint64_t seed = 11)
      : sim(seed, reactors), other(sim.world(), "10.0.0.2", 1) {
    options.address = "10.0.0.1";
  }
  ~TargetFixture() override {
    hosts_.clear();
    if (target) sim.run(target->stop());
    target.reset();
    bdev.reset();
    fault.reset();
    sim.run_for(1'000'000);
  }
  void start() {
    target = std::make_unique<Target>(sim.reactors(), options);
    const auto started = sim.run(target->start());
    ASSERT_TRUE(started.ok()) << started.error().message;
    subsystem.nqn = kNqn;
    subsystem.serial = "DCS0123456789ABCDEF0";
    subsystem.nguid = Uuid::from_name("volume");
    auto made =
        sim.run(create_malloc_bdev("malloc:///m0?size_mb=8&uuid=" + subsystem.nguid.to_string()));
    ASSERT_TRUE(made.ok()) << made.error().message;
    bdev = made.take();
    fault = FaultBdev::create("f0", bdev);
    subsystem.bdev = fault;
    const auto added = sim.run(target->add_subsystem(subsystem));
    ASSERT_TRUE(added.ok()) << added.error().message;
  }
  TestHost& open(bool header_digest = false, bool data_digest = false, uint16_t port = 8420) {
    hosts_.push_back(std::make_unique<TestHost>(
        std::make_unique<SimWire>(sim, other.home(), options.address, port)));
    EXPECT_TRUE(hosts_.back()->handshake(header_digest, data_digest).has_value());
    return *hosts_.back();
  }
  // An enabled admin queue; gives the controller id.
  TestHost& open_admin(const HostConnect& connect = {}, uint16_t* cntlid = nullptr,
                       bool header_digest = false, bool data_digest = false) {
    TestHost& host = open(header_digest, data_digest);
    const TestAnswer answer = host.connect(connect);
    EXPECT_TRUE(answer.arrived && answer.status().ok());
    if (cntlid != nullptr) *cntlid = static_cast<uint16_t>(answer.cqe.dw0);
    EXPECT_TRUE(host.property(kPropertyCc, false, kCcDefault).status().ok());
    return host;
  }
  TestHost& open_io(uint16_t cntlid, HostConnect connect = {}, bool header_digest = false,
                    bool data_digest = false) {
    TestHost& host = open(header_digest, data_digest);
    connect.cntlid = cntlid;
    if (connect.qid == 0) connect.qid = 1;
    const TestAnswer answer = host.connect(connect);
    EXPECT_TRUE(answer.arrived && answer.status().ok());
    return host;
  }
  void close(TestHost& host) {
    std::erase_if(hosts_, [&](const auto& one) { return one.get() == &host; });
  }

  Sim sim;
  SimHost other;
  TargetOptions options;
  SubsystemOptions subsystem;
  std::shared_ptr<Bdev> bdev;
  std::shared_ptr<FaultBdev> fault;
  std::unique_ptr<Target> target;

 private:
  std::vector<std::unique_ptr<TestHost>> hosts_;
};

}  // namespace mayastor::nvmf::test

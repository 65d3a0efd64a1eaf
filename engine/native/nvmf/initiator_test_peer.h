// ScriptedPeer: a small NVMe/TCP target for the initiator's tests, independent of the real one: one
// namespace in memory, answers in order, and knobs to misbehave with. Tests only.
#pragma once
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/reactor.h"
#include "nvmf/pdu.h"
#include "nvmf/spec.h"
#include "util/uuid.h"

namespace mayastor::nvmf::test {

struct PeerOptions {
  std::string nqn = "nqn.2019-05.io.openebs:peer";
  Uuid uuid = Uuid::from_name("peer");
  uint32_t blocks = 16384;
  uint32_t block_shift = 9;
  uint8_t mdts = 5;
  uint32_t in_capsule_bytes = 4096;
  uint32_t max_h2c_data = 65536;
  uint32_t r2t_bytes = 131072;   // at most so much asked for at once
  uint32_t c2h_bytes = 1 << 20;  // at most so much data per C2HData PDU
  uint8_t controller_alignment = 0;
  bool success_flag = true;
  uint16_t queues = 8;
  uint16_t entries = 64;
  bool digests_ignored = false;  // answers ICReq without the digests it asks for
};

class ScriptedPeer final : public AcceptHandler {
 public:
  class Link;
  struct Seen {
    uint32_t connections = 0, r2ts = 0, h2c_pdus = 0, in_capsule_writes = 0, commands = 0,
             keep_alives = 0;
    uint32_t max_in_flight = 0;
  };

  ScriptedPeer(Reactor& reactor, const std::string& address, uint16_t port, PeerOptions options)
      : options(std::move(options)), reactor_(reactor) {
    const Reactor::Scope scope(reactor);
    memory.resize(static_cast<size_t>(this->options.blocks) << this->options.block_shift);
    listener_ = reactor.ring().listen(address, port, this).take();
  }
  ~ScriptedPeer() override {
    const Reactor::Scope scope(reactor_);
    links.clear();
    listener_.reset();
  }
  void on_accept(std::unique_ptr<Socket> socket) override;
  void drop_all() {
    const Reactor::Scope scope(reactor_);
    links.clear();
  }

  PeerOptions options;
  std::vector<uint8_t> memory;
  std::vector<std::unique_ptr<Link>> links;
  std::set<uint16_t> silent_opcodes;  // I/O commands never answered
  bool silent = false;                // nothing is answered any more
  bool keep_alive_silent = false;
  // Instead of the normal answer of an I/O command: status to give.
  std::map<uint8_t, IoStatus> fail_opcodes;
  // Called for each I/O command with its link; true: handled here.
  std::function<bool(Link&, const Sqe&)> on_command;
  uint16_t event_cid = 0;
  Link* event_link = nullptr;  // with an asynchronous event request outstanding
  Seen seen;
  std::vector<Sqe> commands;  // I/O commands as received

 private:
  Reactor& reactor_;
  std::unique_ptr<Listener> listener_;
};

class ScriptedPeer::Link final : public SocketHandler {
 public:
  Link(ScriptedPeer& peer, std::unique_ptr<Socket> socket)
      : peer_(peer), socket_(std::move(socket)) {
    socket_->set_handler(this);
  }
  void on_connected(int32_t) override {}
  void on_writable() override { flush(); }
  bool on_readable() override {
    uint8_t chunk[16384];
    while (true) {
      const ssize_t got = socket_->recv(chunk, sizeof(chunk));
      if (got <= 0) break;
      in_.insert(in_.end(), chunk, chunk + got);
    }
    if (peer_.silent) {
      in_.clear();
      return false;
    }
    while (take_pdu()) {
    }
    flush();
    return false;
  }

  void answer(uint16_t cid, IoStatus status, uint32_t dw0 = 0, uint32_t dw1 = 0) {
    CapsuleRespPdu pdu{};
    pdu.cqe.cid = cid;
    pdu.cqe.status = encode_status(status);
    pdu.cqe.dw0 = dw0;
    pdu.cqe.dw1 = dw1;
    send_pdu(&pdu, sizeof(pdu), kPduCapsuleResp, 0, nullptr, 0);
  }
  void send_data(uint16_t cid, const uint8_t* data, uint32_t length, uint32_t offset, bool last,
                 bool success) {
    DataPdu pdu{};
    pdu.cid = cid;
    pdu.offset = offset;
    pdu.length = length;
    const uint8_t flags = static_cast<uint8_t>((last ? kPduLast : 0) | (success ? kPduSuccess : 0));
    send_pdu(&pdu, sizeof(pdu), kPduC2hData, flags, data, length);
  }
  void send_r2t(uint16_t cid, uint16_t tag, uint32_t offset, uint32_t length) {
    R2tPdu pdu{};
    pdu.cid = cid;
    pdu.transfer_tag = tag;
    pdu.offset = offset;
    pdu.length = length;
    ++peer_.seen.r2ts;
    send_pdu(&pdu, sizeof(pdu), kPduR2t, 0, nullptr, 0);
  }
  void send_pdu(void* pdu, size_t size, uint8_t type, uint8_t flags, const uint8_t* data,
                uint32_t length) {
    const PduLayout layout = layout_for(type, length, to_host_);
    PduHeader header;
    encode_header(header, type, flags, layout);
    std::memcpy(pdu, &header, sizeof(header));
    std::vector<uint8_t> bytes(layout.length);
    std::memcpy(bytes.data(), pdu, size);
    if (layout.header_digest) {
      const uint32_t digest = header_digest(pdu, size) ^ spoil_header_digest;
      std::memcpy(bytes.data() + size, &digest, 4);
    }
    if (length > 0) std::memcpy(bytes.data() + layout.data_offset, data, length);
    if (layout.data_digest) {
      const iovec part{const_cast<uint8_t*>(data), length};
      const uint32_t digest = data_digest(&part, 1) ^ spoil_data_digest;
      std::memcpy(bytes.data() + layout.length - 4, &digest, 4);
    }
    raw(bytes.data(), bytes.size());
  }
  void raw(const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    out_.insert(out_.end(), bytes, bytes + size);
  }
  void flush() {
    while (!out_.empty()) {
      const iovec part{out_.data(), out_.size()};
      const ssize_t sent = socket_->sendv(&part, 1);
      if (sent <= 0) return;
      out_.erase(out_.begin(), out_.begin() + sent);
    }
  }
  void transfer_read(const Sqe& sqe, const uint8_t* data, uint32_t length) {
    for (uint32_t at = 0; at < length;) {
      const uint32_t piece = std::min(peer_.options.c2h_bytes, length - at);
      const bool last = at + piece == length;
      send_data(sqe.cid, data + at, piece, at, last, last && peer_.options.success_flag);
      at += piece;
    }
    if (!peer_.options.success_flag) answer(sqe.cid, io_status::kOk);
  }
  uint32_t spoil_header_digest = 0, spoil_data_digest = 0;
  uint16_t queue_id = 0;

 private:
  struct Write {
    Sqe sqe;
    std::vector<uint8_t> data;
    uint32_t asked = 0;
  };

  bool take_pdu() {
    if (in_.size() < sizeof(PduHeader)) return false;
    PduHeader header;
    std::memcpy(&header, in_.data(), sizeof(header));
    if (in_.size() < header.length) return false;
    std::vector<uint8_t> pdu(in_.begin(), in_.begin() + header.length);
    in_.erase(in_.begin(), in_.begin() + header.length);
    if (header.type == kPduIcReq) {
      IcReqPdu request;
      std::memcpy(&request, pdu.data(), sizeof(request));
      if (peer_.options.digests_ignored) request.digests = 0;
      IcRespPdu response = make_ic_response(request, peer_.options.max_h2c_data);
      response.controller_alignment = peer_.options.controller_alignment;
      to_host_.header_digest = (request.digests & 1) != 0;
      to_host_.data_digest = (request.digests & 2) != 0;
      to_controller_ = to_host_;
      to_controller_.alignment = alignment_of(peer_.options.controller_alignment);
      raw(&response, sizeof(response));
      return true;
    }
    PduLayout layout;
    const auto fault =
        check_header(header, PduDirection::kToController, to_controller_, 1 << 24, &layout);
    CHECK(!fault.has_value());
    if (layout.header_digest) {
      uint32_t wire = 0;
      std::memcpy(&wire, pdu.data() + layout.header_length, 4);
      CHECK(wire == header_digest(pdu.data(), layout.header_length));
    }
    const uint8_t* data = pdu.data() + layout.data_offset;
    if (layout.data_digest) {
      uint32_t wire = 0;
      std::memcpy(&wire, pdu.data() + layout.length - 4, 4);
      const iovec part{const_cast<uint8_t*>(data), layout.data_length};
      CHECK(wire == data_digest(&part, 1));
    }
    if (header.type == kPduCapsuleCmd) {
      CapsuleCmdPdu capsule;
      std::memcpy(&capsule, pdu.data(), sizeof(capsule));
      command(capsule.sqe, data, layout.data_length);
    } else if (header.type == kPduH2cData) {
      DataPdu piece;
      std::memcpy(&piece, pdu.data(), sizeof(piece));
      ++peer_.seen.h2c_pdus;
      Write& write = writes_.at(piece.cid);
      CHECK(piece.length == layout.data_length && piece.length <= peer_.options.max_h2c_data);
      CHECK(piece.offset == write.data.size());
      write.data.insert(write.data.end(), data, data + piece.length);
      if ((header.flags & kPduLast) != 0) {
        CHECK(write.data.size() == write.asked);
        next_r2t(piece.cid);
      }
    }
    return true;
  }

  void next_r2t(uint16_t cid) {
    Write& write = writes_.at(cid);
    if (write.data.size() == write.sqe.sgl.length) {
      const Write done = std::move(write);
      writes_.erase(cid);
      io(done.sqe, done.data.data(), static_cast<uint32_t>(done.data.size()));
      return;
    }
    const auto at = static_cast<uint32_t>(write.data.size());
    const uint32_t length = std::min(peer_.options.r2t_bytes, write.sqe.sgl.length - at);
    write.asked = at + length;
    send_r2t(cid, static_cast<uint16_t>(cid ^ 0x5555), at, length);
  }

  void command(const Sqe& sqe, const uint8_t* data, uint32_t length) {
    ++peer_.seen.commands;
    if (sqe.opcode == kOpcodeFabrics) return fabrics(sqe, data, length);
    if (queue_id == 0) return admin(sqe);
    peer_.commands.push_back(sqe);
    if (peer_.on_command && peer_.on_command(*this, sqe)) return;
    if (peer_.silent_opcodes.contains(sqe.opcode)) return;
    const bool writes =
        sqe.opcode == kIoWrite || sqe.opcode == kIoCompare || sqe.opcode == kIoDatasetManagement;
    if (writes && length == 0) {
      CHECK(sqe.sgl.type == kSglTransport);
      writes_[sqe.cid] = Write{sqe, {}, 0};
      return next_r2t(sqe.cid);
    }
    if (writes) {
      CHECK(sqe.sgl.type == kSglInCapsule && length == sqe.sgl.length);
      CHECK(length <= peer_.options.in_capsule_bytes);
      ++peer_.seen.in_capsule_writes;
    }
    io(sqe, data, length);
  }

  void io(const Sqe& sqe, const uint8_t* data, uint32_t length) {
    if (auto found = peer_.fail_opcodes.find(sqe.opcode); found != peer_.fail_opcodes.end()) {
      return answer(sqe.cid, found->second);
    }
    const size_t at = static_cast<size_t>(sqe.slba()) << peer_.options.block_shift;
    const size_t bytes = static_cast<size_t>((sqe.cdw12 & kCdw12NlbMask) + 1)
                         << peer_.options.block_shift;
    uint8_t* place = peer_.memory.data() + at;
    switch (sqe.opcode) {
      case kIoRead:
        CHECK(at + bytes <= peer_.memory.size() && sqe.sgl.length == bytes);
        return transfer_read(sqe, place, static_cast<uint32_t>(bytes));
      case kIoWrite:
        CHECK(at + bytes <= peer_.memory.size() && length == bytes);
        std::memcpy(place, data, length);
        return answer(sqe.cid, io_status::kOk);
      case kIoCompare:
        return answer(sqe.cid, std::memcmp(place, data, length) == 0 ? io_status::kOk
                                                                     : io_status::kCompareFailure);
      case kIoWriteZeroes:
        std::memset(place, 0, bytes);
        return answer(sqe.cid, io_status::kOk);
      case kIoDatasetManagement: {
        DsmRange range;
        CHECK(length == sizeof(range));
        std::memcpy(&range, data, sizeof(range));
        std::memset(peer_.memory.data() + (range.slba << peer_.options.block_shift), 0,
                    static_cast<size_t>(range.block_count) << peer_.options.block_shift);
        return answer(sqe.cid, io_status::kOk);
      }
      case kIoFlush:
        return answer(sqe.cid, io_status::kOk);
      default:
        return answer(sqe.cid, io_status::kInvalidOpcode);
    }
  }

  void fabrics(const Sqe& sqe, const uint8_t* data, uint32_t length) {
    if (sqe.fctype == kFabricsConnect) {
      ConnectSqe connect;
      std::memcpy(&connect, &sqe, sizeof(connect));
      CHECK(length == sizeof(ConnectData));
      ConnectData connect_data;
      std::memcpy(&connect_data, data, sizeof(connect_data));
      if (connect_data.subnqn != peer_.options.nqn) {
        return answer(sqe.cid, status::kConnectInvalidParameters, 256 | 1 << 16);
      }
      queue_id = connect.qid;
      return answer(sqe.cid, io_status::kOk, 7);
    }
    PropertySqe property;
    std::memcpy(&property, &sqe, sizeof(property));
    if (sqe.fctype == kFabricsPropertySet) return answer(sqe.cid, io_status::kOk);
    if (property.offset == kPropertyCap) {
      return answer(sqe.cid, io_status::kOk,
                    static_cast<uint32_t>(peer_.options.entries - 1) | 1 << 16 | 30U << 24, 1 << 5);
    }
    answer(sqe.cid, io_status::kOk, property.offset == kPropertyCsts ? kCstsReady : kVersion14);
  }

  void admin(const Sqe& sqe) {
    switch (sqe.opcode) {
      case kAdminIdentify:
        return identify(sqe);
      case kAdminSetFeatures: {
        const uint32_t granted = peer_.options.queues - 1U;
        return answer(sqe.cid, io_status::kOk, granted << 16 | granted);
      }
      case kAdminKeepAlive:
        ++peer_.seen.keep_alives;
        if (!peer_.keep_alive_silent) answer(sqe.cid, io_status::kOk);
        return;
      case kAdminAsyncEvent:
        peer_.event_cid = sqe.cid;
        peer_.event_link = this;
        return;
      case kAdminGetLogPage: {
        const std::vector<uint8_t> page(sqe.sgl.length);
        return transfer_read(sqe, page.data(), sqe.sgl.length);
      }
      default:
        return answer(sqe.cid, io_status::kInvalidOpcode);
    }
  }

  void identify(const Sqe& sqe) {
    std::vector<uint8_t> page(4096);
    if (sqe.cdw10 == kCnsController) {
      IdentifyController controller{};
      controller.mdts = peer_.options.mdts;
      controller.cntlid = 7;
      controller.oaes = kOaesNamespaceAttribute;
      controller.kas = 100;
      controller.maxcmd = peer_.options.entries;
      controller.oncs =
          kOncsCompare | kOncsDatasetManagement | kOncsWriteZeroes | kOncsReservations;
      controller.vwc = 1;
      controller.sgls = 1;
      controller.ioccsz = (64 + peer_.options.in_capsule_bytes) / 16;
      controller.iorcsz = 1;
      std::memcpy(page.data(), &controller, sizeof(controller));
    } else if (sqe.cdw10 == kCnsActiveNamespaces) {
      page[0] = 1;
    } else if (sqe.cdw10 == kCnsNamespaceDescriptors) {
      page[0] = kNidUuid;
      page[1] = 16;
      std::memcpy(page.data() + 4, peer_.options.uuid.bytes.data(), 16);
    } else {
      IdentifyNamespace space{};
      space.nsze = space.ncap = space.nuse = peer_.options.blocks;
      space.lbaf[0].data_size_log2 = static_cast<uint8_t>(peer_.options.block_shift);
      std::memcpy(page.data(), &space, sizeof(space));
    }
    transfer_read(sqe, page.data(), 4096);
  }

  ScriptedPeer& peer_;
  std::unique_ptr<Socket> socket_;
  std::vector<uint8_t> in_, out_;
  std::map<uint16_t, Write> writes_;
  PduFormat to_host_, to_controller_;
};

inline void ScriptedPeer::on_accept(std::unique_ptr<Socket> socket) {
  ++seen.connections;
  links.push_back(std::make_unique<Link>(*this, std::move(socket)));
}

}  // namespace mayastor::nvmf::test

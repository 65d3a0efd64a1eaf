// What a queue says and hears: PDUs out of commands, and back.
// Invariants: bytes on the send list stay valid until sent_total_ has passed them; a command with
// bytes there is on the list send_first_..send_last_, in stream order. The receive buffer holds at
// most one incomplete header; payload never waits in it.
#include <cerrno>
#include <cstring>

#include "nvmf/initiator_queue.h"

namespace mayastor::nvmf {

namespace {
constexpr uint32_t kMaxPduBytes = 64U << 20;  // far above any transfer we ask for
constexpr uint32_t kDirectBytes = 4096;       // rest of a payload worth its own scatter receive
constexpr uint32_t kLargePayload = 32768;
constexpr uint32_t kSmallGulp = 4096;
constexpr int kMaxParts = 512;

// Calls use(pointer, length) for each contiguous piece of [skip, skip + length) of the buffers.
template <typename Use>
void for_pieces(const iovec* iov, uint32_t count, uint64_t skip, uint64_t length, Use use) {
  for (uint32_t i = 0; i < count && length > 0; ++i) {
    if (skip >= iov[i].iov_len) {
      skip -= iov[i].iov_len;
      continue;
    }
    const uint64_t here = std::min<uint64_t>(iov[i].iov_len - skip, length);
    use(static_cast<uint8_t*>(iov[i].iov_base) + skip, static_cast<size_t>(here));
    length -= here;
    skip = 0;
  }
  CHECK(length == 0);
}
}  // namespace

void InitiatorQueue::send_icreq() {
  const IcReqPdu request = make_ic_request(options_.header_digest, options_.data_digest);
  static_assert(sizeof(request) == sizeof(icreq_));
  std::memcpy(icreq_.data(), &request, sizeof(request));
  append(icreq_.data(), icreq_.size());
  flush();
}

void InitiatorQueue::append(const void* data, size_t length) {
  out_.push_back(iovec{const_cast<void*>(data), length});  // sendv only reads it
  out_total_ += length;
}

void InitiatorQueue::append_data(Command& command, uint32_t offset, uint32_t length) {
  DataDigest digest;
  for_pieces(command.iov, command.iov_count, command.iov_offset + offset, length,
             [&](const uint8_t* data, size_t size) {
               append(data, size);
               if (send_format_.data_digest) digest.update(data, size);
             });
  if (!send_format_.data_digest) return;
  const uint32_t value = digest.value();
  std::memcpy(command.data_digest.data(), &value, sizeof(value));
  append(command.data_digest.data(), kDigestSize);
}

void InitiatorQueue::put_in_send(Command& command) noexcept {
  command.in_send = true;
  command.send_end = out_total_;
  command.next = nullptr;
  (send_last_ != nullptr ? send_last_->next : send_first_) = &command;
  send_last_ = &command;
}

namespace {
// Header, its digest and the padding up to the data, in `header`. Returns the bytes to send.
uint32_t seal_header(std::array<uint8_t, 128>& header, const PduLayout& layout) noexcept {
  const uint32_t end = layout.data_offset > 0 ? layout.data_offset : layout.length;
  CHECK(end <= header.size());
  std::memset(header.data() + layout.header_length, 0, end - layout.header_length);
  if (layout.header_digest) {
    const uint32_t digest = header_digest(header.data(), layout.header_length);
    std::memcpy(header.data() + layout.header_length, &digest, sizeof(digest));
  }
  return end;
}
}  // namespace

void InitiatorQueue::append_capsule(Command& command) {
  const bool in_capsule = command.direction == DataDirection::kToController && command.length > 0 &&
                          command.length <= in_capsule_bytes_;
  const uint32_t data_length = in_capsule ? command.length : 0;
  command.sqe.flags = static_cast<uint8_t>(command.sqe.flags | kPsdtSgl);
  command.sqe.sgl.address = 0;
  command.sqe.sgl.length = command.length;
  command.sqe.sgl.type = in_capsule ? kSglInCapsule : kSglTransport;
  const PduLayout layout = layout_for(kPduCapsuleCmd, data_length, send_format_);
  CapsuleCmdPdu pdu;
  encode_header(pdu.header, kPduCapsuleCmd, 0, layout);
  pdu.sqe = command.sqe;
  std::memcpy(command.header.data(), &pdu, sizeof(pdu));
  append(command.header.data(), seal_header(command.header, layout));
  if (in_capsule) {
    append_data(command, 0, data_length);
    command.h2c_next = command.h2c_end = data_length;
  }
  put_in_send(command);
}

void InitiatorQueue::append_h2c_data(Command& command) {
  const uint32_t length = std::min(command.h2c_end - command.h2c_next, max_h2c_data_);
  const bool last = command.h2c_next + length == command.h2c_end;
  const PduLayout layout = layout_for(kPduH2cData, length, send_format_);
  DataPdu pdu{};
  encode_header(pdu.header, kPduH2cData, last ? kPduLast : 0, layout);
  pdu.cid = command.sqe.cid;
  pdu.transfer_tag = command.h2c_tag;
  pdu.offset = command.h2c_next;
  pdu.length = length;
  std::memcpy(command.header.data(), &pdu, sizeof(pdu));
  append(command.header.data(), seal_header(command.header, layout));
  append_data(command, command.h2c_next, length);
  command.h2c_next += length;
  put_in_send(command);
}

void InitiatorQueue::on_turn_end() {
  if (state_ == State::kClosed || blocked_) return;
  auto self = shared_from_this();
  flush();
}

void InitiatorQueue::on_writable() {
  if (state_ == State::kClosed) return;
  auto self = shared_from_this();
  blocked_ = false;
  flush();
}

void InitiatorQueue::flush() {
  while (out_head_ < out_.size()) {
    const int count = static_cast<int>(std::min<size_t>(out_.size() - out_head_, kMaxParts));
    size_t offered = 0;
    for (int i = 0; i < count; ++i) offered += out_[out_head_ + static_cast<size_t>(i)].iov_len;
    const ssize_t sent = socket_->sendv(out_.data() + out_head_, count);
    if (sent == -EAGAIN || sent == -EINTR) {
      blocked_ = true;
      return;
    }
    if (sent < 0) {
      // What the peer said last may explain it and may complete commands; the receive side finds
      // the end of the stream by itself, at the latest after it.
      lose(std::strerror(static_cast<int>(-sent)));
      return;
    }
    size_t left = static_cast<size_t>(sent);
    sent_total_ += left;
    while (left > 0) {
      iovec& part = out_[out_head_];
      if (left < part.iov_len) {
        part.iov_base = static_cast<uint8_t*>(part.iov_base) + left;
        part.iov_len -= left;
        break;
      }
      left -= part.iov_len;
      ++out_head_;
    }
    if (out_head_ == out_.size()) {
      out_.clear();
      out_head_ = 0;
    } else if (out_head_ > 4096) {
      out_.erase(out_.begin(), out_.begin() + static_cast<ptrdiff_t>(out_head_));
      out_head_ = 0;
    }
    settle_sent();
    if (state_ == State::kClosed) return;
    if (static_cast<size_t>(sent) < offered) {
      blocked_ = true;
      return;
    }
  }
}

void InitiatorQueue::settle_sent() {
  while (send_first_ != nullptr && send_first_->send_end <= sent_total_) {
    Command& command = *send_first_;
    send_first_ = command.next;
    if (send_first_ == nullptr) send_last_ = nullptr;
    command.in_send = false;
    if (command.answered) {
      complete(command);
      if (state_ == State::kClosed) return;
    } else if (command.h2c_next < command.h2c_end) {
      append_h2c_data(command);
    }
  }
}

bool InitiatorQueue::on_readable() {
  if (state_ == State::kClosed) return false;
  auto self = shared_from_this();
  const ssize_t received = receive();
  if (received == -EAGAIN || received == -EINTR) return false;
  if (received == 0) {
    lose("the target closed the connection");
    return false;
  }
  if (received < 0) {
    lose(std::strerror(static_cast<int>(-received)));
    return false;
  }
  return parse();
}

// One receive: into the payload's own place if a good part of one is outstanding, and whatever
// follows into the receive buffer.
ssize_t InitiatorQueue::receive() {
  if (payload_ != nullptr && payload_left_ >= kDirectBytes && rx_begin_ == rx_end_) {
    rx_begin_ = rx_end_ = 0;
    iovec parts[17];
    int count = 0;
    uint32_t direct = 0;
    for_pieces(payload_->iov, payload_->iov_count, payload_->iov_offset + payload_->received,
               payload_left_, [&](uint8_t* data, size_t size) {
                 if (count == 16) return;
                 parts[count++] = iovec{data, size};
                 direct += static_cast<uint32_t>(size);
               });
    if (direct == payload_left_) parts[count++] = iovec{rx_.get(), kSmallGulp};
    const ssize_t received = socket_->recvv(parts, count);
    if (received <= 0) return received;
    const uint32_t taken = std::min(static_cast<uint32_t>(received), direct);
    if (receive_format_.data_digest) {
      for_pieces(payload_->iov, payload_->iov_count, payload_->iov_offset + payload_->received,
                 taken,
                 [&](const uint8_t* data, size_t size) { payload_digest_.update(data, size); });
    }
    payload_->received += taken;
    payload_left_ -= taken;
    rx_end_ = static_cast<uint32_t>(received) - taken;
    return received;
  }
  // Large payloads: take little more than headers here, the rest goes where it belongs.
  uint32_t room = kReceiveBytes - rx_end_;
  if (typical_payload_ >= kLargePayload) room = std::min(room, kSmallGulp);
  const ssize_t received = socket_->recv(rx_.get() + rx_end_, room);
  if (received > 0) rx_end_ += static_cast<uint32_t>(received);
  return received;
}

void InitiatorQueue::take_payload(const uint8_t* data, uint32_t length) {
  if (receive_format_.data_digest) payload_digest_.update(data, length);
  for_pieces(payload_->iov, payload_->iov_count, payload_->iov_offset + payload_->received, length,
             [&](uint8_t* to, size_t size) {
               std::memcpy(to, data, size);
               data += size;
             });
  payload_->received += length;
  payload_left_ -= length;
}

bool InitiatorQueue::parse() {
  while (true) {
    const uint32_t available = rx_end_ - rx_begin_;
    const uint8_t* at = rx_.get() + rx_begin_;
    if (payload_ != nullptr) {
      if (payload_left_ > 0) {
        const uint32_t take = std::min(available, payload_left_);
        take_payload(at, take);
        rx_begin_ += take;
        if (payload_left_ > 0) break;
        continue;
      }
      if (payload_digest_due_) {
        if (available < kDigestSize) break;
        uint32_t wire = 0;
        std::memcpy(&wire, at, sizeof(wire));
        if (wire != payload_digest_.value()) payload_->bad_digest = true;
        rx_begin_ += kDigestSize;
        payload_digest_due_ = false;
      }
      if (!end_c2h_data()) return false;
      continue;
    }
    if (available < sizeof(PduHeader)) break;
    PduHeader header;
    std::memcpy(&header, at, sizeof(header));
    PduLayout layout;
    if (auto fault =
            check_header(header, PduDirection::kToHost, receive_format_, kMaxPduBytes, &layout)) {
      return protocol_error(describe_pdu_error(fault->error));
    }
    const uint32_t needed =
        header.type == kPduC2hData && layout.data_offset > 0 ? layout.data_offset : layout.length;
    if (needed > kReceiveBytes) return protocol_error("oversized PDU");
    if (available < needed) break;
    if (layout.header_digest) {
      uint32_t wire = 0;
      std::memcpy(&wire, at + layout.header_length, sizeof(wire));
      if (wire != header_digest(at, layout.header_length)) {
        return protocol_error("header digest mismatch");
      }
    }
    rx_begin_ += needed;
    if (!handle_pdu(at, layout)) return false;
  }
  if (rx_begin_ == rx_end_) {
    rx_begin_ = rx_end_ = 0;
  } else if (rx_begin_ > 0) {  // less than one header
    std::memmove(rx_.get(), rx_.get() + rx_begin_, rx_end_ - rx_begin_);
    rx_end_ -= rx_begin_;
    rx_begin_ = 0;
  }
  return true;
}

bool InitiatorQueue::handle_pdu(const uint8_t* pdu, const PduLayout& layout) {
  PduHeader header;
  std::memcpy(&header, pdu, sizeof(header));
  if (header.type == kPduC2hTermReq) {
    TermReqPdu request;
    std::memcpy(&request, pdu, sizeof(request));
    lose(std::string("the target ended the connection: ") + describe_pdu_error(request.error));
    return false;
  }
  if (state_ == State::kHandshake) {
    if (header.type != kPduIcResp) return protocol_error("expected ICResp");
    return handle_icresp(pdu);
  }
  switch (header.type) {
    case kPduCapsuleResp: {
      CapsuleRespPdu response;
      std::memcpy(&response, pdu, sizeof(response));
      return handle_response(response.cqe);
    }
    case kPduC2hData:
      return begin_c2h_data(pdu, layout);
    case kPduR2t:
      return handle_r2t(pdu);
    default:
      return protocol_error("PDU out of sequence");
  }
}

bool InitiatorQueue::handle_icresp(const uint8_t* pdu) {
  IcRespPdu response;
  std::memcpy(&response, pdu, sizeof(response));
  if (response.version != 0) return protocol_error("unknown PDU format version");
  const bool header_digest = (response.digests & 1) != 0;
  const bool data_digest = (response.digests & 2) != 0;
  if (header_digest != options_.header_digest || data_digest != options_.data_digest) {
    return protocol_error("digests were not accepted as asked for");
  }
  if (response.controller_alignment > 31) return protocol_error("invalid data alignment");
  if (response.max_h2c_data < 4096 || response.max_h2c_data % 4 != 0) {
    return protocol_error("invalid MAXH2CDATA");
  }
  send_format_ = PduFormat{header_digest, data_digest, alignment_of(response.controller_alignment)};
  receive_format_ = PduFormat{header_digest, data_digest, 4};
  max_h2c_data_ = response.max_h2c_data;
  state_ = State::kReady;
  if (auto* connected = std::exchange(connected_, nullptr)) connected->set(true);
  return state_ != State::kClosed;
}

bool InitiatorQueue::handle_response(const Cqe& cqe) {
  Command* command = find(cqe.cid);
  if (command == nullptr) return protocol_error("answer to an unknown command");
  Answer answer{decode_status(cqe.status), cqe.dw0, cqe.dw1};
  if (answer.status.ok()) {
    if (command->bad_digest) {
      answer.status = io_status::kTransientTransport;
    } else if (command->direction == DataDirection::kToHost && command->exact &&
               command->received != command->length) {
      answer.status = io_status::kDataTransferError;
    } else if (command->direction == DataDirection::kToController &&
               command->h2c_next != command->length) {
      answer.status = io_status::kDataTransferError;  // it never fetched the data
    }
  }
  finish(*command, answer);
  return state_ != State::kClosed;
}

bool InitiatorQueue::handle_r2t(const uint8_t* pdu) {
  R2tPdu r2t;
  std::memcpy(&r2t, pdu, sizeof(r2t));
  Command* command = find(r2t.cid);
  if (command == nullptr) return protocol_error("R2T for an unknown command");
  if (command->direction != DataDirection::kToController || command->answered) {
    return protocol_error("R2T for a command without data to send");
  }
  if (command->in_send || command->h2c_next != command->h2c_end) {
    return protocol_error("R2T beyond the negotiated limit");
  }
  if (r2t.length == 0 || r2t.offset != command->h2c_next ||
      r2t.length > command->length - command->h2c_next) {
    return protocol_error("R2T outside the command's data");
  }
  command->h2c_tag = r2t.transfer_tag;
  command->h2c_end = r2t.offset + r2t.length;
  append_h2c_data(*command);
  if (!blocked_) Reactor::current().request_turn_end(this);
  return true;
}

bool InitiatorQueue::begin_c2h_data(const uint8_t* pdu, const PduLayout& layout) {
  DataPdu data;
  std::memcpy(&data, pdu, sizeof(data));
  Command* command = find(data.cid);
  if (command == nullptr) return protocol_error("data for an unknown command");
  if (command->direction != DataDirection::kToHost || command->answered) {
    return protocol_error("data for a command that reads none");
  }
  if (data.length != layout.data_length) return protocol_error("data length mismatch");
  if (data.offset != command->received || data.length > command->length - command->received) {
    return protocol_error("data out of order or out of range");
  }
  const bool last = (data.header.flags & kPduLast) != 0;
  if ((data.header.flags & kPduSuccess) != 0 && !last) {
    return protocol_error("SUCCESS without LAST_PDU");
  }
  payload_ = command;
  payload_left_ = data.length;
  payload_flags_ = data.header.flags;
  payload_digest_due_ = layout.data_digest;
  payload_digest_ = DataDigest();
  typical_payload_ = data.length;
  return true;
}

bool InitiatorQueue::end_c2h_data() {
  Command& command = *payload_;
  payload_ = nullptr;
  if ((payload_flags_ & kPduSuccess) == 0) return true;
  Answer answer;
  if (command.bad_digest) {
    answer.status = io_status::kTransientTransport;
  } else if (command.exact && command.received != command.length) {
    answer.status = io_status::kDataTransferError;
  }
  finish(command, answer);
  return state_ != State::kClosed;
}

bool InitiatorQueue::protocol_error(const std::string& what) {
  if (out_head_ == out_.size()) {  // between PDUs: say so; that it arrives is not needed
    const PduFault fault{kPduErrorSequence, 0};
    uint8_t request[kTermReqMaxSize];
    const uint32_t length = encode_term_request(kPduH2cTermReq, fault, nullptr, 0, request);
    const iovec part{request, length};
    [[maybe_unused]] const ssize_t ignored = socket_->sendv(&part, 1);
  }
  lose("the target broke the protocol: " + what);
  return false;
}

}  // namespace mayastor::nvmf

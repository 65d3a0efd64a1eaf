// The sending half of a connection: answers -> PDUs -> one gathered send a turn.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "nvmf/connection.h"
#include "util/check.h"

namespace mayastor::nvmf::target {
namespace {

Request& request_of(OutPdu* pdu) noexcept {
  return *static_cast<Request*>(pdu->context);
}

// Common header and digest of a header-only PDU built in `out`; returns its length.
template <typename Pdu>
uint32_t seal(Pdu& pdu, uint8_t type, uint8_t flags, const PduFormat& format,
              uint8_t* out) noexcept {
  const PduLayout layout = layout_for(type, 0, format);
  encode_header(pdu.header, type, flags, layout);
  std::memcpy(out, &pdu, sizeof(pdu));
  if (layout.header_digest) {
    const uint32_t digest = header_digest(out, sizeof(pdu));
    std::memcpy(out + sizeof(pdu), &digest, sizeof(digest));
  }
  return layout.length;
}

}  // namespace

uint32_t Connection::encode_response(const Cqe& cqe, uint8_t* out) const noexcept {
  CapsuleRespPdu pdu{};
  pdu.cqe = cqe;
  return seal(pdu, kPduCapsuleResp, 0, out_format_, out);
}

void Connection::complete(Request& request, IoStatus status, uint32_t dw0, uint32_t dw1) noexcept {
  CHECK(request.state == RequestState::kExecuting && executing_ > 0);
  --executing_;
  if (closing()) {
    release_request(request);
    maybe_finish_close();
    return;
  }
  request.state = RequestState::kSending;
  OutPdu& out = request.out;
  out.first = out.count = 0;
  bool success_implied = false;
  if (request.transfer == Transfer::kToHost && status.ok() && request.length > 0) {
    const PduLayout layout = layout_for(kPduC2hData, request.length, out_format_);
    // The flag replaces the completion, so that nothing but plain success can be said by it.
    success_implied = options_.c2h_success && !flow_control_ && dw0 == 0 && dw1 == 0;
    DataPdu pdu{};
    pdu.cid = request.sqe.cid;
    pdu.length = request.length;
    encode_header(pdu.header, kPduC2hData,
                  static_cast<uint8_t>(kPduLast | (success_implied ? kPduSuccess : 0)), layout);
    std::memcpy(request.header, &pdu, sizeof(pdu));
    if (layout.header_digest) {
      const uint32_t digest = header_digest(request.header, sizeof(pdu));
      std::memcpy(request.header + sizeof(pdu), &digest, sizeof(digest));
    }
    out.parts[out.count++] = {request.header, layout.data_offset};
    out.parts[out.count++] = {request.buffer, request.length};
    if (layout.data_digest) {
      const iovec data{request.buffer, request.length};
      request.digest = data_digest(&data, 1);
      out.parts[out.count++] = {&request.digest, kDigestSize};
    }
  } else if (request.buffer != nullptr) {
    drop_buffer(request);
    if (waiting_ != nullptr && !buffer_timer_.armed()) buffer_timer_.arm_after(0);
  }
  if (!success_implied) {
    Cqe cqe{};
    cqe.dw0 = dw0;
    cqe.dw1 = dw1;
    cqe.sqhd = flow_control_ ? sqhd_ : uint16_t{0};
    cqe.sqid = qid_;
    cqe.cid = request.sqe.cid;
    cqe.status = encode_status(status);
    out.parts[out.count++] = {request.response, encode_response(cqe, request.response)};
  }
  out.sent = [](OutPdu* pdu) noexcept {
    Request& done = request_of(pdu);
    done.connection->release_request(done);
  };
  queue(out);
}

void Connection::send_r2t(Request& request) noexcept {
  request.state = RequestState::kReceiving;
  request.r2t_pending = true;
  request.watched = 0;
  watch();
  R2tPdu pdu{};
  pdu.cid = request.sqe.cid;
  pdu.transfer_tag = static_cast<uint16_t>(request.index + 1U);
  pdu.length = request.length;
  OutPdu& out = request.out;
  out.first = 0;
  out.count = 1;
  out.parts[0] = {request.header, seal(pdu, kPduR2t, 0, out_format_, request.header)};
  out.sent = [](OutPdu* sent) noexcept { request_of(sent).r2t_pending = false; };
  queue(out);
}

void Connection::send_control(uint32_t length) noexcept {
  CHECK(!control_busy_);
  control_busy_ = true;
  control_out_.context = this;
  control_out_.first = 0;
  control_out_.count = 1;
  control_out_.parts[0] = {control_, length};
  control_out_.sent = [](OutPdu* pdu) noexcept {
    static_cast<Connection*>(pdu->context)->control_busy_ = false;
  };
  queue(control_out_);
}

void Connection::send_connect_response(const Cqe& cqe) noexcept {
  send_control(encode_response(cqe, control_));
}

void Connection::queue(OutPdu& pdu) noexcept {
  pdu.next = nullptr;
  *out_end_ = &pdu;
  out_end_ = &pdu.next;
  if (!send_blocked_) reactor_->request_turn_end(this);
}

void Connection::on_turn_end() {
  const auto self = shared_from_this();
  if (!send_blocked_) flush();
}

void Connection::on_writable() {
  const auto self = shared_from_this();
  send_blocked_ = false;
  flush();
}

void Connection::flush() noexcept {
  while (out_ != nullptr && socket_) {
    iovec parts[kMaxSendParts];
    uint32_t count = 0;
    size_t bytes = 0;
    for (OutPdu* pdu = out_; pdu != nullptr; pdu = pdu->next) {
      const uint32_t left = pdu->count - pdu->first;
      if (count + left > kMaxSendParts) break;
      for (uint32_t i = 0; i < left; ++i) {
        parts[count] = pdu->parts[pdu->first + i];
        bytes += parts[count++].iov_len;
      }
    }
    const ssize_t result = socket_->sendv(parts, static_cast<int>(count));
    if (result < 0 && result != -EAGAIN) return close("the connection was lost");
    size_t sent = result < 0 ? 0 : static_cast<size_t>(result);
    const bool partial = sent < bytes;
    bytes_out_ += sent;
    while (sent > 0) {
      OutPdu& pdu = *out_;
      iovec& part = pdu.parts[pdu.first];
      const size_t taken = std::min(sent, part.iov_len);
      sent -= taken;
      part.iov_base = static_cast<uint8_t*>(part.iov_base) + taken;
      part.iov_len -= taken;
      if (part.iov_len > 0) break;
      if (++pdu.first < pdu.count) continue;
      out_ = pdu.next;
      if (out_ == nullptr) out_end_ = &out_;
      ++pdus_out_;
      pdu.sent(&pdu);
    }
    if (partial) {
      send_blocked_ = true;
      watch();
      break;
    }
  }
  after_flush();
}

// Sent answers gave requests and buffers back: go on with what waited for them.
void Connection::after_flush() noexcept {
  if (state_ != State::kRunning) return;
  if (waiting_ != nullptr) retry_waiting();
  if (input_blocked_ && free_ != nullptr) {
    input_blocked_ = false;
    drain_input();
  }
}

}  // namespace mayastor::nvmf::target

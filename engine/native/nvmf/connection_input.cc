// The receiving half of a connection: bytes -> PDUs -> commands and data.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "nvmf/connection.h"
#include "util/check.h"

namespace mayastor::nvmf::target {
namespace {

// Where bytes arrive: the reactor's scratch or, in the rare case that it is lent already, memory of
// its own.
class InputLoan final {
 public:
  explicit InputLoan(Reactor& reactor)
      : reactor_(reactor),
        scratch_(reactor.borrow_scratch()),
        own_(scratch_ == nullptr ? size() : 0) {}
  ~InputLoan() {
    if (scratch_ != nullptr) reactor_.return_scratch();
  }
  InputLoan(const InputLoan&) = delete;
  InputLoan& operator=(const InputLoan&) = delete;
  [[nodiscard]] uint8_t* data() noexcept { return scratch_ != nullptr ? scratch_ : own_.data(); }
  [[nodiscard]] static constexpr size_t size() noexcept { return Reactor::kScratchBytes; }

 private:
  Reactor& reactor_;
  uint8_t* const scratch_;
  std::vector<uint8_t> own_;
};

}  // namespace

bool Connection::on_readable() {
  const auto self = shared_from_this();  // handlers below may close and drop this
  return receive();
}

void Connection::on_peer_left() {
  const auto self = shared_from_this();
  close("the host closed the connection");
}

// Reading had stopped, and the socket only tells of new data: take what has arrived meanwhile.
void Connection::drain_input() noexcept {
  if (processing_) return;  // further up the stack it goes on by itself
  if (socket_) socket_->pause_reading(false);
  process_input();
  while (receive()) {
  }
}

bool Connection::receive() {
  if (!socket_ || state_ == State::kClosed) return false;
  if (state_ == State::kConnecting || input_blocked_) {
    socket_->pause_reading(
        true);  // until drain_input(); a host that leaves is noticed all the same
    return false;
  }
  InputLoan loan(*reactor_);
  if (state_ == State::kTerminating) {
    const ssize_t dropped = socket_->recv(loan.data(), loan.size());
    if (dropped == -EAGAIN) return false;
    if (dropped <= 0) close(close_reason_);
    return dropped > 0;
  }
  ssize_t got = 0;
  size_t direct = 0;
  const size_t kept = end_ - begin_;
  CHECK(kept < loan.size());
  if (sink_remaining_ > 0) {  // the input holds nothing but what follows the payload
    CHECK(kept == 0);
    const iovec parts[2] = {{sink_->buffer + sink_->received, sink_remaining_},
                            {loan.data(), loan.size()}};
    got = socket_->recvv(parts, 2);
    if (got > 0) direct = std::min<size_t>(static_cast<size_t>(got), sink_remaining_);
  } else {
    got = socket_->recv(loan.data() + kept, loan.size() - kept);
  }
  if (got == -EAGAIN) return false;
  if (got <= 0) {
    close(got == 0 ? "the host closed the connection" : "the connection was lost");
    return false;
  }
  if (direct > 0) {
    sink_->received += static_cast<uint32_t>(direct);
    sink_remaining_ -= static_cast<uint32_t>(direct);
  }
  if (kept > 0) std::memcpy(loan.data(), input_ + begin_, kept);
  bytes_in_ += static_cast<size_t>(got);
  input_ = loan.data();
  begin_ = 0;
  end_ = kept + static_cast<size_t>(got) - direct;
  process_input();
  keep_rest();
  return socket_ != nullptr && !input_blocked_ && state_ != State::kConnecting;
}

// Part of a PDU, or what a blocked connection has read too much: out of the scratch. A host that
// has its share of such memory lying about already is one that others are to be protected from.
void Connection::keep_rest() noexcept {
  const size_t left = end_ - begin_;
  const uint8_t* const from = input_ + begin_;
  input_ = rest_.get();
  begin_ = end_ = 0;
  if (left == 0) {
    if (rest_size_ <= kKeptInputBytes) return;
    if (spare_share_) give_back_spare(rest_size_);
    rest_.reset();
    input_ = nullptr;
    rest_size_ = 0;
    return;
  }
  if (!spare_share_ && left > kEarlyInputBytes) {
    return close("the host sent more than a Connect before that was answered");
  }
  if (left > rest_size_) {
    const size_t size = std::bit_ceil(left);
    if (spare_share_ && !take_spare(size - rest_size_)) {
      return close("the host has its share of memory in parts of PDUs");
    }
    rest_ = std::make_unique_for_overwrite<uint8_t[]>(size);
    rest_size_ = size;
  }
  std::memcpy(rest_.get(), from, left);
  input_ = rest_.get();
  end_ = left;
  if (state_ == State::kRunning)
    watch();  // before, it may still move, and has a deadline of its own
}

void Connection::process_input() noexcept {
  if (processing_) return;
  processing_ = true;
  while (!input_blocked_ && (state_ <= State::kAwaitConnect || state_ == State::kRunning)) {
    if (sink_ != nullptr) {
      if (!process_payload()) break;
    } else if (!process_pdu()) {
      break;
    }
  }
  processing_ = false;
}

bool Connection::process_pdu() noexcept {
  const size_t available = end_ - begin_;
  if (available < sizeof(PduHeader)) return false;
  const uint8_t* const pdu = input_ + begin_;
  PduHeader header;
  std::memcpy(&header, pdu, sizeof(header));
  // Data is bounded by what was offered; header, digests and padding come on top.
  const uint32_t data_limit = header.type == kPduH2cData
                                  ? options_.max_h2c_bytes
                                  : std::max(kAdminCapsuleBytes, options_.in_capsule_bytes);
  PduLayout layout;
  const auto fault = check_header(header, PduDirection::kToController, in_format_,
                                  data_limit + 2 * kMaxHeaderSize, &layout);
  if (fault.has_value()) {
    fail_connection(*fault, pdu, std::min<size_t>(available, kMaxHeaderSize));
    return false;
  }
  const bool whole = header.type != kPduH2cData;
  const size_t need = whole ? layout.length : layout.data_offset;
  if (available < need) return false;
  if (layout.header_digest) {
    uint32_t digest = 0;
    std::memcpy(&digest, pdu + layout.header_length, sizeof(digest));
    if (digest != header_digest(pdu, layout.header_length)) {
      fail_connection({kPduErrorHeaderDigest, 0}, pdu, layout.header_length);
      return false;
    }
  }
  const bool expects_ic = state_ == State::kAwaitIcReq;
  if (header.type == kPduH2cTermReq) {
    close("the host ended the connection with a TermReq");
    return false;
  }
  if (expects_ic != (header.type == kPduIcReq) ||
      (state_ == State::kAwaitConnect && header.type != kPduCapsuleCmd)) {
    fail_connection({kPduErrorSequence, 0}, pdu, layout.header_length);
    return false;
  }
  ++pdus_in_;
  switch (header.type) {
    case kPduIcReq:
      begin_ += need;
      on_ic_request(pdu);
      return true;
    case kPduCapsuleCmd:
      if (state_ == State::kAwaitConnect) {
        begin_ += need;
        on_connect_capsule(pdu, layout);
        return true;
      }
      if (!on_command_capsule(pdu, layout)) return false;
      begin_ += need;
      return true;
    default:
      CHECK(header.type == kPduH2cData);
      begin_ += need;
      on_h2c_data(pdu, layout);
      return true;
  }
}

void Connection::on_ic_request(const uint8_t* pdu) noexcept {
  IcReqPdu request;
  std::memcpy(&request, pdu, sizeof(request));
  if (const auto fault = check_ic_request(request)) {
    fail_connection(*fault, pdu, sizeof(request));
    return;
  }
  const IcRespPdu response = make_ic_response(request, options_.max_h2c_bytes);
  in_format_.header_digest = out_format_.header_digest = (request.digests & 1) != 0;
  in_format_.data_digest = out_format_.data_digest = (request.digests & 2) != 0;
  out_format_.alignment = alignment_of(request.host_alignment);
  state_ = State::kAwaitConnect;
  std::memcpy(control_, &response, sizeof(response));
  send_control(sizeof(response));
}

void Connection::on_connect_capsule(const uint8_t* pdu, const PduLayout& layout) noexcept {
  ConnectSqe sqe;
  std::memcpy(&sqe, pdu + offsetof(CapsuleCmdPdu, sqe), sizeof(sqe));
  connect_cid_ = sqe.cid;
  if (control_busy_) {  // pipelined before the previous answer left: not something hosts do
    fail_connection({kPduErrorSequence, 0}, pdu, layout.header_length);
    return;
  }
  if (sqe.opcode != kOpcodeFabrics || sqe.fctype != kFabricsConnect) {
    reject_connect(status::kCommandSequence, 0);
    return;
  }
  if (sqe.sgl.type != kSglInCapsule || sqe.sgl.address != 0) {
    reject_connect(status::kInvalidSglType, 0);
    return;
  }
  if (sqe.sgl.length < sizeof(ConnectData) || layout.data_length < sizeof(ConnectData)) {
    reject_connect(io_status::kDataLengthInvalid, 0);
    return;
  }
  if (layout.data_digest) {
    const iovec part{const_cast<uint8_t*>(pdu) + layout.data_offset, layout.data_length};
    uint32_t digest = 0;
    std::memcpy(&digest, pdu + layout.data_offset + layout.data_length, sizeof(digest));
    if (digest != data_digest(&part, 1)) {
      reject_connect(io_status::kTransientTransport, 0);
      return;
    }
  }
  ConnectData data;
  std::memcpy(&data, pdu + layout.data_offset, sizeof(data));
  state_ = State::kConnecting;
  ++executing_;  // until the owner has answered
  timer_.disarm();
  owner_.on_connect(shared_from_this(), sqe, data);
}

bool Connection::on_command_capsule(const uint8_t* pdu, const PduLayout& layout) noexcept {
  Request* const request = take_request();
  // More commands than the queue has entries, or than the host may have: stop reading for now.
  if (request == nullptr) {
    input_blocked_ = true;
    return false;
  }
  std::memcpy(&request->sqe, pdu + offsetof(CapsuleCmdPdu, sqe), sizeof(Sqe));
  if (flow_control_) sqhd_ = static_cast<uint16_t>((sqhd_ + 1U) % entries_);
  request->transfer = Transfer::kNone;
  request->length = request->received = 0;
  request->data_digest_failed = false;
  request->state = RequestState::kExecuting;
  ++executing_;
  uint64_t& word = cid_word(request->sqe.cid);
  const uint64_t bit = uint64_t{1} << (request->sqe.cid % 64);
  request->owns_cid = (word & bit) == 0;
  if (!request->owns_cid) {
    complete(*request, status::kCommandIdConflict);
    return true;
  }
  word |= bit;
  if (layout.data_digest) {
    const iovec part{const_cast<uint8_t*>(pdu) + layout.data_offset, layout.data_length};
    uint32_t digest = 0;
    std::memcpy(&digest, pdu + layout.data_offset + layout.data_length, sizeof(digest));
    if (digest != data_digest(&part, 1)) {
      complete(*request, io_status::kTransientTransport);
      return true;
    }
  }
  const Plan plan = handler_->plan(*request);
  if (!plan.status.ok()) {
    complete(*request, plan.status);
    return true;
  }
  request->transfer = plan.transfer;
  request->length = plan.length;
  bool in_capsule = false;
  const IoStatus sgl = check_sgl(*request, layout.data_length, &in_capsule);
  if (!sgl.ok()) {
    handler_->on_transfer_failed(*request);
    request->transfer = Transfer::kNone;
    complete(*request, sgl);
    return true;
  }
  const uint8_t* const data =
      in_capsule ? pdu + layout.data_offset + request->sqe.sgl.address : nullptr;
  start_request(*request, data);
  return true;
}

IoStatus Connection::check_sgl(const Request& request, uint32_t in_capsule_length,
                               bool* in_capsule) const noexcept {
  if (request.transfer == Transfer::kNone || request.length == 0) return io_status::kOk;
  const SglDescriptor& sgl = request.sqe.sgl;
  if (sgl.type == kSglInCapsule) {
    if (request.transfer != Transfer::kToController) return status::kInvalidSglType;
    const uint32_t limit = qid_ == 0 || request.sqe.opcode == kOpcodeFabrics
                               ? kAdminCapsuleBytes
                               : options_.in_capsule_bytes;
    if (sgl.length > limit) return io_status::kDataLengthInvalid;
    if (sgl.address > in_capsule_length) return status::kInvalidSglOffset;
    if (sgl.length > in_capsule_length - sgl.address) return io_status::kDataLengthInvalid;
    *in_capsule = true;
  } else if (sgl.type != kSglTransport) {
    return status::kInvalidSglType;
  }
  if (sgl.length < request.length) return io_status::kDataLengthInvalid;
  return io_status::kOk;
}

void Connection::start_request(Request& request, const uint8_t* in_capsule) noexcept {
  if (request.transfer == Transfer::kNone || request.length == 0) {
    handler_->execute(request);
    return;
  }
  // In-capsule data must leave the input buffer now.
  if (!give_buffer(request, in_capsule != nullptr)) {
    if (in_capsule != nullptr) {  // far beyond the host's share: it is to come again later
      handler_->on_transfer_failed(request);
      request.transfer = Transfer::kNone;
      complete(request, status::kInterrupted);
      return;
    }
    request.state = RequestState::kWaitingBuffer;
    --executing_;
    request.next = nullptr;
    *waiting_end_ = &request;
    waiting_end_ = &request.next;
    if (!buffer_timer_.armed()) buffer_timer_.arm_after(buffer_retry_ns_);
    return;
  }
  if (request.transfer == Transfer::kToHost) {
    handler_->execute(request);
  } else if (in_capsule != nullptr) {
    std::memcpy(request.buffer, in_capsule, request.length);
    request.received = request.length;
    handler_->execute(request);
  } else {
    --executing_;
    send_r2t(request);
  }
}

void Connection::retry_waiting() noexcept {
  while (waiting_ != nullptr) {
    Request& request = *waiting_;
    if (!give_buffer(request, false)) {
      // Ever less often: what this connection gives back itself wakes it at once.
      buffer_retry_ns_ = std::min(buffer_retry_ns_ * 2, kBufferRetryMaxNs);
      break;
    }
    buffer_retry_ns_ = kBufferRetryNs;
    waiting_ = request.next;
    if (waiting_ == nullptr) waiting_end_ = &waiting_;
    if (request.transfer == Transfer::kToHost) {
      execute(request);
    } else {
      send_r2t(request);
    }
    if (state_ != State::kRunning) return;
  }
  if (waiting_ != nullptr && !buffer_timer_.armed()) buffer_timer_.arm_after(buffer_retry_ns_);
}

void Connection::on_h2c_data(const uint8_t* pdu, const PduLayout& layout) noexcept {
  DataPdu data;
  std::memcpy(&data, pdu, sizeof(data));
  const auto fail = [&](PduError error, size_t info) {
    fail_connection({error, static_cast<uint32_t>(info)}, pdu, layout.header_length);
  };
  if (data.transfer_tag == 0 || data.transfer_tag > request_count_) {
    return fail(kPduErrorInvalidHeader, offsetof(DataPdu, transfer_tag));
  }
  Request& request = request_at(data.transfer_tag - 1U);
  if (request.state != RequestState::kReceiving || request.r2t_pending) {
    return fail(kPduErrorInvalidHeader, offsetof(DataPdu, transfer_tag));
  }
  if (request.sqe.cid != data.cid) return fail(kPduErrorInvalidHeader, offsetof(DataPdu, cid));
  if (data.length != layout.data_length) {
    return fail(kPduErrorInvalidHeader, offsetof(DataPdu, length));
  }
  if (data.length > options_.max_h2c_bytes) return fail(kPduErrorLimit, 0);
  if (data.offset != request.received) return fail(kPduErrorDataRange, 0);
  if (data.length > request.length - request.received) return fail(kPduErrorDataRange, 0);
  const bool last = data.length == request.length - request.received;
  if ((data.header.flags & kPduLast) != 0 && !last) return fail(kPduErrorDataRange, 0);
  sink_ = &request;
  sink_length_ = sink_remaining_ = data.length;
  sink_digest_ = layout.data_digest;
  sink_last_ = last;
}

bool Connection::process_payload() noexcept {
  if (sink_remaining_ > 0) {
    const size_t copied = std::min<size_t>(end_ - begin_, sink_remaining_);
    if (copied > 0) {
      std::memcpy(sink_->buffer + sink_->received, input_ + begin_, copied);
      begin_ += copied;
      sink_->received += static_cast<uint32_t>(copied);
      sink_remaining_ -= static_cast<uint32_t>(copied);
    }
    if (sink_remaining_ > 0) return false;
  }
  if (sink_digest_) {
    if (end_ - begin_ < kDigestSize) return false;
    uint32_t digest = 0;
    std::memcpy(&digest, input_ + begin_, sizeof(digest));
    begin_ += kDigestSize;
    const iovec part{sink_->buffer + sink_->received - sink_length_, sink_length_};
    if (digest != data_digest(&part, 1)) sink_->data_digest_failed = true;
  }
  finish_payload();
  return true;
}

void Connection::finish_payload() noexcept {
  Request& request = *sink_;
  sink_ = nullptr;
  if (!sink_last_) return;
  if (request.data_digest_failed) {
    request.state = RequestState::kExecuting;
    ++executing_;
    handler_->on_transfer_failed(request);
    complete(request, io_status::kTransientTransport);
    return;
  }
  execute(request);
}

void Connection::fail_connection(const PduFault& fault, const void* offending,
                                 size_t length) noexcept {
  if (closing()) return;
  close_reason_ = describe_pdu_error(fault.error);
  // Only one control PDU can be under way: an ICResp of this very turn goes first. One that stays
  // unfinished means that the host does not read, and would not read this either.
  if (control_busy_) flush();
  if (control_busy_ || !socket_) return close(close_reason_);
  send_control(encode_term_request(kPduC2hTermReq, fault, offending, length, control_));
  flush();
  if (control_busy_ || !socket_) return close(close_reason_);
  // Closing with unread input would reset the stream and lose the TermReq: let the host close.
  state_ = State::kTerminating;
  input_blocked_ = false;
  socket_->pause_reading(false);
  begin_ = end_ = 0;
  release_all();
  timer_.arm_after(kTerminateTimeoutNs);
}

}  // namespace mayastor::nvmf::target

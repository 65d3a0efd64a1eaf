// One TCP connection of the target: the NVMe/TCP transport of one queue. Parses PDUs, moves data in
// and out of I/O buffers, hands complete commands to its CommandHandler and sends what they answer,
// gathered into one sendv() per turn.
// Owner: created on the home reactor; after an I/O Connect it moves to its reactor (move_to) and
// every method not marked "home" runs there. Kept alive by shared_ptr: the target holds
// one until on_closed(), messages hold their own.
// Invariants: a command answers exactly once, unless the connection closed; a handler is told of
// every command at most once; on_closed() comes when no command is executing any more, so a channel
// held by the handler is idle then. Nothing is allocated per command once warm.
// Limits: buffers and spare memory come out of the host's, its controller's and the connection's
// shares (core/share.h), so that what a host leaves lying takes nothing from others; a transfer
// that does not move ends the connection (connection_watch.cc). What a queue needs is allocated as
// it is used.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "bdev/bdev.h"
#include "core/buffer.h"
#include "core/reactor.h"
#include "core/share.h"
#include "nvmf/pdu.h"
#include "nvmf/spec.h"

namespace mayastor::nvmf::target {

class Connection;

enum class Transfer : uint8_t { kNone, kToController, kToHost };

// What a command moves, decided before any data does.
struct Plan {
  IoStatus status;  // not ok: answered at once
  Transfer transfer = Transfer::kNone;
  uint32_t length = 0;  // bytes; buffer of the request has at least these
};

// Something in the send queue. Parts stay valid until sent() is called.
struct OutPdu {
  static constexpr uint32_t kMaxParts = 5;
  OutPdu* next = nullptr;
  void (*sent)(OutPdu* pdu) noexcept = nullptr;
  void* context = nullptr;
  uint32_t first = 0, count = 0;  // parts not yet sent: [first, count)
  iovec parts[kMaxParts];
};

enum class RequestState : uint8_t {
  kFree,
  kWaitingBuffer,  // no buffer was free
  kReceiving,      // R2T sent, data arriving
  kExecuting,      // with the handler
  kSending,        // answer queued
};

struct Request {
  Io io;  // for the handler
  Sqe sqe{};
  Connection* connection = nullptr;
  Request* next = nullptr;  // for the handler while executing, else lists of the connection
  uint8_t* buffer = nullptr;
  uint32_t buffer_bytes = 0;
  uint32_t length = 0;  // bytes to transfer
  uint32_t received = 0;
  uint32_t scratch = 0;  // for the handler
  uint16_t watched = 0;  // times that the watch found it waiting for the host's data
  uint16_t index = 0;
  RequestState state = RequestState::kFree;
  Transfer transfer = Transfer::kNone;
  bool heap_buffer = false;
  bool owns_cid = false;
  bool data_digest_failed = false;
  bool r2t_pending = false;  // queued and not completely sent
  uint64_t started_ns = 0;
  iovec data{};
  OutPdu out;
  uint32_t digest = 0;
  alignas(8) uint8_t header[kMaxHeaderSize] = {};
  alignas(8) uint8_t response[sizeof(CapsuleRespPdu) + kDigestSize] = {};
};

// The commands of one queue. Same reactor as its connection.
class CommandHandler {
 public:
  virtual ~CommandHandler() = default;
  // Called once per command in the order of submission, before its data moves. request.sqe is set.
  [[nodiscard]] virtual Plan plan(Request& request) noexcept = 0;
  // Runs the command; ends with connection.complete(), possibly inline.
  virtual void execute(Request& request) noexcept = 0;
  // A command that plan() took will not execute: its transfer failed, and it is being answered.
  virtual void on_transfer_failed(Request& request) noexcept = 0;
  // A host wants it aborted. True: it had not begun, and has been completed as aborted. False: it
  // goes on to its own end.
  [[nodiscard]] virtual bool abort(Request& request) noexcept = 0;
  // The connection is closing: complete whatever waits (events, held commands) now.
  virtual void on_closing() noexcept = 0;
};

// The target behind all connections. Home reactor.
class ConnectionOwner {
 public:
  virtual ~ConnectionOwner() = default;
  // A valid Connect capsule arrived; answered by accept_queue() or reject_connect().
  virtual void on_connect(std::shared_ptr<Connection> connection, const ConnectSqe& sqe,
                          const ConnectData& data) = 0;
  virtual void on_closed(std::shared_ptr<Connection> connection) = 0;
};

struct ConnectionOptions {
  uint32_t in_capsule_bytes = 4096;
  uint32_t max_h2c_bytes = 131072;
  bool c2h_success = true;
  uint64_t ic_timeout_ms = 10'000;
  uint64_t still_timeout_ms = 15'000;     // of a transfer of which nothing moves
  uint64_t transfer_timeout_ms = 60'000;  // of one that moves, to its end
};

class Connection final : public std::enable_shared_from_this<Connection>,
                         private SocketHandler,
                         private TurnEndHook {
 public:
  static constexpr uint32_t kAdminCapsuleBytes = 8192;  // in-capsule data of admin, fabrics
  static constexpr uint32_t kMaxInCapsuleBytes = 16384;

  Connection(ConnectionOwner& owner, const ConnectionOptions& options);
  ~Connection() override;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start(std::unique_ptr<Socket> socket);  // home; arms the Connect timeout

  // After on_connect(), which is answered exactly once by accept_queue() or reject_connect(), even
  // if the connection closed meanwhile. An I/O queue: move_to() (home), then `moved` runs on the
  // new reactor, sets up what it needs and answers there. Until then on_closed() waits.
  void move_to(Reactor& reactor, std::function<void(std::shared_ptr<Connection>)> moved);
  struct Queue {
    std::unique_ptr<CommandHandler> handler;
    uint16_t qid = 0;
    uint32_t entries = 0;
    bool flow_control = true;
    uint16_t controller_id = 0;
    std::string host, controller;  // whose shares it uses
  };
  void accept_queue(Queue queue);
  // The host may try again on this connection (admin) or closes it. dw0: which parameter.
  void reject_connect(IoStatus status, uint32_t dw0);

  // Answers a command. `length`: bytes for the host (Transfer::kToHost), at most request.length.
  void complete(Request& request, IoStatus status, uint32_t dw0 = 0, uint32_t dw1 = 0) noexcept;
  // The Abort command, for one of this queue's. True: it never ran, and has been answered. One that
  // is with the bdev, or whose data is on its way, is left alone.
  [[nodiscard]] bool abort(uint16_t cid) noexcept;
  void close(const char* why) noexcept;  // idempotent; own reactor; `why` is static text
  [[nodiscard]] const char* close_reason() const noexcept { return close_reason_; }
  void post_close(const char* why);  // home reactor

  // For handlers. A buffer of the reactor's pool, or of the heap when `must` and the pool is empty.
  [[nodiscard]] static uint8_t* acquire_buffer(uint32_t bytes, bool must, bool* heap) noexcept;
  static void release_buffer(uint8_t* buffer, uint32_t bytes, bool heap) noexcept;

  [[nodiscard]] Reactor& reactor() const noexcept { return *reactor_; }
  [[nodiscard]] bool running() const noexcept { return state_ == State::kRunning; }
  [[nodiscard]] bool connecting() const noexcept { return state_ == State::kConnecting; }
  [[nodiscard]] bool closing() const noexcept { return state_ >= State::kTerminating; }
  [[nodiscard]] uint16_t qid() const noexcept { return qid_; }
  [[nodiscard]] const std::string& peer() const noexcept { return peer_; }    // "ip:port"
  [[nodiscard]] const std::string& local() const noexcept { return local_; }  // "ip:port"
  [[nodiscard]] CommandHandler* handler() const noexcept { return handler_.get(); }
  [[nodiscard]] uint32_t request_count() const noexcept { return request_count_; }
  [[nodiscard]] Request& request_at(uint32_t index) noexcept {
    return requests_[index / kRequestsAtOnce][index % kRequestsAtOnce];
  }

 private:
  enum class State : uint8_t {
    kAwaitIcReq,
    kAwaitConnect,
    kConnecting,  // Connect with the owner; nothing is read
    kRunning,
    kTerminating,  // TermReq sent; input is dropped until the host closes
    kClosed,
  };
  static constexpr size_t kKeptInputBytes = 8 * 1024;    // while nothing is in it
  static constexpr size_t kEarlyInputBytes = 32 * 1024;  // before the queue is accepted
  static constexpr uint32_t kRequestsAtOnce = 8;
  static constexpr uint32_t kCidsPerPage = 1024;
  static constexpr uint32_t kMaxSendParts = 256;
  static constexpr uint64_t kTerminateTimeoutNs = 1'000'000'000;
  static constexpr uint64_t kBufferRetryNs = 1'000'000, kBufferRetryMaxNs = 64'000'000;

  // SocketHandler, TurnEndHook.
  void on_connected(int32_t result) override;
  bool on_readable() override;
  void on_writable() override;
  void on_peer_left() override;
  void on_turn_end() override;

  // Input (connection_input.cc).
  bool receive();  // false: no more for now
  void keep_rest() noexcept;
  void drain_input() noexcept;
  void process_input() noexcept;
  bool process_pdu() noexcept;  // false: needs more bytes, or stopped
  bool process_payload() noexcept;
  void on_ic_request(const uint8_t* pdu) noexcept;
  void on_connect_capsule(const uint8_t* pdu, const PduLayout& layout) noexcept;
  bool on_command_capsule(const uint8_t* pdu, const PduLayout& layout) noexcept;
  void on_h2c_data(const uint8_t* pdu, const PduLayout& layout) noexcept;
  void finish_payload() noexcept;
  void start_request(Request& request, const uint8_t* in_capsule) noexcept;
  IoStatus check_sgl(const Request& request, uint32_t in_capsule_length,
                     bool* in_capsule) const noexcept;
  void fail_connection(const PduFault& fault, const void* offending, size_t length) noexcept;

  // Requests.
  Request* take_request() noexcept;
  bool make_requests() noexcept;
  [[nodiscard]] uint64_t& cid_word(uint16_t cid) noexcept;
  void drop_buffer(Request& request) noexcept;
  bool take_spare(size_t bytes) noexcept;
  void give_back_spare(size_t bytes) noexcept;
  void release_request(Request& request) noexcept;
  bool give_buffer(Request& request, bool must) noexcept;
  void retry_waiting() noexcept;
  void send_r2t(Request& request) noexcept;
  void execute(Request& request) noexcept;

  // Output (connection_output.cc).
  void queue(OutPdu& pdu) noexcept;
  void flush() noexcept;
  void after_flush() noexcept;
  void send_control(uint32_t length) noexcept;  // control_ holds a PDU
  void send_connect_response(const Cqe& cqe) noexcept;
  uint32_t encode_response(const Cqe& cqe, uint8_t* out) const noexcept;
  void release_all() noexcept;
  void maybe_finish_close() noexcept;
  void on_timer() noexcept;

  // What does not move (connection_watch.cc).
  void watch() noexcept {
    if (!watch_timer_.armed()) [[unlikely]]
      watch_timer_.arm_after(options_.still_timeout_ms * 1'000'000 / kWatchesToStill);
  }
  void on_watch() noexcept;
  static constexpr uint32_t kWatchesToStill = 6;

  ConnectionOwner& owner_;
  const ConnectionOptions options_;
  Reactor* const home_;
  Reactor* reactor_;
  std::unique_ptr<Socket> socket_;
  std::unique_ptr<CommandHandler> handler_;
  State state_ = State::kAwaitIcReq;
  uint16_t qid_ = 0;
  bool queue_accepted_ = false;
  bool flow_control_ = true;
  bool send_blocked_ = false;   // the socket is full: wait for on_writable()
  bool input_blocked_ = false;  // no request is free: go on when one is
  bool processing_ = false;
  bool close_posted_ = false;
  uint16_t sqhd_ = 0;
  uint16_t connect_cid_ = 0;
  uint32_t entries_ = 0;

  PduFormat in_format_, out_format_;
  // Bytes that arrived and are not used up yet: [begin_, end_) of input_, which is the reactor's
  // scratch while it is being filled and looked at, else rest_.
  uint8_t* input_ = nullptr;
  size_t begin_ = 0, end_ = 0;
  std::unique_ptr<uint8_t[]> rest_;
  size_t rest_size_ = 0;
  // Payload of the H2CData PDU being received; its digest follows.
  Request* sink_ = nullptr;
  uint32_t sink_remaining_ = 0;
  uint32_t sink_length_ = 0;
  bool sink_digest_ = false;
  bool sink_last_ = false;

  std::vector<std::unique_ptr<Request[]>> requests_;  // kRequestsAtOnce each
  uint32_t request_count_ = 0;                        // made so far; at most entries_
  Request* free_ = nullptr;
  Request* waiting_ = nullptr;  // for a buffer, first come first served
  Request** waiting_end_ = &waiting_;
  uint32_t executing_ = 0;
  std::unique_ptr<uint64_t[]> cids_[65536 / kCidsPerPage];  // bit per command id in use
  std::shared_ptr<Share> buffer_share_, spare_share_;       // of reactor_; once accepted
  size_t spare_taken_ = 0;

  OutPdu* out_ = nullptr;
  OutPdu** out_end_ = &out_;
  OutPdu control_out_;
  bool control_busy_ = false;
  alignas(8) uint8_t control_[256] = {};

  std::unique_ptr<Socket> moving_socket_;
  const char* close_reason_ = "";
  std::string peer_, local_;
  Timer timer_;         // Connect timeout; after a TermReq: time to close
  Timer buffer_timer_;  // retry for buffers another connection gave back
  uint64_t buffer_retry_ns_ = kBufferRetryNs;

  Timer watch_timer_;
  uint64_t bytes_in_ = 0, pdus_in_ = 0, bytes_out_ = 0, pdus_out_ = 0;
  struct Seen {
    uint64_t bytes = 0, pdus = 0;
    uint32_t still = 0, slow = 0;  // watches in a row that found no byte, no whole PDU moved
  } seen_in_, seen_out_;
};

}  // namespace mayastor::nvmf::target

// One NVMe/TCP connection of the initiator: the admin queue or one I/O queue.
// Why: everything about PDUs, digests, R2T, batching and timeouts in one place; who uses it sees
// commands and their answers.
// How: commands live in a fixed array of slots. submit() appends to the send list; the list goes
// out in one sendv at the end of the turn, payload straight from the caller's buffers. Reads land
// in the caller's buffers: small ones through the receive buffer, the rest of large ones directly.
// Invariants: one reactor owns it. done() of every submitted command runs exactly once, from a ring
// event, a timer, close(), or inline from submit() when the queue is closed. A command's buffers
// are not touched after done(). Once closed it stays closed.
#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/reactor.h"
#include "core/ring.h"
#include "core/task.h"
#include "nvmf/pdu.h"
#include "nvmf/spec.h"
#include "util/io_status.h"
#include "util/result.h"

namespace mayastor::nvmf {

enum class DataDirection : uint8_t { kNone, kToHost, kToController };

struct Answer {
  IoStatus status;
  uint32_t dw0 = 0, dw1 = 0;
};

// A slot. The first part is filled by the user between acquire() and submit().
struct Command {
  Sqe sqe{};  // without cid and data pointer: the queue sets them
  DataDirection direction = DataDirection::kNone;
  bool may_wait = false;       // asynchronous event requests: no timeout
  bool bulk = false;           // may take longer: bulk_timeout_ns
  bool exact = false;          // reads: success with fewer bytes than length is an error
  uint32_t length = 0;         // bytes of data
  uint32_t iov_count = 0;      // of iov
  const iovec* iov = nullptr;  // data starts iov_offset bytes into it
  uint64_t iov_offset = 0;
  void (*done)(Command* command, const Answer& answer) noexcept = nullptr;
  void* owner = nullptr;
  uint64_t user = 0;
  iovec own_iov{};                     // for users that need to point iov at something
  std::array<uint8_t, 16> own_data{};  // e.g. one range of a dataset management command

  // The queue's own.
  enum class State : uint8_t { kFree, kHeld, kSent };
  State state = State::kFree;
  bool in_send = false;     // its bytes are on the send list
  bool answered = false;    // the answer came before its bytes had left
  bool bad_digest = false;  // some payload arrived damaged
  uint8_t generation = 0;   // part of the cid, so that a late answer meets no newer command
  uint16_t index = 0;
  uint32_t received = 0;  // bytes read so far
  uint32_t h2c_next = 0;  // bytes written so far, and the end of the R2T window
  uint32_t h2c_end = 0;
  uint16_t h2c_tag = 0;
  uint64_t started_ns = 0;
  uint64_t send_end = 0;  // position of its last byte in the stream of sent bytes
  Command* age_next = nullptr;
  Command* age_prev = nullptr;
  Command* next = nullptr;  // free list, or commands with bytes on the send list
  Answer answer{};
  alignas(8) std::array<uint8_t, 128> header{};  // PDU header, digest, padding
  std::array<uint8_t, 4> data_digest{};
};

struct QueueOptions {
  uint32_t depth = 32;  // slots; at most kMaxDepth
  uint64_t timeout_ns = 5'000'000'000;
  uint64_t bulk_timeout_ns = 30'000'000'000;  // of commands without data for a large range
  bool header_digest = false;
  bool data_digest = false;
};

class InitiatorQueue final : public SocketHandler,
                             public TurnEndHook,
                             public std::enable_shared_from_this<InitiatorQueue> {
 public:
  static constexpr uint32_t kMaxDepth = 1024;
  static constexpr uint32_t kReceiveBytes = 256 * 1024;

  explicit InitiatorQueue(const QueueOptions& options);
  ~InitiatorQueue() override;  // must be closed, or never connected
  InitiatorQueue(const InitiatorQueue&) = delete;
  InitiatorQueue& operator=(const InitiatorQueue&) = delete;

  // TCP connection and ICReq/ICResp, before `deadline_ns` from now. The deadline goes on until
  // handshake_done(), so that it covers the commands that set the queue up.
  Task<Result<void>> connect(std::string address, uint16_t port, uint64_t deadline_ns);
  void handshake_done() noexcept;

  // Bytes that may travel inside a write command's capsule (admin: 8192 by the specification).
  void set_in_capsule_bytes(uint32_t bytes) noexcept { in_capsule_bytes_ = bytes; }
  void set_timeout_ns(uint64_t timeout_ns) noexcept { options_.timeout_ns = timeout_ns; }
  // Commands allowed at once: what the target granted (<= options.depth).
  void limit_depth(uint32_t depth) noexcept;
  // Called once if the queue ends without close(); the text says why.
  void set_lost_handler(std::function<void(const std::string& why)> handler) {
    lost_handler_ = std::move(handler);
  }

  [[nodiscard]] Command* acquire() noexcept;  // nullptr: all in flight
  void release(Command* command) noexcept;    // acquired but not submitted
  // When done() runs the slot is free already: read what is needed from it first.
  void submit(Command* command) noexcept;

  // For control paths: waits for a slot. may_wait: no timeout.
  Task<Answer> execute(Sqe sqe, DataDirection direction, void* data, uint32_t length,
                       bool may_wait = false);

  // Ends the connection; pending commands complete with `why`.
  void close(IoStatus why);
  // As if the peer had gone: like close(kHostPathError), and the lost handler runs.
  void lose(const std::string& why);
  [[nodiscard]] bool ready() const noexcept { return state_ == State::kReady; }
  [[nodiscard]] bool closed() const noexcept { return state_ == State::kClosed; }
  [[nodiscard]] const std::string& lost_reason() const noexcept { return lost_reason_; }
  [[nodiscard]] bool timed_out() const noexcept { return timed_out_; }
  [[nodiscard]] uint32_t in_flight() const noexcept { return in_flight_; }

  void on_connected(int32_t result) override;
  bool on_readable() override;
  void on_writable() override;
  void on_turn_end() override;

 private:
  enum class State : uint8_t { kIdle, kConnecting, kHandshake, kReady, kClosed };
  struct AgeList {  // commands with one timeout, the oldest first
    Command* first = nullptr;
    Command* last = nullptr;
  };

  void send_icreq();
  void append(const void* data, size_t length);
  void append_data(Command& command, uint32_t offset, uint32_t length);
  void append_capsule(Command& command);
  void append_h2c_data(Command& command);
  void put_in_send(Command& command) noexcept;
  void flush();
  void settle_sent();

  ssize_t receive();
  bool parse();  // false: the queue was closed meanwhile
  bool handle_pdu(const uint8_t* pdu, const PduLayout& layout);
  bool handle_icresp(const uint8_t* pdu);
  bool handle_response(const Cqe& cqe);
  bool handle_r2t(const uint8_t* pdu);
  bool begin_c2h_data(const uint8_t* pdu, const PduLayout& layout);
  bool end_c2h_data();
  void take_payload(const uint8_t* data, uint32_t length);
  bool protocol_error(const std::string& what);
  Command* find(uint16_t cid) noexcept;

  void finish(Command& command, const Answer& answer);
  void complete(Command& command);
  void end(IoStatus why);
  [[nodiscard]] AgeList& ages_of(const Command& command) noexcept {
    return command.bulk ? bulk_ages_ : ages_;
  }
  [[nodiscard]] uint64_t deadline_of(const Command& command) const noexcept {
    return command.started_ns + (command.bulk ? options_.bulk_timeout_ns : options_.timeout_ns);
  }
  void age_append(Command& command) noexcept;
  void age_remove(Command& command) noexcept;
  void check_age();

  QueueOptions options_;
  State state_ = State::kIdle;
  std::unique_ptr<Socket> socket_;
  std::unique_ptr<Command[]> slots_;
  Command* free_ = nullptr;
  uint32_t held_ = 0;  // acquired or in flight
  uint32_t in_flight_ = 0;
  uint32_t depth_limit_;
  AgeList ages_, bulk_ages_;
  uint64_t age_timer_at_ns_ = 0;   // while it is armed
  Command* send_first_ = nullptr;  // by send_end
  Command* send_last_ = nullptr;
  std::vector<iovec> out_;
  size_t out_head_ = 0;
  uint64_t out_total_ = 0;  // bytes ever appended
  uint64_t sent_total_ = 0;
  bool blocked_ = false;  // waits for on_writable
  std::array<uint8_t, 128> icreq_{};

  std::unique_ptr<uint8_t[]> rx_;
  uint32_t rx_begin_ = 0, rx_end_ = 0;
  Command* payload_ = nullptr;  // command whose C2HData payload is arriving
  uint32_t payload_left_ = 0;
  DataDigest payload_digest_;
  uint32_t typical_payload_ = 0;
  uint8_t payload_flags_ = 0;
  bool payload_digest_due_ = false;

  uint32_t in_capsule_bytes_ = 8192;
  uint32_t max_h2c_data_ = 0;
  PduFormat send_format_, receive_format_;
  bool timed_out_ = false;
  uint64_t suspect_started_ns_ = 0;
  std::string lost_reason_;
  std::function<void(const std::string&)> lost_handler_;
  std::deque<Completion<bool>*> slot_waiters_;
  Completion<bool>* connected_ = nullptr;
  Timer age_timer_;
  Timer deadline_timer_;
};

}  // namespace mayastor::nvmf

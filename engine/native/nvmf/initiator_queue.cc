// The life of a queue: connect, submit, time out, end. What goes over the wire is in
// initiator_wire.cc.
#include "nvmf/initiator_queue.h"

#include <cerrno>
#include <cstring>
#include <utility>

namespace mayastor::nvmf {

namespace {
constexpr uint32_t kIndexBits = 10;
constexpr uint16_t kIndexMask = (1U << kIndexBits) - 1;
constexpr uint64_t kSecondLookNs = 100'000'000;
static_assert(InitiatorQueue::kMaxDepth == 1U << kIndexBits);
}  // namespace

InitiatorQueue::InitiatorQueue(const QueueOptions& options)
    : options_(options),
      slots_(std::make_unique<Command[]>(options.depth)),
      depth_limit_(options.depth),
      rx_(new uint8_t[kReceiveBytes]),  // not touched, so not resident, until used
      age_timer_([this] { check_age(); }),
      deadline_timer_([this] {
        timed_out_ = true;
        lose("no answer within the connect timeout");
      }) {
  CHECK(options.depth > 0 && options.depth <= kMaxDepth);
  for (uint32_t i = options.depth; i-- > 0;) {
    slots_[i].index = static_cast<uint16_t>(i);
    slots_[i].next = free_;
    free_ = &slots_[i];
  }
  out_.reserve(static_cast<size_t>(options.depth) * 4);
}

InitiatorQueue::~InitiatorQueue() {
  CHECK(state_ == State::kIdle || state_ == State::kClosed);
  CHECK(in_flight_ == 0 && slot_waiters_.empty());
}

Task<Result<void>> InitiatorQueue::connect(std::string address, uint16_t port,
                                           uint64_t deadline_ns) {
  CHECK(state_ == State::kIdle);
  auto self = shared_from_this();
  Completion<bool> connected;
  connected_ = &connected;
  state_ = State::kConnecting;
  deadline_timer_.arm_after(deadline_ns);
  socket_ = Reactor::current().ring().connect(address, port, this);
  co_await connected;
  if (state_ != State::kReady) {
    co_return Error{timed_out_ ? ErrorCode::kDeadlineExceeded : ErrorCode::kUnavailable,
                    lost_reason_, timed_out_ ? ETIMEDOUT : ECONNREFUSED};
  }
  co_return Result<void>();
}

void InitiatorQueue::handshake_done() noexcept {
  deadline_timer_.disarm();
}

void InitiatorQueue::limit_depth(uint32_t depth) noexcept {
  CHECK(depth > 0);
  depth_limit_ = std::min(depth, options_.depth);
}

void InitiatorQueue::on_connected(int32_t result) {
  auto self = shared_from_this();
  if (state_ != State::kConnecting) return;
  if (result < 0) {
    lose(std::strerror(-result));
    return;
  }
  state_ = State::kHandshake;
  send_icreq();
}

Command* InitiatorQueue::acquire() noexcept {
  if (free_ == nullptr || held_ >= depth_limit_) return nullptr;
  Command* command = free_;
  free_ = command->next;
  ++held_;
  command->next = nullptr;
  command->state = Command::State::kHeld;
  command->sqe = Sqe{};
  command->direction = DataDirection::kNone;
  command->may_wait = command->exact = command->bulk = false;
  command->in_send = command->answered = command->bad_digest = false;
  command->length = command->iov_count = 0;
  command->iov = nullptr;
  command->iov_offset = 0;
  command->received = command->h2c_next = command->h2c_end = 0;
  return command;
}

void InitiatorQueue::release(Command* command) noexcept {
  CHECK(command->state == Command::State::kHeld);
  command->state = Command::State::kFree;
  command->next = free_;
  free_ = command;
  --held_;
}

void InitiatorQueue::submit(Command* command) noexcept {
  CHECK(command->state == Command::State::kHeld);
  if (state_ != State::kReady) {
    release(command);
    command->done(command, Answer{io_status::kHostPathError});
    return;
  }
  command->state = Command::State::kSent;
  ++in_flight_;
  ++command->generation;
  command->sqe.cid = static_cast<uint16_t>(command->generation << kIndexBits | command->index);
  command->started_ns = Reactor::current().now_ns();
  if (!command->may_wait) age_append(*command);
  append_capsule(*command);
  if (!blocked_) Reactor::current().request_turn_end(this);
}

Command* InitiatorQueue::find(uint16_t cid) noexcept {
  const uint32_t index = cid & kIndexMask;
  if (index >= options_.depth) return nullptr;
  Command& command = slots_[index];
  return command.state == Command::State::kSent && command.sqe.cid == cid ? &command : nullptr;
}

namespace {
struct Execution {
  Completion<Answer> completion;
  static void done(Command* command, const Answer& answer) noexcept {
    static_cast<Execution*>(command->owner)->completion.set(answer);
  }
};
}  // namespace

Task<Answer> InitiatorQueue::execute(Sqe sqe, DataDirection direction, void* data, uint32_t length,
                                     bool may_wait) {
  auto self = shared_from_this();
  Command* command = acquire();
  while (command == nullptr) {
    if (state_ == State::kClosed) co_return Answer{io_status::kHostPathError};
    Completion<bool> slot;
    slot_waiters_.push_back(&slot);
    co_await slot;
    command = acquire();
  }
  Execution execution;
  iovec part{data, length};
  command->sqe = sqe;
  command->direction = direction;
  command->may_wait = may_wait;
  command->length = length;
  command->iov = &part;
  command->iov_count = length > 0 ? 1 : 0;
  command->owner = &execution;
  command->done = &Execution::done;
  submit(command);
  co_return co_await execution.completion;
}

// The command is over; its bytes may still have to leave.
void InitiatorQueue::finish(Command& command, const Answer& answer) {
  command.answer = answer;
  if (command.in_send) {
    command.answered = true;
    command.h2c_end = command.h2c_next;  // the target wants no more
    return;
  }
  complete(command);
}

void InitiatorQueue::complete(Command& command) {
  CHECK(command.state == Command::State::kSent);
  if (!command.may_wait) age_remove(command);
  --in_flight_;
  command.state = Command::State::kHeld;
  release(&command);
  const Answer answer = command.answer;
  command.done(&command, answer);
  if (!slot_waiters_.empty() && free_ != nullptr && held_ < depth_limit_) {
    Completion<bool>* waiter = slot_waiters_.front();
    slot_waiters_.pop_front();
    waiter->set(true);
  }
}

void InitiatorQueue::close(IoStatus why) {
  auto self = weak_from_this().lock();
  lost_handler_ = nullptr;
  end(why);
}

void InitiatorQueue::lose(const std::string& why) {
  if (state_ == State::kClosed) return;
  auto self = weak_from_this().lock();
  lost_reason_ = why;
  auto handler = std::exchange(lost_handler_, nullptr);
  end(io_status::kHostPathError);
  if (handler) handler(lost_reason_);
}

void InitiatorQueue::end(IoStatus why) {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  age_timer_.disarm();
  deadline_timer_.disarm();
  socket_.reset();
  out_.clear();
  out_head_ = 0;
  send_first_ = send_last_ = nullptr;
  payload_ = nullptr;
  payload_left_ = 0;
  rx_begin_ = rx_end_ = 0;
  for (uint32_t i = 0; i < options_.depth; ++i) {
    if (slots_[i].state != Command::State::kSent) continue;
    slots_[i].in_send = false;
    slots_[i].answer = Answer{why};
    complete(slots_[i]);
  }
  CHECK(in_flight_ == 0);
  while (!slot_waiters_.empty()) {
    Completion<bool>* waiter = slot_waiters_.front();
    slot_waiters_.pop_front();
    waiter->set(false);
  }
  if (auto* connected = std::exchange(connected_, nullptr)) connected->set(false);
}

void InitiatorQueue::age_append(Command& command) noexcept {
  AgeList& ages = ages_of(command);
  command.age_next = nullptr;
  command.age_prev = ages.last;
  (ages.last != nullptr ? ages.last->age_next : ages.first) = &command;
  ages.last = &command;
  const uint64_t deadline = deadline_of(command);
  if (age_timer_.armed() && age_timer_at_ns_ <= deadline) return;
  age_timer_at_ns_ = deadline;
  age_timer_.arm_after(deadline - command.started_ns);
}

void InitiatorQueue::age_remove(Command& command) noexcept {
  AgeList& ages = ages_of(command);
  (command.age_prev != nullptr ? command.age_prev->age_next : ages.first) = command.age_next;
  (command.age_next != nullptr ? command.age_next->age_prev : ages.last) = command.age_prev;
}

// The timer is not moved with every command: it looks at the oldest ones when it fires.
void InitiatorQueue::check_age() {
  const Command* oldest = ages_.first;
  if (oldest == nullptr ||
      (bulk_ages_.first != nullptr && deadline_of(*bulk_ages_.first) < deadline_of(*oldest))) {
    oldest = bulk_ages_.first;
  }
  if (state_ != State::kReady || oldest == nullptr) return;
  const uint64_t now = Reactor::current().now_ns();
  const auto look_again = [this, now](uint64_t delay_ns) {
    age_timer_at_ns_ = now + delay_ns;
    age_timer_.arm_after(delay_ns);
  };
  const uint64_t deadline = deadline_of(*oldest);
  if (now < deadline) return look_again(deadline - now);
  // A process that was stopped for a while finds its answers waiting in the socket: look again
  // after they had a chance to be read.
  const uint64_t timeout_ns = deadline - oldest->started_ns;
  if (suspect_started_ns_ != oldest->started_ns) {
    suspect_started_ns_ = oldest->started_ns;
    return look_again(std::min(timeout_ns / 10 + 1, kSecondLookNs));
  }
  timed_out_ = true;
  lose("a command got no answer within " + std::to_string(timeout_ns / 1'000'000) + " ms");
}

}  // namespace mayastor::nvmf

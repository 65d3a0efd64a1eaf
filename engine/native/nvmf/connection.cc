#include "nvmf/connection.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "util/check.h"

namespace mayastor::nvmf::target {

Connection::Connection(ConnectionOwner& owner, const ConnectionOptions& options)
    : owner_(owner),
      options_(options),
      home_(&Reactor::current()),
      reactor_(home_),
      timer_([this] { on_timer(); }),
      buffer_timer_([this] {
        const auto self = shared_from_this();
        if (state_ == State::kRunning) retry_waiting();
      }),
      watch_timer_([this] {
        const auto self = shared_from_this();
        on_watch();
      }) {}

Connection::~Connection() {
  CHECK(!socket_ && !handler_ && executing_ == 0);
}

void Connection::start(std::unique_ptr<Socket> socket) {
  socket_ = std::move(socket);
  peer_ = socket_->peer_address();
  local_ = socket_->local_address();
  socket_->set_handler(this);
  timer_.arm_after(options_.ic_timeout_ms * 1'000'000);
  const auto self = shared_from_this();
  drain_input();
}

void Connection::on_connected(int32_t) {}

void Connection::on_timer() noexcept {
  const auto self = shared_from_this();
  close(state_ == State::kTerminating ? close_reason_ : "no Connect in time");
}

// ---- Setting up
// ----------------------------------------------------------------------------------

void Connection::move_to(Reactor& reactor, std::function<void(std::shared_ptr<Connection>)> moved) {
  CHECK(state_ == State::kConnecting || state_ == State::kClosed);
  auto self = shared_from_this();
  if (&reactor == reactor_) {
    moved(self);
    return;
  }
  // Posted: this may be inside the socket's own handler.
  reactor_->post([self, &reactor, moved = std::move(moved)] {
    if (self->state_ == State::kClosed) {
      --self->executing_;
      self->maybe_finish_close();
      return;
    }
    self->moving_socket_ = self->socket_->detach();
    self->socket_.reset();
    self->reactor_ = &reactor;
    reactor.post([self, moved] {
      self->socket_ = self->reactor_->ring().attach(std::move(self->moving_socket_), self.get());
      moved(self);
    });
  });
}

void Connection::accept_queue(Queue queue) {
  CHECK(executing_ > 0);
  --executing_;
  if (state_ == State::kClosed) {
    queue.handler.reset();
    maybe_finish_close();
    return;
  }
  CHECK(state_ == State::kConnecting && queue.entries >= 2);
  handler_ = std::move(queue.handler);
  qid_ = queue.qid;
  entries_ = queue.entries;
  flow_control_ = queue.flow_control;
  const auto share = [&](const std::string& what) {
    ShareBook& book = reactor_->shares();
    auto host = book.find_or_make(what + " " + queue.host);
    auto controller = book.find_or_make(what + " " + queue.host + " " + queue.controller, host);
    return std::make_shared<Share>(std::move(controller));
  };
  buffer_share_ = share("buffers");
  spare_share_ = share("spare");
  reactor_->spare().take_anyway(*spare_share_, rest_size_);
  spare_taken_ = rest_size_;
  state_ = State::kRunning;
  Cqe cqe{};
  cqe.dw0 = queue.controller_id;
  cqe.sqhd = flow_control_ ? uint16_t{1} : uint16_t{0xFFFF};
  sqhd_ = 1;  // Connect was the first entry
  cqe.cid = connect_cid_;
  send_connect_response(cqe);
  const auto self = shared_from_this();
  drain_input();
}

void Connection::reject_connect(IoStatus status, uint32_t dw0) {
  if (state_ == State::kConnecting || state_ == State::kClosed) {
    CHECK(executing_ > 0);
    --executing_;
  }
  if (state_ == State::kClosed) {
    maybe_finish_close();
    return;
  }
  Cqe cqe{};
  cqe.dw0 = dw0;
  cqe.cid = connect_cid_;
  cqe.status = encode_status(status);
  const bool moved = reactor_ != home_;
  const bool was_connecting = state_ == State::kConnecting;
  state_ = State::kAwaitConnect;
  send_connect_response(cqe);
  const auto self = shared_from_this();
  if (moved) {  // the owner can't be asked again from here
    flush();
    close("Connect was refused");
    return;
  }
  timer_.arm_after(options_.ic_timeout_ms * 1'000'000);
  if (was_connecting) drain_input();
}

// ---- Requests
// ------------------------------------------------------------------------------------

Request* Connection::take_request() noexcept {
  if (free_ == nullptr && !make_requests()) return nullptr;
  Request* const request = free_;
  free_ = request->next;
  request->next = nullptr;
  return request;
}

bool Connection::make_requests() noexcept {
  const uint32_t count = std::min(kRequestsAtOnce, entries_ - request_count_);
  const size_t bytes = kRequestsAtOnce * sizeof(Request);
  if (count == 0) return false;
  if (request_count_ == 0) {
    reactor_->spare().take_anyway(*spare_share_, bytes);
    spare_taken_ += bytes;
  } else if (!take_spare(bytes)) {
    return false;
  }
  requests_.push_back(std::make_unique<Request[]>(kRequestsAtOnce));
  for (uint32_t i = count; i-- > 0;) {
    Request& request = requests_.back()[i];
    request.connection = this;
    request.index = static_cast<uint16_t>(request_count_ + i);
    request.io.owner = &request;
    request.out.context = &request;
    request.next = free_;
    free_ = &request;
  }
  request_count_ += count;
  return true;
}

uint64_t& Connection::cid_word(uint16_t cid) noexcept {
  std::unique_ptr<uint64_t[]>& page = cids_[cid / kCidsPerPage];
  if (!page) [[unlikely]]
    page = std::make_unique<uint64_t[]>(kCidsPerPage / 64);
  return page[cid % kCidsPerPage / 64];
}

bool Connection::take_spare(size_t bytes) noexcept {
  if (!reactor_->spare().take(*spare_share_, bytes)) return false;
  spare_taken_ += bytes;
  return true;
}

void Connection::give_back_spare(size_t bytes) noexcept {
  reactor_->spare().give_back(*spare_share_, bytes);
  spare_taken_ -= bytes;
}

void Connection::release_request(Request& request) noexcept {
  if (request.buffer != nullptr) drop_buffer(request);
  if (request.owns_cid) {
    cid_word(request.sqe.cid) &= ~(uint64_t{1} << (request.sqe.cid % 64));
    request.owns_cid = false;
  }
  request.state = RequestState::kFree;
  request.next = free_;
  free_ = &request;
}

uint8_t* Connection::acquire_buffer(uint32_t bytes, bool must, bool* heap) noexcept {
  *heap = false;
  uint8_t* buffer = BufferPool::current().acquire(bytes);
  if (buffer == nullptr && must) {
    *heap = true;
    const size_t rounded = (bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
    buffer = static_cast<uint8_t*>(std::aligned_alloc(kBufferAlignment, rounded));
    CHECK(buffer != nullptr);
  }
  return buffer;
}

void Connection::release_buffer(uint8_t* buffer, uint32_t bytes, bool heap) noexcept {
  if (heap) {
    std::free(buffer);
  } else {
    BufferPool::current().release(buffer, bytes);
  }
}

bool Connection::give_buffer(Request& request, bool must) noexcept {
  BufferPool& pool = reactor_->buffers();
  const size_t size = BufferPool::size_of(request.length);
  uint8_t* buffer = nullptr;
  if (buffer_share_->may_take(size, pool.free_bytes())) buffer = pool.acquire(request.length);
  const bool heap = buffer == nullptr;
  if (!heap) {
    buffer_share_->take(size);
  } else {
    if (!must || !take_spare(size)) return false;
    buffer = static_cast<uint8_t*>(std::aligned_alloc(kBufferAlignment, size));
    CHECK(buffer != nullptr);
  }
  request.buffer = buffer;
  request.buffer_bytes = request.length;
  request.heap_buffer = heap;
  request.data = {buffer, request.length};
  return true;
}

void Connection::drop_buffer(Request& request) noexcept {
  const size_t size = BufferPool::size_of(request.buffer_bytes);
  release_buffer(request.buffer, request.buffer_bytes, request.heap_buffer);
  request.buffer = nullptr;
  if (request.heap_buffer) {
    give_back_spare(size);
  } else {
    buffer_share_->give_back(size);
  }
}

void Connection::execute(Request& request) noexcept {
  request.state = RequestState::kExecuting;
  ++executing_;
  handler_->execute(request);
}

bool Connection::abort(uint16_t cid) noexcept {
  if (state_ != State::kRunning) return false;
  for (uint32_t i = 0; i < request_count_; ++i) {
    Request& request = request_at(i);
    if (!request.owns_cid || request.sqe.cid != cid) continue;
    if (request.state == RequestState::kExecuting) return handler_->abort(request);
    if (request.state != RequestState::kWaitingBuffer) return false;
    Request** link = &waiting_;
    while (*link != &request) link = &(*link)->next;
    *link = request.next;
    if (request.next == nullptr) waiting_end_ = link;
    request.state = RequestState::kExecuting;
    ++executing_;
    handler_->on_transfer_failed(request);
    complete(request, io_status::kAborted);
    return true;
  }
  return false;
}

// ---- Closing
// -------------------------------------------------------------------------------------

void Connection::post_close(const char* why) {
  reactor_->post([self = shared_from_this(), why] {
    if (self->reactor_ == &Reactor::current()) return self->close(why);
    self->post_close(why);  // it moved on just before: the move's message is ahead of this one
  });
}

void Connection::close(const char* why) noexcept {
  if (state_ == State::kClosed) return;
  close_reason_ = why;
  const bool released = state_ == State::kTerminating;
  state_ = State::kClosed;
  timer_.disarm();
  socket_.reset();
  begin_ = end_ = 0;
  if (!released) release_all();
  maybe_finish_close();
}

// Gives up every request that is not with the handler, then asks the handler for those that wait.
void Connection::release_all() noexcept {
  CHECK(closing());
  buffer_timer_.disarm();
  watch_timer_.disarm();
  sink_ = nullptr;
  sink_remaining_ = 0;
  out_ = nullptr;
  out_end_ = &out_;
  waiting_ = nullptr;
  waiting_end_ = &waiting_;
  for (uint32_t i = 0; i < request_count_; ++i) {
    Request& request = request_at(i);
    if (request.state != RequestState::kFree && request.state != RequestState::kExecuting) {
      release_request(request);
    }
  }
  if (handler_) handler_->on_closing();
}

void Connection::maybe_finish_close() noexcept {
  if (state_ != State::kClosed || executing_ > 0 || close_posted_) return;
  close_posted_ = true;
  // Next turn: nothing of this connection is on the stack then.
  reactor_->post([self = shared_from_this()] {
    self->handler_.reset();
    self->requests_.clear();
    self->request_count_ = 0;
    self->free_ = nullptr;
    self->input_ = nullptr;
    self->rest_.reset();
    if (self->spare_share_) self->give_back_spare(self->spare_taken_);
    self->buffer_share_.reset();
    self->spare_share_.reset();
    self->home_->post([self] { self->owner_.on_closed(self); });
  });
}

}  // namespace mayastor::nvmf::target

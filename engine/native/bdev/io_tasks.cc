// Single requests as tasks: for control paths, which read and write metadata one step at a time.
#include "bdev/bdev.h"

namespace mayastor {
namespace {

struct IoAwaiter {
  Channel& channel;
  Io io{};
  iovec part{};
  IoStatus status{};
  std::coroutine_handle<> waiter{};
  bool submitting = false;
  bool finished = false;

  explicit IoAwaiter(Channel& on) : channel(on) {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> awaiting) noexcept {
    waiter = awaiting;
    io.owner = this;
    io.done = [](Io* done, IoStatus result) noexcept {
      auto* self = static_cast<IoAwaiter*>(done->owner);
      self->status = result;
      self->finished = true;
      if (!self->submitting) self->waiter.resume();  // inside submit(): await_suspend goes on
    };
    submitting = true;
    channel.submit(&io);
    submitting = false;
    return !finished;
  }
  [[nodiscard]] IoStatus await_resume() const noexcept { return status; }
};

Task<IoStatus> run(Channel* channel, IoType type, uint64_t offset, void* buffer, uint64_t length,
                   bool fua) {
  IoAwaiter request(*channel);
  request.io.type = type;
  request.io.offset = offset;
  request.io.length = length;
  request.io.fua = fua;
  if (buffer != nullptr) {
    request.part = iovec{buffer, length};
    request.io.iov = &request.part;
    request.io.iov_count = 1;
  }
  const IoStatus status = co_await request;
  co_return status;
}

}  // namespace

Task<IoStatus> read(Channel& channel, uint64_t offset, void* buffer, uint64_t length) {
  return run(&channel, IoType::kRead, offset, buffer, length, false);
}

Task<IoStatus> write(Channel& channel, uint64_t offset, const void* buffer, uint64_t length,
                     bool fua) {
  // The write path never changes the buffer; iovec has no const form.
  return run(&channel, IoType::kWrite, offset, const_cast<void*>(buffer), length, fua);
}

Task<IoStatus> flush(Channel& channel) {
  return run(&channel, IoType::kFlush, 0, nullptr, 0, false);
}

Task<IoStatus> unmap(Channel& channel, uint64_t offset, uint64_t length) {
  return run(&channel, IoType::kUnmap, offset, nullptr, length, false);
}

Task<IoStatus> write_zeroes(Channel& channel, uint64_t offset, uint64_t length) {
  return run(&channel, IoType::kWriteZeroes, offset, nullptr, length, false);
}

}  // namespace mayastor

// Ring: the only door from the engine's core to the kernel; Clock: its only source of time.
// Why: the same compiled core runs on io_uring and on a simulated ring (virtual time, in-memory
// disks and network that tear, lose, delay, reorder and vanish by seed), so every fault can be
// replayed. Owner: one reactor; every method runs on its thread. Files may be used by several rings
// at once. Invariants: a RingOp is owned by its submitter until done() is called exactly once,
// always from poll(), never from inside the submitting call; buffers and iovec arrays stay valid
// until then. Sockets and listeners are destroyed on the ring's thread, or after it has ended.
#pragma once
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "util/result.h"
#include "util/uuid.h"

namespace mayastor {

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual uint64_t now_ns() noexcept = 0;        // monotonic
  [[nodiscard]] virtual uint64_t wall_time_ns() noexcept = 0;  // since the epoch, for records only
};

struct RingOp {
  void (*done)(RingOp* op, int32_t result) noexcept = nullptr;  // bytes >= 0 or negative errno
};

// An open file or block device; it must outlive its operations.
class File : public std::enable_shared_from_this<File> {
 public:
  virtual ~File() = default;  // closes
  [[nodiscard]] virtual uint64_t size_bytes() const noexcept = 0;
  [[nodiscard]] virtual uint32_t logical_block_size() const noexcept = 0;  // O_DIRECT unit, >= 512
  [[nodiscard]] virtual uint32_t physical_block_size() const noexcept = 0;
  [[nodiscard]] virtual bool is_block_device() const noexcept = 0;
  [[nodiscard]] virtual bool direct_io() const noexcept = 0;         // page cache bypassed
  [[nodiscard]] virtual bool supports_discard() const noexcept = 0;  // punch_hole works
  // Completed writes may be lost with the power until flush() (or durable): true unless known.
  [[nodiscard]] virtual bool has_volatile_cache() const noexcept { return true; }
  // Names the medium behind the path: a disk that was plugged in anew has another one, and so has
  // another disk or file that took the path. Nil: unknown.
  [[nodiscard]] virtual Uuid medium() const noexcept { return {}; }
  // Of the block device that was opened less is left: it was unplugged, or shrunk. The kernel takes
  // the blocks of an unplugged device away and then answers a write to them with ENOSPC, a read
  // with the end of the file: only this tells that from a lack of space. Any thread; after errors.
  [[nodiscard]] virtual bool medium_gone() const noexcept { return false; }
};

struct FileOptions {
  bool direct = true;     // try O_DIRECT, fall back where the file system refuses it
  bool exclusive = true;  // O_EXCL on block devices, flock on files: in use elsewhere -> EBUSY
  bool read_only = false;
};

// Reactions of a socket's owner. Called from poll() on the owning reactor.
class SocketHandler {
 public:
  virtual ~SocketHandler() = default;
  // Once, after connect(): 0 or negative errno. Not called for accepted or attached sockets.
  virtual void on_connected(int32_t result) = 0;
  // Data or end of stream may be waiting: recv() until -EAGAIN, or return true to be called again
  // in the next turn without waiting.
  virtual bool on_readable() = 0;
  // After a sendv() that took less than all, or -EAGAIN: room again.
  virtual void on_writable() = 0;
  // While reading is paused: the peer has closed its side, or the connection is lost. At most once.
  virtual void on_peer_left() {}
};

// A connected TCP stream (TCP_NODELAY). Destroying it closes it, and drops what one from connect()
// had not delivered; no handler is called afterwards. It may be destroyed in its own handler.
class Socket {
 public:
  virtual ~Socket() = default;
  // Non-blocking. recv: bytes, 0 at end of stream, -EAGAIN, or negative errno.
  [[nodiscard]] virtual ssize_t recv(void* buffer, size_t length) noexcept = 0;
  [[nodiscard]] virtual ssize_t recvv(const iovec* parts, int count) noexcept = 0;
  [[nodiscard]] virtual ssize_t sendv(const iovec* parts, int count) noexcept = 0;
  virtual void set_handler(SocketHandler* handler) noexcept = 0;
  // A paused socket tells nothing of what arrives, and costs nothing by it; it tells when the peer
  // leaves (on_peer_left), even behind data that nobody takes. Rings without a kernel may ignore
  // it.
  virtual void pause_reading(bool /*paused*/) noexcept {}
  [[nodiscard]] virtual std::string peer_address() const = 0;   // "ip:port"
  [[nodiscard]] virtual std::string local_address() const = 0;  // "ip:port"
  // Takes the socket off its ring so that another reactor's Ring::attach() can own it. The object
  // given back has no ring and no handler; unread data stays in the stream.
  [[nodiscard]] virtual std::unique_ptr<Socket> detach() noexcept = 0;
};

class AcceptHandler {
 public:
  virtual ~AcceptHandler() = default;
  virtual void on_accept(std::unique_ptr<Socket> socket) = 0;  // attached to the listener's ring
};

class Listener {
 public:
  virtual ~Listener() = default;  // stops listening
  [[nodiscard]] virtual uint16_t port() const noexcept = 0;
};

class Ring {
 public:
  virtual ~Ring() = default;

  // Control path; may block for a moment.
  [[nodiscard]] virtual Result<std::shared_ptr<File>> open_file(const std::string& path,
                                                                const FileOptions& options) = 0;
  // Port 0 picks a free one. Address is an IPv4 or IPv6 literal.
  [[nodiscard]] virtual Result<std::unique_ptr<Listener>> listen(const std::string& address,
                                                                 uint16_t port,
                                                                 AcceptHandler* handler) = 0;
  // Never fails at once: the outcome is handler->on_connected().
  [[nodiscard]] virtual std::unique_ptr<Socket> connect(const std::string& address, uint16_t port,
                                                        SocketHandler* handler) = 0;
  // Takes over a detached socket.
  [[nodiscard]] virtual std::unique_ptr<Socket> attach(std::unique_ptr<Socket> socket,
                                                       SocketHandler* handler) = 0;

  // Disk operations. A short read or write is finished inside; result is the full length or an
  // error.
  virtual void readv(File& file, const iovec* parts, int count, uint64_t offset,
                     RingOp* op) noexcept = 0;
  // durable: on stable storage before done (FUA).
  virtual void writev(File& file, const iovec* parts, int count, uint64_t offset, bool durable,
                      RingOp* op) noexcept = 0;
  virtual void flush(File& file, RingOp* op) noexcept = 0;
  // The range reads as zeroes afterwards; space may be given back. -EOPNOTSUPP where impossible.
  virtual void punch_hole(File& file, uint64_t offset, uint64_t length, RingOp* op) noexcept = 0;
  virtual void write_zeroes(File& file, uint64_t offset, uint64_t length, RingOp* op) noexcept = 0;

  // Submits what is queued and delivers what has completed, in one turn. Waits at most `wait_ns`
  // (0: not at all) if nothing is ready. Returns the number of events delivered.
  virtual uint32_t poll(uint64_t wait_ns) noexcept = 0;
  // Ends a wait from any thread.
  virtual void wake() noexcept = 0;
};

}  // namespace mayastor

// verify_io: writes data that proves itself and later checks that nothing acknowledged was lost.
// How: `qd` workers (tasks) share one device. A failed I/O parks its worker; when all are parked
// the device is closed, opened again through the next URI, and each worker repeats what it was
// doing, so that a block's generation only moves on once it was acknowledged. Invariants: at most
// one write per block at a time; journal entries as in verify_format.h; one JSON object per line on
// stdout, the last one says whether all was as expected.
#include <poll.h>
#include <sys/signalfd.h>

#include <cinttypes>
#include <cstdarg>

#include "core/buffer.h"
#include "tools/tool_support.h"
#include "tools/verify_format.h"
#include "tools/verify_settings.h"

namespace mayastor::tool {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kReconnectPauseNs = 100'000'000;
constexpr uint32_t kMismatchesShown = 20;
constexpr uint64_t kDigestBytes = 1 << 20;

__attribute__((format(printf, 1, 2))) void line(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
  std::putchar('\n');
  std::fflush(stdout);
}

class Session final {
 public:
  Session(Runtime& runtime, Settings settings)
      : runtime_(runtime), settings_(std::move(settings)) {}

  Task<Result<int>> run() {
    Clock& clock = Reactor::current().clock();
    started_ns_ = last_completion_ns_ = interval_started_ns_ = clock.now_ns();
    if (settings_.mode != Mode::kDigest) {
      const Result<void> journal = open_journal();
      if (!journal.ok()) co_return journal.error();
    }
    if (!co_await connect()) {
      co_return Error{ErrorCode::kUnavailable, last_problem_};
    }
    if (settings_.mode == Mode::kDigest) {
      co_await digest();
    } else {
      spawn(report_progress());
      for (uint32_t i = 0; i < settings_.queue_depth; ++i) spawn(work());
      co_await workers_;
      if (settings_.mode == Mode::kWrite && !lost_) co_await final_flush();
      finished_ = true;
      co_await reporter_;
      co_await disconnect();
    }
    co_return finish();
  }

  // Commands from outside, on the home reactor.
  // Ends after the I/O in flight, even if that takes a reconnection; asked twice, gives up on it.
  void stop() {
    stopping_ = true;
    ++stop_requests_;
  }
  void status() { print_progress(); }
  void use_uri(std::string uri) {
    settings_.uris.insert(settings_.uris.begin(), std::move(uri));
    next_uri_ = 0;
  }

 private:
  Result<void> open_journal() {
    JournalHeader wanted{};
    wanted.seed = settings_.seed;
    wanted.block_bytes = settings_.block_bytes;
    if (settings_.mode == Mode::kWrite) {
      struct stat status {};
      const bool fresh = stat(settings_.journal.c_str(), &status) != 0 || status.st_size == 0;
      if (fresh && wanted.seed == 0) wanted.seed = 1;
      if (fresh && wanted.block_bytes == 0) wanted.block_bytes = 4096;
    }
    // --bytes says how many blocks; an existing journal's own block size counts if none is given.
    const uint32_t unit = wanted.block_bytes != 0 ? wanted.block_bytes : 4096;
    wanted.blocks = settings_.bytes / unit;
    const Result<void> opened =
        journal_.open(settings_.journal, wanted, settings_.mode == Mode::kWrite);
    if (!opened.ok()) return opened;
    seed_ = journal_.header().seed;
    block_bytes_ = journal_.header().block_bytes;
    blocks_ = journal_.header().blocks;
    busy_.assign(blocks_, false);
    for (uint64_t block = 0; block < blocks_; ++block) {
      if (journal_.entry(block).sent > 0) ++to_check_;
    }
    if (settings_.mode == Mode::kVerify && to_check_ == 0) {
      return Error{ErrorCode::kInvalidArgument, "Nothing was ever written with the journal " +
                                                    settings_.journal +
                                                    ": there is nothing to verify"};
    }
    random_ = Sequence(seed_ + started_ns_);  // a continued journal takes other blocks
    if (settings_.mode == Mode::kWrite && blocks_ < settings_.queue_depth * 2) {
      return Error{ErrorCode::kInvalidArgument, "--bytes is too small for --qd: two blocks each"};
    }
    return Result<void>();
  }

  // --- The path
  // -----------------------------------------------------------------------------------

  Task<bool> connect() {
    Clock& clock = Reactor::current().clock();
    const uint64_t give_up = clock.now_ns() + static_cast<uint64_t>(settings_.retry_seconds * 1e9);
    while (true) {
      const std::string uri = settings_.uris[next_uri_++ % settings_.uris.size()];
      auto created = co_await runtime_.registry().create(uri);
      if (created.ok()) {
        bdev_ = created.take();
        auto channel = co_await bdev_->open_channel();
        if (channel.ok()) {
          channel_ = channel.take();
          if (!fits()) {
            co_await disconnect();
            co_return false;
          }
          connected_once_ = true;
          line("{\"event\":\"connected\",\"uri\":%s,\"size_bytes\":%" PRIu64 ",\"seconds\":%.3f}",
               json_text(uri).c_str(), bdev_->size_bytes(), elapsed());
          co_return true;
        }
        last_problem_ = channel.error().message;
        co_await disconnect();
      } else {
        last_problem_ = created.error().message;
        if (created.error().code == ErrorCode::kInvalidArgument && !connected_once_)
          co_return false;
      }
      if (clock.now_ns() >= give_up || stop_requests_ > 1) co_return false;
      co_await sleep_for(kReconnectPauseNs);
    }
  }

  bool fits() {
    const uint64_t need =
        settings_.mode == Mode::kDigest ? settings_.bytes : blocks_ * block_bytes_;
    const bool aligned = settings_.mode == Mode::kDigest || block_bytes_ % bdev_->block_size() == 0;
    if (aligned && settings_.offset % bdev_->block_size() == 0 &&
        settings_.offset <= bdev_->size_bytes() && need <= bdev_->size_bytes() - settings_.offset) {
      return true;
    }
    last_problem_ = "The device (" + std::to_string(bdev_->size_bytes()) + " bytes, blocks of " +
                    std::to_string(bdev_->block_size()) +
                    ") is too small for --bytes at --offset-bytes, or --bs does not fit its blocks";
    return false;
  }

  Task<void> disconnect() {
    channel_.reset();
    if (bdev_ != nullptr) {
      const std::string name = bdev_->name();
      bdev_.reset();
      // Made by us and claimed by nobody: this cannot fail.
      const Result<void> destroyed = co_await runtime_.registry().destroy(name);
      CHECK(destroyed.ok());
    }
  }

  // Called by a worker whose I/O failed: true once there is a device again.
  Task<bool> wait_for_path(IoStatus why) {
    if (lost_) co_return false;
    if (parked_.empty()) {
      ++path_losses_;
      lost_at_ns_ = Reactor::current().clock().now_ns();
      line("{\"event\":\"path_lost\",\"status_type\":%u,\"status_code\":%u,\"seconds\":%.3f}",
           why.type, why.code, elapsed());
    }
    Completion<bool> back;
    parked_.push_back(&back);
    maybe_reconnect();
    co_return co_await back;
  }

  void maybe_reconnect() {
    if (parked_.empty() || parked_.size() < workers_.count() || reconnecting_) return;
    reconnecting_ = true;
    spawn(reconnect());
  }

  Task<void> reconnect() {
    workers_.add();  // the session must not end under us
    co_await disconnect();
    const bool ok = co_await connect();
    if (ok) {
      const uint64_t took = Reactor::current().clock().now_ns() - lost_at_ns_;
      line("{\"event\":\"path_back\",\"outage_ms\":%.1f}", microseconds(took) / 1000);
    } else {
      lost_ = true;
    }
    reconnecting_ = false;
    auto parked = std::exchange(parked_, {});
    for (Completion<bool>* one : parked) one->set(ok);
    workers_.done();
  }

  // --- The workers
  // --------------------------------------------------------------------------------

  Task<void> work() {
    workers_.add();
    AlignedBuffer buffer(block_bytes_);
    while (!lost_) {
      uint64_t block = 0;
      bool read = false;
      if (settings_.mode == Mode::kVerify) {
        while (next_block_ < blocks_ && journal_.entry(next_block_).sent == 0) ++next_block_;
        if (next_block_ >= blocks_ || stopping_) break;
        block = next_block_++;
        read = true;
      } else {
        if (time_is_up()) break;
        co_await throttle();
        if (time_is_up()) break;
        if (filling()) {
          block = next_block_++;
        } else {
          do {
            block = random_.below(blocks_);
          } while (busy_[block]);
          read = settings_.read_percent > 0 && journal_.entry(block).sent > 0 &&
                 random_.below(100) < settings_.read_percent;
        }
      }
      busy_[block] = true;
      if (read) {
        co_await check_block(block, buffer.data());
      } else {
        co_await write_block(block, buffer.data());
      }
      busy_[block] = false;
    }
    workers_.done();
    maybe_reconnect();  // the others may all be waiting for this one
  }

  [[nodiscard]] bool filling() const { return settings_.fill && next_block_ < blocks_; }
  [[nodiscard]] bool time_is_up() const {
    if (stopping_) return true;
    if (!settings_.seconds.has_value() || filling()) return false;
    return elapsed() >= *settings_.seconds;
  }

  Task<void> throttle() {
    if (settings_.rate == 0) co_return;
    const uint64_t now = Reactor::current().clock().now_ns();
    const uint64_t step = kSecond / settings_.rate;
    const uint64_t slot = std::max(next_slot_ns_, now > kSecond / 10 ? now - kSecond / 10 : 0);
    next_slot_ns_ = slot + step;
    if (slot > now) co_await sleep_for(slot - now);
  }

  Task<void> write_block(uint64_t block, uint8_t* data) {
    JournalEntry& entry = journal_.entry(block);
    // A write that was cut short by the end of an earlier run: repeat that generation.
    const uint32_t generation = entry.acknowledged + 1;
    fill_sectors(data, block_bytes_, seed_, block, generation);
    entry.sent = generation;
    while (true) {
      const uint64_t started = Reactor::current().clock().now_ns();
      Channel& channel = *channel_;
      const uint64_t at = settings_.offset + block * block_bytes_;
      const IoStatus status = co_await mayastor::write(channel, at, data, block_bytes_, false);
      if (status.ok()) {
        entry.acknowledged = generation;
        completed(started);
        ++writes_;
        co_return;
      }
      const bool back = co_await wait_for_path(status);
      if (!back) co_return;
    }
  }

  Task<void> check_block(uint64_t block, uint8_t* data) {
    while (true) {
      const uint64_t started = Reactor::current().clock().now_ns();
      Channel& channel = *channel_;
      const uint64_t at = settings_.offset + block * block_bytes_;
      const IoStatus status = co_await mayastor::read(channel, at, data, block_bytes_);
      if (status.ok()) {
        completed(started);
        ++reads_;
        ++checked_;
        const JournalEntry& entry = journal_.entry(block);
        const std::string problem =
            check_sectors(data, block_bytes_, seed_, block, entry.acknowledged, entry.sent);
        if (!problem.empty() && mismatches_++ < kMismatchesShown) {
          line("{\"event\":\"mismatch\",\"block\":%" PRIu64 ",\"offset_bytes\":%" PRIu64
               ",\"problem\":%s}",
               block, at, json_text(problem).c_str());
        }
        co_return;
      }
      const bool back = co_await wait_for_path(status);
      if (!back) co_return;
    }
  }

  Task<void> final_flush() {
    while (true) {
      Channel& channel = *channel_;
      const IoStatus status = co_await mayastor::flush(channel);
      if (status.ok()) co_return;
      line("{\"event\":\"path_lost\",\"status_type\":%u,\"status_code\":%u,\"seconds\":%.3f}",
           status.type, status.code, elapsed());
      ++path_losses_;
      co_await disconnect();
      const bool back = co_await connect();
      if (back) continue;
      lost_ = true;
      co_return;
    }
  }

  Task<void> digest() {
    to_check_ = settings_.bytes;
    AlignedBuffer buffer(kDigestBytes);
    ContentHash whole;
    for (uint64_t done = 0; done < settings_.bytes && !stopping_;) {
      const uint64_t length = std::min(kDigestBytes, settings_.bytes - done);
      Channel& channel = *channel_;
      const IoStatus status =
          co_await mayastor::read(channel, settings_.offset + done, buffer.data(), length);
      if (!status.ok()) {
        co_await disconnect();
        const bool back = co_await connect();
        if (back) continue;
        lost_ = true;
        break;
      }
      ContentHash part;
      part.update(buffer.data(), length);
      whole.update(buffer.data(), length);
      line("{\"event\":\"digest\",\"mib\":%" PRIu64 ",\"hash\":\"%016" PRIx64 "\"}",
           done / kDigestBytes, part.value());
      done += length;
      checked_ = done;
    }
    whole_digest_ = whole.value();
    co_await disconnect();
  }

  // --- Telling
  // ------------------------------------------------------------------------------------

  void completed(uint64_t started_ns) {
    const uint64_t now = Reactor::current().clock().now_ns();
    interval_.record(now - started_ns);
    total_.record(now - started_ns);
    note_gap(now);
    last_completion_ns_ = now;
  }
  void note_gap(uint64_t now) {
    const uint64_t gap = now - last_completion_ns_;
    longest_stall_ns_ = std::max(longest_stall_ns_, gap);
    interval_stall_ns_ = std::max(interval_stall_ns_, gap);
  }
  [[nodiscard]] double elapsed() const {
    return static_cast<double>(Reactor::current().clock().now_ns() - started_ns_) / 1e9;
  }

  Task<void> report_progress() {
    reporter_.add();
    const double period = settings_.progress_seconds;
    double due = period;
    while (!finished_ && period > 0) {
      co_await sleep_for(kSecond / 20);
      if (elapsed() < due) continue;
      due += period;
      print_progress();
    }
    reporter_.done();
  }

  void print_progress() {
    const uint64_t now = Reactor::current().clock().now_ns();
    if (!finished_) note_gap(now);
    const double seconds = static_cast<double>(now - interval_started_ns_) / 1e9;
    const double iops = seconds > 0 ? static_cast<double>(interval_.count()) / seconds : 0;
    line(
        "{\"event\":\"progress\",\"seconds\":%.1f,\"iops\":%.0f,\"p50_us\":%.0f,\"p99_us\":%.0f,"
        "\"max_us\":%.0f,\"stall_ms\":%.0f,\"writes\":%" PRIu64 ",\"reads\":%" PRIu64
        ",\"mismatches\":%" PRIu64 ",\"connected\":%s}",
        elapsed(), iops, microseconds(interval_.percentile(0.5)),
        microseconds(interval_.percentile(0.99)), microseconds(interval_.max()),
        microseconds(interval_stall_ns_) / 1000, writes_, reads_, mismatches_,
        channel_ != nullptr && parked_.empty() ? "true" : "false");
    interval_.clear();
    interval_stall_ns_ = 0;
    interval_started_ns_ = now;
  }

  int finish() {
    // A proof that was cut short is none.
    const bool proves = settings_.mode != Mode::kWrite;
    if (proves && stopping_ && !lost_ && checked_ < to_check_) {
      lost_ = true;
      last_problem_ = "Stopped after " + std::to_string(checked_) + " of " +
                      std::to_string(to_check_) +
                      (settings_.mode == Mode::kDigest ? " bytes" : " blocks");
    }
    const bool ok = !lost_ && mismatches_ == 0;
    std::string extra;
    if (settings_.mode == Mode::kDigest) {
      char text[48];
      std::snprintf(text, sizeof(text), ",\"hash\":\"%016" PRIx64 "\"", whole_digest_);
      extra = text;
    } else {
      uint64_t written = 0, in_doubt = 0;
      for (uint64_t block = 0; block < blocks_; ++block) {
        const JournalEntry& entry = journal_.entry(block);
        if (entry.sent > 0) ++written;
        if (entry.sent != entry.acknowledged) ++in_doubt;
      }
      extra = ",\"blocks_written\":" + std::to_string(written) +
              ",\"blocks_in_doubt\":" + std::to_string(in_doubt);
      if (proves) extra += ",\"blocks_checked\":" + std::to_string(checked_);
    }
    if (lost_) extra += ",\"problem\":" + json_text(last_problem_);
    line("{\"event\":\"result\",\"ok\":%s,\"seconds\":%.1f,\"writes\":%" PRIu64
         ",\"reads\":%" PRIu64 ",\"mismatches\":%" PRIu64
         ",\"path_losses\":%u,\"longest_stall_ms\":%.0f,\"p50_us\":%.0f,\"p99_us\":%.0f,"
         "\"max_us\":%.0f%s}",
         ok ? "true" : "false", elapsed(), writes_, reads_, mismatches_, path_losses_,
         microseconds(longest_stall_ns_) / 1000, microseconds(total_.percentile(0.5)),
         microseconds(total_.percentile(0.99)), microseconds(total_.max()), extra.c_str());
    if (mismatches_ > 0) return kExitWrong;
    return lost_ ? kExitLost : kExitOk;
  }

  Runtime& runtime_;
  Settings settings_;
  Journal journal_;
  uint64_t seed_ = 0, blocks_ = 0;
  uint32_t block_bytes_ = 0;
  std::shared_ptr<Bdev> bdev_;
  std::unique_ptr<Channel> channel_;
  size_t next_uri_ = 0;
  std::string last_problem_;
  bool connected_once_ = false, stopping_ = false, lost_ = false, reconnecting_ = false,
       finished_ = false;
  Latch workers_, reporter_;
  std::vector<Completion<bool>*> parked_;
  std::vector<bool> busy_;
  Sequence random_{1};
  uint64_t next_block_ = 0, next_slot_ns_ = 0;
  uint64_t started_ns_ = 0, last_completion_ns_ = 0, interval_started_ns_ = 0, lost_at_ns_ = 0;
  uint64_t longest_stall_ns_ = 0, interval_stall_ns_ = 0;
  uint64_t writes_ = 0, reads_ = 0, mismatches_ = 0;
  uint64_t whole_digest_ = 0;
  uint64_t checked_ = 0, to_check_ = 0;  // blocks; bytes of a digest
  uint32_t path_losses_ = 0, stop_requests_ = 0;
  Histogram interval_, total_;
};

// Signals and stdin, until the session has ended.
void listen(Runtime& runtime, Session& session, int ended_fd) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  const int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
  CHECK(signal_fd >= 0);
  std::string pending;
  pollfd fds[3] = {{signal_fd, POLLIN, 0}, {ended_fd, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
  while (true) {
    if (::poll(fds, 3, -1) < 0) continue;
    if ((fds[1].revents & (POLLIN | POLLHUP)) != 0) break;
    if ((fds[0].revents & POLLIN) != 0) {
      signalfd_siginfo info{};
      if (::read(signal_fd, &info, sizeof(info)) > 0) {
        runtime.home().post([&session] { session.stop(); });
      }
    }
    if (fds[2].revents == 0) continue;
    char chunk[512];
    const ssize_t got = ::read(STDIN_FILENO, chunk, sizeof(chunk));
    if (got <= 0) {
      fds[2].fd = -1;  // closed stdin is no command
      continue;
    }
    pending.append(chunk, static_cast<size_t>(got));
    for (size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
      const std::string command = pending.substr(0, end);
      pending.erase(0, end + 1);
      if (command == "stop") {
        runtime.home().post([&session] { session.stop(); });
      } else if (command == "status") {
        runtime.home().post([&session] { session.status(); });
      } else if (command.starts_with("uri ")) {
        runtime.home().post([&session, uri = command.substr(4)] { session.use_uri(uri); });
      } else if (!command.empty()) {
        std::fprintf(stderr, "Unknown command '%s': stop, status or uri URI\n", command.c_str());
      }
    }
  }
  close(signal_fd);
}

int run(int argc, char** argv) {
  const Flags flags(
      argc, argv,
      {"uri", "journal", "bytes", "offset-bytes", "seed", "rate", "bs", "qd", "read-percent",
       "seconds", "retry-seconds", "io-timeout-ms", "progress-seconds"},
      {"fill"}, kVerifyHelp);
  const Settings settings = parse_settings(flags);
  nvmf::InitiatorOptions initiator;
  initiator.host_nqn = "nqn.2019-05.io.openebs:tool:verify-io";
  initiator.queue_depth = settings.queue_depth;
  initiator.io_timeout_ms = static_cast<uint32_t>(flags.size("io-timeout-ms", 5000, 1, 600'000));
  initiator.admin_timeout_ms = initiator.io_timeout_ms;
  initiator.connect_timeout_ms = initiator.io_timeout_ms;
  Runtime runtime({-1}, false, initiator);
  Session session(runtime, settings);
  int ended[2];
  CHECK(pipe(ended) == 0);
  std::thread listener([&] { listen(runtime, session, ended[0]); });
  const Result<int> result = runtime.run<Result<int>>([&] { return session.run(); });
  close(ended[1]);
  listener.join();
  close(ended[0]);
  if (result.ok()) return result.value();
  line("{\"event\":\"result\",\"ok\":false,\"problem\":%s}",
       json_text(result.error().message).c_str());
  return result.error().code == ErrorCode::kInvalidArgument ? kExitUsage : kExitLost;
}

}  // namespace
}  // namespace mayastor::tool

int main(int argc, char** argv) {
  return mayastor::tool::run(argc, argv);
}

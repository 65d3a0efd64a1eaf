// perf: load generator for any device the engine can open. One worker per core, each with its own
// channel and `qd` requests in flight; offsets come from a seed, latencies go into a histogram.
// Invariants: nothing is allocated while measuring; every request in flight is awaited before the
// program ends; with --verify every byte read is compared with what was written there.
#include <atomic>
#include <cstring>

#include "core/buffer.h"
#include "tools/tool_support.h"

namespace mayastor::tool {
namespace {

constexpr char kHelp[] =
    "perf: load generator\n"
    "  --uri URI         device: nvmf://host:port/nqn, aio:///path, uring:///path,\n"
    "                    malloc:///name?size_mb=64\n"
    "  --rw KIND         randread (default), randwrite, randrw, read, write\n"
    "  --mix PERCENT     reads in randrw, default 70\n"
    "  --bs BYTES        default 4096\n"
    "  --qd N            requests in flight per core, default 32\n"
    "  --runtime S       measured seconds, default 5\n"
    "  --warmup S        seconds before, default 1\n"
    "  --cores LIST      0 or 0,2 or 1-3; default any: one worker, not pinned\n"
    "  --poll            reactors never sleep\n"
    "  --bytes BYTES     use only the first part of the device\n"
    "  --seed N          default 1\n"
    "  --verify          fill first, then check every byte read\n"
    "  --json            one JSON object instead of text\n";

struct Plan {
  uint32_t read_percent = 100;
  bool sequential = false;
  bool verify = false;
  uint64_t block_bytes = 4096;
  uint64_t blocks = 0;
  uint32_t queue_depth = 32;
  uint64_t seed = 1;
};

// What a block holds under --verify: a function of the seed and its place.
void fill_block(uint8_t* data, uint64_t bytes, uint64_t seed, uint64_t block) {
  Sequence sequence(seed ^ (block << 20));
  for (uint64_t at = 0; at < bytes; at += 8) {
    const uint64_t word = sequence.next();
    std::memcpy(data + at, &word, 8);
  }
}

class Worker final : public Message {
 public:
  Worker(Reactor& reactor, const Plan& plan, uint32_t index, uint32_t workers)
      : reactor_(reactor),
        plan_(plan),
        random_(plan.seed + index * 7919),
        next_block_(plan.blocks / workers * index),
        buffer_(plan.block_bytes * plan.queue_depth),
        expected_(plan.verify ? plan.block_bytes : 0),
        slots_(plan.queue_depth) {
    fn = [](Message* message) noexcept {
      auto* self = static_cast<Worker*>(message);
      self->posted_ = false;
      self->drain();
    };
    for (uint32_t i = 0; i < plan.queue_depth; ++i) {
      Slot& slot = slots_[i];
      slot.worker = this;
      slot.part = iovec{buffer_.data() + i * plan.block_bytes, plan.block_bytes};
      std::memset(slot.part.iov_base, static_cast<int>(0x40 + i % 64), plan.block_bytes);
    }
  }

  Task<Result<bool>> open(std::shared_ptr<Bdev> bdev) {
    auto channel = co_await bdev->open_channel();
    if (!channel.ok()) co_return channel.error();
    channel_ = channel.take();
    co_return true;
  }
  Task<bool> close() {
    channel_.reset();
    co_return true;
  }
  // Until stop: keeps the queue full. `first_pass`: writes every block of [first, last) once.
  Task<bool> run(uint64_t first, uint64_t last, bool first_pass) {
    first_pass_ = first_pass;
    pass_next_ = first;
    pass_last_ = last;
    stopping_ = false;
    Completion<bool> idle;
    idle_ = &idle;
    for (Slot& slot : slots_) ready_.push_back(&slot);
    drain();
    const bool done = co_await idle;
    ready_.clear();
    co_return done;
  }
  void stop() { stopping_ = true; }
  void start_measuring() {
    latency_.clear();
    reads_ = writes_ = 0;
  }
  Reactor& reactor_;
  Histogram latency_;
  uint64_t reads_ = 0, writes_ = 0, errors_ = 0, mismatches_ = 0;
  IoStatus first_error_;

 private:
  struct Slot : Io {
    Worker* worker = nullptr;
    iovec part{};
    uint64_t started_ns = 0;
  };
  static constexpr uint32_t kBurst = 256;  // inline completions before others get a turn

  void drain() {
    if (draining_) return;
    draining_ = true;
    for (uint32_t i = 0; i < kBurst && !ready_.empty() && !stopping_; ++i) {
      Slot* slot = ready_.back();
      ready_.pop_back();
      if (first_pass_ && pass_next_ == pass_last_) {
        stopping_ = true;
        break;
      }
      start(*slot);
    }
    draining_ = false;
    if (stopping_) {
      if (in_flight_ == 0 && !posted_) {
        if (auto* idle = std::exchange(idle_, nullptr)) idle->set(true);
      }
    } else if (!ready_.empty() && !posted_) {
      posted_ = true;
      reactor_.send(this);
    }
  }

  void start(Slot& slot) {
    uint64_t block = 0;
    bool read = false;
    if (first_pass_) {
      block = pass_next_++;
    } else {
      if (plan_.sequential) {
        block = next_block_++ % plan_.blocks;
      } else {
        block = random_.below(plan_.blocks);
      }
      read = plan_.read_percent == 100 ||
             (plan_.read_percent > 0 && random_.below(100) < plan_.read_percent);
    }
    slot.type = read ? IoType::kRead : IoType::kWrite;
    slot.offset = block * plan_.block_bytes;
    slot.length = plan_.block_bytes;
    slot.iov = &slot.part;
    slot.iov_count = 1;
    slot.done = &Worker::done;
    if (plan_.verify && !read) {
      fill_block(static_cast<uint8_t*>(slot.part.iov_base), plan_.block_bytes, plan_.seed, block);
    }
    ++in_flight_;
    slot.started_ns = reactor_.clock().now_ns();
    channel_->submit(&slot);
  }

  static void done(Io* io, IoStatus status) noexcept {
    auto* slot = static_cast<Slot*>(io);
    slot->worker->finished(*slot, status);
  }

  void finished(Slot& slot, IoStatus status) {
    latency_.record(reactor_.clock().now_ns() - slot.started_ns);
    --in_flight_;
    ++(slot.type == IoType::kRead ? reads_ : writes_);
    if (!status.ok()) {
      if (errors_++ == 0) first_error_ = status;
      stopping_ = true;
    } else if (plan_.verify && slot.type == IoType::kRead) {
      fill_block(expected_.data(), plan_.block_bytes, plan_.seed, slot.offset / plan_.block_bytes);
      if (std::memcmp(expected_.data(), slot.part.iov_base, plan_.block_bytes) != 0) ++mismatches_;
    }
    ready_.push_back(&slot);
    drain();
  }

  const Plan plan_;
  Sequence random_;
  uint64_t next_block_;
  AlignedBuffer buffer_;
  std::vector<uint8_t> expected_;
  std::vector<Slot> slots_;
  std::vector<Slot*> ready_;
  std::unique_ptr<Channel> channel_;
  Completion<bool>* idle_ = nullptr;
  uint64_t pass_next_ = 0, pass_last_ = 0;
  uint32_t in_flight_ = 0;
  bool first_pass_ = false, stopping_ = false, draining_ = false, posted_ = false;
};

struct Outcome {
  Histogram latency;
  uint64_t reads = 0, writes = 0, errors = 0, mismatches = 0;
  IoStatus first_error;
  double seconds = 0, cpu_seconds = 0;
};

class Session final {
 public:
  Session(Runtime& runtime, Plan plan, std::string uri, double warmup, double runtime_seconds,
          uint64_t limit_bytes)
      : runtime_(runtime),
        plan_(plan),
        uri_(std::move(uri)),
        warmup_(warmup),
        seconds_(runtime_seconds),
        limit_bytes_(limit_bytes) {}

  Task<Result<Outcome>> run() {
    auto created = co_await runtime_.registry().create(uri_);
    if (!created.ok()) co_return created.error();
    bdev_ = created.take();
    const uint64_t bytes = std::min(bdev_->size_bytes(), limit_bytes_);
    if (plan_.block_bytes % bdev_->block_size() != 0 || bytes < plan_.block_bytes) {
      co_return Error{ErrorCode::kInvalidArgument,
                      "--bs must be a multiple of the device's block size " +
                          std::to_string(bdev_->block_size()) + " and fit on it"};
    }
    plan_.blocks = bytes / plan_.block_bytes;
    const auto count = static_cast<uint32_t>(runtime_.reactors().size());
    for (uint32_t i = 0; i < count; ++i) {
      workers_.push_back(std::make_unique<Worker>(runtime_.reactors().at(i), plan_, i, count));
    }
    for (auto& worker : workers_) {
      Worker* at = worker.get();
      std::function<Task<Result<bool>>()> open = [at, bdev = bdev_] { return at->open(bdev); };
      const Result<bool> opened = co_await call_on<Result<bool>>(at->reactor_, open);
      if (!opened.ok()) {
        co_await close();
        co_return opened.error();
      }
    }
    if (plan_.verify) {
      Worker* first = workers_.front().get();
      const uint64_t blocks = plan_.blocks;
      std::function<Task<bool>()> fill = [first, blocks] { return first->run(0, blocks, true); };
      co_await call_on<bool>(first->reactor_, fill);
    }
    for (auto& worker : workers_) spawn(drive(worker.get()));
    co_await sleep_for(static_cast<uint64_t>(warmup_ * 1e9));
    for (auto& worker : workers_) {
      worker->reactor_.post([at = worker.get()] { at->start_measuring(); });
    }
    const double cpu_before = process_cpu_seconds();
    Clock& clock = Reactor::current().clock();
    const uint64_t before = clock.now_ns();
    co_await sleep_for(static_cast<uint64_t>(seconds_ * 1e9));
    Outcome outcome;
    outcome.seconds = static_cast<double>(clock.now_ns() - before) / 1e9;
    outcome.cpu_seconds = process_cpu_seconds() - cpu_before;
    for (auto& worker : workers_) {
      worker->reactor_.post([at = worker.get()] { at->stop(); });
    }
    co_await running_;
    for (auto& worker : workers_) {
      outcome.latency.add(worker->latency_);
      outcome.reads += worker->reads_;
      outcome.writes += worker->writes_;
      outcome.mismatches += worker->mismatches_;
      if (worker->errors_ > 0 && outcome.errors == 0) outcome.first_error = worker->first_error_;
      outcome.errors += worker->errors_;
    }
    co_await close();
    co_return outcome;
  }

 private:
  Task<void> drive(Worker* worker) {
    running_.add();
    std::function<Task<bool>()> run = [worker] { return worker->run(0, 0, false); };
    co_await call_on<bool>(worker->reactor_, run);
    running_.done();
  }
  Task<void> close() {
    for (auto& worker : workers_) {
      Worker* at = worker.get();
      std::function<Task<bool>()> shut = [at] { return at->close(); };
      co_await call_on<bool>(at->reactor_, shut);
    }
    const std::string name = bdev_->name();
    bdev_.reset();
    // It was created here and is claimed by nobody, so it can always be destroyed.
    const Result<void> destroyed = co_await runtime_.registry().destroy(name);
    CHECK(destroyed.ok());
  }

  Runtime& runtime_;
  Plan plan_;
  const std::string uri_;
  const double warmup_, seconds_;
  const uint64_t limit_bytes_;
  std::shared_ptr<Bdev> bdev_;
  std::vector<std::unique_ptr<Worker>> workers_;
  Latch running_;
};

void print(const Outcome& o, const Plan& plan, const std::string& uri, const std::string& rw,
           size_t cores, bool json) {
  const double total = static_cast<double>(o.reads + o.writes);
  const double iops = total / o.seconds;
  const double mib = iops * static_cast<double>(plan.block_bytes) / (1 << 20);
  const double cpu = total > 0 ? o.cpu_seconds / total * 1e6 : 0;
  const auto at = [&](double part) { return microseconds(o.latency.percentile(part)); };
  if (json) {
    std::printf(
        "{\"uri\":%s,\"rw\":\"%s\",\"block_bytes\":%llu,\"queue_depth\":%u,\"cores\":%zu,"
        "\"seconds\":%.3f,\"reads\":%llu,\"writes\":%llu,\"iops\":%.0f,\"mib_per_second\":%.1f,"
        "\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,"
        "\"cpu_seconds_per_million\":%.3f,\"errors\":%llu,\"mismatches\":%llu}\n",
        json_text(uri).c_str(), rw.c_str(), static_cast<unsigned long long>(plan.block_bytes),
        plan.queue_depth, cores, o.seconds, static_cast<unsigned long long>(o.reads),
        static_cast<unsigned long long>(o.writes), iops, mib, at(0.5), at(0.9), at(0.99), at(0.999),
        microseconds(o.latency.max()), cpu, static_cast<unsigned long long>(o.errors),
        static_cast<unsigned long long>(o.mismatches));
    return;
  }
  std::printf("%s bs=%llu qd=%u cores=%zu: %.0f IOPS, %.1f MiB/s\n", rw.c_str(),
              static_cast<unsigned long long>(plan.block_bytes), plan.queue_depth, cores, iops,
              mib);
  std::printf("latency us: p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f\n", at(0.5), at(0.9),
              at(0.99), at(0.999), microseconds(o.latency.max()));
  std::printf("own CPU: %.3f s per million I/Os\n", cpu);
  if (o.mismatches > 0) {
    std::printf("MISMATCHES: %llu blocks\n", static_cast<unsigned long long>(o.mismatches));
  }
}

int run(int argc, char** argv) {
  const Flags flags(argc, argv,
                    {"uri", "rw", "mix", "bs", "qd", "runtime", "warmup", "cores", "bytes", "seed"},
                    {"poll", "verify", "json"}, kHelp);
  if (!flags.words().empty()) usage_error("Unexpected argument " + flags.words().front());
  if (!flags.has("uri")) usage_error("--uri is required");
  Plan plan;
  const std::string rw = flags.text("rw", "randread");
  if (rw == "randread" || rw == "read") {
    plan.read_percent = 100;
  } else if (rw == "randwrite" || rw == "write") {
    plan.read_percent = 0;
  } else if (rw == "randrw") {
    plan.read_percent = static_cast<uint32_t>(flags.size("mix", 70, 0, 100));
  } else {
    usage_error("--rw must be randread, randwrite, randrw, read or write, not '" + rw + "'");
  }
  plan.sequential = rw == "read" || rw == "write";
  plan.verify = flags.has("verify");
  plan.block_bytes = flags.size("bs", 4096, 512, 1 << 20);
  if (plan.block_bytes % 512 != 0) usage_error("--bs must be a multiple of 512");
  plan.queue_depth = static_cast<uint32_t>(flags.size("qd", 32, 1, 4096));
  plan.seed = flags.size("seed", 1);
  const std::vector<int32_t> cores = parse_cores(flags.text("cores", "any"));
  nvmf::InitiatorOptions initiator;
  initiator.host_nqn = "nqn.2019-05.io.openebs:tool:perf";
  initiator.queue_depth = std::min(plan.queue_depth, 1023U);
  Runtime runtime(cores, flags.has("poll"), initiator);
  Session session(runtime, plan, flags.text("uri", ""), flags.seconds("warmup", 1),
                  flags.seconds("runtime", 5), flags.size("bytes", UINT64_MAX, 4096));
  const Result<Outcome> outcome = runtime.run<Result<Outcome>>([&] { return session.run(); });
  if (!outcome.ok()) {
    std::fprintf(stderr, "%s\n", outcome.error().message.c_str());
    return kExitLost;
  }
  const Outcome& o = outcome.value();
  print(o, plan, flags.text("uri", ""), rw, cores.size(), flags.has("json"));
  if (o.errors > 0) {
    std::fprintf(stderr, "%llu I/Os failed, the first with status type %u code 0x%02x\n",
                 static_cast<unsigned long long>(o.errors), o.first_error.type, o.first_error.code);
    return kExitLost;
  }
  return o.mismatches > 0 ? kExitWrong : kExitOk;
}

}  // namespace
}  // namespace mayastor::tool

int main(int argc, char** argv) {
  return mayastor::tool::run(argc, argv);
}

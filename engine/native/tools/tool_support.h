// What the native tools share: flags, sizes, latency histogram, JSON lines, reactors.
// Why a header: each tools/NAME.cc is one program.
#pragma once
#include <signal.h>
#include <sys/resource.h>
#include <time.h>

#include <array>
#include <bit>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "bdev/bdev.h"
#include "bdev/builtin.h"
#include "core/make_ring.h"
#include "core/reactor.h"
#include "nvmf/initiator.h"
#include "util/result.h"
#include "util/uri.h"

namespace mayastor::tool {

inline constexpr int kExitOk = 0, kExitWrong = 1, kExitUsage = 2, kExitLost = 3;

[[noreturn]] inline void usage_error(const std::string& text) {
  std::fprintf(stderr, "%s\nTry --help.\n", text.c_str());
  std::exit(kExitUsage);
}

// 4096, 128KiB, 1MiB, 2GiB.
inline std::optional<uint64_t> parse_size(std::string_view text) {
  uint32_t shift = 0;
  for (const auto& [suffix, bits] :
       {std::pair<std::string_view, uint32_t>{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}}) {
    if (!text.ends_with(suffix)) continue;
    text.remove_suffix(suffix.size());
    shift = bits;
    break;
  }
  const auto value = parse_u64(text);
  if (!value.has_value() || *value > (UINT64_MAX >> shift)) return std::nullopt;
  return *value << shift;
}

// --name value, --name=value and --switch. Unknown flags and bad values end the program.
class Flags final {
 public:
  Flags(int argc, char** argv, const std::set<std::string>& valued,
        const std::set<std::string>& switches, const char* help) {
    for (int i = 1; i < argc; ++i) {
      std::string argument = argv[i];
      if (argument == "--help" || argument == "-h") {
        std::fputs(help, stdout);
        std::exit(kExitOk);
      }
      if (!argument.starts_with("--")) {
        words_.push_back(std::move(argument));
        continue;
      }
      std::string name = argument.substr(2);
      std::optional<std::string> value;
      if (const size_t equals = name.find('='); equals != std::string::npos) {
        value = name.substr(equals + 1);
        name.resize(equals);
      }
      if (switches.contains(name)) {
        if (value.has_value()) usage_error("--" + name + " takes no value");
        values_.emplace(name, "");
      } else if (valued.contains(name)) {
        if (!value.has_value()) {
          if (++i >= argc) usage_error("--" + name + " needs a value");
          value = argv[i];
        }
        values_.emplace(name, *value);
      } else {
        usage_error("Unknown flag --" + name);
      }
    }
  }
  [[nodiscard]] bool has(const std::string& name) const { return values_.contains(name); }
  [[nodiscard]] std::vector<std::string> all(const std::string& name) const {
    std::vector<std::string> found;
    const auto [begin, end] = values_.equal_range(name);
    for (auto at = begin; at != end; ++at) found.push_back(at->second);
    return found;
  }
  [[nodiscard]] std::string text(const std::string& name, const std::string& otherwise) const {
    const auto found = all(name);
    return found.empty() ? otherwise : found.back();
  }
  [[nodiscard]] uint64_t size(const std::string& name, uint64_t otherwise, uint64_t least = 0,
                              uint64_t most = UINT64_MAX) const {
    if (!has(name)) return otherwise;
    const auto value = parse_size(text(name, ""));
    if (!value.has_value() || *value < least || *value > most) {
      usage_error("--" + name + " must be a number from " + std::to_string(least) +
                  (most == UINT64_MAX ? " up" : " to " + std::to_string(most)) + ", not '" +
                  text(name, "") + "'");
    }
    return *value;
  }
  [[nodiscard]] double seconds(const std::string& name, double otherwise) const {
    if (!has(name)) return otherwise;
    char* end = nullptr;
    const std::string value = text(name, "");
    const double parsed = std::strtod(value.c_str(), &end);
    if (value.empty() || *end != '\0' || !(parsed >= 0) || parsed > 1e7) {
      usage_error("--" + name + " must be a number of seconds, not '" + value + "'");
    }
    return parsed;
  }
  [[nodiscard]] const std::vector<std::string>& words() const { return words_; }

 private:
  std::multimap<std::string, std::string> values_;
  std::vector<std::string> words_;
};

// Counts of nanoseconds in buckets under 1 % wide.
class Histogram final {
 public:
  void record(uint64_t value) noexcept {
    ++buckets_[index_of(value)];
    ++count_;
    if (value > max_) max_ = value;
  }
  void add(const Histogram& other) noexcept {
    for (size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
    count_ += other.count_;
    if (other.max_ > max_) max_ = other.max_;
  }
  void clear() noexcept {
    buckets_.fill(0);
    count_ = max_ = 0;
  }
  [[nodiscard]] uint64_t count() const noexcept { return count_; }
  [[nodiscard]] uint64_t max() const noexcept { return max_; }
  // Upper end of the bucket which holds the given part (0..1) of the values.
  [[nodiscard]] uint64_t percentile(double part) const noexcept {
    if (count_ == 0) return 0;
    const auto wanted = static_cast<uint64_t>(part * static_cast<double>(count_ - 1)) + 1;
    uint64_t seen = 0;
    for (size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen >= wanted) return upper_of(i) < max_ ? upper_of(i) : max_;
    }
    return max_;
  }

 private:
  static constexpr uint32_t kSubBits = 7;
  static constexpr size_t kSub = 1U << kSubBits;
  static size_t index_of(uint64_t value) noexcept {
    if (value < kSub) return static_cast<size_t>(value);
    const auto power = static_cast<uint32_t>(63 - std::countl_zero(value)) - kSubBits;
    return (static_cast<size_t>(power) + 1) * kSub + static_cast<size_t>((value >> power) - kSub);
  }
  static uint64_t upper_of(size_t index) noexcept {
    if (index < kSub) return index;
    const auto power = static_cast<uint32_t>(index / kSub) - 1;
    return ((kSub + index % kSub + 1) << power) - 1;
  }
  std::array<uint64_t, kSub*(64 - kSubBits + 1)> buckets_{};
  uint64_t count_ = 0, max_ = 0;
};

// xorshift64*: the same offsets for the same seed, everywhere.
class Sequence final {
 public:
  explicit Sequence(uint64_t seed) noexcept
      : state_(seed * 0x9E3779B97F4A7C15u + 0xD1B54A32D192ED03u) {
    if (state_ == 0) state_ = 1;
  }
  uint64_t next() noexcept {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1Du;
  }
  uint64_t below(uint64_t limit) noexcept {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * limit) >> 64);
  }

 private:
  uint64_t state_;
};

inline std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char raw : text) {
    const auto c = static_cast<unsigned char>(raw);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += raw;
    } else if (c < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\u%04x", c);
      out += escaped;
    } else {
      out += raw;
    }
  }
  return out + "\"";
}

inline double microseconds(uint64_t ns) {
  return static_cast<double>(ns) / 1000.0;
}

inline double process_cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// "0", "0,2", "1-3"; "any" for one reactor that is not pinned.
inline std::vector<int32_t> parse_cores(const std::string& text) {
  if (text == "any") return {-1};
  std::vector<int32_t> cores;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, comma - at);
    const size_t dash = part.find('-');
    const auto first = parse_u64(part.substr(0, dash));
    const auto last = dash == std::string::npos ? first : parse_u64(part.substr(dash + 1));
    if (!first.has_value() || !last.has_value() || *first > *last || *last > 1023) {
      usage_error("--cores must be like 0 or 0,2 or 1-3 or any, not '" + text + "'");
    }
    for (uint64_t core = *first; core <= *last; ++core) cores.push_back(static_cast<int32_t>(core));
    at = comma + 1;
  }
  return cores;
}

// The reactors of a tool, started; and its devices.
class Runtime final {
 public:
  Runtime(const std::vector<int32_t>& cores, bool poll, nvmf::InitiatorOptions initiator) {
    // Threads inherit the mask: only the main thread looks at signals.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    signal(SIGPIPE, SIG_IGN);
    std::vector<std::unique_ptr<Reactor>> list;
    for (const int32_t core : cores) {
      ReactorOptions options;
      options.index = static_cast<uint32_t>(list.size());
      options.core = core;
      options.poll = poll;
      const RingOptions ring_options;
      auto made = make_ring(ring_options);
      if (!made.ok()) {
        std::fprintf(stderr, "%s\n", made.error().message.c_str());
        std::exit(kExitLost);
      }
      if (!made.value().note.empty() && list.empty()) {
        std::fprintf(stderr, "%s\n", made.value().note.c_str());
      }
      list.push_back(
          std::make_unique<Reactor>(options, std::move(made.value().ring), system_clock()));
    }
    reactors_ = std::make_unique<Reactors>(std::move(list));
    register_builtin_schemes(registry_);
    initiator_ = nvmf::register_nvmf_scheme(registry_, *reactors_, std::move(initiator));
    reactors_->start();
  }
  ~Runtime() { reactors_->stop_and_join(); }
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  [[nodiscard]] Reactors& reactors() { return *reactors_; }
  [[nodiscard]] Reactor& home() { return reactors_->home(); }
  [[nodiscard]] BdevRegistry& registry() { return registry_; }

  // Runs a task on the home reactor to its end; the calling thread waits.
  template <typename T>
  T run(std::function<Task<T>()> make) {
    Waiter<T> waiter;
    home().post([&] { spawn(store<T>(make, &waiter)); });
    std::unique_lock<std::mutex> lock(waiter.mutex);
    waiter.ended.wait(lock, [&] { return waiter.value.has_value(); });
    return std::move(*waiter.value);
  }

 private:
  template <typename T>
  struct Waiter {
    std::mutex mutex;
    std::condition_variable ended;
    std::optional<T> value;
  };
  template <typename T>
  static Task<void> store(std::function<Task<T>()> make, Waiter<T>* waiter) {
    T value = co_await make();
    // Notified under the lock: the waiter may be gone as soon as it is free.
    const std::lock_guard<std::mutex> lock(waiter->mutex);
    waiter->value.emplace(std::move(value));
    waiter->ended.notify_one();
  }
  std::unique_ptr<Reactors> reactors_;
  BdevRegistry registry_;
  std::shared_ptr<nvmf::Initiator> initiator_;
};

}  // namespace mayastor::tool

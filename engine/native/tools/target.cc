// target: one bdev over NVMe/TCP without the rest of the engine. Why: to profile and measure the
// data path alone.
#include "nvmf/target.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <cinttypes>

#include "tools/tool_support.h"

namespace mayastor::tool {
namespace {

constexpr char kHelp[] =
    "target: serves one device over NVMe/TCP until SIGTERM or SIGINT\n"
    "  --bdev URI       aio:///path, uring:///path, malloc:///name?size_mb=64, nvmf://...\n"
    "  --listen ADDR    address:port, default 127.0.0.1:4420\n"
    "  --nqn NQN        default nqn.2019-05.io.openebs:target\n"
    "  --cores LIST     0 or 0,2 or 1-3; default any: one reactor, not pinned\n"
    "  --depth N        entries of an I/O queue, default 128\n"
    "  --poll           reactors never sleep\n"
    "Prints one JSON line when it can be reached: {\"event\":\"listening\",\"uri\":...}\n";

Task<Result<bool>> start(Runtime& runtime, nvmf::Target& target, std::string uri, std::string nqn) {
  auto bdev = co_await runtime.registry().create(uri);
  if (!bdev.ok()) co_return bdev.error();
  const Result<void> started = co_await target.start();
  if (!started.ok()) co_return started.error();
  nvmf::SubsystemOptions subsystem;
  subsystem.nqn = nqn;
  subsystem.serial = "TARGET";
  subsystem.bdev = bdev.value();
  subsystem.nguid = bdev.value()->uuid();
  const Result<void> added = co_await target.add_subsystem(subsystem);
  if (!added.ok()) co_return added.error();
  co_return true;
}

Task<bool> stop(Runtime& runtime, std::unique_ptr<nvmf::Target>& target) {
  co_await target->stop();
  target.reset();
  for (const auto& bdev : runtime.registry().list()) {
    const std::string name = bdev->name();
    const Result<void> destroyed = co_await runtime.registry().destroy(name);
    CHECK(destroyed.ok());
  }
  co_return true;
}

int run(int argc, char** argv) {
  const Flags flags(argc, argv, {"bdev", "listen", "nqn", "cores", "depth"}, {"poll"}, kHelp);
  if (!flags.words().empty()) usage_error("Unexpected argument " + flags.words().front());
  if (!flags.has("bdev")) usage_error("--bdev is required");
  const std::string listen = flags.text("listen", "127.0.0.1:4420");
  const size_t colon = listen.rfind(':');
  const auto port = colon == std::string::npos ? std::nullopt : parse_u64(listen.substr(colon + 1));
  if (!port.has_value() || *port > 65535) usage_error("--listen must be address:port");
  const std::string nqn = flags.text("nqn", "nqn.2019-05.io.openebs:target");
  Runtime runtime(parse_cores(flags.text("cores", "any")), flags.has("poll"), {});
  nvmf::TargetOptions options;
  options.address = listen.substr(0, colon);
  options.replica_port = static_cast<uint16_t>(*port);
  options.nexus_port = 0;
  options.max_queue_depth = static_cast<uint32_t>(flags.size("depth", 128, 2, 1024));
  std::unique_ptr<nvmf::Target> target;
  const std::string uri = flags.text("bdev", "");
  const Result<bool> started = runtime.run<Result<bool>>([&] {
    target = std::make_unique<nvmf::Target>(runtime.reactors(), options);
    return start(runtime, *target, uri, nqn);
  });
  int exit_code = kExitOk;
  if (started.ok()) {
    std::printf("{\"event\":\"listening\",\"uri\":%s}\n",
                json_text("nvmf://" + options.address + ":" +
                          std::to_string(target->replica_port()) + "/" + nqn)
                    .c_str());
    std::fflush(stdout);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    int received = 0;
    sigwait(&signals, &received);
  } else {
    std::fprintf(stderr, "%s\n", started.error().message.c_str());
    exit_code = kExitLost;
  }
  runtime.run<bool>([&] { return stop(runtime, target); });
  return exit_code;
}

}  // namespace
}  // namespace mayastor::tool

int main(int argc, char** argv) {
  return mayastor::tool::run(argc, argv);
}

// What verify_io was asked to do: its flags, read and checked.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/tool_support.h"
#include "tools/verify_format.h"

namespace mayastor::tool {

inline constexpr char kVerifyHelp[] =
    "verify_io: proves that no acknowledged write is lost\n"
    "  verify_io write  --uri URI [--uri URI ...] --journal FILE --bytes BYTES\n"
    "      --seed N              default 1            --bs BYTES      default 4096\n"
    "      --qd N                default 16           --rate IOPS     default: no limit\n"
    "      --read-percent N      reads checked on the way, default 0\n"
    "      --fill                first write every block once, in order\n"
    "      --seconds S           default: until SIGTERM, SIGINT or 'stop' on stdin; with --fill, "
    "0\n"
    "                            ends after the fill\n"
    "      --retry-seconds S     how long to try to get a lost device back, default 30\n"
    "      --io-timeout-ms N     default 5000         --progress-seconds S  default 1\n"
    "      stdin takes: stop | status | uri URI (used for the next connection)\n"
    "  verify_io verify --uri URI --journal FILE [--qd N] [--retry-seconds S]\n"
    "  verify_io digest --uri URI --bytes BYTES\n"
    "  --offset-bytes BYTES      where block 0 lies, default 0; 5242880 on a volume's raw replica\n"
    "Prints JSON lines. Exit: 0 as expected, 1 data is wrong, 2 bad usage, 3 device lost,\n"
    "or stopped before all was checked.\n";

enum class Mode : uint8_t { kWrite, kVerify, kDigest };

struct Settings {
  Mode mode = Mode::kWrite;
  std::vector<std::string> uris;
  std::string journal;
  uint64_t bytes = 0, offset = 0, seed = 0, rate = 0;
  uint32_t block_bytes = 0, queue_depth = 16, read_percent = 0;
  bool fill = false;
  std::optional<double> seconds;
  double retry_seconds = 30, progress_seconds = 1;
};

inline Settings parse_settings(const Flags& flags) {
  Settings settings;
  if (flags.words().size() != 1) usage_error("One of write, verify, digest is required");
  const std::string& mode = flags.words().front();
  if (mode == "write") {
    settings.mode = Mode::kWrite;
  } else if (mode == "verify") {
    settings.mode = Mode::kVerify;
  } else if (mode == "digest") {
    settings.mode = Mode::kDigest;
  } else {
    usage_error("Unknown mode '" + mode + "': write, verify or digest");
  }
  settings.uris = flags.all("uri");
  if (settings.uris.empty()) usage_error("--uri is required");
  settings.journal = flags.text("journal", "");
  if (settings.journal.empty() && settings.mode != Mode::kDigest) {
    usage_error("--journal is required");
  }
  settings.bytes = flags.size("bytes", 0, kSectorBytes);
  if (settings.bytes == 0 && settings.mode == Mode::kDigest) usage_error("--bytes is required");
  settings.offset = flags.size("offset-bytes", 0);
  settings.seed = flags.size("seed", 0, 1);
  settings.rate = flags.size("rate", 0, 1, 10'000'000);
  settings.block_bytes = static_cast<uint32_t>(flags.size("bs", 0, kSectorBytes, 1 << 20));
  if (settings.block_bytes % kSectorBytes != 0) usage_error("--bs must be a multiple of 512");
  settings.queue_depth = static_cast<uint32_t>(flags.size("qd", 16, 1, 1024));
  settings.read_percent = static_cast<uint32_t>(flags.size("read-percent", 0, 0, 100));
  settings.fill = flags.has("fill");
  if (flags.has("seconds")) settings.seconds = flags.seconds("seconds", 0);
  settings.retry_seconds = flags.seconds("retry-seconds", 30);
  settings.progress_seconds = flags.seconds("progress-seconds", 1);
  return settings;
}

}  // namespace mayastor::tool

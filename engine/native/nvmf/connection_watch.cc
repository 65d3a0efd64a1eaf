// The watch over what a host has begun and does not go on with: data that it announced, half a PDU,
// answers that it does not take. Each holds memory of a share; none may for ever.
// How: a timer that runs only while such a thing is there compares counters. Several looks in a row
// decide, not the clock alone: a process that stood still itself accuses nobody.
#include "nvmf/connection.h"

namespace mayastor::nvmf::target {

void Connection::on_watch() noexcept {
  if (state_ != State::kRunning) return;
  const auto slow_limit = static_cast<uint32_t>(options_.transfer_timeout_ms * kWatchesToStill /
                                                options_.still_timeout_ms);
  // What a host owes: the data of commands whose R2T it has, and the rest of a PDU.
  bool receiving = false, overdue = false;
  for (uint32_t i = 0; i < request_count_; ++i) {
    Request& request = request_at(i);
    if (request.state != RequestState::kReceiving || request.r2t_pending) continue;
    receiving = true;
    overdue |= ++request.watched > slow_limit;
  }
  const auto look = [](Seen& seen, bool pending, uint64_t bytes, uint64_t pdus) {
    seen.still = pending && seen.bytes == bytes ? seen.still + 1 : 0;
    seen.slow = pending && seen.pdus == pdus ? seen.slow + 1 : 0;
    seen.bytes = bytes;
    seen.pdus = pdus;
  };
  const bool half = sink_ != nullptr || (end_ > begin_ && !input_blocked_);
  const bool unsent = out_ != nullptr && send_blocked_;
  look(seen_in_, receiving || half, bytes_in_, pdus_in_);
  look(seen_out_, unsent, bytes_out_, pdus_out_);
  if (seen_out_.still >= kWatchesToStill || seen_out_.slow >= slow_limit) {
    return close("the host did not take its answers in time");
  }
  if (seen_in_.still >= kWatchesToStill || overdue || (half && seen_in_.slow >= slow_limit)) {
    // What had to come and did not: the transport has no name of its own for that.
    fail_connection({kPduErrorSequence, 0}, nullptr, 0);
    close_reason_ = "the host did not go on with a transfer in time";
    return;
  }
  if (receiving || half || unsent) watch();
}

}  // namespace mayastor::nvmf::target

#include "nvmf/initiator_fabrics.h"

#include <cstdio>
#include <cstring>

namespace mayastor::nvmf {

namespace {

constexpr uint64_t kReadyPollNs = 10'000'000;
constexpr uint32_t kConnectCattrOffset = 46;
constexpr uint32_t kConnectSubnqnOffset = 256;
constexpr uint32_t kInData = 1U << 16;  // dw0 of a refused Connect: the bad field is in the data

struct StatusName {
  uint8_t type, code;
  const char* text;
};
constexpr StatusName kStatusNames[] = {
    {0, 0x01, "invalid opcode"},
    {0, 0x02, "invalid field"},
    {0, 0x04, "data transfer error"},
    {0, 0x06, "internal error"},
    {0, 0x07, "aborted"},
    {0, 0x0B, "invalid namespace"},
    {0, 0x0C, "command sequence error"},
    {0, 0x22, "transient transport error"},
    {0, 0x80, "LBA out of range"},
    {0, 0x81, "capacity exceeded"},
    {0, 0x83, "reservation conflict"},
    {1, 0x01, "invalid queue identifier"},
    {1, 0x02, "invalid queue size"},
    {1, 0x80, "incompatible connect format"},
    {1, 0x81, "controller busy"},
    {1, 0x82, "invalid connect parameters"},
    {1, 0x84, "host not allowed"},
    {1, 0x91, "authentication required"},
    {3, 0x70, "path lost"},
};

// A command that failed because the queue ended says how it ended.
Error command_error(const InitiatorQueue& queue, const IoStatus& status, std::string what) {
  if (queue.closed() && status.is(io_status::kHostPathError)) {
    return Error{queue.timed_out() ? ErrorCode::kDeadlineExceeded : ErrorCode::kUnavailable,
                 std::move(what) + ": " + queue.lost_reason(), status.error_number};
  }
  return Error{ErrorCode::kInternal, std::move(what) + ": " + describe_status(status),
               status.error_number};
}

Sqe admin_command(uint8_t opcode) {
  Sqe sqe{};
  sqe.opcode = opcode;
  return sqe;
}

template <typename From>
Sqe as_sqe(const From& from) {
  static_assert(sizeof(From) == sizeof(Sqe));
  Sqe sqe;
  std::memcpy(&sqe, &from, sizeof(sqe));
  return sqe;
}

}  // namespace

std::string describe_status(const IoStatus& status) {
  const char* name = "status";
  for (const StatusName& known : kStatusNames) {
    if (known.type == status.type && known.code == status.code) name = known.text;
  }
  char text[96];
  std::snprintf(text, sizeof(text), "%s (type %u, code 0x%02x)", name, status.type, status.code);
  return text;
}

Task<Result<uint16_t>> fabrics_connect(QueuePtr queue, ConnectParameters parameters) {
  ConnectData data{};
  std::memcpy(data.host_id, parameters.host_id.bytes.data(), sizeof(data.host_id));
  data.cntlid = parameters.controller_id;
  if (parameters.subsystem_nqn.size() > kNqnMaxLength ||
      parameters.host_nqn.size() > kNqnMaxLength) {
    co_return Error{ErrorCode::kInvalidArgument, "NQN is longer than 223 characters"};
  }
  std::memcpy(data.subnqn, parameters.subsystem_nqn.data(), parameters.subsystem_nqn.size());
  std::memcpy(data.hostnqn, parameters.host_nqn.data(), parameters.host_nqn.size());
  ConnectSqe connect{};
  connect.opcode = kOpcodeFabrics;
  connect.fctype = kFabricsConnect;
  connect.qid = parameters.queue_id;
  connect.sqsize = static_cast<uint16_t>(parameters.queue_entries - 1);
  connect.cattr = kConnectDisableSqFlow;  // so that reads may end with their data
  connect.kato_ms = parameters.kato_ms;
  Sqe sqe = as_sqe(connect);
  Answer answer = co_await queue->execute(sqe, DataDirection::kToController, &data, sizeof(data));
  if (answer.status.is(status::kConnectInvalidParameters) && answer.dw0 == kConnectCattrOffset) {
    connect.cattr = 0;
    sqe = as_sqe(connect);
    answer = co_await queue->execute(sqe, DataDirection::kToController, &data, sizeof(data));
  }
  if (answer.status.ok()) {
    if ((answer.dw0 >> 16) != 0) {
      co_return Error{ErrorCode::kFailedPrecondition,
                      "the target wants in-band authentication, which is not supported"};
    }
    co_return static_cast<uint16_t>(answer.dw0);
  }
  if (answer.status.is(status::kConnectInvalidParameters) &&
      answer.dw0 == (kConnectSubnqnOffset | kInData)) {
    co_return Error{ErrorCode::kNotFound, "the target has no subsystem " + parameters.subsystem_nqn,
                    answer.status.error_number};
  }
  if (answer.status.is(status::kConnectInvalidHost)) {
    co_return Error{ErrorCode::kFailedPrecondition,
                    "the target does not allow host " + parameters.host_nqn,
                    answer.status.error_number};
  }
  Error error = command_error(*queue, answer.status, "Connect refused");
  if (answer.status.is(status::kInvalidQueueId)) error.code = ErrorCode::kAlreadyExists;
  if (answer.status.is(status::kConnectControllerBusy)) error.code = ErrorCode::kUnavailable;
  co_return error;
}

Task<Result<uint64_t>> property_get(QueuePtr queue, uint32_t offset, bool wide) {
  PropertySqe get{};
  get.opcode = kOpcodeFabrics;
  get.fctype = kFabricsPropertyGet;
  get.attrib = wide ? 1 : 0;
  get.offset = offset;
  const Sqe sqe = as_sqe(get);
  const Answer answer = co_await queue->execute(sqe, DataDirection::kNone, nullptr, 0);
  if (!answer.status.ok()) co_return command_error(*queue, answer.status, "Property Get failed");
  uint64_t value = answer.dw0;
  if (wide) value |= static_cast<uint64_t>(answer.dw1) << 32;
  co_return value;
}

Task<Result<void>> property_set(QueuePtr queue, uint32_t offset, uint32_t value) {
  PropertySqe set{};
  set.opcode = kOpcodeFabrics;
  set.fctype = kFabricsPropertySet;
  set.offset = offset;
  set.value = value;
  const Sqe sqe = as_sqe(set);
  const Answer answer = co_await queue->execute(sqe, DataDirection::kNone, nullptr, 0);
  if (!answer.status.ok()) co_return command_error(*queue, answer.status, "Property Set failed");
  co_return Result<void>();
}

Task<Result<uint64_t>> enable_controller(QueuePtr queue) {
  const Result<uint64_t> cap = co_await property_get(queue, kPropertyCap, true);
  if (!cap.ok()) co_return cap.error();
  const Result<void> enabled = co_await property_set(queue, kPropertyCc, kCcDefault);
  if (!enabled.ok()) co_return enabled.error();
  const uint64_t limit_ns = (((cap.value() >> 24) & 0xFF) + 1) * 500'000'000;
  for (uint64_t waited = 0;; waited += kReadyPollNs) {
    const Result<uint64_t> csts = co_await property_get(queue, kPropertyCsts, false);
    if (!csts.ok()) co_return csts.error();
    if ((csts.value() & kCstsFatal) != 0) {
      co_return Error{ErrorCode::kUnavailable, "the controller reports a fatal state"};
    }
    if ((csts.value() & kCstsReady) != 0) co_return cap.value();
    if (waited >= limit_ns) {
      co_return Error{ErrorCode::kDeadlineExceeded, "the controller did not become ready"};
    }
    co_await sleep_for(kReadyPollNs);
  }
}

Task<Result<void>> identify(QueuePtr queue, uint8_t cns, uint32_t nsid, void* data) {
  Sqe sqe = admin_command(kAdminIdentify);
  sqe.nsid = nsid;
  sqe.cdw10 = cns;
  const Answer answer = co_await queue->execute(sqe, DataDirection::kToHost, data, 4096);
  if (!answer.status.ok()) co_return command_error(*queue, answer.status, "Identify failed");
  co_return Result<void>();
}

Task<Result<void>> get_log_page(QueuePtr queue, uint8_t log, uint64_t offset, void* data,
                                uint32_t length) {
  Sqe sqe = admin_command(kAdminGetLogPage);
  const uint32_t dwords = length / 4 - 1;
  sqe.nsid = kBroadcastNsid;
  sqe.cdw10 = log | (dwords & 0xFFFF) << 16;
  sqe.cdw11 = dwords >> 16;
  sqe.cdw12 = static_cast<uint32_t>(offset);
  sqe.cdw13 = static_cast<uint32_t>(offset >> 32);
  const Answer answer = co_await queue->execute(sqe, DataDirection::kToHost, data, length);
  if (!answer.status.ok()) co_return command_error(*queue, answer.status, "Get Log Page failed");
  co_return Result<void>();
}

Task<Result<uint32_t>> set_feature(QueuePtr queue, uint8_t feature, uint32_t value) {
  Sqe sqe = admin_command(kAdminSetFeatures);
  sqe.cdw10 = feature;
  sqe.cdw11 = value;
  const Answer answer = co_await queue->execute(sqe, DataDirection::kNone, nullptr, 0);
  if (!answer.status.ok()) co_return command_error(*queue, answer.status, "Set Features failed");
  co_return answer.dw0;
}

}  // namespace mayastor::nvmf

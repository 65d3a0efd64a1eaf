// The commands that set a queue and a controller up, as control-path tasks on an InitiatorQueue.
// Each gives an Error saying what was tried and the status the target answered with.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "nvmf/initiator_queue.h"
#include "util/uuid.h"

namespace mayastor::nvmf {

using QueuePtr = std::shared_ptr<InitiatorQueue>;

struct ConnectParameters {
  std::string subsystem_nqn;
  std::string host_nqn;
  Uuid host_id;
  uint16_t queue_id = 0;
  uint16_t queue_entries = 32;
  uint16_t controller_id = kDynamicControllerId;
  uint32_t kato_ms = 0;
};

// "kind of status (type 1, code 0x84)" for messages.
[[nodiscard]] std::string describe_status(const IoStatus& status);

// The controller id given. kNotFound: no such subsystem; kFailedPrecondition: host not allowed;
// kAlreadyExists: the queue id is in use.
Task<Result<uint16_t>> fabrics_connect(QueuePtr queue, ConnectParameters parameters);
Task<Result<uint64_t>> property_get(QueuePtr queue, uint32_t offset, bool wide);
Task<Result<void>> property_set(QueuePtr queue, uint32_t offset, uint32_t value);
// CC.EN = 1, then waits for CSTS.RDY at most as long as CAP says. Gives CAP.
Task<Result<uint64_t>> enable_controller(QueuePtr queue);
// One command with data to the host.
Task<Result<void>> identify(QueuePtr queue, uint8_t cns, uint32_t nsid, void* data);  // 4096 bytes
Task<Result<void>> get_log_page(QueuePtr queue, uint8_t log, uint64_t offset, void* data,
                                uint32_t length);
Task<Result<uint32_t>> set_feature(QueuePtr queue, uint8_t feature, uint32_t value);

}  // namespace mayastor::nvmf

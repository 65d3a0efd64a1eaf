// Get Log Page. A page is built whole, then the asked part of it is copied; what lies beyond its
// end reads as zeroes.
#include <algorithm>
#include <cstring>

#include "nvmf/controller.h"
#include "nvmf/subsystem.h"

namespace mayastor::nvmf::target {
namespace {

template <typename T>
void append(std::vector<uint8_t>& out, const T& value) {
  // Not insert(): GCC 12 takes it for an overflow when it also instruments for threads.
  const size_t at = out.size();
  out.resize(at + sizeof(value));
  std::memcpy(out.data() + at, &value, sizeof(value));
}

}  // namespace

Controller::Answer Controller::get_log_page(const Request& request,
                                            const std::string& local_address) {
  const Sqe& sqe = request.sqe;
  const auto page = static_cast<uint8_t>(sqe.cdw10);
  const bool keep = (sqe.cdw10 & 1U << 15) != 0;  // retain asynchronous event
  const uint32_t specific = (sqe.cdw10 >> 8) & 0x7F;
  const uint64_t offset = uint64_t{sqe.cdw13} << 32 | uint64_t{sqe.cdw12};
  if (offset % 4 != 0) return {io_status::kInvalidField};
  std::vector<uint8_t> log;
  if (discovery()) {
    if (page != kLogDiscovery) return {status::kInvalidLogPage};
    log = environment_.discovery_log(options_.host_nqn, local_address);
  } else {
    switch (page) {
      case kLogError:
        log.resize(kErrorLogEntrySize);
        break;
      case kLogSmart:
        log = smart_log();
        break;
      case kLogFirmware:
        log.resize(kFirmwareLogSize);
        break;
      case kLogChangedNamespaces:
        log = take_changed_namespaces(keep);
        break;
      case kLogEffects:
        if (sqe.cdw14 >> 24 != 0) return {io_status::kInvalidField};  // only the NVM command set
        log = effects_log();
        break;
      case kLogAna:
        if (!subsystem_.options().ana_reporting) return {status::kInvalidLogPage};
        log = ana_log((specific & 1) != 0);
        break;
      case kLogReservation:
        log = take_reservation_log(keep);
        break;
      default:
        return {status::kInvalidLogPage};
    }
  }
  if (!keep) unmask(page);
  if (page == kLogReservation && !keep && !reservation_log_.empty()) {
    raise(kLogReservation, kEventReservation);  // there is another notification to fetch
  }
  if (offset > log.size()) return {io_status::kInvalidField};
  const size_t copied = std::min<size_t>(request.length, log.size() - offset);
  if (copied > 0) std::memcpy(request.buffer, log.data() + offset, copied);
  return {};
}

// What is known of a volume: its I/O, and that it does not wear.
std::vector<uint8_t> Controller::smart_log() const {
  constexpr uint64_t kUnitBytes = 512'000;
  const IoStats stats = subsystem_.options().bdev->stats();
  SmartLog page{};
  page.available_spare = 100;
  page.units_read = (stats.read_bytes + kUnitBytes - 1) / kUnitBytes;
  page.units_written = (stats.write_bytes + kUnitBytes - 1) / kUnitBytes;
  page.host_reads = stats.read_ops;
  page.host_writes = stats.write_ops;
  std::vector<uint8_t> out;
  append(out, page);
  return out;
}

std::vector<uint8_t> Controller::ana_log(bool groups_only) const {
  std::vector<uint8_t> out;
  AnaLogHeader header{};
  header.change_count = subsystem_.ana_change_count();
  header.group_count = 1;
  append(out, header);
  AnaGroup group{};
  group.group_id = 1;
  group.namespace_count = groups_only ? 0 : 1;
  group.change_count = subsystem_.ana_change_count();
  group.state = static_cast<uint8_t>(subsystem_.ana_state());
  append(out, group);
  if (!groups_only) append(out, uint32_t{1});
  return out;
}

// Supported is what plan() and IoQueue take. Hosts hold I/O back, or refuse passthrough, for
// effects on controller or namespaces: no command here has any, and none has to run alone.
std::vector<uint8_t> Controller::effects_log() const {
  constexpr uint8_t kAdmin[] = {kAdminGetLogPage,  kAdminIdentify,    kAdminAbort,
                                kAdminSetFeatures, kAdminGetFeatures, kAdminAsyncEvent,
                                kAdminKeepAlive,   kOpcodeFabrics};
  constexpr uint8_t kPlainIo[] = {kIoFlush,
                                  kIoRead,
                                  kIoCompare,
                                  kIoReservationRegister,
                                  kIoReservationReport,
                                  kIoReservationAcquire,
                                  kIoReservationRelease};
  EffectsLog effects{};
  for (const uint8_t opcode : kAdmin) effects.admin[opcode] = kEffectSupported;
  for (const uint8_t opcode : kPlainIo) effects.io[opcode] = kEffectSupported;
  const Bdev& bdev = *subsystem_.options().bdev;
  const uint32_t changes = kEffectSupported | kEffectChangesBlocks;
  effects.io[kIoWrite] = changes;
  if (bdev.supports(IoType::kWriteZeroes)) effects.io[kIoWriteZeroes] = changes;
  if (bdev.supports(IoType::kUnmap)) effects.io[kIoDatasetManagement] = changes;
  std::vector<uint8_t> out;
  append(out, effects);
  return out;
}

std::vector<uint8_t> Controller::take_changed_namespaces(bool keep) {
  std::vector<uint8_t> out(kChangedNamespacesSize);
  const uint32_t first = namespace_changed_ ? 1 : 0;
  std::memcpy(out.data(), &first, sizeof(first));
  if (!keep) namespace_changed_ = false;
  return out;
}

std::vector<uint8_t> Controller::take_reservation_log(bool keep) {
  ReservationLog entry{};
  if (!reservation_log_.empty()) {
    entry = reservation_log_.front();
    entry.available = static_cast<uint8_t>(reservation_log_.size() - 1);
    if (!keep) reservation_log_.pop_front();
  }
  std::vector<uint8_t> out;
  append(out, entry);
  return out;
}

}  // namespace mayastor::nvmf::target

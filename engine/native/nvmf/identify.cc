// Identify: what hosts are told of controller and namespace. Values are chosen so that the Linux
// kernel (6.1 and later) accepts them: KAS, SGLS, IOCCSZ, MNAN, MAXCMD are not zero, ICDOFF is, and
// serial, model, firmware and identifiers are the same on every path to a volume.
#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>

#include "nvmf/controller.h"
#include "nvmf/subsystem.h"

namespace mayastor::nvmf::target {
namespace {

constexpr char kFirmware[] = "1.0";
constexpr uint32_t kControlAttributeHostId128 = 1;
constexpr uint32_t kSglsSupported = 1U | 1U << 20 | 1U << 21;  // offsets, transport data block
constexpr uint8_t kAnaTransitionSeconds = 10;
// Optimized, non-optimized, inaccessible. Not bit 6 (the group never changes): nvme-cli then asks
// for a log too short for the namespaces of a group.
constexpr uint8_t kAnaCapabilities = 0x07;
constexpr uint8_t kReservationTypes = 0xFE;  // all six types, IEKEY as of 1.3
constexpr uint32_t kErrorLogEntries = 1;
// Largest Write Zeroes that hosts are asked to send, far below what is taken (65536 blocks): a disk
// that can only write zeroes must get a queue full of them done before hosts' time-outs.
constexpr uint32_t kWriteZeroesBytes = 4U << 20;
constexpr uint8_t kLpaEffectsLog = 1 << 1, kLpaExtendedData = 1 << 2;  // of Get Log Page

void copy_padded(char* field, size_t size, const std::string& text) {
  std::memset(field, ' ', size);
  std::memcpy(field, text.data(), std::min(size, text.size()));
}

uint8_t reservation_capabilities(const SubsystemOptions& options) {
  return static_cast<uint8_t>(kReservationTypes | (options.ptpl_path.empty() ? 0 : 1));
}

}  // namespace

Controller::Answer Controller::identify(const Request& request) const {
  const Sqe& sqe = request.sqe;
  const auto cns = static_cast<uint8_t>(sqe.cdw10);
  const auto csi = static_cast<uint8_t>(sqe.cdw11 >> 24);
  uint8_t* const page = request.buffer;
  if (cns == kCnsController) {
    identify_controller(page);
    return {};
  }
  if (discovery()) return {io_status::kInvalidField};
  switch (cns) {
    case kCnsNamespace:
      if (sqe.nsid != 1) return {io_status::kInvalidNamespace};
      identify_namespace(page);
      return {};
    case kCnsActiveNamespaces: {
      if (sqe.nsid >= 0xFFFFFFFE) return {io_status::kInvalidNamespace};
      const uint32_t first = 1;
      if (sqe.nsid < first) std::memcpy(page, &first, sizeof(first));
      return {};
    }
    case kCnsNamespaceDescriptors:
      if (sqe.nsid != 1) return {io_status::kInvalidNamespace};
      identify_descriptors(page);
      return {};
    case kCnsCsNamespace:  // nothing to say beyond CNS 0 for the NVM command set
      if (sqe.nsid != 1) return {io_status::kInvalidNamespace};
      return {csi == 0 ? io_status::kOk : io_status::kInvalidField};
    case kCnsCsController: {
      if (csi != 0) return {io_status::kInvalidField};
      IdentifyNvmController id{};
      id.wzsl = static_cast<uint8_t>(std::countr_zero(kWriteZeroesBytes / kPageSize));
      std::memcpy(page, &id, sizeof(id));
      return {};
    }
    case kCnsNamespaceControllers:
      if (sqe.nsid != 1) return {io_status::kInvalidNamespace};
      [[fallthrough]];
    case kCnsControllers:
      identify_controllers(page, static_cast<uint16_t>(sqe.cdw10 >> 16));
      return {};
    case kCnsIndependentNamespace:
      if (sqe.nsid != 1) return {io_status::kInvalidNamespace};
      identify_independent(page);
      return {};
    default:
      return {io_status::kInvalidField};
  }
}

void Controller::identify_controller(uint8_t* page) const {
  const TargetOptions& target = environment_.target_options();
  const SubsystemOptions& options = subsystem_.options();
  IdentifyController id{};
  copy_padded(id.sn, sizeof(id.sn), options.serial);
  copy_padded(id.mn, sizeof(id.mn), options.model);
  copy_padded(id.fr, sizeof(id.fr), kFirmware);
  id.rab = 6;
  id.mdts = static_cast<uint8_t>(std::countr_zero(target.max_io_bytes / kPageSize));
  id.cntlid = options_.id;
  id.ver = kVersion14;
  id.ctratt = kControlAttributeHostId128;
  id.cntrltype = discovery() ? 2 : 1;
  id.crdt1 = target.retry_delay_100ms[0];
  id.crdt2 = target.retry_delay_100ms[1];
  id.crdt3 = target.retry_delay_100ms[2];
  id.acl = kAbortLimit - 1;
  id.aerl = kAsyncEventLimit - 1;
  id.frmw = 0x03;  // one slot, read only
  id.lpa = kLpaExtendedData;
  id.elpe = kErrorLogEntries - 1;
  id.kas = static_cast<uint16_t>(std::max<uint64_t>(target.keep_alive_granularity_ms / 100, 1));
  id.sqes = 0x66;
  id.cqes = 0x44;
  id.sgls = kSglsSupported;
  std::memcpy(id.subnqn, options.nqn.data(), std::min(options.nqn.size(), kNqnMaxLength));
  id.ioccsz = (static_cast<uint32_t>(sizeof(Sqe)) + target.in_capsule_bytes) / 16;
  id.iorcsz = sizeof(Cqe) / 16;
  id.msdbd = 1;
  if (discovery()) {
    id.oaes = kOaesDiscovery;
    id.maxcmd = static_cast<uint16_t>(target.max_admin_depth);
    std::memcpy(page, &id, sizeof(id));
    return;
  }
  const Bdev& bdev = *options.bdev;
  id.cmic = kCmicMultiPort | kCmicMultiController;
  id.oaes = kOaesNamespaceAttribute;
  if (options.ana_reporting) {
    id.cmic |= kCmicAna;
    id.oaes |= kOaesAna;
    id.anatt = kAnaTransitionSeconds;
    id.anacap = kAnaCapabilities;
    id.anagrpmax = 1;
    id.nanagrpid = 1;
  }
  id.lpa |= kLpaEffectsLog;
  id.maxcmd = static_cast<uint16_t>(target.max_queue_depth);
  id.nn = 1;
  id.mnan = 1;
  id.oncs = kOncsCompare | kOncsSelectFeature | kOncsReservations;
  if (bdev.supports(IoType::kUnmap)) id.oncs |= kOncsDatasetManagement;
  if (bdev.supports(IoType::kWriteZeroes)) id.oncs |= kOncsWriteZeroes;
  id.fuses = 1;                                      // compare and write
  id.vwc = bdev.has_volatile_cache() ? 0x05 : 0x04;  // flush of all namespaces not supported
  std::memcpy(page, &id, sizeof(id));
  // A device may lose power without its machine doing so.
  const Uuid of_device = bdev.power_cycle();
  const Uuid power_cycle = of_device.is_nil() ? target.power_cycle : of_device;
  if (!power_cycle.is_nil()) {
    std::memcpy(page + kPowerCycleOffset, kPowerCycleTag, sizeof(kPowerCycleTag));
    std::memcpy(page + kPowerCycleOffset + sizeof(kPowerCycleTag), power_cycle.bytes.data(),
                power_cycle.bytes.size());
  }
}

void Controller::identify_namespace(uint8_t* page) const {
  const SubsystemOptions& options = subsystem_.options();
  const Bdev& bdev = *options.bdev;
  IdentifyNamespace id{};
  id.nsze = id.ncap = id.nuse = bdev.size_bytes() / bdev.block_size();
  if (const auto allocated = bdev.allocated_bytes(); allocated.has_value()) {
    id.nsfeat = kNsfeatThin;
    const uint64_t blocks = (*allocated + bdev.block_size() - 1) / bdev.block_size();
    id.nuse = std::min<uint64_t>(blocks, id.nsze);
  }
  id.nmic = kNmicShared;
  id.rescap = reservation_capabilities(options);
  if (options.ana_reporting) id.anagrpid = 1;
  std::memcpy(id.nguid, options.nguid.bytes.data(), sizeof(id.nguid));
  id.lbaf[0].data_size_log2 = static_cast<uint8_t>(std::countr_zero(bdev.block_size()));
  std::memcpy(page, &id, sizeof(id));
}

void Controller::identify_controllers(uint8_t* page, uint16_t first) const {
  ControllerList list{};
  for (const auto& [id, controller] : subsystem_.controllers()) {
    if (id < first || list.count == std::size(list.ids)) continue;
    list.ids[list.count] = id;
    list.count = static_cast<uint16_t>(list.count + 1);
  }
  std::memcpy(page, &list, sizeof(list));
}

void Controller::identify_descriptors(uint8_t* page) const {
  const Uuid& id = subsystem_.options().nguid;
  for (const uint8_t type : {kNidNguid, kNidUuid}) {
    const NamespaceDescriptorHeader header{type, 16, {}};
    std::memcpy(page, &header, sizeof(header));
    std::memcpy(page + sizeof(header), id.bytes.data(), id.bytes.size());
    page += sizeof(header) + id.bytes.size();
  }
  const NamespaceDescriptorHeader header{kNidCommandSet, 1, {}};
  std::memcpy(page, &header, sizeof(header));  // the command set is NVM: 0
}

// NVMe base specification 2.0, figure 280: nsfeat, nmic, rescap, fpi, anagrpid, nsattr, ...
void Controller::identify_independent(uint8_t* page) const {
  const SubsystemOptions& options = subsystem_.options();
  page[1] = kNmicShared;
  page[2] = reservation_capabilities(options);
  const uint32_t group = options.ana_reporting ? 1 : 0;
  std::memcpy(page + 4, &group, sizeof(group));
  page[14] = 1;  // nstat: ready
}

}  // namespace mayastor::nvmf::target

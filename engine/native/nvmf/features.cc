// Get and Set Features. Values that change nothing here are stored and given back.
#include <algorithm>
#include <cstring>

#include "nvmf/controller.h"
#include "nvmf/subsystem.h"

namespace mayastor::nvmf::target {
namespace {

constexpr uint32_t kSave = 1U << 31;

bool is_known(uint8_t feature) {
  switch (feature) {
    case kFeatureArbitration:
    case kFeaturePower:
    case kFeatureTemperature:
    case kFeatureErrorRecovery:
    case kFeatureWriteCache:
    case kFeatureQueues:
    case kFeatureWriteAtomicity:
    case kFeatureAsyncEvents:
    case kFeatureKeepAlive:
    case kFeatureHostBehavior:
    case kFeatureHostId:
    case kFeatureReservationMask:
    case kFeatureReservationPersist:
      return true;
    default:
      return false;
  }
}

bool is_for_discovery(uint8_t feature) {
  return feature == kFeatureAsyncEvents || feature == kFeatureKeepAlive;
}

// What hosts can do with a feature; none is saved.
uint32_t capabilities_of(uint8_t feature) {
  switch (feature) {
    case kFeatureWriteCache:  // a property of the device
    case kFeatureHostId:      // given by Connect
      return 0;
    case kFeatureReservationMask:
      return kFeatureOfNamespace | kFeatureChangeable;
    case kFeatureReservationPersist:  // changed by registering
      return kFeatureOfNamespace;
    default:
      return kFeatureChangeable;
  }
}

}  // namespace

// Before any Set Features.
uint32_t Controller::default_feature(uint8_t feature) const {
  const TargetOptions& target = environment_.target_options();
  switch (feature) {
    case kFeatureWriteCache:
      return subsystem_.options().bdev->has_volatile_cache() ? 1 : 0;
    case kFeatureQueues: {
      const uint32_t most = target.max_qpairs - 2;  // 0-based, without admin
      return most | most << 16;
    }
    case kFeatureKeepAlive:
      return discovery() ? static_cast<uint32_t>(target.discovery_keep_alive_ms) : 0;
    default:
      return 0;
  }
}

uint32_t Controller::current_feature(uint8_t feature) const {
  if (feature == kFeatureReservationPersist) return subsystem_.reservations().persists() ? 1 : 0;
  const auto stored = features_.find(feature);
  return stored == features_.end() ? default_feature(feature) : stored->second;
}

Controller::Answer Controller::get_features(const Request& request) const {
  const auto feature = static_cast<uint8_t>(request.sqe.cdw10);
  const uint8_t select = feature_select(request.sqe);
  if (!is_known(feature) || (discovery() && !is_for_discovery(feature)) ||
      select > kSelectSupported) {
    return {io_status::kInvalidField};
  }
  const uint32_t capabilities = capabilities_of(feature);
  if (select == kSelectSupported) return {io_status::kOk, capabilities};
  if ((capabilities & kFeatureOfNamespace) != 0 && request.sqe.nsid != 1) {
    return {io_status::kInvalidNamespace};
  }
  const bool current = select == kSelectCurrent;  // else the default: nothing is ever saved
  if (feature == kFeatureHostBehavior) {
    if (current) std::memcpy(request.buffer, host_behavior_.data(), host_behavior_.size());
    return {};
  }
  if (feature == kFeatureHostId) {                                        // the same from the start
    if ((request.sqe.cdw11 & 1) == 0) return {io_status::kInvalidField};  // 64-bit identifier
    std::memcpy(request.buffer, options_.host.data(), options_.host.size());
    return {};
  }
  return {io_status::kOk, current ? current_feature(feature) : default_feature(feature)};
}

Controller::Answer Controller::set_features(const Request& request) {
  const Sqe& sqe = request.sqe;
  const auto feature = static_cast<uint8_t>(sqe.cdw10);
  if (!is_known(feature) || (discovery() && !is_for_discovery(feature))) {
    return {io_status::kInvalidField};
  }
  if ((sqe.cdw10 & kSave) != 0) return {status::kFeatureNotSaveable};
  switch (feature) {
    case kFeatureQueues: {
      if (io_queue_count() > 0) return {status::kCommandSequence};
      const uint32_t wanted_sq = sqe.cdw11 & 0xFFFF, wanted_cq = sqe.cdw11 >> 16;
      if (wanted_sq == 0xFFFF || wanted_cq == 0xFFFF) return {io_status::kInvalidField};
      const uint32_t most = environment_.target_options().max_qpairs - 2;
      const uint32_t granted = std::min(std::min(wanted_sq, wanted_cq), most);
      features_[feature] = granted | granted << 16;
      return {io_status::kOk, features_[feature]};
    }
    case kFeatureKeepAlive:
      return set_keep_alive(sqe.cdw11);
    case kFeatureHostBehavior:
      std::memcpy(host_behavior_.data(), request.buffer, host_behavior_.size());
      return {};
    case kFeatureHostId:
      return {status::kCommandSequence};  // given by Connect
    case kFeatureWriteCache:              // a property of the device
      if (subsystem_.options().bdev->has_volatile_cache() == ((sqe.cdw11 & 1) != 0)) return {};
      return {status::kFeatureNotChangeable};
    case kFeatureReservationPersist:  // changed by registering
      return {status::kFeatureNotChangeable};
    case kFeatureReservationMask:
      if (sqe.nsid != 1 && sqe.nsid != kBroadcastNsid) return {io_status::kInvalidNamespace};
      features_[feature] = sqe.cdw11;
      return {};
    default:
      features_[feature] = sqe.cdw11;
      return {};
  }
}

}  // namespace mayastor::nvmf::target

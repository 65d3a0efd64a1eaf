#include "nvmf/reservation.h"

#include <algorithm>
#include <cstring>

namespace mayastor::nvmf::target {
namespace {

bool valid_type(uint8_t type) noexcept {
  return type >= 1 && type <= 6;
}

}  // namespace

const Registrant* ReservationState::find(const HostId& host) const noexcept {
  const auto found = std::find_if(registrants_.begin(), registrants_.end(),
                                  [&](const Registrant& one) { return one.host == host; });
  return found == registrants_.end() ? nullptr : &*found;
}

bool ReservationState::is_holder(const HostId& host) const noexcept {
  if (type_ == ReservationType::kNone) return false;
  if (all_registrants()) return find(host) != nullptr;
  return holder_ == host;
}

void ReservationState::add(const HostId& host, uint64_t key) {
  registrants_.push_back({host, key});
  ++generation_;
}

void ReservationState::remove(const HostId& host) {
  const auto removed =
      std::erase_if(registrants_, [&](const Registrant& one) { return one.host == host; });
  generation_ += static_cast<uint32_t>(removed);
}

void ReservationState::drop_reservation() {
  type_ = ReservationType::kNone;
  holder_.reset();
}

void ReservationState::notify_others(const HostId& but, ReservationNotice notice) {
  for (const Registrant& one : registrants_) {
    if (one.host != but) events_.push_back({one.host, notice});
  }
}

size_t ReservationState::remove_by_key(uint64_t key, const HostId& keep) {
  const size_t before = registrants_.size();
  std::erase_if(registrants_, [&](const Registrant& one) {
    if (one.key != key || one.host == keep) return false;
    events_.push_back({one.host, kNoticeRegistrationPreempted});
    return true;
  });
  const size_t removed = before - registrants_.size();
  generation_ += static_cast<uint32_t>(removed);
  return removed;
}

IoStatus ReservationState::register_key(const HostId& host, const ReservationRegisterData& data,
                                        Reservations::RegisterAction action,
                                        bool ignore_existing_key, uint8_t cptpl,
                                        bool ptpl_offered) {
  using Action = Reservations::RegisterAction;
  if (cptpl == 1 || (cptpl == 3 && !ptpl_offered)) return io_status::kInvalidField;
  const Registrant* const known = find(host);
  const bool key_matches =
      known != nullptr && (ignore_existing_key || known->key == data.current_key);
  if (action != Action::kUnregister && data.new_key == 0) return io_status::kInvalidField;
  const bool room = registrants_.size() < kMaxRegistrants;
  switch (action) {
    case Action::kRegister:
      if (known != nullptr && known->key != data.new_key) return io_status::kReservationConflict;
      if (known == nullptr) {
        if (!room) return not_yet(io_status::kReservationConflict);
        add(host, data.new_key);
      }
      break;
    case Action::kUnregister: {
      if (!key_matches) return io_status::kReservationConflict;
      const bool held = is_holder(host);
      const bool shared = all_registrants();
      remove(host);
      if (held && (!shared || registrants_.empty())) {
        const bool tell =
            type_ != ReservationType::kWriteExclusive && type_ != ReservationType::kExclusiveAccess;
        drop_reservation();
        if (tell) notify_others(host, kNoticeReservationReleased);
      }
      break;
    }
    case Action::kReplace:
      if (known == nullptr) {
        if (!ignore_existing_key) return io_status::kReservationConflict;
        if (!room) return not_yet(io_status::kReservationConflict);
        add(host, data.new_key);
        break;
      }
      if (!key_matches) return io_status::kReservationConflict;
      const_cast<Registrant*>(known)->key = data.new_key;
      break;
    default:
      return io_status::kInvalidField;
  }
  if (cptpl == 2) persists_ = false;
  if (cptpl == 3) persists_ = true;
  return io_status::kOk;
}

IoStatus ReservationState::acquire(const HostId& host, const ReservationAcquireData& data,
                                   Reservations::AcquireAction action, bool ignore_existing_key,
                                   uint8_t type) {
  using Action = Reservations::AcquireAction;
  if (ignore_existing_key || !valid_type(type)) return io_status::kInvalidField;
  const Registrant* const known = find(host);
  if (known == nullptr || known->key != data.current_key) return io_status::kReservationConflict;
  const auto wanted = static_cast<ReservationType>(type);
  switch (action) {
    case Action::kAcquire:
      if (type_ != ReservationType::kNone) {
        return is_holder(host) && type_ == wanted ? io_status::kOk
                                                  : io_status::kReservationConflict;
      }
      type_ = wanted;
      if (!all_registrants()) holder_ = host;
      return io_status::kOk;
    case Action::kPreempt:
    case Action::kPreemptAbort:
      return preempt(host, data, wanted);
    default:
      return io_status::kInvalidField;
  }
}

IoStatus ReservationState::preempt(const HostId& host, const ReservationAcquireData& data,
                                   ReservationType type) {
  const auto take = [&] {
    const bool changed = type_ != type;
    type_ = type;
    holder_.reset();
    if (!all_registrants()) holder_ = host;
    if (changed) notify_others(host, kNoticeReservationReleased);
  };
  if (type_ == ReservationType::kNone) {
    remove_by_key(data.preempt_key, host);
    return io_status::kOk;
  }
  if (all_registrants()) {
    if (data.preempt_key == 0) {
      for (const Registrant& one : registrants_) {
        if (one.host != host) events_.push_back({one.host, kNoticeRegistrationPreempted});
      }
      const size_t before = registrants_.size();
      std::erase_if(registrants_, [&](const Registrant& one) { return one.host != host; });
      generation_ += static_cast<uint32_t>(before - registrants_.size());
      take();
      return io_status::kOk;
    }
    return remove_by_key(data.preempt_key, host) > 0 ? io_status::kOk
                                                     : io_status::kReservationConflict;
  }
  if (data.preempt_key == 0) return io_status::kInvalidField;
  const Registrant* const holder = find(*holder_);
  CHECK(holder != nullptr);
  if (holder->key == data.preempt_key) {
    remove_by_key(data.preempt_key, host);
    take();
    return io_status::kOk;
  }
  return remove_by_key(data.preempt_key, host) > 0 ? io_status::kOk
                                                   : io_status::kReservationConflict;
}

IoStatus ReservationState::release(const HostId& host, const ReservationReleaseData& data,
                                   Reservations::ReleaseAction action, bool ignore_existing_key,
                                   uint8_t type) {
  using Action = Reservations::ReleaseAction;
  if (ignore_existing_key) return io_status::kInvalidField;
  const Registrant* const known = find(host);
  if (known == nullptr || known->key != data.current_key) return io_status::kReservationConflict;
  switch (action) {
    case Action::kRelease: {
      if (!is_holder(host)) return io_status::kOk;
      if (static_cast<uint8_t>(type_) != type) return io_status::kInvalidField;
      const bool tell =
          type_ != ReservationType::kWriteExclusive && type_ != ReservationType::kExclusiveAccess;
      drop_reservation();
      if (tell) notify_others(host, kNoticeReservationReleased);
      return io_status::kOk;
    }
    case Action::kClear:
      if (type_ != ReservationType::kNone) notify_others(host, kNoticeReservationPreempted);
      generation_ += static_cast<uint32_t>(registrants_.size());
      registrants_.clear();
      drop_reservation();
      return io_status::kOk;
    default:
      return io_status::kInvalidField;
  }
}

uint8_t ReservationState::denied(const HostId& host) const noexcept {
  switch (type_) {
    case ReservationType::kNone:
      return kDenyNothing;
    case ReservationType::kWriteExclusive:
      return is_holder(host) ? kDenyNothing : kDenyWrite;
    case ReservationType::kExclusiveAccess:
      return is_holder(host) ? kDenyNothing : kDenyRead | kDenyWrite;
    case ReservationType::kWriteExclusiveRegistrantsOnly:
    case ReservationType::kWriteExclusiveAllRegistrants:
      return find(host) != nullptr ? kDenyNothing : kDenyWrite;
    case ReservationType::kExclusiveAccessRegistrantsOnly:
    case ReservationType::kExclusiveAccessAllRegistrants:
      return find(host) != nullptr ? kDenyNothing : kDenyRead | kDenyWrite;
  }
  return kDenyRead | kDenyWrite;
}

std::vector<uint8_t> ReservationState::report(bool extended) const {
  const size_t header_size =
      extended ? kReservationExtendedHeaderSize : sizeof(ReservationStatusHeader);
  const size_t entry_size =
      extended ? sizeof(ReservationRegistrantExtended) : sizeof(ReservationRegistrant);
  std::vector<uint8_t> out(header_size + entry_size * registrants_.size());
  ReservationStatusHeader header{};
  header.generation = generation_;
  header.type = static_cast<uint8_t>(type_);
  header.registrant_count = static_cast<uint16_t>(registrants_.size());
  header.ptpl_state = persists_ ? 1 : 0;
  std::memcpy(out.data(), &header, sizeof(header));
  uint8_t* at = out.data() + header_size;
  for (const Registrant& one : registrants_) {
    const uint8_t status = is_holder(one.host) ? 1 : 0;
    if (extended) {
      ReservationRegistrantExtended entry{};
      entry.cntlid = kDynamicControllerId;
      entry.status = status;
      entry.key = one.key;
      std::memcpy(entry.host_id, one.host.data(), one.host.size());
      std::memcpy(at, &entry, sizeof(entry));
    } else {
      ReservationRegistrant entry{};
      entry.cntlid = kDynamicControllerId;
      entry.status = status;
      std::memcpy(&entry.host_id, one.host.data(), sizeof(entry.host_id));
      entry.key = one.key;
      std::memcpy(at, &entry, sizeof(entry));
    }
    at += entry_size;
  }
  return out;
}

}  // namespace mayastor::nvmf::target

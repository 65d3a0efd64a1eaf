// Persistent reservations of one namespace: who is registered, who holds it, what others may do.
// Why pure: the rules are a table, and tests walk it without a target.
// Source: NVMe base specification 1.4, 8.8 (reservations) and 6.10-6.13 (commands).
// Invariants: holder, where the type has one, is a registrant; generation grows by one for each
// registrant added or removed; a failed command changes nothing.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bdev/bdev.h"
#include "nvmf/spec.h"
#include "util/result.h"
#include "util/uuid.h"

namespace mayastor::nvmf::target {

using HostId = std::array<uint8_t, 16>;

struct Registrant {
  HostId host{};
  uint64_t key = 0;
};

struct ReservationEvent {  // to every controller of that host
  HostId host{};
  ReservationNotice notice{};
};

// What a host may do now; bits of a mask of denied accesses, so that the I/O path tests one value.
enum AccessDenied : uint8_t { kDenyNothing = 0, kDenyRead = 1, kDenyWrite = 2 };

class ReservationState final {
 public:
  static constexpr size_t kMaxRegistrants = 1024;

  // cptpl: 0 no change, 2 clear, 3 persist. ptpl_offered: a place to persist exists.
  IoStatus register_key(const HostId& host, const ReservationRegisterData& data,
                        Reservations::RegisterAction action, bool ignore_existing_key,
                        uint8_t cptpl, bool ptpl_offered);
  IoStatus acquire(const HostId& host, const ReservationAcquireData& data,
                   Reservations::AcquireAction action, bool ignore_existing_key, uint8_t type);
  IoStatus release(const HostId& host, const ReservationReleaseData& data,
                   Reservations::ReleaseAction action, bool ignore_existing_key, uint8_t type);

  [[nodiscard]] uint8_t denied(const HostId& host) const noexcept;  // AccessDenied bits
  [[nodiscard]] const Registrant* find(const HostId& host) const noexcept;
  [[nodiscard]] bool is_holder(const HostId& host) const noexcept;
  [[nodiscard]] const std::vector<Registrant>& registrants() const noexcept { return registrants_; }
  [[nodiscard]] ReservationType type() const noexcept { return type_; }
  [[nodiscard]] uint32_t generation() const noexcept { return generation_; }
  [[nodiscard]] bool persists() const noexcept { return persists_; }
  void set_persists(bool persists) noexcept { persists_ = persists; }
  // Events of the last successful commands.
  [[nodiscard]] std::vector<ReservationEvent> take_events() { return std::exchange(events_, {}); }

  // Body of a Reservation Report, whole (the caller cuts it to what the host asked for).
  [[nodiscard]] std::vector<uint8_t> report(bool extended) const;

  // The form in which reservations survive a restart.
  [[nodiscard]] std::string to_json(const Uuid& bdev_uuid) const;
  // kInvalidArgument: not such a file, or contradicting itself; kFailedPrecondition: of another
  // bdev.
  [[nodiscard]] static Result<ReservationState> from_json(std::string_view text,
                                                          const Uuid& bdev_uuid);

 private:
  [[nodiscard]] bool all_registrants() const noexcept {
    return type_ >= ReservationType::kWriteExclusiveAllRegistrants;
  }
  void add(const HostId& host, uint64_t key);
  void remove(const HostId& host);
  void drop_reservation();
  // Removes every registrant with the key but `keep`; returns how many.
  size_t remove_by_key(uint64_t key, const HostId& keep);
  void notify_others(const HostId& but, ReservationNotice notice);
  IoStatus preempt(const HostId& host, const ReservationAcquireData& data, ReservationType type);

  std::vector<Registrant> registrants_;
  std::vector<ReservationEvent> events_;
  std::optional<HostId> holder_;  // none for the all-registrants types
  ReservationType type_ = ReservationType::kNone;
  uint32_t generation_ = 0;
  bool persists_ = false;
};

}  // namespace mayastor::nvmf::target

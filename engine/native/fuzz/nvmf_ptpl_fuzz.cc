// Reservation files from bytes: refused, or a state that can be written and read back unchanged.
#include <cstddef>
#include <cstdint>
#include <string>

#include "nvmf/reservation.h"
#include "util/check.h"

using mayastor::Uuid;
using mayastor::nvmf::target::ReservationState;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Uuid uuid;  // nil: the seeds are of this device
  const auto loaded = ReservationState::from_json(text, uuid);
  if (!loaded.ok()) {
    CHECK(!loaded.error().message.empty());
    return 0;
  }
  const std::string again = loaded.value().to_json(uuid);
  const auto reloaded = ReservationState::from_json(again, uuid);
  CHECK(reloaded.ok());
  CHECK(reloaded.value().to_json(uuid) == again);
  return 0;
}

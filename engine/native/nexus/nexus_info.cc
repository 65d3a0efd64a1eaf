#include "nexus/nexus_info.h"

#include <algorithm>

#include "util/check.h"

namespace mayastor::nexus {

void NexusInfo::set(std::string_view uuid, bool healthy) {
  // The text goes into JSON as it is: Child only lets UUIDs through.
  CHECK(uuid.find_first_of("\"\\") == std::string_view::npos);
  for (ChildRecord& child : children_) {
    if (child.uuid != uuid) continue;
    child.healthy = healthy;
    return;
  }
  children_.push_back(ChildRecord{std::string(uuid), healthy});
}

void NexusInfo::remove(std::string_view uuid) {
  std::erase_if(children_, [uuid](const ChildRecord& child) { return child.uuid == uuid; });
}

bool NexusInfo::is_healthy(std::string_view uuid) const noexcept {
  return std::any_of(children_.begin(), children_.end(), [uuid](const ChildRecord& child) {
    return child.uuid == uuid && child.healthy;
  });
}

bool NexusInfo::other_healthy_than(std::string_view uuid) const noexcept {
  return std::any_of(children_.begin(), children_.end(), [uuid](const ChildRecord& child) {
    return child.uuid != uuid && child.healthy;
  });
}

std::string NexusInfo::to_json() const {
  std::string json = "{\"children\":[";
  for (const ChildRecord& child : children_) {
    if (json.back() != '[') json += ',';
    json += child.healthy ? "{\"healthy\":true,\"uuid\":\"" : "{\"healthy\":false,\"uuid\":\"";
    json += child.uuid;
    json += "\"}";
  }
  json += "],\"clean_shutdown\":";
  json += clean_shutdown ? "true}" : "false}";
  return json;
}

}  // namespace mayastor::nexus

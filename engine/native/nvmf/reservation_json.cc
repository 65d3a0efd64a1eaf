// Reservations as text: {"ptpl", "rtype", "crkey", "bdev_uuid", "holder_uuid", "registrants":
// [{"rkey", "host_uuid"}]}: the members other NVMe-oF targets use for such files, so that a replica
// keeps its fence when the software around it changes. The reader takes exactly this; anything else
// is an error, never a guess.
#include <cctype>
#include <charconv>
#include <set>

#include "nvmf/reservation.h"

namespace mayastor::nvmf::target {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

class Reader final {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  bool take(char wanted) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  bool string(std::string* out) {  // no escapes: names and uuids have none
    if (!take('"')) return false;
    const size_t end = text_.find('"', at_);
    if (end == std::string_view::npos) return false;
    *out = text_.substr(at_, end - at_);
    at_ = end + 1;
    return out->find('\\') == std::string::npos;
  }
  bool number(uint64_t* out) {
    skip_space();
    const char* const begin = text_.data() + at_;
    const auto result = std::from_chars(begin, text_.data() + text_.size(), *out);
    at_ += static_cast<size_t>(result.ptr - begin);
    return result.ec == std::errc{};
  }
  bool boolean(bool* out) {
    skip_space();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "true" : "false";
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      *out = value;
      return true;
    }
    return false;
  }
  bool uuid(Uuid* out) {
    std::string text;
    if (!string(&text)) return false;
    if (text.empty()) return true;
    auto parsed = Uuid::parse(text);
    if (!parsed.ok()) return false;
    *out = parsed.value();
    return true;
  }
  // {"name": value, ...}; member() reads the value.
  template <typename Member>
  bool object(Member member) {
    if (!take('{')) return false;
    if (take('}')) return true;
    do {
      std::string name;
      if (!string(&name) || !take(':') || !member(name)) return false;
    } while (take(','));
    return take('}');
  }
  bool at_end() {
    skip_space();
    return at_ == text_.size();
  }

 private:
  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
  }
  std::string_view text_;
  size_t at_ = 0;
};

struct Stored {
  bool persists = false;
  uint64_t type = 0, current_key = 0;
  Uuid bdev, holder;
  std::vector<Registrant> registrants;
};

bool read_registrants(Reader& reader, std::vector<Registrant>* out) {
  if (!reader.take('[')) return false;
  if (reader.take(']')) return true;
  do {
    Registrant one;
    Uuid host;
    const bool read = reader.object([&](const std::string& name) {
      if (name == "rkey") return reader.number(&one.key);
      if (name == "host_uuid") return reader.uuid(&host);
      return false;
    });
    if (!read || out->size() >= ReservationState::kMaxRegistrants) return false;
    one.host = host.bytes;
    out->push_back(one);
  } while (reader.take(','));
  return reader.take(']');
}

bool read_stored(std::string_view text, Stored* out) {
  if (text.size() > kMaxFileBytes) return false;
  Reader reader(text);
  const bool read = reader.object([&](const std::string& name) {
    if (name == "ptpl") return reader.boolean(&out->persists);
    if (name == "rtype") return reader.number(&out->type);
    if (name == "crkey") return reader.number(&out->current_key);
    if (name == "bdev_uuid") return reader.uuid(&out->bdev);
    if (name == "holder_uuid") return reader.uuid(&out->holder);
    if (name == "registrants") return read_registrants(reader, &out->registrants);
    return false;
  });
  return read && reader.at_end();
}

}  // namespace

std::string ReservationState::to_json(const Uuid& bdev_uuid) const {
  std::optional<HostId> holder = holder_;
  if (all_registrants() && !registrants_.empty()) holder = registrants_.front().host;
  const Registrant* const holding = holder.has_value() ? find(*holder) : nullptr;
  std::string out = "{\n  \"ptpl\": ";
  out += persists_ ? "true" : "false";
  out += ",\n  \"rtype\": " + std::to_string(static_cast<int>(type_));
  out += ",\n  \"crkey\": " + std::to_string(holding != nullptr ? holding->key : 0);
  out += ",\n  \"bdev_uuid\": \"" + bdev_uuid.to_string() + "\"";
  if (holding != nullptr) out += ",\n  \"holder_uuid\": \"" + Uuid{*holder}.to_string() + "\"";
  out += ",\n  \"registrants\": [";
  const char* separator = "\n";
  for (const Registrant& one : registrants_) {
    out += separator;
    out += "    {\"rkey\": " + std::to_string(one.key) + ", \"host_uuid\": \"" +
           Uuid{one.host}.to_string() + "\"}";
    separator = ",\n";
  }
  out += "\n  ]\n}\n";
  return out;
}

Result<ReservationState> ReservationState::from_json(std::string_view text, const Uuid& bdev_uuid) {
  Stored stored;
  const auto bad = [](const char* why) {
    return Error{ErrorCode::kInvalidArgument, std::string("Cannot load reservations: ") + why};
  };
  if (!read_stored(text, &stored)) return bad("the file is not a reservation record");
  if (stored.bdev != bdev_uuid) {
    return Error{ErrorCode::kFailedPrecondition,
                 "Cannot load reservations: the file is of bdev " + stored.bdev.to_string()};
  }
  ReservationState state;
  if (!stored.persists) return state;
  if (stored.type > 6) return bad("unknown reservation type");
  std::set<HostId> hosts;
  for (const Registrant& one : stored.registrants) {
    if (one.key == 0 || !hosts.insert(one.host).second) return bad("bad or double registrant");
  }
  state.persists_ = true;
  state.registrants_ = std::move(stored.registrants);
  state.type_ = static_cast<ReservationType>(stored.type);
  state.generation_ = static_cast<uint32_t>(state.registrants_.size());
  if (state.type_ == ReservationType::kNone) return state;
  if (state.registrants_.empty()) return bad("a reservation without registrants");
  if (!state.all_registrants()) {
    if (hosts.count(stored.holder.bytes) == 0) return bad("the holder is not registered");
    state.holder_ = stored.holder.bytes;
  }
  return state;
}

}  // namespace mayastor::nvmf::target

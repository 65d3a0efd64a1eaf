#include "nvmf/pdu.h"

#include <algorithm>
#include <cstring>

#include "util/crc32c.h"

namespace mayastor::nvmf {
namespace {

constexpr uint8_t kHeaderLengths[] = {
    sizeof(IcReqPdu),   sizeof(IcRespPdu),     sizeof(TermReqPdu),
    sizeof(TermReqPdu), sizeof(CapsuleCmdPdu), sizeof(CapsuleRespPdu),
    sizeof(DataPdu),    sizeof(DataPdu),       0,
    sizeof(R2tPdu),
};

bool allowed(uint8_t type, PduDirection direction) noexcept {
  const bool to_controller =
      type == kPduIcReq || type == kPduH2cTermReq || type == kPduCapsuleCmd || type == kPduH2cData;
  return to_controller == (direction == PduDirection::kToController);
}
bool has_digests(uint8_t type) noexcept {
  return type >= kPduCapsuleCmd;
}
bool may_have_data(uint8_t type) noexcept {
  return type == kPduCapsuleCmd || type == kPduH2cData || type == kPduC2hData ||
         type == kPduCapsuleResp;
}
constexpr uint32_t round_up(uint32_t value, uint32_t unit) noexcept {
  return (value + unit - 1) / unit * unit;
}
constexpr PduFault bad_field(size_t offset) noexcept {
  return {kPduErrorInvalidHeader, static_cast<uint32_t>(offset)};
}

}  // namespace

uint32_t header_length_of(uint8_t type) noexcept {
  return type < sizeof(kHeaderLengths) ? kHeaderLengths[type] : 0;
}

PduLayout layout_for(uint8_t type, uint32_t data_length, const PduFormat& format) noexcept {
  PduLayout layout;
  layout.header_length = header_length_of(type);
  layout.header_digest = format.header_digest && has_digests(type);
  const uint32_t header_end = layout.header_length + (layout.header_digest ? kDigestSize : 0);
  layout.length = header_end;
  if (data_length == 0) return layout;
  layout.data_length = data_length;
  layout.data_digest = format.data_digest && has_digests(type);
  // A TermReq knows no alignment: its data follows the header.
  const uint32_t alignment = has_digests(type) ? std::max(format.alignment, 4U) : 4U;
  layout.data_offset = round_up(header_end, alignment);
  layout.length = layout.data_offset + data_length + (layout.data_digest ? kDigestSize : 0);
  return layout;
}

void encode_header(PduHeader& header, uint8_t type, uint8_t flags,
                   const PduLayout& layout) noexcept {
  header.type = type;
  header.flags = static_cast<uint8_t>(flags | (layout.header_digest ? kPduHeaderDigest : 0) |
                                      (layout.data_digest ? kPduDataDigest : 0));
  header.header_length = static_cast<uint8_t>(layout.header_length);
  header.data_offset = static_cast<uint8_t>(layout.data_offset);
  header.length = layout.length;
}

std::optional<PduFault> check_header(const PduHeader& header, PduDirection direction,
                                     const PduFormat& format, uint32_t max_length,
                                     PduLayout* layout) noexcept {
  const uint32_t header_length = header_length_of(header.type);
  if (header_length == 0 || !allowed(header.type, direction)) {
    return bad_field(offsetof(PduHeader, type));
  }
  if (header.header_length != header_length) return bad_field(offsetof(PduHeader, header_length));
  const bool digests = has_digests(header.type);
  const bool header_digest = digests && format.header_digest;
  if (((header.flags & kPduHeaderDigest) != 0) != header_digest) {
    return bad_field(offsetof(PduHeader, flags));
  }
  const uint32_t header_end = header_length + (header_digest ? kDigestSize : 0);
  if (header.length < header_end || header.length > max_length) {
    return bad_field(offsetof(PduHeader, length));
  }
  *layout = PduLayout{};
  layout->header_length = header_length;
  layout->header_digest = header_digest;
  layout->length = header.length;
  const bool wants_data = header.type == kPduH2cData || header.type == kPduC2hData;
  if (header.length == header_end) {
    if (wants_data) return bad_field(offsetof(PduHeader, length));
    return std::nullopt;
  }
  if (header.type == kPduH2cTermReq || header.type == kPduC2hTermReq) {
    layout->data_offset = header_end;
    layout->data_length = header.length - header_end;
    if (header.length > kTermReqMaxSize) return bad_field(offsetof(PduHeader, length));
    return std::nullopt;
  }
  if (!may_have_data(header.type)) return bad_field(offsetof(PduHeader, length));
  const bool data_digest = format.data_digest;
  if (((header.flags & kPduDataDigest) != 0) != data_digest) {
    return bad_field(offsetof(PduHeader, flags));
  }
  const uint32_t trailer = data_digest ? kDigestSize : 0;
  if (header.data_offset < header_end || header.data_offset % std::max(format.alignment, 4U) != 0 ||
      header.data_offset + trailer >= header.length) {
    return bad_field(offsetof(PduHeader, data_offset));
  }
  layout->data_offset = header.data_offset;
  layout->data_digest = data_digest;
  layout->data_length = header.length - header.data_offset - trailer;
  return std::nullopt;
}

uint32_t encode_term_request(uint8_t type, const PduFault& fault, const void* offending,
                             size_t offending_length, uint8_t* out) noexcept {
  const size_t copied = std::min<size_t>(offending_length, kMaxHeaderSize);
  static_assert(sizeof(TermReqPdu) + kMaxHeaderSize == kTermReqMaxSize);
  TermReqPdu pdu{};
  pdu.header.type = type;
  pdu.header.header_length = sizeof(TermReqPdu);
  pdu.header.length = static_cast<uint32_t>(sizeof(TermReqPdu) + copied);
  pdu.error = fault.error;
  std::memcpy(pdu.info, &fault.info, sizeof(pdu.info));
  std::memcpy(out, &pdu, sizeof(pdu));
  if (copied > 0) std::memcpy(out + sizeof(pdu), offending, copied);
  return pdu.header.length;
}

const char* describe_pdu_error(uint16_t error) noexcept {
  switch (error) {
    case kPduErrorInvalidHeader:
      return "invalid PDU header field";
    case kPduErrorSequence:
      return "PDU sequence error";
    case kPduErrorHeaderDigest:
      return "header digest error";
    case kPduErrorDataRange:
      return "data transfer out of range";
    case kPduErrorLimit:
      return "data transfer limit exceeded";
    case kPduErrorUnsupported:
      return "unsupported parameter";
    default:
      return "unknown error";
  }
}

uint32_t header_digest(const void* header, size_t length) noexcept {
  return crc32c(header, length);
}

uint32_t data_digest(const iovec* parts, int count) noexcept {
  DataDigest digest;
  for (int i = 0; i < count; ++i) digest.update(parts[i].iov_base, parts[i].iov_len);
  return digest.value();
}

void DataDigest::update(const void* data, size_t length) noexcept {
  state_ = crc32c_update(state_, data, length);
}
uint32_t DataDigest::value() const noexcept {
  return ~state_;
}

IcReqPdu make_ic_request(bool header_digest, bool data_digest) noexcept {
  IcReqPdu pdu{};
  pdu.header.type = kPduIcReq;
  pdu.header.header_length = sizeof(IcReqPdu);
  pdu.header.length = sizeof(IcReqPdu);
  pdu.digests = static_cast<uint8_t>((header_digest ? 1 : 0) | (data_digest ? 2 : 0));
  return pdu;
}

IcRespPdu make_ic_response(const IcReqPdu& request, uint32_t max_h2c_data) noexcept {
  IcRespPdu pdu{};
  pdu.header.type = kPduIcResp;
  pdu.header.header_length = sizeof(IcRespPdu);
  pdu.header.length = sizeof(IcRespPdu);
  pdu.digests = request.digests & 3;
  pdu.max_h2c_data = max_h2c_data;
  return pdu;
}

std::optional<PduFault> check_ic_request(const IcReqPdu& request) noexcept {
  if (request.version != 0) {
    return PduFault{kPduErrorUnsupported, offsetof(IcReqPdu, version)};
  }
  if (request.host_alignment > 31) return bad_field(offsetof(IcReqPdu, host_alignment));
  return std::nullopt;
}

}  // namespace mayastor::nvmf

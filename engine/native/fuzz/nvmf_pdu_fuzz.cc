// PDU headers from bytes: whatever check_header() accepts must be a layout that is safe to follow,
// and must survive being encoded again.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nvmf/pdu.h"
#include "util/check.h"

using namespace mayastor::nvmf;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < sizeof(PduHeader) + 2) return 0;
  PduFormat format;
  format.header_digest = (data[0] & 1) != 0;
  format.data_digest = (data[0] & 2) != 0;
  format.alignment = alignment_of(data[1] & 31);
  const auto direction = (data[0] & 4) != 0 ? PduDirection::kToHost : PduDirection::kToController;
  PduHeader header;
  std::memcpy(&header, data + 2, sizeof(header));
  constexpr uint32_t kMaxLength = 1 << 20;
  PduLayout layout;
  const auto fault = check_header(header, direction, format, kMaxLength, &layout);
  if (fault.has_value()) {
    CHECK(fault->error != 0);
    uint8_t term[kTermReqMaxSize];
    const uint32_t length =
        encode_term_request(kPduC2hTermReq, *fault, data, size > 128 ? 128 : size, term);
    CHECK(length <= kTermReqMaxSize);
    return 0;
  }
  CHECK(layout.length == header.length && layout.length <= kMaxLength);
  CHECK(layout.header_length == header_length_of(header.type) && layout.header_length > 0);
  const uint32_t header_end = layout.header_length + (layout.header_digest ? kDigestSize : 0);
  CHECK(layout.length >= header_end);
  if (layout.data_length == 0) {
    CHECK(layout.data_offset == 0 && layout.length == header_end);
    return 0;
  }
  CHECK(layout.data_offset >= header_end);
  CHECK(uint64_t{layout.data_offset} + layout.data_length +
            (layout.data_digest ? kDigestSize : 0) ==
        layout.length);
  // Our own encoding of the same data is valid for the same receiver.
  const PduLayout again = layout_for(header.type, layout.data_length, format);
  PduHeader encoded{};
  encode_header(encoded, header.type, 0, again);
  PduLayout decoded;
  CHECK(!check_header(encoded, direction, format, kMaxLength + 4096, &decoded).has_value());
  CHECK(decoded.data_length == layout.data_length && decoded.data_offset == again.data_offset);
  return 0;
}

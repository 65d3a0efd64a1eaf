// NVMe/TCP PDUs: layouts, and the pure functions that build, measure and validate them. Shared by
// target and initiator. Source: NVMe/TCP transport specification 1.0.
// Invariants: nothing here reads past the header it is given; a PDU that passes check_header() has
// plen >= hlen, and data_offset + data_length (+ digest) == plen.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "nvmf/spec.h"

namespace mayastor::nvmf {

enum PduType : uint8_t {
  kPduIcReq = 0x00,
  kPduIcResp = 0x01,
  kPduH2cTermReq = 0x02,
  kPduC2hTermReq = 0x03,
  kPduCapsuleCmd = 0x04,
  kPduCapsuleResp = 0x05,
  kPduH2cData = 0x06,
  kPduC2hData = 0x07,
  kPduR2t = 0x09,
};
enum PduFlag : uint8_t {
  kPduHeaderDigest = 0x01,
  kPduDataDigest = 0x02,
  kPduLast = 0x04,
  kPduSuccess = 0x08,
};
enum PduError : uint16_t {  // fatal error status of a TermReq
  kPduErrorInvalidHeader = 1,
  kPduErrorSequence = 2,
  kPduErrorHeaderDigest = 3,
  kPduErrorDataRange = 4,
  kPduErrorLimit = 5,
  kPduErrorUnsupported = 6,
};

struct [[gnu::packed]] PduHeader {
  uint8_t type, flags, header_length, data_offset;
  uint32_t length;  // bytes: header, digests, padding and data
};
struct [[gnu::packed]] IcReqPdu {
  PduHeader header;
  uint16_t version;
  uint8_t host_alignment,
      digests;       // alignment: 0-based dwords, 0..31; digests: bit 0 header, 1 data
  uint32_t max_r2t;  // 0-based
  uint8_t reserved[112];
};
struct [[gnu::packed]] IcRespPdu {
  PduHeader header;
  uint16_t version;
  uint8_t controller_alignment, digests;
  uint32_t max_h2c_data;
  uint8_t reserved[112];
};
struct [[gnu::packed]] TermReqPdu {
  PduHeader header;
  uint16_t error;
  uint8_t info[4];  // kPduErrorInvalidHeader: byte offset of the bad field
  uint8_t reserved[10];
};
struct [[gnu::packed]] CapsuleCmdPdu {
  PduHeader header;
  Sqe sqe;
};
struct [[gnu::packed]] CapsuleRespPdu {
  PduHeader header;
  Cqe cqe;
};
struct [[gnu::packed]] DataPdu {  // H2CData and C2HData
  PduHeader header;
  uint16_t cid, transfer_tag;  // tag: H2CData only
  uint32_t offset, length;
  uint8_t reserved[4];
};
struct [[gnu::packed]] R2tPdu {
  PduHeader header;
  uint16_t cid, transfer_tag;
  uint32_t offset, length;
  uint8_t reserved[4];
};
static_assert(sizeof(PduHeader) == 8 && offsetof(PduHeader, length) == 4);
static_assert(sizeof(IcReqPdu) == 128 && offsetof(IcReqPdu, max_r2t) == 12);
static_assert(sizeof(IcRespPdu) == 128 && offsetof(IcRespPdu, max_h2c_data) == 12);
static_assert(sizeof(TermReqPdu) == 24 && offsetof(TermReqPdu, info) == 10);
static_assert(sizeof(CapsuleCmdPdu) == 72 && sizeof(CapsuleRespPdu) == 24);
static_assert(sizeof(DataPdu) == 24 && offsetof(DataPdu, length) == 16);
static_assert(sizeof(R2tPdu) == 24 && offsetof(R2tPdu, length) == 16);
static_assert(std::is_trivially_copyable_v<CapsuleCmdPdu>);

inline constexpr uint32_t kDigestSize = 4;
inline constexpr uint32_t kTermReqMaxSize = 152;
inline constexpr uint32_t kMaxHeaderSize = 128;  // ICReq, ICResp

enum class PduDirection : uint8_t { kToController, kToHost };

// What both sides agreed on in ICReq/ICResp.
struct PduFormat {
  bool header_digest = false;
  bool data_digest = false;
  // Alignment of data in PDUs of this direction, bytes: (pda + 1) * 4, 4..128.
  uint32_t alignment = 4;
};
[[nodiscard]] constexpr uint32_t alignment_of(uint8_t pda) noexcept {
  return (pda + 1U) * 4;
}

// A fatal framing error: what to put in a TermReq.
struct PduFault {
  PduError error;
  uint32_t info;  // byte offset of the offending field for kPduErrorInvalidHeader, else 0
};

// Where the parts of one PDU are, bytes from its start.
struct PduLayout {
  uint32_t header_length = 0;  // without digest
  uint32_t data_offset = 0;    // 0: no data
  uint32_t data_length = 0;
  uint32_t length = 0;  // of the whole PDU
  bool header_digest = false;
  bool data_digest = false;
};

// Length of the fixed header of a type; 0 for an unknown type.
[[nodiscard]] uint32_t header_length_of(uint8_t type) noexcept;

// Layout of a PDU to send. ICReq, ICResp and TermReq never carry digests.
[[nodiscard]] PduLayout layout_for(uint8_t type, uint32_t data_length,
                                   const PduFormat& format) noexcept;
// Fills a common header for that layout.
void encode_header(PduHeader& header, uint8_t type, uint8_t flags,
                   const PduLayout& layout) noexcept;

// Validates the common header of a received PDU (type allowed in that direction, lengths, offset,
// digest flags) and gives its layout. `format` is of the receiving direction; max_length bounds the
// whole PDU.
[[nodiscard]] std::optional<PduFault> check_header(const PduHeader& header, PduDirection direction,
                                                   const PduFormat& format, uint32_t max_length,
                                                   PduLayout* layout) noexcept;

// A TermReq carrying the start of the offending PDU. Returns its length (<= kTermReqMaxSize).
uint32_t encode_term_request(uint8_t type, const PduFault& fault, const void* offending,
                             size_t offending_length, uint8_t* out) noexcept;
[[nodiscard]] const char* describe_pdu_error(uint16_t error) noexcept;

// CRC-32C, as put on the wire.
[[nodiscard]] uint32_t header_digest(const void* header, size_t length) noexcept;
[[nodiscard]] uint32_t data_digest(const iovec* parts, int count) noexcept;
class DataDigest final {  // over data that arrives in pieces
 public:
  void update(const void* data, size_t length) noexcept;
  [[nodiscard]] uint32_t value() const noexcept;

 private:
  uint32_t state_ = 0xFFFFFFFF;
};

// Offers of a host and answers to them.
[[nodiscard]] IcReqPdu make_ic_request(bool header_digest, bool data_digest) noexcept;
[[nodiscard]] IcRespPdu make_ic_response(const IcReqPdu& request, uint32_t max_h2c_data) noexcept;
[[nodiscard]] std::optional<PduFault> check_ic_request(const IcReqPdu& request) noexcept;

}  // namespace mayastor::nvmf

// PDU encoding and validation: known digests, layouts with padding and digests, and each refusal.
#include "nvmf/pdu.h"

#include <gtest/gtest.h>

#include <cstring>

namespace mayastor::nvmf {
namespace {

TEST(PduTest, DigestsMatchThePublishedVectors) {  // RFC 3720, B.4
  const std::vector<uint8_t> zeroes(32), ones(32, 0xFF);
  EXPECT_EQ(header_digest(zeroes.data(), zeroes.size()), 0x8A9136AAU);
  EXPECT_EQ(header_digest(ones.data(), ones.size()), 0x62A8AB43U);
  std::vector<uint8_t> ascending(32);
  for (size_t i = 0; i < ascending.size(); ++i) ascending[i] = static_cast<uint8_t>(i);
  const iovec parts[2] = {{ascending.data(), 5}, {ascending.data() + 5, 27}};
  EXPECT_EQ(data_digest(parts, 2), 0x46DD794EU);
  DataDigest digest;
  for (uint8_t& byte : ascending) digest.update(&byte, 1);
  EXPECT_EQ(digest.value(), 0x46DD794EU);
}

TEST(PduTest, LayoutsPlaceDataBehindDigestAndPadding) {
  EXPECT_EQ(layout_for(kPduCapsuleCmd, 0, {}).length, 72U);
  EXPECT_EQ(layout_for(kPduCapsuleCmd, 512, {}).data_offset, 72U);
  const PduFormat format{true, true, 64};
  const PduLayout layout = layout_for(kPduC2hData, 512, format);
  EXPECT_EQ(layout.data_offset, 64U);
  EXPECT_EQ(layout.length, 64U + 512 + 4);
  const PduLayout icreq = layout_for(kPduIcReq, 0, format);
  EXPECT_EQ(icreq.length, 128U);
  EXPECT_FALSE(icreq.header_digest);
  const PduLayout response = layout_for(kPduCapsuleResp, 0, format);
  EXPECT_EQ(response.length, 28U);
  EXPECT_FALSE(response.data_digest);
}

TEST(PduTest, WhatIsEncodedIsAccepted) {
  for (const bool header_digest : {false, true}) {
    for (const bool data_digest : {false, true}) {
      for (const uint8_t pda : {uint8_t{0}, uint8_t{1}, uint8_t{31}}) {
        const PduFormat format{header_digest, data_digest, alignment_of(pda)};
        for (const uint8_t type : {kPduCapsuleCmd, kPduH2cData}) {
          const PduLayout sent = layout_for(type, 1000, format);
          PduHeader header{};
          encode_header(header, type, 0, sent);
          PduLayout got;
          EXPECT_FALSE(
              check_header(header, PduDirection::kToController, format, 4096, &got).has_value());
          EXPECT_EQ(got.data_offset, sent.data_offset);
          EXPECT_EQ(got.data_length, 1000U);
        }
      }
    }
  }
}

TEST(PduTest, StatusFieldKeepsItsParts) {
  for (const IoStatus& one : {io_status::kOk, io_status::kLbaOutOfRange, io_status::kCompareFailure,
                              io_status::kNoSpace, io_status::kReservationConflict}) {
    const IoStatus back = decode_status(encode_status(one));
    EXPECT_TRUE(back.is(one));
    EXPECT_EQ(back.do_not_retry, one.do_not_retry);
    EXPECT_EQ(encode_status(one) & 1, 0);  // phase
  }
  EXPECT_EQ(decode_status(encode_status(io_status::kNoSpace)).error_number, 28);
}

TEST(PduTest, TermRequestCarriesTheOffendingHeader) {
  uint8_t offending[200], out[kTermReqMaxSize];
  std::memset(offending, 7, sizeof(offending));
  const uint32_t length = encode_term_request(kPduC2hTermReq, {kPduErrorInvalidHeader, 4},
                                              offending, sizeof(offending), out);
  EXPECT_EQ(length, kTermReqMaxSize);
  TermReqPdu pdu;
  std::memcpy(&pdu, out, sizeof(pdu));
  EXPECT_EQ(pdu.header.length, length);
  EXPECT_EQ(pdu.info[0], 4);
  EXPECT_EQ(out[sizeof(pdu)], 7);
}

}  // namespace
}  // namespace mayastor::nvmf

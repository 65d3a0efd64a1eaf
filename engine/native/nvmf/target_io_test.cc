// I/O of the target over the simulated network, from plain reads to every way a host can misbehave.
#include "core/buffer.h"
#include "nvmf/target_test_host.h"

namespace mayastor::nvmf::test {
namespace {

constexpr uint64_t kMs = 1'000'000;

class TargetIoTest : public TargetFixture {
 protected:
  explicit TargetIoTest(uint32_t reactors = 1) : TargetFixture(reactors) {}
  void begin(bool header_digest = false, bool data_digest = false) {
    start();
    admin = &open_admin({}, &cntlid, header_digest, data_digest);
    io = &open_io(cntlid, {}, header_digest, data_digest);
  }
  Bytes stored(uint64_t lba, uint32_t blocks) {
    Bytes out(blocks * 512);
    const auto load = [](Bdev* device, uint64_t offset, Bytes* into) -> Task<IoStatus> {
      auto channel = co_await device->open_channel();
      co_return co_await read(*channel.value(), offset, into->data(), into->size());
    };
    EXPECT_TRUE(sim.run(load(bdev.get(), lba * 512, &out)).ok());
    return out;
  }
  TestHost* admin = nullptr;
  TestHost* io = nullptr;
  uint16_t cntlid = 0;
};

TEST_F(TargetIoTest, WritesInCapsuleAndReadsBackWithSuccessFlag) {
  begin();
  const Bytes data = pattern(4096, 1);
  const TestAnswer written = io->write(8, data, true);
  ASSERT_TRUE(written.arrived);
  EXPECT_TRUE(written.status().ok());
  EXPECT_EQ(io->r2ts, 0U);
  const TestAnswer read = io->read(8, 8);
  ASSERT_TRUE(read.arrived);
  EXPECT_TRUE(read.success_flag);
  EXPECT_EQ(read.data, data);
  EXPECT_EQ(stored(8, 8), data);
}

TEST_F(TargetIoTest, AnswersWithCompletionWhereFlowControlIsOn) {
  start();
  open_admin({}, &cntlid);
  HostConnect connect;
  connect.cattr = 0;
  connect.sqsize = 3;
  io = &open_io(cntlid, connect);
  for (uint16_t i = 0; i < 9; ++i) {
    const TestAnswer read = io->read(0, 1);
    EXPECT_FALSE(read.success_flag);
    EXPECT_EQ(read.data.size(), 512U);
    EXPECT_EQ(read.cqe.sqhd, (i + 2) % 4);
  }
}

TEST_F(TargetIoTest, WritesOfEverySizeByR2t) {
  begin();
  for (const uint32_t blocks : {1U, 8U, 16U, 255U, 256U}) {
    const Bytes data = pattern(blocks * 512, blocks);
    EXPECT_TRUE(io->write(16, data, false).status().ok()) << blocks;
    EXPECT_EQ(io->read(16, blocks).data, data) << blocks;
  }
  EXPECT_EQ(io->r2ts, 5U);
}

TEST_F(TargetIoTest, WorksWithBothDigestsAndAlignment) {
  start();
  TestHost& a = open(true, true);
  const TestAnswer answer = a.connect({});
  ASSERT_TRUE(answer.status().ok());
  ASSERT_TRUE(a.property(kPropertyCc, false, kCcDefault).status().ok());
  TestHost host(std::make_unique<SimWire>(sim, other.home(), options.address, 8420));
  host.hpda = 31;  // data of C2HData starts at a multiple of 128 bytes
  ASSERT_TRUE(host.handshake(true, true).has_value());
  HostConnect connect;
  connect.qid = 1;
  connect.cntlid = static_cast<uint16_t>(answer.cqe.dw0);
  ASSERT_TRUE(host.connect(connect).status().ok());
  const Bytes data = pattern(131072, 3);
  EXPECT_TRUE(host.write(0, data, false).status().ok());
  EXPECT_EQ(host.read(0, 256).data, data);
  const Bytes small = pattern(4096, 4);
  EXPECT_TRUE(host.write(0, small, true).status().ok());
  EXPECT_EQ(host.read(0, 8).data, small);
}

TEST_F(TargetIoTest, DamagedDataDigestFailsOnlyTheCommand) {
  begin(false, true);
  const Bytes before = stored(0, 16);
  io->damage_data_digest = true;
  EXPECT_TRUE(io->write(0, pattern(4096, 5), true).status().is(io_status::kTransientTransport));
  EXPECT_TRUE(io->write(0, pattern(8192, 5), false).status().is(io_status::kTransientTransport));
  io->damage_data_digest = false;
  EXPECT_EQ(stored(0, 16), before);
  EXPECT_TRUE(io->write(0, pattern(8192, 6), false).status().ok());
}

TEST_F(TargetIoTest, DamagedHeaderDigestEndsTheConnection) {
  begin(true, false);
  CapsuleCmdPdu pdu{};
  pdu.sqe = TestHost::io(kIoRead, 0, 1);
  const PduLayout layout = layout_for(kPduCapsuleCmd, 0, io->format);
  encode_header(pdu.header, kPduCapsuleCmd, 0, layout);
  Bytes out(layout.length);
  std::memcpy(out.data(), &pdu, sizeof(pdu));
  io->wire().send(out.data(), out.size());
  const auto term = io->expect_term_request();
  ASSERT_TRUE(term.has_value());
  EXPECT_EQ(term->error, kPduErrorHeaderDigest);
}

TEST_F(TargetIoTest, RefusesBadCommandsOneByOne) {
  begin();
  const auto status_of = [&](Sqe sqe) { return io->command(sqe).status(); };
  Sqe sqe = TestHost::io(kIoRead, 16384, 1);
  sqe.sgl = {0, 512, {}, kSglTransport};
  EXPECT_TRUE(status_of(sqe).is(io_status::kLbaOutOfRange));
  sqe = TestHost::io(kIoRead, 16383, 2);
  sqe.sgl = {0, 1024, {}, kSglTransport};
  EXPECT_TRUE(status_of(sqe).is(io_status::kLbaOutOfRange));
  sqe = TestHost::io(kIoRead, UINT64_MAX, 2);
  sqe.sgl = {0, 1024, {}, kSglTransport};
  EXPECT_TRUE(status_of(sqe).is(io_status::kLbaOutOfRange));
  sqe = TestHost::io(kIoRead, 0, 257);  // above MDTS
  sqe.sgl = {0, 257 * 512, {}, kSglTransport};
  EXPECT_TRUE(status_of(sqe).is(io_status::kInvalidField));
  sqe = TestHost::io(kIoRead, 0, 2);
  sqe.sgl = {0, 512, {}, kSglTransport};  // shorter than the transfer
  EXPECT_TRUE(status_of(sqe).is(io_status::kDataLengthInvalid));
  sqe = TestHost::io(kIoRead, 0, 1);
  sqe.sgl = {0, 512, {}, 0x40};
  EXPECT_TRUE(status_of(sqe).is(status::kInvalidSglType));
  sqe.sgl = {0, 512, {}, kSglInCapsule};
  EXPECT_TRUE(status_of(sqe).is(status::kInvalidSglType));
  sqe = TestHost::io(kIoRead, 0, 1);
  sqe.nsid = 2;
  sqe.sgl = {0, 512, {}, kSglTransport};
  EXPECT_TRUE(status_of(sqe).is(io_status::kInvalidNamespace));
  sqe = TestHost::io(0x7E, 0, 1);
  EXPECT_TRUE(status_of(sqe).is(io_status::kInvalidOpcode));
  sqe = TestHost::io(kIoWrite, 0, 1);
  sqe.sgl = {8, 512, {}, kSglInCapsule};  // offset + length beyond the capsule
  EXPECT_TRUE(io->command(sqe, pattern(512, 1)).status().is(io_status::kDataLengthInvalid));
  sqe.sgl = {4096, 512, {}, kSglInCapsule};
  EXPECT_TRUE(io->command(sqe, pattern(512, 1)).status().is(status::kInvalidSglOffset));
  EXPECT_TRUE(io->read(0, 8).status().ok());  // none of that hurt the queue
}

TEST_F(TargetIoTest, SecondUseOfACommandIdIsAConflict) {
  begin();
  fault->add_rule({.type = IoType::kRead, .count = 1, .hold = true});
  Sqe sqe = TestHost::io(kIoRead, 0, 1);
  sqe.sgl = {0, 512, {}, kSglTransport};
  sqe.cid = 500;
  io->send_command(sqe);
  sim.run_for(kMs);
  io->send_command(sqe);
  EXPECT_TRUE(io->finish(500).status().is(status::kCommandIdConflict));
  fault->release_held();
  EXPECT_TRUE(io->finish(500).success_flag);
  io->send_command(sqe);  // free again
  EXPECT_TRUE(io->finish(500).success_flag);
}

TEST_F(TargetIoTest, CompareTellsEqualFromDifferent) {
  begin();
  const Bytes data = pattern(8192, 7);
  ASSERT_TRUE(io->write(0, data, false).status().ok());
  EXPECT_TRUE(io->command(TestHost::io(kIoCompare, 0, 16), data, false).status().ok());
  Bytes different = data;
  different[8000] ^= 1;
  EXPECT_TRUE(io->command(TestHost::io(kIoCompare, 0, 16), different, false)
                  .status()
                  .is(io_status::kCompareFailure));
}

TEST_F(TargetIoTest, ZeroesDeallocatesAndFlushes) {
  begin();
  ASSERT_TRUE(io->write(0, pattern(8192, 7), false).status().ok());
  Sqe zero = TestHost::io(kIoWriteZeroes, 2, 4);
  zero.cdw12 |= kCdw12Fua | kCdw12Deac;
  EXPECT_TRUE(io->command(zero).status().ok());
  EXPECT_EQ(stored(2, 4), Bytes(4 * 512));
  EXPECT_NE(stored(1, 1), Bytes(512));
  EXPECT_NE(stored(6, 1), Bytes(512));

  const DsmRange ranges[3] = {{0, 2, 8}, {0, 0, 0}, {0, 1, 12}};
  Bytes data(sizeof(ranges));
  std::memcpy(data.data(), ranges, sizeof(ranges));
  Sqe dsm{};
  dsm.opcode = kIoDatasetManagement;
  dsm.nsid = 1;
  dsm.cdw10 = 2;
  dsm.cdw11 = kDsmDeallocate;
  EXPECT_TRUE(io->command(dsm, data).status().ok());
  EXPECT_EQ(stored(8, 2), Bytes(1024));
  EXPECT_EQ(stored(12, 1), Bytes(512));
  EXPECT_NE(stored(10, 2), Bytes(1024));
  const DsmRange beyond{0, 2, 16383};
  Bytes bad(sizeof(beyond));
  std::memcpy(bad.data(), &beyond, sizeof(beyond));
  dsm.cdw10 = 0;
  EXPECT_TRUE(io->command(dsm, bad).status().is(io_status::kLbaOutOfRange));

  Sqe flush{};
  flush.opcode = kIoFlush;
  flush.nsid = 1;
  EXPECT_TRUE(io->command(flush).status().ok());
}

TEST_F(TargetIoTest, FusedCompareAndWriteIsOneStep) {
  begin();
  const Bytes old_data = pattern(512, 1), new_data = pattern(512, 2);
  ASSERT_TRUE(io->write(5, old_data, true).status().ok());
  const auto fused = [&](const Bytes& expected, uint64_t write_lba, bool in_capsule) {
    Sqe first = TestHost::io(kIoCompare, 5, 1), second = TestHost::io(kIoWrite, write_lba, 1);
    first.flags = kFuseFirst;
    second.flags = kFuseSecond;
    first.cid = io->next_cid();
    second.cid = io->next_cid();
    // The compare's data always comes by R2T: later than the write is parsed.
    first.sgl = {0, 512, {}, kSglTransport};
    second.sgl = {0, 512, {}, in_capsule ? kSglInCapsule : kSglTransport};
    io->send_command(first);
    io->send_command(second, in_capsule ? new_data : Bytes{});
    const TestAnswer compared = io->finish(first.cid, expected);
    const TestAnswer written = io->finish(second.cid, new_data);
    return std::make_pair(compared.status(), written.status());
  };
  auto [compared, written] = fused(pattern(512, 9), 5, true);
  EXPECT_TRUE(compared.is(io_status::kCompareFailure));
  EXPECT_TRUE(written.is(status::kFailedFused));
  EXPECT_EQ(stored(5, 1), old_data);
  std::tie(compared, written) = fused(old_data, 6, true);  // other range
  EXPECT_TRUE(compared.is(status::kMissingFused));
  EXPECT_TRUE(written.is(io_status::kInvalidField));
  std::tie(compared, written) = fused(old_data, 5, true);
  EXPECT_TRUE(compared.ok());
  EXPECT_TRUE(written.ok());
  EXPECT_EQ(stored(5, 1), new_data);
  EXPECT_TRUE(io->read(5, 1).status().ok());
}

TEST_F(TargetIoTest, HalvesOfAFusedPairNeedEachOther) {
  begin();
  Sqe second = TestHost::io(kIoWrite, 0, 1);
  second.flags = kFuseSecond;
  EXPECT_TRUE(io->command(second, pattern(512, 1)).status().is(status::kMissingFused));
  Sqe first = TestHost::io(kIoCompare, 0, 1);
  first.flags = kFuseFirst;
  first.cid = io->next_cid();
  first.sgl = {0, 512, {}, kSglInCapsule};
  io->send_command(first, pattern(512, 1));
  EXPECT_TRUE(io->read(0, 1).status().ok());
  EXPECT_TRUE(io->finish(first.cid).status().is(status::kMissingFused));
}

TEST_F(TargetIoTest, PauseHoldsIoAndResumeLetsItGo) {
  begin();
  fault->add_rule({.type = IoType::kWrite, .count = 1, .hold = true});
  Sqe sqe = TestHost::io(kIoWrite, 0, 1);
  sqe.cid = io->next_cid();
  sqe.sgl = {0, 512, {}, kSglInCapsule};
  io->send_command(sqe, pattern(512, 1));
  sim.run_for(kMs);
  bool paused = false;
  const auto pause = [](Target* on, bool* done) -> Task<void> {
    std::string nqn = kNqn;
    const auto result = co_await on->pause(std::move(nqn));
    EXPECT_TRUE(result.ok());
    *done = true;
  };
  spawn(pause(target.get(), &paused));
  sim.run_for(100 * kMs);
  EXPECT_FALSE(paused);  // a write is still with the device
  fault->release_held();
  sim.run_for(kMs);
  EXPECT_TRUE(paused);
  EXPECT_TRUE(io->finish(sqe.cid).status().ok());
  Sqe held = TestHost::io(kIoRead, 0, 1);
  held.cid = io->next_cid();
  held.sgl = {0, 512, {}, kSglTransport};
  io->send_command(held);
  sim.run_for(100 * kMs);
  EXPECT_TRUE(admin->identify(kCnsController, 0).status().ok());  // admin goes on
  EXPECT_EQ(bdev->stats().read_ops, 0U);
  EXPECT_TRUE(target->find(kNqn).value().paused);
  ASSERT_TRUE(sim.run(target->resume(kNqn)).ok());
  EXPECT_TRUE(io->finish(held.cid).status().ok());
  EXPECT_FALSE(sim.run(target->resume(kNqn)).ok());
}

TEST_F(TargetIoTest, RemovingThePausedSubsystemEndsEverything) {
  begin();
  ASSERT_TRUE(sim.run(target->pause(kNqn)).ok());
  Sqe held = TestHost::io(kIoRead, 0, 1);
  held.cid = io->next_cid();
  held.sgl = {0, 512, {}, kSglTransport};
  io->send_command(held);
  sim.run_for(kMs);
  ASSERT_TRUE(sim.run(target->remove_subsystem(kNqn)).ok());
  EXPECT_TRUE(io->wire().ended());
  EXPECT_TRUE(admin->wire().ended());
  EXPECT_EQ(target->connection_count(), 0U);
  EXPECT_FALSE(target->contains(kNqn));
}

TEST_F(TargetIoTest, RemovalWaitsForIoWithTheDevice) {
  begin();
  fault->add_rule({.type = IoType::kWrite, .count = 1, .hold = true});
  Sqe sqe = TestHost::io(kIoWrite, 0, 1);
  sqe.cid = io->next_cid();
  sqe.sgl = {0, 512, {}, kSglInCapsule};
  io->send_command(sqe, pattern(512, 1));
  sim.run_for(kMs);
  bool removed = false;
  const auto remove = [](Target* on, bool* done) -> Task<void> {
    std::string nqn = kNqn;
    const auto result = co_await on->remove_subsystem(std::move(nqn));
    EXPECT_TRUE(result.ok());
    *done = true;
  };
  spawn(remove(target.get(), &removed));
  sim.run_for(100 * kMs);
  EXPECT_FALSE(removed);
  fault->release_held();
  sim.run_until([&] { return removed; });
  EXPECT_TRUE(removed);
}

TEST_F(TargetIoTest, AnaStateDecidesAboutIo) {
  subsystem.ana_reporting = true;
  begin();
  const std::pair<AnaState, IoStatus> cases[] = {
      {AnaState::kInaccessible, io_status::kAnaInaccessible},
      {AnaState::kPersistentLoss, status::kAnaPersistentLoss},
      {AnaState::kChange, status::kAnaTransition},
      {AnaState::kNonOptimized, io_status::kOk},
      {AnaState::kOptimized, io_status::kOk},
  };
  for (const auto& [state, expected] : cases) {
    ASSERT_TRUE(sim.run(target->set_ana_state(kNqn, state)).ok());
    const TestAnswer read = io->read(0, 1);
    EXPECT_TRUE(read.status().is(expected)) << static_cast<int>(state);
    EXPECT_EQ(target->ana_state(kNqn).value(), state);
  }
}

TEST_F(TargetIoTest, AStateThatForbidsIoIsAcknowledgedWhenIoHasEnded) {
  begin();
  fault->add_rule({.type = IoType::kWrite, .count = 1, .hold = true});
  Sqe sqe = TestHost::io(kIoWrite, 0, 1);
  sqe.cid = io->next_cid();
  sqe.sgl = {0, 512, {}, kSglInCapsule};
  io->send_command(sqe, pattern(512, 1));
  sim.run_until([&] { return fault->held_count() == 1; });
  bool set = false;
  const auto change = [](Target* on, AnaState state, bool* done) -> Task<void> {
    const auto result = co_await on->set_ana_state(kNqn, state);
    EXPECT_TRUE(result.ok());
    *done = true;
  };
  ASSERT_TRUE(sim.run(target->set_ana_state(kNqn, AnaState::kNonOptimized)).ok());  // forbids none
  spawn(change(target.get(), AnaState::kInaccessible, &set));
  sim.run_for(100 * kMs);
  EXPECT_FALSE(set);
  EXPECT_TRUE(io->read(0, 1).status().is(io_status::kAnaInaccessible));  // in force already
  fault->release_held();
  EXPECT_TRUE(sim.run_until([&] { return set; }, 100 * kMs));
  EXPECT_TRUE(io->finish(sqe.cid).status().ok());
}

TEST_F(TargetIoTest, DeviceErrorsReachTheHostWithTheirStatus) {
  begin();
  fault->add_rule({.type = IoType::kRead, .count = 1, .status = io_status::kUnrecoveredRead});
  fault->add_rule({.type = IoType::kWrite, .count = 1, .status = io_status::kNoSpace});
  EXPECT_TRUE(io->read(0, 1).status().is(io_status::kUnrecoveredRead));
  EXPECT_TRUE(io->write(0, pattern(512, 1), true).status().is(io_status::kNoSpace));
  EXPECT_TRUE(io->read(0, 1).status().ok());
}

TEST_F(TargetIoTest, ManyCommandsAtOnceAllAnswer) {
  begin();
  std::vector<uint16_t> cids;
  for (uint32_t round = 0; round < 4; ++round) {
    for (uint32_t i = 0; i < 31; ++i) {
      Sqe sqe = TestHost::io(kIoRead, i, 8);
      sqe.cid = io->next_cid();
      sqe.sgl = {0, 4096, {}, kSglTransport};
      io->send_command(sqe);
      cids.push_back(sqe.cid);
    }
    for (const uint16_t cid : cids) EXPECT_EQ(io->finish(cid).data.size(), 4096U);
    cids.clear();
  }
}

TEST_F(TargetIoTest, MoreCommandsThanEntriesWaitInTheStream) {
  start();
  open_admin({}, &cntlid);
  HostConnect connect;
  connect.sqsize = 3;
  io = &open_io(cntlid, connect);
  fault->add_rule({.type = IoType::kRead, .count = 4, .hold = true});
  std::vector<uint16_t> cids;
  for (uint32_t i = 0; i < 40; ++i) {
    Sqe sqe = TestHost::io(kIoRead, i, 8);
    sqe.cid = io->next_cid();
    sqe.sgl = {0, 4096, {}, kSglTransport};
    io->send_command(sqe);
    cids.push_back(sqe.cid);
  }
  sim.run_for(10 * kMs);
  fault->release_held();
  for (const uint16_t cid : cids) EXPECT_EQ(io->finish(cid).data.size(), 4096U);
}

TEST_F(TargetIoTest, BufferShortageOnlyWaits) {
  begin();
  const Bytes data = pattern(131072, 9);
  ASSERT_TRUE(io->write(0, data, false).status().ok());
  BufferPool& pool = BufferPool::current();
  std::vector<std::pair<uint8_t*, size_t>> taken;
  for (const size_t size :
       {size_t{1} << 20, size_t{131072}, size_t{65536}, size_t{16384}, size_t{4096}}) {
    while (uint8_t* const buffer = pool.acquire(size)) taken.emplace_back(buffer, size);
  }
  Sqe read = TestHost::io(kIoRead, 0, 256);
  read.cid = io->next_cid();
  read.sgl = {0, 131072, {}, kSglTransport};
  io->send_command(read);
  Sqe write = TestHost::io(kIoWrite, 300, 256);
  write.cid = io->next_cid();
  write.sgl = {0, 131072, {}, kSglTransport};
  io->send_command(write);
  sim.run_for(50 * kMs);
  EXPECT_EQ(static_cast<SimWire&>(io->wire()).waiting(), 0U);
  EXPECT_TRUE(io->write(600, pattern(4096, 1), true).status().ok());  // in-capsule needs no pool
  for (const auto& [buffer, size] : taken) pool.release(buffer, size);
  EXPECT_EQ(io->finish(read.cid).data, data);
  EXPECT_TRUE(io->finish(write.cid, data).status().ok());
  EXPECT_EQ(stored(300, 256), data);
}

// ---- Framing errors
// ------------------------------------------------------------------------------

struct BadPdu {
  const char* name;
  PduError error;
  uint8_t type, flags, header_length, data_offset;
  uint32_t length;
};
class TargetFramingTest : public TargetIoTest, public testing::WithParamInterface<BadPdu> {};

TEST_P(TargetFramingTest, EndsTheConnectionWithATermReq) {
  begin();
  const BadPdu& bad = GetParam();
  const PduHeader header{bad.type, bad.flags, bad.header_length, bad.data_offset, bad.length};
  Bytes bytes(256);
  std::memcpy(bytes.data(), &header, sizeof(header));
  io->wire().send(bytes.data(), bytes.size());
  const auto term = io->expect_term_request();
  ASSERT_TRUE(term.has_value());
  EXPECT_EQ(term->error, bad.error);
  EXPECT_TRUE(io->wire().ended());
  EXPECT_TRUE(admin->identify(kCnsController, 0).status().ok());  // others do not care
}

INSTANTIATE_TEST_SUITE_P(
    All, TargetFramingTest,
    testing::Values(
        BadPdu{"UnknownType", kPduErrorInvalidHeader, 0x42, 0, 72, 0, 72},
        BadPdu{"WrongDirection", kPduErrorInvalidHeader, kPduCapsuleResp, 0, 24, 0, 24},
        BadPdu{"HeaderLength", kPduErrorInvalidHeader, kPduCapsuleCmd, 0, 71, 0, 72},
        BadPdu{"TooShort", kPduErrorInvalidHeader, kPduCapsuleCmd, 0, 72, 0, 71},
        BadPdu{"TooLong", kPduErrorInvalidHeader, kPduCapsuleCmd, 0, 72, 72, 0x7FFFFFFF},
        BadPdu{"DataOffsetInHeader", kPduErrorInvalidHeader, kPduCapsuleCmd, 0, 72, 8, 200},
        BadPdu{"DataOffsetUnaligned", kPduErrorInvalidHeader, kPduCapsuleCmd, 0, 72, 73, 200},
        BadPdu{"UnexpectedDigest", kPduErrorInvalidHeader, kPduCapsuleCmd, 1, 72, 0, 76},
        BadPdu{"SecondIcReq", kPduErrorSequence, kPduIcReq, 0, 128, 0, 128},
        BadPdu{"DataForNobody", kPduErrorInvalidHeader, kPduH2cData, 4, 24, 24, 124},
        BadPdu{"DataWithoutData", kPduErrorInvalidHeader, kPduH2cData, 4, 24, 0, 24}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(TargetIoTest, WrongH2cDataEndsTheConnection) {
  const auto try_one = [&](uint16_t cid_change, uint16_t tag_change, uint32_t offset,
                           uint32_t length, bool last, PduError expected) {
    TestHost& one_admin = open_admin({}, &cntlid);
    TestHost& one = open_io(cntlid);
    Sqe sqe = TestHost::io(kIoWrite, 0, 16);
    sqe.cid = 77;
    sqe.sgl = {0, 8192, {}, kSglTransport};
    one.send_command(sqe);
    const auto pdu = one.receive_pdu();
    ASSERT_TRUE(pdu.has_value());
    R2tPdu r2t;
    std::memcpy(&r2t, pdu->bytes.data(), sizeof(r2t));
    EXPECT_EQ(r2t.length, 8192U);
    one.send_data(static_cast<uint16_t>(77 + cid_change),
                  static_cast<uint16_t>(r2t.transfer_tag + tag_change), offset, pattern(length, 1),
                  last);
    const auto term = one.expect_term_request();
    ASSERT_TRUE(term.has_value());
    EXPECT_EQ(term->error, expected);
    close(one);
    close(one_admin);
    sim.run_for(2000 * kMs);
  };
  start();
  try_one(1, 0, 0, 8192, true, kPduErrorInvalidHeader);
  try_one(0, 1, 0, 8192, true, kPduErrorInvalidHeader);
  try_one(0, 9000, 0, 8192, true, kPduErrorInvalidHeader);
  try_one(0, 0, 4096, 4096, true, kPduErrorDataRange);
  try_one(0, 0, 0, 12288, true, kPduErrorDataRange);
  try_one(0, 0, 0, 4096, true, kPduErrorDataRange);  // last, but not all
  EXPECT_EQ(bdev->stats().write_ops, 0U);
}

TEST_F(TargetIoTest, BytesInAnyPortions) {
  sim.world().set_network({.segment_bytes_max = 7});
  begin(true, true);
  const Bytes data = pattern(8192, 12);
  EXPECT_TRUE(io->write(3, data, false).status().ok());
  EXPECT_TRUE(io->write(3, Bytes(data.begin(), data.begin() + 512), true).status().ok());
  EXPECT_EQ(io->read(3, 16).data, data);
}

TEST_F(TargetIoTest, HostThatVanishesLeavesNothingBehind) {
  begin();
  Sqe sqe = TestHost::io(kIoWrite, 0, 16);
  sqe.cid = 1000;
  sqe.sgl = {0, 8192, {}, kSglTransport};
  io->send_command(sqe);  // waits for data that never comes
  sim.run_for(kMs);
  close(*io);
  close(*admin);
  sim.run_until([&] { return target->connection_count() == 0; });
  EXPECT_EQ(target->connection_count(), 0U);
  EXPECT_TRUE(target->find(kNqn).value().hosts.empty());
}

class TargetTwoReactorTest : public TargetIoTest {
 protected:
  TargetTwoReactorTest() : TargetIoTest(2) {}
};

TEST_F(TargetTwoReactorTest, QueuesOnDifferentReactorsSeeOneNamespace) {
  begin();
  HostConnect connect;
  connect.qid = 2;
  TestHost& second = open_io(cntlid, connect);
  const Bytes data = pattern(4096, 5);
  ASSERT_TRUE(io->write(0, data, true).status().ok());
  EXPECT_EQ(second.read(0, 8).data, data);
  ASSERT_TRUE(sim.run(target->pause(kNqn)).ok());
  ASSERT_TRUE(sim.run(target->resume(kNqn)).ok());
  EXPECT_EQ(second.read(0, 8).data, data);
  EXPECT_EQ(target->find(kNqn).value().hosts.at(0).io_queues, 2U);
  ASSERT_TRUE(sim.run(target->remove_subsystem(kNqn)).ok());
  EXPECT_EQ(target->connection_count(), 0U);
}

}  // namespace
}  // namespace mayastor::nvmf::test

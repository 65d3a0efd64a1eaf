// The initiator against a scripted peer on the simulated network: what it sends, what it makes of
// answers good and bad, and how it ends.
#include "nvmf/initiator.h"

#include <gtest/gtest.h>

#include "core/sim_harness.h"
#include "nvmf/initiator_test_peer.h"

namespace mayastor::nvmf {
namespace {

using test::PeerOptions;
using test::ScriptedPeer;

constexpr uint64_t kMs = 1'000'000;
constexpr char kPeerAddress[] = "10.0.0.2";

std::vector<uint8_t> pattern(size_t size, uint32_t seed) {
  std::vector<uint8_t> bytes(size);
  SimRandom random(seed);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random.next());
  return bytes;
}

class InitiatorTest : public testing::Test {
 protected:
  explicit InitiatorTest(uint32_t reactors = 1)
      : sim_(7, reactors), peer_host_(sim_.world(), kPeerAddress, 1) {
    options_.kato_ms = 1000;
    options_.io_timeout_ms = 500;
    options_.admin_timeout_ms = 500;
    options_.connect_timeout_ms = 800;
  }
  ~InitiatorTest() override {
    channel_.reset();
    bdev_.reset();
    sim_.run_for(10 * kMs);
    peer_.reset();
  }
  void start_peer(PeerOptions options = {}) {
    peer_ =
        std::make_unique<ScriptedPeer>(peer_host_.home(), kPeerAddress, 8420, std::move(options));
  }
  Result<std::shared_ptr<Bdev>> create(std::string query = "") {
    initiator_ = std::make_unique<Initiator>(sim_.home(), options_);
    std::string uri = std::string("nvmf://") + kPeerAddress + "/nqn.2019-05.io.openebs:peer";
    if (!query.empty()) uri += "?" + query;
    return sim_.run(initiator_->create(std::move(uri)));
  }
  void open(std::string query = "") {
    auto bdev = create(std::move(query));
    ASSERT_TRUE(bdev.ok()) << bdev.error().message;
    bdev_ = bdev.take();
    auto channel = sim_.run(bdev_->open_channel());
    ASSERT_TRUE(channel.ok()) << channel.error().message;
    channel_ = channel.take();
  }
  IoStatus write(uint64_t offset, const std::vector<uint8_t>& data, bool fua = false) {
    return sim_.run(mayastor::write(*channel_, offset, data.data(), data.size(), fua));
  }
  IoStatus read(uint64_t offset, std::vector<uint8_t>& data) {
    return sim_.run(mayastor::read(*channel_, offset, data.data(), data.size()));
  }
  void expect_round_trips() {
    uint32_t seed = 1;
    for (const size_t size : {512u, 4096u, 4608u, 65536u, 131072u, 400u * 1024}) {
      const auto data = pattern(size, seed++);
      ASSERT_TRUE(write(8192, data).ok());
      ASSERT_EQ(0, std::memcmp(peer_->memory.data() + 8192, data.data(), size)) << size;
      std::vector<uint8_t> back(size);
      ASSERT_TRUE(read(8192, back).ok());
      ASSERT_EQ(back, data) << size;
    }
  }

  Sim sim_;
  SimHost peer_host_;
  InitiatorOptions options_;
  std::unique_ptr<ScriptedPeer> peer_;
  std::unique_ptr<Initiator> initiator_;
  std::shared_ptr<Bdev> bdev_;
  std::unique_ptr<Channel> channel_;
};

struct TestIo : Io {
  TestIo(IoType io_type, uint64_t at, std::vector<uint8_t>& data) : part{data.data(), data.size()} {
    type = io_type;
    offset = at;
    length = data.size();
    iov = &part;
    iov_count = 1;
    done = [](Io* io, IoStatus status) noexcept {
      auto* self = static_cast<TestIo*>(io);
      self->status = status;
      ++self->completions;
    };
  }
  iovec part;
  IoStatus status;
  int completions = 0;
};

TEST_F(InitiatorTest, CreateIdentifiesTheNamespace) {
  start_peer();
  open("uuid=" + Uuid::from_name("peer").to_string());
  EXPECT_EQ(bdev_->name(), "10.0.0.2:8420/nqn.2019-05.io.openebs:peern1");
  EXPECT_EQ(bdev_->uuid(), Uuid::from_name("peer"));
  EXPECT_EQ(bdev_->block_size(), 512u);
  EXPECT_EQ(bdev_->size_bytes(), 16384u * 512);
  EXPECT_TRUE(bdev_->supports(IoType::kUnmap));
  EXPECT_NE(bdev_->reservations(), nullptr);
  const auto list = initiator_->list();
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].state, ControllerState::kRunning);
  EXPECT_EQ(list[0].size_blocks, 16384u);
}

TEST_F(InitiatorTest, WritesAndReadsBackAllSizes) {
  start_peer();
  open();
  expect_round_trips();
  EXPECT_GT(peer_->seen.in_capsule_writes, 0u);
  EXPECT_GT(peer_->seen.r2ts, 0u);
  const IoStats stats = bdev_->stats();
  EXPECT_EQ(stats.read_ops, 6u);
  EXPECT_EQ(stats.write_bytes, 512u + 4096 + 4608 + 65536 + 131072 + 400 * 1024);
}

TEST_F(InitiatorTest, WorksWithBothDigests) {
  start_peer();
  open("hdgst=true&ddgst=true");
  expect_round_trips();
}

TEST_F(InitiatorTest, WorksWithOddTargets) {
  PeerOptions options;
  options.controller_alignment = 31;  // data 128-byte aligned
  options.success_flag = false;
  options.max_h2c_data = 4096;
  options.r2t_bytes = 20480;
  options.c2h_bytes = 1536;
  options.in_capsule_bytes = 0;
  options.entries = 3;
  sim_.world().set_network({.window_bytes = 10'000, .segment_bytes_max = 700});
  start_peer(options);
  open("hdgst=1&ddgst=1");
  expect_round_trips();
  EXPECT_GT(peer_->seen.h2c_pdus, 40u);
}

TEST_F(InitiatorTest, SendsEveryKindOfCommand) {
  start_peer();
  open();
  auto data = pattern(8192, 3);
  ASSERT_TRUE(write(0, data, true).ok());
  EXPECT_EQ(peer_->commands.back().cdw12 & kCdw12Fua, kCdw12Fua);
  TestIo same(IoType::kCompare, 0, data);
  channel_->submit(&same);
  ASSERT_TRUE(sim_.run_until([&] { return same.completions == 1; }));
  EXPECT_TRUE(same.status.ok());
  data[5] ^= 1;
  TestIo differs(IoType::kCompare, 0, data);
  channel_->submit(&differs);
  ASSERT_TRUE(sim_.run_until([&] { return differs.completions == 1; }));
  EXPECT_TRUE(differs.status.is(io_status::kCompareFailure));
  EXPECT_TRUE(sim_.run(mayastor::flush(*channel_)).ok());
  EXPECT_TRUE(sim_.run(mayastor::unmap(*channel_, 0, 4096)).ok());
  EXPECT_EQ(peer_->memory[0], 0);
  EXPECT_NE(peer_->memory[4096 + 100], peer_->memory[100]);
  EXPECT_TRUE(sim_.run(mayastor::write_zeroes(*channel_, 4096, 4096)).ok());
  EXPECT_EQ(std::vector<uint8_t>(8192),
            std::vector<uint8_t>(peer_->memory.begin(), peer_->memory.begin() + 8192));
}

TEST_F(InitiatorTest, KeepsOrderAndDepthUnderPressure) {
  PeerOptions options;
  options.entries = 9;
  start_peer(options);
  open();
  uint32_t held = 0, most = 0;
  std::vector<std::pair<ScriptedPeer::Link*, Sqe>> parked;
  peer_->on_command = [&](ScriptedPeer::Link& link, const Sqe& sqe) {
    parked.emplace_back(&link, sqe);
    most = std::max(most, ++held);
    return true;
  };
  std::vector<uint8_t> data(4096);
  std::vector<std::unique_ptr<TestIo>> ios;
  for (uint32_t i = 0; i < 50; ++i) {
    ios.push_back(std::make_unique<TestIo>(IoType::kWrite, i * 4096, data));
    channel_->submit(ios.back().get());
  }
  uint64_t lba = 0;
  for (uint32_t answered = 0; answered < 50;) {
    ASSERT_TRUE(sim_.run_until([&] { return !parked.empty(); }));
    auto [link, sqe] = parked.front();
    parked.erase(parked.begin());
    EXPECT_EQ(sqe.slba(), lba);
    lba += 8;
    --held;
    ++answered;
    const Reactor::Scope scope(peer_host_.home());
    link->answer(sqe.cid, io_status::kOk);
    link->flush();
  }
  ASSERT_TRUE(sim_.run_until([&] { return ios.back()->completions == 1; }));
  EXPECT_EQ(most, 8u);
  for (const auto& io : ios) EXPECT_EQ(io->completions, 1);
}

TEST_F(InitiatorTest, RemoteErrorsKeepTheirMeaning) {
  start_peer();
  open();
  peer_->fail_opcodes[kIoWrite] = io_status::kReservationConflict;
  EXPECT_TRUE(write(0, pattern(4096, 1)).is(io_status::kReservationConflict));
  peer_->fail_opcodes[kIoWrite] = io_status::kNoSpace;
  const IoStatus status = write(0, pattern(300 * 1024, 1));  // several commands, one completion
  EXPECT_TRUE(status.is(io_status::kNoSpace));
  EXPECT_EQ(status.error_number, 28);
  peer_->fail_opcodes.clear();
  EXPECT_TRUE(write(0, pattern(4096, 1)).ok());  // the device lives on
}

TEST_F(InitiatorTest, WrongUuidIsRefused) {
  start_peer();
  const auto bdev = create("uuid=" + Uuid::from_name("another").to_string());
  ASSERT_FALSE(bdev.ok());
  EXPECT_EQ(bdev.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(bdev.error().message.find(Uuid::from_name("peer").to_string()), std::string::npos);
}

TEST_F(InitiatorTest, UnknownSubsystemIsNotFound) {
  PeerOptions options;
  options.nqn = "nqn.2019-05.io.openebs:someone-else";
  start_peer(options);
  const auto bdev = create();
  ASSERT_FALSE(bdev.ok());
  EXPECT_EQ(bdev.error().code, ErrorCode::kNotFound);
}

TEST_F(InitiatorTest, BadUrisAreRefusedWithTheReason) {
  initiator_ = std::make_unique<Initiator>(sim_.home(), options_);
  for (const char* uri :
       {"nvmf://some-host/nqn.a", "nvmf://10.0.0.2/", "nvmf://10.0.0.2/iqn.x",
        "nvmf://10.0.0.2:0/nqn.a", "nvmf://10.0.0.2/nqn.a?uuid=xyz",
        "nvmf://10.0.0.2/nqn.a?hdgst=perhaps", "nvmf://10.0.0.2/nqn.a?hostnqn=me", "nvmf:nqn.a"}) {
    const auto bdev = sim_.run(initiator_->create(uri));
    ASSERT_FALSE(bdev.ok()) << uri;
    EXPECT_EQ(bdev.error().code, ErrorCode::kInvalidArgument) << uri;
  }
}

TEST_F(InitiatorTest, NobodyListeningIsUnavailable) {
  const auto bdev = create();
  ASSERT_FALSE(bdev.ok());
  EXPECT_EQ(bdev.error().code, ErrorCode::kUnavailable);
}

TEST_F(InitiatorTest, SilentPeerEndsAtTheConnectDeadline) {
  start_peer();
  peer_->silent = true;
  const uint64_t before = sim_.world().now_ns();
  const auto bdev = create();
  ASSERT_FALSE(bdev.ok());
  EXPECT_EQ(bdev.error().code, ErrorCode::kDeadlineExceeded) << bdev.error().message;
  EXPECT_LT(sim_.world().now_ns() - before, 1000 * kMs);
}

TEST_F(InitiatorTest, RefusedDigestsAreAnError) {
  PeerOptions options;
  options.digests_ignored = true;
  start_peer(options);
  EXPECT_FALSE(create("hdgst=1").ok());
}

TEST_F(InitiatorTest, LostConnectionFailsEverythingAtOnce) {
  start_peer();
  open();
  peer_->silent_opcodes = {kIoWrite};
  std::vector<uint8_t> data(4096);
  std::vector<std::unique_ptr<TestIo>> ios;
  for (uint32_t i = 0; i < 200; ++i) {  // more than the queue holds
    ios.push_back(std::make_unique<TestIo>(IoType::kWrite, i * 4096, data));
    channel_->submit(ios.back().get());
  }
  int removed = 0;
  bdev_->set_removed_handler([&](IoStatus why) {
    ++removed;
    EXPECT_TRUE(why.is(io_status::kHostPathError));
  });
  sim_.run_for(5 * kMs);
  const uint64_t before = sim_.world().now_ns();
  peer_->drop_all();
  ASSERT_TRUE(sim_.run_until([&] { return removed == 1; }));
  EXPECT_LT(sim_.world().now_ns() - before, 2 * kMs);
  for (const auto& io : ios) {
    EXPECT_EQ(io->completions, 1);
    EXPECT_TRUE(io->status.is(io_status::kHostPathError));
  }
  EXPECT_TRUE(write(0, data).is(io_status::kHostPathError));
  const auto channel = sim_.run(bdev_->open_channel());
  ASSERT_FALSE(channel.ok());
  EXPECT_EQ(channel.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(initiator_->list().at(0).state, ControllerState::kFaulted);
  sim_.run_for(3000 * kMs);
  EXPECT_EQ(removed, 1);
}

TEST_F(InitiatorTest, BlackHoleEndsWithinTheIoTimeout) {
  start_peer();
  open();
  std::vector<uint8_t> data(4096);
  TestIo io(IoType::kWrite, 0, data);
  sim_.world().set_partitioned("10.0.0.1", kPeerAddress, true);
  const uint64_t before = sim_.world().now_ns();
  channel_->submit(&io);
  ASSERT_TRUE(sim_.run_until([&] { return io.completions == 1; }));
  EXPECT_TRUE(io.status.is(io_status::kHostPathError));
  const uint64_t took = sim_.world().now_ns() - before;
  EXPECT_GE(took, 400 * kMs);
  EXPECT_LE(took, 700 * kMs);
}

TEST_F(InitiatorTest, IdleControllerFindsADeadPeerByKeepAlive) {
  start_peer();
  open();
  sim_.run_for(2000 * kMs);
  EXPECT_GE(peer_->seen.keep_alives, 3u);
  int removed = 0;
  bdev_->set_removed_handler([&](IoStatus) { ++removed; });
  peer_->keep_alive_silent = true;
  ASSERT_TRUE(sim_.run_until([&] { return removed == 1; }, 2000 * kMs));
  EXPECT_TRUE(write(0, pattern(512, 1)).is(io_status::kHostPathError));
}

TEST_F(InitiatorTest, NamespaceResizeIsNoticed) {
  start_peer();
  open();
  ASSERT_NE(peer_->event_link, nullptr);
  peer_->options.blocks = 20000;
  {
    const Reactor::Scope scope(peer_host_.home());
    auto* link = std::exchange(peer_->event_link, nullptr);
    link->answer(peer_->event_cid, io_status::kOk, kEventNamespaceChanged);
    link->flush();
  }
  ASSERT_TRUE(sim_.run_until([&] { return bdev_->size_bytes() == 20000u * 512; }, 1000 * kMs));
  ASSERT_TRUE(sim_.run_until([&] { return peer_->event_link != nullptr; }, 1000 * kMs));
}

TEST_F(InitiatorTest, DamagedPayloadFailsTheCommandOnly) {
  start_peer();
  open("ddgst=1");
  std::vector<uint8_t> data(65536);
  for (auto& link : peer_->links) link->spoil_data_digest = 1;
  EXPECT_TRUE(read(0, data).is(io_status::kTransientTransport));
  for (auto& link : peer_->links) link->spoil_data_digest = 0;
  EXPECT_TRUE(read(0, data).ok());
}

TEST_F(InitiatorTest, DamagedHeaderEndsTheConnection) {
  start_peer();
  open("hdgst=1");
  std::vector<uint8_t> data(4096);
  for (auto& link : peer_->links) link->spoil_header_digest = 1;
  EXPECT_TRUE(read(0, data).is(io_status::kHostPathError));
}

// Each of these breaks the protocol once; the I/O must fail and nothing else may happen.
struct Breach {
  const char* name;
  IoType type;
  uint32_t length;
  std::function<void(ScriptedPeer::Link&, const Sqe&)> act;
};
class InitiatorBreachTest : public InitiatorTest, public testing::WithParamInterface<size_t> {
 public:
  static const std::vector<Breach>& breaches() {
    static const std::vector<uint8_t> junk(262144, 0xAA);
    using Link = ScriptedPeer::Link;
    static const std::vector<Breach> list = {
        {"unknown cid", IoType::kRead, 4096,
         [](Link& link, const Sqe& sqe) {
           link.answer(static_cast<uint16_t>(sqe.cid ^ 0x8000), io_status::kOk);
         }},
        {"data for a write", IoType::kWrite, 4096,
         [](Link& link, const Sqe& sqe) {
           link.send_data(sqe.cid, junk.data(), 512, 0, true, true);
         }},
        {"too much data", IoType::kRead, 4096,
         [](Link& link, const Sqe& sqe) {
           link.send_data(sqe.cid, junk.data(), 8192, 0, true, true);
         }},
        {"data at a wrong offset", IoType::kRead, 4096,
         [](Link& link, const Sqe& sqe) {
           link.send_data(sqe.cid, junk.data(), 512, 512, true, true);
         }},
        {"too little data", IoType::kRead, 4096,
         [](Link& link, const Sqe& sqe) {
           link.send_data(sqe.cid, junk.data(), 512, 0, true, true);
         }},
        {"success without last", IoType::kRead, 4096,
         [](Link& link, const Sqe& sqe) {
           link.send_data(sqe.cid, junk.data(), 512, 0, false, true);
         }},
        {"success without data", IoType::kRead, 4096,
         [](Link& link, const Sqe& sqe) { link.answer(sqe.cid, io_status::kOk); }},
        {"write done without its data", IoType::kWrite, 65536,
         [](Link& link, const Sqe& sqe) { link.answer(sqe.cid, io_status::kOk); }},
        {"R2T for a read", IoType::kRead, 4096,
         [](Link& link, const Sqe& sqe) { link.send_r2t(sqe.cid, 1, 0, 4096); }},
        {"R2T beyond the data", IoType::kWrite, 65536,
         [](Link& link, const Sqe& sqe) { link.send_r2t(sqe.cid, 1, 0, 131072); }},
        {"R2T of nothing", IoType::kWrite, 65536,
         [](Link& link, const Sqe& sqe) { link.send_r2t(sqe.cid, 1, 0, 0); }},
        {"R2T twice", IoType::kWrite, 65536,
         [](Link& link, const Sqe& sqe) {
           link.send_r2t(sqe.cid, 1, 0, 65536);
           link.send_r2t(sqe.cid, 2, 0, 65536);
         }},
        {"garbage", IoType::kRead, 4096,
         [](Link& link, const Sqe&) { link.raw(junk.data(), 4000); }},
        {"a second ICResp", IoType::kRead, 4096,
         [](Link& link, const Sqe&) {
           const IcRespPdu response = make_ic_response(make_ic_request(false, false), 65536);
           link.raw(&response, sizeof(response));
         }},
        {"termination", IoType::kRead, 4096,
         [](Link& link, const Sqe&) {
           const PduFault fault{kPduErrorLimit, 0};
           uint8_t request[kTermReqMaxSize];
           const uint32_t length =
               encode_term_request(kPduC2hTermReq, fault, junk.data(), 64, request);
           link.raw(request, length);
         }},
    };
    return list;
  }
};
TEST_P(InitiatorBreachTest, FailsTheIo) {
  const Breach& breach = breaches()[GetParam()];
  SCOPED_TRACE(breach.name);
  start_peer();
  open();
  peer_->on_command = [&](ScriptedPeer::Link& link, const Sqe& sqe) {
    breach.act(link, sqe);
    return true;
  };
  auto data = pattern(breach.length, 1);
  TestIo io(breach.type, 0, data);
  channel_->submit(&io);
  ASSERT_TRUE(sim_.run_until([&] { return io.completions == 1; }, 2000 * kMs));
  EXPECT_FALSE(io.status.ok());
  sim_.run_for(1000 * kMs);
  EXPECT_EQ(io.completions, 1);
}
INSTANTIATE_TEST_SUITE_P(All, InitiatorBreachTest,
                         testing::Range<size_t>(0, InitiatorBreachTest::breaches().size()));

TEST_F(InitiatorTest, ErrorAnswerWhileDataIsStillLeaving) {
  sim_.world().set_network({.window_bytes = 4096});
  start_peer();
  open();
  peer_->on_command = [&](ScriptedPeer::Link& link, const Sqe& sqe) {
    link.send_r2t(sqe.cid, 1, 0, 65536);
    link.answer(sqe.cid, io_status::kWriteFault);
    return true;
  };
  auto data = pattern(65536, 1);
  TestIo io(IoType::kWrite, 0, data);
  channel_->submit(&io);
  // The peer CHECKs nothing about H2CData it did not record, so it must not see any: go silent.
  ASSERT_TRUE(sim_.run_until([&] { return peer_->seen.r2ts == 1; }));
  peer_->silent = true;
  ASSERT_TRUE(sim_.run_until([&] { return io.completions == 1; }, 2000 * kMs));
  EXPECT_TRUE(io.status.is(io_status::kWriteFault));
}

class InitiatorTwoReactorTest : public InitiatorTest {
 protected:
  InitiatorTwoReactorTest() : InitiatorTest(2) {}
};
TEST_F(InitiatorTwoReactorTest, ChannelsOfOtherReactorsEndToo) {
  start_peer();
  open();
  auto opened = sim_.run_on(sim_.reactor(1), bdev_->open_channel());
  ASSERT_TRUE(opened.ok());
  auto other = opened.take();
  peer_->silent_opcodes = {kIoWrite};
  std::vector<uint8_t> data(4096);
  TestIo here(IoType::kWrite, 0, data), there(IoType::kWrite, 0, data);
  channel_->submit(&here);
  {
    const Reactor::Scope scope(sim_.reactor(1));
    other->submit(&there);
  }
  sim_.run_for(2 * kMs);
  peer_->links.pop_back();  // only the connection of the second reactor
  ASSERT_TRUE(
      sim_.run_until([&] { return here.completions == 1 && there.completions == 1; }, 50 * kMs));
  EXPECT_TRUE(here.status.is(io_status::kHostPathError));
  EXPECT_TRUE(there.status.is(io_status::kHostPathError));
  const Reactor::Scope scope(sim_.reactor(1));
  other.reset();
}

// A peer whose disk takes its time to clear: each such command is answered 2 s later, in its turn.
class BulkTest : public InitiatorTest {
 protected:
  static constexpr uint64_t kBytes = 200u << 20;
  static constexpr uint64_t kSlowMs = 2000;  // of a timeout of 500 ms
  void SetUp() override {
    PeerOptions options;
    options.blocks = kBytes / 512;
    start_peer(options);
    peer_->on_command = [this](ScriptedPeer::Link& link, const Sqe& sqe) {
      if (sqe.opcode != kIoDatasetManagement && sqe.opcode != kIoWriteZeroes) return false;
      if (sqe.opcode == kIoWriteZeroes) {
        longest_ = std::max<uint64_t>(longest_, ((sqe.cdw12 & kCdw12NlbMask) + 1) * 512);
      }
      ++commands_;
      most_ = std::max(most_, ++outstanding_);
      sim_.world().at(sim_.world().now_ns() + kSlowMs * kMs, [this, &link, cid = sqe.cid] {
        if (peer_->links.empty()) return;
        const Reactor::Scope scope(peer_host_.home());
        --outstanding_;
        link.answer(cid, io_status::kOk);
        link.flush();
      });
      return true;
    };
    open();
  }
  static TestIo bulk(IoType type, std::vector<uint8_t>& nothing) {
    TestIo io(type, 0, nothing);
    io.length = kBytes;
    io.iov_count = 0;
    return io;
  }
  uint32_t commands_ = 0, outstanding_ = 0, most_ = 0;
  uint64_t longest_ = 0;
};

TEST_F(BulkTest, LargeUnmapsAndZeroesGoOutInPiecesAndMayTakeLonger) {
  std::vector<uint8_t> nothing;
  TestIo unmap = bulk(IoType::kUnmap, nothing), zeroes = bulk(IoType::kWriteZeroes, nothing);
  channel_->submit(&unmap);
  channel_->submit(&zeroes);
  ASSERT_TRUE(
      sim_.run_until([&] { return unmap.completions + zeroes.completions == 2; }, 60'000 * kMs));
  EXPECT_TRUE(unmap.status.ok());
  EXPECT_TRUE(zeroes.status.ok());
  EXPECT_EQ(commands_, 4u + 7u);  // pieces of 64 MiB; of 32 MiB, the most that a command can say
  EXPECT_EQ(longest_, 32u << 20);
  EXPECT_EQ(most_, 2u);
}

TEST_F(BulkTest, NothingElseWaitsBehindThem) {
  std::vector<uint8_t> nothing;
  TestIo unmap = bulk(IoType::kUnmap, nothing);
  channel_->submit(&unmap);
  sim_.run_for(kMs);
  const uint64_t start = sim_.world().now_ns();
  EXPECT_TRUE(write(0, pattern(4096, 1)).ok());
  EXPECT_LT(sim_.world().now_ns() - start, 100 * kMs);
  EXPECT_EQ(unmap.completions, 0);
  ASSERT_TRUE(sim_.run_until([&] { return unmap.completions == 1; }, 60'000 * kMs));
  EXPECT_TRUE(unmap.status.ok());
}

TEST_F(BulkTest, OtherCommandsKeepTheirTimeoutMeanwhile) {
  std::vector<uint8_t> nothing, data(4096);
  TestIo unmap = bulk(IoType::kUnmap, nothing), lost(IoType::kWrite, 0, data);
  channel_->submit(&unmap);
  sim_.run_for(kMs);
  peer_->silent_opcodes = {kIoWrite};
  channel_->submit(&lost);
  ASSERT_TRUE(sim_.run_until([&] { return unmap.completions + lost.completions == 2; }, 700 * kMs));
  EXPECT_TRUE(lost.status.is(io_status::kHostPathError));
  EXPECT_TRUE(unmap.status.is(io_status::kHostPathError));
  peer_->links.clear();
}

TEST_F(BulkTest, ABulkCommandThatIsNeverAnsweredEndsTheDeviceTooAndWhatWaitsBehindIt) {
  peer_->on_command = [](ScriptedPeer::Link&, const Sqe& sqe) {
    return sqe.opcode == kIoWriteZeroes;
  };
  std::vector<uint8_t> nothing;
  TestIo first = bulk(IoType::kWriteZeroes, nothing), second = bulk(IoType::kWriteZeroes, nothing);
  channel_->submit(&first);
  channel_->submit(&second);
  ASSERT_TRUE(
      sim_.run_until([&] { return first.completions + second.completions == 2; }, 5'000 * kMs));
  EXPECT_TRUE(first.status.is(io_status::kHostPathError));
  EXPECT_TRUE(second.status.is(io_status::kHostPathError));
}

TEST_F(InitiatorTest, QueueIdsRunOutAndComeBack) {
  PeerOptions options;
  options.queues = 2;
  start_peer(options);
  open();
  auto second = sim_.run(bdev_->open_channel());
  ASSERT_TRUE(second.ok());
  const auto third = sim_.run(bdev_->open_channel());
  ASSERT_FALSE(third.ok());
  EXPECT_EQ(third.error().code, ErrorCode::kResourceExhausted);
  channel_.reset();
  auto fourth = sim_.run(bdev_->open_channel());
  ASSERT_TRUE(fourth.ok()) << fourth.error().message;
}

}  // namespace
}  // namespace mayastor::nvmf

// The admin side of the target over the simulated network: Connect and its refusals, properties,
// identify, logs, features, events, keep-alive, discovery, allowed hosts, reservations.
#include <algorithm>

#include "nvmf/target_test_host.h"

namespace mayastor::nvmf::test {
namespace {

constexpr uint64_t kMs = 1'000'000;

class TargetAdminTest : public TargetFixture {};

template <typename T>
T as(const Bytes& data, size_t offset = 0) {
  T out{};
  EXPECT_LE(offset + sizeof(T), data.size());
  if (offset + sizeof(T) <= data.size()) std::memcpy(&out, data.data() + offset, sizeof(T));
  return out;
}

TEST_F(TargetAdminTest, IcRespSaysWhatLinuxWants) {
  start();
  TestHost host(std::make_unique<SimWire>(sim, other.home(), options.address, 8420));
  const auto response = host.handshake(true, true);
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->header.type, kPduIcResp);
  EXPECT_EQ(response->header.length, 128U);
  EXPECT_EQ(response->version, 0);
  EXPECT_EQ(response->controller_alignment, 0);
  EXPECT_EQ(response->digests, 3);
  EXPECT_EQ(response->max_h2c_data, 131072U);
}

TEST_F(TargetAdminTest, BadIcReqIsATermReq) {
  start();
  for (const int field : {0, 1}) {
    SimWire wire(sim, other.home(), options.address, 8420);
    IcReqPdu request = make_ic_request(false, false);
    if (field == 0) request.version = 1;
    if (field == 1) request.host_alignment = 32;
    wire.send(&request, sizeof(request));
    TermReqPdu term{};
    ASSERT_TRUE(wire.receive(&term, sizeof(term)));
    EXPECT_EQ(term.header.type, kPduC2hTermReq);
    EXPECT_EQ(term.error, field == 0 ? kPduErrorUnsupported : kPduErrorInvalidHeader);
    EXPECT_TRUE(wire.ended());
  }
}

TEST_F(TargetAdminTest, SilentConnectionsAreClosed) {
  options.ic_timeout_ms = 1000;
  start();
  SimWire nothing(sim, other.home(), options.address, 8420);
  TestHost& only_ic = open();
  EXPECT_TRUE(nothing.ended());
  EXPECT_TRUE(only_ic.wire().ended());
}

constexpr uint32_t kData = 1U << 16;
constexpr bool kNever = true, kNotYet = false;  // Linux since 6.10 drops its disk on "never"

class ConnectRefusalTest : public TargetAdminTest {
 protected:
  void refused(const char* name, const HostConnect& connect, IoStatus status, uint32_t dw0,
               bool do_not_retry) {
    TestHost& host = open();
    const TestAnswer answer = host.connect(connect);
    ASSERT_TRUE(answer.arrived) << name;
    EXPECT_TRUE(answer.status().is(status)) << name << " " << int{answer.status().code};
    EXPECT_EQ(uint32_t{answer.cqe.dw0}, dw0) << name;
    EXPECT_EQ(answer.status().do_not_retry, do_not_retry) << name;
    close(host);
  }
  const IoStatus bad = status::kConnectInvalidParameters;
};

TEST_F(ConnectRefusalTest, NamesTheFieldAndSaysNeverOnlyToWhatIsMalformed) {
  subsystem.allowed_hosts = {kHostNqn};
  start();
  refused("unknown subsystem", {.nqn = "nqn.2019-05.io.openebs:other"}, bad, kData | 256, kNotYet);
  refused("empty subsystem", {.nqn = ""}, bad, kData | 256, kNever);
  refused("unterminated subsystem", {.nqn = std::string(256, 'x')}, bad, kData | 256, kNever);
  refused("empty host", {.host_nqn = ""}, bad, kData | 512, kNever);
  refused("host", {.host_nqn = "nqn.2019-05.io.openebs:stranger"}, status::kConnectInvalidHost, 0,
          kNotYet);
  refused("sqsize 0", {.sqsize = 0}, bad, 44, kNever);
  refused("sqsize", {.sqsize = 128}, bad, 44, kNotYet);
  refused("static cntlid", {.cntlid = 5}, bad, kData | 16, kNever);
  refused("unknown controller", {.qid = 1, .cntlid = 77}, bad, kData | 16, kNotYet);
  refused("queue of discovery", {.qid = 1, .cntlid = 1, .nqn = kDiscoveryNqn}, bad, 42, kNever);

  uint16_t cntlid = 0;
  TestHost& admin = open_admin({}, &cntlid);
  refused("too many queues", {.qid = 32, .cntlid = cntlid}, bad, 42, kNotYet);
  refused("deep queue", {.qid = 1, .sqsize = 128, .cntlid = cntlid}, bad, 44, kNotYet);
  refused("another host", {.qid = 1, .cntlid = cntlid, .host_id = 9}, bad, kData | 0, kNotYet);
  open_io(cntlid);
  refused("queue taken", {.qid = 1, .cntlid = cntlid}, status::kInvalidQueueId, 0, kNotYet);
  EXPECT_TRUE(admin.property(kPropertyCc, false, 0).status().ok());
  sim.run_for(10 * kMs);
  refused("disabled", {.qid = 2, .cntlid = cntlid}, status::kCommandSequence, 0, kNotYet);
}

// A host whose engine starts again meets all of these, in this order.
TEST_F(ConnectRefusalTest, AHostGetsInWhenItsSubsystemIsMade) {
  start();
  uint16_t cntlid = 0;
  close(open_admin({}, &cntlid));
  ASSERT_TRUE(sim.run(target->remove_subsystem(kNqn)).ok());
  refused("admin queue, before it is made", {}, bad, kData | 256, kNotYet);
  refused("I/O queue, before it is made", {.qid = 1, .cntlid = cntlid}, bad, kData | 256, kNotYet);
  subsystem.allowed_hosts = {"nqn.2019-05.io.openebs:node-name:before"};
  ASSERT_TRUE(sim.run(target->add_subsystem(subsystem)).ok());
  refused("not allowed yet", {}, status::kConnectInvalidHost, 0, kNotYet);
  ASSERT_TRUE(sim.run(target->set_allowed_hosts(kNqn, {kHostNqn})).ok());
  refused("queue of the controller before", {.qid = 1, .cntlid = cntlid}, bad, kData | 16, kNotYet);
  open_admin({}, &cntlid);
  open_io(cntlid);
}

TEST_F(TargetAdminTest, ConnectWithBadCapsules) {
  start();
  TestHost& host = open();
  Sqe sqe = TestHost::connect_sqe({});
  EXPECT_TRUE(host.command(sqe, Bytes(512)).status().is(io_status::kDataLengthInvalid));
  sqe.sgl = {0, 1024, {}, kSglTransport};
  EXPECT_TRUE(host.command(sqe).status().is(status::kInvalidSglType));
  ConnectSqe other_format{};
  std::memcpy(&other_format, &sqe, sizeof(sqe));
  other_format.recfmt = 1;
  std::memcpy(&sqe, &other_format, sizeof(sqe));
  sqe.sgl = {};
  EXPECT_TRUE(host.command(sqe, TestHost::connect_data({}))
                  .status()
                  .is(status::kConnectIncompatibleFormat));
  EXPECT_TRUE(host.identify(kCnsController, 0).status().is(status::kCommandSequence));
  EXPECT_TRUE(host.connect({}).status().ok());  // at last
}

TEST_F(TargetAdminTest, ControllerIdsComeFromTheirRange) {
  subsystem.cntlid_min = 11;
  subsystem.cntlid_max = 12;
  start();
  uint16_t first = 0, second = 0;
  TestHost& one = open_admin({.host_id = 1}, &first);
  open_admin({.host_id = 2}, &second);
  EXPECT_EQ(first, 11);
  EXPECT_EQ(second, 12);
  TestHost& third = open();
  const HostConnect connect{.host_id = 3};
  EXPECT_TRUE(third.connect(connect).status().is(status::kConnectControllerBusy));
  close(one);
  sim.run_until([&] { return target->find(kNqn).value().hosts.size() == 1; });
  EXPECT_EQ(static_cast<uint16_t>(third.connect(connect).cqe.dw0), 11);
}

// A device that knows its own power cycles.
class PoweredBdev final : public Bdev {
 public:
  PoweredBdev(std::shared_ptr<Bdev> base, Uuid power_cycle)
      : base_(std::move(base)), power_cycle_(power_cycle) {}
  const std::string& name() const noexcept override { return base_->name(); }
  const Uuid& uuid() const noexcept override { return base_->uuid(); }
  std::string product_name() const override { return "powered"; }
  std::string uri() const override { return ""; }
  uint32_t block_size() const noexcept override { return base_->block_size(); }
  uint64_t size_bytes() const noexcept override { return base_->size_bytes(); }
  bool supports(IoType type) const noexcept override { return base_->supports(type); }
  bool has_volatile_cache() const noexcept override { return true; }
  Uuid power_cycle() const noexcept override { return power_cycle_; }
  Task<Result<std::unique_ptr<Channel>>> open_channel() override { return base_->open_channel(); }
  IoStats stats() const override { return base_->stats(); }
  void reset_stats() noexcept override { base_->reset_stats(); }

 private:
  const std::shared_ptr<Bdev> base_;
  const Uuid power_cycle_;
};

// A device that can neither unmap nor write zeroes; thin when it is told so.
class PlainBdev final : public Bdev {
 public:
  std::optional<uint64_t> allocated;
  std::optional<uint64_t> allocated_bytes() const override { return allocated; }
  explicit PlainBdev(std::shared_ptr<Bdev> base) : base_(std::move(base)) {}
  const std::string& name() const noexcept override { return base_->name(); }
  const Uuid& uuid() const noexcept override { return base_->uuid(); }
  std::string product_name() const override { return "plain"; }
  std::string uri() const override { return ""; }
  uint32_t block_size() const noexcept override { return base_->block_size(); }
  uint64_t size_bytes() const noexcept override { return base_->size_bytes(); }
  bool supports(IoType type) const noexcept override {
    return type != IoType::kUnmap && type != IoType::kWriteZeroes && base_->supports(type);
  }
  bool has_volatile_cache() const noexcept override { return false; }
  Task<Result<std::unique_ptr<Channel>>> open_channel() override { return base_->open_channel(); }
  IoStats stats() const override { return base_->stats(); }
  void reset_stats() noexcept override { base_->reset_stats(); }

 private:
  const std::shared_ptr<Bdev> base_;
};

TEST_F(TargetAdminTest, ThePowerCycleIsTheDevicesElseTheMachines) {
  options.power_cycle = Uuid::from_name("machine");
  start();
  const auto told = [this](const std::string& nqn) {
    TestHost& host = open_admin({.nqn = nqn});
    const TestAnswer answer = host.identify(kCnsController, 0);
    EXPECT_EQ(answer.data.size(), 4096u);
    EXPECT_EQ(
        std::memcmp(answer.data.data() + kPowerCycleOffset, kPowerCycleTag, sizeof(kPowerCycleTag)),
        0);
    return as<Uuid>(answer.data, kPowerCycleOffset + sizeof(kPowerCycleTag));
  };
  EXPECT_EQ(told(kNqn), options.power_cycle);
  SubsystemOptions own = subsystem;
  own.nqn = "nqn.2019-05.io.openebs:powered";
  own.bdev = std::make_shared<PoweredBdev>(bdev, Uuid::from_name("disk"));
  ASSERT_TRUE(sim.run(target->add_subsystem(own)).ok());
  EXPECT_EQ(told(own.nqn), Uuid::from_name("disk"));
}

TEST_F(TargetAdminTest, AHostHasOneControllerUnlessPathsAreReported) {
  for (const bool several : {false, true}) {
    subsystem.ana_reporting = several;
    start();
    TestHost& one = open_admin();
    TestHost& two = open_admin();
    if (several) {
      EXPECT_TRUE(one.identify(kCnsController, 0).status().ok());
    } else {
      EXPECT_TRUE(one.wire().ended());
    }
    EXPECT_TRUE(two.identify(kCnsController, 0).status().ok());
    EXPECT_EQ(target->find(kNqn).value().hosts.size(), several ? 2u : 1u);
    close(one);
    close(two);
    sim.run(target->stop());
    target.reset();
  }
}

TEST_F(TargetAdminTest, PropertiesFollowTheControllersLife) {
  start();
  TestHost& host = open();
  ASSERT_TRUE(host.connect({}).status().ok());
  const TestAnswer cap = host.property(kPropertyCap, true);
  EXPECT_EQ(cap.cqe.dw0 & 0xFFFF, 127U);
  EXPECT_NE(cap.cqe.dw0 & 1U << 16, 0U);
  EXPECT_EQ(uint32_t{cap.cqe.dw1}, 1U << 5);
  EXPECT_EQ(uint32_t{host.property(kPropertyVs, false).cqe.dw0}, kVersion14);
  EXPECT_EQ(uint32_t{host.property(kPropertyCsts, false).cqe.dw0}, 0U);
  EXPECT_FALSE(host.property(kPropertyCap, false).status().ok());
  EXPECT_FALSE(host.property(kPropertyCsts, true).status().ok());
  const IoStatus unknown = host.property(0x24, false).status();
  EXPECT_TRUE(unknown.is(io_status::kInvalidField) && !unknown.do_not_retry);
  EXPECT_FALSE(host.property(kPropertyVs, false, 1).status().ok());
  EXPECT_TRUE(host.identify(kCnsController, 0).status().is(status::kCommandSequence));
  EXPECT_TRUE(host.property(kPropertyCc, false, kCcDefault).status().ok());
  EXPECT_EQ(uint32_t{host.property(kPropertyCsts, false).cqe.dw0}, kCstsReady);
  EXPECT_EQ(uint32_t{host.property(kPropertyCc, false).cqe.dw0}, kCcDefault);
  uint16_t cntlid = static_cast<uint16_t>(target->find(kNqn).value().hosts.at(0).controller_id);
  TestHost& io = open_io(cntlid);
  EXPECT_TRUE(host.property(kPropertyCc, false, kCcDefault | 1U << kCcShnShift).status().ok());
  EXPECT_TRUE(io.wire().ended());
  EXPECT_EQ(host.property(kPropertyCsts, false).cqe.dw0 & kCstsShutdownMask, kCstsShutdownComplete);
  EXPECT_TRUE(host.property(kPropertyCc, false, 0).status().ok());
  EXPECT_EQ(uint32_t{host.property(kPropertyCsts, false).cqe.dw0} & kCstsReady, 0U);
  EXPECT_TRUE(host.property(kPropertyCc, false, kCcDefault).status().ok());
  open_io(cntlid);
}

TEST_F(TargetAdminTest, IdentifySatisfiesTheLinuxInitiator) {
  subsystem.ana_reporting = true;
  start();
  uint16_t cntlid = 0;
  TestHost& host = open_admin({}, &cntlid);
  const TestAnswer answer = host.identify(kCnsController, 0);
  const auto id = as<IdentifyController>(answer.data);
  EXPECT_EQ(uint16_t{id.cntlid}, cntlid);
  EXPECT_EQ(uint32_t{id.ver}, kVersion14);
  EXPECT_EQ(std::string(id.sn, 20), subsystem.serial);
  EXPECT_EQ(std::string(id.mn, 40), "Mayastor NVMe controller" + std::string(16, ' '));
  EXPECT_EQ(id.cmic, kCmicMultiPort | kCmicMultiController | kCmicAna);
  EXPECT_EQ(id.mdts, 5);
  EXPECT_NE(uint16_t{id.kas}, 0);
  EXPECT_NE(id.sgls & 3, 0U);
  EXPECT_EQ(uint32_t{id.mnan}, 1U);
  EXPECT_EQ(uint32_t{id.nn}, 1U);
  EXPECT_EQ(uint32_t{id.nanagrpid}, 1U);
  EXPECT_EQ(uint32_t{id.ioccsz}, 260U);
  EXPECT_EQ(uint32_t{id.iorcsz}, 1U);
  EXPECT_EQ(uint16_t{id.icdoff}, 0);
  EXPECT_EQ(uint16_t{id.maxcmd}, 128);
  EXPECT_EQ(id.lpa, 2 | 4);  // effects log, extended data
  EXPECT_EQ(id.acl, 3);
  EXPECT_EQ(std::string(id.subnqn), kNqn);
  EXPECT_NE(id.oncs & kOncsReservations, 0);

  const auto ns = as<IdentifyNamespace>(host.identify(kCnsNamespace, 1).data);
  EXPECT_EQ(uint64_t{ns.nsze}, 16384U);
  EXPECT_EQ(ns.lbaf[0].data_size_log2, 9);
  EXPECT_EQ(ns.nmic, kNmicShared);
  EXPECT_EQ(uint32_t{ns.anagrpid}, 1U);
  EXPECT_EQ(ns.rescap, 0xFE);
  EXPECT_EQ(std::memcmp(ns.nguid, subsystem.nguid.bytes.data(), 16), 0);
  EXPECT_TRUE(host.identify(kCnsNamespace, 2).status().is(io_status::kInvalidNamespace));
  EXPECT_EQ(as<uint32_t>(host.identify(kCnsActiveNamespaces, 0).data), 1U);
  EXPECT_EQ(as<uint32_t>(host.identify(kCnsActiveNamespaces, 1).data), 0U);
  const Bytes descriptors = host.identify(kCnsNamespaceDescriptors, 1).data;
  EXPECT_EQ(descriptors[0], kNidNguid);
  EXPECT_EQ(descriptors[20], kNidUuid);
  EXPECT_EQ(std::memcmp(&descriptors[24], subsystem.nguid.bytes.data(), 16), 0);
  EXPECT_EQ(descriptors[40], kNidCommandSet);
  EXPECT_EQ(descriptors[45], 0);
  const auto limits = as<IdentifyNvmController>(host.identify(kCnsCsController, 0).data);
  EXPECT_EQ(limits.wzsl, 10);  // 4 MiB
  const auto list = as<ControllerList>(host.identify(kCnsControllers, 0).data);
  EXPECT_TRUE(list.count == 1 && list.ids[0] == cntlid);
  EXPECT_EQ(as<ControllerList>(host.identify(kCnsNamespaceControllers, 1).data).ids[0], cntlid);
  const uint32_t behind = (cntlid + 1U) << 16;
  EXPECT_EQ(
      as<ControllerList>(host.read_data(kAdminIdentify, 0, 4096, kCnsControllers | behind).data)
          .count,
      0);
  EXPECT_TRUE(host.identify(kCnsIndependentNamespace, 1).status().ok());
  EXPECT_FALSE(host.identify(0x77, 1).status().ok());
}

TEST_F(TargetAdminTest, LogPagesAndFeatures) {
  subsystem.ana_reporting = true;
  start();
  TestHost& host = open_admin();
  EXPECT_EQ(host.log_page(kLogError, 64).data, Bytes(64));
  EXPECT_EQ(host.log_page(kLogFirmware, 512).data, Bytes(512));
  EXPECT_TRUE(host.log_page(kLogDiscovery, 1024).status().is(status::kInvalidLogPage));
  const Bytes ana = host.log_page(kLogAna, 52).data;
  EXPECT_EQ(as<AnaLogHeader>(ana).group_count, 1);
  const auto group = as<AnaGroup>(ana, 16);
  EXPECT_EQ(uint32_t{group.group_id}, 1U);
  EXPECT_EQ(uint32_t{group.namespace_count}, 1U);
  EXPECT_EQ(group.state, static_cast<uint8_t>(AnaState::kOptimized));
  EXPECT_EQ(as<uint32_t>(ana, 48), 1U);
  EXPECT_EQ(as<AnaGroup>(host.log_page(kLogAna, 48, false, 1).data, 16).namespace_count, 0U);

  EXPECT_EQ(uint32_t{host.feature(kFeatureQueues, 0x001F001F).cqe.dw0}, 0x001E001EU);
  EXPECT_EQ(uint32_t{host.feature(kFeatureQueues, 0x00010001).cqe.dw0}, 0x00010001U);
  EXPECT_TRUE(host.feature(kFeatureAsyncEvents, 0x900).status().ok());
  EXPECT_EQ(uint32_t{host.feature(kFeatureAsyncEvents).cqe.dw0}, 0x900U);
  EXPECT_FALSE(host.feature(0xEE).status().ok());
  Sqe save{};
  save.opcode = kAdminSetFeatures;
  save.cdw10 = kFeatureAsyncEvents | 1U << 31;
  EXPECT_TRUE(host.command(save).status().is(status::kFeatureNotSaveable));
  const TestAnswer id = host.read_data(kAdminGetFeatures, 0, 16, kFeatureHostId, 1);
  EXPECT_EQ(id.data, Bytes(16, 1));
  Bytes behavior(512);
  behavior[0] = 1;
  Sqe set{};
  set.opcode = kAdminSetFeatures;
  set.cdw10 = kFeatureHostBehavior;
  EXPECT_TRUE(host.command(set, behavior).status().ok());
  EXPECT_EQ(host.read_data(kAdminGetFeatures, 0, 512, kFeatureHostBehavior).data, behavior);
  Sqe unknown{};
  unknown.opcode = 0x55;
  EXPECT_TRUE(host.command(unknown).status().is(io_status::kInvalidOpcode));
}

// The kernel freezes queues for a command with effects, and passes none through that has unknown
// ones or is not supported.
TEST_F(TargetAdminTest, TheSmartLogCountsIo) {
  start();
  uint16_t cntlid = 0;
  TestHost& host = open_admin({}, &cntlid);
  EXPECT_TRUE(open_io(cntlid).write(0, pattern(512, 1), true).status().ok());
  const auto smart = as<SmartLog>(host.log_page(kLogSmart, 512).data);
  EXPECT_EQ(smart.available_spare, 100);
  EXPECT_EQ(uint64_t{smart.host_writes}, 1U);
  EXPECT_EQ(uint64_t{smart.units_written}, 1U);
}

TEST_F(TargetAdminTest, FeaturesHaveDefaultsAndSayWhatCanBeDone) {
  start();
  TestHost& host = open_admin({.kato_ms = 15'000});
  const auto get = [&](uint8_t feature, uint8_t select, uint32_t nsid = 0) {
    return host.feature(feature | uint32_t{select} << 8, std::nullopt, nsid);
  };
  const auto value = [&](uint8_t feature, uint8_t select, uint32_t nsid = 0) {
    const TestAnswer answer = get(feature, select, nsid);
    EXPECT_TRUE(answer.status().ok()) << int{feature} << " " << int{select};
    return uint32_t{answer.cqe.dw0};
  };
  const struct {
    uint8_t feature;
    uint32_t set, at_first;
  } changeable[] = {{kFeatureArbitration, 3, 0},
                    {kFeatureAsyncEvents, 0x100, 0},
                    {kFeatureKeepAlive, 20'000, 0},
                    {kFeatureQueues, 0x00030003, 0x001E001E}};
  EXPECT_EQ(value(kFeatureKeepAlive, kSelectCurrent), 15'000U);
  for (const auto& one : changeable) {
    EXPECT_TRUE(host.feature(one.feature, one.set).status().ok());
    EXPECT_EQ(value(one.feature, kSelectCurrent), one.set);
    EXPECT_EQ(value(one.feature, kSelectDefault), one.at_first);
    EXPECT_EQ(value(one.feature, kSelectSaved), one.at_first) << "nothing is saved";
    EXPECT_EQ(value(one.feature, kSelectSupported), 4U) << "changeable";
  }
  EXPECT_TRUE(host.feature(kFeatureReservationMask, 6, 1).status().ok());
  EXPECT_EQ(value(kFeatureReservationMask, kSelectCurrent, 1), 6U);
  EXPECT_EQ(value(kFeatureReservationMask, kSelectDefault, 1), 0U);
  EXPECT_EQ(value(kFeatureReservationMask, kSelectSupported, 1), 6U) << "a namespace's, changeable";
  EXPECT_EQ(value(kFeatureReservationPersist, kSelectSupported, 1), 2U);
  EXPECT_EQ(value(kFeatureWriteCache, kSelectSupported), 0U);
  EXPECT_EQ(value(kFeatureHostId, kSelectSupported), 0U);
  EXPECT_EQ(value(kFeatureHostBehavior, kSelectSupported), 4U);
  EXPECT_TRUE(get(kFeatureArbitration, 4).status().is(io_status::kInvalidField));

  Sqe set{};  // host behaviour: data, not a value
  set.opcode = kAdminSetFeatures;
  set.cdw10 = kFeatureHostBehavior;
  Bytes behavior(512);
  behavior[0] = 1;
  EXPECT_TRUE(host.command(set, behavior).status().ok());
  const auto get_behavior = [&](uint8_t select) {
    return host.read_data(kAdminGetFeatures, 0, 512, kFeatureHostBehavior | uint32_t{select} << 8)
        .data;
  };
  EXPECT_EQ(get_behavior(kSelectCurrent), behavior);
  EXPECT_EQ(get_behavior(kSelectDefault), Bytes(512));
  EXPECT_EQ(host.read_data(kAdminGetFeatures, 0, 16, kFeatureHostId | 1U << 8, 1).data,
            Bytes(16, 1));
}

TEST_F(TargetAdminTest, EffectsLogSaysWhatTheTargetTakes) {
  start();
  uint16_t cntlid = 0;
  TestHost& host = open_admin({}, &cntlid);
  TestHost& io = open_io(cntlid);
  const Bytes page = host.log_page(kLogEffects, 4096).data;
  ASSERT_EQ(page.size(), 4096U);
  const auto log = as<EffectsLog>(page);
  EXPECT_TRUE(std::all_of(page.begin() + 2048, page.end(), [](uint8_t byte) { return byte == 0; }));
  const std::map<int, uint32_t> admin = {{0x02, 1}, {0x06, 1}, {0x08, 1}, {0x09, 1},
                                         {0x0A, 1}, {0x0C, 1}, {0x18, 1}, {0x7F, 1}};
  const std::map<int, uint32_t> commands = {{0x00, 1}, {0x01, 3}, {0x02, 1}, {0x05, 1}, {0x08, 3},
                                            {0x09, 3}, {0x0D, 1}, {0x0E, 1}, {0x11, 1}, {0x15, 1}};
  for (int opcode = 0; opcode < 256; ++opcode) {
    const auto expected = [opcode](const std::map<int, uint32_t>& known) {
      const auto at = known.find(opcode);
      return at == known.end() ? 0U : at->second;
    };
    EXPECT_EQ(uint32_t{log.admin[opcode]}, expected(admin)) << "admin " << opcode;
    EXPECT_EQ(uint32_t{log.io[opcode]}, expected(commands)) << "I/O " << opcode;
    // It is what happens: an opcode is refused as unknown if and only if it is not in the log.
    Sqe sqe{};
    sqe.opcode = static_cast<uint8_t>(opcode);
    sqe.nsid = 1;
    sqe.cdw11 = 1U << 2;  // of a Dataset Management: deallocate
    sqe.sgl = {0, 4096, {}, kSglTransport};
    if (opcode != kAdminAsyncEvent && opcode != kOpcodeFabrics) {
      EXPECT_EQ(host.command(sqe, Bytes(4096), false).status().is(io_status::kInvalidOpcode),
                log.admin[opcode] == 0)
          << "admin " << opcode;
    }
    EXPECT_EQ(io.command(sqe, Bytes(4096), false).status().is(io_status::kInvalidOpcode),
              log.io[opcode] == 0)
        << "I/O " << opcode;
  }
}

TEST_F(TargetAdminTest, EffectsLogIsReadInPieces) {
  start();
  TestHost& host = open_admin();
  const Bytes page = host.log_page(kLogEffects, 4096).data;
  ASSERT_EQ(page.size(), 4096U);
  const auto part = [&host](uint64_t offset, uint32_t length, uint8_t command_set = 0) {
    Sqe sqe{};
    sqe.opcode = kAdminGetLogPage;
    sqe.nsid = kBroadcastNsid;
    sqe.cdw10 = kLogEffects | (length / 4 - 1) << 16;
    sqe.cdw12 = static_cast<uint32_t>(offset);
    sqe.cdw13 = static_cast<uint32_t>(offset >> 32);
    sqe.cdw14 = uint32_t{command_set} << 24;
    sqe.sgl = {0, length, {}, kSglTransport};
    return host.command(sqe);
  };
  EXPECT_EQ(part(0, 4).data, Bytes(page.begin(), page.begin() + 4));
  EXPECT_EQ(part(1020, 24).data, Bytes(page.begin() + 1020, page.begin() + 1044));
  EXPECT_EQ(part(4092, 8).data, Bytes(8)) << "what lies beyond the end reads as zeroes";
  EXPECT_EQ(part(0, 8192).data.size(), 8192U);
  for (const uint64_t bad : {uint64_t{2}, uint64_t{4100}, uint64_t{1} << 40}) {
    EXPECT_TRUE(part(bad, 4).status().is(io_status::kInvalidField)) << bad;
  }
  EXPECT_TRUE(part(0, 4096, 2).status().is(io_status::kInvalidField)) << "no zoned namespaces here";
}

TEST_F(TargetAdminTest, AThinNamespaceSaysHowMuchOfItIsUsed) {
  start();
  auto device = std::make_shared<PlainBdev>(bdev);
  SubsystemOptions thin = subsystem;
  thin.nqn = "nqn.2019-05.io.openebs:thin";
  thin.bdev = device;
  ASSERT_TRUE(sim.run(target->add_subsystem(thin)).ok());
  TestHost& host = open_admin({.nqn = thin.nqn});
  const auto look = [&] { return as<IdentifyNamespace>(host.identify(kCnsNamespace, 1).data); };
  IdentifyNamespace ns = look();
  const uint64_t blocks = bdev->size_bytes() / 512;
  EXPECT_TRUE(ns.nsfeat == 0 && ns.nsze == blocks && ns.ncap == blocks && ns.nuse == blocks);
  for (const uint64_t allocated : {uint64_t{0}, uint64_t{4096}, bdev->size_bytes() * 2}) {
    device->allocated = allocated;
    ns = look();
    EXPECT_EQ(ns.nsfeat, kNsfeatThin);
    EXPECT_TRUE(ns.nsze == blocks && ns.ncap == blocks);
    EXPECT_EQ(uint64_t{ns.nuse}, std::min(allocated / 512, blocks));
  }
}

TEST_F(TargetAdminTest, EffectsFollowTheDevice) {
  start();
  SubsystemOptions plain = subsystem;
  plain.nqn = "nqn.2019-05.io.openebs:plain";
  plain.bdev = std::make_shared<PlainBdev>(bdev);
  ASSERT_TRUE(sim.run(target->add_subsystem(plain)).ok());
  TestHost& host = open_admin({.nqn = plain.nqn});
  const auto log = as<EffectsLog>(host.log_page(kLogEffects, 4096).data);
  EXPECT_EQ(uint32_t{log.io[kIoDatasetManagement]}, 0U);
  EXPECT_EQ(uint32_t{log.io[kIoWriteZeroes]}, 0U);
  EXPECT_EQ(uint32_t{log.io[kIoWrite]}, 3U);
}

TEST_F(TargetAdminTest, EventsTellOfAnaAndNamespaceChanges) {
  subsystem.ana_reporting = true;
  start();
  TestHost& host = open_admin();
  ASSERT_TRUE(host.feature(kFeatureAsyncEvents, kOaesAna | kOaesNamespaceAttribute).status().ok());
  const uint16_t first = host.send_async_event();
  ASSERT_TRUE(sim.run(target->set_ana_state(kNqn, AnaState::kInaccessible)).ok());
  EXPECT_EQ(uint32_t{host.finish(first).cqe.dw0}, kEventAnaChanged);
  const uint16_t second = host.send_async_event();
  // Masked until the log is read.
  ASSERT_TRUE(sim.run(target->set_ana_state(kNqn, AnaState::kOptimized)).ok());
  ASSERT_TRUE(sim.run(target->namespace_changed(kNqn)).ok());
  EXPECT_EQ(uint32_t{host.finish(second).cqe.dw0}, kEventNamespaceChanged);
  EXPECT_EQ(as<uint32_t>(host.log_page(kLogChangedNamespaces, 4096).data), 1U);
  EXPECT_EQ(as<uint32_t>(host.log_page(kLogChangedNamespaces, 4096).data), 0U);
  EXPECT_EQ(as<AnaGroup>(host.log_page(kLogAna, 52).data, 16).state,
            static_cast<uint8_t>(AnaState::kOptimized));
  ASSERT_TRUE(sim.run(target->set_ana_state(kNqn, AnaState::kNonOptimized)).ok());
  const uint16_t third = host.send_async_event();  // the event waited for it
  EXPECT_EQ(uint32_t{host.finish(third).cqe.dw0}, kEventAnaChanged);
  for (int i = 0; i < 4; ++i) host.send_async_event();
  const uint16_t excess = host.send_async_event();
  const IoStatus excessive = host.finish(excess).status();
  EXPECT_TRUE(excessive.is(status::kAsyncEventLimit) && !excessive.do_not_retry);
  Sqe abort{};
  abort.opcode = kAdminAbort;
  abort.cdw10 = static_cast<uint32_t>(excess - 1) << 16;
  EXPECT_EQ(uint32_t{host.command(abort).cqe.dw0}, 0U);
  EXPECT_TRUE(host.finish(static_cast<uint16_t>(excess - 1)).status().is(io_status::kAborted));
  abort.cdw10 = 0xAAAAU << 16;
  EXPECT_EQ(uint32_t{host.command(abort).cqe.dw0}, 1U);
}

TEST_F(TargetAdminTest, KeepAliveExpiryEndsTheController) {
  start();
  uint16_t cntlid = 0;
  HostConnect connect;
  connect.kato_ms = 5000;  // raised to 10 s
  TestHost& host = open_admin(connect, &cntlid);
  TestHost& io = open_io(cntlid);
  Sqe keep_alive{};
  keep_alive.opcode = kAdminKeepAlive;
  for (int i = 0; i < 4; ++i) {
    sim.run_for(8000 * kMs);
    EXPECT_TRUE(host.command(keep_alive).status().ok());
  }
  sim.run_for(9000 * kMs);
  EXPECT_EQ(target->find(kNqn).value().hosts.size(), 1U);
  sim.run_for(2000 * kMs);
  EXPECT_TRUE(target->find(kNqn).value().hosts.empty());
  EXPECT_TRUE(host.wire().ended());
  EXPECT_TRUE(io.wire().ended());
}

TEST_F(TargetAdminTest, KeepAliveHasACeiling) {
  start();
  HostConnect connect;
  connect.kato_ms = UINT32_MAX;
  TestHost& host = open_admin(connect);
  Sqe get{};
  get.opcode = kAdminGetFeatures;
  get.cdw10 = kFeatureKeepAlive;
  EXPECT_EQ(uint32_t{host.command(get).cqe.dw0}, 600'000U);
  Sqe set{};
  set.opcode = kAdminSetFeatures;
  set.cdw10 = kFeatureKeepAlive;
  set.cdw11 = 600'001;
  EXPECT_TRUE(host.command(set).status().is(status::kKeepAliveInvalid));
  set.cdw11 = 300'000;
  EXPECT_TRUE(host.command(set).status().ok());
  set.cdw11 = UINT32_MAX;
  EXPECT_TRUE(host.command(set).status().is(status::kKeepAliveInvalid));
  EXPECT_EQ(uint32_t{host.command(get).cqe.dw0}, 300'000U);  // as before
}

TEST_F(TargetAdminTest, ControllerWithoutQueuesIsForgotten) {
  start();
  open_admin();
  sim.run_for(119'000 * kMs);
  EXPECT_EQ(target->find(kNqn).value().hosts.size(), 1U);
  sim.run_for(2'000 * kMs);
  EXPECT_TRUE(target->find(kNqn).value().hosts.empty());
}

TEST_F(TargetAdminTest, DiscoveryListsWhatTheHostMayUse) {
  start();
  SubsystemOptions hidden = subsystem;
  hidden.nqn = "nqn.2019-05.io.openebs:hidden";
  hidden.allowed_hosts = {"nqn.2019-05.io.openebs:stranger"};
  ASSERT_TRUE(sim.run(target->add_subsystem(hidden)).ok());
  HostConnect connect;
  connect.nqn = kDiscoveryNqn;
  TestHost& host = open_admin(connect);
  const auto id = as<IdentifyController>(host.identify(kCnsController, 0).data);
  EXPECT_EQ(id.cntrltype, 2);
  EXPECT_EQ(id.lpa, 4);  // no effects log there
  EXPECT_TRUE(host.log_page(kLogEffects, 4096).status().is(status::kInvalidLogPage));
  ASSERT_TRUE(host.feature(kFeatureAsyncEvents, kOaesDiscovery).status().ok());
  const Bytes log = host.log_page(kLogDiscovery, 4096).data;
  const auto header = as<DiscoveryLogHeader>(log);
  EXPECT_EQ(uint64_t{header.record_count}, 1U);
  const auto entry = as<DiscoveryLogEntry>(log, 1024);
  EXPECT_EQ(entry.trtype, kTransportTcp);
  EXPECT_EQ(entry.subtype, kSubtypeNvm);
  EXPECT_EQ(std::string(entry.subnqn), kNqn);
  EXPECT_EQ(std::string(entry.trsvcid, 4), "8420");
  EXPECT_EQ(std::string(entry.traddr, 9), "10.0.0.1 ");
  const uint16_t event = host.send_async_event();
  ASSERT_TRUE(sim.run(target->remove_subsystem(hidden.nqn)).ok());
  EXPECT_EQ(uint32_t{host.finish(event).cqe.dw0}, kEventDiscoveryChanged);
  EXPECT_GT(as<DiscoveryLogHeader>(host.log_page(kLogDiscovery, 1024).data).generation,
            uint64_t{header.generation});
  EXPECT_TRUE(host.log_page(kLogSmart, 512).status().is(status::kInvalidLogPage));
  TestHost& io = open();
  connect.qid = 1;
  connect.cntlid = 1;
  EXPECT_EQ(uint32_t{io.connect(connect).cqe.dw0}, 42U);
}

TEST_F(TargetAdminTest, AllowedHostsCanBeTakenAway) {
  start();
  TestHost& mine = open_admin();
  HostConnect other_host;
  other_host.host_nqn = "nqn.2019-05.io.openebs:node-name:host-2";
  TestHost& theirs = open_admin(other_host);
  ASSERT_TRUE(sim.run(target->set_allowed_hosts(kNqn, {kHostNqn})).ok());
  EXPECT_TRUE(theirs.wire().ended());
  EXPECT_TRUE(mine.identify(kCnsController, 0).status().ok());
  TestHost& again = open(false, false, 4421);  // either port
  EXPECT_TRUE(again.connect(other_host).status().is(status::kConnectInvalidHost));
  EXPECT_TRUE(again.connect({}).status().ok());
}

TEST_F(TargetAdminTest, BadSubsystemsAreRefusedWithTheReason) {
  start();
  const auto refused = [&](auto change, ErrorCode code) {
    SubsystemOptions bad = subsystem;
    bad.nqn = "nqn.2019-05.io.openebs:bad";
    change(bad);
    const auto result = sim.run(target->add_subsystem(bad));
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, code) << result.error().message;
  };
  refused([](auto& o) { o.nqn = kNqn; }, ErrorCode::kAlreadyExists);
  refused([](auto& o) { o.nqn = ""; }, ErrorCode::kInvalidArgument);
  refused([](auto& o) { o.nqn = std::string("nqn.") + std::string(220, 'x'); },
          ErrorCode::kInvalidArgument);
  refused([](auto& o) { o.nqn = "iqn.x"; }, ErrorCode::kInvalidArgument);
  refused([](auto& o) { o.nqn = kDiscoveryNqn; }, ErrorCode::kInvalidArgument);
  refused([](auto& o) { o.serial = std::string(21, '1'); }, ErrorCode::kInvalidArgument);
  refused([](auto& o) { o.cntlid_min = 0; }, ErrorCode::kInvalidArgument);
  refused([](auto& o) { o.cntlid_min = 9, o.cntlid_max = 8; }, ErrorCode::kInvalidArgument);
  refused([](auto& o) { o.bdev = nullptr; }, ErrorCode::kInvalidArgument);
  EXPECT_EQ(sim.run(target->remove_subsystem("nqn.none")).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(sim.run(target->pause("nqn.none")).error().code, ErrorCode::kNotFound);
}

// ---- Reservations over the wire
// ------------------------------------------------------------------

class TargetReservationTest : public TargetFixture {
 protected:
  TargetReservationTest() : TargetFixture(2) {}
  void begin() {
    start();
    uint16_t id = 0;
    admin_a = &open_admin({}, &id);
    a = &open_io(id);
    HostConnect other_host;
    other_host.host_id = 2;
    admin_b = &open_admin(other_host, &id);
    b = &open_io(id, other_host);
    ASSERT_TRUE(a->reserve(kIoReservationRegister, 0, {0, 0xA}).status().ok());
  }
  TestHost *admin_a = nullptr, *admin_b = nullptr, *a = nullptr, *b = nullptr;
};

TEST_F(TargetReservationTest, ExclusiveAccessFencesAtOnce) {
  begin();
  ASSERT_TRUE(b->write(0, pattern(512, 1), true).status().ok());
  ASSERT_TRUE(a->reserve(kIoReservationAcquire, 2U << 8, {0xA, 0}).status().ok());
  EXPECT_TRUE(b->write(0, pattern(512, 2), true).status().is(io_status::kReservationConflict));
  EXPECT_TRUE(b->write(0, pattern(8192, 2), false).status().is(io_status::kReservationConflict));
  EXPECT_TRUE(b->read(0, 1).status().is(io_status::kReservationConflict));
  EXPECT_TRUE(a->read(0, 1).status().ok());
  // A newcomer is fenced too.
  HostConnect third;
  third.host_id = 3;
  uint16_t id = 0;
  open_admin(third, &id);
  EXPECT_TRUE(open_io(id, third).read(0, 1).status().is(io_status::kReservationConflict));
  // Preempted: the other way round, and the old holder is told.
  const uint16_t event = admin_a->send_async_event();
  ASSERT_TRUE(b->reserve(kIoReservationRegister, 2 | 8, {0, 0xB}).status().ok());
  ASSERT_TRUE(b->reserve(kIoReservationAcquire, 1 | 2U << 8, {0xB, 0xA}).status().ok());
  EXPECT_TRUE(a->write(0, pattern(512, 1), true).status().is(io_status::kReservationConflict));
  EXPECT_TRUE(b->write(0, pattern(512, 1), true).status().ok());
  EXPECT_EQ(uint32_t{admin_a->finish(event).cqe.dw0}, kEventReservation);
  const auto log = as<ReservationLog>(admin_a->log_page(kLogReservation, 64).data);
  EXPECT_EQ(log.type, kNoticeRegistrationPreempted);
  EXPECT_EQ(uint32_t{log.nsid}, 1U);

  Sqe report{};
  report.opcode = kIoReservationReport;
  report.nsid = 1;
  report.cdw10 = 1024 / 4 - 1;
  report.sgl = {0, 1024, {}, kSglTransport};
  EXPECT_TRUE(a->command(report).status().is(status::kHostIdInconsistent));
  report.cdw11 = 1;
  const Bytes data = a->command(report).data;
  ASSERT_EQ(data.size(), 1024U);
  EXPECT_EQ(as<ReservationStatusHeader>(data).type, 2);
  EXPECT_EQ(uint16_t{as<ReservationStatusHeader>(data).registrant_count}, 1);
  EXPECT_EQ(uint64_t{as<ReservationRegistrantExtended>(data, 64).key}, 0xBU);
}

TEST_F(TargetReservationTest, PreemptWaitsForWritesOfTheFencedHost) {
  begin();
  ASSERT_TRUE(b->reserve(kIoReservationRegister, 0, {0, 0xB}).status().ok());
  ASSERT_TRUE(b->reserve(kIoReservationAcquire, 2U << 8, {0xB, 0}).status().ok());
  fault->add_rule({.type = IoType::kWrite, .count = 1, .hold = true});
  Sqe write = TestHost::io(kIoWrite, 0, 1);
  write.cid = b->next_cid();
  write.sgl = {0, 512, {}, kSglInCapsule};
  b->send_command(write, pattern(512, 1));
  sim.run_for(kMs);
  ASSERT_EQ(fault->held_count(), 1U);
  Sqe preempt{};
  preempt.opcode = kIoReservationAcquire;
  preempt.nsid = 1;
  preempt.cdw10 = 2 | 2U << 8;
  preempt.cid = a->next_cid();
  preempt.sgl = {0, 16, {}, kSglInCapsule};
  const uint64_t keys[2] = {0xA, 0xB};
  Bytes data(16);
  std::memcpy(data.data(), keys, 16);
  a->send_command(preempt, data);
  auto& wire = static_cast<SimWire&>(a->wire());
  sim.run_for(100 * kMs);
  EXPECT_EQ(wire.waiting(), 0U);  // not answered: the old write may still land
  for (size_t i = 0; i < 2; ++i) {
    const Reactor::Scope scope(sim.reactor(i));
    fault->release_held();
  }
  EXPECT_TRUE(a->finish(preempt.cid).status().ok());
  EXPECT_TRUE(b->finish(write.cid).status().ok());
  EXPECT_TRUE(b->write(0, pattern(512, 2), true).status().is(io_status::kReservationConflict));
}

TEST_F(TargetReservationTest, PersistingNeedsAPlace) {
  begin();
  EXPECT_TRUE(
      b->reserve(kIoReservationRegister, 3U << 30, {0, 0xB}).status().is(io_status::kInvalidField));
}

}  // namespace
}  // namespace mayastor::nvmf::test

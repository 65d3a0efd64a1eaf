// NVMe and NVMe over Fabrics on the wire: command and completion layouts, opcodes, identifiers,
// identify and log pages. Why one file: target and initiator must agree byte for byte.
// Source: NVMe base specification 1.4/2.0, NVMe over Fabrics 1.1. Everything is little endian, as
// are the machines this runs on; a value is "0-based" where it counts from zero.
// Invariants: every struct is trivially copyable, packed, and its size and offsets are asserted.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "util/io_status.h"

namespace mayastor::nvmf {

static_assert(std::endian::native == std::endian::little, "wire structs are read in place");

inline constexpr char kDiscoveryNqn[] = "nqn.2014-08.org.nvmexpress.discovery";
inline constexpr size_t kNqnMaxLength = 223;  // characters, without the NUL
inline constexpr size_t kNqnFieldSize = 256;
inline constexpr uint32_t kVersion14 = 0x00010400;
inline constexpr uint32_t kBroadcastNsid = 0xFFFFFFFF;
inline constexpr uint16_t kDynamicControllerId = 0xFFFF;
inline constexpr uint16_t kMaxControllerId = 0xFFEF;
inline constexpr uint32_t kPageSize = 4096;  // CAP.MPSMIN = 0

// ---- Status ------------------------------------------------------------------------------------
// Status field of a completion: phase bit 0, code 1-8, type 9-11, retry delay 12-13, more 14, DNR
// 15.
[[nodiscard]] constexpr uint16_t encode_status(const IoStatus& status) noexcept {
  return static_cast<uint16_t>((status.code << 1) | ((status.type & 7) << 9) |
                               (status.do_not_retry ? 0x8000 : 0));
}
[[nodiscard]] constexpr IoStatus decode_status(uint16_t field) noexcept {
  IoStatus status;
  status.code = static_cast<uint8_t>(field >> 1);
  status.type = static_cast<uint8_t>((field >> 9) & 7);
  status.do_not_retry = (field & 0x8000) != 0;
  if (!status.ok()) status.error_number = 5;
  if (status.type == 7 && status.code == 28) status.error_number = 28;
  if (status.type == 0 && status.code == 0x81) status.error_number = 28;
  if (status.type == 0 && status.code == 0x83) status.error_number = 52;
  return status;
}

// Whether they carry "do not retry": those that the same command gets for ever, whatever becomes of
// the target and of other commands. Linux since 6.10 gives up a controller, and with its last one
// the disk, on one such answer while it reconnects; so a refusal that time can heal never has it.
[[nodiscard]] constexpr IoStatus not_yet(IoStatus status) noexcept {
  status.do_not_retry = false;
  return status;
}

namespace status {  // those not in util/io_status.h
// Until the other command has ended.
inline constexpr IoStatus kCommandIdConflict{0, 0x03, 22, false};
// A pair's half alone is no command.
inline constexpr IoStatus kFailedFused{0, 0x09, 125, true};
inline constexpr IoStatus kMissingFused{0, 0x0A, 22, true};
// What comes too early or too late: its time may come, as when the controller is enabled.
inline constexpr IoStatus kCommandSequence{0, 0x0C, 22, false};
// Malformed, or what this target does not have.
inline constexpr IoStatus kInvalidSglSegment{0, 0x0D, 22, true};
inline constexpr IoStatus kInvalidSglType{0, 0x11, 22, true};
inline constexpr IoStatus kInvalidSglOffset{0, 0x16, 22, true};
inline constexpr IoStatus kHostIdInconsistent{0, 0x18, 22, true};
inline constexpr IoStatus kKeepAliveInvalid{0, 0x1A, 22, true};
// The host comes again later.
inline constexpr IoStatus kInterrupted{0, 0x21, 4, false};
inline constexpr IoStatus kInvalidLogPage{1, 0x09, 22, true};
inline constexpr IoStatus kFeatureNotSaveable{1, 0x0D, 22, true};
inline constexpr IoStatus kFeatureNotChangeable{1, 0x0E, 22, true};
inline constexpr IoStatus kConnectIncompatibleFormat{1, 0x80, 22, true};
inline constexpr IoStatus kConnectInvalidParameters{1, 0x82, 22, true};  // or not_yet() of it
// Until that queue's last connection, or one of those commands, has ended.
inline constexpr IoStatus kInvalidQueueId{1, 0x01, 22, false};
inline constexpr IoStatus kAbortLimit{1, 0x03, 11, false};
inline constexpr IoStatus kAsyncEventLimit{1, 0x05, 11, false};
// Until there is room, or the host is let in.
inline constexpr IoStatus kConnectControllerBusy{1, 0x81, 16, false};
inline constexpr IoStatus kConnectInvalidHost{1, 0x84, 13, false};
// Of a path: another one, or a later time.
inline constexpr IoStatus kAnaPersistentLoss{3, 0x01, 5, false};
inline constexpr IoStatus kAnaTransition{3, 0x03, 11, false};
}  // namespace status

// ---- Commands ----------------------------------------------------------------------------------
enum AdminOpcode : uint8_t {
  kAdminGetLogPage = 0x02,
  kAdminIdentify = 0x06,
  kAdminAbort = 0x08,
  kAdminSetFeatures = 0x09,
  kAdminGetFeatures = 0x0A,
  kAdminAsyncEvent = 0x0C,
  kAdminKeepAlive = 0x18,
  kOpcodeFabrics = 0x7F,  // on I/O queues too
};
enum IoOpcode : uint8_t {
  kIoFlush = 0x00,
  kIoWrite = 0x01,
  kIoRead = 0x02,
  kIoCompare = 0x05,
  kIoWriteZeroes = 0x08,
  kIoDatasetManagement = 0x09,
  kIoReservationRegister = 0x0D,
  kIoReservationReport = 0x0E,
  kIoReservationAcquire = 0x11,
  kIoReservationRelease = 0x15,
};
enum FabricsType : uint8_t {
  kFabricsPropertySet = 0x00,
  kFabricsConnect = 0x01,
  kFabricsPropertyGet = 0x04,
  kFabricsAuthSend = 0x05,
  kFabricsAuthReceive = 0x06,
  kFabricsDisconnect = 0x08,
};

// SGL descriptor; `type` holds the descriptor type (high nibble) and subtype (low nibble).
inline constexpr uint8_t kSglInCapsule = 0x01;  // data block, address is an offset in the capsule
inline constexpr uint8_t kSglTransport = 0x5A;  // transport data block
struct [[gnu::packed]] SglDescriptor {
  uint64_t address;
  uint32_t length;
  uint8_t reserved[3];
  uint8_t type;
};
static_assert(sizeof(SglDescriptor) == 16 && offsetof(SglDescriptor, type) == 15);

inline constexpr uint8_t kFuseMask = 0x03, kFuseFirst = 0x01, kFuseSecond = 0x02;
inline constexpr uint8_t kPsdtMask = 0xC0, kPsdtSgl = 0x40;

struct [[gnu::packed]] Sqe {
  uint8_t opcode;
  uint8_t flags;  // bits 0-1 fuse, 6-7 PSDT (01b on fabrics)
  uint16_t cid;
  union {
    uint32_t nsid;
    uint8_t fctype;  // opcode 0x7F
  };
  uint32_t cdw2, cdw3;
  uint64_t metadata;
  SglDescriptor sgl;
  uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
  [[nodiscard]] uint64_t slba() const noexcept {
    return static_cast<uint64_t>(cdw11) << 32 | static_cast<uint64_t>(cdw10);
  }
  void set_slba(uint64_t lba) noexcept {
    cdw10 = static_cast<uint32_t>(lba);
    cdw11 = static_cast<uint32_t>(lba >> 32);
  }
};
static_assert(sizeof(Sqe) == 64 && offsetof(Sqe, sgl) == 24 && offsetof(Sqe, cdw10) == 40);
static_assert(std::is_trivially_copyable_v<Sqe>);

inline constexpr uint32_t kCdw12Fua = 1U << 30;   // read, write, write zeroes
inline constexpr uint32_t kCdw12Deac = 1U << 25;  // write zeroes: deallocate
inline constexpr uint32_t kCdw12NlbMask = 0xFFFF;

struct [[gnu::packed]] Cqe {
  uint32_t dw0, dw1;
  uint16_t sqhd, sqid;
  uint16_t cid;
  uint16_t status;
};
static_assert(sizeof(Cqe) == 16 && offsetof(Cqe, status) == 14);

// Connect: cdw10..12 of the SQE, and its data.
inline constexpr uint8_t kConnectDisableSqFlow = 0x04;  // cattr
struct [[gnu::packed]] ConnectSqe {
  uint8_t opcode, flags;
  uint16_t cid;
  uint8_t fctype, reserved5[19];
  SglDescriptor sgl;
  uint16_t recfmt, qid, sqsize;  // sqsize is 0-based
  uint8_t cattr, reserved47;
  uint32_t kato_ms;
  uint8_t reserved52[12];
};
static_assert(sizeof(ConnectSqe) == 64 && offsetof(ConnectSqe, recfmt) == 40);
static_assert(offsetof(ConnectSqe, cattr) == 46 && offsetof(ConnectSqe, kato_ms) == 48);

struct [[gnu::packed]] ConnectData {
  uint8_t host_id[16];
  uint16_t cntlid;
  uint8_t reserved18[238];
  char subnqn[kNqnFieldSize];
  char hostnqn[kNqnFieldSize];
  uint8_t reserved768[256];
};
static_assert(sizeof(ConnectData) == 1024 && offsetof(ConnectData, subnqn) == 256);
static_assert(offsetof(ConnectData, hostnqn) == 512);

struct [[gnu::packed]] PropertySqe {  // get and set
  uint8_t opcode, flags;
  uint16_t cid;
  uint8_t fctype, reserved5[35];
  uint8_t attrib, reserved41[3];  // bits 0-2: 0 = 4 bytes, 1 = 8 bytes
  uint32_t offset;
  uint64_t value;
  uint8_t reserved56[8];
};
static_assert(sizeof(PropertySqe) == 64 && offsetof(PropertySqe, offset) == 44);

enum PropertyOffset : uint32_t {
  kPropertyCap = 0x00,
  kPropertyVs = 0x08,
  kPropertyCc = 0x14,
  kPropertyCsts = 0x1C,
  kPropertyNssr = 0x20,
};
// CC and CSTS fields.
inline constexpr uint32_t kCcEnable = 1, kCcShnShift = 14, kCcShnMask = 3U << kCcShnShift;
inline constexpr uint32_t kCcIosqesShift = 16, kCcIocqesShift = 20;
inline constexpr uint32_t kCcDefault = 0x00460001;  // enabled, 64-byte SQE, 16-byte CQE, NVM
inline constexpr uint32_t kCstsReady = 1, kCstsFatal = 2, kCstsShutdownComplete = 2U << 2,
                          kCstsShutdownMask = 3U << 2;

// ---- Identify ----------------------------------------------------------------------------------
enum IdentifyCns : uint8_t {
  kCnsNamespace = 0x00,
  kCnsController = 0x01,
  kCnsActiveNamespaces = 0x02,
  kCnsNamespaceDescriptors = 0x03,
  kCnsNamespaceControllers = 0x12,  // attached to a namespace
  kCnsControllers = 0x13,           // of the subsystem
  kCnsCsNamespace = 0x05,
  kCnsCsController = 0x06,
  kCnsIndependentNamespace = 0x08,
  kCnsCommandSets = 0x1C,
};

// Vendor specific area of Identify Controller: which run of its machine a target belongs to (see
// Bdev::power_cycle). Ours; other targets leave it out.
inline constexpr size_t kPowerCycleOffset = 3072;
inline constexpr char kPowerCycleTag[8] = {'M', 'S', 'P', 'O', 'W', 'E', 'R', '1'};

struct [[gnu::packed]] IdentifyController {
  uint16_t vid, ssvid;
  char sn[20], mn[40], fr[8];
  uint8_t rab, ieee[3], cmic, mdts;
  uint16_t cntlid;
  uint32_t ver, rtd3r, rtd3e, oaes, ctratt;
  uint16_t rrls;
  uint8_t reserved102[9], cntrltype, fguid[16];
  uint16_t crdt1, crdt2, crdt3;
  uint8_t reserved134[122];
  uint16_t oacs;
  uint8_t acl, aerl, frmw, lpa, elpe, npss, avscc, apsta;
  uint16_t wctemp, cctemp, mtfa;
  uint32_t hmpre, hmmin;
  uint8_t tnvmcap[16], unvmcap[16];
  uint32_t rpmbs;
  uint16_t edstt;
  uint8_t dsto, fwug;
  uint16_t kas, hctma, mntmt, mxtmt;
  uint32_t sanicap, hmminds;
  uint16_t hmmaxd, nsetidmax, endgidmax;
  uint8_t anatt, anacap;
  uint32_t anagrpmax, nanagrpid, pels;
  uint8_t reserved356[156];
  uint8_t sqes, cqes;
  uint16_t maxcmd;
  uint32_t nn;
  uint16_t oncs, fuses;
  uint8_t fna, vwc;
  uint16_t awun, awupf;
  uint8_t nvscc, nwpc;
  uint16_t acwu, ocfs;
  uint32_t sgls, mnan;
  uint8_t reserved544[224];
  char subnqn[kNqnFieldSize];
  uint8_t reserved1024[768];
  uint32_t ioccsz, iorcsz;  // in 16-byte units
  uint16_t icdoff;
  uint8_t fcatt, msdbd;
  uint16_t ofcs;
  uint8_t reserved1806[2290];
};
static_assert(sizeof(IdentifyController) == 4096);
static_assert(offsetof(IdentifyController, cntlid) == 78);
static_assert(offsetof(IdentifyController, oaes) == 92);
static_assert(offsetof(IdentifyController, cntrltype) == 111);
static_assert(offsetof(IdentifyController, crdt1) == 128);
static_assert(offsetof(IdentifyController, oacs) == 256);
static_assert(offsetof(IdentifyController, kas) == 320);
static_assert(offsetof(IdentifyController, anatt) == 342);
static_assert(offsetof(IdentifyController, anagrpmax) == 344);
static_assert(offsetof(IdentifyController, sqes) == 512);
static_assert(offsetof(IdentifyController, maxcmd) == 514);
static_assert(offsetof(IdentifyController, oncs) == 520);
static_assert(offsetof(IdentifyController, vwc) == 525);
static_assert(offsetof(IdentifyController, sgls) == 536);
static_assert(offsetof(IdentifyController, mnan) == 540);
static_assert(offsetof(IdentifyController, subnqn) == 768);
static_assert(offsetof(IdentifyController, ioccsz) == 1792);
static_assert(offsetof(IdentifyController, msdbd) == 1803);

inline constexpr uint32_t kOaesNamespaceAttribute = 1U << 8, kOaesAna = 1U << 11,
                          kOaesDiscovery = 1U << 31;
inline constexpr uint16_t kOncsCompare = 1 << 0, kOncsDatasetManagement = 1 << 2,
                          kOncsWriteZeroes = 1 << 3, kOncsSelectFeature = 1 << 4,
                          kOncsReservations = 1 << 5;
inline constexpr uint8_t kCmicMultiPort = 1, kCmicMultiController = 2, kCmicAna = 8;

struct [[gnu::packed]] LbaFormat {
  uint16_t metadata_size;
  uint8_t data_size_log2;
  uint8_t relative_performance;
};
struct [[gnu::packed]] IdentifyNamespace {
  uint64_t nsze, ncap, nuse;  // blocks
  uint8_t nsfeat, nlbaf, flbas, mc, dpc, dps, nmic, rescap, fpi, dlfeat;
  uint16_t nawun, nawupf, nacwu, nabsn, nabo, nabspf, noiob;
  uint8_t nvmcap[16];
  uint16_t npwg, npwa, npdg, npda, nows;
  uint8_t reserved74[18];
  uint32_t anagrpid;
  uint8_t reserved96[3], nsattr;
  uint16_t nvmsetid, endgid;
  uint8_t nguid[16], eui64[8];
  LbaFormat lbaf[16];
  uint8_t reserved192[3904];
};
static_assert(sizeof(IdentifyNamespace) == 4096 && offsetof(IdentifyNamespace, nmic) == 30);
static_assert(offsetof(IdentifyNamespace, nawun) == 34 && offsetof(IdentifyNamespace, npwg) == 64);
static_assert(offsetof(IdentifyNamespace, anagrpid) == 92);
static_assert(offsetof(IdentifyNamespace, nguid) == 104);
static_assert(offsetof(IdentifyNamespace, lbaf) == 128);
inline constexpr uint8_t kNmicShared = 1;
inline constexpr uint8_t kNsfeatThin = 1;

// CNS 06h of the NVM command set. Limits are powers of two of kPageSize; 0: none told.
struct [[gnu::packed]] IdentifyNvmController {
  uint8_t vsl, wzsl, wusl, dmrl;  // verify, write zeroes, write uncorrectable; ranges
  uint32_t dmrsl;
  uint64_t dmsl;
  uint8_t reserved16[4080];
};
static_assert(sizeof(IdentifyNvmController) == 4096 && offsetof(IdentifyNvmController, dmrsl) == 4);

struct [[gnu::packed]] ControllerList {  // ascending
  uint16_t count, ids[2047];
};
static_assert(sizeof(ControllerList) == 4096);

struct [[gnu::packed]] NamespaceDescriptorHeader {
  uint8_t type, length, reserved[2];
};
static_assert(sizeof(NamespaceDescriptorHeader) == 4);
enum NamespaceDescriptorType : uint8_t {
  kNidEui64 = 1,
  kNidNguid = 2,
  kNidUuid = 3,
  kNidCommandSet = 4
};

// ---- Log pages ---------------------------------------------------------------------------------
enum LogPage : uint8_t {
  kLogError = 0x01,
  kLogSmart = 0x02,
  kLogFirmware = 0x03,
  kLogChangedNamespaces = 0x04,
  kLogEffects = 0x05,
  kLogAna = 0x0C,
  kLogDiscovery = 0x70,
  kLogReservation = 0x80,
};
inline constexpr size_t kChangedNamespacesSize = 4096, kFirmwareLogSize = 512,
                        kErrorLogEntrySize = 64;

struct [[gnu::packed]] SmartLog {  // 128-bit counters: only their lower halves are used
  uint8_t critical_warning;
  uint16_t temperature_kelvin;
  uint8_t available_spare, spare_threshold, percentage_used, reserved6[26];
  uint64_t units_read, units_read_high;  // thousands of 512 bytes, rounded up
  uint64_t units_written, units_written_high;
  uint64_t host_reads, host_reads_high;
  uint64_t host_writes, host_writes_high;
  uint8_t reserved96[416];
};
static_assert(sizeof(SmartLog) == 512 && offsetof(SmartLog, units_read) == 32);
static_assert(offsetof(SmartLog, host_writes) == 80);

enum class AnaState : uint8_t {
  kOptimized = 1,
  kNonOptimized = 2,
  kInaccessible = 3,
  kPersistentLoss = 4,
  kChange = 15,
};
// Commands Supported and Effects log: what each opcode does, by opcode.
struct [[gnu::packed]] EffectsLog {
  uint32_t admin[256], io[256];
  uint8_t reserved2048[2048];
};
static_assert(sizeof(EffectsLog) == 4096 && offsetof(EffectsLog, io) == 1024);
inline constexpr uint32_t kEffectSupported = 1U << 0;
inline constexpr uint32_t kEffectChangesBlocks = 1U << 1;  // logical block content

struct [[gnu::packed]] AnaLogHeader {
  uint64_t change_count;
  uint16_t group_count;
  uint8_t reserved[6];
};
struct [[gnu::packed]] AnaGroup {  // followed by namespace_count x uint32_t
  uint32_t group_id, namespace_count;
  uint64_t change_count;
  uint8_t state, reserved[15];
};
static_assert(sizeof(AnaLogHeader) == 16 && sizeof(AnaGroup) == 32);
static_assert(offsetof(AnaGroup, state) == 16);

struct [[gnu::packed]] DiscoveryLogHeader {
  uint64_t generation, record_count;
  uint16_t record_format;
  uint8_t reserved[1006];
};
struct [[gnu::packed]] DiscoveryLogEntry {
  uint8_t trtype, adrfam, subtype, treq;
  uint16_t portid, cntlid, asqsz, eflags;
  uint8_t reserved12[20];
  char trsvcid[32];
  uint8_t reserved64[192];
  char subnqn[256], traddr[256];
  uint8_t tsas[256];
};
static_assert(sizeof(DiscoveryLogHeader) == 1024 && sizeof(DiscoveryLogEntry) == 1024);
static_assert(offsetof(DiscoveryLogEntry, trsvcid) == 32);
static_assert(offsetof(DiscoveryLogEntry, subnqn) == 256);
static_assert(offsetof(DiscoveryLogEntry, traddr) == 512);
inline constexpr uint8_t kTransportTcp = 3, kAddressIpv4 = 1, kAddressIpv6 = 2;
inline constexpr uint8_t kSubtypeNvm = 2, kSubtypeCurrentDiscovery = 3;

struct [[gnu::packed]] ReservationLog {
  uint64_t count;
  uint8_t type, available, reserved10[2];
  uint32_t nsid;
  uint8_t reserved16[48];
};
static_assert(sizeof(ReservationLog) == 64 && offsetof(ReservationLog, nsid) == 12);
enum ReservationNotice : uint8_t {
  kNoticeRegistrationPreempted = 1,
  kNoticeReservationReleased = 2,
  kNoticeReservationPreempted = 3,
};

// ---- Features and events -----------------------------------------------------------------------
enum FeatureId : uint8_t {
  kFeatureArbitration = 0x01,
  kFeaturePower = 0x02,
  kFeatureTemperature = 0x04,
  kFeatureErrorRecovery = 0x05,
  kFeatureWriteCache = 0x06,
  kFeatureQueues = 0x07,
  kFeatureWriteAtomicity = 0x0A,
  kFeatureAsyncEvents = 0x0B,
  kFeatureKeepAlive = 0x0F,
  kFeatureHostBehavior = 0x16,
  kFeatureHostId = 0x81,
  kFeatureReservationMask = 0x82,
  kFeatureReservationPersist = 0x83,
};
enum FeatureSelect : uint8_t {  // of Get Features
  kSelectCurrent = 0,
  kSelectDefault = 1,
  kSelectSaved = 2,
  kSelectSupported = 3,
};
[[nodiscard]] constexpr uint8_t feature_select(const Sqe& sqe) noexcept {
  return static_cast<uint8_t>((sqe.cdw10 >> 8) & 7);
}
inline constexpr uint32_t kFeatureOfNamespace = 1U << 1, kFeatureChangeable = 1U << 2;
inline constexpr uint32_t kEventNamespaceChanged = 2U | 0x00U << 8 | 0x04U << 16;
inline constexpr uint32_t kEventAnaChanged = 2U | 0x03U << 8 | 0x0CU << 16;
inline constexpr uint32_t kEventDiscoveryChanged = 2U | 0xF0U << 8 | 0x70U << 16;
inline constexpr uint32_t kEventReservation = 6U | 0x00U << 8 | 0x80U << 16;

// ---- I/O command data --------------------------------------------------------------------------
struct [[gnu::packed]] DsmRange {
  uint32_t attributes, block_count;
  uint64_t slba;
};
static_assert(sizeof(DsmRange) == 16);
inline constexpr uint32_t kDsmDeallocate = 1U << 2;  // cdw11
inline constexpr uint32_t kDsmMaxRanges = 256;

struct [[gnu::packed]] ReservationRegisterData {
  uint64_t current_key, new_key;
};
struct [[gnu::packed]] ReservationAcquireData {
  uint64_t current_key, preempt_key;
};
struct [[gnu::packed]] ReservationReleaseData {
  uint64_t current_key;
};
static_assert(sizeof(ReservationRegisterData) == 16 && sizeof(ReservationReleaseData) == 8);

enum class ReservationType : uint8_t {
  kNone = 0,
  kWriteExclusive = 1,
  kExclusiveAccess = 2,
  kWriteExclusiveRegistrantsOnly = 3,
  kExclusiveAccessRegistrantsOnly = 4,
  kWriteExclusiveAllRegistrants = 5,
  kExclusiveAccessAllRegistrants = 6,
};
struct [[gnu::packed]] ReservationStatusHeader {  // extended form is padded to 64 bytes
  uint32_t generation;
  uint8_t type;
  uint16_t registrant_count;
  uint8_t reserved7[2], ptpl_state, reserved10[14];
};
struct [[gnu::packed]] ReservationRegistrant {  // not extended: 64-bit host identifier
  uint16_t cntlid;
  uint8_t status, reserved3[5];
  uint64_t host_id, key;
};
struct [[gnu::packed]] ReservationRegistrantExtended {
  uint16_t cntlid;
  uint8_t status, reserved3[5];
  uint64_t key;
  uint8_t host_id[16], reserved32[32];
};
static_assert(sizeof(ReservationStatusHeader) == 24 && sizeof(ReservationRegistrant) == 24);
static_assert(offsetof(ReservationStatusHeader, ptpl_state) == 9);
static_assert(sizeof(ReservationRegistrantExtended) == 64);
static_assert(offsetof(ReservationRegistrantExtended, host_id) == 16);
inline constexpr size_t kReservationExtendedHeaderSize = 64;

}  // namespace mayastor::nvmf

// The bdevs of this layer over simulated disks: geometry checks, data, faults, names and claims.
#include "bdev/bdev.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <numeric>

#include "bdev/builtin.h"
#include "bdev/fault_bdev.h"
#include "bdev/io_counters.h"
#include "core/sim_harness.h"

namespace mayastor {
namespace {

class BdevTest : public ::testing::Test {
 protected:
  BdevTest() { register_builtin_schemes(registry); }
  std::shared_ptr<Bdev> create(const std::string& uri) {
    auto created = sim.run(registry.create(uri));
    if (!created.ok()) {
      ADD_FAILURE() << created.error().message;
      return nullptr;
    }
    return created.take();
  }
  Error create_error(const std::string& uri) {
    auto created = sim.run(registry.create(uri));
    if (!created.ok()) return created.error();
    ADD_FAILURE() << uri << " should be refused";
    return Error{};
  }
  std::unique_ptr<Channel> open(Bdev& bdev) {
    auto channel = sim.run(bdev.open_channel());
    CHECK(channel.ok());
    return channel.take();
  }
  void expect_refused(const std::string& uri, ErrorCode code, const std::string& part) {
    const Error error = create_error(uri);
    EXPECT_EQ(error.code, code) << uri << ": " << error.message;
    EXPECT_NE(error.message.find(part), std::string::npos) << error.message;
  }
  void exercise(Bdev& bdev);
  Sim sim{42};
  BdevRegistry registry;
};

uint64_t count(const LatencyHistogram& histogram) {
  return std::accumulate(histogram.counts.begin(), histogram.counts.end(), uint64_t{0});
}

// Writes, reads, compares, zeroes and flushes.
void BdevTest::exercise(Bdev& bdev) {
  const auto channel = open(bdev);
  AlignedBuffer data(8192), back(8192);
  for (size_t i = 0; i < data.size(); ++i) data.data()[i] = static_cast<uint8_t>(i * 7 + i / 256);
  EXPECT_TRUE(sim.run(write(*channel, 4096, data.data(), 8192, true)).ok());
  EXPECT_TRUE(sim.run(flush(*channel)).ok());
  EXPECT_TRUE(sim.run(read(*channel, 4096, back.data(), 8192)).ok());
  EXPECT_EQ(std::memcmp(data.data(), back.data(), 8192), 0);
  EXPECT_TRUE(sim.run(write_zeroes(*channel, 4096, 4096)).ok());
  if (bdev.supports(IoType::kUnmap)) {
    EXPECT_TRUE(sim.run(unmap(*channel, 8192, 4096)).ok());
    EXPECT_TRUE(sim.run(read(*channel, 4096, back.data(), 8192)).ok());
    for (size_t i = 0; i < 8192; ++i) ASSERT_EQ(back.data()[i], 0) << i;
  }
  const IoStats stats = bdev.stats();
  EXPECT_EQ(stats.read_ops, bdev.supports(IoType::kUnmap) ? 2u : 1u);
  EXPECT_EQ(stats.write_bytes, 8192u + 4096u);
  const auto measured = [&bdev] {
    IoLatencies latencies;
    bdev.add_latencies(latencies);
    return latencies;
  };
  const IoLatencies latencies = measured();
  EXPECT_EQ(count(latencies.read), stats.read_ops);
  EXPECT_EQ(count(latencies.write), stats.write_ops);
  EXPECT_EQ(count(latencies.unmap), stats.unmap_ops);
  EXPECT_EQ(latencies.write.sum_ns, stats.write_latency_ns);
  bdev.reset_stats();
  EXPECT_EQ(bdev.stats().read_ops, 0u);
  EXPECT_EQ(count(measured().read), 0u);
  EXPECT_TRUE(sim.run(read(*channel, 0, back.data(), 4096)).ok());
  EXPECT_EQ(bdev.stats().read_ops, 1u);
  EXPECT_EQ(bdev.stats().write_ops, 0u);
}

TEST_F(BdevTest, MallocWorks) {
  const auto bdev = create("malloc:///m0?size_mb=8&blk_size=4096");
  EXPECT_EQ(bdev->name(), "m0");
  EXPECT_EQ(bdev->block_size(), 4096u);
  EXPECT_EQ(bdev->size_bytes(), 8u << 20);
  exercise(*bdev);
}

TEST_F(BdevTest, MallocTakesAUuid) {
  const auto bdev = create("malloc:///m0?num_blocks=100&uuid=3f8ec8d6-9a2e-4b4b-8f5e-111213141516");
  EXPECT_EQ(bdev->uuid().to_string(), "3f8ec8d6-9a2e-4b4b-8f5e-111213141516");
  EXPECT_EQ(bdev->size_bytes(), 51200u);
  EXPECT_EQ(registry.find("3f8ec8d6-9a2e-4b4b-8f5e-111213141516"), bdev);
}

TEST_F(BdevTest, MallocRefusesBadParameters) {
  const auto kBad = ErrorCode::kInvalidArgument;
  expect_refused("malloc:///m0", kBad, "size_mb or num_blocks is needed");
  expect_refused("malloc:///m0?size_mb=1&num_blocks=5", kBad, "not both");
  expect_refused("malloc:///m0?size_mb=0", kBad, "size is zero");
  expect_refused("malloc:///m0?size_mb=x", kBad, "size_mb");
  expect_refused("malloc:///m0?size_mb=1&blk_size=1000", kBad, "512 or 4096");
  expect_refused("malloc:///m0?size_mb=1&colour=red", kBad, "unknown parameter 'colour'");
  expect_refused("malloc:///m0?size_mb=18446744073709551615", kBad, "too large");
  expect_refused("malloc:///?size_mb=1", kBad, "name is empty");
  expect_refused("malloc://m0?size_mb=1", kBad, "three slashes");
  expect_refused("malloc:///m0?size_mb=1&uuid=12", kBad, "uuid");
}

TEST(IoCounters, LatenciesOutliveTheirChannelButNotAReset) {
  IoCounterSet set;
  const auto measured = [&set] {
    IoLatencies latencies;
    set.add_latencies(latencies);
    return latencies;
  };
  auto first = std::make_unique<ChannelCounters>(set);
  ChannelCounters second(set);
  first->record(IoType::kRead, 4096, 1'000'000);
  first->record(IoType::kCompare, 4096, 1'000'001);
  second.record(IoType::kRead, 4096, 30'000'000);
  second.record(IoType::kWriteZeroes, 4096, 5);
  second.record(IoType::kFlush, 0, 7);
  EXPECT_EQ(measured().read.counts[LatencyBuckets::slot_of(1'000'000)], 2u);
  EXPECT_EQ(measured().read.counts[LatencyBuckets::slot_of(30'000'000)], 1u);
  EXPECT_EQ(measured().read.sum_ns, 32'000'001u);
  EXPECT_EQ(measured().write.counts[0], 1u);
  EXPECT_EQ(count(measured().unmap), 0u);
  first.reset();
  EXPECT_EQ(count(measured().read), 3u);
  EXPECT_EQ(measured().read.sum_ns, 32'000'001u);
  set.reset();
  EXPECT_EQ(count(measured().read), 0u);
  EXPECT_EQ(measured().read.sum_ns, 0u);
  second.record(IoType::kRead, 4096, 9);
  EXPECT_EQ(count(measured().read), 1u);
  EXPECT_EQ(count(measured().write), 0u);
}

TEST_F(BdevTest, NullReadsZeroes) {
  const auto bdev = create("null:///n0?size_mb=1");
  const auto channel = open(*bdev);
  AlignedBuffer data(4096);
  data.data()[5] = 1;
  EXPECT_TRUE(sim.run(write(*channel, 0, data.data(), 4096, false)).ok());
  EXPECT_TRUE(sim.run(read(*channel, 0, data.data(), 4096)).ok());
  EXPECT_EQ(data.data()[5], 0);
}

TEST_F(BdevTest, FileWorksByEveryName) {
  sim.world().add_disk("/dev/a");
  for (const std::string prefix : {"aio://", "uring://", ""}) {
    const auto bdev = create(prefix + "/dev/a");
    EXPECT_EQ(bdev->name(), "/dev/a");
    EXPECT_TRUE(bdev->has_volatile_cache());
    exercise(*bdev);
    ASSERT_TRUE(sim.run(registry.destroy("/dev/a")).ok());
  }
}

TEST_F(BdevTest, FileRefusesBadGeometry) {
  sim.world().add_disk("/dev/4k", {.size_bytes = 1u << 20, .block_size = 4096});
  sim.world().add_disk("/dev/odd", {.size_bytes = 4096 + 512});
  sim.world().add_disk("/dev/empty", {.size_bytes = 512});
  const auto kBad = ErrorCode::kInvalidArgument;
  expect_refused("aio:///dev/none", ErrorCode::kNotFound, "No such file");
  expect_refused("aio:///dev/4k?blk_size=512", kBad, "logical block size is 4096");
  expect_refused("aio:///dev/odd?blk_size=4096", kBad, "not a whole number of 4096-byte blocks");
  expect_refused("aio:///dev/4k?blk_size=8192", kBad, "512 or 4096");
  expect_refused("aio:///dev/4k?nope=1", kBad, "unknown parameter");
  expect_refused("aio://dev/4k", kBad, "three slashes");
  expect_refused("aio:///", kBad, "path is empty");
  expect_refused("iscsi:///x", kBad, "supported: bdev, loopback, aio");
  expect_refused("relative/path", kBad, "absolute path");
  EXPECT_EQ(create("aio:///dev/4k")->block_size(), 4096u);
}

TEST_F(BdevTest, FileBouncesUnalignedMemory) {
  sim.world().add_disk("/dev/a");
  const auto bdev = create("aio:///dev/a");
  const auto channel = open(*bdev);
  AlignedBuffer memory(16384);
  for (size_t i = 0; i < 4096; ++i) memory.data()[i + 3] = static_cast<uint8_t>(i * 3);
  EXPECT_TRUE(sim.run(write(*channel, 512, memory.data() + 3, 4096, false)).ok());
  EXPECT_TRUE(sim.run(read(*channel, 512, memory.data() + 8001, 4096)).ok());
  EXPECT_EQ(std::memcmp(memory.data() + 3, memory.data() + 8001, 4096), 0);
  EXPECT_EQ(sim.home().buffers().in_use_bytes(), 0u);
}

TEST_F(BdevTest, FileComparesAndCoalescesFlushes) {
  SimDisk& disk = sim.world().add_disk("/dev/a");
  const auto bdev = create("aio:///dev/a");
  const auto channel = open(*bdev);
  AlignedBuffer data(4096);
  std::memset(data.data(), 9, 4096);
  EXPECT_TRUE(sim.run(write(*channel, 0, data.data(), 4096, false)).ok());
  iovec part{data.data(), 4096};
  std::vector<IoStatus> results;
  Io io;
  io.type = IoType::kCompare;
  io.iov = &part;
  io.iov_count = 1;
  io.length = 4096;
  io.owner = &results;
  io.done = [](Io* done, IoStatus status) noexcept {
    static_cast<std::vector<IoStatus>*>(done->owner)->push_back(status);
  };
  channel->submit(&io);
  ASSERT_TRUE(sim.run_until([&] { return results.size() == 1; }));
  EXPECT_TRUE(results[0].ok());
  data.data()[100] = 8;
  channel->submit(&io);
  ASSERT_TRUE(sim.run_until([&] { return results.size() == 2; }));
  EXPECT_TRUE(results[1].is(io_status::kCompareFailure));
  const uint64_t before = disk.mutation_count();
  Io flushes[10];
  for (Io& one : flushes) {
    one = Io{};
    one.type = IoType::kFlush;
    one.owner = &results;
    one.done = io.done;
    channel->submit(&one);
  }
  ASSERT_TRUE(sim.run_until([&] { return results.size() == 12; }));
  EXPECT_EQ(disk.mutation_count() - before, 2u);  // the running one, and one for the other nine
}

TEST_F(BdevTest, RegistryNamesClaimsAndDestroys) {
  const auto bdev = create("malloc:///m0?size_mb=1");
  expect_refused("malloc:///m0?size_mb=2", ErrorCode::kAlreadyExists, "exists as 'm0'");
  expect_refused("null:///m0", ErrorCode::kAlreadyExists, "taken");
  EXPECT_EQ(create("bdev:///m0"), bdev);
  EXPECT_EQ(create("loopback:///m0?uuid=" + bdev->uuid().to_string()), bdev);
  expect_refused("bdev:///m0?uuid=3f8ec8d6-9a2e-4b4b-8f5e-111213141516",
                 ErrorCode::kInvalidArgument, "uuid is");
  expect_refused("bdev:///m1", ErrorCode::kNotFound, "not found");
  EXPECT_TRUE(registry.claim("m0", "pool p").ok());
  EXPECT_EQ(registry.claim("m0", "nexus n").error().code, ErrorCode::kFailedPrecondition);
  EXPECT_EQ(registry.claimed_by("m0"), "pool p");
  const auto refused = sim.run(registry.destroy("m0"));
  EXPECT_EQ(refused.error().code, ErrorCode::kFailedPrecondition);
  registry.unclaim("m0");
  EXPECT_TRUE(sim.run(registry.destroy("malloc:///m0?size_mb=1")).ok());
  EXPECT_EQ(sim.run(registry.destroy("m0")).error().code, ErrorCode::kNotFound);
}

TEST_F(BdevTest, RangesAreChecked) {
  const auto bdev = create("malloc:///m0?size_mb=1&blk_size=4096");
  EXPECT_TRUE(check_range(*bdev, 0, 1u << 20).ok());
  EXPECT_TRUE(check_range(*bdev, 512, 4096).is(io_status::kInvalidField));
  EXPECT_TRUE(check_range(*bdev, 4096, 1u << 20).is(io_status::kLbaOutOfRange));
  EXPECT_TRUE(check_range(*bdev, UINT64_MAX - 4095, 8192).is(io_status::kLbaOutOfRange));
}

TEST_F(BdevTest, FaultsHitWhatTheySay) {
  create("malloc:///m0?size_mb=1");
  create("error:///e0?base=m0");
  const auto fault = find_fault_bdev(registry, "e0");
  ASSERT_NE(fault, nullptr);
  EXPECT_EQ(find_fault_bdev(registry, "m0"), nullptr);
  const auto channel = open(*fault);
  AlignedBuffer data(4096);
  FaultRule rule;
  rule.type = IoType::kWrite;
  rule.offset = 8192;
  rule.length = 4096;
  rule.skip = 1;
  rule.count = 1;
  rule.status = io_status::kWriteFault;
  fault->add_rule(rule);
  EXPECT_TRUE(sim.run(write(*channel, 4096, data.data(), 4096, false)).ok());
  EXPECT_TRUE(sim.run(write(*channel, 8192, data.data(), 4096, false)).ok());
  EXPECT_TRUE(sim.run(write(*channel, 8192, data.data(), 4096, false)).is(io_status::kWriteFault));
  EXPECT_TRUE(sim.run(write(*channel, 8192, data.data(), 4096, false)).ok());
  EXPECT_EQ(fault->hit_count(), 1u);

  FaultRule hold;
  hold.hold = true;
  hold.count = 1;
  fault->add_rule(hold);
  bool finished = false;
  const auto wait = [](Channel* on, void* buffer, bool* flag) -> Task<void> {
    co_await read(*on, 0, buffer, 4096);
    *flag = true;
  };
  spawn(wait(channel.get(), data.data(), &finished));
  sim.run_for(1'000'000);
  EXPECT_FALSE(finished);
  EXPECT_EQ(fault->held_count(), 1u);
  fault->release_held();
  EXPECT_TRUE(finished);

  IoStatus removed;
  fault->set_removed_handler([&removed](IoStatus why) { removed = why; });
  fault->remove_device(io_status::kNamespaceNotReady);
  EXPECT_TRUE(removed.is(io_status::kNamespaceNotReady));
  EXPECT_FALSE(sim.run(read(*channel, 0, data.data(), 4096)).ok());
}

TEST_F(BdevTest, DelayTakesItsTime) {
  create("malloc:///m0?size_mb=1");
  const auto bdev = create("delay:///d0?base=m0&read_us=500&write_us=2000");
  const auto channel = open(*bdev);
  AlignedBuffer data(4096);
  uint64_t start = sim.world().now_ns();
  EXPECT_TRUE(sim.run(read(*channel, 0, data.data(), 4096)).ok());
  EXPECT_GE(sim.world().now_ns() - start, 500'000u);
  start = sim.world().now_ns();
  EXPECT_TRUE(sim.run(write(*channel, 0, data.data(), 4096, false)).ok());
  EXPECT_GE(sim.world().now_ns() - start, 2'000'000u);
  expect_refused("error:///e?base=none", ErrorCode::kNotFound, "'none' not found");
  expect_refused("error:///e", ErrorCode::kInvalidArgument, "?base=");
}

// Linux takes the blocks of an unplugged device away, and answers ENOSPC to a write where none are.
TEST_F(BdevTest, ADiskThatWasPulledHasNotRunOutOfSpace) {
  sim.world().add_disk("/dev/d9", {.size_bytes = 1u << 20});
  const auto bdev = create("aio:///dev/d9");
  uint32_t told = 0;
  bdev->set_removed_handler([&told](IoStatus why) {
    ++told;
    EXPECT_TRUE(why.is(io_status::kWriteFault));
    EXPECT_EQ(why.error_number, ENXIO);
  });
  const auto channel = open(*bdev);
  AlignedBuffer data(4096);
  ASSERT_TRUE(sim.run(write(*channel, 0, data.data(), 4096, false)).ok());
  sim.world().remove_disk_path("/dev/d9");
  const IoStatus written = sim.run(write(*channel, 0, data.data(), 4096, false));
  EXPECT_TRUE(written.is(io_status::kWriteFault));
  EXPECT_EQ(written.error_number, ENXIO);
  EXPECT_TRUE(sim.run(flush(*channel)).is(io_status::kWriteFault));
  EXPECT_TRUE(sim.run(read(*channel, 0, data.data(), 4096)).is(io_status::kUnrecoveredRead));
  sim.run_for(1'000'000);
  EXPECT_EQ(told, 1u);
}

TEST_F(BdevTest, ADiskThatIsThereMayRunOutOfSpaceOrFail) {
  SimDisk& disk = sim.world().add_disk("/dev/d9", {.size_bytes = 1u << 20});
  const auto bdev = create("aio:///dev/d9");
  uint32_t told = 0;
  bdev->set_removed_handler([&told](IoStatus) { ++told; });
  const auto channel = open(*bdev);
  AlignedBuffer data(4096);
  int32_t error_number = 0;
  disk.set_fault_hook([&error_number](const SimDiskOp&) { return -error_number; });
  for (const int32_t full :
       {ENOSPC, EDQUOT}) {  // a thin volume below, a file on a full file system
    error_number = full;
    EXPECT_TRUE(sim.run(write(*channel, 0, data.data(), 4096, false)).is(io_status::kNoSpace));
  }
  for (const int32_t failing : {EIO, ENODEV, ENOMEM}) {  // an offline disk may come back by itself
    error_number = failing;
    EXPECT_TRUE(sim.run(write(*channel, 0, data.data(), 4096, false)).is(io_status::kWriteFault));
  }
  sim.run_for(1'000'000);
  EXPECT_EQ(told, 0u);
  error_number = ENXIO;
  EXPECT_TRUE(sim.run(write(*channel, 0, data.data(), 4096, false)).is(io_status::kWriteFault));
  sim.run_for(1'000'000);
  EXPECT_EQ(told, 1u);
  disk.set_fault_hook(nullptr);
}

}  // namespace
}  // namespace mayastor

// What a file bdev remembers of its disk's failures, its slowness and its silence.
#include "bdev/device_health.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "bdev/bdev.h"
#include "bdev/builtin.h"
#include "core/sim_harness.h"

namespace mayastor {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;

class DeviceHealthTest : public ::testing::Test {
 protected:
  DeviceHealthTest() : disk(sim.world().add_disk("/dev/a")) {
    register_builtin_schemes(registry);
    bdev = sim.run(registry.create("aio:///dev/a")).take();
    channel = sim.run(bdev->open_channel()).take();
  }
  std::shared_ptr<Io> start(IoType type, uint64_t offset, uint64_t length) {
    auto io = std::make_shared<Io>();
    io->type = type;
    io->offset = offset;
    io->length = length;
    part = iovec{buffer.data(), length};
    if (type == IoType::kRead || type == IoType::kWrite) {
      io->iov = &part;
      io->iov_count = 1;
    }
    io->owner = &done;
    io->done = [](Io* ended, IoStatus) noexcept { ++*static_cast<int*>(ended->owner); };
    const Reactor::Scope scope(sim.reactor(0));
    channel->submit(io.get());
    return io;
  }
  Sim sim{7};
  BdevRegistry registry;
  SimDisk& disk;
  std::shared_ptr<Bdev> bdev;
  std::unique_ptr<Channel> channel;
  AlignedBuffer buffer{65536};
  iovec part{};
  int done = 0;
};

TEST_F(DeviceHealthTest, FailuresAreCountedByKindWithTheLastOnesPlace) {
  disk.set_fault_hook([](const SimDiskOp& op) {
    return op.offset <= 8192 && 8192 < op.offset + op.length ? -EIO : 0;
  });
  EXPECT_TRUE(sim.run(read(*channel, 0, buffer.data(), 4096)).ok());
  EXPECT_EQ(bdev->health().last_error_ns, 0u);
  EXPECT_FALSE(sim.run(read(*channel, 4096, buffer.data(), 8192)).ok());
  DeviceHealth health = bdev->health();
  EXPECT_EQ(health.read_errors, 1u);
  EXPECT_EQ(health.write_errors, 0u);
  EXPECT_EQ(health.last_error_offset, 4096u);
  EXPECT_EQ(health.last_error_length, 8192u);
  EXPECT_EQ(health.last_error_number, EIO);
  EXPECT_TRUE(health.last_error_was_read);
  EXPECT_NE(health.last_error_ns, 0u);
  EXPECT_FALSE(sim.run(write(*channel, 8192, buffer.data(), 4096, false)).ok());
  EXPECT_FALSE(sim.run(write_zeroes(*channel, 8192, 4096)).ok());
  disk.set_fault_hook(
      [](const SimDiskOp& op) { return op.type == SimDiskOpType::kFlush ? -EIO : 0; });
  EXPECT_FALSE(sim.run(flush(*channel)).ok());
  health = bdev->health();
  EXPECT_EQ(health.write_errors, 3u);
  EXPECT_FALSE(health.last_error_was_read);
}

TEST_F(DeviceHealthTest, WhatItHasNoRoomForOrDoesNotKnowIsNoFailure) {
  for (const int error_number : {ENOSPC, EOPNOTSUPP}) {
    disk.set_fault_hook([error_number](const SimDiskOp&) { return -error_number; });
    EXPECT_FALSE(sim.run(write(*channel, 0, buffer.data(), 4096, false)).ok());
  }
  EXPECT_EQ(bdev->health().write_errors, 0u);
}

TEST_F(DeviceHealthTest, TheOldestRequestTellsHowLongTheDiskIsSilent) {
  EXPECT_EQ(bdev->health().waiting_since_ns, 0u);
  disk.set_stalled(true);
  const uint64_t began_ns = sim.world().now_ns();
  const auto first = start(IoType::kWrite, 0, 4096);
  sim.run_for(2 * kSecondNs);
  const auto second = start(IoType::kRead, 8192, 4096);
  const auto third = start(IoType::kFlush, 0, 0);
  sim.run_for(20 * kSecondNs);
  EXPECT_GE(bdev->health().waiting_since_ns, began_ns);
  EXPECT_LT(bdev->health().waiting_since_ns, began_ns + kSecondNs);
  EXPECT_EQ(bdev->health().slow_requests, 0u);
  disk.set_stalled(false);
  ASSERT_TRUE(sim.run_until([this] { return done == 3; }));
  const DeviceHealth health = bdev->health();
  EXPECT_EQ(health.waiting_since_ns, 0u);
  EXPECT_EQ(health.slow_requests, 3u);
  EXPECT_NE(health.last_slow_ns, 0u);
}

TEST_F(DeviceHealthTest, ManyRequestsInAnyOrderLeaveNothingBehind) {
  std::vector<std::shared_ptr<Io>> all;
  for (int i = 0; i < 200; ++i) {
    all.push_back(start(i % 3 == 0 ? IoType::kRead : IoType::kWrite, 4096u * (i % 50), 4096));
    if (i % 7 == 0) sim.run_for(30'000);
  }
  ASSERT_TRUE(sim.run_until([this] { return done == 200; }));
  EXPECT_EQ(bdev->health().waiting_since_ns, 0u);
  EXPECT_EQ(bdev->health().slow_requests, 0u);
}

}  // namespace
}  // namespace mayastor

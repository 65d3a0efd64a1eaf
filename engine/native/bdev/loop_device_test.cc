// A real block device, through a loop device on a file: sizes of its blocks, exclusive opening,
// zeroing and discarding, and a device whose medium goes away, on both kinds of ring. Needs root
// and a free loop device; skipped without.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "bdev/bdev.h"
#include "bdev/builtin.h"
#include "core/make_ring.h"
#include "core/reactor.h"

namespace mayastor {
namespace {

constexpr uint64_t kBytes = 32u << 20;

// A file behind /dev/loopN; both go with it.
class LoopDevice final {
 public:
  explicit LoopDevice(uint32_t block_size) {
    char name[] = "/tmp/mayastor-loop-XXXXXX";
    file_ = mkstemp(name);
    CHECK(file_ >= 0 && ftruncate(file_, static_cast<off_t>(kBytes)) == 0);
    unlink(name);
    const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    // Another program may take the free one first: it is looked for again.
    for (int attempt = 0; attempt < 16 && control >= 0 && device_ < 0; ++attempt) {
      const int number = ioctl(control, LOOP_CTL_GET_FREE);
      if (number < 0) break;
      path_ = "/dev/loop" + std::to_string(number);
      device_ = open(path_.c_str(), O_RDWR | O_CLOEXEC);
      if (device_ < 0) break;
      loop_config config{};
      config.fd = static_cast<uint32_t>(file_);
      config.block_size = block_size;
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;  // gone with its last user, even after a crash
      if (ioctl(device_, LOOP_CONFIGURE, &config) == 0) break;
      close(device_);
      device_ = -1;
    }
    if (control >= 0) close(control);
  }
  ~LoopDevice() {
    if (device_ >= 0) close(device_);
    close(file_);
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  [[nodiscard]] bool made() const noexcept { return device_ >= 0; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  // The medium is gone: the device has no blocks any more, while it is open.
  void lose() const noexcept {
    CHECK(ftruncate(file_, 0) == 0);
    CHECK(ioctl(device_, LOOP_SET_CAPACITY, 0) == 0);
  }
  // Taken away and plugged in anew, under the same name. False: another program was faster.
  [[nodiscard]] bool plug_in_anew() noexcept {
    CHECK(ioctl(device_, LOOP_CLR_FD) == 0);
    close(device_);
    device_ = open(path_.c_str(), O_RDWR | O_CLOEXEC);
    CHECK(device_ >= 0);
    loop_config config{};
    config.fd = static_cast<uint32_t>(file_);
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    return ioctl(device_, LOOP_CONFIGURE, &config) == 0;
  }
  // How much of the file is really there.
  [[nodiscard]] uint64_t stored_bytes() const noexcept {
    struct stat info {};
    CHECK(fsync(file_) == 0 && fstat(file_, &info) == 0);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  }

 private:
  int file_ = -1;
  int device_ = -1;
  std::string path_;
};

struct Parameters {
  RingKind ring;
  uint32_t block_size;
};

class LoopDeviceTest : public ::testing::TestWithParam<Parameters> {
 protected:
  void SetUp() override {
    if (!loop_.made()) GTEST_SKIP() << "needs a loop device: " << std::strerror(errno);
    auto made = make_ring({.kind = GetParam().ring});
    ASSERT_TRUE(made.ok());
    reactor_ =
        std::make_unique<Reactor>(ReactorOptions{}, std::move(made.value().ring), system_clock());
    scope_ = std::make_unique<Reactor::Scope>(*reactor_);
    register_builtin_schemes(*registry_);
  }
  void TearDown() override {
    channel_.reset();
    bdev_.reset();
    registry_.reset();
    scope_.reset();
    reactor_.reset();
  }
  template <typename T>
  T run(Task<T> task) {
    std::optional<T> answer;
    spawn([](Task<T> work, std::optional<T>* out) -> Task<void> { out->emplace(co_await work); }(
                                                      std::move(task), &answer));
    while (!answer) reactor_->run_turn(10'000'000);
    return std::move(*answer);
  }
  void open_it() {
    auto created = run(registry_->create("aio://" + loop_.path()));
    ASSERT_TRUE(created.ok()) << created.error().message;
    bdev_ = created.take();
    auto opened = run(bdev_->open_channel());
    ASSERT_TRUE(opened.ok());
    channel_ = opened.take();
  }
  LoopDevice loop_{GetParam().block_size};
  std::unique_ptr<Reactor> reactor_;
  std::unique_ptr<Reactor::Scope> scope_;
  std::unique_ptr<BdevRegistry> registry_ = std::make_unique<BdevRegistry>();
  std::shared_ptr<Bdev> bdev_;
  std::unique_ptr<Channel> channel_;
};

TEST_P(LoopDeviceTest, HasTheDevicesBlocks) {
  open_it();
  EXPECT_EQ(bdev_->block_size(), GetParam().block_size);
  EXPECT_EQ(bdev_->size_bytes(), kBytes);
  EXPECT_TRUE(bdev_->has_volatile_cache());  // the file below has the page cache
  EXPECT_EQ(check_range(*bdev_, 512, 512).ok(), GetParam().block_size == 512);
}

TEST_P(LoopDeviceTest, RefusesBlocksThatAreTooSmall) {
  const auto made = run(registry_->create("aio://" + loop_.path() + "?blk_size=512"));
  EXPECT_EQ(made.ok(), GetParam().block_size == 512);
  const auto larger = run(registry_->create("uring://" + loop_.path() + "?blk_size=4096"));
  EXPECT_EQ(larger.ok(), GetParam().block_size == 4096);  // taken by the one above, or fine
}

TEST_P(LoopDeviceTest, IsOpenedByOneOnly) {
  open_it();
  BdevRegistry other;
  register_builtin_schemes(other);
  const auto second = run(other.create(loop_.path()));
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kFailedPrecondition) << second.error().message;
  EXPECT_NE(second.error().message.find("in use"), std::string::npos) << second.error().message;
}

TEST_P(LoopDeviceTest, KeepsWhatIsWrittenFromAnyMemory) {
  open_it();
  AlignedBuffer memory(1 << 20), back(1 << 20);
  for (size_t i = 0; i < memory.size(); ++i)
    memory.data()[i] = static_cast<uint8_t>(i * 7 + i / 255);
  const uint64_t length = 64u << 10;
  for (const size_t skew : {size_t{0}, size_t{1}, size_t{512}}) {
    const uint8_t* from = memory.data() + skew;
    ASSERT_TRUE(run(write(*channel_, 4096, from, length, skew != 0)).ok());
    ASSERT_TRUE(run(flush(*channel_)).ok());
    std::memset(back.data(), 0, back.size());
    ASSERT_TRUE(run(read(*channel_, 4096, back.data() + skew, length)).ok());
    EXPECT_EQ(std::memcmp(from, back.data() + skew, length), 0);
  }
}

TEST_P(LoopDeviceTest, UnmapsAndZeroes) {
  open_it();
  AlignedBuffer data(8 << 20), back(8 << 20);
  std::memset(data.data(), 0x5A, data.size());
  ASSERT_TRUE(run(write(*channel_, 0, data.data(), data.size(), false)).ok());
  ASSERT_TRUE(run(flush(*channel_)).ok());
  const uint64_t full = loop_.stored_bytes();
  ASSERT_TRUE(run(write_zeroes(*channel_, 4096, 1 << 20)).ok());
  std::memset(data.data() + 4096, 0, 1 << 20);
  if (bdev_->supports(IoType::kUnmap)) {
    ASSERT_TRUE(run(unmap(*channel_, 4 << 20, 4 << 20)).ok());
    std::memset(data.data() + (4 << 20), 0, 4 << 20);
    ASSERT_TRUE(run(flush(*channel_)).ok());
    EXPECT_LE(loop_.stored_bytes() + (4 << 20), full) << "the space is given back";
  }
  ASSERT_TRUE(run(read(*channel_, 0, back.data(), back.size())).ok());
  EXPECT_EQ(std::memcmp(data.data(), back.data(), data.size()), 0);
}

TEST_P(LoopDeviceTest, SaysWhenTheMediumIsGone) {
  open_it();
  AlignedBuffer data(64 << 10);
  ASSERT_TRUE(run(write(*channel_, 0, data.data(), data.size(), true)).ok());
  uint32_t told = 0;
  bdev_->set_removed_handler([&told](IoStatus) { ++told; });
  loop_.lose();
  EXPECT_FALSE(run(read(*channel_, 0, data.data(), data.size())).ok());
  // The kernel says ENOSPC: a nexus would take that for a replica that wants room.
  for (const bool durable : {false, true}) {
    const IoStatus written = run(write(*channel_, 0, data.data(), data.size(), durable));
    EXPECT_TRUE(written.is(io_status::kWriteFault))
        << int{written.type} << " " << int{written.code};
    EXPECT_EQ(written.error_number, ENXIO);
  }
  EXPECT_FALSE(run(write_zeroes(*channel_, 0, 4096)).ok());
  if (bdev_->supports(IoType::kUnmap)) {
    EXPECT_FALSE(run(unmap(*channel_, 0, 4096)).ok());
  }
  reactor_->run_turn(0);
  EXPECT_EQ(told, 1u);
}

TEST_P(LoopDeviceTest, TellsADiskThatWasPluggedInAnew) {
  const auto medium = [this] {
    open_it();
    const Uuid seen = bdev_->medium();
    const std::string name = bdev_->name();
    channel_.reset();
    bdev_.reset();
    EXPECT_TRUE(run(registry_->destroy(name)).ok());
    return seen;
  };
  const Uuid first = medium();
  EXPECT_FALSE(first.is_nil());
  EXPECT_EQ(medium(), first) << "opened again, the same disk";
  if (!loop_.plug_in_anew()) GTEST_SKIP() << "another program took the loop device";
  EXPECT_NE(medium(), first);
}

INSTANTIATE_TEST_SUITE_P(
    Kernel, LoopDeviceTest,
    ::testing::Values(Parameters{RingKind::kUring, 512}, Parameters{RingKind::kUring, 4096},
                      Parameters{RingKind::kEpoll, 512}, Parameters{RingKind::kEpoll, 4096}),
    [](const auto& info) {
      return std::string(info.param.ring == RingKind::kUring ? "Uring" : "Epoll") +
             std::to_string(info.param.block_size);
    });

}  // namespace
}  // namespace mayastor

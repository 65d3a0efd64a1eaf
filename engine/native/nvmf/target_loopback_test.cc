// The target on real threads and loopback sockets: many hosts at once while the control path
// pauses, moves ANA states, fences and removes. Meant for TSan. Also reservations that survive a
// restart.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "core/make_ring.h"
#include "nvmf/ptpl_file.h"
#include "nvmf/target_test_host.h"

namespace mayastor::nvmf::test {
namespace {

class TcpWire final : public Wire {
 public:
  explicit TcpWire(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval limit{20, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    bool connected = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
    if (!connected && errno == EINTR) {  // it goes on without us
      pollfd wait{fd_, POLLOUT, 0};
      while (::poll(&wait, 1, 20'000) < 0 && errno == EINTR) {
      }
      int error = 0;
      socklen_t size = sizeof(error);
      ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
      errno = error;
      connected = error == 0;
    }
    EXPECT_TRUE(connected) << std::strerror(errno);
  }
  ~TcpWire() override { ::close(fd_); }
  void send(const void* data, size_t length) override {
    const auto* bytes = static_cast<const uint8_t*>(data);
    while (length > 0) {
      const ssize_t sent = ::send(fd_, bytes, length, MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;  // with a timeout set it is not restarted
      if (sent <= 0) return;
      bytes += sent;
      length -= static_cast<size_t>(sent);
    }
  }
  bool receive(void* out, size_t length) override {
    auto* bytes = static_cast<uint8_t*>(out);
    while (length > 0) {
      const ssize_t got = ::recv(fd_, bytes, length, 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      bytes += got;
      length -= static_cast<size_t>(got);
    }
    return true;
  }
  bool ended() override {
    uint8_t byte = 0;
    return !receive(&byte, 1);
  }

 private:
  const int fd_;
};

class TargetLoopbackTest : public testing::Test {
 protected:
  TargetLoopbackTest() {
    std::vector<std::unique_ptr<Reactor>> all;
    for (uint32_t i = 0; i < 3; ++i) {
      auto made = make_ring({});
      CHECK(made.ok());
      ReactorOptions options;
      options.index = i;
      all.push_back(
          std::make_unique<Reactor>(options, std::move(made.value().ring), system_clock()));
    }
    reactors = std::make_unique<Reactors>(std::move(all));
    reactors->start();
  }
  ~TargetLoopbackTest() override {
    stop_target();
    reactors->stop_and_join();
    reactors.reset();
    if (!folder.empty()) std::filesystem::remove_all(folder);
  }

  // Runs a task on the home reactor; this thread waits.
  template <typename T>
  T run(std::function<Task<T>()> make) {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<T> value;
    const auto store = [](std::function<Task<T>()>* task, std::mutex* guard,
                          std::condition_variable* tell, std::optional<T>* out) -> Task<void> {
      T result = co_await (*task)();
      const std::lock_guard lock(*guard);
      out->emplace(std::move(result));
      tell->notify_all();
    };
    reactors->home().post([&] { spawn(store(&make, &mutex, &changed, &value)); });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return value.has_value(); });
    return std::move(*value);
  }
  void start_target() {
    TargetOptions options;
    options.replica_port = options.nexus_port = 0;
    options.log = [](const std::string& line) { std::printf("    %s\n", line.c_str()); };
    const auto started = run<Result<void>>([this, options]() -> Task<Result<void>> {
      target = std::make_unique<Target>(*reactors, options);
      return target->start();
    });
    ASSERT_TRUE(started.ok()) << started.error().message;
    port = target->replica_port();
  }
  void add(const std::string& nqn, const std::string& ptpl_path = "") {
    SubsystemOptions options;
    options.nqn = nqn;
    options.nguid = Uuid::from_name(nqn);
    options.ana_reporting = true;
    options.ptpl_path = ptpl_path;
    const auto added = run<Result<void>>([&]() -> Task<Result<void>> {
      return [](Target* on, SubsystemOptions with) -> Task<Result<void>> {
        std::string uri = "malloc:///m?size_mb=8&uuid=" + with.nguid.to_string();
        auto bdev = co_await create_malloc_bdev(std::move(uri));
        CHECK(bdev.ok());
        with.bdev = bdev.take();
        co_return co_await on->add_subsystem(std::move(with));
      }(target.get(), options);
    });
    ASSERT_TRUE(added.ok()) << added.error().message;
  }
  void stop_target() {
    if (!target) return;
    run<bool>([this] {
      return [](Target* on) -> Task<bool> {
        co_await on->stop();
        co_return true;
      }(target.get());
    });
    run<bool>([this] {
      return [](std::unique_ptr<Target> last) -> Task<bool> {
        last.reset();
        co_return true;
      }(std::move(target));
    });
  }
  std::unique_ptr<TestHost> host(uint8_t id, uint16_t qid, uint16_t* cntlid,
                                 const std::string& nqn = kNqn) {
    auto out = std::make_unique<TestHost>(std::make_unique<TcpWire>(port));
    EXPECT_TRUE(out->handshake(id % 2 == 1, id % 3 == 1).has_value());
    HostConnect connect;
    connect.nqn = nqn;
    connect.qid = qid;
    connect.host_id = id;
    if (qid != 0) connect.cntlid = *cntlid;
    const TestAnswer answer = out->connect(connect);
    EXPECT_TRUE(answer.arrived && answer.status().ok());
    if (qid == 0) {
      *cntlid = static_cast<uint16_t>(answer.cqe.dw0);
      EXPECT_TRUE(out->property(kPropertyCc, false, kCcDefault).status().ok());
    }
    return out;
  }
  std::string make_folder() {
    char name[] = "/tmp/mayastor-ptpl-XXXXXX";
    CHECK(::mkdtemp(name) != nullptr);
    folder = name;
    return folder;
  }

  std::unique_ptr<Reactors> reactors;
  std::unique_ptr<Target> target;
  uint16_t port = 0;
  std::string folder;
};

// Writes and reads back in its own part of the namespace until told to stop. Path errors are what
// an ANA change makes; anything else is a failure.
void hammer(TestHost& io, uint64_t first_lba, const std::atomic<bool>& stop, uint64_t* verified) {
  for (uint64_t round = 1; !stop.load(); ++round) {
    const uint32_t blocks = round % 3 == 0 ? 256 : 8;
    const Bytes data = pattern(blocks * 512, first_lba + round);
    const TestAnswer written = io.write(first_lba, data, blocks == 8);
    ASSERT_TRUE(written.arrived);
    if (written.status().type == 3) continue;
    ASSERT_TRUE(written.status().ok());
    const TestAnswer read = io.read(first_lba, blocks);
    ASSERT_TRUE(read.arrived);
    if (read.status().type == 3) continue;
    ASSERT_EQ(read.data, data);
    ++*verified;
  }
}

TEST_F(TargetLoopbackTest, HostsOnEveryReactorWhileTheControlPathMoves) {
  start_target();
  add(kNqn);
  constexpr uint8_t kHosts = 4;
  std::vector<std::unique_ptr<TestHost>> admins, queues;
  for (uint8_t i = 0; i < kHosts; ++i) {
    uint16_t cntlid = 0;
    admins.push_back(host(i, 0, &cntlid));
    queues.push_back(host(i, 1, &cntlid));
  }
  std::atomic<bool> stop{false};
  uint64_t verified[kHosts] = {};
  std::vector<std::thread> threads;
  for (uint8_t i = 0; i < kHosts; ++i) {
    threads.emplace_back([&, i] { hammer(*queues[i], i * 4000U, stop, &verified[i]); });
  }
  for (int round = 0; round < 10; ++round) {
    EXPECT_TRUE(run<Result<void>>([&] { return target->pause(kNqn); }).ok());
    EXPECT_TRUE(run<Result<void>>([&] { return target->resume(kNqn); }).ok());
    EXPECT_TRUE(run<Result<void>>([&] {
                  return target->set_ana_state(kNqn, AnaState::kInaccessible);
                }).ok());
    EXPECT_TRUE(
        run<Result<void>>([&] { return target->set_ana_state(kNqn, AnaState::kOptimized); }).ok());
    EXPECT_TRUE(admins[0]->identify(kCnsNamespace, 1).status().ok());
    add("nqn.2019-05.io.openebs:other");
    uint16_t cntlid = 0;
    const auto other_admin = host(9, 0, &cntlid, "nqn.2019-05.io.openebs:other");
    const auto other_io = host(9, 1, &cntlid, "nqn.2019-05.io.openebs:other");
    EXPECT_TRUE(other_io->read(0, 8).status().ok());
    EXPECT_TRUE(run<Result<void>>([&] {
                  return target->remove_subsystem("nqn.2019-05.io.openebs:other");
                }).ok());
    EXPECT_TRUE(other_io->wire().ended());
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  for (const uint64_t count : verified) EXPECT_GT(count, 0U);
  EXPECT_EQ(target->find(kNqn).value().hosts.size(), kHosts);
  EXPECT_TRUE(run<Result<void>>([&] { return target->remove_subsystem(kNqn); }).ok());
  for (auto& queue : queues) EXPECT_TRUE(queue->wire().ended());
}

// With each entry of its queue in use, and more behind that nobody reads.
TEST_F(TargetLoopbackTest, AHostThatLeavesAFullQueueIsNoticed) {
  start_target();
  add(kNqn);
  uint16_t cntlid = 0;
  auto admin = host(1, 0, &cntlid);
  auto io = host(1, 1, &cntlid);
  for (uint16_t cid = 0; cid < 40; ++cid) {  // the queue has 32 entries
    Sqe sqe = TestHost::io(kIoWrite, 0, 8);
    sqe.cid = static_cast<uint16_t>(1000 + cid);
    sqe.sgl = {0, 4096, {}, kSglTransport};
    io->send_command(sqe);
  }
  const auto until = [this](uint32_t connections) {
    for (int i = 0; i < 2000; ++i) {
      if (run<bool>([this, connections]() -> Task<bool> {
            co_return target->connection_count() == connections;
          })) {
        return true;
      }
      std::this_thread::yield();
      ::poll(nullptr, 0, 5);
    }
    return false;
  };
  EXPECT_TRUE(until(2));
  io.reset();
  EXPECT_TRUE(until(1));
  admin.reset();
  EXPECT_TRUE(until(0));
}

// The close and the move meet on the home reactor in whatever order; see target_close_test.cc.
TEST_F(TargetLoopbackTest, QueuesThatAreJustBeingConnectedEndWithTheirSubsystem) {
  start_target();
  for (int round = 0; round < 300; ++round) {
    add(kNqn);
    uint16_t cntlid = 0;
    const auto admin = host(1, 0, &cntlid);
    TestHost io(std::make_unique<TcpWire>(port));
    ASSERT_TRUE(io.handshake().has_value());
    HostConnect connect;
    connect.qid = 1;
    connect.cntlid = cntlid;
    Sqe sqe = TestHost::connect_sqe(connect);
    const Bytes data = TestHost::connect_data(connect);
    sqe.cid = io.next_cid();
    sqe.flags = kPsdtSgl;
    sqe.sgl = {0, static_cast<uint32_t>(data.size()), {}, kSglInCapsule};
    io.send_command(sqe, data);
    EXPECT_TRUE(run<Result<void>>([&] { return target->remove_subsystem(kNqn); }).ok());
    EXPECT_TRUE(admin->wire().ended()) << round;
  }
}

TEST_F(TargetLoopbackTest, PreemptFencesAWriterOnAnotherReactor) {
  start_target();
  add(kNqn);
  uint16_t id_a = 0, id_b = 0;
  const auto admin_a = host(1, 0, &id_a), admin_b = host(2, 0, &id_b);
  const auto a = host(1, 1, &id_a), b = host(2, 1, &id_b);
  ASSERT_TRUE(a->reserve(kIoReservationRegister, 0, {0, 0xA}).status().ok());
  ASSERT_TRUE(a->reserve(kIoReservationAcquire, 2U << 8, {0xA, 0}).status().ok());
  std::atomic<bool> fenced{false};
  std::thread writer([&] {
    while (true) {
      const bool must_fail = fenced.load();  // read before the write is sent
      const IoStatus status = a->write(0, pattern(512, 1), true).status();
      ASSERT_TRUE(status.ok() || status.is(io_status::kReservationConflict));
      if (must_fail) {
        ASSERT_TRUE(status.is(io_status::kReservationConflict));
        return;
      }
    }
  });
  ASSERT_TRUE(b->reserve(kIoReservationRegister, 2 | 8, {0, 0xB}).status().ok());
  ASSERT_TRUE(b->reserve(kIoReservationAcquire, 1 | 2U << 8, {0xB, 0xA}).status().ok());
  // Answered: from here on nothing of the old holder may change the data.
  const Bytes mine = pattern(512, 77);
  ASSERT_TRUE(b->write(0, mine, true).status().ok());
  fenced = true;
  writer.join();
  EXPECT_EQ(b->read(0, 1).data, mine);
}

TEST_F(TargetLoopbackTest, ReservationsSurviveARestart) {
  const std::string path = make_folder() + "/pool/p0/replica/r0.json";
  start_target();
  add(kNqn, path);
  uint16_t id = 0;
  {
    const auto admin = host(1, 0, &id);
    const auto io = host(1, 1, &id);
    EXPECT_TRUE(io->reserve(kIoReservationRegister, 0, {0, 0xA}).status().ok());
    EXPECT_FALSE(std::filesystem::exists(path));  // nobody asked for it yet
    const IoStatus kept = io->reserve(kIoReservationRegister, 2 | 8 | 3U << 30, {0, 0xAA}).status();
    EXPECT_TRUE(kept.ok()) << int{kept.type} << "/" << int{kept.code};
    EXPECT_TRUE(std::filesystem::exists(path));
    EXPECT_TRUE(io->reserve(kIoReservationAcquire, 2U << 8, {0xAA, 0}).status().ok());
  }
  stop_target();
  start_target();
  add(kNqn, path);
  const auto admin_b = host(2, 0, &id);
  const auto b = host(2, 1, &id);
  EXPECT_TRUE(b->write(0, pattern(512, 1), true).status().is(io_status::kReservationConflict));
  const auto admin_a = host(1, 0, &id);
  const auto a = host(1, 1, &id);
  EXPECT_TRUE(a->write(0, pattern(512, 1), true).status().ok());
  EXPECT_TRUE(a->reserve(kIoReservationRelease, 1, {0xAA}).status().ok());  // clear
  EXPECT_TRUE(b->write(0, pattern(512, 1), true).status().ok());
  EXPECT_TRUE(b->reserve(kIoReservationRegister, 2U << 30, {0, 0xB}).status().ok());
  EXPECT_FALSE(std::filesystem::exists(path));  // persistence was given up
}

std::atomic<int> refused_folders{0};
int refuse_one_folder(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode) && refused_folders.fetch_add(1) == 0) {
    errno = EIO;
    return -1;
  }
  return ::fsync(fd);
}

// Renamed, but the folder could not be synced: the command was refused, so a restart must not bring
// what it asked for.
TEST_F(TargetLoopbackTest, ReservationThatWasRefusedIsNotThereAfterARestart) {
  const std::string path = make_folder() + "/r0.json";
  start_target();
  add(kNqn, path);
  uint16_t id = 0;
  {
    const auto admin_a = host(1, 0, &id);
    const auto a = host(1, 1, &id);
    ASSERT_TRUE(a->reserve(kIoReservationRegister, 3U << 30, {0, 0xA}).status().ok());
    ASSERT_TRUE(a->reserve(kIoReservationAcquire, 2U << 8, {0xA, 0}).status().ok());
    uint16_t id_b = 0;
    const auto admin_b = host(2, 0, &id_b);
    const auto b = host(2, 1, &id_b);
    ASSERT_TRUE(b->reserve(kIoReservationRegister, 0, {0, 0xB}).status().ok());
    target::ptpl_sync = &refuse_one_folder;
    const IoStatus preempted = b->reserve(kIoReservationAcquire, 1 | 2U << 8, {0xB, 0xA}).status();
    target::ptpl_sync = nullptr;
    EXPECT_TRUE(preempted.is(io_status::kInternalError));
    EXPECT_GE(refused_folders.load(), 1);
    EXPECT_TRUE(a->write(0, pattern(512, 1), true).status().ok());
    EXPECT_TRUE(b->write(0, pattern(512, 1), true).status().is(io_status::kReservationConflict));
  }
  stop_target();
  start_target();
  add(kNqn, path);
  const auto admin_b = host(2, 0, &id);
  const auto b = host(2, 1, &id);
  EXPECT_TRUE(b->write(0, pattern(512, 1), true).status().is(io_status::kReservationConflict));
  const auto admin_a = host(1, 0, &id);
  const auto a = host(1, 1, &id);
  EXPECT_TRUE(a->write(0, pattern(512, 1), true).status().ok());
}

TEST_F(TargetLoopbackTest, ReservationThatCannotBeSavedIsNotMade) {
  const std::string path = make_folder() + "/file/r0.json";
  { std::ofstream(folder + "/file") << "in the way"; }
  start_target();
  // A file where the folder should be: unreadable at start already.
  SubsystemOptions options;
  options.nqn = kNqn;
  options.nguid = Uuid::from_name(kNqn);
  options.ptpl_path = path;
  const auto refused = run<Result<void>>([&] {
    return [](Target* on, SubsystemOptions with) -> Task<Result<void>> {
      std::string uri = "malloc:///m?size_mb=1";
      auto bdev = co_await create_malloc_bdev(std::move(uri));
      with.bdev = bdev.take();
      co_return co_await on->add_subsystem(std::move(with));
    }(target.get(), options);
  });
  EXPECT_FALSE(refused.ok());
  std::filesystem::remove(folder + "/file");
  add(kNqn, path);
  { std::ofstream(folder + "/file") << "in the way again"; }
  uint16_t id = 0;
  const auto admin = host(1, 0, &id);
  const auto io = host(1, 1, &id);
  EXPECT_TRUE(io->reserve(kIoReservationRegister, 3U << 30, {0, 0xA})
                  .status()
                  .is(io_status::kInternalError));
  EXPECT_TRUE(io->reserve(kIoReservationAcquire, 2U << 8, {0xA, 0})
                  .status()
                  .is(io_status::kReservationConflict));  // not registered
}

}  // namespace
}  // namespace mayastor::nvmf::test

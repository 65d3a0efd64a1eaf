// Initiator and target of this engine against each other: over a hostile simulated network, and
// over real loopback sockets with two reactors (what the thread sanitizer looks at).
#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <mutex>

#include "bdev/builtin.h"
#include "bdev/fault_bdev.h"
#include "core/make_ring.h"
#include "core/sim_harness.h"
#include "nvmf/initiator.h"
#include "nvmf/target.h"

namespace mayastor::nvmf {
namespace {

constexpr char kNqn[] = "nqn.2019-05.io.openebs:volume";
constexpr uint64_t kBytes = 16 << 20;
constexpr uint64_t kUnit = 4096;

struct Pair {  // a target with one malloc namespace; lives on `reactors`
  BdevRegistry registry;
  std::unique_ptr<Target> target;
  std::shared_ptr<Bdev> disk;
  std::shared_ptr<FaultBdev> fault;  // in front of it

  Task<Result<uint16_t>> start(Reactors* reactors, std::string address) {
    register_builtin_schemes(registry);
    auto made = co_await registry.create("malloc:///disk?size_mb=16&blk_size=512");
    if (!made.ok()) co_return made.error();
    disk = made.take();
    fault = FaultBdev::create("fault", disk);
    TargetOptions options;
    options.address = address;
    options.replica_port = options.nexus_port = 0;
    target = std::make_unique<Target>(*reactors, options);
    const Result<void> started = co_await target->start();
    if (!started.ok()) co_return started.error();
    SubsystemOptions subsystem;
    subsystem.nqn = kNqn;
    subsystem.serial = "S1";
    subsystem.bdev = fault;
    subsystem.nguid = disk->uuid();
    const Result<void> added = co_await target->add_subsystem(subsystem);
    if (!added.ok()) co_return added.error();
    co_return target->replica_port();
  }
  Task<bool> stop() {
    co_await target->stop();
    target.reset();
    fault.reset();
    disk.reset();
    const Result<void> gone = co_await registry.destroy("disk");
    co_return gone.ok();
  }
};

// Random reads and writes of one channel over its own part of the device, against a model.
Task<uint64_t> exercise(Bdev* bdev, uint64_t begin, uint64_t end, uint32_t seed, uint32_t rounds) {
  auto opened = co_await bdev->open_channel();
  if (!opened.ok()) co_return UINT64_MAX;
  std::unique_ptr<Channel> channel = opened.take();
  SimRandom random(seed);
  std::vector<uint8_t> model(end - begin);
  std::vector<uint8_t> buffer(300 * 1024);
  uint64_t wrong = 0;
  IoStatus status = co_await write(*channel, begin, model.data(), model.size(), false);
  if (!status.ok()) ++wrong;
  for (uint32_t i = 0; i < rounds; ++i) {
    const uint64_t blocks = random.chance(1, 8) ? random.between(1, 600) : random.between(1, 16);
    const uint64_t length = std::min(blocks * 512, end - begin);
    const uint64_t at = random.below((end - begin - length) / 512 + 1) * 512;
    const uint64_t kind = random.below(10);
    if (kind < 4) {
      for (uint64_t k = 0; k < length; k += 8) {
        const uint64_t word = random.next();
        std::memcpy(buffer.data() + k, &word, 8);
      }
      status = co_await write(*channel, begin + at, buffer.data(), length, kind == 0);
      std::memcpy(model.data() + at, buffer.data(), length);
    } else if (kind == 4) {
      status = co_await write_zeroes(*channel, begin + at, length);
      std::memset(model.data() + at, 0, length);
    } else {
      std::memset(buffer.data(), 0xEE, length);
      status = co_await read(*channel, begin + at, buffer.data(), length);
      if (std::memcmp(buffer.data(), model.data() + at, length) != 0) ++wrong;
    }
    if (!status.ok()) ++wrong;
  }
  channel.reset();
  co_return wrong;
}

std::string uri_of(const std::string& address, uint16_t port, const std::string& query) {
  return "nvmf://" + address + ":" + std::to_string(port) + "/" + kNqn + query;
}

// --- Simulated
// ------------------------------------------------------------------------------------

class SimPairTest : public testing::Test {
 protected:
  SimPairTest() : sim_(11, 2), remote_(sim_.world(), "10.0.0.9", 2) {
    port_ = sim_.run_on(remote_.home(), pair_.start(&remote_.reactors(), "10.0.0.9")).value();
    initiator_ = std::make_unique<Initiator>(sim_.home(), InitiatorOptions());
  }
  ~SimPairTest() override {
    bdev_.reset();
    sim_.run_for(50'000'000);
    EXPECT_TRUE(sim_.run_on(remote_.home(), pair_.stop()));
  }
  void open(const std::string& query = "") {
    auto bdev = sim_.run(initiator_->create(uri_of("10.0.0.9", port_, query)));
    ASSERT_TRUE(bdev.ok()) << bdev.error().message;
    bdev_ = bdev.take();
  }
  Sim sim_;
  SimHost remote_;
  Pair pair_;
  uint16_t port_ = 0;
  std::unique_ptr<Initiator> initiator_;
  std::shared_ptr<Bdev> bdev_;
};

TEST_F(SimPairTest, DataSurvivesAChoppedNetwork) {
  sim_.world().set_network({.window_bytes = 30'000, .segment_bytes_max = 3000});
  open("?uuid=" + pair_.disk->uuid().to_string());
  EXPECT_EQ(bdev_->size_bytes(), kBytes);
  EXPECT_EQ(sim_.run(exercise(bdev_.get(), 0, kBytes / 4, 1, 400)), 0u);
}

TEST_F(SimPairTest, DataSurvivesWithDigests) {
  sim_.world().set_network({.window_bytes = 100'000, .segment_bytes_max = 9000});
  open("?hdgst=true&ddgst=true");
  EXPECT_EQ(sim_.run(exercise(bdev_.get(), 0, kBytes / 8, 2, 200)), 0u);
}

TEST_F(SimPairTest, DiscoverySeesTheSubsystem) {
  const auto entries = sim_.run(initiator_->discover("10.0.0.9", port_));
  ASSERT_TRUE(entries.ok()) << entries.error().message;
  bool found = false;
  for (const DiscoveryEntry& entry : entries.value()) {
    if (entry.nqn != kNqn) continue;
    found = true;
    EXPECT_EQ(entry.transport, "tcp");
    EXPECT_EQ(entry.address, "10.0.0.9");
    EXPECT_EQ(entry.subsystem_type, 2);
  }
  EXPECT_TRUE(found);
}

TEST_F(SimPairTest, ReservationsFenceTheOtherHost) {
  open("?hostid=11111111-1111-4111-8111-111111111111");
  auto second = sim_.run(initiator_->create(
      uri_of("10.0.0.9", port_, "?hostid=22222222-2222-4222-8222-222222222222")));
  ASSERT_TRUE(second.ok()) << second.error().message;
  std::shared_ptr<Bdev> other = second.take();
  Reservations& mine = *bdev_->reservations();
  Reservations& theirs = *other->reservations();
  using Register = Reservations::RegisterAction;
  using Acquire = Reservations::AcquireAction;
  constexpr uint8_t kExclusive = 2;
  auto channel = sim_.run(bdev_->open_channel()).take();
  auto other_channel = sim_.run(other->open_channel()).take();
  std::vector<uint8_t> data(4096, 1);

  EXPECT_TRUE(sim_.run(mine.register_key(Register::kReplace, 0, 0xA, true, 0)).ok());
  EXPECT_TRUE(sim_.run(mine.acquire(Acquire::kAcquire, 0xA, 0, kExclusive)).ok());
  EXPECT_TRUE(sim_.run(write(*channel, 0, data.data(), data.size(), false)).ok());
  EXPECT_TRUE(sim_.run(write(*other_channel, 0, data.data(), data.size(), false))
                  .is(io_status::kReservationConflict));

  auto report = sim_.run(mine.report());
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report.value().type, kExclusive);
  ASSERT_EQ(report.value().registrants.size(), 1u);
  EXPECT_EQ(report.value().registrants[0].key, 0xAu);
  EXPECT_TRUE(report.value().registrants[0].holder);
  EXPECT_EQ(0, std::memcmp(report.value().registrants[0].host_id, mine.host_id(), 16));

  EXPECT_TRUE(sim_.run(theirs.register_key(Register::kReplace, 0, 0xB, true, 0)).ok());
  EXPECT_TRUE(sim_.run(theirs.acquire(Acquire::kPreempt, 0xB, 0xA, kExclusive)).ok());
  EXPECT_TRUE(sim_.run(write(*other_channel, 0, data.data(), data.size(), false)).ok());
  EXPECT_TRUE(sim_.run(write(*channel, 0, data.data(), data.size(), false))
                  .is(io_status::kReservationConflict));
  EXPECT_TRUE(
      sim_.run(theirs.release(Reservations::ReleaseAction::kRelease, 0xB, kExclusive)).ok());
  channel.reset();
  other_channel.reset();
  other.reset();
}

TEST_F(SimPairTest, RemovedSubsystemEndsTheDevice) {
  open();
  int removed = 0;
  bdev_->set_removed_handler([&](IoStatus) { ++removed; });
  ASSERT_TRUE(sim_.run_on(remote_.home(), pair_.target->remove_subsystem(kNqn)).ok());
  EXPECT_TRUE(sim_.run_until([&] { return removed == 1; }, 1'000'000'000));
  const auto again = sim_.run(initiator_->create(uri_of("10.0.0.9", port_, "")));
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, ErrorCode::kNotFound);
}

TEST_F(SimPairTest, HostThatIsNotAllowedIsTold) {
  ASSERT_TRUE(
      sim_.run_on(remote_.home(), pair_.target->set_allowed_hosts(kNqn, {"nqn.2019-05.io:friend"}))
          .ok());
  const auto refused = sim_.run(initiator_->create(uri_of("10.0.0.9", port_, "")));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kFailedPrecondition);
  open("?hostnqn=nqn.2019-05.io:friend");
}

// What a host gave up on may still be at the disk: it must not land on top of what the host writes
// when it is back.
class GivenUpTest : public SimPairTest {
 protected:
  static constexpr uint64_t kSecond = 1'000'000'000;
  ~GivenUpTest() override { release(); }
  void release() {
    const Reactor::Scope scope(remote_.home());
    pair_.fault->clear_rules();
    pair_.fault->release_held();
  }
  // A write of 0x11 that hangs at the disk; the host has lost the device over it.
  void give_up_a_write() {
    open();
    auto channel = sim_.run(bdev_->open_channel()).take();
    FaultRule rule;
    rule.writes = rule.hold = true;
    rule.count = 1;
    pair_.fault->add_rule(rule);
    std::vector<uint8_t> old(kUnit, 0x11);
    EXPECT_TRUE(
        sim_.run(write(*channel, 0, old.data(), old.size(), false)).is(io_status::kHostPathError));
    channel.reset();
    bdev_.reset();
    ASSERT_EQ(pair_.fault->held_count(), 1u);
  }
  struct Attempt {
    std::optional<Result<std::shared_ptr<Bdev>>> result;
  };
  std::shared_ptr<Attempt> connect(const std::string& query = "") {
    auto attempt = std::make_shared<Attempt>();
    const auto run = [](Initiator* initiator, std::string uri,
                        std::shared_ptr<Attempt> out) -> Task<void> {
      out->result.emplace(co_await initiator->create(uri));
    };
    spawn(run(initiator_.get(), uri_of("10.0.0.9", port_, query), attempt));
    return attempt;
  }
  bool wait(const std::shared_ptr<Attempt>& attempt) {
    return sim_.run_until([&] { return attempt->result.has_value(); }, 60 * kSecond);
  }
  void expect_the_newer_write_stays(std::shared_ptr<Bdev> bdev) {
    bdev_ = std::move(bdev);
    auto channel = sim_.run(bdev_->open_channel()).take();
    std::vector<uint8_t> data(kUnit, 0x22);
    EXPECT_TRUE(sim_.run(write(*channel, 0, data.data(), data.size(), false)).ok());
    release();
    sim_.run_for(kSecond);
    data.assign(kUnit, 0);
    EXPECT_TRUE(sim_.run(read(*channel, 0, data.data(), data.size())).ok());
    EXPECT_EQ(data, std::vector<uint8_t>(kUnit, 0x22));
  }
};

TEST_F(GivenUpTest, TheHostIsBackOnlyWhenTheWriteHasEnded) {
  give_up_a_write();
  const auto attempt = connect();
  sim_.run_for(2 * kSecond);
  EXPECT_FALSE(attempt->result.has_value());
  release();
  ASSERT_TRUE(wait(attempt));
  ASSERT_TRUE(attempt->result->ok()) << attempt->result->error().message;
  expect_the_newer_write_stays(attempt->result->take());
}

TEST_F(GivenUpTest, AttemptsEndWhileTheDiskStandsStillAndTheLastOneWins) {
  give_up_a_write();
  for (int i = 0; i < 3; ++i) {
    const auto early = connect();
    ASSERT_TRUE(wait(early));
    EXPECT_FALSE(early->result->ok());
  }
  const auto attempt = connect();
  sim_.run_for(kSecond);
  release();
  ASSERT_TRUE(wait(attempt));
  ASSERT_TRUE(attempt->result->ok()) << attempt->result->error().message;
  expect_the_newer_write_stays(attempt->result->take());
  const auto info = pair_.target->find(kNqn);
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info.value().hosts.size(), 1u);
}

TEST_F(GivenUpTest, AnotherHostDoesNotWaitForIt) {
  give_up_a_write();
  const auto attempt = connect("?hostid=22222222-2222-4222-8222-222222222222");
  sim_.run_for(kSecond);
  ASSERT_TRUE(attempt->result.has_value());
  EXPECT_TRUE(attempt->result->ok());
}

TEST_F(GivenUpTest, RemovalOfTheSubsystemEndsAWaitingConnect) {
  give_up_a_write();
  const auto attempt = connect();
  sim_.run_for(kSecond);
  bool removed = false;
  {
    const Reactor::Scope scope(remote_.home());
    spawn([](Target* target, bool* done) -> Task<void> {
      *done = (co_await target->remove_subsystem(kNqn)).ok();
    }(pair_.target.get(), &removed));
  }
  ASSERT_TRUE(wait(attempt));
  EXPECT_FALSE(attempt->result->ok());
  EXPECT_FALSE(removed);  // the write is still at the disk
  release();
  EXPECT_TRUE(sim_.run_until([&] { return removed; }, kSecond));
}

// The old connection never said goodbye: its socket is open and may hold more.
TEST_F(GivenUpTest, AHostThatConnectsAnewEndsItsOldControllers) {
  open();
  auto old = std::move(bdev_);
  int lost = 0;
  old->set_removed_handler([&](IoStatus) { ++lost; });
  auto second = std::make_unique<Initiator>(sim_.home(), InitiatorOptions());
  auto made = sim_.run(second->create(uri_of("10.0.0.9", port_, "")));
  ASSERT_TRUE(made.ok()) << made.error().message;
  bdev_ = made.take();
  EXPECT_TRUE(sim_.run_until([&] { return lost == 1; }, kSecond));
  EXPECT_EQ(pair_.target->find(kNqn).value().hosts.size(), 1u);
  old.reset();
}

// --- Real sockets, real threads
// -------------------------------------------------------------------

class LoopbackPairTest : public testing::Test {
 protected:
  LoopbackPairTest() {
    std::vector<std::unique_ptr<Reactor>> list;
    for (uint32_t i = 0; i < 2; ++i) {
      const RingOptions ring_options;
      ReactorOptions options;
      options.index = i;
      list.push_back(std::make_unique<Reactor>(
          options, std::move(make_ring(ring_options).value().ring), system_clock()));
    }
    reactors_ = std::make_unique<Reactors>(std::move(list));
    reactors_->start();
    port_ =
        run<Result<uint16_t>>([this] { return pair_.start(reactors_.get(), "127.0.0.1"); }).value();
    initiator_ = std::make_unique<Initiator>(reactors_->home(), InitiatorOptions());
  }
  ~LoopbackPairTest() override {
    run<bool>([this]() -> Task<bool> { return end(); });
    reactors_->stop_and_join();
  }
  Task<bool> end() {
    bdev_.reset();
    initiator_.reset();
    const bool stopped = co_await pair_.stop();
    EXPECT_TRUE(stopped);
    co_return stopped;
  }
  template <typename T>
  T run(std::function<Task<T>()> make) {
    std::mutex mutex;
    std::condition_variable ended;
    std::optional<T> value;
    reactors_->home().post([&] { spawn(store<T>(make, &mutex, &ended, &value)); });
    std::unique_lock<std::mutex> lock(mutex);
    ended.wait(lock, [&] { return value.has_value(); });
    return std::move(*value);
  }
  template <typename T>
  static Task<void> store(std::function<Task<T>()> make, std::mutex* mutex,
                          std::condition_variable* ended, std::optional<T>* out) {
    T value = co_await make();
    const std::lock_guard<std::mutex> lock(*mutex);
    out->emplace(std::move(value));
    ended->notify_one();
  }
  void open(const std::string& query = "") {
    auto bdev = run<Result<std::shared_ptr<Bdev>>>(
        [&] { return initiator_->create(uri_of("127.0.0.1", port_, query)); });
    ASSERT_TRUE(bdev.ok()) << bdev.error().message;
    bdev_ = bdev.take();
  }
  Pair pair_;
  std::unique_ptr<Reactors> reactors_;
  std::unique_ptr<Initiator> initiator_;
  std::shared_ptr<Bdev> bdev_;
  uint16_t port_ = 0;
};

Task<void> exercise_on(Reactor* reactor, Bdev* bdev, uint64_t begin, uint64_t end, uint32_t seed,
                       Latch* running, uint64_t* wrong) {
  running->add();
  std::function<Task<uint64_t>()> work = [=] { return exercise(bdev, begin, end, seed, 150); };
  const uint64_t result = co_await call_on<uint64_t>(*reactor, work);
  *wrong += result;
  running->done();
}

Task<uint64_t> exercise_all(Reactors* reactors, Bdev* bdev) {
  constexpr uint32_t kWorkers = 6;
  Latch running;
  uint64_t wrong = 0;
  for (uint32_t i = 0; i < kWorkers; ++i) {
    const uint64_t part = kBytes / 16;
    spawn(exercise_on(&reactors->at(i % 2), bdev, i * part, (i + 1) * part, 100 + i, &running,
                      &wrong));
  }
  co_await running;
  co_return wrong;
}

TEST_F(LoopbackPairTest, ChannelsOnTwoReactorsKeepTheirData) {
  open();
  EXPECT_EQ(run<uint64_t>([this] { return exercise_all(reactors_.get(), bdev_.get()); }), 0u);
  EXPECT_GT(bdev_->stats().write_ops, 100u);
}

TEST_F(LoopbackPairTest, ChannelsWithDigestsKeepTheirData) {
  open("?hdgst=1&ddgst=1");
  EXPECT_EQ(run<uint64_t>([this] { return exercise_all(reactors_.get(), bdev_.get()); }), 0u);
}

// The target goes away under load: every I/O on both reactors must end, with data or an error.
struct Storm {
  std::atomic<uint32_t> running{0}, failed{0}, done{0};
};
Task<bool> storm(Bdev* bdev, uint64_t offset, Storm* counters) {
  auto opened = co_await bdev->open_channel();
  if (!opened.ok()) co_return false;
  std::unique_ptr<Channel> channel = opened.take();
  std::vector<uint8_t> buffer(65536);
  counters->running.fetch_add(1);
  while (true) {
    const IoStatus status = co_await write(*channel, offset, buffer.data(), buffer.size(), false);
    if (!status.ok()) break;
    counters->done.fetch_add(1);
  }
  counters->failed.fetch_add(1);
  channel.reset();
  co_return true;
}
Task<void> storm_on(Reactor* reactor, Bdev* bdev, uint64_t offset, Storm* counters,
                    Latch* running) {
  running->add();
  std::function<Task<bool>()> work = [=] { return storm(bdev, offset, counters); };
  const bool opened = co_await call_on<bool>(*reactor, work);
  EXPECT_TRUE(opened);
  running->done();
}
Task<bool> storm_until_removed(Reactors* reactors, Bdev* bdev, Target* target, Storm* counters) {
  Latch running;
  for (uint32_t i = 0; i < 4; ++i)
    spawn(storm_on(&reactors->at(i % 2), bdev, i * uint64_t{65536}, counters, &running));
  while (counters->running.load() < 4 || counters->done.load() < 50) {
    co_await sleep_for(1'000'000);
  }
  const Result<void> removed = co_await target->remove_subsystem(kNqn);
  co_await running;
  co_return removed.ok();
}

TEST_F(LoopbackPairTest, RemovalUnderLoadEndsEveryIo) {
  open();
  Storm counters;
  EXPECT_TRUE(run<bool>([&] {
    return storm_until_removed(reactors_.get(), bdev_.get(), pair_.target.get(), &counters);
  }));
  EXPECT_EQ(counters.failed.load(), 4u);
}

}  // namespace
}  // namespace mayastor::nvmf

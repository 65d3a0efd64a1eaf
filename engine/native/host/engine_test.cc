// The facade with real reactors, rings, files and sockets: what is created is served, what is
// stopped is clean, what is refused is refused for its own reason.
#include "host/engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>

#include "host/sha256.h"

namespace mayastor::host {
namespace {

constexpr uint64_t kMiB = 1ull << 20;
constexpr char kReplica[] = "5f0c1d2e-0000-4000-8000-000000000001";
constexpr char kOther[] = "5f0c1d2e-0000-4000-8000-000000000002";
constexpr char kNexus[] = "5f0c1d2e-0000-4000-8000-000000000010";

class Events final : public EngineEvents {
 public:
  void on_log(LogLevel, std::string, LogFields) override {}
  void on_nexus_changed(std::string) override { ++changes; }
  std::atomic<int> changes{0};
};

class MemoryInfoStore final : public nexus::NexusInfoStore {
 public:
  Task<Result<uint64_t>> put(std::string key, std::string json, std::optional<uint64_t>) override {
    const std::lock_guard held(mutex_);
    if (refuse) co_return Error{ErrorCode::kUnavailable, "the store is down"};
    records_[key] = json;
    co_return ++revision_;
  }
  [[nodiscard]] std::string at(const std::string& key) {
    const std::lock_guard held(mutex_);
    return records_[key];
  }
  std::atomic<bool> refuse{false};

 private:
  std::mutex mutex_;
  std::map<std::string, std::string> records_;
  uint64_t revision_ = 0;
};

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/mayastor-host-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    disk_ = folder_ + "/disk";
    std::ofstream(disk_).put(0);
    ASSERT_EQ(truncate(disk_.c_str(), 128 * kMiB), 0);
    open();
  }
  void TearDown() override {
    close();
    std::remove(disk_.c_str());
    rmdir(folder_.c_str());
  }

  void open() {
    EngineOptions options;
    options.cores = {-1, -1};
    options.node_name = "test";
    options.target_address = "127.0.0.1";
    options.replica_port = 0;
    options.nexus_port = 0;
    options.host_nqn = "nqn.2019-05.io.openebs:node-name:test";
    options.ana_enabled = true;
    auto opened = Engine::open(std::move(options), &store_, events_);
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    engine_ = opened.take();
    const auto started = run<void>([](Engine& engine) { return engine.start(); });
    ASSERT_TRUE(started.ok()) << started.error().message;
  }
  void close() {
    if (!engine_) return;
    const auto stopped = run<void>([](Engine& engine) { return engine.stop(); });
    EXPECT_TRUE(stopped.ok()) << stopped.error().message;
    engine_->close();
    engine_.reset();
  }

  template <typename T>
  Result<T> run(std::function<Task<Result<T>>(Engine&)> work) {
    std::mutex mutex;
    std::condition_variable finished;
    std::optional<Result<T>> answer;
    engine_->home().post([&] {
      spawn([](Engine* engine, std::function<Task<Result<T>>(Engine&)> task, std::mutex* lock,
               std::condition_variable* done, std::optional<Result<T>>* out) -> Task<void> {
        auto result = co_await task(*engine);
        const std::lock_guard held(*lock);
        out->emplace(std::move(result));
        done->notify_one();
      }(engine_.get(), work, &mutex, &finished, &answer));
    });
    std::unique_lock held(mutex);
    finished.wait(held, [&] { return answer.has_value(); });
    return std::move(*answer);
  }

  Result<PoolInfo> create_pool(std::string name, std::string disk) {
    PoolRequest request;
    request.name = std::move(name);
    request.disks = {std::move(disk)};
    return run<PoolInfo>([request](Engine& engine) { return engine.pools().create(request); });
  }
  Result<ReplicaInfo> create_replica(std::string uuid, bool share) {
    ReplicaRequest request;
    request.name = uuid;
    request.uuid = uuid;
    request.pool = "p";
    request.size = 32 * kMiB;
    request.thin = true;
    request.share = share;
    return run<ReplicaInfo>(
        [request](Engine& engine) { return engine.replicas().create(request); });
  }
  Result<NexusStatus> create_nexus(std::vector<std::string> children) {
    NexusRequest request;
    request.name = "volume";
    request.uuid = kNexus;
    request.size = 32 * kMiB;
    request.info_key = "key";
    request.children = std::move(children);
    return run<NexusStatus>([request](Engine& engine) { return engine.nexuses().create(request); });
  }

  std::string folder_, disk_;
  Events events_;
  MemoryInfoStore store_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, ServesAReplicaAgainAfterAStop) {
  ASSERT_TRUE(create_pool("p", disk_).ok());
  const auto made = create_replica(kReplica, true);
  ASSERT_TRUE(made.ok()) << made.error().message;
  EXPECT_TRUE(made.value().shared);
  EXPECT_NE(made.value().uri.find(std::string("?uuid=") + kReplica), std::string::npos);
  close();
  open();
  const auto pool = create_pool("p", "aio://" + disk_);
  ASSERT_TRUE(pool.ok()) << pool.error().message;
  EXPECT_EQ(pool.value().committed, 32 * kMiB);
  const auto replicas = engine_->replicas().list();
  ASSERT_EQ(replicas.size(), 1u);
  EXPECT_TRUE(replicas[0].shared);
  const auto unshared =
      run<ReplicaInfo>([](Engine& engine) { return engine.replicas().unshare(kReplica); });
  ASSERT_TRUE(unshared.ok());
  EXPECT_FALSE(unshared.value().shared);
  close();
  open();
  ASSERT_TRUE(create_pool("p", disk_).ok());
  EXPECT_FALSE(engine_->replicas().list().at(0).shared) << "unshared stays unshared";
}

TEST_F(EngineTest, NexusHoldsItsReplicasUntilItIsDestroyed) {
  ASSERT_TRUE(create_pool("p", disk_).ok());
  const auto one = create_replica(kReplica, false);
  const auto two = create_replica(kOther, true);
  ASSERT_TRUE(one.ok() && two.ok());
  const auto nexus = create_nexus({one.value().uri, two.value().uri});
  ASSERT_TRUE(nexus.ok()) << nexus.error().message;
  EXPECT_EQ(nexus.value().state, 1);
  EXPECT_EQ(nexus.value().device_uri, "");
  EXPECT_NE(store_.at("key").find("\"clean_shutdown\":false"), std::string::npos);
  const auto again = create_nexus({one.value().uri});
  EXPECT_EQ(again.error().code, ErrorCode::kAlreadyExists);
  const std::optional<std::string> any;
  const auto refused =
      run<void>([any](Engine& engine) { return engine.replicas().destroy(kReplica, any); });
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kFailedPrecondition);
  const auto exported =
      run<void>([any](Engine& engine) { return engine.pools().export_pool("p", any); });
  ASSERT_FALSE(exported.ok());
  EXPECT_EQ(exported.error().code, ErrorCode::kFailedPrecondition);

  const std::vector<std::string> hosts;
  const auto published =
      run<NexusStatus>([hosts](Engine& engine) { return engine.nexuses().publish(kNexus, hosts); });
  ASSERT_TRUE(published.ok()) << published.error().message;
  EXPECT_EQ(published.value().ana_state, 1);
  const auto ana =
      run<NexusStatus>([](Engine& engine) { return engine.nexuses().set_ana_state(kNexus, 2); });
  ASSERT_TRUE(ana.ok()) << ana.error().message;
  EXPECT_EQ(ana.value().ana_state, 2);

  const auto destroyed = run<void>([](Engine& engine) { return engine.nexuses().destroy(kNexus); });
  ASSERT_TRUE(destroyed.ok()) << destroyed.error().message;
  EXPECT_NE(store_.at("key").find("\"clean_shutdown\":true"), std::string::npos);
  const auto gone =
      run<void>([any](Engine& engine) { return engine.replicas().destroy(kReplica, any); });
  EXPECT_TRUE(gone.ok());
}

TEST_F(EngineTest, HostsSeeAnInaccessiblePathWhenANexusEndsByItself) {
  for (const char* uri : {"malloc:///m0?size_mb=64", "malloc:///m1?size_mb=64"}) {
    const std::string text = uri;
    ASSERT_TRUE(run<BdevInfo>([text](Engine& engine) { return engine.bdevs().create(text); }).ok());
  }
  ASSERT_TRUE(create_nexus({"bdev:///m0", "bdev:///m1"}).ok());
  const std::vector<std::string> hosts;
  const auto published =
      run<NexusStatus>([hosts](Engine& engine) { return engine.nexuses().publish(kNexus, hosts); });
  ASSERT_TRUE(published.ok()) << published.error().message;
  EXPECT_EQ(published.value().ana_state, 1);
  store_.refuse = true;  // the fault cannot be recorded
  const auto faulted = run<NexusStatus>(
      [](Engine& engine) { return engine.nexuses().fault_child(kNexus, "bdev:///m1"); });
  EXPECT_FALSE(faulted.ok());
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  NexusStatus status;
  do {
    const auto seen = run<NexusStatus>([](Engine& engine) -> Task<Result<NexusStatus>> {
      co_return engine.nexuses().list().at(0);
    });
    ASSERT_TRUE(seen.ok());
    status = seen.value();
  } while ((status.state != 5 || status.ana_state != 3) &&
           std::chrono::steady_clock::now() < deadline);
  EXPECT_EQ(status.state, 5);
  EXPECT_EQ(status.ana_state, 3);
  store_.refuse = false;
}

TEST_F(EngineTest, NexusIsNotMadeWhenItsRecordCannotBeStored) {
  ASSERT_TRUE(create_pool("p", disk_).ok());
  const auto replica = create_replica(kReplica, false);
  ASSERT_TRUE(replica.ok());
  store_.refuse = true;
  const auto refused = create_nexus({replica.value().uri});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_TRUE(engine_->nexuses().list().empty());
  store_.refuse = false;
  EXPECT_TRUE(create_nexus({replica.value().uri}).ok()) << "nothing was left behind";
}

TEST_F(EngineTest, TwoNexusesOfOneNameAreRefused) {
  const auto bdev = run<BdevInfo>(
      [](Engine& engine) { return engine.bdevs().create("malloc:///m0?size_mb=64"); });
  ASSERT_TRUE(bdev.ok()) << bdev.error().message;
  ASSERT_TRUE(create_nexus({"bdev:///m0"}).ok());
  NexusRequest twin;
  twin.name = "volume";
  twin.uuid = kOther;
  twin.size = 32 * kMiB;
  twin.children = {"bdev:///m0"};
  const auto refused =
      run<NexusStatus>([twin](Engine& engine) { return engine.nexuses().create(twin); });
  EXPECT_EQ(refused.error().code, ErrorCode::kAlreadyExists);
}

TEST_F(EngineTest, DiskOfAnotherPoolIsRefusedByName) {
  ASSERT_TRUE(create_pool("p", disk_).ok());
  const auto busy = create_pool("q", disk_ + "?blk_size=512");
  EXPECT_EQ(busy.error().code, ErrorCode::kInvalidArgument);
  const std::optional<std::string> any;
  ASSERT_TRUE(
      run<void>([any](Engine& engine) { return engine.pools().export_pool("p", any); }).ok());
  const auto named = create_pool("q", disk_);
  EXPECT_EQ(named.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(named.error().message.find("'p'"), std::string::npos) << named.error().message;
}

TEST(Sha256, MatchesTheStandardsExamples) {
  const auto hex = [](std::string text) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    std::string out;
    for (const uint8_t byte : sha256(std::span(bytes, text.size()))) {
      char digits[3];
      std::snprintf(digits, sizeof digits, "%02x", byte);
      out += digits;
    }
    return out;
  };
  EXPECT_EQ(hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sharing, SerialIsTwentyCharactersOfTheUuid) {
  const auto serial = serial_of(Uuid::parse(kReplica).value());
  EXPECT_EQ(serial.size(), 20u);
  EXPECT_EQ(serial.substr(0, 3), "DCS");
  EXPECT_EQ(serial.find_first_not_of("0123456789ABCDEF", 3), std::string::npos);
  EXPECT_NE(serial, serial_of(Uuid::parse(kOther).value()));
}

TEST(PoolService, HostListsSurviveTheirProperty) {
  const std::vector<std::string> hosts = {"nqn.a", "nqn.b"};
  EXPECT_EQ(split_hosts(join_hosts(hosts)), hosts);
  EXPECT_TRUE(split_hosts("").empty());
}

}  // namespace
}  // namespace mayastor::host

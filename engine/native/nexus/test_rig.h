// NexusRig: a simulated engine for the nexus tests: devices with programmable faults over memory, a
// store that can be slow, down or broken, and I/O with a memory of what was acknowledged.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "bdev/builtin.h"
#include "bdev/fault_bdev.h"
#include "core/sim_harness.h"
#include "nexus/nexus.h"

namespace mayastor::nexus {

inline constexpr uint64_t kMiB = 1u << 20;
inline constexpr uint64_t kMs = 1'000'000;

// Remembers what was stored; can be told to wait or to fail. A record that somebody else wrote
// (foreign_write) is replaced by a first put only.
class FakeStore final : public NexusInfoStore {
 public:
  Task<Result<uint64_t>> put(std::string key, std::string json,
                             std::optional<uint64_t> replaces) override {
    ++started;
    if (replaces.has_value() && replaces.value() != revision) {
      co_return Error{ErrorCode::kUnavailable, "somebody else wrote the record"};
    }
    const uint64_t next = ++revision;
    const bool at_once = early;
    if (at_once) {  // durable at once, the answer comes later
      last_key = key;
      history.push_back(json);
    }
    auto pause = sleep_for(latency_ns);
    co_await pause;
    while (down) {
      auto retry = sleep_for(kMs);
      co_await retry;
    }
    if (broken) co_return Error{ErrorCode::kUnavailable, "the store gave up"};
    if (!at_once) {
      last_key = std::move(key);
      history.push_back(std::move(json));
    }
    if (on_stored) on_stored();
    co_return next;
  }
  void foreign_write(std::string json) {
    ++revision;
    history.push_back(std::move(json));
  }
  [[nodiscard]] std::string last() const { return history.empty() ? "" : history.back(); }
  bool down = false;
  bool broken = false;
  bool early = false;
  uint64_t latency_ns = 10'000;
  uint64_t started = 0;
  uint64_t revision = 0;
  std::function<void()> on_stored;  // right before the answer
  std::string last_key;
  std::vector<std::string> history;
};

// One request in flight, with its data.
struct TestIo {
  Io io;
  iovec part{};
  std::vector<uint8_t> data;
  bool done = false;
  IoStatus status;
  std::function<void()> on_done;
};

class NexusRig {
 public:
  explicit NexusRig(uint64_t seed = 1, uint32_t reactor_count = 1) : sim(seed, reactor_count) {
    register_builtin_schemes(registry);
  }
  ~NexusRig() { close(); }

  static std::string uuid_of(const std::string& name) { return Uuid::from_name(name).to_string(); }
  static std::string uri_of(const std::string& name) {
    return "bdev:///" + name + "?uuid=" + uuid_of(name);
  }

  // A memory disk behind a fault device called `name`.
  std::shared_ptr<FaultBdev> add_device(const std::string& name, uint64_t size_mb = 16,
                                        uint32_t block_size = 512) {
    const std::string uri = "malloc:///mem-" + name + "?size_mb=" + std::to_string(size_mb) +
                            "&blk_size=" + std::to_string(block_size) + "&uuid=" + uuid_of(name);
    auto memory = sim.run(registry.create(uri));
    CHECK(memory.ok());
    return put_in_front(name);
  }
  // A fresh fault device over the same memory: the device came back.
  std::shared_ptr<FaultBdev> put_in_front(const std::string& name) {
    registry.remove(name);
    auto device = FaultBdev::create(name, registry.find("mem-" + name));
    CHECK(registry.add(device).ok());
    return device;
  }

  NexusOptions options(const std::vector<std::string>& names, uint64_t size_mb = 8) const {
    NexusOptions made;
    made.name = "nexus-0";
    made.uuid = Uuid::from_name("nexus-0");
    made.size_bytes = size_mb * kMiB;
    for (const auto& name : names) made.children.push_back(uri_of(name));
    made.nexus_info_key = "/key";
    return made;
  }
  Result<std::shared_ptr<Nexus>> try_create(NexusOptions made) {
    return sim.run(Nexus::create(sim.reactors(), registry, &store, std::move(made)));
  }
  void create_with(NexusOptions made) {
    auto created = try_create(std::move(made));
    ASSERT_TRUE(created.ok()) << created.error().message;
    nexus = created.take();
    open_channels();
  }
  void create(const std::vector<std::string>& names) { create_with(options(names)); }
  void open_channels() {
    for (size_t i = 0; i < sim.reactors().size(); ++i) {
      auto channel = sim.run_on(sim.reactor(i), nexus->open_channel());
      CHECK(channel.ok());
      channels.push_back(channel.take());
    }
  }
  void close() {
    for (auto& device : faulty_held) device->release_held();
    channels.clear();
    if (nexus != nullptr && nexus->state() != NexusState::kFaulted) {
      store.down = false;
      const auto gone = sim.run(nexus->destroy());
      EXPECT_TRUE(gone.ok() || gone.error().code == ErrorCode::kNotFound);
    } else if (nexus != nullptr) {
      store.down = false;
      const auto gone = sim.run(nexus->destroy());
      static_cast<void>(gone);  // may have been destroyed by the test
    }
    nexus.reset();
    sim.run_for(10 * kMs);
  }

  // I/O. Nothing else runs between start and return.
  std::shared_ptr<TestIo> start(IoType type, uint64_t offset, uint64_t length, uint8_t fill = 0,
                                size_t core = 0) {
    auto request = std::make_shared<TestIo>();
    request->io.type = type;
    request->io.offset = offset;
    request->io.length = length;
    if (type == IoType::kWrite || type == IoType::kRead) {
      request->data.assign(length, fill);
      request->part = iovec{request->data.data(), length};
      request->io.iov = &request->part;
      request->io.iov_count = 1;
    }
    request->io.owner = request.get();
    request->io.done = [](Io* io, IoStatus status) noexcept {
      auto* self = static_cast<TestIo*>(io->owner);
      CHECK(!self->done);
      self->status = status;
      self->done = true;
      if (self->on_done) self->on_done();
    };
    requests.push_back(request);
    const Reactor::Scope scope(sim.reactor(core));
    channels[core]->submit(&request->io);
    return request;
  }
  std::shared_ptr<TestIo> finish(const std::shared_ptr<TestIo>& request) {
    CHECK(sim.run_until([&] { return request->done; }));
    return request;
  }
  IoStatus write(uint64_t offset, uint64_t length, uint8_t fill, size_t core = 0) {
    return finish(start(IoType::kWrite, offset, length, fill, core))->status;
  }
  std::vector<uint8_t> read(uint64_t offset, uint64_t length, size_t core = 0) {
    auto request = finish(start(IoType::kRead, offset, length, 0xEE, core));
    EXPECT_TRUE(request->status.ok());
    return request->data;
  }
  bool holds(uint64_t offset, uint64_t length, uint8_t fill) {
    const auto data = read(offset, length);
    return std::all_of(data.begin(), data.end(), [fill](uint8_t byte) { return byte == fill; });
  }
  // What a device itself holds in the data area, past the nexus.
  std::vector<uint8_t> device_data(const std::string& name, uint64_t offset, uint64_t length) {
    std::vector<uint8_t> data(length);
    auto memory = registry.find("mem-" + name);
    auto channel = sim.run(memory->open_channel()).take();
    CHECK(sim.run(mayastor::read(*channel, kDataOffsetBytes + offset, data.data(), length)).ok());
    return data;
  }
  bool device_holds(const std::string& name, uint64_t offset, uint64_t length, uint8_t fill) {
    const auto data = device_data(name, offset, length);
    return std::all_of(data.begin(), data.end(), [fill](uint8_t byte) { return byte == fill; });
  }
  bool identical(const std::string& a, const std::string& b) {
    return device_data(a, 0, nexus->size_bytes()) == device_data(b, 0, nexus->size_bytes());
  }
  ChildInfo child(const std::string& name) const {
    for (const ChildInfo& info : nexus->children()) {
      if (info.uri == uri_of(name)) return info;
    }
    ADD_FAILURE() << "no child " << name;
    return {};
  }
  uint64_t sim_now_ns() const { return const_cast<Sim&>(sim).world().now_ns(); }
  bool wait_for(const std::function<bool()>& condition, uint64_t limit_ns = 60'000 * kMs) {
    return sim.run_until(condition, limit_ns);
  }
  bool wait_online(const std::string& name) {
    return wait_for(
        [&] { return child(name).state == ChildState::kOnline && nexus->rebuild_count() == 0; });
  }
  std::string record(const std::vector<std::pair<std::string, bool>>& children, bool clean) const {
    std::string json = "{\"children\":[";
    for (const auto& [name, healthy] : children) {
      if (json.back() != '[') json += ",";
      json += std::string("{\"healthy\":") + (healthy ? "true" : "false") + ",\"uuid\":\"" +
              uuid_of(name) + "\"}";
    }
    return json + "],\"clean_shutdown\":" + (clean ? "true}" : "false}");
  }

  Sim sim;
  BdevRegistry registry;
  FakeStore store;
  std::shared_ptr<Nexus> nexus;
  std::vector<std::unique_ptr<Channel>> channels;  // by core
  std::deque<std::shared_ptr<TestIo>> requests;
  std::vector<std::shared_ptr<FaultBdev>> faulty_held;  // released at the end
};

inline FaultRule fail_writes(IoStatus status, uint64_t count = UINT64_MAX) {
  FaultRule rule;
  rule.writes = true;
  rule.status = status;
  rule.count = count;
  return rule;
}
inline FaultRule fail_reads(IoStatus status, uint64_t count = UINT64_MAX) {
  FaultRule rule;
  rule.type = IoType::kRead;
  rule.status = status;
  rule.count = count;
  return rule;
}
inline FaultRule slow(uint64_t delay_ns) {
  FaultRule rule;
  rule.delay_ns = delay_ns;
  return rule;
}
inline FaultRule hold_writes() {
  FaultRule rule;
  rule.writes = true;
  rule.hold = true;
  return rule;
}

}  // namespace mayastor::nexus

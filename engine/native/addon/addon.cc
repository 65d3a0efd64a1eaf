// The functions JavaScript sees, in the order of engine/ts/native.ts. Glue only: convert, call on
// the home reactor, resolve. Invariants: a wrong argument throws a TypeError that names it;
// everything that may wait returns a promise; I/O data never passes here.
#include <napi.h>
#include <node_api.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "addon/convert.h"
#include "addon/host_bridge.h"
#include "host/engine.h"

namespace mayastor::addon {

// Never deleted: a reactor's last messages may still name it while the environment goes down.
void keep_bridge(Napi::Env, HostBridge*) {}

namespace {

using host::Engine;
using Info = Napi::CallbackInfo;

[[nodiscard]] HostBridge& bridge_of(const Info& info) {
  return *info.Env().GetInstanceData<HostBridge>();
}

// A finished answer as a task, for questions that do not wait.
template <typename T>
Task<Result<T>> ready(Result<T> answer) {
  co_return answer;
}

template <typename T>
using Work = std::function<Task<Result<T>>(Engine&)>;

// Throws if an argument was wrong, else runs the work.
template <typename T>
Napi::Value call(const Info& info, const Reader& reader, Work<T> work) {
  if (reader.failed()) {
    Napi::TypeError::New(info.Env(), reader.failure()).ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  return bridge_of(info).call<T>(info.Env(), std::move(work));
}

Napi::Value start(const Info& info) {
  Reader reader(info.Env());
  auto options = read_engine_options(reader, info[0]);
  const Napi::Value on_event = info[1];
  if (reader.failed() || !on_event.IsFunction()) {
    const std::string why = reader.failed() ? reader.failure() : "onEvent must be a function";
    Napi::TypeError::New(info.Env(), why).ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  return bridge_of(info).start(info.Env(), std::move(options), on_event.As<Napi::Function>());
}

Napi::Value stop(const Info& info) {
  return bridge_of(info).stop(info.Env());
}

Napi::Value complete_put(const Info& info) {
  Reader reader(info.Env());
  const uint64_t id = reader.u64(info[0], "id");
  auto failure = reader.maybe_text(info[1], "failure");
  const uint64_t revision = reader.u64(info[2], "revision");
  if (reader.failed()) {
    Napi::TypeError::New(info.Env(), reader.failure()).ThrowAsJavaScriptException();
  } else {
    bridge_of(info).complete_put(id, failure.value_or(""), revision);
  }
  return info.Env().Undefined();
}

Napi::Value pool_create(const Info& info) {
  Reader reader(info.Env());
  auto request = read_pool_request(reader, info[0]);
  return call<host::PoolInfo>(info, reader,
                              [request](Engine& e) { return e.pools().create(request); });
}

Napi::Value pool_import(const Info& info) {
  Reader reader(info.Env());
  auto request = read_pool_request(reader, info[0]);
  return call<host::PoolInfo>(info, reader,
                              [request](Engine& e) { return e.pools().import(request); });
}

Napi::Value pool_export(const Info& info) {
  Reader reader(info.Env());
  auto name = reader.text(info[0], "name");
  auto uuid = reader.maybe_text(info[1], "uuid");
  return call<void>(info, reader,
                    [name, uuid](Engine& e) { return e.pools().export_pool(name, uuid); });
}

Napi::Value pool_destroy(const Info& info) {
  Reader reader(info.Env());
  auto name = reader.text(info[0], "name");
  auto uuid = reader.maybe_text(info[1], "uuid");
  return call<void>(info, reader,
                    [name, uuid](Engine& e) { return e.pools().destroy(name, uuid); });
}

Napi::Value pool_list(const Info& info) {
  return call<std::vector<host::PoolInfo>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::PoolInfo>>(e.pools().list());
  });
}

Napi::Value replica_create(const Info& info) {
  Reader reader(info.Env());
  auto request = read_replica_request(reader, info[0]);
  return call<host::ReplicaInfo>(info, reader,
                                 [request](Engine& e) { return e.replicas().create(request); });
}

Napi::Value replica_destroy(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  auto pool = reader.maybe_text(info[1], "pool");
  return call<void>(info, reader,
                    [uuid, pool](Engine& e) { return e.replicas().destroy(uuid, pool); });
}

Napi::Value replica_share(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  auto hosts = reader.texts(info[1], "allowedHosts");
  return call<host::ReplicaInfo>(
      info, reader, [uuid, hosts](Engine& e) { return e.replicas().share(uuid, hosts); });
}

Napi::Value replica_unshare(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  return call<host::ReplicaInfo>(info, reader,
                                 [uuid](Engine& e) { return e.replicas().unshare(uuid); });
}

Napi::Value replica_resize(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  const uint64_t size = reader.u64(info[1], "size");
  return call<host::ReplicaInfo>(
      info, reader, [uuid, size](Engine& e) { return e.replicas().resize(uuid, size); });
}

Napi::Value replica_set_entity_id(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  auto entity_id = reader.text(info[1], "entityId");
  return call<host::ReplicaInfo>(info, reader, [uuid, entity_id](Engine& e) {
    return e.replicas().set_entity_id(uuid, entity_id);
  });
}

Napi::Value replica_list(const Info& info) {
  return call<std::vector<host::ReplicaInfo>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::ReplicaInfo>>(e.replicas().list());
  });
}

Napi::Value bdev_create(const Info& info) {
  Reader reader(info.Env());
  auto uri = reader.text(info[0], "uri");
  return call<host::BdevInfo>(info, reader, [uri](Engine& e) { return e.bdevs().create(uri); });
}

Napi::Value bdev_destroy(const Info& info) {
  Reader reader(info.Env());
  auto uri = reader.text(info[0], "uri");
  return call<void>(info, reader, [uri](Engine& e) { return e.bdevs().destroy(uri); });
}

Napi::Value bdev_share(const Info& info) {
  Reader reader(info.Env());
  auto name = reader.text(info[0], "name");
  auto hosts = reader.texts(info[1], "allowedHosts");
  return call<host::BdevInfo>(info, reader,
                              [name, hosts](Engine& e) { return e.bdevs().share(name, hosts); });
}

Napi::Value bdev_unshare(const Info& info) {
  Reader reader(info.Env());
  auto name = reader.text(info[0], "name");
  return call<void>(info, reader, [name](Engine& e) { return e.bdevs().unshare(name); });
}

Napi::Value bdev_list(const Info& info) {
  return call<std::vector<host::BdevInfo>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::BdevInfo>>(e.bdevs().list());
  });
}

Napi::Value nexus_create(const Info& info) {
  Reader reader(info.Env());
  auto request = read_nexus_request(reader, info[0]);
  return call<host::NexusStatus>(info, reader,
                                 [request](Engine& e) { return e.nexuses().create(request); });
}

Napi::Value nexus_destroy(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  return call<void>(info, reader, [uuid](Engine& e) { return e.nexuses().destroy(uuid); });
}

Napi::Value nexus_shutdown(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  return call<host::NexusStatus>(info, reader,
                                 [uuid](Engine& e) { return e.nexuses().shutdown(uuid); });
}

Napi::Value nexus_publish(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  auto hosts = reader.texts(info[1], "allowedHosts");
  return call<host::NexusStatus>(
      info, reader, [uuid, hosts](Engine& e) { return e.nexuses().publish(uuid, hosts); });
}

Napi::Value nexus_unpublish(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  return call<host::NexusStatus>(info, reader,
                                 [uuid](Engine& e) { return e.nexuses().unpublish(uuid); });
}

Napi::Value nexus_add_child(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  auto uri = reader.text(info[1], "uri");
  const bool norebuild = reader.flag(info[2], "norebuild");
  return call<host::NexusStatus>(info, reader, [uuid, uri, norebuild](Engine& e) {
    return e.nexuses().add_child(uuid, uri, norebuild);
  });
}

Napi::Value nexus_remove_child(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  auto uri = reader.text(info[1], "uri");
  return call<host::NexusStatus>(
      info, reader, [uuid, uri](Engine& e) { return e.nexuses().remove_child(uuid, uri); });
}

Napi::Value nexus_fault_child(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  auto uri = reader.text(info[1], "uri");
  return call<host::NexusStatus>(
      info, reader, [uuid, uri](Engine& e) { return e.nexuses().fault_child(uuid, uri); });
}

Napi::Value nexus_child_operation(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  auto uri = reader.text(info[1], "uri");
  const uint32_t given = reader.u32(info[2], "action");
  const auto action = static_cast<uint8_t>(given > 255 ? 255 : given);
  return call<host::NexusStatus>(info, reader, [uuid, uri, action](Engine& e) {
    return e.nexuses().child_operation(uuid, uri, action);
  });
}

Napi::Value nexus_ana_state(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  return call<uint8_t>(info, reader,
                       [uuid](Engine& e) { return ready<uint8_t>(e.nexuses().ana_state(uuid)); });
}

Napi::Value nexus_set_ana_state(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  const uint32_t given = reader.u32(info[1], "state");
  const auto state = static_cast<uint8_t>(given > 255 ? 255 : given);
  return call<host::NexusStatus>(
      info, reader, [uuid, state](Engine& e) { return e.nexuses().set_ana_state(uuid, state); });
}

Napi::Value nexus_rebuild(const Info& info) {
  using Action = host::NexusService::RebuildAction;
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  auto uri = reader.text(info[1], "uri");
  const auto name = reader.text(info[2], "action");
  Action action = Action::kStart;
  if (name == "stop") {
    action = Action::kStop;
  } else if (name == "pause") {
    action = Action::kPause;
  } else if (name == "resume") {
    action = Action::kResume;
  } else if (name != "start") {
    Napi::TypeError::New(info.Env(), "action must be start, stop, pause or resume")
        .ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  return call<host::NexusStatus>(info, reader, [uuid, uri, action](Engine& e) {
    return e.nexuses().rebuild(uuid, uri, action);
  });
}

Napi::Value nexus_rebuild_state(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  auto uri = reader.text(info[1], "uri");
  return call<std::string>(info, reader, [uuid, uri](Engine& e) {
    return ready<std::string>(e.nexuses().rebuild_state(uuid, uri));
  });
}

Napi::Value nexus_rebuild_stats(const Info& info) {
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  auto uri = reader.text(info[1], "uri");
  return call<nexus::RebuildStats>(info, reader, [uuid, uri](Engine& e) {
    return ready<nexus::RebuildStats>(e.nexuses().rebuild_stats(uuid, uri));
  });
}

Napi::Value nexus_rebuild_history(const Info& info) {
  using Records = std::vector<nexus::RebuildRecord>;
  Reader reader(info.Env());
  auto uuid = reader.text(info[0], "uuid");
  return call<Records>(info, reader, [uuid](Engine& e) {
    return ready<Records>(e.nexuses().rebuild_history(uuid));
  });
}

Napi::Value nexus_list(const Info& info) {
  return call<std::vector<host::NexusStatus>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::NexusStatus>>(e.nexuses().list());
  });
}

Napi::Value controller_list(const Info& info) {
  return call<std::vector<host::NvmeControllerInfo>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::NvmeControllerInfo>>(e.controllers());
  });
}

Napi::Value pool_stats(const Info& info) {
  return call<std::vector<host::NamedStats>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::NamedStats>>(e.pools().stats());
  });
}

Napi::Value replica_stats(const Info& info) {
  return call<std::vector<host::NamedStats>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::NamedStats>>(e.replicas().stats());
  });
}

Napi::Value nexus_stats(const Info& info) {
  return call<std::vector<host::NamedStats>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::NamedStats>>(e.nexuses().stats());
  });
}

Napi::Value pool_latencies(const Info& info) {
  return call<std::vector<host::NamedLatencies>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::NamedLatencies>>(e.pools().latencies());
  });
}

Napi::Value replica_latencies(const Info& info) {
  return call<std::vector<host::NamedLatencies>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::NamedLatencies>>(e.replicas().latencies());
  });
}

Napi::Value nexus_latencies(const Info& info) {
  return call<std::vector<host::NamedLatencies>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::NamedLatencies>>(e.nexuses().latencies());
  });
}

Napi::Value reset_stats(const Info& info) {
  return call<void>(info, Reader(info.Env()), [](Engine& e) {
    e.reset_stats();
    return ready<void>(Result<void>());
  });
}

Napi::Value reactor_stats(const Info& info) {
  return call<std::vector<host::ReactorInfo>>(info, Reader(info.Env()), [](Engine& e) {
    return ready<std::vector<host::ReactorInfo>>(e.reactor_infos());
  });
}

struct Entry {
  const char* name;
  Napi::Value (*function)(const Info&);
};
constexpr Entry kFunctions[] = {
    {"start", start},
    {"stop", stop},
    {"completePut", complete_put},
    {"poolCreate", pool_create},
    {"poolImport", pool_import},
    {"poolExport", pool_export},
    {"poolDestroy", pool_destroy},
    {"poolList", pool_list},
    {"replicaCreate", replica_create},
    {"replicaDestroy", replica_destroy},
    {"replicaShare", replica_share},
    {"replicaUnshare", replica_unshare},
    {"replicaResize", replica_resize},
    {"replicaSetEntityId", replica_set_entity_id},
    {"replicaList", replica_list},
    {"bdevCreate", bdev_create},
    {"bdevDestroy", bdev_destroy},
    {"bdevShare", bdev_share},
    {"bdevUnshare", bdev_unshare},
    {"bdevList", bdev_list},
    {"nexusCreate", nexus_create},
    {"nexusDestroy", nexus_destroy},
    {"nexusShutdown", nexus_shutdown},
    {"nexusPublish", nexus_publish},
    {"nexusUnpublish", nexus_unpublish},
    {"nexusAddChild", nexus_add_child},
    {"nexusRemoveChild", nexus_remove_child},
    {"nexusFaultChild", nexus_fault_child},
    {"nexusChildOperation", nexus_child_operation},
    {"nexusAnaState", nexus_ana_state},
    {"nexusSetAnaState", nexus_set_ana_state},
    {"nexusRebuild", nexus_rebuild},
    {"nexusRebuildState", nexus_rebuild_state},
    {"nexusRebuildStats", nexus_rebuild_stats},
    {"nexusRebuildHistory", nexus_rebuild_history},
    {"nexusList", nexus_list},
    {"controllerList", controller_list},
    {"poolStats", pool_stats},
    {"replicaStats", replica_stats},
    {"nexusStats", nexus_stats},
    {"poolLatencies", pool_latencies},
    {"replicaLatencies", replica_latencies},
    {"nexusLatencies", nexus_latencies},
    {"resetStats", reset_stats},
    {"reactorStats", reactor_stats},
};

// The environment is going down (process.exit, a worker's end): reactors must not outlive it.
void on_cleanup(napi_async_cleanup_hook_handle handle, void* argument) {
  static_cast<HostBridge*>(argument)->halt();
  (void)napi_remove_async_cleanup_hook(handle);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* bridge = new HostBridge(env);
  env.SetInstanceData<HostBridge, keep_bridge>(bridge);
  CHECK(napi_add_async_cleanup_hook(env, on_cleanup, bridge, nullptr) == napi_ok);
  for (const auto& [name, function] : kFunctions) {
    exports.Set(name, Napi::Function::New(env, function, name));
  }
  return exports;
}

}  // namespace

NODE_API_MODULE(mayastor, init)

}  // namespace mayastor::addon

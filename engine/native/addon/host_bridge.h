// HostBridge: one engine inside a Node process, and the traffic between its home reactor and the
// JavaScript thread.
// Threads: `home` methods run on the home reactor, `js` methods on the JavaScript thread;
// everything for JavaScript goes through post_to_js(), one thread-safe function that delivers in
// batches. Invariants: JavaScript is never called from a reactor; a call that was accepted is
// settled exactly once; stop() waits for accepted calls before the engine goes.
#pragma once
#include <napi.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "addon/convert.h"
#include "core/task.h"
#include "host/engine.h"
#include "nexus/nexus_info.h"

namespace mayastor::addon {

class HostBridge final : public nexus::NexusInfoStore, public host::EngineEvents {
 public:
  explicit HostBridge(Napi::Env env);
  ~HostBridge() override = default;
  HostBridge(const HostBridge&) = delete;
  HostBridge& operator=(const HostBridge&) = delete;

  // js
  Napi::Value start(Napi::Env env, host::EngineOptions options, Napi::Function on_event);
  Napi::Value stop(Napi::Env env);
  void complete_put(uint64_t id, std::string failure, uint64_t revision);  // "": stored
  void halt();  // environment is going down: stops the threads, touches no JavaScript

  // js: runs `work` on the home reactor and returns a promise of its answer.
  template <typename T>
  Napi::Value call(Napi::Env env, std::function<Task<Result<T>>(host::Engine&)> work) {
    auto deferred = std::make_shared<Napi::Promise::Deferred>(Napi::Promise::Deferred::New(env));
    const Napi::Value promise = deferred->Promise();
    if (!running_) {
      const Error error{ErrorCode::kUnavailable, "Cannot reach the engine: it is not running"};
      deferred->Reject(encode_error(env, error));
      return promise;
    }
    engine_->home().post([this, engine = engine_.get(), work = std::move(work), deferred] {
      in_flight_.add();
      spawn(run<T>(this, engine, work, deferred));
    });
    return promise;
  }

  // home
  Task<Result<uint64_t>> put(std::string key, std::string json,
                             std::optional<uint64_t> replaces) override;
  void on_log(host::LogLevel level, std::string message, host::LogFields fields) override;
  void on_nexus_changed(std::string uuid) override;

 private:
  using JsWork = std::function<void(Napi::Env)>;
  using DeferredPtr = std::shared_ptr<Napi::Promise::Deferred>;
  template <typename T>
  static Task<void> run(HostBridge* bridge, host::Engine* engine,
                        std::function<Task<Result<T>>(host::Engine&)> work, DeferredPtr deferred) {
    Result<T> result = co_await work(*engine);
    bridge->settle(std::move(deferred), std::move(result));
    bridge->in_flight_.done();
  }
  template <typename T>
  void settle(DeferredPtr deferred, Result<T> result) {
    auto held = std::make_shared<Result<T>>(std::move(result));
    post_to_js([deferred = std::move(deferred), held](Napi::Env env) {
      if (!held->ok()) {
        deferred->Reject(encode_error(env, held->error()));
      } else if constexpr (std::is_void_v<T>) {
        deferred->Resolve(env.Undefined());
      } else {
        deferred->Resolve(encode(env, held->value()));
      }
    });
  }
  static Task<void> start_on_home(HostBridge* bridge, DeferredPtr deferred);
  static Task<void> stop_on_home(HostBridge* bridge, DeferredPtr deferred);
  static void drain(napi_env env, napi_value callback, void* context, void* data);
  void post_to_js(JsWork work);
  void send_event(std::function<Napi::Object(Napi::Env)> make);
  void finish_stop(Napi::Env env, const DeferredPtr& deferred, const Result<void>& outcome);

  std::unique_ptr<host::Engine> engine_;  // js
  bool running_ = false;                  // js: calls are taken
  Napi::FunctionReference on_event_;      // js
  napi_threadsafe_function to_js_ = nullptr;

  std::mutex mutex_;            // control traffic only, never I/O
  std::vector<JsWork> outbox_;  // under mutex_

  Latch in_flight_;                                         // home
  uint64_t next_put_id_ = 1;                                // home
  std::map<uint64_t, Completion<Result<uint64_t>>*> puts_;  // home
};

}  // namespace mayastor::addon

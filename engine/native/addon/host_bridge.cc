#include "addon/host_bridge.h"

#include <utility>

namespace mayastor::addon {

HostBridge::HostBridge(Napi::Env env) {
  const auto name = Napi::String::New(env, "mayastor engine");
  const napi_status made = napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1,
                                                           nullptr, nullptr, this, drain, &to_js_);
  CHECK(made == napi_ok);
  // An idle engine does not keep the process alive; start() does.
  CHECK(napi_unref_threadsafe_function(env, to_js_) == napi_ok);
}

void HostBridge::post_to_js(JsWork work) {
  bool first = false;
  {
    const std::lock_guard held(mutex_);
    first = outbox_.empty();
    outbox_.push_back(std::move(work));
  }
  // One wake-up a batch. It fails only when the environment is closing: nobody listens then.
  if (first) (void)napi_call_threadsafe_function(to_js_, nullptr, napi_tsfn_nonblocking);
}

void HostBridge::drain(napi_env env, napi_value, void* context, void*) {
  if (env == nullptr) return;  // closing
  auto* bridge = static_cast<HostBridge*>(context);
  std::vector<JsWork> batch;
  {
    const std::lock_guard held(bridge->mutex_);
    batch.swap(bridge->outbox_);
  }
  for (const auto& work : batch) {
    const Napi::HandleScope scope(env);
    work(env);
  }
}

void HostBridge::send_event(std::function<Napi::Object(Napi::Env)> make) {
  post_to_js([this, make = std::move(make)](Napi::Env env) {
    if (!on_event_.IsEmpty()) on_event_.Call({make(env)});
  });
}

Napi::Value HostBridge::start(Napi::Env env, host::EngineOptions options, Napi::Function on_event) {
  auto deferred = std::make_shared<Napi::Promise::Deferred>(Napi::Promise::Deferred::New(env));
  const Napi::Value promise = deferred->Promise();
  if (engine_) {
    const Error error{ErrorCode::kFailedPrecondition, "Cannot start the engine: it is running"};
    deferred->Reject(encode_error(env, error));
    return promise;
  }
  auto opened = host::Engine::open(std::move(options), this, *this);
  if (!opened.ok()) {
    deferred->Reject(encode_error(env, opened.error()));
    return promise;
  }
  engine_ = opened.take();
  on_event_ = Napi::Persistent(on_event);
  CHECK(napi_ref_threadsafe_function(env, to_js_) == napi_ok);
  engine_->home().post([this, deferred] { spawn(start_on_home(this, deferred)); });
  return promise;
}

Task<void> HostBridge::start_on_home(HostBridge* bridge, DeferredPtr deferred) {
  auto outcome = std::make_shared<Result<void>>(co_await bridge->engine_->start());
  bridge->post_to_js([bridge, deferred, outcome](Napi::Env env) {
    if (outcome->ok()) {
      bridge->running_ = true;
      deferred->Resolve(env.Undefined());
    } else {
      bridge->finish_stop(env, deferred, *outcome);
    }
  });
}

Napi::Value HostBridge::stop(Napi::Env env) {
  auto deferred = std::make_shared<Napi::Promise::Deferred>(Napi::Promise::Deferred::New(env));
  const Napi::Value promise = deferred->Promise();
  if (!running_) {
    deferred->Resolve(env.Undefined());
    return promise;
  }
  running_ = false;
  engine_->home().post([this, deferred] { spawn(stop_on_home(this, deferred)); });
  return promise;
}

Task<void> HostBridge::stop_on_home(HostBridge* bridge, DeferredPtr deferred) {
  co_await bridge->in_flight_;
  auto outcome = std::make_shared<Result<void>>(co_await bridge->engine_->stop());
  bridge->post_to_js(
      [bridge, deferred, outcome](Napi::Env env) { bridge->finish_stop(env, deferred, *outcome); });
}

void HostBridge::finish_stop(Napi::Env env, const DeferredPtr& deferred,
                             const Result<void>& outcome) {
  engine_->close();
  engine_.reset();
  on_event_.Reset();
  CHECK(napi_unref_threadsafe_function(env, to_js_) == napi_ok);
  if (outcome.ok()) {
    deferred->Resolve(env.Undefined());
  } else {
    deferred->Reject(encode_error(env, outcome.error()));
  }
}

void HostBridge::halt() {
  if (!engine_) return;
  running_ = false;
  engine_->close();
  engine_.reset();
}

Task<Result<uint64_t>> HostBridge::put(std::string key, std::string json,
                                       std::optional<uint64_t> replaces) {
  const uint64_t id = next_put_id_++;
  Completion<Result<uint64_t>> stored;
  puts_[id] = &stored;
  send_event([id, key = std::move(key), json = std::move(json), replaces](Napi::Env env) {
    auto event = Napi::Object::New(env);
    event.Set("type", Napi::String::New(env, "put"));
    event.Set("id", Napi::BigInt::New(env, id));
    event.Set("key", Napi::String::New(env, key));
    event.Set("json", Napi::String::New(env, json));
    event.Set("replaces", replaces.has_value()
                              ? Napi::Value(Napi::BigInt::New(env, replaces.value()))
                              : Napi::Value(env.Null()));
    return event;
  });
  Result<uint64_t> outcome = co_await stored;
  co_return outcome;
}

void HostBridge::complete_put(uint64_t id, std::string failure, uint64_t revision) {
  if (!engine_) return;
  engine_->home().post([this, id, failure = std::move(failure), revision] {
    const auto found = puts_.find(id);
    if (found == puts_.end()) return;
    auto* stored = found->second;
    puts_.erase(found);
    if (failure.empty()) {
      stored->set(revision);
    } else {
      stored->set(Error{ErrorCode::kUnavailable, failure});
    }
  });
}

void HostBridge::on_log(host::LogLevel level, std::string message, host::LogFields fields) {
  send_event([level, message = std::move(message), fields = std::move(fields)](Napi::Env env) {
    static constexpr const char* kLevels[] = {"debug", "info", "warn", "error"};
    auto event = Napi::Object::New(env);
    event.Set("type", Napi::String::New(env, "log"));
    event.Set("level", Napi::String::New(env, kLevels[static_cast<size_t>(level)]));
    event.Set("message", Napi::String::New(env, message));
    auto values = Napi::Object::New(env);
    for (const auto& [key, value] : fields) values.Set(key, Napi::String::New(env, value));
    event.Set("fields", values);
    return event;
  });
}

void HostBridge::on_nexus_changed(std::string uuid) {
  send_event([uuid = std::move(uuid)](Napi::Env env) {
    auto event = Napi::Object::New(env);
    event.Set("type", Napi::String::New(env, "nexus-changed"));
    event.Set("uuid", Napi::String::New(env, uuid));
    return event;
  });
}

}  // namespace mayastor::addon

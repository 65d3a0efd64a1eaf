// FaultBdev: each request is wrapped (the wrapper is allocated: this device is for tests), delayed
// or held if asked, forwarded or failed.
#include "bdev/fault_bdev.h"

#include <algorithm>

#include "core/reactor.h"
#include "util/uri.h"

namespace mayastor {

class FaultChannel final : public Channel {
 public:
  FaultChannel(std::shared_ptr<FaultBdev> bdev, std::unique_ptr<Channel> base)
      : bdev_(std::move(bdev)), base_(std::move(base)), reactor_(Reactor::current()) {
    const std::lock_guard lock(bdev_->mutex_);
    bdev_->channels_.push_back(this);
  }
  ~FaultChannel() override {
    CHECK(held_.empty() && in_flight_ == 0);
    const std::lock_guard lock(bdev_->mutex_);
    std::erase(bdev_->channels_, this);
  }

  void submit(Io* io) noexcept override {
    const auto rule = bdev_->decide(*io);
    if (!rule) {
      base_->submit(io);
      return;
    }
    auto* wrapped = new Wrapped(*this, io, *rule);
    ++in_flight_;
    if (rule->hold) {
      held_.push_back(wrapped);
      bdev_->held_count_.fetch_add(1);
    } else if (rule->delay_ns > 0) {
      wrapped->timer.arm_after(rule->delay_ns);
    } else {
      go_on(wrapped);
    }
  }

  void release_held() {
    for (Wrapped* wrapped : std::exchange(held_, {})) {
      bdev_->held_count_.fetch_sub(1);
      go_on(wrapped);
    }
  }
  [[nodiscard]] Reactor& reactor() noexcept { return reactor_; }

 private:
  struct Wrapped {
    Wrapped(FaultChannel& on, Io* its_io, const FaultRule& its_rule)
        : channel(on), io(its_io), rule(its_rule), timer([this] { channel.go_on(this); }) {}
    FaultChannel& channel;
    Io* io;
    FaultRule rule;
    Timer timer;
    Io inner;
  };

  void go_on(Wrapped* wrapped) {
    if (!wrapped->rule.status.ok() && !wrapped->rule.forward_anyway) {
      finish(wrapped, wrapped->rule.status);
      return;
    }
    wrapped->inner = *wrapped->io;
    wrapped->inner.next = nullptr;
    wrapped->inner.owner = wrapped;
    wrapped->inner.done = [](Io* inner, IoStatus status) noexcept {
      auto* self = static_cast<Wrapped*>(inner->owner);
      if (self->rule.corrupt && status.ok() && inner->type == IoType::kRead) {
        auto* first = static_cast<uint8_t*>(inner->iov[0].iov_base);
        *first = static_cast<uint8_t>(~*first);
      }
      self->channel.finish(self, self->rule.status.ok() ? status : self->rule.status);
    };
    base_->submit(&wrapped->inner);
  }

  void finish(Wrapped* wrapped, IoStatus status) {
    Io* io = wrapped->io;
    delete wrapped;
    --in_flight_;
    io->complete(status);
  }

  const std::shared_ptr<FaultBdev> bdev_;
  const std::unique_ptr<Channel> base_;
  Reactor& reactor_;
  std::vector<Wrapped*> held_;
  uint64_t in_flight_ = 0;
};

namespace {

bool changes_medium(IoType type) noexcept {
  return type == IoType::kWrite || type == IoType::kUnmap || type == IoType::kWriteZeroes;
}

bool matches(const FaultRule& rule, const Io& io) noexcept {
  if (rule.writes && !changes_medium(io.type)) return false;
  if (!rule.writes && rule.type && *rule.type != io.type) return false;
  if (io.type == IoType::kFlush) return true;
  const uint64_t end =
      rule.length > UINT64_MAX - rule.offset ? UINT64_MAX : rule.offset + rule.length;
  return io.offset < end && io.offset + io.length > rule.offset;
}

}  // namespace

FaultBdev::FaultBdev(std::string name, std::shared_ptr<Bdev> base, std::string uri)
    : name_(std::move(name)), base_(std::move(base)), uri_(std::move(uri)) {}

FaultBdev::~FaultBdev() {
  CHECK(channels_.empty());
}

std::shared_ptr<FaultBdev> FaultBdev::create(std::string name, std::shared_ptr<Bdev> base,
                                             std::string uri) {
  std::shared_ptr<FaultBdev> bdev(new FaultBdev(std::move(name), std::move(base), std::move(uri)));
  bdev->base_->set_removed_handler([weak = std::weak_ptr<FaultBdev>(bdev)](IoStatus why) {
    if (const auto self = weak.lock()) self->notify_removed(why);
  });
  return bdev;
}

uint64_t FaultBdev::add_rule(FaultRule rule) {
  const std::lock_guard lock(mutex_);
  rules_.push_back(Rule{next_id_, rule});
  return next_id_++;
}

void FaultBdev::remove_rule(uint64_t id) {
  const std::lock_guard lock(mutex_);
  std::erase_if(rules_, [id](const Rule& rule) { return rule.id == id; });
}

void FaultBdev::clear_rules() {
  const std::lock_guard lock(mutex_);
  rules_.clear();
}

void FaultBdev::release_held() {
  std::vector<FaultChannel*> channels;
  {
    const std::lock_guard lock(mutex_);
    channels = channels_;
  }
  for (FaultChannel* channel : channels) {
    if (&channel->reactor() == Reactor::current_or_null()) {
      channel->release_held();
    } else {
      channel->reactor().post([self = shared_from_this(), channel] {
        bool open = false;
        {
          const std::lock_guard lock(self->mutex_);
          const auto& all = self->channels_;
          open = std::find(all.begin(), all.end(), channel) != all.end();
        }
        if (open) channel->release_held();
      });
    }
  }
}

void FaultBdev::remove_device(IoStatus why) {
  FaultRule everything;
  everything.status = why;
  {
    const std::lock_guard lock(mutex_);
    rules_.insert(rules_.begin(), Rule{next_id_++, everything});
  }
  notify_removed(why);
}

std::optional<FaultRule> FaultBdev::decide(const Io& io) {
  const std::lock_guard lock(mutex_);
  for (Rule& entry : rules_) {
    FaultRule& rule = entry.rule;
    if (rule.count == 0 || !matches(rule, io)) continue;
    if (rule.skip > 0) {
      --rule.skip;
      continue;
    }
    if (rule.count != UINT64_MAX) --rule.count;
    hit_count_.fetch_add(1);
    return rule;
  }
  return std::nullopt;
}

namespace {

Task<Result<std::unique_ptr<Channel>>> open_fault_channel(std::shared_ptr<FaultBdev> bdev) {
  auto base = co_await bdev->base().open_channel();
  if (!base.ok()) co_return base.error();
  std::unique_ptr<Channel> channel = std::make_unique<FaultChannel>(bdev, base.take());
  co_return channel;
}

Task<Result<std::shared_ptr<Bdev>>> create_fault_bdev(BdevRegistry* registry, std::string text) {
  const auto parsed = Uri::parse(text);
  if (!parsed.ok()) co_return parsed.error();
  const Uri& uri = parsed.value();
  const auto known = uri.allow_only({"base", "read_us", "write_us"});
  if (!known.ok()) co_return known.error();
  const auto read_us = uri.find_u64("read_us");
  const auto write_us = uri.find_u64("write_us");
  if (!read_us.ok()) co_return read_us.error();
  if (!write_us.ok()) co_return write_us.error();
  const std::string name = uri.name();
  const std::string base_name = uri.find("base").value_or("");
  if (name.empty() || base_name.empty()) {
    co_return Error{ErrorCode::kInvalidArgument,
                    "Cannot create bdev '" + text + "': a name and ?base=<bdev> are needed"};
  }
  const auto base = registry->find(base_name);
  if (!base) {
    co_return Error{ErrorCode::kNotFound,
                    "Cannot create bdev '" + text + "': base bdev '" + base_name + "' not found"};
  }
  const auto bdev = FaultBdev::create(name, base, text);
  if (read_us.value().value_or(0) > 0) {
    FaultRule rule;
    rule.type = IoType::kRead;
    rule.delay_ns = *read_us.value() * 1000;
    bdev->add_rule(rule);
  }
  if (write_us.value().value_or(0) > 0) {
    FaultRule rule;
    rule.writes = true;
    rule.delay_ns = *write_us.value() * 1000;
    bdev->add_rule(rule);
  }
  std::shared_ptr<Bdev> result = bdev;
  co_return result;
}

}  // namespace

Task<Result<std::unique_ptr<Channel>>> FaultBdev::open_channel() {
  return open_fault_channel(shared_from_this());
}

std::shared_ptr<FaultBdev> find_fault_bdev(const BdevRegistry& registry, const std::string& name) {
  const auto bdev = registry.find(name);
  if (!bdev || bdev->product_name() != "Fault injection") return nullptr;
  return std::static_pointer_cast<FaultBdev>(bdev);  // only FaultBdev has that product name
}

BdevRegistry::Factory fault_bdev_factory(BdevRegistry& registry) {
  return [&registry](std::string uri) { return create_fault_bdev(&registry, std::move(uri)); };
}

}  // namespace mayastor

// Shares of what all use: nobody takes more of it than what is then still free for others. A Budget
// is the whole (a reactor's buffers, say); a Share is what one user of it has, below the share of a
// larger one: a connection below its controller, below its host.
// Why no fixed quota: one host alone may have much, and yet a newcomer always finds room: with n
// greedy ones each ends at 1/(n+1) of the whole, and as much stays free. Owner: one reactor.
// Invariants: a share's use is part of its parent's, and a top share's part of its budget's.
#pragma once
#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "util/check.h"

namespace mayastor {

class Share final {
 public:
  explicit Share(std::shared_ptr<Share> parent = nullptr) noexcept : parent_(std::move(parent)) {}
  ~Share() { CHECK(in_use_ == 0); }
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;

  // `free`: of the budget.
  [[nodiscard]] bool may_take(size_t amount, size_t free) const noexcept {
    return room(free) >= amount;
  }
  void take(size_t amount) noexcept {
    for (Share* share = this; share != nullptr; share = share->parent_.get()) {
      share->in_use_ += amount;
    }
  }
  void give_back(size_t amount) noexcept {
    for (Share* share = this; share != nullptr; share = share->parent_.get()) {
      CHECK(share->in_use_ >= amount);
      share->in_use_ -= amount;
    }
  }
  [[nodiscard]] size_t in_use() const noexcept { return in_use_; }

 private:
  // What this share may still grow by: what is free above it, less what it has.
  [[nodiscard]] size_t room(size_t free) const noexcept {
    const size_t above = parent_ == nullptr ? free : parent_->room(free);
    return above > in_use_ ? above - in_use_ : 0;
  }
  const std::shared_ptr<Share> parent_;
  size_t in_use_ = 0;
};

class Budget final {
 public:
  explicit Budget(size_t limit) noexcept : limit_(limit) {}
  ~Budget() { CHECK(in_use_ == 0); }
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;
  // False: it is more than the share's part.
  [[nodiscard]] bool take(Share& share, size_t amount) noexcept {
    if (!share.may_take(amount, limit_ > in_use_ ? limit_ - in_use_ : 0)) return false;
    take_anyway(share, amount);
    return true;
  }
  // For the little without which nothing goes on at all; the others' parts shrink by it.
  void take_anyway(Share& share, size_t amount) noexcept {
    in_use_ += amount;
    share.take(amount);
  }
  void give_back(Share& share, size_t amount) noexcept {
    CHECK(in_use_ >= amount);
    in_use_ -= amount;
    share.give_back(amount);
  }
  [[nodiscard]] size_t in_use() const noexcept { return in_use_; }

 private:
  const size_t limit_;
  size_t in_use_ = 0;
};

// Shares by name, each kept for as long as somebody holds it.
class ShareBook final {
 public:
  [[nodiscard]] std::shared_ptr<Share> find_or_make(const std::string& name,
                                                    std::shared_ptr<Share> parent = nullptr) {
    std::weak_ptr<Share>& known = shares_[name];
    if (auto share = known.lock()) return share;
    auto share = std::make_shared<Share>(std::move(parent));
    known = share;
    if (shares_.size() > sweep_at_) sweep();
    return share;
  }
  [[nodiscard]] size_t size() const noexcept { return shares_.size(); }

 private:
  static constexpr size_t kSweepMin = 64;
  void sweep() {
    std::erase_if(shares_, [](const auto& entry) { return entry.second.expired(); });
    sweep_at_ = std::max(kSweepMin, shares_.size() * 2);
  }
  std::map<std::string, std::weak_ptr<Share>> shares_;
  size_t sweep_at_ = kSweepMin;
};

}  // namespace mayastor

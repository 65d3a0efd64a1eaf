// FileGate: how many operations of one file may occupy threads (the kernel's or ours) at a time.
// Why: a disk that does not answer keeps every thread that it is given; the other disks' operations
// need threads too. Owner: a ring's loop. Invariants: what one file may not start yet waits in the
// order it came; no file has more than `limit` under way.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/disk_op.h"
#include "util/check.h"

namespace mayastor {

class FileGate final {
 public:
  explicit FileGate(uint32_t limit) noexcept : limit_(limit) {}
  // True: start it now. False: it is kept, and leave() gives it out when its turn comes.
  [[nodiscard]] bool enter(DiskOp* op) {
    Entry& entry = entry_of(op->file);
    if (entry.running < limit_) {
      ++entry.running;
      return true;
    }
    op->next = nullptr;
    if (entry.last != nullptr) {
      entry.last->next = op;
    } else {
      entry.first = op;
    }
    entry.last = op;
    return false;
  }
  // One that had entered has ended. Returns the one to start in its place, or nullptr.
  [[nodiscard]] DiskOp* leave(const PosixFile* file) noexcept {
    for (size_t i = 0; i < entries_.size(); ++i) {
      Entry& entry = entries_[i];
      if (entry.file != file) continue;
      if (entry.first != nullptr) {
        DiskOp* next = std::exchange(entry.first, entry.first->next);
        if (entry.first == nullptr) entry.last = nullptr;
        next->next = nullptr;
        return next;
      }
      CHECK(entry.running > 0);
      if (--entry.running == 0) {
        entries_[i] = entries_.back();
        entries_.pop_back();
      }
      return nullptr;
    }
    CHECK(false);
    return nullptr;
  }

 private:
  struct Entry {
    const PosixFile* file = nullptr;
    uint32_t running = 0;
    DiskOp* first = nullptr;  // waiting
    DiskOp* last = nullptr;
  };
  Entry& entry_of(const PosixFile* file) {
    for (Entry& entry : entries_) {
      if (entry.file == file) return entry;
    }
    return entries_.emplace_back(Entry{file, 0, nullptr, nullptr});
  }
  const uint32_t limit_;
  std::vector<Entry> entries_;  // of files that have something under way: a few disks
};

}  // namespace mayastor

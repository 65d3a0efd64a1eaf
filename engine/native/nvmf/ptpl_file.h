// Files of reservations that persist: read whole, replaced whole. Blocking work is done on a thread
// of its own, so that no reactor waits for a disk.
// Invariants: after a change succeeded the new content survives power loss; a crash leaves old or
// new, never a mix.
#pragma once
#include <atomic>
#include <string>

#include "core/task.h"
#include "util/result.h"

namespace mayastor::nvmf::target {

// How a file or a folder is made durable: fsync(). A disk that refuses is hard to come by: tests
// put one here.
inline std::atomic<int (*)(int fd)> ptpl_sync{nullptr};

// Blocking. "" when there is no such file.
[[nodiscard]] Result<std::string> read_file(const std::string& path);
// Writes beside, syncs, renames, syncs the folder; makes missing folders. On an error the file has
// its old content or the new one.
[[nodiscard]] Result<void> replace_file(const std::string& path, const std::string& content);
[[nodiscard]] Result<void> remove_file(const std::string& path);

// On the current reactor, without blocking it.
Task<Result<void>> replace_file_async(std::string path, std::string content);
Task<Result<void>> remove_file_async(std::string path);

}  // namespace mayastor::nvmf::target

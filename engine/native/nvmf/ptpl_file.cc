#include "nvmf/ptpl_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <thread>

#include "core/reactor.h"

namespace mayastor::nvmf::target {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

Error failed(const std::string& what, const std::string& path) {
  return errno_error(errno, "Cannot " + what + " reservation file " + path);
}

class Descriptor final {
 public:
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  const int fd_;
};

int sync_to_disk(int fd) {
  const auto other = ptpl_sync.load(std::memory_order_relaxed);
  return other != nullptr ? other(fd) : ::fsync(fd);
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<void> make_folders(const std::string& folder) {
  for (size_t at = folder.find('/', 1);; at = folder.find('/', at + 1)) {
    const std::string part = folder.substr(0, at);
    if (::mkdir(part.c_str(), 0755) != 0 && errno != EEXIST) {
      return failed("make the folder of", part);
    }
    if (at == std::string::npos) return {};
  }
}

Result<void> sync_folder(const std::string& path) {
  const Descriptor folder(::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || sync_to_disk(folder.get()) != 0)
    return failed("sync the folder of", path);
  return {};
}

Task<Result<void>> run_blocking(std::function<Result<void>()> work) {
  Reactor* const reactor = &Reactor::current();
  Completion<bool> finished;
  Result<void> result;
  std::thread thread([&] {
    result = work();
    reactor->post([&finished] { finished.set(true); });
  });
  co_await finished;
  thread.join();
  co_return result;
}

}  // namespace

Result<std::string> read_file(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    if (errno == ENOENT) return std::string();
    return failed("open", path);
  }
  std::string content;
  char chunk[4096];
  while (true) {
    const ssize_t got = ::read(file.get(), chunk, sizeof(chunk));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed("read", path);
    if (got == 0) return content;
    content.append(chunk, static_cast<size_t>(got));
    if (content.size() > kMaxFileBytes) {
      return Error{ErrorCode::kInvalidArgument,
                   "Cannot read reservation file " + path + ": it is too large"};
    }
  }
}

Result<void> replace_file(const std::string& path, const std::string& content) {
  if (auto made = make_folders(folder_of(path)); !made.ok()) return made;
  const std::string beside = path + ".new";
  {
    const Descriptor file(::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (file.get() < 0) return failed("create", beside);
    size_t written = 0;
    while (written < content.size()) {
      const ssize_t put = ::write(file.get(), content.data() + written, content.size() - written);
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) return failed("write", beside);
      written += static_cast<size_t>(put);
    }
    if (sync_to_disk(file.get()) != 0) return failed("sync", beside);
  }
  if (::rename(beside.c_str(), path.c_str()) != 0) return failed("replace", path);
  return sync_folder(path);
}

Result<void> remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return {};
    return failed("remove", path);
  }
  return sync_folder(path);
}

Task<Result<void>> replace_file_async(std::string path, std::string content) {
  std::function<Result<void>()> work = [&path, &content] { return replace_file(path, content); };
  co_return co_await run_blocking(std::move(work));
}

Task<Result<void>> remove_file_async(std::string path) {
  std::function<Result<void>()> work = [&path] { return remove_file(path); };
  co_return co_await run_blocking(std::move(work));
}

}  // namespace mayastor::nvmf::target

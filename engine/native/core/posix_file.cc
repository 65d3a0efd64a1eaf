// PosixFile: open and find out. Nothing here is on the I/O path.
#include "core/posix_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "util/check.h"

namespace mayastor {
namespace {

// statx(2) with the direct I/O alignment (Linux 6.1), which glibc 2.36 does not know yet. Layout:
// linux/stat.h, struct statx, 256 bytes.
struct StatxWithAlignment {
  uint32_t mask;
  uint8_t others[148];
  uint32_t direct_memory_align;
  uint32_t direct_offset_align;
  uint8_t spare[96];
};
static_assert(sizeof(StatxWithAlignment) == 256);
static_assert(offsetof(StatxWithAlignment, direct_memory_align) == 0x98);
constexpr uint32_t kStatxDirectAlign = 0x2000;

struct DirectAlignment {
  uint32_t memory = 0;
  uint32_t offset = 0;  // 0: no direct I/O
};

std::optional<DirectAlignment> direct_alignment(int fd) noexcept {
  StatxWithAlignment out{};
  if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, kStatxDirectAlign, &out) != 0) return std::nullopt;
  if ((out.mask & kStatxDirectAlign) == 0) return std::nullopt;
  return DirectAlignment{out.direct_memory_align, out.direct_offset_align};
}

std::string read_small_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  char text[128] = {};
  const ssize_t got = ::read(fd, text, sizeof text - 1);
  close(fd);
  std::string out(text, got > 0 ? static_cast<size_t>(got) : 0);
  while (!out.empty() && (out.back() == '\n' || out.back() == ' ')) out.pop_back();
  return out;
}

// The kernel's number of a disk in the order they were plugged in, media changes included; 0 before
// Linux 5.15. linux/fs.h, which may be older than the kernel.
uint64_t disk_sequence(int fd) noexcept {
  constexpr unsigned long kGetDiskSequence = _IOR(0x12, 128, uint64_t);
  uint64_t sequence = 0;
  return ioctl(fd, kGetDiskSequence, &sequence) == 0 ? sequence : 0;
}

// A queue attribute of a disk, or of the disk that a partition is on.
std::string queue_attribute(uint64_t device, const std::string& attribute) {
  const std::string base =
      "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  const std::string own = read_small_file(base + "/queue/" + attribute);
  return own.empty() ? read_small_file(base + "/../queue/" + attribute) : own;
}

// File systems whose direct I/O returns to the submitter at once (linux/magic.h); of all others,
// network and user-space ones above all, that is not known.
bool returns_at_once(long file_system) noexcept {
  switch (static_cast<unsigned long>(file_system)) {
    case 0xEF53:      // ext2, ext3, ext4
    case 0x58465342:  // xfs
    case 0x9123683E:  // btrfs
    case 0xF2F52010:  // f2fs
    case 0x01021994:  // tmpfs
    case 0x794C7630:  // overlayfs
      return true;
    default:
      return false;
  }
}

Error open_error(int error_number, const std::string& path) {
  Error error = errno_error(error_number, "Cannot open " + path);
  if (error_number == EBUSY || error_number == EWOULDBLOCK) {
    error.code = ErrorCode::kFailedPrecondition;
    error.error_number = EBUSY;
    error.message =
        "Cannot open " + path + ": in use (mounted, or opened exclusively by another user)";
  }
  return error;
}

}  // namespace

PosixFile::~PosixFile() {
  close(fd_);
}

Result<std::shared_ptr<PosixFile>> PosixFile::open(const std::string& path,
                                                   const FileOptions& options) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return open_error(errno, path);
  if (S_ISDIR(info.st_mode)) return open_error(EISDIR, path);
  if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
    return Error{ErrorCode::kInvalidArgument,
                 "Cannot open " + path + ": neither a regular file nor a block device", ENOTBLK};
  }
  int flags = O_CLOEXEC | (options.read_only ? O_RDONLY : O_RDWR);
  if (options.exclusive && S_ISBLK(info.st_mode)) flags |= O_EXCL;
  const int fd = ::open(path.c_str(), flags);
  if (fd < 0) return open_error(errno, path);
  std::shared_ptr<PosixFile> file(new PosixFile(fd));
  if (options.exclusive && S_ISREG(info.st_mode) && flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return open_error(errno, path);
  }
  const auto inspected = file->inspect(path);
  if (!inspected.ok()) return inspected.error();
  if (options.direct) {
    // Set afterwards, so that a file system without O_DIRECT only costs the bypass.
    const int current = fcntl(fd, F_GETFL);
    const auto alignment = direct_alignment(fd);
    const bool wanted = !alignment || alignment->offset > 0;
    if (wanted && fcntl(fd, F_SETFL, current | O_DIRECT) == 0) {
      file->direct_ = true;
      if (alignment) {
        const uint32_t unit = std::max(alignment->offset, alignment->memory);
        file->logical_ = std::max(file->logical_, unit);
      }
      if (file->logical_ > 4096 || 4096 % file->logical_ != 0) {  // odder than our block sizes
        CHECK(fcntl(fd, F_SETFL, current) == 0);
        file->direct_ = false;
        file->logical_ = 512;
      }
      file->physical_ = std::max(file->physical_, file->logical_);
    }
  }
  if (!file->direct_) file->volatile_cache_ = true;  // the page cache itself
  return file;
}

Result<void> PosixFile::inspect(const std::string& path) {
  struct stat info {};
  if (fstat(fd_, &info) != 0) return open_error(errno, path);
  is_block_device_ = S_ISBLK(info.st_mode);
  if (is_block_device_) return inspect_block_device(path, info.st_rdev);
  size_bytes_ = static_cast<uint64_t>(info.st_size);
  medium_ =
      Uuid::from_name("file " + std::to_string(info.st_dev) + " " + std::to_string(info.st_ino));
  inspect_regular_file();
  return {};
}

Result<void> PosixFile::inspect_block_device(const std::string& path, uint64_t device) {
  int logical = 0;
  unsigned int physical = 0;
  if (ioctl(fd_, BLKGETSIZE64, &size_bytes_) != 0 || ioctl(fd_, BLKSSZGET, &logical) != 0 ||
      ioctl(fd_, BLKPBSZGET, &physical) != 0) {
    return open_error(errno, path);
  }
  medium_ =
      Uuid::from_name("disk " + std::to_string(device) + " " + std::to_string(disk_sequence(fd_)));
  logical_ = static_cast<uint32_t>(logical);
  physical_ = std::max(physical, logical_);
  const std::string discard = queue_attribute(device, "discard_max_bytes");
  const std::string zeroes = queue_attribute(device, "write_zeroes_max_bytes");
  // Punching a hole into a device writes zeroes without data, or fails: it needs both to be cheap.
  discard_ = !discard.empty() && discard != "0" && !zeroes.empty() && zeroes != "0";
  volatile_cache_ = queue_attribute(device, "write_cache") != "write through";
  return {};
}

void PosixFile::inspect_regular_file() noexcept {
  struct statfs system {};
  may_block_ = fstatfs(fd_, &system) != 0 || !returns_at_once(system.f_type);
  // Beyond the end nothing is there to lose, and KEEP_SIZE leaves the size alone.
  const off_t end = static_cast<off_t>((size_bytes_ + 4095) / 4096 * 4096);
  discard_ = fallocate(fd_, punch_hole_mode(), end, 4096) == 0;
}

bool PosixFile::medium_gone() const noexcept {
  if (!is_block_device_) return false;
  uint64_t bytes_now = 0;
  return ioctl(fd_, BLKGETSIZE64, &bytes_now) != 0 || bytes_now < size_bytes_;
}

int punch_hole_mode() noexcept {
  return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
}
int zero_range_mode() noexcept {
  return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
}

uint8_t* zero_bytes() noexcept {
  static uint8_t* const memory = [] {
    void* mapped =
        mmap(nullptr, kZeroBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(mapped != MAP_FAILED);
    return static_cast<uint8_t*>(mapped);
  }();
  return memory;
}

}  // namespace mayastor

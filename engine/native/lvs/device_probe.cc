// Signatures: each at the place its own specification or header file gives. See device_probe.h.
#include "lvs/device_probe.h"

#include <cstring>
#include <string_view>

namespace mayastor {
namespace {

using std::string_view_literals::operator""sv;

struct Signature {
  uint64_t offset;
  std::string_view bytes;
  const char* what;
};

constexpr Signature kHeadSignatures[] = {
    {0, "SPDKBLOB"sv, "a pool or another blobstore"},  // the last guard: import looks first
    {0, "LUKS\xba\xbe"sv, "a LUKS encrypted volume"},
    {0x4000, "SKUL\xba\xbe"sv, "a LUKS encrypted volume"},
    {0, "XFSB"sv, "an XFS file system"},
    {0x10040, "_BHRfS_M"sv, "a btrfs file system"},
    {0, "LABELONE"sv, "an LVM2 physical volume"},
    {512, "LABELONE"sv, "an LVM2 physical volume"},
    {1024, "LABELONE"sv, "an LVM2 physical volume"},
    {1536, "LABELONE"sv, "an LVM2 physical volume"},
    {4086, "SWAPSPACE2"sv, "swap space"},
    {4086, "SWAP-SPACE"sv, "swap space"},
    {16374, "SWAPSPACE2"sv, "swap space"},  // 16 KiB and 64 KiB pages
    {65526, "SWAPSPACE2"sv, "swap space"},
    {0, "\xfc\x4e\x2b\xa9"sv, "a Linux md raid member"},     // version 1.1
    {4096, "\xfc\x4e\x2b\xa9"sv, "a Linux md raid member"},  // version 1.2
    {512, "EFI PART"sv, "a GPT partition table"},
    {4096, "EFI PART"sv, "a GPT partition table"},
    {1024, "\x10\x20\xf5\xf2"sv, "an F2FS file system"},
    {3, "NTFS    "sv, "an NTFS file system"},
    {3, "EXFAT   "sv, "an exFAT file system"},
    {54, "FAT12"sv, "a FAT file system"},
    {54, "FAT16"sv, "a FAT file system"},
    {82, "FAT32"sv, "a FAT file system"},
    {32769, "CD001"sv, "an ISO 9660 file system"},
    {0, "hsqs"sv, "a squashfs image"},
    {0, "QFI\xfb"sv, "a QCOW image"},
    {4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"sv,
     "a bcache device"},
    {0, "bluestore block device"sv, "a Ceph OSD"},
    {0x10034, "ReIsEr"sv, "a ReiserFS file system"},
    {0x8000, "JFS1"sv, "a JFS file system"},
    {0x40, "\x7f\x10\xda\xbe"sv, "a VirtualBox disk image"},
    {4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"sv,
     "a bcachefs file system"},
    {1024, "OCFSV2"sv, "an OCFS2 file system"},  // in block 2 of 512 to 4096 bytes
    {2048, "OCFSV2"sv, "an OCFS2 file system"},
    {4096, "OCFSV2"sv, "an OCFS2 file system"},
    {8192, "OCFSV2"sv, "an OCFS2 file system"},
    {0x10000, "\x01\x16\x19\x70"sv, "a GFS2 file system"},
    {528, "!Stra0tis\x86\xff\x02^\x41rh"sv, "a Stratis device"},
    {0, "integrt\0"sv, "a dm-integrity device"},
    {32769, "BEA01"sv, "a UDF file system"},
    {1024, "H+\x00\x04"sv, "an HFS+ file system"},
    {1024, "HX\x00\x05"sv, "an HFS+ file system"},
    {32, "NXSB"sv, "an APFS container"},
    {3, "-FVE-FS-"sv, "a BitLocker volume"},
    {1024, "\xe2\xe1\xf5\xe0"sv, "an EROFS file system"},
    {32, "ORCLDISK"sv, "an Oracle ASM disk"},
    {0, "vhdxfile"sv, "a VHDX disk image"},
    {0, "KDMV"sv, "a VMDK disk image"},
    {0, "# Disk DescriptorFile"sv, "a VMDK disk image"},
};

bool at(std::span<const uint8_t> bytes, uint64_t offset, std::string_view wanted) {
  return offset + wanted.size() <= bytes.size() &&
         std::memcmp(bytes.data() + offset, wanted.data(), wanted.size()) == 0;
}

uint32_t load32(std::span<const uint8_t> bytes, uint64_t offset) {
  uint32_t value = 0;
  if (offset + sizeof value <= bytes.size()) std::memcpy(&value, &bytes[offset], sizeof value);
  return value;
}

// ext2, 3 and 4: magic at 56 of the super block at 1024; features tell them apart.
std::optional<std::string> ext(std::span<const uint8_t> head) {
  if (!at(head, 1024 + 56, "\x53\xef"sv)) return std::nullopt;
  constexpr uint32_t kJournal = 0x4, kExtents = 0x40;
  if ((load32(head, 1024 + 96) & kExtents) != 0) return "an ext4 file system";
  if ((load32(head, 1024 + 92) & kJournal) != 0) return "an ext3 file system";
  return "an ext2 file system";
}

// NILFS2: magic 3434h at 6 of the super block at 1024; two bytes are few, so its revision (2)
// counts too.
bool has_nilfs2(std::span<const uint8_t> head) {
  return at(head, 1024, "\x02\x00\x00\x00"sv) && at(head, 1024 + 6, "\x34\x34"sv);
}

// MBR: 55 AA and at least one partition with a type and a length.
bool has_mbr_partitions(std::span<const uint8_t> head) {
  if (!at(head, 510, "\x55\xaa"sv)) return false;
  for (uint64_t entry = 446; entry < 510; entry += 16) {
    if (head[entry + 4] != 0 && load32(head, entry + 12) != 0) return true;
  }
  return false;
}

// ZFS: 256 KiB labels, two at the front and two at the back; uberblocks in their second half.
bool has_zfs_label(std::span<const uint8_t> bytes) {
  constexpr uint64_t kLabel = 256u << 10, kUberblocks = 128u << 10, kStep = 1024;
  for (uint64_t label = 0; label + kLabel <= bytes.size(); label += kLabel) {
    for (uint64_t i = label + kUberblocks; i < label + kLabel; i += kStep) {
      if (at(bytes, i, "\x0c\xb1\xba\x00\x00\x00\x00\x00"sv)) return true;
      if (at(bytes, i, "\x00\x00\x00\x00\x00\xba\xb1\x0c"sv)) return true;  // big-endian
    }
  }
  return false;
}

std::optional<std::string> in_tail(std::span<const uint8_t> tail, uint64_t device_bytes) {
  const uint64_t start = device_bytes - tail.size();
  for (const uint64_t block : {512u, 4096u}) {
    if (tail.size() >= block && at(tail, tail.size() - block, "EFI PART"sv)) {
      return "a backup GPT partition table";
    }
  }
  // md raid 0.90: 64 KiB before the end, rounded down to 64 KiB; 1.0: 8 KiB before, to 4 KiB.
  const uint64_t old_place = (device_bytes & ~uint64_t{0xFFFF});
  if (old_place >= 0x10000 && old_place - 0x10000 >= start &&
      at(tail, old_place - 0x10000 - start, "\xfc\x4e\x2b\xa9"sv)) {
    return "a Linux md raid member";
  }
  const uint64_t new_place = ((device_bytes / 512 - 16) & ~uint64_t{7}) * 512;
  if (device_bytes >= 8192 && new_place >= start &&
      at(tail, new_place - start, "\xfc\x4e\x2b\xa9"sv)) {
    return "a Linux md raid member";
  }
  // DRBD: meta-data in the last whole 4 KiB; magic at 60 of it (versions 8.0 to 9).
  const uint64_t drbd = (device_bytes & ~uint64_t{4095}) - 4096;
  if (device_bytes >= 4096 && drbd >= start && at(tail, drbd - start + 60, "\x83\x74\x02"sv)) {
    const uint8_t version = tail[drbd - start + 63];
    if (version >= 0x6a && version <= 0x6d) return "a DRBD device";
  }
  if (has_zfs_label(tail)) return "a ZFS pool member";
  return std::nullopt;
}

}  // namespace

std::optional<std::string> recognise_contents(std::span<const uint8_t> head,
                                              std::span<const uint8_t> tail,
                                              uint64_t device_bytes) {
  if (auto found = ext(head)) return found;
  for (const Signature& signature : kHeadSignatures) {
    if (at(head, signature.offset, signature.bytes)) return signature.what;
  }
  if (has_nilfs2(head)) return "a NILFS2 file system";
  if (has_zfs_label(head)) return "a ZFS pool member";
  if (has_mbr_partitions(head)) return "an MBR partition table";
  return in_tail(tail, device_bytes);
}

}  // namespace mayastor

//! Every mark by which a format says "this is mine", as data.
//!
//! Offsets are those of libblkid's probers and of the formats' own headers. Where a format keeps copies of its mark, each
//! copy is here: a disk of which only the first sectors were wiped still belongs to somebody. What this table does not know
//! is caught all the same, because a blank disk is one whose checked regions hold nothing at all; the table exists so that a
//! refusal can say *what* is there, and to look where those regions do not reach.

use super::At::{self, Aligned, End, Start};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// One format's mark, and the places where it may stand.
pub(super) struct Signature {
    pub(super) name: &'static str,
    pub(super) magic: &'static [u8],
    pub(super) at: &'static [At],
}

const fn sig(name: &'static str, magic: &'static [u8], at: &'static [At]) -> Signature {
    Signature { name, magic, at }
}

/// The name under which a superblock of ext2, ext3 or ext4 is found.
pub const EXT: &str = "ext2/3/4 filesystem";
/// The name under which a copy of such a superblock is found.
pub const EXT_BACKUP: &str = "ext2/3/4 backup superblock";

/// A swap header ends its page with the magic, and the page is as large as that of the machine that made it.
const SWAP: &[At] = &[
    Start(4 * KIB - 10),
    Start(8 * KIB - 10),
    Start(16 * KIB - 10),
    Start(32 * KIB - 10),
    Start(64 * KIB - 10),
];

/// ZFS keeps four labels of 256 KiB, two at each end; 16 KiB into each starts an XDR name-value list.
const ZFS: &[At] = &[
    Start(16 * KIB),
    Start(272 * KIB),
    Aligned { back: 512 * KIB, align: 256 * KIB, plus: 16 * KIB },
    Aligned { back: 256 * KIB, align: 256 * KIB, plus: 16 * KIB },
];

/// GPT headers stand in the second and in the last sector, whatever the size of a sector is.
const GPT_PRIMARY: &[At] = &[Start(512), Start(KIB), Start(2 * KIB), Start(4 * KIB)];
const GPT_BACKUP: &[At] = &[End(512), End(KIB), End(2 * KIB), End(4 * KIB)];

/// A LUKS2 header has a copy behind it; where depends on the size of the metadata area (the format allows these nine).
const LUKS2_COPY: &[At] = &[
    Start(16 * KIB),
    Start(32 * KIB),
    Start(64 * KIB),
    Start(128 * KIB),
    Start(256 * KIB),
    Start(512 * KIB),
    Start(MIB),
    Start(2 * MIB),
    Start(4 * MIB),
];

/// The first backup superblock stands at the start of block group 1: 8192 blocks of 1 KiB (and the boot block before them),
/// 16384 of 2 KiB or 32768 of 4 KiB further on. The magic lies 56 bytes into a superblock.
const EXT_BACKUP_PLACES: &[At] =
    &[Start(8193 * KIB + 56), Start(32 * MIB + 56), Start(128 * MIB + 56)];

/// The more specific comes first, because the first that is found is the one that is named first: a FAT boot sector ends
/// with the mark of an MBR too.
pub(super) const TABLE: &[Signature] = &[
    // Containers of other block devices.
    sig("LUKS header", b"LUKS\xba\xbe", &[Start(0)]),
    sig("LUKS2 secondary header", b"SKUL\xba\xbe", LUKS2_COPY),
    sig("LVM2 physical volume", b"LABELONE", &[Start(0), Start(512), Start(1024), Start(1536)]),
    sig("LVM1 physical volume", b"HM\x01\x00", &[Start(0)]),
    sig(
        "MD RAID superblock 1.0",
        b"\xfc\x4e\x2b\xa9",
        &[Aligned { back: 8 * KIB, align: 4 * KIB, plus: 0 }],
    ),
    sig("MD RAID superblock 1.1", b"\xfc\x4e\x2b\xa9", &[Start(0)]),
    sig("MD RAID superblock 1.2", b"\xfc\x4e\x2b\xa9", &[Start(4 * KIB)]),
    sig(
        "MD RAID superblock 0.90",
        b"\xfc\x4e\x2b\xa9",
        &[Aligned { back: 64 * KIB, align: 64 * KIB, plus: 0 }],
    ),
    sig(
        "MD RAID superblock 0.90 (big-endian)",
        b"\xa9\x2b\x4e\xfc",
        &[Aligned { back: 64 * KIB, align: 64 * KIB, plus: 0 }],
    ),
    sig("Intel RAID metadata", b"Intel Raid ISM Cfg Sig. ", &[End(1024), End(8 * KIB)]),
    sig("DDF RAID metadata", b"\xde\x11\xde\x11", &[End(512), End(257 * 512), End(4 * KIB)]),
    sig("NVIDIA RAID metadata", b"NVIDIA", &[End(1024)]),
    sig("DRBD metadata", b"\x83\x74\x02\x6b", &[End(4 * KIB - 60)]),
    sig("DRBD metadata", b"\x83\x74\x02\x6d", &[End(4 * KIB - 60)]),
    sig("Ceph BlueStore", b"bluestore block device\n", &[Start(0)]),
    sig("Stratis metadata", b"!Stra0tis\x86\xff\x02^\x41rh", &[Start(512), Start(9 * 512)]),
    sig("VDO metadata", b"dmvdo001", &[Start(0)]),
    sig("dm-integrity superblock", b"integrt\0", &[Start(0)]),
    sig("dm-verity superblock", b"verity\0\0", &[Start(0)]),
    sig("device-mapper snapshot", b"SnAp", &[Start(0)]),
    sig(
        "bcache superblock",
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
        &[Start(4 * KIB + 24)],
    ),
    sig("BitLocker volume", b"-FVE-FS-", &[Start(3)]),
    sig("Oracle ASM disk", b"ORCLDISK", &[Start(32)]),
    sig("VMFS volume", b"\x0d\xd0\x01\xc0", &[Start(MIB)]),
    // Filesystems.
    sig(EXT, b"\x53\xef", &[Start(KIB + 56)]),
    sig(EXT_BACKUP, b"\x53\xef", EXT_BACKUP_PLACES),
    sig("XFS filesystem", b"XFSB", &[Start(0)]),
    sig(
        "btrfs filesystem",
        b"_BHRfS_M",
        &[Start(64 * KIB + 64), Start(64 * MIB + 64), Start(256 * GIB + 64)],
    ),
    sig("F2FS filesystem", b"\x10\x20\xf5\xf2", &[Start(KIB), Start(5 * KIB)]),
    sig(
        "bcachefs filesystem",
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
        &[Start(4 * KIB + 24)],
    ),
    sig("ZFS label", b"\x01\x01\0\0\0\0\0\0\0\0\0\x01", ZFS),
    sig("ZFS label (big-endian)", b"\x01\0\0\0\0\0\0\0\0\0\0\x01", ZFS),
    sig("exFAT filesystem", b"EXFAT   ", &[Start(3)]),
    sig("NTFS filesystem", b"NTFS    ", &[Start(3), End(509)]),
    sig("ReFS filesystem", b"\0\0\0ReFS\0", &[Start(0)]),
    sig("FAT filesystem", b"FAT32   ", &[Start(82)]),
    sig("FAT filesystem", b"FAT16   ", &[Start(54)]),
    sig("FAT filesystem", b"FAT12   ", &[Start(54)]),
    sig("FAT filesystem", b"FAT     ", &[Start(54)]),
    sig("squashfs image", b"hsqs", &[Start(0)]),
    sig("EROFS image", b"\xe2\xe1\xf5\xe0", &[Start(KIB)]),
    sig("cramfs image", b"\x45\x3d\xcd\x28", &[Start(0), Start(512)]),
    sig("romfs image", b"-rom1fs-", &[Start(0)]),
    sig("ISO 9660 image", b"CD001", &[Start(32 * KIB + 1)]),
    sig(
        "UDF filesystem",
        b"BEA01",
        &[Start(32 * KIB + 1), Start(34 * KIB + 1), Start(36 * KIB + 1)],
    ),
    sig("UDF filesystem", b"NSR02", &[Start(34 * KIB + 1), Start(36 * KIB + 1)]),
    sig("UDF filesystem", b"NSR03", &[Start(34 * KIB + 1), Start(36 * KIB + 1)]),
    sig(
        "ReiserFS filesystem",
        b"ReIsEr",
        &[Start(64 * KIB + 52), Start(8 * KIB + 52), Start(64 * KIB)],
    ),
    sig("JFS filesystem", b"JFS1", &[Start(32 * KIB)]),
    sig(
        "NILFS2 filesystem",
        b"\x34\x34",
        &[Start(KIB + 6), Aligned { back: 4 * KIB, align: 4 * KIB, plus: 6 }],
    ),
    sig("GFS2 filesystem", b"\x01\x16\x19\x70", &[Start(64 * KIB)]),
    sig(
        "OCFS2 filesystem",
        b"OCFSV2",
        &[Start(KIB), Start(2 * KIB), Start(4 * KIB), Start(8 * KIB)],
    ),
    sig(
        "UFS filesystem",
        b"\x54\x19\x01\x00",
        &[Start(1372), Start(8 * KIB + 1372), Start(64 * KIB + 1372), Start(256 * KIB + 1372)],
    ),
    sig(
        "UFS2 filesystem",
        b"\x19\x01\x54\x19",
        &[Start(1372), Start(8 * KIB + 1372), Start(64 * KIB + 1372), Start(256 * KIB + 1372)],
    ),
    sig("HFS+ filesystem", b"H+", &[Start(KIB), End(KIB)]),
    sig("HFSX filesystem", b"HX", &[Start(KIB), End(KIB)]),
    sig("HFS filesystem", b"BD", &[Start(KIB)]),
    sig("APFS container", b"NXSB", &[Start(32)]),
    sig("BeFS filesystem", b"BFS1", &[Start(32), Start(544)]),
    sig("UBI volume", b"UBI#", &[Start(0)]),
    sig("zonefs filesystem", b"SFOZ", &[Start(0)]),
    sig("swap area", b"SWAPSPACE2", SWAP),
    sig("swap area", b"SWAP-SPACE", SWAP),
    sig("hibernation image", b"S1SUSPEND", SWAP),
    sig("hibernation image", b"S2SUSPEND", SWAP),
    sig("hibernation image", b"ULSUSPEND", SWAP),
    sig("hibernation image", b"LINHIB0001", SWAP),
    // Partition tables.
    sig("GPT partition table", b"EFI PART", GPT_PRIMARY),
    sig("GPT backup partition table", b"EFI PART", GPT_BACKUP),
    sig("Apple partition map", b"PM\0\0", &[Start(512), Start(2 * KIB), Start(4 * KIB)]),
    sig("Apple driver descriptor", b"ER", &[Start(0)]),
    sig("BSD disklabel", b"\x57\x45\x56\x82", &[Start(0), Start(64), Start(512), Start(4 * KIB)]),
    sig("SGI disk label", b"\x0b\xe5\xa9\x41", &[Start(0)]),
    sig("Sun disk label", b"\xda\xbe", &[Start(508)]),
    sig("Amiga rigid disk block", b"RDSK", &[Start(0), Start(512), Start(KIB), Start(1536)]),
    sig("Windows dynamic disk", b"PRIVHEAD", &[Start(6 * 512), End(512)]),
    sig("MBR partition table", b"\x55\xaa", &[Start(510)]),
];

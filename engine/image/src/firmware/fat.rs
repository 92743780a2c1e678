//! The boot volume of a disk: a FAT filesystem, which every firmware and every loader reads.
//!
//! Written once, from files that are known: each lies in one run of clusters, behind the directories. That is less code than
//! what it takes to drive a general FAT library, and fatfs 0.3, the one in use, writes `.` and `..` with long names, which
//! fsck.fat and some firmware take for damage. Field names are those of Microsoft's FAT specification (fatgen103).

use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};

use super::BootFile;

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
const ENTRY: usize = 32;

/// UEFI wants FAT32 on a disk, and a volume with fewer clusters is FAT16 to those who count; the line is at 65,525, and the
/// specification asks to stay away from it.
const FEWEST_CLUSTERS: u64 = 66_000;
/// With that many clusters of 2 KiB, which loaders read several times as fast as ones of 512 bytes.
const SMALLEST: u64 = 136 * MIB;
/// What the tables take, and some room for a person to add a file.
const SLACK: u64 = 8 * MIB;
/// FAT16 with clusters of one sector.
const SMALL: u64 = 4 * MIB;

const ATTR_VOLUME_ID: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_ARCHIVE: u8 = 0x20;
const ATTR_LONG_NAME: u8 = 0x0f;
const LABEL: [u8; 11] = *b"KEEL       ";
/// The first of January 1980, where FAT's time begins: no clock is read.
const DATE: u16 = 1 << 5 | 1;

/// Which FAT it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fat16,
    Fat32,
}

/// A volume, laid out and not yet written.
#[derive(Debug)]
pub(super) struct Volume<'a> {
    kind: Kind,
    sectors: u64,
    serial: u32,
    cluster_sectors: u64,
    /// Of each of the two tables.
    fat_sectors: u64,
    files: &'a [BootFile<'a>],
    dirs: Vec<Directory>,
    /// First cluster and count, of each directory and then of each file.
    runs: Vec<Run>,
}

/// A run of clusters; an empty file has none, and its first is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Run {
    first: u32,
    count: u32,
}

/// What is in a directory, by name; the root comes first, a parent before its children.
#[derive(Debug, Default)]
struct Directory {
    parent: usize,
    children: BTreeMap<String, Child>,
}

/// An index into the directories or into the files.
#[derive(Debug, Clone, Copy)]
enum Child {
    Directory(usize),
    File(usize),
}

impl<'a> Volume<'a> {
    /// The EFI system partition of a disk: FAT32, as large as the files ask.
    pub(super) fn esp(files: &'a [BootFile<'a>], serial: u32) -> io::Result<Self> {
        let content: u64 = files.iter().map(|file| file.bytes.len() as u64).sum();
        let size = (content + content / 50 + SLACK).next_multiple_of(MIB).max(SMALLEST);
        let enough = |sectors: &u64| size / (sectors * SECTOR) >= FEWEST_CLUSTERS;
        let cluster_sectors = [64, 32, 16, 8, 4].into_iter().find(enough).unwrap_or(1);
        Self::lay_out(Kind::Fat32, size, cluster_sectors, serial, files)
    }

    /// A volume without a partition, as UEFI boots it from a CD: FAT16, for a loader of a few MiB.
    pub(super) fn small(files: &'a [BootFile<'a>], serial: u32) -> io::Result<Self> {
        Self::lay_out(Kind::Fat16, SMALL, 1, serial, files)
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.sectors * SECTOR
    }

    fn lay_out(
        kind: Kind,
        size: u64,
        cluster_sectors: u64,
        serial: u32,
        files: &'a [BootFile<'a>],
    ) -> io::Result<Self> {
        let sectors = size / SECTOR;
        // For the clusters that there would be without the tables: a few entries too many do no harm.
        let entries = sectors / cluster_sectors + 2;
        let fat_sectors = (entries * kind.entry_size()).div_ceil(SECTOR);
        let dirs = tree(files);
        let mut volume = Self {
            kind,
            sectors,
            serial,
            cluster_sectors,
            fat_sectors,
            files,
            dirs,
            runs: Vec::new(),
        };

        let directories = volume.dirs.iter().enumerate().map(|(i, dir)| match (i, kind) {
            // FAT16 has a place of its own for the root.
            (0, Kind::Fat16) => 0,
            _ => entry_count(dir, i == 0) * ENTRY as u64,
        });
        let sizes = directories.chain(files.iter().map(|file| file.bytes.len() as u64));
        let mut next = 2;
        for bytes in sizes.collect::<Vec<_>>() {
            let count = bytes.div_ceil(volume.cluster_size());
            let count = u32::try_from(count).map_err(io::Error::other)?;
            let first = if count == 0 { 0 } else { next };
            volume.runs.push(Run { first, count });
            next += count;
        }
        if u64::from(next - 2) > volume.clusters() {
            return Err(io::Error::other(format!("{size} bytes do not hold the boot files")));
        }
        Ok(volume)
    }

    fn cluster_size(&self) -> u64 {
        self.cluster_sectors * SECTOR
    }

    /// The sector of the first cluster.
    fn data(&self) -> u64 {
        self.kind.reserved() + 2 * self.fat_sectors + self.kind.root_sectors()
    }

    fn clusters(&self) -> u64 {
        (self.sectors - self.data()) / self.cluster_sectors
    }

    /// Where a cluster lies in the volume, in bytes.
    fn cluster(&self, number: u32) -> u64 {
        self.data() * SECTOR + u64::from(number - 2) * self.cluster_size()
    }

    fn file_run(&self, file: usize) -> Run {
        self.runs[self.dirs.len() + file]
    }

    /// Writes the volume at this offset of a file that holds zeros there.
    pub(super) fn write(&self, out: &mut (impl Write + Seek), at: u64) -> io::Result<()> {
        let mut put = |offset: u64, bytes: &[u8]| {
            out.seek(SeekFrom::Start(at + offset))?;
            out.write_all(bytes)
        };
        let boot = self.boot_sector(at / SECTOR);
        put(0, &boot)?;
        if self.kind == Kind::Fat32 {
            let info = self.fs_info();
            put(SECTOR, &info)?;
            put(6 * SECTOR, &boot)?;
            put(7 * SECTOR, &info)?;
        }
        let table = self.table();
        for copy in 0..2 {
            put((self.kind.reserved() + copy * self.fat_sectors) * SECTOR, &table)?;
        }
        for (i, dir) in self.dirs.iter().enumerate() {
            let offset = match self.runs[i].first {
                0 => (self.kind.reserved() + 2 * self.fat_sectors) * SECTOR,
                first => self.cluster(first),
            };
            put(offset, &self.entries(i, dir))?;
        }
        for (i, file) in self.files.iter().enumerate().filter(|(_, file)| !file.bytes.is_empty()) {
            put(self.cluster(self.file_run(i).first), &file.bytes)?;
        }
        Ok(())
    }

    /// `hidden` is how many sectors of the disk lie before the volume.
    fn boot_sector(&self, hidden: u64) -> [u8; 512] {
        let mut sector = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        let word = |value: u64| u32::try_from(value).unwrap_or_default().to_le_bytes();
        let half = |value: u64| u16::try_from(value).unwrap_or_default().to_le_bytes();
        let few = u16::try_from(self.sectors).is_ok();
        put(3, b"MSWIN4.1"); // BS_OEMName: what the specification says to write
        put(11, &half(SECTOR)); // BPB_BytsPerSec
        put(13, &half(self.cluster_sectors)[..1]); // BPB_SecPerClus
        put(14, &half(self.kind.reserved())); // BPB_RsvdSecCnt
        put(16, &[2]); // BPB_NumFATs
        put(17, &half(self.kind.root_sectors() * SECTOR / ENTRY as u64)); // BPB_RootEntCnt
        put(19, &half(if few { self.sectors } else { 0 })); // BPB_TotSec16
        put(21, &[0xf8]); // BPB_Media: fixed
        put(24, &half(63)); // BPB_SecPerTrk
        put(26, &half(255)); // BPB_NumHeads
        put(28, &word(hidden)); // BPB_HiddSec
        put(32, &word(if few { 0 } else { self.sectors })); // BPB_TotSec32
        let extended = match self.kind {
            Kind::Fat16 => {
                put(0, &[0xeb, 0x3c, 0x90]); // BS_jmpBoot
                put(22, &half(self.fat_sectors)); // BPB_FATSz16
                36
            }
            Kind::Fat32 => {
                put(0, &[0xeb, 0x58, 0x90]);
                put(36, &word(self.fat_sectors)); // BPB_FATSz32
                put(44, &word(2)); // BPB_RootClus
                put(48, &half(1)); // BPB_FSInfo
                put(50, &half(6)); // BPB_BkBootSec
                64
            }
        };
        put(extended, &[0x80, 0, 0x29]); // BS_DrvNum, BS_BootSig
        put(extended + 3, &self.serial.to_le_bytes()); // BS_VolID
        put(extended + 7, &LABEL); // BS_VolLab
        put(extended + 18, if self.kind == Kind::Fat16 { b"FAT16   " } else { b"FAT32   " });
        put(510, &[0x55, 0xaa]);
        sector
    }

    fn fs_info(&self) -> [u8; 512] {
        let used: u32 = self.runs.iter().map(|run| run.count).sum();
        let free = u32::try_from(self.clusters()).unwrap_or_default() - used;
        let mut sector = [0; 512];
        let mut put =
            |at: usize, value: u32| sector[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0, 0x4161_5252); // FSI_LeadSig
        put(484, 0x6141_7272); // FSI_StrucSig
        put(488, free); // FSI_Free_Count
        put(492, 2 + used); // FSI_Nxt_Free
        put(508, 0xaa55_0000); // FSI_TrailSig
        sector
    }

    /// One copy of the table, as far as it is in use.
    fn table(&self) -> Vec<u8> {
        const END: u32 = 0x0fff_ffff;
        let mut entries = vec![0x0fff_fff8, END];
        for run in self.runs.iter().filter(|run| run.count > 0) {
            let last = run.first + run.count - 1;
            entries.extend((run.first..last).map(|cluster| cluster + 1));
            entries.push(END);
        }
        let size = self.kind.entry_size() as usize;
        entries.iter().flat_map(|entry| entry.to_le_bytes().into_iter().take(size)).collect()
    }

    fn entries(&self, index: usize, dir: &Directory) -> Vec<u8> {
        let mut bytes = Vec::new();
        if index == 0 {
            bytes.extend(short_entry(LABEL, ATTR_VOLUME_ID, 0, 0));
        } else {
            // The root is 0 to its children, also where it has a cluster.
            let parent = if dir.parent == 0 { 0 } else { self.runs[dir.parent].first };
            bytes.extend(short_entry(*b".          ", ATTR_DIRECTORY, self.runs[index].first, 0));
            bytes.extend(short_entry(*b"..         ", ATTR_DIRECTORY, parent, 0));
        }
        for (place, (name, child)) in dir.children.iter().enumerate() {
            let short = short_name(name, place + 1);
            bytes.extend(long_entries(name, &short));
            bytes.extend(match child {
                Child::Directory(dir) => {
                    short_entry(short, ATTR_DIRECTORY, self.runs[*dir].first, 0)
                }
                Child::File(file) => {
                    let size = u32::try_from(self.files[*file].bytes.len()).unwrap_or(u32::MAX);
                    short_entry(short, ATTR_ARCHIVE, self.file_run(*file).first, size)
                }
            });
        }
        bytes
    }
}

impl Kind {
    const fn reserved(self) -> u64 {
        match self {
            Self::Fat16 => 1,
            Self::Fat32 => 32,
        }
    }

    const fn root_sectors(self) -> u64 {
        match self {
            Self::Fat16 => 32,
            Self::Fat32 => 0,
        }
    }

    const fn entry_size(self) -> u64 {
        match self {
            Self::Fat16 => 2,
            Self::Fat32 => 4,
        }
    }
}

fn tree(files: &[BootFile<'_>]) -> Vec<Directory> {
    let mut dirs = vec![Directory::default()];
    for (file, BootFile { path, .. }) in files.iter().enumerate() {
        let mut at = 0;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let new = dirs.len();
            let child = dirs[at].children.entry(part.to_owned());
            if parts.peek().is_none() {
                child.or_insert(Child::File(file));
            } else if let Child::Directory(below) = *child.or_insert(Child::Directory(new)) {
                if below == new {
                    dirs.push(Directory { parent: at, ..Directory::default() });
                }
                at = below;
            }
        }
    }
    dirs
}

fn entry_count(dir: &Directory, root: bool) -> u64 {
    let own = if root { 1 } else { 2 };
    let children = dir.children.keys().map(|name| 1 + long_entry_count(name));
    own + children.sum::<u64>()
}

fn short_entry(name: [u8; 11], attributes: u8, cluster: u32, size: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
    let [low0, low1, high0, high1] = cluster.to_le_bytes();
    put(0, &name);
    put(11, &[attributes]);
    for date in [16, 18, 24] {
        put(date, &DATE.to_le_bytes());
    }
    put(20, &[high0, high1]);
    put(26, &[low0, low1]);
    put(28, &size.to_le_bytes());
    entry
}

/// The name in eight and three capitals; where it does not fit, the beginning of it and its place in the directory.
fn short_name(name: &str, place: usize) -> [u8; 11] {
    let (base, ext) = name.rsplit_once('.').unwrap_or((name, ""));
    let fit = |text: &str, length: usize| -> Vec<u8> {
        let capital = |c: char| c.to_ascii_uppercase();
        let letters = text.chars().filter(char::is_ascii_alphanumeric).map(capital);
        letters.take(length).map(|c| c as u8).collect()
    };
    let fits = |text: &str, length: usize| fit(text, length).len() == text.len();
    let mut short = *b"           ";
    let mut base_part = fit(base, 8);
    if !fits(base, 8) || !fits(ext, 3) {
        let tail = format!("~{place}");
        base_part.truncate(8 - tail.len());
        base_part.extend(tail.into_bytes());
    }
    short[..base_part.len()].copy_from_slice(&base_part);
    let ext = fit(ext, 3);
    short[8..8 + ext.len()].copy_from_slice(&ext);
    short
}

/// A long name takes an entry for every thirteen units.
const LONG_UNITS: usize = 13;

fn long_entry_count(name: &str) -> u64 {
    name.encode_utf16().count().div_ceil(LONG_UNITS) as u64
}

/// The name as it is written, in entries before the short one; the last part first.
fn long_entries(name: &str, short: &[u8; 11]) -> Vec<u8> {
    let sum = short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let units: Vec<u16> = name.encode_utf16().collect();
    let count = units.len().div_ceil(LONG_UNITS);
    let mut bytes = Vec::new();
    for (i, part) in units.chunks(LONG_UNITS).enumerate().rev() {
        let mut padded = [0xffff; LONG_UNITS];
        padded[..part.len()].copy_from_slice(part);
        if let Some(end) = padded.get_mut(part.len()) {
            *end = 0;
        }
        let mut entry = [0; ENTRY];
        let last = if i + 1 == count { 0x40 } else { 0 };
        entry[0] = last | u8::try_from(i + 1).unwrap_or(0x1f);
        entry[11] = ATTR_LONG_NAME;
        entry[13] = sum;
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
        for (at, unit) in places.zip(padded) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        bytes.extend(entry);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::process::Command;

    use super::*;

    fn sample() -> Vec<BootFile<'static>> {
        vec![
            BootFile::new("EFI/BOOT/BOOTX64.EFI", &b"loader"[..]),
            BootFile::new("boot/limine/limine.conf", &b"timeout: 0\n"[..]),
            BootFile::new("boot/limine/limine-bios.sys", vec![1; 70_000]),
            BootFile::new("keel/vmlinuz", vec![7; 1 << 20]),
            BootFile::new("keel/0a6a4c7d-9e2f-8b0c-9a57-6f5c3b2a1d00", &b""[..]),
        ]
    }

    fn written(volume: &Volume<'_>) -> Vec<u8> {
        let mut image = Cursor::new(vec![0; usize::try_from(volume.size()).unwrap()]);
        volume.write(&mut image, 0).unwrap();
        image.into_inner()
    }

    #[test]
    fn an_esp_is_large_enough_and_fat32_to_those_who_count() {
        let check = |content: usize, size: u64, cluster: u64| {
            let files = [BootFile::new("a", vec![0; content])];
            let volume = Volume::esp(&files, 0).unwrap();
            assert_eq!((volume.size(), volume.cluster_size()), (size * MIB, cluster), "{content}");
            assert!(volume.clusters() > 65_525 + 16);
        };
        check(0, 136, 2048);
        check(100 << 20, 136, 2048);
        check(200 << 20, 212, 2048);
        check(400 << 20, 416, 4096);
    }

    #[test]
    fn a_volume_that_does_not_hold_its_files_is_refused() {
        let files = [BootFile::new("a", vec![0; 5 << 20])];
        assert!(Volume::small(&files, 0).is_err());
    }

    #[test]
    fn short_names_are_eight_and_three() {
        let check =
            |name: &str, expect: &[u8; 11]| assert_eq!(&short_name(name, 2), expect, "{name}");
        check("BOOTX64.EFI", b"BOOTX64 EFI");
        check("vmlinuz", b"VMLINUZ    ");
        check("initramfs.zst", b"INITRA~2ZST");
        check("limine.conf", b"LIMINE~2CON");
        check("limine-bios.sys", b"LIMINE~2SYS");
    }

    /// dosfstools and mtools are the judges of the format.
    #[test]
    fn others_read_the_volume_and_find_no_fault() {
        let files = sample();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume.img");
        let check = |volume: Volume<'_>, says: &str| {
            std::fs::write(&path, written(&volume)).unwrap();
            let check =
                Command::new("/usr/sbin/fsck.fat").args(["-n", "-v"]).arg(&path).output().unwrap();
            let said = String::from_utf8_lossy(&check.stdout);
            assert!(check.status.success() && said.contains(says), "{said}");
            assert!(!said.contains("Bad") && !said.contains("uninitialized"), "{said}");
            for file in &files {
                let place = format!("::/{}", file.path);
                let read = Command::new("mtype").arg("-i").arg(&path).arg(place).output().unwrap();
                assert!(read.stdout == *file.bytes, "{}", file.path);
            }
        };
        check(Volume::esp(&files, 0x4b65_656c).unwrap(), "32 bit entries");
        check(Volume::small(&files, 0x4b65_656c).unwrap(), "16 bit entries");
    }
}

//! The data partition made blank again, so that the next boot makes a new filesystem on it.
//!
//! What is wiped is one partition, the one that a partition unit of this boot has located, and only when nobody else claims it. A
//! name and a number of a device say little: both are given again, to another partition of the disk or to another disk. So once
//! the device is open, and cannot become another any more, everything that tells one partition from another is compared: its
//! number and size, where it begins, and the GUID that the table of its disk has there. The order makes a power cut harmless: first the record that a filesystem is about to be made here, by
//! which the next boot would make one, whatever else is left; then everything that could be found; the record last. Before the
//! record is on the medium the old filesystem is whole; after it there is none.

use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use keel_unit::keys::Text;
use keel_unit::value::Source;
use uuid::Uuid;

use super::block::{BlockFile, ReadBlocks, WriteBlocks};
use super::error::{DiskError, DiskErrorKind, error_of_kind};
use super::inventory::{self, Roots};
use super::provision::Window;
use super::signature::{self, Depth};
use super::source::{self, Place, SourceError};
use super::{ext4, gpt, intent};

/// A partition that is to be wiped when everything has let go of it.
#[derive(Debug, Clone)]
pub struct Condemned {
    /// Its name in the partition table.
    pub label: String,
    /// Its node.
    pub node: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its disk, and its GUID there.
    place: Place,
    /// What it was when it was found.
    found: Identity,
    roots: Roots,
}

/// What tells a partition from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    /// Its device number.
    device: u64,
    /// Its size in bytes.
    size: u64,
    /// Where it begins on its disk, in bytes, as the kernel has it.
    start: u64,
    /// Its number, its first byte and the byte behind its last, as the table of its disk has them.
    entry: (u32, u64, u64),
}

/// Why a partition was not wiped.
#[derive(Debug)]
pub struct WipeError {
    /// Its name in the partition table.
    pub label: String,
    /// What stands in the way.
    pub kind: WipeErrorKind,
}

error_of_kind!(WipeError, |error| format_args!("partition {}", error.label));

/// What stands in the way of wiping a partition.
#[derive(Debug, thiserror::Error)]
pub enum WipeErrorKind {
    /// No partition unit of this boot has located it.
    #[error("this boot has not located it")]
    NotLocated,
    /// It is not where it was.
    #[error(transparent)]
    Source(SourceError),
    /// Under its name there is now another device, or its disk has another table.
    #[error("{} is not the partition any more that was found: {}", .0.display(), .1)]
    Other(PathBuf, &'static str),
    /// The device cannot be read or written, or somebody uses it.
    #[error(transparent)]
    Disk(DiskError),
    /// Something is left on it.
    #[error("there is still {0} on it")]
    Left(signature::Content),
}

/// Finds the partition of this name that this boot has located. Blocks. Nothing is written.
///
/// # Errors
/// When none has been located, or it is no longer there.
pub fn condemn(label: &str, roots: &Roots) -> Result<Condemned, WipeError> {
    let failed = |kind| WipeError { label: label.to_owned(), kind };
    // Located ones alone: what another disk calls by that name is none of our business.
    let place = roots.located.place(label).ok_or_else(|| failed(WipeErrorKind::NotLocated))?;
    let source = Source::parse(&format!("PARTLABEL={label}"));
    let source = source.map_err(|_| failed(WipeErrorKind::NotLocated))?;
    let node = source::resolve(&source, roots).map_err(|e| failed(WipeErrorKind::Source(e)))?;
    let file = BlockFile::open(&node).map_err(|error| failed(WipeErrorKind::Disk(error)))?;
    let found = identify(&file, &place, roots).map_err(failed)?;
    let (label, roots) = (label.to_owned(), roots.clone());
    Ok(Condemned { label, node, size: file.size(), place, found, roots })
}

/// What an open partition is, by its descriptor and not by its name.
fn identify(file: &BlockFile, place: &Place, roots: &Roots) -> Result<Identity, WipeErrorKind> {
    let other = |why| WipeErrorKind::Other(file.path().to_owned(), why);
    let failed = |disk: &BlockFile, source| {
        let disk = disk.path().to_owned();
        WipeErrorKind::Disk(DiskError { disk, kind: DiskErrorKind::Read(source) })
    };
    let device = file.device().map_err(|source| failed(file, source))?;
    let disks = inventory::observe(roots).map_err(|source| failed(file, source))?;
    let known = disks.iter().flat_map(|disk| &disk.partitions);
    let mut known = known;
    let known = known.find(|known| known.path == file.path());
    let known = known.ok_or_else(|| other("the kernel knows no such partition"))?;
    let disk = BlockFile::open(&place.disk).map_err(WipeErrorKind::Disk)?;
    let table = gpt::read(&disk).map_err(|source| failed(&disk, source))?;
    let entry = found_in(table, place.guid);
    let entry = entry.ok_or_else(|| other("its GUID is gone from the table of the disk"))?;
    let sector = u64::from(disk.sector_size());
    Ok(Identity {
        device,
        size: file.size(),
        start: known.start,
        entry: (entry.number, entry.first * sector, (entry.last + 1) * sector),
    })
}

fn found_in(table: Option<gpt::Table>, guid: Uuid) -> Option<gpt::Entry> {
    table.into_iter().flat_map(|table| table.entries).find(|entry| entry.guid == guid)
}

impl Condemned {
    /// Wipes it. Blocks.
    ///
    /// # Errors
    /// When it is mounted or otherwise in use, is not the device any more that was found, or cannot be written.
    pub fn wipe(&self) -> Result<(), WipeError> {
        self.do_wipe().map_err(|kind| WipeError { label: self.label.clone(), kind })
    }

    fn do_wipe(&self) -> Result<(), WipeErrorKind> {
        // Exclusively: the kernel refuses as long as it is mounted anywhere. While it is open its number is nobody else's.
        let mut file = BlockFile::open_exclusive(&self.node).map_err(WipeErrorKind::Disk)?;
        let now = identify(&file, &self.place, &self.roots)?;
        if now != self.found {
            return Err(WipeErrorKind::Other(self.node.clone(), now.differs_in(&self.found)));
        }
        let failed = |kind: fn(io::Error) -> DiskErrorKind| {
            move |source| {
                WipeErrorKind::Disk(DiskError { disk: self.node.clone(), kind: kind(source) })
            }
        };
        let record = begin(&mut file).map_err(failed(DiskErrorKind::Write))?;
        // A disk that discards nothing is wiped all the same. What discarding leaves is erased afterwards.
        drop(discard(&file));
        finish(&mut file, record).map_err(failed(DiskErrorKind::Write))?;
        let left = signature::scan(&file, Depth::Partition).map_err(failed(DiskErrorKind::Read))?;
        if left.is_blank() { Ok(()) } else { Err(WipeErrorKind::Left(left)) }
    }
}

impl Identity {
    fn differs_in(&self, found: &Self) -> &'static str {
        match () {
            () if self.start != found.start => "it begins elsewhere on the disk",
            () if self.size != found.size => "it has another size",
            () if self.device != found.device => "it has another device number",
            () => "the table of the disk has it elsewhere",
        }
    }
}

/// From here on there is no filesystem: the next boot makes one, as if it had been cut short in making this one. Whether there is a
/// record to be blanked in the end.
fn begin(device: &mut dyn WriteBlocks) -> io::Result<bool> {
    match ext4::read(device)? {
        Some(superblock) => intent::write_filesystem(device, superblock.uuid).map(|()| true),
        None => Ok(false),
    }
}

/// Erases everything that could be found, and the record last.
fn finish(device: &mut dyn WriteBlocks, record: bool) -> io::Result<()> {
    let (size, Some(end)) = (device.size(), intent::filesystem_end(device.size())) else {
        return signature::erase(device);
    };
    if record {
        signature::erase(&mut Window { disk: device, start: 0, size: end })?;
        let rest = end + 4096;
        if let Some(behind) = size.checked_sub(rest) {
            let zeros = vec![0; usize::try_from(behind).map_err(io::Error::other)?];
            device.write_at(rest, &zeros)?;
            device.flush()?;
        }
        intent::clear_filesystem(device)?;
    }
    signature::erase(device)
}

/// Tells the disk that nothing between its two ends is needed any more.
fn discard(device: &BlockFile) -> io::Result<()> {
    /// `_IO(0x12, 119)` in linux/fs.h.
    const BLKDISCARD: libc::c_ulong = 0x1277;
    const EDGE: u64 = 4 << 20;
    let Some(length) = device.size().checked_sub(2 * EDGE).filter(|length| *length > 0) else {
        return Ok(());
    };
    let range: [u64; 2] = [EDGE, length / 4096 * 4096];
    #[expect(
        unsafe_code,
        reason = "an ioctl on an open descriptor; the range that it points to outlives the call"
    )]
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKDISCARD as _, range.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::filesystem::observe;
    use super::super::filesystem::plan::{Plan, plan};
    use super::super::memory::MemoryDisk;
    use super::*;

    /// A disk with the superblock of an ext4 filesystem, a backup of it, and data at both ends.
    fn ext4_disk() -> MemoryDisk {
        let size: u64 = 64 << 20;
        let mut disk = MemoryDisk::new(size, 512);
        let mut superblock = vec![0; 1024];
        superblock[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        superblock[0x18] = 2;
        superblock[0x4..0x8].copy_from_slice(&(((size - (64 << 10)) / 4096) as u32).to_le_bytes());
        superblock[0x68..0x78].copy_from_slice(Uuid::from_u128(7).as_bytes());
        disk.poke(1024, &superblock);
        disk.poke(2 << 20, b"data");
        disk.poke(size - (1 << 20), b"data");
        disk
    }

    #[test]
    fn a_power_cut_leaves_the_old_filesystem_or_none() {
        let mut disk = ext4_disk();
        let before = disk.clone();
        assert_eq!(plan(&observe(&disk).unwrap()).unwrap(), Plan::Check);
        let record = begin(&mut disk).unwrap();
        finish(&mut disk, record).unwrap();
        assert!(signature::scan(&disk, Depth::Partition).unwrap().is_blank());
        let ops = std::mem::take(&mut disk.record);
        let mut seen = Vec::new();
        for cut in 0..=ops.len() {
            let mut left = before.clone();
            left.replay(&ops[..cut]);
            let plan = plan(&observe(&left).unwrap()).unwrap();
            if seen.last() != Some(&plan) {
                seen.push(plan);
            }
        }
        assert_eq!(seen, [Plan::Check, Plan::MakeAgain(Uuid::from_u128(7)), Plan::Make]);
    }

    #[test]
    fn what_holds_no_filesystem_becomes_blank_too() {
        let mut disk = MemoryDisk::new(64 << 20, 512);
        disk.poke(4086, b"SWAPSPACE2");
        let record = begin(&mut disk).unwrap();
        finish(&mut disk, record).unwrap();
        assert!(signature::scan(&disk, Depth::Partition).unwrap().is_blank());
    }
}

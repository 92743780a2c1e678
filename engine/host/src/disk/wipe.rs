//! The data partition made blank again, so that the next boot makes a new filesystem on it.
//!
//! What is wiped is one partition, the one that a partition unit of this boot has located, by its device number; and only when
//! nobody else claims it. The order makes a power cut harmless: first the record that a filesystem is about to be made here, by
//! which the next boot would make one, whatever else is left; then everything that could be found; the record last. Before the
//! record is on the medium the old filesystem is whole; after it there is none.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use keel_unit::keys::Text;
use keel_unit::value::Source;

use super::block::{BlockFile, ReadBlocks, WriteBlocks};
use super::error::{DiskError, DiskErrorKind, error_of_kind};
use super::inventory::Roots;
use super::provision::Window;
use super::signature::{self, Depth};
use super::source::{self, SourceError};
use super::{ext4, intent};

/// A partition that is to be wiped when everything has let go of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// Its name in the partition table.
    pub label: String,
    /// Its node.
    pub node: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its device number.
    device: u64,
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
    /// Under its name there is now another device.
    #[error("{} is another device now", .0.display())]
    Other(PathBuf),
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
    if roots.located.place(label).is_none() {
        return Err(failed(WipeErrorKind::NotLocated));
    }
    let source = Source::parse(&format!("PARTLABEL={label}"));
    let source = source.map_err(|_| failed(WipeErrorKind::NotLocated))?;
    let node = source::resolve(&source, roots).map_err(|e| failed(WipeErrorKind::Source(e)))?;
    let disk = |error| failed(WipeErrorKind::Disk(error));
    let size = BlockFile::open(&node).map_err(disk)?.size();
    let device = device_of(&node).map_err(disk)?;
    Ok(Condemned { label: label.to_owned(), node, size, device })
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
        // Exclusively: the kernel refuses as long as it is mounted anywhere.
        let mut file = BlockFile::open_exclusive(&self.node).map_err(WipeErrorKind::Disk)?;
        if device_of(&self.node).map_err(WipeErrorKind::Disk)? != self.device
            || file.size() != self.size
        {
            return Err(WipeErrorKind::Other(self.node.clone()));
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

fn device_of(node: &Path) -> Result<u64, DiskError> {
    let about = node.metadata();
    let about = about
        .map_err(|source| DiskError { disk: node.to_owned(), kind: DiskErrorKind::Open(source) })?;
    Ok(about.rdev())
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

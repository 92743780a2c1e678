//! What the kernel believes about a disk's partitions.
//!
//! The table is ours to read; the kernel is told what it says, one partition at a time (`BLKPG`). That is more exact than
//! asking it to read the table again (`BLKRRPART`), which fails as a whole while any other partition is in use, finds
//! nothing where only the backup table is left, and nothing at all on a kernel built without GPT.

use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::block::BlockFile;
use super::error::{DiskError, DiskErrorKind};
use super::gpt::Entry;
use super::inventory::{self, Disk, Roots};

/// From linux/blkpg.h; nix and libc have neither the request nor the structures.
const BLKPG: libc::c_ulong = 0x1269;
const BLKPG_ADD_PARTITION: libc::c_int = 1;
const BLKPG_DEL_PARTITION: libc::c_int = 2;

#[repr(C)]
struct BlkpgPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

#[repr(C)]
struct BlkpgArgument {
    operation: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    data: *mut BlkpgPartition,
}

/// Makes sure that the kernel has this partition, and returns its node.
///
/// # Errors
/// When the kernel refuses, or holds a different partition under that number which is in use.
pub(super) fn announce(
    roots: &Roots,
    disk: &BlockFile,
    entry: &Entry,
    sector: u32,
) -> Result<PathBuf, DiskError> {
    let failed = |source| DiskError {
        disk: disk.path().to_owned(),
        kind: DiskErrorKind::Announce { number: entry.number, source },
    };
    let start = entry.first * u64::from(sector);
    let size = entry.sectors() * u64::from(sector);
    let known = || -> Result<_, DiskError> {
        let disks = inventory::observe(roots).map_err(failed)?;
        let partitions =
            disks.into_iter().find(|known| known.path == disk.path()).map(|known| known.partitions);
        Ok(partitions.into_iter().flatten().find(|known| known.number == entry.number))
    };
    match known()? {
        Some(partition) if (partition.start, partition.size) == (start, size) => {
            return Ok(partition.path);
        }
        Some(_) => {
            let kind = DiskErrorKind::Stale(entry.number);
            blkpg(disk, BLKPG_DEL_PARTITION, entry.number, 0, 0)
                .map_err(|_| DiskError { disk: disk.path().to_owned(), kind })?;
        }
        None => {}
    }
    blkpg(disk, BLKPG_ADD_PARTITION, entry.number, start, size).map_err(failed)?;
    // devtmpfs makes the node before the ioctl returns.
    let node = known()?.map(|partition| partition.path).filter(|path| path.exists());
    node.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

/// Makes the kernel forget every partition of a disk that is about to be written.
///
/// # Errors
/// When one is in use.
pub(super) fn forget(disk: &BlockFile, known: &Disk) -> Result<(), DiskError> {
    for partition in &known.partitions {
        let kind = |source| DiskErrorKind::Announce { number: partition.number, source };
        blkpg(disk, BLKPG_DEL_PARTITION, partition.number, 0, 0)
            .map_err(|source| DiskError { disk: disk.path().to_owned(), kind: kind(source) })?;
    }
    Ok(())
}

fn blkpg(
    disk: &BlockFile,
    operation: libc::c_int,
    number: u32,
    start: u64,
    size: u64,
) -> io::Result<()> {
    let signed = |value: u64| i64::try_from(value).map_err(io::Error::other);
    let mut partition = BlkpgPartition {
        start: signed(start)?,
        length: signed(size)?,
        number: i32::try_from(number).map_err(io::Error::other)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let length = size_of::<BlkpgPartition>() as libc::c_int;
    let argument = BlkpgArgument { operation, flags: 0, length, data: &raw mut partition };
    #[expect(
        unsafe_code,
        reason = "an ioctl on an open descriptor; the argument and what it points to outlive the call"
    )]
    let result = unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG as _, &raw const argument) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

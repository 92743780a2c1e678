//! A disk as a run of bytes that one reads and writes at an offset.
//!
//! The two traits are the whole door between what this room decides and the medium: provisioning is tested against a
//! disk in memory that records each write and can lose power between any two.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::{DiskError, DiskErrorKind};

/// A disk that can be read.
pub trait ReadBlocks {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Its logical sector size in bytes: 512 or 4096.
    fn sector_size(&self) -> u32;

    /// Fills the buffer with what stands at this offset; running past the end is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// A disk that can be written.
pub trait WriteBlocks: ReadBlocks {
    /// Writes all bytes at this offset. They may reach the medium in any order before the next [`flush`](Self::flush).
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything written so far survives a power cut.
    fn flush(&mut self) -> io::Result<()>;
}

/// A block device (or an image of one in a plain file) that is open.
#[derive(Debug)]
pub struct BlockFile {
    path: PathBuf,
    file: File,
    size: u64,
    sector_size: u32,
}

impl BlockFile {
    /// Opens for reading alone.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        Self::from_options(path, OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC))
    }

    /// Opens for writing. `O_EXCL` without `O_CREAT` means, on a block device, that the open fails with `EBUSY` while
    /// the disk or one of its partitions is mounted, used as swap, or held by LVM, MD or another claimant.
    pub fn open_exclusive(path: &Path) -> Result<Self, DiskError> {
        Self::from_options(
            path,
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC | libc::O_EXCL),
        )
    }

    fn from_options(path: &Path, options: &OpenOptions) -> Result<Self, DiskError> {
        let failed = |kind: fn(io::Error) -> DiskErrorKind| {
            move |source: io::Error| DiskError { disk: path.to_owned(), kind: kind(source) }
        };
        let mut file = options.open(path).map_err(failed(DiskErrorKind::Open))?;
        let size =
            io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(failed(DiskErrorKind::Read))?;
        let is_block =
            file.metadata().map_err(failed(DiskErrorKind::Read))?.file_type().is_block_device();
        let sector_size = if is_block {
            let asked = gptman::linux::get_sector_size(&mut file).map_err(io::Error::other);
            let asked = asked.map_err(failed(DiskErrorKind::Read))?;
            u32::try_from(asked).map_err(io::Error::other).map_err(failed(DiskErrorKind::Read))?
        } else {
            512
        };
        Ok(Self { path: path.to_owned(), file, size, sector_size })
    }

    /// The device node that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the device that is open, whatever its name has come to mean since.
    pub(super) fn device(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.rdev())
    }
}

impl AsRawFd for BlockFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl ReadBlocks for BlockFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

impl WriteBlocks for BlockFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }
}

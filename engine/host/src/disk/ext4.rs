//! What the superblock of an ext2, ext3 or ext4 filesystem says of it (Documentation/filesystems/ext4/super.rst).

use std::io;

use uuid::Uuid;

use super::block::ReadBlocks;

/// Where the primary superblock stands, and how much of it is looked at.
const OFFSET: u64 = 1024;
const LENGTH: usize = 1024;

const MAGIC: u16 = 0xef53;
/// The journal must be replayed before the filesystem is consistent: it was not unmounted.
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_64BIT: u32 = 0x80;

/// The facts that others need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Which filesystem it is.
    pub uuid: Uuid,
    /// Its label; empty if it has none.
    pub label: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether its journal waits to be replayed: it was in use when the machine went down.
    pub needs_recovery: bool,
}

/// Reads the primary superblock, if the device has one.
///
/// # Errors
/// As the device does.
pub fn read(device: &dyn ReadBlocks) -> io::Result<Option<Superblock>> {
    if device.size() < OFFSET + LENGTH as u64 {
        return Ok(None);
    }
    let mut bytes = [0; LENGTH];
    device.read_at(OFFSET, &mut bytes)?;
    Ok(decode(&bytes))
}

fn decode(bytes: &[u8; LENGTH]) -> Option<Superblock> {
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    // 64 KiB is the largest block there is.
    let (magic, block_size_log) = (u16_at(0x38), u32_at(0x18));
    if magic != MAGIC || block_size_log > 6 {
        return None;
    }
    let incompat = u32_at(0x60);
    let blocks_high = if incompat & INCOMPAT_64BIT == 0 { 0 } else { u32_at(0x150) };
    let blocks = u64::from(blocks_high) << 32 | u64::from(u32_at(0x4));
    let uuid = bytes[0x68..0x78].try_into().map(Uuid::from_bytes).ok()?;
    let label = bytes[0x78..0x88].split(|&byte| byte == 0).next().unwrap_or_default();
    Some(Superblock {
        uuid,
        label: String::from_utf8_lossy(label).into_owned(),
        size: blocks.saturating_mul(1024 << block_size_log),
        needs_recovery: incompat & INCOMPAT_RECOVER != 0,
    })
}

//! What is about to be written, told on the disk before it is written.
//!
//! A power cut in the middle of provisioning leaves half a table or half a filesystem, and that looks like somebody's
//! damaged data: a check in depth would refuse the disk for ever. So one sector is written first, and flushed. While it is
//! there, what stands on the disk is accepted as our own unfinished work if, and only if, it is what the record says.
//! When the work is done the sector is blanked.

use std::io;

use uuid::Uuid;

use super::block::{ReadBlocks, WriteBlocks};
use super::gpt::{Entry, Layout};

/// Where the record of a partition table lies: between the table's array and the first partition, for every sector size.
pub(super) const TABLE_OFFSET: u64 = 512 << 10;
/// How much of a partition's end a filesystem is not given. The record of a filesystem starts it.
pub(super) const FILESYSTEM_TAIL: u64 = 64 << 10;

const TABLE_MAGIC: &[u8; 16] = b"keel intent gpt\x01";
const FILESYSTEM_MAGIC: &[u8; 16] = b"keel intent fs \x01";
/// Magic, checksum, payload.
const PAYLOAD: usize = 20;
/// The record is shorter than the smallest sector, which a disk writes wholly or not at all.
const RECORD: usize = 512;

/// The layout that is about to be written to this disk.
///
/// # Errors
/// As the disk does.
pub(super) fn read_layout(disk: &dyn ReadBlocks) -> io::Result<Option<Layout>> {
    let Some(payload) = read(disk, TABLE_OFFSET, TABLE_MAGIC)? else { return Ok(None) };
    let mut fields = Fields { rest: &payload };
    let layout = decode_layout(&mut fields);
    // One that was copied here from another disk says nothing about this one.
    let this_disk = |layout: &Layout| {
        layout.sector_size == disk.sector_size()
            && layout.sectors == disk.size() / u64::from(disk.sector_size())
    };
    Ok(layout.filter(this_disk))
}

/// Says that this layout is about to be written, and waits until that is on the medium.
///
/// # Errors
/// As the disk does.
pub(super) fn write_layout(disk: &mut dyn WriteBlocks, layout: &Layout) -> io::Result<()> {
    let Layout { sector_size, sectors, disk_guid, entry } = layout;
    let mut payload = Vec::new();
    payload.extend_from_slice(&sector_size.to_le_bytes());
    payload.extend_from_slice(&sectors.to_le_bytes());
    payload.extend_from_slice(disk_guid.as_bytes());
    payload.extend_from_slice(entry.type_guid.as_bytes());
    payload.extend_from_slice(entry.guid.as_bytes());
    payload.extend_from_slice(&entry.number.to_le_bytes());
    payload.extend_from_slice(&entry.first.to_le_bytes());
    payload.extend_from_slice(&entry.last.to_le_bytes());
    payload.extend_from_slice(&(entry.label.len() as u32).to_le_bytes());
    payload.extend_from_slice(entry.label.as_bytes());
    write(disk, TABLE_OFFSET, TABLE_MAGIC, &payload)
}

/// Blanks the record of a layout.
///
/// # Errors
/// As the disk does.
pub(super) fn clear_layout(disk: &mut dyn WriteBlocks) -> io::Result<()> {
    clear(disk, TABLE_OFFSET)
}

/// The UUID of the filesystem that is about to be made on this device.
///
/// # Errors
/// As the device does.
pub(super) fn read_filesystem(device: &dyn ReadBlocks) -> io::Result<Option<Uuid>> {
    let Some(offset) = filesystem_end(device.size()) else { return Ok(None) };
    let Some(payload) = read(device, offset, FILESYSTEM_MAGIC)? else { return Ok(None) };
    let mut fields = Fields { rest: &payload };
    let size = fields.u64();
    let uuid = fields.uuid();
    Ok(uuid.filter(|_| size == Some(device.size())))
}

/// Says that a filesystem with this UUID is about to be made, and waits until that is on the medium.
///
/// # Errors
/// As the device does.
pub(super) fn write_filesystem(device: &mut dyn WriteBlocks, uuid: Uuid) -> io::Result<()> {
    let offset = filesystem_end(device.size()).ok_or(io::ErrorKind::InvalidInput)?;
    let mut payload = device.size().to_le_bytes().to_vec();
    payload.extend_from_slice(uuid.as_bytes());
    write(device, offset, FILESYSTEM_MAGIC, &payload)
}

/// Blanks the record of a filesystem.
///
/// # Errors
/// As the device does.
pub(super) fn clear_filesystem(device: &mut dyn WriteBlocks) -> io::Result<()> {
    let offset = filesystem_end(device.size()).ok_or(io::ErrorKind::InvalidInput)?;
    clear(device, offset)
}

/// Where a filesystem on a device of this size ends, and its record starts: a multiple of its 4 KiB blocks.
pub(super) fn filesystem_end(size: u64) -> Option<u64> {
    size.checked_sub(FILESYSTEM_TAIL).map(|end| end / 4096 * 4096)
}

fn read(disk: &dyn ReadBlocks, offset: u64, magic: &[u8; 16]) -> io::Result<Option<Vec<u8>>> {
    if disk.size() < offset + RECORD as u64 {
        return Ok(None);
    }
    let mut record = [0; RECORD];
    disk.read_at(offset, &mut record)?;
    let (head, payload) = record.split_at(PAYLOAD);
    let whole = head[..16] == magic[..] && head[16..] == crc32(payload).to_le_bytes();
    Ok(whole.then(|| payload.to_vec()))
}

fn write(
    disk: &mut dyn WriteBlocks,
    offset: u64,
    magic: &[u8; 16],
    payload: &[u8],
) -> io::Result<()> {
    let mut sector = vec![0; disk.sector_size() as usize];
    sector[PAYLOAD..PAYLOAD + payload.len()].copy_from_slice(payload);
    let sum = crc32(&sector[PAYLOAD..RECORD]);
    sector[..16].copy_from_slice(magic);
    sector[16..PAYLOAD].copy_from_slice(&sum.to_le_bytes());
    disk.write_at(offset, &sector)?;
    disk.flush()
}

fn clear(disk: &mut dyn WriteBlocks, offset: u64) -> io::Result<()> {
    disk.write_at(offset, &vec![0; disk.sector_size() as usize])?;
    disk.flush()
}

fn decode_layout(fields: &mut Fields<'_>) -> Option<Layout> {
    Some(Layout {
        sector_size: fields.u32()?,
        sectors: fields.u64()?,
        disk_guid: fields.uuid()?,
        entry: {
            let type_guid = fields.uuid()?;
            let guid = fields.uuid()?;
            let number = fields.u32()?;
            let first = fields.u64()?;
            let last = fields.u64()?;
            let length = fields.u32()? as usize;
            let label = str::from_utf8(fields.take(length)?).ok()?.to_owned();
            Entry { number, type_guid, guid, label, first, last }
        },
    })
}

/// Reads fixed fields one after the other.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn uuid(&mut self) -> Option<Uuid> {
        self.array().map(Uuid::from_bytes)
    }
}

/// CRC-32 as GPT itself uses it (ISO 3309), bit by bit: it runs over half a kilobyte, once.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::gpt::Wanted;
    use super::super::memory::MemoryDisk;
    use super::*;

    fn layout(disk: &MemoryDisk) -> Layout {
        // The longest label there can be: 36 UTF-16 units, each of three bytes in UTF-8.
        let label = "\u{20ac}".repeat(36);
        let wanted = Wanted { type_guid: Uuid::from_u128(1), label: &label, size: None };
        Layout::new(disk, wanted, Uuid::from_u128(2), Uuid::from_u128(3)).unwrap()
    }

    #[test]
    fn the_checksum_is_the_common_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_layout_is_read_as_it_was_written_until_it_is_cleared() {
        for sector_size in [512, 4096] {
            let mut disk = MemoryDisk::new(64 << 20, sector_size);
            let layout = layout(&disk);
            write_layout(&mut disk, &layout).unwrap();
            assert_eq!(read_layout(&disk).unwrap(), Some(layout));
            clear_layout(&mut disk).unwrap();
            assert_eq!(read_layout(&disk).unwrap(), None);
        }
    }

    #[test]
    fn a_record_that_is_damaged_or_of_another_disk_is_none() {
        let mut disk = MemoryDisk::new(64 << 20, 512);
        let layout = layout(&disk);
        write_layout(&mut disk, &layout).unwrap();
        let mut larger = MemoryDisk::new(65 << 20, 512);
        larger.replay(&disk.record);
        assert_eq!(read_layout(&larger).unwrap(), None);
        disk.poke(TABLE_OFFSET + 40, b"\xaa");
        assert_eq!(read_layout(&disk).unwrap(), None);
    }

    #[test]
    fn a_filesystem_record_lies_behind_the_filesystem() {
        for size in [20 << 20, (20 << 20) + 512] {
            let mut disk = MemoryDisk::new(size, 512);
            let uuid = Uuid::from_u128(7);
            write_filesystem(&mut disk, uuid).unwrap();
            assert_eq!(read_filesystem(&disk).unwrap(), Some(uuid));
            assert_eq!(filesystem_end(size), Some((20 << 20) - (64 << 10)));
            clear_filesystem(&mut disk).unwrap();
            assert_eq!(read_filesystem(&disk).unwrap(), None);
        }
        assert_eq!(read_filesystem(&MemoryDisk::new(512, 512)).unwrap(), None);
    }
}

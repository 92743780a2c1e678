//! GUID partition tables (UEFI 2.10, chapter 5.3): read with suspicion, composed from a layout.
//!
//! Reading never trusts the disk: gptman asserts on entry sizes other than 128 and allocates what a header asks for, so
//! those fields are checked before it sees them. Composing is a pure function from a [`Layout`] to the sectors that make
//! it true; who writes them, and in which order, is `provision.rs`.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::ops::Range;

use gptman::{GPT, GPTHeader, GPTPartitionEntry};
pub(super) use keel_unit::select::{ALIGNMENT, TooSmall};
use keel_unit::select::{room_on, size_within};
use uuid::Uuid;

use super::block::ReadBlocks;

/// The only entry size in use; UEFI allows larger ones.
const ENTRY_SIZE: u32 = 128;
/// More entries than any tool makes.
const MAX_ENTRIES: u32 = 4096;

/// Which of the two copies of a table was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// The one behind the protective MBR.
    Primary,
    /// The one at the end of the disk; the primary one is damaged.
    Backup,
}

/// One partition of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u32,
    /// What it is for.
    pub type_guid: Uuid,
    /// Which one it is.
    pub guid: Uuid,
    /// Its name.
    pub label: String,
    /// Its first logical sector.
    pub first: u64,
    /// Its last logical sector.
    pub last: u64,
}

impl Entry {
    /// Its length in logical sectors.
    pub fn sectors(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// A table that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Where it stood.
    pub copy: Copy,
    /// Which disk it is.
    pub disk_guid: Uuid,
    /// The partitions in use.
    pub entries: Vec<Entry>,
}

/// Reads a disk's table: the primary copy, or the backup if the primary is damaged. A disk without a whole copy has none.
///
/// # Errors
/// As the disk does.
pub fn read(disk: &dyn ReadBlocks) -> io::Result<Option<Table>> {
    let sector = u64::from(disk.sector_size());
    let sectors = disk.size() / sector;
    if sectors < 3 {
        return Ok(None);
    }
    if let Some(table) = read_copy(disk, Copy::Primary, 1)? {
        return Ok(Some(table));
    }
    read_copy(disk, Copy::Backup, sectors - 1)
}

fn read_copy(disk: &dyn ReadBlocks, copy: Copy, lba: u64) -> io::Result<Option<Table>> {
    let sector = u64::from(disk.sector_size());
    let sectors = disk.size() / sector;
    let mut bytes = [0; 512];
    disk.read_at(lba * sector, &mut bytes)?;
    let Ok(header) = GPTHeader::read_from(&mut Cursor::new(bytes)) else { return Ok(None) };
    let size = u64::from(header.number_of_partition_entries) * u64::from(ENTRY_SIZE);
    let fits = header
        .partition_entry_lba
        .checked_mul(sector)
        .and_then(|start| start.checked_add(size))
        .is_some_and(|end| end <= disk.size());
    let plausible = header.primary_lba == lba
        && header.size_of_partition_entry == ENTRY_SIZE
        && (1..=MAX_ENTRIES).contains(&header.number_of_partition_entries)
        && header.partition_entry_lba >= 2
        && fits;
    if !plausible {
        return Ok(None);
    }
    let Ok(length) = usize::try_from(size) else { return Ok(None) };
    // The array is handed over as if it stood at the start of the disk, so that no more than it is read from there. gptman
    // fetches somewhat more than the 128 bytes of each entry; what follows the last one is of no meaning.
    let mut array = vec![0; length + size_of::<GPTPartitionEntry>()];
    disk.read_at(header.partition_entry_lba * sector, &mut array[..length])?;
    let at_start = GPTHeader { partition_entry_lba: 0, ..header };
    let Ok(partitions) = at_start.read_partitions(&mut Cursor::new(array), sector) else {
        return Ok(None);
    };
    let in_use = partitions.into_iter().zip(1..).filter(|(partition, _)| partition.is_used());
    let entries = in_use
        .map(|(partition, number)| Entry {
            number,
            type_guid: Uuid::from_bytes_le(partition.partition_type_guid),
            guid: Uuid::from_bytes_le(partition.unique_partition_guid),
            label: partition.partition_name.as_str().to_owned(),
            first: partition.starting_lba,
            last: partition.ending_lba,
        })
        .filter(|entry| entry.first <= entry.last && entry.last < sectors)
        .collect();
    Ok(Some(Table { copy, disk_guid: Uuid::from_bytes_le(at_start.disk_guid), entries }))
}

/// A table's header and array as they stand, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    /// The header's 512 bytes.
    pub(super) header: Vec<u8>,
    /// All entries, in use or not.
    pub(super) array: Vec<u8>,
}

impl Raw {
    fn number(&self, at: usize, length: usize) -> u64 {
        self.header[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// How much of the header its checksum covers.
    pub(super) fn header_size(&self) -> usize {
        usize::try_from(self.number(12, 4)).unwrap_or(0).clamp(92, self.header.len())
    }

    /// Where the other copy's header is said to be.
    pub(super) fn alternate(&self) -> u64 {
        self.number(32, 8)
    }

    /// Each entry's bytes.
    pub(super) fn slots(&self) -> impl Iterator<Item = &[u8]> {
        self.array.chunks(ENTRY_SIZE as usize)
    }
}

/// The bytes of a copy that [`read`] found whole.
///
/// # Errors
/// As the disk does.
pub(super) fn read_raw(disk: &dyn ReadBlocks, copy: Copy) -> io::Result<Raw> {
    let sector = u64::from(disk.sector_size());
    let lba = match copy {
        Copy::Primary => 1,
        Copy::Backup => disk.size() / sector - 1,
    };
    let mut raw = Raw { header: vec![0; 512], array: Vec::new() };
    disk.read_at(lba * sector, &mut raw.header)?;
    let (at, count) = (raw.number(72, 8), raw.number(80, 4));
    let size = count * u64::from(ENTRY_SIZE);
    let fits = at.checked_mul(sector).and_then(|start| start.checked_add(size));
    if count > u64::from(MAX_ENTRIES) || fits.is_none_or(|end| end > disk.size()) {
        // It was whole a moment ago.
        return Err(io::ErrorKind::InvalidData.into());
    }
    raw.array = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    disk.read_at(at * sector, &mut raw.array)?;
    Ok(raw)
}

/// The sectors that the primary header keeps for its array: from where it says that the array is, to the first that it gives to
/// partitions. None if the header is not whole, or another disk's; the array need not be whole.
///
/// # Errors
/// As the disk does.
pub(super) fn primary_array(
    disk: &dyn ReadBlocks,
    table: &Table,
) -> io::Result<Option<Range<u64>>> {
    let mut bytes = [0; 512];
    disk.read_at(u64::from(disk.sector_size()), &mut bytes)?;
    let header = GPTHeader::read_from(&mut Cursor::new(bytes)).ok().filter(|header| {
        header.primary_lba == 1 && header.disk_guid == table.disk_guid.to_bytes_le()
    });
    Ok(header.map(|header| header.partition_entry_lba..header.first_usable_lba))
}

/// The sectors of the backup copy, if one of this table stands at the end of the disk.
///
/// # Errors
/// As the disk does.
pub(super) fn backup_sectors(disk: &dyn ReadBlocks, table: &Table) -> io::Result<Sectors> {
    let sector = u64::from(disk.sector_size());
    let last = disk.size() / sector - 1;
    let backup = read_copy(disk, Copy::Backup, last)?;
    if backup.is_none_or(|backup| backup.disk_guid != table.disk_guid) {
        return Ok(Vec::new());
    }
    let raw = read_raw(disk, Copy::Backup)?;
    let start = raw.number(72, 8);
    let lbas = (start..).take((raw.array.len() as u64).div_ceil(sector) as usize).chain([last]);
    let read = lbas.map(|lba| {
        let mut bytes = vec![0; disk.sector_size() as usize];
        disk.read_at(lba * sector, &mut bytes).map(|()| (lba * sector, bytes))
    });
    read.collect()
}

/// A table with one partition, before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Size of a logical sector in bytes.
    pub sector_size: u32,
    /// Size of the disk in logical sectors.
    pub sectors: u64,
    /// Which disk it becomes.
    pub disk_guid: Uuid,
    /// Its one partition.
    pub entry: Entry,
}

/// What a new partition is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Its type.
    pub type_guid: Uuid,
    /// Its name.
    pub label: &'a str,
    /// Its size in bytes; without one, all that the disk has.
    pub size: Option<u64>,
}

impl Layout {
    /// Lays out a disk of this size: one partition from the first aligned sector.
    ///
    /// # Errors
    /// [`TooSmall`] if the partition would not fit.
    pub fn new(
        disk: &dyn ReadBlocks,
        wanted: Wanted<'_>,
        disk_guid: Uuid,
        guid: Uuid,
    ) -> Result<Self, TooSmall> {
        let sector = u64::from(disk.sector_size());
        let sectors = disk.size() / sector;
        let size = size_within(wanted.size, room_on(disk.size(), sector))?;
        let first = ALIGNMENT / sector;
        let entry = Entry {
            number: 1,
            type_guid: wanted.type_guid,
            guid,
            label: wanted.label.to_owned(),
            first,
            last: first + size / sector - 1,
        };
        Ok(Self { sector_size: disk.sector_size(), sectors, disk_guid, entry })
    }

    /// The entry of the partition, as it stands in an array.
    ///
    /// # Errors
    /// When gptman finds the layout impossible.
    pub(super) fn entry_bytes(&self) -> io::Result<Vec<u8>> {
        let array = 2 * u64::from(self.sector_size);
        let primary = self.compose()?.primary;
        let sector = primary.into_iter().find(|(offset, _)| *offset == array);
        let (_, mut bytes) = sector.ok_or(io::ErrorKind::InvalidData)?;
        bytes.truncate(ENTRY_SIZE as usize);
        Ok(bytes)
    }

    /// The sectors that make this layout true, by the order in which they must reach the medium.
    ///
    /// # Errors
    /// When gptman finds the layout impossible.
    pub fn compose(&self) -> io::Result<Composed> {
        let sector = u64::from(self.sector_size);
        let mut image =
            SparseImage { size: self.sectors * sector, sector, at: 0, sectors: BTreeMap::new() };
        let mut gpt = GPT::new_from(&mut image, sector, self.disk_guid.to_bytes_le())
            .map_err(io::Error::other)?;
        gpt[1] = GPTPartitionEntry {
            partition_type_guid: self.entry.type_guid.to_bytes_le(),
            unique_partition_guid: self.entry.guid.to_bytes_le(),
            starting_lba: self.entry.first,
            ending_lba: self.entry.last,
            attribute_bits: 0,
            partition_name: self.entry.label.as_str().into(),
        };
        gpt.write_into(&mut image).map_err(io::Error::other)?;
        GPT::write_protective_mbr_into(&mut image, sector).map_err(io::Error::other)?;
        let first_usable = gpt.header.first_usable_lba;
        let mut composed = Composed::default();
        for (lba, bytes) in image.sectors {
            let part = if lba == 1 {
                &mut composed.primary_header
            } else if lba == 0 || lba < first_usable {
                &mut composed.primary
            } else {
                &mut composed.backup
            };
            part.push((lba * sector, bytes));
        }
        Ok(composed)
    }
}

/// Whole sectors and the byte offsets at which they belong.
pub type Sectors = Vec<(u64, Vec<u8>)>;

/// The sectors of a table, in three groups that are written in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Composed {
    /// The backup array and header at the end of the disk.
    pub backup: Sectors,
    /// The protective MBR and the primary array.
    pub primary: Sectors,
    /// The primary header, with which the table is there.
    pub primary_header: Sectors,
}

/// What gptman writes into: only the touched sectors of a disk that may be terabytes large.
struct SparseImage {
    size: u64,
    sector: u64,
    at: u64,
    sectors: BTreeMap<u64, Vec<u8>>,
}

impl Write for SparseImage {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for (&byte, at) in bytes.iter().zip(self.at..) {
            let sector = self
                .sectors
                .entry(at / self.sector)
                .or_insert_with(|| vec![0; self.sector as usize]);
            sector[(at % self.sector) as usize] = byte;
        }
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SparseImage {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let target = match position {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// gptman asks for a reader where it only asks for the size.
impl io::Read for SparseImage {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::WriteBlocks;
    use super::super::memory::MemoryDisk;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn layout(disk: &MemoryDisk, size: Option<u64>) -> Result<Layout, TooSmall> {
        let wanted = Wanted { type_guid: Uuid::from_u128(9), label: "keel-data", size };
        Layout::new(disk, wanted, Uuid::from_u128(1), Uuid::from_u128(2))
    }

    fn written(size: u64, sector_size: u32) -> (MemoryDisk, Layout) {
        let mut disk = MemoryDisk::new(size, sector_size);
        let layout = layout(&disk, None).unwrap();
        let Composed { backup, primary, primary_header } = layout.compose().unwrap();
        for (offset, bytes) in [backup, primary, primary_header].into_iter().flatten() {
            disk.write_at(offset, &bytes).unwrap();
        }
        (disk, layout)
    }

    #[test]
    fn a_partition_takes_what_is_free_or_what_is_wanted_on_whole_mebibytes() {
        let check = |size: u64,
                     sector_size: u32,
                     wanted: Option<u64>,
                     expect: Result<(u64, u64), TooSmall>| {
            let disk = MemoryDisk::new(size, sector_size);
            let sector = u64::from(sector_size);
            let extent = layout(&disk, wanted)
                .map(|layout| (layout.entry.first * sector, layout.entry.sectors() * sector));
            assert_eq!(extent, expect, "{size} {sector_size} {wanted:?}");
        };
        check(100 * MIB, 512, None, Ok((MIB, 98 * MIB)));
        check(100 * MIB, 4096, None, Ok((MIB, 98 * MIB)));
        check(100 * MIB + 512 * 40, 512, None, Ok((MIB, 99 * MIB)));
        check(100 * MIB, 512, Some(20 * MIB - 1), Ok((MIB, 20 * MIB)));
        check(18 * MIB, 512, None, Ok((MIB, 16 * MIB)));
        check(17 * MIB, 512, None, Err(TooSmall { usable: 15 * MIB, wanted: 16 * MIB }));
        check(100 * MIB, 512, Some(99 * MIB), Err(TooSmall { usable: 98 * MIB, wanted: 99 * MIB }));
        check(512, 512, None, Err(TooSmall { usable: 0, wanted: 16 * MIB }));
    }

    #[test]
    fn what_is_composed_is_read_back_from_either_copy() {
        for sector_size in [512, 4096] {
            let (mut disk, layout) = written(64 * MIB, sector_size);
            let mut expect = Table {
                copy: Copy::Primary,
                disk_guid: Uuid::from_u128(1),
                entries: vec![layout.entry],
            };
            assert_eq!(read(&disk).unwrap().as_ref(), Some(&expect));
            // One bit of the primary header, then one of the primary array.
            for offset in [u64::from(sector_size) + 60, 2 * u64::from(sector_size) + 3] {
                let mut damaged = disk.clone();
                damaged.poke(offset, b"\x55");
                expect.copy = Copy::Backup;
                assert_eq!(read(&damaged).unwrap().as_ref(), Some(&expect), "{offset}");
            }
            disk.poke(u64::from(sector_size), b"x");
            disk.poke(64 * MIB - u64::from(sector_size), b"x");
            assert_eq!(read(&disk).unwrap(), None);
        }
    }

    #[test]
    fn a_hostile_header_is_no_table() {
        let check = |change: fn(&mut GPTHeader)| {
            let (disk, _) = written(64 * MIB, 512);
            let mut sector = [0; 512];
            disk.read_at(512, &mut sector).unwrap();
            let mut header = GPTHeader::read_from(&mut Cursor::new(sector)).unwrap();
            change(&mut header);
            header.update_crc32_checksum();
            // gptman writes headers only along with an array: the header alone is cut out.
            let mut image = Cursor::new(vec![0; 4096]);
            let mut bare =
                GPTHeader { primary_lba: 0, number_of_partition_entries: 0, ..header.clone() };
            bare.write_into(&mut image, 512, &[]).unwrap();
            let mut bytes = image.into_inner()[..512].to_vec();
            bytes[24..32].copy_from_slice(&header.primary_lba.to_le_bytes());
            bytes[80..84].copy_from_slice(&header.number_of_partition_entries.to_le_bytes());
            bytes[88..92].copy_from_slice(&header.partition_entry_array_crc32.to_le_bytes());
            bytes[16..20].copy_from_slice(&header.crc32_checksum.to_le_bytes());
            assert_eq!(
                GPTHeader::read_from(&mut Cursor::new(&bytes)).unwrap(),
                header,
                "whole but hostile"
            );
            let mut disk = disk;
            disk.poke(512, &bytes);
            disk.poke(64 * MIB - 512, &[0; 512]);
            assert_eq!(read(&disk).unwrap(), None);
        };
        check(|header| header.number_of_partition_entries = u32::MAX);
        check(|header| header.number_of_partition_entries = 0);
        check(|header| header.size_of_partition_entry = 256);
        check(|header| header.partition_entry_lba = u64::MAX);
        check(|header| header.partition_entry_lba = 0);
        check(|header| header.primary_lba = 7);
    }

    #[test]
    fn an_entry_beyond_the_disk_is_passed_over() {
        let (disk, layout) = written(64 * MIB, 512);
        let mut larger = MemoryDisk::new(200 * MIB, 512);
        let far = Layout {
            entry: Entry { first: 300_000, last: 301_000, ..layout.entry },
            sectors: 200 * 2048,
            ..layout
        };
        for (offset, bytes) in
            far.compose().unwrap().primary.into_iter().chain(far.compose().unwrap().primary_header)
        {
            larger.write_at(offset, &bytes).unwrap();
        }
        let mut small = disk.clone();
        small.replay(&larger.record);
        assert_eq!(read(&small).unwrap().map(|table| table.entries), Some(vec![]));
    }
}

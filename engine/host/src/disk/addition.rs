//! The data partition on a disk that holds an image of Keel: added in the free space behind everything that the image has.
//!
//! Such a disk is not blank, and yet its owner put it there to be used: the image says so by the GUID of its disk
//! ([`IMAGE_DISK_MARK`]), and the config selects the disk besides. What is allowed is narrow: one entry is added to the table,
//! and the table's backup moves to where the disk ends. Every entry and every partition that is there stays as it is, byte for
//! byte; the space is taken only where it is blank, or where the config says to wipe, and then it alone is wiped.
//!
//! [`Addition`] is pure. The order in which it is written, and the record that takes a power cut's work up again, are those
//! of `provision.rs`: at every instant one copy of the table is whole.

use std::io;

use keel_unit::kinds::{IMAGE_DISK_MARK, Partition};
use keel_unit::select::size_within;
use uuid::Uuid;

use super::block::{BlockFile, ReadBlocks, WriteBlocks};
use super::error::{DiskError, DiskErrorKind};
use super::gpt::{self, Composed, Copy, Entry, Layout, Raw, Sectors, Table, TooSmall, Wanted};
use super::intent::{self, crc32};
use super::inventory::Disk;
use super::partition::view_of;
use super::plan::{self, PartitionErrorKind, Permit, View};
use super::provision::{self, Window};
use super::signature::{self, Content, Depth, Found};
use crate::identity::random::random_uuid;

/// Whether the disk with this table is an image of Keel.
pub(crate) fn is_image(table: &Table) -> bool {
    table.disk_guid.as_bytes().starts_with(&IMAGE_DISK_MARK)
        && table.disk_guid.get_version_num() == 8
}

/// A table with one more partition, before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addition {
    /// The new partition, and the disk.
    pub(super) layout: Layout,
    raw: Raw,
}

/// Why nothing can be added to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Every entry is in use.
    #[error("its partition table is full")]
    Full,
    /// Its table is whole only in one copy.
    #[error("its primary partition table is damaged")]
    Damaged,
    /// An entry does not fit on the disk.
    #[error("its partition table names a partition that goes beyond its end")]
    Beyond,
    /// The table is not where it would be written.
    #[error("its partition table is laid out in another way than an image's")]
    Elsewhere,
    /// The place of the record is taken.
    #[error("there is something between its partition table and its first partition")]
    RecordTaken,
    /// There is not enough behind.
    #[error("there is not enough room behind it: {0}")]
    TooSmall(TooSmall),
}

/// The sector at which the primary array stands in an image, and is written.
const PRIMARY_ARRAY: u64 = 2;

impl Addition {
    /// Adds a partition behind all others, to what the disk says now.
    fn new(
        disk: &dyn ReadBlocks,
        table: &Table,
        raw: Raw,
        wanted: Wanted<'_>,
        guid: Uuid,
    ) -> Result<Self, Unfit> {
        let free = Free::of(disk, table, &raw);
        let number = raw.free_number().ok_or(Unfit::Full)?;
        let usable = free.usable();
        let size = size_within(wanted.size, usable).map_err(Unfit::TooSmall)?;
        let entry = Entry {
            number,
            type_guid: wanted.type_guid,
            guid,
            label: wanted.label.to_owned(),
            first: free.first,
            last: free.first + size / free.sector - 1,
        };
        let sector_size = disk.sector_size();
        let layout =
            Layout { sector_size, sectors: free.sectors, disk_guid: table.disk_guid, entry };
        Ok(Self { layout, raw })
    }

    /// Takes up the addition that a record speaks of, if it is one to this table: if it is there, or if it could be made now. A
    /// record alone proves nothing, and only what is free is looked at before it is written.
    fn resumed(table: &Table, raw: Raw, free: Free, layout: &Layout) -> Option<Self> {
        let entry = &layout.entry;
        let there = table.entries.contains(entry);
        let number = (entry.number as usize).checked_sub(1);
        let could_be = number.and_then(|at| raw.slots().nth(at)).is_some_and(is_free)
            && free.first <= entry.first
            && entry.first <= entry.last
            && entry.last < free.end;
        let same = layout.disk_guid == table.disk_guid;
        (same && (there || could_be)).then(|| Self { layout: layout.clone(), raw })
    }

    /// The sectors of both copies of the table, and of the protective MBR whose bytes these are. Nothing else changes.
    pub(super) fn compose(&self, mbr: &[u8]) -> io::Result<Composed> {
        let Layout { sector_size, sectors, entry, .. } = &self.layout;
        let sector = u64::from(*sector_size);
        let mut array = self.raw.array.clone();
        // The same bytes that a table of one partition has for it.
        let bytes = self.layout.entry_bytes()?;
        let at = (entry.number as usize - 1) * bytes.len();
        array[at..at + bytes.len()].copy_from_slice(&bytes);

        let array_sectors = (array.len() as u64).div_ceil(sector);
        let last = sectors - 1;
        let header = |own: u64, other: u64, array_at: u64| {
            let mut header = self.raw.header.clone();
            header[24..32].copy_from_slice(&own.to_le_bytes());
            header[32..40].copy_from_slice(&other.to_le_bytes());
            header[48..56].copy_from_slice(&(last - array_sectors - 1).to_le_bytes());
            header[72..80].copy_from_slice(&array_at.to_le_bytes());
            header[88..92].copy_from_slice(&crc32(&array).to_le_bytes());
            header[16..20].fill(0);
            let size = self.raw.header_size();
            let sum = crc32(&header[..size]);
            header[16..20].copy_from_slice(&sum.to_le_bytes());
            header
        };
        let padded = |bytes: &[u8]| {
            let mut whole = bytes.to_vec();
            whole.resize(bytes.len().next_multiple_of(*sector_size as usize), 0);
            whole
        };
        let array_at = |lba: u64| -> Sectors {
            let whole = padded(&array);
            let each = whole.chunks(*sector_size as usize).zip(lba..);
            each.map(|(bytes, lba)| (lba * sector, bytes.to_vec())).collect()
        };
        let backup_at = last - array_sectors;
        let mut backup = array_at(backup_at);
        backup.push((last * sector, padded(&header(last, 1, backup_at))));
        let mut primary = vec![(0, protecting(mbr, *sectors))];
        primary.extend(array_at(PRIMARY_ARRAY));
        let primary_header = vec![(sector, padded(&header(1, last, PRIMARY_ARRAY)))];
        Ok(Composed { backup, primary, primary_header })
    }
}

/// What speaks against every addition to this table, be it a new one or one that a record speaks of.
fn objection(disk: &dyn ReadBlocks, table: &Table, raw: &Raw) -> io::Result<Option<Unfit>> {
    let sector = u64::from(disk.sector_size());
    let record = intent::TABLE_OFFSET / sector;
    let array_sectors = (raw.array.len() as u64).div_ceil(sector);
    let array_end = PRIMARY_ARRAY + array_sectors;
    // Other tools move the array; what stands in its old place is then not the table's.
    let in_place = gpt::primary_array(disk, table)?
        .is_some_and(|array| array.start == PRIMARY_ARRAY && array_end <= array.end);
    let backup = (disk.size() / sector).saturating_sub(array_sectors + 1);
    let any = |reaches: &dyn Fn(&Entry) -> bool| table.entries.iter().any(reaches);
    Ok(if !in_place || array_end > record || any(&|entry| entry.last >= backup) {
        Some(Unfit::Elsewhere)
    } else if any(&|entry| entry.first <= record) {
        Some(Unfit::RecordTaken)
    } else if raw.slots().filter(|slot| !is_free(slot)).count() != table.entries.len() {
        // One that does not fit on the disk is not among the entries, and may claim what looks free.
        Some(Unfit::Beyond)
    } else {
        None
    })
}

fn is_free(slot: &[u8]) -> bool {
    slot.iter().all(|byte| *byte == 0)
}

impl Raw {
    /// The number of the first entry that is not in use.
    fn free_number(&self) -> Option<u32> {
        (1..).zip(self.slots()).find(|(_, slot)| is_free(slot)).map(|(number, _)| number)
    }
}

/// The first sector with the size of the partition that stands for the whole disk (UEFI 2.10, 5.2.3), where it has one; the
/// loader's code in it stays.
fn protecting(mbr: &[u8], sectors: u64) -> Vec<u8> {
    const TABLE: usize = 446;
    const PROTECTIVE: u8 = 0xee;
    let mut mbr = mbr.to_vec();
    if mbr[TABLE + 4] == PROTECTIVE {
        let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
        mbr[TABLE + 12..TABLE + 16].copy_from_slice(&size.to_le_bytes());
    }
    mbr
}

/// What lies behind everything that a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    sector: u64,
    /// Of the whole disk.
    sectors: u64,
    /// The first free sector, on an aligned boundary.
    first: u64,
    /// The sector behind the last one that a partition may have.
    end: u64,
}

impl Free {
    fn of(disk: &dyn ReadBlocks, table: &Table, raw: &Raw) -> Self {
        let sector = u64::from(disk.sector_size());
        let sectors = disk.size() / sector;
        // The backup of an image lies where the image ends, which is before the end of the disk.
        let backup = Some(raw.alternate()).filter(|lba| *lba < sectors - 1);
        let last = table.entries.iter().map(|entry| entry.last).chain(backup).max();
        let aligned = gpt::ALIGNMENT / sector;
        let first = last.map_or(aligned, |last| (last + 1).next_multiple_of(aligned));
        let tail = (raw.array.len() as u64).div_ceil(sector) + 1;
        let end = sectors.saturating_sub(tail) / aligned * aligned;
        Self { sector, sectors, first, end }
    }

    /// Bytes for a partition.
    fn usable(self) -> u64 {
        self.end.saturating_sub(self.first) * self.sector
    }

    /// Bytes before which everything belongs to the image.
    fn start(self) -> u64 {
        self.first * self.sector
    }
}

/// What is in the free space, to the very end of the disk, besides a backup of this table. Offsets are those of the disk.
fn content(disk: &dyn ReadBlocks, free: Free, planned: Sectors) -> io::Result<Content> {
    let without = provision::without(disk, planned);
    let size = disk.size().saturating_sub(free.start());
    let region = Region { disk: &without, start: free.start(), size };
    let Content { signatures, unknown } = signature::scan(&region, Depth::Disk)?;
    let moved = |offset: u64| offset + free.start();
    Ok(Content {
        signatures: signatures
            .into_iter()
            .map(|found| Found { offset: moved(found.offset), ..found })
            .collect(),
        unknown: unknown.map(moved),
    })
}

/// A part of a disk that is only read.
struct Region<'a> {
    disk: &'a dyn ReadBlocks,
    start: u64,
    size: u64,
}

impl ReadBlocks for Region<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(self.start + offset, buffer)
    }
}

/// An image's table that may take one more partition, as far as the table goes.
struct Fit {
    raw: Raw,
    free: Free,
    /// The addition that the record speaks of.
    resumed: Option<Addition>,
}

impl Fit {
    fn of(
        medium: &dyn ReadBlocks,
        table: &Table,
        record: Option<&Layout>,
    ) -> io::Result<Result<Self, Unfit>> {
        if table.copy == Copy::Backup {
            return Ok(Err(Unfit::Damaged));
        }
        let raw = gpt::read_raw(medium, table.copy)?;
        if let Some(why) = objection(medium, table, &raw)? {
            return Ok(Err(why));
        }
        let free = Free::of(medium, table, &raw);
        let resumed = record.and_then(|layout| Addition::resumed(table, raw.clone(), free, layout));
        if resumed.is_none() && !record_is_blank(medium)? {
            return Ok(Err(Unfit::RecordTaken));
        }
        Ok(Ok(Self { raw, free, resumed }))
    }
}

/// What there is behind an image, for a person who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Bytes for a partition.
    pub(crate) room: u64,
    /// What is there.
    pub(crate) content: Content,
}

/// Looks behind an image as one does who is about to add a partition, and writes nothing.
///
/// # Errors
/// As the disk does.
pub(crate) fn behind(medium: &dyn ReadBlocks, table: &Table) -> io::Result<Result<Behind, Unfit>> {
    let record = intent::read_layout(medium)?;
    let Fit { raw, free, resumed } = match Fit::of(medium, table, record.as_ref())? {
        Ok(fit) => fit,
        Err(why) => return Ok(Err(why)),
    };
    if resumed.is_none() && raw.free_number().is_none() {
        return Ok(Err(Unfit::Full));
    }
    let mut known = gpt::backup_sectors(medium, table)?;
    if let Some(addition) = resumed {
        known.extend(addition.compose(&first_sector(medium)?)?.backup);
    }
    let content = content(medium, free, known)?;
    Ok(Ok(Behind { room: free.usable(), content }))
}

/// What is to be written, and what is to be wiped before it.
#[derive(Debug)]
struct Work {
    addition: Addition,
    composed: Composed,
    free: Free,
    permit: Permit,
    content: Content,
}

/// Decides what to do to a disk that is an image, from what stands on it.
fn decide(
    partition: &Partition,
    disk: &Disk,
    medium: &dyn ReadBlocks,
    table: &Table,
    record: Option<&Layout>,
) -> Result<Work, PartitionErrorKind> {
    let read = failed(disk, DiskErrorKind::Read);
    let unfit = |why| PartitionErrorKind::Unfit { disk: disk.path.clone(), why };
    let Fit { raw, free, resumed } =
        Fit::of(medium, table, record).map_err(&read)?.map_err(unfit)?;
    let is_resumed = resumed.is_some();
    let addition = match resumed {
        Some(addition) => addition,
        None => {
            let random = |source| PartitionErrorKind::Kernel { what: "random bits", source };
            let wanted = Wanted {
                type_guid: partition.type_guid.0,
                label: partition.label.as_str(),
                size: partition.size.map(|size| size.0),
            };
            let guid = random_uuid().map_err(random)?;
            Addition::new(medium, table, raw, wanted, guid).map_err(unfit)?
        }
    };
    let mbr = first_sector(medium).map_err(&read)?;
    let composed = addition.compose(&mbr).map_err(&read)?;
    // The backup of this table is none of the free space's, be it the old one or a part of the new one.
    let mut known = gpt::backup_sectors(medium, table).map_err(&read)?;
    if is_resumed {
        known.extend(composed.backup.iter().cloned());
    }
    let content = content(medium, free, known).map_err(&read)?;
    let permit = plan::permit(partition, disk, &content).map_err(|_| {
        PartitionErrorKind::BehindNotBlank { disk: disk.path.clone(), content: content.clone() }
    })?;
    Ok(Work { addition, composed, free, permit, content })
}

/// Adds the wanted partition to the selected disk, which is an image, if what lies behind that may be written.
///
/// # Errors
/// When it may not; nothing has been written then.
pub(super) fn make(
    partition: &Partition,
    view: &View,
    table: &Table,
    say: &dyn Fn(String),
) -> Result<Entry, PartitionErrorKind> {
    let disk = &view.disk;
    let node = disk.path.display();
    // Opened for reading until it is decided that the disk may be written.
    let file = BlockFile::open(&disk.path).map_err(PartitionErrorKind::Disk)?;
    let record = view.unfinished.as_ref().filter(|l| plan::is_wanted(partition, &l.entry));
    let Work { addition, free, permit, content, .. } =
        decide(partition, disk, &file, table, record)?;
    drop(file);

    if permit == Permit::EraseFirst {
        say(format!("{node}: erasing {content} behind the image, as the machine config says"));
    }
    let size = addition.layout.entry.sectors() * free.sector;
    say(format!("{node}: making partition {} ({size} bytes) behind the image", partition.label));
    let mut file = open_for_writing(view)?;
    // What is written is made from what stands there now: a loader may have changed its code in the first sector.
    let now = decide(partition, disk, &file, table, record)?;
    if (now.free, &now.content) != (free, &content) {
        return Err(PartitionErrorKind::Changed { disk: disk.path.clone(), content: now.content });
    }
    let Work { addition, composed, .. } = now;
    if permit == Permit::EraseFirst {
        erase(&mut file, free).map_err(failed(disk, DiskErrorKind::Write))?;
    }
    provision::write(&mut file, &addition.layout, composed)
        .map_err(failed(disk, DiskErrorKind::Write))?;
    Ok(addition.layout.entry)
}

/// Opens the disk so that nobody else can claim it, and looks at its table again: the decision may be old.
fn open_for_writing(view: &View) -> Result<BlockFile, PartitionErrorKind> {
    let disk = &view.disk;
    let file = BlockFile::open_exclusive(&disk.path).map_err(PartitionErrorKind::Disk)?;
    let now = view_of(disk.clone(), &file).map_err(PartitionErrorKind::Disk)?;
    if now == *view {
        return Ok(file);
    }
    let content = signature::scan(&file, Depth::Disk).map_err(failed(disk, DiskErrorKind::Read))?;
    Err(PartitionErrorKind::Changed { disk: disk.path.clone(), content })
}

/// To the very end of the disk: what stands there is replaced by the table's backup.
fn erase(disk: &mut dyn WriteBlocks, free: Free) -> io::Result<()> {
    let (start, size) = (free.start(), disk.size() - free.start());
    signature::erase(&mut Window { disk, start, size })
}

/// Writes to its end a table of which the record says that it is unfinished. The new partition is there already, in one copy
/// at least, and only sectors of the table are written. Says whether it was: a table that no addition would be made to is left
/// as it is, whatever the record says.
///
/// # Errors
/// As the disk does.
pub(super) fn finish(
    view: &View,
    table: &Table,
    layout: &Layout,
    say: &dyn Fn(String),
) -> Result<bool, PartitionErrorKind> {
    let disk = &view.disk;
    let mut file = open_for_writing(view)?;
    let unfinished = unfinished(&file, table, layout).map_err(failed(disk, DiskErrorKind::Read))?;
    let Some(addition) = unfinished else { return Ok(false) };
    say(format!(
        "{}: finishing a partition table that a power cut left unfinished",
        disk.path.display()
    ));
    complete(&mut file, &addition).map_err(failed(disk, DiskErrorKind::Write))?;
    Ok(true)
}

/// The addition that the record speaks of, if it is in the table and may be written to its end.
fn unfinished(
    disk: &dyn ReadBlocks,
    table: &Table,
    layout: &Layout,
) -> io::Result<Option<Addition>> {
    let raw = gpt::read_raw(disk, table.copy)?;
    if !table.entries.contains(&layout.entry) || objection(disk, table, &raw)?.is_some() {
        return Ok(None);
    }
    let free = Free::of(disk, table, &raw);
    Ok(Addition::resumed(table, raw, free, layout))
}

fn complete(disk: &mut dyn WriteBlocks, addition: &Addition) -> io::Result<()> {
    let composed = addition.compose(&first_sector(disk)?)?;
    provision::write(disk, &addition.layout, composed)
}

fn failed(
    disk: &Disk,
    kind: fn(io::Error) -> DiskErrorKind,
) -> impl Fn(io::Error) -> PartitionErrorKind {
    let path = disk.path.clone();
    move |source| PartitionErrorKind::Disk(DiskError { disk: path.clone(), kind: kind(source) })
}

fn first_sector(disk: &dyn ReadBlocks) -> io::Result<Vec<u8>> {
    let mut mbr = vec![0; disk.sector_size() as usize];
    disk.read_at(0, &mut mbr)?;
    Ok(mbr)
}

/// Whether nothing stands where the record is to be written.
fn record_is_blank(disk: &dyn ReadBlocks) -> io::Result<bool> {
    let mut sector = vec![0; disk.sector_size() as usize];
    disk.read_at(intent::TABLE_OFFSET, &mut sector)?;
    Ok(sector.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use keel_unit::keys::Text;
    use keel_unit::kinds::Wipe;

    use super::super::memory::{MemoryDisk, Op};
    use super::*;

    const MIB: u64 = 1 << 20;
    const TYPE: &str = "7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441";

    fn parse<T: Text>(text: &str) -> T {
        T::parse(text).unwrap()
    }

    fn unit(wipe: Wipe) -> Partition {
        Partition {
            disk: None,
            label: parse("keel-data"),
            type_guid: parse(TYPE),
            size: None,
            wipe,
            timeout: None,
        }
    }

    fn disk() -> Disk {
        Disk { name: "vda".into(), path: "/dev/vda".into(), ..Disk::default() }
    }

    fn image_guid() -> Uuid {
        let mut bytes = [7; 16];
        bytes[..6].copy_from_slice(&IMAGE_DISK_MARK);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// An image of 40 MiB with one partition, written to a disk of 200 MiB.
    fn written(disk_guid: Uuid) -> MemoryDisk {
        let mut image = MemoryDisk::new(40 * MIB, 512);
        let wanted =
            Wanted { type_guid: Uuid::from_u128(5), label: "keel-esp", size: Some(32 * MIB) };
        let layout = Layout::new(&image, wanted, disk_guid, Uuid::from_u128(6)).unwrap();
        provision::provision(&mut image, &layout).unwrap();
        let mut disk = MemoryDisk::new(200 * MIB, 512);
        disk.replay(&image.record);
        disk.poke(0, &[0xeb; 440]);
        disk
    }

    fn decided(unit: &Partition, medium: &MemoryDisk) -> Result<Work, PartitionErrorKind> {
        let table = gpt::read(medium).unwrap().unwrap();
        let record = intent::read_layout(medium).unwrap();
        decide(unit, &disk(), medium, &table, record.as_ref())
    }

    fn apply(medium: &mut MemoryDisk, work: Work) -> Entry {
        if work.permit == Permit::EraseFirst {
            erase(medium, work.free).unwrap();
        }
        provision::write(medium, &work.addition.layout, work.composed).unwrap();
        work.addition.layout.entry
    }

    /// What a boot does: as `partition.rs` does it.
    fn boot(medium: &mut MemoryDisk) -> Entry {
        let table = gpt::read(medium).unwrap().expect("one copy is whole at every instant");
        let there = table.entries.iter().find(|entry| entry.label == "keel-data").cloned();
        let record = intent::read_layout(medium).unwrap();
        match (there, record) {
            (None, _) => {
                let work = decided(&unit(Wipe::Never), medium).unwrap();
                apply(medium, work)
            }
            (Some(entry), Some(layout)) if layout.entry == entry => {
                if let Some(addition) = unfinished(medium, &table, &layout).unwrap() {
                    complete(medium, &addition).unwrap();
                }
                entry
            }
            (Some(entry), _) => entry,
        }
    }

    /// Changes the primary copy of the table, and makes its checksums those of what it is then.
    fn alter(medium: &mut MemoryDisk, change: &dyn Fn(&mut Raw)) {
        let mut raw = gpt::read_raw(medium, Copy::Primary).unwrap();
        change(&mut raw);
        raw.header[88..92].copy_from_slice(&crc32(&raw.array).to_le_bytes());
        raw.header[16..20].fill(0);
        let sum = crc32(&raw.header[..92]);
        raw.header[16..20].copy_from_slice(&sum.to_le_bytes());
        let at = u64::from_le_bytes(raw.header[72..80].try_into().unwrap());
        medium.poke(at * 512, &raw.array);
        medium.poke(512, &raw.header);
    }

    fn move_array(raw: &mut Raw) {
        raw.header[72..80].copy_from_slice(&200u64.to_le_bytes());
    }

    fn bytes(medium: &MemoryDisk) -> Vec<u8> {
        let mut all = vec![0; 200 << 20];
        medium.read_at(0, &mut all).unwrap();
        all
    }

    #[test]
    fn an_image_is_known_by_its_guid() {
        let check = |guid: Uuid, expect: bool| {
            let table = Table { copy: Copy::Primary, disk_guid: guid, entries: Vec::new() };
            assert_eq!(is_image(&table), expect, "{guid}");
        };
        check(image_guid(), true);
        check(Uuid::from_u128(1), false);
        // A random one that happens to begin so.
        let mut random = image_guid().into_bytes();
        random[6] = 0x40;
        check(Uuid::from_bytes(random), false);
    }

    #[test]
    fn the_partition_goes_behind_the_image_and_nothing_else_changes() {
        let mut medium = written(image_guid());
        let before = bytes(&medium);
        let entry = boot(&mut medium);
        assert_eq!(
            (entry.number, entry.first * 512, (entry.last + 1) * 512),
            (2, 40 * MIB, 199 * MIB)
        );
        let after = bytes(&medium);
        assert!(after[..446] == before[..446], "the loader's code");
        assert!(after[1024..1024 + 128] == before[1024..1024 + 128], "the entry that was there");
        assert!(after[1 << 20..40 << 20] == before[1 << 20..40 << 20], "the image");
        assert_eq!(after[458..462], (200 * 2048u32 - 1).to_le_bytes(), "the protective size");
        let table = gpt::read(&medium).unwrap().unwrap();
        assert_eq!(
            (table.copy, table.entries.len(), table.disk_guid),
            (Copy::Primary, 2, image_guid())
        );
        medium.poke(512, b"damage");
        let backup = gpt::read(&medium).unwrap().unwrap();
        assert_eq!((backup.copy, backup.entries), (Copy::Backup, table.entries));
    }

    /// Between any two writes, with writes reordered as far as flushes allow: of the sectors since the last flush, those
    /// before the cut, or those behind it.
    #[test]
    fn a_power_cut_at_any_write_ends_in_the_same_disk() {
        let base = written(image_guid());
        let mut whole = base.clone();
        whole.record.clear();
        boot(&mut whole);
        let record = whole.record.clone();
        for cut in 0..=record.len() {
            let flushed = record[..cut].iter().rposition(|op| *op == Op::Flush).unwrap_or(0);
            let group = record[cut..]
                .iter()
                .position(|op| *op == Op::Flush)
                .map_or(record.len(), |n| cut + n);
            for late in [false, true] {
                let mut medium = base.clone();
                medium.replay(&record[..flushed]);
                medium.replay(if late { &record[cut..group] } else { &record[flushed..cut] });
                let entry = boot(&mut medium);
                assert_eq!(entry.label, "keel-data");
                assert_eq!(intent::read_layout(&medium).unwrap(), None, "{cut}");
                let table = gpt::read(&medium).unwrap().unwrap();
                assert_eq!((table.copy, table.entries.len()), (Copy::Primary, 2), "{cut}");
                let raw = |copy| gpt::read_raw(&medium, copy).unwrap().array;
                assert_eq!(raw(Copy::Primary), raw(Copy::Backup), "{cut}");
            }
        }
    }

    #[test]
    fn who_asks_is_told_what_a_boot_would_find() {
        let check = |medium: &MemoryDisk, expect: Result<(u64, &str), Unfit>| {
            let table = gpt::read(medium).unwrap().unwrap();
            let told = behind(medium, &table).unwrap();
            let told = told.map(|behind| (behind.room, behind.content.to_string()));
            assert_eq!(told, expect.map(|(room, content)| (room, content.to_owned())));
        };
        let mut medium = written(image_guid());
        check(&medium, Ok((159 * MIB, "nothing")));
        medium.poke(45 * MIB + 65536 + 64, b"_BHRfS_M");
        check(&medium, Ok((159 * MIB, "nothing")));
        medium.poke(40 * MIB + 65536 + 64, b"_BHRfS_M");
        check(&medium, Ok((159 * MIB, "btrfs filesystem at offset 42008640")));
        medium.poke(intent::TABLE_OFFSET + 9, b"x");
        check(&medium, Err(Unfit::RecordTaken));

        // What a power cut left of an addition is nobody's data.
        let mut whole = written(image_guid());
        whole.record.clear();
        boot(&mut whole);
        let flushed = whole.record.iter().position(|op| *op == Op::Flush).unwrap();
        let mut cut = written(image_guid());
        cut.replay(&whole.record[..flushed + 5]);
        assert!(intent::read_layout(&cut).unwrap().is_some());
        check(&cut, Ok((159 * MIB, "nothing")));
    }

    #[test]
    fn what_lies_behind_is_left_untouched_unless_the_config_says_to_wipe() {
        let mut medium = written(image_guid());
        medium.poke(100 * MIB + 1080, &[0x53, 0xef]);
        medium.poke(45 * MIB, b"_BHRfS_M");
        medium.poke(40 * MIB + 4096, b"somebody's");
        let error = decided(&unit(Wipe::Never), &medium).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "/dev/vda is selected and holds an image of Keel, but behind that it is not blank: "
            ) && error.contains("unknown data at offset 41947136"),
            "{error}"
        );
        let before = bytes(&medium);
        let work = decided(&unit(Wipe::Always), &medium).unwrap();
        apply(&mut medium, work);
        let after = bytes(&medium);
        assert!(after[1 << 20..40 << 20] == before[1 << 20..40 << 20], "the image");
        assert!(after[40 << 20..44 << 20].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_table_that_cannot_take_it_is_left_as_it_is() {
        let check = |change: &dyn Fn(&mut MemoryDisk), expect: &str| {
            let mut medium = written(image_guid());
            change(&mut medium);
            let error = decided(&unit(Wipe::Always), &medium).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("/dev/vda is selected and holds an image of Keel, but {expect}")
            );
        };
        check(
            &|medium| medium.poke(intent::TABLE_OFFSET + 9, b"x"),
            "there is something between its partition table and its first partition",
        );
        let elsewhere = "its partition table is laid out in another way than an image's";
        check(&|medium| alter(medium, &move_array), elsewhere);
        // The record would lie within the array.
        let longest = |raw: &mut Raw| {
            raw.header[80..84].copy_from_slice(&4096u32.to_le_bytes());
            raw.array.resize(4096 * 128, 0);
        };
        check(&|medium| alter(medium, &longest), elsewhere);
        let small = {
            let mut small = MemoryDisk::new(50 * MIB, 512);
            let image = written(image_guid());
            let mut head = vec![0; 41 << 20];
            image.read_at(0, &mut head).unwrap();
            small.poke(0, &head);
            small
        };
        let error = decided(&unit(Wipe::Never), &small).unwrap_err().to_string();
        assert!(error.ends_with("not enough room behind it: the disk has 9437184 bytes for partitions, 16777216 are wanted"), "{error}");
    }

    /// A record is a plain checksum over what anybody may have written, a former life of this disk included.
    #[test]
    fn an_addition_is_taken_up_only_where_one_would_be_made() {
        let fresh = decided(&unit(Wipe::Never), &written(image_guid())).unwrap();
        let (ours, free) = (fresh.addition.layout, fresh.free);
        let decided_on = |change: &dyn Fn(&mut Entry), table: &dyn Fn(&mut Raw)| {
            let mut medium = written(image_guid());
            let mut layout = ours.clone();
            change(&mut layout.entry);
            alter(&mut medium, table);
            intent::write_layout(&mut medium, &layout).unwrap();
            // Whatever stands there may be wiped: that is no leave to write anywhere else.
            decided(&unit(Wipe::Always), &medium).map(|work| work.addition.layout.entry)
        };
        assert_eq!(decided_on(&|_| {}, &|_| {}).unwrap(), ours.entry);
        let at = |first: u64, last: u64| {
            move |entry: &mut Entry| (entry.first, entry.last) = (first, last)
        };
        let check = |what: &str, change: &dyn Fn(&mut Entry)| {
            let error = decided_on(change, &|_| {}).map_err(|error| error.to_string());
            let taken = format!(
                "/dev/vda is selected and holds an image of Keel, but {}",
                Unfit::RecordTaken
            );
            assert_eq!(error, Err(taken), "{what}");
        };
        check("no number", &|entry| entry.number = 0);
        check("a number that the array has not", &|entry| entry.number = 129);
        check("backwards", &at(free.first + 1, free.first));
        check("the table's array", &at(2, 33));
        check("the gap before the image's partition", &at(1100, 2000));
        check("the gap behind the image's partition", &at(34 * 2048, 35 * 2048 - 1));
        check("from the gap into the free space", &at(39 * 2048, free.end - 1));
        check("one sector too early", &at(free.first - 1, free.end - 1));
        check("one sector too far", &at(free.first, free.end));
        check("the table's backup", &at(200 * 2048 - 33, 200 * 2048 - 1));
        check("beyond the disk", &at(free.first, u64::MAX));

        let beyond = |raw: &mut Raw| {
            raw.array[128..144].fill(9);
            raw.array[160..168].copy_from_slice(&500_000u64.to_le_bytes());
            raw.array[168..176].copy_from_slice(&600_000u64.to_le_bytes());
        };
        let error = decided_on(&|_| {}, &beyond).unwrap_err().to_string();
        assert!(error.ends_with(&Unfit::Beyond.to_string()), "{error}");
    }

    #[test]
    fn an_addition_that_is_there_is_not_finished_where_the_array_was_moved() {
        let mut medium = written(image_guid());
        let work = decided(&unit(Wipe::Never), &medium).unwrap();
        let layout = work.addition.layout.clone();
        let entry = apply(&mut medium, work);
        intent::write_layout(&mut medium, &layout).unwrap();
        alter(&mut medium, &move_array);
        medium.poke(1024, b"somebody's, since the array was moved");
        let check = |mut medium: MemoryDisk, copy: Copy| {
            assert_eq!(gpt::read(&medium).unwrap().unwrap().copy, copy);
            let before = bytes(&medium);
            assert_eq!(boot(&mut medium), entry);
            assert!(bytes(&medium) == before, "{copy:?}");
        };
        check(medium.clone(), Copy::Primary);
        medium.poke(200 * 512 + 3, b"damage");
        check(medium.clone(), Copy::Backup);
        // Nor where the primary header is damaged: no cut of ours does that, and it cannot say where its array is.
        medium.poke(512 + 60, b"damage");
        check(medium, Copy::Backup);
    }
}

//! A partition table is written so that a power cut at any write leaves a disk that the next boot takes up again.
//!
//! The order: what stands there is erased (only where the config says so), the intent is recorded, then the backup copy,
//! then the primary one, its header last; then the record is blanked. Each step ends with a flush. Before the record, the
//! disk is what it was; while it stands, the disk is ours and unfinished; once a header stands, the partition is located.
//! Taking up again writes the same sectors: the record holds every GUID that was drawn.

use std::collections::BTreeMap;
use std::io;

use super::block::{ReadBlocks, WriteBlocks};
use super::gpt::{Composed, Layout, Sectors};
use super::{intent, signature};

/// Writes the layout.
///
/// # Errors
/// As the disk does.
pub(super) fn provision(disk: &mut dyn WriteBlocks, layout: &Layout) -> io::Result<()> {
    write(disk, layout, layout.compose()?)
}

/// Writes these sectors, which make the layout true.
///
/// # Errors
/// As the disk does.
pub(super) fn write(
    disk: &mut dyn WriteBlocks,
    layout: &Layout,
    composed: Composed,
) -> io::Result<()> {
    intent::write_layout(disk, layout)?;
    for group in [composed.backup, composed.primary, composed.primary_header] {
        for (offset, bytes) in group {
            disk.write_at(offset, &bytes)?;
        }
        disk.flush()?;
    }
    intent::clear_layout(disk)
}

/// Erases what is on the disk, as far as anything would be found there, and in the place of the new partition too: what
/// an old filesystem left there must not be mistaken for the new one's.
///
/// # Errors
/// As the disk does.
pub(super) fn erase(disk: &mut dyn WriteBlocks, layout: &Layout) -> io::Result<()> {
    signature::erase(disk)?;
    let sector = u64::from(layout.sector_size);
    let (start, size) = (layout.entry.first * sector, layout.entry.sectors() * sector);
    signature::erase(&mut Window { disk, start, size })
}

/// A disk seen without what an unfinished provisioning of this layout has written to it.
///
/// # Errors
/// When gptman finds the layout impossible.
pub(super) fn without_unfinished<'a>(
    disk: &'a dyn ReadBlocks,
    layout: &Layout,
) -> io::Result<impl ReadBlocks + 'a> {
    let composed = layout.compose()?;
    let groups: [Sectors; 3] = [composed.backup, composed.primary, composed.primary_header];
    let record = (intent::TABLE_OFFSET, Vec::new());
    Ok(without(disk, groups.into_iter().flatten().chain([record]).collect()))
}

/// A disk seen without those of these sectors that stand on it.
pub(super) fn without(disk: &dyn ReadBlocks, planned: Sectors) -> impl ReadBlocks {
    Without { disk, planned: planned.into_iter().collect() }
}

/// See [`without`]: each planned sector that stands on the disk reads as zeros; one that differs does not.
struct Without<'a> {
    disk: &'a dyn ReadBlocks,
    planned: BTreeMap<u64, Vec<u8>>,
}

impl ReadBlocks for Without<'_> {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buffer)?;
        let sector_size = u64::from(self.sector_size());
        let end = offset + buffer.len() as u64;
        for (&sector, planned) in self.planned.range(offset / sector_size * sector_size..end) {
            if self.stands(sector, planned)? {
                let (from, to) = (sector.max(offset), (sector + sector_size).min(end));
                buffer[(from - offset) as usize..(to - offset) as usize].fill(0);
            }
        }
        Ok(())
    }
}

impl Without<'_> {
    /// Whether this planned sector is on the disk. The record itself is: it was read and found whole.
    fn stands(&self, sector: u64, planned: &[u8]) -> io::Result<bool> {
        if sector == intent::TABLE_OFFSET {
            return Ok(true);
        }
        let mut stands = vec![0; planned.len()];
        self.disk.read_at(sector, &mut stands)?;
        Ok(stands == planned)
    }
}

/// A part of a disk, as a disk.
pub(super) struct Window<'a> {
    pub(super) disk: &'a mut dyn WriteBlocks,
    pub(super) start: u64,
    pub(super) size: u64,
}

impl ReadBlocks for Window<'_> {
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

impl WriteBlocks for Window<'_> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(self.start + offset, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::gpt::{self, Table, Wanted};
    use super::super::memory::{MemoryDisk, Op};
    use super::super::signature::{Depth, scan};
    use super::*;

    const MIB: u64 = 1 << 20;

    fn layout(disk: &MemoryDisk) -> Layout {
        let wanted = Wanted { type_guid: Uuid::from_u128(0xabc), label: "keel-data", size: None };
        Layout::new(disk, wanted, Uuid::from_u128(1), Uuid::from_u128(2)).unwrap()
    }

    /// What the next boot makes of the disk.
    #[derive(Debug, PartialEq)]
    enum State {
        Blank,
        Unfinished,
        Located,
        Foreign(String),
    }

    fn state(disk: &MemoryDisk, layout: &Layout) -> State {
        let table = gpt::read(disk).unwrap();
        if table.is_some_and(|Table { entries, .. }| entries == [layout.entry.clone()]) {
            return State::Located;
        }
        let content = match intent::read_layout(disk).unwrap() {
            Some(found) => {
                assert_eq!(found, *layout);
                scan(&without_unfinished(disk, &found).unwrap(), Depth::Disk).unwrap()
            }
            None => scan(disk, Depth::Disk).unwrap(),
        };
        match (content.is_blank(), scan(disk, Depth::Disk).unwrap().is_blank()) {
            (true, true) => State::Blank,
            (true, false) => State::Unfinished,
            (false, _) => State::Foreign(content.to_string()),
        }
    }

    #[test]
    fn after_a_power_cut_at_any_write_the_disk_is_blank_unfinished_or_located() {
        for sector_size in [512, 4096] {
            let blank = MemoryDisk::new(64 * MIB, sector_size);
            let layout = layout(&blank);
            let mut whole = blank.clone();
            provision(&mut whole, &layout).unwrap();
            let mut seen = Vec::new();
            for cut in 0..=whole.record.len() {
                let mut disk = blank.clone();
                disk.replay(&whole.record[..cut]);
                seen.push(state(&disk, &layout));
                if let Some(State::Foreign(what)) = seen.last() {
                    panic!("cut after {cut} of {}: {what}", whole.record.len());
                }
                // The next boot writes the same again, and then the disk is the one that no cut interrupted.
                provision(&mut disk, &layout).unwrap();
                for op in &whole.record {
                    let Op::Sector(offset, _) = op else { continue };
                    let (mut after, mut expect) =
                        (vec![0; sector_size as usize], vec![0; sector_size as usize]);
                    disk.read_at(*offset, &mut after).unwrap();
                    whole.read_at(*offset, &mut expect).unwrap();
                    assert_eq!(after, expect, "cut after {cut}, offset {offset}");
                }
            }
            seen.dedup();
            assert_eq!(seen, [State::Blank, State::Unfinished, State::Located]);
        }
    }

    /// Between two flushes a disk may write in any order: each single write of the group alone, and all but each.
    #[test]
    fn a_disk_that_reorders_writes_between_flushes_changes_nothing_of_that() {
        let blank = MemoryDisk::new(64 * MIB, 512);
        let layout = layout(&blank);
        let mut whole = blank.clone();
        provision(&mut whole, &layout).unwrap();
        let groups: Vec<&[Op]> = whole.record.split(|op| *op == Op::Flush).collect();
        for (i, group) in groups.iter().enumerate() {
            let mut before = blank.clone();
            groups[..i].iter().for_each(|group| before.replay(*group));
            for chosen in 0..group.len() {
                let mut alone = before.clone();
                alone.replay([&group[chosen]]);
                let mut all_but = before.clone();
                all_but.replay(
                    group.iter().enumerate().filter(|(n, _)| *n != chosen).map(|(_, op)| op),
                );
                for disk in [alone, all_but] {
                    let state = state(&disk, &layout);
                    assert!(
                        !matches!(state, State::Foreign(_)),
                        "group {i}, write {chosen}: {state:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn foreign_data_beside_an_unfinished_table_is_still_foreign() {
        let blank = MemoryDisk::new(64 * MIB, 512);
        let layout = layout(&blank);
        let mut whole = blank.clone();
        provision(&mut whole, &layout).unwrap();
        let check = |offset: u64, bytes: &[u8], expect: &str| {
            let mut disk = blank.clone();
            disk.replay(&whole.record[..8]);
            assert_eq!(state(&disk, &layout), State::Unfinished);
            disk.poke(offset, bytes);
            assert_eq!(state(&disk, &layout), State::Foreign(expect.to_owned()));
        };
        check(0, b"XFSB", "XFS filesystem at offset 0");
        check(512, b"EFI PART", "GPT partition table at offset 512");
        check(2 * MIB, b"x", "unknown data at offset 2097152");
        // A sector that the layout would write, but with something else in it.
        check(2 * 512 + 5, b"x", "unknown data at offset 1024");
    }

    #[test]
    fn erasing_leaves_nothing_in_the_place_of_the_partition() {
        let mut disk = MemoryDisk::new(128 * MIB, 512);
        let layout = layout(&disk);
        disk.poke(0, b"LUKS\xba\xbe");
        disk.poke(layout.entry.first * 512 + 64 * MIB + 64, b"_BHRfS_M");
        disk.poke(layout.entry.last * 512, b"x");
        erase(&mut disk, &layout).unwrap();
        assert!(scan(&disk, Depth::Disk).unwrap().is_blank());
        let window = Window { start: MIB, size: layout.entry.sectors() * 512, disk: &mut disk };
        assert!(scan(&window, Depth::Disk).unwrap().is_blank());
    }
}

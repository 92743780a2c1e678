//! Which partition is the one, and which disk may be written to have it.
//!
//! Locate comes before provision: a partition with the right type and name is used, wherever it is and whatever the selector
//! says. Two are an error. With none, the selector must mean exactly one disk, and what would be written there must be blank, or
//! the config must say that it is to be wiped.

use std::fmt;

use super::disk::{DiskFacts, matching_disks};
use crate::kinds::{Partition, Wipe};
use crate::value::Guid;

/// What the rule asks of a disk besides what a selector asks.
pub trait TableFacts: DiskFacts {
    /// Whether it cannot be written.
    fn is_read_only(&self) -> bool;
    /// Its partitions.
    fn entries(&self) -> Vec<EntryFacts<'_>>;
}

/// A partition of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryFacts<'a> {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub label: &'a str,
    /// Its type; nothing where it is not known, which is taken for the right one.
    pub type_guid: Option<Guid>,
}

impl EntryFacts<'_> {
    /// Whether this is the wanted one: by type and by name, because either alone may be somebody else's.
    pub fn is_wanted(&self, wanted: &Partition) -> bool {
        self.label == wanted.label.as_str()
            && self.type_guid.is_none_or(|guid| guid == wanted.type_guid)
    }
}

/// What to do about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'a, D> {
    /// It is there.
    Located {
        /// On this disk.
        disk: &'a D,
        /// With this number.
        number: u32,
    },
    /// It is nowhere; the config selects this disk for it.
    Selected(&'a D),
}

/// Why neither can be done: the answer would be a guess.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal<'a, D> {
    /// It is nowhere, and the config selects no disk for it.
    NotSelected,
    /// It is in more than one place: on these disks, with these numbers.
    Twice(Vec<(&'a D, u32)>),
    /// It is on none of the disks that could be read, and may be on the one that could not: a fresh, empty one elsewhere would take
    /// its place unnoticed.
    Unread,
    /// It is nowhere, and the selector fits no disk.
    NoDisk,
    /// It is nowhere, and the selector fits all of these.
    ManyDisks(Vec<&'a D>),
    /// The selected disk cannot be written.
    ReadOnly(&'a D),
}

/// Decides between locating and provisioning. `unread` says whether there are disks that could not be read, and are not among these.
///
/// # Errors
/// When the answer would be a guess.
pub fn choose<'a, D: TableFacts>(
    wanted: &Partition,
    disks: &'a [D],
    unread: bool,
) -> Result<Choice<'a, D>, Refusal<'a, D>> {
    let located: Vec<_> = disks
        .iter()
        .flat_map(|disk| disk.entries().into_iter().map(move |entry| (disk, entry)))
        .filter(|(_, entry)| entry.is_wanted(wanted))
        .map(|(disk, entry)| (disk, entry.number))
        .collect();
    match located.as_slice() {
        [] => {}
        [(disk, number)] => return Ok(Choice::Located { disk, number: *number }),
        _ => return Err(Refusal::Twice(located)),
    }
    let Some(selector) = &wanted.disk else { return Err(Refusal::NotSelected) };
    if unread {
        return Err(Refusal::Unread);
    }
    let meant = matching_disks(selector, disks);
    match meant.as_slice() {
        [] => Err(Refusal::NoDisk),
        [disk] if disk.is_read_only() => Err(Refusal::ReadOnly(disk)),
        [disk] => Ok(Choice::Selected(disk)),
        _ => Err(Refusal::ManyDisks(meant)),
    }
}

/// Whether a place may be written: the selected disk, or the space behind the image that it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// It is blank.
    Write,
    /// It is not, and the config says to wipe it.
    EraseFirst,
}

/// Decides whether a place may be written; nothing: it may not.
pub fn permit(wipe: Wipe, is_blank: bool) -> Option<Permit> {
    match wipe {
        _ if is_blank => Some(Permit::Write),
        Wipe::Always => Some(Permit::EraseFirst),
        Wipe::Never => None,
    }
}

/// Partitions start and end on this boundary, so that they suit every erase block and RAID stripe in use.
pub const ALIGNMENT: u64 = 1 << 20;
/// The smallest partition that is made: below it no ext4 with a journal is worth its name.
const SMALLEST: u64 = 16 << 20;

/// Bytes for one partition on a disk that is written anew.
pub fn room_on(size: u64, sector: u64) -> u64 {
    // At the end stand the backup array of 128 entries of 128 bytes and, in the last sector, the backup header.
    let tail = (128u64 * 128).div_ceil(sector) + 1;
    let end = (size / sector).saturating_sub(tail) * sector / ALIGNMENT * ALIGNMENT;
    end.saturating_sub(ALIGNMENT)
}

/// A place in which a partition does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSmall {
    /// Bytes that there are.
    pub usable: u64,
    /// Bytes that it takes.
    pub wanted: u64,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { usable, wanted } = self;
        write!(f, "the disk has {usable} bytes for partitions, {wanted} are wanted")
    }
}

impl std::error::Error for TooSmall {}

/// A partition's size in bytes on whole alignments, where there are that many; without a wanted size, all that there are.
///
/// # Errors
/// [`TooSmall`] where there are not.
pub fn size_within(wanted: Option<u64>, usable: u64) -> Result<u64, TooSmall> {
    let aligned = wanted.map_or(usable, |size| size.div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT));
    let size = aligned.max(SMALLEST);
    if size > usable { Err(TooSmall { usable, wanted: size }) } else { Ok(size) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::keys::Text;
    use crate::kinds::{Bus, DiskSelector};

    const TYPE: &str = "7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441";
    const OTHER_TYPE: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";

    /// Its path, whether it is read-only, and its partitions: number, label, type.
    #[derive(Debug, PartialEq)]
    struct Disk(&'static str, bool, Vec<(u32, &'static str, Option<&'static str>)>);

    impl DiskFacts for Disk {
        fn path(&self) -> &Path {
            Path::new(self.0)
        }
        fn ids(&self) -> Vec<String> {
            Vec::new()
        }
        fn serial(&self) -> Option<&str> {
            None
        }
        fn model(&self) -> Option<&str> {
            None
        }
        fn size(&self) -> u64 {
            1 << 30
        }
        fn bus(&self) -> Option<Bus> {
            Some(Bus::Virtio)
        }
    }

    impl TableFacts for Disk {
        fn is_read_only(&self) -> bool {
            self.1
        }
        fn entries(&self) -> Vec<EntryFacts<'_>> {
            let facts = |&(number, label, guid): &(u32, &'static str, Option<&str>)| EntryFacts {
                number,
                label,
                type_guid: guid.map(parse),
            };
            self.2.iter().map(facts).collect()
        }
    }

    fn parse<T: Text>(text: &str) -> T {
        T::parse(text).unwrap()
    }

    fn wanted(disk: Option<(Option<&str>, Option<Bus>)>) -> Partition {
        Partition {
            disk: disk.map(|(path, bus)| DiskSelector {
                path: path.map(parse),
                by_id: None,
                serial: None,
                model: None,
                min_size: None,
                max_size: None,
                bus,
            }),
            label: parse("keel-data"),
            type_guid: parse(TYPE),
            size: None,
            wipe: Wipe::Never,
            timeout: None,
        }
    }

    fn check(wanted: &Partition, disks: &[Disk], unread: bool, expect: &str) {
        let paths = |disks: &[&Disk]| disks.iter().map(|d| d.0).collect::<Vec<_>>().join(" ");
        let outcome = match choose(wanted, disks, unread) {
            Ok(Choice::Located { disk, number }) => format!("located {} {number}", disk.0),
            Ok(Choice::Selected(disk)) => format!("selected {}", disk.0),
            Err(Refusal::Twice(places)) => {
                let each = places.iter().map(|(disk, number)| format!("{} {number}", disk.0));
                format!("twice {}", each.collect::<Vec<_>>().join(", "))
            }
            Err(Refusal::ManyDisks(disks)) => format!("many {}", paths(&disks)),
            Err(Refusal::ReadOnly(disk)) => format!("read-only {}", disk.0),
            Err(refusal) => format!("{refusal:?}"),
        };
        assert_eq!(outcome, expect);
    }

    #[test]
    fn a_partition_is_located_before_a_disk_is_selected() {
        let a = || Some((Some("/dev/a"), None));
        let ours = (3, "keel-data", Some(TYPE));
        let others = || vec![(1, "keel-data", Some(OTHER_TYPE)), (2, "scratch", Some(TYPE))];
        let blank = || Disk("/dev/a", false, vec![]);
        let full = || Disk("/dev/b", false, [others(), vec![ours]].concat());
        check(&wanted(a()), &[blank(), full()], false, "located /dev/b 3");
        check(&wanted(None), &[full()], true, "located /dev/b 3");
        check(&wanted(None), &[Disk("/dev/b", true, vec![ours])], false, "located /dev/b 3");
        check(&wanted(a()), &[blank(), Disk("/dev/b", false, others())], false, "selected /dev/a");
        let both = [Disk("/dev/a", false, vec![ours]), full()];
        check(&wanted(a()), &both, false, "twice /dev/a 3, /dev/b 3");
        // On one disk too: nobody can say which.
        let twice = [Disk("/dev/a", false, vec![ours, (4, "keel-data", None)])];
        check(&wanted(a()), &twice, false, "twice /dev/a 3, /dev/a 4");
    }

    #[test]
    fn no_disk_is_ever_guessed() {
        let disks = || [Disk("/dev/a", false, vec![]), Disk("/dev/b", true, vec![])];
        let virtio = Some((None, Some(Bus::Virtio)));
        check(&wanted(None), &disks(), false, "NotSelected");
        check(&wanted(virtio), &disks(), false, "many /dev/a /dev/b");
        check(&wanted(Some((None, Some(Bus::Nvme)))), &disks(), false, "NoDisk");
        check(&wanted(Some((Some("/dev/b"), None))), &disks(), false, "read-only /dev/b");
        check(&wanted(Some((Some("/dev/a"), None))), &disks(), false, "selected /dev/a");
        check(&wanted(Some((Some("/dev/a"), None))), &disks(), true, "Unread");
    }

    #[test]
    fn only_what_is_blank_or_to_wipe_is_written() {
        assert_eq!(permit(Wipe::Never, true), Some(Permit::Write));
        assert_eq!(permit(Wipe::Always, true), Some(Permit::Write));
        assert_eq!(permit(Wipe::Always, false), Some(Permit::EraseFirst));
        assert_eq!(permit(Wipe::Never, false), None);
    }

    #[test]
    fn a_partition_takes_whole_mebibytes_and_at_least_sixteen() {
        const MIB: u64 = 1 << 20;
        let check = |wanted: Option<u64>, usable: u64, expect: Result<u64, u64>| {
            let size = size_within(wanted, usable);
            assert_eq!(size, expect.map_err(|wanted| TooSmall { usable, wanted }));
        };
        check(None, 98 * MIB, Ok(98 * MIB));
        check(Some(20 * MIB + 1), 98 * MIB, Ok(21 * MIB));
        check(Some(1), 98 * MIB, Ok(16 * MIB));
        check(None, 15 * MIB, Err(16 * MIB));
        check(Some(99 * MIB), 98 * MIB, Err(99 * MIB));
        check(Some(u64::MAX), MIB, Err(u64::MAX));
        assert_eq!(room_on(100 * MIB, 512), 98 * MIB);
        assert_eq!(room_on(100 * MIB, 4096), 98 * MIB);
        assert_eq!(room_on(512, 512), 0);
    }
}

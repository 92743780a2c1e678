//! Which partition is the one, or which disk may be written to have it. Pure: everything that was read comes in.
//!
//! The rule itself is keel-unit's (`select/partition.rs`), where `osctl verify` asks it too; here are this machine's facts and words
//! for it.

use std::fmt;
use std::path::{Path, PathBuf};

use keel_unit::kinds::{Bus, Partition};
pub use keel_unit::select::Permit;
use keel_unit::select::{self, DiskFacts, EntryFacts, Refusal, TableFacts};
use keel_unit::value::{ByteSize, Guid};

use super::addition::Unfit;
use super::error::{DiskError, error_of_kind};
use super::gpt::{Copy, Entry, Layout, Table, TooSmall};
use super::inventory::Disk;
use super::signature::Content;

/// A disk and what its first and last sectors say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The disk.
    pub disk: Disk,
    /// Its partition table.
    pub table: Option<Table>,
    /// The layout that was being written when the power went.
    pub unfinished: Option<Layout>,
}

impl DiskFacts for View {
    fn path(&self) -> &Path {
        DiskFacts::path(&self.disk)
    }

    fn ids(&self) -> Vec<String> {
        self.disk.ids()
    }

    fn serial(&self) -> Option<&str> {
        DiskFacts::serial(&self.disk)
    }

    fn model(&self) -> Option<&str> {
        DiskFacts::model(&self.disk)
    }

    fn size(&self) -> u64 {
        DiskFacts::size(&self.disk)
    }

    fn bus(&self) -> Option<Bus> {
        DiskFacts::bus(&self.disk)
    }
}

impl TableFacts for View {
    fn is_read_only(&self) -> bool {
        self.disk.read_only
    }

    fn entries(&self) -> Vec<EntryFacts<'_>> {
        self.table.iter().flat_map(|table| &table.entries).map(facts).collect()
    }
}

fn facts(entry: &Entry) -> EntryFacts<'_> {
    let type_guid = Some(Guid(entry.type_guid));
    EntryFacts { number: entry.number, label: &entry.label, type_guid }
}

/// What to do about the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'a> {
    /// It is there.
    Located {
        /// On this disk.
        view: &'a View,
        /// In this entry.
        entry: &'a Entry,
    },
    /// It is nowhere; the config selects this disk for it.
    Selected(&'a View),
}

/// Decides between locating and provisioning, by the rule that `osctl verify` foresees it with.
///
/// # Errors
/// When the answer would be a guess.
pub fn choose<'a>(
    wanted: &Partition,
    views: &'a [View],
    unreadable: &mut Vec<DiskError>,
) -> Result<Choice<'a>, PartitionErrorKind> {
    let described = |views: &[&View]| views.iter().map(|view| describe(&view.disk)).collect();
    match select::choose(wanted, views, !unreadable.is_empty()) {
        Ok(select::Choice::Located { disk: view, number }) => {
            let mut entries = view.table.iter().flat_map(|table| &table.entries);
            let entry = entries.find(|entry| entry.number == number);
            entry.map_or(Err(PartitionErrorKind::NotFound), |entry| {
                Ok(Choice::Located { view, entry })
            })
        }
        Ok(select::Choice::Selected(view)) => Ok(Choice::Selected(view)),
        Err(Refusal::Twice(places)) => {
            let places = places
                .iter()
                .map(|(view, number)| format!("{}, partition {number}", view.disk.path.display()));
            Err(PartitionErrorKind::FoundTwice(places.collect()))
        }
        Err(Refusal::NotSelected) => Err(PartitionErrorKind::NotFound),
        Err(Refusal::Unread) => {
            let error = unreadable.pop().map(PartitionErrorKind::Disk);
            Err(error.unwrap_or(PartitionErrorKind::NotFound))
        }
        Err(Refusal::NoDisk) => {
            Err(PartitionErrorKind::NoDisk(described(&views.iter().collect::<Vec<_>>())))
        }
        Err(Refusal::ReadOnly(view)) => Err(PartitionErrorKind::ReadOnly(view.disk.path.clone())),
        Err(Refusal::ManyDisks(views)) => Err(PartitionErrorKind::ManyDisks(described(&views))),
    }
}

/// Whether this entry is the wanted one.
pub fn is_wanted(wanted: &Partition, entry: &Entry) -> bool {
    facts(entry).is_wanted(wanted)
}

/// Decides whether a disk with this content may be written.
///
/// # Errors
/// With the reason, if it may not.
pub fn permit(
    wanted: &Partition,
    disk: &Disk,
    content: &Content,
) -> Result<Permit, PartitionErrorKind> {
    select::permit(wanted.wipe, content.is_blank()).ok_or_else(|| PartitionErrorKind::NotBlank {
        disk: disk.path.clone(),
        content: content.clone(),
    })
}

/// Whether a located table, of which the record says that it is unfinished, may be written to its end: only while there is
/// nothing else on the disk. With a whole primary copy there is nothing left to write but the blanking of the record, and
/// the partition is used as it is.
///
/// # Errors
/// When only the backup copy is whole, and something else is on the disk.
pub fn may_finish(view: &View, content: &Content) -> Result<bool, PartitionErrorKind> {
    match view.table.as_ref().map(|table| table.copy) {
        _ if content.is_blank() => Ok(true),
        Some(Copy::Primary) => Ok(false),
        Some(Copy::Backup) | None => Err(PartitionErrorKind::NotBlank {
            disk: view.disk.path.clone(),
            content: content.clone(),
        }),
    }
}

/// How a person tells one disk from another: `/dev/vda (virtio, 10.0 GiB, serial keel-data)`.
fn describe(disk: &Disk) -> String {
    let mut facts = Vec::new();
    facts.extend(disk.bus.map(|bus| bus.as_str().to_owned()));
    facts.push(ByteSize(disk.size).rounded());
    facts.extend(disk.model.as_ref().map(|model| format!("model {model}")));
    facts.extend(disk.serial.as_ref().map(|serial| format!("serial {serial}")));
    format!("{} ({})", disk.path.display(), facts.join(", "))
}

/// What a person should know of a located partition, though it can be used.
pub fn note(view: &View) -> Option<String> {
    let damaged = view.table.as_ref().is_some_and(|table| table.copy == Copy::Backup)
        && view.unfinished.is_none();
    damaged.then(|| {
        format!(
            "{}: the primary partition table is damaged; the backup at the end of the disk is used",
            view.disk.path.display()
        )
    })
}

/// Why there is no partition.
#[derive(Debug)]
pub struct PartitionError {
    /// The wanted name.
    pub label: String,
    /// What stands in the way.
    pub kind: PartitionErrorKind,
}

error_of_kind!(PartitionError, |error| format_args!("partition {}", error.label));

/// What stands in the way of a partition.
#[derive(Debug, thiserror::Error)]
pub enum PartitionErrorKind {
    /// It is nowhere, and the config selects no disk for it.
    #[error("on no disk, and the machine config selects none to make it on (`storage.data.disk`)")]
    NotFound,
    /// It is nowhere, and the selector fits no disk.
    #[error("on no disk, and the selected disk is not there; there are: {}", list(.0))]
    NoDisk(Vec<String>),
    /// It is in more than one place.
    #[error("found more than once: {}; the disks are left as they are", list(.0))]
    FoundTwice(Vec<String>),
    /// It is nowhere, and the selector fits more than one disk.
    #[error("on no disk, and the selector fits more than one: {}; none is written", list(.0))]
    ManyDisks(Vec<String>),
    /// The selected disk cannot be written.
    #[error("{} is selected, but read-only", .0.display())]
    ReadOnly(PathBuf),
    /// There is something on the selected disk.
    #[error("{} is selected, but not blank: {content}; it is left untouched (`wipe = \"always\"` would overwrite it)", disk.display())]
    NotBlank {
        /// The disk.
        disk: PathBuf,
        /// What is there.
        content: Content,
    },
    /// The selected disk is an image, and behind it there is something.
    #[error("{} is selected and holds an image of Keel, but behind that it is not blank: {content}; it is left untouched (`wipe = \"always\"` would overwrite what is behind the image)", disk.display())]
    BehindNotBlank {
        /// The disk.
        disk: PathBuf,
        /// What is there.
        content: Content,
    },
    /// The selected disk is an image, and nothing can be added to it.
    #[error("{} is selected and holds an image of Keel, but {why}", disk.display())]
    Unfit {
        /// The disk.
        disk: PathBuf,
        /// Why not.
        why: Unfit,
    },
    /// Something was written to the disk after it was looked at, and before it was opened for writing.
    #[error("{} has changed while it was looked at, and now holds {content}; it is left untouched", disk.display())]
    Changed {
        /// The disk.
        disk: PathBuf,
        /// What is there now.
        content: Content,
    },
    /// The selected disk is too small.
    #[error("{} is selected, but too small", disk.display())]
    TooSmall {
        /// The disk.
        disk: PathBuf,
        /// By how much.
        #[source]
        source: TooSmall,
    },
    /// A disk could not be read or written.
    #[error(transparent)]
    Disk(DiskError),
    /// The kernel gave no random bits, or sysfs is not there.
    #[error("the kernel gave no {what}")]
    Kernel {
        /// What it did not give.
        what: &'static str,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// The machine shuts down.
    #[error("not done, because the machine shuts down")]
    Stopped,
}

impl PartitionErrorKind {
    /// Whether it may pass by itself: when a disk appears that is still being probed, or when another attempt, which was given up
    /// and goes on all the same, makes the partition.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NotFound | Self::NoDisk(_) | Self::Changed { .. })
    }
}

fn list(items: &[String]) -> impl fmt::Display {
    if items.is_empty() { "none".to_owned() } else { items.join("; ") }
}

#[cfg(test)]
mod tests {
    use keel_unit::keys::Text;
    use keel_unit::kinds::{DiskSelector, Wipe};
    use uuid::Uuid;

    use super::super::signature::Found;
    use super::*;
    use crate::disk::error::DiskErrorKind;

    const TYPE: &str = "7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441";

    fn parse<T: Text>(text: &str) -> T {
        T::parse(text).unwrap()
    }

    fn selector() -> DiskSelector {
        DiskSelector {
            path: None,
            by_id: None,
            serial: None,
            model: None,
            min_size: None,
            max_size: None,
            bus: None,
        }
    }

    fn wanted(disk: Option<DiskSelector>) -> Partition {
        Partition {
            disk,
            label: parse("keel-data"),
            type_guid: parse(TYPE),
            size: None,
            wipe: Wipe::Never,
            timeout: None,
        }
    }

    fn disk(name: &str, size: u64) -> Disk {
        Disk {
            name: name.into(),
            path: format!("/dev/{name}").into(),
            size,
            bus: Some(keel_unit::kinds::Bus::Virtio),
            ..Disk::default()
        }
    }

    fn entry(number: u32, type_guid: &str, label: &str) -> Entry {
        let type_guid = Uuid::try_parse(type_guid).unwrap();
        Entry {
            number,
            type_guid,
            guid: Uuid::from_u128(number.into()),
            label: label.into(),
            first: 2048,
            last: 4095,
        }
    }

    fn view(disk: Disk, entries: &[Entry]) -> View {
        let table =
            Table { copy: Copy::Primary, disk_guid: Uuid::nil(), entries: entries.to_vec() };
        View { disk, table: (!entries.is_empty()).then_some(table), unfinished: None }
    }

    fn check(wanted: &Partition, views: &[View], expect: &str) {
        let outcome = match choose(wanted, views, &mut Vec::new()) {
            Ok(Choice::Located { view, entry }) => {
                format!("located {} {}", view.disk.name, entry.number)
            }
            Ok(Choice::Selected(view)) => format!("selected {}", view.disk.name),
            Err(error) => error.to_string(),
        };
        assert_eq!(outcome, expect);
    }

    #[test]
    fn a_partition_is_located_before_a_disk_is_selected() {
        let vda = || Some(DiskSelector { path: Some(parse("/dev/vda")), ..selector() });
        let ours = || entry(3, TYPE, "keel-data");
        let other_type = entry(1, "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "keel-data");
        let other_name = entry(2, TYPE, "scratch");
        let blank = || view(disk("vda", 10 << 30), &[]);
        let full = view(disk("vdb", 10 << 30), &[other_type, other_name, ours()]);
        check(&wanted(vda()), &[blank(), full.clone()], "located vdb 3");
        check(&wanted(None), std::slice::from_ref(&full), "located vdb 3");
        check(
            &wanted(vda()),
            &[blank(), view(disk("vdb", 1 << 30), &full.table.as_ref().unwrap().entries[..2])],
            "selected vda",
        );
        check(
            &wanted(vda()),
            &[view(disk("vda", 10 << 30), &[ours()]), full],
            "found more than once: /dev/vda, partition 3; /dev/vdb, partition 3; the disks are left as they are",
        );
    }

    #[test]
    fn no_disk_is_ever_guessed() {
        let views = [
            view(disk("vda", 10 << 30), &[]),
            view(Disk { serial: Some("s1".into()), ..disk("vdb", 20 << 20) }, &[]),
        ];
        let virtio = DiskSelector { bus: Some(keel_unit::kinds::Bus::Virtio), ..selector() };
        check(
            &wanted(None),
            &views,
            "on no disk, and the machine config selects none to make it on (`storage.data.disk`)",
        );
        check(
            &wanted(Some(virtio.clone())),
            &views,
            "on no disk, and the selector fits more than one: /dev/vda (virtio, 10.0 GiB); \
             /dev/vdb (virtio, 20.0 MiB, serial s1); none is written",
        );
        check(
            &wanted(Some(DiskSelector { min_size: Some(parse("1GiB")), ..virtio })),
            &views,
            "selected vda",
        );
        check(
            &wanted(Some(DiskSelector { serial: Some(parse("s2*")), ..selector() })),
            &views[..1],
            "on no disk, and the selected disk is not there; there are: /dev/vda (virtio, 10.0 GiB)",
        );
        let read_only = view(Disk { read_only: true, ..disk("vda", 1 << 30) }, &[]);
        check(
            &wanted(Some(DiskSelector { path: Some(parse("/dev/vda")), ..selector() })),
            &[read_only],
            "/dev/vda is selected, but read-only",
        );
    }

    #[test]
    fn a_disk_that_cannot_be_read_may_be_the_one_with_the_partition() {
        let kind = DiskErrorKind::Read(std::io::ErrorKind::Other.into());
        let mut unreadable = vec![DiskError { disk: "/dev/sdb".into(), kind }];
        let wanted = wanted(Some(DiskSelector { path: Some(parse("/dev/vda")), ..selector() }));
        let views = [view(disk("vda", 1 << 30), &[])];
        let error = choose(&wanted, &views, &mut unreadable).unwrap_err();
        assert_eq!(error.to_string(), "/dev/sdb: could not read");
    }

    #[test]
    fn an_unfinished_table_is_finished_only_while_nothing_else_is_there() {
        let check = |copy: Copy, content: &Content, expect: Result<bool, ()>| {
            let mut view = view(disk("vda", 1 << 30), &[entry(1, TYPE, "keel-data")]);
            view.table.as_mut().unwrap().copy = copy;
            assert_eq!(may_finish(&view, content).map_err(drop), expect);
        };
        let full = Content { signatures: Vec::new(), unknown: Some(1 << 20) };
        check(Copy::Primary, &Content::default(), Ok(true));
        check(Copy::Backup, &Content::default(), Ok(true));
        check(Copy::Primary, &full, Ok(false));
        check(Copy::Backup, &full, Err(()));
    }

    #[test]
    fn only_a_blank_disk_or_one_to_wipe_is_written() {
        let check = |content: &Content, wipe: Wipe, expect: Result<Permit, &str>| {
            let wanted = Partition { wipe, ..wanted(None) };
            let permit =
                permit(&wanted, &disk("vda", 1 << 30), content).map_err(|error| error.to_string());
            assert_eq!(permit, expect.map_err(str::to_owned));
        };
        let blank = Content::default();
        let xfs = Content {
            signatures: vec![Found { name: "XFS filesystem", offset: 0 }],
            unknown: Some(0),
        };
        check(&blank, Wipe::Never, Ok(Permit::Write));
        check(&blank, Wipe::Always, Ok(Permit::Write));
        check(&xfs, Wipe::Always, Ok(Permit::EraseFirst));
        check(
            &xfs,
            Wipe::Never,
            Err(
                "/dev/vda is selected, but not blank: XFS filesystem at offset 0; it is left untouched \
                 (`wipe = \"always\"` would overwrite it)",
            ),
        );
    }
}

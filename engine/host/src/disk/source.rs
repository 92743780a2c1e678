//! From what people write (`PARTLABEL=keel-data`) to a device node. There is no udev: the disks are asked themselves.
//!
//! The name of a partition that a partition unit has located or made means that very partition, by its disk and its GUID:
//! what another disk calls one of its own, now or later, is neither formatted nor mounted in its place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keel_unit::value::Source;
use uuid::Uuid;

use super::block::{BlockFile, ReadBlocks};
use super::error::{DiskError, DiskErrorKind, error_of_kind};
use super::gpt::{self, Entry};
use super::inventory::{self, Disk, Roots};
use super::{ext4, kernel};

/// A source for which there is no device, or more than one.
#[derive(Debug)]
pub struct SourceError {
    /// What was asked for.
    pub wanted: String,
    /// What stands in the way.
    pub kind: SourceErrorKind,
}

error_of_kind!(SourceError, |error| error.wanted);

/// The partitions that partition units have located or made, by their names. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Located(Arc<Mutex<BTreeMap<String, Place>>>);

/// Where a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The node of its disk.
    pub disk: PathBuf,
    /// Its GUID.
    pub guid: Uuid,
}

impl Located {
    /// From now on the name means this partition.
    pub(super) fn remember(&self, label: &str, place: Place) {
        self.places().insert(label.to_owned(), place);
    }

    /// Where the partition of this name is, if a unit has located or made it.
    pub fn place(&self, label: &str) -> Option<Place> {
        self.places().get(label).cloned()
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        // One insertion is all that is ever done to it, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands between a source and its device.
#[derive(Debug, thiserror::Error)]
pub enum SourceErrorKind {
    /// No device fits.
    #[error("no such device")]
    NotFound,
    /// More than one device fits.
    #[error("more than one device: {}", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    Ambiguous(Vec<PathBuf>),
    /// The partition that was located or made is no longer where it was.
    #[error("the partition {} of {} is gone", .0.guid, .0.disk.display())]
    Gone(Place),
    /// It names a kernel filesystem, where a device is needed.
    #[error("a kernel filesystem has no device")]
    NoDevice,
    /// The disks could not be listed.
    #[error("could not list the disks")]
    List(#[source] std::io::Error),
    /// The kernel did not take over the partition that fits.
    #[error(transparent)]
    Disk(DiskError),
}

/// The device node that a source means. Blocks: it reads the disks, unless the source is a path.
///
/// # Errors
/// When there is not exactly one. A disk that cannot be read is passed over: the one that is sought may be another.
pub fn resolve(source: &Source, roots: &Roots) -> Result<PathBuf, SourceError> {
    let failed = |kind| SourceError { wanted: source.to_string(), kind };
    let mut found = match source {
        Source::Path(path) => return Ok(path.as_path().to_owned()),
        Source::Pseudo(_) => return Err(failed(SourceErrorKind::NoDevice)),
        Source::PartLabel(label) => match roots.located.place(label.as_str()) {
            Some(place) => at(roots, place).map(|node| vec![node]),
            None => by_entry(roots, |entry| entry.label == label.as_str()),
        },
        Source::PartUuid(guid) => by_entry(roots, |entry| entry.guid == guid.0),
        Source::Label(label) => by_filesystem(roots, |found| found.label == label.as_str()),
        Source::Uuid(uuid) => by_filesystem(roots, |found| found.uuid == uuid.0),
    }
    .map_err(failed)?;
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(failed(SourceErrorKind::NotFound)),
        (Some(device), true) => Ok(device),
        (Some(device), false) => {
            found.push(device);
            Err(failed(SourceErrorKind::Ambiguous(found)))
        }
    }
}

/// The node of the partition that was located or made, as the table of its disk has it now.
fn at(roots: &Roots, place: Place) -> Result<PathBuf, SourceErrorKind> {
    let failed = |kind| SourceErrorKind::Disk(DiskError { disk: place.disk.clone(), kind });
    let file = BlockFile::open(&place.disk).map_err(SourceErrorKind::Disk)?;
    let table = gpt::read(&file).map_err(|source| failed(DiskErrorKind::Read(source)))?;
    let entry = table
        .iter()
        .flat_map(|table| &table.entries)
        .find(|entry| entry.guid == place.guid)
        .ok_or_else(|| SourceErrorKind::Gone(place.clone()))?;
    kernel::announce(roots, &file, entry, file.sector_size()).map_err(SourceErrorKind::Disk)
}

/// The nodes of the partitions that fit. The kernel is told of one that it does not know yet.
fn by_entry(roots: &Roots, fits: impl Fn(&Entry) -> bool) -> Result<Vec<PathBuf>, SourceErrorKind> {
    let mut found = Vec::new();
    for (_, file) in readable_disks(roots)? {
        let Ok(Some(table)) = gpt::read(&file) else { continue };
        for entry in table.entries.iter().filter(|entry| fits(entry)) {
            let node = kernel::announce(roots, &file, entry, file.sector_size());
            found.push(node.map_err(SourceErrorKind::Disk)?);
        }
    }
    Ok(found)
}

/// The nodes of the partitions, and of the disks without any, that hold an ext4 filesystem that fits.
fn by_filesystem(
    roots: &Roots,
    fits: impl Fn(&ext4::Superblock) -> bool,
) -> Result<Vec<PathBuf>, SourceErrorKind> {
    let mut found = Vec::new();
    for (disk, file) in readable_disks(roots)? {
        let mut nodes: Vec<_> =
            disk.partitions.into_iter().map(|partition| partition.path).collect();
        if nodes.is_empty() {
            nodes.push(file.path().to_owned());
        }
        found.extend(nodes.into_iter().filter(|node| {
            let superblock =
                BlockFile::open(node).ok().and_then(|device| ext4::read(&device).ok().flatten());
            superblock.is_some_and(|superblock| fits(&superblock))
        }));
    }
    Ok(found)
}

fn readable_disks(roots: &Roots) -> Result<Vec<(Disk, BlockFile)>, SourceErrorKind> {
    let disks = inventory::observe(roots).map_err(SourceErrorKind::List)?;
    Ok(disks
        .into_iter()
        .filter_map(|disk| BlockFile::open(&disk.path).ok().map(|file| (disk, file)))
        .collect())
}

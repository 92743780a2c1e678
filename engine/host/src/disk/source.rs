//! From what people write (`PARTLABEL=keel-data`) to a device node. There is no udev: the disks are asked themselves.

use std::path::PathBuf;

use keel_unit::value::Source;

use super::block::{BlockFile, ReadBlocks};
use super::error::{DiskError, error_of_kind};
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

/// What stands between a source and its device.
#[derive(Debug, thiserror::Error)]
pub enum SourceErrorKind {
    /// No device fits.
    #[error("no such device")]
    NotFound,
    /// More than one device fits.
    #[error("more than one device: {}", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    Ambiguous(Vec<PathBuf>),
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
        Source::PartLabel(label) => by_entry(roots, |entry| entry.label == label.as_str()),
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

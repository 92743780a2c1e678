//! The partition unit: located on some disk, or made on the one that the config selects.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use keel_unit::kinds::Partition;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{
    Say,
    block::{BlockFile, ReadBlocks},
    error::{DiskError, DiskErrorKind},
    gpt::{self, Entry, Layout, Wanted},
    intent,
    inventory::{self, Disk, Roots},
    kernel, off_thread,
    plan::{self, Choice, PartitionError, PartitionErrorKind, Permit, View},
    provision,
    signature::{self, Depth},
};
use crate::{
    device::{Received, UeventSocket},
    identity::random::random_uuid,
};

/// How long to look for a disk when the unit does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The partition that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOutcome {
    /// Its node.
    pub device: PathBuf,
    /// The node of its disk.
    pub disk: PathBuf,
    /// Its GUID.
    pub guid: Uuid,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it was made (or its making was finished) just now.
    pub provisioned: bool,
}

/// Locates the partition, or makes it, and waits up to the unit's timeout for a disk to appear. Disks are read and written
/// off the calling thread.
///
/// # Errors
/// When there is no such partition and none may be made; the reason says why. No disk has been written then, unless the
/// reason is a failed write.
pub async fn activate(
    partition: &Partition,
    roots: &Roots,
    say: &Say,
) -> Result<PartitionOutcome, PartitionError> {
    let failed = |kind| PartitionError { label: partition.label.to_string(), kind };
    let deadline = Instant::now() + partition.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0);
    // Opened before the first look, so that no disk comes unnoticed between that and the wait.
    let uevents = UeventSocket::open().map_err(|source| failed(uevents_failed(source)))?;
    let mut said = false;
    loop {
        let (its_partition, its_roots, its_say) =
            (partition.clone(), roots.clone(), Arc::clone(say));
        let looked = off_thread(move || look(&its_partition, &its_roots, &*its_say)).await;
        let kind = match looked.unwrap_or(Err(PartitionErrorKind::Stopped)) {
            Ok(outcome) => return Ok(outcome),
            Err(kind) => failed(kind),
        };
        if !kind.kind.may_pass() {
            return Err(kind);
        }
        if !said {
            say(format!("{kind}; waiting for a disk"));
            said = true;
        }
        match timeout_at(deadline, disk_changed(&uevents)).await {
            Ok(changed) => changed.map_err(|source| failed(uevents_failed(source)))?,
            Err(_) => return Err(kind),
        }
    }
}

/// Returns when the kernel has said something about a block device.
async fn disk_changed(uevents: &UeventSocket) -> io::Result<()> {
    loop {
        match uevents.receive().await? {
            Received::Event(event) if event.property("SUBSYSTEM") != Some("block") => {}
            Received::Event(_) | Received::Overrun => return Ok(()),
        }
    }
}

fn uevents_failed(source: io::Error) -> PartitionErrorKind {
    PartitionErrorKind::Kernel { what: "events about disks", source }
}

fn look(
    partition: &Partition,
    roots: &Roots,
    say: &dyn Fn(String),
) -> Result<PartitionOutcome, PartitionErrorKind> {
    let sysfs = |source| PartitionErrorKind::Kernel { what: "list of disks", source };
    let disks = inventory::observe(roots).map_err(sysfs)?;
    let mut unreadable = Vec::new();
    let mut views = Vec::new();
    for disk in disks {
        match view(disk) {
            Ok(view) => views.push(view),
            Err(error) => unreadable.push(error),
        }
    }
    match plan::choose(partition, &views, &mut unreadable)? {
        Choice::Located { view, entry } => {
            plan::note(view).into_iter().for_each(say);
            locate(roots, view, entry, say).map_err(PartitionErrorKind::Disk)
        }
        Choice::Selected(view) => make(partition, roots, view, say),
    }
}

fn view(disk: Disk) -> Result<View, DiskError> {
    let file = BlockFile::open(&disk.path)?;
    let read = || -> io::Result<_> { Ok((gpt::read(&file)?, intent::read_layout(&file)?)) };
    let (table, unfinished) = read().map_err(|source| DiskError {
        disk: disk.path.clone(),
        kind: DiskErrorKind::Read(source),
    })?;
    Ok(View { disk, table, unfinished })
}

/// Uses a partition that is there. If its record says that its table was not finished, the rest is written first.
fn locate(
    roots: &Roots,
    view: &View,
    entry: &Entry,
    say: &dyn Fn(String),
) -> Result<PartitionOutcome, DiskError> {
    let disk = &view.disk;
    let provisioned = match &view.unfinished {
        Some(layout) if layout.entry == *entry => {
            say(format!(
                "{}: finishing a partition table that a power cut left unfinished",
                disk.path.display()
            ));
            let mut file = BlockFile::open_exclusive(&disk.path)?;
            provision::provision(&mut file, layout).map_err(|source| DiskError {
                disk: disk.path.clone(),
                kind: DiskErrorKind::Write(source),
            })?;
            true
        }
        _ => false,
    };
    outcome(roots, disk, entry, provisioned)
}

/// Makes the partition on the selected disk, if that may be written.
fn make(
    partition: &Partition,
    roots: &Roots,
    view: &View,
    say: &dyn Fn(String),
) -> Result<PartitionOutcome, PartitionErrorKind> {
    let disk = &view.disk;
    let failed = |kind: fn(io::Error) -> DiskErrorKind| {
        move |source| {
            PartitionErrorKind::Disk(DiskError { disk: disk.path.clone(), kind: kind(source) })
        }
    };
    // Opened for reading until it is decided that the disk may be written.
    let file = BlockFile::open(&disk.path).map_err(PartitionErrorKind::Disk)?;
    let unfinished =
        view.unfinished.as_ref().filter(|layout| plan::is_wanted(partition, &layout.entry));
    let content = match unfinished {
        Some(layout) => {
            let rest = provision::without_unfinished(&file, layout)
                .map_err(failed(DiskErrorKind::Read))?;
            signature::scan(&rest, Depth::Disk)
        }
        None => signature::scan(&file, Depth::Disk),
    };
    let content = content.map_err(failed(DiskErrorKind::Read))?;
    let permit = plan::permit(partition, disk, &content)?;
    let layout = match unfinished {
        Some(layout) if permit == Permit::Write => layout.clone(),
        _ => fresh_layout(partition, disk, &file)?,
    };
    drop(file);

    let mut file = BlockFile::open_exclusive(&disk.path).map_err(PartitionErrorKind::Disk)?;
    kernel::forget(&file, disk).map_err(PartitionErrorKind::Disk)?;
    if permit == Permit::EraseFirst {
        say(format!("{}: erasing {content}, as the machine config says", disk.path.display()));
        provision::erase(&mut file, &layout).map_err(failed(DiskErrorKind::Write))?;
    }
    say(format!(
        "{}: making partition {} ({} bytes)",
        disk.path.display(),
        partition.label,
        size_of(&layout)
    ));
    provision::provision(&mut file, &layout).map_err(failed(DiskErrorKind::Write))?;
    drop(file);
    outcome(roots, disk, &layout.entry, true).map_err(PartitionErrorKind::Disk)
}

fn fresh_layout(
    partition: &Partition,
    disk: &Disk,
    file: &BlockFile,
) -> Result<Layout, PartitionErrorKind> {
    let random = |source| PartitionErrorKind::Kernel { what: "random bits", source };
    let wanted = Wanted {
        type_guid: partition.type_guid.0,
        label: partition.label.as_str(),
        size: partition.size.map(|size| size.0),
    };
    let (disk_guid, guid) = (random_uuid().map_err(random)?, random_uuid().map_err(random)?);
    Layout::new(file, wanted, disk_guid, guid)
        .map_err(|source| PartitionErrorKind::TooSmall { disk: disk.path.clone(), source })
}

fn size_of(layout: &Layout) -> u64 {
    layout.entry.sectors() * u64::from(layout.sector_size)
}

fn outcome(
    roots: &Roots,
    disk: &Disk,
    entry: &Entry,
    provisioned: bool,
) -> Result<PartitionOutcome, DiskError> {
    let file = BlockFile::open(&disk.path)?;
    let device = kernel::announce(roots, &file, entry, file.sector_size())?;
    Ok(PartitionOutcome {
        device,
        disk: disk.path.clone(),
        guid: entry.guid,
        size: entry.sectors() * u64::from(file.sector_size()),
        provisioned,
    })
}

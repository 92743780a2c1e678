//! The partition unit: located on some disk, or made on the one that the config selects.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keel_unit::kinds::Partition;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::block::{BlockFile, ReadBlocks};
use super::error::{DiskError, DiskErrorKind};
use super::gpt::{self, Entry, Layout, Wanted};
use super::inventory::{self, Disk, Roots};
use super::plan::{self, Choice, PartitionError, PartitionErrorKind, Permit, View};
use super::signature::{self, Content, Depth};
use super::source::Place;
use super::{Say, addition, intent, kernel, off_thread, provision};
use crate::device::{Received, UeventSocket};
use crate::identity::random::random_uuid;

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

/// Locates the partition, or makes it. It waits for a disk to appear during three quarters of the unit's timeout: the rest is
/// left for writing, and for the reason to be told before the unit's own deadline passes. Disks are read and written off
/// the calling thread.
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
    let timeout = partition.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0);
    let deadline = Instant::now() + timeout * 3 / 4;
    // Opened before the first look, so that no disk comes unnoticed between that and the wait.
    let uevents = UeventSocket::open().map_err(|source| failed(uevents_failed(source)))?;
    let mut said = false;
    loop {
        let (its_partition, its_roots, its_say) =
            (partition.clone(), roots.clone(), Arc::clone(say));
        let looked = off_thread(move || look(&its_partition, &its_roots, &*its_say)).await;
        let kind = match looked.unwrap_or(Err(PartitionErrorKind::Stopped)) {
            Ok(outcome) => {
                let place = Place { disk: outcome.disk.clone(), guid: outcome.guid };
                roots.located.remember(partition.label.as_str(), place);
                return Ok(outcome);
            }
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
            locate(roots, view, entry, say)
        }
        Choice::Selected(view) => {
            match view.table.as_ref().filter(|table| addition::is_image(table)) {
                Some(table) => {
                    let entry = addition::make(partition, view, table, say)?;
                    outcome(roots, &view.disk, &entry, true).map_err(PartitionErrorKind::Disk)
                }
                None => make(partition, roots, view, say),
            }
        }
    }
}

fn view(disk: Disk) -> Result<View, DiskError> {
    let file = BlockFile::open(&disk.path)?;
    view_of(disk, &file)
}

pub(super) fn view_of(disk: Disk, file: &BlockFile) -> Result<View, DiskError> {
    let read = || -> io::Result<_> { Ok((gpt::read(file)?, intent::read_layout(file)?)) };
    match read() {
        Ok((table, unfinished)) => Ok(View { disk, table, unfinished }),
        Err(source) => Err(DiskError { disk: disk.path, kind: DiskErrorKind::Read(source) }),
    }
}

/// Opens a disk for writing, of which it was decided that it may be written, from this view and this content. The decision may
/// be old: a disk that is slow to answer keeps an attempt going in its thread when its unit has been given up long ago. So
/// everything is looked at again once nobody else can claim the disk, and has to be as it was.
fn open_for_writing(
    view: &View,
    unfinished: Option<&Layout>,
    decided_on: &Content,
) -> Result<BlockFile, PartitionErrorKind> {
    let disk = &view.disk;
    let file = BlockFile::open_exclusive(&disk.path).map_err(PartitionErrorKind::Disk)?;
    let now = view_of(disk.clone(), &file).map_err(PartitionErrorKind::Disk)?;
    let content = content(&file, unfinished).map_err(|source| {
        let kind = DiskErrorKind::Read(source);
        PartitionErrorKind::Disk(DiskError { disk: disk.path.clone(), kind })
    })?;
    if (&now, &content) == (view, decided_on) {
        Ok(file)
    } else {
        Err(PartitionErrorKind::Changed { disk: disk.path.clone(), content })
    }
}

/// Uses a partition that is there. If its record says that its table was not finished, the rest is written first.
fn locate(
    roots: &Roots,
    view: &View,
    entry: &Entry,
    say: &dyn Fn(String),
) -> Result<PartitionOutcome, PartitionErrorKind> {
    let disk = &view.disk;
    let failed = |kind: fn(io::Error) -> DiskErrorKind| {
        move |source| {
            PartitionErrorKind::Disk(DiskError { disk: disk.path.clone(), kind: kind(source) })
        }
    };
    let mut provisioned = false;
    let unfinished = view.unfinished.as_ref().filter(|layout| layout.entry == *entry);
    let image = view.table.as_ref().filter(|table| addition::is_image(table));
    if let (Some(layout), Some(table)) = (unfinished, image) {
        provisioned = addition::finish(view, table, layout, say)?;
    } else if let Some(layout) = unfinished {
        let file = BlockFile::open(&disk.path).map_err(PartitionErrorKind::Disk)?;
        let content = content(&file, Some(layout)).map_err(failed(DiskErrorKind::Read))?;
        if plan::may_finish(view, &content)? {
            say(format!(
                "{}: finishing a partition table that a power cut left unfinished",
                disk.path.display()
            ));
            drop(file);
            let mut file = open_for_writing(view, Some(layout), &content)?;
            provision::provision(&mut file, layout).map_err(failed(DiskErrorKind::Write))?;
            provisioned = true;
        }
    }
    outcome(roots, disk, entry, provisioned).map_err(PartitionErrorKind::Disk)
}

/// What is on a disk besides an unfinished table of ours.
fn content(file: &BlockFile, unfinished: Option<&Layout>) -> io::Result<Content> {
    match unfinished {
        Some(layout) => signature::scan(&provision::without_unfinished(file, layout)?, Depth::Disk),
        None => signature::scan(file, Depth::Disk),
    }
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
    let unfinished =
        view.unfinished.as_ref().filter(|layout| plan::is_wanted(partition, &layout.entry));
    // Opened for reading until it is decided that the disk may be written.
    let file = BlockFile::open(&disk.path).map_err(PartitionErrorKind::Disk)?;
    let content = content(&file, unfinished).map_err(failed(DiskErrorKind::Read))?;
    let permit = plan::permit(partition, disk, &content)?;
    let layout = match unfinished {
        Some(layout) if permit == Permit::Write => layout.clone(),
        _ => fresh_layout(partition, disk, &file)?,
    };
    drop(file);

    let path = disk.path.display();
    if permit == Permit::EraseFirst {
        say(format!("{path}: erasing {content}, as the machine config says"));
    }
    say(format!("{path}: making partition {} ({} bytes)", partition.label, size_of(&layout)));
    let mut file = open_for_writing(view, unfinished, &content)?;
    kernel::forget(&file, disk).map_err(PartitionErrorKind::Disk)?;
    if permit == Permit::EraseFirst {
        provision::erase(&mut file, &layout).map_err(failed(DiskErrorKind::Write))?;
    }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use keel_unit::keys::Text;
    use keel_unit::kinds::{DiskSelector, Wipe};

    use super::super::block::WriteBlocks;
    use super::*;

    /// A loop device, alone in a machine of its own.
    struct Machine {
        node: PathBuf,
        roots: Roots,
        _dir: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let image = dir.path().join("disk.img");
            fs::File::create(&image).unwrap().set_len(72 << 20).unwrap();
            let attached =
                Command::new("losetup").args(["--find", "--show"]).arg(&image).output().unwrap();
            let node = PathBuf::from(String::from_utf8(attached.stdout).unwrap().trim());
            let classes = dir.path().join("class/block");
            fs::create_dir_all(&classes).unwrap();
            let name = node.file_name().unwrap();
            std::os::unix::fs::symlink(
                Path::new("/sys/class/block").join(name),
                classes.join(name),
            )
            .unwrap();
            let roots = Roots::new(dir.path(), "/dev");
            Self { node, roots, _dir: dir }
        }

        fn unit(&self) -> Partition {
            Partition {
                disk: Some(DiskSelector {
                    path: Some(Text::parse(self.node.to_str().unwrap()).unwrap()),
                    by_id: None,
                    serial: None,
                    model: None,
                    min_size: None,
                    max_size: None,
                    bus: None,
                }),
                label: Text::parse("keel-data").unwrap(),
                type_guid: Text::parse("7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441").unwrap(),
                size: None,
                wipe: Wipe::Never,
                timeout: None,
            }
        }

        /// The disk as a power cut leaves it: the record, and as many groups of sectors as were flushed.
        fn cut(&self, groups: usize) -> Layout {
            let mut file = BlockFile::open_exclusive(&self.node).unwrap();
            let unit = self.unit();
            let wanted =
                Wanted { type_guid: unit.type_guid.0, label: unit.label.as_str(), size: None };
            let layout =
                Layout::new(&file, wanted, random_uuid().unwrap(), random_uuid().unwrap()).unwrap();
            intent::write_layout(&mut file, &layout).unwrap();
            let composed = layout.compose().unwrap();
            let all = [composed.backup, composed.primary, composed.primary_header];
            for (offset, bytes) in all.into_iter().take(groups).flatten() {
                file.write_at(offset, &bytes).unwrap();
            }
            file.flush().unwrap();
            layout
        }

        async fn boot(&self) -> Result<PartitionOutcome, PartitionError> {
            let say: Say = Arc::new(drop);
            activate(&self.unit(), &self.roots, &say).await
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = Command::new("delpart").arg(&self.node).arg("1").output();
            let _ = Command::new("losetup").arg("--detach").arg(&self.node).output();
        }
    }

    #[tokio::test]
    async fn what_a_power_cut_left_unfinished_is_finished_with_the_same_guids() {
        for groups in 0..=3 {
            let machine = Machine::new();
            let layout = machine.cut(groups);
            let outcome = machine.boot().await.unwrap();
            assert_eq!((outcome.provisioned, outcome.guid), (true, layout.entry.guid), "{groups}");
            let file = BlockFile::open(&machine.node).unwrap();
            assert_eq!(intent::read_layout(&file).unwrap(), None);
            assert_eq!(gpt::read(&file).unwrap().map(|table| table.copy), Some(gpt::Copy::Primary));
            drop(file);
            let again = machine.boot().await.unwrap();
            assert_eq!((again.provisioned, again.guid), (false, layout.entry.guid), "{groups}");
        }
    }

    #[tokio::test]
    async fn foreign_data_on_an_unfinished_disk_is_not_written_over() {
        let machine = Machine::new();
        machine.cut(1);
        let mut file = BlockFile::open_exclusive(&machine.node).unwrap();
        file.write_at(64 << 10, &[b"_BHRfS_M".repeat(9), vec![0; 440]].concat()).unwrap();
        file.flush().unwrap();
        drop(file);
        let error = machine.boot().await.unwrap_err().to_string();
        assert!(error.contains("btrfs filesystem at offset 65600"), "{error}");
        let mut head = [0; 4096];
        BlockFile::open(&machine.node).unwrap().read_at(0, &mut head).unwrap();
        assert_eq!(head, [0; 4096]);
    }
}

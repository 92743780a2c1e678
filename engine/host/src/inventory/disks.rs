//! The disks, and what is on them: each is read on a thread of its own, and none is waited for longer than there is time.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{Behind, Disk, Inventories, MOST, Partition, clip, drivers};
use crate::disk::addition;
use crate::disk::block::{BlockFile, ReadBlocks};
use crate::disk::gpt;
use crate::disk::inventory::{self, KernelPartition};
use crate::disk::signature::{self, Depth};

/// What is said of a disk that holds something that no known format is.
const UNKNOWN: &str = "unknown data";
const LATE: &str = "it did not answer in time";
const BROKE_OFF: &str = "the look at it broke off";

/// How many disks are read at one moment.
const SIDE_BY_SIDE: usize = 16;

impl Inventories {
    /// As many disks as are told of, and how many there are more.
    pub(super) async fn disks(&self, deadline: Instant) -> (Vec<Disk>, usize) {
        let roots = self.roots.clone();
        let observe = move || {
            let disks = inventory::observe(&roots).unwrap_or_default();
            let drivers = |disk: inventory::Disk| {
                let device = roots.sys.join("class/block").join(&disk.name);
                (drivers::of(&roots.sys, &device), disk)
            };
            disks.into_iter().map(drivers).collect::<Vec<_>>()
        };
        let observed = timeout_at(deadline, tokio::task::spawn_blocking(observe)).await;
        let observed = observed.ok().and_then(Result::ok).unwrap_or_default();
        let left_out = observed.len().saturating_sub(MOST);
        let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
        let looks: Vec<_> = observed
            .into_iter()
            .take(MOST)
            .map(|(drivers, disk)| {
                let look = Look { silent: self.silent.clone(), places: places.clone(), deadline };
                let content = tokio::spawn(look.at(disk.path.clone(), disk.partitions.clone()));
                (content, drivers, disk)
            })
            .collect();
        let mut disks = Vec::new();
        for (content, drivers, disk) in looks {
            disks.push(told(
                disk,
                content.await.unwrap_or_else(|_| Content::unknown(BROKE_OFF)),
                drivers,
            ));
        }
        (disks, left_out)
    }
}

/// One look at a disk.
struct Look {
    silent: Arc<Mutex<BTreeSet<PathBuf>>>,
    places: Arc<Semaphore>,
    deadline: Instant,
}

impl Look {
    async fn at(self, path: PathBuf, partitions: Vec<KernelPartition>) -> Content {
        // A thread that hangs keeps its disk, and no place: there are others that answer.
        let Ok(Ok(_place)) = timeout_at(self.deadline, self.places.acquire()).await else {
            return Content::unknown(LATE);
        };
        let Some(silent) = Silent::mark(&self.silent, &path) else {
            return Content::unknown("it has not answered since an earlier look");
        };
        let looked = tokio::task::spawn_blocking(move || {
            let looked = look(&path, &partitions);
            drop(silent);
            looked
        });
        match timeout_at(self.deadline, looked).await {
            Ok(Ok(Ok(content))) => content,
            Ok(Ok(Err(error))) => Content::unknown(&error.to_string()),
            Ok(Err(_)) => Content::unknown(BROKE_OFF),
            Err(_) => Content::unknown(LATE),
        }
    }
}

/// A disk that is being looked at.
struct Silent {
    disks: Arc<Mutex<BTreeSet<PathBuf>>>,
    path: PathBuf,
}

impl Silent {
    fn mark(disks: &Arc<Mutex<BTreeSet<PathBuf>>>, path: &Path) -> Option<Self> {
        let new = disks.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        new.then(|| Self { disks: Arc::clone(disks), path: path.to_owned() })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

/// What a look at a disk gives.
#[derive(Debug)]
struct Content {
    marks: Result<Vec<String>, String>,
    partitions: Vec<Partition>,
    image: Option<Behind>,
}

impl Content {
    fn unknown(why: &str) -> Self {
        Self { marks: Err(clip(why)), partitions: Vec::new(), image: None }
    }
}

fn told(disk: inventory::Disk, content: Content, drivers: Vec<super::Driver>) -> Disk {
    Disk {
        ids: disk.ids().iter().map(|id| clip(id)).collect(),
        serial: disk.serial.as_deref().map(clip),
        model: disk.model.as_deref().map(clip),
        path: disk.path,
        size: disk.size,
        bus: disk.bus,
        removable: disk.removable,
        read_only: disk.read_only,
        content: content.marks,
        partitions: content.partitions,
        image: content.image,
        drivers,
    }
}

/// Reads what is on a disk. May hang as long as the disk does.
fn look(path: &Path, kernel: &[KernelPartition]) -> io::Result<Content> {
    let file = BlockFile::open(path).map_err(io::Error::other)?;
    let sector = u64::from(file.sector_size());
    let table = gpt::read(&file)?;
    let image = table.as_ref().filter(|table| addition::is_image(table));
    let image = image.map(|table| addition::behind(&file, table)).transpose()?.map(told_behind);
    let mut partitions: Vec<Partition> = table
        .iter()
        .flat_map(|table| &table.entries)
        .map(|entry| Partition {
            number: entry.number,
            label: clip(&entry.label),
            type_guid: Some(entry.type_guid),
            size: entry.sectors() * sector,
            content: None,
        })
        .collect();
    for known in kernel {
        if !partitions.iter().any(|partition| partition.number == known.number) {
            let (number, size) = (known.number, known.size);
            partitions.push(Partition { number, size, ..Partition::default() });
        }
    }
    partitions.sort_by_key(|partition| partition.number);
    for partition in &mut partitions {
        let node = kernel.iter().find(|known| known.number == partition.number);
        partition.content = node.and_then(|node| {
            let file = BlockFile::open(&node.path).ok()?;
            Some(names(signature::signatures(&file).ok()?))
        });
    }
    // Only of a disk that might be blank is it worth to look between the marks.
    let marks = match partitions.is_empty() {
        false => names(signature::signatures(&file)?),
        true => all_names(signature::scan(&file, Depth::Disk)?),
    };
    Ok(Content { marks: Ok(marks), partitions, image })
}

fn told_behind(behind: Result<addition::Behind, addition::Unfit>) -> Behind {
    match behind {
        Ok(behind) => Behind { room: behind.room, content: all_names(behind.content), unfit: None },
        Err(why) => Behind { unfit: Some(why.to_string()), ..Behind::default() },
    }
}

/// The formats, or that there is something of no format.
fn all_names(content: signature::Content) -> Vec<String> {
    let unknown = content.signatures.is_empty() && content.unknown.is_some();
    let unknown = unknown.then(|| UNKNOWN.to_owned());
    names(content.signatures).into_iter().chain(unknown).collect()
}

/// Each format once, the most telling first.
fn names(found: Vec<signature::Found>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for found in found {
        if !names.iter().any(|name| name == found.name) {
            names.push(found.name.to_owned());
        }
    }
    names
}

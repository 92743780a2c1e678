//! What this machine is made of, for a person who writes a config for it: links, disks, and the drivers that they take.
//!
//! Reading only, and nothing that is asked may hold anything up. sysfs and disks are read off the calling thread; a disk that does
//! not answer in time is listed without its content, and is left alone until its first answer comes. What is told is bounded: a
//! machine with a thousand links is told of in part, with the number of those that are left out.

mod disks;
mod drivers;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keel_unit::kinds::Bus;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::disk::inventory::Roots;
use crate::net;

/// How many links, and how many disks, are told of at most.
const MOST: usize = 256;
/// How much is told of at most, in bytes: less than what one frame of keel-control carries.
const ROOM: usize = 768 << 10;
/// Longest text of a device that is told, in bytes.
const LONGEST_TEXT: usize = 256;

/// What a machine is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The machine as a whole.
    pub machine: Machine,
    /// Its links but for the loopback; hardware first.
    pub links: Vec<Link>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// How many more links and disks there are.
    pub left_out: u32,
}

/// The machine as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// As `uname -m` prints it.
    pub architecture: String,
    /// The running kernel's release.
    pub kernel: String,
    /// Processors that are online.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
}

/// A network link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's name for it.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// Whether it has a carrier; nothing for a link that is down, where the kernel does not know.
    pub carrier: Option<bool>,
    /// What software made it.
    pub kind: Option<String>,
    /// Whether it is a port of a bridge or a bond.
    pub port: bool,
    /// Its drivers, nearest first.
    pub drivers: Vec<Driver>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its node.
    pub path: PathBuf,
    /// The names that /dev/disk/by-id would have for it.
    pub ids: Vec<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// How it is attached.
    pub bus: Option<Bus>,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// What is on it, or why that is not known.
    pub content: Result<Vec<String>, String>,
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// What is behind the image of Keel that it carries, if it carries one.
    pub image: Option<Behind>,
    /// Its drivers, nearest first.
    pub drivers: Vec<Driver>,
}

/// What is behind an image: where the data partition goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behind {
    /// Bytes for a partition.
    pub room: u64,
    /// The formats whose marks are there.
    pub content: Vec<String>,
    /// Why no partition can be added; then the others say nothing.
    pub unfit: Option<String>,
}

/// A partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub number: u32,
    /// Its name; empty where the table has none.
    pub label: String,
    /// Its type, in a GPT.
    pub type_guid: Option<Uuid>,
    /// Its size in bytes.
    pub size: u64,
    /// The formats whose marks are on it; nothing where it could not be read.
    pub content: Option<Vec<String>>,
}

/// A driver between a device and the processor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Driver {
    /// The module that holds it, or its own name where it is in no module.
    pub name: String,
    /// What the device says that it is.
    pub modalias: String,
    /// Whether it is part of the kernel.
    pub built_in: bool,
}

/// Takes inventories, one at a time.
#[derive(Debug)]
pub struct Inventories {
    roots: Roots,
    /// Disks that have not answered yet: no second thread waits for one.
    silent: Arc<Mutex<BTreeSet<PathBuf>>>,
    turn: tokio::sync::Mutex<()>,
}

impl Inventories {
    /// Of the machine whose sysfs and device nodes are there.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self { roots, silent: Arc::default(), turn: tokio::sync::Mutex::new(()) }
    }

    /// Looks at the machine, and comes back within `patience` whatever its disks do, once it is this caller's turn.
    pub async fn take(&self, patience: Duration) -> Inventory {
        let _turn = self.turn.lock().await;
        let deadline = Instant::now() + patience;
        let (mut links, (mut disks, mut left_out)) =
            tokio::join!(self.links(deadline), self.disks(deadline));
        let mut room = ROOM;
        left_out += keep(&mut disks, &mut room, disk_size) + keep(&mut links, &mut room, link_size);
        let left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
        Inventory { machine: machine(), links, disks, left_out }
    }

    /// The links, hardware first. A kernel that does not tell has none.
    async fn links(&self, deadline: Instant) -> Vec<Link> {
        let seen = timeout_at(deadline, net::links()).await;
        let mut seen = seen.ok().and_then(Result::ok).unwrap_or_default();
        seen.sort_by_key(|link| (link.kind.is_some(), link.index));
        let roots = self.roots.clone();
        let links = move || {
            let link = |link: net::LinkSeen| Link {
                drivers: drivers::of(&roots.sys, &roots.sys.join("class/net").join(&link.name)),
                // One that is down does not look at its cable.
                carrier: link.up.then_some(link.carrier),
                mac: link.mac,
                port: link.port,
                kind: link.kind.as_deref().map(clip),
                name: clip(&link.name),
            };
            seen.into_iter().map(link).collect()
        };
        let found = timeout_at(deadline, tokio::task::spawn_blocking(links)).await;
        found.ok().and_then(Result::ok).unwrap_or_default()
    }
}

fn machine() -> Machine {
    let name = nix::sys::utsname::uname().ok();
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
    Machine {
        architecture: name.as_ref().map(|name| text(name.machine())).unwrap_or_default(),
        kernel: name.as_ref().map(|name| text(name.release())).unwrap_or_default(),
        cpus: online.ok().flatten().and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        memory: nix::sys::sysinfo::sysinfo().map(|info| info.ram_total()).unwrap_or(0),
    }
}

/// Keeps of a list what there is room for, and counts the others.
fn keep<T>(list: &mut Vec<T>, room: &mut usize, size: impl Fn(&T) -> usize) -> usize {
    let all = list.len();
    let fits = list.iter().take(MOST).take_while(|item| match room.checked_sub(size(item)) {
        Some(rest) => {
            *room = rest;
            true
        }
        None => false,
    });
    let kept = fits.count();
    list.truncate(kept);
    all - kept
}

/// What an item takes beside its texts; more than any encoding of its numbers.
const FIXED: usize = 64;

fn link_size(link: &Link) -> usize {
    let kind = link.kind.as_ref().map_or(0, String::len);
    FIXED + link.name.len() + kind + drivers_size(&link.drivers)
}

fn disk_size(disk: &Disk) -> usize {
    let texts = [&disk.serial, &disk.model].into_iter().flatten().map(String::len);
    let marks = disk.content.as_ref().map_or_else(String::len, |marks| marks_size(marks));
    let partition = |partition: &Partition| {
        // A GUID as text is shorter than what is fixed.
        2 * FIXED + partition.label.len() + partition.content.as_deref().map_or(0, marks_size)
    };
    FIXED
        + disk.path.as_os_str().len()
        + texts.sum::<usize>()
        + marks_size(&disk.ids)
        + marks
        + disk.partitions.iter().map(partition).sum::<usize>()
        + disk.image.as_ref().map_or(0, behind_size)
        + drivers_size(&disk.drivers)
}

fn behind_size(behind: &Behind) -> usize {
    FIXED + marks_size(&behind.content) + behind.unfit.as_ref().map_or(0, String::len)
}

fn marks_size(texts: &[String]) -> usize {
    texts.iter().map(|text| FIXED + text.len()).sum()
}

fn drivers_size(drivers: &[Driver]) -> usize {
    drivers.iter().map(|driver| FIXED + driver.name.len() + driver.modalias.len()).sum()
}

/// A text of a device as it may be told: short, and on one line.
fn clip(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(LONGEST_TEXT)];
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_room_for_is_told() {
        let link = |n: usize| Link { name: "l".repeat(n), ..Link::default() };
        let check = |links: usize, room: usize, kept: usize| {
            let mut list = vec![link(36); links];
            let mut left = room;
            assert_eq!(keep(&mut list, &mut left, link_size), links - kept);
            assert_eq!((list.len(), left), (kept, room - kept * 100));
        };
        check(3, 1000, 3);
        check(3, 250, 2);
        check(3, 0, 0);
        check(MOST + 5, 1 << 20, MOST);
    }

    #[test]
    fn texts_are_short_and_on_one_line() {
        let check = |text: &str, expect: &str| assert_eq!(clip(text), expect);
        check("a\nb\x1b[1m", "ab[1m");
        check(&"ä".repeat(200), &"ä".repeat(128));
        check(&format!("a{}", "ä".repeat(200)), &format!("a{}", "ä".repeat(127)));
    }
}

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
pub const MOST: usize = 256;
/// How many partitions of all disks together.
pub const MOST_PARTITIONS: usize = 1024;
/// Longest text of a device that is told.
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
    /// How many more links, disks and partitions there are.
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
    /// Its drivers, nearest first.
    pub drivers: Vec<Driver>,
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

    /// Looks at the machine, and comes back within `patience` whatever its disks do.
    pub async fn take(&self, patience: Duration) -> Inventory {
        let _turn = self.turn.lock().await;
        let deadline = Instant::now() + patience;
        let (mut links, (mut disks, mut left_out)) =
            tokio::join!(self.links(deadline), self.disks(deadline));
        left_out += links.len().saturating_sub(MOST);
        links.truncate(MOST);
        let mut room = MOST_PARTITIONS;
        for disk in &mut disks {
            left_out += disk.partitions.len().saturating_sub(room);
            disk.partitions.truncate(room);
            room -= disk.partitions.len();
        }
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

/// A text of a device as it may be told: short, and on one line.
fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect()
}

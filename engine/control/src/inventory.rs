//! What a machine is made of, as it is told over the socket. Every text and every list is bounded by init, so that an inventory
//! fits in a frame.

use serde::{Deserialize, Serialize};

/// What a machine is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// As `uname -m` prints it.
    pub architecture: String,
    /// The running kernel's release.
    pub kernel: String,
    /// Processors that are online.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// The links but for the loopback.
    pub links: Vec<InventoryLink>,
    /// The disks.
    pub disks: Vec<InventoryDisk>,
    /// How many more links and disks there are.
    pub left_out: u32,
}

/// A network link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryLink {
    /// The kernel's name for it.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// Whether it has a carrier; nothing for a link that is down.
    pub carrier: Option<bool>,
    /// What software made it; nothing for hardware.
    pub kind: Option<String>,
    /// Whether it is a port of a bridge or a bond.
    pub port: bool,
    /// Its drivers, nearest first.
    pub drivers: Vec<InventoryDriver>,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryDisk {
    /// Its node.
    pub path: String,
    /// The names that /dev/disk/by-id would have for it.
    pub ids: Vec<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// How it is attached: a word of the machine config's `bus`.
    pub bus: Option<String>,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// The formats whose marks are on it.
    pub content: Vec<String>,
    /// Why it could not be looked at.
    pub unread: Option<String>,
    /// Its partitions.
    pub partitions: Vec<InventoryPartition>,
    /// What is behind the image that it carries.
    pub image: Option<InventoryImage>,
    /// Its drivers, nearest first.
    pub drivers: Vec<InventoryDriver>,
}

/// What is behind an image of Keel on a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryImage {
    /// Bytes for a partition.
    pub room: u64,
    /// The formats whose marks are there.
    pub content: Vec<String>,
    /// Why no partition can be added.
    pub unfit: Option<String>,
}

/// A partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryPartition {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub label: String,
    /// Its type in a GPT, as text.
    pub type_guid: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// The formats whose marks are on it; nothing where it could not be read.
    pub content: Option<Vec<String>>,
}

/// A driver between a device and the processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryDriver {
    /// Its module, or its own name where it is in none.
    pub name: String,
    /// What the device says that it is.
    pub modalias: String,
    /// Whether it is part of the kernel.
    pub built_in: bool,
}

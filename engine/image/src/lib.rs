//! Node images: a kernel and an initramfs that holds init, units, a machine config and the programs
//! that the node runs; and disks and CDs that boot them. Built by any user, reproducible to the byte.

mod build;
mod cpio;
mod dpkg;
mod elf;
mod fetch;
mod firmware;
mod inventory;
mod kubelet;
mod layout;
mod libraries;
mod manifest;
mod modules;
mod needs;
mod payload;
mod sbom;
#[cfg(test)]
mod testing;
mod tree;
mod verify;
#[cfg(unix)]
pub mod vm;
mod watch;

pub use build::{BuildError, Firmware, ImageSpec, build};
pub use dpkg::{DebianPackage, owners};
pub use elf::ElfError;
pub use fetch::{Cache, FetchError, FetchErrorKind, sum_of};
pub use firmware::{FirmwareError, Format, GRUB_MODULES, Loader, ToolError};
pub use inventory::{
    Behind, BusName, Disk, Driver, INVENTORY_SCHEMA, Inventory, InventoryError, Link, Mac, Machine,
    Partition, Size, TypeGuid,
};
pub use kubelet::Kubelet;
pub use libraries::{LibraryError, LibraryErrorKind};
pub use manifest::{API_PORT, Blob, ImageDir, Manifest, OpenError, OpenErrorKind, Taken};
pub use modules::{ModuleError, ModuleErrorKind, WantedModule};
pub use needs::{NeededProgram, Needs};
pub use payload::{
    EntryError, EntryErrorKind, Payload, PayloadError, fetch, found_below, from_manifest,
};
pub use tree::{TreeError, TreeErrorKind};
pub use verify::{Arguments, Image, ImageError, ImageErrorKind, Question, Verdict, verify};
pub use watch::{Unwatched, Watch};

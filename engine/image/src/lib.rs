//! Node images: a kernel and an initramfs that holds init, units, a machine config and the programs
//! that the node runs. Built by any user, reproducible to the byte.

mod build;
mod cpio;
mod elf;
mod inventory;
mod layout;
mod libraries;
mod manifest;
mod modules;
mod needs;
mod payload;
#[cfg(test)]
mod testing;
mod tree;
mod verify;
#[cfg(unix)]
pub mod vm;

pub use build::{BuildError, ImageSpec, build};
pub use elf::ElfError;
pub use inventory::{
    BusName, Disk, Driver, INVENTORY_SCHEMA, Inventory, InventoryError, Link, Mac, Machine,
    Partition, Size, TypeGuid,
};
pub use libraries::{LibraryError, LibraryErrorKind};
pub use manifest::{Blob, ImageDir, Manifest, OpenError, OpenErrorKind, Taken};
pub use modules::{ModuleError, ModuleErrorKind, WantedModule};
pub use needs::{NeededProgram, Needs};
pub use payload::{Payload, PayloadError};
pub use tree::{TreeError, TreeErrorKind};
pub use verify::{Image, ImageError, ImageErrorKind, Question, Verdict, verify};

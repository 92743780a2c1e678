//! Linux: what the units do to the machine.

pub mod clock;
pub mod device;
pub mod disk;
pub mod file;
pub mod hostname;
pub mod identity;
pub mod inventory;
pub mod machine;
pub mod memory;
pub mod module;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod power;
pub mod process;
pub mod record;
pub mod sysctl;
pub mod tool;

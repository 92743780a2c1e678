//! Linux: what the units do to the machine.

pub mod clock;
pub mod device;
pub mod file;
pub mod hostname;
pub mod module;
pub mod net;
pub mod process;
pub mod sysctl;
pub mod tool;

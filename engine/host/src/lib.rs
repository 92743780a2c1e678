//! Linux: what the units do to the machine.

pub mod process;
pub mod tool;

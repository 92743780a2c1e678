//! Linux: what the units do to the machine.

pub mod tool;

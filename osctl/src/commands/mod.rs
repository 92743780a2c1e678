//! One module per command.

pub(crate) mod graph;
pub(crate) mod image;

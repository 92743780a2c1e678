//! Who this machine is.

pub(crate) mod random;

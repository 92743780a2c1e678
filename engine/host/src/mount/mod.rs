//! Mounts: a pure plan of steps from what is wanted and what the kernel says is mounted, and the few calls that do them.

pub mod apply;
mod cgroup;
pub mod error;
pub mod options;
pub mod plan;
pub mod table;

pub use apply::{MountOutcome, activate, deactivate};
pub use error::{MountError, MountErrorKind};

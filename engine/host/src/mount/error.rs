//! Why something is not mounted, or does not let go.

use std::io;
use std::path::PathBuf;

use super::options::OptionError;
use crate::disk::error::error_of_kind;
use crate::disk::source::SourceError;

/// A mount that did not come about, or did not go.
#[derive(Debug)]
pub struct MountError {
    /// The mount point.
    pub target: PathBuf,
    /// What stands in the way.
    pub kind: MountErrorKind,
}

error_of_kind!(MountError, |error| error.target.display());

/// What stands in the way of a mount.
#[derive(Debug, thiserror::Error)]
pub enum MountErrorKind {
    /// An option is none.
    #[error(transparent)]
    Option(OptionError),
    /// There is no device for the source.
    #[error(transparent)]
    Source(SourceError),
    /// The unit says neither what to mount nor that something is mounted.
    #[error("the unit says neither source and type nor that something is mounted already")]
    NoSource,
    /// The table of mounts, or the source of a bind mount, could not be looked at.
    #[error("could not look at {}", path.display())]
    Observe {
        /// What was looked at.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something else is mounted at the target; it is not mounted over.
    #[error("something else is mounted there: {what}")]
    Occupied {
        /// What it is.
        what: String,
    },
    /// Nothing is mounted where a mount is said to be.
    #[error("nothing is mounted there, and the unit says that something is")]
    NotMounted,
    /// The mount point could not be made.
    #[error("could not make the mount point")]
    MakePoint(#[source] io::Error),
    /// mount(2) failed.
    #[error("could not {what}{}", hint(source))]
    Call {
        /// What was tried.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The controllers could not be handed down.
    #[error("could not hand down the controller {controller}")]
    Delegate {
        /// Which one.
        controller: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something still uses it.
    #[error("in use by {}", if holders.is_empty() { "what cannot be told".to_owned() } else { holders.join(", ") })]
    Busy {
        /// The processes: name, id, and one path of each.
        holders: Vec<String>,
    },
    /// The machine shuts down.
    #[error("not done, because the machine shuts down")]
    Stopped,
}

/// What the bare words of the kernel mean for a mount.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENODEV) => " (the kernel does not know this type; its module may not be loaded)",
        Some(libc::EINVAL) => {
            " (the device holds no such filesystem, or an option is not one of this type)"
        }
        Some(libc::EBUSY) => " (it is mounted elsewhere in another way, or in use)",
        Some(libc::EACCES | libc::EROFS) => " (the device is read-only)",
        Some(libc::ENOTBLK) => " (the source is not a block device)",
        _ => "",
    }
}

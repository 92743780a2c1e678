//! What can go wrong between this room and one disk.

use std::io;
use std::path::PathBuf;

/// Makes a struct of a context and a `kind` an error that says both. The source is that of the kind, because the kind
/// itself has been said.
macro_rules! error_of_kind {
    ($name:ident, |$error:ident| $context:expr) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $error = self;
                write!(f, "{}: {}", $context, self.kind)
            }
        }

        impl std::error::Error for $name {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.kind.source()
            }
        }
    };
}
pub(crate) use error_of_kind;

/// A disk that could not be looked at or written.
#[derive(Debug)]
pub struct DiskError {
    /// The device node.
    pub disk: PathBuf,
    /// What went wrong.
    pub kind: DiskErrorKind,
}

error_of_kind!(DiskError, |error| error.disk.display());

/// What went wrong with a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskErrorKind {
    /// The node could not be opened.
    #[error("could not open{}", in_use(.0))]
    Open(#[source] io::Error),
    /// A read failed.
    #[error("could not read")]
    Read(#[source] io::Error),
    /// A write or a flush failed.
    #[error("could not write")]
    Write(#[source] io::Error),
    /// The kernel did not take the partition over.
    #[error("the kernel did not take over partition {number}")]
    Announce {
        /// Its number in the table.
        number: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel has another partition under that number, and it is in use.
    #[error("the kernel still holds another partition {0}, which is in use")]
    Stale(u32),
}

/// What an exclusive open says of a disk that has another claimant.
fn in_use(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EBUSY) => {
            " (it or a partition of it is mounted, used as swap, or part of LVM or RAID)"
        }
        _ => "",
    }
}

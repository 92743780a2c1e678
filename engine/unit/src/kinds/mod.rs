//! The kinds of units: a closed set, each with its own table of keys.

mod disk;
mod file;
mod kernel;
mod machine;
mod mount;
mod network;
mod process;

pub use disk::{Bus, DiskSelector, Filesystem, FilesystemType, IMAGE_DISK_MARK, Partition, Wipe};
pub use file::File;
pub use kernel::{Device, Module, Sysctl};
pub use machine::{HostName, Identity, Time};
pub use mount::{Controller, Mount, Propagation};
pub use network::Link;
pub use process::{
    Environment, Exec, Oneshot, OomScore, Ready, Resources, Restart, SEARCH_PATH, Service,
    StartLimit,
};

use std::fmt;
use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::keys::{Key, Table, keys, read_table};
use crate::tree::Node;
use crate::value::Timespan;

keys! {
    /// A named point of the boot that does no work: it is reached when what it waits for has ended. A target that the
    /// boot passes is a stage.
    pub struct Target {}
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $variant:ident($table:ty) = $word:literal),* $(,)?) => {
        /// What a unit does. The name of its table in the unit file is its kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Kind {
            $($(#[doc = $doc])* $variant($table),)*
        }

        /// The name of a kind, without its parameters.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum KindName {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Kind {
            /// The name of the kind.
            pub fn name(&self) -> KindName {
                match self {
                    $(Kind::$variant(_) => KindName::$variant,)*
                }
            }

            /// Reads the table of a kind, whose unknown keys were reported before.
            pub(crate) fn decode(name: KindName, node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Kind> {
                match name {
                    $(KindName::$variant => read_table::<$table>(node, findings).map(Kind::$variant),)*
                }
            }
        }

        impl KindName {
            /// Every kind.
            pub const ALL: &'static [KindName] = &[$(KindName::$variant,)*];

            /// The kind as it stands in unit files.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(KindName::$variant => $word,)*
                }
            }

            /// The words for all kinds.
            pub fn words() -> impl Iterator<Item = &'static str> {
                Self::ALL.iter().map(|kind| kind.as_str())
            }

            /// The kind of that name.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(KindName::$variant),)*
                    _ => None,
                }
            }

            /// The keys of the kind's table.
            pub fn keys(self) -> &'static [Key] {
                match self {
                    $(KindName::$variant => <$table as Table>::known(),)*
                }
            }

            /// What the kind is for.
            pub fn doc(self) -> &'static str {
                match self {
                    $(KindName::$variant => <$table as Table>::DOC,)*
                }
            }
        }
    };
}

kinds! {
    /// A named point.
    Target(Target) = "target",
    /// A mounted filesystem.
    Mount(Mount) = "mount",
    /// A kernel module, or coldplug.
    Module(Module) = "module",
    /// A kernel parameter.
    Sysctl(Sysctl) = "sysctl",
    /// A piece of hardware that is waited for.
    Device(Device) = "device",
    /// A network link.
    Link(Link) = "link",
    /// The host name.
    Hostname(HostName) = "hostname",
    /// The clock.
    Time(Time) = "time",
    /// A disk partition.
    Partition(Partition) = "partition",
    /// A filesystem on a device.
    Filesystem(Filesystem) = "filesystem",
    /// The machine's identity.
    Identity(Identity) = "identity",
    /// A file, directory or link.
    File(File) = "file",
    /// A program that runs once.
    Oneshot(Oneshot) = "oneshot",
    /// A program that keeps running.
    Service(Service) = "service",
}

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Kind {
    /// How long activation may take; `None` where nothing was said. A target does no work and needs none.
    pub fn deadline(&self) -> Option<Duration> {
        let timeout: Option<Timespan> = match self {
            Kind::Target(_) => None,
            Kind::Mount(k) => k.timeout,
            Kind::Module(k) => k.timeout,
            Kind::Sysctl(k) => k.timeout,
            Kind::Device(k) => k.timeout,
            Kind::Link(k) => k.timeout,
            Kind::Hostname(k) => k.timeout,
            Kind::Time(k) => k.timeout,
            Kind::Partition(k) => k.timeout,
            Kind::Filesystem(k) => k.timeout,
            Kind::Identity(k) => k.timeout,
            Kind::File(k) => k.timeout,
            Kind::Oneshot(k) => k.timeout,
            Kind::Service(k) => k.timeout,
        };
        timeout.map(|t| t.0)
    }
}

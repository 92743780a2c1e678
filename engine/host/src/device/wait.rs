//! Waits until a piece of hardware is there.
//!
//! Subscribe, look, then wait for a uevent and look again: whatever appears between the look and the wait has left a
//! uevent in the socket, so no wake-up is lost. A uevent is only ever a hint to look; the state alone decides, which
//! makes lost, doubled and reordered uevents harmless.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use keel_unit::kinds;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::uevent::{Received, UeventSocket};

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A device node (`/dev/vda`) or a directory of sysfs.
    Path(PathBuf),
    /// A network link.
    Link(String),
    /// A GPT partition by its name.
    Partition(String),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The path is there.
    Path(PathBuf),
    /// The link is there, under this index.
    Link(u32),
    /// The partition is there, with this node in /dev.
    Partition(PathBuf),
}

/// The wait could not be carried out. That the hardware does not come is no error of the wait: the deadline of the
/// unit ends it.
#[derive(Debug, thiserror::Error)]
#[error("cannot wait for {wanted}")]
pub struct DeviceError {
    wanted: Wanted,
    #[source]
    source: io::Error,
}

/// Waits until `wanted` is there; for ever, if it never comes. Dropping the future ends the wait.
pub async fn wait(wanted: &Wanted) -> Result<Found, DeviceError> {
    wait_in(Path::new("/sys"), wanted).await
}

/// [`wait`] with sysfs at another place.
pub async fn wait_in(sys: &Path, wanted: &Wanted) -> Result<Found, DeviceError> {
    wait_until_seen(sys, wanted)
        .await
        .map_err(|source| DeviceError { wanted: wanted.clone(), source })
}

async fn wait_until_seen(sys: &Path, wanted: &Wanted) -> io::Result<Found> {
    let uevents = UeventSocket::open()?;
    loop {
        if let Some(found) = wanted.look(sys)? {
            return Ok(found);
        }
        while !wanted.may_concern(&uevents.receive().await?) {}
        // One look serves all that has come by now.
        while uevents.try_receive()?.is_some() {}
    }
}

impl Wanted {
    /// What the unit waits for. `None` if it names nothing, which no unit that was validated does.
    pub fn of(unit: &kinds::Device) -> Option<Self> {
        let path = unit.path.as_ref().map(|path| Self::Path(path.as_path().to_owned()));
        let link = unit.link.as_ref().map(|link| Self::Link(link.to_string()));
        let partition = unit.partition.as_ref().map(|label| Self::Partition(label.to_string()));
        path.or(link).or(partition)
    }

    /// Whether it is there now.
    fn look(&self, sys: &Path) -> io::Result<Option<Found>> {
        match self {
            Self::Path(path) => Ok(path.try_exists()?.then(|| Found::Path(path.clone()))),
            // Asked of the kernel, not of sysfs: that shows the network namespace of whoever mounted it.
            Self::Link(name) => match if_nametoindex(name.as_str()) {
                Ok(index) => Ok(Some(Found::Link(index))),
                Err(Errno::ENODEV | Errno::ENXIO) => Ok(None),
                Err(errno) => Err(errno.into()),
            },
            Self::Partition(label) => find_partition(sys, label),
        }
    }

    fn may_concern(&self, received: &Received) -> bool {
        let Received::Event(event) = received else { return true };
        let of = |subsystem| event.property("SUBSYSTEM") == Some(subsystem);
        event.adds()
            && match self {
                Self::Path(_) => true,
                Self::Link(_) => of("net"),
                Self::Partition(_) => of("block"),
            }
    }
}

/// Looks for the partition name that the kernel read from the GPT, in the uevent file of each block device.
fn find_partition(sys: &Path, label: &str) -> io::Result<Option<Found>> {
    let entries = match std::fs::read_dir(sys.join("class/block")) {
        Ok(entries) => entries,
        // No block device yet, nor the code for one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut nodes: Vec<PathBuf> = entries
        .flatten()
        .filter_map(|entry| {
            // A device that vanishes in between is not there.
            let properties = std::fs::read_to_string(entry.path().join("uevent")).ok()?;
            let property = |key: &str| {
                properties.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            };
            (property("PARTNAME")? == label)
                .then(|| Path::new("/dev").join(property("DEVNAME").unwrap_or_default()))
        })
        .collect();
    nodes.sort();
    Ok(nodes.into_iter().next().map(Found::Partition))
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Link(name) => write!(f, "link {name}"),
            Self::Partition(label) => write!(f, "partition {label}"),
        }
    }
}

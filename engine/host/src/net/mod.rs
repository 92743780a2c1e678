//! The network: a link gets its addresses and routes, from the config or from a DHCP server, and
//! keeps them.
//!
//! ```text
//! LinkSpec + what netlink shows  --plan.rs (pure)-->  changes  --apply.rs-->  the kernel
//! packets, time                  --dhcp/  (pure)-->   actions  --keeper.rs--> sockets, a new plan
//! ```
//!
//! [`start`] leaves a keeper on the current tokio runtime, which never blocks. It waits for the
//! link to appear and to have a carrier (netlink notices, no polling), acquires a lease, renews it,
//! takes the address away when it ends, mends what others break, and begins again when the link was
//! gone. It never gives up: a DHCP server that comes an hour after boot still heals the machine.
//!
//! IPv6 has static addresses; SLAAC is the kernel's own. A VLAN, a bond or a bridge is one more
//! [`LinkSelector`] and one more change in the plan: everything after the choice of the link is
//! the same for them.

mod apply;
mod dhcp;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod keeper;
mod plan;
mod resolv;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use dhcp::{Lease, Timing};
pub use keel_unit::select::LinkSelector;
pub use plan::Route;

/// An address and the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address, host bits included.
    pub address: IpAddr,
    /// How many bits of it are the network's.
    pub prefix: u8,
}

impl Cidr {
    fn v4(address: Ipv4Addr, prefix: u8) -> Self {
        Self { address: address.into(), prefix }
    }

    /// Every address of a family.
    fn everything(v4: bool) -> Self {
        let address = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Self { address, prefix: 0 }
    }

    fn contains(&self, other: IpAddr) -> bool {
        let prefix = u32::from(self.prefix);
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32 - prefix.min(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128 - prefix.min(128)).unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// What a link is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkSpec {
    /// Which link.
    pub selector: LinkSelector,
    /// Acquire a lease by DHCPv4.
    pub dhcp: bool,
    /// MTU; the one of the lease if there is none here.
    pub mtu: Option<u32>,
    /// Static addresses.
    pub addresses: Vec<Cidr>,
    /// Static default route; stands before the one of the lease.
    pub gateway: Option<IpAddr>,
    /// Name servers; those of the lease come after them.
    pub dns: Vec<IpAddr>,
    /// Take the host name of the lease (option 12).
    pub hostname_from_dhcp: bool,
    /// The resolv.conf that this link writes, as soon as it knows a name server.
    pub resolv_conf: Option<PathBuf>,
    /// How patient DHCP is.
    pub timing: Timing,
}

impl LinkSpec {
    /// A link without addresses: for `lo`, that is all there is to say.
    #[must_use]
    pub fn new(selector: LinkSelector) -> Self {
        Self {
            selector,
            dhcp: false,
            mtu: None,
            addresses: Vec::new(),
            gateway: None,
            dns: Vec::new(),
            hostname_from_dhcp: false,
            resolv_conf: None,
            timing: Timing::default(),
        }
    }
}

/// What a configured link is.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkStatus {
    /// Its name.
    pub name: String,
    /// Its index in the kernel.
    pub index: u32,
    /// The addresses that Keel gave it.
    pub addresses: Vec<Cidr>,
    /// The routes that Keel gave it.
    pub routes: Vec<Route>,
    /// Name servers in use.
    pub dns: Vec<IpAddr>,
    /// Search domains in use.
    pub search: Vec<String>,
    /// The lease behind it, if there is one.
    pub lease: Option<Lease>,
}

/// News of a link, for the console and the facts of the machine.
#[derive(Debug, Clone, PartialEq)]
pub enum NetEvent {
    /// The link is not there yet, or not fit to be configured.
    Waiting {
        /// What is missing.
        why: String,
    },
    /// The selector found its link.
    LinkChosen {
        /// Its name.
        name: String,
        /// Its hardware address.
        mac: Option<[u8; 6]>,
    },
    /// A new lease is in effect.
    Leased {
        /// The address.
        address: Cidr,
        /// The routes that came with it.
        routes: Vec<Route>,
        /// The name servers.
        dns: Vec<Ipv4Addr>,
        /// The host name, if the server gave one.
        hostname: Option<String>,
        /// How long it lasts; `None` is for ever.
        ttl: Option<Duration>,
    },
    /// The lease was extended.
    Renewed {
        /// The address.
        address: Cidr,
        /// How long it lasts from now.
        ttl: Option<Duration>,
    },
    /// The lease ended and its address was removed.
    Expired {
        /// The address.
        address: Ipv4Addr,
        /// What ended it.
        why: String,
    },
    /// The address that the server gave is in use by another machine.
    Declined {
        /// The address.
        address: Ipv4Addr,
        /// The hardware address of the other machine.
        by: [u8; 6],
    },
    /// No lease, or no extension of one, yet; the next attempt is under way.
    Retrying {
        /// How many attempts have failed in a row.
        attempt: u32,
        /// What was wrong.
        why: String,
    },
    /// A part of the configuration could not be put into effect; the rest was.
    Incomplete {
        /// What, and why.
        why: String,
    },
}

/// Why a link could not be configured.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct NetError {
    /// What went wrong.
    pub kind: NetErrorKind,
    /// What the kernel said.
    #[source]
    pub source: Errno,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetErrorKind {
    /// There is no netlink socket to be had.
    #[error("cannot talk to the kernel about links")]
    Netlink,
    /// The kernel refused to say what there is.
    #[error("cannot read links, addresses and routes")]
    Observe,
    /// The kernel refused a change that the link needs.
    #[error("{link}: cannot {change}")]
    Change {
        /// The link.
        link: String,
        /// The change.
        change: String,
    },
    /// DHCP needs a hardware address.
    #[error("{0} is no Ethernet link, so there is no DHCP on it")]
    NotEthernet(String),
    /// The keeper ended before the link was configured.
    #[error("the link was given up")]
    Stopped,
}

#[derive(Debug, Clone, Default)]
enum Progress {
    #[default]
    Waiting,
    Up(Box<LinkStatus>),
    Failed(NetError),
}

/// A link and its keeper, which runs until this is released or dropped.
#[derive(Debug)]
pub struct Link {
    progress: watch::Receiver<Progress>,
    awaits: watch::Receiver<String>,
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<()>,
}

/// Starts to configure a link, on the current tokio runtime.
///
/// `events` is told what happens as long as there is room in it: the keeper does not wait for a
/// reader.
#[must_use = "the link is given up when this is dropped"]
pub fn start(spec: LinkSpec, events: mpsc::Sender<NetEvent>) -> Link {
    let (report, progress) = watch::channel(Progress::default());
    let (tell, awaits) = watch::channel("the link is not there".to_owned());
    let (stop, stopped) = oneshot::channel();
    let out = keeper::Out { events, progress: report, awaits: tell };
    let keeper = tokio::spawn(keeper::run(spec, out, stopped));
    Link { progress, awaits, stop, keeper }
}

impl Link {
    /// Waits until the link is configured: static addresses set, first lease in effect.
    ///
    /// It may be cancelled at a deadline and called again: the keeper goes on either way.
    ///
    /// # Errors
    ///
    /// If the kernel refuses what the link cannot be without. The keeper tries again at the next
    /// change of the link or the lease.
    pub async fn up(&mut self) -> Result<LinkStatus, NetError> {
        let settled =
            self.progress.wait_for(|progress| !matches!(progress, Progress::Waiting)).await;
        match settled.as_deref() {
            Ok(Progress::Up(status)) => Ok(status.as_ref().clone()),
            Ok(Progress::Failed(error)) => Err(error.clone()),
            Ok(Progress::Waiting) | Err(_) => {
                Err(NetError { kind: NetErrorKind::Stopped, source: Errno::ECANCELED })
            }
        }
    }

    /// What a link waits for that is not up: the reason why a boot went on without it.
    #[must_use]
    pub fn awaits(&self) -> String {
        self.awaits.borrow().clone()
    }

    /// The link as it is configured now; `None` while it is not.
    #[must_use]
    pub fn status(&self) -> Option<LinkStatus> {
        match &*self.progress.borrow() {
            Progress::Up(status) => Some(status.as_ref().clone()),
            Progress::Waiting | Progress::Failed(_) => None,
        }
    }

    /// Gives the lease back to its server, takes address and routes away and ends the keeper.
    ///
    /// Dropping the link does the same in the background.
    pub async fn release(self) {
        drop(self.stop);
        // The keeper ends by itself; if it panicked there is nothing left to end.
        let _ = self.keeper.await;
    }
}

/// A link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSeen {
    /// Its index in the kernel.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address; `None` for what is no Ethernet.
    pub mac: Option<[u8; 6]>,
    /// Whether it is raised.
    pub up: bool,
    /// Whether it has a carrier.
    pub carrier: bool,
    /// What software made it; nothing for hardware.
    pub kind: Option<String>,
    /// Whether it is a port of a bridge or a bond.
    pub port: bool,
}

/// Every link but the loopback.
///
/// # Errors
///
/// If the kernel does not tell.
pub async fn links() -> Result<Vec<LinkSeen>, NetError> {
    let links = apply::Kernel::open()?.links().await?;
    let links = links.into_iter().filter(|link| !link.loopback).map(|link| LinkSeen {
        index: link.index,
        name: link.name,
        mac: link.mac,
        up: link.up,
        carrier: link.carrier,
        kind: link.kind,
        port: link.enslaved,
    });
    Ok(links.collect())
}

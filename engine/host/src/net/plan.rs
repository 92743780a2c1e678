//! What is to change on a link, as a function of what is wanted and what is observed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use keel_unit::select::{LinkFacts, matching_links};

use super::dhcp::{Lease, Mac};
use super::{Cidr, LinkSelector, LinkSpec};

/// Metric of the routes that Keel makes, before the index of the link is added: two links with a
/// default route do not fight over one place, and the link that was found first wins.
const METRIC: u32 = 1024;

/// A link as the kernel shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) index: u32,
    pub(super) name: String,
    /// `None` for what is no Ethernet.
    pub(super) mac: Option<Mac>,
    pub(super) loopback: bool,
    /// `veth`, `bridge`, …; nothing for hardware.
    pub(super) kind: Option<String>,
    /// Is a port of a bridge or a bond, which then is the link to configure.
    pub(super) enslaved: bool,
    pub(super) up: bool,
    pub(super) carrier: bool,
    /// How often it got its carrier: tells of a loss that was over before anyone looked.
    pub(super) carrier_ups: u32,
    pub(super) mtu: u32,
}

/// Which link a spec means, at this moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice<'a> {
    /// This one, and it is fit to be configured.
    Use(&'a Seen),
    /// These must be raised before they can show a carrier.
    Raise(Vec<&'a Seen>),
    /// There is nothing to do but wait for the kernel to tell of a change.
    Wait,
}

/// Chooses the link of `spec` among `links`.
///
/// A link without a carrier is waited for only where that matters: DHCP would talk to nobody, a
/// static address can be given at any time.
pub(super) fn choose<'a>(spec: &LinkSpec, links: &'a [Seen]) -> Choice<'a> {
    let mut meant = matching_links(&spec.selector, links);
    meant.sort_by_key(|link| link.index);
    let needs_carrier = spec.dhcp || spec.selector == LinkSelector::FirstEthernetWithCarrier;
    if let Some(ready) = meant.iter().find(|link| !needs_carrier || link.carrier) {
        return Choice::Use(ready);
    }
    meant.retain(|link| !link.up);
    if meant.is_empty() { Choice::Wait } else { Choice::Raise(meant) }
}

/// What [`choose`] waits for, for a person who wonders why nothing happens.
pub(super) fn awaited(spec: &LinkSpec, links: &[Seen]) -> String {
    match &spec.selector {
        LinkSelector::Loopback if !links.iter().any(|link| link.loopback) => {
            "there is no loopback link".to_owned()
        }
        LinkSelector::Name(name) if !links.iter().any(|link| link.name == *name) => {
            format!("there is no link {name}")
        }
        LinkSelector::Mac(mac) if !links.iter().any(|link| link.mac == Some(*mac)) => {
            let octets = mac.map(|octet| format!("{octet:02x}"));
            format!("there is no link with the address {}", octets.join(":"))
        }
        LinkSelector::FirstEthernetWithCarrier => {
            let ethernet = matching_links(&spec.selector, links);
            let names: Vec<_> = ethernet.iter().map(|link| link.name.as_str()).collect();
            match names.as_slice() {
                [] => "there is no ethernet link".to_owned(),
                names => format!("no ethernet link has a carrier (of {})", names.join(", ")),
            }
        }
        LinkSelector::Loopback | LinkSelector::Name(_) | LinkSelector::Mac(_) => {
            "the link has no carrier".to_owned()
        }
    }
}

impl LinkFacts for Seen {
    fn name(&self) -> &str {
        &self.name
    }

    fn mac(&self) -> Option<Mac> {
        self.mac
    }

    fn is_loopback(&self) -> bool {
        self.loopback
    }

    fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    fn is_port(&self) -> bool {
        self.enslaved
    }
}

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) cidr: Cidr,
    /// After this the kernel takes it away by itself; `None` is for ever.
    pub(super) lifetime: Option<Duration>,
}

/// A route over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: Cidr,
    /// The next hop; `None` if the destination is on the link itself.
    pub via: Option<IpAddr>,
    /// The address that packets over it come from.
    pub source: Option<IpAddr>,
    /// The smaller wins.
    pub metric: u32,
    /// Whether it came with a lease (`proto dhcp`) or from the config (`proto static`).
    pub leased: bool,
    /// The next hop is on the link although no address of the link says so.
    pub onlink: bool,
}

impl Route {
    /// Whether the kernel shows `self` as `other`; a dump does not repeat every detail.
    fn is(&self, other: &Self) -> bool {
        (self.destination, self.via, self.metric) == (other.destination, other.via, other.metric)
            && (self.source == other.source && self.leased == other.leased)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.via {
            Some(via) => write!(f, "{} via {via}", self.destination),
            None => write!(f, "{} on the link", self.destination),
        }
    }
}

/// What a link is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `None`: as it is.
    pub(super) mtu: Option<u32>,
    pub(super) addresses: Vec<Address>,
    /// In an order in which each next hop can be reached by what comes before it.
    pub(super) routes: Vec<Route>,
}

/// What a link has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) up: bool,
    pub(super) mtu: u32,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
}

/// One change to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Raise,
    Mtu(u32),
    /// Adds the address, or sets its lifetime anew.
    PutAddress(Address),
    RemoveAddress(Cidr),
    AddRoute(Route),
    RemoveRoute(Route),
}

impl Change {
    /// Whether the link is of no use without it. A server can send a route that the kernel will
    /// not have; the machine is still better on the network than off it.
    pub(super) fn is_essential(&self) -> bool {
        match self {
            Self::Raise | Self::PutAddress(_) => true,
            Self::AddRoute(route) => !route.leased || route.destination.prefix == 0,
            Self::Mtu(_) | Self::RemoveAddress(_) | Self::RemoveRoute(_) => false,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raise => write!(f, "raise the link"),
            Self::Mtu(mtu) => write!(f, "set the MTU to {mtu}"),
            Self::PutAddress(address) => write!(f, "set address {}", address.cidr),
            Self::RemoveAddress(cidr) => write!(f, "remove address {cidr}"),
            Self::AddRoute(route) => write!(f, "add route {route}"),
            Self::RemoveRoute(route) => write!(f, "remove route {route}"),
        }
    }
}

/// What the link `index` is to have by `spec`, and by `lease` for what is left of it.
pub(super) fn wanted(
    spec: &LinkSpec,
    lease: Option<(&Lease, Option<Duration>)>,
    index: u32,
) -> Wanted {
    let metric = METRIC.saturating_add(index);
    let mut wanted = Wanted { mtu: spec.mtu, ..Wanted::default() };
    for cidr in &spec.addresses {
        wanted.addresses.push(Address { cidr: *cidr, lifetime: None });
    }
    if let Some(gateway) = spec.gateway {
        let destination = Cidr::everything(gateway.is_ipv4());
        let source = spec
            .addresses
            .iter()
            .map(|cidr| cidr.address)
            .find(|a| a.is_ipv4() == gateway.is_ipv4());
        let onlink = !spec.addresses.iter().any(|cidr| cidr.contains(gateway));
        wanted.routes.push(Route {
            destination,
            via: Some(gateway),
            source,
            metric,
            leased: false,
            onlink,
        });
    }
    if let Some((lease, left)) = lease {
        wanted.mtu = wanted.mtu.or(lease.mtu.map(u32::from));
        wanted
            .addresses
            .push(Address { cidr: Cidr::v4(lease.address, lease.prefix), lifetime: left });
        // A gateway of the config is meant to be the one.
        let config_leads = spec.gateway.is_some_and(|gateway| gateway.is_ipv4());
        let routes = lease_routes(lease, metric);
        wanted.routes.extend(
            routes.into_iter().filter(|route| !config_leads || route.destination.prefix != 0),
        );
    }
    wanted
}

/// What resolvers read of resolv.conf (`MAXNS` of glibc and musl).
const MOST_DNS: usize = 3;

/// The name servers to use: the config's, then the lease's.
pub(super) fn dns(spec: &LinkSpec, lease: Option<&Lease>) -> Vec<IpAddr> {
    let mut servers = spec.dns.clone();
    for server in lease.iter().flat_map(|lease| &lease.dns) {
        if !servers.contains(&IpAddr::V4(*server)) {
            servers.push((*server).into());
        }
    }
    servers.truncate(MOST_DNS);
    servers
}

/// The routes of a lease. RFC 3442: with classless routes, the routers do not count.
fn lease_routes(lease: &Lease, metric: u32) -> Vec<Route> {
    let own = Cidr::v4(lease.address, lease.prefix);
    let default = lease.routers.first().map(|router| (Ipv4Addr::UNSPECIFIED, 0, *router));
    let listed = lease.classless.clone().unwrap_or_else(|| default.into_iter().collect());
    let direct = |router: &Ipv4Addr| router.is_unspecified();
    // Destinations on the link itself (router 0.0.0.0) come first: routers may be among them.
    let (on_link, behind): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|(_, _, router)| direct(router));
    let on_link: Vec<Cidr> =
        on_link.into_iter().map(|(to, prefix, _)| Cidr::v4(to, prefix)).collect();
    let reachable =
        |router: IpAddr| own.contains(router) || on_link.iter().any(|cidr| cidr.contains(router));
    let route = |destination, via: Option<IpAddr>| Route {
        destination,
        via,
        source: Some(lease.address.into()),
        metric,
        leased: true,
        // Clouds give /32 addresses with a router outside of them.
        onlink: via.is_some_and(|via| !reachable(via)),
    };
    let mut routes: Vec<Route> =
        on_link.iter().map(|destination| route(*destination, None)).collect();
    for (to, prefix, router) in behind {
        if router != lease.address {
            routes.push(route(Cidr::v4(to, prefix), Some(router.into())));
        }
    }
    routes
}

/// What turns `observed` into `wanted`.
///
/// Only what was `wanted` before is taken away: other addresses and routes on the link belong to
/// others (a virtual IP of the control plane, the routes of a CNI) and stay.
pub(super) fn changes(wanted: &Wanted, before: &Wanted, observed: &Observed) -> Vec<Change> {
    let mut changes = Vec::new();
    if !observed.up {
        changes.push(Change::Raise);
    }
    if let Some(mtu) = wanted.mtu.filter(|mtu| *mtu != observed.mtu) {
        changes.push(Change::Mtu(mtu));
    }
    // Old before new: a second address of one network is removed together with the first, and
    // an old default route would stand in the place of the new one.
    let stale = before.routes.iter().filter(|route| !wanted.routes.iter().any(|new| new.is(route)));
    for route in stale.filter(|route| observed.routes.iter().any(|seen| seen.is(route))) {
        changes.push(Change::RemoveRoute(*route));
    }
    let has = |list: &[Address], cidr: Cidr| list.iter().any(|address| address.cidr == cidr);
    let stale = before.addresses.iter().filter(|address| !has(&wanted.addresses, address.cidr));
    for address in stale.filter(|address| has(&observed.addresses, address.cidr)) {
        changes.push(Change::RemoveAddress(address.cidr));
    }
    for address in &wanted.addresses {
        let seen = observed.addresses.iter().find(|seen| seen.cidr == address.cidr);
        if !seen.is_some_and(|seen| same_lifetime(seen.lifetime, address.lifetime)) {
            changes.push(Change::PutAddress(*address));
        }
    }
    for route in &wanted.routes {
        if !observed.routes.iter().any(|seen| seen.is(route)) {
            changes.push(Change::AddRoute(*route));
        }
    }
    changes
}

/// Whether the kernel's countdown still fits. It counts whole seconds and was started rounded up; it
/// may neither end before the lease nor much after it.
fn same_lifetime(seen: Option<Duration>, wanted: Option<Duration>) -> bool {
    match (seen, wanted) {
        (None, None) => true,
        (Some(seen), Some(wanted)) => {
            (wanted.as_secs()..=wanted.as_secs() + 2).contains(&seen.as_secs())
        }
        _ => false,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

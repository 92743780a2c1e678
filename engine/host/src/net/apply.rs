//! The kernel's routing netlink: shows what is there and makes changes, one by one, as it is told.
//! Decisions live in `plan.rs`.

use std::future::pending;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::time::Duration;

use nix::errno::Errno;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, CacheInfo};
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Error, Handle, LinkUnspec, MulticastGroup, new_multicast_connection};
use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt as _};

use super::plan::{Address, Change, Observed, Route, Seen};
use super::{Cidr, NetError, NetErrorKind};

/// `INFINITY_LIFE_TIME` of linux/if_addr.h.
const FOR_EVER: u32 = u32::MAX;

type Message = NetlinkMessage<RouteNetlinkMessage>;

/// A connection to the kernel that also hears of every change to a link.
pub(super) struct Kernel {
    handle: Handle,
    notices: Pin<Box<dyn Stream<Item = Message> + Send + Sync>>,
    connection: JoinHandle<()>,
}

/// What the kernel tells unasked.
#[derive(Debug)]
pub(super) enum Notice {
    /// The link with this index is new, changed or gone. Which of it, and how it is now, is to be
    /// asked: some notices tell only a part.
    Link(u32),
    /// There was more to tell than there was room for: look again.
    Missed,
}

impl Kernel {
    pub(super) fn open() -> Result<Self, NetError> {
        let (connection, handle, notices) = new_multicast_connection(&[MulticastGroup::Link])
            .map_err(|error| {
                let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
                NetError { kind: NetErrorKind::Netlink, source: errno }
            })?;
        let notices = Box::pin(notices.map(|(message, _)| message));
        Ok(Self { handle, notices, connection: tokio::spawn(connection) })
    }

    /// Waits for the next notice. May be cancelled.
    pub(super) async fn notice(&mut self) -> Notice {
        loop {
            let Some(message) = self.notices.next().await else {
                // The connection broke. A new one has missed whatever was told meanwhile.
                match Self::open() {
                    Ok(kernel) => *self = kernel,
                    Err(_) => pending().await,
                }
                return Notice::Missed;
            };
            match message.payload {
                NetlinkPayload::InnerMessage(
                    RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
                ) => return Notice::Link(link.header.index),
                NetlinkPayload::Overrun(_) => return Notice::Missed,
                _ => {}
            }
        }
    }

    /// Every link of the network namespace.
    pub(super) async fn links(&self) -> Result<Vec<Seen>, NetError> {
        let links = all(self.handle.link().get().execute()).await?;
        Ok(links.iter().map(seen).collect())
    }

    /// The link `index`; `None` if it is gone.
    pub(super) async fn link(&self, index: u32) -> Result<Option<Seen>, NetError> {
        match all(self.handle.link().get().match_index(index).execute()).await {
            Ok(links) => Ok(links.first().map(seen)),
            Err(error) if error.source == Errno::ENODEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the link `index` has; `None` if it is gone.
    pub(super) async fn observe(&self, index: u32) -> Result<Option<Observed>, NetError> {
        let Some(link) = self.link(index).await? else { return Ok(None) };
        let addresses =
            all(self.handle.address().get().set_link_index_filter(index).execute()).await?;
        let routes = all(self.handle.route().get(RouteMessage::default()).execute()).await?;
        Ok(Some(Observed {
            up: link.up,
            mtu: link.mtu,
            addresses: addresses.iter().filter_map(address).collect(),
            routes: routes.iter().filter_map(|message| route(message, index)).collect(),
        }))
    }

    /// Makes one change to the link `index`. What is already so, or already gone, is done.
    pub(super) async fn change(&self, index: u32, change: &Change) -> Result<(), Errno> {
        let done = match change {
            Change::Raise => {
                let message = LinkUnspec::new_with_index(index).up().build();
                self.handle.link().set(message).execute().await
            }
            Change::Mtu(mtu) => {
                let message = LinkUnspec::new_with_index(index).mtu(*mtu).build();
                self.handle.link().set(message).execute().await
            }
            Change::PutAddress(Address { cidr, lifetime }) => {
                let mut request =
                    self.handle.address().add(index, cidr.address, cidr.prefix).replace();
                if let Some(lifetime) = lifetime {
                    request
                        .message_mut()
                        .attributes
                        .push(AddressAttribute::CacheInfo(lasting(*lifetime)));
                }
                request.execute().await
            }
            Change::RemoveAddress(cidr) => {
                let message = self
                    .handle
                    .address()
                    .add(index, cidr.address, cidr.prefix)
                    .message_mut()
                    .clone();
                gone(self.handle.address().del(message).execute().await)
            }
            Change::AddRoute(route) => {
                self.handle.route().add(message(route, index)).execute().await
            }
            Change::RemoveRoute(route) => {
                gone(self.handle.route().del(message(route, index)).execute().await)
            }
        };
        done.map_err(|error| errno(&error))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn all<T>(answers: impl Stream<Item = Result<T, Error>>) -> Result<Vec<T>, NetError> {
    let mut answers = pin!(answers);
    let mut list = Vec::new();
    while let Some(answer) = answers.next().await {
        list.push(
            answer
                .map_err(|error| NetError { kind: NetErrorKind::Observe, source: errno(&error) })?,
        );
    }
    Ok(list)
}

fn errno(error: &Error) -> Errno {
    match error {
        Error::NetlinkError(message) => Errno::from_raw(message.raw_code().saturating_neg()),
        _ => Errno::EPROTO,
    }
}

/// Something else (the end of its lifetime, the end of its address) may remove it first.
fn gone(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(error)
            if matches!(errno(&error), Errno::EADDRNOTAVAIL | Errno::ESRCH | Errno::ENOENT) =>
        {
            Ok(())
        }
        done => done,
    }
}

fn lasting(lifetime: Duration) -> CacheInfo {
    // Rounded up: the keeper takes the address away before the kernel does.
    let secs = u32::try_from(lifetime.as_secs() + 1).unwrap_or(FOR_EVER);
    let mut info = CacheInfo::default();
    info.ifa_valid = secs;
    info.ifa_preferred = secs;
    info
}

fn seen(message: &LinkMessage) -> Seen {
    let flags = message.header.flags;
    let mut seen = Seen {
        index: message.header.index,
        loopback: flags.contains(LinkFlags::Loopback),
        up: flags.contains(LinkFlags::Up),
        // LOWER_UP is the carrier itself; RUNNING follows when the kernel has also begun to send.
        carrier: flags.contains(LinkFlags::LowerUp | LinkFlags::Running),
        ..Seen::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => seen.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => seen.mtu = *mtu,
            LinkAttribute::CarrierUpCount(count) => seen.carrier_ups = *count,
            LinkAttribute::Controller(_) => seen.enslaved = true,
            LinkAttribute::Address(mac)
                if message.header.link_layer_type == LinkLayerType::Ether =>
            {
                seen.mac = mac.as_slice().try_into().ok();
            }
            LinkAttribute::LinkInfo(infos) => {
                seen.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    seen
}

fn address(message: &AddressMessage) -> Option<Address> {
    let attributes = &message.attributes;
    // IFA_LOCAL is the address and IFA_ADDRESS the peer's, where there are both (rtnetlink(7)).
    let local = attributes
        .iter()
        .find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let plain = attributes
        .iter()
        .find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
    let info = attributes
        .iter()
        .find_map(|a| if let AddressAttribute::CacheInfo(i) = a { Some(i) } else { None });
    let valid = info.map_or(FOR_EVER, |info| info.ifa_valid);
    Some(Address {
        cidr: Cidr { address: local.or(plain)?, prefix: message.header.prefix_len },
        lifetime: (valid != FOR_EVER).then(|| Duration::from_secs(valid.into())),
    })
}

/// A route of the main table over the link `index`, if it is of a kind that Keel makes.
fn route(message: &RouteMessage, index: u32) -> Option<Route> {
    let header = &message.header;
    let leased = match header.protocol {
        RouteProtocol::Dhcp => true,
        RouteProtocol::Static => false,
        _ => return None,
    };
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let mut destination = None;
    let mut route = Route {
        destination: Cidr::everything(header.address_family == AddressFamily::Inet),
        via: None,
        source: None,
        metric: 0,
        leased,
        onlink: header.flags.contains(RouteFlags::Onlink),
    };
    let mut over = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => route.via = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Oif(oif) => over = Some(*oif),
            _ => {}
        }
    }
    if let Some(address) = destination {
        route.destination = Cidr { address, prefix: header.destination_prefix_length };
    }
    (over == Some(index)).then_some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn message(route: &Route, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    let v4 = route.destination.address.is_ipv4();
    header.address_family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    header.destination_prefix_length = route.destination.prefix;
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = if route.leased { RouteProtocol::Dhcp } else { RouteProtocol::Static };
    header.scope = if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    header.kind = RouteType::Unicast;
    if route.onlink {
        header.flags.insert(RouteFlags::Onlink);
    }
    let attributes = &mut message.attributes;
    if route.destination.prefix > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.address.into()));
    }
    attributes.extend(route.via.map(|via| RouteAttribute::Gateway(via.into())));
    attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    attributes.extend([RouteAttribute::Oif(index), RouteAttribute::Priority(route.metric)]);
    message
}

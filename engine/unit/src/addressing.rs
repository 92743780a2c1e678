//! Fixed addresses and the gateway beside them: what is well written and cannot work all the same.

use std::net::IpAddr;

use crate::diagnostic::Diagnostic;
use crate::keys::Fields;
use crate::value::Cidr;

/// Looks at the keys `addresses` and `gateway` of a link.
pub(crate) fn check(addresses: &[Cidr], gateway: Option<IpAddr>, fields: &mut Fields<'_>) {
    for (i, cidr) in addresses.iter().enumerate() {
        if let Some(what) = no_host(cidr.address, cidr.prefix) {
            let at = fields.span_of_item("addresses", i);
            let message = format!("{} {what}, and no machine can have it", cidr.address);
            let found =
                Diagnostic::new("bad-value", at, message).label("not the address of a host");
            let help = match within(cidr) {
                Some((first, last)) => format!("the hosts of this network are {first} to {last}"),
                None => "write the address that this machine alone has".to_owned(),
            };
            fields.report(found.help(help));
        }
    }
    if let Some(gateway) = gateway
        && let Some(found) = gateway_of(addresses, gateway, fields)
    {
        fields.report(found);
    }
}

fn gateway_of(addresses: &[Cidr], gateway: IpAddr, fields: &Fields<'_>) -> Option<Diagnostic> {
    let at = fields.span_of("gateway");
    let family = || addresses.iter().filter(|cidr| cidr.address.is_ipv4() == gateway.is_ipv4());
    if family().any(|cidr| cidr.address == gateway) {
        let message = format!("the gateway {gateway} is an address of this link itself");
        let found = Diagnostic::new("bad-value", at, message).label("this machine");
        return Some(found.help("write the address of the router"));
    }
    let near = family().find(|cidr| cidr.contains(gateway));
    let single = if gateway.is_ipv4() { 32 } else { 128 };
    if let Some(what) = no_host(gateway, near.map_or(single, |cidr| cidr.prefix)) {
        let message = format!("{gateway} {what}, and no router can have it");
        let found = Diagnostic::new("bad-value", at, message).label("not the address of a router");
        return Some(found.help("write the address that the router has in this link's network"));
    }
    // A router says its link-local address (RFC 4861, 4.2), and with an address that is a network of its own, as on
    // point-to-point links and in many clouds, every gateway is outside of it.
    let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let alone = family().any(|cidr| cidr.prefix == single);
    if near.is_some() || link_local || alone {
        return None;
    }
    let networks: Vec<_> = family().map(ToString::to_string).collect();
    let (first, last) = within(family().next()?)?;
    let message = format!("the gateway {gateway} is in no network of this link");
    let found = Diagnostic::new("bad-value", at, message);
    Some(
        found.label(format!("outside of {}", networks.join(", "))).help(format!(
            "write one from {first} to {last}; for a point-to-point link give the address the prefix length {single}"
        )),
    )
}

/// What an address is, if it is not one that a single host can have in a network of this size.
fn no_host(address: IpAddr, prefix: u8) -> Option<&'static str> {
    // All addresses of the smallest networks are hosts (RFC 3021, RFC 6164).
    let wide = prefix < if address.is_ipv4() { 31 } else { 127 };
    let (first, last) = bounds(address, prefix);
    match address {
        _ if address.is_multicast() => Some("is a multicast address"),
        _ if address.is_unspecified() => Some("is the address of nobody"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address of every network"),
        IpAddr::V4(_) if wide && last == address => Some("is the broadcast address of its network"),
        _ if wide && first == address => Some("is the address of the network itself"),
        _ => None,
    }
}

/// The first and the last address of a host in a network, where there is something to choose from.
fn within(cidr: &Cidr) -> Option<(IpAddr, IpAddr)> {
    let (first, last) = bounds(cidr.address, cidr.prefix);
    match (first, last) {
        _ if cidr.address.is_multicast() || cidr.address.is_unspecified() => None,
        (IpAddr::V4(first), IpAddr::V4(last)) if cidr.prefix < 31 => {
            let host = |bits: u32| IpAddr::V4(bits.into());
            Some((host(first.to_bits() + 1), host(last.to_bits() - 1)))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if cidr.prefix < 127 => {
            Some((IpAddr::V6((first.to_bits() + 1).into()), IpAddr::V6(last)))
        }
        (first, last) => (first != last).then_some((first, last)),
    }
}

/// The first and the last address of the network that an address is in.
fn bounds(address: IpAddr, prefix: u8) -> (IpAddr, IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let bits = v4.to_bits();
            (IpAddr::V4((bits & !host).into()), IpAddr::V4((bits | host).into()))
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let bits = v6.to_bits();
            (IpAddr::V6((bits & !host).into()), IpAddr::V6((bits | host).into()))
        }
    }
}

impl Cidr {
    /// Whether an address is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && bounds(self.address, self.prefix) == bounds(address, self.prefix)
    }
}

//! The `link` kind.

use std::net::IpAddr;

use crate::addressing;
use crate::diagnostic::Diagnostic;
use crate::keys::{Fields, keys};
use crate::value::{AbsPath, Cidr, LinkName, MacAddr, Mtu, Timespan};

keys! {
    /// Brings a network link up and gives it its addresses. Without `name` and `mac` it is the first ethernet link that
    /// has a carrier.
    pub struct Link {
        /// The link.
        name "name": Option<LinkName>,
        /// The link with this hardware address.
        mac "mac": Option<MacAddr>,
        /// Ask a DHCPv4 server (RFC 2131) for an address, and keep the lease.
        dhcp "dhcp": bool = "false",
        /// Fixed addresses.
        addresses "addresses": Vec<Cidr> = "[]",
        /// The default gateway for fixed addresses.
        gateway "gateway": Option<IpAddr>,
        /// Name servers, before those that DHCP gives.
        dns "dns": Vec<IpAddr> = "[]",
        /// Largest packet in bytes; else what DHCP says (option 26), else the kernel's.
        mtu "mtu": Option<Mtu>,
        /// Take the host name that DHCP gives (option 12).
        hostname "hostname": bool = "false",
        /// Where name servers are written.
        resolv_conf "resolv-conf": AbsPath = "\"/etc/resolv.conf\"",
        /// How long to wait for carrier and lease. The lease is asked for on, when the boot has gone past it.
        timeout "timeout": Option<Timespan>,
    }
    check = one_way;
}

fn one_way(link: &Link, fields: &mut Fields<'_>) {
    if link.name.is_some() && link.mac.is_some() {
        let found = Diagnostic::new(
            "misplaced-key",
            fields.span_of("mac"),
            "only one of `name`, `mac` may stand here",
        );
        fields.report(found);
    }
    if link.dhcp && !link.addresses.is_empty() {
        let found = Diagnostic::new(
            "misplaced-key",
            fields.span_of("addresses"),
            "a link has DHCP or fixed addresses",
        );
        fields.report(found.help("write `dhcp = false` for fixed addresses"));
    }
    addressing::check(&link.addresses, link.gateway, fields);
    if let Some(gateway) = link.gateway
        && !link.addresses.iter().any(|a| a.address.is_ipv4() == gateway.is_ipv4())
    {
        let found = Diagnostic::new(
            "misplaced-key",
            fields.span_of("gateway"),
            "no address of the gateway's family",
        );
        fields.report(found.help("give the link an address in `addresses`"));
    }
}

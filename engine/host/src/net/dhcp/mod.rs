//! A DHCPv4 client: RFC 2131, with the address-conflict detection of RFC 5227.
//!
//! ```text
//! socket.rs  --bytes-->  client.rs  --actions-->  ../keeper.rs
//!                         | message.rs  frames and messages, what is refused and why
//!                         | options.rs  the option fields (RFC 2132, 3396, 3397, 3442)
//!                         | lease.rs    a message that may be believed becomes a lease
//!                         | arp.rs      probes, announcements, conflicts
//! ```
//!
//! Everything but `socket.rs` is pure: [`Client::handle`] takes an event and the time and
//! returns actions, so every state and every wrong answer is tested by a table without a network.
//!
//! # Why not mozim
//!
//! mozim 0.3.4 leases, renews and rebinds, but it never sends DHCPDECLINE and knows no ARP, so it
//! takes an address that another host is using; it compares the transaction id of an answer but
//! neither the hardware address nor the server, so any host on the link can answer for any other;
//! a DHCPNAK to a request, a renewal or a rebinding is passed over, so the client goes on using an
//! address that the server took back; the mask is counted, not checked; an offer that is
//! never acknowledged is requested for ever; and its timers cannot be set, so a test of a renewal
//! takes minutes. What remains is a codec, and for that it brings a second rtnetlink and a second nix.
//!
//! dhcproto 0.15 is only a codec: it asserts on malformed options in debug builds, slices out of
//! bounds on `chaddr()` when `hlen` is over 16, and needs hickory-proto for its domain names.
//! `smoltcp::wire` is the codec used here: Ethernet, ARP, IPv4, UDP with its offloaded checksums
//! and the DHCP header in one crate that is fuzzed upstream and allocates nothing.

mod arp;
mod client;
mod lease;
mod message;
mod options;
pub(super) mod socket;
mod timing;

pub(super) use client::{Action, Client, Event, NO_SERVER};
pub use lease::Lease;
pub(super) use message::Mac;
pub use timing::Timing;

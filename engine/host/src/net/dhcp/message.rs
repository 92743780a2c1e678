//! Frames and messages: what the client sends, and what it is willing to read.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOpCode, DhcpPacket, DhcpRepr,
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};
use thiserror::Error;

use super::options::{self, Options};

/// A hardware address of Ethernet.
pub(crate) type Mac = [u8; 6];

/// RFC 2131 2: the four octets before the options.
const COOKIE: u32 = 0x6382_5363;
/// RFC 1542 2.1: shorter messages are dropped by some servers and relays.
const LEAST: usize = 300;
/// The largest message that fits the smallest MTU in use without fragments.
const MAX_SIZE: u16 = 1472;

/// Why an answer is not believed. Reads as "an answer {refused}".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Refused {
    #[error("that is not a UDP packet for a DHCP client")]
    NotDhcp,
    #[error("that is cut short")]
    Truncated,
    #[error("without the DHCP cookie")]
    Cookie,
    #[error("that is no reply")]
    NotReply,
    #[error("to another machine")]
    OtherClient,
    #[error("to another request")]
    OtherTransaction,
    #[error("of no type that a server sends")]
    Type,
    #[error("in which option {0} has a wrong length")]
    OptionLength(u8),
    #[error("that names no server")]
    NoServer,
    #[error("from server {0}, which was not asked")]
    OtherServer(Ipv4Addr),
    #[error("that gives {0}, which is no address for a host")]
    Address(Ipv4Addr),
    #[error("that gives {0} where another address was asked for")]
    OtherAddress(Ipv4Addr),
    #[error("with the mask {0}, which is none")]
    Mask(Ipv4Addr),
    #[error("without a lease time")]
    NoLeaseTime,
    #[error("with a lease of only {0} s")]
    LeaseTime(u32),
}

/// What a server can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Offer,
    Ack,
    Nak,
}

/// A well-formed answer to this client; whether its contents make sense is for
/// [`Lease`](super::Lease) to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: Kind,
    pub(super) address: Ipv4Addr,
    pub(super) server: Ipv4Addr,
    pub(super) options: Options,
}

/// A message of this client. Which fields belong into which message is Table 5 of RFC 2131.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Discover,
    /// Selecting: take up an offer.
    Take {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    /// Init-reboot: ask whether an address still holds.
    Verify {
        address: Ipv4Addr,
    },
    /// Renewing and rebinding.
    Extend {
        address: Ipv4Addr,
    },
    Decline {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    Release {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
}

/// The DHCP message of `request`.
pub(super) fn encode(request: Request, mac: Mac, xid: u32, secs: u16) -> Vec<u8> {
    use DhcpMessageType::{Decline, Discover, Release, Request as Ask};
    let none = Ipv4Addr::UNSPECIFIED;
    let (message_type, client_ip, requested_ip, server_identifier) = match request {
        Request::Discover => (Discover, none, None, None),
        Request::Take { address, server } => (Ask, none, Some(address), Some(server)),
        Request::Verify { address } => (Ask, none, Some(address), None),
        Request::Extend { address } => (Ask, address, None, None),
        Request::Decline { address, server } => (Decline, none, Some(address), Some(server)),
        Request::Release { address, server } => (Release, address, None, Some(server)),
    };
    let asks = matches!(message_type, Discover | Ask);
    let mac = EthernetAddress(mac);
    let message = DhcpRepr {
        message_type,
        transaction_id: xid,
        secs: if asks { secs } else { 0 },
        client_hardware_address: mac,
        client_ip,
        your_ip: none,
        server_ip: none,
        router: None,
        subnet_mask: None,
        relay_agent_ip: none,
        broadcast: false,
        requested_ip,
        client_identifier: Some(mac),
        server_identifier,
        parameter_request_list: asks.then_some(options::WANTED),
        dns_servers: None,
        max_size: asks.then_some(MAX_SIZE),
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; message.buffer_len().max(LEAST)];
    let written = message.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]));
    debug_assert!(written.is_ok(), "the buffer has the length that the message asked for");
    bytes
}

/// `message` in an Ethernet frame from 0.0.0.0 to everyone: how a host speaks that has no address.
pub(super) fn broadcast_frame(mac: Mac, message: &[u8]) -> Vec<u8> {
    let (from, to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let checksums = ChecksumCapabilities::default();
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(mac),
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Ipv4,
    };
    let udp = UdpRepr { src_port: DHCP_CLIENT_PORT, dst_port: DHCP_SERVER_PORT };
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + message.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    udp.emit(
        &mut datagram,
        &from.into(),
        &to.into(),
        message.len(),
        |payload| payload.copy_from_slice(message),
        &checksums,
    );
    bytes
}

/// The DHCP message in a frame, if it holds one for a client.
pub(super) fn unwrap_frame(frame: &[u8]) -> Result<&[u8], Refused> {
    payload(frame).ok_or(Refused::NotDhcp)
}

fn payload(frame: &[u8]) -> Option<&[u8]> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let fragment = packet.more_frags() || packet.frag_offset() != 0;
    if packet.version() != 4
        || packet.next_header() != IpProtocol::Udp
        || fragment
        || !packet.verify_checksum()
    {
        return None;
    }
    let datagram = UdpPacket::new_checked(packet.payload()).ok()?;
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    // A server on the same host (a hypervisor's, or the other end of a veth) leaves the checksum to
    // hardware that never sees the packet: then it holds the sum of the pseudo-header alone.
    let intact =
        datagram.verify_checksum(&from, &to) || datagram.verify_partial_checksum(&from, &to);
    (intact && datagram.dst_port() == DHCP_CLIENT_PORT).then(|| datagram.payload())
}

/// Reads `message` as an answer to transaction `xid` of the client `mac`.
pub(super) fn decode(message: &[u8], mac: Mac, xid: u32) -> Result<Reply, Refused> {
    let packet = DhcpPacket::new_checked(message).map_err(|_| Refused::Truncated)?;
    if packet.magic_number() != COOKIE {
        return Err(Refused::Cookie);
    }
    if packet.opcode() != DhcpOpCode::Reply {
        return Err(Refused::NotReply);
    }
    if packet.hardware_len() != 6 || packet.client_hardware_address().0 != mac {
        return Err(Refused::OtherClient);
    }
    if packet.transaction_id() != xid {
        return Err(Refused::OtherTransaction);
    }
    // Where the fields lie: RFC 2131 2. The packet is longer than them by the check above.
    let options = Options::parse(&message[240..], &message[108..236], &message[44..108])?;
    let kind = match options.exact(options::MESSAGE_TYPE)?.map(|[kind]| DhcpMessageType::from(kind))
    {
        Some(DhcpMessageType::Offer) => Kind::Offer,
        Some(DhcpMessageType::Ack) => Kind::Ack,
        Some(DhcpMessageType::Nak) => Kind::Nak,
        _ => return Err(Refused::Type),
    };
    let server = options.exact(options::SERVER)?.map(|octets: [u8; 4]| Ipv4Addr::from(octets));
    let server = server.filter(|server| options::is_host(*server)).ok_or(Refused::NoServer)?;
    Ok(Reply { kind, address: packet.your_ip(), server, options })
}

//! Address-conflict detection (RFC 5227): is the address that a server gave already in use?

use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr,
};

use super::message::Mac;

/// An ARP packet that concerns an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Another machine says that it has the address.
    Uses(Mac),
    /// Another machine is asking for it before it takes it.
    Probes(Mac),
}

/// "Who has this address?", from a machine that has none (RFC 5227 2.1.1).
pub(super) fn probe(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    frame(mac, Ipv4Addr::UNSPECIFIED, address)
}

/// "I have this address" (RFC 5227 2.3): also brings the caches of the neighbours up to date.
pub(super) fn announcement(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    frame(mac, address, address)
}

fn frame(mac: Mac, from: Ipv4Addr, asked: Ipv4Addr) -> Vec<u8> {
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(mac),
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: from,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: asked,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + arp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// Whether `frame` shows another machine than `mac` with an interest in `address`.
pub(super) fn claim(frame: &[u8], mac: Mac, address: Ipv4Addr) -> Option<Claim> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(frame.payload()).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let asks = operation == ArpOperation::Request && source_protocol_addr.is_unspecified();
    match source_hardware_addr.0 {
        own if own == mac => None,
        other if source_protocol_addr == address => Some(Claim::Uses(other)),
        other if asks && target_protocol_addr == address => Some(Claim::Probes(other)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

    #[test]
    fn what_is_a_conflict() {
        #[track_caller]
        fn check(frame: &[u8], expect: Option<Claim>) {
            assert_eq!(claim(frame, OURS, ADDRESS), expect);
        }
        let elsewhere = Ipv4Addr::new(10, 0, 0, 51);
        check(&probe(OURS, ADDRESS), None);
        check(&announcement(OURS, ADDRESS), None);
        check(&announcement(OTHER, ADDRESS), Some(Claim::Uses(OTHER)));
        check(&probe(OTHER, ADDRESS), Some(Claim::Probes(OTHER)));
        check(&announcement(OTHER, elsewhere), None);
        check(&probe(OTHER, elsewhere), None);
        // A host that asks us something while it uses our address.
        check(&frame(OTHER, ADDRESS, elsewhere), Some(Claim::Uses(OTHER)));
        // An ordinary question about our address.
        check(&frame(OTHER, elsewhere, ADDRESS), None);
        let whole = announcement(OTHER, ADDRESS);
        for end in 0..whole.len() {
            check(&whole[..end], None);
        }
    }
}

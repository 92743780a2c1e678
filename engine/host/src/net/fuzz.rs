//! What the fuzz targets reach: the DHCP client, and whoever answers it.

use std::time::Duration;

use super::dhcp::{Client, Event, Timing};

/// Plays a conversation: the client's timer goes off when it is due, and between that come the messages of the input.
///
/// Each message is one byte for the way it comes (frame, datagram, ARP, the timer, the carrier, the end), two for its length, and its
/// bytes. A frame or a datagram whose transaction id is all zeros gets the client's own: no fuzzer could guess it.
///
/// # Panics
/// If the client wants its timer to go off in the past again and again: that would be work without end.
pub fn dhcp(mut bytes: &[u8]) {
    /// More timers at one moment than any state of the client has use for.
    const AT_ONE_MOMENT: usize = 32;

    let mut now = Duration::ZERO;
    let mut client = Client::new([2, 0, 0, 0, 0, 1], Timing::default(), 7, now);
    while let Some((&[way, hi, lo], rest)) = bytes.split_first_chunk::<3>() {
        let mut due = 0;
        while client.deadline().is_some_and(|at| at <= now) {
            drop(client.handle(Event::Timer, now));
            due += 1;
            assert!(due < AT_ONE_MOMENT, "the timer is due for ever at {now:?}");
        }
        let length = usize::from(u16::from_be_bytes([hi, lo])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        bytes = rest;
        drop(match way % 6 {
            0 => client.handle(Event::Frame(&addressed(message, FRAME, &client)), now),
            1 => client.handle(Event::Datagram(&addressed(message, 0, &client)), now),
            2 => client.handle(Event::Arp(message), now),
            3 => {
                now = client.deadline().unwrap_or(now).max(now);
                continue;
            }
            4 => client.handle(Event::CarrierBack, now),
            _ => client.handle(Event::Stop, now),
        });
    }
}

/// Bytes of Ethernet, IPv4 without options and UDP before a DHCP message.
const FRAME: usize = 14 + 20 + 8;

/// The message with the client's transaction id where there is none: RFC 2131, figure 1, `xid`.
fn addressed(message: &[u8], start: usize, client: &Client) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(xid) = message.get_mut(start + 4..start + 8)
        && xid == [0; 4]
    {
        xid.copy_from_slice(&client.xid().to_be_bytes());
    }
    message
}

//! The client against a server made of tables.

use proptest::prelude::*;
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetFrame, EthernetProtocol, Ipv4Packet, UdpPacket,
};

use super::super::lease::tests::options;
use super::*;

const MAC: Mac = [0x52, 0x54, 0, 0, 0, 1];
const OTHER: Mac = [0x52, 0x54, 0, 0, 0, 2];
const SERVER: [u8; 4] = [10, 0, 0, 1];
const ADDRESS: [u8; 4] = [10, 0, 0, 50];

/// A client and its clock. Answers are made with the transaction id that the client used last.
struct Sim {
    client: Client,
    now: Duration,
}

/// An answer of a server: every field can be made wrong.
#[derive(Clone)]
struct Answer {
    op: u8,
    chaddr: Mac,
    xid: Option<u32>,
    cookie: [u8; 4],
    address: [u8; 4],
    options: Vec<(u8, Vec<u8>)>,
}

const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;

fn answer(kind: u8) -> Answer {
    let mut options = vec![(53, vec![kind]), (54, SERVER.to_vec())];
    if kind != NAK {
        options.extend([(51, 3600_u32.to_be_bytes().to_vec()), (1, vec![255, 255, 255, 0])]);
    }
    let address = if kind == NAK { [0; 4] } else { ADDRESS };
    Answer { op: 2, chaddr: MAC, xid: None, cookie: [99, 130, 83, 99], address, options }
}

impl Answer {
    /// Replaces option `code`; no data takes it away.
    fn with(mut self, code: u8, data: &[u8]) -> Self {
        self.options.retain(|(other, _)| *other != code);
        if !data.is_empty() {
            self.options.push((code, data.to_vec()));
        }
        self
    }

    fn of(self, server: [u8; 4]) -> Self {
        self.with(54, &server)
    }

    fn giving(mut self, address: [u8; 4]) -> Self {
        self.address = address;
        self
    }

    fn bytes(&self, xid: u32) -> Vec<u8> {
        let mut bytes = vec![0; 240];
        bytes[0] = self.op;
        bytes[1] = 1;
        bytes[2] = 6;
        bytes[4..8].copy_from_slice(&self.xid.unwrap_or(xid).to_be_bytes());
        bytes[16..20].copy_from_slice(&self.address);
        bytes[28..34].copy_from_slice(&self.chaddr);
        bytes[236..240].copy_from_slice(&self.cookie);
        let list: Vec<_> = self.options.iter().map(|(code, data)| (*code, &data[..])).collect();
        bytes.extend(options(&list));
        bytes
    }
}

impl Sim {
    fn new() -> Self {
        Self { client: Client::new(MAC, Timing::default(), 7, Duration::ZERO), now: Duration::ZERO }
    }

    fn handle(&mut self, event: Event<'_>) -> Vec<String> {
        self.client.handle(event, self.now).iter().map(describe).collect()
    }

    /// Lets time pass until the next deadline.
    fn tick(&mut self) -> Vec<String> {
        self.now = self.client.deadline().expect("the client waits for something").max(self.now);
        self.handle(Event::Timer)
    }

    /// Lets deadlines pass until something is done, which must be after `least` and before `most` seconds.
    fn after(&mut self, least: u64, most: u64) -> Vec<String> {
        let start = self.now;
        let actions = loop {
            let actions = self.tick();
            if !actions.is_empty() {
                break actions;
            }
        };
        let waited = (self.now - start).as_secs_f64();
        assert!(
            (least as f64..=most as f64).contains(&waited),
            "{actions:?} came after {waited} s"
        );
        actions
    }

    fn hear(&mut self, answer: &Answer) -> Vec<String> {
        self.handle(Event::Datagram(&answer.bytes(self.client.xid)))
    }

    /// A client that holds a lease and has announced it.
    fn held() -> Self {
        let mut sim = Self::new();
        sim.tick();
        sim.hear(&answer(OFFER));
        sim.hear(&answer(ACK));
        while !matches!(&sim.client.state, State::Held(held) if held.announce.is_none()) {
            sim.tick();
        }
        sim
    }
}

/// An action in words; messages are described by the fields that Table 5 of RFC 2131 speaks of.
fn describe(action: &Action) -> String {
    match action {
        Action::Frame(frame) => {
            let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
            assert_eq!((frame.src_addr().0, frame.dst_addr().0), (MAC, [255; 6]));
            let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
            assert!(packet.verify_checksum());
            let (from, to) = (packet.src_addr(), packet.dst_addr());
            assert_eq!((from, to), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
            let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
            assert!(datagram.verify_checksum(&from.into(), &to.into()));
            assert_eq!((datagram.src_port(), datagram.dst_port()), (68, 67));
            describe_message(datagram.payload())
        }
        Action::Datagram { to, message } => format!("{} to {to}", describe_message(message)),
        Action::Arp(frame) => {
            let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
            assert_eq!(frame.ethertype(), EthernetProtocol::Arp);
            let octets = |at: usize| {
                Ipv4Addr::from(<[u8; 4]>::try_from(&frame.payload()[at..at + 4]).unwrap())
            };
            if octets(14).is_unspecified() {
                format!("probe {}", octets(24))
            } else {
                assert_eq!(octets(14), octets(24));
                format!("announce {}", octets(24))
            }
        }
        Action::Configure { lease, renewed, .. } => {
            format!("{} {}", if *renewed { "renew" } else { "configure" }, lease.address)
        }
        Action::Deconfigure => "deconfigure".to_owned(),
        Action::Report(NetEvent::Retrying { attempt, why }) => format!("retrying {attempt}: {why}"),
        Action::Report(NetEvent::Expired { address, why }) => format!("expired {address}: {why}"),
        Action::Report(NetEvent::Declined { address, by }) => {
            format!("declined {address} of {:02x}", by[5])
        }
        Action::Report(other) => panic!("the client does not report {other:?}"),
    }
}

fn describe_message(message: &[u8]) -> String {
    assert!(message.len() >= 300);
    let packet = DhcpPacket::new_checked(message).unwrap();
    let repr = DhcpRepr::parse(&packet).unwrap();
    assert_eq!((repr.client_hardware_address.0, repr.broadcast), (MAC, false));
    let asks = matches!(repr.message_type, DhcpMessageType::Discover | DhcpMessageType::Request);
    assert_eq!(repr.parameter_request_list.is_some(), asks);
    let mut text = format!("{:?}", repr.message_type).to_uppercase();
    if let Some(address) = repr.requested_ip {
        text += &format!(" {address}");
    }
    if let Some(server) = repr.server_identifier {
        text += &format!(" of {server}");
    }
    if !repr.client_ip.is_unspecified() {
        text += &format!(" as {}", repr.client_ip);
    }
    text
}

#[test]
fn a_lease_is_taken_probed_announced() {
    let mut sim = Sim::new();
    assert_eq!(sim.client.ears(), Ears { frames: true, datagrams: false, arp: None });
    assert_eq!(sim.tick(), ["DISCOVER"]);
    assert_eq!(sim.hear(&answer(OFFER)), ["REQUEST 10.0.0.50 of 10.0.0.1"]);
    assert_eq!(sim.hear(&answer(ACK)), ["probe 10.0.0.50"]);
    assert_eq!(
        sim.client.ears(),
        Ears { frames: false, datagrams: false, arp: Some(ADDRESS.into()) }
    );
    assert_eq!(sim.tick(), ["probe 10.0.0.50"]);
    assert_eq!(sim.tick(), ["probe 10.0.0.50"]);
    assert_eq!(sim.tick(), ["configure 10.0.0.50", "announce 10.0.0.50"]);
    assert!(sim.now < Duration::from_secs(1), "probing must not hold the boot up");
    assert_eq!(
        sim.client.ears(),
        Ears { frames: false, datagrams: true, arp: Some(ADDRESS.into()) }
    );
    assert_eq!(sim.after(2, 2), ["announce 10.0.0.50"]);
}

#[test]
fn renewed_at_half_rebound_at_seven_eighths_lost_at_the_end() {
    let mut sim = Sim::held();
    let t1 = Duration::from_secs(1800);
    assert_eq!(sim.tick(), ["REQUEST as 10.0.0.50 to 10.0.0.1"]);
    assert_eq!(sim.now, t1);
    assert_eq!(sim.hear(&answer(ACK)), ["renew 10.0.0.50"]);
    // The new lease runs from the request; nobody answers from here on.
    assert_eq!(sim.tick(), ["REQUEST as 10.0.0.50 to 10.0.0.1"]);
    assert_eq!(sim.now, t1 * 2);
    // Half of what is left until T2 (1350 s), then half of that, at least a minute.
    assert_eq!(
        sim.after(675, 675),
        ["retrying 1: no DHCP server answers", "REQUEST as 10.0.0.50 to 10.0.0.1"]
    );
    assert_eq!(sim.after(337, 338)[0], "retrying 2: no DHCP server answers");
    while sim.now < t1 + Duration::from_secs(3150) {
        sim.tick();
    }
    assert!(
        matches!(&sim.client.state, State::Held(held) if matches!(held.phase, Phase::Rebinding { .. }))
    );
    let mut rebinding = Vec::new();
    while sim.now < t1 + Duration::from_secs(3600) {
        rebinding = sim.tick();
    }
    assert_eq!(rebinding, ["deconfigure", "expired 10.0.0.50: the lease ran out"]);
    assert_eq!(sim.after(0, 0), ["DISCOVER"]);
    assert_eq!(sim.client.ears(), Ears { frames: true, datagrams: false, arp: None });
}

#[test]
fn rebinding_asks_everyone_and_takes_another_server() {
    let mut sim = Sim::held();
    while !matches!(&sim.client.state, State::Held(held) if matches!(held.phase, Phase::Rebinding { .. }))
    {
        sim.tick();
    }
    assert_eq!(sim.now, Duration::from_secs(3150));
    assert_eq!(sim.hear(&answer(ACK).of([10, 0, 0, 2])), ["renew 10.0.0.50"]);
    assert_eq!(sim.after(1800, 1800), ["REQUEST as 10.0.0.50 to 10.0.0.2"]);
    // Nobody but the asked server may take it back.
    assert!(sim.hear(&answer(NAK).of([10, 0, 0, 9])).is_empty());
    let took = "expired 10.0.0.50: server 10.0.0.2 took the address back";
    assert_eq!(sim.hear(&answer(NAK).of([10, 0, 0, 2])), ["deconfigure", took]);
    assert_eq!(sim.after(0, 0), ["DISCOVER"]);
}

#[test]
fn a_lease_for_ever_is_never_renewed() {
    let mut sim = Sim::new();
    sim.tick();
    sim.hear(&answer(OFFER).with(51, &[255; 4]));
    sim.hear(&answer(ACK).with(51, &[255; 4]));
    let mut last = Vec::new();
    while sim.client.deadline().is_some() {
        last = sim.tick();
    }
    assert_eq!(last, ["announce 10.0.0.50"]);
}

#[test]
fn without_a_server_it_backs_off_and_goes_on() {
    let mut sim = Sim::new();
    assert_eq!(sim.tick(), ["DISCOVER"]);
    for (attempt, wait) in [(1, 4), (2, 8), (3, 16), (4, 32), (5, 64), (6, 64), (7, 64)] {
        let report = format!("retrying {attempt}: no DHCP server answers");
        assert_eq!(sim.after(wait - 1, wait + 1), ["DISCOVER".to_owned(), report]);
    }
    // Hours later a server appears.
    for _ in 0..100 {
        sim.tick();
    }
    assert_eq!(sim.hear(&answer(OFFER)), ["REQUEST 10.0.0.50 of 10.0.0.1"]);
}

#[test]
fn a_carrier_that_comes_back_ends_the_waiting_and_verifies_a_lease() {
    let mut sim = Sim::new();
    for _ in 0..6 {
        sim.tick();
    }
    assert!(sim.handle(Event::CarrierBack).is_empty());
    assert_eq!(sim.after(0, 0), ["DISCOVER"]);

    let mut sim = Sim::held();
    assert_eq!(sim.handle(Event::CarrierBack), ["REQUEST 10.0.0.50"]);
    assert!(sim.client.ears().frames && sim.client.ears().datagrams);
    assert_eq!(sim.hear(&answer(ACK)), ["renew 10.0.0.50"]);
    // Another network: its server does not know the address.
    sim.handle(Event::CarrierBack);
    let took = "expired 10.0.0.50: server 192.168.0.1 took the address back";
    assert_eq!(sim.hear(&answer(NAK).of([192, 168, 0, 1])), ["deconfigure", took]);

    // No answer: what is left of the lease is used.
    let mut sim = Sim::held();
    assert_eq!(sim.handle(Event::CarrierBack), ["REQUEST 10.0.0.50"]);
    assert_eq!(sim.after(3, 5), ["REQUEST 10.0.0.50"]);
    assert_eq!(sim.after(7, 9), ["REQUEST 10.0.0.50"]);
    assert_eq!(sim.tick(), [""; 0]);
    assert_eq!(sim.tick(), ["REQUEST as 10.0.0.50 to 10.0.0.1"]);
    assert_eq!(sim.now, Duration::from_secs(1800));
}

#[test]
fn a_server_that_does_not_keep_its_offers_is_passed_over() {
    let other = [10, 0, 0, 2];
    let mut sim = Sim::new();
    sim.tick();
    sim.hear(&answer(OFFER));
    assert_eq!(sim.after(3, 5), ["REQUEST 10.0.0.50 of 10.0.0.1"]);
    assert_eq!(sim.after(7, 9), ["REQUEST 10.0.0.50 of 10.0.0.1"]);
    assert_eq!(sim.after(15, 17), ["retrying 1: server 10.0.0.1 offers, but does not acknowledge"]);
    assert_eq!(sim.after(0, 0), ["DISCOVER"]);
    assert!(sim.hear(&answer(OFFER)).is_empty());
    assert_eq!(
        sim.hear(&answer(OFFER).of(other).giving([10, 0, 0, 60])),
        ["REQUEST 10.0.0.60 of 10.0.0.2"]
    );
    // The second one refuses; it is asked again, after a while, only if there is no other.
    let report = "retrying 2: server 10.0.0.2 refuses what it offered";
    assert!(sim.hear(&answer(NAK)).is_empty(), "the first server has no say in this");
    assert_eq!(sim.hear(&answer(NAK).of(other)), [report]);
    assert_eq!(sim.after(7, 9), ["DISCOVER"]);
    assert!(sim.hear(&answer(OFFER).of(other)).is_empty());
    assert_eq!(sim.after(15, 17), ["REQUEST 10.0.0.50 of 10.0.0.2"]);
}

#[test]
fn an_address_in_use_is_declined() {
    let mut sim = Sim::new();
    sim.tick();
    sim.hear(&answer(OFFER));
    sim.hear(&answer(ACK));
    let claim = arp::announcement(OTHER, ADDRESS.into());
    let decline = "DECLINE 10.0.0.50 of 10.0.0.1";
    assert_eq!(sim.handle(Event::Arp(&claim)), [decline, "declined 10.0.0.50 of 02"]);
    assert!(sim.handle(Event::Arp(&claim)).is_empty());
    assert_eq!(sim.after(10, 10), ["DISCOVER"]);
    assert_eq!(sim.hear(&answer(OFFER).giving([10, 0, 0, 51])), ["REQUEST 10.0.0.51 of 10.0.0.1"]);
    assert_eq!(sim.hear(&answer(ACK).giving([10, 0, 0, 51])), ["probe 10.0.0.51"]);
    // Two machines that probe for one address at once: neither may have it.
    let probe = arp::probe(OTHER, [10, 0, 0, 51].into());
    assert_eq!(sim.handle(Event::Arp(&probe))[1], "declined 10.0.0.51 of 02");
}

#[test]
fn a_held_address_is_defended_once() {
    let mut sim = Sim::held();
    let claim = arp::announcement(OTHER, ADDRESS.into());
    assert!(
        sim.handle(Event::Arp(&arp::probe(OTHER, ADDRESS.into()))).is_empty(),
        "the kernel answers probes"
    );
    assert_eq!(sim.handle(Event::Arp(&claim)), ["announce 10.0.0.50"]);
    sim.now += Duration::from_secs(11);
    assert_eq!(sim.handle(Event::Arp(&claim)), ["announce 10.0.0.50"]);
    sim.now += Duration::from_secs(9);
    let decline = "DECLINE 10.0.0.50 of 10.0.0.1";
    assert_eq!(
        sim.handle(Event::Arp(&claim)),
        ["deconfigure", decline, "declined 10.0.0.50 of 02"]
    );
    assert_eq!(sim.after(10, 10), ["DISCOVER"]);
}

#[test]
fn stopping_releases() {
    let mut sim = Sim::held();
    let release = "RELEASE of 10.0.0.1 as 10.0.0.50 to 10.0.0.1";
    assert_eq!(sim.handle(Event::Stop), [release, "deconfigure"]);
    assert_eq!(sim.client.deadline(), None);
    assert!(sim.handle(Event::CarrierBack).is_empty());
    let mut sim = Sim::new();
    sim.tick();
    assert!(sim.handle(Event::Stop).is_empty());
    assert!(sim.hear(&answer(OFFER)).is_empty());
}

#[test]
fn wrong_answers_are_refused_and_named() {
    /// `wrong` comes as an offer, then as an acknowledgement, then as a renewal: it changes nothing.
    #[track_caller]
    fn check(wrong: impl Fn(Answer) -> Answer, why: &str) {
        let wrong_offer = wrong(answer(OFFER));
        let wrong_ack = wrong(answer(ACK));
        let why = format!("refused an answer {why}");

        let mut sim = Sim::new();
        sim.tick();
        assert!(sim.hear(&wrong_offer).is_empty());
        assert_eq!(sim.tick(), ["DISCOVER".to_owned(), format!("retrying 1: {why}")]);
        assert_eq!(sim.hear(&answer(OFFER)), ["REQUEST 10.0.0.50 of 10.0.0.1"]);
        assert!(sim.hear(&wrong_ack).is_empty());
        assert_eq!(sim.hear(&answer(ACK)), ["probe 10.0.0.50"]);

        let mut sim = Sim::held();
        sim.tick();
        assert!(sim.hear(&wrong_ack).is_empty());
        assert_eq!(sim.tick()[0], format!("retrying 1: {why}"));
        assert_eq!(sim.hear(&answer(ACK)), ["renew 10.0.0.50"]);
    }
    check(|a| Answer { op: 1, ..a }, "that is no reply");
    check(|a| Answer { xid: Some(9), ..a }, "to another request");
    check(|a| Answer { cookie: [0; 4], ..a }, "without the DHCP cookie");
    check(|a| a.with(54, &[]), "that names no server");
    check(|a| a.with(54, &[0; 4]), "that names no server");
    check(|a| a.with(54, &[10, 0, 0]), "in which option 54 has a wrong length");
    check(|a| a.with(53, &[]), "of no type that a server sends");
    check(|a| a.with(53, &[1]), "of no type that a server sends");
    check(|a| a.with(53, &[2, 5]), "in which option 53 has a wrong length");
    check(|a| a.giving([0; 4]), "that gives 0.0.0.0, which is no address for a host");
    check(|a| a.giving([224, 0, 0, 9]), "that gives 224.0.0.9, which is no address for a host");
    check(|a| a.giving([255; 4]), "that gives 255.255.255.255, which is no address for a host");
    check(|a| a.with(1, &[255, 0, 255, 0]), "with the mask 255.0.255.0, which is none");
    check(|a| a.with(51, &[]), "without a lease time");
    check(|a| a.with(51, &[0, 0, 0, 1]), "with a lease of only 1 s");

    // An answer to another machine is no news on a shared link.
    let mut sim = Sim::new();
    sim.tick();
    assert!(sim.hear(&Answer { chaddr: OTHER, ..answer(OFFER) }).is_empty());
    assert_eq!(sim.tick()[1], "retrying 1: no DHCP server answers");

    // An acknowledgement of something else than what was asked for.
    sim.hear(&answer(OFFER));
    assert!(sim.hear(&answer(ACK).giving([10, 0, 0, 51])).is_empty());
    assert!(sim.hear(&answer(ACK).of([10, 0, 0, 2])).is_empty());
    assert_eq!(sim.hear(&answer(ACK)), ["probe 10.0.0.50"]);

    // Cut short anywhere: as good as nothing, until all that is needed is there.
    let whole = answer(OFFER).bytes(0).len();
    for end in 0..whole - 1 {
        let mut sim = Sim::new();
        sim.tick();
        let bytes = answer(OFFER).bytes(sim.client.xid);
        assert!(sim.handle(Event::Datagram(&bytes[..end])).is_empty(), "cut at {end}");
    }
}

#[test]
fn frames_are_checked_before_they_are_read() {
    let message = answer(OFFER).bytes(0);
    // A client's frame turned around: to the client port.
    let mut frame = message::broadcast_frame(MAC, &message);
    frame[34..38].copy_from_slice(&[0, 67, 0, 68]);
    assert_eq!(message::unwrap_frame(&frame), Ok(&message[..]));
    #[track_caller]
    fn check(frame: &[u8], change: &[(usize, u8)]) {
        let mut frame = frame.to_vec();
        for (at, value) in change {
            frame[*at] = *value;
        }
        assert_eq!(message::unwrap_frame(&frame), Err(Refused::NotDhcp));
    }
    check(&frame, &[(12, 0x86)]);
    check(&frame, &[(14, 0x55)]);
    check(&frame, &[(22, 1)]);
    check(&frame, &[(37, 69), (35, 66)]);
    check(&frame, &[(100, 0xff)]);
    for end in 0..frame.len() {
        assert_eq!(message::unwrap_frame(&frame[..end]), Err(Refused::NotDhcp), "cut at {end}");
    }
    // What a server on the same host leaves in the checksum: the sum of the pseudo-header.
    let (mut sum, length) = (0xffff_u32 + 0xffff + 17, (message.len() + 8) as u32);
    sum += length;
    let partial = ((sum & 0xffff) + (sum >> 16)) as u16;
    frame[40..42].copy_from_slice(&partial.to_be_bytes());
    assert_eq!(message::unwrap_frame(&frame), Ok(&message[..]));
    frame[40..42].copy_from_slice(&[0, 0]);
    assert_eq!(message::unwrap_frame(&frame), Ok(&message[..]));
}

/// A client in each of its states.
fn states() -> Vec<Sim> {
    let started = |hears: &[u8], ticks: usize| {
        let mut sim = Sim::new();
        sim.tick();
        for kind in hears {
            sim.hear(&answer(*kind));
        }
        for _ in 0..ticks {
            sim.tick();
        }
        sim
    };
    let mut verifying = Sim::held();
    verifying.handle(Event::CarrierBack);
    let mut renewing = Sim::held();
    renewing.tick();
    let mut rebinding = Sim::held();
    while rebinding.now < Duration::from_secs(3150) {
        rebinding.tick();
    }
    vec![
        Sim::new(),
        started(&[], 0),
        started(&[OFFER], 0),
        started(&[OFFER, ACK], 0),
        Sim::held(),
        renewing,
        rebinding,
        verifying,
    ]
}

proptest! {
    /// Whatever comes from the network, in whatever state: no panic, and nothing is configured.
    #[test]
    fn garbage_changes_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        for mut sim in states() {
            for event in [Event::Frame(&bytes), Event::Datagram(&bytes), Event::Arp(&bytes)] {
                prop_assert_eq!(sim.handle(event), Vec::<String>::new());
            }
        }
    }

    /// A sound answer with some octets changed: no panic, and a lease that is configured is one
    /// that a host can have.
    #[test]
    fn mangled_answers_do_no_harm(
        kind in prop_oneof![Just(OFFER), Just(ACK), Just(NAK)],
        changes in proptest::collection::vec((0_usize..400, any::<u8>()), 1..12),
        extra in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
    ) {
        for mut sim in states() {
            let mut wrong = answer(kind);
            wrong.options.extend(extra.iter().cloned());
            let mut bytes = wrong.bytes(sim.client.xid);
            for (at, value) in &changes {
                if let Some(octet) = bytes.get_mut(*at) {
                    *octet = *value;
                }
            }
            for action in sim.client.handle(Event::Datagram(&bytes), sim.now) {
                if let Action::Configure { lease, .. } = action {
                    prop_assert_eq!(lease.address, Ipv4Addr::from(ADDRESS));
                    prop_assert!((1..=32).contains(&lease.prefix));
                    prop_assert!(lease.renew_after < lease.rebind_after);
                }
            }
            // It still works: the clock leads on from wherever it is now.
            for _ in 0..20 {
                if sim.client.deadline().is_none() {
                    break;
                }
                sim.tick();
            }
        }
    }
}

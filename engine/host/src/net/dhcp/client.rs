//! The state machine of RFC 2131 figure 5, as a function of events and time.
//!
//! | state      | waits for                  | and then                                                     |
//! |------------|----------------------------|--------------------------------------------------------------|
//! | init       | its time (start, NAK, …)   | DISCOVER -> selecting                                        |
//! | selecting  | an OFFER                   | REQUEST -> requesting; none: DISCOVER again, with backoff    |
//! | requesting | the ACK                    | probe -> probing; NAK or silence: init, another server first |
//! | probing    | no ARP answer              | configure, announce -> held; an answer: DECLINE -> init      |
//! | held       | T1, T2, the end, conflicts | by its phase; NAK, end or conflict: deconfigure -> init      |
//!
//! Phases of held: *bound*; *renewing* (from T1, REQUEST to the server); *rebinding* (from T2,
//! REQUEST to everyone); *verifying* (the carrier came back: is this still the same network?).
//! An ACK leads back to bound.
//!
//! Nothing is ever given up: after the last attempt comes the next, at most
//! [`Timing::retry_max`] later, so that a server that comes late still heals the machine.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::NetEvent;
use super::arp::{self, Claim};
use super::lease::Lease;
use super::message::{self, Kind, Mac, Refused, Reply, Request};
use super::timing::Timing;

/// The reason for every attempt that nothing else stood in the way of.
pub(crate) const NO_SERVER: &str = "no DHCP server answers";

/// What happened.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// An Ethernet frame came that may be an answer of a server.
    Frame(&'a [u8]),
    /// A UDP datagram came to the DHCP client port.
    Datagram(&'a [u8]),
    /// An Ethernet frame came that may be ARP for the guarded address.
    Arp(&'a [u8]),
    /// [`Client::deadline`] has come.
    Timer,
    /// The link lost its carrier and has it again.
    CarrierBack,
    /// Something stands in the way: a message could not be sent, the carrier is gone.
    Trouble(String),
    /// The link is to be given up.
    Stop,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Send a frame that carries a DHCP message.
    Frame(Vec<u8>),
    /// Send an ARP frame.
    Arp(Vec<u8>),
    /// Send a DHCP message by UDP, from the leased address.
    Datagram { to: Ipv4Addr, message: Vec<u8> },
    /// Give the link what the lease says, until `expires`.
    Configure { lease: Box<Lease>, expires: Option<Duration>, renewed: bool },
    /// Take it away again.
    Deconfigure,
    /// Tell.
    Report(NetEvent),
}

/// What the client needs to hear in its present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ears {
    /// Frames with DHCP messages: while there is no address to receive UDP with.
    pub(crate) frames: bool,
    /// Datagrams to the client port.
    pub(crate) datagrams: bool,
    /// ARP that concerns this address.
    pub(crate) arp: Option<Ipv4Addr>,
}

#[derive(Debug)]
enum State {
    Init { at: Duration },
    Selecting { resend: Duration, spare: Option<Lease> },
    Requesting { offer: Lease, asked: Duration, resend: Duration, tries: u32 },
    Probing { lease: Lease, since: Duration, sent: u32, next: Duration },
    Held(Held),
    Stopped,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// RFC 2131 4.4.1: the lease runs from the moment in which it was asked for.
    since: Duration,
    phase: Phase,
    /// When the request of this phase was sent last.
    asked: Duration,
    /// The second announcement, if it is still due.
    announce: Option<Duration>,
    defended: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Bound,
    Renewing { resend: Duration },
    Rebinding { resend: Duration },
    Verifying { resend: Duration, tries: u32 },
}

impl Held {
    fn renew_at(&self) -> Option<Duration> {
        self.lease.duration.map(|_| self.since + self.lease.renew_after)
    }

    fn rebind_at(&self) -> Option<Duration> {
        self.lease.duration.map(|_| self.since + self.lease.rebind_after)
    }

    fn expires(&self) -> Option<Duration> {
        self.lease.duration.map(|duration| self.since + duration)
    }

    fn deadline(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Bound => self.renew_at(),
            Phase::Renewing { resend } => self.rebind_at().map(|at| at.min(resend)),
            Phase::Rebinding { resend } | Phase::Verifying { resend, .. } => Some(resend),
        };
        [phase, self.expires(), self.announce].into_iter().flatten().min()
    }
}

/// A DHCPv4 client on one link.
#[derive(Debug)]
pub(crate) struct Client {
    mac: Mac,
    timing: Timing,
    rng: fastrand::Rng,
    xid: u32,
    /// When this acquisition or renewal began: the `secs` of its messages.
    began: Duration,
    /// How many attempts have failed since the last lease.
    failures: u32,
    /// Why the present attempt has not succeeded yet, as far as is known.
    trouble: Option<String>,
    /// The server that offered last and then did not keep it: another one is preferred.
    shunned: Option<Ipv4Addr>,
    state: State,
}

impl Client {
    /// A client that starts at `now`. The same seed makes the same choices.
    pub(crate) fn new(mac: Mac, timing: Timing, seed: u64, now: Duration) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let state = State::Init { at: now };
        Self {
            mac,
            timing,
            rng,
            xid: 0,
            began: now,
            failures: 0,
            trouble: None,
            shunned: None,
            state,
        }
    }

    /// The transaction that an answer must belong to.
    #[cfg(feature = "fuzz")]
    pub(crate) fn xid(&self) -> u32 {
        self.xid
    }

    /// When to send [`Event::Timer`] next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Init { at } => Some(*at),
            State::Selecting { resend, .. } | State::Requesting { resend, .. } => Some(*resend),
            State::Probing { next, .. } => Some(*next),
            State::Held(held) => held.deadline(),
            State::Stopped => None,
        }
    }

    /// What to listen to.
    pub(crate) fn ears(&self) -> Ears {
        match &self.state {
            State::Init { .. } | State::Selecting { .. } | State::Requesting { .. } => {
                Ears { frames: true, datagrams: false, arp: None }
            }
            State::Probing { lease, .. } => {
                Ears { frames: false, datagrams: false, arp: Some(lease.address) }
            }
            State::Held(held) => {
                let frames = matches!(held.phase, Phase::Verifying { .. });
                Ears { frames, datagrams: true, arp: Some(held.lease.address) }
            }
            State::Stopped => Ears { frames: false, datagrams: false, arp: None },
        }
    }

    /// Takes in one event. It never fails: what cannot be believed changes nothing but the reason
    /// that is reported with the next attempt.
    pub(crate) fn handle(&mut self, event: Event<'_>, now: Duration) -> Vec<Action> {
        let heard = match event {
            Event::Timer => return self.timer(now),
            Event::Arp(frame) => return self.arp(frame, now),
            Event::CarrierBack => return self.carrier_back(now),
            Event::Stop => return self.stop(),
            Event::Trouble(why) => {
                self.trouble = Some(why);
                return Vec::new();
            }
            Event::Frame(frame) => {
                message::unwrap_frame(frame).and_then(|message| self.reply(message, now))
            }
            Event::Datagram(message) => self.reply(message, now),
        };
        heard.unwrap_or_else(|refused| {
            self.note(refused);
            Vec::new()
        })
    }

    /// Remembers why an answer was refused. Answers to other machines are everyday broadcasts.
    fn note(&mut self, refused: Refused) {
        let everyday = matches!(refused, Refused::NotDhcp | Refused::OtherClient);
        if !everyday && (self.trouble.is_none() || refused != Refused::OtherTransaction) {
            self.trouble = Some(format!("refused an answer {refused}"));
        }
    }

    fn reply(&mut self, message: &[u8], now: Duration) -> Result<Vec<Action>, Refused> {
        let reply = message::decode(message, self.mac, self.xid)?;
        let shortest = self.timing.shortest_lease;
        match (&mut self.state, reply.kind) {
            (State::Selecting { spare, .. }, Kind::Offer) => {
                let offer = Lease::read(&reply, shortest)?;
                if self.shunned == Some(offer.server) {
                    spare.get_or_insert(offer);
                    return Ok(Vec::new());
                }
                Ok(self.request(offer, now))
            }
            (State::Requesting { offer, asked, .. }, Kind::Ack) => {
                let lease = Lease::read(&reply, shortest)?;
                expect(lease.server == offer.server, Refused::OtherServer(lease.server))?;
                expect(lease.address == offer.address, Refused::OtherAddress(lease.address))?;
                self.state = State::Probing { lease, since: *asked, sent: 0, next: now };
                Ok(self.timer(now))
            }
            (State::Requesting { offer, .. }, Kind::Nak) => {
                expect(reply.server == offer.server, Refused::OtherServer(reply.server))?;
                let wait = self.timing.backoff(self.failures, &mut self.rng);
                self.shunned = Some(reply.server);
                self.state = State::Init { at: now + wait };
                self.trouble = Some(format!("server {} refuses what it offered", reply.server));
                Ok(vec![self.retrying()])
            }
            (State::Held(held), Kind::Ack | Kind::Nak) if held.phase != Phase::Bound => {
                self.extended(&reply, now)
            }
            // Another offer, or a copy of an answer.
            _ => Ok(Vec::new()),
        }
    }

    /// The answer to a renewal, a rebinding or a verification.
    fn extended(&mut self, reply: &Reply, now: Duration) -> Result<Vec<Action>, Refused> {
        let State::Held(held) = &mut self.state else { return Ok(Vec::new()) };
        if reply.kind == Kind::Nak {
            // A renewal was sent to one server alone; no other may answer it.
            let asked =
                !matches!(held.phase, Phase::Renewing { .. }) || reply.server == held.lease.server;
            expect(asked, Refused::OtherServer(reply.server))?;
            return Ok(self.lose(&format!("server {} took the address back", reply.server), now));
        }
        let lease = Lease::read(reply, self.timing.shortest_lease)?;
        expect(lease.address == held.lease.address, Refused::OtherAddress(lease.address))?;
        held.lease = lease;
        held.since = held.asked;
        held.phase = Phase::Bound;
        let action = Action::Configure {
            lease: Box::new(held.lease.clone()),
            expires: held.expires(),
            renewed: true,
        };
        self.settled();
        Ok(vec![action])
    }

    fn timer(&mut self, now: Duration) -> Vec<Action> {
        match &mut self.state {
            State::Init { at } if now >= *at => {
                self.xid = self.rng.u32(..);
                self.began = now;
                self.discover(now)
            }
            State::Selecting { resend, spare } if now >= *resend => match spare.take() {
                Some(offer) => self.request(offer, now),
                None => {
                    let report = self.retrying();
                    let mut actions = self.discover(now);
                    actions.push(report);
                    actions
                }
            },
            State::Requesting { offer, asked, resend, tries } if now >= *resend => {
                *tries += 1;
                if *tries < self.timing.request_attempts {
                    let request = Request::Take { address: offer.address, server: offer.server };
                    (*asked, *resend) = (now, now + self.timing.backoff(*tries, &mut self.rng));
                    vec![self.broadcast(request, now)]
                } else {
                    let server = offer.server;
                    self.shunned = Some(server);
                    self.trouble.get_or_insert_with(|| {
                        format!("server {server} offers, but does not acknowledge")
                    });
                    self.state = State::Init { at: now };
                    vec![self.retrying()]
                }
            }
            State::Probing { lease, sent, next, .. } if now >= *next => {
                if *sent < self.timing.probes {
                    *sent += 1;
                    let last = *sent == self.timing.probes;
                    *next = now + if last { self.timing.probe_wait } else { self.timing.probe_gap };
                    vec![Action::Arp(arp::probe(self.mac, lease.address))]
                } else {
                    self.hold(now)
                }
            }
            State::Held(_) => self.held_timer(now),
            _ => Vec::new(),
        }
    }

    fn held_timer(&mut self, now: Duration) -> Vec<Action> {
        let State::Held(held) = &mut self.state else { return Vec::new() };
        let past = |at: Option<Duration>| at.is_some_and(|at| now >= at);
        if past(held.expires()) {
            return self.lose("the lease ran out", now);
        }
        let mut actions = Vec::new();
        if past(held.announce) {
            held.announce = None;
            actions.push(Action::Arp(arp::announcement(self.mac, held.lease.address)));
        }
        match held.phase {
            Phase::Bound | Phase::Renewing { .. } if past(held.rebind_at()) => {
                self.rebind(now, &mut actions);
            }
            Phase::Bound if past(held.renew_at()) => {
                self.xid = self.rng.u32(..);
                self.began = now;
                self.renew(now, &mut actions);
            }
            Phase::Renewing { resend } if now >= resend => {
                actions.push(self.retrying());
                self.renew(now, &mut actions);
            }
            Phase::Rebinding { resend } if now >= resend => {
                actions.push(self.retrying());
                self.rebind(now, &mut actions);
            }
            Phase::Verifying { resend, tries } if now >= resend => {
                if tries < self.timing.request_attempts {
                    self.verify(tries, now, &mut actions);
                } else {
                    // RFC 2131 3.2: the address may be used for what is left of the lease.
                    held.phase = Phase::Bound;
                }
            }
            _ => {}
        }
        actions
    }

    fn discover(&mut self, now: Duration) -> Vec<Action> {
        let wait = self.timing.backoff(self.failures, &mut self.rng);
        self.state = State::Selecting { resend: now + wait, spare: None };
        vec![self.broadcast(Request::Discover, now)]
    }

    fn request(&mut self, offer: Lease, now: Duration) -> Vec<Action> {
        let request = Request::Take { address: offer.address, server: offer.server };
        let resend = now + self.timing.backoff(0, &mut self.rng);
        self.state = State::Requesting { offer, asked: now, resend, tries: 0 };
        vec![self.broadcast(request, now)]
    }

    fn renew(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let State::Held(held) = &mut self.state else { return };
        held.asked = now;
        held.phase =
            Phase::Renewing { resend: halfway(now, held.rebind_at(), self.timing.renew_min) };
        let (to, address) = (held.lease.server, held.lease.address);
        let message = self.encode(Request::Extend { address }, now);
        actions.push(Action::Datagram { to, message });
    }

    fn rebind(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let State::Held(held) = &mut self.state else { return };
        held.asked = now;
        held.phase =
            Phase::Rebinding { resend: halfway(now, held.expires(), self.timing.renew_min) };
        let address = held.lease.address;
        let message = self.encode(Request::Extend { address }, now);
        actions.push(Action::Datagram { to: Ipv4Addr::BROADCAST, message });
    }

    fn verify(&mut self, tries: u32, now: Duration, actions: &mut Vec<Action>) {
        let State::Held(held) = &mut self.state else { return };
        held.asked = now;
        let resend = now + self.timing.backoff(tries, &mut self.rng);
        held.phase = Phase::Verifying { resend, tries: tries + 1 };
        let address = held.lease.address;
        actions.push(self.broadcast(Request::Verify { address }, now));
    }

    /// Nobody else has the address: it is ours.
    fn hold(&mut self, now: Duration) -> Vec<Action> {
        let State::Probing { lease, since, .. } =
            std::mem::replace(&mut self.state, State::Stopped)
        else {
            return Vec::new();
        };
        let announce = Some(now + self.timing.announce_gap);
        let held =
            Held { lease, since, phase: Phase::Bound, asked: since, announce, defended: None };
        let actions = vec![
            Action::Configure {
                lease: Box::new(held.lease.clone()),
                expires: held.expires(),
                renewed: false,
            },
            Action::Arp(arp::announcement(self.mac, held.lease.address)),
        ];
        self.state = State::Held(held);
        self.shunned = None;
        self.settled();
        actions
    }

    fn settled(&mut self) {
        self.failures = 0;
        self.trouble = None;
    }

    /// The address is no longer ours.
    fn lose(&mut self, why: &str, now: Duration) -> Vec<Action> {
        let State::Held(held) = &self.state else { return Vec::new() };
        let event = NetEvent::Expired { address: held.lease.address, why: why.to_owned() };
        self.state = State::Init { at: now };
        self.settled();
        vec![Action::Deconfigure, Action::Report(event)]
    }

    fn arp(&mut self, frame: &[u8], now: Duration) -> Vec<Action> {
        match &mut self.state {
            State::Probing { lease, .. } => match arp::claim(frame, self.mac, lease.address) {
                Some(Claim::Uses(by) | Claim::Probes(by)) => self.decline(by, now),
                None => Vec::new(),
            },
            State::Held(held) => match arp::claim(frame, self.mac, held.lease.address) {
                // RFC 5227 2.4 (b): stand up for the address once, and give in if that fails.
                Some(Claim::Uses(by)) => {
                    let before = held.defended.replace(now);
                    if before.is_some_and(|before| now - before < self.timing.defend_interval) {
                        let mut actions = vec![Action::Deconfigure];
                        actions.extend(self.decline(by, now));
                        actions
                    } else {
                        vec![Action::Arp(arp::announcement(self.mac, held.lease.address))]
                    }
                }
                Some(Claim::Probes(_)) | None => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// Tells the server that its address is taken, and starts again.
    fn decline(&mut self, by: Mac, now: Duration) -> Vec<Action> {
        let (State::Probing { lease, .. } | State::Held(Held { lease, .. })) = &self.state else {
            return Vec::new();
        };
        let (address, server) = (lease.address, lease.server);
        let message = self.broadcast(Request::Decline { address, server }, now);
        self.state = State::Init { at: now + self.timing.decline_wait };
        vec![message, Action::Report(NetEvent::Declined { address, by })]
    }

    fn carrier_back(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match &self.state {
            State::Stopped => {}
            State::Held(_) => {
                self.xid = self.rng.u32(..);
                self.began = now;
                self.verify(0, now, &mut actions);
            }
            _ => {
                self.failures = 0;
                self.state = State::Init { at: now };
            }
        }
        actions
    }

    fn stop(&mut self) -> Vec<Action> {
        let before = std::mem::replace(&mut self.state, State::Stopped);
        let State::Held(Held { lease, .. }) = before else { return Vec::new() };
        self.xid = self.rng.u32(..);
        let request = Request::Release { address: lease.address, server: lease.server };
        let message = message::encode(request, self.mac, self.xid, 0);
        vec![Action::Datagram { to: lease.server, message }, Action::Deconfigure]
    }

    fn retrying(&mut self) -> Action {
        self.failures = self.failures.saturating_add(1);
        let why = self.trouble.take().unwrap_or_else(|| NO_SERVER.to_owned());
        Action::Report(NetEvent::Retrying { attempt: self.failures, why })
    }

    fn encode(&self, request: Request, now: Duration) -> Vec<u8> {
        let secs = u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX);
        message::encode(request, self.mac, self.xid, secs)
    }

    fn broadcast(&self, request: Request, now: Duration) -> Action {
        Action::Frame(message::broadcast_frame(self.mac, &self.encode(request, now)))
    }
}

fn expect(holds: bool, refused: Refused) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(refused) }
}

/// RFC 2131 4.4.5: ask again after half of the time that is left, but not sooner than `least`.
fn halfway(now: Duration, end: Option<Duration>, least: Duration) -> Duration {
    let left = end.unwrap_or(Duration::MAX).saturating_sub(now);
    now.saturating_add((left / 2).max(least).min(left))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;

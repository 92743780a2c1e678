//! Who holds a place when there are more peers than places.
//!
//! A newcomer is never turned away for the sake of a peer that does nothing. When the places are taken, one that has not
//! finished its handshake, or on whose connection no call runs, has to leave: of the network that holds the most, the one that has
//! been doing nothing for longest. Where calls run on all connections, the network that holds the most gives one up to whoever holds
//! fewer, and so it is with streams that need not ever end. So neither ten thousand connections that say nothing, nor a thousand that
//! idle, nor as many as there may be with calls that never end keep the next honest call out, and those who are many from one
//! network stand in their own way first.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many there may be. One is a network: see [`network`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Peers that shake hands.
    pub(crate) handshakes: usize,
    /// Of them, from one network.
    pub(crate) handshakes_of_one: usize,
    /// Peers that have shaken hands.
    pub(crate) connections: usize,
    /// Of them, from one network.
    pub(crate) connections_of_one: usize,
    /// Calls that run.
    pub(crate) calls: usize,
    /// Of them, from one network.
    pub(crate) calls_of_one: usize,
    /// As many a network may always have, whatever others do.
    pub(crate) calls_of_each: usize,
    /// Streams of one method that need not ever end.
    pub(crate) streams: usize,
    /// Of them, from one network.
    pub(crate) streams_of_one: usize,
    /// Long requests that are on their way in.
    pub(crate) uploads: usize,
    /// Of them, from one network.
    pub(crate) uploads_of_one: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 512,
            handshakes_of_one: 256,
            connections: 1_280,
            connections_of_one: 1_024,
            calls: 4_096,
            calls_of_one: 1_024,
            calls_of_each: 8,
            streams: 16,
            streams_of_one: 8,
            uploads: 8,
            uploads_of_one: 4,
        }
    }
}

/// Who counts as one: an IPv4 address, however it came in; of IPv6 the network of 64 bits, all addresses of which are anybody's who has
/// one of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// All places.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Limits,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Numbers are given out in the order in which peers and calls come.
    next: u64,
    handshakes: BTreeMap<u64, Taken>,
    connections: BTreeMap<u64, Taken>,
    uploads: BTreeMap<u64, Taken>,
    calls: BTreeMap<u64, Running>,
    calls_of: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Taken {
    network: IpAddr,
    leave: CancellationToken,
    /// Calls that run on it.
    calls: usize,
    /// Since when none does, or some do.
    since: Instant,
}

/// A call that runs.
#[derive(Debug)]
struct Running {
    /// The number of its connection.
    connection: u64,
    network: IpAddr,
    method: &'static str,
    kind: CallKind,
    began: Instant,
}

/// Whether a call has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// It does.
    Bounded,
    /// It is a stream that lasts as long as its caller likes.
    Endless,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("{0} connections are open, and calls run on all of them")]
    All(usize),
    #[error("{0} connections are open from this network, and calls run on all of them")]
    Network(usize),
    #[error("{0} calls run already; try again in a moment")]
    Calls(usize),
    #[error("{0} calls from this network run already; try again when one has ended")]
    CallsOfNetwork(usize),
    #[error("{0} callers have such a stream already; try again when one has left")]
    Streams(usize),
    #[error("{0} such streams are open from this network already; end one of them first")]
    StreamsOfNetwork(usize),
}

/// A peer's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    network: IpAddr,
    /// Cancelled when the peer has to leave for another.
    pub(crate) leave: CancellationToken,
    shaken: bool,
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, table: Mutex::default() })
    }

    /// A place for a peer that is about to shake hands: there always is one.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Place {
        let network = network(address);
        let mut table = self.table();
        let Limits { handshakes, handshakes_of_one, .. } = self.limits;
        let number = table.number();
        let leave = sit_down(&mut table.handshakes, number, network, handshakes, handshakes_of_one);
        Place { places: self.clone(), number, network, leave, shaken: false }
    }

    /// Peers that shake hands, and peers that have.
    pub(crate) fn count(&self) -> (usize, usize) {
        let table = self.table();
        (table.handshakes.len(), table.connections.len())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Moves a peer that has shaken hands among those that have.
    pub(crate) fn shaken(&mut self) -> Result<(), Full> {
        let mut table = self.places.table();
        let Some(mut taken) = table.handshakes.remove(&self.number) else { return Ok(()) };
        let Limits { connections, connections_of_one, .. } = self.places.limits;
        make_room(&mut table.connections, self.network, connections, connections_of_one)?;
        taken.since = Instant::now();
        table.connections.insert(self.number, taken);
        self.shaken = true;
        Ok(())
    }

    /// A place for a long request of this peer: there always is one.
    pub(crate) fn upload(&self) -> Upload {
        let mut table = self.places.table();
        let Limits { uploads, uploads_of_one, .. } = self.places.limits;
        let number = table.number();
        let leave = sit_down(&mut table.uploads, number, self.network, uploads, uploads_of_one);
        Upload { places: self.places.clone(), number, leave }
    }

    /// Notes that a call begins, and gives it a number.
    pub(crate) fn begin(&self, method: &'static str, kind: CallKind) -> Result<u64, Full> {
        let mut table = self.places.table();
        table.room_for_call(self.network, &self.places.limits)?;
        if kind == CallKind::Endless {
            table.room_for_stream(self.network, method, &self.places.limits)?;
        }
        let number = table.number();
        let began = Instant::now();
        if let Some(taken) = table.connections.get_mut(&self.number) {
            if taken.calls == 0 {
                taken.since = began;
            }
            taken.calls += 1;
        }
        *table.calls_of.entry(self.network).or_default() += 1;
        let (connection, network) = (self.number, self.network);
        table.calls.insert(number, Running { connection, network, method, kind, began });
        Ok(number)
    }

    /// Notes that a call has ended.
    pub(crate) fn end(&self, number: u64) {
        let mut table = self.places.table();
        table.forget(number);
        if let Some(taken) = table.connections.get_mut(&self.number) {
            taken.calls = taken.calls.saturating_sub(1);
            if taken.calls == 0 {
                taken.since = Instant::now();
            }
        }
    }

    /// Since when no call runs; nothing while one does.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let table = self.places.table();
        let taken = table.connections.get(&self.number)?;
        (taken.calls == 0).then_some(taken.since)
    }

    /// Whether one of these calls runs on it.
    pub(crate) fn has_call(&self, which: impl Fn(&str) -> bool) -> bool {
        let table = self.places.table();
        table.calls.values().any(|call| call.connection == self.number && which(call.method))
    }

    /// Whether a call runs on it that should have ended, and has lasted that long.
    pub(crate) fn is_overdue(&self, longest: Duration) -> bool {
        let table = self.places.table();
        table.calls.values().any(|call| {
            let bounded = call.connection == self.number && call.kind == CallKind::Bounded;
            bounded && call.began.elapsed() >= longest
        })
    }
}

impl Table {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn room_for_call(&self, network: IpAddr, limits: &Limits) -> Result<(), Full> {
        let own = self.calls_of.get(&network).copied().unwrap_or(0);
        if own >= limits.calls_of_one {
            return Err(Full::CallsOfNetwork(limits.calls_of_one));
        }
        if self.calls.len() >= limits.calls && own >= limits.calls_of_each {
            return Err(Full::Calls(limits.calls));
        }
        Ok(())
    }

    /// Makes the network that has the most streams of a method give one up, with its connection, if there are too many.
    fn room_for_stream(
        &mut self,
        network: IpAddr,
        method: &'static str,
        limits: &Limits,
    ) -> Result<(), Full> {
        let streams = || {
            let of_method =
                |call: &&Running| call.method == method && call.kind == CallKind::Endless;
            self.calls.iter().filter(move |(_, call)| of_method(call))
        };
        let (counts, most) = most_loaded(streams().map(|(_, call)| call.network));
        let own = counts.get(&network).copied().unwrap_or(0);
        if own >= limits.streams_of_one {
            return Err(Full::StreamsOfNetwork(limits.streams_of_one));
        }
        if streams().count() < limits.streams {
            return Ok(());
        }
        // Numbers rise: the first is the oldest.
        let oldest = streams().find(|(_, call)| counts.get(&call.network) == Some(&most));
        match oldest {
            Some((&number, call)) if own + 1 < most => {
                if let Some(taken) = self.connections.get(&call.connection) {
                    taken.leave.cancel();
                }
                self.forget(number);
                Ok(())
            }
            _ => Err(Full::Streams(limits.streams)),
        }
    }

    /// A call counts no more. One that was forgotten before does not count twice.
    fn forget(&mut self, number: u64) {
        let Some(call) = self.calls.remove(&number) else { return };
        if let Some(count) = self.calls_of.get_mut(&call.network) {
            *count -= 1;
            if *count == 0 {
                self.calls_of.remove(&call.network);
            }
        }
    }
}

/// A long request's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Upload {
    places: Arc<Places>,
    number: u64,
    /// Cancelled when another has it.
    pub(crate) leave: CancellationToken,
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.places.table().uploads.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.table();
        match self.shaken {
            true => drop(table.connections.remove(&self.number)),
            false => drop(table.handshakes.remove(&self.number)),
        }
    }
}

/// Gives a newcomer a place among those on which no call runs: there always is one. What tells it that another has it.
fn sit_down(
    taken: &mut BTreeMap<u64, Taken>,
    number: u64,
    network: IpAddr,
    most: usize,
    most_of_one: usize,
) -> CancellationToken {
    let _: Result<(), Full> = make_room(taken, network, most, most_of_one);
    let leave = CancellationToken::new();
    let one = Taken { network, leave: leave.clone(), calls: 0, since: Instant::now() };
    taken.insert(number, one);
    leave
}

/// Sends one away if there are too many: then there is room for one more.
fn make_room(
    taken: &mut BTreeMap<u64, Taken>,
    newcomer: IpAddr,
    most: usize,
    most_of_one: usize,
) -> Result<(), Full> {
    let of_newcomer = taken.values().filter(|one| one.network == newcomer).count();
    let (mine, full) = match of_newcomer >= most_of_one {
        true => (true, Full::Network(most_of_one)),
        false if taken.len() >= most => (false, Full::All(most)),
        false => return Ok(()),
    };
    let idle = || taken.iter().filter(|(_, one)| one.calls == 0);
    let (counts, loaded) = most_loaded(idle().map(|(_, one)| one.network));
    let chosen = idle()
        .filter(|(_, one)| match mine {
            true => one.network == newcomer,
            false => counts.get(&one.network) == Some(&loaded),
        })
        .min_by_key(|(number, one)| (one.since, **number));
    let chosen = chosen.or_else(|| {
        // Calls run on all of them. Who holds the most has to share with who holds fewer.
        let (counts, most) = most_loaded(taken.values().map(|one| one.network));
        let all = taken.iter().filter(|(_, one)| counts.get(&one.network) == Some(&most));
        all.min_by_key(|(number, one)| (one.since, **number))
            .filter(|_| !mine && of_newcomer + 1 < most)
    });
    let Some((&number, _)) = chosen else { return Err(full) };
    if let Some(one) = taken.remove(&number) {
        one.leave.cancel();
    }
    Ok(())
}

/// How many each network holds, and the most of that.
fn most_loaded(all: impl Iterator<Item = IpAddr>) -> (HashMap<IpAddr, usize>, usize) {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    all.for_each(|network| *counts.entry(network).or_default() += 1);
    let most = counts.values().max().copied().unwrap_or(0);
    (counts, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        handshakes: 4,
        handshakes_of_one: 3,
        connections: 4,
        connections_of_one: 3,
        calls: 6,
        calls_of_one: 5,
        calls_of_each: 1,
        streams: 4,
        streams_of_one: 3,
        uploads: 4,
        uploads_of_one: 3,
    };

    fn address(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    /// Takes places from these addresses; then which of them had to leave.
    fn check(addresses: &[u8], expect: &[usize]) {
        let places = Places::new(LIMITS);
        let all: Vec<_> = addresses.iter().map(|last| places.take(address(*last))).collect();
        let left: Vec<_> = (0..all.len()).filter(|at| all[*at].leave.is_cancelled()).collect();
        assert_eq!(left, expect, "{addresses:?}");
        assert_eq!(places.count().0, all.len() - left.len());
        drop(all);
        assert_eq!(places.count(), (0, 0));
    }

    #[test]
    fn who_shakes_hands_for_longest_leaves_first() {
        check(&[1, 2, 3, 4], &[]);
        check(&[1, 1, 1], &[]);
        check(&[1, 1, 1, 1], &[0]);
        check(&[1, 1, 1, 1, 1], &[0, 1]);
        check(&[1, 1, 1, 2, 3], &[0]);
        check(&[2, 1, 1, 1, 3], &[1]);
        check(&[1, 2, 3, 4, 5], &[0]);
    }

    #[test]
    fn a_long_request_has_its_place_until_another_needs_it() {
        let places = Places::new(LIMITS);
        let peers: Vec<_> = (0..=4).map(|last| places.take(address(last))).collect();
        let upload = |last: usize| peers[last].upload();
        let held = [upload(1), upload(1), upload(1)];
        // A fourth of one network is at its own cost; one of another is at the cost of who has the most.
        let fourth = upload(1);
        let left = || held.each_ref().map(|one| one.leave.is_cancelled());
        assert_eq!(left(), [true, false, false]);
        let others = [upload(2), upload(3)];
        assert_eq!(left(), [true, true, false]);
        drop(fourth);
        let last = upload(4);
        assert_eq!(left(), [true, true, false]);
        assert!(others.iter().chain([&last]).all(|one| !one.leave.is_cancelled()));
    }

    fn connect(places: &Arc<Places>, last: u8) -> Result<Place, Full> {
        let mut place = places.take(address(last));
        place.shaken().map(|()| place)
    }

    #[test]
    fn one_whose_call_runs_leaves_only_for_who_holds_fewer() {
        let places = Places::new(LIMITS);
        let connect = |last: u8| connect(&places, last);
        let busy = |place: &Place| place.begin("m", CallKind::Bounded).unwrap();
        let (one, two) = (connect(1).unwrap(), connect(1).unwrap());
        busy(&one);
        let three = connect(1).unwrap();
        let four = connect(1).unwrap();
        assert!(two.leave.is_cancelled() && !one.leave.is_cancelled());
        busy(&three);
        busy(&four);
        assert_eq!(connect(1).unwrap_err(), Full::Network(3));
        let five = connect(2).unwrap();
        let call = busy(&five);
        // Of three that one network holds, the one that has been busy for longest.
        let six = connect(3).unwrap();
        assert!(one.leave.is_cancelled() && !three.leave.is_cancelled());
        busy(&six);
        assert_eq!(connect(3).unwrap_err(), Full::All(4), "nobody holds more");
        five.end(call);
        assert!(five.idle_since().is_some() && three.idle_since().is_none());
        connect(4).unwrap();
        assert!(five.leave.is_cancelled());
        assert_eq!(places.count().0, 0, "who found no place holds none");
    }

    #[test]
    fn calls_are_shared_out() {
        let places = Places::new(LIMITS);
        let (one, two) = (connect(&places, 1).unwrap(), connect(&places, 2).unwrap());
        let call = |place: &Place| place.begin("m", CallKind::Bounded);
        let calls: Vec<_> = (0..5).map(|_| call(&one).unwrap()).collect();
        assert_eq!(call(&one), Err(Full::CallsOfNetwork(5)));
        call(&two).unwrap();
        assert_eq!(call(&two), Err(Full::Calls(6)), "two has one, as everybody may");
        call(&connect(&places, 3).unwrap()).unwrap();
        one.end(calls[0]);
        one.end(calls[0]);
        one.end(calls[1]);
        call(&two).unwrap();
        assert_eq!(call(&two), Err(Full::Calls(6)), "a call ends once");
    }

    #[test]
    fn a_stream_makes_room_for_who_has_fewer() {
        let places = Places::new(Limits { calls: 100, ..LIMITS });
        let stream = |place: &Place| place.begin("watch", CallKind::Endless);
        let (one, two) = (connect(&places, 1).unwrap(), connect(&places, 1).unwrap());
        let oldest = stream(&one).unwrap();
        stream(&two).unwrap();
        stream(&two).unwrap();
        assert_eq!(stream(&two), Err(Full::StreamsOfNetwork(3)));
        two.begin("other", CallKind::Endless).unwrap();
        let three = connect(&places, 2).unwrap();
        stream(&three).unwrap();
        // Four are open: who has three gives one up, and the connection with it.
        stream(&three).unwrap();
        assert!(one.leave.is_cancelled() && !two.leave.is_cancelled());
        one.end(oldest);
        let four = connect(&places, 3).unwrap();
        assert_eq!(stream(&three), Err(Full::Streams(4)));
        stream(&four).unwrap();
        assert!(two.leave.is_cancelled());
        assert_eq!(stream(&four), Err(Full::Streams(4)), "nobody has two more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_should_have_ended_is_seen() {
        let places = Places::new(LIMITS);
        let place = connect(&places, 1).unwrap();
        let longest = Duration::from_secs(60);
        place.begin("watch", CallKind::Endless).unwrap();
        tokio::time::advance(longest * 2).await;
        assert!(!place.is_overdue(longest));
        let call = place.begin("m", CallKind::Bounded).unwrap();
        tokio::time::advance(longest / 2).await;
        assert!(!place.is_overdue(longest));
        tokio::time::advance(longest / 2).await;
        assert!(place.is_overdue(longest));
        place.end(call);
        assert!(!place.is_overdue(longest));
    }

    #[test]
    fn who_counts_as_one() {
        let check = |address: &str, expect: &str| {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(network(address).to_string(), expect);
        };
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("2001:db8:1:2::", "2001:db8:1:2::");
        check("fe80::1", "fe80::");
        check("::1", "::");
        let places = Places::new(LIMITS);
        let all: Vec<_> = (0..4_u16)
            .map(|last| places.take(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, last, 0, 0, last).into()))
            .collect();
        assert!(all[0].leave.is_cancelled(), "four of one network, where three may be");
    }
}

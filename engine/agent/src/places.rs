//! Who holds a place when there are more peers than places.
//!
//! A newcomer is never turned away for the sake of a peer that does nothing. When the places are taken, one that has not
//! finished its handshake, or on whose connection no call runs, has to leave: of the address that holds the most, the one that has
//! been doing nothing for longest. So neither ten thousand connections that say nothing nor a thousand that idle keep the
//! next honest call out, and those who are many from one address stand in their own way first.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Peers that shake hands.
    pub(crate) handshakes: usize,
    /// Of them, from one address.
    pub(crate) handshakes_of_one: usize,
    /// Peers that have shaken hands.
    pub(crate) connections: usize,
    /// Of them, from one address.
    pub(crate) connections_of_one: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 512,
            handshakes_of_one: 256,
            connections: 1_280,
            connections_of_one: 1_024,
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
    /// Numbers are given out in the order in which peers come.
    next: u64,
    handshakes: BTreeMap<u64, Taken>,
    connections: BTreeMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    address: IpAddr,
    leave: CancellationToken,
    /// Calls that run on it.
    calls: usize,
    /// Since when none does.
    idle: Instant,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("{0} connections are open, and calls run on all of them")]
    All(usize),
    #[error("{0} connections are open from this address, and calls run on all of them")]
    Address(usize),
}

/// A peer's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    address: IpAddr,
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
        let mut table = self.table();
        let Limits { handshakes, handshakes_of_one, .. } = self.limits;
        let _: Result<(), Full> =
            make_room(&mut table.handshakes, address, handshakes, handshakes_of_one);
        let leave = CancellationToken::new();
        let number = table.next;
        table.next += 1;
        let taken = Taken { address, leave: leave.clone(), calls: 0, idle: Instant::now() };
        table.handshakes.insert(number, taken);
        Place { places: self.clone(), number, address, leave, shaken: false }
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
        make_room(&mut table.connections, self.address, connections, connections_of_one)?;
        taken.idle = Instant::now();
        table.connections.insert(self.number, taken);
        self.shaken = true;
        Ok(())
    }

    /// Notes that a call begins.
    pub(crate) fn busy(&self) {
        if let Some(taken) = self.places.table().connections.get_mut(&self.number) {
            taken.calls += 1;
        }
    }

    /// Notes that a call has ended.
    pub(crate) fn done(&self) {
        if let Some(taken) = self.places.table().connections.get_mut(&self.number) {
            taken.calls = taken.calls.saturating_sub(1);
            taken.idle = Instant::now();
        }
    }

    /// Since when no call runs; nothing while one does.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let table = self.places.table();
        let taken = table.connections.get(&self.number)?;
        (taken.calls == 0).then_some(taken.idle)
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

/// Sends one away if there are too many: then there is room for one more.
fn make_room(
    taken: &mut BTreeMap<u64, Taken>,
    newcomer: IpAddr,
    most: usize,
    most_of_one: usize,
) -> Result<(), Full> {
    let of_newcomer = taken.values().filter(|one| one.address == newcomer).count();
    let (mine, full) = match of_newcomer >= most_of_one {
        true => (true, Full::Address(most_of_one)),
        false if taken.len() >= most => (false, Full::All(most)),
        false => return Ok(()),
    };
    let idle = || taken.iter().filter(|(_, one)| one.calls == 0);
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    idle().for_each(|(_, one)| *counts.entry(one.address).or_default() += 1);
    let most_loaded = counts.values().max().copied().unwrap_or(0);
    let chosen = idle()
        .filter(|(_, one)| match mine {
            true => one.address == newcomer,
            false => counts.get(&one.address) == Some(&most_loaded),
        })
        .min_by_key(|(number, one)| (one.idle, **number));
    let Some((&number, _)) = chosen else { return Err(full) };
    if let Some(one) = taken.remove(&number) {
        one.leave.cancel();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { handshakes: 4, handshakes_of_one: 3, connections: 4, connections_of_one: 3 };

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
    fn one_whose_call_runs_never_leaves() {
        let places = Places::new(LIMITS);
        let connect = |last: u8| {
            let mut place = places.take(address(last));
            place.shaken().map(|()| place)
        };
        let (one, two) = (connect(1).unwrap(), connect(1).unwrap());
        one.busy();
        let three = connect(1).unwrap();
        let four = connect(1).unwrap();
        assert!(two.leave.is_cancelled() && !one.leave.is_cancelled());
        three.busy();
        four.busy();
        assert_eq!(connect(1).unwrap_err(), Full::Address(3));
        let five = connect(2).unwrap();
        five.busy();
        assert_eq!(connect(3).unwrap_err(), Full::All(4));
        five.done();
        assert!(five.idle_since().is_some() && one.idle_since().is_none());
        connect(3).unwrap();
        assert!(five.leave.is_cancelled());
        assert_eq!(places.count().0, 0, "who found no place holds none");
    }
}

//! The timers: one slot for each unit, for no unit ever waits for two instants at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::transaction::UnitId;

/// A heap of instants beside the slots that say which of them still count. Setting and clearing leave stale entries in
/// the heap; they are dropped when they surface, and all at once when they outnumber the units.
#[derive(Clone)]
pub(super) struct Timers {
    slots: Vec<Option<Duration>>,
    heap: BinaryHeap<Reverse<(Duration, UnitId)>>,
}

impl Timers {
    pub(super) fn new(units: usize) -> Timers {
        Timers { slots: vec![None; units], heap: BinaryHeap::new() }
    }

    /// The same instants for so many units that are numbered anew.
    pub(super) fn renumbered(&self, moves: &[Option<UnitId>], units: usize) -> Timers {
        let mut timers = Timers::new(units);
        for (due, moved) in self.slots.iter().zip(moves) {
            if let (Some(due), Some(moved)) = (due, moved) {
                timers.set(*moved, *due);
            }
        }
        timers
    }

    pub(super) fn get(&self, unit: UnitId) -> Option<Duration> {
        self.slots[unit.index()]
    }

    pub(super) fn is_set(&self, unit: UnitId) -> bool {
        self.slots[unit.index()].is_some()
    }

    pub(super) fn set(&mut self, unit: UnitId, due: Duration) {
        self.slots[unit.index()] = Some(due);
        self.heap.push(Reverse((due, unit)));
        if self.heap.len() > 2 * self.slots.len() + 16 {
            let slots = self.slots.iter().enumerate();
            self.heap = slots
                .filter_map(|(unit, due)| Some(Reverse(((*due)?, UnitId(unit as u32)))))
                .collect();
        }
    }

    pub(super) fn clear(&mut self, unit: UnitId) {
        self.slots[unit.index()] = None;
    }

    /// The next instant that anything waits for.
    pub(super) fn next_due(&mut self) -> Option<Duration> {
        while let Some(&Reverse((due, unit))) = self.heap.peek() {
            if self.slots[unit.index()] == Some(due) {
                return Some(due);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes the next timer that is due: the earliest, and of several the one of the lowest unit.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<UnitId> {
        self.next_due().filter(|&due| due <= now)?;
        let Reverse((_, unit)) = self.heap.pop()?;
        self.slots[unit.index()] = None;
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_setting_of_a_unit_counts() {
        let secs = Duration::from_secs;
        let mut timers = Timers::new(3);
        timers.set(UnitId(0), secs(1));
        timers.set(UnitId(1), secs(2));
        timers.set(UnitId(2), secs(2));
        timers.set(UnitId(0), secs(3));
        timers.set(UnitId(0), secs(3));
        assert_eq!(timers.next_due(), Some(secs(2)));
        assert_eq!(timers.pop_due(secs(1)), None);
        timers.clear(UnitId(1));
        assert_eq!(timers.pop_due(secs(9)), Some(UnitId(2)));
        assert_eq!(timers.pop_due(secs(9)), Some(UnitId(0)));
        assert_eq!(timers.pop_due(secs(9)), None);
    }

    #[test]
    fn memory_is_bounded_by_the_units_not_by_the_settings() {
        let mut timers = Timers::new(2);
        for due in 0..100_000 {
            timers.set(UnitId(0), Duration::from_millis(due));
            assert!(timers.heap.len() <= 20);
        }
        assert_eq!(timers.next_due(), Some(Duration::from_millis(99_999)));
    }
}

//! What waits to be written. Nobody who puts something in waits for a disk, nor wakes the writer for each record: where nothing is
//! urgent it wakes once for all that comes within a moment.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Item;

/// Records that wait to be written. Beyond that they are counted, and not kept.
const WAITING: usize = 1_024;

/// How long the first waits for others.
const MOMENT: Duration = Duration::from_millis(50);

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    items: Vec<Item>,
    /// Records that found no room.
    lost: u64,
    /// The writer waits for anything at all.
    idle: bool,
    /// The writer is not to wait for more.
    urgent: bool,
    closed: bool,
}

impl Queue {
    /// Puts something in.
    pub(super) fn put(&self, item: Item) {
        let mut state = self.state();
        if state.items.len() >= WAITING && !item.is_flush() {
            state.lost += 1;
            return;
        }
        let urgent = item.is_urgent() || state.items.len() >= WAITING / 2;
        state.items.push(item);
        let wakes = std::mem::take(&mut state.idle) || (urgent && !state.urgent);
        state.urgent |= urgent;
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// Nothing more is put in.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_one();
    }

    /// Waits for what is put in, and takes it all: how many were lost before, and the others; nothing when it is closed and empty.
    pub(super) fn take(&self, items: &mut Vec<Item>) -> Option<u64> {
        let mut state = self.state();
        while state.items.is_empty() && !state.closed {
            state.idle = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let more = |state: &mut State| !state.urgent && !state.closed;
        let waited = self.wake.wait_timeout_while(state, MOMENT, more);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.idle = false;
        state.urgent = false;
        if state.items.is_empty() {
            return None;
        }
        items.clear();
        std::mem::swap(items, &mut state.items);
        Some(std::mem::take(&mut state.lost))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

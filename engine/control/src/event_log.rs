//! What happened, kept in one ring that every watcher reads at its own pace.
//!
//! The ring bounds memory whatever the watchers do: one that is too slow finds that the ring has moved on, and is told
//! how many events it lost.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::config::MutationProgress;
use crate::message::{Event, Happened, Refusal, RefusalKind};

/// The most bytes of any text in an event. The ring holds that many times its capacity at the very most.
const MAX_TEXT: usize = 1024;

/// The most bytes of a list of texts in an event.
const MAX_LIST: usize = 2 * MAX_TEXT;

/// The most events in one batch; with their texts bounded, a batch always fits in a frame.
const MAX_BATCH: usize = 128;

/// The last events of this boot.
#[derive(Debug)]
pub struct EventLog {
    capacity: usize,
    ring: Mutex<Ring>,
    /// The number of the next event; watchers wait on its changes.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Event>,
    next: u64,
}

/// Some events in a row, and how many are missing before the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Events that were asked for and are no longer held.
    pub dropped: u64,
    /// The events, oldest first; none when the log has nothing newer.
    pub events: Vec<Event>,
    /// Where to read on.
    pub next: u64,
}

impl EventLog {
    /// An empty log that will hold that many events, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let ring = Ring { events: VecDeque::new(), next: 1 };
        Self { capacity: capacity.max(1), ring: Mutex::new(ring), next: watch::Sender::new(1) }
    }

    /// Adds what happened `at_ms` after init started, and wakes the watchers. Never waits for any of them.
    ///
    /// Returns the event's number. Texts longer than 1 KiB are cut.
    pub fn push(&self, at_ms: u64, what: Happened) -> u64 {
        let mut ring = self.ring();
        let seq = ring.next;
        ring.next += 1;
        if ring.events.len() == self.capacity {
            ring.events.pop_front();
        }
        ring.events.push_back(Event { seq, at_ms, what: bounded(what) });
        let next = ring.next;
        drop(ring);
        // Two pushes may arrive here in either order; the number only ever rises.
        self.next.send_if_modified(|known| {
            let newer = next > *known;
            *known = next.max(*known);
            newer
        });
        seq
    }

    /// Reads events from number `from` on, without waiting.
    ///
    /// # Errors
    ///
    /// A number beyond the next one is refused: whoever asks for it remembers another boot.
    pub fn read(&self, from: u64) -> Result<Batch, Refusal> {
        let ring = self.ring();
        let from = from.max(1);
        if from > ring.next {
            return Err(RefusalKind::NotYet { asked: from, next: ring.next }.into());
        }
        let oldest = ring.events.front().map_or(ring.next, |event| event.seq);
        let start = from.max(oldest);
        // Numbers in the ring have no gaps, so a number's place follows from the first.
        let skip = usize::try_from(start - oldest).unwrap_or(usize::MAX);
        let events: Vec<_> = ring.events.iter().skip(skip).take(MAX_BATCH).cloned().collect();
        let next = events.last().map_or(start, |event| event.seq + 1);
        Ok(Batch { dropped: start - from, events, next })
    }

    /// The number that the next event will have.
    pub fn next(&self) -> u64 {
        *self.next.borrow()
    }

    /// Reads events from number `from` on, and waits for the first if there is none yet.
    ///
    /// # Errors
    ///
    /// As [`EventLog::read`].
    pub async fn after(&self, from: u64) -> Result<Batch, Refusal> {
        // Subscribed before reading, so that an event between the two is not slept through.
        let mut changes = self.next.subscribe();
        loop {
            let batch = self.read(from)?;
            if !batch.events.is_empty() || changes.changed().await.is_err() {
                return Ok(batch);
            }
        }
    }

    /// The ring is whole even if a thread died with the lock held: no operation on it can panic halfway.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded(mut what: Happened) -> Happened {
    match &mut what {
        Happened::Transition { unit, why, .. } => {
            clip(unit);
            why.as_mut().map(clip);
        }
        Happened::Fact { unit, text } => {
            unit.as_mut().map(clip);
            clip(text);
        }
        Happened::Goal { why, .. } => {
            why.as_mut().map(clip);
        }
        Happened::Mutation { progress, .. } => {
            if let MutationProgress::RolledBack(undone) | MutationProgress::Degraded(undone) =
                progress
            {
                undone.culprit.as_mut().map(clip);
                clip(&mut undone.why);
                within(MAX_LIST, &mut undone.last_words);
                within(MAX_LIST, &mut undone.undone);
            }
        }
    }
    what
}

/// The first texts of a list, as many as fit.
fn within(bytes: usize, texts: &mut Vec<String>) {
    let mut left = bytes;
    texts.iter_mut().for_each(clip);
    texts.retain(|text| {
        let fits = text.len() <= left;
        left = if fits { left - text.len() } else { 0 };
        fits
    });
}

fn clip(text: &mut String) {
    const MARK: &str = "…";
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT - MARK.len()));
        text.push_str(MARK);
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use crate::message::Reply;

    fn fact(text: &str) -> Happened {
        Happened::Fact { unit: None, text: text.to_owned() }
    }

    fn log(capacity: usize, pushed: usize) -> EventLog {
        let log = EventLog::new(capacity);
        for at_ms in 0..pushed {
            log.push(at_ms as u64, fact("x"));
        }
        log
    }

    /// What reading from `from` gives: dropped, the numbers, where to read on.
    fn check(log: &EventLog, from: u64, expect: (u64, &[u64], u64)) {
        let batch = log.read(from).unwrap();
        let seqs: Vec<_> = batch.events.iter().map(|event| event.seq).collect();
        assert_eq!((batch.dropped, seqs.as_slice(), batch.next), expect, "from {from}");
    }

    #[test]
    fn reading() {
        let empty = log(3, 0);
        check(&empty, 0, (0, &[], 1));
        check(&empty, 1, (0, &[], 1));
        let some = log(3, 2);
        check(&some, 0, (0, &[1, 2], 3));
        check(&some, 2, (0, &[2], 3));
        check(&some, 3, (0, &[], 3));
        let overrun = log(3, 10);
        check(&overrun, 1, (7, &[8, 9, 10], 11));
        check(&overrun, 7, (1, &[8, 9, 10], 11));
        check(&overrun, 9, (0, &[9, 10], 11));
        assert_eq!(
            overrun.read(12).unwrap_err().kind,
            RefusalKind::NotYet { asked: 12, next: 11 },
            "a number of another boot"
        );
    }

    #[tokio::test]
    async fn a_watcher_wakes_for_what_comes_later() {
        let log = std::sync::Arc::new(log(8, 1));
        let watcher = tokio::spawn({
            let log = log.clone();
            async move { log.after(2).await }
        });
        tokio::task::yield_now().await;
        assert!(!watcher.is_finished());
        log.push(5, fact("later"));
        let batch = watcher.await.unwrap().unwrap();
        assert_eq!(batch.events, [Event { seq: 2, at_ms: 5, what: fact("later") }]);
    }

    #[test]
    fn the_largest_batch_fits_in_a_frame() {
        let log = EventLog::new(10 * MAX_BATCH);
        for at_ms in 0..2 * MAX_BATCH as u64 {
            // Three bytes per character: the cut has to find a boundary.
            log.push(
                at_ms,
                Happened::Fact { unit: Some("ü".repeat(4000)), text: "€".repeat(4000) },
            );
        }
        let batch = log.read(1).unwrap();
        assert_eq!(batch.events.len(), MAX_BATCH);
        assert!(frame::encode(&Reply::Events { dropped: 0, events: batch.events }).is_ok());
    }
}

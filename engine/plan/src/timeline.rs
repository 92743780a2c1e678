//! What a run looked like: one span for each unit, and the chain of waits that decided how long it took.
//!
//! The simulator and the executor record the same way, from the scheduler's announcements.

use std::time::Duration;

use crate::scheduler::Transition;
use crate::state::State;
use crate::transaction::UnitId;

/// How one unit came up, or did not. What happens to it later is not part of the boot.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The unit.
    pub unit: UnitId,
    /// When its first activation began; `None` if it had none.
    pub began: Option<Duration>,
    /// When it was up, skipped or failed for good; `None` if it is not yet.
    pub ended: Option<Duration>,
    /// The unit that it waited for last, or that it failed for lack of.
    pub waited_for: Option<UnitId>,
    /// Activations until then.
    pub attempts: u32,
    /// What became of it.
    pub state: State,
}

impl Span {
    /// How long it worked, waits between its attempts included; until `now` if it has not ended.
    pub fn took(&self, now: Duration) -> Duration {
        match self.began {
            Some(began) => self.ended.unwrap_or(now).saturating_sub(began),
            None => Duration::ZERO,
        }
    }
}

/// The spans of all units, by [`UnitId`].
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    spans: Vec<Span>,
}

impl Timeline {
    /// The timeline of a machine on which nothing has been started.
    pub fn new(units: usize) -> Timeline {
        let span = |unit| Span {
            unit: UnitId(unit),
            began: None,
            ended: None,
            waited_for: None,
            attempts: 0,
            state: State::Inactive,
        };
        Timeline { spans: (0..units as u32).map(span).collect() }
    }

    /// Takes in what the scheduler announced.
    pub fn record(&mut self, transition: &Transition) {
        let Some(span) = self.spans.get_mut(transition.unit.index()) else { return };
        if span.ended.is_some() {
            return;
        }
        span.state = transition.to;
        span.attempts = transition.attempt;
        if transition.from == State::Waiting && span.began.is_none() {
            span.waited_for = transition.why.blames().or(transition.waited_for);
        }
        match transition.to {
            State::Activating => {
                span.began.get_or_insert(transition.at);
            }
            State::Active(_) | State::Failed(_) | State::Skipped => {
                span.ended = Some(transition.at)
            }
            State::Inactive | State::Waiting | State::Deactivating => {}
        }
    }

    /// The same in another graph. A unit that is new in it has a span of its own from now on.
    #[must_use]
    pub fn renumbered(&self, moves: &[Option<UnitId>], units: usize) -> Timeline {
        let mut timeline = Timeline::new(units);
        for (span, moved) in self.spans.iter().zip(moves) {
            let Some(unit) = *moved else { continue };
            let waited_for = span.waited_for.and_then(|other| moves[other.index()]);
            timeline.spans[unit.index()] = Span { unit, waited_for, ..span.clone() };
        }
        timeline
    }

    /// The spans of all units, by [`UnitId`].
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// What decided how long `goal` took: back from it, along what each unit last waited for.
    pub fn critical_path(&self, goal: UnitId) -> CriticalPath {
        let span = |unit: UnitId| &self.spans[unit.index()];
        let latest = self
            .spans
            .iter()
            .filter_map(|span| span.ended.max(span.began))
            .max()
            .unwrap_or_default();
        let total = span(goal).ended.unwrap_or(latest);

        let mut stretches = Vec::new();
        let mut next = Some(goal);
        let mut until = total;
        // Bounded: waiting follows the ordering, which is free of cycles, but blame follows requirements.
        while let Some(unit) = next.filter(|_| stretches.len() < self.spans.len()) {
            let span = span(unit);
            let to = span.ended.map_or(until, |ended| ended.min(until));
            let from = span.began.map_or(to, |began| began.min(to));
            stretches.push(Stretch { unit, from, to });
            until = from;
            next = span.waited_for;
        }
        stretches.reverse();

        let took =
            |span: &Span| span.took(total).min(total.saturating_sub(span.began.unwrap_or(total)));
        CriticalPath {
            total,
            length: stretches.iter().map(Stretch::took).sum(),
            work: self.spans.iter().map(took).sum(),
            side_by_side: self.side_by_side(total),
            stretches,
        }
    }

    /// The most activations that were under way at one instant before `end`.
    fn side_by_side(&self, end: Duration) -> usize {
        let mut changes: Vec<(Duration, i32)> = Vec::new();
        for span in &self.spans {
            if let Some(began) = span.began
                && !span.took(end).is_zero()
                && began < end
            {
                changes.push((began, 1));
                changes.push((span.ended.unwrap_or(end), -1));
            }
        }
        // One that ends at the instant at which another begins was not beside it: -1 sorts before 1.
        changes.sort_unstable();
        let mut now = 0;
        let most = changes.into_iter().map(|(_, change)| {
            now += change;
            now
        });
        usize::try_from(most.max().unwrap_or(0)).unwrap_or(0)
    }
}

/// One unit on a critical path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The unit.
    pub unit: UnitId,
    /// When its activation began.
    pub from: Duration,
    /// When it let the next one go.
    pub to: Duration,
}

impl Stretch {
    /// How long that is.
    pub fn took(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }
}

/// The chain of waits behind a goal, and how well the rest hid beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriticalPath {
    /// From boot to the goal.
    pub total: Duration,
    /// The units on it, in order; the goal is the last.
    pub stretches: Vec<Stretch>,
    /// How long they worked, one after another. What `total` exceeds it by is time in which nothing on the path moved.
    pub length: Duration,
    /// How long all units worked, had they done so one after another.
    pub work: Duration,
    /// The most that worked at one instant.
    pub side_by_side: usize,
}

impl CriticalPath {
    /// How many times faster than one after another.
    pub fn speedup(&self) -> f64 {
        if self.total.is_zero() { 1.0 } else { self.work.as_secs_f64() / self.total.as_secs_f64() }
    }
}

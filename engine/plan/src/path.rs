//! What decided how long a boot took, from its trace: the chain of waits behind a unit, and how well the rest hid beside it.

use std::collections::HashMap;
use std::time::Duration;

use crate::trace::{Trace, UnitTrace};

/// One unit on a chain of waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its place in [`Trace::units`].
    pub unit: usize,
    /// When it began; where it waited for a processor, when it got that.
    pub from: Duration,
    /// When it let the next one go.
    pub to: Duration,
    /// What held it is a processor, and the link before is the unit that had it.
    pub for_processor: bool,
}

/// How busy a boot was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Business {
    /// How long all units took together.
    pub work: Duration,
    /// The most activations that were under way at one instant.
    pub side_by_side: usize,
    /// The most of them that did not wait for a processor.
    pub at_work: usize,
    /// How many times as fast as one after another.
    pub speed_up: f64,
}

impl Trace {
    /// When the first unit began: until then, init read its units and its config.
    pub fn preparation(&self) -> Option<Duration> {
        self.units.iter().filter_map(UnitTrace::began).min()
    }

    /// Back from a unit along what each last waited for; in the order of time.
    pub fn chain(&self, unit: &str) -> Vec<Link> {
        let places: HashMap<&str, usize> = self
            .units
            .iter()
            .enumerate()
            .map(|(place, unit)| (unit.name.as_str(), place))
            .collect();
        let mut links = Vec::new();
        let mut next = places.get(unit).copied();
        let mut until = next.and_then(|place| self.units[place].ended()).unwrap_or(self.total());
        let mut seen = vec![false; self.units.len()];
        // Blame follows requirements, which may be circular where waiting is not, and anybody may have written the file.
        while let Some(place) = next.filter(|place| !seen[*place]) {
            seen[place] = true;
            let unit = &self.units[place];
            let to = unit.ended().map_or(until, |ended| ended.min(until));
            let queued = unit.queued_behind.as_deref().filter(|_| unit.attempts <= 1);
            let work = if queued.is_some() { working_from(unit) } else { unit.began() };
            let from = work.map_or(to, |work| work.min(to));
            links.push(Link { unit: place, from, to, for_processor: queued.is_some() });
            until = from;
            next = queued.or(unit.waited_for.as_deref()).and_then(|name| places.get(name).copied());
        }
        links.reverse();
        links
    }

    /// What decided the total.
    pub fn critical_path(&self) -> Vec<Link> {
        self.chain(&self.goal)
    }

    /// Which units are on the critical path and took part in the time, by their place.
    pub fn critical(&self) -> Vec<bool> {
        let mut critical = vec![false; self.units.len()];
        for link in self.critical_path() {
            critical[link.unit] = true;
        }
        critical
    }

    /// How busy the boot was until its goal.
    pub fn business(&self) -> Business {
        let total = self.total();
        let spans = |from: fn(&UnitTrace) -> Option<Duration>| {
            let spans = self.units.iter().filter_map(move |unit| {
                Some((from(unit)?, unit.ended().unwrap_or(total).min(total)))
            });
            spans.filter(|(from, to)| from < to).collect::<Vec<_>>()
        };
        let working = spans(working_from);
        let work: Duration = working.iter().map(|(from, to)| *to - *from).sum();
        let speed_up = if total.is_zero() { 1.0 } else { work.as_secs_f64() / total.as_secs_f64() };
        Business {
            work,
            side_by_side: most(&spans(UnitTrace::began)),
            at_work: most(&working),
            speed_up,
        }
    }
}

/// When a unit had what it needed to work.
pub(crate) fn working_from(unit: &UnitTrace) -> Option<Duration> {
    let queued = Duration::from_micros(unit.queued_us.unwrap_or(0));
    unit.began().map(|began| began.saturating_add(queued))
}

/// The most spans that hold at one instant.
fn most(spans: &[(Duration, Duration)]) -> usize {
    // One that ends at the instant at which another begins was not beside it: -1 sorts before 1.
    let mut changes: Vec<(Duration, i64)> =
        spans.iter().flat_map(|(from, to)| [(*from, 1), (*to, -1)]).collect();
    changes.sort_unstable();
    let mut now = 0;
    let counts = changes.into_iter().map(|(_, change)| {
        now += change;
        now
    });
    usize::try_from(counts.max().unwrap_or(0)).unwrap_or(0)
}

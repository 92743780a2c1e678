//! Boots beside each other: what became slower.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::estimate::percentile_of;
use crate::trace::{Trace, UnitTrace};

/// A boot compared with one or several before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The median total of those before.
    pub before: Duration,
    /// The total of this one.
    pub after: Duration,
    /// Every unit that took a different time or came to something else; what became slower first.
    pub changes: Vec<Change>,
}

/// What is different about one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The unit.
    pub name: String,
    /// How long it took before: the median of the boots that it came up in. None if it is new, or came up in none.
    pub before: Option<Duration>,
    /// How long it took in this boot. None if it is gone, or did not come up.
    pub after: Option<Duration>,
    /// What became of it in the last of those before, where it is something else now.
    pub was: Option<&'static str>,
    /// What became of it in this boot.
    pub is: Option<&'static str>,
}

impl Change {
    /// By how much it is slower; below zero, faster.
    pub fn slower_by(&self) -> i128 {
        let micros = |span: Option<Duration>| span.map_or(0, |span| span.as_micros() as i128);
        micros(self.after) - micros(self.before)
    }
}

/// Compares a boot with those before it, of which there is at least one.
pub fn compare(before: &[Trace], after: &Trace) -> Comparison {
    let mut totals: Vec<Duration> = before.iter().map(Trace::total).collect();
    totals.sort_unstable();
    let mut took: BTreeMap<&str, (Vec<Duration>, Option<&UnitTrace>)> = BTreeMap::new();
    for trace in before {
        for unit in &trace.units {
            let seen = took.entry(&unit.name).or_default();
            seen.0.extend(up_in(unit));
            seen.1 = Some(unit);
        }
    }
    for unit in &after.units {
        took.entry(&unit.name).or_default();
    }
    let mut changes: Vec<Change> = Vec::new();
    for (name, (mut took, last)) in took {
        took.sort_unstable();
        let now = after.find(name);
        let (was, is) = (last.map(|it| it.state.as_str()), now.map(|it| it.state.as_str()));
        let change = Change {
            name: name.to_owned(),
            before: percentile_of(&took, 50),
            after: now.and_then(up_in),
            was: was.filter(|_| was != is),
            is: is.filter(|_| was != is),
        };
        if change.before != change.after || change.was.is_some() || change.is.is_some() {
            changes.push(change);
        }
    }
    changes.sort_by(|a, b| b.slower_by().cmp(&a.slower_by()).then(a.name.cmp(&b.name)));
    Comparison {
        before: percentile_of(&totals, 50).unwrap_or_default(),
        after: after.total(),
        changes,
    }
}

/// How long a unit took that came up.
fn up_in(unit: &UnitTrace) -> Option<Duration> {
    unit.ended().filter(|_| unit.state.is_active()).map(|ended| unit.took(ended))
}

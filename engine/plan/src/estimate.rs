//! How long each unit may take: as it was recorded, as its file hints, or as its kind usually does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use keel_unit::{Kind, KindName, Unit};

use crate::graph::BootGraph;
use crate::machine::{Behaviour, Load, Machine};
use crate::simulate::Script;
use crate::trace::{StateName, Trace};
use crate::transaction::Transaction;

/// How long the units of one kind take where nothing better is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usual {
    /// The kind.
    pub kind: KindName,
    /// Which units of it, where they differ.
    pub which: &'static str,
    /// How long.
    pub takes: Duration,
    /// Whether that is work or waiting.
    pub load: Load,
}

const fn usual(kind: KindName, which: &'static str, millis: u64, load: Load) -> Usual {
    Usual { kind, which, takes: Duration::from_millis(millis), load }
}

/// Every kind. Of several rows of one kind the last is for all units that the others do not name.
///
/// The numbers are guesses for a small machine with hardware virtualisation; a recorded boot beats all of them.
pub const USUAL: &[Usual] = &[
    usual(KindName::Target, "", 0, Load::Waits),
    usual(KindName::Mount, "", 2, Load::Works),
    usual(KindName::Module, "coldplug", 150, Load::Works),
    usual(KindName::Module, "", 20, Load::Works),
    usual(KindName::Sysctl, "", 1, Load::Works),
    usual(KindName::Device, "", 100, Load::Waits),
    usual(KindName::Link, "lo", 2, Load::Waits),
    usual(KindName::Link, "with DHCP", 1_000, Load::Waits),
    usual(KindName::Link, "", 100, Load::Waits),
    usual(KindName::Hostname, "", 1, Load::Works),
    usual(KindName::Time, "", 200, Load::Waits),
    usual(KindName::Partition, "", 100, Load::Waits),
    usual(KindName::Filesystem, "", 150, Load::Works),
    usual(KindName::Identity, "", 5, Load::Works),
    usual(KindName::File, "", 1, Load::Works),
    usual(KindName::Oneshot, "", 50, Load::Works),
    usual(KindName::Service, "", 300, Load::Works),
];

/// The row of [`USUAL`] for a unit.
pub fn usual_for(kind: &Kind) -> Usual {
    let which = match kind {
        Kind::Module(module) if module.coldplug => "coldplug",
        Kind::Link(link) if link.name.as_ref().is_some_and(|name| name.as_str() == "lo") => "lo",
        Kind::Link(link) if link.dhcp => "with DHCP",
        _ => "",
    };
    let row = USUAL.iter().find(|row| row.kind == kind.name() && row.which == which);
    row.copied().unwrap_or(usual(kind.name(), which, 0, Load::Works))
}

/// Where an estimate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// So many recorded boots.
    Traces(usize),
    /// The unit's `duration`.
    Hint,
    /// The table of kinds.
    Kind,
}

/// How one unit may behave.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// How long it takes.
    pub takes: Duration,
    /// Recorded in several boots: what 95 of 100 do not exceed.
    pub p95: Option<Duration>,
    /// Where that comes from.
    pub source: Source,
    /// Whether that is work or waiting.
    pub load: Load,
    /// Why its condition will not be met, where that is known.
    pub unmet: Option<Arc<str>>,
}

/// How all units of a graph may behave.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimates {
    units: Vec<Estimate>,
    preparation: Duration,
}

impl Estimates {
    /// From recorded boots, of which `percentile` in 100 do not exceed what is taken; without them as the units' files hint; and
    /// without that as their kinds usually do. A unit that most of the boots skipped is skipped.
    pub fn new(graph: &BootGraph, traces: &[Trace], percentile: u8) -> Estimates {
        let recorded = Recorded::of(traces);
        let mut preparations: Vec<Duration> =
            traces.iter().filter_map(Trace::preparation).collect();
        preparations.sort_unstable();
        Estimates {
            units: graph.ids().map(|id| recorded.estimate(graph, id, percentile)).collect(),
            preparation: percentile_of(&preparations, percentile).unwrap_or_default(),
        }
    }

    /// The same, and what this boot skipped is skipped.
    #[must_use]
    pub fn skipping(mut self, graph: &BootGraph, trace: &Trace) -> Estimates {
        let recorded = Recorded::of(std::slice::from_ref(trace));
        for (id, estimate) in graph.ids().zip(&mut self.units) {
            let skipped = recorded.unmet(graph.unit(id));
            estimate.unmet = estimate.unmet.take().or(skipped);
        }
        self
    }

    /// By [`UnitId`](crate::UnitId).
    pub fn units(&self) -> &[Estimate] {
        &self.units
    }

    /// What the script of a boot is: it begins when init has read its units, as far as that was recorded.
    pub fn script(&self) -> Script {
        Script { begin: self.preparation, ..Script::default() }
    }

    /// A machine on which every unit behaves so, and nothing goes wrong.
    pub fn machine(&self, transaction: &Arc<Transaction>) -> Machine {
        let mut machine = Machine::new(Arc::clone(transaction));
        for (id, estimate) in transaction.ids().zip(&self.units) {
            *machine.behaviour(id) = Behaviour {
                takes: estimate.takes,
                started_in: estimate.takes / 2,
                load: estimate.load,
                unmet: estimate.unmet.clone(),
                ..Behaviour::default()
            };
        }
        machine
    }
}

/// What was recorded of each unit, by name.
struct Recorded<'a>(HashMap<&'a str, Seen>);

#[derive(Default)]
struct Seen {
    took: Vec<Duration>,
    skipped: Vec<Option<String>>,
}

impl<'a> Recorded<'a> {
    fn of(traces: &'a [Trace]) -> Self {
        let mut seen: HashMap<&str, Seen> = HashMap::new();
        for unit in traces.iter().flat_map(|trace| &trace.units) {
            let seen = seen.entry(&unit.name).or_default();
            match unit.state {
                StateName::Skipped => seen.skipped.push(unit.why.clone()),
                // One that failed says nothing about how long it takes to come up.
                state if state.is_active() && unit.ended_us.is_some() => {
                    seen.took.push(unit.took(Duration::ZERO));
                }
                _ => {}
            }
        }
        seen.values_mut().for_each(|seen| seen.took.sort_unstable());
        Recorded(seen)
    }

    fn estimate(&self, graph: &BootGraph, id: crate::UnitId, percentile: u8) -> Estimate {
        let unit = graph.unit(id);
        let Usual { takes, load, .. } = usual_for(&unit.kind);
        let seen = self.0.get(unit.name.as_str());
        let took = seen.map_or(&[][..], |seen| &seen.took);
        let unmet = self.unmet(unit);
        let (takes, source) = match (percentile_of(took, percentile), unit.duration) {
            (Some(recorded), _) => (recorded, Source::Traces(took.len())),
            (None, Some(hint)) => (hint, Source::Hint),
            (None, None) => (takes, Source::Kind),
        };
        let p95 = if took.len() > 1 { percentile_of(took, 95) } else { None };
        Estimate { takes, p95, source, load, unmet }
    }
}

impl Recorded<'_> {
    /// Why a unit's condition will not be met, as far as its file or most of the boots say so.
    fn unmet(&self, unit: &Unit) -> Option<Arc<str>> {
        if unit.condition.is_empty() {
            return None;
        }
        if !unit.condition.when {
            return Some("the machine config does not ask for it".into());
        }
        let seen = self.0.get(unit.name.as_str())?;
        if seen.skipped.len() <= seen.took.len() {
            return None;
        }
        let why = seen.skipped.iter().flatten().next();
        let why = why.map(|why| why.strip_prefix("condition unmet: ").unwrap_or(why));
        Some(why.unwrap_or("skipped in the recorded boot").into())
    }
}

/// The smallest of sorted values that `percentile` in 100 of them do not exceed.
pub fn percentile_of(sorted: &[Duration], percentile: u8) -> Option<Duration> {
    let rank = (sorted.len() * usize::from(percentile.min(100))).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_row_for_all_of_its_units() {
        for kind in KindName::ALL {
            let rows: Vec<_> = USUAL.iter().filter(|row| row.kind == *kind).collect();
            assert!(rows.last().is_some_and(|row| row.which.is_empty()), "{kind}: {rows:?}");
        }
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let check = |values: &[u64], percentile, expect: Option<u64>| {
            let sorted: Vec<_> = values.iter().copied().map(Duration::from_millis).collect();
            let expect = expect.map(Duration::from_millis);
            assert_eq!(percentile_of(&sorted, percentile), expect, "p{percentile} of {values:?}");
        };
        check(&[], 50, None);
        check(&[7], 0, Some(7));
        check(&[7], 50, Some(7));
        check(&[7], 95, Some(7));
        check(&[1, 2], 50, Some(1));
        check(&[1, 2, 3], 50, Some(2));
        check(&[1, 2, 3, 4], 95, Some(4));
        check(&[1, 2, 3, 4], 255, Some(4));
    }
}

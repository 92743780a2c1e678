//! Predicted against measured: what the simulator says of a boot that was recorded, and by how much it is off.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use keel_unit::value::people;

use crate::estimate::Estimates;
use crate::graph::BootGraph;
use crate::machine::{Fault, FaultKind};
use crate::simulate::simulate;
use crate::trace::{StateName, Trace};
use crate::transaction::Transaction;
use crate::trial::SEED;

/// What durations a prediction is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// What could be known before: other recorded boots, the units' hints, their kinds. What is off is the estimates.
    Before,
    /// The recorded boot's own. What is off is the simulator: time in which nothing moved, or waits that the graph does not know.
    Replay,
}

/// A prediction beside what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// When the goal was up.
    pub measured: Duration,
    /// When the simulator says that it is.
    pub predicted: Duration,
    /// Every unit that has a place in both, in the order in which they ended.
    pub units: Vec<UnitPrediction>,
    /// Units of the recorded boot that the graph does not have, and the other way round.
    pub unmatched: Vec<String>,
}

/// One unit, predicted and measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitPrediction {
    /// The unit.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// How long it was to take.
    pub to_take: Duration,
    /// When it was up, skipped or failed.
    pub ended: Duration,
    /// When it was to be.
    pub to_end: Duration,
}

impl Prediction {
    /// By how much the prediction is too long (or, below zero, too short), in percent of what was measured.
    pub fn off(&self) -> f64 {
        let measured = self.measured.as_secs_f64();
        if measured == 0.0 {
            return 0.0;
        }
        (self.predicted.as_secs_f64() - measured) / measured * 100.0
    }
}

/// Simulates a recorded boot again. What the boot skipped is skipped; in a replay, what failed by itself fails.
pub fn predict(
    graph: &BootGraph,
    transaction: &Arc<Transaction>,
    measured: &Trace,
    others: &[Trace],
    percentile: u8,
    basis: Basis,
) -> Prediction {
    let estimates = match basis {
        Basis::Before => Estimates::new(graph, others, percentile).skipping(graph, measured),
        Basis::Replay => Estimates::new(graph, std::slice::from_ref(measured), 50),
    };
    let mut machine = estimates.machine(transaction);
    if basis == Basis::Replay {
        for unit in measured.units.iter().filter(|unit| unit.state == StateName::Failed) {
            // One that never began failed for lack of another.
            if let (Some(id), Some(_)) = (transaction.find(&unit.name), unit.began_us) {
                let why = unit.why.as_deref().unwrap_or("failed in the recorded boot");
                let behaviour = machine.behaviour(id);
                behaviour.takes = unit.took(measured.total());
                behaviour.fault = Some(Fault::always(FaultKind::Fail { why: why.into() }));
            }
        }
    }
    let run = simulate(transaction, machine, SEED, &estimates.script());
    let spans = run.timeline.spans();
    let mut units = Vec::new();
    let mut unmatched = Vec::new();
    for unit in &measured.units {
        let Some(id) = transaction.find(&unit.name) else {
            unmatched.push(format!("{} is not in the graph", unit.name));
            continue;
        };
        let span = &spans[id.index()];
        if let (Some(ended), Some(to_end)) = (unit.ended(), span.ended) {
            units.push(UnitPrediction {
                name: unit.name.clone(),
                took: unit.took(measured.total()),
                to_take: span.took(run.ended_at),
                ended,
                to_end,
            });
        }
    }
    for job in transaction.jobs() {
        let name = &transaction.spec(job.unit).name;
        if measured.find(name).is_none() {
            unmatched.push(format!("{name} is not in the trace"));
        }
    }
    units.sort_by(|a, b| (a.ended, &a.name).cmp(&(b.ended, &b.name)));
    let predicted = spans[transaction.goal().index()].ended.unwrap_or(run.ended_at);
    Prediction { measured: measured.total(), predicted, units, unmatched }
}

/// How a number differs from another, for people: `+120 ms`, `-3.0 ms`, `same`.
pub fn difference(from: Duration, to: Duration) -> String {
    match to.cmp(&from) {
        std::cmp::Ordering::Less => format!("-{}", people(from - to)),
        std::cmp::Ordering::Equal => "same".to_owned(),
        std::cmp::Ordering::Greater => format!("+{}", people(to - from)),
    }
}

/// Both predictions of a boot, as lines: totals, then the units that were estimated worst, `most` of them.
pub fn predictions(before: &Prediction, replay: &Prediction, most: usize) -> String {
    let mut text = String::new();
    let total = |text: &mut String, label: &str, it: &Prediction| {
        let off = format!("{:+.1} %", it.off());
        let difference = difference(it.measured, it.predicted);
        let _ = writeln!(
            text,
            "  {label:<32} {:>10}  {difference:>10}  {off:>9}",
            people(it.predicted)
        );
    };
    let _ = writeln!(text, "  {:<32} {:>10}", "measured", people(before.measured));
    total(&mut text, "predicted before, from estimates", before);
    total(&mut text, "simulated with its own durations", replay);
    let mut worst: Vec<&UnitPrediction> = before.units.iter().collect();
    worst.sort_by_key(|unit| std::cmp::Reverse(unit.took.abs_diff(unit.to_take)));
    worst.retain(|unit| unit.took != unit.to_take);
    worst.truncate(most);
    if let Some(longest) = worst.iter().map(|unit| unit.name.len()).max() {
        let longest = longest.max(4);
        let _ = writeln!(
            text,
            "\n{:longest$}  {:>10}  {:>10}  {:>10}",
            "UNIT", "TOOK", "ESTIMATED", "OFF"
        );
        for UnitPrediction { name, took, to_take, .. } in worst {
            let (off, took, to_take) =
                (difference(*took, *to_take), people(*took), people(*to_take));
            let _ = writeln!(text, "{name:longest$}  {took:>10}  {to_take:>10}  {off:>10}");
        }
    }
    for line in &before.unmatched {
        let _ = writeln!(text, "note: {line}");
    }
    text
}

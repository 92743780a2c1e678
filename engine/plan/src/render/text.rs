//! Text for a terminal: layers of units that may run side by side, each with what it waits for.

use std::collections::BTreeMap;
use std::fmt::Write;

use keel_unit::KindName;
use keel_unit::value::Timespan;

use crate::graph::BootGraph;
use crate::transaction::{Transaction, UnitId};

/// The transaction in layers. A layer holds the units whose last prerequisite is in the layer before.
pub fn text(graph: &BootGraph, transaction: &Transaction) -> String {
    let mut layer: Vec<Option<usize>> = vec![None; graph.len()];
    let mut layers: BTreeMap<usize, Vec<UnitId>> = BTreeMap::new();
    for job in transaction.jobs() {
        let before =
            transaction.spec(job.unit).after.iter().filter_map(|(other, _)| layer[other.index()]);
        let own = before.max().map_or(0, |deepest| deepest + 1);
        layer[job.unit.index()] = Some(own);
        layers.entry(own).or_default().push(job.unit);
    }
    let name = |id: UnitId| graph.unit(id).name.as_str();
    let widest = transaction.jobs().iter().map(|j| name(j.unit).len()).max().unwrap_or(0);

    let mut out = String::new();
    let _ = writeln!(
        out,
        "goal {}, {} units in {} layers, {}",
        name(transaction.goal()),
        transaction.jobs().len(),
        layers.len(),
        graph.digest()
    );
    for (own, mut members) in layers {
        members.sort_by_key(|id| name(*id));
        let side = if members.len() == 1 {
            String::new()
        } else {
            format!(", {} side by side", members.len())
        };
        let _ = writeln!(out, "\nlayer {}{side}", own + 1);
        for id in members {
            let unit = graph.unit(id);
            let kind = unit.kind.name();
            let deadline =
                unit.deadline().map_or(String::new(), |d| format!("within {}", Timespan(d)));
            let condition = if unit.condition.is_empty() { "" } else { " (conditional)" };
            // Only the last layer before is what a unit really waits for; what lies deeper is done by then.
            let mut holds: Vec<&str> = transaction
                .spec(id)
                .after
                .iter()
                .map(|(other, _)| *other)
                .filter(|other| layer[other.index()].is_some_and(|l| l + 1 == own))
                .map(name)
                .collect();
            holds.sort_unstable();
            holds.dedup();
            let waits = match (holds.is_empty(), kind) {
                (true, _) => String::new(),
                (false, _) => format!("  <- {}", holds.join(", ")),
            };
            let deadline = if kind == KindName::Target { String::new() } else { deadline };
            let line = format!(
                "  {:widest$}  {:10}  {:13}{condition}{waits}",
                unit.name.as_str(),
                kind.as_str(),
                deadline
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    let idle: Vec<&str> = graph.ids().filter(|id| layer[id.index()].is_none()).map(name).collect();
    if !idle.is_empty() {
        let _ = writeln!(out, "\nnot started by this goal: {}", idle.join(", "));
    }
    out
}

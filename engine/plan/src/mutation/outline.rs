//! A mutation as it leaves the program: for scripts, and as a page for people. Names of keys stand in it, never a value.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use keel_unit::value::people;
use serde::{Deserialize, Serialize};

use super::{Change, Decision, Mutation, Side};
use crate::export::millis;
use crate::forecast::Forecast;
use crate::predict::difference;

/// What a mutation does, to be shown. Keys are added, never renamed: scripts read them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outline {
    /// The digest of the graph that it begins with.
    pub base: String,
    /// The digest of the graph that it leads to.
    pub target: String,
    /// It cannot be carried out while the machine runs.
    pub needs_reboot: bool,
    /// What is done, in order; and what is kept although something of it changed.
    pub changes: Vec<OutlineChange>,
    /// Units that are kept, and of which nothing changed.
    pub kept: usize,
    /// Units whose work stops for a while, or for good.
    pub interrupts: Vec<String>,
    /// What decides how long a boot takes, before and after.
    pub boot: [OutlinePath; 2],
}

/// What is done to a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutlineChange {
    /// The unit.
    pub unit: String,
    /// `keep`, `start`, `stop`, `restart`, `reload`, `re-run` or `needs reboot`.
    pub decision: String,
    /// Which key changed, or through which unit it is concerned.
    pub because: Vec<String>,
    /// Something of it is at work now, and is not for a while.
    pub interrupts: bool,
}

/// A critical path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutlinePath {
    /// From the start to the goal.
    pub total_ms: u64,
    /// The units on it, in order.
    pub units: Vec<String>,
}

impl Outline {
    /// Of a mutation between these two.
    pub fn new(mutation: &Mutation, from: &Side, to: &Side) -> Outline {
        let told =
            |change: &&Change| change.decision != Decision::Keep || !change.because.is_empty();
        let change = |change: &Change| OutlineChange {
            unit: change.unit.to_string(),
            decision: change.decision.to_string(),
            because: change.because.clone(),
            interrupts: change.interrupts,
        };
        let interrupts = mutation.changes.iter().filter(|change| change.interrupts);
        Outline {
            base: mutation.base.to_string(),
            target: mutation.target.to_string(),
            needs_reboot: mutation.needs_reboot(),
            changes: mutation.changes.iter().filter(told).map(change).collect(),
            kept: mutation.changes.iter().filter(|change| !told(change)).count(),
            interrupts: interrupts.map(|change| change.unit.to_string()).collect(),
            boot: [path(from), path(to)],
        }
    }

    /// Whether nothing is to be done.
    pub fn is_nothing(&self) -> bool {
        self.base == self.target
    }
}

fn path(side: &Side) -> OutlinePath {
    let path = Forecast::new(&side.graph, &Arc::clone(&side.transaction)).path;
    let units = path.stretches.iter().map(|it| side.graph.unit(it.unit).name.to_string());
    OutlinePath { total_ms: millis(path.total), units: units.collect() }
}

/// A page for a terminal.
impl fmt::Display for Outline {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() {
            return writeln!(out, "nothing to do: {} units, {}", self.kept, self.target);
        }
        writeln!(out, "- {}\n+ {}\n", self.base, self.target)?;
        let width = |text: fn(&OutlineChange) -> &String| {
            self.changes.iter().map(|change| text(change).chars().count()).max().unwrap_or(0)
        };
        let (decision, unit) = (width(|it| &it.decision), width(|it| &it.unit));
        for change in &self.changes {
            let mark = match change.decision.as_str() {
                "start" => '+',
                "stop" => '-',
                "keep" => ' ',
                "needs reboot" => '!',
                _ => '~',
            };
            let because = change.because.join(", ");
            writeln!(
                out,
                "{mark} {:decision$}  {:unit$}  {because}",
                change.decision, change.unit
            )?;
        }
        writeln!(out, "  {} more are kept as they are", self.kept)?;
        let mut after = String::new();
        match self.interrupts.as_slice() {
            [] if self.needs_reboot => {}
            [] => writeln!(after, "Nothing that is at work is interrupted.")?,
            units => writeln!(after, "Interrupts {}.", units.join(", "))?,
        }
        if self.needs_reboot {
            let needs = self.changes.iter().filter(|it| it.decision == "needs reboot");
            let needs: Vec<_> = needs.map(|it| it.unit.as_str()).collect();
            let needs = needs.join(", ");
            writeln!(after, "Needs a reboot, for {needs} cannot change while the machine runs.")?;
        }
        let [before, then] = &self.boot;
        let (was, is) =
            (Duration::from_millis(before.total_ms), Duration::from_millis(then.total_ms));
        let by = difference(was, is);
        write!(after, "A boot takes {} ({by})", people(is))?;
        match before.units == then.units {
            true => writeln!(after, ", on the same critical path.")?,
            false => writeln!(after, ", on another critical path: {}.", then.units.join(" -> "))?,
        }
        write!(out, "\n{after}")
    }
}

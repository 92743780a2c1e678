//! The boot as it is to be expected: the simulator, on a machine on which nothing goes wrong.

use std::sync::Arc;
use std::time::Duration;

use crate::graph::BootGraph;
use crate::machine::Machine;
use crate::simulate::{Script, Simulation, simulate};
use crate::timeline::{CriticalPath, Span};
use crate::transaction::{Transaction, UnitId};

/// Seed of every simulation that draws or explains: equal inputs give equal bytes.
pub(crate) const SEED: u64 = 7;

/// A boot without faults.
#[derive(Debug, Clone)]
pub struct Forecast {
    /// How long each unit's activation takes, by [`UnitId`].
    pub takes: Vec<Duration>,
    /// When each unit begins and is up, by [`UnitId`].
    pub spans: Vec<Span>,
    /// What decides how long the boot takes.
    pub path: CriticalPath,
    critical: Vec<bool>,
}

impl Forecast {
    /// Runs the boot once. Every condition that is not a plain `no` is taken to be met.
    pub fn new(graph: &BootGraph, transaction: &Arc<Transaction>) -> Forecast {
        let mut machine = machine(graph, transaction);
        let takes = transaction.ids().map(|id| machine.behaviour(id).takes).collect();
        let run = run(transaction, machine);
        let path = run.timeline.critical_path(transaction.goal());
        let mut critical = vec![false; graph.len()];
        path.steps.iter().for_each(|step| critical[step.unit.index()] = true);
        Forecast { takes, spans: run.timeline.spans().to_vec(), path, critical }
    }

    /// Whether the unit is on the critical path.
    pub fn critical(&self, unit: UnitId) -> bool {
        self.critical[unit.index()]
    }

    /// When the unit begins; when it is settled if it never does.
    pub fn begins(&self, unit: UnitId) -> Option<Duration> {
        let span = &self.spans[unit.index()];
        span.began.or(span.ended)
    }
}

/// The machine on which a boot is predicted.
pub(crate) fn machine(graph: &BootGraph, transaction: &Arc<Transaction>) -> Machine {
    let mut machine = Machine::new(Arc::clone(transaction));
    for id in graph.ids().filter(|id| !graph.unit(*id).condition.when) {
        machine.behaviour(id).unmet = Some("`when` is false".into());
    }
    machine
}

/// Runs a transaction to its end.
pub(crate) fn run(transaction: &Arc<Transaction>, machine: Machine) -> Simulation {
    simulate(transaction, machine, SEED, &Script::default())
}

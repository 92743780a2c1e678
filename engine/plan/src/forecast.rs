//! The boot as it is to be expected: the simulator, on a machine on which nothing goes wrong.

use std::sync::Arc;
use std::time::Duration;

use crate::estimate::Estimates;
use crate::graph::BootGraph;
use crate::simulate::{Simulation, simulate};
use crate::slack::slack;
use crate::timeline::{CriticalPath, Span};
use crate::transaction::{Transaction, UnitId};
use crate::trial::SEED;

/// A boot without faults.
#[derive(Debug, Clone)]
pub struct Forecast {
    /// How long each unit's activation takes, by [`UnitId`].
    pub takes: Vec<Duration>,
    /// When each unit begins and is up, by [`UnitId`].
    pub spans: Vec<Span>,
    /// By how much later each unit could be up without the goal coming later, by [`UnitId`]; none where nothing waits for it.
    pub slack: Vec<Option<Duration>>,
    /// What decides how long the boot takes.
    pub path: CriticalPath,
    critical: Vec<bool>,
    run: Simulation,
    estimates: Estimates,
}

impl Forecast {
    /// Runs the boot once, as long as the units' files hint and their kinds usually take. Every condition that is not a plain `no` is
    /// taken to be met.
    pub fn new(graph: &BootGraph, transaction: &Arc<Transaction>) -> Forecast {
        let estimates = Estimates::new(graph, &[], 50);
        let machine = estimates.machine(transaction);
        let run = simulate(transaction, machine.clone(), SEED, &estimates.script());
        let path = run.timeline.critical_path(transaction.goal());
        let mut critical = vec![false; graph.len()];
        path.stretches.iter().for_each(|stretch| critical[stretch.unit.index()] = true);
        Forecast {
            takes: estimates.units().iter().map(|estimate| estimate.takes).collect(),
            spans: run.timeline.spans().to_vec(),
            slack: slack(transaction, &machine, &run),
            path,
            critical,
            run,
            estimates,
        }
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

    /// The boot itself.
    pub(crate) fn run(&self) -> &Simulation {
        &self.run
    }

    /// What it was made with.
    pub(crate) fn estimates(&self) -> &Estimates {
        &self.estimates
    }
}

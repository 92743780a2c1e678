//! What a failure costs: the same boot once more, with one unit that fails whenever it is tried.

use std::sync::Arc;

use serde::Serialize;

use crate::export::millis;
use crate::forecast::run;
use crate::machine::{Fault, FaultKind, Machine};
use crate::scheduler::Action;
use crate::simulate::Simulation;
use crate::state::State;
use crate::transaction::{Transaction, UnitId};

/// How a boot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The goal is up, and nothing is missing.
    Reached,
    /// The goal is up, and something is missing.
    Degraded,
    /// The goal is not up.
    Missed,
    /// The goal counts as missed, and the machine waits for somebody.
    Emergency,
    /// The machine reboots.
    Reboot,
}

impl End {
    fn of(run: &Simulation) -> End {
        let happened =
            |wanted: fn(&Action) -> bool| run.log.iter().any(|(_, action)| wanted(action));
        match &run.outcome {
            _ if happened(|action| matches!(action, Action::Reboot { .. })) => End::Reboot,
            _ if happened(|action| matches!(action, Action::Emergency { .. })) => End::Emergency,
            Some(outcome) if outcome.reached && outcome.degraded.is_empty() => End::Reached,
            Some(outcome) if outcome.reached => End::Degraded,
            _ => End::Missed,
        }
    }
}

/// What follows from the failure of one unit.
#[derive(Debug, Clone, Serialize)]
pub struct Consequence {
    /// How the boot ends.
    pub end: End,
    /// When the goal is up, or when everything has ended without it.
    pub ends_ms: u64,
    /// The same, had the unit not failed.
    pub instead_of_ms: u64,
    /// How often the unit is tried.
    pub attempts: u32,
    /// What is not up and would be, in the order in which it would have been started; the unit itself is not among them.
    pub lost: Vec<Loss>,
}

/// A unit that another one's failure takes along.
#[derive(Debug, Clone, Serialize)]
pub struct Loss {
    /// The unit.
    pub unit: String,
    /// Why it is not up.
    pub why: String,
}

/// Boots without the fault and with it.
pub(super) fn consequence(
    transaction: &Arc<Transaction>,
    machine: Machine,
    unit: UnitId,
) -> Consequence {
    let sound = run(transaction, machine.clone());
    let mut broken = machine;
    let why = "it was made to fail".into();
    broken.behaviour(unit).fault = Some(Fault::always(FaultKind::Fail { why }));
    let broken = run(transaction, broken);

    let up = states(&sound, transaction);
    let now = states(&broken, transaction);
    let is_up = |state: &Option<(State, String)>| matches!(state, Some((State::Active(_), _)));
    let jobs = transaction.jobs().iter().map(|job| job.unit);
    let lost = jobs.filter(|id| *id != unit && is_up(&up[id.index()]) && !is_up(&now[id.index()]));
    let loss = |id: UnitId| Loss {
        unit: transaction.spec(id).name.to_string(),
        why: match &now[id.index()] {
            Some((State::Waiting | State::Inactive, _)) | None => "not started".to_owned(),
            Some((_, why)) => why.clone(),
        },
    };
    Consequence {
        end: End::of(&broken),
        ends_ms: ends(&broken, transaction),
        instead_of_ms: ends(&sound, transaction),
        attempts: broken.timeline.spans()[unit.index()].attempts,
        lost: lost.map(loss).collect(),
    }
}

/// The last state of each unit, and why it is in it.
fn states(run: &Simulation, transaction: &Transaction) -> Vec<Option<(State, String)>> {
    let mut states = vec![None; transaction.units().len()];
    for (_, action) in &run.log {
        if let Action::Announce(change) = action {
            let why = change.why.describe(transaction).to_string();
            states[change.unit.index()] = Some((change.to, why));
        }
    }
    states
}

fn ends(run: &Simulation, transaction: &Transaction) -> u64 {
    let goal = &run.timeline.spans()[transaction.goal().index()];
    millis(match goal.state {
        State::Active(_) => goal.ended.unwrap_or(run.ended_at),
        _ => run.ended_at,
    })
}

//! What a failure costs: the same boot once more, with one unit that fails whenever it is tried.

use std::sync::Arc;

use serde::Serialize;

use crate::export::millis;
use crate::forecast::Forecast;
use crate::machine::{Fault, FaultKind};
use crate::scheduler::Action;
use crate::simulate::{Simulation, simulate};
use crate::state::State;
use crate::trace::Ending;
use crate::transaction::{Transaction, UnitId};
use crate::trial::{Ended, SEED};

/// What follows from the failure of one unit.
#[derive(Debug, Clone, Serialize)]
pub struct Consequence {
    /// How the boot ends.
    pub end: Ending,
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

/// Boots once more, with the fault.
pub(super) fn consequence(
    transaction: &Arc<Transaction>,
    sound: &Forecast,
    unit: UnitId,
) -> Consequence {
    let mut machine = sound.estimates().machine(transaction);
    let why = "it was made to fail".into();
    machine.behaviour(unit).fault = Some(Fault::always(FaultKind::Fail { why }));
    let broken = simulate(transaction, machine, SEED, &sound.estimates().script());

    let up = |run: &Simulation, id: UnitId| run.states[id.index()].is_active();
    let reasons = reasons(&broken, transaction);
    let jobs = transaction.jobs().iter().map(|job| job.unit);
    let lost = jobs.filter(|id| *id != unit && up(sound.run(), *id) && !up(&broken, *id));
    let loss = |id: UnitId| Loss {
        unit: transaction.spec(id).name.to_string(),
        why: match (broken.states[id.index()], &reasons[id.index()]) {
            (State::Waiting, _) | (_, None) => "not started".to_owned(),
            (_, Some(why)) => why.clone(),
        },
    };
    let ends = |run: &Simulation| millis(Ended::of(transaction, run).at());
    Consequence {
        end: Ending::of(&broken),
        ends_ms: ends(&broken),
        instead_of_ms: ends(sound.run()),
        attempts: broken.timeline.spans()[unit.index()].attempts,
        lost: lost.map(loss).collect(),
    }
}

/// Why each unit is in the state that it is in.
fn reasons(run: &Simulation, transaction: &Transaction) -> Vec<Option<String>> {
    let mut reasons = vec![None; transaction.units().len()];
    for (_, action) in &run.log {
        // That a unit stopped is no news after why it had to.
        if let Action::Announce(change) = action
            && change.from != State::Deactivating
        {
            reasons[change.unit.index()] = Some(change.why.describe(transaction).to_string());
        }
    }
    reasons
}

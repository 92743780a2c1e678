//! How a boot ends when something goes wrong: one boot, or one for each unit that may fail.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::machine::{Fault, FaultKind, Machine};
use crate::simulate::{Script, Simulation, drive};
use crate::state::State;
use crate::trace::Ending;
use crate::transaction::{Class, Transaction, UnitId};

/// The seed of all simulated boots: the pauses between repetitions differ from machine to machine, but not from run to run.
pub const SEED: u64 = 7;

/// How a simulated boot ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// In one word.
    pub ending: Ending,
    /// When the goal was up.
    pub goal_at: Option<Duration>,
    /// When every unit had its result.
    pub over_at: Duration,
    /// What every unit was in the end, by [`UnitId`].
    pub states: Vec<State>,
    /// When every unit was up, skipped or failed, by [`UnitId`].
    pub settled: Vec<Option<Duration>>,
    /// Whether it was activated at all, by [`UnitId`].
    pub began: Vec<bool>,
}

impl Ended {
    /// How a simulation ended.
    pub fn of(transaction: &Transaction, run: &Simulation) -> Ended {
        let spans = run.timeline.spans();
        let goal = &spans[transaction.goal().index()];
        Ended {
            ending: Ending::of(run),
            goal_at: goal.ended.filter(|_| goal.state.is_active()),
            over_at: run.ended_at,
            states: run.states.clone(),
            settled: spans.iter().map(|span| span.ended).collect(),
            began: spans.iter().map(|span| span.began.is_some()).collect(),
        }
    }

    /// When it ended: with the goal, or without it when every unit had its result.
    pub fn at(&self) -> Duration {
        self.goal_at.unwrap_or(self.over_at)
    }
}

/// One boot in which one unit was made to fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The unit.
    pub unit: UnitId,
    /// How the boot ended.
    pub ended: Ended,
    /// What is not up and would be, in the order of the jobs; without the unit itself.
    pub lost: Vec<UnitId>,
}

/// The units that can be made to fail: those that the goal starts and that do work.
pub fn fallible(transaction: &Transaction) -> Vec<UnitId> {
    let jobs = transaction.jobs().iter().map(|job| job.unit);
    jobs.filter(|unit| transaction.spec(*unit).class != Class::Target).collect()
}

/// Boots once for each of `units`, with that unit at fault beside what is wrong with the machine already. Uses as many threads as it
/// is given, and the result is the same.
pub fn each(
    transaction: &Arc<Transaction>,
    machine: &Machine,
    script: &Script,
    units: &[UnitId],
    fault: &FaultKind,
    threads: NonZeroUsize,
) -> Vec<Trial> {
    let boot = |machine: Machine| {
        let run = drive(transaction, machine, SEED, script, |_, _| {});
        Ended::of(transaction, &run)
    };
    let sound = boot(machine.clone());
    let trial = |unit: UnitId| {
        let mut machine = machine.clone();
        machine.behaviour(unit).fault = Some(Fault::always(fault.clone()));
        let ended = boot(machine);
        let lost = lost(transaction, unit, &sound, &ended);
        Trial { unit, ended, lost }
    };
    // What is skipped, or never begins for lack of another unit, has nothing to fail at.
    let units: Vec<UnitId> =
        units.iter().copied().filter(|unit| sound.began[unit.index()]).collect();
    let share = units.len().div_ceil(threads.get()).max(1);
    if share >= units.len() {
        return units.into_iter().map(trial).collect();
    }
    thread::scope(|scope| {
        let trial = &trial;
        let shares: Vec<_> = units
            .chunks(share)
            .map(|share| scope.spawn(move || share.iter().copied().map(trial).collect::<Vec<_>>()))
            .collect();
        let join = |share: thread::ScopedJoinHandle<'_, Vec<Trial>>| match share.join() {
            Ok(trials) => trials,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        shares.into_iter().flat_map(join).collect()
    })
}

fn lost(transaction: &Transaction, at_fault: UnitId, sound: &Ended, ended: &Ended) -> Vec<UnitId> {
    let up = |ended: &Ended, unit: UnitId| ended.states[unit.index()].is_active();
    let jobs = transaction.jobs().iter().map(|job| job.unit);
    jobs.filter(|&unit| unit != at_fault && up(sound, unit) && !up(ended, unit)).collect()
}

//! One mutation under way, there and, if it has to be, back: what is to be done next, given what happened.
//!
//! ```text
//!   clear -> (all is down) -> adopt -> (all jobs have ended) -> reached
//!     |                         |
//!     | a unit cannot be        | a unit that the change touched does not come up
//!     | stopped                 |
//!     +-> adopt the old graph   +-> clear -> adopt the old graph -> rolled back, or degraded
//! ```
//!
//! It is pure: init carries its moves out on a node, [`Node`](super::Node) in the simulator.
//!
//! # What counts as a failure
//!
//! A mutation fails when a unit that it starts, restarts, re-runs or reloads does not come up, or when one that was up or skipped before, and
//! is still to be, has failed when all jobs have ended. To be skipped by its own condition is not to fail: what requires such a unit is up,
//! and would not come up again with one that fails. What had failed before, and in itself has not changed, gets another try and nothing
//! more. The first failure turns the mutation round: nothing else is waited for.

use std::collections::HashSet;
use std::sync::Arc;

use keel_unit::UnitName;

use super::decide::way;
use super::{Change, Decision, Mutation};
use crate::graph::BootGraph;
use crate::scheduler::{Adoption, Scheduler, Transition};
use crate::state::{Desired, State};
use crate::transaction::{Transaction, UnitId};

/// One of the two ends: a graph, and the way to its goal.
#[derive(Debug, Clone)]
pub struct Side {
    /// The graph.
    pub graph: Arc<BootGraph>,
    /// The transaction.
    pub transaction: Arc<Transaction>,
}

/// What somebody has to do for an [`Undertaking`].
#[derive(Debug, Clone)]
pub enum Move {
    /// Give the scheduler [`Event::Clear`](crate::Event::Clear).
    Clear(Arc<[UnitId]>),
    /// Have the scheduler, and everything that numbers units, take on this side's graph.
    Adopt(Adoption, Side),
    /// It is over.
    Over(End),
}

/// What an [`Undertaking`] wants to hear of.
#[derive(Debug, Clone, Copy)]
pub enum Heard<'a> {
    /// A unit changed its state.
    Transition(&'a Transition),
    /// Everything is down that was to go, but these.
    Cleared(&'a [UnitId]),
    /// All jobs have ended.
    Finished,
}

/// How a mutation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The machine runs the new graph.
    Reached,
    /// The machine runs the old graph, as before.
    RolledBack {
        /// What went wrong.
        fault: Fault,
        /// What had to be done to come back.
        undone: Vec<Change>,
    },
    /// The machine runs the old graph, but not all of it is up again.
    Degraded {
        /// What went wrong with the mutation.
        fault: Fault,
        /// What had to be done to come back.
        undone: Vec<Change>,
        /// Units that were up before and are not now, and why.
        missing: Vec<(UnitName, String)>,
    },
}

/// What turned a mutation round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The unit that is not up.
    pub unit: UnitName,
    /// The unit at the root of it: itself, or what it needs.
    pub culprit: UnitName,
    /// Why the culprit is not up.
    pub why: String,
}

/// A mutation under way.
#[derive(Debug)]
pub struct Undertaking {
    from: Side,
    to: Side,
    mutation: Mutation,
    /// What the units of `from` were when it began.
    was: Vec<State>,
    adopted: bool,
    /// The units of `to` that have to come up.
    awaited: Vec<bool>,
    /// Set when it has turned round.
    back: Option<Back>,
}

#[derive(Debug)]
struct Back {
    fault: Fault,
    undone: Vec<Change>,
    adoption: Adoption,
    starts: HashSet<UnitId>,
}

impl Undertaking {
    /// Begins a mutation that was planned between these two, of which the scheduler runs the first.
    pub fn begin(from: Side, to: Side, mutation: Mutation, scheduler: &Scheduler) -> (Self, Move) {
        let clears = mutation.clears(&from.transaction, &to.transaction);
        // What is on its way down for good is as good as down: coming back does not bring it up.
        let was = from.transaction.ids().map(|id| match scheduler.state(id) {
            state if state.is_down() || !goes_down(scheduler, id) => state,
            _ => State::Inactive,
        });
        let was = was.collect();
        let must = |change: &&Change| {
            let touched = [Decision::Start, Decision::Restart, Decision::Rerun, Decision::Reload];
            touched.contains(&change.decision) && !change.another_try
        };
        let names: HashSet<&str> =
            mutation.changes.iter().filter(must).map(|change| change.unit.as_str()).collect();
        let to_come = to.transaction.ids().map(|id| names.contains(&*to.transaction.spec(id).name));
        let awaited = to_come.collect();
        let under_way =
            Undertaking { from, to, mutation, was, adopted: false, awaited, back: None };
        (under_way, Move::Clear(clears))
    }

    /// What is being carried out.
    pub fn mutation(&self) -> &Mutation {
        &self.mutation
    }

    /// What turned it round, if something did.
    pub fn fault(&self) -> Option<&Fault> {
        self.back.as_ref().map(|back| &back.fault)
    }

    /// What is to be done about what happened, if anything is.
    pub fn hear(&mut self, heard: Heard<'_>, scheduler: &Scheduler) -> Option<Move> {
        match heard {
            Heard::Cleared(stuck) => Some(self.cleared(stuck, scheduler)),
            Heard::Transition(it) => {
                let failed = self.adopted && matches!(it.to, State::Failed(_));
                (failed && self.back.is_none() && self.awaited[it.unit.index()])
                    .then(|| self.turn_round(it.unit, scheduler))
            }
            Heard::Finished if !self.adopted => None,
            Heard::Finished => self.finished(scheduler),
        }
    }

    fn cleared(&mut self, stuck: &[UnitId], scheduler: &Scheduler) -> Move {
        if self.back.is_some() {
            return self.come_back(scheduler);
        }
        let Some(unit) = stuck.first() else {
            self.adopted = true;
            let adoption = self.mutation.adoption(&self.from.transaction, &self.to.transaction);
            return Move::Adopt(adoption, self.to.clone());
        };
        // The old graph is still there: what went down comes up again.
        let fault = fault(&self.from.graph, scheduler, *unit);
        let old = &self.from.transaction;
        let start = self.missing(scheduler);
        let undone = start.iter().map(|&id| Change {
            unit: self.from.graph.unit(id).name.clone(),
            decision: Decision::Start,
            because: vec!["was up before".to_owned()],
            interrupts: false,
            another_try: false,
        });
        let undone = undone.collect();
        let adoption = Adoption { start, ..Adoption::of(old, old) };
        let starts = adoption.start.iter().copied().collect();
        self.back = Some(Back { fault, undone, adoption: adoption.clone(), starts });
        self.adopted = true;
        Move::Adopt(adoption, self.from.clone())
    }

    /// Whether a unit of the old graph was up, or on its way.
    fn was_up(&self, id: UnitId) -> bool {
        !self.was[id.index()].is_down()
    }

    /// The units of the old graph that were up and are not. While the scheduler runs that graph.
    fn missing(&self, scheduler: &Scheduler) -> Vec<UnitId> {
        let old = self.from.transaction.ids();
        old.filter(|id| self.was_up(*id) && scheduler.state(*id).is_down()).collect()
    }

    /// Back to the old graph, which is a mutation too.
    fn turn_round(&mut self, unit: UnitId, scheduler: &Scheduler) -> Move {
        let fault = fault(&self.to.graph, scheduler, unit);
        let (old, new) = (&self.from, &self.to);
        let states: Vec<State> = new.transaction.ids().map(|id| scheduler.state(id)).collect();
        let (graph, transaction) = (&old.graph, &old.transaction);
        let was_up = |id: UnitId| self.was[id.index()].is_active();
        let mut back = way(&new.graph, &new.transaction, graph, transaction, &states, &was_up);
        for change in &mut back.changes {
            let (then, now) =
                (graph.find(change.unit.as_str()), new.graph.find(change.unit.as_str()));
            let (Some(then), Some(now)) = (then, now) else { continue };
            let was = self.was[then.index()];
            if was.is_down() && !states[now.index()].is_down() && change.decision != Decision::Stop
            {
                // Only the new graph let it come up, or may yet: it is to be as it was, whatever that makes of it now.
                let again = was != State::Inactive;
                change.decision = if again { Decision::Restart } else { Decision::Stop };
                change.because.push("was down before".to_owned());
            }
        }
        let adoption = back.adoption(&new.transaction, &old.transaction);
        let clears = back.clears(&new.transaction, &old.transaction);
        let undone = back.moves().cloned().collect();
        let starts = adoption.start.iter().copied().collect();
        self.back = Some(Back { fault, undone, adoption, starts });
        self.adopted = false;
        Move::Clear(clears)
    }

    /// The new graph is cleared: the old one is taken on again.
    fn come_back(&mut self, scheduler: &Scheduler) -> Move {
        self.adopted = true;
        let Some(mut back) = self.back.take() else { return Move::Over(End::Reached) };
        // Everything that was up; what had failed or was skipped if it has to be looked at again; and nothing that somebody had stopped.
        let is_down = |id: &UnitId| {
            let now = self.to.graph.find(&self.from.transaction.spec(*id).name);
            now.is_none_or(|now| scheduler.state(now).is_down() || goes_down(scheduler, now))
        };
        let starts = self.from.transaction.ids().filter(|id| {
            let planned = back.starts.contains(id) && self.was[id.index()] != State::Inactive;
            planned || (self.was_up(*id) && is_down(id))
        });
        back.adoption.start = starts.collect();
        back.starts = back.adoption.start.iter().copied().collect();
        let adoption = back.adoption.clone();
        self.back = Some(back);
        Move::Adopt(adoption, self.from.clone())
    }

    fn finished(&mut self, scheduler: &Scheduler) -> Option<Move> {
        let is_up = |state: State| state.is_active() || state == State::Skipped;
        let Some(back) = &self.back else {
            let graph = &self.to.graph;
            let fell = |id: &UnitId| {
                let before = self.from.graph.find(graph.unit(*id).name.as_str());
                let was = before.is_some_and(|id| is_up(self.was[id.index()]));
                was && matches!(scheduler.state(*id), State::Failed(_)) && self.is_started(*id)
            };
            let lacks = |id: &UnitId| self.awaited[id.index()] && !is_up(scheduler.state(*id));
            let unit = graph.ids().find(lacks).or_else(|| graph.ids().find(fell));
            return Some(match unit {
                Some(unit) => self.turn_round(unit, scheduler),
                None => Move::Over(End::Reached),
            });
        };
        let (fault, undone) = (back.fault.clone(), back.undone.clone());
        // One that was in the pause before a restart may be in the next one.
        let missing = self.from.transaction.ids().filter(|id| match scheduler.state(*id) {
            state if is_up(state) => false,
            // Nor does a boot that was still under way have to end well.
            state => {
                let was = self.was[id.index()].is_active();
                was && (state.is_down() || back.starts.contains(id))
            }
        });
        let missing: Vec<_> = missing
            .map(|id| {
                let why = scheduler.shortfall(id).why.describe(&self.from.transaction).to_string();
                (self.from.graph.unit(id).name.clone(), why)
            })
            .collect();
        Some(Move::Over(match missing.is_empty() {
            true => End::RolledBack { fault, undone },
            false => End::Degraded { fault, undone, missing },
        }))
    }

    fn is_started(&self, id: UnitId) -> bool {
        let now = self.mutation.changes.iter();
        let name = &self.to.graph.unit(id).name;
        now.filter(|change| change.unit == *name).all(|change| change.decision != Decision::Stop)
    }
}

/// Whether a unit is on its way down and nothing brings it up again: what it is bound to in this graph has failed, say.
fn goes_down(scheduler: &Scheduler, id: UnitId) -> bool {
    scheduler.status(id).desired == Desired::Down
}

fn fault(graph: &BootGraph, scheduler: &Scheduler, unit: UnitId) -> Fault {
    let transaction = scheduler.transaction();
    let shortfall = scheduler.shortfall(unit);
    // The root of it may be something that is not named so.
    let root = scheduler.shortfall(shortfall.culprit).why;
    Fault {
        unit: graph.unit(unit).name.clone(),
        culprit: graph.unit(shortfall.culprit).name.clone(),
        why: root.describe(transaction).to_string(),
    }
}

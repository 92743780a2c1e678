//! Taking on another graph while the machine runs: what is in the way goes down, the rest is carried over, the new comes up.

use std::sync::Arc;
use std::time::Duration;

use super::{Action, Agenda, By, Effect, JobResult, Row, Run, Scheduler, Why};
use crate::state::{Desired, State, Up};
use crate::transaction::{Job, JobKind, Transaction, UnitId};

/// What is being taken down, and whether it was told that all of it is down.
#[derive(Clone)]
pub(super) struct Clearing {
    units: Arc<[UnitId]>,
    told: bool,
}

/// The next graph, and what becomes of the units of the one before.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// The next transaction.
    pub transaction: Arc<Transaction>,
    /// For each unit of the one before, its number in the next; none if it is not in it.
    pub moves: Vec<Option<UnitId>>,
    /// What is started in the next graph.
    pub start: Vec<UnitId>,
    /// What is to read its configuration again once all that is up.
    pub reload: Vec<UnitId>,
}

impl Adoption {
    /// Everything is carried over by its name, and nothing started.
    pub fn of(before: &Transaction, next: &Arc<Transaction>) -> Adoption {
        let numbers: std::collections::HashMap<&str, UnitId> =
            next.ids().map(|id| (&*next.spec(id).name, id)).collect();
        let moved = |id| numbers.get(&*before.spec(id).name).copied();
        Adoption {
            transaction: next.clone(),
            moves: before.ids().map(moved).collect(),
            start: Vec::new(),
            reload: Vec::new(),
        }
    }
}

impl Scheduler {
    /// Takes down what does not stay as it is. Nothing is passed on: whoever asks has planned for all of them.
    pub(super) fn clear(&mut self, units: &Arc<[UnitId]>) {
        let known = units.iter().all(|unit| unit.index() < self.rows.len());
        if self.shutdown.is_some() || !known {
            self.ignored += 1;
            return;
        }
        self.to_reload.clear();
        self.clearing = Some(Clearing { units: units.clone(), told: false });
        for &id in units.iter() {
            self.close_start_job(id, JobResult::Cancelled);
            self.end_job(id, JobResult::Cancelled);
            let row = &mut self.rows[id.index()];
            row.desired = Desired::Down;
            row.good = false;
            row.reached = None;
            // What was wrong with it before is not what this comes to.
            row.trouble = None;
            if row.state.is_down() {
                continue;
            }
            // On its way down already: only what follows has changed.
            if row.state != State::Deactivating {
                row.cursor = 0;
                row.leaving.why = Why::Mutation;
                self.waiting_for[id.index()] = None;
            }
            self.agenda.look_at(id);
        }
    }

    /// Whether the next graph is being waited for.
    pub fn is_clearing(&self) -> bool {
        self.clearing.is_some()
    }

    pub(super) fn tell_when_cleared(&mut self) {
        let Some(clearing) = self.clearing.as_mut().filter(|clearing| !clearing.told) else {
            return;
        };
        if clearing.units.iter().any(|id| !self.rows[id.index()].state.is_down()) {
            return;
        }
        clearing.told = true;
        let could_not_stop = |id: &&UnitId| {
            let row = &self.rows[id.index()];
            let stuck = matches!(row.trouble, Some(Why::StopFailed(_) | Why::Stuck));
            stuck && matches!(row.state, State::Failed(_))
        };
        let stuck = clearing.units.iter().filter(could_not_stop).copied().collect();
        self.actions.push(Action::Cleared { stuck });
    }

    /// Takes on the next graph, after [`Action::Cleared`]. Linear in its units.
    ///
    /// A machine that goes down takes on nothing: then there is no answer, and everything is as it was.
    pub fn adopt(&mut self, adoption: &Adoption, now: Duration) -> Option<Vec<Action>> {
        if self.shutdown.is_some() || adoption.moves.len() != self.rows.len() {
            return None;
        }
        self.now = self.now.max(now);
        let Adoption { transaction, moves, start, reload } = adoption;
        let before = std::mem::replace(&mut self.transaction, transaction.clone());
        let units = transaction.units().len();
        let moved = |unit: UnitId| moves[unit.index()];

        let mut rows: Vec<Row> = std::iter::repeat_with(Row::fresh).take(units).collect();
        let mut waiting_for = vec![None; units];
        for (old, row) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            let Some(new) = moves[old] else { continue };
            let mut row = row.renumbered(&before, moved);
            // What it lacked, and needs no more, it does not fail for.
            let needs = |of: &Transaction, id: UnitId, other| {
                let spec = of.spec(id);
                spec.requires.contains(&other) || spec.binds_to.contains(&other)
            };
            let stays = |by: UnitId| {
                let moved = moved(by)?;
                let needed = needs(&before, UnitId(old as u32), by);
                (!needed || needs(transaction, new, moved)).then_some(moved)
            };
            row.doomed_by = row.doomed_by.and_then(stays);
            rows[new.index()] = row;
            waiting_for[new.index()] = self.waiting_for[old].and_then(moved);
        }
        let mut wanted = vec![false; units];
        transaction.jobs().iter().for_each(|job| wanted[job.unit.index()] = true);
        // What is down, and what this graph does not want, does not come up in passing.
        let idle =
            rows.iter_mut().zip(wanted).filter(|(row, wanted)| row.state.is_down() && !wanted);
        idle.for_each(|(row, _)| row.desired = Desired::Down);
        self.links = transaction.links();
        self.timers = self.timers.renumbered(moves, units);
        self.agenda = Agenda::new(units);
        self.alive = rows.iter().filter(|row| !row.state.is_down()).count();
        self.open_jobs =
            rows.iter().filter_map(|row| row.job).filter(|job| job.by.counts()).count();
        self.goal_reached = rows[transaction.goal().index()].state.is_active();
        (self.rows, self.waiting_for) = (rows, waiting_for);
        (self.run, self.clearing, self.to_reload) = (Run::Running, None, reload.clone());

        for &unit in start {
            self.open_start(Job { unit, kind: JobKind::Start }, By::Mutation);
        }
        // Whatever held them, or let them go, may be another unit now.
        for id in transaction.ids() {
            let row = &self.rows[id.index()];
            if row.state == State::Waiting || row.is_leaving() {
                self.agenda.look_at(id);
            }
        }
        self.run_agenda();
        self.conclude();
        Some(std::mem::take(&mut self.actions))
    }

    /// Everything is up: those whose configuration has changed under them are told.
    pub(super) fn reload(&mut self) {
        for id in std::mem::take(&mut self.to_reload) {
            if self.rows[id.index()].state == State::Active(Up::Running) {
                self.begin(id, Effect::Reload);
            }
        }
    }
}

impl Row {
    /// The same in another graph.
    fn renumbered(
        self,
        from: &Transaction,
        moved: impl Fn(UnitId) -> Option<UnitId> + Copy,
    ) -> Row {
        let mut row = self;
        row.why = row.why.renumbered(from, moved);
        row.trouble = row.trouble.map(|why| why.renumbered(from, moved));
        row.leaving.why = row.leaving.why.renumbered(from, moved);
        row.cursor = 0;
        row
    }
}

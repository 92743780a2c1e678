//! The two passes: what a row becomes by itself, and which effects are due then.

use std::time::Duration;

use super::{Condition, Effect, KILL_GRACE, Leaving, Patience, Scheduler, UnitEvent, Why};
use crate::state::{Desired, State, Up};
use crate::transaction::{Await, Class, JobKind, UnitId};

/// What stands between a waiting unit and its start.
pub(super) enum Hindrance {
    /// A unit whose own job or stop ends the wait in bounded time.
    Held,
    /// A unit that may take for ever, or that goes down now and will be back, any number of times; one such stop takes so
    /// long at most.
    HeldOpenly { stop: Duration },
    /// It needs this unit, and will not get it.
    Lacks(UnitId),
    /// Nothing.
    None,
}

impl Scheduler {
    /// One look at a row.
    pub(super) fn settle(&mut self, id: UnitId) {
        let row = &mut self.rows[id.index()];
        match (row.state, row.desired) {
            (State::Waiting, Desired::Down) => {
                self.leave_waiting(id);
                let why = self.rows[id.index()].leaving.why.clone();
                self.change(id, UnitEvent::Withdrawn, why);
                self.is_down(id);
            }
            // It is looked at again when the next graph is there.
            (State::Waiting, _) if self.clearing.is_some() => {}
            (State::Waiting, _) => self.settle_waiting(id),
            (State::Activating | State::Active(_), Desired::Down | Desired::Restart) => {
                self.settle_leaving(id)
            }
            (State::Inactive | State::Failed(_) | State::Skipped, Desired::Restart) => {
                row.desired = Desired::Up;
                let why = if row.job.is_some() { Why::Requested } else { Why::Restart };
                self.enter_waiting(id, why);
            }
            _ => {}
        }
    }

    /// From a state that is down to `waiting`.
    pub(super) fn enter_waiting(&mut self, id: UnitId, why: Why) {
        let row = &mut self.rows[id.index()];
        self.waiting_for[id.index()] = None;
        row.cursor = 0;
        if row.is_starting() {
            // What it came to before a restart says nothing about what that will come to.
            row.reached = None;
        }
        self.change(id, UnitEvent::Submitted, why);
        self.agenda.look_at(id);
    }

    /// Puts down everything that only a waiting unit has.
    pub(super) fn leave_waiting(&mut self, id: UnitId) {
        let row = &mut self.rows[id.index()];
        row.paused = false;
        row.patience = None;
        row.doomed_by = None;
        let checking =
            std::mem::replace(&mut row.condition, Condition::Unknown) == Condition::Checking;
        if checking {
            self.begin(id, Effect::Kill);
        }
        self.timers.clear(id);
    }

    fn settle_waiting(&mut self, id: UnitId) {
        let row = &self.rows[id.index()];
        if let Some(by) = row.doomed_by {
            return self.lack(id, Why::Needs(by));
        }
        if row.paused || row.condition == Condition::Checking {
            return;
        }
        let job_open = row.job.is_some();
        match self.hindrance(id) {
            Hindrance::Held => self.timers.clear(id),
            Hindrance::HeldOpenly { stop } => {
                // Somebody waits for this job, so it must end: the unit's own deadline bounds what nothing else does.
                if job_open && !self.timers.is_set(id) {
                    let since = self.now;
                    let until = since + self.transaction.spec(id).deadline + stop;
                    let patience = Patience { since, until };
                    let row = &mut self.rows[id.index()];
                    self.timers.set(id, row.patience.get_or_insert(patience).until);
                }
            }
            Hindrance::Lacks(other) => self.lack(id, Why::Needs(other)),
            Hindrance::None => {
                self.timers.clear(id);
                self.agenda.act_on(id);
            }
        }
    }

    fn lack(&mut self, id: UnitId, why: Why) {
        self.leave_waiting(id);
        self.fail(id, UnitEvent::Lacking, why);
    }

    /// Looks for what holds a waiting unit, beginning with what held it last, and remembers it.
    fn hindrance(&mut self, id: UnitId) -> Hindrance {
        let spec = self.transaction.spec(id);
        let edges = spec.after.len();
        let cursor = self.rows[id.index()].cursor as usize;
        for index in (cursor..edges).chain(0..cursor.min(edges)) {
            let (other, awaits) = spec.after[index];
            self.effort += 1;
            if let Some(hindrance) = self.holds(other, awaits) {
                let row = &mut self.rows[id.index()];
                row.cursor = index as u32;
                self.waiting_for[id.index()] = Some(other);
                return hindrance;
            }
        }
        for &other in self.links.conflicts.of(id) {
            if self.rows[other.index()].state.holds() {
                self.waiting_for[id.index()] = Some(other);
                return Hindrance::Held;
            }
        }
        let bound = spec.binds_to.iter().map(|other| (other, true));
        let required = spec.requires.iter().map(|other| (other, false));
        for (&other, is_bound) in bound.chain(required) {
            let needed = &self.rows[other.index()];
            let is_there = if is_bound { needed.state.is_active() } else { needed.good };
            if is_there || needed.is_starting() {
                continue;
            }
            if needed.is_coming_back() {
                self.waiting_for[id.index()] = Some(other);
                return Hindrance::HeldOpenly { stop: Duration::ZERO };
            }
            return Hindrance::Lacks(other);
        }
        Hindrance::None
    }

    /// Whether an ordering edge to this unit holds a start, and how.
    pub(super) fn holds(&self, other: UnitId, awaits: Await) -> Option<Hindrance> {
        let row = &self.rows[other.index()];
        if row.is_leaving() && row.job.is_none() && row.is_coming_back() {
            let stop = self.transaction.spec(other).stop_deadline + KILL_GRACE;
            return Some(Hindrance::HeldOpenly { stop });
        }
        if row.is_leaving() {
            return Some(Hindrance::Held);
        }
        if row.is_starting() {
            return (row.reached < Some(awaits)).then_some(Hindrance::Held);
        }
        // Without a job there is nothing to wait for, except the exit of a program that runs.
        let runs_on =
            awaits == Await::Exited && row.reached < Some(Await::Exited) && !row.state.is_down();
        runs_on.then_some(Hindrance::HeldOpenly { stop: Duration::ZERO })
    }

    fn settle_leaving(&mut self, id: UnitId) {
        if !self.is_held_up(id) {
            self.agenda.act_on(id);
        }
    }

    /// A unit that is to go down does so once everything that is ordered after it, and is going down too, is down.
    fn is_held_up(&mut self, id: UnitId) -> bool {
        let later = self.links.later.of(id);
        let cursor = self.rows[id.index()].cursor as usize;
        for index in (cursor..later.len()).chain(0..cursor.min(later.len())) {
            self.effort += 1;
            if self.rows[later[index].index()].is_leaving() {
                let row = &mut self.rows[id.index()];
                row.cursor = index as u32;
                self.waiting_for[id.index()] = Some(later[index]);
                return true;
            }
        }
        false
    }

    /// Begins what settling found due, if it still is: settling went on after it was found.
    pub(super) fn act(&mut self, id: UnitId) {
        let row = &self.rows[id.index()];
        match (row.state, row.desired) {
            (State::Waiting, Desired::Up) if self.clearing.is_some() => {}
            (State::Waiting, Desired::Up) => {
                let (idle, condition) =
                    (row.paused || row.condition == Condition::Checking, row.condition);
                if idle || row.doomed_by.is_some() || !matches!(self.hindrance(id), Hindrance::None)
                {
                    self.agenda.look_at(id);
                } else if condition == Condition::Unknown && self.transaction.spec(id).has_condition
                {
                    self.check_condition(id);
                } else {
                    self.start(id);
                }
            }
            (State::Activating | State::Active(_), Desired::Down | Desired::Restart) => {
                self.stop(id);
            }
            _ => {}
        }
    }

    fn check_condition(&mut self, id: UnitId) {
        let row = &mut self.rows[id.index()];
        row.attempt += 1;
        row.condition = Condition::Checking;
        self.arm_deadline(id);
        self.begin(id, Effect::CheckCondition);
    }

    fn start(&mut self, id: UnitId) {
        let spec = self.transaction.spec(id);
        let (class, has_condition) = (spec.class, spec.has_condition);
        if let Some(limit) = self.exceeded_limit(id) {
            self.leave_waiting(id);
            return self.fail(id, UnitEvent::Failed, Why::StartLimit(limit));
        }
        let row = &mut self.rows[id.index()];
        row.condition = Condition::Unknown;
        row.patience = None;
        if !has_condition {
            row.attempt += 1;
        }
        self.change(id, UnitEvent::Begun, Why::Released);
        self.waiting_for[id.index()] = None;
        match class {
            Class::Target => self.come_up(id, Up::Exited),
            Class::Oneshot => {
                self.arm_deadline(id);
                self.begin(id, Effect::Start);
                self.advance(id, Await::Started);
            }
            Class::Service => {
                self.arm_deadline(id);
                self.begin(id, Effect::Start);
            }
        }
    }

    fn arm_deadline(&mut self, id: UnitId) {
        self.timers.set(id, self.now + self.transaction.spec(id).deadline);
    }

    fn stop(&mut self, id: UnitId) {
        if self.is_held_up(id) {
            return;
        }
        let spec = self.transaction.spec(id);
        let (class, stop_deadline) = (spec.class, spec.stop_deadline);
        let row = &mut self.rows[id.index()];
        self.waiting_for[id.index()] = None;
        let why = row.leaving.why.clone();
        row.leaving = Leaving { why: why.clone(), failed: false, killing: false };
        self.change(id, UnitEvent::Leaving, why);
        if class == Class::Target {
            return self.stopped(id);
        }
        self.timers.set(id, self.now + stop_deadline);
        self.begin(id, Effect::Stop);
    }

    /// It has come this far: whoever waits for just that may go on.
    pub(super) fn advance(&mut self, id: UnitId, reached: Await) {
        let row = &mut self.rows[id.index()];
        if row.reached < Some(reached) {
            row.reached = Some(reached);
            self.wake(id);
        }
    }

    /// The activation succeeded.
    pub(super) fn come_up(&mut self, id: UnitId, up: Up) {
        self.timers.clear(id);
        let (event, reached) = match up {
            Up::Running => (UnitEvent::Ready, Await::Ready),
            Up::Exited => (UnitEvent::Done, Await::Exited),
        };
        self.change(id, event, Why::Succeeded);
        // It may have been told to stop while it was on its way. Then that it came up is of no use to anybody: why it goes
        // down again stays its trouble, and a restart is still to come.
        self.agenda.look_at(id);
        let row = &mut self.rows[id.index()];
        if row.desired != Desired::Up {
            return;
        }
        row.failures = 0;
        row.good = true;
        row.trouble = None;
        self.close_start_job(id, super::JobResult::Done);
        self.advance(id, reached);
        // Those bound to it wait for its state, not for how far it came.
        self.wake(id);
        self.revive(id);
        self.reach_goal(id);
    }
}

impl super::Row {
    /// A job is bringing it up.
    pub(super) fn is_starting(&self) -> bool {
        self.job.is_some_and(|job| job.kind != JobKind::Stop)
    }

    /// It is up, and is to go down, or is doing so.
    pub(super) fn is_leaving(&self) -> bool {
        self.state == State::Deactivating || (self.state.holds() && self.desired != Desired::Up)
    }

    /// No job brings it up, but its restart policy does.
    pub(super) fn is_coming_back(&self) -> bool {
        match self.state {
            State::Waiting | State::Activating => self.desired == Desired::Up,
            State::Deactivating => self.desired == Desired::Restart || self.leaving.failed,
            State::Active(_) | State::Inactive | State::Failed(_) | State::Skipped => {
                self.desired == Desired::Restart
            }
        }
    }
}

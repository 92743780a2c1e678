//! Jobs: where they come from (the transaction, a request, the shutdown), what they imply, and how they end.

use super::{
    Action, By, JobResult, OpenJob, Progress, Refusal, Run, Scheduler, Shutdown, ShutdownKind, Why,
};
use crate::state::{Desired, State};
use crate::transaction::{Job, JobKind, UnitId};

impl Scheduler {
    /// Opens every job of the transaction.
    pub(super) fn submit(&mut self) {
        if self.run != Run::NotSubmitted || self.shutdown.is_some() {
            self.ignored += 1;
            return;
        }
        self.run = Run::Running;
        for index in 0..self.transaction.jobs().len() {
            let job = self.transaction.jobs()[index];
            match job.kind {
                JobKind::Start => self.open_start(job, By::Transaction),
                JobKind::Stop | JobKind::Restart => self.open_stop(job, By::Transaction),
            }
        }
    }

    /// A request for one unit, with what it implies: a start also starts what the unit needs and wants; a stop also
    /// stops what needs the unit; a restart does both.
    pub(super) fn request(&mut self, job: Job) {
        let implied = match self.implied_starts(job) {
            Ok(implied) => implied,
            Err(why) => return self.actions.push(Action::Refused { job, why }),
        };
        for unit in implied {
            self.open_start(Job { unit, kind: JobKind::Start }, By::Request);
        }
        match job.kind {
            JobKind::Start => self.open_start(job, By::Request),
            JobKind::Stop | JobKind::Restart => self.open_stop(job, By::Request),
        }
    }

    /// The other units that a request starts.
    fn implied_starts(&self, job: Job) -> Result<Vec<UnitId>, Refusal> {
        if job.unit.index() >= self.rows.len() {
            return Err(Refusal::UnknownUnit);
        }
        if self.shutdown.is_some() {
            return Err(Refusal::ShuttingDown);
        }
        if self.clearing.is_some() {
            return Err(Refusal::Mutating);
        }
        if job.kind == JobKind::Stop {
            return Ok(Vec::new());
        }
        let drawn = self.drawn_in(job.unit);
        let found = || drawn.iter().map(|&(unit, _)| unit);
        let mut pulled_in = vec![false; self.rows.len()];
        found().for_each(|unit| pulled_in[unit.index()] = true);
        for unit in found() {
            if let Some(&with) =
                self.links.conflicts.of(unit).iter().find(|other| pulled_in[other.index()])
            {
                return Err(Refusal::Conflict { unit, with });
            }
        }
        Ok(found().skip(1).collect())
    }

    /// What a start of this unit starts: itself first, then each unit with the one that needs or wants it.
    pub(super) fn drawn_in(&self, unit: UnitId) -> Vec<(UnitId, UnitId)> {
        let mut seen = vec![false; self.rows.len()];
        seen[unit.index()] = true;
        let mut found = vec![(unit, unit)];
        let mut next = 0;
        while let Some(&(id, _)) = found.get(next) {
            next += 1;
            let spec = self.transaction.spec(id);
            for &other in spec.requires.iter().chain(&spec.binds_to).chain(&spec.wants) {
                if !std::mem::replace(&mut seen[other.index()], true) {
                    found.push((other, id));
                }
            }
        }
        found
    }

    pub(super) fn open_start(&mut self, job: Job, by: By) {
        let id = job.unit;
        if self.rows[id.index()].is_starting() {
            return;
        }
        self.end_job(id, JobResult::Cancelled);
        self.open_jobs += usize::from(by.counts());
        for index in 0..self.links.conflicts.of(id).len() {
            let other = self.links.conflicts.of(id)[index];
            self.take_down(other, Desired::Down, Why::Conflict(id), None);
            // Nor does it come up when what it lacked does: it would hold this start, and nothing would stop it.
            if self.rows[other.index()].state.is_down() {
                self.rows[other.index()].desired = Desired::Down;
            }
        }
        let row = &mut self.rows[id.index()];
        row.job = Some(OpenJob { kind: job.kind, by });
        row.failures = 0;
        row.patience = None;
        row.streak = 0;
        row.window.1 = 0;
        match (row.state, row.desired) {
            (State::Active(_), Desired::Up) => {
                self.end_job(id, JobResult::Done);
                self.reach_goal(id);
            }
            // Its restart is under way, and is the job's from now on.
            (State::Activating | State::Deactivating, Desired::Up) => row.reached = None,
            (State::Activating | State::Active(_) | State::Deactivating, _) => {
                row.reached = None;
                row.desired = Desired::Restart;
            }
            (State::Waiting, _) => {
                // Whoever asks does not want to wait for the pause between two restarts.
                row.reached = None;
                row.desired = Desired::Up;
                if std::mem::replace(&mut row.paused, false) {
                    self.timers.clear(id);
                }
                self.agenda.look_at(id);
            }
            (State::Inactive | State::Failed(_) | State::Skipped, _) => {
                row.reached = None;
                row.desired = Desired::Up;
                self.enter_waiting(id, Why::Requested);
            }
        }
    }

    /// Opens a stop, or a restart, which begins as one unless the unit is not up anyway.
    fn open_stop(&mut self, job: Job, by: By) {
        let id = job.unit;
        if job.kind == JobKind::Restart && !self.rows[id.index()].state.holds() {
            return self.open_start(job, by);
        }
        self.end_job(id, JobResult::Cancelled);
        self.open_jobs += usize::from(by.counts());
        let open = OpenJob { kind: job.kind, by };
        let desired = if job.kind == JobKind::Stop { Desired::Down } else { Desired::Restart };
        self.take_down(id, desired, Why::Requested, Some(open));
    }

    /// Wants a unit down (for good, or to come up again), and with it all that needs it.
    pub(super) fn take_down(
        &mut self,
        id: UnitId,
        desired: Desired,
        why: Why,
        job: Option<OpenJob>,
    ) {
        // Nobody asked for it: what these units were to be, they are not.
        let loses = matches!(why, Why::Bound(_));
        let mut pending = vec![(id, why, job)];
        while let Some((id, why, job)) = pending.pop() {
            let row = &mut self.rows[id.index()];
            let concerned = match row.state {
                // What is down stays so, and is not brought back in passing.
                State::Inactive | State::Failed(_) | State::Skipped => false,
                // What waits is not up, so a restart of what it needs concerns it no more than any other delay.
                State::Waiting => desired == Desired::Down,
                State::Activating | State::Active(_) | State::Deactivating => true,
            };
            // What is to stay down is not brought back in passing either.
            let already = job.is_none() && (row.desired == desired || row.desired == Desired::Down);
            if !concerned || already {
                if job.is_some() {
                    row.desired = desired;
                    row.job = job;
                    self.end_job(id, JobResult::Done);
                }
                continue;
            }
            // What somebody wants down is not in trouble for being down.
            row.trouble = loses.then(|| why.clone());
            self.close_start_job(
                id,
                if loses { JobResult::Dependency } else { JobResult::Cancelled },
            );
            let row = &mut self.rows[id.index()];
            row.good = false;
            row.reached = None;
            row.desired = desired;
            row.job = job.or(row.job);
            // On its way down already: only what follows has changed.
            if row.state != State::Deactivating {
                row.cursor = 0;
                self.waiting_for[id.index()] = None;
                row.leaving.why = why;
            }
            self.agenda.look_at(id);
            for &other in self.links.needed_by.of(id) {
                if self.rows[other.index()].desired != desired {
                    pending.push((other, Why::Follows(id), None));
                }
            }
        }
    }

    /// A unit that was to go down is down.
    pub(super) fn is_down(&mut self, id: UnitId) {
        let row = &mut self.rows[id.index()];
        row.good = false;
        if row.job.is_some_and(|job| job.kind == JobKind::Stop) {
            self.end_job(id, JobResult::Done);
        }
        self.wake(id);
        self.agenda.look_at(id);
    }

    /// The start (or restart) job of a unit has its result, if there is one.
    pub(super) fn close_start_job(&mut self, id: UnitId, result: JobResult) {
        if !self.rows[id.index()].is_starting() {
            return;
        }
        self.end_job(id, result);
        self.wake(id);
        if matches!(result, JobResult::Failed | JobResult::Dependency) {
            for index in 0..self.links.needed_by.of(id).len() {
                self.doom(self.links.needed_by.of(id)[index], id);
            }
        }
    }

    pub(super) fn end_job(&mut self, id: UnitId, result: JobResult) {
        if let Some(job) = self.rows[id.index()].job.take() {
            self.open_jobs -= usize::from(job.by.counts());
            self.actions.push(Action::JobEnded { job: Job { unit: id, kind: job.kind }, result });
        }
    }

    /// The goal has come up, for the first time.
    pub(super) fn reach_goal(&mut self, id: UnitId) {
        if id == self.transaction.goal() && self.run != Run::NotSubmitted && !self.goal_reached {
            self.goal_reached = true;
            let degraded = self.degraded();
            self.actions.push(Action::GoalReached { degraded });
        }
    }

    /// The shutdown begins when the event at hand has been settled. Asked for again, it only changes how it ends.
    pub(super) fn ask_for_shutdown(&mut self, kind: ShutdownKind) {
        match &mut self.shutdown {
            Some(shutdown) => shutdown.kind = kind,
            None => self.shutdown = Some(Shutdown { kind, progress: Progress::Due }),
        }
    }

    pub(super) fn begin_shutdown(&mut self) {
        let Some(shutdown) = &mut self.shutdown else { return };
        shutdown.progress = Progress::Begun;
        let kind = shutdown.kind;
        self.clearing = None;
        self.to_reload.clear();
        for id in self.transaction.ids() {
            self.end_job(id, JobResult::Cancelled);
            let row = &mut self.rows[id.index()];
            row.desired = Desired::Down;
            if !row.state.is_down() {
                if row.state != State::Deactivating {
                    row.leaving.why = Why::Shutdown(kind);
                    self.waiting_for[id.index()] = None;
                    row.cursor = 0;
                }
                self.agenda.look_at(id);
            }
        }
    }
}

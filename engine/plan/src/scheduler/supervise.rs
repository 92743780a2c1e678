//! What follows when a unit does not come up, or was up and is no longer: the failure policy and the restart policy.

use super::{Action, By, Condition, JobResult, Scheduler, ShutdownKind, Why};
use crate::backoff;
use crate::state::{Blame, Desired, State, UnitEvent};
use crate::transaction::{Await, OnFailure, RestartPolicy, StartLimit, UnitId};

impl Scheduler {
    /// An activation failed, and nothing of it is left.
    pub(super) fn activation_failed(&mut self, id: UnitId, why: Why) {
        self.timers.clear(id);
        let spec = self.transaction.spec(id);
        let (failure, restart) = (spec.failure, spec.restart);
        let row = &mut self.rows[id.index()];
        row.trouble = Some(why.clone());
        if row.desired != Desired::Up {
            return self.fail(id, UnitEvent::Failed, why);
        }
        if row.is_starting() {
            row.failures += 1;
            let failures = row.failures;
            if failures < failure.attempts {
                return self.repeat(id, why, failure.backoff.delay(failures - 1, self.random(id)));
            }
            self.fail(id, UnitEvent::Failed, why);
            let wanted = self.rows[id.index()].desired == Desired::Up
                && restart.policy != RestartPolicy::Never;
            if wanted && self.shutdown.is_none() {
                let pause = self.next_pause(id);
                self.enter_waiting(id, Why::Restart);
                self.pause(id, pause);
            }
        } else if restart.policy == RestartPolicy::Never {
            // It was coming back for the sake of a unit that it is bound to.
            self.fail(id, UnitEvent::Failed, why);
        } else {
            let pause = self.next_pause(id);
            self.repeat(id, why, pause);
        }
    }

    /// It was up, and now is not, and nobody asked for that.
    pub(super) fn lost(&mut self, id: UnitId, why: Why) {
        let restart = self.transaction.spec(id).restart;
        let clean = matches!(why, Why::Exited(status) if status.is_clean());
        let row = &mut self.rows[id.index()];
        if self.now.saturating_sub(row.since) >= restart.backoff.max {
            row.streak = 0;
        }
        let desired = row.desired;
        let again = match restart.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => !clean,
            RestartPolicy::Never => false,
        };
        self.advance(id, Await::Exited);
        if desired != Desired::Up {
            // Its stop waited for its turn, and it went by itself.
            self.change(id, UnitEvent::Left, why);
            self.is_down(id);
        } else if again {
            self.rows[id.index()].trouble = Some(why.clone());
            let pause = self.next_pause(id);
            self.repeat(id, why, pause);
            self.unbind(id, true);
        } else if clean {
            self.rows[id.index()].desired = Desired::Down;
            self.change(id, UnitEvent::Left, why);
            self.unbind(id, false);
            self.wake(id);
        } else {
            self.fail(id, UnitEvent::Failed, why);
        }
    }

    /// Back to `waiting` for a while. A failed condition never left it.
    fn repeat(&mut self, id: UnitId, why: Why, pause: std::time::Duration) {
        let row = &mut self.rows[id.index()];
        row.cursor = 0;
        if row.is_starting() {
            // What this attempt came to says nothing about the next. (Outside a job only an exit counts, and stays.)
            row.reached = None;
        }
        if row.state != State::Waiting {
            self.waiting_for[id.index()] = None;
            self.change(id, UnitEvent::Repeats, why);
        }
        self.pause(id, pause);
        self.wake(id);
    }

    fn pause(&mut self, id: UnitId, pause: std::time::Duration) {
        let row = &mut self.rows[id.index()];
        row.paused = true;
        row.patience = None;
        row.condition = Condition::Unknown;
        self.timers.set(id, self.now + pause);
    }

    /// The pause before the next restart, which is counted with it.
    fn next_pause(&mut self, id: UnitId) -> std::time::Duration {
        let random = self.random(id);
        let row = &mut self.rows[id.index()];
        let pause = self.transaction.spec(id).restart.backoff.delay(row.streak, random);
        row.streak = row.streak.saturating_add(1);
        row.restarts = row.restarts.saturating_add(1);
        pause
    }

    fn random(&self, id: UnitId) -> u64 {
        backoff::random(self.seed, id.0, self.rows[id.index()].attempt)
    }

    /// Counts a start, and says so if it is one too many. What somebody asked for is counted and never refused.
    pub(super) fn exceeded_limit(&mut self, id: UnitId) -> Option<StartLimit> {
        let limit = self.transaction.spec(id).restart.limit?;
        let row = &mut self.rows[id.index()];
        let (begin, starts) = &mut row.window;
        if *starts == 0 || self.now.saturating_sub(*begin) > limit.interval {
            (*begin, *starts) = (self.now, 0);
        }
        *starts = starts.saturating_add(1);
        (*starts > limit.burst && row.job.is_none()).then_some(limit)
    }

    /// The unit is failed, by its own fault or for lack of another; `event` says which.
    pub(super) fn fail(&mut self, id: UnitId, event: UnitEvent, why: Why) {
        let row = &mut self.rows[id.index()];
        row.good = false;
        row.trouble = Some(why.clone());
        self.change(id, event, why.clone());
        let result =
            if event == UnitEvent::Lacking { JobResult::Dependency } else { JobResult::Failed };
        let row = &self.rows[id.index()];
        // What a change of the graph started is answered for by the change, which is undone.
        let spared = row.job.is_some_and(|job| job.by == By::Mutation);
        match row.desired {
            Desired::Up => {
                self.close_start_job(id, result);
                self.unbind(id, false);
                self.wake(id);
                if !spared {
                    self.apply_policy(id, why);
                }
            }
            Desired::Down => {
                self.close_start_job(id, result);
                self.is_down(id);
            }
            Desired::Restart => self.is_down(id),
        }
    }

    /// What else a failure means, beyond the units that need this one.
    fn apply_policy(&mut self, id: UnitId, why: Why) {
        if self.shutdown.is_some() {
            return;
        }
        match self.transaction.spec(id).failure.on {
            OnFailure::Degrade | OnFailure::Retry => {}
            OnFailure::Emergency => {
                self.actions.push(Action::Emergency { unit: id, why });
                self.doom(self.transaction.goal(), id);
            }
            OnFailure::Reboot => {
                self.actions.push(Action::Reboot { unit: id, why });
                self.ask_for_shutdown(ShutdownKind::Reboot);
            }
        }
    }

    /// Those bound to a unit that is no longer up go down; if it comes back by itself, so do they.
    pub(super) fn unbind(&mut self, id: UnitId, comes_back: bool) {
        for index in 0..self.links.bound_by.of(id).len() {
            let bound = self.links.bound_by.of(id)[index];
            let state = self.rows[bound.index()].state;
            if state.holds() {
                let desired = if comes_back { Desired::Restart } else { Desired::Down };
                self.take_down(bound, desired, Why::Bound(id), None);
            } else if state == State::Waiting && !comes_back {
                self.doom(bound, id);
            }
        }
    }

    /// A unit has come up after all: what failed for lack of it, and is still wanted, gets another start.
    pub(super) fn revive(&mut self, id: UnitId) {
        for index in 0..self.links.needed_by.of(id).len() {
            let other = self.links.needed_by.of(id)[index];
            let row = &self.rows[other.index()];
            let lacked_it = row.trouble.as_ref().and_then(Why::blames) == Some(id);
            if row.state == State::Failed(Blame::Dependency)
                && row.desired == Desired::Up
                && lacked_it
            {
                self.enter_waiting(other, Why::Restart);
            }
        }
    }

    /// A waiting unit that cannot start any more fails at the next look, by dependency on `by`.
    pub(super) fn doom(&mut self, id: UnitId, by: UnitId) {
        let row = &mut self.rows[id.index()];
        if row.state == State::Waiting && row.desired == Desired::Up {
            row.doomed_by.get_or_insert(by);
            self.agenda.look_at(id);
        }
    }
}

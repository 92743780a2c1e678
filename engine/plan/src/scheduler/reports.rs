//! What the host says, and what the clock says, about one activation.

use super::{Condition, Effect, ExitStatus, KILL_GRACE, Report, Scheduler, Token, Why};
use crate::state::{Desired, State, UnitEvent, Up};
use crate::transaction::{Await, Class, UnitId};

impl Scheduler {
    /// A report counts if its activation is the current one and its state can take it. The rest came late or twice.
    pub(super) fn report(&mut self, token: Token, report: Report) {
        let Some(row) =
            self.rows.get(token.unit.index()).filter(|row| row.attempt == token.attempt)
        else {
            self.ignored += 1;
            return;
        };
        let id = token.unit;
        let checking = row.condition == Condition::Checking;
        match (row.state, self.transaction.spec(id).class, report) {
            (State::Waiting, _, Report::ConditionMet) if checking => self.condition_met(id),
            (State::Waiting, _, Report::ConditionUnmet { why }) if checking => {
                self.skip(id, Why::Unmet(why))
            }
            (State::Waiting, _, Report::Failed { why }) if checking => {
                self.rows[id.index()].condition = Condition::Unknown;
                self.activation_failed(id, Why::Failed(why));
            }

            (State::Activating, Class::Service, Report::Started) => {
                self.advance(id, Await::Started)
            }
            (State::Activating, Class::Service, Report::Ready) => self.come_up(id, Up::Running),
            (State::Activating, Class::Oneshot, Report::Done) => self.come_up(id, Up::Exited),
            (State::Activating, Class::Oneshot, Report::Exited { status: ExitStatus::Code(0) }) => {
                self.come_up(id, Up::Exited);
            }
            (State::Activating, _, Report::Exited { status }) => {
                self.activation_failed(id, Why::Exited(status))
            }
            (State::Activating, _, Report::Failed { why }) => {
                self.activation_failed(id, Why::Failed(why))
            }

            (State::Active(Up::Running), _, Report::Exited { status }) => {
                self.lost(id, Why::Exited(status))
            }
            (State::Active(_), _, Report::Failed { why }) => self.lost(id, Why::Failed(why)),

            (State::Deactivating, _, Report::Stopped) => self.stopped(id),
            (State::Deactivating, _, Report::StopFailed { why }) => {
                self.stop_failed(id, Why::StopFailed(why))
            }

            _ => self.ignored += 1,
        }
    }

    /// Each state has at most one instant that it waits for.
    pub(super) fn timer_due(&mut self, id: UnitId) {
        let deadline = self.transaction.spec(id).deadline;
        let stop_deadline = self.transaction.spec(id).stop_deadline;
        let row = &mut self.rows[id.index()];
        match row.state {
            State::Waiting if row.condition == Condition::Checking => {
                self.begin(id, Effect::Kill);
                self.rows[id.index()].condition = Condition::Unknown;
                self.activation_failed(id, Why::TimedOut(deadline));
            }
            State::Waiting if row.paused => {
                row.paused = false;
                self.agenda.look_at(id);
            }
            State::Waiting => {
                if let (Some(on), Some(patience)) = (self.waiting_for[id.index()], row.patience) {
                    let deadline = patience.until.saturating_sub(patience.since);
                    self.leave_waiting(id);
                    self.fail(id, UnitEvent::Lacking, Why::WaitedTooLong { on, deadline });
                }
            }
            State::Activating => {
                let why = Why::TimedOut(deadline);
                row.leaving = super::Leaving { why: why.clone(), failed: true, killing: true };
                self.change(id, UnitEvent::Leaving, why);
                self.kill(id);
            }
            State::Deactivating if row.leaving.killing => self.stop_failed(id, Why::Stuck),
            State::Deactivating => {
                row.leaving.why = Why::Killed(stop_deadline);
                self.kill(id);
            }
            // Nothing sets a timer in these.
            State::Inactive | State::Active(_) | State::Failed(_) | State::Skipped => {}
        }
    }

    fn condition_met(&mut self, id: UnitId) {
        self.rows[id.index()].condition = Condition::Met;
        self.timers.clear(id);
        self.agenda.look_at(id);
    }

    fn skip(&mut self, id: UnitId, why: Why) {
        self.rows[id.index()].condition = Condition::Unknown;
        self.leave_waiting(id);
        let row = &mut self.rows[id.index()];
        row.good = true;
        row.trouble = None;
        self.change(id, UnitEvent::Unmet, why);
        self.close_start_job(id, super::JobResult::Skipped);
        self.unbind(id, false);
        self.wake(id);
    }

    fn kill(&mut self, id: UnitId) {
        self.rows[id.index()].leaving.killing = true;
        self.timers.set(id, self.now + KILL_GRACE);
        self.begin(id, Effect::Kill);
    }

    /// An orderly stop that does not work becomes a kill; a kill that does not work is the end of it.
    fn stop_failed(&mut self, id: UnitId, why: Why) {
        let row = &mut self.rows[id.index()];
        if !row.leaving.killing {
            row.leaving.why = why;
            return self.kill(id);
        }
        if row.desired != Desired::Up {
            // As far down as it gets. A restart ends here too, for something of it may still be there.
            row.desired = Desired::Down;
        }
        self.timers.clear(id);
        self.fail(id, UnitEvent::Failed, why);
    }

    /// Nothing of it is left.
    pub(super) fn stopped(&mut self, id: UnitId) {
        self.timers.clear(id);
        let leaving = self.rows[id.index()].leaving.clone();
        if leaving.failed {
            return self.activation_failed(id, leaving.why);
        }
        let why = match leaving.why {
            Why::Killed(_) | Why::StopFailed(_) => leaving.why,
            _ => Why::Stopped,
        };
        self.change(id, UnitEvent::Stopped, why);
        self.is_down(id);
    }
}

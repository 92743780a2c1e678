//! What a request would do, found by doing it: on a copy of the scheduler, on a machine on which nothing fails and no time
//! passes.
//!
//! There is no second set of rules that could say something else than what then happens. What the copy does anyway (a boot that
//! is under way, a restart that is being waited for) is told apart by letting a second copy go on without the request.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Action, Condition, Effect, Event, Refusal, Report, Scheduler, Token, Transition, Why};
use crate::state::State;
use crate::transaction::{Class, Job, JobKind, UnitId};

/// What a request makes one unit do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The unit.
    pub unit: UnitId,
    /// Up, down, or down and up again.
    pub kind: JobKind,
    /// Why it is concerned.
    pub because: Because,
    /// What it was before.
    pub was: State,
    /// Something of it is on the machine, and is taken down.
    pub taken_down: bool,
}

/// Why a request concerns a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// It was asked for.
    Asked,
    /// This unit, which is started, requires or wants it.
    For(UnitId),
    /// It requires this unit, which goes down.
    Requires(UnitId),
    /// It is bound to this unit, which goes down.
    BoundTo(UnitId),
    /// It conflicts with this unit, which is started.
    Conflicts(UnitId),
    /// It failed for lack of this unit, which comes up.
    Lacked(UnitId),
    /// The machine goes down.
    GoingDown,
}

impl Scheduler {
    /// What a request would do, in the order in which it begins, if nothing failed and every condition were met. Nothing is
    /// changed; the very code that would carry the request out is asked.
    ///
    /// # Errors
    /// The request would be refused.
    pub fn rehearse(&self, job: Job, now: Duration) -> Result<Vec<Planned>, Refusal> {
        let mut asked = self.clone();
        let actions = asked.handle(Event::Request(job), now);
        if let Some(why) = actions.iter().find_map(|action| match action {
            Action::Refused { why, .. } => Some(*why),
            _ => None,
        }) {
            return Err(why);
        }
        let drawn = if job.kind == JobKind::Stop { Vec::new() } else { self.drawn_in(job.unit) };
        let because = |first: &Transition| match first.why {
            _ if first.unit == job.unit => Because::Asked,
            Why::Follows(other) => Because::Requires(other),
            Why::Bound(other) | Why::Needs(other) => Because::BoundTo(other),
            Why::Conflict(other) => Because::Conflicts(other),
            _ => match drawn.iter().find(|(unit, _)| *unit == first.unit) {
                Some((_, needing)) => Because::For(*needing),
                None => {
                    match self.rows[first.unit.index()].trouble.as_ref().and_then(Why::blames) {
                        Some(lacked) => Because::Lacked(lacked),
                        None => Because::For(job.unit),
                    }
                }
            },
        };
        Ok(self.difference(asked.play_out(actions, now), now, because))
    }

    /// What a shutdown would take down, in the order in which it begins. Targets, which do no work, are not told of.
    pub fn rehearse_shutdown(&self, kind: super::ShutdownKind, now: Duration) -> Vec<Planned> {
        let mut asked = self.clone();
        let actions = asked.handle(Event::Shutdown(kind), now);
        let mut plan = self.difference(asked.play_out(actions, now), now, |_| Because::GoingDown);
        plan.retain(|it| it.taken_down && self.transaction.spec(it.unit).class != Class::Target);
        plan
    }

    /// What these transitions do that would not happen without them.
    fn difference(
        &self,
        with: Vec<Transition>,
        now: Duration,
        because: impl Fn(&Transition) -> Because,
    ) -> Vec<Planned> {
        let without = self.clone().play_out(Vec::new(), now);
        let (with_units, without_units) = (self.by_unit(&with), self.by_unit(&without));
        let mut plan = Vec::new();
        for it in &with {
            let unit = it.unit;
            let own = &with_units[unit.index()];
            // A unit takes its turn with what is done to it: that it waits for others is no such thing.
            let turn = own.iter().find(|own| own.to != State::Waiting).or(own.first());
            let states = |of: &[&Transition]| of.iter().map(|it| it.to).collect::<Vec<_>>();
            let (Some(turn), Some(first)) = (turn, own.first()) else { continue };
            if !std::ptr::eq(*turn, it) || states(own) == states(&without_units[unit.index()]) {
                continue;
            }
            let last = own.last().map_or(first.to, |last| last.to);
            let taken_down = own.iter().any(|it| it.to == State::Deactivating);
            let withdrawn =
                own.iter().any(|it| (it.from, it.to) == (State::Waiting, State::Inactive));
            let kind = match (taken_down || withdrawn, last.is_down()) {
                (true, true) => JobKind::Stop,
                (true, false) => JobKind::Restart,
                (false, false) => JobKind::Start,
                // It fails, or is skipped: nobody wanted that of it.
                (false, true) => continue,
            };
            let was = self.rows[unit.index()].state;
            plan.push(Planned { unit, kind, because: because(first), was, taken_down });
        }
        plan
    }

    fn by_unit<'a>(&self, transitions: &'a [Transition]) -> Vec<Vec<&'a Transition>> {
        let mut units = vec![Vec::new(); self.rows.len()];
        transitions.iter().for_each(|it| units[it.unit.index()].push(it));
        units
    }

    /// Goes on until nothing more happens by itself: every effect works at once, and no timer runs out. What came of it.
    fn play_out(&mut self, actions: Vec<Action>, now: Duration) -> Vec<Transition> {
        // No unit moves as often as this; the bound is there so that a mistake in the rules ends.
        let mut budget = 64 * self.rows.len();
        let mut due: VecDeque<(Token, Report)> = self.under_way();
        let mut transitions = Vec::new();
        let mut actions = VecDeque::from(actions);
        loop {
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::Begin { token, effect } => due.extend(self.answers(token, effect)),
                    Action::Announce(transition) => transitions.push(transition),
                    _ => {}
                }
            }
            let Some((token, report)) = due.pop_front().filter(|_| budget > 0) else {
                return transitions;
            };
            budget -= 1;
            actions.extend(self.handle(Event::Report { token, report }, now));
        }
    }

    /// How what is under way at this moment ends when it works.
    fn under_way(&self) -> VecDeque<(Token, Report)> {
        let mut due = VecDeque::new();
        for unit in self.transaction.ids() {
            let row = &self.rows[unit.index()];
            let effect = match row.state {
                State::Activating => Effect::Start,
                State::Deactivating => Effect::Stop,
                State::Waiting if row.condition == Condition::Checking => Effect::CheckCondition,
                _ => continue,
            };
            due.extend(self.answers(Token { unit, attempt: row.attempt }, effect));
        }
        due
    }

    fn answers(&self, token: Token, effect: Effect) -> Vec<(Token, Report)> {
        let reports = match (effect, self.transaction.spec(token.unit).class) {
            (Effect::CheckCondition, _) => vec![Report::ConditionMet],
            (Effect::Start, Class::Service) => vec![Report::Started, Report::Ready],
            (Effect::Start, Class::Oneshot | Class::Target) => vec![Report::Done],
            (Effect::Stop | Effect::Kill, _) => vec![Report::Stopped],
            (Effect::Reload, _) => Vec::new(),
        };
        reports.into_iter().map(|report| (token, report)).collect()
    }
}

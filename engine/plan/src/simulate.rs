//! The scheduler under virtual time: what a boot would look like on a machine that one can only imagine.
//!
//! A [`Machine`] answers effects as its [`Behaviour`]s say: after so long, and with the faults that they hold. It is
//! told the time and has none of its own, so the simulator here and the fake host of the tests, which runs under
//! tokio's time, use the same one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use crate::scheduler::{Action, Effect, Event, ExitStatus, Outcome, Report, Scheduler, Token};
use crate::state::Illegal;
use crate::timeline::Timeline;
use crate::transaction::{Class, Transaction, UnitId};

/// How one unit behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// From the start to being up.
    pub takes: Duration,
    /// From the start of a service to its program running; at most `takes`.
    pub started_in: Duration,
    /// From the stop, or the kill, to nothing being left.
    pub stops_in: Duration,
    /// Why its condition is unmet; `None` if it is met. Deciding takes no time.
    pub unmet: Option<Arc<str>>,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

impl Default for Behaviour {
    /// Up after 10 ms, down after 10 ms, and nothing goes wrong.
    fn default() -> Self {
        let takes = Duration::from_millis(10);
        Behaviour { takes, started_in: takes / 2, stops_in: takes, unmet: None, fault: None }
    }
}

/// A fault, injected into a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// In how many of its activations, from the first; [`Fault::ALWAYS`] in all of them.
    pub times: u32,
}

impl Fault {
    /// In every activation.
    pub const ALWAYS: u32 = u32::MAX;

    /// This one, in every activation.
    pub fn always(kind: FaultKind) -> Fault {
        Fault { kind, times: Fault::ALWAYS }
    }
}

/// What may go wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// The activation fails when it should have succeeded.
    Fail {
        /// What the host says.
        why: Arc<str>,
    },
    /// The activation does not end until it is killed.
    Hang,
    /// As `Hang`, and neither a stop nor a kill is answered: a process in uninterruptible sleep.
    HangForever,
    /// It comes up, and its stop does not end until it is killed.
    HangStop,
    /// The condition is never decided.
    HangCondition,
    /// The activation takes so many times as long.
    Slow(u32),
    /// It comes up, and its program exits after a while.
    Exit {
        /// How long it is up.
        after: Duration,
        /// How it ends.
        status: ExitStatus,
    },
    /// It comes up, and what it holds is lost after a while.
    Lose {
        /// How long it is up.
        after: Duration,
        /// What the host says.
        why: Arc<str>,
    },
}

/// An imagined machine.
#[derive(Clone, Debug)]
pub struct Machine {
    transaction: Arc<Transaction>,
    behaviours: Vec<Behaviour>,
    answers: BinaryHeap<Reverse<Answer>>,
    /// Answers of a unit from before its last stop or kill are void.
    epochs: Vec<u32>,
    begun: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    due: Duration,
    /// Of answers due at one instant, the effect that was begun first is answered first.
    order: u64,
    epoch: u32,
    token: Token,
    report: Report,
}

impl Ord for Answer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl PartialOrd for Answer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Machine {
    /// A machine on which each unit takes as long as its spec hints, and nothing goes wrong.
    pub fn new(transaction: Arc<Transaction>) -> Machine {
        let behaviour = |unit: UnitId| match transaction.spec(unit).hint {
            Some(takes) => Behaviour { takes, started_in: takes / 2, ..Behaviour::default() },
            None => Behaviour::default(),
        };
        Machine {
            behaviours: transaction.ids().map(behaviour).collect(),
            epochs: vec![0; transaction.units().len()],
            answers: BinaryHeap::new(),
            begun: 0,
            transaction,
        }
    }

    /// How a unit behaves, to be changed.
    pub fn behaviour(&mut self, unit: UnitId) -> &mut Behaviour {
        &mut self.behaviours[unit.index()]
    }

    /// Begins an effect at this instant.
    pub fn begin(&mut self, token: Token, effect: Effect, now: Duration) {
        let behaviour = &self.behaviours[token.unit.index()];
        let fault = behaviour
            .fault
            .as_ref()
            .filter(|fault| token.attempt <= fault.times)
            .map(|fault| &fault.kind);
        let service = self.transaction.spec(token.unit).class == Class::Service;
        let mut answers: Vec<(Duration, Report)> = Vec::new();
        match effect {
            Effect::CheckCondition => match (&behaviour.unmet, fault) {
                (_, Some(FaultKind::HangCondition)) => {}
                (None, _) => answers.push((Duration::ZERO, Report::ConditionMet)),
                (Some(why), _) => {
                    answers.push((Duration::ZERO, Report::ConditionUnmet { why: why.clone() }))
                }
            },
            Effect::Start => {
                if service {
                    answers.push((behaviour.started_in.min(behaviour.takes), Report::Started));
                }
                let up = if service { Report::Ready } else { Report::Done };
                match fault {
                    Some(FaultKind::Fail { why }) => {
                        answers.push((behaviour.takes, Report::Failed { why: why.clone() }));
                    }
                    Some(FaultKind::Hang | FaultKind::HangForever) => {}
                    Some(&FaultKind::Slow(factor)) => {
                        answers.push((behaviour.takes.saturating_mul(factor), up))
                    }
                    Some(&FaultKind::Exit { after, status }) => {
                        answers.push((behaviour.takes, up));
                        answers.push((behaviour.takes + after, Report::Exited { status }));
                    }
                    Some(FaultKind::Lose { after, why }) => {
                        answers.push((behaviour.takes, up));
                        answers
                            .push((behaviour.takes + *after, Report::Failed { why: why.clone() }));
                    }
                    Some(FaultKind::HangStop | FaultKind::HangCondition) | None => {
                        answers.push((behaviour.takes, up))
                    }
                }
            }
            Effect::Stop | Effect::Kill => {
                self.epochs[token.unit.index()] += 1;
                let hangs = match fault {
                    Some(FaultKind::HangForever) => true,
                    Some(FaultKind::Hang | FaultKind::HangStop) => effect == Effect::Stop,
                    _ => false,
                };
                if !hangs {
                    answers.push((behaviour.stops_in, Report::Stopped));
                }
            }
        }
        for (after, report) in answers {
            self.begun += 1;
            let epoch = self.epochs[token.unit.index()];
            self.answers.push(Reverse(Answer {
                due: now + after,
                order: self.begun,
                epoch,
                token,
                report,
            }));
        }
    }

    /// When it will next say something.
    pub fn next_due(&mut self) -> Option<Duration> {
        while let Some(Reverse(answer)) = self.answers.peek() {
            if answer.epoch == self.epochs[answer.token.unit.index()] {
                return Some(answer.due);
            }
            self.answers.pop();
        }
        None
    }

    /// What it says at this instant, one answer at a time.
    pub fn pop_due(&mut self, now: Duration) -> Option<(Token, Report)> {
        self.next_due().filter(|&due| due <= now)?;
        self.answers.pop().map(|Reverse(answer)| (answer.token, answer.report))
    }
}

/// A simulated run.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// Everything that the scheduler wanted done, and when, in order.
    pub log: Vec<(Duration, Action)>,
    /// How the units came up.
    pub timeline: Timeline,
    /// How the transaction ended; `None` if the horizon came first.
    pub outcome: Option<Outcome>,
    /// Reports that the scheduler had no use for.
    pub ignored: u64,
    /// What the scheduler did that its own table forbids.
    pub mistake: Option<Illegal>,
    /// When the run ended.
    pub ended_at: Duration,
}

/// What is to happen during a simulated run, and how long it goes on.
#[derive(Clone, Debug)]
pub struct Script {
    /// Events beside the machine's own reports, in the order of their instants.
    pub events: Vec<(Duration, Event)>,
    /// Goes on after the transaction has ended, as long as something is to happen.
    pub keep_running: bool,
    /// No further than this.
    pub horizon: Duration,
}

impl Default for Script {
    /// One boot, of at most a day.
    fn default() -> Self {
        Script {
            events: Vec::new(),
            keep_running: false,
            horizon: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Runs a transaction on an imagined machine. Of what happens at one instant, the machine's reports come first, then
/// the scheduler's timer, then the script, as in the executor: what has happened counts before what is due, and that
/// before what is asked.
pub fn simulate(
    transaction: &Arc<Transaction>,
    mut machine: Machine,
    seed: u64,
    script: &Script,
) -> Simulation {
    let mut scheduler = Scheduler::new(Arc::clone(transaction), seed);
    let mut run = Simulation {
        log: Vec::new(),
        timeline: Timeline::new(transaction.units().len()),
        outcome: None,
        ignored: 0,
        mistake: None,
        ended_at: Duration::ZERO,
    };
    let mut script_events = script.events.iter().peekable();
    let mut wake_at: Option<Duration> = None;
    let mut down = false;
    let mut next = Some((Duration::ZERO, Event::Submit));
    while let Some((now, event)) = next {
        run.ended_at = now;
        for action in scheduler.handle(event, now) {
            match &action {
                Action::Begin { token, effect } => machine.begin(*token, *effect, now),
                Action::WakeAt(due) => wake_at = Some(*due),
                Action::Announce(transition) => run.timeline.record(transition),
                Action::Finished(outcome) => run.outcome = Some(outcome.clone()),
                Action::Down(_) => down = true,
                Action::JobEnded { .. }
                | Action::Refused { .. }
                | Action::Emergency { .. }
                | Action::Reboot { .. }
                | Action::GoalReached { .. } => {}
            }
            run.log.push((now, action));
        }
        if down || run.outcome.is_some() && !script.keep_running {
            break;
        }
        let scripted = script_events.peek().map(|&&(at, _)| at.max(now));
        let instants = [machine.next_due(), scripted, wake_at.map(|due| due.max(now))];
        let Some(now) = instants.into_iter().flatten().min().filter(|&at| at <= script.horizon)
        else {
            break;
        };
        next = if let Some((token, report)) = machine.pop_due(now) {
            Some((now, Event::Report { token, report }))
        } else if wake_at.is_some_and(|due| due <= now) {
            wake_at = None;
            Some((now, Event::TimerDue))
        } else {
            script_events.next().map(|(_, event)| (now, event.clone()))
        };
    }
    run.ignored = scheduler.ignored();
    run.mistake = scheduler.mistake();
    run
}

//! An imagined machine: how long each unit takes on it, what goes wrong, and how many of them find a processor.
//!
//! It is told the time and has none of its own, so the simulator and the fake host of the tests, which runs under tokio's
//! time, use the same one.
//!
//! # Processors
//!
//! The scheduler begins whatever nothing holds, and so does the node: it is the kernel that shares the processors out. A machine
//! made with [`Machine::with_processors`] imagines that so: an activation that works ([`Load::Works`]) takes a processor for
//! as long as it works, and one that finds none free waits in the order in which they began. Its deadline runs meanwhile, as it
//! would on a node. An activation that only waits ([`Load::Waits`]: a lease, a device, an answer from a time server) needs no
//! processor. Conditions and stops need none either, one that hangs gives its processor back after the time that it would have
//! worked, and a service that is up is idle. What is killed gives its processor back at once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::scheduler::{Effect, ExitStatus, Report, Token};
use crate::transaction::{Class, Transaction, UnitId};

/// What an activation does while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Load {
    /// It computes, and wants a processor.
    #[default]
    Works,
    /// It waits for something outside, and wants none.
    Waits,
}

/// How one unit behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// From the start to being up.
    pub takes: Duration,
    /// From the start of a service to its program running; at most `takes`.
    pub started_in: Duration,
    /// From the stop, or the kill, to nothing being left.
    pub stops_in: Duration,
    /// Whether its activation wants a processor.
    pub load: Load,
    /// Why its condition is unmet; `None` if it is met. Deciding takes no time.
    pub unmet: Option<Arc<str>>,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

impl Default for Behaviour {
    /// Up after 10 ms, down after 10 ms, and nothing goes wrong.
    fn default() -> Self {
        let takes = Duration::from_millis(10);
        Behaviour {
            takes,
            started_in: takes / 2,
            stops_in: takes,
            load: Load::Works,
            unmet: None,
            fault: None,
        }
    }
}

/// A fault, injected into a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// In which activation first, counted from 1.
    pub from: u32,
    /// In how many activations from that one on; [`Fault::ALWAYS`] in all of them.
    pub times: u32,
    /// What goes wrong after those, counted from the next one: a service that comes up once, exits, and never comes up again.
    pub then: Option<Box<Fault>>,
}

impl Fault {
    /// In every activation.
    pub const ALWAYS: u32 = u32::MAX;

    /// This one, in every activation.
    pub fn always(kind: FaultKind) -> Fault {
        Fault { kind, from: 1, times: Fault::ALWAYS, then: None }
    }

    /// What goes wrong in this activation.
    fn strikes(&self, mut attempt: u32) -> Option<&FaultKind> {
        let mut fault = self;
        loop {
            let earlier = attempt.checked_sub(fault.from.max(1))?;
            if earlier < fault.times {
                return Some(&fault.kind);
            }
            attempt = earlier - fault.times + 1;
            fault = fault.then.as_deref()?;
        }
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
    /// `None` for as many as anybody wants.
    processors: Option<Processors>,
}

#[derive(Clone, Debug)]
struct Processors {
    free: usize,
    /// Activations that wait for one, and since when.
    queue: VecDeque<(Token, Duration)>,
    holding: Vec<bool>,
    queued: Vec<Queued>,
}

/// How long a unit waited for a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Queued {
    /// In all of its activations.
    pub waited: Duration,
    /// The unit whose processor it got in the end.
    pub behind: Option<UnitId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    due: Duration,
    /// Of answers due at one instant, the effect that was begun first is answered first.
    order: u64,
    epoch: u32,
    token: Token,
    says: Says,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Says {
    Report(Report),
    /// Nothing to anybody; but it gives its processor back.
    Released,
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
    /// A machine on which each unit takes as long as its spec hints, nothing goes wrong, and everybody finds a processor.
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
            processors: None,
            transaction,
        }
    }

    /// The same machine with so many processors, at least one.
    #[must_use]
    pub fn with_processors(mut self, processors: usize) -> Machine {
        let units = self.behaviours.len();
        self.processors = Some(Processors {
            free: processors.max(1),
            queue: VecDeque::new(),
            holding: vec![false; units],
            queued: vec![Queued::default(); units],
        });
        self
    }

    /// Goes on as the machine of another graph: what is under way there goes on here, by its unit's new number. How units behave is
    /// what `next` says, and nothing has begun on that one yet.
    pub fn adopt(&mut self, next: Machine, moves: &[Option<UnitId>]) {
        let before = std::mem::replace(self, next);
        let moved = |unit: UnitId| moves.get(unit.index()).copied().flatten();
        for (old, new) in moves.iter().enumerate() {
            if let Some(new) = new {
                self.epochs[new.index()] = before.epochs[old];
            }
        }
        self.begun = before.begun;
        self.answers = before
            .answers
            .into_iter()
            .filter_map(|Reverse(answer)| {
                let unit = moved(answer.token.unit)?;
                let token = Token { unit, attempt: answer.token.attempt };
                Some(Reverse(Answer { token, ..answer }))
            })
            .collect();
        if let (Some(mine), Some(theirs)) = (&mut self.processors, before.processors) {
            let units = self.behaviours.len();
            let mut carried = Processors {
                free: theirs.free,
                queue: VecDeque::new(),
                holding: vec![false; units],
                queued: vec![Queued::default(); units],
            };
            for (old, new) in moves.iter().enumerate() {
                match new {
                    Some(new) => {
                        let queued = theirs.queued[old];
                        let behind = queued.behind.and_then(moved);
                        carried.holding[new.index()] = theirs.holding[old];
                        carried.queued[new.index()] = Queued { behind, ..queued };
                    }
                    None => carried.free += usize::from(theirs.holding[old]),
                }
            }
            carried.queue = theirs
                .queue
                .into_iter()
                .filter_map(|(token, since)| {
                    let unit = moved(token.unit)?;
                    Some((Token { unit, ..token }, since))
                })
                .collect();
            *mine = carried;
        }
    }

    /// How a unit behaves, to be changed.
    pub fn behaviour(&mut self, unit: UnitId) -> &mut Behaviour {
        &mut self.behaviours[unit.index()]
    }

    /// How all units behave, by [`UnitId`].
    pub fn behaviours(&self) -> &[Behaviour] {
        &self.behaviours
    }

    /// How long each unit has waited for a processor so far, by [`UnitId`]; nothing, where there is no limit.
    pub fn queued(&self) -> &[Queued] {
        self.processors.as_ref().map_or(&[], |processors| &processors.queued)
    }

    /// Begins an effect at this instant.
    pub fn begin(&mut self, token: Token, effect: Effect, now: Duration) {
        match effect {
            Effect::CheckCondition => self.check_condition(token, now),
            Effect::Start => {
                let takes = self.behaviours[token.unit.index()].takes;
                let works = self.behaviours[token.unit.index()].load == Load::Works;
                match &mut self.processors {
                    Some(processors) if works && !takes.is_zero() => {
                        if processors.free == 0 {
                            processors.queue.push_back((token, now));
                            return;
                        }
                        processors.free -= 1;
                        processors.holding[token.unit.index()] = true;
                        self.start(token, now, true);
                    }
                    _ => self.start(token, now, false),
                }
            }
            Effect::Reload => {}
            Effect::Stop | Effect::Kill => {
                self.epochs[token.unit.index()] += 1;
                let hangs = match self.fault(token) {
                    Some(FaultKind::HangForever) => true,
                    Some(FaultKind::Hang | FaultKind::HangStop) => effect == Effect::Stop,
                    _ => false,
                };
                if !hangs {
                    let stops_in = self.behaviours[token.unit.index()].stops_in;
                    self.answer(token, now + stops_in, Says::Report(Report::Stopped));
                }
                if let Some(processors) = &mut self.processors {
                    processors.queue.retain(|(queued, _)| queued.unit != token.unit);
                    self.release(token.unit, now);
                }
            }
        }
    }

    fn fault(&self, token: Token) -> Option<&FaultKind> {
        self.behaviours[token.unit.index()].fault.as_ref()?.strikes(token.attempt)
    }

    fn check_condition(&mut self, token: Token, now: Duration) {
        if matches!(self.fault(token), Some(FaultKind::HangCondition)) {
            return;
        }
        let report = match &self.behaviours[token.unit.index()].unmet {
            None => Report::ConditionMet,
            Some(why) => Report::ConditionUnmet { why: why.clone() },
        };
        self.answer(token, now, Says::Report(report));
    }

    fn start(&mut self, token: Token, now: Duration, holds: bool) {
        let service = self.transaction.spec(token.unit).class == Class::Service;
        let behaviour = &self.behaviours[token.unit.index()];
        let (takes, started_in) = (behaviour.takes, behaviour.started_in.min(behaviour.takes));
        let fault = self.fault(token).cloned();
        let works = match fault {
            Some(FaultKind::Slow(factor)) => takes.saturating_mul(factor),
            _ => takes,
        };
        if holds {
            self.answer(token, now + works, Says::Released);
        }
        if service {
            self.answer(token, now + started_in, Says::Report(Report::Started));
        }
        let up = if service { Report::Ready } else { Report::Done };
        let (first, then) = match fault {
            Some(FaultKind::Fail { why }) => (Some(Report::Failed { why }), None),
            Some(FaultKind::Hang | FaultKind::HangForever) => (None, None),
            Some(FaultKind::Exit { after, status }) => {
                (Some(up), Some((after, Report::Exited { status })))
            }
            Some(FaultKind::Lose { after, why }) => {
                (Some(up), Some((after, Report::Failed { why })))
            }
            Some(FaultKind::Slow(_) | FaultKind::HangStop | FaultKind::HangCondition) | None => {
                (Some(up), None)
            }
        };
        if let Some(report) = first {
            self.answer(token, now + works, Says::Report(report));
        }
        if let Some((after, report)) = then {
            self.answer(token, now + works + after, Says::Report(report));
        }
    }

    fn answer(&mut self, token: Token, due: Duration, says: Says) {
        self.begun += 1;
        let epoch = self.epochs[token.unit.index()];
        self.answers.push(Reverse(Answer { due, order: self.begun, epoch, token, says }));
    }

    /// A unit gives its processor back, if it has one, and whoever waits first gets it.
    fn release(&mut self, unit: UnitId, now: Duration) {
        let Some(processors) = &mut self.processors else { return };
        if !std::mem::replace(&mut processors.holding[unit.index()], false) {
            return;
        }
        match processors.queue.pop_front() {
            None => processors.free += 1,
            Some((next, since)) => {
                processors.holding[next.unit.index()] = true;
                let queued = &mut processors.queued[next.unit.index()];
                queued.waited += now.saturating_sub(since);
                queued.behind = Some(unit);
                self.start(next, now, true);
            }
        }
    }

    /// The next instant at which something happens on it. It need not be something that it says.
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
        loop {
            self.next_due().filter(|&due| due <= now)?;
            let Reverse(answer) = self.answers.pop()?;
            match answer.says {
                Says::Report(report) => return Some((answer.token, report)),
                Says::Released => self.release(answer.token.unit, answer.due),
            }
        }
    }
}

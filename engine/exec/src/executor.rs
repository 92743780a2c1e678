//! The loop: event, scheduler, actions, effects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use keel_plan::{
    Action, Adoption, Event, Job, JobKind, Outcome, Refusal, Scheduler, ShutdownKind, Timeline,
    Transaction, Transition, UnitId, Why,
};
use tokio::time::Instant;

use crate::host::{Host, HostEvent};

/// Something that whoever watches the run wants to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// A unit changed its state.
    Transition(Transition),
    /// The host had something to say about a unit.
    Fact {
        /// The unit.
        unit: UnitId,
        /// The fact, in one line.
        text: String,
    },
    /// A request was not taken on.
    Refused {
        /// The request.
        job: Job,
        /// Why not.
        why: Refusal,
    },
    /// A unit whose policy is `emergency` has failed.
    Emergency {
        /// The unit.
        unit: UnitId,
        /// Why it failed.
        why: Why,
    },
    /// A unit whose policy is `reboot` has failed; the shutdown has begun.
    Reboot {
        /// The unit.
        unit: UnitId,
        /// Why it failed.
        why: Why,
    },
    /// Every job has its result. The run goes on: services are supervised.
    Finished(Outcome),
    /// Everything that was to go for another graph is down, but these: [`Executor::adopt`] comes next. Told when everything else has
    /// been, so that nothing is left to tell in the numbers of the graph before.
    Cleared {
        /// Units that could not be stopped.
        stuck: Vec<UnitId>,
    },
    /// The shutdown is over.
    Down(ShutdownKind),
}

/// One run of a transaction on a host, from the first unit to the last.
pub struct Executor<H> {
    host: H,
    scheduler: Scheduler,
    timeline: Timeline,
    started: Instant,
    wake_at: Option<Duration>,
    /// What has happened and was not asked for yet. Bounded: it is emptied before the next event is taken, and one event
    /// moves each unit a few times at most.
    happened: VecDeque<Happening>,
    /// What could not be stopped, once the next graph may be taken on.
    cleared: Option<Vec<UnitId>>,
    /// What came after all while nothing could be started.
    recovered: Vec<UnitId>,
    submitted: bool,
}

impl<H: Host> Executor<H> {
    /// A run that begins with the first call of [`next`](Self::next). Times are counted from `started`.
    pub fn new(transaction: Arc<Transaction>, host: H, seed: u64, started: Instant) -> Self {
        Executor {
            host,
            timeline: Timeline::new(transaction.units().len()),
            scheduler: Scheduler::new(transaction, seed),
            started,
            wake_at: None,
            happened: VecDeque::new(),
            cleared: None,
            recovered: Vec::new(),
            submitted: false,
        }
    }

    /// Runs until something happens that is worth telling. May be dropped before it is done without losing anything.
    pub async fn next(&mut self) -> Happening {
        if !self.submitted {
            self.submitted = true;
            self.handle(Event::Submit);
        }
        loop {
            if let Some(happening) = self.happened.pop_front() {
                return happening;
            }
            if let Some(stuck) = self.cleared.take() {
                return Happening::Cleared { stuck };
            }
            let due = self.wake_at.map(|at| self.started + at);
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // What has happened counts before a deadline does, here as in the simulator.
            tokio::select! {
                biased;
                event = self.host.next() => self.hear(event),
                () = timer => {
                    self.wake_at = None;
                    self.handle(Event::TimerDue);
                }
            }
        }
    }

    /// Asks for one unit to be started, stopped or restarted.
    pub fn request(&mut self, job: Job) {
        self.handle(Event::Request(job));
    }

    /// Takes these down, and starts nothing until [`adopt`](Self::adopt). [`Happening::Cleared`] is the end of it, unless a shutdown is.
    pub fn clear(&mut self, units: Arc<[UnitId]>) {
        self.handle(Event::Clear(units));
    }

    /// Takes on the next graph, on [`Happening::Cleared`]; `host` has the host do the same. From here on units go by their new numbers.
    /// Whether it did: a machine that goes down takes on nothing.
    pub fn adopt(&mut self, adoption: &Adoption, host: impl FnOnce(&mut H)) -> bool {
        let now = self.now();
        let Some(actions) = self.scheduler.adopt(adoption, now) else { return false };
        let moves = &adoption.moves;
        let units = adoption.transaction.units().len();
        self.timeline = self.timeline.renumbered(moves, units);
        host(&mut self.host);
        self.carry_out(actions);
        for unit in std::mem::take(&mut self.recovered) {
            moves[unit.index()].into_iter().for_each(|unit| self.recover(unit));
        }
        true
    }

    /// Stops everything in reverse order; [`Happening::Down`] is the end of it.
    pub fn shut_down(&mut self, kind: ShutdownKind) {
        self.handle(Event::Shutdown(kind));
    }

    /// Time since the run's start.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The scheduler, to look at.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// How the boot went so far.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The host, to look at.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// What is run.
    pub fn transaction(&self) -> &Arc<Transaction> {
        self.scheduler.transaction()
    }

    fn hear(&mut self, event: HostEvent) {
        match event {
            HostEvent::Report { token, report } => self.handle(Event::Report { token, report }),
            HostEvent::Fact { unit, text } => {
                self.happened.push_back(Happening::Fact { unit, text })
            }
            HostEvent::Recovered { unit } => {
                let text = "has come after all".to_owned();
                self.happened.push_back(Happening::Fact { unit, text });
                self.recover(unit);
            }
        }
    }

    fn recover(&mut self, unit: UnitId) {
        if self.scheduler.is_clearing() {
            self.recovered.push(unit);
        } else {
            self.request(Job { unit, kind: JobKind::Start });
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        let actions = self.scheduler.handle(event, now);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Begin { token, effect } => self.host.begin(token, effect),
                Action::WakeAt(at) => self.wake_at = Some(at),
                Action::Announce(transition) => {
                    self.timeline.record(&transition);
                    self.happened.push_back(Happening::Transition(transition));
                }
                Action::Refused { job, why } => {
                    self.happened.push_back(Happening::Refused { job, why });
                }
                Action::Emergency { unit, why } => {
                    self.happened.push_back(Happening::Emergency { unit, why });
                }
                Action::Reboot { unit, why } => {
                    self.happened.push_back(Happening::Reboot { unit, why });
                }
                Action::Finished(outcome) => self.happened.push_back(Happening::Finished(outcome)),
                Action::Cleared { stuck } => self.cleared = Some(stuck),
                Action::Down(kind) => self.happened.push_back(Happening::Down(kind)),
                // Results of single jobs show in the transitions, and the goal's in the outcome.
                Action::JobEnded { .. } | Action::GoalReached { .. } => {}
            }
        }
    }
}

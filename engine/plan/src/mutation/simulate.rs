//! A node that one can only imagine: it boots, and takes on one graph after another, under virtual time. What decides is the scheduler and
//! the [`Undertaking`] that PID 1 runs.

use std::sync::Arc;
use std::time::Duration;

use super::{End, Heard, Move, Mutation, Side, Undertaking, mutation};
use crate::machine::Machine;
use crate::scheduler::{Action, Effect, Event, Scheduler, Transition};
use crate::state::State;

/// How the units of a graph behave.
type Imagined = Box<dyn Fn(&Side) -> Machine>;

/// An imagined node.
pub struct Node {
    side: Side,
    scheduler: Scheduler,
    machine: Machine,
    imagined: Imagined,
    now: Duration,
    wake_at: Option<Duration>,
    under_way: Option<Undertaking>,
    trip: Trip,
}

/// What happened since the node was last asked for something.
#[derive(Debug, Clone, Default)]
pub struct Trip {
    /// How the mutation ended, if one did.
    pub end: Option<End>,
    /// What was begun for which unit, and when.
    pub begun: Vec<(Duration, Arc<str>, Effect)>,
    /// The changes of state, with the unit's name.
    pub transitions: Vec<(Arc<str>, Transition)>,
    /// How long it took in the node's time: until the mutation ended, else until the last thing that happened.
    pub took: Duration,
    /// The machine went down.
    pub down: bool,
}

impl Node {
    /// A node on which nothing has begun; `imagined` says how the units of a graph behave on it.
    pub fn new(side: Side, seed: u64, imagined: impl Fn(&Side) -> Machine + 'static) -> Node {
        Node {
            scheduler: Scheduler::new(side.transaction.clone(), seed),
            machine: imagined(&side),
            imagined: Box::new(imagined),
            side,
            now: Duration::ZERO,
            wake_at: None,
            under_way: None,
            trip: Trip::default(),
        }
    }

    /// The graph that it runs.
    pub fn side(&self) -> &Side {
        &self.side
    }

    /// The scheduler, to look at.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// The states of all units, by [`UnitId`](crate::UnitId).
    pub fn states(&self) -> Vec<State> {
        self.side.transaction.ids().map(|id| self.scheduler.state(id)).collect()
    }

    /// What a change to this graph would ask of it, now.
    pub fn plan(&self, to: &Side) -> Mutation {
        let from = &self.side;
        mutation(&from.graph, &from.transaction, &to.graph, &to.transaction, &self.states())
    }

    /// From the next graph on, units behave as this says.
    pub fn spoil(&mut self, imagined: impl Fn(&Side) -> Machine + 'static) {
        self.imagined = Box::new(imagined);
    }

    /// Boots, and lets so much time pass.
    pub fn boot(&mut self, most: Duration) -> Trip {
        self.give(Event::Submit);
        self.pass(most)
    }

    /// Something happens to it, and nothing follows yet.
    pub fn give(&mut self, event: Event) {
        let actions = self.scheduler.handle(event, self.now);
        self.carry_out(actions);
    }

    /// Begins to take on this graph.
    pub fn mutate(&mut self, to: Side) {
        let mutation = self.plan(&to);
        let (under_way, first) =
            Undertaking::begin(self.side.clone(), to, mutation, &self.scheduler);
        self.under_way = Some(under_way);
        self.make(first);
    }

    /// Lets so much time pass.
    pub fn pass(&mut self, most: Duration) -> Trip {
        let (began, horizon) = (self.now, self.now.saturating_add(most));
        let mut last = self.now;
        while !self.trip.down {
            let instants = [self.machine.next_due(), self.wake_at.map(|due| due.max(self.now))];
            let Some(at) = instants.into_iter().flatten().min().filter(|at| *at <= horizon) else {
                break;
            };
            self.now = self.now.max(at);
            if self.trip.end.is_none() {
                last = self.now;
            }
            if let Some((token, report)) = self.machine.pop_due(self.now) {
                self.give(Event::Report { token, report });
            } else if self.wake_at.is_some_and(|due| due <= self.now) {
                self.wake_at = None;
                self.give(Event::TimerDue);
            }
        }
        self.trip.took = last.saturating_sub(began);
        self.now = horizon;
        std::mem::take(&mut self.trip)
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        let mut heard = Vec::new();
        for action in actions {
            let name = |unit| self.side.transaction.spec(unit).name.clone();
            match action {
                Action::Begin { token, effect } => {
                    self.trip.begun.push((self.now, name(token.unit), effect));
                    self.machine.begin(token, effect, self.now);
                }
                Action::WakeAt(due) => self.wake_at = Some(due),
                Action::Down(_) => self.trip.down = true,
                Action::Announce(transition) => {
                    self.trip.transitions.push((name(transition.unit), transition.clone()));
                    heard.push(Action::Announce(transition));
                }
                other => heard.push(other),
            }
        }
        // Told in the numbers of one graph: what takes on another comes last.
        for action in &heard {
            let heard = match action {
                Action::Announce(transition) => Heard::Transition(transition),
                Action::Cleared { stuck } => Heard::Cleared(stuck),
                Action::Finished(_) => Heard::Finished,
                _ => continue,
            };
            let next = self.under_way.as_mut().and_then(|it| it.hear(heard, &self.scheduler));
            if let Some(next) = next {
                return self.make(next);
            }
        }
    }

    fn make(&mut self, next: Move) {
        match next {
            Move::Clear(units) => self.give(Event::Clear(units)),
            Move::Adopt(adoption, side) => {
                let Some(actions) = self.scheduler.adopt(&adoption, self.now) else { return };
                self.machine.adopt((self.imagined)(&side), &adoption.moves);
                self.side = side;
                self.carry_out(actions);
            }
            Move::Over(end) => {
                self.under_way = None;
                self.trip.end = Some(end);
            }
        }
    }
}

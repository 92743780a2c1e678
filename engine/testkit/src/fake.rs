//! The fake host: an imagined machine under tokio's time, so that paused time makes a boot instantaneous and exact.

use std::sync::Arc;
use std::time::Duration;

use keel_exec::{Host, HostEvent};
use keel_plan::{Effect, Machine, Token, Transaction, UnitId};
use tokio::time::Instant;

/// An effect that was begun, and when.
pub type Begun = (Duration, Token, Effect);

/// Answers effects as its machine says, and remembers them.
pub struct FakeHost {
    machine: Machine,
    started: Instant,
    begun: Vec<Begun>,
}

impl FakeHost {
    /// A host on which this machine is imagined; its time counts from `started`.
    pub fn new(machine: Machine, started: Instant) -> Self {
        FakeHost { machine, started, begun: Vec::new() }
    }

    /// A host on which each unit takes as long as it says and nothing goes wrong.
    pub fn sound(transaction: &Arc<Transaction>, started: Instant) -> Self {
        FakeHost::new(Machine::new(transaction.clone()), started)
    }

    /// Goes on as the host of another graph; see [`Machine::adopt`].
    pub fn adopt(&mut self, next: Machine, moves: &[Option<UnitId>]) {
        self.machine.adopt(next, moves);
    }

    /// Every effect that was begun, in order.
    pub fn begun(&self) -> &[Begun] {
        &self.begun
    }
}

impl Host for FakeHost {
    fn begin(&mut self, token: Token, effect: Effect) {
        let now = self.started.elapsed();
        self.begun.push((now, token, effect));
        self.machine.begin(token, effect, now);
    }

    async fn next(&mut self) -> HostEvent {
        loop {
            if let Some((token, report)) = self.machine.pop_due(self.started.elapsed()) {
                return HostEvent::Report { token, report };
            }
            match self.machine.next_due() {
                Some(due) => tokio::time::sleep_until(self.started + due).await,
                None => std::future::pending().await,
            }
        }
    }
}

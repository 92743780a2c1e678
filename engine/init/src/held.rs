//! A host that can be made to wait: until it is known which config this machine has, nothing begins but what finds that out.
//!
//! And a host that remembers: what is up when the machine's own config takes over from the image's, and is the same in both, is up there too.

use std::collections::{HashSet, VecDeque};
use std::ops::Deref;

use keel_exec::{Host, HostEvent};
use keel_host::machine::Machine;
use keel_plan::{Effect, Report, Token, UnitId};
use tokio::sync::watch;

/// The machine, or what of it may begin.
pub(crate) struct Held {
    machine: Machine,
    /// The units that may begin at any time, until all may.
    free: Option<HashSet<UnitId>>,
    /// What was to begin meanwhile.
    held: VecDeque<(Token, Effect)>,
    opened: watch::Receiver<bool>,
    /// Units that are up already.
    adopted: HashSet<UnitId>,
    /// What is to be said of those.
    told: VecDeque<HostEvent>,
}

impl Held {
    /// A machine that lets `free` begin, all if that is none, and the rest once `opened` says so. The `adopted` units are up.
    pub(crate) fn new(
        machine: Machine,
        free: Option<HashSet<UnitId>>,
        opened: watch::Receiver<bool>,
        adopted: HashSet<UnitId>,
    ) -> Self {
        Self { machine, free, held: VecDeque::new(), opened, adopted, told: VecDeque::new() }
    }

    fn is_held(&self, unit: UnitId) -> bool {
        self.free.as_ref().is_some_and(|free| !free.contains(&unit))
    }

    /// All may begin, and what was to begin meanwhile does.
    fn open(&mut self) {
        self.free = None;
        for (token, effect) in std::mem::take(&mut self.held) {
            self.machine.begin(token, effect);
        }
    }
}

impl Deref for Held {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl Host for Held {
    fn begin(&mut self, token: Token, effect: Effect) {
        let unit = token.unit;
        let report = match effect {
            Effect::CheckCondition if self.adopted.contains(&unit) => Report::ConditionMet,
            // From here on it is like any other: what stops it and starts it again does so on the machine.
            Effect::Start if self.adopted.remove(&unit) => Report::Done,
            Effect::Stop | Effect::Kill if self.is_held(unit) => {
                self.held.retain(|(held, _)| held.unit != unit);
                Report::Stopped
            }
            effect if self.is_held(unit) => return self.held.push_back((token, effect)),
            effect => return self.machine.begin(token, effect),
        };
        self.told.push_back(HostEvent::Report { token, report });
    }

    async fn next(&mut self) -> HostEvent {
        loop {
            if let Some(told) = self.told.pop_front() {
                return told;
            }
            if self.free.is_none() {
                return self.machine.next().await;
            }
            tokio::select! {
                event = self.machine.next() => return event,
                // Whoever could open it is gone: then nobody will, and nothing is to be waited for.
                _ = self.opened.wait_for(|opened| *opened) => {}
            }
            self.open();
        }
    }
}

//! What the machine keeps of one unit for as long as the unit is in the graph, whichever graph that is.
//!
//! A transaction numbers its units anew, and what is under way goes on. So activations hold a slot and speak through it, and the number is
//! looked up when what they said is heard: never before, because the graph may have changed in between.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keel_exec::HostEvent;
use keel_plan::{Report, Token, UnitId};
use keel_unit::Unit;
use nix::unistd::Pid;

use super::link::Late;
use crate::process::LogBuffer;

/// The number of a unit that is in no graph any more.
const GONE: u32 = u32::MAX;

/// One unit.
pub(super) struct Slot {
    number: AtomicU32,
    unit: Mutex<Arc<Unit>>,
    /// Its output, if it runs programs.
    pub(super) log: Option<LogBuffer>,
    pid: Mutex<Option<Pid>>,
    late: Mutex<Option<Late>>,
}

impl Slot {
    pub(super) fn new(number: UnitId, unit: Arc<Unit>, log: Option<LogBuffer>) -> Arc<Slot> {
        Arc::new(Slot {
            number: AtomicU32::new(number.0),
            unit: Mutex::new(unit),
            log,
            pid: Mutex::default(),
            late: Mutex::default(),
        })
    }

    /// What the graph says of it now.
    pub(super) fn unit(&self) -> Arc<Unit> {
        lock(&self.unit).clone()
    }

    /// Its number now; none if it is in the graph no more.
    pub(super) fn number(&self) -> Option<UnitId> {
        let number = self.number.load(Ordering::Relaxed);
        (number != GONE).then_some(UnitId(number))
    }

    /// The next graph has it under this number, and says this of it.
    pub(super) fn renumber(&self, number: UnitId, unit: Arc<Unit>) {
        *lock(&self.unit) = unit;
        self.number.store(number.0, Ordering::Relaxed);
    }

    /// The next graph does not have it.
    pub(super) fn leave(&self) {
        self.number.store(GONE, Ordering::Relaxed);
        // A link that nobody waits for any more is given up when its keeper is dropped.
        drop(self.late().take());
    }

    /// The main process, while there is one.
    pub(super) fn pid(&self) -> MutexGuard<'_, Option<Pid>> {
        lock(&self.pid)
    }

    /// A link whose activation is over and whose keeper is not.
    pub(super) fn late(&self) -> MutexGuard<'_, Option<Late>> {
        lock(&self.late)
    }
}

/// None of them is ever left half changed, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One activation of a unit, with what the unit was when it began.
#[derive(Clone)]
pub(super) struct Activation {
    pub(super) slot: Arc<Slot>,
    pub(super) unit: Arc<Unit>,
    pub(super) attempt: u32,
}

/// What an activation, or what outlives one, says.
pub(super) enum Said {
    /// What became of an effect of this attempt.
    Report(u32, Report),
    /// Something that changes no state.
    Fact(String),
    /// What it was given up for has come after all.
    Recovered,
}

impl Said {
    /// In the numbers of the graph that runs now; nothing of a unit that is no part of it.
    pub(super) fn by(self, slot: &Slot) -> Option<HostEvent> {
        let unit = slot.number()?;
        Some(match self {
            Said::Report(attempt, report) => {
                HostEvent::Report { token: Token { unit, attempt }, report }
            }
            Said::Fact(text) => HostEvent::Fact { unit, text },
            Said::Recovered => HostEvent::Recovered { unit },
        })
    }
}

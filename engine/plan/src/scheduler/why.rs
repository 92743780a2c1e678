//! Why a unit changed its state: data for programs, and one sentence for people.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keel_unit::value::people;

use super::messages::{ExitStatus, ShutdownKind};
use crate::transaction::{StartLimit, Transaction, UnitId};

/// The cause of a [`Transition`](super::Transition).
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// Nothing has happened to it yet.
    Nothing,
    /// The transaction or a request wants it so.
    Requested,
    /// Nothing holds it any more.
    Released,
    /// Its program runs and is ready, or its work is done.
    Succeeded,
    /// Its condition is unmet.
    Unmet(Arc<str>),
    /// The host says so.
    Failed(Arc<str>),
    /// Its program ended.
    Exited(ExitStatus),
    /// It passed its deadline.
    TimedOut(Duration),
    /// The unit that it awaits did not end, or did not come back, while the waiting one had patience.
    WaitedTooLong {
        /// The awaited unit.
        on: UnitId,
        /// For how long it waited: its own deadline, as a rule.
        deadline: Duration,
    },
    /// It needs this unit, which failed or is not up.
    Needs(UnitId),
    /// It is bound to this unit, which is no longer up.
    Bound(UnitId),
    /// It needs this unit, which is being stopped or restarted.
    Follows(UnitId),
    /// It conflicts with this unit, which is being started.
    Conflict(UnitId),
    /// It was started too often.
    StartLimit(StartLimit),
    /// The restart policy brings it back.
    Restart,
    /// It was stopped as asked.
    Stopped,
    /// It did not stop within its stop deadline, and was killed.
    Killed(Duration),
    /// It could not be stopped.
    StopFailed(Arc<str>),
    /// Killing it made no difference: something of it may still be there.
    Stuck,
    /// The machine takes on another graph.
    Mutation,
    /// The machine is going down.
    Shutdown(ShutdownKind),
}

impl Why {
    /// The unit that this one puts the blame on, if it does.
    pub fn blames(&self) -> Option<UnitId> {
        match *self {
            Why::Needs(unit)
            | Why::Bound(unit)
            | Why::Follows(unit)
            | Why::WaitedTooLong { on: unit, .. } => Some(unit),
            _ => None,
        }
    }

    /// The same in another graph. What blames a unit that is not in it keeps its words alone.
    pub(crate) fn renumbered(
        self,
        from: &Transaction,
        moved: impl Fn(UnitId) -> Option<UnitId>,
    ) -> Why {
        let carried = match self {
            Why::Needs(unit) => moved(unit).map(Why::Needs),
            Why::Bound(unit) => moved(unit).map(Why::Bound),
            Why::Follows(unit) => moved(unit).map(Why::Follows),
            Why::Conflict(unit) => moved(unit).map(Why::Conflict),
            Why::WaitedTooLong { on, deadline } => {
                moved(on).map(|on| Why::WaitedTooLong { on, deadline })
            }
            other => return other,
        };
        carried.unwrap_or_else(|| Why::Failed(self.describe(from).to_string().into()))
    }

    /// As one sentence, with the units by their names.
    pub fn describe<'a>(&'a self, transaction: &'a Transaction) -> impl fmt::Display + 'a {
        Sentence { why: self, transaction }
    }
}

struct Sentence<'a> {
    why: &'a Why,
    transaction: &'a Transaction,
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |unit: UnitId| &*self.transaction.spec(unit).name;
        match self.why {
            Why::Nothing => write!(out, "nothing happened yet"),
            Why::Requested => write!(out, "requested"),
            Why::Released => write!(out, "nothing to wait for"),
            Why::Succeeded => write!(out, "succeeded"),
            Why::Unmet(why) => write!(out, "condition unmet: {why}"),
            Why::Failed(why) => write!(out, "{why}"),
            Why::Exited(ExitStatus::Code(code)) => write!(out, "exited with code {code}"),
            Why::Exited(ExitStatus::Signal(signal)) => write!(out, "ended by signal {signal}"),
            Why::TimedOut(deadline) => write!(out, "timed out after {}", people(*deadline)),
            Why::WaitedTooLong { on, deadline } => {
                write!(out, "waited more than {} for {}", people(*deadline), name(*on))
            }
            Why::Needs(unit) => write!(out, "needs {}, which is not up", name(*unit)),
            Why::Bound(unit) => write!(out, "bound to {}, which is not up", name(*unit)),
            Why::Follows(unit) => write!(out, "needs {}, which is being stopped", name(*unit)),
            Why::Conflict(unit) => {
                write!(out, "conflicts with {}, which is being started", name(*unit))
            }
            Why::StartLimit(limit) => {
                write!(
                    out,
                    "started more than {} times within {}",
                    limit.burst,
                    people(limit.interval)
                )
            }
            Why::Restart => write!(out, "restart policy"),
            Why::Stopped => write!(out, "stopped"),
            Why::Killed(deadline) => {
                write!(out, "killed: did not stop within {}", people(*deadline))
            }
            Why::StopFailed(why) => write!(out, "could not be stopped: {why}"),
            Why::Stuck => write!(out, "could not be killed"),
            Why::Mutation => write!(out, "the graph changes"),
            Why::Shutdown(_) => write!(out, "the machine is going down"),
        }
    }
}

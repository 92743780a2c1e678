//! What goes into the scheduler and what comes out: closed enums, so that one test can go through every pair.

use std::sync::Arc;
use std::time::Duration;

use super::why::Why;
use crate::state::State;
use crate::transaction::{Job, UnitId};

/// Names one activation of one unit. A report that carries the token of an earlier activation is stale and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The unit.
    pub unit: UnitId,
    /// Counts the unit's activations, from 1. The condition, start, stop and kill of one activation share it.
    pub attempt: u32,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Run the transaction. Only the first one counts.
    Submit,
    /// The host says something about an effect that it was asked for.
    Report {
        /// The effect's token.
        token: Token,
        /// What it says.
        report: Report,
    },
    /// The instant of the last [`Action::WakeAt`] has come. Harmless at any other time.
    TimerDue,
    /// Somebody wants one unit started, stopped or restarted, with what that implies for others.
    Request(Job),
    /// Another graph is to be taken on, and these units are not up in it as they are now. They go down, in reverse order, and nothing
    /// that needs them with them unless it is named too; nothing else starts until [`Scheduler::adopt`](super::Scheduler::adopt).
    /// Every unit that the next graph has not must be among them.
    Clear(Arc<[UnitId]>),
    /// Stop everything, in the reverse of the order in which it starts.
    Shutdown(ShutdownKind),
}

/// What the host says about one activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The condition is met.
    ConditionMet,
    /// The condition is unmet, and why.
    ConditionUnmet {
        /// What was looked for and not found.
        why: Arc<str>,
    },
    /// A service's program runs.
    Started,
    /// A service is ready.
    Ready,
    /// A oneshot's work is done.
    Done,
    /// The program ended, and nothing of its cgroup is left. For a oneshot that runs a program this is its end; for a
    /// service that is not being stopped it calls for the restart policy.
    Exited {
        /// How.
        status: ExitStatus,
    },
    /// The effect failed and left nothing running; or what a unit held while it was active is lost (a lease, a device).
    Failed {
        /// The reason, for people.
        why: Arc<str>,
    },
    /// Nothing of the activation is left: the answer to [`Effect::Stop`] and [`Effect::Kill`].
    Stopped,
    /// The stop or the kill did not work.
    StopFailed {
        /// The reason, for people.
        why: Arc<str>,
    },
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// As systemd sees it: code 0, or one of SIGHUP, SIGINT, SIGTERM and SIGPIPE.
    pub fn is_clean(self) -> bool {
        matches!(self, ExitStatus::Code(0) | ExitStatus::Signal(1 | 2 | 15 | 13))
    }
}

/// What the host is to do for one activation. Each is answered by reports with the same token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Decide the condition: `ConditionMet`, `ConditionUnmet`, or `Failed` if it cannot be decided.
    CheckCondition,
    /// Activate: a oneshot answers `Done` (or `Exited`), a service `Started`, `Ready` and, one day, `Exited`; either
    /// may answer `Failed` instead.
    Start,
    /// Take it down in order, be it active or still activating: `Stopped` or `StopFailed`.
    Stop,
    /// End by force whatever the activation still does, also a condition that is being checked: `Stopped`, once nothing
    /// is left. May follow a `Stop` that is still under way, which then needs no answer of its own.
    Kill,
    /// Have a service that runs read its configuration again. No answer: nothing tells when a program has done so.
    Reload,
}

/// How the machine is to go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShutdownKind {
    /// Switch the power off.
    PowerOff,
    /// Start again.
    Reboot,
    /// Stop the processor and leave the power on.
    Halt,
}

/// What is to be done about what happened, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Begin an effect on the host; do not wait for it.
    Begin {
        /// Its reports carry this.
        token: Token,
        /// What to do.
        effect: Effect,
    },
    /// Send [`Event::TimerDue`] at this instant. Replaces the one before.
    WakeAt(Duration),
    /// A unit changed its state.
    Announce(Transition),
    /// A job has its result; each job gets exactly one.
    JobEnded {
        /// The job.
        job: Job,
        /// How it ended.
        result: JobResult,
    },
    /// A request cannot be taken on; nothing was changed.
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
    /// The goal is up, for the first time: as a rule before the transaction is finished, and after it if the machine
    /// mended itself.
    GoalReached {
        /// What is not as it should be at this moment.
        degraded: Vec<Shortfall>,
    },
    /// Every job of the transaction has its result. The scheduler goes on supervising.
    Finished(Outcome),
    /// Everything that [`Event::Clear`] named is down, as far as that was possible: the next graph may be taken on.
    Cleared {
        /// Those that could not be stopped: something of them may still be there.
        stuck: Vec<UnitId>,
    },
    /// The shutdown is over: nothing is up any more, or what is could not be stopped.
    Down(ShutdownKind),
}

/// A change of one unit's state.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// The unit.
    pub unit: UnitId,
    /// Its activation so far; 0 before the first.
    pub attempt: u32,
    /// The state before.
    pub from: State,
    /// The state from now on.
    pub to: State,
    /// What made it change.
    pub why: Why,
    /// Of a unit that was `waiting`: the unit that held it last, if one did.
    pub waited_for: Option<UnitId>,
    /// When, since boot.
    pub at: Duration,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobResult {
    /// The unit is where the job was to bring it.
    Done,
    /// A condition is unmet: nothing to do, which is as good as done.
    Skipped,
    /// The unit failed.
    Failed,
    /// Something that the unit needs failed.
    Dependency,
    /// Another request or the shutdown took its place.
    Cancelled,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// There is no such unit.
    #[error("there is no such unit")]
    UnknownUnit,
    /// The machine is going down.
    #[error("the machine is going down")]
    ShuttingDown,
    /// Another graph is being taken on.
    #[error("the graph is being changed")]
    Mutating,
    /// What would have to be started together conflicts with itself.
    #[error("it would start units that conflict with each other")]
    Conflict {
        /// One of them.
        unit: UnitId,
        /// The other.
        with: UnitId,
    },
}

/// The end of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The goal came up.
    pub reached: bool,
    /// The units that had trouble and are not up now, in the order of the jobs.
    pub degraded: Vec<Shortfall>,
}

/// A unit that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Shortfall {
    /// The unit.
    pub unit: UnitId,
    /// Why it is not up.
    pub why: Why,
    /// The unit at the root of it: itself, or what it needs, or what that needs.
    pub culprit: UnitId,
}

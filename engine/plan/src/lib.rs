//! The graph and everything that can be decided without touching a machine.

mod backoff;
mod scheduler;
mod simulate;
mod state;
mod timeline;
mod transaction;

pub use backoff::Backoff;
pub use scheduler::{
    Action, Effect, Event, ExitStatus, JobResult, KILL_GRACE, Outcome, Refusal, Report, Scheduler,
    Shortfall, ShutdownKind, Token, Transition, UnitStatus, Why,
};
pub use simulate::{Behaviour, Fault, FaultKind, Machine, Script, Simulation, simulate};
pub use state::{Blame, Desired, Illegal, State, UnitEvent, Up, next};
pub use timeline::{CriticalPath, Span, Step, Timeline};
pub use transaction::{
    Await, Class, Failure, Job, JobKind, Malformed, MalformedKind, OnFailure, Restart,
    RestartPolicy, Spec, StartLimit, Transaction, UnitId,
};

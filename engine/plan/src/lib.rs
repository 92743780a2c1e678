//! The graph and everything that can be decided without touching a machine.
//!
//! [`resolve`] makes the graph of units, [`plan`] a transaction of it, and the [`Scheduler`] says what to do next, given what
//! happened. [`simulate`] is the same scheduler under virtual time.

mod backoff;
mod cycle;
mod digest;
mod graph;
mod implied;
mod machine;
mod plan;
pub mod render;
mod resolve;
mod scheduler;
mod simulate;
mod state;
mod timeline;
mod transaction;

pub use backoff::Backoff;
pub use digest::Digest;
pub use graph::{BootGraph, Edge, EdgeKind, Provenance};
pub use machine::{Behaviour, Fault, FaultKind, Load, Machine, Queued};
pub use plan::{BOOT, PlanError, compile, order, plan, pulled_in};
pub use resolve::resolve;
pub use scheduler::{
    Action, Effect, Event, ExitStatus, JobResult, KILL_GRACE, Outcome, Refusal, Report, Scheduler,
    Shortfall, ShutdownKind, Token, Transition, UnitStatus, Why,
};
pub use simulate::{Script, Simulation, drive, simulate};
pub use state::{Blame, Desired, Illegal, State, UnitEvent, Up, next};
pub use timeline::{CriticalPath, Span, Step, Timeline};
pub use transaction::{
    Await, Class, Failure, Job, JobKind, Malformed, MalformedKind, OnFailure, Restart,
    RestartPolicy, Spec, StartLimit, Transaction, UnitId,
};

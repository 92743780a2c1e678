//! The graph and everything that can be decided without touching a machine.
//!
//! [`resolve`] makes the graph of units, [`plan`] a transaction of it, and the [`Scheduler`] says what to do next, given what
//! happened. [`simulate`] is the same scheduler under virtual time.

mod assertion;
mod backoff;
pub mod chart;
mod compare;
mod cycle;
pub mod diff;
mod digest;
mod estimate;
pub mod explain;
pub mod export;
mod forecast;
mod graph;
mod implied;
mod machine;
pub mod mutation;
mod path;
mod plan;
mod predict;
pub mod render;
mod resolve;
mod scheduler;
mod simulate;
mod slack;
mod state;
mod timeline;
mod trace;
mod transaction;
mod trial;

pub use assertion::{Assertion, AssertionError, AssertionErrorKind};
pub use backoff::Backoff;
pub use compare::{Change, Comparison, compare};
pub use digest::Digest;
pub use estimate::{Estimate, Estimates, Source, USUAL, Usual, percentile_of, usual_for};
pub use forecast::Forecast;
pub use graph::{BootGraph, Edge, EdgeKind, Provenance};
pub use machine::{Behaviour, Fault, FaultKind, Load, Machine, Queued};
pub use path::{Business, Link};
pub use plan::{BOOT, PlanError, compile, order, plan, pulled_in};
pub use predict::{Basis, Prediction, UnitPrediction, difference, predict, predictions};
pub use resolve::resolve;
pub use scheduler::{
    Action, Adoption, Because, Effect, Event, ExitStatus, JobResult, KILL_GRACE, Outcome, Planned,
    Refusal, Report, Scheduler, Shortfall, ShutdownKind, Token, Transition, UnitStatus, Why,
};
pub use simulate::{Script, Simulation, drive, simulate};
pub use slack::slack;
pub use state::{Blame, Desired, Illegal, State, UnitEvent, Up, next};
pub use timeline::{CriticalPath, Span, Stretch, Timeline};
pub use trace::{
    About, Ending, MOST_SPANS, Origin, REPORT, SPAN, StateName, Trace, TraceError, TraceErrorKind,
    UnitTrace, micros,
};
pub use transaction::{
    Await, Class, DEADLINE, Failure, Job, JobKind, Malformed, MalformedKind, OnFailure, Restart,
    RestartPolicy, Spec, StartLimit, Transaction, UnitId,
};
pub use trial::{Ended, SEED, Trial, each, fallible};

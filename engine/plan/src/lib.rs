//! The graph and everything that can be decided without touching a machine.

mod backoff;
mod transaction;

pub use backoff::Backoff;
pub use transaction::{
    Await, Class, Failure, Job, JobKind, Malformed, MalformedKind, OnFailure, Restart,
    RestartPolicy, Spec, StartLimit, Transaction, UnitId,
};

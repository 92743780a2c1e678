//! Drives the pure scheduler with tokio, and defines the boundary to the host.
//!
//! [`Executor`] is the one owner of a run's state: it takes what happened one event at a time, asks the scheduler what
//! to do, and begins it on a [`Host`] without waiting. It knows nothing of Linux; `keel-host` implements the boundary for real,
//! `keel-testkit` for tests.

mod executor;
mod host;

pub use executor::{Executor, Happening};
pub use host::{Host, HostEvent};

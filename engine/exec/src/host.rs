//! The boundary: what an executor asks of a host, and what it hears.

use std::future::Future;

use keel_plan::{Effect, Report, Token, UnitId};

/// Carries out effects.
pub trait Host {
    /// Begins an effect and returns at once: whatever can block goes elsewhere. What becomes of it is reported with
    /// the token.
    fn begin(&mut self, token: Token, effect: Effect);

    /// Waits for the next thing that the host has to say; for ever, if there is nothing. May be dropped before it is
    /// done without losing anything.
    fn next(&mut self) -> impl Future<Output = HostEvent>;
}

/// What a host says.
#[derive(Debug, Clone, PartialEq)]
pub enum HostEvent {
    /// What became of an effect.
    Report {
        /// The effect's token.
        token: Token,
        /// What it came to.
        report: Report,
    },
    /// Something worth knowing about a unit that changes no state.
    Fact {
        /// The unit.
        unit: UnitId,
        /// The fact, in one line.
        text: String,
    },
    /// What a unit was given up for has come after all (a lease, an hour late): starting it again will succeed.
    Recovered {
        /// The unit.
        unit: UnitId,
    },
}

//! What a change of graph asks of a machine that runs: for each unit whether it is kept, started, stopped or done anew, and why.
//!
//! [`mutation`] decides, and touches nothing: `--dry-run` shows what it says, and [`Undertaking`] carries the very same out, on a node
//! and in [`simulate`].
//!
//! # What is decided
//!
//! A unit is **kept** where nothing changed that its work depends on: a description, an edge, a deadline, a policy. Its process stays. If
//! its work changed, it is done anew in the way of its kind (`rules.rs` has the tables): a service or a mount **restarts**, and so does
//! everything that requires it; a file, a oneshot, a parameter or a link is **re-run** in place, and what stands on it stays up. Three
//! things are passed on beyond that:
//!
//! - a program that waits for a `file` or a `oneshot`, and requires or wants it, reads what it makes. If that changes, the program restarts, or is
//!   **reloaded** if it has a `reload-signal`;
//! - what lies on a mount that is new saw what was there before it, and restarts;
//! - what failed, or was skipped, for lack of something that the change touches gets another try.
//!
//! What a machine that runs cannot do **needs a reboot**: the kernel's filesystems, a module's parameters, partitions, filesystems, the
//! identity, and every mount that one of those stands on.

mod decide;
mod outline;
mod rules;
mod simulate;
mod undertaking;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use keel_unit::UnitName;

use crate::digest::Digest;
use crate::scheduler::Adoption;
use crate::transaction::{Transaction, UnitId};

pub use decide::mutation;
pub use outline::{Outline, OutlineChange, OutlinePath};
pub use simulate::{Node, Trip};
pub use undertaking::{End, Fault, Heard, Move, Side, Undertaking};

/// From one graph to another, on one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Mutation {
    /// The digest of the graph that it begins with: on any other it is refused.
    pub base: Digest,
    /// The digest of the graph that it leads to.
    pub target: Digest,
    /// Every unit of both graphs. What goes down for good comes first, in the order in which it may; then all others, in the order of the new
    /// graph.
    pub changes: Vec<Change>,
}

/// What becomes of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The unit.
    pub unit: UnitName,
    /// What is done to it.
    pub decision: Decision,
    /// Which key changed, or through which unit it is concerned. Keys by their names alone: a value may be a secret.
    pub because: Vec<String>,
    /// Something of it is at work now, and is not for a while.
    pub interrupts: bool,
    /// It was not up before and nothing of it changed: that it does not come up is no failure of the mutation, unless it was skipped and fails.
    pub another_try: bool,
}

/// What is done to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decision {
    /// Nothing.
    Keep,
    /// It is brought up.
    Start,
    /// It is taken down for good.
    Stop,
    /// It is taken down, with what requires it, and brought up again.
    Restart,
    /// It reads its configuration again.
    Reload,
    /// Its work is done again in place.
    Rerun,
    /// It cannot change while the machine runs.
    NeedsReboot,
}

impl Decision {
    /// Every decision.
    pub const ALL: [Decision; 7] = [
        Decision::Keep,
        Decision::Start,
        Decision::Stop,
        Decision::Restart,
        Decision::Reload,
        Decision::Rerun,
        Decision::NeedsReboot,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Keep => "keep",
            Decision::Start => "start",
            Decision::Stop => "stop",
            Decision::Restart => "restart",
            Decision::Reload => "reload",
            Decision::Rerun => "re-run",
            Decision::NeedsReboot => "needs reboot",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl Mutation {
    /// The two graphs are the same.
    pub fn is_nothing(&self) -> bool {
        self.base == self.target
    }

    /// It cannot be carried out while the machine runs.
    pub fn needs_reboot(&self) -> bool {
        self.changes.iter().any(|change| change.decision == Decision::NeedsReboot)
    }

    /// What is not simply kept, in order.
    pub fn moves(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.decision != Decision::Keep)
    }

    fn named(&self, decisions: &[Decision]) -> HashSet<&str> {
        let of = self.changes.iter().filter(|change| decisions.contains(&change.decision));
        of.map(|change| change.unit.as_str()).collect()
    }

    /// The units of the graph that it begins with which are not up, or not yet up anew, when the other is taken on. What the other has not
    /// is among them whatever it was when this was planned: it may have come up since.
    pub(crate) fn clears(&self, old: &Transaction, new: &Transaction) -> Arc<[UnitId]> {
        // One that is to start may wait already, for what it was.
        let of = [Decision::Stop, Decision::Restart, Decision::Rerun, Decision::Start];
        let named = self.named(&of);
        let stays: HashSet<&str> = new.ids().map(|id| &*new.spec(id).name).collect();
        let goes = |name: &str| named.contains(name) || !stays.contains(name);
        old.ids().filter(|id| goes(&old.spec(*id).name)).collect()
    }

    /// How the other graph is taken on.
    pub(crate) fn adoption(&self, old: &Transaction, new: &Arc<Transaction>) -> Adoption {
        let starts = self.named(&[Decision::Start, Decision::Restart, Decision::Rerun]);
        let reloads = self.named(&[Decision::Reload]);
        let of = |names: &HashSet<&str>| {
            new.ids().filter(|id| names.contains(&*new.spec(*id).name)).collect()
        };
        Adoption { start: of(&starts), reload: of(&reloads), ..Adoption::of(old, new) }
    }
}

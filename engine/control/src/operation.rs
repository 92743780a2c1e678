//! What is said of one unit, and what is asked of a machine that runs. Like the other messages: for the wire alone.

use serde::{Deserialize, Serialize};

use crate::journal::LogLine;
use crate::message::{Unit, UnitState};

/// One unit in whole. All times are milliseconds since init started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitDetail {
    /// The moment at which this was true.
    pub now_ms: u64,
    /// The unit as it stands.
    pub unit: Unit,
    /// The file that it stands in.
    pub file: String,
    /// What it depends on.
    pub dependencies: Vec<UnitEdge>,
    /// What depends on it.
    pub dependents: Vec<UnitEdge>,
    /// What follows when it fails: a word of `[failure] on`.
    pub on_failure: String,
    /// From its start to its deadline.
    pub timeout_ms: u64,
    /// When it is started again.
    pub restart_ms: Option<u64>,
    /// From this unit to the one that holds it up in the end, both included; empty if nothing does.
    pub blocked_by: Vec<String>,
    /// The last lines of the last of those, or else of this unit.
    pub last_lines: Vec<LogLine>,
}

/// An edge, seen from one of its ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitEdge {
    /// The unit at the other end.
    pub unit: String,
    /// The edge's word.
    pub word: String,
    /// Where it comes from.
    pub provenance: String,
    /// The state of the unit at the other end.
    pub state: UnitState,
    /// Whether it holds its unit up at this moment.
    pub holds_up: bool,
}

/// What is to become of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitVerb {
    /// Up.
    Start,
    /// Down, with what requires it.
    Stop,
    /// Down and up again.
    Restart,
}

/// Asks for a unit to be started, stopped or restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlUnit {
    /// Its name.
    pub unit: String,
    /// What is to become of it.
    pub verb: UnitVerb,
    /// Only say what would happen.
    pub dry_run: bool,
    /// The digest that the graph must have.
    pub digest: Option<String>,
}

/// What a request does, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitPlan {
    /// In the order in which it begins.
    pub jobs: Vec<PlannedJob>,
    /// The digest of the graph that it was planned on.
    pub digest: String,
}

/// What a request makes one unit do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedJob {
    /// The unit's name.
    pub unit: String,
    /// What becomes of it.
    pub verb: UnitVerb,
    /// Why.
    pub why: String,
    /// Whether something that runs is interrupted.
    pub interrupts: bool,
}

/// Asks for the machine's data to be wiped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Only say what would go.
    pub dry_run: bool,
    /// The machine's id.
    pub confirm: Option<String>,
}

/// What a reset does, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetPlan {
    /// The units that are stopped, in that order.
    pub stops: Vec<String>,
    /// What goes.
    pub losses: Vec<Loss>,
}

/// Something that a reset wipes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// A partition, or a folder on it.
    pub what: String,
    /// What that means, in one line.
    pub meaning: String,
    /// Its size in bytes, where that is known.
    pub size: Option<u64>,
}

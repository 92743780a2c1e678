//! How a node's machine config is changed, and what is remembered of its configs. Like the other messages: for the wire alone.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The most bytes of a machine config. The largest that anybody writes is a tenth of it, and it fits in a frame.
pub const MAX_CONFIG: usize = 256 * 1024;

/// The most bytes of an author's name and of a reason.
pub const MAX_REMARK: usize = 1024;

/// Asks for another machine config. Answered by [`Answer`], at once; what becomes of it is told by events.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// The files of the config, in TOML, each laid over those before; at most [`MAX_CONFIG`] bytes in all. They may hold secrets.
    pub layers: Vec<Layer>,
    /// The file of its secrets.
    pub secrets: Option<Layer>,
    /// The digest that the running graph must have.
    pub base: Option<String>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// How far it may go.
    pub mode: ApplyMode,
    /// With [`ApplyMode::Try`]: how long the machine waits to be told that it is well, by its own clock.
    pub timeout_ms: u64,
    /// Who wants it; at most [`MAX_REMARK`] bytes.
    pub author: String,
    /// Why; at most [`MAX_REMARK`] bytes.
    pub reason: String,
    /// Whether to wait while another change is under way, rather than be refused.
    pub wait: bool,
    /// The address of this machine through which the caller reached it, if he came by the network.
    pub over: Option<IpAddr>,
    /// A secret whose text is [`KEPT`] keeps the text that it has.
    pub keep_secrets: bool,
}

/// A file of a config.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name, as findings show it.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// What stands for the text of a secret in a config that is shown.
pub const KEPT: &str = "<secret>";

/// Without the config: it may hold secrets, and this ends up in logs of tests and defects.
impl std::fmt::Debug for Apply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Apply")
            .field("layers", &self.layers.len())
            .field("base", &self.base)
            .field("dry_run", &self.dry_run)
            .field("mode", &self.mode)
            .field("timeout_ms", &self.timeout_ms)
            .field("author", &self.author)
            .field("reason", &self.reason)
            .field("wait", &self.wait)
            .field("over", &self.over)
            .field("keep_secrets", &self.keep_secrets)
            .finish_non_exhaustive()
    }
}

/// How far a change may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApplyMode {
    /// It is done at once, and the machine reboots if it must.
    Auto,
    /// It is done at once, or refused if the machine must reboot for it.
    NoReboot,
    /// It is kept for the next boot, and nothing changes now.
    Staged,
    /// It is done at once, with a reboot if it must, and undone unless it is confirmed in time.
    Try,
}

/// Goes back to an earlier config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// The generation; none for the one before the current one.
    pub generation: Option<u64>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// How far it may go.
    pub mode: ApplyMode,
    /// As [`Apply::timeout_ms`].
    pub timeout_ms: u64,
    /// As [`Apply::author`].
    pub author: String,
    /// As [`Apply::reason`].
    pub reason: String,
    /// As [`Apply::wait`].
    pub wait: bool,
    /// As [`Apply::over`].
    pub over: Option<IpAddr>,
}

/// What comes of a config that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is refused whole, and nothing has changed: this is all that is wrong with it.
    Invalid(Findings),
    /// It was planned, and this is what happens.
    Planned(Applied),
}

/// What is wrong with a config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// All of it drawn, with the lines where it stands; without secrets.
    pub drawn: String,
    /// One by one.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The name of the rule.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

/// A change that was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// What it does.
    pub plan: MutationPlan,
    /// What becomes of it.
    pub fate: Fate,
    /// The number that the config is kept under; none if it is not.
    pub generation: Option<u64>,
    /// The event with which it begins: [`Happened::Mutation`](crate::Happened::Mutation) from there on tells how it goes.
    pub from_seq: u64,
}

/// What becomes of a change that was planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// Nothing: it was only to be said what would happen.
    DryRun,
    /// Nothing: the machine has this config already.
    Nothing,
    /// It is under way.
    Begun,
    /// It is under way, and is undone unless it is confirmed.
    OnTrial,
    /// It is kept for the next boot.
    Staged,
}

/// What a change of the graph does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MutationPlan {
    /// The digest of the graph that runs.
    pub base: String,
    /// The digest of the graph that is to run.
    pub target: String,
    /// The units that are not left alone, in order of their names.
    pub changes: Vec<UnitChange>,
    /// How many units are left alone.
    pub kept: u32,
    /// Whether the machine must reboot for it.
    pub needs_reboot: bool,
    /// How the next boot changes; none where neither graph says how long it takes.
    pub boot: Option<BootChange>,
}

/// What a change asks of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitChange {
    /// The unit.
    pub unit: String,
    /// What becomes of it.
    pub decision: Decision,
    /// Why: the keys that differ, or the unit that brings it along.
    pub because: Vec<String>,
    /// Whether something that runs is interrupted.
    pub interrupts: bool,
}

/// What becomes of a unit in a change of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// It is left alone.
    Keep,
    /// It is started.
    Start,
    /// It is stopped.
    Stop,
    /// It is stopped and started.
    Restart,
    /// It takes its new parameters while it runs.
    Reload,
    /// Its work is done once more.
    Rerun,
    /// Only a reboot can do it.
    NeedsReboot,
}

/// How the critical path of a boot changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootChange {
    /// How long a boot was expected to take.
    pub before_ms: u64,
    /// How long it is expected to take.
    pub after_ms: u64,
    /// The units that decided it.
    pub before: Vec<String>,
    /// The units that decide it.
    pub after: Vec<String>,
}

/// How far a change is. Told by events, each with the number of its config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MutationProgress {
    /// It is on the disk, and units begin to change.
    Began,
    /// It needs a reboot, which begins.
    Reboots,
    /// The graph is reached, and the machine waits to be told that it is well.
    Waits {
        /// For how long.
        ms: u64,
    },
    /// It holds from now on.
    Reached,
    /// It could not be done, or was not confirmed, and what was done is undone.
    RolledBack(Undone),
    /// It could not be done, and could not be undone either.
    Degraded(Undone),
}

impl std::fmt::Display for MutationProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let undone = |f: &mut std::fmt::Formatter<'_>, undone: &Undone| match &undone.culprit {
            Some(unit) => write!(f, ": {unit}: {}", undone.why),
            None => write!(f, ": {}", undone.why),
        };
        match self {
            Self::Began => f.write_str("is being applied"),
            Self::Reboots => f.write_str("needs a reboot, which begins"),
            Self::Waits { ms } => {
                write!(f, "is reached, and is undone unless it is confirmed within {} s", ms / 1000)
            }
            Self::Reached => f.write_str("holds"),
            Self::RolledBack(why) => f.write_str("was undone").and_then(|()| undone(f, why)),
            Self::Degraded(why) => {
                f.write_str("could neither be done nor undone").and_then(|()| undone(f, why))
            }
        }
    }
}

/// What went wrong with a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// The unit that failed, if one did.
    pub culprit: Option<String>,
    /// Why, in one line.
    pub why: String,
    /// The last lines that it wrote.
    pub last_words: Vec<String>,
    /// The units that were put back.
    pub undone: Vec<String>,
}

/// The configs that this machine remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The oldest first.
    pub generations: Vec<Generation>,
    /// The one that runs; none if that is the image's own.
    pub current: Option<u64>,
    /// The one for the next boot, where that is another one.
    pub next: Option<u64>,
    /// The one that waits to be confirmed, and for how long.
    pub trial: Option<Trial>,
    /// What was found broken on the disk, and left out.
    pub damage: Vec<String>,
}

/// A config that waits to be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Its number.
    pub generation: u64,
    /// How long it still waits.
    pub left_ms: u64,
}

/// A config that this machine has had, or was to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number: the first is 1, and none is given twice.
    pub number: u64,
    /// The digest of its graph.
    pub digest: String,
    /// SHA-256 of its text.
    pub text_sha256: String,
    /// Who wanted it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// When it came: milliseconds since 1970, by the machine's clock.
    pub at_ms: u64,
    /// What became of it.
    pub result: GenerationResult,
    /// More about that, in one line.
    pub note: Option<String>,
}

/// What became of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GenerationResult {
    /// It was kept for the next boot, which has not been.
    Staged,
    /// It is being applied, or was when the power failed.
    UnderWay,
    /// It was reached, and has held since or until the next one came.
    Good,
    /// It was undone.
    RolledBack,
}

/// The text of a config, without the texts of its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigText {
    /// Its number; none if it is the image's own.
    pub generation: Option<u64>,
    /// The text; [`KEPT`] stands where a secret does.
    pub text: String,
}

//! What is said. These types exist for the wire alone: init and agent convert from and to their own at the edge.
//!
//! postcard numbers enum variants and fields by their place, so anything new goes last, and [`VERSION`] rises with any
//! change: init and agent come out of one image, so both ends demand the same number instead of guessing.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::{Answer, Apply, ConfigText, History, MutationProgress, Rollback, UnitChange};
use crate::inventory::Inventory;
use crate::journal::{BootRecord, LogLine, LogQuery};
use crate::operation::{ControlUnit, Reset, ResetPlan, UnitDetail, UnitPlan};

/// The version of this protocol.
pub const VERSION: u16 = 5;

/// The first bytes of either side's first frame, so that a stranger on the socket is named as one.
pub(crate) const MAGIC: [u8; 4] = *b"keel";

/// Init's first frame. Its layout never changes: it is what two versions read of each other to find that they differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u16,
    pub(crate) software: String,
    /// False: every place is taken, and the connection closes after this frame.
    pub(crate) room: bool,
}

/// The client's first frame. Its layout never changes, for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u16,
    pub(crate) software: String,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Answered by one [`Reply::Status`].
    Status,
    /// Answered by [`Reply::Units`] until one says that no more follow.
    ListUnits,
    /// Answered by [`Reply::Events`] from that sequence number on. With `follow` until either side hangs up; without,
    /// until [`Reply::EventsEnd`].
    WatchEvents { from_seq: u64, follow: bool },
    /// Answered by [`Reply::ShuttingDown`] before anything stops.
    Shutdown(Shutdown),
    /// Answered by one [`Reply::Inventory`].
    Inventory,
    /// Answered by [`Reply::Logs`]. If it follows, until either side hangs up; else until [`Reply::LogsEnd`].
    ReadLogs(LogQuery),
    /// Answered by one [`Reply::Boot`].
    Boot,
    /// Answered by [`Reply::Trace`] until one says that no more follow.
    Trace,
    /// Answered by [`Reply::Graph`] until one says that no more follows.
    ExportGraph,
    /// Answered by one [`Reply::Unit`].
    Unit(String),
    /// Answered by one [`Reply::Planned`].
    ControlUnit(ControlUnit),
    /// What a shutdown would stop. Answered by one [`Reply::Stops`].
    RehearseShutdown,
    /// Answered by one [`Reply::Reset`].
    Reset(Reset),
    /// Another machine config. Answered by one [`Reply::Applied`].
    Apply(Apply),
    /// An earlier machine config. Answered by one [`Reply::Applied`].
    Rollback(Rollback),
    /// The config that is on trial is well. Answered by one [`Reply::Confirmed`].
    Confirm,
    /// Answered by one [`Reply::History`].
    History,
    /// The text of the running config, or of that generation. Answered by one [`Reply::Config`].
    GetConfig(Option<u64>),
    /// The config of that generation is on trial, and is not well: it is undone. Answered by one [`Reply::Undone`].
    Undo { generation: u64, why: String },
}

/// What init answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Boxed: it is ten times as large as the others.
    Status(Box<Status>),
    /// A part of the list that fits in a frame.
    Units {
        now_ms: u64,
        units: Vec<Unit>,
        more: bool,
    },
    Events {
        dropped: u64,
        events: Vec<Event>,
    },
    EventsEnd,
    ShuttingDown,
    Refused(Refusal),
    Inventory(Box<Inventory>),
    Logs {
        now_ms: u64,
        dropped: u64,
        lines: Vec<LogLine>,
        next: u64,
    },
    LogsEnd,
    Boot(BootRecord),
    /// A part of the JSON text that fits in a frame.
    Trace {
        piece: Vec<u8>,
        more: bool,
    },
    /// A part of the graph, as JSON.
    Graph {
        piece: Vec<u8>,
        more: bool,
    },
    Unit(Box<UnitDetail>),
    Planned(UnitPlan),
    Stops(Vec<String>),
    Reset(ResetPlan),
    Applied(Box<Answer>),
    /// With the number of the config that holds from now on.
    Confirmed(u64),
    History(Box<History>),
    Config(ConfigText),
    /// It is undone, or the machine reboots for it.
    Undone,
}

/// Why a request was not carried out. The connection stays usable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("init refused the request: {kind}")]
pub struct Refusal {
    /// What stood in the way.
    pub kind: RefusalKind,
}

/// What stood in the way of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RefusalKind {
    /// Events were asked for from a number that has not been given out; numbers start at 1 with each boot.
    #[error("event {asked} has not happened, the next one is {next}; has the node rebooted since?")]
    NotYet {
        /// The number asked for.
        asked: u64,
        /// The number that the next event will have.
        next: u64,
    },
    /// The machine is already going down.
    #[error("the machine is stopping")]
    Stopping,
    /// The answer does not fit in a frame.
    #[error("the answer is larger than a frame may be")]
    TooLarge,
    /// Init could not answer; a defect, in its own words.
    #[error("{0}")]
    Internal(String),
    /// Lines were asked for from a number that has not been given out; numbers start at 1 with each boot.
    #[error(
        "line {asked} has not been written, the next one is {next}; has the node rebooted since?"
    )]
    NoLine {
        /// The number asked for.
        asked: u64,
        /// The number that the next line will have.
        next: u64,
    },
    /// Lines were asked for of a unit that has none, and this is why.
    #[error("{0}")]
    NoLog(String),
    /// The graph has no unit of that name.
    #[error("there is no unit `{}`{}", .name.escape_debug(), meant(.near))]
    UnknownUnit {
        /// What was asked for.
        name: String,
        /// What was probably meant.
        near: Vec<String>,
    },
    /// The graph is another one than the caller has looked at.
    #[error("the graph is {running} and no longer {asked}")]
    OtherGraph {
        /// The digest that the caller gave.
        asked: String,
        /// The digest of the graph that runs.
        running: String,
    },
    /// The unit, or the machine, cannot be asked for that.
    #[error("{0}")]
    Impossible(String),
    /// The caller named another machine than this one.
    #[error("this machine's id was not given as confirmation")]
    Unconfirmed,
    /// Another change is under way.
    #[error("config {generation} of {author} is under way")]
    Busy {
        /// The number of its config.
        generation: u64,
        /// Who wants it.
        author: String,
    },
    /// The machine would have to reboot, and may not.
    #[error("{} only by a reboot", only(.units))]
    NeedsReboot {
        /// The units that need it.
        units: Vec<UnitChange>,
    },
    /// There is nowhere to keep a config.
    #[error("{0}")]
    NoStore(String),
    /// No config waits to be confirmed.
    #[error("no config waits to be confirmed")]
    NothingOnTrial,
    /// No config of that number is remembered.
    #[error("no config {asked} is remembered{}", .oldest.map(|n| format!("; the oldest is {n}")).unwrap_or_default())]
    NoGeneration {
        /// The number asked for.
        asked: u64,
        /// The oldest that is remembered.
        oldest: Option<u64>,
    },
}

/// The first units that need a reboot, as the start of a sentence.
fn only(units: &[UnitChange]) -> String {
    let names: Vec<&str> = units.iter().take(3).map(|change| change.unit.as_str()).collect();
    match units.len() {
        0 => "this changes".to_owned(),
        1 => format!("{} changes", names.join("")),
        2 | 3 => format!("{} change", names.join(", ")),
        more => format!("{} and {} more change", names.join(", "), more - names.len()),
    }
}

/// What somebody probably meant, as the end of a sentence.
fn meant(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => format!("; did you mean {}?", near.join(", ")),
    }
}

impl From<RefusalKind> for Refusal {
    fn from(kind: RefusalKind) -> Self {
        Self { kind }
    }
}

/// How the machine is to go down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shutdown {
    /// Stop everything, then start the machine again.
    Reboot,
    /// Stop everything, then switch the power off.
    PowerOff,
    /// Stop everything, then stop the processors with the power on.
    Halt,
}

/// What the machine is and how its boot went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Keel's version.
    pub version: String,
    /// The running kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The host name in force.
    pub hostname: String,
    /// The machine id, lower-case hexadecimal; none until the identity unit has run.
    pub machine_id: Option<String>,
    /// Milliseconds since init started.
    pub uptime_ms: u64,
    /// The goal of this boot: a target's name.
    pub goal: String,
    /// How far that goal is.
    pub state: GoalState,
    /// Every unit that keeps the machine from being whole, and why.
    pub degraded: Vec<Degraded>,
    /// The digest of the running graph, as `osctl graph render` prints it for the same inputs.
    pub digest: String,
    /// The links that are up, and their addresses.
    pub links: Vec<Link>,
    /// How the boot went; none while it is under way.
    pub boot: Option<BootReport>,
}

/// How far a machine's goal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoalState {
    /// Units of the goal still have work to do.
    Booting,
    /// Everything that the goal asks for is up.
    Reached,
    /// The goal is passed, but something that it wanted is not up.
    Degraded,
    /// A unit whose failure policy says so has failed: the machine stays up for a person to look at.
    Emergency,
    /// Units are being stopped; the machine goes down.
    Stopping,
}

/// One unit that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// The unit's name.
    pub unit: String,
    /// The reason, in one line.
    pub why: String,
}

/// A network link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The kernel's name for it.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<Address>,
}

/// An address with the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits of the network part: up to 32, or up to 128.
    pub prefix: u8,
}

/// How a boot went, once it is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootReport {
    /// Milliseconds from init's first instruction to the goal.
    pub total_ms: u64,
    /// The chain of units that decided the total, first to last.
    pub critical_path: Vec<CriticalUnit>,
    /// The units' own times added up, divided by the total: what running side by side gained.
    pub speed_up: f64,
    /// The most units that were activating at one moment.
    pub max_side_by_side: u32,
    /// Microseconds from the kernel's start to init's first instruction.
    pub kernel_us: Option<u64>,
    /// Processors of the machine.
    pub processors: Option<u32>,
}

/// One unit on the critical path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CriticalUnit {
    /// The unit's name.
    pub unit: String,
    /// Milliseconds that it took.
    pub ms: u64,
}

/// Every unit, and the moment at which that was true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitList {
    /// Milliseconds since init started; `since_ms` counts on the same clock.
    pub now_ms: u64,
    /// The units.
    pub units: Vec<Unit>,
}

/// One unit as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Its kind, the word that names the table in the unit file.
    pub kind: String,
    /// The stage that waits for it.
    pub stage: Option<String>,
    /// Its description, as the unit file gives it.
    pub description: String,
    /// Its state.
    pub state: UnitState,
    /// When it entered that state: milliseconds since init started.
    pub since_ms: u64,
    /// Milliseconds from activating to up, or to failed; none before either.
    pub took_ms: Option<u64>,
    /// How often it was started.
    pub attempts: u32,
    /// Why it failed, or why it was skipped.
    pub note: Option<String>,
    /// When its start times out: milliseconds since init started; none when it is not starting.
    pub deadline_ms: Option<u64>,
    /// The units that it still waits for.
    pub waits_for: Vec<String>,
    /// The main process of a service that runs.
    pub pid: Option<u32>,
    /// Memory of its whole cgroup in bytes, where it has one.
    pub memory_bytes: Option<u64>,
    /// How it came up when the machine booted; none if the boot has nothing to do with it.
    pub boot: Option<UnitBoot>,
}

/// How one unit came up, or did not. Times are microseconds since init started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitBoot {
    /// What became of it.
    pub state: UnitState,
    /// When its first activation began.
    pub began_us: Option<u64>,
    /// When it was up, skipped or failed.
    pub ended_us: Option<u64>,
    /// The unit that it waited for last, or that it failed for lack of.
    pub waited_for: Option<String>,
    /// Activations until then.
    pub attempts: u32,
}

/// The states of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitState {
    /// Nothing was asked of it.
    Inactive,
    /// It has a job, and waits for other units.
    Waiting,
    /// It is being started.
    Activating,
    /// It is up, with a process or something else that lasts.
    Running,
    /// It did its work and left.
    Exited,
    /// It is being stopped.
    Deactivating,
    /// It could not do its work, or a unit that it requires could not.
    Failed,
    /// A condition of it was not met.
    Skipped,
}

/// Something that happened, numbered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: the first of a boot is 1, and none is left out.
    pub seq: u64,
    /// When: milliseconds since init started.
    pub at_ms: u64,
    /// What.
    pub what: Happened,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happened {
    /// A unit went from one state to another.
    Transition {
        /// The unit's name.
        unit: String,
        /// The state that it left.
        from: UnitState,
        /// The state that it entered.
        to: UnitState,
        /// The reason, where there is more to say than the states do.
        why: Option<String>,
    },
    /// Something worth knowing that changes no unit's state: a lease renewed, a restart put off.
    Fact {
        /// The unit that it is about.
        unit: Option<String>,
        /// The fact, in one line.
        text: String,
    },
    /// The goal's state changed.
    Goal {
        /// Its new state.
        state: GoalState,
        /// The reason.
        why: Option<String>,
    },
    /// A change of the machine's config went on.
    Mutation {
        /// The number of the config.
        generation: u64,
        /// How far it is.
        progress: MutationProgress,
    },
}

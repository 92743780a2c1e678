//! A boot as a file: when each unit began and ended, what it waited for and what became of it.
//!
//! docs/trace.md describes the format. A recorded boot and a simulated one are written alike, so whatever looks at the one looks
//! at the other too.

use std::collections::HashMap;
use std::time::Duration;

use keel_unit::UnitName;
use keel_unit::keys::Text;
use serde::{Deserialize, Serialize};

use crate::graph::BootGraph;
use crate::simulate::Simulation;
use crate::state::{State, Up};
use crate::timeline;
use crate::transaction::{Transaction, UnitId};

/// What stands under `format`.
pub(crate) const FORMAT: &str = "keel-boot-trace";
/// The version that is written, and the newest that is read.
pub(crate) const VERSION: u32 = 1;
/// The most units that are read: beyond every machine, and little enough to hold.
const MOST_UNITS: usize = 100_000;

/// One boot. Times are microseconds since init began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Always [`FORMAT`].
    pub format: String,
    /// The version of the format.
    pub version: u32,
    /// Where it comes from.
    pub origin: Origin,
    /// The digest of the graph that was booted.
    pub digest: String,
    /// The goal of the boot.
    pub goal: String,
    /// How it ended.
    pub outcome: Ending,
    /// From init's first instruction to the goal, or to the end of the boot where the goal was not reached.
    pub total_us: u64,
    /// From the kernel's start to init's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_us: Option<u64>,
    /// The machine.
    #[serde(default)]
    pub machine: About,
    /// Every unit that the boot had a job for.
    pub units: Vec<UnitTrace>,
}

/// Where a trace comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A machine booted.
    Recorded,
    /// The simulator ran.
    Simulated,
}

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The goal is up, and so is everything that it wants.
    Reached,
    /// The goal is up, and something that it wants is not.
    Degraded,
    /// The goal is not up, because a unit that it requires is not.
    Missed,
    /// A unit whose failure is an emergency failed.
    Emergency,
    /// A unit whose failure makes the machine reboot failed.
    Reboot,
    /// It was still going on.
    Unfinished,
}

impl Ending {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Reached => "reached",
            Ending::Degraded => "degraded",
            Ending::Missed => "missed",
            Ending::Emergency => "emergency",
            Ending::Reboot => "reboot",
            Ending::Unfinished => "unfinished",
        }
    }

    /// How a simulated boot ended.
    pub fn of(simulation: &Simulation) -> Ending {
        match &simulation.outcome {
            _ if simulation.emergency.is_some() => Ending::Emergency,
            _ if simulation.reboot.is_some() => Ending::Reboot,
            None => Ending::Unfinished,
            Some(outcome) if !outcome.reached => Ending::Missed,
            Some(outcome) if outcome.degraded.is_empty() => Ending::Reached,
            Some(_) => Ending::Degraded,
        }
    }
}

/// The machine that booted, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct About {
    /// Its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The kernel's release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Keel's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keel: Option<String>,
    /// Processors. Of a simulated boot: the limit, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
}

/// How one unit came up, or did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitTrace {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The stage that waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// What became of it in this boot.
    pub state: StateName,
    /// When its first activation began; none if it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_us: Option<u64>,
    /// When it was up, skipped or failed; none if that did not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<u64>,
    /// The unit that it waited for last, or that it failed for lack of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_for: Option<String>,
    /// Activations until then.
    #[serde(default)]
    pub attempts: u32,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Simulated with few processors: how long it waited for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_us: Option<u64>,
    /// The unit whose processor it got then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_behind: Option<String>,
    /// Simulated: by how much later it could have ended without the goal being any later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack_us: Option<u64>,
}

/// A state, as it is written. A failure that is another unit's fault has `waited_for`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateName {
    /// Nothing was done about it.
    Inactive,
    /// It still waited.
    Waiting,
    /// It was still being started.
    Activating,
    /// Its program runs.
    Running,
    /// Its work is done.
    Exited,
    /// It was being stopped.
    Deactivating,
    /// It failed.
    Failed,
    /// Its condition was not met.
    Skipped,
    /// A newer Keel knows.
    #[serde(other)]
    Unknown,
}

impl StateName {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            StateName::Inactive => "inactive",
            StateName::Waiting => "waiting",
            StateName::Activating => "activating",
            StateName::Running => "running",
            StateName::Exited => "exited",
            StateName::Deactivating => "deactivating",
            StateName::Failed => "failed",
            StateName::Skipped => "skipped",
            StateName::Unknown => "unknown",
        }
    }

    /// Whether the unit is up.
    pub fn is_active(self) -> bool {
        matches!(self, StateName::Running | StateName::Exited)
    }
}

impl From<State> for StateName {
    fn from(state: State) -> Self {
        match state {
            State::Inactive => StateName::Inactive,
            State::Waiting => StateName::Waiting,
            State::Activating => StateName::Activating,
            State::Active(Up::Running) => StateName::Running,
            State::Active(Up::Exited) => StateName::Exited,
            State::Deactivating => StateName::Deactivating,
            State::Failed(_) => StateName::Failed,
            State::Skipped => StateName::Skipped,
        }
    }
}

impl UnitTrace {
    /// One unit of a run that was recorded in this process; `None` if the boot had nothing to do with it.
    pub fn new(graph: &BootGraph, span: &timeline::Span, why: Option<String>) -> Option<UnitTrace> {
        if span.state == State::Inactive && span.ended.is_none() {
            return None;
        }
        let unit = graph.unit(span.unit);
        Some(UnitTrace {
            name: unit.name.to_string(),
            kind: unit.kind.name().to_string(),
            stage: graph.stage(span.unit).map(ToString::to_string),
            state: span.state.into(),
            began_us: span.began.map(micros),
            ended_us: span.ended.map(micros),
            waited_for: span.waited_for.map(|other| graph.unit(other).name.to_string()),
            attempts: span.attempts,
            why,
            queued_us: None,
            queued_behind: None,
            slack_us: None,
        })
    }

    /// As one JSON object on one line.
    pub fn json(&self) -> String {
        // Strings and numbers under fixed keys: there is nothing here that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// When its first activation began.
    pub fn began(&self) -> Option<Duration> {
        self.began_us.map(Duration::from_micros)
    }

    /// When it was up, skipped or failed.
    pub fn ended(&self) -> Option<Duration> {
        self.ended_us.map(Duration::from_micros)
    }

    /// From its first activation to its end, or to `until` if it had none.
    pub fn took(&self, until: Duration) -> Duration {
        self.began()
            .map_or(Duration::ZERO, |began| self.ended().unwrap_or(until).saturating_sub(began))
    }
}

/// A text that is no trace.
#[derive(Debug, thiserror::Error)]
#[error("not a boot trace: {kind}")]
pub struct TraceError {
    /// What is wrong.
    #[source]
    pub kind: TraceErrorKind,
}

/// What is wrong with a text that is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceErrorKind {
    /// It is no JSON, or has other keys.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It is another kind of document.
    #[error("`format` is {0:?}, not {FORMAT:?}")]
    Format(String),
    /// It is newer.
    #[error("it has version {0}; this osctl reads up to {VERSION}")]
    Version(u64),
    /// More units than any machine has.
    #[error("it has {0} units; {MOST_UNITS} at most are read")]
    TooMany(usize),
    /// A name that no unit has.
    #[error("{0:?} is no name of a unit")]
    Name(String),
    /// Two units of one name.
    #[error("it has `{0}` twice")]
    Twice(String),
    /// A unit that ends before it begins.
    #[error("`{0}` ends before it begins")]
    Backwards(String),
    /// No units at all, or no goal among them.
    #[error("its goal `{0}` is not among its units")]
    NoGoal(String),
    /// A console without a report.
    #[error("the console has no line with `{REPORT}`: boot with keel.report=json")]
    NoReport,
}

/// Before the report of a boot on a console.
pub const REPORT: &str = "KEEL-REPORT ";
/// Before each unit of that boot on a console, ahead of the report.
pub const SPAN: &str = "KEEL-SPAN ";
/// The most units that a console is given: what is more would hold up whoever reads it.
pub const MOST_SPANS: usize = 800;

/// What a report says beside the summary for people.
#[derive(Debug, Deserialize)]
struct Report {
    digest: String,
    goal: String,
    outcome: Ending,
    total_us: u64,
    kernel_us: Option<u64>,
    hostname: Option<String>,
    kernel: Option<String>,
    keel: Option<String>,
    cpus: Option<u32>,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// If it is none, is newer, or contradicts itself.
    pub fn parse(text: &str) -> Result<Trace, TraceError> {
        let error = |kind| TraceError { kind };
        // Another document, or a newer one, is to be called that, and not a JSON error.
        let any: serde_json::Value = serde_json::from_str(text).map_err(|e| error(e.into()))?;
        let format = any.get("format").and_then(serde_json::Value::as_str).unwrap_or_default();
        if format != FORMAT {
            return Err(error(TraceErrorKind::Format(format.chars().take(80).collect())));
        }
        let version = any.get("version").and_then(serde_json::Value::as_u64);
        if let Some(version) = version.filter(|version| *version > u64::from(VERSION)) {
            return Err(error(TraceErrorKind::Version(version)));
        }
        let trace: Trace = serde_json::from_value(any).map_err(|e| error(e.into()))?;
        trace.check().map_err(error)?;
        Ok(trace)
    }

    /// The trace of a boot that a console showed.
    ///
    /// # Errors
    /// If there is no report, or it contradicts itself.
    pub fn from_console<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Trace, TraceError> {
        let error = |kind| TraceError { kind };
        let mut units = Vec::new();
        for line in lines {
            if let Some((_, span)) = line.split_once(SPAN) {
                // A line that the kernel wrote into is lost; the others are not.
                units.extend(serde_json::from_str::<UnitTrace>(span));
            } else if let Some((_, report)) = line.split_once(REPORT) {
                let report: Report =
                    serde_json::from_str(report).map_err(|e| error(TraceErrorKind::Json(e)))?;
                let Report { digest, goal, outcome, total_us, kernel_us, .. } = report;
                let machine = About {
                    hostname: report.hostname,
                    kernel: report.kernel,
                    keel: report.keel,
                    cpus: report.cpus,
                };
                let trace =
                    Trace::recorded(digest, goal, outcome, total_us, kernel_us, machine, units);
                trace.check().map_err(error)?;
                return Ok(trace);
            }
        }
        Err(error(TraceErrorKind::NoReport))
    }

    /// The trace of a boot that a machine tells of.
    pub fn recorded(
        digest: String,
        goal: String,
        outcome: Ending,
        total_us: u64,
        kernel_us: Option<u64>,
        machine: About,
        units: Vec<UnitTrace>,
    ) -> Trace {
        Trace {
            format: FORMAT.to_owned(),
            version: VERSION,
            origin: Origin::Recorded,
            digest,
            goal,
            outcome,
            total_us,
            kernel_us,
            machine,
            units,
        }
    }

    /// The trace of a simulated boot. `slack` is by [`UnitId`].
    pub fn simulated(
        graph: &BootGraph,
        transaction: &Transaction,
        run: &Simulation,
        slack: &[Option<Duration>],
        processors: Option<u32>,
    ) -> Trace {
        let mut why: Vec<Option<String>> = vec![None; transaction.units().len()];
        for (_, action) in &run.log {
            if let crate::Action::Announce(transition) = action
                && matches!(transition.to, State::Failed(_) | State::Skipped)
            {
                why[transition.unit.index()]
                    .get_or_insert_with(|| transition.why.describe(transaction).to_string());
            }
        }
        let name = |unit: UnitId| transaction.spec(unit).name.to_string();
        let units = transaction.jobs().iter().filter_map(|job| {
            let index = job.unit.index();
            let span = &run.timeline.spans()[index];
            let mut unit = UnitTrace::new(graph, span, why[index].take())?;
            if let Some(queued) = run.queued.get(index).filter(|queued| !queued.waited.is_zero()) {
                unit.queued_us = Some(micros(queued.waited));
                unit.queued_behind = queued.behind.map(name);
            }
            unit.slack_us = slack.get(index).copied().flatten().map(micros);
            Some(unit)
        });
        let goal = transaction.goal();
        let spans = run.timeline.spans();
        Trace {
            format: FORMAT.to_owned(),
            version: VERSION,
            origin: Origin::Simulated,
            digest: graph.digest().to_string(),
            goal: name(goal),
            outcome: Ending::of(run),
            total_us: micros(spans[goal.index()].ended.unwrap_or(run.ended_at)),
            kernel_us: None,
            machine: About { cpus: processors, ..About::default() },
            units: units.collect(),
        }
    }

    fn check(&self) -> Result<(), TraceErrorKind> {
        if self.units.len() > MOST_UNITS {
            return Err(TraceErrorKind::TooMany(self.units.len()));
        }
        let mut seen = HashMap::new();
        for unit in &self.units {
            let others = [&unit.waited_for, &unit.queued_behind, &unit.stage];
            let mut names = others.into_iter().flatten().chain([&unit.name]);
            if let Some(name) = names.find(|name| <UnitName as Text>::parse(name).is_err()) {
                return Err(TraceErrorKind::Name(name.clone()));
            }
            if seen.insert(unit.name.as_str(), ()).is_some() {
                return Err(TraceErrorKind::Twice(unit.name.clone()));
            }
            if unit.began_us.zip(unit.ended_us).is_some_and(|(began, ended)| began > ended) {
                return Err(TraceErrorKind::Backwards(unit.name.clone()));
            }
        }
        if !seen.contains_key(self.goal.as_str()) {
            return Err(TraceErrorKind::NoGoal(self.goal.clone()));
        }
        Ok(())
    }

    /// As text, to be written to a file.
    pub fn json(&self) -> String {
        // Strings and numbers under fixed keys: there is nothing here that JSON cannot hold.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// From init's start to the goal.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.total_us)
    }

    /// The unit of this name.
    pub fn find(&self, name: &str) -> Option<&UnitTrace> {
        self.units.iter().find(|unit| unit.name == name)
    }
}

/// A duration in the unit of traces; one that is too long to count is the longest.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

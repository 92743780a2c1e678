//! A graph as it leaves the program: what `osctl graph render --format json` prints, and what a diff compares.
//!
//! Keys are added, never renamed: scripts read them, and a graph that an older version exported is still compared. A unit carries
//! every key that is written of it, with the place that won; a secret is there as the beginning of its hash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keel_unit::tree::{self, Table};
use keel_unit::{Kind, Unit as Source};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::forecast::Forecast;
use crate::graph::BootGraph;
use crate::transaction::Transaction;

/// A graph with what is expected of its boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// The digest of the graph.
    pub digest: String,
    /// The unit that the boot is for.
    pub goal: String,
    /// A boot without faults.
    #[serde(default)]
    pub predicted: Predicted,
    /// The units in order of their names.
    pub units: Vec<Unit>,
    /// The edges; `from` depends on `to`.
    pub edges: Vec<Edge>,
}

/// A boot without faults, as the simulator sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// From the start to the goal.
    pub total_ms: u64,
    /// The units that decide how long it takes, in order.
    pub critical_path: Vec<String>,
    /// The most units that are activating at one moment.
    #[serde(default)]
    pub side_by_side: usize,
}

/// A unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// The name of its kind.
    pub kind: String,
    /// The stage that it belongs to.
    pub stage: Option<String>,
    /// What it is, for people.
    #[serde(default)]
    pub description: String,
    /// The file that it stands in.
    #[serde(default)]
    pub file: String,
    /// The line of its kind's table.
    #[serde(default)]
    pub line: u32,
    /// Whether the goal starts it.
    #[serde(default)]
    pub started: bool,
    /// How long its activation may take.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// What follows when it fails.
    #[serde(default)]
    pub on_failure: String,
    /// Whether a condition decides if it is started.
    #[serde(default)]
    pub conditional: bool,
    /// How long its activation is expected to take.
    #[serde(default)]
    pub expected_ms: Option<u64>,
    /// When it is expected to begin, since the start; `null` if it is not started.
    #[serde(default)]
    pub begins_ms: Option<u64>,
    /// When it is expected to be up.
    #[serde(default)]
    pub up_ms: Option<u64>,
    /// By how much later it could be up without the goal coming later; `null` where the goal does not wait for it.
    #[serde(default)]
    pub slack_ms: Option<u64>,
    /// Whether it is on the critical path.
    #[serde(default)]
    pub critical: bool,
    /// Whether its condition is known to be unmet: it is not begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// How it stands on the node that exported the graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Every key that is written of it, as a path: `service.stop-timeout`.
    #[serde(default)]
    pub keys: BTreeMap<String, Setting>,
}

/// The value of a key, and where it was set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The value.
    pub value: Value,
    /// The file that set it: the unit's, or the machine config.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// An edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// The unit that depends on the other.
    pub from: String,
    /// The other.
    pub to: String,
    /// What it says.
    pub kind: String,
    /// What an ordering waits for.
    #[serde(rename = "await")]
    pub awaits: Option<String>,
    /// Why it is there.
    #[serde(default)]
    pub why: String,
    /// The file that it comes from.
    #[serde(default)]
    pub file: String,
    /// The line.
    #[serde(default)]
    pub line: u32,
}

impl Export {
    /// Exports a graph and the boot that is expected of it.
    pub fn new(graph: &BootGraph, transaction: &Transaction) -> Export {
        let forecast = Forecast::new(graph, &Arc::new(transaction.clone()));
        let mut started = vec![false; graph.len()];
        transaction.jobs().iter().for_each(|job| started[job.unit.index()] = true);
        let name = |id| graph.unit(id).name.to_string();
        let units = graph.ids().map(|id| {
            let unit = graph.unit(id);
            let at = graph.locate(unit.span);
            let in_boot = started[id.index()];
            let expected = in_boot.then(|| forecast.takes[id.index()]);
            Unit {
                name: name(id),
                kind: unit.kind.name().to_string(),
                stage: graph.stage(id).map(ToString::to_string),
                description: unit.description.clone(),
                file: at.file.to_string(),
                line: at.line,
                started: in_boot,
                deadline_ms: unit.deadline().map(millis),
                on_failure: unit.failure.on.to_string(),
                conditional: !unit.condition.is_empty(),
                expected_ms: expected.filter(|_| !is_target(unit)).map(millis),
                begins_ms: forecast.begins(id).filter(|_| in_boot).map(millis),
                up_ms: forecast.spans[id.index()].ended.filter(|_| in_boot).map(millis),
                slack_ms: forecast.slack[id.index()].filter(|_| in_boot).map(millis),
                critical: forecast.critical(id),
                skipped: in_boot && forecast.spans[id.index()].began.is_none() && !is_target(unit),
                state: None,
                keys: settings(graph, unit),
            }
        });
        let edges = graph.ids().flat_map(|id| {
            graph.dependencies(id).map(move |(other, edge)| {
                let at = graph.locate(edge.span);
                Edge {
                    from: name(id),
                    to: name(other),
                    kind: edge.kind.as_str().to_owned(),
                    awaits: edge.kind.awaits().map(|a| a.as_str().to_owned()),
                    why: edge.why.to_string(),
                    file: at.file.to_string(),
                    line: at.line,
                }
            })
        });
        Export {
            digest: graph.digest().to_string(),
            goal: name(transaction.goal()),
            predicted: Predicted {
                total_ms: millis(forecast.path.total),
                critical_path: forecast
                    .path
                    .stretches
                    .iter()
                    .map(|stretch| name(stretch.unit))
                    .collect(),
                side_by_side: forecast.path.side_by_side,
            },
            units: units.collect(),
            edges: edges.collect(),
        }
    }
}

fn is_target(unit: &Source) -> bool {
    matches!(unit.kind, Kind::Target(_))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Every key that is written of a unit, by its path. The unit's tree shows a secret as it may be shown.
pub(crate) fn settings(graph: &BootGraph, unit: &Source) -> BTreeMap<String, Setting> {
    let mut settings = BTreeMap::new();
    // Recursion would be bounded by the parser's depth; a list of what is open needs no bound.
    let mut open: Vec<(String, &Table)> = vec![(String::new(), unit.tree())];
    while let Some((above, table)) = open.pop() {
        for entry in table.iter() {
            let path = match above.as_str() {
                "" => quoted(&entry.key),
                above => format!("{above}.{}", quoted(&entry.key)),
            };
            let value = match &entry.node.value {
                tree::Value::Table(inner) if !inner.is_empty() => {
                    open.push((path, inner));
                    continue;
                }
                value => json(value),
            };
            let at = graph.locate(entry.node.span);
            settings.insert(path, Setting { value, file: at.file.to_string(), line: at.line });
        }
    }
    settings
}

/// A key as TOML writes it.
fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !key.is_empty() && key.chars().all(bare) {
        true => key.to_owned(),
        false => Value::from(key).to_string(),
    }
}

fn json(value: &tree::Value) -> Value {
    match value {
        tree::Value::String(text) | tree::Value::Datetime(text) => Value::from(text.as_str()),
        tree::Value::Integer(number) => Value::from(*number),
        // JSON has no word for infinity.
        tree::Value::Float(number) => serde_json::Number::from_f64(*number)
            .map_or(Value::from(number.to_string()), Value::Number),
        tree::Value::Boolean(yes) => Value::from(*yes),
        tree::Value::Array(items) => items.iter().map(|item| json(&item.value)).collect(),
        tree::Value::Table(table) => Value::Object(
            table.iter().map(|entry| (entry.key.clone(), json(&entry.node.value))).collect(),
        ),
    }
}

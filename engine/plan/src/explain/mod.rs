//! Why a unit is in the graph, what it waits for, and what its failure would cost.
//!
//! Everything here is data that stands for itself: `osctl graph explain` prints it as a page, and as JSON as it is.

mod exported;
mod failure;
mod path;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use keel_unit::Kind;
use keel_unit::value::people;
use keel_unit::words::{Condition, OnFailure};
use serde::Serialize;

pub use self::exported::Exported;
pub use self::failure::{Consequence, Loss};
pub use self::path::{Chain, Meaning, chains};
use crate::export::millis;
use crate::forecast::Forecast;
use crate::graph::{BootGraph, Edge, EdgeKind};
use crate::state::State;
use crate::transaction::{Transaction, UnitId};

/// All that can be said of a unit before it is started.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// The stage that it belongs to.
    pub stage: Option<String>,
    /// What it is, for people.
    pub description: String,
    /// Where it stands.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The template that it is an instance of.
    pub template: Option<String>,
    /// The goal that was asked about.
    pub goal: String,
    /// Whether the goal starts it.
    pub started: bool,
    /// Who draws it into the boot: units that are started themselves.
    pub pulled_in_by: Vec<Relation>,
    /// From the unit to the goal, each drawn in by the next.
    pub chain: Vec<Hop>,
    /// What it waits for or needs.
    pub depends_on: Vec<Relation>,
    /// What waits for it or needs it.
    pub depended_on_by: Vec<Relation>,
    /// When it begins and is up in a boot without faults.
    pub expected: Option<Expected>,
    /// How long its activation may take.
    pub deadline_ms: Option<u64>,
    /// What must hold for it to be started, in words.
    pub condition: Vec<String>,
    /// What follows when its activation fails, in words.
    pub on_failure: String,
    /// What follows when its program ends, in words; services alone.
    pub restart: Option<String>,
    /// What its failure costs; nothing of a unit that is not started or cannot fail.
    pub if_it_fails: Option<Consequence>,
}

/// How a unit fares in a boot without faults.
#[derive(Debug, Clone, Serialize)]
pub struct Expected {
    /// When it begins.
    pub begins_ms: Option<u64>,
    /// When it is up.
    pub up_ms: Option<u64>,
    /// By how much later it could be up without the goal coming later; `null` where the goal does not wait for it.
    pub slack_ms: Option<u64>,
    /// Whether its condition is not met, whatever the machine.
    pub skipped: bool,
    /// Whether it is on the critical path.
    pub critical: bool,
    /// The unit that it waits for last.
    pub waits_last_for: Option<String>,
}

/// Another unit, and every edge to it.
#[derive(Debug, Clone, Serialize)]
pub struct Relation {
    /// The other unit.
    pub unit: String,
    /// Whether the goal starts it.
    pub started: bool,
    /// What is said of the two.
    pub edges: Vec<Reason>,
}

/// An edge and why it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What it says.
    pub kind: &'static str,
    /// What an ordering waits for.
    #[serde(rename = "await")]
    pub awaits: Option<&'static str>,
    /// Why it is there.
    pub why: String,
    /// Where that stands.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// One hop along a chain: `from` depends on `to`.
#[derive(Debug, Clone, Serialize)]
pub struct Hop {
    /// The unit that depends on the other.
    pub from: String,
    /// The other.
    pub to: String,
    /// Why.
    pub edges: Vec<Reason>,
}

/// Explains a unit as part of a boot.
pub fn explain(graph: &BootGraph, transaction: &Arc<Transaction>, id: UnitId) -> Explanation {
    let unit = graph.unit(id);
    let at = graph.locate(unit.span);
    let mut started = vec![false; graph.len()];
    transaction.jobs().iter().for_each(|job| started[job.unit.index()] = true);
    let forecast = Forecast::new(graph, transaction);
    let span = &forecast.spans[id.index()];
    let expected = started[id.index()].then(|| Expected {
        begins_ms: forecast.begins(id).map(millis),
        up_ms: span.ended.map(millis),
        slack_ms: forecast.slack[id.index()].map(millis),
        skipped: span.state == State::Skipped,
        critical: forecast.critical(id),
        waits_last_for: span.waited_for.map(|other| name(graph, other)),
    });
    let pulls = |edge: &Edge| edge.kind.pulls_in();
    let mut pulled_in_by =
        relations(graph, &started, graph.dependents(id).filter(|(_, edge)| pulls(edge)));
    pulled_in_by.retain(|relation| relation.started);
    let fails = started[id.index()] && !matches!(unit.kind, Kind::Target(_)) && unit.condition.when;
    Explanation {
        name: name(graph, id),
        kind: unit.kind.name().as_str(),
        stage: graph.stage(id).map(ToString::to_string),
        description: unit.description.clone(),
        file: at.file.to_string(),
        line: at.line,
        template: unit.template.as_ref().map(ToString::to_string),
        goal: name(graph, transaction.goal()),
        started: started[id.index()],
        pulled_in_by,
        chain: to_goal(graph, transaction.goal(), id),
        depends_on: relations(graph, &started, graph.dependencies(id)),
        depended_on_by: relations(graph, &started, graph.dependents(id)),
        expected,
        deadline_ms: unit.deadline().map(millis),
        condition: condition(&unit.condition),
        on_failure: on_failure(unit),
        restart: restart(&unit.kind),
        if_it_fails: fails.then(|| failure::consequence(transaction, &forecast, id)),
    }
}

fn name(graph: &BootGraph, id: UnitId) -> String {
    graph.unit(id).name.to_string()
}

fn reason(graph: &BootGraph, edge: &Edge) -> Reason {
    let at = graph.locate(edge.span);
    Reason {
        kind: edge.kind.as_str(),
        awaits: edge.kind.awaits().map(|awaits| awaits.as_str()),
        why: edge.why.to_string(),
        file: at.file.to_string(),
        line: at.line,
    }
}

/// Edges by the unit at their other end.
fn relations<'a>(
    graph: &BootGraph,
    started: &[bool],
    edges: impl Iterator<Item = (UnitId, &'a Edge)>,
) -> Vec<Relation> {
    let mut by_unit: BTreeMap<UnitId, Vec<Reason>> = BTreeMap::new();
    for (other, edge) in edges {
        by_unit.entry(other).or_default().push(reason(graph, edge));
    }
    let relation = |(other, edges): (UnitId, Vec<Reason>)| Relation {
        unit: name(graph, other),
        started: started[other.index()],
        edges,
    };
    by_unit.into_iter().map(relation).collect()
}

/// The shortest way along which the goal draws a unit in, beginning with the unit.
fn to_goal(graph: &BootGraph, goal: UnitId, id: UnitId) -> Vec<Hop> {
    let mut hops = path::shortest(graph, goal, id, &EdgeKind::pulls_in).unwrap_or_default();
    hops.reverse();
    hops
}

fn condition(condition: &Condition) -> Vec<String> {
    let Condition { path_exists, path_missing, kernel_argument, when } = condition;
    let exists = path_exists.iter().map(|path| format!("{path} exists"));
    let missing = path_missing.iter().map(|path| format!("{path} does not exist"));
    let arguments = kernel_argument
        .iter()
        .map(|argument| format!("`{argument}` is on the kernel's command line"));
    let never = (!when).then(|| "`when` is false".to_owned());
    exists.chain(missing).chain(arguments).chain(never).collect()
}

fn on_failure(unit: &keel_unit::Unit) -> String {
    let failure = &unit.failure;
    match failure.on {
        OnFailure::Degrade => "the boot goes on without it, degraded".to_owned(),
        OnFailure::Retry => format!(
            "it is tried {} times in all, with pauses from {} up to {}; then the boot goes on without it, degraded",
            failure.attempts,
            people(failure.delay.0),
            people(failure.max_delay.0)
        ),
        OnFailure::Emergency => {
            "an emergency: the goal counts as missed, and what does not need it is started all the same".to_owned()
        }
        OnFailure::Reboot => "the machine reboots, once its services are stopped".to_owned(),
    }
}

fn restart(kind: &Kind) -> Option<String> {
    let Kind::Service(service) = kind else { return None };
    let mut words = match service.restart {
        keel_unit::kinds::Restart::Never => return Some("it stays down".to_owned()),
        keel_unit::kinds::Restart::Always => "it is started again".to_owned(),
        keel_unit::kinds::Restart::OnFailure => "it is started again if it failed".to_owned(),
    };
    words.push_str(&format!(
        ", after pauses from {} up to {}",
        people(service.restart_delay.0),
        people(service.restart_max_delay.0)
    ));
    if let Some(limit) = &service.start_limit {
        let interval = people(limit.interval.0);
        words.push_str(&format!(", at most {} times within {interval}", limit.burst));
    }
    Some(words)
}

/// What chains are looked for in: a graph, or one that was exported.
pub trait Depends {
    /// Number of units.
    fn units(&self) -> usize;
    /// A unit's name.
    fn name(&self, unit: UnitId) -> String;
    /// What a unit depends on, in order of the other units' names, and how.
    fn edges(&self, unit: UnitId) -> Vec<(UnitId, EdgeKind)>;
    /// Why a unit depends on another, edge by edge.
    fn reasons(&self, unit: UnitId, other: UnitId) -> Vec<(EdgeKind, Reason)>;
}

impl Depends for BootGraph {
    fn units(&self) -> usize {
        self.len()
    }

    fn name(&self, unit: UnitId) -> String {
        name(self, unit)
    }

    fn edges(&self, unit: UnitId) -> Vec<(UnitId, EdgeKind)> {
        self.dependencies(unit).map(|(other, edge)| (other, edge.kind)).collect()
    }

    fn reasons(&self, unit: UnitId, other: UnitId) -> Vec<(EdgeKind, Reason)> {
        let edges = self.dependencies(unit).filter(|(to, _)| *to == other);
        edges.map(|(_, edge)| (edge.kind, reason(self, edge))).collect()
    }
}

/// Units in the order in which a walk from `from` first meets them, each with the unit before it.
fn walk(
    graph: &dyn Depends,
    from: UnitId,
    follow: &dyn Fn(EdgeKind) -> bool,
) -> Vec<Option<UnitId>> {
    let mut before = vec![None; graph.units()];
    let mut open = VecDeque::from([from]);
    while let Some(id) = open.pop_front() {
        for (other, kind) in graph.edges(id) {
            if follow(kind) && other != from && before[other.index()].is_none() {
                before[other.index()] = Some(id);
                open.push_back(other);
            }
        }
    }
    before
}

//! Planning: the graph and a goal become a transaction, jobs in an order with no choice left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use keel_unit::diagnostic::{Diagnostic, Report, nearest};
use keel_unit::lower::{Input, lower_partly};
use keel_unit::words::{self, Await as Word};
use keel_unit::{Kind, KindName, Unit, UnitName};

use crate::backoff::Backoff;
use crate::graph::{BootGraph, EdgeKind};
use crate::resolve::resolve_partly;
use crate::transaction::{
    Await, Class, DEADLINE, Failure, Job, JobKind, Malformed, OnFailure, Restart, RestartPolicy,
    Spec, StartLimit, Transaction, UnitId,
};

/// The name of the goal of a boot.
pub const BOOT: &str = "boot";
/// By how much, in percent, pauses before repetitions are shortened.
const JITTER: u8 = 20;
/// How long a stop of anything that is not a service may take: an unmount, a lease given back.
const STOP: Duration = Duration::from_secs(10);

/// Why there is no transaction.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The goal is no unit.
    #[error("there is no unit `{goal}`{}", suggestion(.near))]
    UnknownGoal {
        /// What was asked for.
        goal: String,
        /// A unit with nearly that name.
        near: Option<String>,
    },
    /// The units contradict the goal.
    #[error("the graph cannot reach the goal")]
    Invalid(#[source] Report),
    /// The graph was compiled wrongly.
    #[error("the plan is not consistent")]
    Malformed(#[from] Malformed),
}

fn suggestion(near: &Option<String>) -> String {
    near.as_ref().map_or(String::new(), |n| format!(" (did you mean `{n}`?)"))
}

/// Reads, resolves and plans in one go, so that everything that is wrong stands in one report.
///
/// # Errors
/// Everything that is wrong with the units, the config, the graph and the goal.
pub fn compile(input: Input, goal: &str) -> Result<(BootGraph, Transaction), PlanError> {
    let lowered = lower_partly(input);
    let name = <UnitName as keel_unit::keys::Text>::parse(goal);
    let excused = name.is_ok_and(|name| lowered.unread.may_hold(&name));
    let (graph, mut findings) = resolve_partly(lowered);
    match find_goal(&graph, goal) {
        Ok(goal) => findings.extend(faults(&graph, goal)),
        Err(unknown) if !excused && findings.is_empty() => return Err(unknown),
        Err(_) => {}
    }
    if !findings.is_empty() {
        return Err(PlanError::Invalid(Report::new(graph.sources().clone(), findings)));
    }
    // Nothing was found, so there is a goal.
    let goal = find_goal(&graph, goal)?;
    let transaction = start(&graph, goal)?;
    Ok((graph, transaction))
}

/// Plans the start of `goal` and all that it pulls in.
///
/// # Errors
/// An unknown goal; a unit without a deadline that gates the goal; two units that are both started and conflict.
pub fn plan(graph: &BootGraph, goal: &str) -> Result<Transaction, PlanError> {
    let goal = find_goal(graph, goal)?;
    let findings = faults(graph, goal);
    if !findings.is_empty() {
        return Err(PlanError::Invalid(Report::new(graph.sources().clone(), findings)));
    }
    start(graph, goal)
}

/// The start of a goal that nothing contradicts.
fn start(graph: &BootGraph, goal: UnitId) -> Result<Transaction, PlanError> {
    let started = pulled_in(graph, goal);
    let jobs = order(graph)
        .into_iter()
        .filter(|id| started[id.index()])
        .map(|unit| Job { unit, kind: JobKind::Start })
        .collect();
    let units = graph.ids().map(|id| spec(graph, id)).collect();
    Ok(Transaction::new(goal, jobs, units)?)
}

fn find_goal(graph: &BootGraph, goal: &str) -> Result<UnitId, PlanError> {
    graph.find(goal).ok_or_else(|| {
        let names = graph.ids().map(|id| graph.unit(id).name.as_str());
        PlanError::UnknownGoal {
            goal: goal.to_owned(),
            near: nearest(goal, names).map(str::to_owned),
        }
    })
}

/// What contradicts the goal.
fn faults(graph: &BootGraph, goal: UnitId) -> Vec<Diagnostic> {
    let started = pulled_in(graph, goal);
    let mut findings = without_deadline(graph, goal, &started);
    findings.extend(conflicting(graph, &started));
    findings
}

/// The units that a goal pulls in, itself included.
pub fn pulled_in(graph: &BootGraph, goal: UnitId) -> Vec<bool> {
    reach(graph, goal, |kind| kind.pulls_in())
}

fn reach(graph: &BootGraph, from: UnitId, follow: impl Fn(EdgeKind) -> bool) -> Vec<bool> {
    let mut reached = vec![false; graph.len()];
    let mut open = vec![from];
    reached[from.index()] = true;
    while let Some(id) = open.pop() {
        for (other, edge) in graph.dependencies(id) {
            if follow(edge.kind) && !reached[other.index()] {
                reached[other.index()] = true;
                open.push(other);
            }
        }
    }
    reached
}

/// Every unit in topological order of the ordering edges; of those that could come next, the first by name.
pub fn order(graph: &BootGraph) -> Vec<UnitId> {
    let after = |id| graph.dependencies(id).filter(|(_, e)| e.kind.awaits().is_some()).count();
    let mut held: Vec<usize> = graph.ids().map(after).collect();
    let mut free: BinaryHeap<Reverse<UnitId>> =
        graph.ids().filter(|id| held[id.index()] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(graph.len());
    while let Some(Reverse(id)) = free.pop() {
        order.push(id);
        for (later, edge) in graph.dependents(id) {
            if edge.kind.awaits().is_some() {
                held[later.index()] -= 1;
                if held[later.index()] == 0 {
                    free.push(Reverse(later));
                }
            }
        }
    }
    order
}

/// A unit without a deadline that the goal waits for could keep the machine from ever coming up.
fn without_deadline(graph: &BootGraph, goal: UnitId, started: &[bool]) -> Vec<Diagnostic> {
    let gating = reach(graph, goal, |kind| kind.awaits().is_some());
    let goal = &graph.unit(goal).name;
    graph
        .ids()
        .filter(|id| started[id.index()] && gating[id.index()])
        .map(|id| graph.unit(id))
        .filter(|unit| unit.kind.name() != KindName::Target && unit.deadline().is_none())
        .map(|unit| {
            let kind = unit.kind.name();
            let message = format!("`{}` has no deadline, and `{goal}` waits for it", unit.name);
            Diagnostic::new("no-deadline", unit.span, message)
                .label("no `timeout` in this table")
                .help(format!("say how long it may take: `timeout = \"30s\"` in [{kind}]"))
        })
        .collect()
}

fn conflicting(graph: &BootGraph, started: &[bool]) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for id in graph.ids().filter(|id| started[id.index()]) {
        for (other, edge) in graph.dependencies(id) {
            if edge.kind == EdgeKind::Conflicts && started[other.index()] {
                let (one, two) = (graph.unit(id), graph.unit(other));
                let message = format!(
                    "`{}` conflicts with `{}`, and the goal starts both",
                    one.name, two.name
                );
                let found = Diagnostic::new("conflict", edge.span, message).label("the conflict");
                findings.push(found.also(two.span, format!("`{}`", two.name)));
            }
        }
    }
    findings
}

fn spec(graph: &BootGraph, id: UnitId) -> Spec {
    let unit = graph.unit(id);
    let class = match unit.kind {
        Kind::Target(_) => Class::Target,
        Kind::Service(_) => Class::Service,
        _ => Class::Oneshot,
    };
    let mut spec = Spec {
        deadline: unit.deadline().unwrap_or(DEADLINE),
        stop_deadline: STOP,
        has_condition: !unit.condition.is_empty(),
        failure: failure(unit),
        hint: unit.duration,
        ..Spec::new(unit.name.shared(), class)
    };
    for (other, edge) in graph.dependencies(id) {
        match edge.kind {
            EdgeKind::Requires => spec.requires.push(other),
            EdgeKind::Wants => spec.wants.push(other),
            EdgeKind::BindsTo => spec.binds_to.push(other),
            EdgeKind::Conflicts => spec.conflicts.push(other),
            EdgeKind::After(word) => spec.after.push((other, awaits(word))),
        }
    }
    if let Kind::Service(service) = &unit.kind {
        spec.stop_deadline = service.stop_timeout.0;
        spec.restart = Restart {
            policy: match service.restart {
                keel_unit::kinds::Restart::Always => RestartPolicy::Always,
                keel_unit::kinds::Restart::OnFailure => RestartPolicy::OnFailure,
                keel_unit::kinds::Restart::Never => RestartPolicy::Never,
            },
            backoff: backoff(service.restart_delay.0, service.restart_max_delay.0),
            limit: service
                .start_limit
                .as_ref()
                .map(|l| StartLimit { burst: l.burst, interval: l.interval.0 }),
        };
    }
    spec
}

fn awaits(word: Word) -> Await {
    match word {
        Word::Started => Await::Started,
        Word::Ready => Await::Ready,
        Word::Exited => Await::Exited,
    }
}

fn failure(unit: &Unit) -> Failure {
    let failure = &unit.failure;
    let (on, attempts) = match failure.on {
        words::OnFailure::Degrade => (OnFailure::Degrade, 1),
        words::OnFailure::Retry => (OnFailure::Retry, failure.attempts),
        words::OnFailure::Emergency => (OnFailure::Emergency, 1),
        words::OnFailure::Reboot => (OnFailure::Reboot, 1),
    };
    Failure { on, attempts, backoff: backoff(failure.delay.0, failure.max_delay.0) }
}

fn backoff(initial: Duration, max: Duration) -> Backoff {
    Backoff { initial, max, factor: 2, jitter: JITTER }
}

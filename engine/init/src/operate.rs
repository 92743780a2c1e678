//! What can be asked of one unit, and of a machine that runs: planned by the scheduler's own rehearsal, carried out by the executor.

use std::path::PathBuf;
use std::time::Instant;

use keel_control::{
    ControlUnit, LogLine, PlannedJob, Refusal, RefusalKind, UnitDetail, UnitEdge, UnitPlan,
    UnitVerb,
};
use keel_host::disk::inventory::Roots;
use keel_plan::{
    Because, BootGraph, Edge, EdgeKind, Job, JobKind, Planned, Provenance, ShutdownKind, State,
    UnitId,
};
use keel_unit::Kind;
use keel_unit::value::Source;

use crate::about;
use crate::recorder::told;
use crate::run::Run;
use crate::status;

/// How many of a unit's last lines are told of.
const LAST_LINES: usize = 10;

/// One unit in whole.
pub(crate) fn unit(run: &Run, name: &str) -> Result<UnitDetail, Refusal> {
    let id = find(&run.graph, name)?;
    let scheduler = run.executor.scheduler();
    let own = run.graph.unit(id);
    let now = scheduler.status(id);
    let chain = scheduler.blockers(id);
    let held = scheduler.held_by(id);
    let dependencies = run.graph.dependencies(id).map(|(other, edge)| {
        let holds = edge.kind != EdgeKind::Wants && held.contains(&other);
        unit_edge(run, other, edge, holds)
    });
    let dependents = run.graph.dependents(id).map(|(other, edge)| {
        let holds = edge.kind != EdgeKind::Wants && scheduler.held_by(other).contains(&id);
        unit_edge(run, other, edge, holds)
    });
    Ok(UnitDetail {
        now_ms: status::millis(run.now()),
        unit: status::unit(run, id),
        file: run.graph.locate(own.span).file.to_string(),
        dependencies: dependencies.collect(),
        dependents: dependents.collect(),
        on_failure: own.failure.on.to_string(),
        timeout_ms: status::millis(run.transaction.spec(id).deadline),
        restart_ms: now.until.filter(|_| now.paused).map(status::millis),
        last_lines: last_lines(run, chain.last().copied().unwrap_or(id)),
        blocked_by: chain.into_iter().map(|id| run.name(id)).collect(),
    })
}

fn unit_edge(run: &Run, other: UnitId, edge: &Edge, holds_up: bool) -> UnitEdge {
    UnitEdge {
        unit: run.name(other),
        word: edge.kind.as_str().to_owned(),
        provenance: provenance(&run.graph, edge),
        state: status::unit_state(run.executor.scheduler().state(other)),
        holds_up,
    }
}

/// Where an edge comes from: `units/kubelet.toml:7`, or the rule that implies it and the key that it follows from.
fn provenance(graph: &BootGraph, edge: &Edge) -> String {
    let at = graph.locate(edge.span);
    match &edge.why {
        Provenance::Written(_) => format!("{}:{}", at.file, at.line),
        why @ Provenance::Implied(_) => format!("{why} ({}:{})", at.file, at.line),
    }
}

fn last_lines(run: &Run, id: UnitId) -> Vec<LogLine> {
    let (Some(log), Some(started)) =
        (run.executor.host().log(id), Instant::now().checked_sub(run.now()))
    else {
        return Vec::new();
    };
    let unit = run.name(id);
    log.tail(LAST_LINES).into_iter().map(|line| told(&unit, line, started)).collect()
}

/// Plans what was asked for and, unless it was only to be said, does it.
pub(crate) fn control_unit(run: &mut Run, ask: &ControlUnit) -> Result<UnitPlan, Refusal> {
    let id = find(&run.graph, &ask.unit)?;
    let running = run.graph.digest().to_string();
    if let Some(asked) = ask.digest.as_ref().filter(|asked| **asked != running) {
        return Err(RefusalKind::OtherGraph { asked: asked.clone(), running }.into());
    }
    let kind = match ask.verb {
        UnitVerb::Start => JobKind::Start,
        UnitVerb::Stop => JobKind::Stop,
        UnitVerb::Restart => JobKind::Restart,
    };
    let job = Job { unit: id, kind };
    let plan = run.executor.scheduler().rehearse(job, run.now()).map_err(|why| match why {
        keel_plan::Refusal::ShuttingDown => RefusalKind::Stopping,
        keel_plan::Refusal::Conflict { unit, with } => RefusalKind::Impossible(format!(
            "it would start both {} and {}, which conflict with each other",
            run.name(unit),
            run.name(with)
        )),
        keel_plan::Refusal::Mutating => {
            RefusalKind::Impossible("another graph is being taken on at this moment".to_owned())
        }
        // Its id comes from this very graph.
        keel_plan::Refusal::UnknownUnit => RefusalKind::Internal(why.to_string()),
    })?;
    if let Some(kept) = plan.iter().find(|it| it.taken_down && is_kept(&run.graph, it.unit)) {
        return Err(RefusalKind::Impossible(format!(
            "{} is a filesystem of the kernel's, which stays mounted as long as the machine runs",
            run.name(kept.unit)
        ))
        .into());
    }
    let told = UnitPlan { jobs: plan.iter().map(|it| planned(run, it)).collect(), digest: running };
    if !ask.dry_run {
        run.executor.request(job);
    }
    Ok(told)
}

/// What stands to the end, whoever asks: nothing could run without it.
fn is_kept(graph: &BootGraph, id: UnitId) -> bool {
    match &graph.unit(id).kind {
        Kind::Mount(mount) => mount.existing || matches!(mount.source, Some(Source::Pseudo(_))),
        _ => false,
    }
}

fn planned(run: &Run, it: &Planned) -> PlannedJob {
    let verb = match it.kind {
        JobKind::Start => UnitVerb::Start,
        JobKind::Stop => UnitVerb::Stop,
        JobKind::Restart => UnitVerb::Restart,
    };
    // What did its work and left nothing behind is not interrupted by being started again.
    let lasts =
        matches!(run.graph.unit(it.unit).kind, Kind::Service(_) | Kind::Mount(_) | Kind::Link(_));
    let runs = matches!(it.was, State::Activating) || (lasts && it.was.is_active());
    PlannedJob {
        unit: run.name(it.unit),
        verb,
        why: because(run, it),
        interrupts: it.taken_down && runs,
    }
}

/// Why a request concerns a unit, in words.
fn because(run: &Run, it: &Planned) -> String {
    let edge = |from: UnitId, to: UnitId, kinds: &[EdgeKind]| {
        let edges = run.graph.dependencies(from);
        let found = edges.filter(|(other, edge)| *other == to && kinds.contains(&edge.kind));
        found.map(|(_, edge)| edge).next()
    };
    let said =
        |from: UnitId, to: UnitId, kinds: &[EdgeKind], words: String| match edge(from, to, kinds) {
            Some(edge) => format!("{words}: {}", provenance(&run.graph, edge)),
            None => words,
        };
    let (unit, name) = (it.unit, |id: UnitId| run.name(id));
    let needs = [EdgeKind::Requires, EdgeKind::BindsTo];
    match it.because {
        Because::Asked => "asked for".to_owned(),
        Because::For(other) => {
            let strong = edge(other, unit, &needs).is_some();
            let word = if strong { "requires" } else { "wants" };
            let kinds = [EdgeKind::Requires, EdgeKind::BindsTo, EdgeKind::Wants];
            said(other, unit, &kinds, format!("{} {word} it", name(other)))
        }
        Because::Requires(other) => said(unit, other, &needs, format!("requires {}", name(other))),
        Because::BoundTo(other) => {
            said(unit, other, &needs, format!("is bound to {}", name(other)))
        }
        Because::Conflicts(other) => {
            let words = format!("conflicts with {}", name(other));
            let (from, to) = match edge(unit, other, &[EdgeKind::Conflicts]) {
                Some(_) => (unit, other),
                None => (other, unit),
            };
            said(from, to, &[EdgeKind::Conflicts], words)
        }
        Because::Lacked(other) => format!("failed for lack of {}, which comes up", name(other)),
        Because::GoingDown => "the machine goes down".to_owned(),
    }
}

/// What a shutdown would stop, in that order.
pub(crate) fn stops(run: &Run) -> Result<Vec<String>, Refusal> {
    if run.is_stopping() {
        return Err(RefusalKind::Stopping.into());
    }
    let plan = run.executor.scheduler().rehearse_shutdown(ShutdownKind::Reboot, run.now());
    Ok(plan.iter().map(|it| run.name(it.unit)).collect())
}

/// Where this machine's data is, for whoever means to wipe it.
pub(crate) struct Data {
    /// The units that are stopped, in that order.
    pub(crate) stops: Vec<String>,
    /// The partition's name.
    pub(crate) label: String,
    /// Where it is mounted.
    pub(crate) target: PathBuf,
    /// The machine's id, as programs find it.
    pub(crate) machine_id: Option<String>,
    /// Where disks are found.
    pub(crate) roots: Roots,
}

/// The partition on which the machine keeps who it is: the identity unit's directory lies on a mount, and that has a source.
pub(crate) fn data(run: &Run) -> Result<Data, Refusal> {
    let units = || run.graph.ids().map(|id| &run.graph.unit(id).kind);
    let identity = units().find_map(|kind| match kind {
        Kind::Identity(identity) => Some(identity),
        _ => None,
    });
    let directory = identity.map(|identity| identity.directory.as_path());
    let mounts = units().filter_map(|kind| match kind {
        Kind::Mount(mount) => Some(mount),
        _ => None,
    });
    let holds =
        mounts.filter(|mount| directory.is_some_and(|d| d.starts_with(mount.target.as_path())));
    let mount = holds.max_by_key(|mount| mount.target.as_path().components().count());
    let none =
        || Refusal::from(RefusalKind::Impossible("this machine has no data partition".to_owned()));
    let mount = mount.ok_or_else(none)?;
    let Some(Source::PartLabel(label)) = &mount.source else { return Err(none()) };
    Ok(Data {
        stops: stops(run)?,
        label: label.as_str().to_owned(),
        target: mount.target.as_path().to_owned(),
        machine_id: identity.and_then(|identity| about::one_line(identity.publish.as_path())),
        roots: run.executor.host().roots().clone(),
    })
}

fn find(graph: &BootGraph, name: &str) -> Result<UnitId, Refusal> {
    graph.find(name).ok_or_else(|| {
        let near = graph.meant(name).into_iter().take(5).map(ToString::to_string).collect();
        // No name is longer; what comes from outside does not come back whole.
        let name = name.chars().take(256).collect();
        RefusalKind::UnknownUnit { name, near }.into()
    })
}

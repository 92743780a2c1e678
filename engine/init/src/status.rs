//! The owner's state as keel-control tells it: conversion at the edge, nothing else.

use std::time::Duration;

use keel_control::{
    BootReport, CriticalUnit, Degraded, Status, Unit, UnitBoot, UnitList, UnitState,
};
use keel_host::process::Cgroup;
use keel_plan::{Span, State, UnitId, Up};

use crate::about;
use crate::run::Run;

/// Milliseconds, as they travel.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Microseconds, as they travel.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A state in the words of keel-control.
pub(crate) fn unit_state(state: State) -> UnitState {
    match state {
        State::Inactive => UnitState::Inactive,
        State::Waiting => UnitState::Waiting,
        State::Activating => UnitState::Activating,
        State::Active(Up::Running) => UnitState::Running,
        State::Active(Up::Exited) => UnitState::Exited,
        State::Deactivating => UnitState::Deactivating,
        State::Failed(_) => UnitState::Failed,
        State::Skipped => UnitState::Skipped,
    }
}

/// The machine as a whole.
pub(crate) fn status(run: &Run) -> Status {
    let failed = run
        .transaction
        .ids()
        .filter(|id| matches!(run.executor.scheduler().status(*id).state, State::Failed(_)));
    let degraded = failed.map(|id| run.degraded(&run.executor.scheduler().shortfall(id)));
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: about::kernel(),
        hostname: about::hostname(),
        machine_id: about::machine_id(),
        uptime_ms: millis(run.now()),
        goal: run.name(run.transaction.goal()),
        state: run.goal_state,
        degraded: degraded.map(|(unit, why)| Degraded { unit, why }).collect(),
        digest: run.graph.digest().to_string(),
        links: about::links(),
        boot: run.summary.as_ref().map(|summary| BootReport {
            total_ms: millis(summary.total),
            critical_path: summary
                .path
                .iter()
                .map(|(unit, took)| CriticalUnit { unit: unit.clone(), ms: millis(*took) })
                .collect(),
            speed_up: summary.speedup,
            max_side_by_side: u32::try_from(summary.side_by_side).unwrap_or(u32::MAX),
            kernel_us: summary.kernel.map(micros),
            processors: summary.processors,
        }),
    }
}

/// Every unit, and the cgroups of those that run. What they use is read elsewhere.
pub(crate) fn units(run: &Run) -> (UnitList, Vec<Option<Cgroup>>) {
    let units = run.transaction.ids().map(|id| without_memory(run, id)).collect();
    let cgroups = run.transaction.ids().map(|id| run.executor.host().cgroup(id)).collect();
    (UnitList { now_ms: millis(run.now()), units }, cgroups)
}

/// One unit.
pub(crate) fn unit(run: &Run, id: UnitId) -> Unit {
    Unit { memory_bytes: run.executor.host().memory(id), ..without_memory(run, id) }
}

fn without_memory(run: &Run, id: UnitId) -> Unit {
    let unit = run.graph.unit(id);
    let status = run.executor.scheduler().status(id);
    let span = &run.executor.timeline().spans()[id.index()];
    let spec = run.transaction.spec(id);
    let trouble =
        status.trouble.as_ref().or((status.state == State::Skipped).then_some(&status.why));
    let deadline = (status.state == State::Activating).then_some(spec.deadline);
    Unit {
        name: unit.name.to_string(),
        kind: unit.kind.name().to_string(),
        stage: run.graph.stage(id).map(ToString::to_string),
        description: unit.description.clone(),
        state: unit_state(status.state),
        since_ms: millis(status.since),
        took_ms: span.ended.filter(|_| span.began.is_some()).map(|_| millis(span.took(run.now()))),
        attempts: status.attempt,
        note: trouble.map(|why| why.describe(&run.transaction).to_string()),
        deadline_ms: deadline.map(|deadline| millis(status.since + deadline)),
        waits_for: status.waiting_for.map(|other| run.name(other)).into_iter().collect(),
        pid: run.executor.host().pid(id).and_then(|pid| u32::try_from(pid.as_raw()).ok()),
        memory_bytes: None,
        boot: unit_boot(run, span),
    }
}

fn unit_boot(run: &Run, span: &Span) -> Option<UnitBoot> {
    if span.state == State::Inactive && span.ended.is_none() {
        return None;
    }
    Some(UnitBoot {
        state: unit_state(span.state),
        began_us: span.began.map(micros),
        ended_us: span.ended.map(micros),
        waited_for: span.waited_for.map(|other| run.name(other)),
        attempts: span.attempts,
    })
}

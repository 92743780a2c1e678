//! What init says of one unit and of what it was asked to do, as the API says it: more of the edge that `convert` is.

use std::time::{Duration, SystemTime};

use keel_control as control;
use keel_proto::v1;

use crate::convert::{duration, log_line, unit, unit_state};

/// One unit in whole.
pub(crate) fn unit_detail(detail: control::UnitDetail) -> v1::GetUnitResponse {
    let (now, time) = (detail.now_ms, SystemTime::now());
    let last_line = |line: control::LogLine| {
        let age = Duration::from_millis(now.saturating_sub(line.at_ms));
        log_line(line, time.checked_sub(age))
    };
    v1::GetUnitResponse {
        now: Some(duration(detail.now_ms)),
        unit: Some(unit(detail.unit)),
        file: detail.file,
        dependencies: detail.dependencies.into_iter().map(unit_edge).collect(),
        dependents: detail.dependents.into_iter().map(unit_edge).collect(),
        on_failure: detail.on_failure,
        timeout: Some(duration(detail.timeout_ms)),
        restart_at: detail.restart_ms.map(duration),
        blocker: detail.blocked_by.last().cloned(),
        blocked_by: detail.blocked_by,
        last_lines: detail.last_lines.into_iter().map(last_line).collect(),
    }
}

fn unit_edge(edge: control::UnitEdge) -> v1::UnitEdge {
    v1::UnitEdge {
        unit: edge.unit,
        word: edge.word,
        provenance: edge.provenance,
        state: unit_state(edge.state).into(),
        holds_up: edge.holds_up,
    }
}

/// What a request does, or would.
pub(crate) fn unit_plan(plan: control::UnitPlan) -> v1::ControlUnitResponse {
    v1::ControlUnitResponse {
        jobs: plan.jobs.into_iter().map(planned_job).collect(),
        digest: plan.digest,
    }
}

fn planned_job(job: control::PlannedJob) -> v1::PlannedJob {
    let verb = match job.verb {
        control::UnitVerb::Start => v1::UnitVerb::Start,
        control::UnitVerb::Stop => v1::UnitVerb::Stop,
        control::UnitVerb::Restart => v1::UnitVerb::Restart,
    };
    v1::PlannedJob { unit: job.unit, verb: verb.into(), why: job.why, interrupts: job.interrupts }
}

/// What a reset wipes, or would.
pub(crate) fn reset_plan(plan: control::ResetPlan) -> v1::ResetResponse {
    let loss = |loss: control::Loss| v1::Loss {
        what: loss.what,
        meaning: loss.meaning,
        size_bytes: loss.size,
    };
    v1::ResetResponse { stops: plan.stops, losses: plan.losses.into_iter().map(loss).collect() }
}

//! `osctl boot record`: the boot of a node that runs, as a trace.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keel_plan::{About, Ending, StateName, Trace, UnitTrace};
use keel_proto::v1::{
    GetStatusRequest, GoalState, ListUnitsRequest, NodeStatus, Unit, UnitBoot, UnitState,
};

use super::files;
use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node;
use crate::output::Output;

/// Take the trace of a node's boot
///
/// The node keeps how its boot went until it goes down, so this can be asked for at any time after it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl --endpoint 192.0.2.10 boot record -o boot.json\n  osctl --endpoint 192.0.2.10 boot record | osctl boot show -"
)]
pub(crate) struct Record {
    /// Where to write it [default: standard output]
    #[arg(long = "file", short = 'o', value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Record {
    pub(crate) fn run(self, args: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let (status, units) = node::ask(async {
            let mut client = node::connect(args, out).await?;
            let status = client.get_status(GetStatusRequest {}).await;
            let status = status.map_err(|status| node::refused("tell its status", &status))?;
            let units = client.list_units(ListUnitsRequest {}).await;
            let units = units.map_err(|status| node::refused("list its units", &status))?;
            let status = status.into_inner().status;
            let status = status.ok_or_else(|| Failure::new("the node's answer holds no status"))?;
            Ok((status, units.into_inner().units))
        })?;
        let trace = trace(&status, &units)?;
        match self.file {
            Some(path) => files::write(&path, &trace.json())?,
            None => out.text(&trace.json())?,
        }
        Ok(Exit::Clean)
    }
}

/// What a node tells, as a trace.
fn trace(status: &NodeStatus, units: &[Unit]) -> Result<Trace, Failure> {
    let Some(report) = &status.boot else {
        let failure = Failure::new(format!("the boot of {} is not over", status.hostname));
        return Err(failure.next("try again when `osctl status` says that it is"));
    };
    let units: Vec<UnitTrace> = units.iter().filter_map(unit).collect();
    if units.is_empty() {
        let failure = Failure::new("the node does not tell how its units came up");
        return Err(failure
            .next("it runs an older Keel; boot it with keel.report=json and take the console"));
    }
    let up = units.iter().any(|unit| unit.name == status.goal && unit.state.is_active());
    let outcome = match status.state() {
        // In an emergency the goal is seldom up.
        GoalState::Emergency => Ending::Emergency,
        _ if !up => Ending::Missed,
        _ if units.iter().any(|unit| unit.state == StateName::Failed) => Ending::Degraded,
        _ => Ending::Reached,
    };
    // A goal's own end is told to the microsecond, the report to the millisecond.
    let goal = units.iter().find(|unit| unit.name == status.goal);
    let total = goal.and_then(|goal| goal.ended_us).filter(|_| up);
    let about = About {
        hostname: Some(status.hostname.clone()),
        kernel: Some(status.kernel.clone()),
        keel: Some(status.version.clone()),
        cpus: report.processors,
    };
    let total = total.or(micros(report.total.as_ref())).unwrap_or(0);
    let kernel = micros(report.kernel.as_ref());
    let (digest, goal) = (status.digest.clone(), status.goal.clone());
    Ok(Trace::recorded(digest, goal, outcome, total, kernel, about, units))
}

fn unit(unit: &Unit) -> Option<UnitTrace> {
    let UnitBoot { state, began, ended, waited_for, attempts } = unit.boot.as_ref()?;
    let state = match UnitState::try_from(*state).ok()? {
        UnitState::Unspecified => StateName::Unknown,
        UnitState::Inactive => StateName::Inactive,
        UnitState::Waiting => StateName::Waiting,
        UnitState::Activating => StateName::Activating,
        UnitState::Running => StateName::Running,
        UnitState::Exited => StateName::Exited,
        UnitState::Deactivating => StateName::Deactivating,
        UnitState::Failed => StateName::Failed,
        UnitState::Skipped => StateName::Skipped,
    };
    Some(UnitTrace {
        name: unit.name.clone(),
        kind: unit.kind.clone(),
        stage: unit.stage.clone(),
        state,
        began_us: micros(began.as_ref()),
        ended_us: micros(ended.as_ref()),
        waited_for: waited_for.clone(),
        attempts: *attempts,
        why: unit.note.clone().filter(|_| !state.is_active()),
        queued_us: None,
        queued_behind: None,
        slack_us: None,
    })
}

fn micros(span: Option<&prost_types::Duration>) -> Option<u64> {
    let span = span.copied().and_then(|span| Duration::try_from(span).ok())?;
    u64::try_from(span.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_proto::v1::BootReport;

    #[test]
    fn a_boot_ends_as_the_node_says() {
        let check = |state: GoalState, goal: UnitState, expect: Ending| {
            let unit = |name: &str, state: UnitState| Unit {
                name: name.into(),
                kind: "target".into(),
                boot: Some(UnitBoot { state: state.into(), ..UnitBoot::default() }),
                ..Unit::default()
            };
            let status = NodeStatus {
                goal: "boot".into(),
                state: state.into(),
                boot: Some(BootReport::default()),
                ..NodeStatus::default()
            };
            let trace = trace(&status, &[unit("boot", goal)]).unwrap();
            assert_eq!(trace.outcome, expect, "{state:?}, goal {goal:?}");
        };
        check(GoalState::Reached, UnitState::Exited, Ending::Reached);
        check(GoalState::Degraded, UnitState::Failed, Ending::Missed);
        check(GoalState::Emergency, UnitState::Failed, Ending::Emergency);
        check(GoalState::Emergency, UnitState::Exited, Ending::Emergency);
    }
}

//! `osctl units start|stop|restart`: the plan first, then the deed, then how it ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use keel_proto::v1::{
    ControlUnitRequest, ControlUnitResponse, ListUnitsRequest, PlannedJob, Unit, UnitState,
    UnitVerb,
};
use serde::Serialize;
use tonic::Code;

use super::live::refused;
use crate::cli::NodeArgs;
use crate::commands::ask;
use crate::error::{Exit, Failure};
use crate::node::{self, millis, unit_state};
use crate::output::{Format, Ink, Output, Palette, printable};

/// How long a node that does not answer is waited for while one of its units starts or stops: the agent itself may be that unit.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Control {
    /// The unit
    #[arg(value_name = "UNIT")]
    unit: String,

    /// Only show what would happen
    #[arg(long)]
    dry_run: bool,

    /// Do not ask, also where something that runs is interrupted
    #[arg(long, short)]
    yes: bool,
}

/// Exit code 1 if a unit did not come to where it was to be, or if nothing was done.
pub(crate) fn run(
    args: &Control,
    verb: UnitVerb,
    node: &NodeArgs,
    out: &mut Output,
) -> Result<Exit, Failure> {
    node::ask(async {
        let mut connection = node::reach(node, out).await?;
        let what = format!("{} {}", word(verb), args.unit);
        let ask = |digest: &str, dry_run| ControlUnitRequest {
            unit: args.unit.clone(),
            verb: verb.into(),
            dry_run,
            digest: digest.to_owned(),
        };
        let failed = |status: tonic::Status| refused(&what, &status);
        let plan = connection.operation().control_unit(ask("", true)).await;
        let plan = plan.map_err(failed)?.into_inner();
        let people = out.format() == Format::Table;
        if people {
            out.text(&page(&plan, args.dry_run, out.palette()))?;
        }
        if args.dry_run || plan.jobs.is_empty() {
            if !people {
                out.json(&View::new(&plan, args.dry_run, &[]))?;
            }
            return Ok(Exit::Clean);
        }
        let interrupted = plan.jobs.iter().filter(|job| job.interrupts).count();
        if interrupted > 0 && !args.yes {
            let s = if interrupted == 1 { "" } else { "s" };
            let question = format!("{interrupted} running unit{s} will be interrupted. Go on?");
            if !ask::yes(
                &question,
                "look at the plan with --dry-run, and add --yes to carry it out",
            )? {
                return Err(ask::declined());
            }
        }
        let before = list(&connection).await.map_err(failed)?;
        // On the very graph that was looked at.
        let done = connection.operation().control_unit(ask(&plan.digest, false)).await;
        let plan = done.map_err(failed)?.into_inner();
        let ends = follow(&mut connection, &plan, &before, node, out).await?;
        if !people {
            out.json(&View::new(&plan, false, &ends))?;
        }
        Ok(if ends.iter().all(|end| end.good) { Exit::Clean } else { Exit::Findings })
    })
}

/// How one unit ended.
struct End {
    unit: Unit,
    good: bool,
}

type Units = BTreeMap<String, Unit>;

async fn list(connection: &node::Connection) -> Result<Units, tonic::Status> {
    let list = connection.node().list_units(ListUnitsRequest {}).await?.into_inner();
    Ok(list.units.into_iter().map(|unit| (unit.name.clone(), unit)).collect())
}

/// Looks until each unit of the plan is where it was to be, or will not get there; and says so as it happens.
async fn follow(
    connection: &mut node::Connection,
    plan: &ControlUnitResponse,
    before: &Units,
    node: &NodeArgs,
    out: &mut Output,
) -> Result<Vec<End>, Failure> {
    let mut open: Vec<&PlannedJob> = plan.jobs.iter().collect();
    let mut shown: BTreeMap<&str, i32> = BTreeMap::new();
    let mut ends = Vec::new();
    let mut silent_since: Option<Instant> = None;
    loop {
        match list(connection).await {
            Ok(units) => {
                silent_since = None;
                let mut rest = Vec::new();
                for job in open {
                    let Some(unit) = units.get(&job.unit) else { continue };
                    let end = end(job, before.get(&job.unit), unit);
                    let last = shown.insert(&job.unit, unit.state);
                    let moved = last.is_some_and(|last| last != unit.state) || end.is_some();
                    if moved && out.format() == Format::Table {
                        let line = progress(unit, out.palette());
                        out.text(&line)?;
                    }
                    match end {
                        Some(good) => ends.push(End { unit: unit.clone(), good }),
                        None => rest.push(job),
                    }
                }
                open = rest;
                if open.is_empty() {
                    return Ok(ends);
                }
            }
            Err(status) => {
                let since = *silent_since.get_or_insert_with(Instant::now);
                if status.code() != Code::Unavailable && status.code() != Code::Unknown
                    || since.elapsed() > PATIENCE
                {
                    return Err(node::refused("say how it went on", &status));
                }
                // The agent may be the very unit that is restarted.
                if let Ok(again) = node::reach(node, out).await {
                    *connection = again;
                }
            }
        }
        tokio::time::sleep(super::AGAIN).await;
    }
}

/// Whether a unit has ended well, or badly; nothing while it is under way.
fn end(job: &PlannedJob, before: Option<&Unit>, now: &Unit) -> Option<bool> {
    // A unit that still stands as it did has not had its turn.
    let turned = before.is_none_or(|before| (before.state, before.since) != (now.state, now.since));
    match (job.verb(), now.state()) {
        (UnitVerb::Stop, UnitState::Inactive | UnitState::Skipped) => Some(true),
        (UnitVerb::Stop, UnitState::Failed) => Some(now.note.is_none() || !turned),
        (UnitVerb::Start | UnitVerb::Restart, UnitState::Running | UnitState::Exited) if turned => {
            Some(true)
        }
        (UnitVerb::Start | UnitVerb::Restart, UnitState::Skipped) if turned => Some(true),
        (UnitVerb::Start | UnitVerb::Restart, UnitState::Failed) if turned => Some(false),
        // It has failed, and its restart policy goes on with it.
        (UnitVerb::Start | UnitVerb::Restart, UnitState::Waiting)
            if turned && now.note.is_some() && now.waits_for.is_empty() =>
        {
            Some(false)
        }
        _ => None,
    }
}

fn progress(unit: &Unit, palette: Palette) -> String {
    let (state, ink) = unit_state(unit.state);
    let note = unit
        .note
        .as_ref()
        .filter(|_| matches!(unit.state(), UnitState::Failed | UnitState::Waiting));
    let note = note.map(|note| format!("  {}", printable(note))).unwrap_or_default();
    let took = unit
        .took
        .as_ref()
        .filter(|_| matches!(unit.state(), UnitState::Running | UnitState::Exited));
    let took =
        took.map(|took| format!("  {}", node::short(millis(Some(took))))).unwrap_or_default();
    format!("{}  {}{took}{note}\n", unit.name, palette.paint(ink, state))
}

fn word(verb: UnitVerb) -> &'static str {
    match verb {
        UnitVerb::Start => "start",
        UnitVerb::Stop => "stop",
        UnitVerb::Restart => "restart",
        UnitVerb::Unspecified => "leave",
    }
}

/// The plan for people.
fn page(plan: &ControlUnitResponse, dry_run: bool, palette: Palette) -> String {
    if plan.jobs.is_empty() {
        return "Nothing is to be done.\n".to_owned();
    }
    let mut page = if dry_run { "This would happen:\n" } else { "" }.to_owned();
    let name = plan.jobs.iter().map(|job| job.unit.len()).max().unwrap_or(0);
    for job in &plan.jobs {
        let verb = format!("{:7}", word(job.verb()));
        let (verb, mark) = match job.interrupts {
            true => (palette.paint(Ink::Bad, &verb), "!"),
            false => (palette.paint(Ink::Good, &verb), " "),
        };
        let why = palette.paint(Ink::Faint, &printable(&job.why));
        let _ = writeln!(page, "{mark} {verb}  {:name$}  {why}", job.unit);
    }
    if plan.jobs.iter().any(|job| job.interrupts) {
        page += &palette.paint(Ink::Faint, "! interrupts something that runs");
        page.push('\n');
    }
    page.push('\n');
    page
}

/// What `--output json` prints; its keys are an interface.
#[derive(Debug, Serialize)]
struct View<'a> {
    dry_run: bool,
    digest: &'a str,
    jobs: Vec<JobView<'a>>,
    ended: Vec<EndView<'a>>,
}

#[derive(Debug, Serialize)]
struct JobView<'a> {
    unit: &'a str,
    verb: &'static str,
    why: &'a str,
    interrupts: bool,
}

#[derive(Debug, Serialize)]
struct EndView<'a> {
    unit: &'a str,
    state: &'static str,
    note: Option<&'a str>,
    good: bool,
}

impl<'a> View<'a> {
    fn new(plan: &'a ControlUnitResponse, dry_run: bool, ends: &'a [End]) -> Self {
        let job = |job: &'a PlannedJob| JobView {
            unit: &job.unit,
            verb: word(job.verb()),
            why: &job.why,
            interrupts: job.interrupts,
        };
        let ended = |end: &'a End| EndView {
            unit: &end.unit.name,
            state: unit_state(end.unit.state).0,
            note: end.unit.note.as_deref(),
            good: end.good,
        };
        View {
            dry_run,
            digest: &plan.digest,
            jobs: plan.jobs.iter().map(job).collect(),
            ended: ends.iter().map(ended).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(state: UnitState, since: i64, note: Option<&str>) -> Unit {
        let since = Some(prost_types::Duration { seconds: since, nanos: 0 });
        Unit { state: state.into(), since, note: note.map(str::to_owned), ..Unit::default() }
    }

    fn check(verb: UnitVerb, before: &Unit, now: &Unit, expect: Option<bool>) {
        let job = PlannedJob { verb: verb.into(), ..PlannedJob::default() };
        assert_eq!(end(&job, Some(before), now), expect, "{verb:?} {now:?}");
    }

    #[test]
    fn when_a_unit_has_ended() {
        use UnitState::{Activating, Deactivating, Exited, Failed, Inactive, Running, Waiting};
        use UnitVerb::{Restart, Start, Stop};
        let up = unit(Running, 1, None);
        let down = unit(Inactive, 1, None);
        check(Stop, &up, &up, None);
        check(Stop, &up, &unit(Deactivating, 5, None), None);
        check(Stop, &up, &unit(Inactive, 5, None), Some(true));
        check(Stop, &up, &unit(Failed, 5, Some("could not be stopped")), Some(false));
        check(Start, &down, &down, None);
        check(Start, &down, &unit(Activating, 5, None), None);
        check(Start, &down, &unit(Exited, 5, None), Some(true));
        check(Start, &down, &unit(Failed, 5, Some("no")), Some(false));
        check(Restart, &up, &up, None);
        check(Restart, &up, &unit(Inactive, 5, None), None);
        check(Restart, &up, &unit(Waiting, 5, None), None);
        check(Restart, &up, &unit(Running, 5, None), Some(true));
        check(Restart, &up, &unit(Waiting, 5, Some("exited with code 1")), Some(false));
    }

    #[test]
    fn plans() {
        let job = |unit: &str, verb: UnitVerb, why: &str, interrupts| PlannedJob {
            unit: unit.to_owned(),
            verb: verb.into(),
            why: why.to_owned(),
            interrupts,
        };
        let jobs = vec![
            job(
                "kubelet",
                UnitVerb::Restart,
                "requires containerd: units/services/kubelet.toml:4",
                true,
            ),
            job("containerd", UnitVerb::Restart, "asked for", true),
            job("time", UnitVerb::Start, "kubelet wants it: units/services/kubelet.toml:5", false),
        ];
        let plan = ControlUnitResponse { jobs, digest: "sha256:12".to_owned() };
        insta::assert_snapshot!("plan", page(&plan, true, Palette::PLAIN));
        insta::assert_snapshot!(
            "plan_json",
            serde_json::to_string_pretty(&View::new(&plan, true, &[])).unwrap()
        );
        assert_eq!(
            page(&ControlUnitResponse::default(), false, Palette::PLAIN),
            "Nothing is to be done.\n"
        );
    }
}

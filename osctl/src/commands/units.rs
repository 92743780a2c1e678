//! `osctl units`: a table of a node's units; and one of them shown, started, stopped or restarted.

mod control;
pub(crate) mod live;

use std::time::Duration;

use clap::Subcommand;
use keel_proto::v1::{ListUnitsRequest, ListUnitsResponse, Unit, UnitState, UnitVerb};
use serde::Serialize;

use crate::cli::NodeArgs;
use crate::commands::watch::Watch;
use crate::error::{Exit, Failure};
use crate::node::{self, Cell, age, millis, short, unit_state};
use crate::output::{Ink, Output, Palette};

pub(crate) use live::refused;

/// How long before a node is looked at again, by who waits for something.
pub(crate) const AGAIN: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  osctl --endpoint 192.0.2.10 units
  osctl --endpoint 192.0.2.10 units --watch --interval 5
  osctl --endpoint 192.0.2.10 --endpoint 192.0.2.11 units
  osctl --endpoint 192.0.2.10 units --output json | jq '.units[] | select(.state == \"failed\")'"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<UnitCommand>,

    #[command(flatten)]
    watch: Watch,
}

/// What is done about one unit.
#[derive(Debug, Subcommand)]
enum UnitCommand {
    /// Show a unit of a node: how it stands, what it waits for and why, every edge, and its last lines
    #[command(after_help = "Exit code 1: the unit has failed.

Examples:
  osctl --endpoint 192.0.2.10 units show kubelet
  osctl --endpoint 192.0.2.10 units show kubelet --watch")]
    Show(Show),

    /// Start a unit and what it needs; the plan is shown first
    #[command(after_help = "Exit code 1: it did not come up.

Examples:
  osctl --endpoint 192.0.2.10 units start time --dry-run
  osctl --endpoint 192.0.2.10 units start time")]
    Start(control::Control),

    /// Stop a unit and what requires it; the plan is shown first
    #[command(after_help = "Exit code 1: it was declined, or something did not stop.

Examples:
  osctl --endpoint 192.0.2.10 units stop kubelet --dry-run
  osctl --endpoint 192.0.2.10 units stop kubelet --yes")]
    Stop(control::Control),

    /// Restart a unit and what requires it; the plan is shown first
    #[command(after_help = "Exit code 1: it was declined, or something did not come up again.

Examples:
  osctl --endpoint 192.0.2.10 units restart containerd --dry-run
  osctl --endpoint 192.0.2.10 units restart containerd --yes")]
    Restart(control::Control),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The unit
    #[arg(value_name = "UNIT")]
    unit: String,

    /// Show it again whenever something changes, until interrupted
    #[arg(long, short)]
    watch: bool,
}

pub(crate) fn run(args: &Args, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    match &args.command {
        None => args.watch.run(out, |out| once(node, out)),
        Some(UnitCommand::Show(show)) => {
            live::show(&show.unit, live::Depth::Whole, show.watch, node, out)
        }
        Some(UnitCommand::Start(unit)) => control::run(unit, UnitVerb::Start, node, out),
        Some(UnitCommand::Stop(unit)) => control::run(unit, UnitVerb::Stop, node, out),
        Some(UnitCommand::Restart(unit)) => control::run(unit, UnitVerb::Restart, node, out),
    }
}

fn once(node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    let lists = node::each(node, out, async |connection| {
        let answer = connection.node().list_units(ListUnitsRequest {}).await;
        Ok(answer.map_err(|status| node::refused("list its units", &status))?.into_inner())
    })?;
    lists.show(out, ListView::from, table, HEADER, cells)
}

/// What `--output json` prints; its keys are an interface.
#[derive(Debug, Serialize)]
struct ListView<'a> {
    now_ms: u64,
    units: Vec<UnitView<'a>>,
}

#[derive(Debug, Serialize)]
struct UnitView<'a> {
    name: &'a str,
    kind: &'a str,
    stage: Option<&'a str>,
    description: &'a str,
    state: &'static str,
    since_ms: u64,
    took_ms: Option<u64>,
    attempts: u32,
    note: Option<&'a str>,
    deadline_ms: Option<u64>,
    waits_for: &'a [String],
    pid: Option<u32>,
    memory_bytes: Option<u64>,
}

impl<'a> From<&'a ListUnitsResponse> for ListView<'a> {
    fn from(list: &'a ListUnitsResponse) -> Self {
        Self {
            now_ms: millis(list.now.as_ref()),
            units: list.units.iter().map(UnitView::from).collect(),
        }
    }
}

impl<'a> From<&'a Unit> for UnitView<'a> {
    fn from(unit: &'a Unit) -> Self {
        Self {
            name: &unit.name,
            kind: &unit.kind,
            stage: unit.stage.as_deref(),
            description: &unit.description,
            state: unit_state(unit.state).0,
            since_ms: millis(unit.since.as_ref()),
            took_ms: unit.took.as_ref().map(|took| millis(Some(took))),
            attempts: unit.attempts,
            note: unit.note.as_deref(),
            deadline_ms: unit.deadline.as_ref().map(|deadline| millis(Some(deadline))),
            waits_for: &unit.waits_for,
            pid: unit.pid,
            memory_bytes: unit.memory_bytes,
        }
    }
}

const HEADER: [&str; 5] = ["UNIT", "STATE", "SINCE", "TOOK", "NOTE"];

/// The table for people, and a line that sums it up.
fn table(list: &ListUnitsResponse, palette: Palette) -> String {
    let now = millis(list.now.as_ref());
    let rows: Vec<_> = list.units.iter().map(|unit| row(unit, now)).collect();
    let mut widths = HEADER.map(str::len);
    for cells in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut table =
        palette.paint(Ink::Faint, &aligned(&HEADER.map(str::to_owned), widths).concat());
    table.push('\n');
    for (unit, cells) in list.units.iter().zip(&rows) {
        let [name, state, rest @ ..] = aligned(cells, widths);
        // Padded first, painted then: a terminal does not count colours as characters.
        table += &[name, palette.paint(unit_state(unit.state).1, &state), rest.concat()].concat();
        table.push('\n');
    }
    table.push('\n');
    table += &sum(list);
    table
}

/// The rows of one node in a table of several.
fn cells(list: &ListUnitsResponse) -> Vec<[Cell; 5]> {
    let now = millis(list.now.as_ref());
    let cells = |unit: &Unit| {
        let [name, state, since, took, note] = row(unit, now);
        let state = Cell::inked(state, unit_state(unit.state).1);
        [Cell::plain(name), state, Cell::plain(since), Cell::plain(took), Cell::plain(note)]
    };
    list.units.iter().map(cells).collect()
}

/// Columns as wide as their widest cell; the last one ends where its text does.
fn aligned(cells: &[String; 5], widths: [usize; 5]) -> [String; 5] {
    let [name, state, since, took, note] = cells;
    let [name_width, state_width, since_width, took_width, _] = widths;
    let note = if note.is_empty() { String::new() } else { format!("  {note}") };
    [
        format!("{name:name_width$}  "),
        format!("{state:state_width$}"),
        format!("  {since:>since_width$}"),
        format!("  {took:>took_width$}"),
        note,
    ]
}

/// A unit's cells: name, state, since, took and note.
pub(crate) fn row(unit: &Unit, now: u64) -> [String; 5] {
    let since = age(now.saturating_sub(millis(unit.since.as_ref())));
    let took = unit.took.as_ref().map(|took| short(millis(Some(took)))).unwrap_or_default();
    [unit.name.clone(), unit_state(unit.state).0.to_owned(), since, took, note(unit, now)]
}

/// What a reader would ask next about a unit in this state.
fn note(unit: &Unit, now: u64) -> String {
    let mut notes = Vec::new();
    notes.extend(unit.note.clone());
    if !unit.waits_for.is_empty() {
        notes.push(format!("waits for {}", unit.waits_for.join(", ")));
    }
    if let Some(deadline) = &unit.deadline {
        notes.push(match millis(Some(deadline)).checked_sub(now) {
            Some(left) => format!("times out in {}", short(left)),
            None => "its time is over".to_owned(),
        });
    }
    if unit.attempts > 1 {
        notes.push(format!("started {} times", unit.attempts));
    }
    notes.extend(unit.pid.map(|pid| format!("pid {pid}")));
    notes.extend(unit.memory_bytes.map(size));
    notes.join(", ")
}

/// Bytes as a person says them.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// How many units there are, and how many in each state that occurs.
fn sum(list: &ListUnitsResponse) -> String {
    let mut parts = vec![format!("{} units", list.units.len())];
    for state in [
        UnitState::Running,
        UnitState::Exited,
        UnitState::Activating,
        UnitState::Waiting,
        UnitState::Deactivating,
        UnitState::Failed,
        UnitState::Skipped,
        UnitState::Inactive,
    ] {
        let count = list.units.iter().filter(|unit| unit.state() == state).count();
        if count > 0 {
            parts.push(format!("{count} {}", unit_state(state.into()).0));
        }
    }
    parts.join(", ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: i64) -> Option<prost_types::Duration> {
        let nanos = i32::try_from(ms % 1000).unwrap() * 1_000_000;
        Some(prost_types::Duration { seconds: ms / 1000, nanos })
    }

    fn unit(name: &str, kind: &str, state: UnitState) -> Unit {
        Unit {
            name: name.to_owned(),
            kind: kind.to_owned(),
            stage: Some("services".to_owned()),
            description: format!("The {name}"),
            state: state.into(),
            since: ms(2_000),
            attempts: 1,
            ..Unit::default()
        }
    }

    fn list() -> ListUnitsResponse {
        let units = vec![
            Unit { took: ms(12), ..unit("mount.proc", "mount", UnitState::Running) },
            Unit {
                took: ms(1_650),
                pid: Some(77),
                memory_bytes: Some(45 * 1024 * 1024 + 300_000),
                attempts: 3,
                ..unit("containerd", "service", UnitState::Running)
            },
            Unit { deadline: ms(42_000), ..unit("link@eth0", "link", UnitState::Activating) },
            Unit {
                waits_for: vec!["link@eth0".to_owned()],
                ..unit("time", "time", UnitState::Waiting)
            },
            Unit {
                took: ms(30_000),
                note: Some("exit status 1: cannot find the disk".to_owned()),
                ..unit("partition.data", "partition", UnitState::Failed)
            },
            Unit {
                note: Some("/etc/kubernetes/kubelet.conf does not exist".to_owned()),
                ..unit("kubelet", "service", UnitState::Skipped)
            },
        ];
        ListUnitsResponse { now: ms(32_000), units }
    }

    #[test]
    fn tables() {
        insta::assert_snapshot!("units", table(&list(), Palette::PLAIN));
    }

    #[test]
    fn json() {
        insta::assert_snapshot!(
            "units_json",
            serde_json::to_string_pretty(&ListView::from(&list())).unwrap()
        );
    }

    fn check(bytes: u64, expect: &str) {
        assert_eq!(size(bytes), expect);
    }

    #[test]
    fn sizes() {
        check(0, "0.0 KiB");
        check(1536, "1.5 KiB");
        check(1024 * 1024 - 1, "1023.9 KiB");
        check(1024 * 1024, "1.0 MiB");
        check(5 * 1024 * 1024 * 1024, "5.0 GiB");
        check(u64::MAX, "16777215.9 TiB");
    }
}

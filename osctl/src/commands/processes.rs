//! `osctl processes`: what each unit runs, and what that uses.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use keel_proto::v1::{ListProcessesRequest, Process, UnitProcesses};
use serde::Serialize;
use tonic::{Code, Status};

use super::units::{AGAIN, size};
use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::{self, millis, short};
use crate::output::{Format, Ink, Output, Palette, printable};

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(2);

/// List what runs on a node, unit by unit: processes, processor time, memory and disk use
///
/// Numbers come from the units' cgroups. Arguments of processes are never shown: they may hold secrets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 processes
  osctl --endpoint 192.0.2.10 processes containerd kubelet
  osctl --endpoint 192.0.2.10 processes --watch --sort cpu
  osctl --endpoint 192.0.2.10 processes --output json | jq '.units[] | {unit, memory_bytes}'")]
pub(crate) struct Processes {
    /// Only these units
    #[arg(value_name = "UNIT")]
    units: Vec<String>,

    /// What comes first
    #[arg(long, value_enum, default_value_t = Sort::Name)]
    sort: Sort,

    /// Units alone, without their processes
    #[arg(long)]
    short: bool,

    /// Look again every two seconds, until interrupted
    #[arg(long, short)]
    watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By name
    Name,
    /// What uses most of the processors; with --watch, at this moment
    Cpu,
    /// What uses most memory
    Memory,
}

impl Processes {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        node::ask(async {
            let connection = node::reach(node, out).await?;
            let mut before: Option<(Instant, HashMap<String, u64>)> = None;
            loop {
                let request = ListProcessesRequest { units: self.units.clone() };
                let answer = connection.node().list_processes(request).await;
                let mut units = answer.map_err(|status| refused(&status))?.into_inner().units;
                let now = Instant::now();
                let shares = before.as_ref().map(|(then, used)| shares(&units, used, now - *then));
                sort(&mut units, self.sort, shares.as_ref());
                match out.format() {
                    Format::Table => {
                        let page = page(&units, shares.as_ref(), self.short, out.palette());
                        // The screen anew, so that numbers stay where they are.
                        let clear = if self.watch { "\x1b[H\x1b[2J" } else { "" };
                        out.text(&format!("{clear}{page}"))?;
                    }
                    Format::Json if self.watch => out.json_line(&View::new(&units))?,
                    Format::Json => out.json(&View::new(&units))?,
                }
                if !self.watch {
                    return Ok(Exit::Clean);
                }
                let first = before.is_none();
                let used = units.iter().map(|unit| (unit.unit.clone(), cpu(unit))).collect();
                before = Some((now, used));
                tokio::time::sleep(if first { AGAIN } else { EVERY }).await;
            }
        })
    }
}

fn refused(status: &Status) -> Failure {
    match status.code() {
        Code::NotFound => Failure::usage(status.message().to_owned())
            .next("`osctl processes --short` lists the units that run something"),
        _ => node::refused("list its processes", status),
    }
}

fn cpu(unit: &UnitProcesses) -> u64 {
    millis(unit.cpu.as_ref())
}

/// How many tenths of a percent of one processor each unit used since then.
fn shares(
    units: &[UnitProcesses],
    before: &HashMap<String, u64>,
    passed: Duration,
) -> HashMap<String, u64> {
    let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
    let share = |unit: &UnitProcesses| {
        let used = cpu(unit).saturating_sub(*before.get(&unit.unit)?);
        Some((unit.unit.clone(), used.saturating_mul(1000) / passed))
    };
    units.iter().filter_map(share).collect()
}

fn sort(units: &mut [UnitProcesses], by: Sort, shares: Option<&HashMap<String, u64>>) {
    let most = |unit: &UnitProcesses| match (by, shares) {
        (Sort::Name, _) => 0,
        (Sort::Cpu, Some(shares)) => shares.get(&unit.unit).copied().unwrap_or(0),
        (Sort::Cpu, None) => cpu(unit),
        (Sort::Memory, _) => unit.memory_bytes.unwrap_or(0),
    };
    units.sort_by(|a, b| most(b).cmp(&most(a)).then_with(|| a.unit.cmp(&b.unit)));
}

fn page(
    units: &[UnitProcesses],
    shares: Option<&HashMap<String, u64>>,
    short_page: bool,
    palette: Palette,
) -> String {
    let name = units.iter().map(|unit| unit.unit.len()).max().unwrap_or(4).max(24);
    let head = format!(
        "{:name$}  {:>6}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}",
        "UNIT", "PROCS", "CPU", "MEMORY", "PEAK", "READ", "WRITTEN"
    );
    let mut page = palette.paint(Ink::Faint, &head);
    page.push('\n');
    let bytes = |bytes: Option<u64>| bytes.map(size).unwrap_or_else(|| "-".to_owned());
    for unit in units {
        let used = match shares.and_then(|shares| shares.get(&unit.unit)) {
            Some(share) => format!("{}.{} %", share / 10, share % 10),
            None => unit.cpu.as_ref().map_or("-".to_owned(), |cpu| short(millis(Some(cpu)))),
        };
        let own = palette.paint(Ink::Strong, &format!("{:name$}", printable(&unit.unit)));
        let kills = unit.oom_kills.filter(|kills| *kills > 0);
        let kills = kills
            .map(|kills| palette.paint(Ink::Bad, &format!("  {kills} killed for lack of memory")));
        let _ = writeln!(
            page,
            "{own}  {:>6}  {used:>10}  {:>10}  {:>10}  {:>10}  {:>10}{}",
            unit.count,
            bytes(unit.memory_bytes),
            bytes(unit.memory_peak_bytes),
            bytes(unit.io_read_bytes),
            bytes(unit.io_written_bytes),
            kills.unwrap_or_default(),
        );
        if short_page {
            continue;
        }
        for process in &unit.processes {
            let Process { pid, state, name: program, threads, rss_bytes, .. } = process;
            let label = format!("  {pid:>7} {state} {}", printable(program));
            let cpu = short(millis(process.cpu.as_ref()));
            let _ = writeln!(
                page,
                "{label:name$}  {:>6}  {cpu:>10}  {:>10}",
                if *threads > 1 { format!("{threads}t") } else { String::new() },
                size(*rss_bytes),
            );
        }
        if let Some(more) =
            (unit.count as usize).checked_sub(unit.processes.len()).filter(|m| *m > 0)
        {
            let _ = writeln!(page, "  {}", palette.paint(Ink::Faint, &format!("and {more} more")));
        }
    }
    page
}

/// What `--output json` prints; its keys are an interface.
#[derive(Debug, Serialize)]
struct View<'a> {
    units: Vec<UnitView<'a>>,
}

#[derive(Debug, Serialize)]
struct UnitView<'a> {
    unit: &'a str,
    cgroup: &'a str,
    cpu_ms: Option<u64>,
    memory_bytes: Option<u64>,
    memory_peak_bytes: Option<u64>,
    memory_max_bytes: Option<u64>,
    oom_kills: Option<u64>,
    io_read_bytes: Option<u64>,
    io_written_bytes: Option<u64>,
    count: u32,
    processes: Vec<ProcessView<'a>>,
}

#[derive(Debug, Serialize)]
struct ProcessView<'a> {
    pid: u32,
    parent: u32,
    name: &'a str,
    state: &'a str,
    cpu_ms: u64,
    rss_bytes: u64,
    threads: u32,
    started_ms: u64,
}

impl<'a> View<'a> {
    fn new(units: &'a [UnitProcesses]) -> Self {
        let process = |process: &'a Process| ProcessView {
            pid: process.pid,
            parent: process.parent,
            name: &process.name,
            state: &process.state,
            cpu_ms: millis(process.cpu.as_ref()),
            rss_bytes: process.rss_bytes,
            threads: process.threads,
            started_ms: millis(process.started.as_ref()),
        };
        let unit = |unit: &'a UnitProcesses| UnitView {
            unit: &unit.unit,
            cgroup: &unit.cgroup,
            cpu_ms: unit.cpu.as_ref().map(|cpu| millis(Some(cpu))),
            memory_bytes: unit.memory_bytes,
            memory_peak_bytes: unit.memory_peak_bytes,
            memory_max_bytes: unit.memory_max_bytes,
            oom_kills: unit.oom_kills,
            io_read_bytes: unit.io_read_bytes,
            io_written_bytes: unit.io_written_bytes,
            count: unit.count,
            processes: unit.processes.iter().map(process).collect(),
        };
        View { units: units.iter().map(unit).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, cpu: i64, memory: u64) -> UnitProcesses {
        let process = Process {
            pid: 77,
            parent: 1,
            name: name.to_owned(),
            state: "S".to_owned(),
            cpu: Some(prost_types::Duration { seconds: 1, nanos: 250_000_000 }),
            rss_bytes: memory / 2,
            threads: 11,
            started: None,
        };
        UnitProcesses {
            unit: name.to_owned(),
            cgroup: format!("/keel/{name}"),
            cpu: Some(prost_types::Duration { seconds: cpu, nanos: 0 }),
            memory_bytes: Some(memory),
            count: 2,
            processes: vec![process],
            ..UnitProcesses::default()
        }
    }

    #[test]
    fn tables() {
        let units = [
            unit("containerd", 12, 64 << 20),
            UnitProcesses { oom_kills: Some(2), ..unit("kubelet", 3, 128 << 20) },
        ];
        insta::assert_snapshot!("processes", page(&units, None, false, Palette::PLAIN));
        insta::assert_snapshot!(
            "processes_json",
            serde_json::to_string_pretty(&View::new(&units)).unwrap()
        );
        let before =
            HashMap::from([("containerd".to_owned(), 11_000), ("kubelet".to_owned(), 3_000)]);
        let shares = shares(&units, &before, Duration::from_secs(2));
        insta::assert_snapshot!(
            "processes_short",
            page(&units, Some(&shares), true, Palette::PLAIN)
        );
    }

    #[test]
    fn what_comes_first() {
        let check = |by, shares: Option<&HashMap<String, u64>>, expect: [&str; 3]| {
            let mut units = [unit("b", 5, 10), unit("a", 1, 30), unit("c", 9, 20)];
            sort(&mut units, by, shares);
            assert_eq!(units.map(|unit| unit.unit), expect);
        };
        check(Sort::Name, None, ["a", "b", "c"]);
        check(Sort::Cpu, None, ["c", "b", "a"]);
        check(Sort::Memory, None, ["a", "c", "b"]);
        check(Sort::Cpu, Some(&HashMap::from([("a".to_owned(), 7)])), ["a", "b", "c"]);
    }
}

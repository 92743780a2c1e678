//! What is told of a race: a table for the book, JSON for programs, and a chart.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::ground::Run;
use super::peer::ABSENT;
use super::settled::Machine;
use super::shape::Shape;
use super::{chart, median, walls};
use crate::command::{Failure, command, output};

/// What one peer took on one graph.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) peer: &'static str,
    pub(super) shape: &'static str,
    pub(super) n: usize,
    /// The median, as everything else here; nothing if it failed.
    pub(super) wall_s: Option<f64>,
    wall_least_s: Option<f64>,
    wall_most_s: Option<f64>,
    /// Beside the floor of the same rounds that knows no order.
    pub(super) floor_ratio: Option<f64>,
    /// Beside the floor that can keep the order: for a chain that is one process at a time.
    pub(super) own_floor_ratio: Option<f64>,
    /// Processor time of everybody, the units' own too.
    cpu_s: Option<f64>,
    /// Memory of the manager when the last unit is done.
    rss_mib: Option<f64>,
    /// The most that it ever had.
    peak_mib: Option<f64>,
    rounds: usize,
    pub(super) failed: Option<String>,
}

impl Row {
    /// `best` and `own` are the times of the floors.
    pub(super) fn new(
        peer: &'static str,
        shape: Shape,
        n: usize,
        runs: &[Run],
        failed: Option<String>,
        best: f64,
        own: f64,
    ) -> Self {
        let of = |what: &dyn Fn(&Run) -> f64| {
            let values: Vec<_> = runs.iter().map(what).collect();
            (!values.is_empty()).then(|| median(&values))
        };
        let mib = |kib: u64| kib as f64 / 1024.0;
        let walls = walls(runs);
        let wall = of(&|run| run.wall.as_secs_f64());
        Self {
            peer,
            shape: shape.name(),
            n,
            wall_s: wall,
            wall_least_s: walls.iter().copied().reduce(f64::min),
            wall_most_s: walls.iter().copied().reduce(f64::max),
            floor_ratio: wall.map(|wall| wall / best.max(1e-9)),
            own_floor_ratio: wall.map(|wall| wall / own.max(1e-9)),
            cpu_s: of(&|run| run.cpu.as_secs_f64()),
            rss_mib: of(&|run| mib(run.rss)),
            peak_mib: of(&|run| mib(run.peak)),
            rounds: runs.len(),
            failed,
        }
    }

    fn line(&self) -> String {
        let Self { peer, shape, n, .. } = self;
        let (Some(wall), Some(least), Some(most)) =
            (self.wall_s, self.wall_least_s, self.wall_most_s)
        else {
            let why = self.failed.as_deref().unwrap_or("did not run");
            return format!("| {n} | {shape} | `{peer}` | {why} | | | | | |\n");
        };
        let number = |value: Option<f64>| format!("{:.2}", value.unwrap_or(f64::NAN));
        let failed = self.failed.as_ref().map(|why| format!(" (then: {why})"));
        format!(
            "| {n} | {shape} | `{peer}` | {:.0} ms{} | {:.0} – {:.0} ms | {} | {} | {} s | {:.1} MiB |\n",
            wall * 1e3,
            failed.unwrap_or_default(),
            least * 1e3,
            most * 1e3,
            number(self.floor_ratio),
            number(self.own_floor_ratio),
            number(self.cpu_s),
            self.rss_mib.unwrap_or(f64::NAN),
        )
    }
}

/// A whole race.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Seconds since 1970.
    made: u64,
    host: String,
    processors: usize,
    machine: Machine,
    /// Why the figures mean little.
    unsettled: Option<String>,
    /// How many processes at once the floor starts.
    floor_width: usize,
    rounds: usize,
    absent: Vec<(&'static str, &'static str)>,
    pub(super) rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(
        rows: Vec<Row>,
        machine: Machine,
        unsettled: Option<String>,
        floor_width: usize,
        rounds: usize,
    ) -> Self {
        let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let kernel = output(&mut command("uname", ["-sr"])).unwrap_or_default();
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|rest| rest.split_once(": ")).map_or("?", |(_, name)| name);
        Self {
            made,
            host: format!("{}, {model}", kernel.trim()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            machine,
            unsettled,
            floor_width,
            rounds,
            absent: ABSENT.to_vec(),
            rows,
        }
    }

    /// Writes `latest.json` and `latest.svg`.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Failure> {
        let put = || Failure::because("cannot write the results");
        fs::create_dir_all(folder).map_err(put())?;
        let json = serde_json::to_string_pretty(self).map_err(Failure::because("no JSON"))?;
        fs::write(folder.join("latest.json"), json + "\n").map_err(put())?;
        fs::write(folder.join("latest.svg"), chart::svg(&self.rows)).map_err(put())
    }

    /// Markdown, as docs/performance.md shows it.
    pub(super) fn table(&self) -> String {
        let mut text = "| units | graph | | median | fastest – slowest | × the floor | × its own floor | processor time | memory at rest |\n\
                        |---:|---|---|---:|---:|---:|---:|---:|---:|\n"
            .to_owned();
        text.extend(self.rows.iter().map(Row::line));
        let date =
            output(&mut command("date", ["-u", "+%F %H:%M UTC", &format!("-d@{}", self.made)]));
        let Machine { load, busy, steal, pressure } = self.machine;
        text += &format!(
            "\nMeasured on {}, {} rounds, on {} processors, {}; before it load {load:.1}, others busy {busy:.0} %, steal {steal:.0} %, \
             pressure {pressure:.0} %; the floor starts {} at once.\n",
            date.unwrap_or_default().trim(),
            self.rounds,
            self.processors,
            self.host,
            self.floor_width,
        );
        let absent = self.absent.iter().map(|(who, why)| format!("{who} ({why})"));
        text += &format!("Not measured: {}.\n", absent.collect::<Vec<_>>().join("; "));
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(wall: u64) -> Run {
        Run {
            wall: Duration::from_millis(wall),
            cpu: Duration::from_millis(50),
            rss: 2048,
            peak: 4096,
        }
    }

    #[test]
    fn a_row_is_a_line() {
        let check = |runs: &[Run], failed: Option<&str>, expect: &str| {
            let failed = failed.map(str::to_owned);
            let row = Row::new("keel", Shape::Chain, 100, runs, failed, 0.1, 0.2);
            assert_eq!(row.line(), expect);
        };
        check(
            &[run(300), run(200), run(900)],
            None,
            "| 100 | chain | `keel` | 300 ms | 200 – 900 ms | 3.00 | 1.50 | 0.05 s | 2.0 MiB |\n",
        );
        check(&[], Some("it ended"), "| 100 | chain | `keel` | it ended | | | | | |\n");
    }

    #[test]
    fn the_json_has_what_programs_read() {
        let row = Row::new("keel", Shape::Side, 7, &[run(300)], None, 0.3, 0.3);
        let json = serde_json::to_value(&row).unwrap();
        for key in ["peer", "shape", "n", "wall_s", "floor_ratio", "cpu_s", "rss_mib"] {
            assert!(!json[key].is_null(), "{key}");
        }
        assert_eq!(json["floor_ratio"], 1.0);
    }
}

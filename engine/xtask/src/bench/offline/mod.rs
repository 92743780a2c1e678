//! `cargo xtask bench-offline`: osctl beside systemd-analyze on the same graph, in one run.
//!
//! Every contender is a process that reads all files, and each round runs one after the other, so that whatever else the machine does
//! falls on all of them. The table is markdown, as docs/performance.md shows it.

mod graph;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use graph::Graph;
use systemd::Systemd;

use super::median;
use crate::command::{self, Failure, command};
use crate::node::repository;
use crate::progress::{print, say, step};
use crate::setup;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Sizes of the graphs
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    units: Vec<usize>,

    /// How often each contender runs on each graph
    #[arg(long, value_name = "COUNT", default_value_t = 15)]
    rounds: usize,

    /// Which random graphs
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// Measure this osctl, instead of building one
    #[arg(long, value_name = "FILE")]
    osctl: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if options.rounds == 0 {
        return Err(Failure::new("--rounds: at least one"));
    }
    setup::bench()?;
    let osctl = match &options.osctl {
        Some(osctl) => osctl.clone(),
        None => step("osctl", build)?,
    };
    let mut table = Table::default();
    for units in &options.units {
        let rows = step(&format!("{units} units"), || measure(&osctl, *units, options))?;
        table.add(*units, &rows);
    }
    print(&table.text);
    Ok(())
}

/// Builds osctl as `cargo install` would.
fn build() -> Result<PathBuf, Failure> {
    let build = ["build", "--quiet", "--release", "--package", "osctl"];
    command::run(command::cargo(build).current_dir(repository()))?;
    Ok(repository().join("target/release/osctl"))
}

/// What one contender took.
#[derive(Debug)]
struct Row {
    name: &'static str,
    times: Vec<Duration>,
    /// The most memory that it ever held, in KiB.
    peak: u64,
}

/// A contender: its name, and the command that is run anew each time.
type Contender<'a> = (&'static str, Box<dyn Fn() -> Command + 'a>);

fn measure(osctl: &Path, units: usize, options: &Options) -> Result<Vec<Row>, Failure> {
    let folder = tempfile::tempdir().map_err(Failure::because("cannot make a folder"))?;
    let (keel, systemd) = (folder.path().join("keel"), folder.path().join("systemd"));
    let graph = Graph::random(units, options.seed);
    graph
        .keel(&keel)
        .and_then(|()| graph.systemd(&systemd))
        .map_err(Failure::because("cannot write the units"))?;
    say(&format!("{units} units, {} words between them", graph.words()));

    let on_keel = |words: &'static [&'static str]| -> Contender<'_> {
        let keel: PathBuf = keel.clone();
        let run = move || {
            let mut run = command(&osctl.to_string_lossy(), words);
            run.arg("--units").arg(&keel);
            run
        };
        (if words == VALIDATE { "osctl validate" } else { "osctl graph render" }, Box::new(run))
    };
    let verify = |files: Vec<PathBuf>| {
        let mut verify = command("systemd-analyze", ["verify", "--man=no"]);
        verify.args(files).env("SYSTEMD_UNIT_PATH", &systemd);
        verify
    };
    let goal = || vec![systemd.join("boot.target")];
    let all = || {
        let units = (0..units).map(|i| systemd.join(format!("u{i}.service")));
        units.chain(goal()).collect()
    };
    // To be asked, a manager has read everything before: what is timed is the drawing alone.
    let running = Systemd::start(&systemd);
    let mut contenders = vec![
        on_keel(VALIDATE),
        on_keel(RENDER),
        ("systemd-analyze verify boot.target", Box::new(|| verify(goal()))),
    ];
    if units <= MOST_VERIFIED {
        contenders.push(("systemd-analyze verify *", Box::new(|| verify(all()))));
    }
    match &running {
        Ok(running) => contenders.push((
            "systemd-analyze dot",
            Box::new(|| running.inside("systemd-analyze", &["--user", "dot"], &systemd)),
        )),
        Err(failure) => say(&format!("no systemd-analyze dot: {}", failure.chain())),
    }

    let mut rows: Vec<_> = contenders
        .iter()
        .map(|(name, run)| {
            // The first run of each also reads the files into the page cache.
            let peak = peak(&run())?;
            Ok(Row { name, times: Vec::new(), peak })
        })
        .collect::<Result<_, Failure>>()?;
    for _ in 0..options.rounds {
        for (row, (_, run)) in rows.iter_mut().zip(&contenders) {
            row.times.push(time(&mut run())?);
        }
    }
    Ok(rows)
}

/// Beyond this many units, to verify them all takes systemd minutes: its time grows with their square.
const MOST_VERIFIED: usize = 1_000;

const VALIDATE: &[&str] = &["validate"];
const RENDER: &[&str] = &["graph", "render", "--format", "dot"];

fn time(run: &mut Command) -> Result<Duration, Failure> {
    run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = run.status();
    let took = begun.elapsed();
    match status {
        Ok(status) if status.success() => Ok(took),
        Ok(status) => Err(Failure::new(format!("{run:?} ended with {status}"))),
        Err(error) => Err(Failure::because(format!("cannot run {run:?}"))(error)),
    }
}

/// The most memory of a process, as GNU time tells it.
fn peak(run: &Command) -> Result<u64, Failure> {
    let mut timed = command("time", ["--quiet", "--format=%M"]);
    timed.arg(run.get_program()).args(run.get_args());
    for (name, value) in run.get_envs() {
        if let Some(value) = value {
            timed.env(name, value);
        }
    }
    let output = timed
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .map_err(Failure::because("cannot run time"))?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = told.trim_end().lines().next_back().unwrap_or_default();
    match last.parse() {
        Ok(kibibytes) if output.status.success() => Ok(kibibytes),
        _ => Err(Failure::new(format!("{run:?} failed: {told}"))),
    }
}

/// The page: a line for each contender and size.
#[derive(Default)]
struct Table {
    text: String,
}

impl Table {
    fn add(&mut self, units: usize, rows: &[Row]) {
        if self.text.is_empty() {
            self.text += "| units | | median | fastest – slowest | per unit | peak memory | beside osctl validate |\n\
                          |---:|---|---:|---:|---:|---:|---:|\n";
        }
        let first = rows.first().map_or(Duration::ZERO, |row| median(&row.times));
        for row in rows {
            let median = median(&row.times);
            let (least, most) = (row.times.iter().min(), row.times.iter().max());
            self.text += &format!(
                "| {units} | `{}` | {} | {} – {} | {:.1} µs | {:.1} MiB | {:.1}× |\n",
                row.name,
                ms(median),
                ms(least.copied().unwrap_or_default()),
                ms(most.copied().unwrap_or_default()),
                median.as_secs_f64() * 1e6 / units as f64,
                row.peak as f64 / 1024.0,
                median.as_secs_f64() / first.as_secs_f64().max(1e-9),
            );
        }
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_compares_with_its_first_row() {
        let row = |name, times: &[u64], peak| Row {
            name,
            times: times.iter().copied().map(Duration::from_millis).collect(),
            peak,
        };
        let mut table = Table::default();
        table.add(100, &[row("one", &[2, 3, 9], 2048), row("other", &[60, 61, 90], 1024)]);
        let lines: Vec<_> = table.text.lines().skip(2).collect();
        assert_eq!(
            lines[0],
            "| 100 | `one` | 3.0 ms | 2.0 ms – 9.0 ms | 30.0 µs | 2.0 MiB | 1.0× |"
        );
        assert_eq!(
            lines[1],
            "| 100 | `other` | 61.0 ms | 60.0 ms – 90.0 ms | 610.0 µs | 1.0 MiB | 20.3× |"
        );
    }
}

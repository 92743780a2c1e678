//! `cargo xtask gate`: instructions of what every boot does, against a committed baseline.
//!
//! Time on a shared machine is noise; instructions under callgrind are not: two runs differ by less than a thousandth, which is what
//! the random keys of hash tables make. The work is keel-gate's. It is done once and twice, and the difference is counted, so that neither
//! the process's start nor what the work begins with counts.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::command::{self, Failure, command};
use crate::node::repository;
use crate::progress::{print, say};
use crate::setup;

/// What is counted, by keel-gate's names.
const FIGURES: [(&str, &str); 5] = [
    ("parse", "1,000 unit files to trees"),
    ("lower", "1,000 unit files to units"),
    ("resolve", "1,000 units to a graph and its digest"),
    ("plan", "a graph of 1,000 units to a transaction"),
    ("events", "1,000 events through the scheduler"),
];

/// How much a figure may grow, in thousandths.
const BOUND: u64 = 30;

const BASELINE: &str = "engine/gate/baseline.txt";

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Write what is counted now as the new baseline
    #[arg(long)]
    update: bool,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if ARCH != "x86_64" {
        say(&format!("no instructions are counted: the baseline is of x86_64, and this is {ARCH}"));
        return Ok(());
    }
    setup::gate()?;
    command::run(
        command::cargo(["build", "--quiet", "--profile", "gate", "--package", "keel-gate"])
            .current_dir(repository()),
    )?;
    let program = repository().join("target/gate/keel-gate");
    let processor = first_allowed()?;
    let mut now = Counts { made_by: made_by()?, figures: BTreeMap::new() };
    for (figure, _) in FIGURES {
        let once = count(&program, &processor, figure, 1)?;
        let twice = count(&program, &processor, figure, 2)?;
        now.figures.insert(figure.to_owned(), twice.saturating_sub(once));
    }
    let path = repository().join(BASELINE);
    if options.update {
        return fs::write(&path, now.to_text())
            .map_err(Failure::because(format!("cannot write {BASELINE}")));
    }
    let text =
        fs::read_to_string(&path).map_err(Failure::because(format!("cannot read {BASELINE}")))?;
    let verdict = compare(&Counts::of(&text)?, &now);
    print(&verdict.table);
    match verdict {
        Verdict { failure: Some(failure), comparable: true, .. } => Err(Failure::new(failure)),
        Verdict { failure: Some(failure), .. } => {
            say(&failure);
            Ok(())
        }
        Verdict { failure: None, .. } => Ok(()),
    }
}

/// What was counted, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counts {
    /// Compiler, architecture and valgrind.
    made_by: String,
    figures: BTreeMap<String, u64>,
}

const MADE_BY: &str = "# made by ";

impl Counts {
    fn of(text: &str) -> Result<Self, Failure> {
        let mut counts = Self { made_by: String::new(), figures: BTreeMap::new() };
        for line in text.lines() {
            if let Some(made_by) = line.strip_prefix(MADE_BY) {
                counts.made_by = made_by.to_owned();
            } else if !line.starts_with('#') && !line.is_empty() {
                let (name, count) = line.split_once(' ').unwrap_or((line, ""));
                let count = count.trim().parse().map_err(Failure::because(format!(
                    "{BASELINE}: `{line}` is not a name and a number"
                )))?;
                counts.figures.insert(name.to_owned(), count);
            }
        }
        Ok(counts)
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "# Instructions, as `cargo xtask gate` counts them. `cargo xtask gate --update` writes this file.\n{MADE_BY}{}\n",
            self.made_by
        );
        for (figure, count) in &self.figures {
            text += &format!("{figure:<8} {count:>10}\n");
        }
        text
    }
}

/// How two counts compare.
#[derive(Debug)]
struct Verdict {
    table: String,
    /// Why it is refused, and what to do.
    failure: Option<String>,
    /// Whether the same compiler and valgrind made both. Others change the numbers of code that stays as it is, so with them it is said and
    /// not refused.
    comparable: bool,
}

fn compare(before: &Counts, now: &Counts) -> Verdict {
    let mut table = String::new();
    let mut grown = Vec::new();
    for (figure, what) in FIGURES {
        let is = now.figures.get(figure).copied().unwrap_or_default();
        let Some(was) = before.figures.get(figure).copied().filter(|was| *was > 0) else {
            grown.push(format!("{figure} is not in the baseline"));
            continue;
        };
        let percent = (is as f64 / was as f64 - 1.0) * 100.0;
        let line = format!("{figure:<8} {was:>10} -> {is:>10}  {percent:+.1} %");
        table += &format!("{line}  {what}\n");
        if u128::from(is) * 1000 > u128::from(was) * u128::from(1000 + BOUND) {
            grown.push(format!(
                "{line}: callgrind_annotate target/gate/{figure}.callgrind says where"
            ));
        }
    }
    let failure = (!grown.is_empty()).then(|| {
        let mut text = format!(
            "more instructions than {BASELINE} allows, which is {}.{} % more\n  {}\n",
            BOUND / 10,
            BOUND % 10,
            grown.join("\n  ")
        );
        if before.made_by != now.made_by {
            text += &format!(
                "  the baseline was made by {}, this by {}: with the code as it was before, that alone may be the cause\n",
                before.made_by, now.made_by
            );
        }
        text + "  next: mend what costs more, or say in the commit why it is worth it and run `cargo xtask gate --update`"
    });
    Verdict { table, failure, comparable: before.made_by == now.made_by }
}

/// Instructions of one run. The work takes a thread for each processor, so it gets one.
fn count(program: &Path, processor: &str, figure: &str, rounds: usize) -> Result<u64, Failure> {
    let profile = repository().join(format!("target/gate/{figure}.callgrind"));
    let mut out = OsString::from("--callgrind-out-file=");
    out.push(&profile);
    let mut run = command("taskset", ["--cpu-list", processor, "valgrind", "--tool=callgrind"]);
    run.arg(out).arg(program).arg(figure).arg(rounds.to_string());
    let failed = || format!("cannot count the instructions of `{figure}`");
    let output = run.stdin(Stdio::null()).output().map_err(Failure::because(failed()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    match collected(&told) {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(Failure::new(format!("{}: {told}", failed()))),
    }
}

/// The number in `==7== Collected : 45199095`.
fn collected(told: &str) -> Option<u64> {
    let line = told.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The first processor on which this process may run.
fn first_allowed() -> Result<String, Failure> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(Failure::because("cannot ask for this process's processors"))?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    Ok(list.unwrap_or("0").trim().chars().take_while(char::is_ascii_digit).collect())
}

fn made_by() -> Result<String, Failure> {
    let rustc = command::output(&mut command("rustc", ["--version"]))?;
    let valgrind = command::output(&mut command("valgrind", ["--version"]))?;
    Ok(format!("{}, {}, {ARCH}", rustc.trim(), valgrind.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(made_by: &str, percent: u64) -> Counts {
        let figures = FIGURES.iter().map(|(name, _)| ((*name).to_owned(), 1_000_000)).collect();
        let mut counts = Counts { made_by: made_by.to_owned(), figures };
        counts.figures.insert("plan".to_owned(), 10_000 * percent);
        counts
    }

    #[track_caller]
    fn check(percent: u64, expect: Option<&str>) {
        let verdict = compare(&counts("rustc 1", 100), &counts("rustc 1", percent));
        assert_eq!(verdict.table.lines().count(), FIGURES.len());
        assert_eq!(verdict.failure.as_deref(), expect);
    }

    #[test]
    fn what_grows_by_more_than_three_percent_is_refused() {
        check(50, None);
        check(100, None);
        check(103, None);
        check(
            104,
            Some(
                "more instructions than engine/gate/baseline.txt allows, which is 3.0 % more\n  \
                 plan        1000000 ->    1040000  +4.0 %: callgrind_annotate target/gate/plan.callgrind says where\n  \
                 next: mend what costs more, or say in the commit why it is worth it and run `cargo xtask gate --update`",
            ),
        );
    }

    #[test]
    fn another_compiler_is_named_and_what_the_baseline_lacks_is_refused() {
        let failure = |before, now| compare(&before, &now).failure.unwrap_or_default();
        let text = failure(counts("rustc 1", 100), counts("rustc 2", 104));
        assert!(text.contains("made by rustc 1, this by rustc 2"), "{text}");
        let mut old = counts("rustc 1", 100);
        old.figures.remove("events");
        let text = failure(old, counts("rustc 1", 100));
        assert!(text.contains("events is not in the baseline"), "{text}");
    }

    #[test]
    fn a_baseline_is_read_as_it_is_written() {
        let counts = counts("rustc 1.95.0, valgrind-3.19.0, x86_64", 100);
        assert_eq!(Counts::of(&counts.to_text()).unwrap(), counts);
        assert!(Counts::of("plan many\n").is_err());
    }

    #[test]
    fn what_is_committed_has_every_figure() {
        let text = fs::read_to_string(repository().join(BASELINE)).unwrap();
        let counts = Counts::of(&text).unwrap();
        let names: Vec<_> = counts.figures.keys().map(String::as_str).collect();
        let mut expect = FIGURES.map(|(name, _)| name);
        expect.sort_unstable();
        assert_eq!(names, expect);
        assert!(counts.made_by.starts_with("rustc 1."), "{}", counts.made_by);
    }

    #[test]
    fn valgrind_is_understood() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 451\n"), Some(451));
        assert_eq!(collected("==7== Bus error\n"), None);
    }
}

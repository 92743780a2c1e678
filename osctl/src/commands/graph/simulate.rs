//! `osctl graph simulate`: the boot before there is a machine, as it should go and as it may go wrong.

mod options;
mod report;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use keel_plan::{
    Assertion, BOOT, BootGraph, Ended, Estimates, Fault, FaultKind, Machine, SEED, Script, Trace,
    Transaction, Trial, UnitId, chart, each, fallible, simulate, slack,
};
use keel_unit::keys::Text;
use keel_unit::value::Timespan;

use crate::commands::boot::files;
use crate::commands::inputs::{self, Inputs};
use crate::error::{Exit, Failure};
use crate::output::{Format, Output};
use options::Slow;
use report::{Broken, Report};

/// Boot the graph under virtual time: how long it takes, what decides that, and what happens when a unit fails
///
/// The scheduler that decides is the one that PID 1 runs. Durations come from recorded boots (`--trace`), else from the units'
/// `duration`, else from what is usual for their kind. Conditions count as met unless the config or the recorded boots say otherwise.
///
/// Exit code 1 if an assertion or the budget is broken.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  osctl graph simulate --config machine-configs/qemu.toml
  osctl graph simulate --config machine-configs/qemu.toml --trace boot.json --cpus 2
  osctl graph simulate --config machine-configs/qemu.toml --format svg > boot.svg
  osctl graph simulate --config machine-configs/qemu.toml --fail link@primary --slow containerd=x3
  osctl graph simulate --config machine-configs/qemu.toml --each-failure --assert 'keel-agent is active'
  osctl graph simulate --config machine-configs/qemu.toml --budget 5s --assert 'boot is whole within 5s'")]
pub(crate) struct Simulate {
    #[command(flatten)]
    inputs: Inputs,

    /// The goal to boot to
    #[arg(long, value_name = "UNIT", default_value = BOOT)]
    goal: String,

    /// How to draw
    #[arg(long, short, value_enum, default_value_t = Drawing::Text)]
    format: Drawing,

    /// A recorded boot to take durations from; repeat it for several
    #[arg(long, value_name = "FILE")]
    trace: Vec<PathBuf>,

    /// Which of several recorded durations to take: that which so many boots in 100 did not exceed
    #[arg(long, value_name = "1..100", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    percentile: u8,

    /// Processors; without it, everything that works finds one
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=65536))]
    cpus: Option<u32>,

    /// Make a unit fail; repeatable
    #[arg(long, value_name = "UNIT")]
    fail: Vec<String>,

    /// Make a unit hang until its deadline; repeatable
    #[arg(long, value_name = "UNIT")]
    hang: Vec<String>,

    /// Make a unit take so many times as long; repeatable
    #[arg(long, value_name = "UNIT=xFACTOR", value_parser = options::slow)]
    slow: Vec<Slow>,

    /// Let the condition of a unit be unmet; repeatable
    #[arg(long, value_name = "UNIT")]
    skip: Vec<String>,

    /// Also boot once for each unit, with that unit at fault
    #[arg(long, value_enum, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "fail")]
    each_failure: Option<EachFailure>,

    /// What must hold: 'UNIT is [not] STATE [within TIME] [unless UNIT, UNIT fails]', or 'boot is reached'; repeatable
    #[arg(long = "assert", value_name = "ASSERTION")]
    assertions: Vec<String>,

    /// The longest that the boot may take
    #[arg(long, value_name = "TIME", value_parser = Timespan::parse)]
    budget: Option<Timespan>,

    /// Write the simulated boot as a trace, for osctl boot
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Drawing {
    /// A summary and a bar for each unit
    Text,
    /// A Gantt chart
    Svg,
    /// For programs
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EachFailure {
    /// The unit fails after its usual time
    Fail,
    /// The unit hangs until its deadline
    Hang,
    /// One after the other
    Both,
}

impl Simulate {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        let traces = files::read_all(&self.trace)?;
        let (graph, transaction) = match self.inputs.planned(&self.goal) {
            Ok(planned) => planned,
            Err(inputs::Fault::Findings(report)) => {
                out.findings(&report);
                return Ok(Exit::Findings);
            }
            Err(inputs::Fault::Other(failure)) => return Err(failure),
        };
        self.prove(&graph, Arc::new(transaction), &traces, out)
    }

    fn prove(
        &self,
        graph: &BootGraph,
        transaction: Arc<Transaction>,
        traces: &[Trace],
        out: &mut Output,
    ) -> Result<Exit, Failure> {
        if traces.iter().any(|trace| trace.digest != graph.digest().to_string()) {
            out.notice("a trace was recorded of another graph: units of the same name are taken as the same");
        }
        let estimates = Estimates::new(graph, traces, self.percentile);
        let machine = self.machine(&transaction, &estimates)?;
        let assertions = self.assertions(&transaction)?;

        let run = simulate(&transaction, machine.clone(), SEED, &estimates.script());
        let slack = slack(&transaction, &machine, &run);
        let trace = Trace::simulated(graph, &transaction, &run, &slack, self.cpus);
        let ended = Ended::of(&transaction, &run);
        let broken = self.broken(&transaction, &assertions, &ended);
        let trials = self.each(&transaction, &machine, &estimates.script(), &assertions);
        let report = Report {
            transaction: &transaction,
            estimates: &estimates,
            percentile: self.percentile,
            traces: traces.len(),
            trace: &trace,
            ended: &ended,
            budget: self.budget,
            assertions: &assertions,
            broken: &broken,
            trials: &trials,
        };
        if let Some(path) = &self.save {
            files::write(path, &trace.json())?;
        }
        match self.format {
            Drawing::Json => out.json(&report.json())?,
            Drawing::Text if out.format() == Format::Json => out.json(&report.json())?,
            Drawing::Text => out.text(&report.text(out.palette()))?,
            Drawing::Svg => {
                out.text(&chart::svg(&trace))?;
                for line in report.complaints() {
                    out.notice(&line);
                }
            }
        }
        Ok(if report.is_broken() { Exit::Findings } else { Exit::Clean })
    }

    /// The machine to boot on, with everything that is wrong with it.
    fn machine(
        &self,
        transaction: &Arc<Transaction>,
        estimates: &Estimates,
    ) -> Result<Machine, Failure> {
        let mut machine = estimates.machine(transaction);
        for Slow { unit, factor } in &self.slow {
            let unit = options::unit(transaction, "--slow", unit)?;
            let behaviour = machine.behaviour(unit);
            behaviour.takes = options::times(behaviour.takes, *factor);
            behaviour.started_in = options::times(behaviour.started_in, *factor);
        }
        for name in &self.skip {
            let unit = options::unit(transaction, "--skip", name)?;
            if !transaction.spec(unit).has_condition {
                let failure = Failure::usage(format!("--skip: {name} has no condition"));
                return Err(failure.next("only a unit with a [condition] is ever skipped"));
            }
            machine.behaviour(unit).unmet = Some("as asked for with --skip".into());
        }
        let faults = [
            ("--fail", &self.fail, failing("as asked for with --fail")),
            ("--hang", &self.hang, FaultKind::Hang),
        ];
        for (option, names, kind) in faults {
            for name in names {
                let unit = options::working(transaction, option, name)?;
                let fault = &mut machine.behaviour(unit).fault;
                if fault.as_ref().is_some_and(|fault| fault.kind != kind) {
                    let both = format!("{name} cannot both fail and hang");
                    return Err(Failure::usage(both).next("choose --fail or --hang"));
                }
                *fault = Some(Fault::always(kind.clone()));
            }
        }
        Ok(match self.cpus {
            Some(cpus) => machine.with_processors(usize::try_from(cpus).unwrap_or(usize::MAX)),
            None => machine,
        })
    }

    fn assertions(&self, transaction: &Transaction) -> Result<Vec<Assertion>, Failure> {
        let read = |text: &String| {
            Assertion::parse(text, transaction).map_err(|error| {
                Failure::usage(error.to_string())
                    .next("write it as 'UNIT is active', 'UNIT is not failed' or 'boot is reached within 5s'")
            })
        };
        self.assertions.iter().map(read).collect()
    }

    fn broken(
        &self,
        transaction: &Transaction,
        assertions: &[Assertion],
        ended: &Ended,
    ) -> Vec<Broken> {
        // A unit that was made to fail is not asked whether it is up.
        let failing: Vec<UnitId> =
            self.fail.iter().chain(&self.hang).filter_map(|name| transaction.find(name)).collect();
        let asked = |assertion: &&Assertion| failing.iter().all(|unit| assertion.is_for(*unit));
        broken(transaction, assertions.iter().filter(asked), ended)
    }

    fn each(
        &self,
        transaction: &Arc<Transaction>,
        machine: &Machine,
        script: &Script,
        assertions: &[Assertion],
    ) -> Vec<report::Trials> {
        let faults: Vec<(&'static str, FaultKind)> = match self.each_failure {
            None => vec![],
            Some(EachFailure::Fail) => vec![("fails", failing("as asked for with --each-failure"))],
            Some(EachFailure::Hang) => vec![("hangs", FaultKind::Hang)],
            Some(EachFailure::Both) => vec![
                ("fails", failing("as asked for with --each-failure")),
                ("hangs", FaultKind::Hang),
            ],
        };
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let units = fallible(transaction);
        let of = |(does, fault): (&'static str, FaultKind)| {
            let trials = each(transaction, machine, script, &units, &fault, threads);
            let with_broken = |trial: Trial| {
                let asked = assertions.iter().filter(|assertion| assertion.is_for(trial.unit));
                let broken = broken(transaction, asked, &trial.ended);
                (trial, broken)
            };
            report::Trials { does, trials: trials.into_iter().map(with_broken).collect() }
        };
        faults.into_iter().map(of).collect()
    }
}

fn failing(why: &str) -> FaultKind {
    FaultKind::Fail { why: why.into() }
}

fn broken<'a>(
    transaction: &Transaction,
    assertions: impl Iterator<Item = &'a Assertion>,
    ended: &Ended,
) -> Vec<Broken> {
    let broken = assertions.filter_map(|assertion| {
        let instead = assertion.check(transaction, ended).err()?;
        Some(Broken { assertion: assertion.to_string(), instead })
    });
    broken.collect()
}

/// Whether a boot keeps to its budget: a goal that was not reached does not.
fn within(budget: Duration, ended: &Ended) -> bool {
    ended.goal_at.is_some_and(|at| at <= budget)
}

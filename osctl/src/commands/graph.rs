//! `osctl validate` and `osctl graph`: what can be said of a machine before there is one.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use keel_plan::{BOOT, BootGraph, PlanError, Transaction, compile, render};
use keel_unit::Report;
use keel_unit::load::load;

use crate::error::{Exit, Failure};
use crate::output::{Format, Output};

/// Where units and machine config are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Inputs {
    /// Machine config; without one everything has its default
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Folder of unit files
    #[arg(long, short, value_name = "DIR", default_value = "units")]
    pub(crate) units: PathBuf,
}

/// Check units and machine config, and show everything that is wrong with them
///
/// Exit code 0: the machine can boot from them. 1: there are findings, all shown at once. 2: the command line is wrong.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl validate --config machine-configs/qemu.toml\n  osctl validate --config my.toml --units units --output json"
)]
pub(crate) struct Validate {
    #[command(flatten)]
    inputs: Inputs,

    /// The goal that the machine boots to
    #[arg(long, value_name = "UNIT", default_value = BOOT)]
    goal: String,
}

/// Look at the boot graph
#[derive(Debug, Subcommand)]
pub(crate) enum Graph {
    /// Draw the graph of a machine
    #[command(
        after_help = "Examples:\n  osctl graph render --config machine-configs/qemu.toml\n  osctl graph render --config machine-configs/qemu.toml --format dot | dot -Tsvg > boot.svg"
    )]
    Render(Render),
}

/// What `osctl graph render` takes.
#[derive(Debug, Args)]
pub(crate) struct Render {
    #[command(flatten)]
    inputs: Inputs,

    /// The goal whose units are shown as started
    #[arg(long, value_name = "UNIT", default_value = BOOT)]
    goal: String,

    /// How to draw
    #[arg(long, short, value_enum, default_value_t = Drawing::Text)]
    format: Drawing,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Drawing {
    /// Layers of units that may run side by side
    Text,
    /// For Graphviz
    Dot,
    /// For programs
    Json,
}

/// Why a machine's graph could not be had.
enum Fault {
    /// The inputs have faults of their own.
    Findings(Report),
    /// Anything else.
    Other(Failure),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Fault::Other(failure)
    }
}

fn planned(inputs: &Inputs, goal: &str) -> Result<(BootGraph, Transaction), Fault> {
    present(&inputs.units, "--units")?;
    if inputs.units.is_file() {
        let failure = Failure::usage(format!("{} is a file", inputs.units.display()));
        return Err(failure.next("name the folder that it lies in with --units").into());
    }
    if let Some(config) = &inputs.config {
        present(config, "--config")?;
    }
    compile(load(&inputs.units, inputs.config.as_deref()), goal).map_err(|error| match error {
        PlanError::Invalid(report) => Fault::Findings(report),
        // Units that lack the goal of every boot are not whole; another goal was typed.
        PlanError::UnknownGoal { .. } if goal == BOOT => {
            let failure = Failure::new(error.to_string());
            let units = inputs.units.display();
            Fault::Other(failure.next(format!("give {units} a boot.toml with [target]")))
        }
        PlanError::UnknownGoal { .. } => Fault::Other(Failure::usage(error.to_string())),
        other => Fault::Other(Failure::new("cannot plan the boot").because(other)),
    })
}

/// A path that is not there is a slip on the command line, not a finding in a file. A link that leads nowhere is there.
fn present(path: &Path, option: &str) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(error) => {
            let failure = Failure::usage(format!("cannot read {}", path.display())).because(error);
            Err(failure.next(format!("say where it is with {option}")))
        }
    }
}

impl Validate {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        match planned(&self.inputs, &self.goal) {
            Ok((graph, transaction)) => {
                match out.format() {
                    Format::Json => out.json(&serde_json::json!({
                        "valid": true,
                        "digest": graph.digest().to_string(),
                        "units": graph.len(),
                        "edges": graph.edge_count(),
                        "findings": [],
                    }))?,
                    Format::Table => out.text(&format!(
                        "valid: {} units, {} edges, {} started by {}, {}\n",
                        graph.len(),
                        graph.edge_count(),
                        transaction.jobs().len(),
                        self.goal,
                        graph.digest(),
                    ))?,
                }
                Ok(Exit::Clean)
            }
            Err(Fault::Findings(report)) => {
                match out.format() {
                    Format::Json => out.json(
                        &serde_json::json!({ "valid": false, "findings": findings(&report) }),
                    )?,
                    Format::Table => out.text(&report.draw(out.drawing()))?,
                }
                Ok(Exit::Findings)
            }
            Err(Fault::Other(failure)) => Err(failure),
        }
    }
}

fn findings(report: &Report) -> Vec<serde_json::Value> {
    let place = |span| {
        let at = report.sources.locate(span);
        (at.file.to_string(), at.line, at.column)
    };
    let finding = |d: &keel_unit::Diagnostic| {
        let (file, line, column) = place(d.label.span);
        let others = d.others.iter().map(|o| {
            let (file, line, column) = place(o.span);
            serde_json::json!({ "file": file, "line": line, "column": column, "text": o.text })
        });
        serde_json::json!({
            "code": d.code, "message": d.message, "file": file, "line": line, "column": column,
            "label": d.label.text, "help": d.help, "others": others.collect::<Vec<_>>(),
        })
    };
    report.diagnostics.iter().map(finding).collect()
}

impl Graph {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        let Graph::Render(Render { inputs, goal, format }) = self;
        match planned(&inputs, &goal) {
            Ok((graph, transaction)) => {
                out.text(&match format {
                    Drawing::Text => render::text(&graph, &transaction),
                    Drawing::Dot => render::dot(&graph),
                    Drawing::Json => render::json(&graph, &transaction),
                })?;
                Ok(Exit::Clean)
            }
            // Whoever reads the drawing must not find an error in it.
            Err(Fault::Findings(report)) => {
                out.findings(&report);
                Ok(Exit::Findings)
            }
            Err(Fault::Other(failure)) => Err(failure),
        }
    }
}

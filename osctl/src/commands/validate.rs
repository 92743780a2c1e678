//! `osctl validate`: everything that is wrong with units and a machine config, in one report.

use std::env;

use clap::{Args, ValueEnum};
use keel_plan::{BOOT, BootGraph};
use keel_unit::Report;
use serde_json::{Value, json};

use crate::commands::inputs::{Fault, Inputs};
use crate::error::{Exit, Failure};
use crate::findings;
use crate::output::{Format, Output};

/// Check units and machine config, and show everything that is wrong with them
///
/// Exit code 0: the machine can boot from them. 1: there are findings, all shown at once. 2: the command line is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  osctl validate --config machine-configs/qemu.toml
  osctl validate --config my.toml --units units --output json
  osctl validate --config site.toml --config rack-7.toml --secrets secrets.toml
  osctl validate --config my.toml --format github             # annotations in a pull request
  osctl validate --config my.toml --format sarif > keel.sarif # for code scanning and editors")]
pub(crate) struct Validate {
    #[command(flatten)]
    inputs: Inputs,

    /// The goal that the machine boots to
    #[arg(long, value_name = "UNIT", default_value = BOOT)]
    goal: String,

    /// How to report findings; without it, as --output says
    #[arg(long, short, value_enum)]
    format: Option<Style>,
}

/// For whom a report is.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Style {
    /// For programs, as `--output` says
    #[value(skip)]
    Data,
    /// For people: the text underlined, and what to write instead
    Human,
    /// SARIF 2.1.0, for code scanning and editors
    Sarif,
    /// Annotations of GitHub Actions
    Github,
    /// For programs
    Json,
}

impl Validate {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        let style = self.format.unwrap_or(match out.format() {
            Format::Table => Style::Human,
            Format::Json => Style::Data,
        });
        match self.inputs.planned_for_good(&self.goal) {
            Ok((graph, transaction)) => {
                let without = without_secret(&graph);
                match style {
                    Style::Data => out.json(&valid(&graph, &without))?,
                    Style::Json => out.only_json(&valid(&graph, &without))?,
                    Style::Sarif => out.only_json(&findings::sarif(None, None))?,
                    Style::Human | Style::Github => out.text(&format!(
                        "valid: {} units, {} edges, {} started by {}, {}\n",
                        graph.len(),
                        graph.edge_count(),
                        transaction.jobs().len(),
                        self.goal,
                        graph.digest(),
                    ))?,
                }
                if !without.is_empty() {
                    let units = without.join(", ");
                    out.notice(&format!(
                        "without --secrets, the secrets of {units} were not checked"
                    ));
                }
                Ok(Exit::Clean)
            }
            Err(Fault::Findings(report)) => {
                show(&report, style, out)?;
                Ok(Exit::Findings)
            }
            Err(Fault::Other(failure)) => Err(failure),
        }
    }
}

fn valid(graph: &BootGraph, without_secret: &[&str]) -> Value {
    json!({
        "valid": true,
        "digest": graph.digest().to_string(),
        "units": graph.len(),
        "edges": graph.edge_count(),
        "without_secret": without_secret,
        "findings": [],
    })
}

fn show(report: &Report, style: Style, out: &mut Output) -> Result<(), Failure> {
    let here = env::current_dir().ok();
    let invalid = || json!({ "valid": false, "findings": findings::views(report) });
    match style {
        Style::Human => out.text(&report.draw(out.drawing())),
        Style::Data => out.json(&invalid()),
        Style::Json => out.only_json(&invalid()),
        Style::Sarif => out.only_json(&findings::sarif(Some(report), here.as_deref())),
        Style::Github => out.text(&findings::annotations(report, here.as_deref())),
    }
}

/// The units whose secrets are elsewhere.
pub(crate) fn without_secret(graph: &BootGraph) -> Vec<&str> {
    let units = graph.ids().map(|id| graph.unit(id));
    let without = units.filter(|unit| unit.secrets.iter().any(|secret| secret.missing));
    without.map(|unit| unit.name.as_str()).collect()
}

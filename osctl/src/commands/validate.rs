//! `osctl validate`: everything that is wrong with units and a machine config, in one report.

use clap::Args;
use keel_plan::{BOOT, BootGraph};
use keel_unit::Report;

use crate::commands::inputs::{Fault, Inputs};
use crate::error::{Exit, Failure};
use crate::output::{Format, Output};

/// Check units and machine config, and show everything that is wrong with them
///
/// Exit code 0: the machine can boot from them. 1: there are findings, all shown at once. 2: the command line is wrong.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl validate --config machine-configs/qemu.toml\n  osctl validate --config my.toml --units units --output json\n  osctl validate --config site.toml --config rack-7.toml --secrets secrets.toml"
)]
pub(crate) struct Validate {
    #[command(flatten)]
    inputs: Inputs,

    /// The goal that the machine boots to
    #[arg(long, value_name = "UNIT", default_value = BOOT)]
    goal: String,
}

impl Validate {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        match self.inputs.planned(&self.goal) {
            Ok((graph, transaction)) => {
                let without = without_secret(&graph);
                match out.format() {
                    Format::Json => out.json(&serde_json::json!({
                        "valid": true,
                        "digest": graph.digest().to_string(),
                        "units": graph.len(),
                        "edges": graph.edge_count(),
                        "without_secret": &without,
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
                if !without.is_empty() {
                    let units = without.join(", ");
                    out.notice(&format!(
                        "without --secrets, the secrets of {units} were not checked"
                    ));
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

/// The units whose secrets are elsewhere.
fn without_secret(graph: &BootGraph) -> Vec<&str> {
    let units = graph.ids().map(|id| graph.unit(id));
    let without = units.filter(|unit| unit.secrets.iter().any(|secret| secret.missing));
    without.map(|unit| unit.name.as_str()).collect()
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

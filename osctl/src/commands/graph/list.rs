//! `osctl graph list`: the units of a graph, or some of them.

use std::fmt::Write;

use clap::Args;
use clap::builder::PossibleValuesParser;
use keel_plan::BOOT;
use keel_plan::export::{Export, Unit};
use keel_unit::KindName;
use keel_unit::diagnostic::nearest;

use crate::cli::NodeArgs;
use crate::commands::inputs::{Fault, Inputs, Running};
use crate::error::{Exit, Failure};
use crate::output::{Format, Ink, Output, Palette};

/// List the units of a machine, all of them or those of a stage or kind
///
/// The critical path is marked with a star. A unit that the goal does not start is unreachable: it stands in the unit files, and nothing
/// wants it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl graph list --config machine-configs/qemu.toml\n  osctl graph list --stage storage --kind mount --config machine-configs/qemu.toml\n  osctl graph list --unreachable --output json\n  osctl --endpoint 192.0.2.10 graph list --node"
)]
pub(crate) struct List {
    #[command(flatten)]
    inputs: Inputs,

    #[command(flatten)]
    running: Running,

    /// Only units of this stage; may be given several times
    #[arg(long, value_name = "STAGE")]
    stage: Vec<String>,

    /// Only units of this kind; may be given several times
    #[arg(long, value_name = "KIND", value_parser = kinds(), hide_possible_values = true)]
    kind: Vec<String>,

    /// Only units that the goal does not start
    #[arg(long)]
    unreachable: bool,

    /// The goal of the boot
    #[arg(long, value_name = "UNIT", default_value = BOOT)]
    goal: String,
}

fn kinds() -> PossibleValuesParser {
    PossibleValuesParser::new(KindName::ALL.iter().map(|kind| kind.as_str()))
}

impl List {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let export = match self.running.export(node, out)? {
            Some(export) => Ok(export),
            None => self
                .inputs
                .planned(&self.goal)
                .map(|(graph, transaction)| Export::new(&graph, &transaction)),
        };
        match export {
            Ok(Export { mut units, .. }) => {
                self.known_stages(&units)?;
                units.retain(|unit| self.wants(unit));
                match out.format() {
                    Format::Table => out.text(&page(&units, out.palette()))?,
                    _ => out.json(&serde_json::json!({ "units": units }))?,
                }
                Ok(Exit::Clean)
            }
            Err(Fault::Findings(report)) => {
                out.findings(&report);
                Ok(Exit::Findings)
            }
            Err(Fault::Other(failure)) => Err(failure),
        }
    }

    fn known_stages(&self, units: &[Unit]) -> Result<(), Failure> {
        let known = || units.iter().filter_map(|unit| unit.stage.as_deref());
        for stage in &self.stage {
            if known().all(|other| other != stage) {
                let failure =
                    Failure::usage(format!("there is no stage `{}`", stage.escape_debug()));
                let mut all: Vec<&str> = known().collect();
                all.sort_unstable();
                all.dedup();
                return Err(match nearest(stage, known()) {
                    Some(near) => failure.next(format!("did you mean `{near}`?")),
                    None => failure.next(format!("the stages are {}", all.join(", "))),
                });
            }
        }
        Ok(())
    }

    fn wants(&self, unit: &Unit) -> bool {
        let stage = |stage: &String| unit.stage.as_ref() == Some(stage);
        (self.stage.is_empty() || self.stage.iter().any(stage))
            && (self.kind.is_empty() || self.kind.contains(&unit.kind))
            && !(self.unreachable && unit.started)
    }
}

fn page(units: &[Unit], palette: Palette) -> String {
    if units.is_empty() {
        return "no unit is like that\n".to_owned();
    }
    let live = units.iter().any(|unit| unit.state.is_some());
    let head = ["UNIT", "KIND", "STAGE", "STATE", "WHERE", "DESCRIPTION"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(units.iter().map(|unit| {
        let mark = match (unit.started, unit.critical) {
            (false, _) => " (not started)",
            (true, true) => " *",
            (true, false) => "",
        };
        [
            format!("{}{mark}", unit.name),
            unit.kind.clone(),
            unit.stage.clone().unwrap_or_else(|| "-".to_owned()),
            unit.state.clone().unwrap_or_default(),
            format!("{}:{}", unit.file, unit.line),
            unit.description.clone(),
        ]
    }));
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3), width(4)];
    let mut out = String::new();
    for (at, row) in rows.iter().enumerate() {
        let [name, kind, stage, state, place, description] = row;
        let [a, b, c, d, e] = widths;
        let state = if live { format!("{state:d$}  ") } else { String::new() };
        let line = format!("{name:a$}  {kind:b$}  {stage:c$}  {state}{place:e$}  {description}");
        let line = line.trim_end();
        let line = if at == 0 { palette.paint(Ink::Faint, line) } else { line.to_owned() };
        let _ = writeln!(out, "{line}");
    }
    out
}

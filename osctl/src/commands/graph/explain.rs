//! `osctl graph explain`: why a unit is there, what it waits for, and what its failure would cost.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use keel_plan::explain::{Consequence, Explanation, Relation, explain};
use keel_plan::{BOOT, Ending};
use keel_unit::value::people;

use super::name::{said, unit};
use crate::cli::NodeArgs;
use crate::commands::inputs::{Fault, Inputs, Running};
use crate::commands::units::live;
use crate::error::{Exit, Failure};
use crate::output::{Format, Ink, Output, Palette};

/// Explain a unit: why it is in the graph, what it waits for and why, and what happens if it fails
///
/// Each dependency is shown with the file and line that it comes from. What a failure costs is simulated: the scheduler that runs on
/// the node runs the boot with that unit failing. With --node it is explained how the unit stands on a node, as `osctl units show` does.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl graph explain containerd --config machine-configs/qemu.toml\n  osctl graph explain mount.data --config machine-configs/qemu.toml --output json\n  osctl --endpoint 192.0.2.10 graph explain mount.data --node"
)]
pub(crate) struct Explain {
    /// The unit
    #[arg(value_name = "UNIT")]
    unit: String,

    #[command(flatten)]
    inputs: Inputs,

    #[command(flatten)]
    running: Running,

    /// The goal of the boot that it is explained in
    #[arg(long, value_name = "UNIT", default_value = BOOT)]
    goal: String,
}

impl Explain {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        if self.running.node {
            return live::show(&self.unit, live::Depth::Whole, false, node, out);
        }
        match self.inputs.planned(&self.goal) {
            Ok((graph, transaction)) => {
                let id = unit(&graph, &self.unit)?;
                let explanation = explain(&graph, &Arc::new(transaction), id);
                match out.format() {
                    Format::Table => out.text(&page(&explanation, out.palette()))?,
                    _ => out.json(&explanation)?,
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
}

fn page(unit: &Explanation, palette: Palette) -> String {
    let mut out = String::new();
    let head = palette.paint(Ink::Strong, &unit.name);
    let about = if unit.description.is_empty() { "" } else { ": " };
    let _ = writeln!(out, "{head}{about}{}", unit.description);
    let stage = unit.stage.as_ref().map_or(String::new(), |stage| format!(" of stage {stage}"));
    let template =
        unit.template.as_ref().map_or(String::new(), |t| format!(", an instance of {t}"));
    let _ = writeln!(out, "{}{stage}{template}, {}:{}", unit.kind, unit.file, unit.line);

    let mut section = |title: &str, lines: Vec<String>| {
        let _ = writeln!(out, "\n{}", palette.paint(Ink::Strong, title));
        for line in lines {
            let _ = writeln!(out, "  {}", line.trim_end());
        }
    };
    section("Why it is in the graph", presence(unit));
    section("What it waits for and needs", relations(&unit.depends_on, &last(unit)));
    section("What waits for it and needs it", relations(&unit.depended_on_by, ""));
    section("When", when(unit));
    section("If it fails", failure(unit));
    out
}

fn presence(unit: &Explanation) -> Vec<String> {
    let goal = &unit.goal;
    if unit.name == *goal {
        return vec!["it is the goal".to_owned()];
    }
    if !unit.started {
        return vec![
            format!("{goal} does not start it: no unit that is started wants or requires it"),
            "it stands in the unit files and can be started on request".to_owned(),
        ];
    }
    let mut lines = relations(&unit.pulled_in_by, "");
    let chain = unit.chain.iter().map(|hop| hop.from.as_str());
    let chain: Vec<&str> = [unit.name.as_str()].into_iter().chain(chain).collect();
    if chain.len() > 2 {
        lines.push(format!("up to the goal: {}", chain.join(" <- ")));
    }
    lines
}

/// The unit that is waited for last.
fn last(unit: &Explanation) -> String {
    unit.expected.as_ref().and_then(|e| e.waits_last_for.clone()).unwrap_or_default()
}

fn relations(relations: &[Relation], last: &str) -> Vec<String> {
    if relations.is_empty() {
        return vec!["nothing".to_owned()];
    }
    let said: Vec<_> = relations.iter().map(|relation| (relation, said(&relation.edges))).collect();
    let name = relations.iter().map(|relation| relation.unit.len()).max().unwrap_or(0);
    let kinds = said.iter().flat_map(|(_, lines)| lines).map(|(kinds, _)| kinds.len());
    let kind = kinds.max().unwrap_or(0);
    let mut lines = Vec::new();
    for (relation, said) in &said {
        for (at, (kinds, why)) in said.iter().enumerate() {
            let unit = if at == 0 { relation.unit.as_str() } else { "" };
            let mut marks = String::new();
            if at == 0 && !relation.started {
                marks.push_str("  (not started)");
            }
            if at == 0 && relation.unit == last {
                marks.push_str("  (the last that it waits for)");
            }
            lines.push(format!("{unit:name$}  {kinds:kind$}  {why}{marks}"));
        }
    }
    lines
}

fn when(unit: &Explanation) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(expected) = &unit.expected {
        let critical = if expected.critical { ", on the critical path" } else { "" };
        lines.push(match (expected.begins_ms, expected.up_ms) {
            _ if expected.skipped => "it is skipped, as its condition is not met".to_owned(),
            (Some(begins), Some(up)) => {
                format!(
                    "expected to begin at {} and to be up at {}{critical}",
                    time(begins),
                    time(up)
                )
            }
            _ => "never, as things stand".to_owned(),
        });
    }
    let slack = unit.expected.as_ref().filter(|expected| !expected.critical);
    if let Some(slack) = slack.and_then(|expected| expected.slack_ms).filter(|slack| *slack > 0) {
        lines.push(format!(
            "could be up {} later, and {} would be no later",
            time(slack),
            unit.goal
        ));
    }
    lines.push(match unit.deadline_ms {
        Some(deadline) => {
            format!("its deadline is {}", time(deadline))
        }
        None if unit.kind == "target" => "a target does no work and has no deadline".to_owned(),
        None => "it has no deadline".to_owned(),
    });
    lines.extend(unit.condition.iter().map(|condition| format!("its condition: {condition}")));
    lines
}

fn failure(unit: &Explanation) -> Vec<String> {
    let mut lines = Vec::new();
    if unit.kind == "target" {
        lines.push("it does no work, and cannot fail by itself".to_owned());
        return lines;
    }
    lines.push(unit.on_failure.clone());
    lines.extend(unit.restart.iter().map(|restart| format!("once it was up and ends, {restart}")));
    let Some(Consequence { end, ends_ms, instead_of_ms, attempts, lost }) = &unit.if_it_fails
    else {
        return lines;
    };
    let goal = &unit.goal;
    let attempts =
        if *attempts > 1 { format!(" after {attempts} attempts") } else { String::new() };
    let at = time(*ends_ms);
    let end = match end {
        Ending::Unfinished => "the boot is still going on".to_owned(),
        Ending::Reached => format!("{goal} is reached"),
        Ending::Degraded => format!("{goal} is reached, degraded"),
        Ending::Missed => format!("{goal} is not reached; the rest has ended"),
        Ending::Emergency => "the boot ends in an emergency".to_owned(),
        Ending::Reboot => "the machine goes down to reboot".to_owned(),
    };
    let usual = time(*instead_of_ms);
    lines.push(format!("simulated: {end} at {at}{attempts}, instead of {usual}"));
    if lost.is_empty() {
        lines.push("nothing else is lost".to_owned());
    }
    let name = lost.iter().map(|loss| loss.unit.len()).max().unwrap_or(0);
    lines.extend(lost.iter().map(|loss| format!("lost: {:name$}  {}", loss.unit, loss.why)));
    lines
}

fn time(ms: u64) -> String {
    people(Duration::from_millis(ms))
}

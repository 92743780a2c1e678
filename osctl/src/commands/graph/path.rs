//! `osctl graph path`: how two units depend on each other.

use std::fmt::Write;

use clap::Args;
use keel_plan::BOOT;
use keel_plan::UnitId;
use keel_plan::explain::{Chain, Depends, Exported, Meaning, chains};

use keel_unit::diagnostic::nearest;

use super::name::{said, unit};
use crate::cli::NodeArgs;
use crate::commands::inputs::{Fault, Inputs, Running};
use crate::error::{Exit, Failure};
use crate::output::{Format, Ink, Output, Palette};

/// Show how one unit depends on another, in either direction, with the reason for each step
///
/// For each thing that dependency can mean (it needs the other, waits for it, starts it, conflicts with it) the shortest chain is shown.
/// Exit code 0: there is one. 1: neither depends on the other. 2: the command line is wrong.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl graph path kubelet mount.data --config machine-configs/qemu.toml\n  osctl graph path mount.data kubelet --config machine-configs/qemu.toml --output json\n  osctl --endpoint 192.0.2.10 graph path kubelet mount.data --node"
)]
pub(crate) struct Path {
    /// A unit
    #[arg(value_name = "A")]
    one: String,

    /// Another unit
    #[arg(value_name = "B")]
    two: String,

    #[command(flatten)]
    inputs: Inputs,

    #[command(flatten)]
    running: Running,
}

impl Path {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        if let Some(export) = self.running.export(node, out)? {
            let graph = Exported::new(&export);
            let find = |name: &str| {
                graph.find(name).ok_or_else(|| {
                    let failure =
                        Failure::usage(format!("there is no unit `{}`", name.escape_debug()));
                    let known = export.units.iter().map(|unit| unit.name.as_str());
                    failure.next(match nearest(name, known) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "`osctl graph list --node` names them all".to_owned(),
                    })
                })
            };
            let (one, two) = (find(&self.one)?, find(&self.two)?);
            return self.show(&graph, one, two, out);
        }
        match self.inputs.planned(BOOT) {
            Ok((graph, _)) => {
                let (one, two) = (unit(&graph, &self.one)?, unit(&graph, &self.two)?);
                self.show(&graph, one, two, out)
            }
            Err(Fault::Findings(report)) => {
                out.findings(&report);
                Ok(Exit::Findings)
            }
            Err(Fault::Other(failure)) => Err(failure),
        }
    }

    fn show(
        &self,
        graph: &dyn Depends,
        one: UnitId,
        two: UnitId,
        out: &mut Output,
    ) -> Result<Exit, Failure> {
        if one == two {
            let failure = Failure::usage(format!("`{}` is one unit", self.one));
            return Err(failure.next("name two units"));
        }
        let chains = chains(graph, one, two);
        match out.format() {
            Format::Table => out.text(&page(&chains, &self.one, &self.two, out.palette()))?,
            _ => out.json(&serde_json::json!({ "chains": chains }))?,
        }
        Ok(if chains.is_empty() { Exit::Findings } else { Exit::Clean })
    }
}

fn page(chains: &[Chain], one: &str, two: &str, palette: Palette) -> String {
    if chains.is_empty() {
        return format!("{one} and {two} do not depend on each other\n");
    }
    let mut out = String::new();
    for (at, chain) in chains.iter().enumerate() {
        let means: Vec<&str> = chain.means.iter().copied().map(Meaning::as_str).collect();
        let gap = if at == 0 { "" } else { "\n" };
        let head = format!("{} {} {}", chain.from, means.join(" and "), chain.to);
        let _ = writeln!(out, "{gap}{}", palette.paint(Ink::Strong, &head));
        let lines: Vec<_> = chain.hops.iter().map(|hop| (hop, said(&hop.edges))).collect();
        let name = chain.hops.iter().map(|hop| hop.from.len()).max().unwrap_or(0);
        let kind = lines.iter().flat_map(|(_, said)| said).map(|(kinds, _)| kinds.len()).max();
        let kind = kind.unwrap_or(0);
        let other = chain.hops.iter().map(|hop| hop.to.len()).max().unwrap_or(0);
        for (hop, said) in &lines {
            for (at, (kinds, why)) in said.iter().enumerate() {
                let from = if at == 0 { hop.from.as_str() } else { "" };
                let to = if at == 0 { hop.to.as_str() } else { "" };
                let _ = writeln!(out, "  {from:name$}  {kinds:kind$}  {to:other$}  {why}");
            }
        }
    }
    out
}

//! `osctl graph digest`: one number for what a machine will do.

use clap::Args;
use keel_plan::BOOT;

use crate::cli::NodeArgs;
use crate::commands::inputs::{Fault, Inputs, Running};
use crate::error::{Exit, Failure};
use crate::output::{Format, Output};

/// Print the digest of a graph: equal digests boot equally
///
/// It is SHA-256 over units, parameters and edges. File names, comments and the order of keys are not part of it, so it says whether a
/// change of the files is a change of the machine. A node reports its own in `osctl status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl graph digest --config machine-configs/qemu.toml\n  osctl --endpoint 192.0.2.10 graph digest --node"
)]
pub(crate) struct Digest {
    #[command(flatten)]
    inputs: Inputs,

    #[command(flatten)]
    running: Running,
}

impl Digest {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        if let Some(export) = self.running.export(node, out)? {
            match out.format() {
                Format::Table => out.text(&format!("{}\n", export.digest))?,
                _ => out.json(&serde_json::json!({
                    "digest": export.digest,
                    "units": export.units.len(),
                    "edges": export.edges.len(),
                }))?,
            }
            return Ok(Exit::Clean);
        }
        match self.inputs.planned(BOOT) {
            Ok((graph, _)) => {
                match out.format() {
                    Format::Table => out.text(&format!("{}\n", graph.digest()))?,
                    _ => out.json(&serde_json::json!({
                        "digest": graph.digest().to_string(),
                        "units": graph.len(),
                        "edges": graph.edge_count(),
                    }))?,
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

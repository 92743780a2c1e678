//! `osctl graph render`: the graph as text, as a picture or for programs.

use clap::{Args, ValueEnum};
use keel_plan::export::Export;
use keel_plan::{BOOT, render};

use crate::cli::NodeArgs;
use crate::commands::inputs::{Fault, Inputs, Running};
use crate::error::{Exit, Failure};
use crate::output::{Format, Ink, Output, Palette};

/// Draw the graph of a machine: what starts side by side, what waits for what, and what decides how long it takes
///
/// Pictures leave out an ordering that follows from others, and mark the critical path; arrows point in the order of time. JSON leaves
/// nothing out. Equal inputs give equal bytes. With --node it is the graph that a node runs, with the states of its units drawn in.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl graph render --config machine-configs/qemu.toml\n  osctl graph render --config machine-configs/qemu.toml --format svg > boot.svg\n  osctl graph render --config machine-configs/qemu.toml --format mermaid >> comment.md\n  osctl graph render --config machine-configs/qemu.toml --format dot | dot -Tpdf > boot.pdf\n  osctl --endpoint 192.0.2.10 graph render --node --format svg > now.svg"
)]
pub(crate) struct Render {
    #[command(flatten)]
    inputs: Inputs,

    #[command(flatten)]
    running: Running,

    /// The goal whose units are shown as started
    #[arg(long, value_name = "UNIT", default_value = BOOT)]
    goal: String,

    /// How to draw; text, if not said otherwise, or JSON with `--output json`
    #[arg(long, short, value_enum)]
    format: Option<Drawing>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Drawing {
    /// Layers of units that may run side by side
    Text,
    /// For Graphviz
    Dot,
    /// For comments on GitHub
    Mermaid,
    /// For programs, and for `osctl graph diff`
    Json,
    /// A picture
    Svg,
}

impl Render {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let Render { inputs, running, goal, format } = self;
        let export = match running.export(node, out)? {
            Some(export) => Ok(export),
            None => inputs
                .planned_for_good(&goal)
                .map(|(graph, transaction)| Export::new(&graph, &transaction)),
        };
        match export {
            Ok(export) => {
                let drawing = match (format, out.format()) {
                    (Some(drawing), _) => drawing,
                    (None, Format::Table) => Drawing::Text,
                    (None, _) => {
                        out.json(&export)?;
                        return Ok(Exit::Clean);
                    }
                };
                out.text(&match drawing {
                    Drawing::Text => coloured(&render::text(&export), out.palette()),
                    Drawing::Dot => render::dot(&export),
                    Drawing::Mermaid => render::mermaid(&export),
                    Drawing::Svg => render::svg(&export),
                    Drawing::Json => render::json(&export),
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

/// The layers with their heads and the critical path in colour.
fn coloured(page: &str, palette: Palette) -> String {
    let line = |line: &str| {
        let line = match line {
            head if head.starts_with("layer ") => palette.paint(Ink::Strong, head),
            critical if critical.starts_with(['├', '└']) && critical.contains("─* ") => {
                palette.paint(Ink::Warning, critical)
            }
            other => other.to_owned(),
        };
        format!("{line}\n")
    };
    page.lines().map(line).collect()
}

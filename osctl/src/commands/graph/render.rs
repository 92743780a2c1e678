//! `osctl graph render`: the graph as text, for Graphviz or for programs.

use clap::{Args, ValueEnum};
use keel_plan::{BOOT, render};

use crate::commands::inputs::{Fault, Inputs};
use crate::error::{Exit, Failure};
use crate::output::Output;

/// Draw the graph of a machine
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl graph render --config machine-configs/qemu.toml\n  osctl graph render --config machine-configs/qemu.toml --format dot | dot -Tsvg > boot.svg"
)]
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
    /// For comments on GitHub
    Mermaid,
    /// For programs, and for `osctl graph diff`
    Json,
    /// A picture
    Svg,
}

impl Render {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        let Render { inputs, goal, format } = self;
        match inputs.planned(&goal) {
            Ok((graph, transaction)) => {
                out.text(&match format {
                    Drawing::Text => render::text(&graph, &transaction),
                    Drawing::Dot => render::dot(&graph, &transaction),
                    Drawing::Mermaid => render::mermaid(&graph, &transaction),
                    Drawing::Svg => render::svg(&graph, &transaction),
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

//! `osctl graph`: what can be said of a machine's boot before there is one.

mod render;
mod simulate;

use clap::Subcommand;

use crate::error::{Exit, Failure};
use crate::output::Output;

/// Look at the boot graph
#[derive(Debug, Subcommand)]
pub(crate) enum Graph {
    Render(render::Render),
    Simulate(simulate::Simulate),
}

impl Graph {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        match self {
            Graph::Render(command) => command.run(out),
            Graph::Simulate(command) => command.run(out),
        }
    }
}

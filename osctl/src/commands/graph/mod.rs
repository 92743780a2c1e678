//! `osctl graph`: what can be said of a machine's boot before there is one.

mod diff;
mod digest;
mod explain;
mod list;
mod name;
mod path;
mod render;
mod simulate;

use clap::Subcommand;

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::output::Output;

/// Look at the boot graph
#[derive(Debug, Subcommand)]
pub(crate) enum Graph {
    Render(render::Render),
    Simulate(simulate::Simulate),
    Explain(explain::Explain),
    Path(path::Path),
    List(list::List),
    Digest(digest::Digest),
    Diff(diff::Diff),
}

impl Graph {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        match self {
            Graph::Render(command) => command.run(node, out),
            Graph::Simulate(command) => command.run(out),
            Graph::Explain(command) => command.run(node, out),
            Graph::Path(command) => command.run(node, out),
            Graph::List(command) => command.run(node, out),
            Graph::Digest(command) => command.run(node, out),
            Graph::Diff(command) => command.run(node, out),
        }
    }
}

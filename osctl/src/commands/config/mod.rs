//! `osctl config`: what a machine config says, and how to write one.

mod new;
mod node;
mod schema;
mod show;

use clap::Subcommand;

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::output::Output;

/// Write and read machine configs; show and change the one that a node runs
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    Edit(node::Edit),
    Get(node::Get),
    New(new::New),
    Schema(schema::Schema),
    Show(show::Show),
}

impl Config {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        match self {
            Config::Edit(command) => command.run(node, out),
            Config::Get(command) => command.run(node, out),
            Config::New(command) => command.run(out),
            Config::Schema(command) => command.run(out),
            Config::Show(command) => command.run(out),
        }
    }
}

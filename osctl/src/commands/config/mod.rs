//! `osctl config`: what a machine config says, and how to write one.

mod new;
mod schema;
mod show;

use clap::Subcommand;

use crate::error::{Exit, Failure};
use crate::output::Output;

/// Write and read machine configs
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    New(new::New),
    Schema(schema::Schema),
    Show(show::Show),
}

impl Config {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        match self {
            Config::New(command) => command.run(out),
            Config::Schema(command) => command.run(out),
            Config::Show(command) => command.run(out),
        }
    }
}

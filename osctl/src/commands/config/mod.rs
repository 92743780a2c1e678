//! `osctl config`: what a machine config says, and how to write one.

mod show;

use clap::Subcommand;

use crate::error::{Exit, Failure};
use crate::output::Output;

/// Write and read machine configs
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    Show(show::Show),
}

impl Config {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        match self {
            Config::Show(command) => command.run(out),
        }
    }
}

//! `osctl boot record`: a boot of a node, as a file.

use std::path::PathBuf;

use clap::Args;
use keel_plan::Ending;

use super::{files, source};
use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::output::Output;

/// Take the trace of a node's boot
///
/// The node keeps how its boot went until it goes down, and how earlier boots went on its data partition.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl --endpoint 192.0.2.10 boot record -o boot.json\n  osctl --endpoint 192.0.2.10 boot record | osctl boot show -\n  osctl --endpoint 192.0.2.10 boot record --boot 9f3a -o before.json"
)]
pub(crate) struct Record {
    /// An earlier boot: its id, or the first digits of it; `osctl boot list` has them [default: the boot that runs]
    #[arg(long, value_name = "ID")]
    boot: Option<String>,

    /// Where to write it [default: standard output]
    #[arg(long = "file", short = 'o', value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Record {
    pub(crate) fn run(self, args: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let trace = source::of_node(args, self.boot.as_deref().unwrap_or_default(), out)?;
        if trace.outcome == Ending::Unfinished && self.boot.is_none() {
            out.notice("that boot is not over; its trace will tell more when it is");
        }
        match self.file {
            Some(path) => files::write(&path, &trace.json())?,
            None => out.text(&trace.json())?,
        }
        Ok(Exit::Clean)
    }
}

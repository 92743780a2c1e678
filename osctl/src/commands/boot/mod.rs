//! `osctl boot`: boots that were recorded, looked at and compared.

mod compare;
pub(crate) mod files;
mod look;
pub(crate) mod page;
mod predict;
mod record;

use clap::Subcommand;

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::output::Output;

/// Record boots, look at them, compare them
///
/// A trace is a JSON file that docs/trace.md describes: from a node (`boot record`), from a machine in QEMU (`image run --trace`), from
/// a saved console of a boot with keel.report=json, or from the simulator (`graph simulate --save`).
#[derive(Debug, Subcommand)]
pub(crate) enum Boot {
    Record(record::Record),
    Show(look::Show),
    Blame(look::Blame),
    CriticalChain(look::CriticalChain),
    Plot(look::Plot),
    Export(look::Export),
    Compare(compare::Compare),
    Predict(predict::Predict),
}

impl Boot {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        match self {
            Boot::Record(command) => command.run(node, out),
            Boot::Show(command) => command.run(out),
            Boot::Blame(command) => command.run(out),
            Boot::CriticalChain(command) => command.run(out),
            Boot::Plot(command) => command.run(out),
            Boot::Export(command) => command.run(out),
            Boot::Compare(command) => command.run(out),
            Boot::Predict(command) => command.run(out),
        }
    }
}

//! `osctl boot`: boots that were recorded, looked at and compared.

mod compare;
pub(crate) mod files;
mod list;
mod look;
pub(crate) mod page;
mod predict;
mod record;
mod source;

use clap::Subcommand;

pub(crate) use self::source::current;
use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::output::Output;

/// Record boots, look at them, compare them
///
/// A trace is a JSON file that docs/trace.md describes: from a node (`boot record`), from a machine in QEMU (`image run --trace`), from
/// a saved console of a boot with keel.report=json, or from the simulator (`graph simulate --save`). Where no file is named, the boots
/// are those that the node of --endpoint remembers.
#[derive(Debug, Subcommand)]
pub(crate) enum Boot {
    List(list::List),
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
            Boot::List(command) => command.run(node, out),
            Boot::Record(command) => command.run(node, out),
            Boot::Show(command) => command.run(node, out),
            Boot::Blame(command) => command.run(node, out),
            Boot::CriticalChain(command) => command.run(node, out),
            Boot::Plot(command) => command.run(node, out),
            Boot::Export(command) => command.run(node, out),
            Boot::Compare(command) => command.run(node, out),
            Boot::Predict(command) => command.run(node, out),
        }
    }
}

//! `osctl config schema`: the JSON Schemas that editors check and complete with.

use clap::{Args, ValueEnum};
use keel_image::Inventory;
use keel_unit::json_schema;

use crate::error::{Exit, Failure};
use crate::output::Output;

/// Print the JSON Schema of machine configs, of unit files or of inventories, for editors
///
/// taplo and Even Better TOML take it from a line at the top of a file: `#:schema ./machine-config.json`. What several files say together is
/// the matter of `osctl validate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl config schema > machine-config.json\n  osctl config schema unit > unit.json\n  osctl config schema inventory > inventory.json"
)]
pub(crate) struct Schema {
    /// Which kind of file
    #[arg(value_enum, default_value_t = File::MachineConfig)]
    of: File,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum File {
    /// Machine configs
    MachineConfig,
    /// Unit files
    Unit,
    /// Inventories of machines, which `osctl verify --inventory` reads
    Inventory,
}

impl Schema {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        out.json(&match self.of {
            File::MachineConfig => json_schema::machine_config(),
            File::Unit => json_schema::unit(),
            File::Inventory => Inventory::json_schema(),
        })?;
        Ok(Exit::Clean)
    }
}

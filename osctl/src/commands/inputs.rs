//! Where units and machine config are, and the graph that they make: what every offline command begins with.

use std::path::{Path, PathBuf};

use clap::Args;
use keel_plan::{BOOT, BootGraph, PlanError, Transaction, compile};
use keel_unit::Report;
use keel_unit::load::load;

use crate::error::Failure;

/// Where units and machine config are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Inputs {
    /// Machine config; without one everything has its default
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Folder of unit files
    #[arg(long, short, value_name = "DIR", default_value = "units")]
    pub(crate) units: PathBuf,
}

/// Why a machine's graph could not be had.
pub(crate) enum Fault {
    /// The inputs have faults of their own.
    Findings(Report),
    /// Anything else.
    Other(Failure),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Fault::Other(failure)
    }
}

impl Inputs {
    /// Reads, resolves and plans; everything that is wrong is one `Fault`.
    pub(crate) fn planned(&self, goal: &str) -> Result<(BootGraph, Transaction), Fault> {
        present(&self.units, "--units")?;
        if self.units.is_file() {
            let failure = Failure::usage(format!("{} is a file", self.units.display()));
            return Err(failure.next("name the folder that it lies in with --units").into());
        }
        if let Some(config) = &self.config {
            present(config, "--config")?;
        }
        compile(load(&self.units, self.config.as_deref()), goal).map_err(|error| match error {
            PlanError::Invalid(report) => Fault::Findings(report),
            // Units that lack the goal of every boot are not whole; another goal was typed.
            PlanError::UnknownGoal { .. } if goal == BOOT => {
                let failure = Failure::new(error.to_string());
                let units = self.units.display();
                Fault::Other(failure.next(format!("give {units} a boot.toml with [target]")))
            }
            PlanError::UnknownGoal { .. } => {
                let failure = Failure::usage(error.to_string());
                Fault::Other(failure.next("`osctl graph list` names all units"))
            }
            other => {
                let failure = Failure::new("cannot plan the boot").because(other);
                Fault::Other(failure.next("this is a defect of osctl; please report it"))
            }
        })
    }
}

/// A path that is not there is a slip on the command line, not a finding in a file. A link that leads nowhere is there.
fn present(path: &Path, option: &str) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(error) => {
            let failure = Failure::usage(format!("cannot read {}", path.display())).because(error);
            Err(failure.next(format!("say where it is with {option}")))
        }
    }
}

//! `osctl config new`: a machine config to begin with, which validates as it is.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::error::{Exit, Failure};
use crate::output::{Format, Output};
use crate::place;

/// Write a machine config to begin with: commented, and valid as it is
///
/// Without `-o` it is printed. A file that is there is never overwritten, unless `--force` says so.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl config new --for qemu -o my.toml\n  osctl config new --for bare-metal"
)]
pub(crate) struct New {
    /// What kind of machine it is for
    #[arg(long = "for", value_enum, value_name = "MACHINE", default_value_t = Machine::Qemu)]
    machine: Machine,

    /// Write it to this file
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Overwrite the file when it is there
    #[arg(long, requires = "out")]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Machine {
    /// A virtual machine on your own: one virtio disk, DHCP
    Qemu,
    /// A machine in a rack: a fixed address, a disk that is found by what it is
    BareMetal,
    /// A virtual machine of a cloud: DHCP, a data volume, no name of its own
    Cloud,
    /// A small machine far away: a card for a disk, bounded memory
    Edge,
}

impl Machine {
    fn config(self) -> &'static str {
        match self {
            Machine::Qemu => include_str!("new/qemu.toml"),
            Machine::BareMetal => include_str!("new/bare-metal.toml"),
            Machine::Cloud => include_str!("new/cloud.toml"),
            Machine::Edge => include_str!("new/edge.toml"),
        }
    }
}

impl New {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        let config = self.machine.config();
        if let Some(path) = &self.out {
            write(path, config, self.force)?;
        }
        match (out.format(), &self.out) {
            (Format::Json, file) => out.json(&json!({ "file": file, "config": config }))?,
            (Format::Table, None) => out.text(config)?,
            (Format::Table, Some(path)) => {
                let path = path.display();
                out.notice(&format!("wrote {path}; next: osctl validate --config {path}"));
            }
        }
        Ok(Exit::Clean)
    }
}

fn write(path: &Path, config: &str, force: bool) -> Result<(), Failure> {
    let written = match force {
        true => place::write(path, config.as_bytes()),
        false => place::write_new(path, config.as_bytes()),
    };
    written.map_err(|error| {
        let failure = match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let failure = Failure::new(format!("{} is there already", path.display()));
                return failure.next("choose another name with -o, or overwrite it with --force");
            }
            _ => Failure::new(format!("cannot write {}", path.display())),
        };
        failure.because(error)
    })
}

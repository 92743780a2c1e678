//! `osctl image`: build a node's image, and boot it in QEMU.

mod build;
#[cfg(unix)]
mod run;

use clap::Subcommand;

use crate::error::{Exit, Failure};
use crate::output::Output;

/// Node images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build a kernel and an initramfs from units, a machine config and programs
    Build(build::BuildArgs),
    /// Boot an image in QEMU and show its console
    #[cfg(unix)]
    Run(run::RunArgs),
}

pub(crate) fn run(command: ImageCommand, out: &mut Output) -> Result<Exit, Failure> {
    match command {
        ImageCommand::Build(args) => build::run(&args, out),
        #[cfg(unix)]
        ImageCommand::Run(args) => run::run(&args, out),
    }
}

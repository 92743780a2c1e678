//! `osctl image`: build a node's image, and boot it in QEMU.

mod build;
mod payload;
mod progress;
#[cfg(unix)]
mod run;

use clap::Subcommand;

use crate::error::{Exit, Failure};
use crate::output::Output;

/// Node images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build a kernel and an initramfs, a disk or a CD from units, a machine config and programs
    Build(Box<build::BuildArgs>),
    /// Say which programs go into an image, and which file each one is
    #[command(subcommand)]
    Payload(payload::PayloadCommand),
    /// Boot an image in QEMU and show its console
    #[cfg(unix)]
    Run(run::RunArgs),
}

pub(crate) fn run(command: ImageCommand, out: &mut Output) -> Result<Exit, Failure> {
    match command {
        ImageCommand::Build(args) => build::run(&args, out),
        ImageCommand::Payload(command) => payload::run(&command, out),
        #[cfg(unix)]
        ImageCommand::Run(args) => run::run(&args, out),
    }
}

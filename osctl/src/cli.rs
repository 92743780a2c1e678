//! What can be typed: one place that names every command and every option that all commands share.

use clap::{Args, Parser, Subcommand};

use crate::commands::boot::Boot;
use crate::commands::graph::Graph;
use crate::commands::image::ImageCommand;
use crate::commands::validate::Validate;
use crate::commands::{events, status, units};
use crate::output::Format;

/// Boot graphs, images and nodes of Keel, from your own machine.
#[derive(Debug, Parser)]
#[command(name = "osctl", version, propagate_version = true, infer_subcommands = false)]
pub(crate) struct Cli {
    /// How to print: for people or for programs
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,

    #[command(flatten)]
    pub(crate) node: NodeArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const NODE: &str = "Talking to a node";

/// Which node to talk to and how to know that it is the right one.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeArgs {
    /// The node's API: [https://]HOST[:PORT]; the port is 50051 when it is left out
    #[arg(long, global = true, value_name = "HOST[:PORT]", env = "OSCTL_ENDPOINT", help_heading = NODE)]
    pub(crate) endpoint: Option<String>,

    /// SHA-256 fingerprint of the node's certificate, as its console shows it
    #[arg(long, global = true, value_name = "SHA256", env = "OSCTL_FINGERPRINT", help_heading = NODE)]
    pub(crate) fingerprint: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Validate(Validate),

    #[command(subcommand)]
    Graph(Graph),

    #[command(subcommand)]
    Boot(Boot),

    /// Build a node's image, and boot it in QEMU
    #[command(subcommand)]
    Image(ImageCommand),

    /// Show what a node is, how its boot went and what is wrong with it
    Status(status::Args),

    /// List the units of a node and their states
    Units(units::Args),

    /// Print what happened to a node's units since boot
    Events(events::Args),
}

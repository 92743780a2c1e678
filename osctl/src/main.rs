//! osctl: validate, render and build machines offline; talk to nodes.
//!
//! Exit codes: 0 all is well, 1 findings or a failure, 2 the command line was wrong.

mod cli;
mod commands;
mod error;
mod findings;
mod node;
mod output;
mod place;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::{Exit, Failure};
use crate::output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse_from(cli::words(std::env::args_os()));
    let mut out = Output::to_terminal(cli.output);
    match dispatch(cli, &mut out) {
        Ok(exit) => exit.into(),
        // A reader that went away (`osctl units | head`) has what it wanted.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            let exit = failure.exit();
            // Nothing is left to tell the user with when stderr itself is gone.
            let _: io::Result<()> = out.failure(&failure);
            exit.into()
        }
    }
}

fn dispatch(cli: Cli, out: &mut Output) -> Result<Exit, Failure> {
    match cli.command {
        Command::Validate(command) => command.run(out),
        Command::Config(command) => command.run(&cli.node, out),
        Command::Bootstrap(command) => command.run(&cli.node, out),
        Command::Unbootstrap(command) => command.run(&cli.node, out),
        Command::ApplyConfig(command) => command.run(&cli.node, out),
        Command::Confirm(command) => command.run(&cli.node, out),
        Command::History(command) => command.run(&cli.node, out),
        Command::Rollback(command) => command.run(&cli.node, out),
        Command::Explain(command) => command.run(&cli.node, out),
        Command::Verify(command) => command.run(out),
        Command::Graph(command) => command.run(&cli.node, out),
        Command::Boot(command) => command.run(&cli.node, out),
        Command::Image(command) => commands::image::run(command, out),
        Command::Status(args) => commands::status::run(&args, &cli.node, out),
        Command::Units(args) => commands::units::run(&args, &cli.node, out),
        Command::Processes(command) => command.run(&cli.node, out),
        Command::Reboot(command) => command.run(&cli.node, out),
        Command::Shutdown(command) => command.run(&cli.node, out),
        Command::Reset(command) => command.run(&cli.node, out),
        Command::Audit(args) => commands::audit::run(&args, &cli.node, out),
        Command::Events(args) => commands::events::run(&args, &cli.node, out),
        Command::Dashboard(args) => commands::dashboard::run(&args, &cli.node, out),
        Command::Logs(args) => commands::logs::run(&args, &cli.node, out),
        Command::Dmesg(args) => commands::dmesg::run(&args, &cli.node, out),
        Command::Context(command) => command.run(&cli.node, out),
        Command::KnownNodes(command) => command.run(out),
        Command::Completion(command) => command.run(out),
        Command::Man(command) => command.run(out),
        Command::Inventory(args) => commands::inventory::run(&args, &cli.node, out),
    }
}

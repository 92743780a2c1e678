//! `cargo xtask`: what this repository does to itself.
//!
//! Progress and everything that child programs print goes to stderr; stdout carries results alone.

mod apt;
mod bench;
mod codegen;
mod command;
mod demo;
mod fuzz;
mod gate;
mod keep;
mod kubernetes;
mod node;
mod payload;
mod picture;
mod progress;
mod reference;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::command::Failure;

/// Demo, test, codegen and tidy for Keel.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Xtask,
}

#[derive(Debug, Subcommand)]
enum Xtask {
    /// Measure keel-init beside other inits and beside the least that starting the same processes costs
    Bench(bench::boots::Options),
    /// Measure osctl beside systemd-analyze on the same random graphs, and print a table
    BenchOffline(bench::offline::Options),
    /// Write the generated files, or check that they are current
    Codegen(codegen::Args),
    /// Boot a node in QEMU from machine-configs/qemu.toml and show how it went
    Demo(demo::Options),
    /// Fuzz whatever reads bytes that others wrote
    Fuzz(fuzz::Options),
    /// Count the instructions of what every boot does, and refuse more than a committed baseline allows
    Gate(gate::Options),
    /// Fetch and build the Kubernetes that tests and the demo run, once, into the cache; link it as target/kubernetes
    Kubernetes,
    /// Install what the other commands need: packages, a kernel, containerd, cargo-nextest
    Setup,
    /// Everything that CI checks: format, lints, then every tier of tests
    Test(test::Options),
    /// Prove the invariants of docs/ARCHITECTURE.md and the habits that no lint knows
    Tidy,
    /// Build the node image that the VM tests boot, into target/vm
    VmImage,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            progress::say(&format!("error: {}", failure.chain()));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Xtask) -> Result<ExitCode, Failure> {
    match command {
        Xtask::Bench(options) => bench::boots::run(&options)?,
        Xtask::BenchOffline(options) => bench::offline::run(&options)?,
        Xtask::Codegen(args) => codegen::run(&node::repository(), args)
            .map_err(Failure::because("the generated files are not right"))?,
        Xtask::Demo(options) => return demo::run(&options),
        Xtask::Fuzz(options) => fuzz::run(&options)?,
        Xtask::Gate(options) => gate::run(&options)?,
        Xtask::Kubernetes => kubernetes::fetch().map(drop)?,
        Xtask::Setup => setup::all().map(drop)?,
        Xtask::Test(options) => test::run(&options)?,
        Xtask::Tidy => {
            tidy::run(&node::repository())
                .map_err(Failure::because("the workspace is not tidy"))?;
        }
        Xtask::VmImage => test::images(&setup::firmware()?)?,
    }
    Ok(ExitCode::SUCCESS)
}

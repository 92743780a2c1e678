//! Everything that CI checks, in the order that fails fastest.

use std::env;
use std::time::{Duration, Instant};

use clap::Args;
use keel_image::vm::Accel;

use crate::command::{self, Failure, command};
use crate::fuzz;
use crate::gate;
use crate::node::{self, repository};
use crate::payload::Kit;
use crate::progress::{say, step};
use crate::setup;

/// How long CI fuzzes each target. Faults in old code are found by longer runs; this one finds those that a change brings.
const FUZZING: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave out the tests that boot virtual machines
    #[arg(long)]
    no_vm: bool,

    /// Only these tests, as `cargo nextest run` takes them
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let started = Instant::now();
    let kit = setup::all()?;
    let check = |args: &[&str]| command::run(command::cargo(args).current_dir(repository()));
    step("rustfmt", || check(&["fmt", "--all", "--check"]))?;
    step("clippy", || check(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    step("generated files", || command::run(&mut command(&itself()?, ["codegen", "--check"])))?;
    step("tidy", || command::run(&mut command(&itself()?, ["tidy"])))?;
    let mut nextest = command::cargo(["nextest", "run", "--workspace", "--no-fail-fast"]);
    if !options.no_vm {
        images(&kit)?;
        nextest.args(["--profile", "all"]);
    }
    // One probe here instead of one in each test's process.
    nextest.env("KEEL_ACCEL", Accel::detect().name());
    nextest.args(&options.filter).current_dir(repository());
    step("tests", || command::run(&mut nextest))?;
    if options.filter.is_empty() {
        step("instructions", || gate::run(&gate::Options::default()))?;
        fuzz::all(FUZZING)?;
    }
    say(&format!("all is well, {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// What the VM tests boot.
pub(crate) fn images(kit: &Kit) -> Result<(), Failure> {
    let (_, programs) = node::vm_image(kit)?;
    node::firmware_image(kit, &programs)
}

/// This very program: a check that has a subcommand of its own is run as people run it.
fn itself() -> Result<String, Failure> {
    let path = env::current_exe().map_err(Failure::because("cannot find this program"))?;
    Ok(path.to_string_lossy().into_owned())
}

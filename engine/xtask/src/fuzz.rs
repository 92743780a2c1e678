//! `cargo xtask fuzz`: the fuzz targets under libFuzzer, from the seeds that each names.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use clap::Args;

use crate::command::{self, Failure};
use crate::node::repository;
use crate::progress::{say, step};
use crate::setup;

/// Below `target/`: binaries, and what was found.
const FOLDER: &str = "target/fuzz";

/// One input may take this long, in seconds; those of the seeds take milliseconds.
const LONGEST: u32 = 10;

/// Memory that one input may take, in MiB.
const MEMORY: u32 = 1024;

/// The largest input, in bytes: config and trace are the only ones that grow, and their bounds have tests of their own.
const LARGEST: u32 = 16 * 1024;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u64,

    /// Only these targets; else all
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// A target, and the folders of its seeds.
type Targets = BTreeMap<String, Vec<String>>;

/// Runs the targets that were asked for.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut targets = targets()?;
    if let Some(name) = options.targets.iter().find(|name| !targets.contains_key(*name)) {
        let names: Vec<_> = targets.into_keys().collect();
        return Err(Failure::new(format!("there is no target {name}: {}", names.join(", "))));
    }
    targets.retain(|name, _| options.targets.is_empty() || options.targets.contains(name));
    each(&targets, Duration::from_secs(options.seconds))
}

/// Runs every target for so long.
pub(crate) fn all(time: Duration) -> Result<(), Failure> {
    each(&targets()?, time)
}

/// What keel-fuzz says of itself in its Cargo.toml.
fn targets() -> Result<Targets, Failure> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(repository())
        .no_deps()
        .exec()
        .map_err(Failure::because("cannot read the workspace"))?;
    let fuzz = metadata.packages.into_iter().find(|package| *package.name == "keel-fuzz");
    let seeds = fuzz.map(|package| package.metadata["seeds"].clone()).unwrap_or_default();
    serde_json::from_value(seeds)
        .map_err(Failure::because("engine/fuzz/Cargo.toml does not say where the seeds are"))
}

fn each(targets: &Targets, time: Duration) -> Result<(), Failure> {
    setup::fuzz()?;
    step("building the fuzz targets", || cargo_fuzz(&["build"], &[]))?;
    for (name, seeds) in targets {
        step(&format!("fuzzing {name}"), || fuzz(name, seeds, time))?;
    }
    say("no fault found");
    Ok(())
}

fn fuzz(name: &str, seeds: &[String], time: Duration) -> Result<(), Failure> {
    // What libFuzzer finds new goes into the first folder, so that a later run goes on from there.
    let corpus = format!("{FOLDER}/corpus/{name}");
    let artifacts = format!("{FOLDER}/artifacts/{name}");
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(repository().join(folder))
            .map_err(Failure::because(format!("cannot make {folder}")))?;
    }
    let folders: Vec<_> = std::iter::once(&corpus).chain(seeds).map(|f| absolute(f)).collect();
    let limits = [
        format!("-max_total_time={}", time.as_secs()),
        format!("-timeout={LONGEST}"),
        format!("-rss_limit_mb={MEMORY}"),
        format!("-max_len={LARGEST}"),
        format!("-artifact_prefix={}/", absolute(&artifacts)),
        "-print_final_stats=1".to_owned(),
    ];
    let mut arguments = vec!["run", name];
    arguments.extend(folders.iter().map(String::as_str));
    cargo_fuzz(&arguments, &limits)
}

fn absolute(path: &str) -> String {
    repository().join(path).to_string_lossy().into_owned()
}

/// Coverage alone, no sanitizer: the code is safe Rust, and so this works with a stable toolchain. Checks for overflow are on, as
/// cargo-fuzz has them.
fn cargo_fuzz(arguments: &[&str], libfuzzer: &[String]) -> Result<(), Failure> {
    let (verb, rest) = arguments.split_at(1);
    let mut cargo = command::cargo(["fuzz"]);
    cargo.args(verb).args(["--fuzz-dir", "engine/fuzz", "--sanitizer", "none"]);
    cargo.args(["--target-dir", FOLDER]).args(rest);
    if !libfuzzer.is_empty() {
        cargo.arg("--").args(libfuzzer);
    }
    // The release profile is made for PID 1's size; here speed counts, and that of the build too.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off");
    cargo.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "2");
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "false");
    command::run(cargo.current_dir(repository()))
}

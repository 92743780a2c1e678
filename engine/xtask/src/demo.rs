//! `cargo xtask demo`: a node boots in QEMU, from this repository's own units, with nothing faked.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use keel_image::ImageDir;
use keel_image::vm::{Accel, Boot, Disk, Network, Next, Vm, VmSpec};
use keel_plan::{BOOT as GOAL, Basis, REPORT, SPAN, Trace, compile, predict, predictions};
use keel_unit::load::load;
use serde::{Deserialize, Serialize};

mod cluster;

use crate::command::Failure;
use crate::node;
use crate::progress::say;
use crate::setup;

/// The node's API.
const API_PORT: u16 = 50051;
/// A blank disk, sparse: what the node does not write costs nothing.
const DISK: u64 = 4 << 30;
/// Boot has a deadline on every unit; the translator on a busy machine is slow.
const BOOT: Duration = Duration::from_secs(300);
const SHUTDOWN: Duration = Duration::from_secs(90);

/// Where the demo leaves how its boot went.
const TRACE: &str = "target/demo/boot.json";
/// How many units of a prediction are shown, the worst first.
const WORST: usize = 8;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Start a Kubernetes control plane here, have the node join it, and run a pod
    #[arg(long)]
    cluster: bool,

    /// Print one JSON object last, on stdout
    #[arg(long)]
    json: bool,
}

impl Options {
    /// Whether somebody is there who may look at the node afterwards.
    fn stays(&self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stdout().is_terminal()
    }
}

/// How the boot went, in init's own words; what it says beyond this is passed over.
#[derive(Debug, Deserialize, Serialize)]
struct Report {
    reached: bool,
    total_ms: u64,
    critical_path_ms: u64,
    speedup: f64,
    degraded: Vec<Degraded>,
    digest: String,
    machine_id: Option<String>,
    fingerprint: Option<String>,
}

/// A unit that is not as it should be.
#[derive(Debug, Deserialize, Serialize)]
struct Degraded {
    unit: String,
    why: String,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let stops = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&stops);
    let count = move || {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    ctrlc::set_handler(count).map_err(Failure::because("cannot watch for Ctrl-C"))?;
    match options.cluster {
        true => cluster::run(options, &stops),
        false => alone(options, &stops),
    }
}

/// What the demo boots: such an image, with such a disk.
fn machine(image: ImageDir, disk: Disk) -> VmSpec {
    VmSpec {
        boot: Boot::Kernel {
            kernel: image.kernel,
            initramfs: image.initramfs,
            append: [image.manifest.arguments, vec!["keel.report=json".into()]].concat(),
        },
        memory: 2048,
        cpus: 2,
        disks: vec![disk],
        network: Network::User { forward: vec![API_PORT] },
        accel: Accel::detect(),
        detached: true,
    }
}

/// A node that has no cluster.
fn alone(options: &Options, stops: &AtomicUsize) -> Result<ExitCode, Failure> {
    let (image, programs) = node::vm_image(&setup::node()?)?;
    let image = ImageDir::open(&image).map_err(Failure::because("the image is not whole"))?;
    let scratch = tempfile::tempdir().map_err(Failure::because("no place for a disk"))?;
    let disk = Disk::at(&scratch.path().join("disk.img"), DISK)
        .map_err(Failure::because("cannot make a disk"))?;
    let spec = machine(image, disk);

    say(&format!("==> boot, QEMU with {}", spec.accel.name()));
    let mut vm = Vm::start(&spec).map_err(Failure::because("the demo has no machine"))?;
    let port = vm.forwarded(API_PORT);
    let (report, trace) = boot(&mut vm, stops)?;

    let osctl = programs.osctl.display();
    say(&summary(&report));
    say(&format!("\npredicted against measured\n{}", predicted(&trace)?));
    record(&trace)?;
    say(&format!("look at its boot:   {osctl} boot show {TRACE}"));
    say(&format!("look at its graph:  {osctl} graph render --config machine-configs/qemu.toml"));
    if options.stays() {
        if let Some(port) = port {
            say(&format!("talk to the node:   {osctl} --endpoint 127.0.0.1:{port} status"));
        }
        say("\nThe node stays up; Ctrl-C shuts it down.");
        let show = |line: &str| say(&format!("    {line}"));
        vm.attend(stops, show).map_err(Failure::because("the node ended badly"))?;
    } else {
        vm.power_button().map_err(Failure::because("cannot shut the node down"))?;
        vm.wait_off(SHUTDOWN).map_err(Failure::because("the node did not shut down"))?;
        say("    the node is off");
    }
    if options.json {
        let text =
            serde_json::to_string(&report).map_err(Failure::because("cannot print the report"))?;
        writeln!(io::stdout(), "{text}").map_err(Failure::because("cannot print the report"))?;
    }
    Ok(if report.reached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows the boot until init reports on it.
fn boot(vm: &mut Vm, stops: &AtomicUsize) -> Result<(Report, Trace), Failure> {
    let deadline = Instant::now() + BOOT;
    let mut told: Vec<String> = Vec::new();
    loop {
        match vm.next(Duration::from_millis(100)) {
            Next::Line(line) => match line.split_once(REPORT) {
                Some((_, report)) => {
                    told.push(line.to_owned());
                    let trace = Trace::from_console(told.iter().map(String::as_str));
                    let trace = trace.map_err(Failure::because("the console has no trace"))?;
                    let report = serde_json::from_str(report)
                        .map_err(Failure::because(format!("not a report: {report}")))?;
                    return Ok((report, trace));
                }
                None if line.contains(SPAN) => told.push(line.to_owned()),
                None => say(&format!("    {line}")),
            },
            Next::Off => return Err(Failure::new("the node went off during its boot")),
            Next::Quiet if Instant::now() > deadline => {
                return Err(Failure::new(format!(
                    "the node did not report within {} s",
                    BOOT.as_secs()
                )));
            }
            Next::Quiet => {}
        }
        // The machine is dropped with the error, and with it its power.
        if stops.load(Ordering::Relaxed) > 0 {
            return Err(Failure::new("interrupted"));
        }
    }
}

/// What the simulator says of this boot.
fn predicted(trace: &Trace) -> Result<String, Failure> {
    let root = node::repository();
    let input = load(&root.join("units"), Some(&root.join("machine-configs/qemu.toml")));
    let planned = compile(input, GOAL);
    let (graph, transaction) = planned.map_err(Failure::because("cannot plan the demo's boot"))?;
    let transaction = Arc::new(transaction);
    let earlier = earlier(&root)?;
    let of = |basis| predict(&graph, &transaction, trace, &earlier, 50, basis);
    Ok(predictions(&of(Basis::Before), &of(Basis::Replay), WORST))
}

/// Boots of this demo that were recorded before: what a prediction is made from.
fn earlier(root: &Path) -> Result<Vec<Trace>, Failure> {
    let what = "cannot read testdata/traces";
    let entries =
        std::fs::read_dir(root.join("testdata/traces")).map_err(Failure::because(what))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).map_err(Failure::because(what))?;
        Trace::parse(&text).map_err(Failure::because(format!("cannot read {}", path.display())))
    };
    files.iter().map(read).collect()
}

/// Keeps the trace, for osctl.
fn record(trace: &Trace) -> Result<(), Failure> {
    let path = node::repository().join(TRACE);
    let folder = path.parent().map(std::fs::create_dir_all);
    folder
        .unwrap_or(Ok(()))
        .and_then(|()| std::fs::write(&path, trace.json()))
        .map_err(Failure::because(format!("cannot write {TRACE}")))
}

fn summary(report: &Report) -> String {
    let seconds = |ms: u64| format!("{:.2} s", ms as f64 / 1000.0);
    let goal = if report.reached { "reached" } else { "NOT reached" };
    let side_by_side = format!("{:.2} times as fast as one unit after the other", report.speedup);
    let mut lines = vec![
        String::new(),
        format!("goal           {goal}"),
        format!("/init to goal  {}", seconds(report.total_ms)),
        format!("critical path  {}", seconds(report.critical_path_ms)),
        format!("side by side   {side_by_side}"),
        format!("graph          {}", report.digest),
        format!("machine id     {}", report.machine_id.as_deref().unwrap_or("none")),
    ];
    let degraded = report.degraded.iter();
    lines.extend(degraded.map(|Degraded { unit, why }| format!("degraded       {unit}: {why}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_a_person_wants_to_know() {
        let report = r#"{"reached": false, "goal": "boot", "total_ms": 4321, "critical_path_ms": 4000,
            "speedup": 1.875, "degraded": [{"unit": "storage", "why": "two disks"}],
            "digest": "sha256:ab", "machine_id": null, "fingerprint": null, "hostname": "keel"}"#;
        let report = serde_json::from_str(report).unwrap();
        let expect = "
goal           NOT reached
/init to goal  4.32 s
critical path  4.00 s
side by side   1.88 times as fast as one unit after the other
graph          sha256:ab
machine id     none
degraded       storage: two disks";
        assert_eq!(summary(&report), expect);
    }
}

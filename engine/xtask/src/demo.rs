//! `cargo xtask demo`: a node boots in QEMU, from this repository's own units, with nothing faked.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use keel_image::ImageDir;
use keel_image::vm::{Accel, Disk, Network, Next, Vm, VmSpec};
use serde::{Deserialize, Serialize};

use crate::command::Failure;
use crate::node::{self, Programs};
use crate::progress::say;
use crate::setup;

/// The node's API.
const API_PORT: u16 = 50051;
/// A blank disk, sparse: what the node does not write costs nothing.
const DISK: u64 = 4 << 30;
/// Boot has a deadline on every unit; the translator on a busy machine is slow.
const BOOT: Duration = Duration::from_secs(300);
const SHUTDOWN: Duration = Duration::from_secs(90);

/// Init prints one line with this mark when boot is over and `keel.report=json` was asked for.
const REPORT: &str = "KEEL-REPORT ";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Print one JSON object last, on stdout
    #[arg(long)]
    json: bool,
}

/// How the boot went, in init's own words.
#[derive(Debug, Deserialize, Serialize)]
struct Report {
    reached: bool,
    total_ms: u64,
    critical_path_ms: u64,
    speedup: f64,
    degraded: Vec<String>,
    digest: String,
    machine_id: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let (image, programs) = node::vm_image(&setup::run()?)?;
    let image = ImageDir::open(&image).map_err(Failure::because("the image is not whole"))?;
    let scratch = tempfile::tempdir().map_err(Failure::because("no place for a disk"))?;
    let disk = Disk::at(&scratch.path().join("disk.img"), DISK)
        .map_err(Failure::because("cannot make a disk"))?;
    let spec = VmSpec {
        append: image
            .manifest
            .arguments
            .iter()
            .cloned()
            .chain(["keel.report=json".into()])
            .collect(),
        kernel: image.kernel,
        initramfs: image.initramfs,
        memory: 2048,
        cpus: 2,
        disks: vec![disk],
        network: Network::User { forward: vec![API_PORT] },
        accel: Accel::detect(),
        detached: true,
    };
    let stops = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&stops);
    let count = move || {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    ctrlc::set_handler(count).map_err(Failure::because("cannot watch for Ctrl-C"))?;

    say(&format!("==> boot, QEMU with {}", spec.accel.name()));
    let mut vm = Vm::start(&spec).map_err(Failure::because("the demo has no machine"))?;
    let port = vm.forwarded(API_PORT);
    let report = boot(&mut vm, &stops)?;

    say(&summary(&report, &programs, port));
    let stay = !options.json && io::stdin().is_terminal() && io::stdout().is_terminal();
    if stay {
        say("\nThe node stays up; Ctrl-C shuts it down.");
        let show = |line: &str| say(&format!("    {line}"));
        vm.attend(&stops, show).map_err(Failure::because("the node ended badly"))?;
    } else {
        vm.ctrl_alt_del().map_err(Failure::because("cannot shut the node down"))?;
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
fn boot(vm: &mut Vm, stops: &AtomicUsize) -> Result<Report, Failure> {
    let deadline = Instant::now() + BOOT;
    loop {
        match vm.next(Duration::from_millis(100)) {
            Next::Line(line) => match line.split_once(REPORT) {
                Some((_, report)) => {
                    return serde_json::from_str(report)
                        .map_err(Failure::because(format!("not a report: {report}")));
                }
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

fn summary(report: &Report, programs: &Programs, port: Option<u16>) -> String {
    let seconds = |ms: u64| format!("{:.2} s", ms as f64 / 1000.0);
    let osctl = programs.osctl.display();
    let mut lines = vec![
        String::new(),
        format!("goal           {}", if report.reached { "reached" } else { "NOT reached" }),
        format!("/init to goal  {}", seconds(report.total_ms)),
        format!("critical path  {}", seconds(report.critical_path_ms)),
        format!("side by side   {:.2} times as fast as one unit after the other", report.speedup),
        format!(
            "degraded       {}",
            if report.degraded.is_empty() { "nothing".into() } else { report.degraded.join(", ") }
        ),
        format!("graph          {}", report.digest),
        format!("machine id     {}", report.machine_id.as_deref().unwrap_or("none")),
        String::new(),
        "look at the graph:".to_owned(),
        format!(
            "  {osctl} graph render --config machine-configs/qemu.toml --units units --format text"
        ),
    ];
    if let Some(port) = port {
        lines.push("talk to the node:".to_owned());
        lines.push(format!("  {osctl} --endpoint 127.0.0.1:{port} status"));
    }
    lines.join("\n")
}

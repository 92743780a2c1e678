//! `osctl image run`: a node on this machine, in QEMU.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use keel_image::ImageDir;
use keel_image::vm::{Accel, Disk, Network, Vm, VmSpec};
use keel_plan::{REPORT, SPAN, Trace};
use keel_unit::keys::Text;
use keel_unit::value::ByteSize;

use crate::commands::boot::files;
use crate::error::{Exit, Failure};
use crate::output::Output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  osctl image run image
  osctl image run image --memory 4GiB --cpus 4 --disk /tmp/node-1.img
  osctl image run image --no-net --append keel.goal=network")]
pub(crate) struct RunArgs {
    /// A directory that `osctl image build` wrote
    #[arg(value_name = "DIR")]
    image: PathBuf,

    /// The data disk; a blank one is made if it is not there [default: DIR/disk.img]
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,

    /// Size of a disk that is made
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = ByteSize::parse)]
    disk_size: ByteSize,

    /// Memory
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = ByteSize::parse)]
    memory: ByteSize,

    /// Processors
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    cpus: u32,

    /// A kernel argument, beyond those of the machine config
    #[arg(long, value_name = "ARGUMENT")]
    append: Vec<String>,

    /// Port of the node's API, to reach from here [default: the one in the image's machine config]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    api_port: Option<u16>,

    /// Write how the boot went to this file, for osctl boot
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Give the node no network card
    #[arg(long)]
    no_net: bool,
}

pub(crate) fn run(args: &RunArgs, out: &mut Output) -> Result<Exit, Failure> {
    let image = ImageDir::open(&args.image).map_err(|error| {
        Failure::new("cannot boot this image").because(error).next("build it: osctl image build")
    })?;
    let path = args.disk.clone().unwrap_or_else(|| args.image.join("disk.img"));
    let disk = Disk::at(&path, args.disk_size.0).map_err(|error| {
        Failure::new(format!("cannot make a disk at {}", path.display())).because(error)
    })?;
    let memory = u32::try_from(args.memory.0 >> 20)
        .ok()
        .filter(|mib| *mib >= 256)
        .ok_or_else(|| Failure::usage("--memory: a node needs at least 256MiB"))?;
    let api_port = args.api_port.unwrap_or(image.manifest.api_port);
    let network =
        if args.no_net { Network::None } else { Network::User { forward: vec![api_port] } };
    let mut append: Vec<String> =
        image.manifest.arguments.iter().chain(&args.append).cloned().collect();
    if args.trace.is_some() {
        append.push("keel.report=json".to_owned());
    }
    let spec = VmSpec {
        append,
        kernel: image.kernel,
        initramfs: image.initramfs,
        memory,
        cpus: args.cpus,
        disks: vec![disk],
        network,
        accel: Accel::detect(),
        detached: true,
    };

    // Before QEMU runs, so that no Ctrl-C can leave it behind.
    let stops = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&stops);
    ctrlc::set_handler(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    })
    .map_err(|error| Failure::new("cannot watch for Ctrl-C").because(error))?;

    let vm =
        Vm::start(&spec).map_err(|error| Failure::new("cannot boot the node").because(error))?;
    out.notice(&format!(
        "QEMU with {}; Ctrl-C shuts the node down, twice cuts its power",
        spec.accel.name()
    ));
    if let Some(port) = vm.forwarded(api_port) {
        out.notice(&format!("the node's API: osctl --endpoint 127.0.0.1:{port} status"));
    }
    let mut shown = Ok(());
    let mut recorder = args.trace.as_deref().map(Recorder::new);
    let ended = vm.attend(&stops, |line| {
        if recorder.as_mut().is_some_and(|recorder| recorder.takes(line, out)) {
            return;
        }
        if shown.is_ok() {
            shown = out.text(&format!("{line}\n"));
            // Nobody reads any more: shut down.
            if shown.is_err() {
                stops.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    ended.map_err(|error| Failure::new("the node ended badly").because(error))?;
    shown?;
    match recorder {
        Some(recorder) => recorder.end().map(|()| Exit::Clean),
        None => Ok(Exit::Clean),
    }
}

/// Takes the lines that tell how the boot went off the console, and writes the trace as soon as they are all there.
struct Recorder<'a> {
    to: &'a Path,
    lines: Vec<String>,
    done: Option<Result<(), Failure>>,
}

impl<'a> Recorder<'a> {
    fn new(to: &'a Path) -> Self {
        Self { to, lines: Vec::new(), done: None }
    }

    /// Whether the line is not for people.
    fn takes(&mut self, line: &str, out: &mut Output) -> bool {
        let report = line.contains(REPORT);
        if !report && !line.contains(SPAN) {
            return false;
        }
        if self.done.is_none() {
            self.lines.push(line.to_owned());
        }
        if report && self.done.is_none() {
            self.done = Some(self.write());
            if let Some(Ok(())) = self.done {
                let to = self.to.display();
                out.notice(&format!("the boot is in {to}; look at it: osctl boot show {to}"));
            }
            self.lines.clear();
        }
        true
    }

    fn write(&self) -> Result<(), Failure> {
        let trace = Trace::from_console(self.lines.iter().map(String::as_str));
        let trace =
            trace.map_err(|error| Failure::new("the console has no whole trace").because(error))?;
        files::write(self.to, &trace.json())
    }

    fn end(self) -> Result<(), Failure> {
        self.done.unwrap_or_else(|| {
            let failure = Failure::new("the boot was not over: there is no trace");
            Err(failure.next("wait until the node says that it is up before you stop it"))
        })
    }
}

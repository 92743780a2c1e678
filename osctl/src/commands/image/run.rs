//! `osctl image run`: a node on this machine, in QEMU.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use keel_image::ImageDir;
use keel_image::vm::{Accel, Disk, Network, Vm, VmSpec};
use keel_unit::keys::Text;
use keel_unit::value::ByteSize;

use crate::error::{Exit, Failure};
use crate::output::Output;

/// Where the agent listens, unless the machine config says otherwise.
const API_PORT: u16 = 50051;

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
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    cpus: u32,

    /// A kernel argument, beyond those of the machine config
    #[arg(long, value_name = "ARGUMENT")]
    append: Vec<String>,

    /// Port of the node's API, to reach from here
    #[arg(long, value_name = "PORT", default_value_t = API_PORT)]
    api_port: u16,

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
    let network =
        if args.no_net { Network::None } else { Network::User { forward: vec![args.api_port] } };
    let spec = VmSpec {
        append: image.manifest.arguments.iter().chain(&args.append).cloned().collect(),
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
    if let Some(port) = vm.forwarded(args.api_port) {
        out.notice(&format!("the node's API: osctl --endpoint 127.0.0.1:{port} status"));
    }
    let mut shown = Ok(());
    let ended = vm.attend(&stops, |line| {
        if shown.is_ok() {
            shown = out.text(&format!("{line}\n"));
            // Nobody reads any more: shut down.
            if shown.is_err() {
                stops.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    ended.map_err(|error| Failure::new("the node ended badly").because(error))?;
    shown.map(|()| Exit::Clean)
}

//! `osctl image run`: a node on this machine, in QEMU.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{Args, ValueEnum};
use keel_image::vm::{Accel, Boot, Disk, Firmware, Network, Vm, VmSpec};
use keel_image::{API_PORT, ImageDir, Manifest};
use keel_plan::{REPORT, SPAN, Trace};
use keel_unit::keys::Text;
use keel_unit::value::ByteSize;

use crate::commands::boot::files;
use crate::error::{Exit, Failure};
use crate::output::Output;

/// Asks init for the report that a trace is made from.
const REPORT_ARGUMENT: &str = "keel.report=json";

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  osctl image run image
  osctl image run image --memory 4GiB --cpus 4 --disk /tmp/node-1.img
  osctl image run image/keel.img --firmware bios
  osctl image run image --no-net --append keel.goal=network")]
pub(crate) struct RunArgs {
    /// A directory that `osctl image build` wrote, or a disk image or .iso in it
    #[arg(value_name = "IMAGE")]
    image: PathBuf,

    /// What boots a disk image or a CD
    #[arg(long, value_enum, default_value = "uefi")]
    firmware: FirmwareName,

    /// OVMF, for UEFI [default: where distributions put it]
    #[arg(long, value_name = "FILE")]
    ovmf: Option<PathBuf>,

    /// The machine's disk, made if it is not there: blank, or a copy of a disk image [default: disk.img, or NAME.run.img,
    /// beside the image]
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

    /// A kernel argument, beyond those of the machine config; a disk image or a CD takes none
    #[arg(long, value_name = "ARGUMENT")]
    append: Vec<String>,

    /// Port on which the node serves its API; a note says at which port of this computer it is reached [default: the one in the image's
    /// machine config]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    api_port: Option<u16>,

    /// Write how the boot went to this file, for osctl boot
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Give the node no network card
    #[arg(long)]
    no_net: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FirmwareName {
    /// SeaBIOS
    Bios,
    /// OVMF
    Uefi,
}

/// What is booted, by what was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Medium {
    /// A directory: its kernel and its initramfs.
    Directory,
    /// A disk image.
    Disk,
    /// An ISO.
    Cd,
}

impl Medium {
    fn of(image: &Path) -> Self {
        if image.is_dir() {
            return Self::Directory;
        }
        match image.extension().and_then(|ext| ext.to_str()) {
            Some("iso") => Self::Cd,
            Some("img" | "raw" | "qcow2") => Self::Disk,
            // What is neither is most likely a mistyped directory, and is reported as one.
            _ => Self::Directory,
        }
    }
}

impl RunArgs {
    /// What to boot, and the manifest that vouches for it; a disk image or a CD may have been carried away from its own.
    fn boot(&self, medium: Medium) -> Result<(Boot, Option<Manifest>), Failure> {
        if medium == Medium::Directory {
            let image = ImageDir::open(&self.image).map_err(|error| {
                Failure::new("cannot boot this image")
                    .because(error)
                    .next("build it: osctl image build")
            })?;
            let said = image.manifest.arguments.iter().chain(&self.append).cloned();
            let report = self.trace.is_some().then(|| REPORT_ARGUMENT.to_owned());
            let append = said.chain(report).collect();
            let ImageDir { kernel, initramfs, manifest } = image;
            return Ok((Boot::Kernel { kernel, initramfs, append }, Some(manifest)));
        }
        if !self.append.is_empty() {
            return Err(Failure::usage(
                "--append: the boot loader of the image says what the kernel is told",
            )
            .next(
                "put it into kernel.arguments of the machine config, or run the image's directory",
            ));
        }
        if !self.image.is_file() {
            return Err(Failure::usage(format!("there is no file {}", self.image.display()))
                .next("build it: osctl image build --format disk,iso"));
        }
        let firmware = match (self.firmware, &self.ovmf) {
            (FirmwareName::Bios, _) => Firmware::Bios,
            (FirmwareName::Uefi, Some(file)) => Firmware::Uefi(file.clone()),
            (FirmwareName::Uefi, None) => Firmware::uefi().ok_or_else(|| {
                Failure::new("there is no OVMF on this machine").next(
                    "install it (Debian: package ovmf), say --ovmf FILE, or take --firmware bios",
                )
            })?,
        };
        let manifest = manifest_of(&self.image);
        let silent = |manifest: &Manifest| manifest.arguments.iter().all(|a| a != REPORT_ARGUMENT);
        if self.trace.is_some() && manifest.as_ref().is_some_and(silent) {
            return Err(Failure::usage(
                "--trace: the boot loader of the image does not ask for the report that a trace is made from",
            )
            .next(format!(
                "put {REPORT_ARGUMENT} into kernel.arguments of the machine config, or run the image's directory"
            )));
        }
        let boot = match medium {
            Medium::Cd => Boot::Cd(self.image.clone(), firmware),
            Medium::Disk | Medium::Directory => Boot::Disk(firmware),
        };
        Ok((boot, manifest))
    }

    /// The machine's disk. A disk image is never booted itself: the node writes to its disk.
    fn disk(&self, medium: Medium, out: &mut Output) -> Result<Disk, Failure> {
        let beside = match medium {
            Medium::Directory => self.image.join("disk.img"),
            Medium::Cd => self.image.with_file_name("disk.img"),
            Medium::Disk => self.image.with_extension(match self.image.extension() {
                Some(ext) => format!("run.{}", ext.display()),
                None => "run".to_owned(),
            }),
        };
        let path = self.disk.clone().unwrap_or(beside);
        if medium != Medium::Directory && same_file(&self.image, &path) {
            let failure = Failure::usage(format!(
                "--disk {}: that is the image itself, and the node would write to it",
                path.display()
            ));
            return Err(failure.next("name a file that is not there: it is made from the image"));
        }
        let size = self.disk_size.0;
        let made = match medium {
            Medium::Disk if path.exists() => {
                if newer(&self.image, &path) {
                    out.notice(&format!(
                        "{} was made from an older image; remove it to start afresh",
                        path.display()
                    ));
                }
                Disk::at(&path, size)
            }
            Medium::Disk => Disk::copy(&self.image, &path, size),
            Medium::Directory | Medium::Cd => Disk::at(&path, size),
        };
        made.map_err(|error| {
            Failure::new(format!("cannot make a disk at {}", path.display())).because(error)
        })
    }
}

/// The manifest of a disk image or a CD, if it lies where it was built.
fn manifest_of(image: &Path) -> Option<Manifest> {
    let manifest = ImageDir::open(image.parent()?).ok()?.manifest;
    let name = image.file_name()?;
    manifest.firmware.iter().any(|blob| name == blob.file.as_str()).then_some(manifest)
}

/// Whether both names lead to one file, by whatever links.
fn same_file(one: &Path, other: &Path) -> bool {
    #[cfg(unix)]
    let of = |path: &Path| {
        use std::os::unix::fs::MetadataExt as _;
        path.metadata().map(|about| (about.dev(), about.ino()))
    };
    #[cfg(not(unix))]
    let of = |path: &Path| path.canonicalize();
    matches!((of(one), of(other)), (Ok(one), Ok(other)) if one == other)
}

fn newer(image: &Path, than: &Path) -> bool {
    let time = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    time(image) > time(than)
}

pub(crate) fn run(args: &RunArgs, out: &mut Output) -> Result<Exit, Failure> {
    let medium = Medium::of(&args.image);
    let (boot, manifest) = args.boot(medium)?;
    let disk = args.disk(medium, out)?;
    let memory = u32::try_from(args.memory.0 >> 20)
        .ok()
        .filter(|mib| *mib >= 256)
        .ok_or_else(|| Failure::usage("--memory: a node needs at least 256MiB"))?;
    let said = manifest.map_or(API_PORT, |manifest| manifest.api_port);
    let api_port = args.api_port.unwrap_or(said);
    let network =
        if args.no_net { Network::None } else { Network::User { forward: vec![api_port] } };
    let spec = VmSpec {
        boot,
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

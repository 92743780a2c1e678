//! `osctl image build`: no root, no network, and the same inputs give the same bytes.

use std::env;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use keel_image::{BuildError, Firmware, GRUB_MODULES, ImageSpec, Loader, Manifest, Needs, Payload};
use keel_plan::BOOT;
use keel_unit::config::merged_config;
use keel_unit::lower;
use keel_unit::value::ByteSize;

use super::payload;
use super::progress::Progress;
use crate::commands::inputs::{Fault, Inputs};
use crate::error::{Exit, Failure};
use crate::output::{Format, Ink, Output, Palette};

/// What an image is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ImageFormat {
    /// A kernel and an initramfs, for QEMU, for PXE or for a boot loader of your own
    Initramfs,
    /// Also a raw disk that UEFI and BIOS boot: keel.img
    Disk,
    /// Also that disk as qcow2, by qemu-img: keel.qcow2
    Qcow2,
    /// Also a CD that UEFI and BIOS boot, from a USB stick too: keel.iso
    Iso,
}

impl ImageFormat {
    const fn firmware(self) -> Option<keel_image::Format> {
        match self {
            Self::Initramfs => None,
            Self::Disk => Some(keel_image::Format::Disk),
            Self::Qcow2 => Some(keel_image::Format::Qcow2),
            Self::Iso => Some(keel_image::Format::Iso),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bootloader {
    /// GRUB 2, from the packages grub-efi-amd64-bin and grub-pc-bin
    Grub,
    /// Limine, from --limine DIR
    Limine,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  osctl image build --config my.toml --kernel /boot/vmlinuz-6.1.0-56-cloud-amd64 --modules / -o image
  osctl image build --config my.toml --kernel VMLINUZ --modules DIR -o image \\
    --payload containerd=/usr/bin/containerd,runc=/usr/sbin/runc")]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    inputs: Inputs,

    /// The kernel, such as /boot/vmlinuz-6.1.0-56-cloud-amd64
    #[arg(long, value_name = "VMLINUZ")]
    kernel: PathBuf,

    /// The kernel's modules: lib/modules/RELEASE, or a root that holds it
    #[arg(long, value_name = "DIR")]
    modules: PathBuf,

    /// A manifest of the programs to add [default: payload.toml, if it is there; else what this machine has]
    #[arg(long, value_name = "FILE")]
    payload_manifest: Option<PathBuf>,

    /// Programs to add with the libraries that they need, to /usr/bin; any other file under its absolute path
    #[arg(long, value_name = "NAME=PATH", value_delimiter = ',')]
    payload: Vec<Payload>,

    /// keel-init, a static binary [default: beside osctl, with keel-agent]
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,

    /// Certificates of the authorities that the node trusts when it pulls images
    #[arg(long, value_name = "FILE")]
    ca_certificates: Option<PathBuf>,

    /// What to write, beside kernel and initramfs; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "initramfs")]
    format: Vec<ImageFormat>,

    /// What loads the kernel from a disk or a CD
    #[arg(long, value_enum, default_value = "grub", help_heading = FIRMWARE)]
    bootloader: Bootloader,

    /// GRUB's modules: a directory with x86_64-efi and i386-pc
    #[arg(long, value_name = "DIR", default_value = GRUB_MODULES, help_heading = FIRMWARE)]
    grub: PathBuf,

    /// A release of Limine, unpacked, with its tool built (`make`)
    #[arg(long, value_name = "DIR", required_if_eq("bootloader", "limine"), help_heading = FIRMWARE)]
    limine: Option<PathBuf>,

    /// Where to write the image's files and manifest.json
    #[arg(long, short = 'o', value_name = "DIR")]
    out: PathBuf,
}

const FIRMWARE: &str = "For disks and CDs";

impl BuildArgs {
    /// The images for firmware, if any is asked for.
    fn firmware(&self) -> Option<Firmware> {
        let mut formats: Vec<_> = self.format.iter().filter_map(|f| f.firmware()).collect();
        formats.dedup();
        let loader = match (self.bootloader, &self.limine) {
            (Bootloader::Limine, Some(files)) => Loader::Limine(files.clone()),
            _ => Loader::Grub(self.grub.clone()),
        };
        (!formats.is_empty()).then_some(Firmware { formats, loader })
    }
}

pub(crate) fn run(args: &BuildArgs, out: &mut Output) -> Result<Exit, Failure> {
    if args.inputs.config.is_empty() {
        let failure =
            Failure::usage("an image is built for a machine, and there is no machine config");
        return Err(failure.next("name it with --config"));
    }
    let mut input = args.inputs.load()?;
    // The machine needs them all.
    input.secrets_elsewhere = false;
    // A machine that cannot boot is told here, and not by its own console.
    let planned = args.inputs.plan(input.clone(), BOOT).map(drop);
    let config = planned.and_then(|()| merged_config(&input).map_err(Fault::Findings));
    let sound = config.and_then(|config| Ok((config, lower(input).map_err(Fault::Findings)?)));
    let (config, set) = match sound {
        Ok(sound) => sound,
        Err(Fault::Findings(report)) => {
            out.findings(&report);
            return Ok(Exit::Findings);
        }
        Err(Fault::Other(failure)) => return Err(failure),
    };
    let init = match &args.init {
        Some(init) => init.clone(),
        None => beside("keel-init")
            .ok_or_else(|| Failure::usage("there is no keel-init beside osctl: say --init FILE"))?,
    };
    let needs = Needs::of(&set);
    let progress = Progress::new()?;
    let manifest = args.payload_manifest.as_deref();
    let mut payload = payload::chosen(manifest, &args.payload, &needs, &progress, out)?;
    if !payload.iter().any(|p| p.name == "keel-agent")
        && let Some(source) =
            init.parent().map(|dir| dir.join("keel-agent")).filter(|path| path.exists())
    {
        payload.push(Payload::new("keel-agent", source));
    }
    let spec = ImageSpec {
        init,
        config,
        units: args.inputs.units.clone(),
        kernel: args.kernel.clone(),
        modules: args.modules.clone(),
        needs,
        payload,
        ca_certificates: args.ca_certificates.clone(),
        mtime: source_date_epoch()?,
        firmware: args.firmware(),
    };
    let built = keel_image::build(&spec, &args.out, &progress);
    drop(progress);
    let manifest = built.map_err(failure)?;
    match out.format() {
        Format::Table => {
            let page = page(&manifest, &args.out, out.palette());
            out.text(&page)?;
        }
        Format::Json => out.json(&manifest)?,
    }
    Ok(Exit::Clean)
}

/// What to do about the failures that people meet most.
fn failure(error: BuildError) -> Failure {
    if matches!(error, BuildError::Cancelled) {
        return Failure::new("stopped; nothing was written");
    }
    let missing = matches!(error, BuildError::MissingPrograms(_));
    let full = is_full(&error);
    let failure = Failure::new("cannot build the image").because(error);
    if missing {
        failure.next("name them in payload.toml, or with --payload NAME=PATH")
    } else if full {
        failure.next("make room, or say another --out; nothing of this build is left there")
    } else {
        failure
    }
}

/// Whether the cause is that there is no room.
fn is_full(error: &BuildError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn beside(name: &str) -> Option<PathBuf> {
    Some(env::current_exe().ok()?.parent()?.join(name)).filter(|path| path.exists())
}

/// <https://reproducible-builds.org/specs/source-date-epoch/>; nothing said means 1970.
fn source_date_epoch() -> Result<u32, Failure> {
    let Some(value) = env::var_os("SOURCE_DATE_EPOCH") else { return Ok(0) };
    let seconds = value.to_str().and_then(|text| text.parse().ok());
    seconds.ok_or_else(|| Failure::usage("SOURCE_DATE_EPOCH is not a number of seconds"))
}

fn page(manifest: &Manifest, dir: &Path, palette: Palette) -> String {
    let mut page = String::new();
    for file in &manifest.files {
        let (size, sum) = match (&file.size, &file.sha256, &file.link) {
            (Some(size), Some(sum), _) => (size.to_string(), &sum[..16]),
            (_, _, Some(target)) => (String::new(), target.as_str()),
            _ => (String::new(), "device"),
        };
        let why = palette.paint(Ink::Faint, &file.why);
        page += &format!("{:<72} {size:>10}  {sum:<16}  {why}\n", file.path);
    }
    let size = |bytes: u64| ByteSize(bytes).rounded();
    page += "\n";
    let blobs = [&manifest.kernel, &manifest.initramfs].into_iter().chain(&manifest.firmware);
    for blob in blobs {
        page += &format!("{:<14} {:>10}  sha256 {}\n", blob.file, size(blob.size), blob.sha256);
    }
    page += &format!(
        "{} files, {} unpacked, kernel {}, in {}\n",
        manifest.files.len(),
        size(manifest.unpacked),
        manifest.kernel_release,
        dir.display()
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_image::{Blob, Taken};

    #[test]
    fn the_page_lists_files_links_and_totals() {
        let blob = |file: &str| Blob { file: file.into(), size: 3 << 20, sha256: "ab".repeat(32) };
        let taken = |path: &str, size, link: Option<&str>| Taken {
            path: path.into(),
            mode: "0755".into(),
            size,
            sha256: size.map(|_| "0123456789abcdef".repeat(4)),
            link: link.map(Into::into),
            why: "layout".into(),
        };
        let manifest = Manifest {
            schema: 1,
            kernel_release: "6.1".into(),
            arguments: Vec::new(),
            api_port: 50051,
            kernel: blob("vmlinuz"),
            initramfs: blob("initramfs.zst"),
            firmware: vec![blob("keel.img")],
            unpacked: 9 << 20,
            files: vec![
                taken("/init", Some(5), None),
                taken("/bin", None, Some("usr/bin")),
                taken("/dev/console", None, None),
            ],
        };
        insta::assert_snapshot!(page(&manifest, Path::new("out"), Palette::PLAIN));
    }
}

//! `osctl image build`: no root, no network, and the same inputs give the same bytes.

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;
use keel_image::{ImageSpec, Manifest, Needs, Payload};
use keel_plan::BOOT;
use keel_unit::config::merged_config;
use keel_unit::lower;

use crate::commands::inputs::{Fault, Inputs};
use crate::error::{Exit, Failure};
use crate::output::{Format, Ink, Output, Palette};

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

    /// Programs to add with the libraries that they need, to /usr/bin; any other file under its absolute path
    #[arg(long, value_name = "NAME=PATH", value_delimiter = ',')]
    payload: Vec<Payload>,

    /// keel-init, a static binary [default: beside osctl, with keel-agent]
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,

    /// Certificates of the authorities that the node trusts when it pulls images
    #[arg(long, value_name = "FILE")]
    ca_certificates: Option<PathBuf>,

    /// Where to write vmlinuz, initramfs.zst and manifest.json
    #[arg(long, short = 'o', value_name = "DIR")]
    out: PathBuf,
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
    let mut payload = args.payload.clone();
    if !payload.iter().any(|p| p.name == "keel-agent")
        && let Some(source) =
            init.parent().map(|dir| dir.join("keel-agent")).filter(|path| path.exists())
    {
        payload.push(Payload { name: "keel-agent".into(), source });
    }
    let spec = ImageSpec {
        init,
        config,
        units: args.inputs.units.clone(),
        kernel: args.kernel.clone(),
        modules: args.modules.clone(),
        needs: Needs::of(&set),
        payload,
        ca_certificates: args.ca_certificates.clone(),
        mtime: source_date_epoch()?,
    };
    let manifest = keel_image::build(&spec, &args.out)
        .map_err(|error| Failure::new("cannot build the image").because(error))?;
    match out.format() {
        Format::Table => {
            let page = page(&manifest, &args.out, out.palette());
            out.text(&page)?;
        }
        Format::Json => out.json(&manifest)?,
    }
    Ok(Exit::Clean)
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
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    page += "\n";
    for blob in [&manifest.kernel, &manifest.initramfs] {
        page += &format!("{:<14} {:>10}  sha256 {}\n", blob.file, mib(blob.size), blob.sha256);
    }
    page += &format!(
        "{} files, {} unpacked, kernel {}, in {}\n",
        manifest.files.len(),
        mib(manifest.unpacked),
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

//! Builds Keel's own programs for a node, and images of them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Failure, cargo, command, run};
use crate::payload::Kit;
use crate::progress::{say, step};

/// What a node's programs are built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The largest PID 1 that is still small, in bytes.
const INIT_AIM: u64 = 6 << 20;

/// The demo's machine config.
const CONFIG: &str = "machine-configs/qemu.toml";

/// Where the image and its inputs for the VM tests are: see `tests/vm`.
const VM_DIR: &str = "target/vm";

/// Keel's programs, static and stripped.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) osctl: PathBuf,
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_owned).unwrap_or_default()
}

/// Builds keel-init, keel-agent and osctl in one go: they share most of what there is to compile.
pub(crate) fn programs() -> Result<Programs, Failure> {
    let dir = build(&["--package=keel-init", "--package=keel-agent", "--package=osctl"])?;
    let init = dir.join("keel-init");
    let size =
        fs::metadata(&init).map_err(Failure::because(format!("no {}", init.display())))?.len();
    let verdict = if size <= INIT_AIM { "within" } else { "over" };
    say(&format!(
        "    keel-init: {:.2} MiB, {verdict} the aim of {} MiB",
        size as f64 / f64::from(1 << 20),
        INIT_AIM >> 20
    ));
    Ok(Programs { osctl: dir.join("osctl") })
}

/// Builds keel-init alone, as it ships.
pub(crate) fn init() -> Result<PathBuf, Failure> {
    Ok(build(&["--package=keel-init"])?.join("keel-init"))
}

/// Builds packages as they ship, and says where.
fn build(packages: &[&str]) -> Result<PathBuf, Failure> {
    let mut build = cargo(["build", "--release", "--target", TARGET]);
    // A node's root has no loader that init could wait for.
    build.args(packages).env("RUSTFLAGS", "-C target-feature=+crt-static");
    run(build.current_dir(repository()))?;
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    Ok(target.join(TARGET).join("release"))
}

/// Builds an image the way a user does: with osctl, which takes keel-init and keel-agent from beside
/// itself.
pub(crate) fn image(
    kit: &Kit,
    programs: &Programs,
    config: &Path,
    out: &Path,
    format: &str,
) -> Result<(), Failure> {
    let mut osctl = command(&programs.osctl.to_string_lossy(), ["image", "build"]);
    osctl.arg("--config").arg(config).arg("--units").arg(repository().join("units"));
    osctl.arg("--kernel").arg(&kit.kernel).arg("--modules").arg(&kit.modules);
    osctl.arg("--payload").arg(kit.payload.join(",")).args(["--format", format, "-o"]).arg(out);
    if let Some(certificates) = &kit.ca_certificates {
        osctl.arg("--ca-certificates").arg(certificates);
    }
    // The page lists hundreds of files; it is in the manifest too.
    let page = crate::command::output(&mut osctl)?;
    for line in page.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev() {
        say(&format!("    {line}"));
    }
    Ok(())
}

/// The image that the demo and the VM tests boot. Returns its directory.
pub(crate) fn vm_image(kit: &Kit) -> Result<(PathBuf, Programs), Failure> {
    let programs = step("static keel-init, keel-agent and osctl", programs)?;
    let dir = repository().join(VM_DIR);
    let image_dir = dir.join("image");
    step("node image", || {
        image(kit, &programs, &repository().join(CONFIG), &image_dir, "initramfs")?;
        let inputs = serde_json::json!({
            "osctl": programs.osctl,
            "kernel": kit.kernel,
            "modules": kit.modules,
            "payload": kit.payload,
        });
        fs::write(dir.join("inputs.json"), format!("{inputs:#}\n"))
            .map_err(Failure::because("cannot write inputs.json"))
    })?;
    Ok((image_dir, programs))
}

/// The disk and the CD that the VM tests boot through firmware, beside the image. Their boot loader can be told nothing, so
/// what the tests want of init stands in the machine config; and that the timer need not be tried, which a translator on a
/// busy machine fails.
pub(crate) fn firmware_image(kit: &Kit, programs: &Programs) -> Result<(), Failure> {
    let dir = repository().join(VM_DIR);
    let read = fs::read_to_string(repository().join(CONFIG));
    let config = read.map_err(Failure::because(format!("cannot read {CONFIG}")))?;
    let path = dir.join("firmware.toml");
    let told =
        config.replace("arguments = [", "arguments = [\"keel.report=json\", \"no_timer_check\", ");
    fs::write(&path, told).map_err(Failure::because("cannot write firmware.toml"))?;
    step("disk and CD image", || image(kit, programs, &path, &dir.join("firmware"), "disk,iso"))
}

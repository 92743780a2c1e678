//! What the other commands need on this machine: the one list of it.

use crate::apt;
use crate::command::{self, Failure, command, succeeds};
use crate::payload::{self, Kit};
use crate::progress::step;

/// Debian packages and what for.
const TOOLS: [&str; 28] = [
    // builds: the C parts of zstd and ring, a static libc
    "gcc",
    "libc6-dev",
    // the node's own programs and the image
    "e2fsprogs",
    "kmod",
    "mount",
    "zstd",
    "xz-utils",
    "cpio",
    "ca-certificates",
    // images that firmware boots
    "grub-common",
    "grub-efi-amd64-bin",
    "grub-pc-bin",
    "xorriso",
    // the machine
    "ovmf",
    "qemu-system-x86",
    "qemu-utils",
    // tests: networks
    "dnsmasq-base",
    "iproute2",
    "util-linux",
    // tests: disks and foreign signatures on them
    "gdisk",
    "fdisk",
    "lvm2",
    "cryptsetup-bin",
    "mdadm",
    "xfsprogs",
    "btrfs-progs",
    "dosfstools",
    "mtools",
];

/// Installs and fetches whatever is missing. Costs a second or two when nothing is.
pub(crate) fn run() -> Result<Kit, Failure> {
    step("packages", || apt::install(&TOOLS))?;
    step("cargo-nextest", nextest)?;
    step("kernel and container runtime", payload::fetch)
}

fn nextest() -> Result<(), Failure> {
    if succeeds(&mut command("cargo", ["nextest", "--version"])) {
        return Ok(());
    }
    command::run(&mut command("cargo", ["install", "cargo-nextest", "--locked"]))
}

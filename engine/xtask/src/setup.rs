//! What the other commands need on this machine: the one list of it.

use crate::apt;
use crate::command::{self, Failure, command, succeeds};
use crate::payload::{self, Kit};
use crate::progress::step;

/// Debian packages that a node is built from and boots with, and what for.
const NODE: [&str; 11] = [
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
    // the machine
    "qemu-system-x86",
    "qemu-utils",
];

/// Debian packages that images which firmware boots are made with, and the firmware.
const FIRMWARE: [&str; 5] = ["grub-common", "grub-efi-amd64-bin", "grub-pc-bin", "ovmf", "xorriso"];

/// Debian packages that tests need beyond these.
const TESTS: [&str; 16] = [
    // completions and manual pages
    "fish",
    "mandoc",
    "zsh",
    // certificates
    "openssl",
    // networks
    "dnsmasq-base",
    "iproute2",
    "util-linux",
    // disks and foreign signatures on them
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

/// Debian packages whose programs a benchmark measures, or measures with.
const BENCH: [&str; 2] = ["systemd", "time"];

/// Installs and fetches what a node is built from, and boots with. Costs a second or two when nothing is missing.
pub(crate) fn node() -> Result<Kit, Failure> {
    step("packages", || apt::install(&NODE))?;
    step("kernel and container runtime", payload::fetch)
}

/// Installs and fetches that, and what disks and CDs take.
pub(crate) fn firmware() -> Result<Kit, Failure> {
    step("packages for firmware", || apt::install(&FIRMWARE))?;
    node()
}

/// Installs and fetches that, and what the tests need beyond it.
pub(crate) fn all() -> Result<Kit, Failure> {
    step("packages", || apt::install(&[&NODE[..], &FIRMWARE, &TESTS].concat()))?;
    step("cargo-nextest", nextest)?;
    step("kernel and container runtime", payload::fetch)
}

/// Installs what the benchmarks compare with.
pub(crate) fn bench() -> Result<(), Failure> {
    step("packages", || apt::install(&BENCH))
}

fn nextest() -> Result<(), Failure> {
    if succeeds(&mut command("cargo", ["nextest", "--version"])) {
        return Ok(());
    }
    command::run(&mut command("cargo", ["install", "cargo-nextest", "--locked"]))
}

//! What the other commands need on this machine: the one list of it.

use std::fs;

use crate::apt;
use crate::command::{self, Failure, command, succeeds};
use crate::kubernetes;
use crate::node::repository;
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
const TESTS: [&str; 20] = [
    // kill, and repositories of a pull request
    "procps",
    "git",
    // completions and manual pages
    "fish",
    "mandoc",
    "zsh",
    // certificates
    "openssl",
    // a client of the API that shares nothing with ours
    "python3",
    "python3-venv",
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
const BENCH: [&str; 6] = ["gcc", "libc6-dev", "mount", "systemd", "time", "util-linux"];

/// Debian packages that count instructions, on one processor.
const GATE: [&str; 2] = ["valgrind", "util-linux"];

/// Debian packages that the fuzz targets are built with: libFuzzer is C++.
const FUZZ: [&str; 1] = ["g++"];

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
    step("gRPC for Python", python)?;
    step("Kubernetes", kubernetes::fetch)?;
    step("kernel and container runtime", payload::fetch)
}

/// Installs what counts instructions.
pub(crate) fn gate() -> Result<(), Failure> {
    step("packages", || apt::install(&GATE))
}

/// Installs what the benchmarks compare with.
pub(crate) fn bench() -> Result<(), Failure> {
    step("packages", || apt::install(&BENCH))
}

/// The client of `testdata/python` in an environment of its own, below `target/`. pip checks what it fetches against the checksums in
/// the list of requirements.
fn python() -> Result<(), Failure> {
    const REQUIREMENTS: &str = "testdata/python/requirements.txt";

    let list = repository().join(REQUIREMENTS);
    let folder = repository().join("target/python");
    let done = folder.join("requirements.txt");
    let wanted =
        fs::read(&list).map_err(Failure::because(format!("cannot read {REQUIREMENTS}")))?;
    if fs::read(&done).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    let (list, folder) = (list.to_string_lossy(), folder.to_string_lossy());
    command::run(&mut command("/usr/bin/python3", ["-m", "venv", "--clear", &folder]))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    let checked = ["--require-hashes", "--only-binary", ":all:", "--requirement", &list];
    command::run(&mut command(&format!("{folder}/bin/python3"), pip.iter().chain(&checked)))?;
    fs::write(&done, wanted).map_err(Failure::because("cannot note that Python is set up"))
}

/// Installs what the fuzz targets are built and run with.
pub(crate) fn fuzz() -> Result<(), Failure> {
    step("packages for fuzzing", || apt::install(&FUZZ))?;
    step("cargo-fuzz", || {
        if succeeds(&mut command("cargo", ["fuzz", "--version"])) {
            return Ok(());
        }
        command::run(&mut command("cargo", ["install", "cargo-fuzz", "--locked"]))
    })
}

fn nextest() -> Result<(), Failure> {
    if succeeds(&mut command("cargo", ["nextest", "--version"])) {
        return Ok(());
    }
    command::run(&mut command("cargo", ["install", "cargo-nextest", "--locked"]))
}

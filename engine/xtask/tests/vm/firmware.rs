//! Images that firmware boots: a disk and a CD, each under BIOS and under UEFI, to the goal.

use std::path::Path;

use keel_image::vm::{Boot, Disk, Firmware, Network, VmSpec};

use crate::support::{Report, blank, boot, image, machine, made, shut_down, sum};

/// What the tests boot, made once by `cargo xtask vm-image`.
fn built(file: &str) -> std::path::PathBuf {
    made("firmware").join(file)
}

fn uefi() -> Firmware {
    Firmware::uefi().expect("OVMF: `cargo xtask setup` installs it")
}

fn node(what: Boot, disk: &Path) -> VmSpec {
    VmSpec {
        boot: what,
        disks: vec![Disk { path: disk.into(), serial: None }],
        network: Network::User { forward: Vec::new() },
        ..machine(&image())
    }
}

fn well(report: &Report) {
    assert!(report.reached && report.degraded.is_empty(), "{report:#?}");
}

fn a_cd_boots_to_the_goal(firmware: Firmware) {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.img");
    blank(&disk, 1 << 30);
    let cd = built("keel.iso");
    let before = sum(&cd);
    let (vm, report) = boot(&node(Boot::Cd(cd.clone(), firmware), &disk));
    well(&report);
    shut_down(vm);
    assert_eq!(sum(&cd), before);
}

#[test]
fn a_cd_boots_to_the_goal_under_bios() {
    a_cd_boots_to_the_goal(Firmware::Bios);
}

#[test]
fn a_cd_boots_to_the_goal_under_uefi() {
    a_cd_boots_to_the_goal(uefi());
}

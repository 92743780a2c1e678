//! Images that firmware boots: a disk and a CD, each under BIOS and under UEFI, to the goal.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use keel_image::vm::{Boot, Disk, Firmware, Network, VmSpec};

use crate::support::{Report, blank, boot, image, machine, made, shut_down, sum, tool};

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

/// The goal is reached, and with a machine id, which lies on the data partition.
fn well(report: &Report) {
    assert!(report.reached && report.machine_id.is_some(), "{report:#?}");
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

/// The image is written to a larger disk. Its first boot makes the data partition behind the image, its second finds it,
/// and the image itself stays as it was built.
fn a_disk_boots_to_the_goal(firmware: Firmware) {
    let dir = tempfile::tempdir().unwrap();
    let (image, disk) = (built("keel.img"), dir.path().join("disk.img"));
    Disk::copy(&image, &disk, 1 << 30).unwrap();
    let spec = node(Boot::Disk(firmware), &disk);

    let (vm, first) = boot(&spec);
    well(&first);
    let console = shut_down(vm);
    assert!(console.iter().any(|line| line.contains("behind the image")), "{console:#?}");
    let verdict = tool("sgdisk", &["--verify", disk.to_str().unwrap()]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    // From the first partition to where the image's own backup table begins.
    let size = image.metadata().unwrap().len() - (1 << 20) - 33 * 512;
    let bytes = |path: &Path| part(path, 1 << 20, size);
    assert!(bytes(&image) == bytes(&disk), "the image's partitions have changed");

    let (vm, second) = boot(&spec);
    well(&second);
    assert_eq!((first.machine_id, first.digest), (second.machine_id, second.digest));
    let console = shut_down(vm);
    assert!(!console.iter().any(|line| line.contains("making ")), "{console:#?}");
}

fn part(path: &Path, offset: u64, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

#[test]
fn a_disk_boots_to_the_goal_under_bios() {
    a_disk_boots_to_the_goal(Firmware::Bios);
}

#[test]
fn a_disk_boots_to_the_goal_under_uefi() {
    a_disk_boots_to_the_goal(uefi());
}

//! What a node never does to a disk.

use crate::support::{blank, boot, data_partition, image, node, shut_down, sum, tool};

#[test]
fn a_foreign_disk_stays_as_it_is_and_the_node_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("foreign.img");
    blank(&disk, 1 << 30);
    tool("mkfs.ext4", &["-q", "-F", "-L", "precious", disk.to_str().unwrap()]);
    let before = sum(&disk);

    let (vm, report) = boot(&node(&image(), &[&disk]));
    assert!(report.reached, "the machine can be reached all the same: {report:#?}");
    let why = report.why("partition.data");
    assert!(
        why.contains("/dev/vda")
            && why.contains("not blank")
            && why.contains("ext2/3/4 filesystem"),
        "{why}"
    );
    let console = shut_down(vm);
    assert!(
        console.iter().any(|line| line.contains("FAILED") && line.contains("partition.data")),
        "{console:#?}"
    );
    assert_eq!(sum(&disk), before);
}

/// A data partition whose filesystem the kernel cannot mount: a bit of the future is set in it.
#[test]
fn a_failed_mount_is_no_reason_to_format() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.img");
    blank(&disk, 1 << 30);
    let (vm, _) = boot(&node(&image(), &[&disk]));
    shut_down(vm);
    let data = data_partition(&disk);
    tool("debugfs", &["-w", "-R", "feature FEATURE_I31", &data]);
    let before = sum(&disk);

    let (vm, report) = boot(&node(&image(), &[&disk]));
    assert!(report.reached, "{report:#?}");
    report.why("filesystem.data");
    report.why("mount.data");
    shut_down(vm);
    assert_eq!(sum(&disk), before);
}

/// The power goes while the disk is being made, again and again; no instant leaves a disk that the
/// next boot cannot finish, or a node with two identities.
#[test]
fn power_cuts_during_the_first_boot_are_survived() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.img");
    blank(&disk, 1 << 30);
    let spec = node(&image(), &[&disk]);
    for instant in
        ["making partition", "partition.data  ", "making an ext4", "mount.data  ", "identity  "]
    {
        let mut vm = keel_image::vm::Vm::start(&spec).unwrap();
        // Later boots pass over what earlier ones finished; the end of the boot is an instant too.
        vm.wait_until("does not boot", crate::support::LONG, |line| {
            (line.contains(instant) || line.contains("KEEL-REPORT")).then_some(())
        })
        .unwrap();
        vm.cut_power();
    }
    let (vm, report) = boot(&spec);
    assert!(report.reached && report.degraded.is_empty(), "{report:#?}");
    shut_down(vm);
    tool("sgdisk", &["--verify", disk.to_str().unwrap()]);
    tool("e2fsck", &["-f", "-n", &data_partition(&disk)]);
}

//! A data partition that is wiped is blank afterwards, and is never wiped under somebody's feet.

use std::fs;

use keel_host::disk::{filesystem, partition, wipe};
use keel_unit::keys::Text;
use keel_unit::kinds::Wipe;
use nix::mount::{MsFlags, mount, umount};

use super::support::{
    Children, Loop, MIB, Machine, TYPE, filesystem as unit, partition as located, tool,
};

#[tokio::test]
async fn a_wiped_partition_is_formatted_anew_and_a_mounted_one_is_left_alone() {
    let disk = Loop::new(300 * MIB, 512);
    let machine = Machine::new([&disk]);
    let say = machine.say();
    let unlocated = wipe::condemn("keel-data", &machine.roots).unwrap_err();
    assert_eq!(unlocated.to_string(), "partition keel-data: this boot has not located it");

    partition::activate(&located(Some(&disk), Wipe::Never), &machine.roots, &say).await.unwrap();
    let data = unit("PARTLABEL=keel-data");
    let make = || filesystem::activate(&data, &machine.roots, &Children, &say);
    let first = make().await.unwrap();
    assert!(first.made);
    let place = tempfile::tempdir().unwrap();
    let on = || {
        mount(Some(&first.device), place.path(), Some("ext4"), MsFlags::empty(), None::<&str>)
            .unwrap();
    };
    on();
    fs::write(place.path().join("machine-id"), "mine").unwrap();

    let condemned = wipe::condemn("keel-data", &machine.roots).unwrap();
    assert_eq!(condemned.node, first.device);
    let refused = condemned.wipe().unwrap_err().to_string();
    assert!(refused.contains("is mounted, used as swap"), "{refused}");
    assert_eq!(fs::read_to_string(place.path().join("machine-id")).unwrap(), "mine");
    umount(place.path()).unwrap();

    condemned.wipe().unwrap();
    // Others find nothing on it either.
    let probed = std::process::Command::new("blkid").arg("-p").arg(&first.device).output().unwrap();
    let probed = String::from_utf8_lossy(&probed.stdout).into_owned();
    assert!(!probed.contains(" TYPE="), "{probed}");
    let second = make().await.unwrap();
    assert!(second.made && second.uuid != first.uuid);
    tool("e2fsck", ["-f", "-n", first.device.to_str().unwrap()]);
    on();
    assert!(!place.path().join("machine-id").exists());
    umount(place.path()).unwrap();
}

/// Everything that names the partition stays as it is, and it is another: nothing is written.
async fn check(change: impl FnOnce(&Loop), why: &str) {
    let disk = Loop::new(300 * MIB, 512);
    let machine = Machine::new([&disk]);
    let say = machine.say();
    let mut unit = located(Some(&disk), Wipe::Never);
    unit.size = Some(Text::parse("100MiB").unwrap());
    partition::activate(&unit, &machine.roots, &say).await.unwrap();
    let condemned = wipe::condemn("keel-data", &machine.roots).unwrap();
    change(&disk);
    let before = disk.digest();
    let refused = condemned.wipe().unwrap_err().to_string();
    assert!(refused.contains(why), "{refused}");
    assert_eq!(disk.digest(), before);
}

#[tokio::test]
async fn what_has_become_another_partition_is_left_alone() {
    let elsewhere = |disk: &Loop| {
        tool("delpart", [disk.node(), "1"]);
        tool("addpart", [disk.node(), "1", "206848", "204800"]);
        disk.poke(206_848 * 512, b"somebody's");
    };
    check(elsewhere, "it begins elsewhere on the disk").await;
    // As when another disk was plugged in meanwhile, which was made with the same tool.
    let twin = |disk: &Loop| {
        tool("sfdisk", ["--no-reread", "--force", "--part-uuid", disk.node(), "1", TYPE]);
    };
    check(twin, "its GUID is gone from the table of the disk").await;
    let smaller = |disk: &Loop| {
        tool("resizepart", [disk.node(), "1", "100000"]);
    };
    check(smaller, "it has another size").await;
}

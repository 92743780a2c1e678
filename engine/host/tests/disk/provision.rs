//! A partition is located or made, and never twice.

use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keel_host::disk::{Say, filesystem, partition, source};
use keel_unit::keys::Text;
use keel_unit::kinds::{DiskSelector, Partition, Wipe};
use nix::mount::{MsFlags, mount, umount};

use super::support::{
    Children, Loop, MIB, Machine, filesystem as filesystem_unit, partition as unit, tool,
};

async fn first_boot_and_second(sector_size: u32) {
    let disk = Loop::new(96 * MIB, sector_size);
    let machine = Machine::new([&disk]);
    let unit = unit(Some(&disk), Wipe::Never);
    let first = partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap();
    assert!(first.provisioned);
    assert_eq!((&first.disk, first.size), (&disk.node, 94 * MIB));
    let verdict = tool("sgdisk", ["-v", disk.node()]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let verdict = tool("sfdisk", ["--verify", disk.node()]);
    assert!(!verdict.contains("overlap") && !verdict.contains("gpt unknown"), "{verdict}");
    let listed = tool("sgdisk", ["-i", "1", disk.node()]);
    for fact in [
        "7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441",
        "keel-data",
        &first.guid.to_string().to_uppercase(),
    ] {
        assert!(listed.contains(fact), "{fact} in {listed}");
    }

    let fs_unit = filesystem_unit("PARTLABEL=keel-data");
    let made =
        filesystem::activate(&fs_unit, &machine.roots, &Children, &machine.say()).await.unwrap();
    assert!(made.made);
    assert_eq!(made.device, first.device);
    tool("e2fsck", ["-fn", first.device.to_str().unwrap()]);

    let target = tempfile::tempdir().unwrap();
    let mounted = || {
        mount(Some(&first.device), target.path(), Some("ext4"), MsFlags::empty(), None::<&str>)
            .unwrap()
    };
    mounted();
    fs::write(target.path().join("kept"), "yes").unwrap();
    umount(target.path()).unwrap();

    disk.reboot();
    assert!(!first.device.exists());
    let before = disk.digest();
    let second = partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap();
    assert!(!second.provisioned);
    assert_eq!((second.guid, second.size, &second.device), (first.guid, first.size, &first.device));
    assert_eq!(disk.digest(), before);
    let checked =
        filesystem::activate(&fs_unit, &machine.roots, &Children, &machine.say()).await.unwrap();
    assert_eq!(
        (checked.made, checked.corrected, checked.recovered, checked.uuid),
        (false, false, false, made.uuid)
    );
    mounted();
    assert_eq!(fs::read_to_string(target.path().join("kept")).unwrap(), "yes");
    umount(target.path()).unwrap();
}

#[tokio::test]
async fn a_blank_disk_is_provisioned_once() {
    first_boot_and_second(512).await;
}

#[tokio::test]
async fn a_blank_disk_with_sectors_of_4096_bytes_is_provisioned_once() {
    first_boot_and_second(4096).await;
}

#[tokio::test]
async fn a_wanted_size_is_kept_to() {
    let disk = Loop::new(96 * MIB, 512);
    let machine = Machine::new([&disk]);
    let unit =
        Partition { size: Some(Text::parse("32MiB").unwrap()), ..unit(Some(&disk), Wipe::Never) };
    let outcome = partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap();
    assert_eq!(outcome.size, 32 * MIB);
    let listed = tool("sgdisk", ["-i", "1", disk.node()]);
    assert!(
        listed.contains("First sector: 2048 ") && listed.contains("Partition size: 65536 sectors"),
        "{listed}"
    );
}

#[tokio::test]
async fn without_a_selector_no_disk_is_written() {
    let disk = Loop::new(72 * MIB, 512);
    let machine = Machine::new([&disk]);
    let before = disk.digest();
    let error = partition::activate(&unit(None, Wipe::Always), &machine.roots, &machine.say())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "partition keel-data: on no disk, and the machine config selects none to make it on (`storage.data.disk`)"
    );
    assert_eq!(disk.digest(), before);
}

#[tokio::test]
async fn two_disks_that_fit_are_listed_and_left_alone() {
    let disks = [Loop::new(72 * MIB, 512), Loop::new(73 * MIB, 512)];
    let machine = Machine::new(&disks);
    let before = disks.each_ref().map(Loop::digest);
    let mut unit = unit(Some(&disks[0]), Wipe::Always);
    unit.disk = Some(DiskSelector {
        path: None,
        min_size: Some(Text::parse("1MiB").unwrap()),
        ..unit.disk.unwrap()
    });
    let error =
        partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap_err().to_string();
    for disk in &disks {
        assert!(error.contains(disk.node()), "{error}");
    }
    assert!(error.contains("fits more than one") && error.contains("72.0 MiB"), "{error}");
    assert_eq!(disks.each_ref().map(Loop::digest), before);
}

#[tokio::test]
async fn two_data_partitions_are_listed_and_left_alone() {
    let disks = [Loop::new(72 * MIB, 512), Loop::new(72 * MIB, 4096)];
    for disk in &disks {
        let machine = Machine::new([disk]);
        partition::activate(&unit(Some(disk), Wipe::Never), &machine.roots, &machine.say())
            .await
            .unwrap();
    }
    let machine = Machine::new(&disks);
    let before = disks.each_ref().map(Loop::digest);
    let unit = unit(Some(&disks[0]), Wipe::Always);
    let error =
        partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap_err().to_string();
    for disk in &disks {
        assert!(error.contains(&format!("{}, partition 1", disk.node())), "{error}");
    }
    assert_eq!(disks.each_ref().map(Loop::digest), before);
}

#[tokio::test]
async fn wipe_never_touches_a_disk_while_the_partition_is_elsewhere() {
    let (ours, other) = (Loop::new(72 * MIB, 512), Loop::new(72 * MIB, 512));
    let alone = Machine::new([&ours]);
    let made = partition::activate(&unit(Some(&ours), Wipe::Never), &alone.roots, &alone.say())
        .await
        .unwrap();
    tool("mkswap", [other.node()]);
    let before = [ours.digest(), other.digest()];
    let machine = Machine::new([&ours, &other]);
    let located =
        partition::activate(&unit(Some(&other), Wipe::Always), &machine.roots, &machine.say())
            .await
            .unwrap();
    assert_eq!((located.guid, located.provisioned), (made.guid, false));
    assert_eq!([ours.digest(), other.digest()], before);
}

#[tokio::test]
async fn wipe_always_overwrites_the_selected_disk_once() {
    let (selected, other) = (Loop::new(128 * MIB, 512), Loop::new(72 * MIB, 512));
    tool("mkfs.btrfs", ["-q", selected.node()]);
    tool("sgdisk", ["-n", "1:1M:+40M", "-n", "2", other.node()]);
    let before = other.digest();
    let machine = Machine::new([&selected, &other]);
    let unit = unit(Some(&selected), Wipe::Always);
    let outcome = partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap();
    assert!(outcome.provisioned);
    let erased =
        machine.said.lock().unwrap().iter().any(|line| line.contains("erasing btrfs filesystem"));
    assert!(erased, "{:?}", machine.said);
    let found = tool("wipefs", ["--noheadings", "--output", "TYPE", selected.node()]);
    assert!(!found.contains("btrfs"), "{found}");
    // What an old filesystem left in the place of the partition is gone too: ext4 can be made there.
    let fs_unit = filesystem_unit(outcome.device.to_str().unwrap());
    assert!(
        filesystem::activate(&fs_unit, &machine.roots, &Children, &machine.say())
            .await
            .unwrap()
            .made
    );
    assert!(!partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap().provisioned);
    assert_eq!(other.digest(), before);
}

#[tokio::test]
async fn a_disk_in_use_is_not_written_whatever_the_config_says() {
    let disk = Loop::new(72 * MIB, 512);
    tool("mkfs.ext4", ["-q", disk.node()]);
    let target = tempfile::tempdir().unwrap();
    mount(Some(&disk.node), target.path(), Some("ext4"), MsFlags::empty(), None::<&str>).unwrap();
    fs::write(target.path().join("kept"), "yes").unwrap();
    let machine = Machine::new([&disk]);
    let outcome =
        partition::activate(&unit(Some(&disk), Wipe::Always), &machine.roots, &machine.say()).await;
    let kept = fs::read_to_string(target.path().join("kept"));
    umount(target.path()).unwrap();
    let error = outcome.unwrap_err();
    let expect = format!(
        "partition keel-data: {}: could not open (it or a partition of it is mounted",
        disk.node()
    );
    assert!(error.to_string().starts_with(&expect), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("busy"), "{cause}");
    assert_eq!(kept.unwrap(), "yes");
    tool("e2fsck", ["-fn", disk.node()]);
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_left_alone() {
    let disk = Loop::new(9 * MIB, 512);
    let machine = Machine::new([&disk]);
    let before = disk.digest();
    let error =
        partition::activate(&unit(Some(&disk), Wipe::Always), &machine.roots, &machine.say())
            .await
            .unwrap_err();
    assert!(error.to_string().contains("too small"), "{error}");
    assert_eq!(disk.digest(), before);
}

#[tokio::test]
async fn a_disk_that_appears_late_is_waited_for() {
    let machine = Machine::new([]);
    let mut unit = unit(None, Wipe::Never);
    unit.timeout = Some(Text::parse("20s").unwrap());
    let (heard, waits) = tokio::sync::oneshot::channel();
    let heard = std::sync::Mutex::new(Some(heard));
    let say: keel_host::disk::Say = std::sync::Arc::new(move |line: String| {
        assert!(line.contains("waiting for a disk"), "{line}");
        heard.lock().unwrap().take().unwrap().send(()).unwrap();
    });
    // Another machine has filled the disk; here it is plugged in only once the unit waits.
    let disk = Loop::new(72 * MIB, 512);
    let elsewhere = Machine::new([&disk]);
    let made = partition::activate(
        &super::support::partition(Some(&disk), Wipe::Never),
        &elsewhere.roots,
        &elsewhere.say(),
    )
    .await
    .unwrap();
    let activation = partition::activate(&unit, &machine.roots, &say);
    let plug = async {
        waits.await.unwrap();
        machine.plug(disk.name());
        // The kernel says "change" when a loop device gets its file; writing to `uevent` has it say so again.
        fs::write(format!("/sys/class/block/{}/uevent", disk.name()), "change").unwrap();
    };
    let (located, ()) =
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(activation, plug) })
            .await
            .unwrap();
    assert_eq!(located.unwrap().guid, made.guid);
}

#[tokio::test]
async fn a_damaged_primary_table_is_told_and_the_backup_used() {
    let disk = Loop::new(72 * MIB, 512);
    let machine = Machine::new([&disk]);
    let unit = unit(Some(&disk), Wipe::Always);
    let made = partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap();
    disk.reboot();
    disk.poke(512, &[0; 512]);
    let before = disk.digest();
    let located = partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap();
    assert_eq!(
        (located.guid, located.device, located.provisioned),
        (made.guid, made.device, false)
    );
    let told = machine
        .said
        .lock()
        .unwrap()
        .iter()
        .any(|line| line.contains("the primary partition table is damaged"));
    assert!(told, "{:?}", machine.said);
    assert_eq!(disk.digest(), before);
}

/// Another disk may call one of its partitions as ours is called, and a blank one looks like one that waits for its
/// filesystem. What was located or made is meant, and nothing else.
#[tokio::test]
async fn a_name_means_the_partition_that_was_located_or_made() {
    let (other, ours) = (Loop::new(72 * MIB, 512), Loop::new(72 * MIB, 512));
    // Of another type, so that it is not the data partition.
    tool("sgdisk", ["-n", "1", "-c", "1:keel-data", other.node()]);
    let before = other.digest();
    let by_name = filesystem_unit("PARTLABEL=keel-data");
    let unit = unit(Some(&ours), Wipe::Never);
    for made in [true, false] {
        // A boot remembers nothing of the one before.
        let machine = Machine::new([&other, &ours]);
        let located = partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap();
        assert_eq!((&located.disk, located.provisioned), (&ours.node, made));
        let found = source::resolve(&by_name.device, &machine.roots).unwrap();
        assert_eq!(found, located.device);
        let activate = || async {
            filesystem::activate(&by_name, &machine.roots, &Children, &machine.say()).await
        };
        let filesystem = activate().await.unwrap();
        assert_eq!((&filesystem.device, filesystem.made), (&located.device, made));
        if !made {
            // One that is lost is not replaced by one that is called the same.
            tool("sgdisk", ["--zap-all", ours.node()]);
            let error = activate().await.unwrap_err().to_string();
            assert!(error.contains(ours.node()) && error.contains("is gone"), "{error}");
        }
        ours.reboot();
    }
    // Where no unit has located one, a name that two partitions have means neither.
    let twin = Loop::copy_of(&other);
    let error = source::resolve(&by_name.device, &Machine::new([&other, &twin]).roots).unwrap_err();
    assert!(error.to_string().contains("more than one device"), "{error}");
    twin.reboot();
    other.reboot();
    assert_eq!(other.digest(), before);
}

/// A provisioning that a slow disk kept past its deadline goes on in its thread. What came onto the disk since it was found
/// blank is not written over.
#[tokio::test]
async fn what_came_onto_a_blank_disk_meanwhile_is_not_written_over() {
    let disk = Loop::new(72 * MIB, 512);
    let machine = Machine::new([&disk]);
    let node = disk.node.clone();
    // The last word before the disk is opened for writing.
    let say: Say = Arc::new(move |line: String| {
        if line.contains("making partition") {
            tool("mkfs.ext4", ["-q", "-F", "-L", "precious", node.to_str().unwrap()]);
        }
    });
    let unit = unit(Some(&disk), Wipe::Never);
    let error = partition::activate(&unit, &machine.roots, &say).await.unwrap_err().to_string();
    assert!(error.contains(disk.node()) && error.contains("ext2/3/4 filesystem"), "{error}");
    tool("e2fsck", ["-fn", disk.node()]);
    assert!(tool("dumpe2fs", ["-h", disk.node()]).contains("precious"));
    let found = tool("wipefs", ["--noheadings", "--output", "TYPE", disk.node()]);
    assert_eq!(found.trim(), "ext4");
}

/// Two attempts at once, of which one finishes while the other is about to write: that one must not make it anew, not even
/// where the config says to wipe.
#[tokio::test]
async fn a_partition_that_was_made_meanwhile_is_not_made_again() {
    let disk = Loop::new(72 * MIB, 512);
    let machine = Machine::new([&disk]);
    let unit =
        Partition { timeout: Some(Text::parse("20s").unwrap()), ..unit(Some(&disk), Wipe::Always) };
    let quick = Arc::new(OnceLock::new());
    let (made, its_unit, roots) = (quick.clone(), unit.clone(), machine.roots.clone());
    let say: Say = Arc::new(move |line: String| {
        if line.contains("making partition") {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let nothing: Say = Arc::new(drop);
            let made_now = runtime.block_on(partition::activate(&its_unit, &roots, &nothing));
            made.set(made_now.unwrap()).unwrap();
        }
    });
    let slow = partition::activate(&unit, &machine.roots, &say).await.unwrap();
    let quick = quick.get().unwrap();
    assert_eq!((quick.provisioned, slow.provisioned), (true, false));
    assert_eq!((quick.guid, &quick.device), (slow.guid, &slow.device));
}

//! A disk that holds an image of Keel, larger than the image: the data partition is added behind it. sgdisk makes the
//! image's table, so that the code under test meets another's.

use std::fs;
use std::path::Path;

use keel_host::disk::{filesystem, partition};
use keel_unit::kinds::Wipe;

use super::support::{
    Children, Loop, MIB, Machine, filesystem as filesystem_unit, partition as unit, tool,
};

/// `KeelOS`, then version 8.
const IMAGE: &str = "4B65656C-4F53-8765-B804-50BD63541D08";
const OTHER: &str = "B0B5C0DE-4F53-4765-B804-50BD63541D08";
const IMAGE_SIZE: u64 = 48 * MIB;

/// A disk of 160 MiB whose first 48 are an image with three partitions, one of them somebody else's.
fn written(guid: &str) -> Loop {
    written_after(guid, &[])
}

/// The same, once sgdisk has also done this to the image.
fn written_after(guid: &str, more: &[&str]) -> Loop {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("keel.img");
    fs::File::create(&image).unwrap().set_len(IMAGE_SIZE).unwrap();
    let path = image.to_str().unwrap();
    #[rustfmt::skip]
    tool("sgdisk", [
        "-U", guid, "-n", "1:2048:4095", "-t", "1:ef02", "-c", "1:keel-bios",
        "-n", "2:4096:+16M", "-t", "2:ef00", "-c", "2:keel-esp",
        "-n", "5:0:+8M", "-t", "5:8300", "-c", "5:precious", "-A", "5:set:60", path,
    ]);
    if !more.is_empty() {
        tool("sgdisk", more.iter().copied().chain([path]));
    }
    let disk = Loop::new(160 * MIB, 512);
    disk.poke(0, &fs::read(&image).unwrap());
    for (offset, byte) in [(MIB, 0xb1), (2 * MIB, 0xe5), (19 * MIB, 0x0f)] {
        disk.poke(offset, &vec![byte; 1 << 20]);
    }
    disk.poke(0, &[0xeb; 440]);
    disk
}

/// Everything that is not the table's: the loader's code, the entries, and all bytes of all partitions.
fn kept(disk: &Loop) -> Vec<u8> {
    let all = fs::read(&disk.node).unwrap();
    let entries = &all[1024..1024 + 5 * 128];
    let (first, rest) = entries.split_at(2 * 128);
    [&all[..440], first, &rest[2 * 128..], &all[1 << 20..40 << 20]].concat()
}

fn forget(disk: &Loop) {
    for number in ["1", "2", "3", "5"] {
        let _ = std::process::Command::new("delpart").arg(disk.node()).arg(number).output();
    }
}

#[tokio::test]
async fn the_data_partition_is_added_behind_the_image() {
    let disk = written(IMAGE);
    let machine = Machine::new([&disk]);
    let before = kept(&disk);
    let unit = unit(Some(&disk), Wipe::Never);
    let first = partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap();
    assert!(first.provisioned);
    assert_eq!(first.size, (159 - 48) * MIB, "from the image's end to the table's backup");
    assert!(kept(&disk) == before, "something that was there has changed");
    let verdict = tool("sgdisk", ["-v", disk.node()]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let listed = tool("sgdisk", ["-i", "3", disk.node()]);
    assert!(listed.contains("keel-data"), "the first free entry: {listed}");
    let listed = tool("sgdisk", ["-i", "5", disk.node()]);
    assert!(listed.contains("precious") && listed.contains("1000000000000000"), "{listed}");

    let fs_unit = filesystem_unit("PARTLABEL=keel-data");
    let made =
        filesystem::activate(&fs_unit, &machine.roots, &Children, &machine.say()).await.unwrap();
    assert!(made.made);
    assert_eq!(made.device, first.device);
    assert!(kept(&disk) == before);

    forget(&disk);
    let digest = disk.digest();
    let second = partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap();
    assert_eq!((second.provisioned, second.guid, second.size), (false, first.guid, first.size));
    assert_eq!(disk.digest(), digest);
    forget(&disk);
}

/// Each disk stays as it is to the last byte, and the reason says what is in the way.
#[tokio::test]
async fn where_anything_is_in_doubt_nothing_is_written() {
    let check = async |disk: &Loop, selected: bool, expect: &str| {
        let machine = Machine::new([disk]);
        let before = disk.digest();
        let unit = unit(selected.then_some(disk), Wipe::Never);
        let error = partition::activate(&unit, &machine.roots, &machine.say())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expect), "{expect}\nis not in\n{error}");
        assert_eq!(disk.digest(), before, "{expect}");
    };
    check(&written(IMAGE), false, "the machine config selects none").await;
    check(&written(OTHER), true, "is selected, but not blank: GPT partition table").await;
    let behind = written(IMAGE);
    behind.poke(100 * MIB, &[1; 512 << 10]);
    check(&behind, true, "behind that it is not blank: unknown data at offset").await;
    // What a larger disk held before the image was written to it.
    let before = written(IMAGE);
    before.poke(160 * MIB - 512, b"EFI PART");
    check(
        &before,
        true,
        "behind that it is not blank: GPT backup partition table at offset 167771648",
    )
    .await;
    let gap = written(IMAGE);
    gap.poke(512 << 10, b"a loader of another kind");
    check(&gap, true, "something between its partition table and its first partition").await;
    let damaged = written(IMAGE);
    damaged.poke(512 + 60, b"\xff");
    check(&damaged, true, "is selected, but not blank").await;
}

/// No addition where another tool has moved the table's array: what stands in its old place is not the table's.
#[tokio::test]
async fn no_addition_to_a_table_whose_array_was_moved() {
    let disk = written_after(IMAGE, &["-j", "200"]);
    disk.poke(1024, b"somebody's, since the array was moved");
    let machine = Machine::new([&disk]);
    let before = disk.digest();
    for wipe in [Wipe::Never, Wipe::Always] {
        let unit = unit(Some(&disk), wipe);
        let activated = partition::activate(&unit, &machine.roots, &machine.say()).await;
        forget(&disk);
        assert_eq!(disk.digest(), before, "{activated:?}");
        let error = activated.unwrap_err().to_string();
        assert!(error.contains("laid out in another way"), "{error}");
    }
}

#[tokio::test]
async fn only_what_lies_behind_is_wiped() {
    let disk = written(IMAGE);
    disk.poke(60 * MIB, b"old data");
    disk.poke(160 * MIB - 512, b"EFI PART");
    let machine = Machine::new([&disk]);
    let before = kept(&disk);
    let unit = unit(Some(&disk), Wipe::Always);
    let made = partition::activate(&unit, &machine.roots, &machine.say()).await.unwrap();
    assert!(made.provisioned && kept(&disk) == before);
    let verdict = tool("sgdisk", ["-v", disk.node()]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let said = machine.said.lock().unwrap().join("\n");
    assert!(said.contains("behind the image, as the machine config says"), "{said}");
    assert!(Path::new(&made.device).exists());
    forget(&disk);
}

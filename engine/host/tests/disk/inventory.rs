//! What is told of disks: real ones, and one that does not answer.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use keel_host::disk::inventory::Roots;
use keel_host::inventory::{Disk, Inventories, Inventory};
use nix::sys::stat::Mode;

use crate::support::{Loop, MIB, TYPE, tool};

/// Longer than a look at a small disk takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn of<'a>(inventory: &'a Inventory, disk: &Loop) -> &'a Disk {
    inventory.disks.iter().find(|found| found.path == disk.node).unwrap()
}

#[tokio::test]
async fn disks_tell_what_is_on_them() {
    let (blank, table, filesystem) =
        (Loop::new(64 * MIB, 512), Loop::new(64 * MIB, 512), Loop::new(64 * MIB, 512));
    let node = |disk: &Loop| disk.node.to_str().unwrap().to_owned();
    let entry =
        [format!("--typecode=3:{TYPE}"), "--change-name=3:keel-data".to_owned(), node(&table)];
    tool("sgdisk", ["--new=3:0:+8M".to_owned()].into_iter().chain(entry));
    tool("mkfs.ext4", ["-q".to_owned(), node(&filesystem)]);

    let inventory = Inventories::new(Roots::default()).take(PATIENCE).await;
    assert_eq!(of(&inventory, &blank).content, Ok(vec![]));
    assert_eq!(of(&inventory, &blank).size, 64 * MIB);
    let marks = of(&inventory, &filesystem).content.as_ref().unwrap();
    assert_eq!(marks[0], "ext2/3/4 filesystem");
    let table = of(&inventory, &table);
    let marks = table.content.as_ref().unwrap();
    assert!(marks.contains(&"GPT partition table".to_owned()), "{marks:?}");
    let [partition] = table.partitions.as_slice() else { panic!("{table:?}") };
    assert_eq!(
        (partition.number, partition.label.as_str(), partition.size),
        (3, "keel-data", 8 * MIB)
    );
    assert_eq!(partition.type_guid.unwrap().to_string().to_uppercase(), TYPE);
    assert!(inventory.machine.cpus > 0 && inventory.machine.memory > 0);
    assert!(!inventory.machine.kernel.is_empty() && !inventory.machine.architecture.is_empty());
}

/// To open a FIFO waits for its other end as a disk waits for its controller, and as long as the test likes.
#[tokio::test]
async fn a_disk_that_does_not_answer_holds_nothing_up() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    let good = Loop::new(8 * MIB, 512);
    fs::create_dir_all(at("sys/class/block")).unwrap();
    fs::create_dir_all(at("dev")).unwrap();
    for name in ["sda", "sdb"] {
        let device = at(&format!("sys/devices/pci0/ata1/block/{name}"));
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("uevent"), format!("DEVNAME={name}\n")).unwrap();
        fs::write(device.join("size"), "16384\n").unwrap();
        symlink(&device, at(&format!("sys/class/block/{name}"))).unwrap();
    }
    nix::unistd::mkfifo(&at("dev/sda"), Mode::S_IRWXU).unwrap();
    symlink(&good.node, at("dev/sdb")).unwrap();
    let inventories = Inventories::new(Roots::new(at("sys"), at("dev")));

    let content = |inventory: &Inventory| {
        inventory.disks.iter().map(|disk| disk.content.clone()).collect::<Vec<_>>()
    };
    let silent = |why: &str| Err(why.to_owned());
    let first = inventories.take(Duration::from_secs(2)).await;
    assert_eq!(content(&first), [silent("it did not answer in time"), Ok(vec![])]);
    // Nobody waits for it a second time.
    let second = inventories.take(PATIENCE).await;
    assert_eq!(content(&second), [silent("it has not answered since an earlier look"), Ok(vec![])]);
    // It comes back. The thread that waits for it ends before the test's runtime can.
    drop(fs::OpenOptions::new().write(true).open(at("dev/sda")).unwrap());
}

//! A filesystem is checked, made on what is blank, and never made on anything else.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keel_host::disk::Say;
use keel_host::disk::filesystem::{self, FilesystemErrorKind};
use keel_host::tool::{RunTool, Tool, ToolError, ToolErrorKind, ToolFuture, ToolStatus};
use nix::mount::{MsFlags, mount, umount};

use super::support::{Children, Loop, MIB, Machine, filesystem as unit, tool};

async fn check_refusal(make: impl FnOnce(&Loop), expect: &str) {
    let disk = Loop::new(72 * MIB, 512);
    make(&disk);
    let before = disk.digest();
    let machine = Machine::new([&disk]);
    let error = filesystem::activate(&unit(disk.node()), &machine.roots, &Children, &machine.say())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), format!("filesystem on {}: {expect}", disk.node()));
    assert_eq!(disk.digest(), before);
}

#[tokio::test]
async fn anything_else_is_never_formatted() {
    check_refusal(
        |disk| drop(tool("mkswap", [disk.node()])),
        "not ext4 and not blank: swap area at offset 4086; it is left untouched",
    )
    .await;
    check_refusal(
        |disk| disk.poke(72 * MIB - 512, b"mine"),
        "not ext4 and not blank: unknown data at offset 75496960; it is left untouched",
    )
    .await;
}

#[tokio::test]
async fn an_ext4_whose_superblock_is_lost_is_not_formatted_but_left_for_rescue() {
    check_refusal(
        |disk| {
            tool("mkfs.ext4", ["-q", "-b", "1024", disk.node()]);
            disk.poke(1024, &[0; 1024]);
        },
        "not ext4 and not blank: ext2/3/4 backup superblock at offset 8389688; it is left untouched",
    )
    .await;
}

#[tokio::test]
async fn an_ext4_inside_a_raid_member_is_not_touched() {
    check_refusal(
        |disk| {
            tool("mkfs.ext4", ["-q", disk.node(), "60m"]);
            disk.poke(72 * MIB - 8192, b"\xfc\x4e\x2b\xa9");
        },
        "ext4, but also MD RAID superblock 1.0 at offset 75489280; which of them is in use cannot be told, and neither is \
         touched",
    )
    .await;
}

#[tokio::test]
async fn a_filesystem_is_made_where_the_device_is_blank() {
    let disk = Loop::new(72 * MIB, 4096);
    let machine = Machine::new([&disk]);
    let made = filesystem::activate(&unit(disk.node()), &machine.roots, &Children, &machine.say())
        .await
        .unwrap();
    assert!(made.made);
    tool("e2fsck", ["-fn", disk.node()]);
    let facts = tool("dumpe2fs", ["-h", disk.node()]);
    assert!(facts.contains("Filesystem volume name:   keel-data"), "{facts}");
    assert!(facts.contains(&format!("Filesystem UUID:          {}", made.uuid)), "{facts}");
    // By its label and by its UUID the same device is found again, and nothing is made twice.
    for source in ["LABEL=keel-data".to_owned(), format!("UUID={}", made.uuid)] {
        let again = filesystem::activate(&unit(&source), &machine.roots, &Children, &machine.say())
            .await
            .unwrap();
        assert_eq!(
            (again.made, again.uuid, &again.device),
            (false, made.uuid, &disk.node),
            "{source}"
        );
    }
}

#[tokio::test]
async fn what_came_onto_a_blank_device_meanwhile_is_not_formatted() {
    let disk = Loop::new(72 * MIB, 512);
    let machine = Machine::new([&disk]);
    let node = disk.node.clone();
    // The last word before the device is opened for writing.
    let say: Say = Arc::new(move |line: String| {
        assert!(line.contains("making an ext4 filesystem"), "{line}");
        tool("mkfs.ext4", ["-q", "-F", "-L", "precious", node.to_str().unwrap()]);
    });
    let error = filesystem::activate(&unit(disk.node()), &machine.roots, &Children, &say)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("has changed") && error.contains("ext2/3/4 filesystem"), "{error}");
    tool("e2fsck", ["-fn", disk.node()]);
    assert!(tool("dumpe2fs", ["-h", disk.node()]).contains("precious"));
    assert_eq!(fs::read(&disk.node).unwrap()[(72 << 20) - 65536..], [0; 65536]);
}

/// An mkfs that loses power: what it has written before its superblock is there, the superblock is not.
struct CutShort {
    once: AtomicBool,
}

impl RunTool for CutShort {
    fn run<'a>(&'a self, tool: &'a Tool) -> ToolFuture<'a> {
        Box::pin(async move {
            let output = Children.run(tool).await?;
            if self.once.swap(false, Ordering::Relaxed) {
                let device = tool.argv.iter().rev().nth(1).unwrap();
                let device = fs::OpenOptions::new().write(true).open(device).unwrap();
                device.write_all_at(&[0; 1024], 1024).unwrap();
                device.sync_all().unwrap();
                return Err(ToolError {
                    program: tool.program(),
                    kind: ToolErrorKind::TimedOut(Duration::ZERO),
                });
            }
            Ok(output)
        })
    }
}

#[tokio::test]
async fn a_filesystem_whose_making_was_cut_short_is_made_again() {
    let disk = Loop::new(72 * MIB, 512);
    let machine = Machine::new([&disk]);
    let tools = CutShort { once: AtomicBool::new(true) };
    let activate = || async {
        filesystem::activate(&unit(disk.node()), &machine.roots, &tools, &machine.say()).await
    };
    let error = activate().await.unwrap_err();
    assert!(matches!(error.kind, FilesystemErrorKind::NotRun(_)), "{error}");
    // The rest of an mkfs is indeed there, and would be refused if nothing said whose it is.
    assert!(tool("wipefs", ["--noheadings", disk.node()]).is_empty());
    let made = activate().await.unwrap();
    assert!(made.made);
    tool("e2fsck", ["-fn", disk.node()]);
    let again = activate().await.unwrap();
    assert_eq!((again.made, again.uuid), (false, made.uuid));
}

#[tokio::test]
async fn a_filesystem_that_was_in_use_when_the_power_went_is_recovered() {
    let disk = Loop::new(72 * MIB, 512);
    let machine = Machine::new([&disk]);
    filesystem::activate(&unit(disk.node()), &machine.roots, &Children, &machine.say())
        .await
        .unwrap();
    let target = tempfile::tempdir().unwrap();
    mount(Some(&disk.node), target.path(), Some("ext4"), MsFlags::empty(), None::<&str>).unwrap();
    let kept = fs::File::create(target.path().join("kept")).unwrap();
    kept.write_all_at(b"yes", 0).unwrap();
    kept.sync_all().unwrap();
    drop(kept);
    let cut = Loop::copy_of(&disk);
    umount(target.path()).unwrap();

    let machine = Machine::new([&cut]);
    let outcome =
        filesystem::activate(&unit(cut.node()), &machine.roots, &Children, &machine.say())
            .await
            .unwrap();
    assert!(outcome.recovered && !outcome.made);
    tool("e2fsck", ["-fn", cut.node()]);
    mount(Some(&cut.node), target.path(), Some("ext4"), MsFlags::empty(), None::<&str>).unwrap();
    let text = fs::read_to_string(target.path().join("kept"));
    umount(target.path()).unwrap();
    assert_eq!(text.unwrap(), "yes");
}

#[tokio::test]
async fn what_can_be_mended_safely_is_mended_and_what_cannot_is_an_error() {
    let disk = Loop::new(72 * MIB, 512);
    let machine = Machine::new([&disk]);
    let activate = || async {
        filesystem::activate(&unit(disk.node()), &machine.roots, &Children, &machine.say()).await
    };
    activate().await.unwrap();
    // Not cleanly unmounted, and the count of free blocks is wrong: e2fsck -p mends that.
    tool("debugfs", ["-w", "-R", "ssv state 0", disk.node()]);
    tool("debugfs", ["-w", "-R", "ssv free_blocks_count 3", disk.node()]);
    let mended = activate().await.unwrap();
    assert!(mended.corrected && !mended.made);
    let said = machine.said.lock().unwrap().join("\n");
    assert!(said.contains("was not cleanly unmounted, check forced"), "{said}");
    // Two files that claim the same block: to choose between them is not for a machine.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), vec![7; 8192]).unwrap();
    let write = |name: &str| {
        tool(
            "debugfs",
            ["-w", "-R", &format!("write {} {name}", file.path().display()), disk.node()],
        )
    };
    write("a");
    write("b");
    let block = tool("debugfs", ["-R", "bmap a 0", disk.node()]);
    let block = block.lines().last().unwrap().trim().to_owned();
    tool("debugfs", ["-w", "-R", &format!("sif b block[2] {block}"), disk.node()]);
    tool("debugfs", ["-w", "-R", "clri <2>", disk.node()]);
    tool("debugfs", ["-w", "-R", "ssv state 0", disk.node()]);
    let error = activate().await.unwrap_err();
    let FilesystemErrorKind::Tool { tool, output } = &error.kind else { panic!("{error}") };
    assert_eq!(tool, "e2fsck");
    assert!(matches!(output.status, ToolStatus::Exited(code) if code & 4 != 0), "{error}");
}

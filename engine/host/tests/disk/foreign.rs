//! A disk with anything of others on it is refused by name and left as it is, byte by byte.

use std::io::Write;
use std::process::{Command, Stdio};

use keel_host::disk::partition;
use keel_host::disk::plan::PartitionErrorKind;
use keel_unit::kinds::Wipe;

use super::support::{Loop, MIB, Machine, partition as unit, tool};

async fn check(size: u64, make: impl FnOnce(&Loop), expect: &str) {
    let disk = Loop::new(size, 512);
    make(&disk);
    let before = disk.digest();
    let machine = Machine::new([&disk]);
    let error =
        partition::activate(&unit(Some(&disk), Wipe::Never), &machine.roots, &machine.say())
            .await
            .unwrap_err();
    assert_eq!(disk.digest(), before);
    assert!(matches!(error.kind, PartitionErrorKind::NotBlank { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains(expect) && error.contains(disk.node()), "{expect} in {error}");
}

macro_rules! foreign {
    ($($name:ident: $size:expr, $make:expr => $expect:literal;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                check($size * MIB, $make, $expect).await;
            }
        )*
    };
}

foreign! {
    xfs: 304, |disk| drop(tool("mkfs.xfs", ["-q", disk.node()])) => "XFS filesystem at offset 0";
    btrfs: 128, |disk| drop(tool("mkfs.btrfs", ["-q", disk.node()])) => "btrfs filesystem at offset 65600 (and 1 more";
    btrfs_of_which_only_a_mirror_is_left: 128, |disk| {
        tool("mkfs.btrfs", ["-q", disk.node()]);
        disk.poke(0, &vec![0; 8 << 20]);
    } => "btrfs filesystem at offset 67108928";
    fat: 72, |disk| drop(tool("mkfs.vfat", ["-I", disk.node()])) => "FAT filesystem at offset";
    ext4: 72, |disk| drop(tool("mkfs.ext4", ["-q", disk.node()])) => "ext2/3/4 filesystem at offset 1080";
    ext4_of_which_only_a_backup_superblock_is_left: 72, |disk| {
        tool("mkfs.ext4", ["-q", "-b", "1024", disk.node()]);
        disk.poke(0, &vec![0; 4 << 20]);
    } => "ext2/3/4 backup superblock at offset 8389688";
    swap: 72, |disk| drop(tool("mkswap", [disk.node()])) => "swap area at offset 4086";
    swap_of_a_machine_with_64_kib_pages: 72, |disk| drop(tool("mkswap", ["-p", "65536", disk.node()]))
        => "swap area at offset 65526";
    lvm: 72, |disk| drop(tool("pvcreate", ["-qq", "-y", disk.node()])) => "LVM2 physical volume at offset 512";
    lvm_in_sector_3: 72, |disk| drop(tool("pvcreate", ["-qq", "-y", "--labelsector", "3", disk.node()]))
        => "LVM2 physical volume at offset 1536";
    luks1: 72, |disk| luks(disk, "luks1") => "LUKS header at offset 0";
    luks2: 72, |disk| luks(disk, "luks2") => "LUKS header at offset 0 (and 1 more";
    luks2_of_which_only_the_second_header_is_left: 72, |disk| {
        luks(disk, "luks2");
        disk.poke(0, &[0; 16 << 10]);
    } => "LUKS2 secondary header at offset 16384";
    md_0_90: 72, old_md => "MD RAID superblock 0.90 at offset 75431936";
    md_1_0: 72, |disk| new_md(disk, "1.0", 72 * MIB - 8192) => "MD RAID superblock 1.0 at offset 75489280";
    md_1_1: 72, |disk| new_md(disk, "1.1", 0) => "MD RAID superblock 1.1 at offset 0";
    md_1_2: 72, |disk| new_md(disk, "1.2", 4096) => "MD RAID superblock 1.2 at offset 4096";
    gpt: 72, |disk| drop(tool("sgdisk", ["-n", "1", disk.node()])) => "GPT partition table at offset 512 (and 2 more";
    gpt_without_partitions: 72, |disk| drop(tool("sgdisk", ["-o", disk.node()])) => "GPT partition table at offset 512";
    gpt_of_which_only_the_backup_is_left: 72, |disk| {
        tool("sgdisk", ["-n", "1", disk.node()]);
        disk.poke(0, &vec![0; 1 << 20]);
    } => "GPT backup partition table at offset 75496960";
    mbr: 72, |disk| sfdisk(disk, "label: dos\nsize=10M\n") => "MBR partition table at offset 510";
    sun: 72, |disk| sfdisk(disk, "label: sun\n") => "Sun disk label at offset 508";
    sgi: 72, |disk| sfdisk(disk, "label: sgi\n") => "SGI disk label at offset 0";
    iso9660: 72, |disk| disk.poke(32768, b"\x01CD001\x01") => "ISO 9660 image at offset 32769";
    squashfs: 72, |disk| disk.poke(0, b"hsqs\x01\0\0\0") => "squashfs image at offset 0";
    zfs_of_which_only_the_last_label_is_left: 72,
        |disk| disk.poke(72 * MIB - (256 << 10) + (16 << 10), b"\x01\x01\0\0\0\0\0\0\0\0\0\x01")
        => "ZFS label at offset 75251712";
    bluestore: 72, |disk| disk.poke(0, b"bluestore block device\n8e7a") => "Ceph BlueStore at offset 0";
    drbd: 72, |disk| disk.poke(72 * MIB - 4096 + 60, b"\x83\x74\x02\x6d") => "DRBD metadata at offset 75493436";
    unknown_data_in_the_first_mebibytes: 72, |disk| disk.poke(3 * MIB + 17, b"mine") => "unknown data at offset 3145728";
    unknown_data_in_the_last_sector: 72, |disk| disk.poke(72 * MIB - 4, b"mine") => "unknown data at offset 75496960";
    a_wiped_head_before_a_full_disk: 72, |disk| disk.poke(4 * MIB, &vec![0xa5; 60 << 20]) => "unknown data at offset";
}

fn luks(disk: &Loop, version: &str) {
    let fast = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    let mut child = Command::new("cryptsetup")
        .args(["luksFormat", "-q", "--type", version])
        .args(if version == "luks2" { &fast[..] } else { &fast[2..] })
        .args([disk.node(), "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"secret").unwrap();
    assert!(child.wait().unwrap().success());
}

fn sfdisk(disk: &Loop, script: &str) {
    let mut child = Command::new("sfdisk")
        .args(["-q", "--no-reread", "--no-tell-kernel", disk.node()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A member of a mirror as `mdadm --create` would write it, which it cannot on a kernel without MD. That the superblock is
/// a real one, and where it belongs, is mdadm's own judgement (`--examine`).
fn new_md(disk: &Loop, version: &str, offset: u64) {
    let mut sb = [0_u8; 260];
    let mut put = |at: usize, bytes: &[u8]| sb[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0xa92b_4efc_u32.to_le_bytes());
    put(4, &1_u32.to_le_bytes()); // major version
    put(16, b"keel-test-array!"); // set uuid
    put(72, &1_u32.to_le_bytes()); // level
    put(80, &65536_u64.to_le_bytes()); // size in sectors
    put(92, &2_u32.to_le_bytes()); // disks
    put(128, &2048_u64.to_le_bytes()); // data offset
    put(136, &65536_u64.to_le_bytes()); // data size
    put(144, &(offset / 512).to_le_bytes()); // where the superblock is
    put(220, &2_u32.to_le_bytes()); // entries in the table of roles
    put(258, &[0xff, 0xff]);
    let words = sb.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let sum = words.sum::<u64>();
    let sum = (sum as u32).wrapping_add((sum >> 32) as u32);
    sb[216..220].copy_from_slice(&sum.to_le_bytes());
    disk.poke(offset, &sb);
    let seen = tool("mdadm", ["--examine", disk.node()]);
    assert!(seen.contains(&format!("Version : {version}")) && seen.contains("correct"), "{seen}");
}

fn old_md(disk: &Loop) {
    let mut words = [0_u32; 1024];
    words[0] = 0xa92b_4efc;
    words[2] = 90;
    words[7] = 1; // level
    words[8] = 32768; // size in KiB
    (words[9], words[10]) = (2, 2);
    words[38] = words.iter().fold(0, |sum, word| sum.wrapping_add(*word));
    let sb: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    disk.poke(72 * MIB - (64 << 10), &sb);
    let seen = tool("mdadm", ["--examine", disk.node()]);
    assert!(seen.contains("Version : 0.90"), "{seen}");
}

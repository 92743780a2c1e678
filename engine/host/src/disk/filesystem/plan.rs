//! What to do about a device that is to have a filesystem. Pure.

use std::path::Path;
use std::time::Duration;

use keel_unit::kinds::Filesystem;
use uuid::Uuid;

use super::FilesystemErrorKind;
use crate::disk::ext4::Superblock;
use crate::disk::intent;
use crate::disk::signature::{Content, EXT, EXT_BACKUP, Found};
use crate::tool::{Tool, ToolStatus};

/// What stands on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Its size in bytes.
    pub size: u64,
    /// What was found on it.
    pub content: Content,
    /// Its ext4 superblock.
    pub superblock: Option<Superblock>,
    /// The filesystem that was being made when the power went.
    pub unfinished: Option<Uuid>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Make a filesystem: the device is blank.
    Make,
    /// Make it again, with the same UUID: it was being made when the power went.
    MakeAgain(Uuid),
    /// Check the filesystem that is there.
    Check,
}

/// Decides what to do.
///
/// # Errors
/// When anything but a blank device, an ext4 filesystem or one of which the making was cut short is there.
pub fn plan(observed: &Observed) -> Result<Plan, FilesystemErrorKind> {
    let Observed { content, superblock, unfinished, .. } = observed;
    if let Some(uuid) = *unfinished {
        // mke2fs writes the primary superblock last; what of it is there must carry the UUID that it was told.
        let ours = superblock.as_ref().is_none_or(|superblock| superblock.uuid == uuid);
        let only_ext =
            content.signatures.iter().all(|found| [EXT, EXT_BACKUP].contains(&found.name));
        return if ours && only_ext { Ok(Plan::MakeAgain(uuid)) } else { Err(foreign(content)) };
    }
    if content.is_blank() {
        return Ok(Plan::Make);
    }
    let Some(superblock) = superblock else { return Err(foreign(content)) };
    // A mark within the filesystem is what some file holds. Before its superblock or behind its last block it is a mark
    // that something else put there: an ext4 filesystem in a RAID member looks whole, and must not be mounted.
    let around = |found: &&Found| found.offset < 1024 || found.offset >= superblock.size;
    let around: Vec<_> = content.signatures.iter().filter(around).copied().collect();
    if around.is_empty() {
        return Ok(Plan::Check);
    }
    Err(FilesystemErrorKind::Ambiguous(Content { signatures: around, unknown: None }))
}

fn foreign(content: &Content) -> FilesystemErrorKind {
    FilesystemErrorKind::Foreign(content.clone())
}

/// The call of mkfs.ext4 for a device of this size.
///
/// The filesystem ends 64 KiB before the device does: there lies the record of its making, which mkfs must not write over.
/// Inode tables and journal are zeroed later by the kernel, and nothing is discarded (`fstrim` can, when there is time), so
/// that making takes as long on a large disk as on a small one.
pub(super) fn mkfs(
    filesystem: &Filesystem,
    device: &Path,
    size: u64,
    uuid: Uuid,
    timeout: Duration,
) -> Tool {
    let kibibytes = intent::filesystem_end(size).unwrap_or(size) / 1024;
    let mut tool =
        Tool::new(filesystem.fstype.maker(), timeout).args(["-q", "-F", "-U", &uuid.to_string()]);
    tool = tool.args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]);
    if let Some(label) = &filesystem.label {
        tool = tool.args(["-L", label.as_str()]);
    }
    tool = tool.args(filesystem.options.iter().map(|option| option.as_str()));
    tool.arg(device).arg(format!("{kibibytes}k"))
}

/// What e2fsck found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was to be done.
    Clean,
    /// Something was mended.
    Corrected,
    /// It cannot be used.
    Failed,
}

/// The exit code is a sum (e2fsck(8)): 1 corrected, 2 corrected and the machine should be rebooted (for a filesystem that is
/// mounted, which this is not), 4 errors left, 8 operational error, 16 usage, 32 cancelled, 128 shared library.
pub fn verdict(status: ToolStatus) -> Verdict {
    match status {
        ToolStatus::Exited(0) => Verdict::Clean,
        ToolStatus::Exited(1..=3) => Verdict::Corrected,
        ToolStatus::Exited(_) | ToolStatus::Signaled(_) => Verdict::Failed,
    }
}

#[cfg(test)]
mod tests {
    use keel_unit::keys::Text;
    use keel_unit::kinds::FilesystemType;
    use keel_unit::value::{Argument, FsLabel, Source};

    use super::*;

    const SIZE: u64 = 64 << 20;

    fn superblock(uuid: u128) -> Superblock {
        Superblock {
            uuid: Uuid::from_u128(uuid),
            label: "keel-data".into(),
            size: SIZE - 65536,
            needs_recovery: false,
        }
    }

    #[test]
    fn only_a_blank_device_and_our_own_unfinished_work_are_formatted() {
        let ext = Found { name: EXT, offset: 1080 };
        let backup = Found { name: EXT_BACKUP, offset: 8193 << 10 };
        let mbr = Found { name: "MBR partition table", offset: 510 };
        let md = Found { name: "MD RAID superblock 1.0", offset: SIZE - 8192 };
        let btrfs = Found { name: "btrfs filesystem", offset: (64 << 10) + 64 };
        let check = |signatures: &[Found],
                     unknown: Option<u64>,
                     sb: Option<u128>,
                     unfinished: Option<u128>,
                     expect: &str| {
            let observed = Observed {
                size: SIZE,
                content: Content { signatures: signatures.to_vec(), unknown },
                superblock: sb.map(superblock),
                unfinished: unfinished.map(Uuid::from_u128),
            };
            let plan =
                plan(&observed).map_or_else(|error| error.to_string(), |plan| format!("{plan:?}"));
            assert_eq!(plan, expect);
        };
        let again = format!("MakeAgain({})", Uuid::from_u128(7));
        check(&[], None, None, None, "Make");
        check(&[ext], Some(1024), Some(7), None, "Check");
        check(&[ext, backup, btrfs], Some(1024), Some(7), None, "Check");
        check(
            &[],
            Some(4096),
            None,
            None,
            "not ext4 and not blank: unknown data at offset 4096; it is left untouched",
        );
        check(
            &[btrfs],
            Some(65536),
            None,
            None,
            "not ext4 and not blank: btrfs filesystem at offset 65600; it is left untouched",
        );
        check(
            &[md, ext],
            Some(0),
            Some(7),
            None,
            "ext4, but also MD RAID superblock 1.0 at offset 67100672; which of them is in use cannot be told, and \
             neither is touched",
        );
        check(
            &[ext, mbr],
            Some(0),
            Some(7),
            None,
            "ext4, but also MBR partition table at offset 510; which of them is in use cannot be told, and neither is \
             touched",
        );
        check(&[], Some(SIZE - 65536), None, Some(7), &again);
        check(&[ext, backup], Some(0), Some(7), Some(7), &again);
        check(
            &[ext],
            Some(0),
            Some(8),
            Some(7),
            "not ext4 and not blank: ext2/3/4 filesystem at offset 1080; it is left untouched",
        );
        check(
            &[btrfs],
            Some(0),
            None,
            Some(7),
            "not ext4 and not blank: btrfs filesystem at offset 65600; it is left untouched",
        );
    }

    #[test]
    fn mkfs_is_told_the_size_that_leaves_room_for_the_record() {
        let filesystem = Filesystem {
            device: Source::parse("/dev/vda1").unwrap(),
            fstype: FilesystemType::Ext4,
            label: Some(FsLabel::parse("keel-data").unwrap()),
            options: vec![Argument::parse("-m").unwrap(), Argument::parse("1").unwrap()],
            timeout: None,
        };
        let tool = mkfs(
            &filesystem,
            Path::new("/dev/vda1"),
            SIZE,
            Uuid::from_u128(7),
            Duration::from_secs(60),
        );
        assert_eq!(
            tool.to_string(),
            "mkfs.ext4 -q -F -U 00000000-0000-0000-0000-000000000007 -E \
             lazy_itable_init=1,lazy_journal_init=1,nodiscard -L keel-data -m 1 /dev/vda1 65472k"
        );
    }

    #[test]
    fn exit_codes_of_e2fsck() {
        let check = |status, expect| assert_eq!(verdict(status), expect, "{status}");
        check(ToolStatus::Exited(0), Verdict::Clean);
        check(ToolStatus::Exited(1), Verdict::Corrected);
        check(ToolStatus::Exited(2), Verdict::Corrected);
        check(ToolStatus::Exited(3), Verdict::Corrected);
        check(ToolStatus::Exited(4), Verdict::Failed);
        check(ToolStatus::Exited(5), Verdict::Failed);
        check(ToolStatus::Exited(8), Verdict::Failed);
        check(ToolStatus::Exited(127), Verdict::Failed);
        check(ToolStatus::Signaled(9), Verdict::Failed);
    }
}

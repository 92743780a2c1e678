//! The kinds of storage: `partition`, `filesystem`.

use crate::diagnostic::Diagnostic;
use crate::keys::{Fields, keys, words};
use crate::value::{AbsPath, Argument, ByteSize, FsLabel, Glob, Guid, PartLabel, Source, Timespan};

/// How the GUID of a disk begins that is an image of Keel: `KeelOS`, in the bits that version 8 of RFC 9562 leaves to the maker. On
/// such a disk, and on no other with something on it, the data partition is added to what is there.
pub const IMAGE_DISK_MARK: [u8; 6] = *b"KeelOS";

words! {
    /// Whether a disk with something on it may be written.
    pub enum Wipe {
        /// Only a blank disk is ever written.
        Never = "never",
        /// The selected disk is written whatever is on it, unless the partition is found.
        Always = "always",
    }

    /// How a disk is attached.
    pub enum Bus {
        /// Paravirtual (virtio-blk, virtio-scsi).
        Virtio = "virtio",
        /// NVM Express.
        Nvme = "nvme",
        /// Serial ATA.
        Sata = "sata",
        /// SCSI and SAS.
        Scsi = "scsi",
        /// USB.
        Usb = "usb",
        /// SD cards and eMMC.
        Mmc = "mmc",
    }

    /// The filesystems that can be made and checked.
    pub enum FilesystemType {
        /// Made by mke2fs, checked by e2fsck.
        Ext4 = "ext4",
    }
}

impl FilesystemType {
    /// The program that makes it, looked up in [`SEARCH_PATH`](super::SEARCH_PATH).
    pub fn maker(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4",
        }
    }

    /// The program that checks it.
    pub fn checker(self) -> &'static str {
        match self {
            Self::Ext4 => "e2fsck",
        }
    }
}

keys! {
    /// Selects one disk. All keys that are written must hold; two disks that fit are an error.
    pub struct DiskSelector {
        /// The device node.
        path "path": Option<AbsPath>,
        /// The name that /dev/disk/by-id would have, such as `nvme-Samsung_SSD_980_S64ANS0T`.
        by_id "by-id": Option<Glob>,
        /// Serial number.
        serial "serial": Option<Glob>,
        /// Model.
        model "model": Option<Glob>,
        /// Smallest size.
        min_size "min-size": Option<ByteSize>,
        /// Largest size.
        max_size "max-size": Option<ByteSize>,
        /// How it is attached.
        bus "bus": Option<Bus>,
    }
    check = selects_something;

    /// Finds a GPT partition by type and name; where there is none, makes it on the disk that the config selects. A
    /// disk with anything on it is left alone unless `wipe = "always"`.
    pub struct Partition {
        /// The disk that may be written when the partition is not found. Without it, nothing is ever written.
        disk "disk": Option<DiskSelector>,
        /// Name of the partition.
        label "label": PartLabel,
        /// Type of the partition.
        type_guid "type": Guid,
        /// Its size; else all that is free.
        size "size": Option<ByteSize>,
        /// Whether a disk with something on it may be written.
        wipe "wipe": Wipe = "\"never\"",
        /// How long to look for the disk, and to write.
        timeout "timeout": Option<Timespan>,
    }

    /// Checks the filesystem on a device (e2fsck -p), or makes one where the device is blank. Anything else on the device
    /// is an error, never a reason to format.
    pub struct Filesystem {
        /// The device.
        device "device": Source,
        /// Type of the filesystem.
        fstype "type": FilesystemType = "\"ext4\"",
        /// Its label when it is made.
        label "label": Option<FsLabel>,
        /// More options for mkfs.
        options "options": Vec<Argument> = "[]",
        /// How long check or making may take.
        timeout "timeout": Option<Timespan>,
    }
}

fn selects_something(disk: &DiskSelector, fields: &mut Fields<'_>) {
    let DiskSelector { path, by_id, serial, model, min_size, max_size, bus } = disk;
    let texts = by_id.is_some() || serial.is_some() || model.is_some();
    if path.is_none() && !texts && min_size.is_none() && max_size.is_none() && bus.is_none() {
        let found = Diagnostic::new(
            "missing-key",
            fields.span(),
            "the selector is empty and would fit every disk",
        );
        fields.report(
            found.help("say which disk, for example `path = \"/dev/vda\"` or `bus = \"virtio\"`"),
        );
    }
    if let (Some(min), Some(max)) = (min_size, max_size)
        && min > max
    {
        let found = Diagnostic::new(
            "out-of-range",
            fields.span_of("max-size"),
            "`max-size` is below `min-size`",
        );
        fields.report(found);
    }
}

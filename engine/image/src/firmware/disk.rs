//! The raw disk: a GPT with two partitions, and GRUB's first sector before them.
//!
//! | from | | |
//! |---|---|---|
//! | 0 | protective MBR | under GRUB with the code that BIOS runs, which reads partition 1 |
//! | 1 MiB | `keel-bios` | the rest of the loader for BIOS, 1 MiB |
//! | 2 MiB | `keel-esp` | the EFI system partition, FAT32: loader, its configuration, kernel, initramfs |
//! | end | backup table | |
//!
//! The disk ends there. On a larger medium the node makes its data partition in what is behind; that the disk is an
//! image of Keel, and may be added to, stands in its GUID.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use gptman::{GPT, GPTPartitionEntry};
use uuid::{Uuid, uuid};

use super::grub::{self, BiosCode};
use super::limine::{self, Limine};
use super::{BootFile, Booted, FirmwareError, Identity, Loader, fat};
use crate::watch::Watch;

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
/// Where the BIOS boot partition starts, in bytes.
const BIOS: u64 = MIB;
/// Where the EFI system partition starts, in bytes.
const ESP: u64 = 2 * MIB;
/// Behind the last partition: the backup table, and alignment.
const TAIL: u64 = MIB;

/// The names of an image's partitions, by their numbers.
pub(crate) const LABELS: [&str; 2] = ["keel-bios", "keel-esp"];

/// Partition types (UEFI 2.10, table 5.7; GRUB's manual, "BIOS installation").
const TYPE_BIOS: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
const TYPE_ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");

pub(super) fn write(
    loader: &Loader,
    booted: &Booted<'_>,
    path: &Path,
    watch: &dyn Watch,
) -> Result<(), FirmwareError> {
    watch.begin("writing the disk image", None);
    match loader {
        Loader::Grub(modules) => {
            let id = grub::identity(booted);
            let grub = grub::Grub::make(modules, id, watch)?;
            let files = grub.volume(booted)?;
            compose(path, id, &files, Some(&grub.bios)).map_err(FirmwareError::write(path))
        }
        Loader::Limine(dir) => {
            let id = limine::identity(booted);
            let limine = Limine::open(dir)?;
            let files = limine.volume(booted)?;
            compose(path, id, &files, None).map_err(FirmwareError::write(path))?;
            limine.bios_install(path, Some(limine::BIOS_PARTITION), watch)
        }
    }
}

fn compose(
    path: &Path,
    id: Identity,
    files: &[BootFile<'_>],
    bios: Option<&BiosCode>,
) -> io::Result<()> {
    let volume = fat::Volume::esp(files, id.serial())?;
    let esp = volume.size();
    let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
    file.set_len(ESP + esp + TAIL)?;
    volume.write(&mut file, ESP)?;

    let mut gpt =
        GPT::new_from(&mut file, SECTOR, id.disk().to_bytes_le()).map_err(io::Error::other)?;
    gpt[1] = entry(id, TYPE_BIOS, LABELS[0], BIOS, ESP);
    gpt[2] = entry(id, TYPE_ESP, LABELS[1], ESP, ESP + esp);
    gpt.write_into(&mut file).map_err(io::Error::other)?;
    GPT::write_protective_mbr_into(&mut file, SECTOR).map_err(io::Error::other)?;
    if let Some(bios) = bios {
        let mut mbr = [0; 512];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut mbr)?;
        let (boot, core) = bios.installed(&mbr, BIOS / SECTOR);
        if core.len() as u64 > ESP - BIOS {
            return Err(io::Error::other("GRUB's core image does not fit into its partition"));
        }
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&boot)?;
        file.seek(SeekFrom::Start(BIOS))?;
        file.write_all(&core)?;
    }
    file.sync_all()
}

fn entry(id: Identity, kind: Uuid, name: &str, from: u64, to: u64) -> GPTPartitionEntry {
    GPTPartitionEntry {
        partition_type_guid: kind.to_bytes_le(),
        unique_partition_guid: id.guid(name).to_bytes_le(),
        starting_lba: from / SECTOR,
        ending_lba: to / SECTOR - 1,
        attribute_bits: 0,
        partition_name: name.into(),
    }
}

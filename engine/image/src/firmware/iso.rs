//! The CD: ISO 9660 with an El Torito boot image for BIOS and one for UEFI, by xorriso. Written to a USB stick it boots
//! from there too.

use std::fs::{self, File};
use std::io::{self, Cursor};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::grub::{self, Grub};
use super::limine::Limine;
use super::{BootFile, Booted, FirmwareError, Identity, Loader, fat, tool};
use crate::watch::Watch;

/// Where the boot images lie on the CD.
const BIOS_IMAGE: &str = "boot/bios.img";
const EFI_IMAGE: &str = "boot/efi.img";
/// What El Torito loads of the image for BIOS, in sectors of 512 bytes: that code reads the rest itself.
const LOAD_SIZE: &str = "4";

pub(super) fn write(
    loader: &Loader,
    booted: &Booted<'_>,
    path: &Path,
    watch: &dyn Watch,
) -> Result<(), FirmwareError> {
    watch.begin("writing the CD image", None);
    match loader {
        Loader::Grub(modules) => {
            let id = grub::identity(booted);
            let grub = Grub::make(modules, id, watch)?;
            let mut files = grub.volume(booted)?;
            let efi = [BootFile::new("EFI/BOOT/BOOTX64.EFI", grub.efi.clone())];
            files.push(BootFile::new(
                EFI_IMAGE,
                efi_volume(id, &efi).map_err(FirmwareError::write(path))?,
            ));
            files.push(BootFile::new(BIOS_IMAGE, grub.el_torito()?));
            let mbr = grub.hybrid_mbr();
            let more = ["--grub2-boot-info".into(), "--grub2-mbr".into(), mbr.into_os_string()];
            compose(&files, &more, booted.mtime, path, watch)
        }
        Loader::Limine(dir) => {
            let limine = Limine::open(dir)?;
            let mut files = limine.volume(booted)?;
            let [bios, efi] = limine.cd()?;
            files.push(BootFile::new(EFI_IMAGE, efi));
            files.push(BootFile::new(BIOS_IMAGE, bios));
            compose(&files, &[], booted.mtime, path, watch)?;
            limine.bios_install(path, None, watch)
        }
    }
}

fn efi_volume(id: Identity, files: &[BootFile<'_>]) -> io::Result<Vec<u8>> {
    let volume = fat::Volume::small(files, id.serial())?;
    let mut image = Cursor::new(vec![0; usize::try_from(volume.size()).map_err(io::Error::other)?]);
    volume.write(&mut image, 0)?;
    Ok(image.into_inner())
}

/// Lays the files out in a directory beside the CD and lets xorriso pack it.
fn compose(
    files: &[BootFile<'_>],
    more: &[std::ffi::OsString],
    mtime: u32,
    path: &Path,
    watch: &dyn Watch,
) -> Result<(), FirmwareError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let root = tempfile::tempdir_in(parent).map_err(FirmwareError::write(parent))?;
    for BootFile { path, bytes } in files {
        let place = root.path().join(path);
        let dir = place.parent().unwrap_or(root.path());
        fs::create_dir_all(dir).map_err(FirmwareError::write(dir))?;
        fs::write(&place, bytes).map_err(FirmwareError::write(&place))?;
    }
    stamp(root.path(), mtime)?;
    let mut xorriso = tool::command("xorriso", "package xorriso");
    // It takes the CD's own times and identifiers from this, and every time of a file from the file's last change.
    xorriso.command.env("SOURCE_DATE_EPOCH", mtime.to_string());
    xorriso.command.args(["-as", "mkisofs", "-quiet", "-r", "-V", "KEEL", "-b", BIOS_IMAGE]);
    xorriso.command.args(["-no-emul-boot", "-boot-load-size", LOAD_SIZE, "-boot-info-table"]);
    xorriso.command.args(more);
    xorriso.command.args(["--efi-boot", EFI_IMAGE, "-efi-boot-part", "--efi-boot-image"]);
    xorriso.command.args(["--protective-msdos-label", "-o"]).arg(path).arg(root.path());
    xorriso.run(watch)
}

/// Gives everything below a directory, and itself, one time of its last change.
fn stamp(root: &Path, mtime: u32) -> Result<(), FirmwareError> {
    let time = UNIX_EPOCH + Duration::from_secs(mtime.into());
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).map_err(FirmwareError::write(&dir))? {
            let path = entry.map_err(FirmwareError::write(&dir))?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                set_modified(&path, time)?;
            }
        }
        set_modified(&dir, time)?;
    }
    Ok(())
}

fn set_modified(path: &Path, time: SystemTime) -> Result<(), FirmwareError> {
    let set = File::open(path).and_then(|file| file.set_modified(time));
    set.map_err(FirmwareError::write(path))
}

//! Images that firmware boots: a raw disk and an ISO, each under UEFI and under BIOS, with GRUB or with Limine.
//!
//! Both hold one boot volume with the kernel, the initramfs and the loader's files. Everything that tells one image from
//! another (GUIDs, the volume's serial number) is computed from what the image boots, so the same inputs give the same
//! bytes; no clock is read and no device is opened.

mod disk;
mod fat;
mod grub;
mod iso;
mod limine;
mod tool;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

pub(crate) use disk::LABELS as BOOT_LABELS;
pub use grub::GRUB_MODULES;
pub use tool::ToolError;

use crate::manifest;
use crate::watch::Watch;

/// What a firmware image is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A raw GPT disk, `keel.img`.
    Disk,
    /// The same disk as qcow2, `keel.qcow2`.
    Qcow2,
    /// A CD, which a USB stick boots too: `keel.iso`.
    Iso,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Disk, Self::Qcow2, Self::Iso];

    /// The file's name in an image directory.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Disk => "keel.img",
            Self::Qcow2 => "keel.qcow2",
            Self::Iso => "keel.iso",
        }
    }
}

/// What loads the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loader {
    /// GRUB 2; its modules are in `x86_64-efi` and `i386-pc` below this directory.
    Grub(PathBuf),
    /// Limine, from a directory with its release's files.
    Limine(PathBuf),
}

/// A firmware image that could not be made.
#[derive(Debug, Error)]
pub enum FirmwareError {
    /// A file of the loader cannot be read.
    #[error("cannot read {}, which {loader} needs{}", path.display(), hint(loader))]
    Loader {
        /// Which loader.
        loader: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the loader is not what it should be.
    #[error("{} is not what {loader} calls by that name: {why}", path.display())]
    Unexpected {
        /// Which loader.
        loader: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A kernel argument that the loader's configuration cannot carry.
    #[error("the kernel argument {0:?} cannot stand in a boot loader's configuration")]
    Argument(String),
    /// A tool failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The image could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was told to stop.
    #[error("stopped")]
    Cancelled,
}

fn hint(loader: &str) -> &'static str {
    match loader {
        "GRUB" => " (Debian: packages grub-efi-amd64-bin and grub-pc-bin)",
        _ => "",
    }
}

impl FirmwareError {
    fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}

/// What is booted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Booted<'a> {
    pub(crate) kernel: &'a [u8],
    pub(crate) initramfs: &'a [u8],
    pub(crate) arguments: &'a [String],
    /// Seconds since 1970, for a format that holds a time.
    pub(crate) mtime: u32,
}

/// One file of the boot volume.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BootFile<'a> {
    /// Its path, without a leading slash.
    path: String,
    bytes: Cow<'a, [u8]>,
}

impl<'a> BootFile<'a> {
    fn new(path: impl Into<String>, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { path: path.into(), bytes: bytes.into() }
    }
}

const KERNEL: &str = "keel/vmlinuz";
const INITRAMFS: &str = "keel/initramfs.zst";

/// Names what is computed from an image's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity([u8; 32]);

impl Identity {
    fn of(booted: &Booted<'_>, loader: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [loader.as_bytes(), booted.arguments.join(" ").as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(Sha256::digest(booted.kernel));
        hash.update(Sha256::digest(booted.initramfs));
        Self(hash.finalize().into())
    }

    /// A GUID for one role in this image: version 8 of RFC 9562, which leaves the bits to the maker.
    fn guid(self, role: &str) -> Uuid {
        let sum = Sha256::new().chain_update(self.0).chain_update(role).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&sum[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// The disk's GUID, which says that the disk is an image of Keel.
    fn disk(self) -> Uuid {
        let mut bytes = self.guid("disk").into_bytes();
        bytes[..6].copy_from_slice(&keel_unit::kinds::IMAGE_DISK_MARK);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// The file by which the loader knows its own volume among others.
    fn mark(self) -> String {
        format!("keel/{}", self.guid("volume"))
    }

    /// The serial number of a FAT volume.
    fn serial(self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

/// Writes these formats into `dir` and returns their names. The raw disk is made where qcow2 alone is asked for, and then
/// removed again.
pub(crate) fn write(
    formats: &[Format],
    loader: &Loader,
    booted: &Booted<'_>,
    dir: &Path,
    watch: &dyn Watch,
) -> Result<Vec<&'static str>, FirmwareError> {
    let wants = |format| formats.contains(&format);
    if wants(Format::Disk) || wants(Format::Qcow2) {
        let raw = dir.join(Format::Disk.file());
        disk::write(loader, booted, &raw, watch)?;
        if wants(Format::Qcow2) {
            watch.begin("converting the disk to qcow2", None);
            let mut convert = tool::command("qemu-img", "package qemu-utils");
            convert.command.args(["convert", "-f", "raw", "-O", "qcow2"]);
            convert.command.arg(&raw).arg(dir.join(Format::Qcow2.file()));
            convert.run(watch)?;
        }
        if !wants(Format::Disk) {
            std::fs::remove_file(&raw).map_err(FirmwareError::write(&raw))?;
        }
    }
    if wants(Format::Iso) {
        iso::write(loader, booted, &dir.join(Format::Iso.file()), watch)?;
    }
    Ok(Format::ALL.into_iter().filter(|format| wants(*format)).map(Format::file).collect())
}

/// Reads a file that a loader brings.
fn loader_file(loader: &'static str, path: &Path) -> Result<Vec<u8>, FirmwareError> {
    manifest::can_end(path)
        .and_then(|()| std::fs::read(path))
        .map_err(|source| FirmwareError::Loader { loader, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_follows_from_the_content_alone() {
        let of = |kernel: &[u8], arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(|a| (*a).to_owned()).collect();
            Identity::of(
                &Booted { kernel, initramfs: b"i", arguments: &arguments, mtime: 7 },
                "GRUB",
            )
        };
        assert_eq!(of(b"k", &["a"]), of(b"k", &["a"]));
        assert_ne!(of(b"k", &["a"]), of(b"k", &["b"]));
        assert_ne!(of(b"k", &[]), of(b"j", &[]));
        let id = of(b"k", &[]);
        assert_ne!(id.guid("esp"), id.guid("disk"));
        assert_eq!(id.guid("esp").get_version_num(), 8);
        assert!(id.disk().to_string().starts_with("4b65656c-4f53-8"), "{}", id.disk());
    }
}

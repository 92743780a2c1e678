//! What an image holds, written beside it: the image's table of contents and its last-written file.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::tree::{Node, Tree};

/// The kernel's name in an image directory.
pub(crate) const KERNEL: &str = "vmlinuz";
/// The initramfs' name in an image directory.
pub(crate) const INITRAMFS: &str = "initramfs.zst";
/// The manifest's name in an image directory.
pub(crate) const MANIFEST: &str = "manifest.json";

/// Everything that an image took. The same inputs give the same bytes on every machine, so no path
/// of the machine that built it is in here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub schema: u32,
    /// The release of the kernel and its modules.
    pub kernel_release: String,
    /// Kernel arguments of the machine config.
    pub arguments: Vec<String>,
    /// The port at which the node's API answers.
    #[serde(default = "api_port")]
    pub api_port: u16,
    /// The kernel file.
    pub kernel: Blob,
    /// The compressed initramfs.
    pub initramfs: Blob,
    /// The images of it that firmware boots, if any were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub firmware: Vec<Blob>,
    /// The initramfs' size once unpacked: what it takes of a node's memory.
    pub unpacked: u64,
    /// Every file in the initramfs by path; directories are left out.
    pub files: Vec<Taken>,
}

/// Where the agent listens, unless the machine config says otherwise.
pub const API_PORT: u16 = 50051;

/// For images that were built before they said anything.
fn api_port() -> u16 {
    API_PORT
}

/// A file beside the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Its name in the image directory.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// One file of the initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Absolute path on the node.
    pub path: String,
    /// Permission bits in octal, such as `0755`.
    pub mode: String,
    /// Bytes; absent for links and devices.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// SHA-256 in hex; absent for links and devices.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
    /// Where a symbolic link leads.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub link: Option<String>,
    /// Why it was taken.
    pub why: String,
}

/// A directory that holds no whole image.
#[derive(Debug, Error)]
#[error("{} holds no image", dir.display())]
pub struct OpenError {
    /// The directory.
    pub dir: PathBuf,
    /// What is wrong.
    #[source]
    pub kind: OpenErrorKind,
}

/// What is wrong with an image directory.
#[derive(Debug, Error)]
pub enum OpenErrorKind {
    /// A file of it cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// Which file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The manifest is none.
    #[error("{MANIFEST} is not a manifest")]
    Manifest(#[source] serde_json::Error),
    /// The files beside the manifest are not the ones it lists.
    #[error("{file} is {found} bytes, and the manifest says {expected}")]
    Size {
        /// Which file.
        file: String,
        /// Its size.
        found: u64,
        /// The manifest's.
        expected: u64,
    },
}

/// A whole image on disk: kernel, initramfs and the manifest that vouches for both.
#[derive(Debug, Clone)]
pub struct ImageDir {
    /// The kernel's path.
    pub kernel: PathBuf,
    /// The initramfs' path.
    pub initramfs: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
}

impl ImageDir {
    /// Opens an image that [`crate::build`] wrote. The manifest is written last, so one that is
    /// there and agrees with the sizes means that the build was not cut off.
    ///
    /// # Errors
    /// See [`OpenErrorKind`].
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::read(dir).map_err(|kind| OpenError { dir: dir.to_owned(), kind })
    }

    fn read(dir: &Path) -> Result<Self, OpenErrorKind> {
        let cannot = |file: &str| {
            let file = file.to_owned();
            move |source| OpenErrorKind::Read { file, source }
        };
        let path = dir.join(MANIFEST);
        let text = can_end(&path).and_then(|()| fs::read(&path)).map_err(cannot(MANIFEST))?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(OpenErrorKind::Manifest)?;
        let beside = [&manifest.kernel, &manifest.initramfs].into_iter().chain(&manifest.firmware);
        for Blob { file, size, .. } in beside {
            let found = fs::metadata(dir.join(file)).map_err(cannot(file))?.len();
            if found != *size {
                return Err(OpenErrorKind::Size { file: file.clone(), found, expected: *size });
            }
        }
        Ok(Self {
            kernel: dir.join(&manifest.kernel.file),
            initramfs: dir.join(&manifest.initramfs.file),
            manifest,
        })
    }
}

/// Lists a tree.
pub(crate) fn list(tree: &Tree) -> Vec<Taken> {
    let listed = tree.iter().filter_map(|(path, entry)| {
        let (bytes, link) = match &entry.node {
            Node::Directory => return None,
            Node::File(bytes) => (Some(bytes), None),
            Node::Symlink(target) => (None, Some(target.clone())),
            Node::CharDevice { .. } => (None, None),
        };
        Some(Taken {
            path: format!("/{path}"),
            mode: format!("{:04o}", entry.mode),
            size: bytes.map(|b| b.len() as u64),
            sha256: bytes.map(|b| sha256(b)),
            link,
            why: entry.why.clone(),
        })
    });
    listed.collect()
}

/// Describes a file beside the manifest.
pub(crate) fn blob(file: &str, bytes: &[u8]) -> Blob {
    Blob { file: file.to_owned(), size: bytes.len() as u64, sha256: sha256(bytes) }
}

/// Describes a file beside the manifest that is read from where it is.
pub(crate) fn blob_at(path: &Path, file: &str) -> io::Result<Blob> {
    can_end(path)?;
    let mut from = fs::File::open(path)?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(Blob { file: file.to_owned(), size, sha256: hex(&hash.finalize()) });
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

/// Refuses what is waited for, or read, without end: a FIFO, a device.
pub(crate) fn can_end(path: &Path) -> io::Result<()> {
    let about = fs::metadata(path)?;
    if about.is_file() || about.is_dir() {
        Ok(())
    } else {
        Err(io::Error::other("it is a FIFO, socket or device"))
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

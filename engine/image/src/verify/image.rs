//! An image on disk, read whole: its own files, not what its manifest says of them.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use keel_unit::Input;
use keel_unit::source::{FileId, Sources, Span};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::archive::{ArchiveError, Files, Kind, hex};
use super::content::Content;
use super::kernel::Kernel;
use crate::elf::Machine;
use crate::manifest::{self, ImageDir, MANIFEST, Manifest, OpenError};

/// The largest kernel that is read.
const LARGEST_KERNEL: u64 = 1 << 30;

/// Where the node finds its units and its config.
pub(super) const UNITS: &str = "/etc/keel/units";
pub(super) const CONFIG: &str = "/etc/keel/config.toml";

/// An image whose files were read.
#[derive(Debug)]
pub struct Image {
    /// What the build said of it.
    pub manifest: Manifest,
    /// The manifest's name and text, so that findings can point into it.
    pub(super) listing: (String, String),
    pub(super) kernel: Kernel,
    pub(super) kernel_sha256: String,
    pub(super) initramfs_sha256: String,
    /// Of the images for firmware, in the manifest's order.
    pub(super) firmware_sha256: Vec<String>,
    pub(super) files: Files,
}

/// An image that cannot be looked into.
#[derive(Debug, Error)]
#[error("cannot look into the image in {}", dir.display())]
pub struct ImageError {
    /// Its directory.
    pub dir: PathBuf,
    /// What is in the way.
    #[source]
    pub kind: ImageErrorKind,
}

/// What is in the way.
#[derive(Debug, Error)]
pub enum ImageErrorKind {
    /// It is no image.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// Which.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The initramfs is none.
    #[error("{file} is no initramfs that a kernel unpacks")]
    Initramfs {
        /// Its name.
        file: String,
        /// What is wrong with it.
        source: ArchiveError,
    },
}

impl Image {
    /// Reads an image that [`crate::build`] wrote.
    ///
    /// # Errors
    /// See [`ImageErrorKind`].
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        Self::read(dir).map_err(|kind| ImageError { dir: dir.to_owned(), kind })
    }

    fn read(dir: &Path) -> Result<Self, ImageErrorKind> {
        let cannot = |path: &Path| {
            let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            move |source| ImageErrorKind::Read { file, source }
        };
        let image = ImageDir::open(dir)?;
        let listing = dir.join(MANIFEST);
        let text = fs::read_to_string(&listing).map_err(cannot(&listing))?;

        let mut kernel = Vec::new();
        fs::File::open(&image.kernel)
            .and_then(|file| file.take(LARGEST_KERNEL).read_to_end(&mut kernel))
            .map_err(cannot(&image.kernel))?;

        let initramfs = fs::File::open(&image.initramfs).map_err(cannot(&image.initramfs))?;
        let mut hashed = Hashed { reader: initramfs, digest: Sha256::new() };
        let files = Files::read(&mut hashed).map_err(|source| ImageErrorKind::Initramfs {
            file: image.manifest.initramfs.file.clone(),
            source,
        })?;
        // What stands behind the archive belongs to the file all the same.
        io::copy(&mut hashed, &mut io::sink()).map_err(cannot(&image.initramfs))?;
        let firmware = image.manifest.firmware.iter().map(|blob| {
            let path = dir.join(&blob.file);
            Ok(manifest::blob_at(&path, &blob.file).map_err(cannot(&path))?.sha256)
        });
        let firmware_sha256 = firmware.collect::<Result<_, ImageErrorKind>>()?;
        Ok(Self {
            firmware_sha256,
            listing: (listing.display().to_string(), text),
            kernel: Kernel::read(&kernel),
            kernel_sha256: hex(&Sha256::digest(&kernel)),
            initramfs_sha256: hex(&hashed.digest.finalize()),
            manifest: image.manifest,
            files,
        })
    }

    /// The units and the machine config that are in the image, as the node itself would read them.
    #[must_use]
    pub fn input(&self) -> Input {
        let (listing, _) = &self.listing;
        let dir = Path::new(listing).parent().unwrap_or(Path::new(""));
        let shown = |path: &str| format!("{}:{path}", dir.display());
        let mut input = Input::default();
        for (path, text) in self.texts() {
            match path == CONFIG {
                true => input.config(&shown(&path), text),
                false => input.unit(&shown(&path), text),
            }
        }
        input
    }

    /// What the image's units and config say that these files do not, and the other way round; by path below the units' folder.
    #[must_use]
    pub fn differences(&self, units: &[(String, String)], config: Option<&str>) -> Vec<String> {
        let mut differences = Vec::new();
        let inside: Vec<_> = self.texts().collect();
        let own = |path: &str| {
            let path = format!("{UNITS}/{path}");
            inside.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
        };
        for (path, text) in units {
            match own(path) {
                None => differences.push(format!("unit file {path} is not in the image")),
                Some(inside) if inside != text => {
                    differences.push(format!("unit file {path} differs"));
                }
                Some(_) => {}
            }
        }
        for (path, _) in &inside {
            let Some(below) = path.strip_prefix(UNITS).map(|path| path.trim_start_matches('/'))
            else {
                continue;
            };
            if !units.iter().any(|(known, _)| known == below) {
                differences.push(format!("unit file {below} is in the image alone"));
            }
        }
        if config.is_some_and(|config| self.files.text(CONFIG) != Some(config)) {
            differences.push("the machine config differs".to_owned());
        }
        differences
    }

    /// Units and config, as the node reads them.
    fn texts(&self) -> impl Iterator<Item = (String, &str)> {
        self.files.iter().filter_map(|(path, file)| {
            let below = path.strip_prefix(UNITS).is_some_and(|rest| rest.starts_with('/'));
            // A name with a dot in front is none of a unit file.
            let hidden = path.split('/').any(|part| part.starts_with('.'));
            let wanted = path == CONFIG || (below && !hidden && path.ends_with(".toml"));
            match &file.kind {
                Kind::Regular { content: Content::Text(text), .. } if wanted => {
                    Some((path, text.as_str()))
                }
                _ => None,
            }
        })
    }

    /// What init is built for.
    pub(super) fn machine(&self) -> Option<Machine> {
        match &self.files.resolve("/init")?.1.kind {
            Kind::Regular { content: Content::Elf(elf), .. } => Some(elf.machine),
            _ => None,
        }
    }

    /// Makes the manifest a file that findings can point into.
    pub(super) fn add_manifest(&self, sources: &mut Sources) -> Listing<'_> {
        let (name, text) = &self.listing;
        Listing { file: sources.add(name, text.as_str()), text }
    }
}

/// The manifest as a file.
pub(super) struct Listing<'a> {
    file: FileId,
    text: &'a str,
}

impl Listing<'_> {
    /// Where a value stands for the first time, such as a file's path.
    pub(super) fn span_of(&self, value: &str) -> Span {
        let quoted = serde_json::to_string(value).unwrap_or_default();
        match self.text.find(&quoted) {
            Some(at) => Span { file: self.file, start: at as u32, end: (at + quoted.len()) as u32 },
            None => Span::whole(self.file),
        }
    }
}

/// A reader that hashes what goes through it.
struct Hashed<R> {
    reader: R,
    digest: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.digest.update(&buffer[..read]);
        Ok(read)
    }
}

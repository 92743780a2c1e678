//! The folder itself. It does as it is told; what a call means is the store's to know.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use keel_host::mount::table;
use nix::fcntl::OFlag;

use super::{Disk, LARGEST};

/// The most names that are looked at.
const MOST_NAMES: usize = 1024;

/// A folder, for root alone.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder of that name on what is mounted at `storage`; made if it is not there.
    pub(crate) fn on(storage: &Path, name: &str) -> io::Result<Self> {
        let mounts = table::observe()?;
        if table::top(&mounts, storage).is_none() {
            let what = format!("nothing is mounted at {}", storage.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        Self::at(&storage.join(name))
    }

    /// The folder at that path; made if it is not there.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => File::open(path.parent().unwrap_or(path))?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        if !fs::symlink_metadata(path)?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no folder of its own"));
        }
        Ok(Self { path: path.to_owned() })
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let path = self.path.join(name);
        OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
    }
}

impl Disk for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?
            .take(MOST_NAMES)
            .map(|entry| entry.map(|entry| entry.file_name().into_string()));
        // A name that is no UTF-8 is none of ours.
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.open(name)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut content = Vec::new();
        file.take(LARGEST).read_to_end(&mut content)?;
        Ok(content)
    }

    fn create(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.path.join(name);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.open(name)?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

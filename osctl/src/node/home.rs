//! Where osctl keeps what it remembers: one folder of the user's, two files in it.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use crate::error::Failure;
use crate::place;

/// Names the folder in place of the usual one.
pub(crate) const VARIABLE: &str = "OSCTL_HOME";

/// The most bytes of a file there: some 10,000 nodes.
const LARGEST: u64 = 1024 * 1024;

/// A file of osctl's own.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    path: PathBuf,
}

impl Kept {
    /// The file of that name in osctl's folder.
    pub(crate) fn named(name: &str) -> Result<Self, Failure> {
        Ok(Self { path: folder()?.join(name) })
    }

    #[cfg(test)]
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it; nothing, where there is no such file yet.
    pub(crate) fn read(&self) -> Result<String, Failure> {
        read(&self.path).map_err(|source| {
            Failure::new(format!("cannot read {}", self.path.display()))
                .because(source)
                .next(format!("see what it is; {VARIABLE} names another folder"))
        })
    }

    /// Replaces its text by what `edit` makes of it: whole or not at all, for this user's eyes, and one osctl at a time.
    pub(crate) fn edit<T>(
        &self,
        edit: impl FnOnce(&str) -> Result<(T, Option<String>), Failure>,
    ) -> Result<T, Failure> {
        let cannot = |source: io::Error| {
            Failure::new(format!("cannot write {}", self.path.display()))
                .because(source)
                .next(format!("see whether you may write there; {VARIABLE} names another folder"))
        };
        let _alone = self.lock().map_err(cannot)?;
        let (result, text) = edit(&self.read()?)?;
        if let Some(text) = text {
            place::write_private(&self.path, text.as_bytes()).map_err(cannot)?;
        }
        Ok(result)
    }

    /// Held until it is dropped; the kernel lets go of it if this process ends.
    fn lock(&self) -> io::Result<File> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut name = self.path.clone().into_os_string();
        name.push(".lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(name)?;
        file.lock()?;
        Ok(file)
    }
}

fn folder() -> Result<PathBuf, Failure> {
    if let Some(folder) = env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let strategy = etcetera::choose_base_strategy().map_err(|source| {
        Failure::new("this user has no home folder")
            .because(source)
            .next(format!("name a folder for osctl's files with {VARIABLE}"))
    })?;
    Ok(strategy.config_dir().join("keel"))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(text),
        opened => opened?,
    };
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {LARGEST} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editors_side_by_side_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::at(folder.path().join("deep/known-nodes"));
        std::thread::scope(|scope| {
            for n in 0..16 {
                let kept = &kept;
                scope.spawn(move || {
                    kept.edit(|text| Ok(((), Some(format!("{text}{n}\n"))))).unwrap();
                });
            }
        });
        let mut lines: Vec<u32> =
            kept.read().unwrap().lines().map(|line| line.parse().unwrap()).collect();
        lines.sort_unstable();
        assert_eq!(lines, (0..16).collect::<Vec<_>>());
    }

    #[cfg(unix)]
    #[test]
    fn it_is_for_one_user_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::at(folder.path().join("known-nodes"));
        fs::write(kept.path(), "old").unwrap();
        fs::set_permissions(kept.path(), fs::Permissions::from_mode(0o644)).unwrap();
        kept.edit(|_| Ok(((), Some("new".to_owned())))).unwrap();
        assert_eq!(fs::metadata(kept.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::at(folder.path().join("known-nodes"));
        assert_eq!(kept.read().unwrap(), "");
        fs::write(kept.path(), vec![b'#'; 1024 * 1024 + 1]).unwrap();
        assert!(kept.read().is_err());
    }
}

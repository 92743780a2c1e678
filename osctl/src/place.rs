//! Files that a command leaves behind: whole or not at all, and nothing but a file is ever replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Most links that are followed for one path; Linux gives up after as many.
const MOST_LINKS: usize = 40;

/// Writes a file, and replaces the one that is there.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    place(path, bytes, true)
}

/// Writes a file that is not there yet.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`], where it is.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    place(path, bytes, false)
}

/// Writes a file that nobody but this user may read, and replaces the one that is there.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = end_of(path)?.ok_or_else(|| io::Error::other("it is no file with a place"))?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    // Mode 0600 is tempfile's own.
    let mut file = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(target).map(drop).map_err(|error| error.error)
}

/// Reads a text that a person wrote: of a regular file, and no more than `largest` bytes. A FIFO or a device could hang whoever reads it.
///
/// # Errors
/// What the system says, or [`io::ErrorKind::InvalidInput`] for what is no such file.
pub(crate) fn read_text(path: &Path, largest: u64) -> io::Result<String> {
    let unfit = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    if !fs::metadata(path)?.is_file() {
        return Err(unfit("it is no regular file"));
    }
    let mut text = String::new();
    let read = File::open(path)?.take(largest + 1).read_to_string(&mut text)?;
    if read as u64 > largest {
        return Err(unfit(&format!("it has more than {largest} bytes")));
    }
    Ok(text)
}

fn place(path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    let old = fs::metadata(path).ok();
    let target = match end_of(path)? {
        // A device, a pipe, a terminal: there is nothing to replace, and a file in its place would be wrong.
        Some(_) if old.as_ref().is_some_and(|old| !old.is_file() && !old.is_dir()) => {
            return OpenOptions::new().write(true).open(path)?.write_all(bytes);
        }
        // What a descriptor leads to is another program's: it goes on writing to that very file.
        None => return OpenOptions::new().append(true).open(path)?.write_all(bytes),
        Some(target) => target,
    };
    if !replace && fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = new_in(parent.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    if let Some(old) = old {
        keep(&old, file.as_file())?;
    }
    file.as_file().sync_all()?;
    let placed = if replace { file.persist(target) } else { file.persist_noclobber(target) };
    // What could not be placed goes with the error.
    placed.map(drop).map_err(|error| error.error)
}

/// Where a path's links end, whether or not something is there; none, if one of them is a descriptor of a process.
fn end_of(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.map(|parent| parent.canonicalize().unwrap_or_else(|_| parent.into()));
        let Ok(to) = fs::read_link(&path) else { return Ok(Some(path)) };
        if parent.as_ref().is_some_and(|parent| parent.starts_with("/proc")) {
            // A pipe or a socket has no path; its metadata says what it is.
            let file = fs::metadata(&path).is_ok_and(|about| about.is_file());
            return Ok((!file).then_some(path));
        }
        path = parent.unwrap_or_default().join(to);
    }
    Err(io::Error::other("too many symbolic links"))
}

/// A file with a name that nobody can guess, for this user's umask to say who may read it.
fn new_in(parent: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(parent)
}

/// Mode and, as far as this user may, owner of the file that is replaced.
fn keep(old: &fs::Metadata, new: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, fchown};
        // Only root can give a file away; for everybody else it becomes theirs, as every new file does.
        let _: io::Result<()> = fchown(new, Some(old.uid()), Some(old.gid()));
    }
    new.set_permissions(old.permissions())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(dir: &Path) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_behind_its_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "old").unwrap();
        fs::set_permissions(at("file"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", at("link")).unwrap();
        symlink("later", at("dangling")).unwrap();
        write(&at("link"), b"new").unwrap();
        write(&at("dangling"), b"late").unwrap();
        assert_eq!(fs::read(at("file")).unwrap(), b"new");
        assert_eq!(fs::metadata(at("file")).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(at("link").is_symlink() && at("dangling").is_symlink());
        assert_eq!(fs::read(at("later")).unwrap(), b"late");
        assert_eq!(names(dir.path()).unwrap(), ["dangling", "file", "later", "link"]);
    }

    #[test]
    fn what_is_no_file_is_written_to_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("null");
        symlink("/dev/null", &link).unwrap();
        write(&link, b"x").unwrap();
        write_new(&link, b"x").unwrap();
        assert!(link.is_symlink() && !fs::metadata("/dev/null").unwrap().is_file());
        let (reader, writer) = io::pipe().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
        write(Path::new(&format!("/dev/fd/{fd}")), b"through").unwrap();
        drop(writer);
        assert_eq!(io::read_to_string(reader).unwrap(), "through");
        let file = File::create(dir.path().join("out")).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        write(Path::new(&format!("/dev/fd/{fd}")), b"same file").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 9);
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        symlink("nowhere", dir.path().join("link")).unwrap();
        write(&dir.path().join("folder"), b"x").unwrap_err();
        for taken in ["folder", "link"] {
            let error = write_new(&dir.path().join(taken), b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{taken}");
        }
        assert_eq!(names(dir.path()).unwrap(), ["folder", "link"]);
    }
}

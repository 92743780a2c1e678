//! Files, directories and symbolic links, made as a unit says and left alone when they are so already.
//!
//! A file is replaced in one step: the new content is written beside it under another name, with its permissions from
//! the first moment, and renamed over it. A reader sees the old file or the new one, a secret is never open to others.

mod ledger;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use keel_unit::kinds;

pub use self::ledger::Ledger;

/// Whether anything had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It was so already.
    Unchanged,
    /// It is so since now.
    Changed,
}

/// Something that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {}", path.display())]
pub struct FileError {
    path: PathBuf,
    attempt: &'static str,
    #[source]
    source: io::Error,
}

/// Makes what the unit says.
pub fn make(unit: &kinds::File) -> Result<Made, FileError> {
    let path = unit.path.as_path();
    let mode = unit.mode.map_or_else(|| default_mode(unit), |mode| mode.0);
    match (&unit.content, &unit.copy, &unit.symlink) {
        (Some(content), ..) => write(path, content.as_str().as_bytes(), mode),
        (_, Some(from), _) => copy(path, from.as_path(), mode),
        (_, _, Some(target)) => link(path, target.as_path()),
        // The unit was validated: one of the four is written.
        (None, None, None) => directory(path, mode),
    }
}

fn default_mode(unit: &kinds::File) -> u32 {
    match (unit.secret, unit.directory) {
        (true, true) => 0o700,
        (true, false) => 0o600,
        (false, true) => 0o755,
        (false, false) => 0o644,
    }
}

/// Writes a file with exactly these permission bits, and the directories above it. When this returns, the file is on
/// the disk, with its name: it is there after a power failure. (On a tmpfs that costs nothing.)
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<Made, FileError> {
    if holds(path, content, mode) {
        return Ok(Made::Unchanged);
    }
    make_parent(path)?;
    replace(path, |beside| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode & 0o600).open(beside)?;
        file.write_all(content)?;
        // Now that it is whole; and set, not asked for, since the umask takes from what open(2) is asked for.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    })
    .map_err(|source| FileError { path: path.to_owned(), attempt: "write", source })?;
    let parent = path.parent().unwrap_or(path);
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(|source| FileError {
        path: parent.to_owned(),
        attempt: "sync",
        source,
    })?;
    Ok(Made::Changed)
}

/// Writes a file with the content of another.
pub fn copy(path: &Path, from: &Path, mode: u32) -> Result<Made, FileError> {
    let content = fs::read(from).map_err(|source| FileError {
        path: from.to_owned(),
        attempt: "read",
        source,
    })?;
    write(path, &content, mode)
}

/// Makes a directory with exactly these permission bits, and the directories above it (0755).
pub fn directory(path: &Path, mode: u32) -> Result<Made, FileError> {
    let error = |source| FileError { path: path.to_owned(), attempt: "make directory", source };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            if found.permissions().mode() & 0o7777 == mode {
                return Ok(Made::Unchanged);
            }
        }
        Ok(_) => return Err(error(io::ErrorKind::NotADirectory.into())),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            make_parent(path)?;
            fs::DirBuilder::new().mode(mode).create(path).map_err(error)?;
        }
        Err(other) => return Err(error(other)),
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(error)?;
    Ok(Made::Changed)
}

/// Makes a symbolic link to `target`, in place of a file or another link.
pub fn link(path: &Path, target: &Path) -> Result<Made, FileError> {
    if fs::read_link(path).is_ok_and(|found| found == target) {
        return Ok(Made::Unchanged);
    }
    make_parent(path)?;
    replace(path, |beside| symlink(target, beside)).map_err(|source| FileError {
        path: path.to_owned(),
        attempt: "link",
        source,
    })?;
    Ok(Made::Changed)
}

/// Whether a regular file with this content and mode is there. Never reads more than it must.
fn holds(path: &Path, content: &[u8], mode: u32) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    if !found.is_file()
        || found.permissions().mode() & 0o7777 != mode
        || found.len() != content.len() as u64
    {
        return false;
    }
    let mut held = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(content.len() as u64 + 1).read_to_end(&mut held));
    read.is_ok() && held == content
}

/// Makes something under a name that no one else has, then gives it its own. Leaves nothing behind on an error.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    // Beside it, so that the rename stays inside one filesystem.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    name.push(format!(".keel-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let beside = path.with_file_name(name);

    // Left over from before a power failure, when the process ids were the same.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = make(&beside).and_then(|()| fs::rename(&beside, path));
    if made.is_err() {
        // The first error is the one to tell.
        fs::remove_file(&beside).ok();
    }
    made
}

fn make_parent(path: &Path) -> Result<(), FileError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(|source| FileError {
        path: parent.to_owned(),
        attempt: "make directory",
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use keel_unit::keys::Text;
    use keel_unit::value::{AbsPath, Content, FileMode};
    use tempfile::TempDir;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_written_once() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a/b/file");
        let check = |content: &str, bits: u32, expect: Made| {
            assert_eq!(
                write(&path, content.as_bytes(), bits).unwrap(),
                expect,
                "{content} {bits:o}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(mode(&path), bits);
            assert_eq!(names(path.parent().unwrap()), ["file"]);
        };
        check("one", 0o644, Made::Changed);
        let inode = fs::metadata(&path).unwrap().ino();
        check("one", 0o644, Made::Unchanged);
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "left alone");
        check("two", 0o644, Made::Changed);
        check("two", 0o600, Made::Changed);
        check("two", 0o4755, Made::Changed);
        check("", 0o400, Made::Changed);
        assert_eq!(mode(&dir.path().join("a")), 0o755);
    }

    #[test]
    fn a_reader_never_sees_half_a_file() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("file");
        let contents = [vec![b'a'; 70_000], vec![b'b'; 50_000]];
        write(&path, &contents[0], 0o644).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 0..200 {
                    write(&path, &contents[round % 2], 0o644).unwrap();
                }
            });
            while !writer.is_finished() {
                let seen = fs::read(&path).unwrap();
                assert!(contents.contains(&seen), "{} bytes", seen.len());
            }
        });
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let dir = TempDir::new().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        fs::write(&other, "precious").unwrap();
        symlink(&other, &path).unwrap();
        assert_eq!(write(&path, b"new", 0o644).unwrap(), Made::Changed);
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn directories() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("x/y");
        let check = |bits: u32, expect: Made| {
            assert_eq!(directory(&path, bits).unwrap(), expect);
            assert_eq!(mode(&path), bits);
        };
        check(0o1777, Made::Changed);
        check(0o1777, Made::Unchanged);
        check(0o700, Made::Changed);
        assert_eq!(mode(&dir.path().join("x")), 0o755);

        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = directory(&file, 0o755).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot make directory {}", file.display()));
    }

    #[test]
    fn links() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("etc/mtab");
        let check = |target: &str, expect: Made| {
            assert_eq!(link(&path, Path::new(target)).unwrap(), expect);
            assert_eq!(fs::read_link(&path).unwrap(), Path::new(target));
            assert_eq!(names(path.parent().unwrap()), ["mtab"]);
        };
        check("/proc/mounts", Made::Changed);
        check("/proc/mounts", Made::Unchanged);
        check("../proc/self/mounts", Made::Changed);
    }

    #[test]
    fn copies() {
        let dir = TempDir::new().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "x").unwrap();
        assert_eq!(copy(&to, &from, 0o600).unwrap(), Made::Changed);
        assert_eq!(copy(&to, &from, 0o600).unwrap(), Made::Unchanged);
        assert_eq!(mode(&to), 0o600);
        let error = copy(&to, &dir.path().join("gone"), 0o600).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {}", dir.path().join("gone").display()));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("dir");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, b"x", 0o644).is_err());
        assert_eq!(names(dir.path()), ["dir"]);
    }

    #[test]
    fn units() {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| AbsPath::parse(dir.path().join(name).to_str().unwrap()).unwrap();
        let empty = kinds::File {
            path: path("x"),
            content: None,
            copy: None,
            symlink: None,
            directory: false,
            mode: None,
            secret: false,
            timeout: None,
        };
        let content = |text| Some(Content::parse(text).unwrap());
        #[track_caller]
        fn check(unit: &kinds::File, expect_mode: u32) {
            assert_eq!(make(unit).unwrap(), Made::Changed);
            assert_eq!(make(unit).unwrap(), Made::Unchanged);
            assert_eq!(mode(unit.path.as_path()), expect_mode);
        }
        check(&kinds::File { content: content("x"), ..empty.clone() }, 0o644);
        check(
            &kinds::File {
                path: path("key"),
                content: content("x"),
                secret: true,
                ..empty.clone()
            },
            0o600,
        );
        check(
            &kinds::File {
                path: path("exec"),
                copy: Some(path("x")),
                mode: Some(FileMode(0o755)),
                ..empty.clone()
            },
            0o755,
        );
        check(&kinds::File { path: path("dir"), directory: true, ..empty.clone() }, 0o755);
        check(
            &kinds::File { path: path("private"), directory: true, secret: true, ..empty.clone() },
            0o700,
        );
        check(&kinds::File { path: path("link"), symlink: Some(path("x")), ..empty }, 0o777);
    }
}

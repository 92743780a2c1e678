//! Writes and forgets records. Everything may hang as a disk does: not for the thread that decides.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};
use thiserror::Error;

use super::plan::{Found, plan};
use crate::mount::table;

/// The most names of a folder that are looked at. Whoever put more there did not want records.
const MOST_NAMES: usize = 4096;

/// A record that is being written.
const TEMPORARY: &str = "record.new";

/// What the name of a record ends with.
const SUFFIX: &str = ".jsonl";

/// Where records are kept.
#[derive(Debug, Clone)]
pub struct Records {
    /// Where the data partition is mounted.
    storage: PathBuf,
    /// The name of the folder below it.
    folder: String,
}

/// A record that could not be written. What was there before is still there.
#[derive(Debug, Error)]
#[error("cannot keep the record of this boot at {}: {kind}", .path.display())]
pub struct RecordError {
    /// Where it is kept.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub kind: RecordErrorKind,
}

/// What went wrong with a record.
#[derive(Debug, Error)]
pub enum RecordErrorKind {
    /// Nothing is mounted where the records are to be.
    #[error("nothing is mounted there")]
    NoStorage,
    /// The kernel does not say what is mounted.
    #[error("cannot see what is mounted: {0}")]
    Mounts(io::Error),
    /// Something on the way is no directory of its own: a link, a file.
    #[error("`{0}` is no directory")]
    NoDirectory(String),
    /// A call failed.
    #[error("cannot {what} `{name}`: {}", .errno.desc())]
    Call {
        /// What was tried.
        what: &'static str,
        /// With which name.
        name: String,
        /// Why not.
        errno: Errno,
    },
    /// Writing failed.
    #[error("cannot write: {0}")]
    Write(io::Error),
}

impl RecordErrorKind {
    fn call(what: &'static str, name: impl fmt::Display) -> impl FnOnce(Errno) -> Self {
        let name = name.to_string();
        move |errno| Self::Call { what, name, errno }
    }
}

impl Records {
    /// Records in a folder of that name, on what is mounted at `storage`.
    pub fn new(storage: impl Into<PathBuf>, folder: &str) -> Self {
        Self { storage: storage.into(), folder: folder.to_owned() }
    }

    /// Where the storage is mounted.
    pub fn storage(&self) -> &Path {
        &self.storage
    }

    /// Writes the record of the boot `id`, 32 hexadecimal digits, in place of an earlier one of the same boot.
    ///
    /// It is there when this returns, also after a power cut; if the power goes before, the earlier one is.
    ///
    /// # Errors
    /// Nothing is mounted, or a call fails. Whatever lies in the way is left as it is.
    pub fn write(
        &self,
        id: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), RecordError> {
        let path = self.storage.join(&self.folder);
        self.try_write(id, content).map_err(|kind| RecordError { path, kind })
    }

    fn try_write(
        &self,
        id: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), RecordErrorKind> {
        // The table says so without touching the disk, and without a record on what lies below the mount point.
        let mounts = table::observe().map_err(RecordErrorKind::Mounts)?;
        if table::top(&mounts, &self.storage).is_none() {
            return Err(RecordErrorKind::NoStorage);
        }
        let storage = self.storage.to_string_lossy();
        let storage = directory(AT_FDCWD, &storage)?;
        let boots = made_directory(&storage, &self.folder)?;
        let plan = plan(look(&boots)?, id);
        plan.forget.iter().for_each(|id| forget(&boots, id));
        let boot = made_directory(&boots, id)?;
        let name = format!("{}{SUFFIX}", plan.number);
        let written = put(&boot, &name, content);
        if written.is_err() {
            let _ = unlinkat(&boot, TEMPORARY, UnlinkatFlags::NoRemoveDir);
        }
        written?;
        fsync(&boots).map_err(RecordErrorKind::call("write out", &self.folder))
    }
}

/// A directory that is none by way of a link.
fn directory(at: impl AsFd, name: &str) -> Result<OwnedFd, RecordErrorKind> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ENOTDIR | Errno::ELOOP => RecordErrorKind::NoDirectory(name.to_owned()),
        errno => RecordErrorKind::call("open", name)(errno),
    })
}

/// The same, made for root alone if it is missing.
fn made_directory(at: impl AsFd, name: &str) -> Result<OwnedFd, RecordErrorKind> {
    match mkdirat(&at, name, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => directory(at, name),
        // Also of one that is there: the kernel looks at the disk first.
        Err(errno) => directory(at, name).map_err(|_| RecordErrorKind::call("make", name)(errno)),
    }
}

/// The boots that have folders here.
fn look(boots: &OwnedFd) -> Result<Vec<Found>, RecordErrorKind> {
    let ids = names(boots)?.into_iter().filter(|name| is_id(name));
    // What is named as a boot and is no directory, a link perhaps, is not ours.
    let opened = ids.filter_map(|id| Some((directory(boots, &id).ok()?, id)));
    let found = opened.map(|(boot, id)| {
        let numbers = names(&boot).unwrap_or_default();
        Found { id, number: numbers.iter().filter_map(|name| number(name)).max() }
    });
    Ok(found.collect())
}

/// Removes what is ours in a boot's folder, and the folder if that was all. What cannot be removed stays; a disk that fails here will
/// say so when the record is written.
fn forget(boots: &OwnedFd, id: &str) {
    if let Ok(boot) = directory(boots, id) {
        let ours = |name: &String| number(name).is_some() || name == TEMPORARY;
        for name in names(&boot).unwrap_or_default().iter().filter(|name| ours(name)) {
            let _ = unlinkat(&boot, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
    let _ = unlinkat(boots, id, UnlinkatFlags::RemoveDir);
}

/// Writes a file beside, writes it out, and puts it in place.
fn put(
    boot: &OwnedFd,
    name: &str,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), RecordErrorKind> {
    // What an earlier attempt left when the power went.
    match unlinkat(boot, TEMPORARY, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(RecordErrorKind::call("remove", TEMPORARY)(errno)),
    }
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let file =
        openat(boot, TEMPORARY, flags, mode).map_err(RecordErrorKind::call("make", TEMPORARY))?;
    let mut file = BufWriter::with_capacity(64 * 1024, File::from(file));
    let write = content(&mut file).and_then(|()| file.flush());
    write.and_then(|()| file.get_ref().sync_all()).map_err(RecordErrorKind::Write)?;
    renameat(boot, TEMPORARY, boot, name).map_err(RecordErrorKind::call("put in place", name))?;
    fsync(boot).map_err(RecordErrorKind::call("write out", name))
}

/// The names in a directory, but those that are no UTF-8, which none of ours is.
fn names(directory: &OwnedFd) -> Result<Vec<String>, RecordErrorKind> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let opened = Dir::openat(directory, ".", flags, Mode::empty());
    let mut opened = opened.map_err(RecordErrorKind::call("open", "."))?;
    let entries = opened.iter().take(MOST_NAMES).map_while(Result::ok);
    let names = entries.map(|entry| OsString::from_vec(entry.file_name().to_bytes().to_vec()));
    Ok(names.filter_map(|name| name.into_string().ok()).collect())
}

fn is_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The number of a record that is named as one.
fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let canonical = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| canonical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    /// A tmpfs in a namespace of this thread; gone with it.
    fn with_storage(options: &str, test: impl FnOnce(&Path) + Send + 'static) {
        use nix::mount::{MsFlags, mount};
        let options = options.to_owned();
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let tmpfs = Some("tmpfs");
            mount(tmpfs, folder.path(), tmpfs, MsFlags::empty(), Some(options.as_str())).unwrap();
            test(folder.path());
            nix::mount::umount(folder.path()).unwrap();
        });
        thread.join().unwrap();
    }

    fn id(n: u64) -> String {
        format!("{n:032x}")
    }

    fn write(storage: &Path, n: u64, text: &str) -> Result<(), String> {
        let records = Records::new(storage, "boots");
        let written = records.write(&id(n), |out| out.write_all(text.as_bytes()));
        written.map_err(|error| error.to_string().replace(&*storage.to_string_lossy(), "DISK"))
    }

    fn read(storage: &Path, n: u64, number: u64) -> Option<String> {
        let path = storage.join(format!("boots/{}/{number}.jsonl", id(n)));
        fs::read_to_string(path).ok()
    }

    #[test]
    fn eight_boots_stay_and_a_boot_has_one_record() {
        with_storage("", |storage| {
            for n in 1..=10 {
                write(storage, n, "early").unwrap();
                write(storage, n, "late").unwrap();
            }
            let mut left: Vec<_> = fs::read_dir(storage.join("boots")).unwrap().collect();
            assert_eq!(left.len(), 8);
            assert_eq!((read(storage, 2, 2), read(storage, 3, 3)), (None, Some("late".to_owned())));
            let boot = left.pop().unwrap().unwrap().path();
            assert_eq!(fs::metadata(&boot).unwrap().mode() & 0o777, 0o700);
            let files: Vec<_> = fs::read_dir(&boot).unwrap().map(Result::unwrap).collect();
            assert_eq!(files.len(), 1, "{files:?}");
            assert_eq!(files[0].metadata().unwrap().mode() & 0o777, 0o600);
        });
    }

    #[test]
    fn what_fails_leaves_the_record_before() {
        with_storage("size=64k", |storage| {
            write(storage, 1, "whole").unwrap();
            let full = write(storage, 1, &"x".repeat(100_000));
            let no_room = "cannot keep the record of this boot at DISK/boots: cannot write: No space left on device (os error 28)";
            assert_eq!(full, Err(no_room.to_owned()));
            assert_eq!(read(storage, 1, 1).as_deref(), Some("whole"));
            let boot = storage.join("boots").join(id(1));
            assert_eq!(fs::read_dir(boot).unwrap().count(), 1, "nothing half is left");
            // What a power cut left.
            fs::write(storage.join("boots").join(id(1)).join(TEMPORARY), "ha").unwrap();
            write(storage, 1, "again").unwrap();
            assert_eq!(read(storage, 1, 1).as_deref(), Some("again"));
        });
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_an_error_and_nothing_else() {
        with_storage("", |storage| {
            write(storage, 1, "one").unwrap();
            let read_only = nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
            nix::mount::mount(None::<&str>, storage, None::<&str>, read_only, None::<&str>)
                .unwrap();
            let expect = format!(
                "cannot keep the record of this boot at DISK/boots: cannot make `{}`: Read-only file system",
                id(2)
            );
            assert_eq!(write(storage, 2, "two"), Err(expect));
            assert!(read(storage, 1, 1).is_some());
        });
    }

    #[test]
    fn no_link_is_followed_and_no_garbage_is_touched() {
        with_storage("", |storage| {
            let elsewhere = tempfile::tempdir().unwrap();
            let check = |in_the_way: &dyn Fn(), expect: &str| {
                in_the_way();
                let expect = format!("cannot keep the record of this boot at DISK/boots: {expect}");
                assert_eq!(write(storage, 1, "x"), Err(expect));
                assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
            };
            let boots = storage.join("boots");
            check(&|| symlink(elsewhere.path(), &boots).unwrap(), "`boots` is no directory");
            fs::remove_file(&boots).unwrap();
            check(&|| fs::write(&boots, "").unwrap(), "`boots` is no directory");
            fs::remove_file(&boots).unwrap();
            fs::create_dir(&boots).unwrap();
            let own = boots.join(id(1));
            let no_directory = format!("`{}` is no directory", id(1));
            check(&|| symlink(elsewhere.path(), &own).unwrap(), &no_directory);
            fs::remove_file(&own).unwrap();
            fs::create_dir(&own).unwrap();
            let in_place = || fs::create_dir_all(own.join("1.jsonl/x")).unwrap();
            check(&in_place, "cannot put in place `1.jsonl`: Is a directory");
            fs::remove_dir_all(&own).unwrap();

            // Names of every kind beside the records, a folder full of other things, and a link to one.
            fs::write(boots.join("README"), "").unwrap();
            fs::create_dir(boots.join("lost+found")).unwrap();
            symlink(elsewhere.path(), boots.join(id(77))).unwrap();
            fs::create_dir(boots.join(id(78))).unwrap();
            fs::write(boots.join(id(78)).join("mine"), "").unwrap();
            fs::write(elsewhere.path().join("5.jsonl"), "not ours").unwrap();
            fs::create_dir(boots.join(id(79))).unwrap();
            fs::set_permissions(&boots, fs::Permissions::from_mode(0o755)).unwrap();
            write(storage, 1, "x").unwrap();
            assert_eq!(read(storage, 1, 1).as_deref(), Some("x"));
            assert!(elsewhere.path().join("5.jsonl").exists());
            assert!(boots.join(id(78)).join("mine").exists());
            assert!(boots.join(id(77)).is_symlink() && boots.join("README").exists());
            assert!(!boots.join(id(79)).exists(), "a boot's empty folder is none that is kept");
        });
    }

    #[test]
    fn without_a_mount_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let expect = "cannot keep the record of this boot at DISK/boots: nothing is mounted there";
        assert_eq!(write(folder.path(), 1, "x"), Err(expect.to_owned()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

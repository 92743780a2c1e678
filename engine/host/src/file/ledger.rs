//! What file units have made on this machine, so that it can go when no unit wants it any more.
//!
//! A file that was there before is not ours, and neither is one that somebody has changed since: both stay. So each entry says what was
//! made: the hash of a file's content, or where a link leads. What lies on a disk outlasts the boot, and so does its entry: it is written
//! out before the file is. A power cut between the two leaves an entry without a file, which means nothing, and never a file of ours
//! that nobody knows of. While a file is replaced, its entry has both hashes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keel_unit::kinds;
use nix::fcntl::OFlag;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use sha2::{Digest as _, Sha256};

use super::{FileError, Made, make, write};

/// The first word of the ledger's own file; behind it stand the format's version and the checksum of the rest.
const MAGIC: &str = "keel-files 1 ";

/// The most that is read of it: some ten thousand entries.
const LARGEST: u64 = 2 << 20;

/// See statfs(2).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// How many contents of one path are remembered: what is there, and what it is being replaced by.
const CONTENTS: usize = 2;

/// What file units have made. All clones are one ledger.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<BTreeMap<PathBuf, Entry>>,
    /// Where the ledger is kept, once there is a place, and what was written there last. Held while it is written; nobody waits for that
    /// but whoever makes something on a disk.
    kept: Mutex<Option<(PathBuf, String)>>,
}

/// What was made at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    /// A file with one of these contents, the newest first.
    File(Vec<String>),
    Directory,
    /// The hash of where it leads.
    Link(String),
}

impl Ledger {
    /// From now on the ledger is kept in this file, and knows what stands there. Of one that is broken nothing is known: what it spoke of
    /// stays where it is.
    ///
    /// # Errors
    /// If the file is there and cannot be read, or is broken. It is kept there all the same.
    pub fn keep_at(&self, path: &Path) -> io::Result<()> {
        let mut kept = lock(&self.0.kept);
        let (text, read) = match text_of(path) {
            Ok(text) => {
                let read = entries_in(&text)
                    .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not whole"));
                (text, read)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (String::new(), Ok(BTreeMap::new()))
            }
            Err(error) => (String::new(), Err(error)),
        };
        *kept = Some((path.to_owned(), text));
        let found = read?;
        let mut entries = lock(&self.0.entries);
        for (path, entry) in found {
            entries.entry(path).or_insert(entry);
        }
        Ok(())
    }

    /// Makes what the unit says, and remembers it.
    ///
    /// # Errors
    /// If it cannot be made, or cannot be noted where that has to outlast the boot.
    pub fn make(&self, unit: &kinds::File) -> Result<Made, FileError> {
        let path = unit.path.as_path();
        let there = fs::symlink_metadata(path).is_ok();
        let known = lock(&self.0.entries).contains_key(path);
        if there && !known {
            // Somebody else's, which is ours to write and not ours to remove.
            return make(unit);
        }
        self.note(path, will_be(unit)?);
        if on_a_disk(path) {
            self.write()?;
        }
        make(unit)
    }

    fn note(&self, path: &Path, made: Entry) {
        let mut entries = lock(&self.0.entries);
        let before = entries.get(path).cloned();
        let entry = match (made, before) {
            (Entry::File(mut contents), Some(Entry::File(before))) => {
                let other = before.into_iter().filter(|it| !contents.contains(it));
                contents.extend(other.collect::<Vec<_>>());
                contents.truncate(CONTENTS);
                Entry::File(contents)
            }
            (made, _) => made,
        };
        entries.insert(path.to_owned(), entry);
    }

    /// Removes what was made at that path. Whether it was: what is somebody else's stays, and so does a directory with something in it.
    ///
    /// # Errors
    /// If it is ours and cannot be removed.
    pub fn remove(&self, path: &Path) -> Result<bool, FileError> {
        let Some(entry) = lock(&self.0.entries).get(path).cloned() else { return Ok(false) };
        let removed = take(path, &entry).map_err(|source| FileError {
            path: path.to_owned(),
            attempt: "remove",
            source,
        })?;
        lock(&self.0.entries).remove(path);
        // Forgotten after it is gone: the other way round a power cut would leave it for good.
        if on_a_disk(path) {
            self.write()?;
        }
        Ok(removed)
    }

    /// Removes everything that no unit wants any more. The paths that were removed, and what could not be.
    pub fn sweep(&self, wanted: impl Fn(&Path) -> bool) -> (Vec<PathBuf>, Vec<FileError>) {
        let mut stale: Vec<PathBuf> = lock(&self.0.entries).keys().cloned().collect();
        stale.retain(|path| !wanted(path));
        let (mut removed, mut failed) = (Vec::new(), Vec::new());
        // What lies in a directory goes before it.
        for path in stale.into_iter().rev() {
            match self.remove(&path) {
                Ok(true) => removed.push(path),
                Ok(false) => {}
                Err(error) => failed.push(error),
            }
        }
        (removed, failed)
    }

    /// Writes the ledger, if it says something new and there is a place for it.
    fn write(&self) -> Result<(), FileError> {
        let mut kept = lock(&self.0.kept);
        let Some((path, last)) = kept.as_mut() else { return Ok(()) };
        let entries = lock(&self.0.entries).clone();
        let text = text_for(&entries);
        if text != *last {
            write(path, text.as_bytes(), 0o600)?;
            *last = text;
        }
        Ok(())
    }
}

/// What will be there once the unit has made it.
fn will_be(unit: &kinds::File) -> Result<Entry, FileError> {
    let hashed = |bytes: &[u8]| Entry::File(vec![hash(bytes)]);
    Ok(match (&unit.content, &unit.copy, &unit.symlink) {
        (Some(content), ..) => hashed(content.as_str().as_bytes()),
        (_, Some(from), _) => {
            let path = from.as_path();
            let read = fs::read(path).map_err(|source| FileError {
                path: path.to_owned(),
                attempt: "read",
                source,
            });
            hashed(&read?)
        }
        (_, _, Some(target)) => Entry::Link(hash(target.as_path().as_os_str().as_bytes())),
        (None, None, None) => Entry::Directory,
    })
}

/// Removes what is there, if it is what the entry says.
fn take(path: &Path, entry: &Entry) -> io::Result<bool> {
    let gone = match entry {
        Entry::File(contents) => match hash_of(path)? {
            Some(found) if contents.contains(&found) => fs::remove_file(path),
            _ => return Ok(false),
        },
        Entry::Link(target) => match fs::read_link(path) {
            Ok(found) if hash(found.as_os_str().as_bytes()) == *target => fs::remove_file(path),
            _ => return Ok(false),
        },
        Entry::Directory => match fs::remove_dir(path) {
            // In use, something else by now, or a place where something is mounted.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::ResourceBusy
                ) =>
            {
                return Ok(false);
            }
            other => other,
        },
    };
    match gone {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    }
    File::open(path.parent().unwrap_or(path))?.sync_all()?;
    Ok(true)
}

/// The hash of a regular file; none of what is no file, or not there.
fn hash_of(path: &Path) -> io::Result<Option<String>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let (mut digest, mut part) = (Sha256::new(), [0; 8192]);
    loop {
        match file.read(&mut part)? {
            0 => return Ok(Some(digits(&digest.finalize()))),
            read => digest.update(&part[..read]),
        }
    }
}

/// Whether what is made there outlasts the boot.
fn on_a_disk(path: &Path) -> bool {
    let there = path.ancestors().skip(1).find_map(|above| statfs(above).ok());
    there.is_none_or(|about| ![TMPFS_MAGIC, RAMFS_MAGIC].contains(&about.filesystem_type()))
}

fn text_of(path: &Path) -> io::Result<String> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// One line an entry: what it is, its hashes, its path.
fn text_for(entries: &BTreeMap<PathBuf, Entry>) -> String {
    let mut lines = String::new();
    let on_disks = entries.iter().filter(|(path, _)| on_a_disk(path));
    for (path, entry) in on_disks {
        // A unit's path is text.
        let Some(path) = path.to_str() else { continue };
        // Writing into a text never fails.
        let _ = match entry {
            Entry::File(contents) => writeln!(lines, "file {} {path}", contents.join(",")),
            Entry::Directory => writeln!(lines, "directory - {path}"),
            Entry::Link(target) => writeln!(lines, "link {target} {path}"),
        };
    }
    format!("{MAGIC}{}\n{lines}", hash(lines.as_bytes()))
}

fn entries_in(text: &str) -> Option<BTreeMap<PathBuf, Entry>> {
    let (head, lines) = text.split_once('\n')?;
    if head.strip_prefix(MAGIC)? != hash(lines.as_bytes()) {
        return None;
    }
    let entry = |line: &str| {
        let (what, rest) = line.split_once(' ')?;
        let (hashes, path) = rest.split_once(' ')?;
        let entry = match what {
            "file" => Entry::File(hashes.split(',').map(str::to_owned).collect()),
            "directory" => Entry::Directory,
            "link" => Entry::Link(hashes.to_owned()),
            _ => return None,
        };
        Some((PathBuf::from(path), entry))
    };
    lines.lines().map(entry).collect()
}

fn hash(bytes: &[u8]) -> String {
    digits(&Sha256::digest(bytes))
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nothing is ever left half changed, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use keel_unit::keys::Text;
    use keel_unit::value::{AbsPath, Content};
    use tempfile::TempDir;

    use super::*;

    /// A directory on a disk, and a ledger that is kept there.
    struct Place {
        dir: TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { dir: TempDir::new().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// The ledger as the next boot finds it.
        fn ledger(&self) -> Ledger {
            let ledger = Ledger::default();
            ledger.keep_at(&self.path("ledger")).unwrap();
            ledger
        }

        fn unit(&self, name: &str) -> kinds::File {
            kinds::File {
                path: AbsPath::parse(self.path(name).to_str().unwrap()).unwrap(),
                content: None,
                copy: None,
                symlink: None,
                directory: false,
                mode: None,
                secret: false,
                timeout: None,
            }
        }

        fn file(&self, name: &str, text: &str) -> kinds::File {
            kinds::File { content: Some(Content::parse(text).unwrap()), ..self.unit(name) }
        }

        /// What goes if these are all that is wanted, in the next boot.
        fn sweep(&self, wanted: &[&str]) -> Vec<String> {
            let wanted: Vec<PathBuf> = wanted.iter().map(|name| self.path(name)).collect();
            let (removed, failed) = self.ledger().sweep(|path| wanted.iter().any(|it| it == path));
            assert!(failed.is_empty(), "{failed:?}");
            let name = |path: PathBuf| {
                assert!(fs::symlink_metadata(&path).is_err(), "{}", path.display());
                path.strip_prefix(self.dir.path()).unwrap().display().to_string()
            };
            removed.into_iter().map(name).collect()
        }
    }

    #[test]
    fn what_was_made_goes_when_nobody_wants_it() {
        let place = Place::new();
        let ledger = place.ledger();
        let link = place.file("from", "x");
        let directory = kinds::File { directory: true, ..place.unit("dir") };
        let copy = kinds::File { copy: Some(link.path.clone()), ..place.unit("dir/copy") };
        let to = kinds::File { symlink: Some(link.path.clone()), ..place.unit("link") };
        for unit in [&link, &directory, &copy, &to] {
            assert_eq!(ledger.make(unit).unwrap(), Made::Changed);
            assert_eq!(ledger.make(unit).unwrap(), Made::Unchanged);
        }
        assert_eq!(place.sweep(&["from", "dir", "dir/copy", "link"]), Vec::<String>::new());
        assert_eq!(place.sweep(&["from"]), ["link", "dir/copy", "dir"]);
        assert_eq!(place.sweep(&[]), ["from"]);
        assert_eq!(place.sweep(&[]), Vec::<String>::new());
    }

    #[test]
    fn what_is_somebody_elses_stays() {
        let place = Place::new();
        fs::write(place.path("theirs"), "theirs").unwrap();
        let ledger = place.ledger();
        for name in ["theirs", "changed", "replaced", "gone"] {
            ledger.make(&place.file(name, "ours")).unwrap();
        }
        ledger.make(&kinds::File { directory: true, ..place.unit("full") }).unwrap();
        fs::write(place.path("full/file"), "theirs").unwrap();
        fs::write(place.path("changed"), "theirs").unwrap();
        fs::remove_file(place.path("replaced")).unwrap();
        std::os::unix::fs::symlink("theirs", place.path("replaced")).unwrap();
        fs::remove_file(place.path("gone")).unwrap();
        assert_eq!(place.sweep(&[]), Vec::<String>::new());
        let there = |name: &str| fs::symlink_metadata(place.path(name)).is_ok();
        assert!(["theirs", "changed", "replaced", "full/file"].into_iter().all(there));
        // From then on it is theirs for good, also with the content that was ours.
        fs::write(place.path("changed"), "ours").unwrap();
        assert_eq!(place.sweep(&[]), Vec::<String>::new());
        assert!(there("changed"));
    }

    #[test]
    fn a_file_that_is_being_replaced_is_ours_before_and_after() {
        for stopped_after_the_note in [true, false] {
            let place = Place::new();
            let ledger = place.ledger();
            ledger.make(&place.file("file", "one")).unwrap();
            let two = place.file("file", "two");
            if stopped_after_the_note {
                ledger.note(two.path.as_path(), will_be(&two).unwrap());
                ledger.write().unwrap();
            } else {
                ledger.make(&two).unwrap();
            }
            assert_eq!(place.sweep(&[]), ["file"]);
        }
    }

    #[test]
    fn what_is_in_memory_is_not_written_down() {
        let place = Place::new();
        let memory = TempDir::new_in("/dev/shm").unwrap();
        let ledger = place.ledger();
        let path = memory.path().join("file");
        let unit = kinds::File {
            path: AbsPath::parse(path.to_str().unwrap()).unwrap(),
            ..place.file("x", "x")
        };
        ledger.make(&unit).unwrap();
        assert!(!place.path("ledger").exists(), "nothing on a disk, nothing to write");
        assert_eq!(ledger.sweep(|_| false).0, [path]);
    }

    #[test]
    fn a_ledger_that_is_broken_condemns_nothing() {
        let place = Place::new();
        place.ledger().make(&place.file("file", "x")).unwrap();
        let text = fs::read_to_string(place.path("ledger")).unwrap();
        assert!(!text.contains("x\n"), "no content: {text}");
        for broken in
            ["", "keel-files 1 00\n", &text[..text.len() - 1], &text.replace("file ", "link ")]
        {
            fs::write(place.path("ledger"), broken).unwrap();
            let ledger = Ledger::default();
            let error = ledger.keep_at(&place.path("ledger")).unwrap_err();
            assert_eq!(error.to_string(), "it is not whole", "{broken}");
            assert_eq!(ledger.sweep(|_| false).0, Vec::<PathBuf>::new(), "{broken}");
            assert!(place.path("file").exists());
        }
    }
}

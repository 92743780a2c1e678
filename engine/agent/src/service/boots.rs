//! Boots that are remembered: init's records on the data partition, read one at a time and never believed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use keel_control::{BootRecord, LogLine, MAX_RECORD, RecordHead, is_boot_id, record_number};
use rustix::fs::OFlags;
use tonic::Status;

/// The most names in a folder that are looked at.
const MOST_NAMES: usize = 4096;

/// The most records that are told of; init keeps fewer.
const MOST_BOOTS: usize = 64;

/// The longest first line of a record.
const LONGEST_HEAD: u64 = 16 * 1024;

/// A record on the disk.
#[derive(Debug)]
pub(crate) struct Record {
    /// The boot.
    pub(crate) boot: BootRecord,
    /// Its number; numbers rise from boot to boot.
    pub(crate) number: u64,
    /// What it takes, in bytes.
    pub(crate) size: u64,
    path: PathBuf,
}

/// The records in that folder, the newest boot first. What is no record is passed over: anything may lie there.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<Record>> {
    let entries = match fs::read_dir(folder) {
        // No storage, or nothing recorded yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let entries = entries.take(MOST_NAMES).map_while(Result::ok);
    let mut records: Vec<_> = entries.filter_map(|entry| record(&entry)).collect();
    records.sort_by_key(|record| std::cmp::Reverse(record.number));
    records.truncate(MOST_BOOTS);
    Ok(records)
}

fn record(entry: &fs::DirEntry) -> Option<Record> {
    let id = entry.file_name().into_string().ok().filter(|name| is_boot_id(name))?;
    // Of the entry itself: a link is no directory.
    entry.file_type().ok().filter(fs::FileType::is_dir)?;
    let files = fs::read_dir(entry.path()).ok()?.take(MOST_NAMES).map_while(Result::ok);
    let named = files.filter_map(|file| record_number(file.file_name().to_str()?));
    let number = named.max()?;
    let path = entry.path().join(format!("{number}{}", keel_control::RECORD_SUFFIX));
    let file = open(&path).ok()?;
    let size = file.metadata().ok()?.len();
    let mut head = String::new();
    BufReader::new(file.take(LONGEST_HEAD)).read_line(&mut head).ok()?;
    let boot = serde_json::from_str::<RecordHead>(&head).ok()?.known()?;
    (boot.id == id).then_some(Record { boot, number, size, path })
}

/// A regular file, not by way of a link, and without waiting for whoever is at the other end of a FIFO.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

impl Record {
    fn lines(&self) -> io::Result<impl Iterator<Item = String>> {
        let file = open(&self.path)?.take(MAX_RECORD);
        Ok(BufReader::new(file).lines().map_while(Result::ok))
    }

    /// The boot's trace, a JSON document.
    pub(crate) fn trace(&self) -> io::Result<String> {
        let cut = || io::Error::new(io::ErrorKind::InvalidData, "it holds no trace");
        self.lines()?.nth(1).filter(|trace| !trace.is_empty()).ok_or_else(cut)
    }

    /// The boot's last lines, oldest first. What is no line is passed over.
    pub(crate) fn log(&self) -> io::Result<Vec<LogLine>> {
        Ok(self.lines()?.skip(2).filter_map(|line| serde_json::from_str(&line).ok()).collect())
    }
}

/// Which boot is meant.
#[derive(Debug)]
pub(crate) enum Meant {
    /// The one that runs.
    Current,
    /// One that is recorded.
    Recorded(Box<Record>),
}

/// The boot whose id begins with these digits; the one that runs if there are none.
pub(crate) fn find(
    digits: &str,
    current: &str,
    records: impl FnOnce() -> io::Result<Vec<Record>>,
) -> Result<Meant, Status> {
    // A whole id leaves nothing to look for, on a disk that may not answer.
    if digits.is_empty() || digits == current {
        return Ok(Meant::Current);
    }
    if digits.len() > 32 || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Status::invalid_argument(
            "a boot's id is 32 hexadecimal digits, or as many of the first as tell it from the others",
        ));
    }
    let records = records().map_err(|error| unreadable(&error))?;
    let mut found: Vec<_> = records
        .into_iter()
        .filter(|record| record.boot.id.starts_with(digits) && record.boot.id != current)
        .collect();
    match (current.starts_with(digits), found.len()) {
        (true, 0) => Ok(Meant::Current),
        (false, 1) => found
            .pop()
            .map(|record| Meant::Recorded(Box::new(record)))
            .ok_or_else(|| Status::not_found("no such boot")),
        (false, 0) => {
            Err(Status::not_found(format!("no boot that begins with {digits} is remembered")))
        }
        (current, others) => {
            let boots = others + usize::from(current);
            Err(Status::invalid_argument(format!("{boots} boots begin with {digits}")))
        }
    }
}

/// A disk that cannot be read, as gRPC says it.
pub(crate) fn unreadable(error: &io::Error) -> Status {
    Status::unavailable(format!("the records of boots cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn boot(id: &str) -> BootRecord {
        BootRecord {
            id: id.to_owned(),
            began_ms: 1,
            recorded_ms: 2,
            goal: "boot".to_owned(),
            state: keel_control::GoalState::Reached,
            total_us: Some(3),
            digest: "sha256:00".to_owned(),
            ended: None,
        }
    }

    fn id(digit: char) -> String {
        digit.to_string().repeat(32)
    }

    fn put(folder: &Path, id: &str, number: u64, text: &str) {
        fs::create_dir_all(folder.join(id)).unwrap();
        fs::write(folder.join(id).join(format!("{number}.jsonl")), text).unwrap();
    }

    fn whole(id: &str) -> String {
        let head = serde_json::to_string(&RecordHead::of(boot(id))).unwrap();
        let line = r#"{"seq":7,"at_ms":1,"unit":"web","text":"x","cut":false}"#;
        format!("{head}\n{{\"format\":\"keel-boot-trace\"}}\n{line}\nhalf a li")
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(list(&path.join("missing")).unwrap().len(), 0);
        put(path, &id('a'), 3, &whole(&id('a')));
        put(path, &id('b'), 12, &whole(&id('b')));
        put(path, &id('b'), 11, "an older one");
        // Of another boot, of another format, no JSON, empty, endless, no number, no file, a link, a FIFO.
        put(path, &id('c'), 4, &whole(&id('a')));
        put(path, &id('d'), 4, r#"{"format":"other","version":1,"boot":{}}"#);
        put(path, &id('e'), 4, "\0\u{1b}[2J");
        put(path, &id('f'), 4, "");
        put(path, &id('0'), 4, &"x".repeat(1 << 20));
        fs::create_dir(path.join(id('1'))).unwrap();
        fs::create_dir_all(path.join(id('2')).join("9.jsonl")).unwrap();
        symlink(path.join(id('a')), path.join(id('3'))).unwrap();
        fs::create_dir(path.join(id('4'))).unwrap();
        symlink("/etc/passwd", path.join(id('4')).join("9.jsonl")).unwrap();
        fs::create_dir(path.join(id('5'))).unwrap();
        let fifo = path.join(id('5')).join("9.jsonl");
        assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
        fs::write(path.join("README"), "").unwrap();

        let records = list(path).unwrap();
        let found: Vec<_> =
            records.iter().map(|record| (record.boot.id.clone(), record.number)).collect();
        assert_eq!(found, [(id('b'), 12), (id('a'), 3)]);
        assert_eq!(records[0].trace().unwrap(), r#"{"format":"keel-boot-trace"}"#);
        let log = records[0].log().unwrap();
        assert_eq!((log.len(), log[0].seq), (1, 7));
    }

    #[test]
    fn a_boot_is_meant_by_its_first_digits() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (format!("ab{}", "0".repeat(30)), format!("ac{}", "0".repeat(30)));
        let current = format!("ad{}", "0".repeat(30));
        for (number, id) in [(1, &one), (2, &two), (3, &current)] {
            put(folder.path(), id, number, &whole(id));
        }
        let check = |digits: &str, expect: &str| {
            let found = match find(digits, &current, || list(folder.path())) {
                Ok(Meant::Current) => "current".to_owned(),
                Ok(Meant::Recorded(record)) => record.boot.id,
                Err(status) => status.message().to_owned(),
            };
            assert_eq!(found, expect, "{digits}");
        };
        check("", "current");
        check("ad", "current");
        check(&current, "current");
        check("ab", &one);
        check(&two, &two);
        check("a", "3 boots begin with a");
        check("f", "no boot that begins with f is remembered");
        let odd = "a boot's id is 32 hexadecimal digits, or as many of the first as tell it from the others";
        check("../../etc", odd);
        check("AB", odd);
        check(&"a".repeat(33), odd);
    }
}

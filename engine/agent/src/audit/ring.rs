//! A few files of a bounded size; the oldest goes first.
//!
//! A disk that is full, and power that fails, find them so that at most the line is lost that was being written: half a line never
//! runs into the next one, and old files move on only when there is a new one to take their place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Record, Sort};

/// The files of one sort of record, and how large one may grow.
pub(super) const FILES: usize = 4;
pub(super) const LARGEST: u64 = 1 << 20;

/// The longest line that is read; what is longer was not written by us.
const LONGEST: u64 = 64 * 1024;

/// The files of one sort of record.
#[derive(Debug)]
pub(super) struct Ring {
    folder: PathBuf,
    sort: Sort,
    file: File,
    size: u64,
    largest: u64,
    /// The file ends in the middle of a line.
    torn: bool,
    /// The file is full: what comes next goes into another.
    full: bool,
    /// Lines that wait to be written.
    waiting: String,
}

/// The file of that age; 0 is the one that is written.
fn path(folder: &Path, sort: Sort, age: usize) -> PathBuf {
    folder.join(match age {
        0 => format!("{}.jsonl", sort.word()),
        age => format!("{}.{age}.jsonl", sort.word()),
    })
}

impl Ring {
    pub(super) fn open(folder: &Path, sort: Sort, largest: u64) -> io::Result<Self> {
        let file = append(&path(folder, sort, 0))?;
        let size = file.metadata()?.len();
        // Power failed in the middle of a line. It is ended with the next record: at this moment the disk may be full.
        let torn = ends_torn(&file, size)?;
        let (full, waiting) = (false, String::new());
        Ok(Self { folder: folder.to_owned(), sort, file, size, largest, torn, full, waiting })
    }

    /// Whether the last line that was written before is half a record.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Has a line written with the next flush, or before if the file is full. Whether something was written.
    pub(super) fn add(&mut self, line: &str) -> io::Result<bool> {
        let mut written = Ok(false);
        let size = self.size + self.waiting.len() as u64;
        if size > 0 && size + line.len() as u64 > self.largest {
            written = self.flush();
            self.full = self.size > 0 && self.size + line.len() as u64 > self.largest;
        }
        self.waiting.push_str(line);
        written
    }

    /// Writes what waits. Whether there was anything.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let lines = std::mem::take(&mut self.waiting);
        if lines.is_empty() {
            return Ok(false);
        }
        let mut written = self.write(&lines);
        if written.is_err() && lines.lines().nth(1).is_some() {
            // What does not fit costs itself alone.
            let one_by_one = lines.split_inclusive('\n').map(|line| self.write(line));
            written = one_by_one.fold(Ok(()), Result::and);
        }
        self.waiting = lines;
        self.waiting.clear();
        // What changed the machine is to be known after a power failure too.
        if self.sort == Sort::Change {
            self.file.sync_data()?;
        }
        written.map(|()| true)
    }

    fn write(&mut self, lines: &str) -> io::Result<()> {
        if self.full {
            self.rotate()?;
            self.full = false;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            self.size += 1;
            self.torn = false;
        }
        if let Err(error) = self.file.write_all(lines.as_bytes()) {
            // What of it was written goes again, or else the next record begins on a line of its own.
            let cut = self.file.set_len(self.size);
            let size = self.file.metadata().map_or(self.size, |about| about.len());
            self.torn = cut.is_err() && size > self.size;
            self.size = size;
            return Err(error);
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // First of all, and with a block of its own: were there no room for it, moving the others on would only push them out.
        let draft = self.folder.join(format!("{}.new", self.sort.word()));
        if self.draft(&draft).is_err() {
            // The oldest goes in any case, and makes room.
            let _ = fs::remove_file(path(&self.folder, self.sort, FILES - 1));
            self.draft(&draft)?;
        }
        for age in (0..FILES - 1).rev() {
            let from = path(&self.folder, self.sort, age);
            match fs::rename(from, path(&self.folder, self.sort, age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let current = path(&self.folder, self.sort, 0);
        fs::rename(&draft, &current)?;
        self.file = append(&current)?;
        self.size = self.file.metadata()?.len();
        self.torn = false;
        File::open(&self.folder)?.sync_all()
    }

    /// Makes the file that is to be written next, under another name.
    fn draft(&self, draft: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(0o600).open(draft);
        file.and_then(|mut file| file.write_all(b"\n")).inspect_err(|_| {
            // It holds nothing.
            let _ = fs::remove_file(draft);
        })
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)
}

/// Whether a file of that size ends in the middle of a line.
fn ends_torn(mut file: &File, size: u64) -> io::Result<bool> {
    if size == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Hands out the records of one sort, oldest first. Lines that are none are passed over; how many.
pub(super) fn each(folder: &Path, sort: Sort, take: &mut dyn FnMut(Record)) -> io::Result<u64> {
    let mut none = 0;
    for age in (0..FILES).rev() {
        let file = match File::open(path(folder, sort, age)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = Read::take(&mut reader, LONGEST).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            match std::str::from_utf8(&line).ok().and_then(Record::parse) {
                Some(record) => take(record),
                // A file begins with one.
                None if line == b"\n" => {}
                None => none += 1,
            }
        }
    }
    Ok(none)
}

//! A few files of a bounded size; the oldest goes first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
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
        let path = path(folder, sort, 0);
        let mut file = append(&path)?;
        let mut size = file.metadata()?.len();
        // Power that failed in the middle of a line must not spoil the next one.
        if size > 0 && fs::read(&path)?.last() != Some(&b'\n') {
            file.write_all(b"\n")?;
            size += 1;
        }
        Ok(Self { folder: folder.to_owned(), sort, file, size, largest })
    }

    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64;
        if self.size > 0 && self.size + length > self.largest {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.size += length;
        // What changed the machine is to be known after a power failure too.
        if self.sort == Sort::Change {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for age in (0..FILES - 1).rev() {
            let from = path(&self.folder, self.sort, age);
            match fs::rename(from, path(&self.folder, self.sort, age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = append(&path(&self.folder, self.sort, 0))?;
        self.size = 0;
        File::open(&self.folder)?.sync_all()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Hands out the records of one sort, oldest first. Lines that are none are passed over.
pub(super) fn each(folder: &Path, sort: Sort, take: &mut dyn FnMut(Record)) -> io::Result<()> {
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
            let read = io::Read::take(&mut reader, LONGEST).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            if let Some(record) = std::str::from_utf8(&line).ok().and_then(Record::parse) {
                take(record);
            }
        }
    }
    Ok(())
}

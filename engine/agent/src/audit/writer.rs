//! The one who writes: numbers records, keeps them, and tells those who follow.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::broadcast;

use super::queue::Queue;
use super::ring::{LARGEST, Ring, each};
use super::{Item, Record, Sort};
use crate::log::{chain, say};

/// The one who writes.
#[derive(Debug)]
pub(super) struct Writer {
    /// One for each sort, in the order of [`Sort::ALL`]; none where nothing can be kept.
    rings: Vec<Ring>,
    next: u64,
    /// Whether it was said that records cannot be written.
    complained: bool,
}

impl Writer {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        Self::with_files_of(folder, LARGEST)
    }

    pub(super) fn with_files_of(folder: &Path, largest: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut last = 0;
        for sort in Sort::ALL {
            each(folder, sort, &mut |record| last = last.max(record.seq))?;
        }
        let rings = Sort::ALL.into_iter().map(|sort| Ring::open(folder, sort, largest));
        let rings: Vec<Ring> = rings.collect::<io::Result<_>>()?;
        // Half a record has had its number: as with every record that is gone, there is a gap.
        let torn = rings.iter().filter(|ring| ring.is_torn()).count() as u64;
        if torn > 0 {
            say(format_args!(
                "{}: power failed while {torn} records were written, which are lost",
                folder.display()
            ));
        }
        Ok(Self { rings, next: last + 1 + torn, complained: false })
    }

    /// Whether records of every sort are kept.
    #[cfg(test)]
    pub(super) fn keeps_all(&self) -> bool {
        self.rings.len() == Sort::ALL.len()
    }

    /// Numbers records, and keeps none.
    pub(super) fn nowhere() -> Self {
        Self { rings: Vec::new(), next: 1, complained: false }
    }

    /// Writes until nothing more is put into the queue.
    pub(super) fn run(mut self, queue: &Queue, told: &broadcast::Sender<Arc<Record>>) {
        let mut items = Vec::new();
        while let Some(lost) = queue.take(&mut items) {
            // A number that nobody has is a record that is gone.
            self.next += lost;
            let mut kept = Vec::new();
            let mut written = Vec::new();
            for item in items.drain(..) {
                match item {
                    Item::Keep(sort, record) => kept.push(self.add(sort, *record)),
                    Item::Flush(word) => written.push(word),
                }
            }
            self.flush();
            for word in written {
                // Whoever asked may be gone.
                let _ = word.send(());
            }
            if told.receiver_count() > 0 {
                for record in kept {
                    // The last who followed may have gone just now.
                    let _ = told.send(Arc::new(record));
                }
            }
        }
    }

    /// Keeps one record, at once.
    #[cfg(test)]
    pub(super) fn keep(&mut self, sort: Sort, record: Record) -> Record {
        let record = self.add(sort, record);
        self.flush();
        record
    }

    /// Numbers a record, and has it written with the next flush.
    fn add(&mut self, sort: Sort, mut record: Record) -> Record {
        record.seq = self.next;
        self.next += 1;
        let ring = Sort::ALL.iter().position(|one| *one == sort);
        let ring = ring.and_then(|at| self.rings.get_mut(at));
        let added = ring.map_or(Ok(false), |ring| ring.add(&record.line()));
        self.wrote(added);
        record
    }

    fn flush(&mut self) {
        let written: Vec<_> = self.rings.iter_mut().map(Ring::flush).collect();
        written.into_iter().for_each(|written| self.wrote(written));
    }

    /// Says once that records cannot be written, until one is.
    fn wrote(&mut self, written: io::Result<bool>) {
        match written {
            Ok(true) => self.complained = false,
            Err(error) if !self.complained => {
                self.complained = true;
                say(format_args!("cannot keep who calls: {}", chain(&error)));
            }
            Ok(false) | Err(_) => {}
        }
    }
}

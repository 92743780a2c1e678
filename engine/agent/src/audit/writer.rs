//! The one who writes: numbers records, keeps them, and tells those who follow.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{broadcast, mpsc};

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

    /// Writes until nobody can send any more.
    pub(super) fn run(
        mut self,
        mut waiting: mpsc::Receiver<Item>,
        lost: &AtomicU64,
        told: &broadcast::Sender<Arc<Record>>,
    ) {
        while let Some(item) = waiting.blocking_recv() {
            let (sort, record) = match item {
                Item::Keep(sort, record) => (sort, *record),
                Item::Flush(written) => {
                    // Whoever asked may be gone.
                    let _ = written.send(());
                    continue;
                }
            };
            // A number that nobody has is a record that is gone.
            self.next += lost.swap(0, Ordering::Relaxed);
            let record = self.keep(sort, record);
            // Nobody may be following.
            let _ = told.send(Arc::new(record));
        }
    }

    pub(super) fn keep(&mut self, sort: Sort, mut record: Record) -> Record {
        record.seq = self.next;
        self.next += 1;
        let ring = Sort::ALL.iter().position(|one| *one == sort);
        let ring = ring.and_then(|at| self.rings.get_mut(at));
        if let Some(ring) = ring {
            match ring.write(&record.line()) {
                Ok(()) => self.complained = false,
                Err(error) if !self.complained => {
                    self.complained = true;
                    say(format_args!("cannot keep who calls: {}", chain(&error)));
                }
                Err(_) => {}
            }
        }
        record
    }
}

//! What is kept, in the order in which it happened.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use super::ring::each;
use super::{Record, Sort};
use crate::log::say;

/// What is kept, oldest first: the newest `tail` records, or all if that is 0. Reads every file.
pub(crate) fn past(folder: &Path, tail: usize) -> io::Result<Vec<Record>> {
    let mut all: Vec<Record> = Vec::new();
    let mut none = 0;
    for sort in Sort::ALL {
        // No sort can give more than all of the tail.
        let mut kept = VecDeque::new();
        none += each(folder, sort, &mut |record| {
            if tail > 0 && kept.len() == tail {
                kept.pop_front();
            }
            kept.push_back(record);
        })?;
        all.extend(kept);
    }
    if none > 0 {
        // Their numbers are missing in what is told, too.
        say(format_args!("{}: {none} lines are no records, and are passed over", folder.display()));
    }
    all.sort_by_key(|record| record.seq);
    // A file that moved on while it was read is read twice in part.
    all.dedup_by_key(|record| record.seq);
    if tail > 0 && all.len() > tail {
        all.drain(..all.len() - tail);
    }
    Ok(all)
}

//! Who called, and what came of it, kept on the node.
//!
//! Calls that may change the machine, calls that read, and connections that were refused are kept apart, each in a few files of a
//! bounded size of which the oldest goes first: a hundred readers, or a flood of strangers, push out their own records and never
//! one of a change. What was sent and what was answered is in none of them.

mod queue;
mod read;
mod record;
mod ring;
mod writer;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{broadcast, oneshot};

use self::queue::Queue;
pub(crate) use self::read::past;
pub(crate) use self::record::Record;
use self::writer::Writer;
use crate::log::{chain, say};
use crate::trust::Refusal;

/// Records that a follower may be behind.
const BEHIND: usize = 1_024;

/// Refusals that are told of at once, and how many more each second after that.
const REFUSALS_AT_ONCE: u32 = 200;
const REFUSALS_A_SECOND: u32 = 2;

/// What a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// A call that may change the machine.
    Change,
    /// A call that reads.
    Read,
    /// A connection that was refused.
    Refused,
}

impl Sort {
    pub(super) const ALL: [Self; 3] = [Self::Change, Self::Read, Self::Refused];

    /// The beginning of its files' names.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Change => "changes",
            Self::Read => "reads",
            Self::Refused => "refused",
        }
    }
}

/// What the writer is handed.
#[derive(Debug)]
enum Item {
    Keep(Sort, Box<Record>),
    /// Everything before it is written: says so.
    Flush(oneshot::Sender<()>),
}

impl Item {
    fn is_flush(&self) -> bool {
        matches!(self, Self::Flush(_))
    }

    /// Whether it is to be written at once.
    fn is_urgent(&self) -> bool {
        matches!(self, Self::Flush(_) | Self::Keep(Sort::Change, _))
    }
}

/// Where records go.
#[derive(Debug)]
pub(crate) struct Audit {
    folder: PathBuf,
    queue: Arc<Queue>,
    new: broadcast::Sender<Arc<Record>>,
    refusals: Mutex<Bucket>,
}

impl Audit {
    /// Opens the records in a folder, and starts to write. Without a folder that can be written records are only told to those
    /// who follow.
    pub(crate) fn start(folder: &Path) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let new = broadcast::Sender::new(BEHIND);
        let writer = match Writer::open(folder) {
            Ok(writer) => writer,
            Err(error) => {
                say(format_args!(
                    "nothing is kept of who calls: cannot use {}: {}",
                    folder.display(),
                    chain(&error)
                ));
                Writer::nowhere()
            }
        };
        let (waiting, told) = (queue.clone(), new.clone());
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&waiting, &told))?;
        let refusals = Mutex::new(Bucket::new(Instant::now()));
        Ok(Self { folder: folder.to_owned(), queue, new, refusals })
    }

    /// Keeps a call.
    pub(crate) fn called(&self, record: Record, changes: bool) {
        self.keep(if changes { Sort::Change } else { Sort::Read }, record);
    }

    /// Keeps a call that was refused, and says so; of a flood only some.
    pub(crate) fn call_refused(&self, record: Record) {
        if !self.may_tell() {
            return;
        }
        say(format_args!(
            "{}: refused: {}",
            record.peer,
            record.why.as_deref().unwrap_or(&record.result)
        ));
        self.keep(Sort::Refused, record);
    }

    /// Whether one more refusal may be told of.
    fn may_tell(&self) -> bool {
        let taken =
            self.refusals.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if let Some(untold @ 1..) = taken {
            say(format_args!("{untold} more connections or calls were refused"));
        }
        taken.is_some()
    }

    /// Keeps a connection that was refused, and says so; of a flood only some.
    pub(crate) fn refused(&self, address: SocketAddr, refusal: &Refusal) {
        if !self.may_tell() {
            return;
        }
        match refusal.subject.as_str() {
            "" => say(format_args!("{address}: refused: {}", refusal.why)),
            subject => say(format_args!("{address}: refused: {subject}: {}", refusal.why)),
        }
        let mut record = Record {
            peer: address.to_string(),
            subject: refusal.subject.clone(),
            result: "REFUSED".to_owned(),
            why: Some(refusal.why.clone()),
            ..Record::default()
        };
        record.at(SystemTime::now(), Duration::ZERO);
        self.keep(Sort::Refused, record);
    }

    fn keep(&self, sort: Sort, record: Record) {
        self.queue.put(Item::Keep(sort, Box::new(record)));
    }

    /// Waits until what was handed over is written, but not for ever.
    pub(crate) async fn flush(&self) {
        /// A disk that does not answer must not hold up the agent's end.
        const LONGEST: Duration = Duration::from_secs(1);

        let (written, wait) = oneshot::channel();
        self.queue.put(Item::Flush(written));
        // Without the writer there is nothing to wait for.
        let _ = tokio::time::timeout(LONGEST, wait).await;
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is kept from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.new.subscribe()
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// How many refusals may be told of.
#[derive(Debug)]
struct Bucket {
    left: u32,
    filled: Instant,
    untold: u64,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { left: REFUSALS_AT_ONCE, filled: now, untold: 0 }
    }

    /// Whether one more may be told of, and how many were not since the last.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let seconds = now.duration_since(self.filled).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(REFUSALS_A_SECOND);
            self.left = self.left.saturating_add(more).min(REFUSALS_AT_ONCE);
            self.filled += Duration::from_secs(seconds);
        }
        if self.left == 0 {
            self.untold += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests;

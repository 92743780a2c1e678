//! The flight recorder: how this boot went and what was said last, on the data partition, for whoever looks after the next boot.
//!
//! It writes when the boot is over, when a unit has failed, and when the machine goes down; never on a timer. Writing may take as long
//! as a disk does, so it has threads of its own, and nobody waits for them but the data partition's unmount, for a bounded time. A record
//! that finds no storage is written when storage comes.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keel_control::{BootRecord, LogLine, MAX_RECORD, RecordHead};
use keel_host::process::{Journal, LogLine as Kept};
use keel_host::record::{RecordErrorKind, Records};
use keel_plan::Trace;
use tokio::sync::{mpsc, watch};

use crate::status::millis;

/// Where records are: keel-control tells the agent of the same place.
const STORAGE: &str = "/var/lib/keel";
const FOLDER: &str = "boots";

/// A unit that fails again and again costs one record in this time.
const PAUSE: Duration = Duration::from_secs(5);

/// The most bytes of a trace; the rest of a record is lines.
const MAX_TRACE: usize = 1 << 20;

/// The most bytes of a reason in a trace. A reason may hold a program's last words.
const MAX_WHY: usize = 1024;

/// What stands around a line in a record: keys, and numbers of any length.
const AROUND_A_LINE: usize = 96;

/// How a boot stands, as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) boot: BootRecord,
    pub(crate) trace: Trace,
}

/// Writes records. What it has to say comes out of the other end of its channel.
pub(crate) struct Recorder {
    wanted: watch::Sender<Option<Arc<Snapshot>>>,
    writer: Arc<Writer>,
}

/// What a thread needs to write a record.
struct Writer {
    records: Records,
    journal: Journal,
    started: Instant,
    progress: Mutex<Progress>,
    say: mpsc::UnboundedSender<String>,
}

/// Held while a record is written: there is one file, and one writer at a time.
#[derive(Default)]
struct Progress {
    /// Whether a record of this boot is on the disk.
    written: bool,
    /// The machine goes down and the last record is written: none comes after it.
    over: bool,
    /// What was said last, not to be said again.
    said: Option<String>,
}

impl Recorder {
    /// Starts, on the current runtime.
    pub(crate) fn start(
        journal: Journal,
        started: Instant,
    ) -> (Self, mpsc::UnboundedReceiver<String>) {
        let (say, said) = mpsc::unbounded_channel();
        let writer = Arc::new(Writer {
            records: Records::new(STORAGE, FOLDER),
            journal,
            started,
            progress: Mutex::default(),
            say,
        });
        let (wanted, mut asked) = watch::channel::<Option<Arc<Snapshot>>>(None);
        let writes = writer.clone();
        tokio::spawn(async move {
            while asked.changed().await.is_ok() {
                let Some(snapshot) = asked.borrow_and_update().clone() else { continue };
                let writer = writes.clone();
                let write = move || writer.write(&snapshot, false);
                if tokio::task::spawn_blocking(write).await.unwrap_or(false) {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        (Self { wanted, writer }, said)
    }

    /// Where the records' storage is mounted.
    pub(crate) fn storage(&self) -> &std::path::Path {
        self.writer.records.storage()
    }

    /// Has a record written as soon as that is possible. The newest snapshot counts.
    pub(crate) fn record(&self, snapshot: Snapshot) {
        self.wanted.send_replace(Some(Arc::new(snapshot)));
    }

    /// Has the record written again, if one was wanted while there was no storage.
    pub(crate) fn storage_is_there(&self) {
        self.wanted.send_if_modified(|snapshot| snapshot.is_some());
    }

    /// What writes the newest snapshot, once more and with what was said since; for the last moment before the unmount.
    pub(crate) fn last_words(&self) -> impl Fn() + Send + Sync + 'static {
        let (writer, snapshots) = (self.writer.clone(), self.wanted.subscribe());
        move || {
            let snapshot = snapshots.borrow().clone();
            if let Some(snapshot) = snapshot {
                writer.write(&snapshot, snapshot.boot.ended.is_some());
            }
        }
    }

    /// Whether there was never a place for a record of this boot. Asks nobody who may be waiting for a disk.
    pub(crate) fn had_no_storage(&self) -> bool {
        let progress = self.writer.progress.try_lock();
        progress.is_ok_and(|progress| !progress.written && progress.said.is_none())
    }
}

impl Writer {
    /// Writes a record. Whether it did: what finds no storage may be tried again at once.
    fn write(&self, snapshot: &Snapshot, last: bool) -> bool {
        let mut progress = self.progress();
        if progress.over {
            return false;
        }
        progress.over = last;
        let id = &snapshot.boot.id;
        let written = self.records.write(id, |out| self.content(snapshot, out));
        match written {
            Ok(()) => {
                progress.written = true;
                progress.said = None;
            }
            // The storage's coming has it tried again.
            Err(error) if matches!(error.kind, RecordErrorKind::NoStorage) => return false,
            Err(error) => {
                let text = error.to_string();
                if progress.said.as_ref() != Some(&text) {
                    progress.said = Some(text.clone());
                    // Nobody listens any more when the machine is at its end.
                    drop(self.say.send(text));
                }
            }
        }
        true
    }

    fn content(&self, snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
        let head = serde_json::to_string(&RecordHead::of(snapshot.boot.clone()))?;
        let trace = trace_json(snapshot.trace.clone());
        writeln!(out, "{head}\n{trace}")?;
        let used = head.len() + trace.len() + 2;
        let left = usize::try_from(MAX_RECORD).unwrap_or(usize::MAX).saturating_sub(used);
        let mut reader = self.journal.newest(left, cost);
        // What is written meanwhile would not fit.
        let end = *reader.changes().borrow();
        loop {
            let found = reader.read();
            if found.lines.is_empty() {
                return Ok(());
            }
            for (unit, line) in found.lines {
                if line.seq >= end {
                    return Ok(());
                }
                serde_json::to_writer(&mut *out, &told(&unit, line, self.started))?;
                out.write_all(b"\n")?;
            }
        }
    }

    /// Nothing that is done with the lock held leaves it half changed.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line as keel-control tells it.
pub(crate) fn told(unit: &str, line: Kept, started: Instant) -> LogLine {
    LogLine {
        seq: line.seq,
        at_ms: millis(line.at.saturating_duration_since(started)),
        unit: unit.to_owned(),
        text: line.text,
        cut: line.cut,
    }
}

/// What a line takes in a record, at most.
fn cost(unit: &str, line: &Kept) -> usize {
    // Control characters are gone by now, but for tabs; what else JSON escapes takes two bytes.
    let escaped = line.text.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | b'\t')).count();
    AROUND_A_LINE + unit.len() + line.text.len() + escaped
}

/// A trace on one line, of bounded length. The goal's unit comes first, for without it there is no trace.
pub(crate) fn trace_json(mut trace: Trace) -> String {
    for unit in &mut trace.units {
        if let Some(why) = &mut unit.why
            && why.len() > MAX_WHY
        {
            why.truncate(why.floor_char_boundary(MAX_WHY));
        }
    }
    loop {
        // Strings and numbers under fixed keys: there is nothing here that JSON cannot hold.
        let text = serde_json::to_string(&trace).unwrap_or_default();
        if text.len() <= MAX_TRACE || trace.units.len() <= 1 {
            return text;
        }
        trace.units.truncate(trace.units.len() / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_control::GoalState;
    use keel_host::process::LogBounds;
    use keel_plan::{About, Ending, StateName, UnitTrace};

    fn snapshot(units: usize, why: &str) -> Snapshot {
        let unit = |n: usize| UnitTrace {
            name: if n == 0 { "boot".to_owned() } else { format!("unit-{n}") },
            kind: "oneshot".to_owned(),
            stage: None,
            state: StateName::Failed,
            began_us: Some(1),
            ended_us: Some(2),
            waited_for: None,
            attempts: 1,
            why: Some(why.to_owned()),
            queued_us: None,
            queued_behind: None,
            slack_us: None,
        };
        let units = (0..units).map(unit).collect();
        let (digest, goal) = ("sha256:00".to_owned(), "boot".to_owned());
        let ending = Ending::Degraded;
        let trace = Trace::recorded(digest, goal, ending, 7, None, About::default(), units);
        let boot = BootRecord {
            id: "0f".repeat(16),
            began_ms: 1_700_000_000_000,
            recorded_ms: 1_700_000_001_000,
            goal: "boot".to_owned(),
            state: GoalState::Degraded,
            total_us: Some(7),
            digest: "sha256:00".to_owned(),
            ended: Some(keel_control::Shutdown::PowerOff),
        };
        Snapshot { boot, trace }
    }

    fn writer(journal: Journal) -> Writer {
        Writer {
            records: Records::new("/nonexistent", FOLDER),
            journal,
            started: Instant::now(),
            progress: Mutex::default(),
            say: mpsc::unbounded_channel().0,
        }
    }

    fn content(writer: &Writer, snapshot: &Snapshot) -> String {
        let mut out = Vec::new();
        writer.content(snapshot, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_is_a_head_a_trace_and_lines() {
        let journal = Journal::new();
        journal.unit("web", LogBounds::default()).push(b"say \"hi\"\x1b");
        let text = content(&writer(journal), &snapshot(1, "no such file"));
        let lines: Vec<_> = text.lines().collect();
        let head: RecordHead = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(head.known(), Some(snapshot(1, "").boot));
        assert!(lines[0].contains(r#""state":"degraded""#), "{}", lines[0]);
        assert!(lines[0].ends_with(r#""ended":"power-off"}}"#), "{}", lines[0]);
        assert_eq!(Trace::parse(lines[1]).unwrap().units[0].why.as_deref(), Some("no such file"));
        let line: LogLine = serde_json::from_str(lines[2]).unwrap();
        assert_eq!((line.seq, line.unit.as_str()), (1, "web"));
        assert_eq!(line.text, "say \"hi\"\\u{1b}");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_record_is_bounded_and_holds_the_newest() {
        let journal = Journal::new();
        let bounds = LogBounds { lines: 100_000, bytes: 64 << 20, line: 4096 };
        let unit = journal.unit("talks", bounds);
        (0..3000).for_each(|n| unit.push(format!("{n} {}", "\"".repeat(1000)).as_bytes()));
        let text = content(&writer(journal), &snapshot(20_000, &"y".repeat(5000)));
        let most = usize::try_from(MAX_RECORD).unwrap();
        assert!(text.len() <= most && text.len() > most * 3 / 4, "{}", text.len());
        let last: LogLine = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert!(last.text.starts_with("2999 "), "{}", last.text);
        let trace = Trace::parse(text.lines().nth(1).unwrap()).unwrap();
        assert!(trace.find("boot").is_some() && trace.units.len() > 100);
        assert_eq!(trace.units[1].why.as_ref().map(String::len), Some(MAX_WHY));
    }

    #[test]
    fn the_storage_is_where_the_agent_looks() {
        assert_eq!(format!("{STORAGE}/{FOLDER}"), keel_control::RECORDS);
    }
}

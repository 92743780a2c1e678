//! What units wrote, and boots that are remembered: as asked, as answered, and as kept on the disk.
//!
//! Init keeps the lines of the boot that runs, and writes a record of each boot to [`RECORDS`], which the agent reads. A record is
//! lines of JSON: a [`RecordHead`], the boot's trace (docs/trace.md), then a [`LogLine`] each.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::message::{GoalState, Shutdown};

/// Where the records of boots are: a folder for each boot, named by its id, with one file [`RECORD_SUFFIX`].
pub const RECORDS: &str = "/var/lib/keel/boots";

/// What the name of a record's file ends with. Before it stands the boot's number on this disk, the first boot's being 1.
pub const RECORD_SUFFIX: &str = ".jsonl";

/// The most bytes of a record.
pub const MAX_RECORD: u64 = 2 << 20;

/// What is wanted of the lines that units wrote in this boot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogQuery {
    /// Only lines of these units; of all if there are none.
    pub units: Vec<String>,
    /// Only lines with this number or a greater one.
    pub from_seq: u64,
    /// Of what is there already, at most so many lines, the newest; 0 for all.
    pub tail: u32,
    /// Only lines that are no older than so many milliseconds.
    pub newer_than_ms: Option<u64>,
    /// Whether to go on with what is written from now on.
    pub follow: bool,
}

/// A line that a unit wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its number among all units' lines of its boot, from 1.
    pub seq: u64,
    /// When: milliseconds since init started.
    pub at_ms: u64,
    /// The unit that wrote it.
    pub unit: String,
    /// The text.
    pub text: String,
    /// Whether the line was longer; the unit's next line goes on with it.
    pub cut: bool,
}

/// Some lines, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogBatch {
    /// The moment of reading: milliseconds since init started.
    pub now_ms: u64,
    /// Lines before the last of these that were asked for and are forgotten.
    pub dropped: u64,
    /// The lines; none when there is nothing newer.
    pub lines: Vec<LogLine>,
    /// Where to read on.
    pub next: u64,
}

/// Where a connection reads lines, at its own pace.
pub trait LogSource: Send {
    /// The next lines, without waiting, and little enough for a frame.
    fn read(&mut self) -> LogBatch;

    /// What changes when there may be more.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// A boot, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRecord {
    /// Its id: 32 lower-case hexadecimal digits.
    pub id: String,
    /// When it began: milliseconds since 1970, by the machine's clock at the time of writing.
    pub began_ms: u64,
    /// When this was written, by the same clock.
    pub recorded_ms: u64,
    /// The target that it worked towards.
    pub goal: String,
    /// How far it came.
    pub state: GoalState,
    /// Microseconds from init's start to the goal; none if it was not reached.
    pub total_us: Option<u64>,
    /// The digest of its graph.
    pub digest: String,
    /// How the machine goes down; none if nothing was said of that yet.
    pub ended: Option<Shutdown>,
}

/// The first line of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordHead {
    /// Always [`RecordHead::FORMAT`].
    pub format: String,
    /// The version of the format.
    pub version: u32,
    /// The boot.
    pub boot: BootRecord,
}

impl RecordHead {
    /// What stands under `format`.
    pub const FORMAT: &str = "keel-boot-record";
    /// The version that is written, and the only one there is.
    pub const VERSION: u32 = 1;

    /// The head of that boot's record.
    #[must_use]
    pub fn of(boot: BootRecord) -> Self {
        Self { format: Self::FORMAT.to_owned(), version: Self::VERSION, boot }
    }

    /// The boot, if this is the head of a record that can be read.
    #[must_use]
    pub fn known(self) -> Option<BootRecord> {
        (self.format == Self::FORMAT && self.version == Self::VERSION && is_boot_id(&self.boot.id))
            .then_some(self.boot)
    }
}

/// Whether a text is a boot's id. Nothing else is ever a part of a path.
#[must_use]
pub fn is_boot_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The number in the name of a record's file.
#[must_use]
pub fn record_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(RECORD_SUFFIX)?;
    let canonical = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_disk() {
        let check = |name: &str, expect: Option<u64>| assert_eq!(record_number(name), expect);
        check("1.jsonl", Some(1));
        check("120.jsonl", Some(120));
        check("0.jsonl", None);
        check("01.jsonl", None);
        check("+1.jsonl", None);
        check(".jsonl", None);
        check("1.json", None);
        check("99999999999999999999999.jsonl", None);
        assert!(is_boot_id(&"0a".repeat(16)));
        assert!(!is_boot_id(&"0A".repeat(16)));
        assert!(!is_boot_id("../../../../../../../etc/passwd."));
        assert!(!is_boot_id(""));
    }
}

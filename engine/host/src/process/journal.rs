//! What all units wrote, numbered through, so that a reader can go on where it stopped.
//!
//! Every line of a boot has a number of its own, from 1, whichever unit wrote it. Each unit has its own bounds: one that talks too
//! much loses its own oldest words, and nobody else's. One lock is over all of it, so whoever has read a number never finds a lower one
//! afterwards. Nobody is woken but readers that wait.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::log::{LogBounds, LogBuffer, LogLine};

/// The most lines, and about the most bytes, that are read at once.
const MOST_LINES: usize = 256;
const MOST_BYTES: usize = 256 * 1024;

/// The lines of a boot, as far as they are kept. Clones share them.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    kept: Mutex<Kept>,
    /// The number of the next line; readers wait on its changes.
    next: watch::Sender<u64>,
}

struct Kept {
    next: u64,
    units: Vec<Unit>,
    /// Places in `units`.
    names: HashMap<Arc<str>, usize>,
}

struct Unit {
    name: Arc<str>,
    bounds: LogBounds,
    lines: VecDeque<LogLine>,
    bytes: usize,
    dropped: u64,
    /// The number of the line that was dropped last.
    last_dropped: u64,
}

/// What a reader wants.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    /// Only lines of these units; of all if there are none.
    pub units: &'a [String],
    /// Only lines with this number or a greater one.
    pub from: u64,
    /// Only lines that were read at this moment or later.
    pub since: Option<Instant>,
    /// Of what is there already, at most so many lines, the newest; 0 for all.
    pub tail: usize,
}

/// Why a reader cannot have what it wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A unit that writes no lines.
    #[error("no unit `{0}` writes lines")]
    NoLog(String),
    /// A number that has not been given out.
    #[error("line {asked} has not been written, the next one is {next}")]
    NotYet {
        /// The number asked for.
        asked: u64,
        /// The number that the next line will have.
        next: u64,
    },
}

/// Some lines, in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    /// Lines before the last of these that were wanted and are gone. Exact while one reader reads on; a reader that begins among
    /// lines that are gone, and wants some units alone, is told how many they are at most.
    pub dropped: u64,
    /// The lines, and who wrote each; none when nothing is newer.
    pub lines: Vec<(Arc<str>, LogLine)>,
    /// Where to read on.
    pub next: u64,
}

impl Journal {
    /// An empty one.
    pub fn new() -> Self {
        let kept = Kept { next: 1, units: Vec::new(), names: HashMap::new() };
        let shared = Shared { kept: Mutex::new(kept), next: watch::Sender::new(1) };
        Self { shared: Arc::new(shared) }
    }

    /// Makes room for a unit's lines. One that wrote before, and comes back in another graph, goes on where it stopped.
    pub fn unit(&self, name: &str, bounds: LogBounds) -> LogBuffer {
        let mut kept = self.kept();
        if let Some(&known) = kept.names.get(name) {
            kept.units[known].bounds = bounds;
            return LogBuffer::of(self.clone(), known, bounds);
        }
        let name: Arc<str> = name.into();
        let place = kept.units.len();
        kept.names.insert(name.clone(), place);
        kept.units.push(Unit {
            name,
            bounds,
            lines: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            last_dropped: 0,
        });
        LogBuffer::of(self.clone(), place, bounds)
    }

    /// Begins to read.
    ///
    /// # Errors
    /// If a unit writes no lines, or the first number wanted is not given out yet.
    pub fn reader(&self, wanted: &Wanted<'_>) -> Result<Reader, Unreadable> {
        let kept = self.kept();
        let asked = wanted.from.max(1);
        if asked > kept.next {
            return Err(Unreadable::NotYet { asked, next: kept.next });
        }
        let find = |name: &String| {
            let found = kept.names.get(name.as_str()).copied();
            found.ok_or_else(|| Unreadable::NoLog(name.clone()))
        };
        let mut units = match wanted.units {
            [] => (0..kept.units.len()).collect(),
            names => names.iter().map(find).collect::<Result<Vec<_>, _>>()?,
        };
        units.sort_unstable();
        units.dedup();
        let from = kept.first(&units, asked, wanted.since, wanted.tail);
        Ok(self.reader_from(&kept, units, from, wanted.units.is_empty()))
    }

    /// Begins to read, of all units, the newest lines whose costs together are no more than `budget`.
    pub fn newest(&self, budget: usize, cost: impl Fn(&str, &LogLine) -> usize) -> Reader {
        let kept = self.kept();
        let costs = |unit: &Unit| -> Vec<(u64, usize)> {
            unit.lines.iter().map(|line| (line.seq, cost(&unit.name, line))).collect()
        };
        let mut lines: Vec<_> = kept.units.iter().flat_map(costs).collect();
        lines.sort_unstable_by_key(|(seq, _)| Reverse(*seq));
        let mut left = budget;
        let affordable = lines.iter().take_while(|(_, cost)| {
            let rest = left.checked_sub(*cost);
            left = rest.unwrap_or(0);
            rest.is_some()
        });
        let from = affordable.last().map_or(kept.next, |(seq, _)| *seq);
        self.reader_from(&kept, (0..kept.units.len()).collect(), from, true)
    }

    fn reader_from(&self, kept: &Kept, units: Vec<usize>, from: u64, all: bool) -> Reader {
        let cursors = units.into_iter().map(|unit| Cursor { unit, read: kept.read(unit, from) });
        Reader { journal: self.clone(), cursors: cursors.collect(), from, all }
    }

    pub(super) fn push(&self, unit: usize, text: String, cut: bool) {
        let mut kept = self.kept();
        let seq = kept.next;
        kept.next += 1;
        let next = kept.next;
        // Read under the lock: times rise as numbers do.
        let line = LogLine { seq, at: Instant::now(), text, cut };
        if let Some(unit) = kept.units.get_mut(unit) {
            unit.push(line);
        }
        self.shared.next.send_replace(next);
    }

    pub(super) fn tail(&self, unit: usize, count: usize) -> Vec<LogLine> {
        let kept = self.kept();
        let Some(Unit { lines, .. }) = kept.units.get(unit) else { return Vec::new() };
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }

    pub(super) fn dropped(&self, unit: usize) -> u64 {
        self.kept().units.get(unit).map_or(0, |unit| unit.dropped)
    }

    /// Nothing that is done with the lock held can panic halfway.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

impl Kept {
    /// The number of the first line that is wanted.
    fn first(&self, units: &[usize], asked: u64, since: Option<Instant>, tail: usize) -> u64 {
        if since.is_none() && tail == 0 {
            return asked;
        }
        let early = |line: &LogLine| line.seq < asked || since.is_some_and(|since| line.at < since);
        let wanted = units.iter().flat_map(|unit| {
            let lines = &self.units[*unit].lines;
            lines.range(lines.partition_point(early)..).map(|line| line.seq)
        });
        let mut wanted: Vec<_> = wanted.collect();
        wanted.sort_unstable();
        let skipped = if tail == 0 { 0 } else { wanted.len().saturating_sub(tail) };
        wanted.get(skipped).copied().unwrap_or(self.next)
    }

    /// How many of its lines a reader that begins with number `from` counts as read.
    fn read(&self, unit: usize, from: u64) -> u64 {
        let unit = &self.units[unit];
        let before = unit.lines.partition_point(|line| line.seq < from);
        if before > 0 || unit.last_dropped < from {
            return unit.dropped + before as u64;
        }
        unit.dropped - unit.dropped.min(unit.last_dropped - from + 1)
    }
}

impl Unit {
    fn push(&mut self, line: LogLine) {
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > self.bounds.lines || self.bytes > self.bounds.bytes {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.text.len();
            self.dropped += 1;
            self.last_dropped = oldest.seq;
        }
    }
}

/// Reads on and on, from where it stopped.
pub struct Reader {
    journal: Journal,
    cursors: Vec<Cursor>,
    from: u64,
    all: bool,
}

struct Cursor {
    unit: usize,
    /// Lines of the unit in this boot that are read, or that this reader never wanted.
    read: u64,
}

impl Reader {
    /// The next lines, without waiting; none when nothing is newer.
    pub fn read(&mut self) -> Lines {
        let kept = self.journal.kept();
        let heads = self.cursors.iter().enumerate().filter_map(|(nth, cursor)| {
            let lines = &kept.units[cursor.unit].lines;
            let at = lines.partition_point(|line| line.seq < self.from);
            lines.get(at).map(|line| Reverse((line.seq, nth, at)))
        });
        let mut heads: BinaryHeap<_> = heads.collect();
        let mut found = Lines { dropped: 0, lines: Vec::new(), next: self.from };
        let mut bytes = 0;
        while found.lines.len() < MOST_LINES
            && bytes < MOST_BYTES
            && let Some(Reverse((seq, nth, at))) = heads.pop()
        {
            let cursor = &mut self.cursors[nth];
            let unit = &kept.units[cursor.unit];
            let line = &unit.lines[at];
            // What was dropped since lies before this line, for lines are dropped from the oldest on.
            let ordinal = unit.dropped + at as u64;
            found.dropped += ordinal.saturating_sub(cursor.read);
            cursor.read = ordinal + 1;
            bytes += line.text.len();
            found.lines.push((unit.name.clone(), line.clone()));
            found.next = seq + 1;
            heads.extend(unit.lines.get(at + 1).map(|line| Reverse((line.seq, nth, at + 1))));
        }
        if self.all {
            // Of all units' numbers none is left out, so those that are not there are gone.
            found.dropped = found.next - self.from - found.lines.len() as u64;
        }
        self.from = found.next;
        found
    }

    /// What changes with every line that is written.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.journal.shared.next.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as `unit text`, into units that keep two lines each.
    fn journal(lines: &[&str]) -> Journal {
        let journal = Journal::new();
        let bounds = LogBounds { lines: 2, ..LogBounds::default() };
        let units = ["a", "b"].map(|name| (name, journal.unit(name, bounds)));
        for line in lines {
            let (name, text) = line.split_once(' ').unwrap();
            let (_, unit) = units.iter().find(|(unit, _)| *unit == name).unwrap();
            unit.push(text.as_bytes());
        }
        journal
    }

    /// What one reading gives: the numbers and texts, how many are gone, where to read on.
    fn gist(reader: &mut Reader) -> (String, u64, u64) {
        let Lines { dropped, lines, next } = reader.read();
        let lines = lines.iter().map(|(unit, line)| format!("{}{unit}:{}", line.seq, line.text));
        (lines.collect::<Vec<_>>().join(" "), dropped, next)
    }

    #[test]
    fn lines_are_merged_and_what_is_gone_is_counted() {
        let check = |lines: &[&str], units: &[&str], from, tail, expect: (&str, u64, u64)| {
            let units: Vec<_> = units.iter().map(ToString::to_string).collect();
            let wanted = Wanted { units: &units, from, since: None, tail };
            let mut reader = journal(lines).reader(&wanted).unwrap();
            assert_eq!(gist(&mut reader), (expect.0.to_owned(), expect.1, expect.2), "{wanted:?}");
        };
        let few = ["a x", "b y", "a z"];
        check(&[], &[], 0, 0, ("", 0, 1));
        check(&[], &[], 1, 0, ("", 0, 1));
        check(&few, &[], 0, 0, ("1a:x 2b:y 3a:z", 0, 4));
        check(&few, &[], 2, 0, ("2b:y 3a:z", 0, 4));
        check(&few, &[], 4, 0, ("", 0, 4));
        check(&few, &["a"], 0, 0, ("1a:x 3a:z", 0, 4));
        check(&few, &["b"], 0, 0, ("2b:y", 0, 3));
        check(&few, &["b", "b", "a"], 0, 0, ("1a:x 2b:y 3a:z", 0, 4));
        check(&few, &[], 0, 2, ("2b:y 3a:z", 0, 4));
        check(&few, &["a"], 0, 1, ("3a:z", 0, 4));
        check(&few, &[], 0, 9, ("1a:x 2b:y 3a:z", 0, 4));
        check(&few, &[], 3, 2, ("3a:z", 0, 4));
        // One that talks loses its own words, and the other keeps its own.
        let many = ["b q", "a 2", "a 3", "a 4", "b r", "a 6"];
        check(&many, &[], 0, 0, ("1b:q 4a:4 5b:r 6a:6", 2, 7));
        check(&many, &["a"], 0, 0, ("4a:4 6a:6", 2, 7));
        check(&many, &["b"], 0, 0, ("1b:q 5b:r", 0, 6));
        check(&many, &["a"], 3, 0, ("4a:4 6a:6", 1, 7));
        check(&many, &["a"], 4, 0, ("4a:4 6a:6", 0, 7));
        check(&many, &[], 3, 0, ("4a:4 5b:r 6a:6", 1, 7));
    }

    #[test]
    fn what_cannot_be_read() {
        let check = |units: &[&str], from, expect: Unreadable| {
            let units: Vec<_> = units.iter().map(ToString::to_string).collect();
            let wanted = Wanted { units: &units, from, ..Wanted::default() };
            assert_eq!(journal(&["a x"]).reader(&wanted).err(), Some(expect));
        };
        check(&["a", "c"], 0, Unreadable::NoLog("c".to_owned()));
        check(&[], 3, Unreadable::NotYet { asked: 3, next: 2 });
    }

    #[test]
    fn a_reader_goes_on_where_it_stopped_and_misses_nothing_that_is_there() {
        let journal = Journal::new();
        let talks = journal.unit("talks", LogBounds { lines: 300, ..LogBounds::default() });
        let still = journal.unit("still", LogBounds::default());
        let only = ["talks".to_owned()];
        let mut all = journal.reader(&Wanted::default()).unwrap();
        let mut one = journal.reader(&Wanted { units: &only, ..Wanted::default() }).unwrap();
        assert!(!all.changes().has_changed().unwrap());
        let mut changes = all.changes();
        still.push(b"first");
        (0..MOST_LINES).for_each(|_| talks.push(b"x"));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let read = |reader: &mut Reader| {
            let Lines { dropped, lines, next } = reader.read();
            (dropped, lines.len(), next)
        };
        assert_eq!(read(&mut all), (0, 256, 257));
        assert_eq!(read(&mut all), (0, 1, 258));
        assert_eq!(read(&mut all), (0, 0, 258));
        assert_eq!(read(&mut one), (0, 256, 258));
        (0..1000).for_each(|_| talks.push(b"x"));
        still.push(b"last");
        assert_eq!(read(&mut one), (700, 256, 1214), "exactly what is gone");
        assert_eq!(read(&mut one), (0, 44, 1258));
        assert_eq!(read(&mut all), (700, 256, 1214));
        assert_eq!(read(&mut all), (0, 45, 1259));
        // A reader that comes again with the number learns what it missed.
        let again = Wanted { units: &only, from: 258, ..Wanted::default() };
        assert_eq!(read(&mut journal.reader(&again).unwrap()), (700, 256, 1214));
    }

    #[test]
    fn since_a_moment() {
        let journal = journal(&["a x", "b y"]);
        let since = Instant::now();
        let wanted = Wanted { since: Some(since), ..Wanted::default() };
        assert_eq!(gist(&mut journal.reader(&wanted).unwrap()), (String::new(), 0, 3));
        journal.unit("c", LogBounds::default()).push(b"z");
        assert_eq!(gist(&mut journal.reader(&wanted).unwrap()), ("3c:z".to_owned(), 0, 4));
    }

    #[test]
    fn the_newest_within_a_budget() {
        let check = |budget, expect: &str| {
            let journal = journal(&["a 1", "b 22", "a 333"]);
            let mut reader = journal.newest(budget, |_, line| line.text.len());
            assert_eq!(gist(&mut reader).0, expect, "{budget}");
        };
        check(6, "1a:1 2b:22 3a:333");
        check(5, "2b:22 3a:333");
        check(4, "3a:333");
        check(2, "");
    }
}

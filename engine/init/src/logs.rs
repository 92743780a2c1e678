//! What units wrote, as keel-control tells it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keel_control::{LogBatch, LogQuery, LogSource, Refusal, RefusalKind};
use keel_host::process::{Journal, Lines, Reader, Unreadable, Wanted};
use tokio::sync::watch;

use crate::recorder::told;
use crate::status::millis;

/// Where lines are read from. Clones read from the same place.
#[derive(Clone)]
pub(crate) struct Logs {
    journal: Journal,
    started: Instant,
    /// Every unit, whether it writes or not.
    units: Arc<Mutex<HashSet<String>>>,
}

impl Logs {
    pub(crate) fn new(journal: Journal, started: Instant, units: HashSet<String>) -> Self {
        Self { journal, started, units: Arc::new(Mutex::new(units)) }
    }

    /// The units of another graph.
    pub(crate) fn adopt(&self, units: HashSet<String>) {
        *self.units.lock().unwrap_or_else(PoisonError::into_inner) = units;
    }

    fn is_unit(&self, name: &str) -> bool {
        self.units.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Begins to read.
    pub(crate) fn read(&self, query: &LogQuery) -> Result<Box<dyn LogSource>, Refusal> {
        let now = Instant::now();
        let newer_than = query.newer_than_ms.map(Duration::from_millis);
        let wanted = Wanted {
            units: &query.units,
            from: query.from_seq,
            // What is older than the machine's clock leaves nothing out.
            since: newer_than.and_then(|age| now.checked_sub(age)),
            tail: usize::try_from(query.tail).unwrap_or(usize::MAX),
        };
        let reader = self.journal.reader(&wanted).map_err(|error| self.refusal(error))?;
        Ok(Box::new(Source { reader, started: self.started }))
    }

    fn refusal(&self, error: Unreadable) -> Refusal {
        match error {
            Unreadable::NotYet { asked, next } => RefusalKind::NoLine { asked, next },
            Unreadable::NoLog(unit) if self.is_unit(&unit) => {
                RefusalKind::NoLog(format!("`{unit}` runs no program, so it writes no lines"))
            }
            Unreadable::NoLog(unit) => {
                RefusalKind::NoLog(format!("no unit of the running graph is called `{unit}`"))
            }
        }
        .into()
    }
}

struct Source {
    reader: Reader,
    started: Instant,
}

impl LogSource for Source {
    fn read(&mut self) -> LogBatch {
        let Lines { dropped, lines, next } = self.reader.read();
        let lines = lines.into_iter().map(|(unit, line)| told(&unit, line, self.started));
        LogBatch { now_ms: millis(self.started.elapsed()), dropped, lines: lines.collect(), next }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.reader.changes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_host::process::LogBounds;

    #[test]
    fn what_is_refused_and_why() {
        let journal = Journal::new();
        journal.unit("web", LogBounds::default()).push(b"x");
        let units = ["web", "network"].map(str::to_owned).into();
        let logs = Logs::new(journal, Instant::now(), units);
        let check = |unit: &str, from_seq, expect: Result<usize, &str>| {
            let query = LogQuery { units: vec![unit.to_owned()], from_seq, ..LogQuery::default() };
            let read = logs.read(&query).map(|mut source| source.read().lines.len());
            let read = read.map_err(|refusal| refusal.kind.to_string());
            assert_eq!(read, expect.map_err(str::to_owned));
        };
        check("web", 0, Ok(1));
        check("web", 2, Ok(0));
        check("network", 0, Err("`network` runs no program, so it writes no lines"));
        check("wbe", 0, Err("no unit of the running graph is called `wbe`"));
        let ahead = "line 3 has not been written, the next one is 2; has the node rebooted since?";
        check("web", 3, Err(ahead));
        let old = LogQuery { newer_than_ms: Some(u64::MAX), ..LogQuery::default() };
        assert_eq!(logs.read(&old).map(|mut source| source.read().lines.len()).ok(), Some(1));
    }
}

//! A unit's output in bounded memory: the last lines are kept, older ones are dropped and counted.
//!
//! A pipe is always read, whether or not anybody wants the lines, so a service that talks too much loses its own oldest words
//! and never stands still; and PID 1's memory is bounded by the number of units.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::journal::Journal;

/// How much of a unit's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// At most this many lines.
    pub lines: usize,
    /// At most this many bytes over all lines.
    pub bytes: usize,
    /// A line longer than this is cut into several.
    pub line: usize,
}

impl Default for LogBounds {
    /// 64 KiB per unit: enough for a stack trace and what led to it, and twenty units are little over a megabyte.
    fn default() -> Self {
        Self { lines: 1000, bytes: 64 * 1024, line: 4096 }
    }
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its number among the lines that all units wrote in this boot.
    pub seq: u64,
    /// When it was read.
    pub at: Instant,
    /// The line without its end; what is not UTF-8 is replaced, control characters are escaped.
    pub text: String,
    /// It was longer; the unit's next line goes on with it.
    pub cut: bool,
}

/// The last output of one unit, in the journal of all. Clones share it.
#[derive(Clone)]
pub struct LogBuffer {
    journal: Journal,
    unit: usize,
    bounds: LogBounds,
}

impl LogBuffer {
    /// An empty buffer in a journal of its own.
    pub fn new(bounds: LogBounds) -> Self {
        Journal::new().unit("", bounds)
    }

    pub(super) fn of(journal: Journal, unit: usize, bounds: LogBounds) -> Self {
        Self { journal, unit, bounds }
    }

    /// A new pipe into this buffer: the end that a child writes to, for its output and its errors alike, so that their order is
    /// kept. Lines are read, on the current tokio runtime, until the last copy of that end is closed.
    pub fn pipe(&self) -> io::Result<OwnedFd> {
        let (write, mut read) = pipe::pipe()?;
        let write = write.into_blocking_fd()?;
        let buffer = self.clone();
        tokio::spawn(async move {
            let mut splitter = Splitter::new(buffer.bounds.line);
            let mut chunk = [0; 4096];
            loop {
                match read.read(&mut chunk).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => splitter.feed(&chunk[..count], |line, cut| buffer.add(line, cut)),
                }
            }
            splitter.finish(|line, cut| buffer.add(line, cut));
        });
        Ok(write)
    }

    /// Adds one line.
    pub fn push(&self, line: &[u8]) {
        self.add(line, false);
    }

    fn add(&self, line: &[u8], cut: bool) {
        self.journal.push(self.unit, printable(line), cut);
    }

    /// The last `count` lines, oldest first.
    pub fn tail(&self, count: usize) -> Vec<LogLine> {
        self.journal.tail(self.unit, count)
    }

    /// How many lines were dropped to stay within the bounds.
    pub fn dropped(&self) -> u64 {
        self.journal.dropped(self.unit)
    }
}

/// Cuts a stream of bytes into lines, holding at most one line of bounded length.
struct Splitter {
    partial: Vec<u8>,
    longest: usize,
}

impl Splitter {
    fn new(longest: usize) -> Self {
        Self { partial: Vec::new(), longest: longest.max(1) }
    }

    fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8], bool)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ends) =
                piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            while self.partial.len() + text.len() > self.longest {
                let (head, rest) = text.split_at(self.longest - self.partial.len());
                self.partial.extend_from_slice(head);
                line(&self.partial, true);
                self.partial.clear();
                text = rest;
            }
            self.partial.extend_from_slice(text);
            if ends {
                line(&self.partial, false);
                self.partial.clear();
            }
        }
    }

    fn finish(&mut self, mut line: impl FnMut(&[u8], bool)) {
        if !self.partial.is_empty() {
            line(&self.partial, false);
            self.partial.clear();
        }
    }
}

/// Text that may go to a console as it is: no escape sequence of a child repaints the operator's screen.
fn printable(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = String::from_utf8_lossy(line);
    if !text.chars().any(|character| character.is_control() && character != '\t') {
        return text.into_owned();
    }
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        if character.is_control() && character != '\t' {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_lines() {
        // A line that goes on is shown with a backslash.
        let shown =
            |line: &[u8], cut| format!("{}{}", printable(line), if cut { "\\" } else { "" });
        let check = |chunks: &[&str], longest: usize, expect: &[&str]| {
            let mut splitter = Splitter::new(longest);
            let mut lines = Vec::new();
            for chunk in chunks {
                splitter.feed(chunk.as_bytes(), |line, cut| lines.push(shown(line, cut)));
            }
            splitter.finish(|line, cut| lines.push(shown(line, cut)));
            assert_eq!(lines, expect, "{chunks:?}");
        };
        check(&[], 10, &[]);
        check(&["one\ntwo\n"], 10, &["one", "two"]);
        check(&["o", "ne\nt", "wo"], 10, &["one", "two"]);
        check(&["\n\n"], 10, &["", ""]);
        check(&["abcdefgh"], 3, &["abc\\", "def\\", "gh"]);
        check(&["abc\ndef"], 3, &["abc", "def"]);
        check(&["abc", "d"], 3, &["abc\\", "d"]);
        check(&["ab", "c", "\nd"], 3, &["abc", "d"]);
        check(&["dos\r\n"], 10, &["dos"]);
        check(&["\u{1b}[2Jcleared\ttab\n"], 40, &["\\u{1b}[2Jcleared\ttab"]);
    }

    #[test]
    fn the_oldest_lines_make_room_and_are_counted() {
        let check = |bounds: LogBounds, pushed: &[&str], kept: &[&str], dropped: u64| {
            let buffer = LogBuffer::new(bounds);
            for line in pushed {
                buffer.push(line.as_bytes());
            }
            let tail: Vec<_> = buffer.tail(usize::MAX).into_iter().map(|line| line.text).collect();
            assert_eq!(
                (tail, buffer.dropped()),
                (kept.iter().map(ToString::to_string).collect(), dropped)
            );
        };
        let bounds = |lines, bytes| LogBounds { lines, bytes, line: 100 };
        check(bounds(2, 100), &["a", "b", "c"], &["b", "c"], 1);
        check(bounds(9, 5), &["aaa", "bb", "cc"], &["bb", "cc"], 1);
        check(bounds(9, 2), &["too long"], &[], 1);
        check(bounds(0, 9), &["a"], &[], 1);
    }

    #[test]
    fn the_tail_is_the_end_in_order() {
        let buffer = LogBuffer::new(LogBounds::default());
        for number in 0..10 {
            buffer.push(number.to_string().as_bytes());
        }
        let tail: Vec<_> = buffer.tail(3).into_iter().map(|line| line.text).collect();
        assert_eq!(tail, ["7", "8", "9"]);
        assert_eq!(buffer.tail(0), []);
        assert_eq!(buffer.tail(1)[0].seq, 10);
    }
}

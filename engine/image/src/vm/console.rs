//! A machine's serial console, line by line.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The lines of a console as they come. One thread reads, so that a guest never blocks on a full
/// pipe while nobody looks.
#[derive(Debug)]
pub struct Console {
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// Why no line came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoLine {
    /// The time is up.
    TimedOut,
    /// The machine is off.
    Closed,
}

impl Console {
    pub(super) fn new(from: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(from);
            let mut line = Vec::new();
            // The reader stops when the machine is off or nobody holds the console any more.
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                if sender.send(clean(&line)).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { lines, seen: Vec::new() }
    }

    pub(super) fn next(&mut self, deadline: Instant) -> Result<&str, NoLine> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                self.seen.push(line);
                Ok(self.seen.last().map(String::as_str).unwrap_or_default())
            }
            Err(RecvTimeoutError::Timeout) => Err(NoLine::TimedOut),
            Err(RecvTimeoutError::Disconnected) => Err(NoLine::Closed),
        }
    }

    /// Takes the lines that are there already or come within `grace` of each other, and returns all
    /// that was ever seen.
    pub(super) fn drain(&mut self, grace: Duration) -> &[String] {
        while self.next(Instant::now() + grace).is_ok() {}
        &self.seen
    }

    /// Every line that was read so far.
    #[must_use]
    pub fn seen(&self) -> &[String] {
        &self.seen
    }
}

/// A line without its end and without terminal escapes (`ESC [ … letter`), which firmware likes.
fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut chars = text.trim_end_matches(['\r', '\n']).chars();
    let mut cleaned = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                if chars.next() == Some('[') {
                    chars.by_ref().find(char::is_ascii_alphabetic);
                }
            }
            c if c.is_control() && c != '\t' => {}
            c => cleaned.push(c),
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_clean() {
        let check = |line: &str, expect: &str| assert_eq!(clean(line.as_bytes()), expect);
        check("plain\r\n", "plain");
        check("\x1b[2J\x1b[01;01Hbooting\n", "booting");
        check("\x1bcfresh\tstart\n", "fresh\tstart");
        check("bell\x07\n", "bell");
        check("cut \x1b[", "cut ");
    }

    #[test]
    fn the_end_is_told_from_a_pause() {
        let (read, write) = std::io::pipe().unwrap();
        let mut console = Console::new(read);
        let soon = || Instant::now() + Duration::from_millis(20);
        assert_eq!(console.next(soon()), Err(NoLine::TimedOut));
        std::io::Write::write_all(&mut &write, b"one\ntwo").unwrap();
        let later = Instant::now() + Duration::from_secs(10);
        assert_eq!(console.next(later), Ok("one"));
        drop(write);
        assert_eq!(console.next(later), Ok("two"));
        assert_eq!(console.next(later), Err(NoLine::Closed));
        assert_eq!(console.seen(), ["one", "two"]);
    }
}

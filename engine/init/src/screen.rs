//! Writes to the console, from a thread of its own.
//!
//! A serial line takes its time (80 characters are 7 ms at 115200 baud), and a terminal that somebody has stopped with Ctrl-S takes
//! for ever. So the deciding thread only hands lines over. When too many wait, lines are dropped and counted, and the console says
//! how many.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::Duration;

/// Lines that may wait: a boot of several hundred units at once.
const WAITING: usize = 1024;

/// The console. Clones write to the same one.
#[derive(Clone)]
pub(crate) struct Screen {
    lines: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    colour: bool,
}

enum Message {
    Line(String),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

impl Screen {
    /// Writes to our standard output: the kernel gives PID 1 the console there, and a namespace gives whatever its maker chose.
    pub(crate) fn start() -> Self {
        let (lines, waiting) = mpsc::sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = dropped.clone();
        let mut output = std::io::stdout();
        let colour =
            output.is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let writing = move || {
            let mut kernel_log = KernelLog::default();
            while let Ok(message) = waiting.recv() {
                match message {
                    Message::Line(line) => {
                        let lost = lost.swap(0, Ordering::Relaxed);
                        if lost > 0 {
                            drop(writeln!(
                                output,
                                "({lost} lines were dropped: the console is too slow)"
                            ));
                        }
                        drop(writeln!(output, "{line}"));
                        kernel_log.write(&line);
                    }
                    Message::Flush(done) => {
                        drop(output.flush());
                        let _ = done.try_send(());
                    }
                }
            }
        };
        // Without the thread every line is dropped and counted; PID 1 goes on without a console.
        drop(
            std::thread::Builder::new()
                .name("console".into())
                .stack_size(128 * 1024)
                .spawn(writing),
        );
        Self { lines, dropped, colour }
    }

    /// Whether to send colours.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Hands over one line. Never waits.
    pub(crate) fn line(&self, line: impl Into<String>) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.lines.try_send(Message::Line(line.into()))
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The only words of a program that is about to exit.
    pub(crate) fn say_and_flush(&self, text: &str) {
        self.line(text);
        self.flush(Duration::from_secs(1));
    }

    /// Waits until what was handed over is written, or until `patience` ends. For the last words before the power goes.
    pub(crate) fn flush(&self, patience: Duration) {
        let (done, written) = mpsc::sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(patience);
        }
    }
}

/// The kernel's log, so that what init said is found in `dmesg` and in a crash dump too.
#[derive(Default)]
struct KernelLog {
    file: Option<File>,
}

impl KernelLog {
    fn write(&mut self, line: &str) {
        if self.file.is_none() {
            // Absent until /dev is mounted; then it stays.
            self.file = OpenOptions::new().write(true).open("/dev/kmsg").ok();
        }
        let text: String = plain(line);
        if let Some(file) = &mut self.file
            && !text.is_empty()
        {
            // Priority 6 (info) of facility 3 (daemon), below what the console shows: it has been shown already. One write is
            // one record; the kernel limits how many a program may write, and then it says so itself.
            // Without its end the kernel keeps a line back until the next one: more of it might come.
            drop(file.write_all(format!("<30>keel: {text}\n").as_bytes()));
        }
    }
}

/// A line without escape sequences.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            text.push(character);
        }
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_log_has_no_colours() {
        let check = |line: &str, expect: &str| assert_eq!(plain(line), expect);
        check("[ 1s] \x1b[1;31mFAILED\x1b[0m x", "[ 1s] FAILED x");
        check("plain", "plain");
        check("", "");
        check("cut \x1b[", "cut");
    }
}

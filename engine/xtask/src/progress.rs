//! What the person in front of it sees: one line per step, with its time.

use std::io::{self, Write};
use std::time::Instant;

use crate::command::Failure;

/// Prints a line for a person. A closed stderr leaves nobody to tell.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Runs one step and says how long it took.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    say(&format!("==> {name}"));
    let started = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "ok" } else { "FAILED" };
    say(&format!("    {name}: {verdict}, {:.1} s", started.elapsed().as_secs_f64()));
    result
}

/// Prints a result. A closed stdout means that nobody wants it any more.
pub(crate) fn print(text: &str) {
    let _ = write!(io::stdout(), "{text}");
}

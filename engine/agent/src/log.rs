//! What the agent says goes to stderr; init keeps it in the service's log buffer.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::SystemTime;

/// Writes one line. A log that nobody takes any more must not stop the agent.
pub(crate) fn say(line: impl Display) {
    let _: io::Result<()> = writeln!(io::stderr(), "{line}");
}

/// An error and every cause below it, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source's text in their own.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A moment as RFC 3339 writes it, in UTC.
pub(crate) fn utc(time: SystemTime) -> String {
    prost_types::Timestamp::from(time).to_string()
}

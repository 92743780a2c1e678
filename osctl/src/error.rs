//! How osctl ends: its exit codes, and a failure in words that say what to do next.

use std::error::Error;
use std::io;
use std::process::ExitCode;

/// The three ways a command can end; scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well.
    Clean,
    /// The command did its work and found something wrong, or could not do it.
    Findings,
    /// The command line makes no sense; clap's own number for that.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Clean => Self::SUCCESS,
            Exit::Findings => Self::from(1),
            Exit::Usage => Self::from(2),
        }
    }
}

/// Why a command could not do its work.
///
/// Commands keep their own typed errors beside the code that makes them; this is the edge where they turn into the
/// lines a person reads.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    next: Option<String>,
}

impl Failure {
    /// Something went wrong while the command ran; exit code 1.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { exit: Exit::Findings, what: what.into(), source: None, next: None }
    }

    /// The command line was wrong in a way that clap cannot know; exit code 2.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(what) }
    }

    /// Adds the error that lies below; its whole chain is printed.
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what the person can do about it.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Says which node it was, where several are asked and the words do not tell.
    pub(crate) fn at(mut self, node: &str) -> Self {
        if !self.what.contains(node) {
            self.what = format!("{node}: {}", self.what);
        }
        self
    }

    /// Ends with this code, where a command gives codes a meaning of their own.
    pub(crate) fn ending(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether the cause is that nobody reads our output any more.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.source
            .as_deref()
            .and_then(|source| source.downcast_ref::<io::Error>())
            .is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What happened, then each cause below it, then what to do.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("error", self.what.clone())];
        let mut source = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some libraries repeat their source's text in their own.
            if !lines.last().is_some_and(|(_, above)| above.ends_with(&text)) {
                lines.push(("cause", text));
            }
            source = cause.source();
        }
        lines.extend(self.next.clone().map(|next| ("next", next)));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_prints_the_chain_once_and_the_way_on() {
        let inner = io::Error::other("connection refused");
        let failure =
            Failure::new("cannot reach 10.0.0.7:50051").because(inner).next("is the node up?");
        assert_eq!(
            failure.lines(),
            [
                ("error", "cannot reach 10.0.0.7:50051".to_owned()),
                ("cause", "connection refused".to_owned()),
                ("next", "is the node up?".to_owned()),
            ]
        );
    }

    #[test]
    fn only_a_closed_pipe_is_silent() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(Failure::new("cannot write").because(closed).is_closed_pipe());
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(!Failure::new("cannot write").because(full).is_closed_pipe());
        assert!(!Failure::new("cannot write").is_closed_pipe());
    }
}

//! A tool is a program that runs to its end while a unit activates: mkfs.ext4, e2fsck.
//!
//! Rooms that need one are handed a [`RunTool`] and never start a child themselves: in PID 1 one reaper alone may call
//! `wait*`, because a second waiter would steal exit statuses from the first.

use std::ffi::OsString;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use std::{fmt, io};

/// How many bytes of a tool's output are kept at most. It is the tail that is kept: programs say why they fail last.
pub const OUTPUT_LIMIT: usize = 16 * 1024;

/// What a tool's run comes to, sooner or later.
pub type ToolFuture<'a> = Pin<Box<dyn Future<Output = Result<ToolOutput, ToolError>> + Send + 'a>>;

/// Runs tools. PID 1 implements this over its reaper.
pub trait RunTool: Send + Sync {
    /// Starts the tool, gives it its standard input, and waits for its end.
    ///
    /// The tool runs in its own process group (in PID 1: its own cgroup), with an empty environment but for `PATH` and
    /// `LC_ALL=C`. A tool that outlives its timeout is killed with all its children. A tool that ends with a code other
    /// than 0 is no error here: what a code means is known to the caller alone (e2fsck's 1 is a success).
    fn run<'a>(&'a self, tool: &'a Tool) -> ToolFuture<'a>;
}

/// One run of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// The program and its arguments. A program without a slash is looked up in `PATH`.
    pub argv: Vec<OsString>,
    /// How long it may run.
    pub timeout: Duration,
    /// What it reads from standard input; `None` is /dev/null.
    pub stdin: Option<Vec<u8>>,
}

impl Tool {
    /// A tool with no arguments and no standard input.
    pub fn new(program: impl Into<OsString>, timeout: Duration) -> Self {
        Self { argv: vec![program.into()], timeout, stdin: None }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, args: I) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// The program's name, as given.
    pub fn program(&self) -> String {
        self.argv.first().map_or_else(String::new, |program| program.to_string_lossy().into_owned())
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, arg) in self.argv.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{}", arg.to_string_lossy())?;
        }
        Ok(())
    }
}

/// How a tool ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolStatus {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl fmt::Display for ToolStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signaled(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What is left of a tool that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// How it ended.
    pub status: ToolStatus,
    /// The tail, at most [`OUTPUT_LIMIT`] bytes, of what it wrote to standard output and standard error, in that order
    /// in which it came; what is not UTF-8 is replaced.
    pub output: String,
}

impl ToolOutput {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.status == ToolStatus::Exited(0)
    }

    /// The last line that says something, for a one-line report.
    pub fn last_line(&self) -> &str {
        self.output
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or("no output")
    }
}

/// Why a tool did not run to its end.
#[derive(Debug)]
pub struct ToolError {
    /// The program, as it was asked for.
    pub program: String,
    /// What went wrong.
    pub kind: ToolErrorKind,
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.program, self.kind)
    }
}

impl std::error::Error for ToolError {
    /// The kind is said already; its own source is the next cause.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

/// What can go wrong between the start of a tool and its end.
#[derive(Debug, thiserror::Error)]
pub enum ToolErrorKind {
    /// No such program on this machine.
    #[error("not found in PATH")]
    NotFound,
    /// The kernel refused to start it.
    #[error("could not start")]
    Start(#[source] io::Error),
    /// It was killed, because it ran longer than it may.
    #[error("killed after {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The one who runs tools has gone: the machine shuts down.
    #[error("not run, because the machine shuts down")]
    ShuttingDown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_reads_as_it_is_typed() {
        let tool = Tool::new("e2fsck", Duration::from_secs(1)).arg("-p").args(["--", "/dev/vda1"]);
        assert_eq!(tool.to_string(), "e2fsck -p -- /dev/vda1");
        assert_eq!(tool.program(), "e2fsck");
    }

    #[test]
    fn the_last_line_is_the_one_that_says_something() {
        let check = |output: &str, expect: &str| {
            let output = ToolOutput { status: ToolStatus::Exited(0), output: output.to_owned() };
            assert_eq!(output.last_line(), expect);
        };
        check("", "no output");
        check("\n \n", "no output");
        check("one\n two \n\n", "two");
    }
}

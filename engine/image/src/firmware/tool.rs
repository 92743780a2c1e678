//! Runs the few tools that a firmware image takes, with an error that says where to get one.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use super::FirmwareError;
use crate::watch::Watch;

/// A tool that could not do its work.
#[derive(Debug, Error)]
pub enum ToolError {
    /// It does not start.
    #[error("cannot run {tool} ({package})")]
    Start {
        /// The program.
        tool: String,
        /// Where it is from.
        package: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It ends badly.
    #[error("{tool} failed: {said}")]
    Failed {
        /// The program.
        tool: String,
        /// The end of what it printed.
        said: String,
    },
}

/// A program to run, and the package that brings it.
pub(super) struct Tool {
    pub(super) command: Command,
    name: String,
    package: &'static str,
}

pub(super) fn command(name: &str, package: &'static str) -> Tool {
    let mut command = Command::new(name);
    // What a tool prints or reads must not depend on who runs it.
    command.env("LC_ALL", "C").env("TZ", "UTC");
    Tool { command, name: name.to_owned(), package }
}

/// How long a request to stop may go unnoticed while a tool works.
const GLANCE: Duration = Duration::from_millis(50);

impl Tool {
    /// Runs it to its end, or to its death when the build is told to stop.
    pub(super) fn run(mut self, watch: &dyn Watch) -> Result<(), FirmwareError> {
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = self.command.spawn().map_err(|source| ToolError::Start {
            tool: self.name.clone(),
            package: self.package,
            source,
        })?;
        let stderr = child.stderr.take();
        let reader = thread::spawn(move || {
            let mut said = Vec::new();
            // What cannot be read cannot be shown; the exit status says the rest.
            stderr.map(|mut pipe| pipe.read_to_end(&mut said));
            said
        });
        let ended = wait(&mut child, watch);
        let said = reader.join().unwrap_or_default();
        let ended = ended.map_err(|source| ToolError::Start {
            tool: self.name.clone(),
            package: self.package,
            source,
        })?;
        match ended {
            None => Err(FirmwareError::Cancelled),
            Some(true) => Ok(()),
            Some(false) => Err(ToolError::Failed { tool: self.name, said: tail(&said) }.into()),
        }
    }
}

/// Whether it succeeded; nothing if it was told to stop.
fn wait(child: &mut Child, watch: &dyn Watch) -> io::Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if watch.cancelled() {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        // std has no wait with a deadline.
        thread::sleep(GLANCE);
    }
}

/// The last lines, where tools say what went wrong.
fn tail(said: &[u8]) -> String {
    const LINES: usize = 5;
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::chain;
    use crate::watch::Unwatched;

    fn shell(script: &str) -> Tool {
        let mut tool = command("sh", "package dash");
        tool.command.args(["-c", script]);
        tool
    }

    #[test]
    fn a_tool_says_why_it_failed_and_where_it_is_from() {
        let failed = shell("echo one >&2; echo two >&2; exit 3").run(&Unwatched).unwrap_err();
        assert_eq!(chain(&failed), "sh failed: one; two");
        let missing = command("no-such-tool", "package none").run(&Unwatched).unwrap_err();
        assert!(
            chain(&missing).starts_with("cannot run no-such-tool (package none): "),
            "{missing}"
        );
        assert!(shell("exit 0").run(&Unwatched).is_ok());
    }

    #[test]
    fn a_tool_ends_when_the_build_is_told_to_stop() {
        struct Stop;
        impl Watch for Stop {
            fn cancelled(&self) -> bool {
                true
            }
        }
        // Without the stop this would take longer than any test may.
        let ended = shell("exec sleep 86400").run(&Stop).unwrap_err();
        assert!(matches!(ended, FirmwareError::Cancelled), "{ended}");
    }
}

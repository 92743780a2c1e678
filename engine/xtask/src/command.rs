//! Runs other programs, and the one error type of this crate.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::io;
use std::process::{Command, ExitStatus, Stdio};

use thiserror::Error;

/// What went wrong, for the person at the terminal: nothing here is caught and told apart.
#[derive(Debug, Error)]
#[error("{what}")]
pub(crate) struct Failure {
    what: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure without a deeper cause.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    /// Wraps a cause: `.map_err(Failure::because("cannot …"))`.
    pub(crate) fn because<E: Error + Send + Sync + 'static>(
        what: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self { what, source: Some(Box::new(source)) }
    }

    /// The failure with all its causes.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(&format!("\n  because {error}"));
            cause = error.source();
        }
        text
    }
}

/// A program with arguments.
pub(crate) fn command<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Cargo, as if it were not called from `cargo xtask`: build scripts that look at what cargo sets for
/// this crate would run again each time, and ring's takes minutes of compiling along.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut cargo = command("cargo", args);
    for (name, _) in env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|set| name.to_string_lossy().starts_with(set))
        {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Runs a program, showing what it prints.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.stdin(Stdio::null()).stdout(io::stderr()).status();
    check(command, status)
}

/// Runs a program and says whether it succeeded; what it prints is nobody's business.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Runs a program and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let out = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let (status, stdout) = match out {
        Ok(out) => (Ok(out.status), out.stdout),
        Err(error) => (Err(error), Vec::new()),
    };
    check(command, status)?;
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

fn check(command: &Command, status: io::Result<ExitStatus>) -> Result<(), Failure> {
    let line = || {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("`{}` failed: {status}", line()))),
        Err(source) => Err(Failure::because(format!("cannot run `{}`", line()))(source)),
    }
}

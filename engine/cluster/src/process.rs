//! Programs of a control plane, which die with whoever started them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use keel_image::vm::Leash;

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Let go after the child was waited for.
    _leash: Leash,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it says goes into a file of its name.
    pub(crate) fn start(program: &Path, args: &[String], logs: &Path) -> io::Result<Self> {
        let name = program.file_name().unwrap_or_default();
        let log = logs.join(name).with_extension("log");
        let file = File::create(&log)?;
        let child = Command::new(program)
            .args(args)
            .env("HOME", logs)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let leash = Leash::hold(&child)?;
        Ok(Self { child, _leash: leash, log })
    }

    /// How it ended, with the last lines that it said; nothing while it runs.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{} ended: {status}\n{}", self.log.display(), self.last_words()))
    }

    /// The last lines that it said.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends in its own time or at once: nothing of it is kept.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! What to run, and everything that can go wrong before it runs.

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use thiserror::Error;

use super::clone::{ExecStage, FAULT_LEN, Image};

pub use keel_unit::kinds::SEARCH_PATH;

/// A program with its arguments and its surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// An absolute path, or a bare name that is looked up in [`SEARCH_PATH`].
    pub program: PathBuf,
    /// The arguments after the program's name.
    pub arguments: Vec<OsString>,
    /// The whole environment, except that `PATH` is added when it is missing. Nothing is inherited from PID 1.
    pub environment: Vec<(OsString, OsString)>,
    /// The working directory; `/` when there is none.
    pub directory: Option<PathBuf>,
    /// How willingly the kernel kills it when memory ends: -1000 (never) to 1000 (first). See proc_pid_oom_score_adj(5).
    pub oom_score_adj: Option<i16>,
}

impl Command {
    /// A program with arguments and nothing else.
    pub fn new(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            directory: None,
            oom_score_adj: None,
        }
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// An error about this command.
    pub(super) fn error(&self, kind: SpawnErrorKind) -> SpawnError {
        SpawnError { program: self.program.clone(), kind }
    }

    /// Everything the child needs, in the form in which `execve` wants it.
    pub(super) fn image(&self) -> Result<Image, SpawnError> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| self.error(SpawnErrorKind::Nul));
        let program = self.resolve()?;

        let mut argv = vec![text(self.program.as_os_str().as_bytes())?];
        for argument in &self.arguments {
            argv.push(text(argument.as_bytes())?);
        }

        let mut env = Vec::new();
        let path = (OsString::from("PATH"), OsString::from(SEARCH_PATH));
        let has_path = self.environment.iter().any(|(name, _)| name == "PATH");
        for (name, value) in self.environment.iter().chain((!has_path).then_some(&path)) {
            env.push(text(&[name.as_bytes(), b"=", value.as_bytes()].concat())?);
        }

        let directory = self.directory.as_deref().unwrap_or(Path::new("/"));
        Ok(Image::new(
            text(program.as_os_str().as_bytes())?,
            argv,
            env,
            text(directory.as_os_str().as_bytes())?,
            self.oom_score_adj,
        ))
    }

    fn resolve(&self) -> Result<PathBuf, SpawnError> {
        if self.program.is_absolute() {
            return Ok(self.program.clone());
        }
        let name: &OsStr = self.program.as_os_str();
        if name.as_bytes().contains(&b'/') || name.is_empty() {
            return Err(self.error(SpawnErrorKind::Relative));
        }
        SEARCH_PATH
            .split(':')
            .map(|directory| Path::new(directory).join(name))
            .find(|candidate| {
                nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok()
            })
            .ok_or_else(|| self.error(SpawnErrorKind::NotInstalled))
    }
}

/// A program did not start.
#[derive(Debug, Error)]
#[error("{}: {kind}", program.display())]
pub struct SpawnError {
    /// The program as the unit names it.
    pub program: PathBuf,
    /// What went wrong.
    #[source]
    pub kind: SpawnErrorKind,
}

/// What kept a program from starting.
#[derive(Debug, Error)]
pub enum SpawnErrorKind {
    /// A string with a NUL byte cannot be passed to a program.
    #[error("its command line or environment contains a NUL byte")]
    Nul,
    /// Paths with a slash have to be absolute: PID 1 has no working directory that means anything.
    #[error("the path of a program must be absolute, or a name without a slash")]
    Relative,
    /// No directory of [`SEARCH_PATH`] has it.
    #[error("not found in {SEARCH_PATH}")]
    NotInstalled,
    /// `/dev/null`, a pipe: something the parent makes beforehand.
    #[error("cannot prepare its standard streams")]
    Streams(#[source] io::Error),
    /// The unit's cgroup directory does not open.
    #[error("cannot open its cgroup")]
    Cgroup(#[source] io::Error),
    /// The kernel refused the clone.
    #[error("cannot make a process for it")]
    Clone(#[source] io::Error),
    /// The child was made and failed on its way to becoming the program.
    #[error("{0}")]
    Exec(ExecFault),
}

/// Why the child could not become its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecFault {
    /// The program is not there.
    Missing,
    /// The program is there, but the interpreter or the dynamic loader that it names is not.
    InterpreterMissing,
    /// Its working directory cannot be entered.
    Directory(Errno),
    /// Something else: what was being done, and the kernel's answer.
    Other(&'static str, Errno),
}

impl fmt::Display for ExecFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no such file"),
            Self::InterpreterMissing => f.write_str(
                "the file is there, but its interpreter or dynamic loader is not on this machine",
            ),
            Self::Directory(errno) => {
                write!(f, "cannot enter its working directory: {}", errno.desc())
            }
            Self::Other(what, errno) => write!(f, "cannot {what}: {}", errno.desc()),
        }
    }
}

impl ExecFault {
    /// Reads the child's last words. `exists` says whether the program's file is there: for execve(2) ENOENT means either.
    pub(super) fn from_wire(message: [u8; FAULT_LEN], exists: impl FnOnce() -> bool) -> Self {
        let [stage, errno @ ..] = message;
        let errno = Errno::from_raw(i32::from_ne_bytes(errno));
        match (ExecStage::from_wire(stage), errno) {
            (Some(ExecStage::Exec), Errno::ENOENT) if exists() => Self::InterpreterMissing,
            (Some(ExecStage::Exec), Errno::ENOENT) => Self::Missing,
            (Some(ExecStage::Exec), errno) => Self::Other("execute it", errno),
            (Some(ExecStage::Directory), errno) => Self::Directory(errno),
            (Some(ExecStage::Session), errno) => Self::Other("give it a session", errno),
            (Some(ExecStage::Output), errno) => Self::Other("connect its output", errno),
            (Some(ExecStage::OomScore), errno) => Self::Other("set its oom score", errno),
            (None, errno) => Self::Other("start it", errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_what_failed() {
        let check = |stage: ExecStage, errno: Errno, exists: bool, expect: &str| {
            let mut message = [stage as u8, 0, 0, 0, 0];
            message[1..].copy_from_slice(&(errno as i32).to_ne_bytes());
            assert_eq!(ExecFault::from_wire(message, || exists).to_string(), expect);
        };
        check(ExecStage::Exec, Errno::ENOENT, false, "no such file");
        check(
            ExecStage::Exec,
            Errno::ENOENT,
            true,
            "the file is there, but its interpreter or dynamic loader is not on this machine",
        );
        check(ExecStage::Exec, Errno::EACCES, true, "cannot execute it: Permission denied");
        check(ExecStage::Exec, Errno::ENOEXEC, true, "cannot execute it: Exec format error");
        check(
            ExecStage::Directory,
            Errno::ENOENT,
            true,
            "cannot enter its working directory: No such file or directory",
        );
        check(
            ExecStage::OomScore,
            Errno::EACCES,
            true,
            "cannot set its oom score: Permission denied",
        );
    }

    #[test]
    fn an_image_is_refused_before_a_process_exists() {
        let check = |program: &str, arguments: &[&str], expect: &str| {
            let command = Command::new(program, arguments.iter().copied());
            assert_eq!(
                command.image().err().map(|error| error.to_string()).as_deref(),
                Some(expect)
            );
        };
        check(
            "bin/x",
            &[],
            "bin/x: the path of a program must be absolute, or a name without a slash",
        );
        check("", &[], ": the path of a program must be absolute, or a name without a slash");
        check(
            "/bin/true",
            &["a\0b"],
            "/bin/true: its command line or environment contains a NUL byte",
        );
        check("keel-no-such-tool", &[], &format!("keel-no-such-tool: not found in {SEARCH_PATH}"));
    }
}

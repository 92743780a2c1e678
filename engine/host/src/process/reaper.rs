//! The one caller of `wait*` in the program.
//!
//! A second waiter steals exit statuses: `waitpid(-1)` takes whatever child ended, also one that somebody else waits for by
//! number. So there is one [`Reaper`] per process (a second one is refused), and everything that starts a child starts it here.
//!
//! **No race between a child's start and its end.** A child may be dead before `clone3` has returned to us. Both [`Reaper::spawn`]
//! (from before `clone3` until the child's pid stands in the table) and the reaping loop hold the one lock of that table, so no
//! status is collected for a pid that is about to be written there. The lock is held for a `clone3` or for at most
//! [`BATCH`] calls of `waitpid(WNOHANG)`, never across an await and never while something blocks.
//!
//! **No wakeup is lost.** SIGCHLD coalesces: one signal may stand for ten thousand children. The signal stream is opened before
//! the first child can exist, and each signal makes the loop collect until the kernel has no more.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};

use super::cgroup::Cgroup;
use super::clone::{self, FAULT_LEN, Waited};
use super::command::{Command, ExecFault, SpawnError, SpawnErrorKind};

/// How many children are reaped before other work gets a turn: each wakes whoever awaits it, and that one removes a cgroup before anybody
/// behind it is heard.
const BATCH: usize = 4;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this status.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// Its number; a real-time signal has no name.
        signal: i32,
        /// It left a core dump.
        core: bool,
    },
}

impl Exit {
    fn from_raw(status: i32) -> Self {
        if nix::libc::WIFEXITED(status) {
            Self::Code(nix::libc::WEXITSTATUS(status))
        } else {
            Self::Signal { signal: nix::libc::WTERMSIG(status), core: nix::libc::WCOREDUMP(status) }
        }
    }

    /// Exit status 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal { signal, core } => {
                match Signal::try_from(*signal) {
                    Ok(signal) => write!(f, "killed by {}", signal.as_str())?,
                    Err(_) => write!(f, "killed by signal {signal}")?,
                }
                f.write_str(if *core { " (core dumped)" } else { "" })
            }
        }
    }
}

/// The reaper cannot start.
#[derive(Debug, Error)]
pub enum ReaperError {
    /// There is one already; two would steal each other's statuses.
    #[error("this process has a reaper already")]
    AlreadyRunning,
    /// SIGCHLD cannot be watched.
    #[error("cannot watch SIGCHLD")]
    Signal(#[source] io::Error),
}

/// Starts children and collects all that end, ours and the orphans that PID 1 inherits. Clones share one table.
#[derive(Clone)]
pub struct Reaper {
    table: Arc<Mutex<Table>>,
    reaped: Arc<Notify>,
    turn: Arc<Semaphore>,
}

/// What children there are after some were reaped.
#[derive(PartialEq, Eq)]
enum Left {
    /// Perhaps dead ones.
    Dead,
    /// Only ones that live.
    Alive,
    /// None.
    None,
}

#[derive(Default)]
struct Table {
    owners: HashMap<Pid, oneshot::Sender<Exit>>,
    orphans: u64,
}

static RUNNING: AtomicBool = AtomicBool::new(false);

impl Reaper {
    /// Starts to reap, on the current tokio runtime. Once per process.
    pub fn start() -> Result<Self, ReaperError> {
        if RUNNING.swap(true, Ordering::SeqCst) {
            return Err(ReaperError::AlreadyRunning);
        }
        let mut deaths = signal(SignalKind::child()).map_err(ReaperError::Signal)?;
        let reaper = Self {
            table: Arc::default(),
            reaped: Arc::default(),
            turn: Arc::new(Semaphore::new(1)),
        };
        let looping = reaper.clone();
        tokio::spawn(async move {
            // Before the first signal too: what died before the stream was open raises none.
            looping.reap_all().await;
            while deaths.recv().await.is_some() {
                looping.reap_all().await;
                looping.reaped.notify_waiters();
            }
        });
        Ok(reaper)
    }

    /// The turn to start something, for the time that it takes to make a cgroup and a process. Ten thousand services may be due at
    /// once; they come one after the other, and whoever else wants something is heard between two of them.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Closed by nobody; and to start without a turn is right all the same.
        self.turn.acquire().await.ok()
    }

    /// Starts `command` in `cgroup` (in our own when there is none) with `streams`.
    ///
    /// Returns as soon as the process exists; [`Child::executed`] tells whether it became the program.
    pub fn spawn(
        &self,
        command: &Command,
        streams: Streams<'_>,
        cgroup: Option<&Cgroup>,
    ) -> Result<Child, SpawnError> {
        let image = command.image()?;
        let prepare = |error: io::Error| command.error(SpawnErrorKind::Streams(error));
        let null = open_null().map_err(prepare)?;
        let (fault_write, fault) = pipe::pipe().map_err(prepare)?;
        let fault_write = fault_write.into_blocking_fd().map_err(prepare)?;
        let directory = cgroup
            .map(Cgroup::open)
            .transpose()
            .map_err(|error| command.error(SpawnErrorKind::Cgroup(error)))?;

        let (tell, exit) = oneshot::channel();
        let mut table = self.table();
        let (pid, pidfd) = clone::clone_and_exec(
            &image,
            [streams.stdin.unwrap_or(null.as_fd()), streams.stdout, streams.stderr],
            fault_write.as_fd(),
            directory.as_ref().map(AsFd::as_fd),
        )
        .map_err(|error| command.error(SpawnErrorKind::Clone(error)))?;
        let pid = Pid::from_raw(pid);
        table.owners.insert(pid, tell);
        drop(table);

        Ok(Child {
            pid,
            pidfd,
            exit: Ending::Awaited(exit),
            fault: Some(fault),
            command: command.clone(),
        })
    }

    /// How many processes ended that nobody here had started.
    pub fn orphans(&self) -> u64 {
        self.table().orphans
    }

    /// Waits until we have no child at all. For PID 1 that means that no other process is left: each is our descendant, and an
    /// orphan becomes our child.
    pub async fn childless(&self) {
        loop {
            // Listens before it looks, so that the last child's end between the two is not slept through.
            let reaped = self.reaped.notified();
            if self.reap_all().await == Left::None {
                return;
            }
            reaped.await;
        }
    }

    async fn reap_all(&self) -> Left {
        loop {
            match self.reap_batch() {
                Left::Dead => tokio::task::yield_now().await,
                left => return left,
            }
        }
    }

    /// Reaps up to [`BATCH`] children, and says what is left.
    fn reap_batch(&self) -> Left {
        let mut table = self.table();
        for _ in 0..BATCH {
            let (pid, status) = match clone::wait_any() {
                Waited::Dead(pid, status) => (pid, status),
                Waited::Alive => return Left::Alive,
                Waited::NoChild => return Left::None,
            };
            match table.owners.remove(&Pid::from_raw(pid)) {
                // The owner may have stopped caring; then the status has no reader, and the process is reaped all the same.
                Some(owner) => drop(owner.send(Exit::from_raw(status))),
                None => table.orphans += 1,
            }
        }
        Left::Dead
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing between lock and unlock can leave the table half changed, so a panic elsewhere does not spoil it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_null() -> io::Result<OwnedFd> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_CLOEXEC)
        .open("/dev/null")
        .map_err(|error| io::Error::new(error.kind(), format!("/dev/null: {error}")))?;
    Ok(file.into())
}

/// Where a child reads and writes; output and errors may be the same descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Streams<'fd> {
    /// Standard input; `/dev/null` when there is none.
    pub stdin: Option<BorrowedFd<'fd>>,
    /// Standard output.
    pub stdout: BorrowedFd<'fd>,
    /// Standard error.
    pub stderr: BorrowedFd<'fd>,
}

/// A process that [`Reaper::spawn`] started. Dropping it does not end the process.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    exit: Ending,
    fault: Option<pipe::Receiver>,
    command: Command,
}

#[derive(Debug)]
enum Ending {
    Awaited(oneshot::Receiver<Exit>),
    Known(Exit),
}

impl Child {
    /// Its process number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until the child has become its program, or says why it never will. Cancel-safe.
    pub async fn executed(&mut self) -> Result<(), SpawnError> {
        let Some(fault) = &mut self.fault else { return Ok(()) };
        let mut message = [0; FAULT_LEN];
        // The message is smaller than PIPE_BUF and so arrives whole: one read either has all of it or is at the end. A
        // child that is killed before it executes also ends here; its exit status tells that story.
        let read = fault.read(&mut message).await;
        self.fault = None;
        match read {
            Ok(FAULT_LEN) => {
                let fault = ExecFault::from_wire(message, || self.command.program.exists());
                Err(self.command.error(SpawnErrorKind::Exec(fault)))
            }
            _ => Ok(()),
        }
    }

    /// Waits for the end. Cancel-safe, and may be asked again afterwards.
    pub async fn wait(&mut self) -> Exit {
        match &mut self.exit {
            Ending::Known(exit) => *exit,
            Ending::Awaited(receiver) => {
                // The sender lives in the reaper's table until it sends. Only the runtime's end drops it, and then nobody waits.
                let exit = receiver
                    .await
                    .unwrap_or(Exit::Signal { signal: Signal::SIGKILL as i32, core: false });
                self.exit = Ending::Known(exit);
                exit
            }
        }
    }

    /// Sends a signal to this process, and to no other: a pidfd cannot be reused. Fine when it has ended already.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match clone::send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends a signal to the child's process group: itself and what it started without a session of its own. Does nothing
    /// once [`Child::wait`] has returned: the group's number may then belong to somebody else.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        if matches!(self.exit, Ending::Known(_)) {
            return Ok(());
        }
        match nix::sys::signal::killpg(self.pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Buries children for ever, blocking. The last resort of a PID 1 whose deciding thread has failed: nobody is started or watched any
/// more, and what runs keeps running.
pub fn reap_forever() -> ! {
    loop {
        if !clone::wait_blocking() {
            // No child at the moment. SIGCHLD may go to any thread, so it is no wakeup for this one.
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

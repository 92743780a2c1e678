//! One activation of a unit that runs a program: cgroup, start, readiness, end. It decides nothing: whether to start again, and
//! when patience is over, the scheduler says.

use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use thiserror::Error;
use tokio::sync::mpsc;

use super::cgroup::{Cgroup, CgroupError, Cgroups, Limits};
use super::command::{Command, SpawnError, SpawnErrorKind};
use super::log::LogBuffer;
use super::notify::{Notifications, NotifyError, Subscription};
use super::reaper::{Child, Exit, Reaper, Streams};
use super::socket::until_answers;

/// What runs, and how one knows that it is ready.
#[derive(Debug, Clone)]
pub struct Program {
    /// The name of its cgroup.
    pub unit: String,
    /// What to run.
    pub command: Command,
    /// What its processes may use together.
    pub limits: Limits,
    /// It keeps cgroups and processes of its own that outlive it (the shims of containerd). Ending the unit then ends its main
    /// process alone; a new one finds them again. Without this, ending the unit ends its whole cgroup.
    pub delegate: bool,
    /// When it is ready.
    pub ready: ReadyBy,
    /// What asks it to stop.
    pub stop_signal: i32,
}

/// What makes a program ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadyBy {
    /// Its running.
    Started,
    /// `READY=1` by sd_notify.
    Notify,
    /// A Unix socket that takes connections.
    Socket(PathBuf),
}

/// What a program needs from the machine.
#[derive(Clone)]
pub struct Surroundings {
    /// Who starts it and learns of its end.
    pub reaper: Reaper,
    /// Where its cgroup is made.
    pub cgroups: Cgroups,
    /// Where notifications come in, for a program that is ready by them.
    pub notifications: Option<Notifications>,
}

/// What happens in a program's life, in this order; [`live`] returns its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Started(Pid),
    /// It is ready.
    Ready,
    /// Something for people: a status line, a limit that is not enforced.
    Fact(String),
}

/// What may be asked of a program that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// End, in order: it is sent its stop signal.
    Stop,
    /// End, now.
    Kill,
    /// No end at all: it is sent this signal, and goes on.
    Signal(i32),
}

/// The ear of an activation: what is asked of it, and whether anything was.
#[derive(Debug)]
pub struct Asks {
    asked: mpsc::Receiver<Ask>,
    heard: bool,
}

impl Asks {
    /// An ear, and what reaches it.
    pub fn new() -> (mpsc::Sender<Ask>, Self) {
        // A stop and then a kill is all that is ever asked of one activation, but for a signal now and then, which may be lost.
        let (ask, asked) = mpsc::channel(4);
        (ask, Self { asked, heard: false })
    }

    /// Waits for the next request; for ever when nobody can ask any more. Cancel-safe.
    pub async fn next(&mut self) -> Ask {
        match self.asked.recv().await {
            Some(ask) => {
                self.heard |= !matches!(ask, Ask::Signal(_));
                ask
            }
            None => std::future::pending().await,
        }
    }

    /// Stops listening. Whether an end was asked for, heard or not.
    pub fn close(&mut self) -> bool {
        self.asked.close();
        while let Ok(ask) = self.asked.try_recv() {
            self.heard |= !matches!(ask, Ask::Signal(_));
        }
        self.heard
    }
}

/// A program could not be started.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// Its cgroup.
    #[error("no cgroup for it: {0}")]
    Cgroup(#[from] CgroupError),
    /// The socket for its notifications.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// Itself.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// Runs a program from its cgroup to its end, and tells of what happens between. Ends when nothing of it is left.
///
/// The order of an end is fixed: the main process, then (unless delegated) whatever else is in the cgroup, killed at once; the status
/// is the main process's.
pub async fn live(
    program: &Program,
    around: &Surroundings,
    log: &LogBuffer,
    asks: &mut Asks,
    mut tell: impl FnMut(Life),
) -> Result<Exit, ProgramError> {
    let turn = around.reaper.turn().await;
    let (cgroup, unapplied) =
        around.cgroups.unit(&program.unit, &program.limits, program.delegate)?;
    unapplied.iter().for_each(|limit| tell(Life::Fact(limit.to_string())));

    let mut command = program.command.clone();
    let mut ear = None;
    if program.ready == ReadyBy::Notify
        && let Some(notifications) = &around.notifications
    {
        command = command.env("NOTIFY_SOCKET", notifications.path());
        ear = Some(notifications.subscribe(&cgroup));
    }

    let pipe = log.pipe().map_err(|error| program.command.error(SpawnErrorKind::Streams(error)))?;
    let streams = Streams { stdin: None, stdout: pipe.as_fd(), stderr: pipe.as_fd() };
    let spawned = around.reaper.spawn(&command, streams, Some(&cgroup));
    drop((pipe, turn));
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            drop(cgroup.remove());
            return Err(error.into());
        }
    };

    let running = Running { program, cgroup: &cgroup };
    let executed = running.execute(&mut child, asks).await;
    let ended = match executed {
        Err(error) => {
            child.wait().await;
            Err(error.into())
        }
        Ok(()) => {
            tell(Life::Started(child.pid()));
            Ok(running.until_end(&mut child, ear, asks, &mut tell).await)
        }
    };
    running.clear(&mut tell).await;
    ended
}

struct Running<'a> {
    program: &'a Program,
    cgroup: &'a Cgroup,
}

impl Running<'_> {
    /// Waits for `execve`, which a slow disk may hold up, with an ear for whoever has waited enough.
    async fn execute(&self, child: &mut Child, asks: &mut Asks) -> Result<(), SpawnError> {
        loop {
            tokio::select! {
                executed = child.executed() => return executed,
                ask = asks.next() => self.obey(child, ask),
            }
        }
    }

    async fn until_end(
        &self,
        child: &mut Child,
        mut ear: Option<Subscription>,
        asks: &mut Asks,
        tell: &mut impl FnMut(Life),
    ) -> Exit {
        let socket = async {
            match &self.program.ready {
                ReadyBy::Socket(path) => until_answers(path).await,
                ReadyBy::Started => {}
                ReadyBy::Notify => std::future::pending().await,
            }
        };
        tokio::pin!(socket);
        let mut ready = false;
        let mut status = None;
        loop {
            tokio::select! {
                // In this order: a program that has ended is not ready, even if its socket or its last word says so.
                biased;
                exit = child.wait() => return exit,
                ask = asks.next() => self.obey(child, ask),
                said = hear(&mut ear) => {
                    if said.status != status {
                        status.clone_from(&said.status);
                        status.iter().for_each(|status| tell(Life::Fact(status.clone())));
                    }
                    if said.ready && !ready {
                        ready = true;
                        tell(Life::Ready);
                    }
                }
                () = &mut socket, if !ready && self.program.ready != ReadyBy::Notify => {
                    ready = true;
                    tell(Life::Ready);
                }
            }
        }
    }

    fn obey(&self, child: &Child, ask: Ask) {
        // Every way of these to fail is that there is nobody left to end.
        match ask {
            Ask::Stop => drop(child.signal(self.program.stop_signal)),
            Ask::Signal(signal) => drop(child.signal(signal)),
            Ask::Kill if self.program.delegate => drop(child.signal(Signal::SIGKILL as i32)),
            Ask::Kill => drop(self.cgroup.kill()),
        }
    }

    /// After the main process: the rest of the cgroup, and the cgroup.
    async fn clear(&self, tell: &mut impl FnMut(Life)) {
        if self.program.delegate {
            return;
        }
        let cleared = match self.cgroup.kill() {
            Ok(()) => self.cgroup.wait_empty().await.and_then(|()| self.cgroup.remove()),
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            tell(Life::Fact(error.to_string()));
        }
    }
}

async fn hear(ear: &mut Option<Subscription>) -> super::notify::Said {
    match ear {
        Some(ear) => ear.next().await,
        None => std::future::pending().await,
    }
}

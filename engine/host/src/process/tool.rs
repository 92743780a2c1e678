//! Runs tools over the reaper, each in a cgroup of its own, so that a timeout ends all of it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::cgroup::{Cgroup, Cgroups, Limits};
use super::command::{Command, ExecFault, SpawnError, SpawnErrorKind};
use super::reaper::{Child, Exit, Reaper, Streams};
use crate::tool::{
    OUTPUT_LIMIT, RunTool, Tool, ToolError, ToolErrorKind, ToolFuture, ToolOutput, ToolStatus,
};

/// Runs tools as children of this process.
#[derive(Clone)]
pub struct ReaperTools {
    reaper: Reaper,
    cgroups: FindCgroups,
}

/// Says where cgroups can be made now; nothing before the hierarchy is mounted.
pub type FindCgroups = Arc<dyn Fn() -> Option<Cgroups> + Send + Sync>;

static RUNS: AtomicU64 = AtomicU64::new(0);

impl ReaperTools {
    /// Tools live in `cgroups`. While there are none, early in boot, a tool runs in our own and is ended as a process group.
    pub fn new(reaper: Reaper, cgroups: FindCgroups) -> Self {
        Self { reaper, cgroups }
    }

    async fn run_to_end(&self, tool: &Tool) -> Result<ToolOutput, ToolErrorKind> {
        let mut place = Place::new((self.cgroups)());
        let (program, arguments) = tool.argv.split_first().ok_or(ToolErrorKind::NotFound)?;
        let command = Command::new(program, arguments).env("LC_ALL", OsString::from("C"));

        let (input_write, input) = match tool.stdin {
            Some(_) => {
                let (write, read) = pipe::pipe().map_err(ToolErrorKind::Start)?;
                (Some(write), Some(read.into_blocking_fd().map_err(ToolErrorKind::Start)?))
            }
            None => (None, None),
        };
        let (output_write, output) = pipe::pipe().map_err(ToolErrorKind::Start)?;
        let output_write: OwnedFd =
            output_write.into_blocking_fd().map_err(ToolErrorKind::Start)?;
        let streams = Streams {
            stdin: input.as_ref().map(AsFd::as_fd),
            stdout: output_write.as_fd(),
            stderr: output_write.as_fd(),
        };
        let child =
            self.reaper.spawn(&command, streams, place.cgroup.as_ref()).map_err(start_error)?;
        let child = place.child.insert(child);
        // Our copies: with them open, neither side would ever see the other's end.
        drop((input, output_write));

        let running = async {
            let (executed, (), tail) = tokio::join!(
                child.executed(),
                feed(input_write, tool.stdin.as_deref()),
                read_tail(output)
            );
            executed.map_err(start_error)?;
            Ok((child.wait().await, tail))
        };
        match tokio::time::timeout(tool.timeout, running).await {
            Ok(ended) => {
                let (exit, output) = ended?;
                let status = match exit {
                    Exit::Code(code) => ToolStatus::Exited(code),
                    Exit::Signal { signal, .. } => ToolStatus::Signaled(signal),
                };
                Ok(ToolOutput { status, output })
            }
            Err(_) => {
                place.kill();
                if let Some(child) = &mut place.child {
                    child.wait().await;
                }
                Err(ToolErrorKind::TimedOut(tool.timeout))
            }
        }
    }
}

impl RunTool for ReaperTools {
    fn run<'a>(&'a self, tool: &'a Tool) -> ToolFuture<'a> {
        Box::pin(async move {
            self.run_to_end(tool).await.map_err(|kind| ToolError { program: tool.program(), kind })
        })
    }
}

/// Where one run of a tool lives. Leaves nothing behind, also when whoever waits for the tool gives up.
struct Place {
    cgroup: Option<Cgroup>,
    child: Option<Child>,
}

impl Place {
    fn new(cgroups: Option<Cgroups>) -> Self {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let made = cgroups.and_then(|cgroups| {
            cgroups.unit(&format!("tool-{run}"), &Limits::default(), false).ok()
        });
        Self { cgroup: made.map(|(cgroup, _)| cgroup), child: None }
    }

    fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            drop(cgroup.kill());
        }
        if let Some(child) = &self.child {
            drop(child.signal_group(Signal::SIGKILL));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill();
        let Some(cgroup) = self.cgroup.take() else { return };
        // What was killed a moment ago still has to leave; removal waits for that, off to the side.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if cgroup.wait_empty().await.is_ok() {
                    drop(cgroup.remove());
                }
            });
        }
    }
}

fn start_error(error: SpawnError) -> ToolErrorKind {
    match error.kind {
        SpawnErrorKind::NotInstalled | SpawnErrorKind::Exec(ExecFault::Missing) => {
            ToolErrorKind::NotFound
        }
        _ => ToolErrorKind::Start(io::Error::other(error)),
    }
}

/// A tool that ends before it has read everything is no error: it knew enough.
async fn feed(pipe: Option<pipe::Sender>, bytes: Option<&[u8]>) {
    if let (Some(mut pipe), Some(bytes)) = (pipe, bytes) {
        drop(pipe.write_all(bytes).await);
    }
}

async fn read_tail(mut pipe: pipe::Receiver) -> String {
    let mut tail = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        tail.extend_from_slice(&chunk[..count]);
        let excess = tail.len().saturating_sub(OUTPUT_LIMIT);
        tail.drain(..excess);
    }
    String::from_utf8_lossy(&tail).into_owned()
}

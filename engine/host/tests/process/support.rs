//! What the tests of processes start from.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keel_host::process::{
    Cgroup, Cgroups, Child, Command, Limits, LogBounds, LogBuffer, Reaper, SpawnError, Streams,
};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Where cgroup v2 is on a node, and where it is on a machine that also has v1.
pub(crate) fn hierarchy() -> PathBuf {
    let found = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let found =
        found.into_iter().map(PathBuf::from).find(|root| root.join("cgroup.controllers").exists());
    found.expect("these tests need a cgroup v2 hierarchy")
}

/// A directory of cgroups that goes away with the test.
pub(crate) struct Sandbox {
    pub(crate) cgroups: Cgroups,
}

impl Sandbox {
    pub(crate) fn new(name: &str) -> Self {
        let cgroups =
            Cgroups::at(&hierarchy(), &format!("keel-test-{name}-{}", std::process::id()));
        Self { cgroups: cgroups.expect("root may make cgroups") }
    }

    pub(crate) fn unit(&self, name: &str) -> Cgroup {
        self.cgroups.unit(name, &Limits::default(), false).expect("a cgroup").0
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let base = self.cgroups.base();
        drop(std::fs::write(base.join("cgroup.kill"), "1"));
        // Blocking on purpose: the runtime may be gone. The kernel tells when what was killed above has ended.
        let events = base.join("cgroup.events");
        let changes = Inotify::init(InitFlags::IN_CLOEXEC).expect("inotify");
        changes.add_watch(&events, AddWatchFlags::IN_MODIFY).expect("a watch");
        while std::fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 1")) {
            drop(changes.read_events());
        }
        walk(base).iter().rev().for_each(|directory| drop(std::fs::remove_dir(directory)));
    }
}

pub(crate) fn walk(base: &Path) -> Vec<PathBuf> {
    let mut found = vec![base.to_path_buf()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        next += 1;
    }
    found
}

pub(crate) fn shell(script: &str) -> Command {
    Command::new("/bin/sh", ["-c", script])
}

pub(crate) fn spawn(
    reaper: &Reaper,
    command: &Command,
    log: &LogBuffer,
    cgroup: Option<&Cgroup>,
) -> Result<Child, SpawnError> {
    let pipe = log.pipe().expect("a pipe");
    reaper.spawn(
        command,
        Streams { stdin: None, stdout: pipe.as_fd(), stderr: pipe.as_fd() },
        cgroup,
    )
}

pub(crate) fn log() -> LogBuffer {
    LogBuffer::new(LogBounds::default())
}

/// Waits until `found` is true, looking again whenever the runtime has nothing else to do for a moment. For what has no event to
/// wait for, such as another process's lines in a buffer. The test's own deadline bounds it.
pub(crate) async fn until(what: &str, mut found: impl FnMut() -> bool) {
    let looking = async {
        while !found() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking)
        .await
        .unwrap_or_else(|_| panic!("never came: {what}"));
}

pub(crate) fn lines(log: &LogBuffer) -> Vec<String> {
    log.tail(usize::MAX).into_iter().map(|line| line.text).collect()
}

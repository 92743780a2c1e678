//! The end of the machine, once every unit is down or given up: what still runs is ended, what is mounted is unmounted, and the kernel
//! is told.
//!
//! Each step goes on when the one before has done what it can: a machine that was told to power off does so.

use std::path::Path;
use std::time::Duration;

use keel_host::disk::wipe::Condemned;
use keel_host::mount::table::{self, Mounted};
use keel_host::process::Reaper;
use keel_plan::ShutdownKind;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, sync};

use crate::screen::Screen;

/// How long what is left may take to end in order. Services have had their own time before this.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a killed process may take to be gone; one in an uninterruptible sleep may never be.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// How long writing everything out and unmounting may take. Gigabytes that wait for a slow disk take minutes; a disk that does not
/// answer any more takes for ever.
const DISK_PATIENCE: Duration = Duration::from_secs(180);

/// Types of filesystems in which unmounting saves nothing, and which others need to the end: what is wiped is found in sysfs.
const KEPT: [&str; 4] = ["rootfs", "proc", "sysfs", "devtmpfs"];

/// The mounts that were there before init did anything. They are not init's to take away: in a namespace they may be the host's.
pub(crate) struct Inherited(Vec<u32>);

impl Inherited {
    /// Takes note of them.
    pub(crate) fn now() -> Self {
        Self(table::observe().into_iter().flatten().map(|mount| mount.id).collect())
    }
}

/// Ends everything. Comes back only when the kernel refuses.
pub(crate) async fn end(
    kind: ShutdownKind,
    condemned: Option<Condemned>,
    reaper: &Reaper,
    inherited: Inherited,
    screen: &Screen,
) -> Errno {
    end_processes(reaper, screen).await;
    let telling = screen.clone();
    let write_out = move || {
        sync();
        unmount_all(&inherited, &telling);
        sync();
        if let Some(condemned) = condemned {
            telling.line(match condemned.wipe() {
                Ok(()) => format!("{} is wiped.", condemned.label),
                Err(error) => format!("NOT WIPED: {}", told(&error)),
            });
        }
    };
    if !is_done_within(DISK_PATIENCE, write_out).await {
        screen.line("A disk does not answer; going on without it.");
    }
    screen.line(match kind {
        ShutdownKind::PowerOff => "Powering off.",
        ShutdownKind::Reboot => "Rebooting.",
        ShutdownKind::Halt => "Halted: it is safe to switch the power off.",
    });
    screen.flush(Duration::from_secs(1));
    // In a PID namespace this ends its init instead: with SIGHUP for a reboot and SIGINT for the others, see reboot(2).
    let Err(errno) = reboot(match kind {
        ShutdownKind::PowerOff => RebootMode::RB_POWER_OFF,
        ShutdownKind::Reboot => RebootMode::RB_AUTOBOOT,
        ShutdownKind::Halt => RebootMode::RB_HALT_SYSTEM,
    });
    errno
}

/// An error with all that lies below it.
fn told(error: &dyn std::error::Error) -> String {
    let below = std::iter::successors(error.source(), |error| error.source());
    below.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

/// Asks every process but ourselves to end, waits, and kills those that did not.
async fn end_processes(reaper: &Reaper, screen: &Screen) {
    let everybody = Pid::from_raw(-1);
    for (signal, patience) in [(Signal::SIGTERM, PATIENCE), (Signal::SIGKILL, KILL_PATIENCE)] {
        // ESRCH: there is nobody left. A stopped process takes no SIGTERM until it goes on.
        if kill(everybody, signal).is_err() {
            return;
        }
        let _ = kill(everybody, Signal::SIGCONT);
        if tokio::time::timeout(patience, reaper.childless()).await.is_ok() {
            return;
        }
        if signal == Signal::SIGKILL {
            screen.line("Some processes cannot be killed; going on without them.");
        }
    }
}

/// Does what may hang on a thread of its own, and waits for it as long as patience lasts. Whether it was done.
async fn is_done_within(patience: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    let done = tokio::task::spawn_blocking(work);
    tokio::time::timeout(patience, done).await.is_ok_and(|done| done.is_ok())
}

/// What to unmount, first to last: the newest first, so that what lies on top of something goes before it.
fn to_unmount(mounts: Vec<Mounted>, inherited: &Inherited) -> Vec<Mounted> {
    let ours = |mount: &Mounted| {
        let kept = mount.target == Path::new("/") || KEPT.contains(&mount.fstype.as_str());
        !inherited.0.contains(&mount.id) && !kept
    };
    mounts.into_iter().rev().filter(ours).collect()
}

/// Unmounts in passes as long as a pass gets anywhere: one mount may hold another in ways that the table does not show (a loop
/// device, a bind). What is left then is made read-only, which writes everything that matters, and detached.
fn unmount_all(inherited: &Inherited, screen: &Screen) {
    // Nothing of ours stands in the way.
    drop(std::env::set_current_dir("/"));
    let mut left = to_unmount(table::observe().unwrap_or_default(), inherited);
    loop {
        let before = left.len();
        left.retain(|mount| {
            let gone = umount2(&mount.target, MntFlags::UMOUNT_NOFOLLOW);
            !matches!(gone, Ok(()) | Err(Errno::EINVAL | Errno::ENOENT))
        });
        if left.is_empty() || left.len() == before {
            break;
        }
    }
    for Mounted { target, source, .. } in &left {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let read_only = mount(None::<&str>, target, None::<&str>, flags, None::<&str>);
        // Only a filesystem on a device has something to lose.
        if let Err(errno) = read_only
            && source.starts_with("/dev")
        {
            let target = target.display();
            screen.line(format!(
                "{target} is still in use and cannot be made read-only: {}",
                errno.desc()
            ));
        }
        let _ = umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_goes_in_reverse() {
        let table = "\
            23 1 0:2 / / rw shared:1 - rootfs rootfs rw\n\
            24 23 0:21 / /proc rw,nosuid - proc proc rw\n\
            27 23 0:20 / /sys rw - sysfs sysfs rw\n\
            28 27 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
            25 23 0:5 / /dev rw - devtmpfs devtmpfs rw\n\
            26 25 0:22 / /dev/pts rw - devpts devpts rw\n\
            30 23 253:1 / /var/lib/keel rw shared:9 master:1 - ext4 /dev/vda1 rw\n\
            31 30 0:30 / /var/lib/keel/a\\040b rw - overlay overlay rw\n\
            ";
        let check = |inherited: &[u32], expect: &[&str]| {
            let table = table::parse(table.as_bytes()).unwrap();
            let order = to_unmount(table, &Inherited(inherited.to_vec()));
            let order: Vec<_> = order.into_iter().map(|mount| mount.target).collect();
            assert_eq!(order, expect.iter().map(Path::new).collect::<Vec<_>>());
        };
        check(&[], &["/var/lib/keel/a b", "/var/lib/keel", "/dev/pts", "/sys/fs/cgroup"]);
        check(&[30, 26, 28], &["/var/lib/keel/a b"]);
    }
    #[test]
    fn what_hangs_is_left_behind() {
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let check = |patience, work: Box<dyn FnOnce() + Send>, expect| {
            assert_eq!(runtime.block_on(is_done_within(patience, work)), expect);
        };
        check(Duration::from_secs(60), Box::new(|| {}), true);
        let hangs = move || {
            let _ = held.recv();
        };
        check(Duration::from_millis(20), Box::new(hangs), false);
        // Or the runtime would wait for its thread.
        drop(let_go);
    }
}

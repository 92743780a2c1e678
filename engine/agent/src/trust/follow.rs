//! Reads the files again when something has changed: by inotify, when something is mounted, and on SIGHUP.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_stream::StreamExt;

use super::{Door, State, Trust};
use crate::log::{chain, say};

/// What nobody tells of, such as a folder above that was moved, is seen after this long.
const LOOK: Duration = Duration::from_secs(10);

/// Watches the folders of the files until the agent ends, and reads the files again whenever something in them changes, or when
/// under their names there are other folders.
pub(crate) async fn follow(mut trust: Trust) -> io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    let inotify = Inotify::init()?;
    let mut folders = Folders::new(&trust, inotify.watches());
    let mounts = mounts();
    let left = trust.left();
    folders.look();
    // What came between the first reading and the watch.
    reload(&mut trust);
    let mut events = inotify.into_event_stream([0; 4096])?;
    loop {
        let mut changed = false;
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) if event.mask.contains(EventMask::IGNORED) => {
                    folders.forget(&event.wd);
                }
                Some(Ok(_)) => changed = true,
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            () = mounts.notified() => {}
            () = left.notified() => {
                trust.forget_cluster();
                changed = true;
            }
            () = sleep(LOOK) => {}
            _ = hangups.recv() => changed = true,
        }
        if folders.look() || changed {
            reload(&mut trust);
        }
    }
}

/// The folders of the files, each with what is watched in its name.
struct Folders {
    watches: Watches,
    all: Vec<Folder>,
}

struct Folder {
    path: PathBuf,
    watched: Option<Watched>,
    /// Whether it was ever watched.
    seen: bool,
    /// Whether it was said that it cannot be watched.
    complained: bool,
}

/// A watched folder: not its name, which may come to mean another.
struct Watched {
    descriptor: WatchDescriptor,
    device: u64,
    inode: u64,
}

impl Folders {
    fn new(trust: &Trust, watches: Watches) -> Self {
        let paths: BTreeSet<_> =
            trust.places().all().filter_map(Path::parent).map(Path::to_owned).collect();
        let folder = |path| Folder { path, watched: None, seen: false, complained: false };
        Self { watches, all: paths.into_iter().map(folder).collect() }
    }

    /// Watches what now stands under each name. Whether that is another folder than before.
    fn look(&mut self) -> bool {
        let mut changed = false;
        for folder in &mut self.all {
            match folder.look(&mut self.watches) {
                Ok(other) => {
                    folder.complained = false;
                    changed |= other;
                }
                Err(error) if !folder.complained => {
                    folder.complained = true;
                    say(format_args!(
                        "{} cannot be watched for trusted CAs ({}); it is tried again, and SIGHUP reads them",
                        folder.path.display(),
                        chain(&error)
                    ));
                }
                Err(_) => {}
            }
        }
        changed
    }

    /// The kernel has let go of a folder: it was deleted, or its filesystem unmounted.
    fn forget(&mut self, descriptor: &WatchDescriptor) {
        for folder in &mut self.all {
            folder.watched.take_if(|watched| watched.descriptor == *descriptor);
        }
    }
}

impl Folder {
    fn look(&mut self, watches: &mut Watches) -> io::Result<bool> {
        // Whole files alone: one that is still being written says nothing yet.
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        // Made where it can be, so that a file that comes later is seen.
        if let Err(error) = std::fs::create_dir(&self.path)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        // Opened once: what is compared is what is watched, whatever happens to the name meanwhile.
        let folder = File::open(&self.path)?;
        let about = folder.metadata()?;
        let (device, inode) = (about.dev(), about.ino());
        if self.watched.as_ref().is_some_and(|it| (it.device, it.inode) == (device, inode)) {
            return Ok(false);
        }
        if let Some(old) = self.watched.take() {
            // It may be gone already.
            let _ = watches.remove(old.descriptor);
        }
        let descriptor = watches.add(format!("/proc/self/fd/{}", folder.as_raw_fd()), mask)?;
        self.watched = Some(Watched { descriptor, device, inode });
        if self.seen {
            say(format_args!(
                "{} is another folder now, or was mounted over, and is watched anew",
                self.path.display()
            ));
        }
        self.seen = true;
        Ok(true)
    }
}

/// Says when something is mounted or unmounted: inotify says nothing of what is mounted over a folder. Without the kernel's table there
/// is still the look from time to time.
fn mounts() -> Arc<Notify> {
    let changed = Arc::new(Notify::new());
    let Ok(table) = File::open("/proc/self/mountinfo") else { return changed };
    let tell = changed.clone();
    // The table is waited for with poll(2), see proc_pid_mountinfo(5). The thread lasts as long as the process.
    let wait = move || {
        loop {
            let mut wanted = [PollFd::new(&table, PollFlags::PRI)];
            match poll(&mut wanted, None) {
                Ok(_) => tell.notify_one(),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    };
    let _: io::Result<_> = std::thread::Builder::new().name("mounts".to_owned()).spawn(wait);
    changed
}

fn reload(trust: &mut Trust) {
    let before = trust.subscribe().borrow().generation;
    let state = trust.reload();
    if state.generation != before {
        tell(&state);
    }
}

/// Says who may come in, and what is wrong.
pub(crate) fn tell(state: &State) {
    for problem in &state.problems {
        say(format_args!("trust: {problem}"));
    }
    match &state.door {
        Door::Open => {
            say("maintenance: no cluster CA is known, everybody who reaches this node may look")
        }
        Door::Shut(why) => say(format_args!("nobody is let in: {why}")),
        Door::Guarded(guard) => {
            for authority in guard.authorities() {
                say(format_args!(
                    "trusted: {} ({}) from {}",
                    authority.subject,
                    authority.fingerprint,
                    authority.source.display()
                ));
            }
        }
    }
}

//! Reads the files again when something has changed: by inotify, and on SIGHUP.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use inotify::{EventMask, Inotify, WatchMask};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::StreamExt;

use super::{Door, State, Trust};
use crate::log::{chain, say};

/// Watches the folders of the files until the agent ends, and reads the files again whenever something in them changes.
pub(crate) async fn follow(mut trust: Trust) -> io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    let inotify = Inotify::init()?;
    let mut watches = inotify.watches();
    for folder in folders(&trust) {
        // Made where it can be, so that a file that comes later is seen.
        if let Err(error) = std::fs::create_dir(&folder)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            say(format_args!(
                "{} cannot be watched for trusted CAs ({error}); SIGHUP reads them again",
                folder.display()
            ));
            continue;
        }
        // Whole files alone: one that is still being written says nothing yet.
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::ONLYDIR;
        if let Err(error) = watches.add(&folder, mask) {
            say(format_args!("cannot watch {}: {}", folder.display(), chain(&error)));
        }
    }
    // What came between the first reading and the watch.
    reload(&mut trust);
    let mut events = inotify.into_event_stream([0; 4096])?;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) if event.mask.contains(EventMask::IGNORED) => {}
                Some(Ok(_)) => reload(&mut trust),
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            _ = hangups.recv() => reload(&mut trust),
        }
    }
}

fn folders(trust: &Trust) -> BTreeSet<PathBuf> {
    trust.places().all().filter_map(Path::parent).map(Path::to_owned).collect()
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

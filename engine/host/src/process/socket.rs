//! Ready because a socket answers: the service listens there and takes the connection.

use std::path::Path;
use std::time::Duration;

use nix::sys::inotify::AddWatchFlags;
use tokio::net::UnixStream;

use super::watch::Watch;

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Returns when a connection to the Unix socket at `path` is accepted by its backlog. The caller sets the deadline.
///
/// Connecting is the only proof: the file may be left from an earlier run, and between bind(2) and listen(2) it refuses. So it
/// tries again whenever something appears in the directory, and after a growing pause for the cases that no directory shows
/// (the directory itself is made late; bind came, listen did not yet).
pub async fn until_answers(path: &Path) {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut pause = FIRST_PAUSE;
    loop {
        // The watch stands before the attempt, so what appears after a failed attempt is seen.
        let watch = Watch::new(directory, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
        if UnixStream::connect(path).await.is_ok() {
            return;
        }
        match watch {
            Ok(watch) => drop(tokio::time::timeout(pause, watch.changed()).await),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

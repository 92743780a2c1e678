//! Wait for a change under a path: inotify(7) on the runtime, for what would else be polled.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One watched path.
pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Watches from now on: what changes after this call wakes [`Watch::changed`].
    pub(super) fn new(path: &Path, events: AddWatchFlags) -> io::Result<Self> {
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        watch.add_watch(path, events)?;
        register(watch.into()).map(Self)
    }

    /// Waits for one change or several.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let mut events = [0; 4096];
        let drain = |fd: &OwnedFd| nix::unistd::read(fd, &mut events).map_err(Errno::into);
        self.0.async_io(Interest::READABLE, drain).await.map(drop)
    }
}

#[expect(
    unsafe_code,
    reason = "AsyncFd has no safe constructor since its I/O-safety hole was found"
)]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd answers `as_raw_fd` with the same open descriptor until it is dropped, which the AsyncFd does.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

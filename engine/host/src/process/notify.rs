//! Ready by `sd_notify`: a service sends `READY=1` to the socket that `NOTIFY_SOCKET` names.
//!
//! The protocol is systemd's (sd_notify(3)): a Unix datagram of lines `NAME=value`. Anybody who can open the socket can send, so
//! the kernel says who did (SO_PASSCRED), and a message counts for a unit only when it came out of the unit's cgroup. One socket serves all units; [`Notifications`] hands each message to the unit that it belongs to. Everything but `READY=1` and `STATUS=` is
//! ignored, as the protocol allows: stops, reloads and watchdogs are the scheduler's business, and it does not ask the service.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt,
};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::watch;

use super::cgroup::Cgroup;

/// Longer messages are dropped: a status is one line for people.
const LONGEST: usize = 4096;

/// The most descriptors that one message can carry (`SCM_MAX_FD` of the kernel).
const SCM_MAX_FD: usize = 253;

/// What one datagram says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notification {
    /// `READY=1`: started up, or done reloading.
    pub ready: bool,
    /// `STATUS=…`: one line for people.
    pub status: Option<String>,
}

/// Reads a datagram. Never fails: what is not understood is ignored, as sd_notify(3) asks.
pub fn parse_notification(datagram: &[u8]) -> Notification {
    let mut found = Notification::default();
    for line in String::from_utf8_lossy(datagram).lines() {
        match line.split_once('=') {
            Some(("READY", "1")) => found.ready = true,
            Some(("STATUS", text)) => {
                found.status =
                    Some(text.chars().filter(|character| !character.is_control()).collect());
            }
            _ => {}
        }
    }
    found
}

/// Who sent a datagram, by the kernel's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The process, in our PID namespace.
    pub pid: Pid,
    /// Its cgroup v2 path; none when it was gone before we could look.
    pub cgroup: Option<String>,
}

impl Sender {
    fn of(pid: Pid) -> Self {
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok().and_then(|text| {
            // The v2 hierarchy is the line with number 0 and no controllers: `0::/keel/containerd`.
            text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
        });
        Self { pid, cgroup }
    }

    /// Whether it is one of the processes of a unit's cgroup. One that was gone too soon to be asked is nobody's.
    pub fn is_in(&self, unit: &Cgroup) -> bool {
        self.cgroup.as_deref().is_some_and(|cgroup| unit.holds(cgroup))
    }
}

/// The notification socket cannot be had.
#[derive(Debug, Error)]
#[error("{}: cannot listen for notifications", path.display())]
pub struct NotifyError {
    /// Where it should be.
    pub path: PathBuf,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// The socket to which services send their notifications.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl NotifySocket {
    /// Listens at `path`, in place of a socket that an earlier run left there.
    pub fn bind(path: &Path) -> Result<Self, NotifyError> {
        let open = || -> io::Result<UnixDatagram> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = UnixDatagram::bind(path)?;
            setsockopt(&socket, sockopt::PassCred, &true)?;
            // Services that run as another user notify too; who may speak for whom is decided by credentials, not by this.
            fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
            Ok(socket)
        };
        let socket = open().map_err(|source| NotifyError { path: path.to_path_buf(), source })?;
        Ok(Self { socket, path: path.to_path_buf() })
    }

    /// The value of `NOTIFY_SOCKET` for a service.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next message. Cancel-safe. Messages without credentials and messages that are too long are skipped.
    pub async fn receive(&self) -> io::Result<(Sender, Notification)> {
        loop {
            let received =
                self.socket.async_io(Interest::READABLE, || Ok(receive_one(&self.socket)?)).await?;
            if let Some((pid, datagram)) = received {
                return Ok((Sender::of(pid), parse_notification(&datagram)));
            }
        }
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// Listens for all units, and tells each what its own processes say.
#[derive(Clone)]
pub struct Notifications {
    path: PathBuf,
    listeners: Arc<Mutex<Listeners>>,
}

#[derive(Default)]
struct Listeners {
    next: u64,
    units: BTreeMap<u64, (Cgroup, watch::Sender<Said>)>,
}

/// What a unit's processes have said so far. One value, however much they talk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// They said that the unit is ready.
    pub ready: bool,
    /// The newest status line.
    pub status: Option<String>,
}

impl Notifications {
    /// Listens at `path`, on the current tokio runtime.
    pub fn listen(path: &Path) -> Result<Self, NotifyError> {
        let socket = NotifySocket::bind(path)?;
        let notifications = Self { path: path.to_path_buf(), listeners: Arc::default() };
        let listening = notifications.clone();
        tokio::spawn(async move {
            while let Ok((sender, notification)) = socket.receive().await {
                listening.deliver(&sender, notification);
            }
        });
        Ok(notifications)
    }

    /// The value of `NOTIFY_SOCKET` for a service.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Listens for the processes of one cgroup, from now on and until the result is dropped. Before the first process starts
    /// there, so that its first word is heard.
    pub fn subscribe(&self, cgroup: &Cgroup) -> Subscription {
        let (tell, said) = watch::channel(Said::default());
        let mut listeners = self.listeners();
        let id = listeners.next;
        listeners.next += 1;
        listeners.units.insert(id, (cgroup.clone(), tell));
        Subscription { said, id, from: self.clone() }
    }

    fn deliver(&self, sender: &Sender, notification: Notification) {
        let listeners = self.listeners();
        for (_, tell) in listeners.units.values().filter(|(cgroup, _)| sender.is_in(cgroup)) {
            tell.send_modify(|said| {
                said.ready |= notification.ready;
                if notification.status.is_some() {
                    said.status.clone_from(&notification.status);
                }
            });
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One unit's ear.
pub struct Subscription {
    said: watch::Receiver<Said>,
    id: u64,
    from: Notifications,
}

impl Subscription {
    /// Waits until something new was said; gives all that holds now.
    pub async fn next(&mut self) -> Said {
        if self.said.changed().await.is_err() {
            // The sender stands in the table until we are dropped.
            std::future::pending::<()>().await;
        }
        self.said.borrow_and_update().clone()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.from.listeners().units.remove(&self.id);
    }
}

fn receive_one(socket: &UnixDatagram) -> Result<Option<(Pid, Vec<u8>)>, Errno> {
    let mut datagram = vec![0; LONGEST];
    // Room for all the descriptors that one message can carry, so that we see and close each.
    let mut control = nix::cmsg_space!(UnixCredentials, [RawFd; SCM_MAX_FD]);
    let mut parts = [IoSliceMut::new(&mut datagram)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut sender = None;
    for control in message.cmsgs().into_iter().flatten() {
        match control {
            ControlMessageOwned::ScmCredentials(credentials) => {
                sender = Some(Pid::from_raw(credentials.pid()))
            }
            // A descriptor for a store that we do not keep, or the pipe of sd_notify_barrier(3): closing is the answer that a
            // barrier waits for.
            ControlMessageOwned::ScmRights(descriptors) => {
                for descriptor in descriptors {
                    let _ = nix::unistd::close(descriptor);
                }
            }
            _ => {}
        }
    }
    let complete = !message.flags.contains(MsgFlags::MSG_TRUNC);
    let length = message.bytes;
    datagram.truncate(length);
    // Pid 0 is a sender outside of our PID namespace: nobody whom we started.
    Ok(sender.filter(|pid| pid.as_raw() > 0 && complete).map(|pid| (pid, datagram)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams() {
        let check = |text: &[u8], ready: bool, status: Option<&str>| {
            let expect = Notification { ready, status: status.map(str::to_owned) };
            assert_eq!(parse_notification(text), expect, "{text:?}");
        };
        check(b"", false, None);
        check(b"READY=1", true, None);
        check(b"READY=1\n", true, None);
        check(b"READY=0\nREADY=yes", false, None);
        check(b"READY=1\nSTATUS=serving 3 pods\nMAINPID=42", true, Some("serving 3 pods"));
        check(b"STATUS=a=b\x1b[2J", false, Some("a=b[2J"));
        check(b"STATUS=", false, Some(""));
        check(b"STOPPING=1\nWATCHDOG=1\nFDSTORE=1\nX_OWN=1\nno equals sign", false, None);
        check(b"\xff\xfe=\xff\nREADY=1", true, None);
    }
}

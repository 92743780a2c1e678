//! Uevents: what the kernel says when a device comes, changes or goes.
//!
//! The format is that of lib/kobject_uevent.c: `ACTION@DEVPATH`, then `KEY=VALUE` pairs, each ended by a NUL.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The multicast group of the kernel's own messages (2 is udev's).
const KERNEL_GROUP: u32 = 1;

/// The kernel builds a uevent in a buffer of 2 KiB (UEVENT_BUFFER_SIZE) and a header before it.
const MAX_MESSAGE: usize = 8 * 1024;

/// Room for some thousand uevents: a machine with many disks makes that many at once. Memory is taken only for what
/// waits there.
const RECEIVE_BUFFER: usize = 4 << 20;

/// One uevent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    properties: Vec<(Box<str>, Box<str>)>,
}

impl Uevent {
    /// Reads one message of the kernel; `None` for what is no uevent of the kernel (udev's begin with `libudev`).
    pub fn parse(message: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let mut parts = text.split_terminator('\0');
        let (action, path) = parts.next()?.split_once('@')?;
        let properties: Vec<(Box<str>, Box<str>)> = parts
            .filter_map(|part| part.split_once('='))
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        let event = Self { properties };
        // The header repeats two of the properties; a message that contradicts itself is not the kernel's.
        (event.property("ACTION") == Some(action) && event.property("DEVPATH") == Some(path))
            .then_some(event)
    }

    /// The value of a property: `ACTION`, `DEVPATH`, `SUBSYSTEM`, `DEVNAME`, `INTERFACE`, `MODALIAS`, `PARTNAME`…
    pub fn property(&self, key: &str) -> Option<&str> {
        self.properties.iter().find(|(known, _)| **known == *key).map(|(_, value)| &**value)
    }

    /// Whether something came to be, or came into use.
    pub fn adds(&self) -> bool {
        matches!(self.property("ACTION"), Some("add" | "bind" | "change" | "move" | "online"))
    }
}

/// What the socket gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// One uevent.
    Event(Uevent),
    /// Uevents were lost because they came faster than they were read: look at the state itself.
    Overrun,
}

/// A subscription to the kernel's uevents, from the moment it is opened; read without waiting.
#[derive(Debug)]
pub(crate) struct Subscription(OwnedFd);

impl Subscription {
    pub(crate) fn open() -> io::Result<Self> {
        Self::with_buffer(RECEIVE_BUFFER)
    }

    pub(super) fn with_buffer(bytes: usize) -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // Without CAP_NET_ADMIN the bound is net.core.rmem_max; too small a buffer only costs a look at the state.
        setsockopt(&fd, RcvBufForce, &bytes).or_else(|_| setsockopt(&fd, RcvBuf, &bytes))?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self(fd))
    }

    /// The next uevent, or `WouldBlock`.
    fn read(&self) -> io::Result<Received> {
        let mut buffer = [0_u8; MAX_MESSAGE];
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                // Any process may send to a netlink socket; only the kernel has the port id 0.
                Ok((length, Some(sender))) if sender.pid() == 0 => {
                    if let Some(event) = Uevent::parse(&buffer[..length]) {
                        return Ok(Received::Event(event));
                    }
                }
                Ok(_) => {}
                Err(Errno::ENOBUFS) => return Ok(Received::Overrun),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The next uevent, if one is there.
    pub(crate) fn try_receive(&self) -> io::Result<Option<Received>> {
        match self.read() {
            Ok(received) => Ok(Some(received)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsRawFd for Subscription {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A [`Subscription`] that can be waited on.
#[derive(Debug)]
pub struct UeventSocket(AsyncFd<Subscription>);

impl UeventSocket {
    /// Subscribes. Needs a tokio runtime with I/O.
    pub fn open() -> io::Result<Self> {
        Self::over(Subscription::open()?)
    }

    pub(super) fn over(subscription: Subscription) -> io::Result<Self> {
        #[expect(
            unsafe_code,
            reason = "AsyncFd wants a promise that its descriptor stays open and the same"
        )]
        // SAFETY: a Subscription gives the one descriptor that it owns, and it moves into the AsyncFd.
        let fd = unsafe { AsyncFd::register_with_interest(subscription, Interest::READABLE) }?;
        Ok(Self(fd))
    }

    /// The next uevent. May be dropped at any time without losing one.
    pub async fn receive(&self) -> io::Result<Received> {
        loop {
            let mut ready = self.0.readable().await?;
            // `Err`: there was nothing to read after all.
            if let Ok(result) = ready.try_io(|fd| fd.get_ref().read()) {
                return result;
            }
        }
    }

    /// The next uevent, if one is there.
    pub fn try_receive(&self) -> io::Result<Option<Received>> {
        self.0.get_ref().try_receive()
    }
}

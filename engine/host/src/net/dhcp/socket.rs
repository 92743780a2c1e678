//! The sockets of the client: packets while the link has no address, UDP once it has one.

use std::future::pending;
use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{
    AF_PACKET, BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_LD, BPF_LDX,
    BPF_MSH, BPF_RET, BPF_W, ETH_P_ARP, ETH_P_IP, IPPROTO_UDP, sock_filter, sock_fprog,
    sockaddr_ll, socklen_t,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, recv, send, sendto, setsockopt,
    socket, sockopt,
};
use smoltcp::wire::{DHCP_CLIENT_PORT, DHCP_SERVER_PORT};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;

/// Whole frames of one protocol on one link. The kernel passes on only what concerns the client,
/// so that a busy network does not wake PID 1.
#[derive(Debug)]
pub(crate) struct PacketSocket(AsyncFd<OwnedFd>);

impl PacketSocket {
    /// Frames that carry UDP to the DHCP client port.
    pub(crate) fn dhcp(index: u32) -> io::Result<Self> {
        Self::open(index, ETH_P_IP, &dhcp_filter())
    }

    /// ARP packets that claim `address` or probe for it (RFC 5227 2.1.1).
    pub(crate) fn arp(index: u32, address: Ipv4Addr) -> io::Result<Self> {
        Self::open(index, ETH_P_ARP, &arp_filter(address))
    }

    fn open(index: u32, protocol: i32, filter: &[sock_filter]) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        // Without a protocol the socket hears nothing until it is bound: nothing gets in past the filter.
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        attach(&fd, filter)?;
        bind_to(&fd, index, protocol)?;
        watched(fd).map(Self)
    }

    /// Sends a frame. A full queue drops it: whatever matters is sent again.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(send(self.0.as_raw_fd(), frame, MsgFlags::empty()).map(drop)?)
    }

    async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .async_io(Interest::READABLE, |fd| Ok(recv(fd.as_raw_fd(), buffer, MsgFlags::empty())?))
            .await
    }
}

/// The DHCP client port of a link that has an address.
#[derive(Debug)]
pub(crate) struct Datagrams(UdpSocket);

impl Datagrams {
    /// Bound to the link rather than to the address: a server broadcasts its refusals.
    pub(crate) fn open(link: &str) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        setsockopt(&fd, sockopt::BindToDevice, &link.into())?;
        setsockopt(&fd, sockopt::Broadcast, &true)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        bind(
            fd.as_raw_fd(),
            &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, DHCP_CLIENT_PORT)),
        )?;
        Ok(Self(UdpSocket::from_std(fd.into())?))
    }

    /// Sends a message to the server port of `to`.
    pub(crate) fn send(&self, to: Ipv4Addr, message: &[u8]) -> io::Result<()> {
        // Past tokio, which sends nothing before it was told that the socket can be written to.
        let to = SockaddrIn::from(SocketAddrV4::new(to, DHCP_SERVER_PORT));
        Ok(sendto(self.0.as_raw_fd(), message, &to, MsgFlags::empty()).map(drop)?)
    }
}

/// Waits for a frame; for ever if there is no socket. An error of the socket (the link went down)
/// is a frame of nothing.
pub(crate) async fn frame<'a>(socket: Option<&PacketSocket>, buffer: &'a mut [u8]) -> &'a [u8] {
    match socket {
        Some(socket) => {
            let len = socket.recv(buffer).await.unwrap_or(0);
            &buffer[..len]
        }
        None => pending().await,
    }
}

/// Waits for a datagram, like [`frame`].
pub(crate) async fn datagram<'a>(socket: Option<&Datagrams>, buffer: &'a mut [u8]) -> &'a [u8] {
    match socket {
        Some(Datagrams(socket)) => {
            let len = socket.recv(buffer).await.unwrap_or(0);
            &buffer[..len]
        }
        None => pending().await,
    }
}

/// One instruction of a classic BPF program.
fn op(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // The codes are eight bits wide (linux/bpf_common.h); libc types them as u32.
    sock_filter { code: code as u16, jt, jf, k }
}

const ACCEPT: u32 = u32::MAX;
const DROP: u32 = 0;

/// IPv4, UDP, not a fragment, destination port 68. Jumps count the instructions they pass over.
fn dhcp_filter() -> [sock_filter; 9] {
    [
        op(BPF_LD | BPF_B | BPF_ABS, 14 + 9, 0, 0),
        op(BPF_JMP | BPF_JEQ, IPPROTO_UDP as u32, 0, 6),
        op(BPF_LD | BPF_H | BPF_ABS, 14 + 6, 0, 0),
        op(BPF_JMP | BPF_JSET, 0x3fff, 4, 0),
        op(BPF_LDX | BPF_B | BPF_MSH, 14, 0, 0),
        op(BPF_LD | BPF_H | BPF_IND, 14 + 2, 0, 0),
        op(BPF_JMP | BPF_JEQ, DHCP_CLIENT_PORT.into(), 0, 1),
        op(BPF_RET, ACCEPT, 0, 0),
        op(BPF_RET, DROP, 0, 0),
    ]
}

/// ARP whose sender has `address`, or has none and asks for it.
fn arp_filter(address: Ipv4Addr) -> [sock_filter; 7] {
    let (sender, target) = (14 + 14, 14 + 24);
    [
        op(BPF_LD | BPF_W | BPF_ABS, sender, 0, 0),
        op(BPF_JMP | BPF_JEQ, address.to_bits(), 3, 0),
        op(BPF_JMP | BPF_JEQ, 0, 0, 3),
        op(BPF_LD | BPF_W | BPF_ABS, target, 0, 0),
        op(BPF_JMP | BPF_JEQ, address.to_bits(), 0, 1),
        op(BPF_RET, ACCEPT, 0, 0),
        op(BPF_RET, DROP, 0, 0),
    ]
}

#[expect(unsafe_code, reason = "tokio asks its caller to keep the descriptor open")]
fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays open, and the same, until the AsyncFd that owns it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

#[expect(unsafe_code, reason = "nix has no SO_ATTACH_FILTER")]
fn attach(fd: &OwnedFd, filter: &[sock_filter]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel only reads the program, although the C type is not const.
    let program = sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` and the filter that it points to live until the call returns, and both
    // lengths are theirs.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<sock_fprog>() as socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "nix cannot make an address of a packet socket")]
fn bind_to(fd: &OwnedFd, index: u32, protocol: i32) -> io::Result<()> {
    let address = sockaddr_ll {
        sll_family: AF_PACKET as u16,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex: i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a whole sockaddr_ll that lives until the call returns.
    let done = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<sockaddr_ll>() as socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

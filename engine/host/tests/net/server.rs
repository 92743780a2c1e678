//! A DHCP server that does what a test tells it, also what no server should do. dnsmasq gives no
//! lease of less than two minutes and no wrong answers.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn, bind, recvmsg,
    setsockopt, socket, sockopt,
};
use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};

use tokio::sync::{Mutex, mpsc};

use super::world::World;

/// A message of the client.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) kind: DhcpMessageType,
    pub(crate) xid: u32,
    pub(crate) mac: [u8; 6],
    /// The address it has (`ciaddr`).
    pub(crate) has: Ipv4Addr,
    /// Option 50.
    pub(crate) wants: Option<Ipv4Addr>,
    /// Option 54.
    pub(crate) server: Option<Ipv4Addr>,
    /// It went to everyone, not to this server alone.
    pub(crate) broadcast: bool,
}

/// An answer, sound unless changed.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) kind: DhcpMessageType,
    pub(crate) xid: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) address: Ipv4Addr,
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) mask: Ipv4Addr,
    pub(crate) lease: Option<u32>,
    /// T1 and T2.
    pub(crate) times: Option<(u32, u32)>,
    pub(crate) dns: Option<Ipv4Addr>,
    pub(crate) router: Option<Ipv4Addr>,
    /// Keep only so many octets of it.
    pub(crate) cut: Option<usize>,
}

pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

impl Asked {
    /// What a sound server answers: an offer to DISCOVER, an acknowledgement to REQUEST, of a lease
    /// of an hour; nothing to anything else.
    pub(crate) fn sound(&self) -> Option<Answer> {
        let kind = match self.kind {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request => DhcpMessageType::Ack,
            _ => return None,
        };
        Some(Answer {
            kind,
            xid: self.xid,
            mac: self.mac,
            address: ADDRESS,
            server: Some(SERVER),
            mask: Ipv4Addr::new(255, 255, 255, 0),
            lease: Some(3600),
            times: None,
            dns: Some(SERVER),
            router: Some(SERVER),
            cut: None,
        })
    }

    pub(crate) fn is_renewal(&self) -> bool {
        self.kind == DhcpMessageType::Request && !self.has.is_unspecified()
    }
}

impl Answer {
    /// A lease of so many seconds, to be renewed and rebound at the given ones.
    pub(crate) fn lasting(self, lease: u32, renew: u32, rebind: u32) -> Self {
        Self { lease: Some(lease), times: Some((renew, rebind)), ..self }
    }

    pub(crate) fn refusing(self) -> Self {
        Self {
            kind: DhcpMessageType::Nak,
            address: Ipv4Addr::UNSPECIFIED,
            lease: None,
            times: None,
            ..self
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let none = Ipv4Addr::UNSPECIFIED;
        let times = self.times.map(|(renew, rebind)| [renew.to_be_bytes(), rebind.to_be_bytes()]);
        let option = |kind, data| DhcpOption { kind, data };
        let extra: Vec<_> = times
            .iter()
            .flat_map(|[renew, rebind]| [option(58, renew), option(59, rebind)])
            .collect();
        let repr = DhcpRepr {
            message_type: self.kind,
            transaction_id: self.xid,
            secs: 0,
            client_hardware_address: EthernetAddress(self.mac),
            client_ip: none,
            your_ip: self.address,
            server_ip: none,
            router: self.router,
            subnet_mask: Some(self.mask),
            relay_agent_ip: none,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: self.server,
            parameter_request_list: None,
            dns_servers: self.dns.map(|server| [server].into_iter().collect()),
            max_size: None,
            lease_duration: self.lease,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &extra,
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).expect("the buffer fits");
        bytes.truncate(self.cut.unwrap_or(usize::MAX));
        bytes
    }
}

pub(crate) struct Server {
    asked: Mutex<mpsc::UnboundedReceiver<Asked>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on srv0 with `policy`, which is called with every message of the client.
    pub(crate) fn start(
        world: &World,
        mut policy: impl FnMut(&Asked) -> Vec<Answer> + Send + 'static,
    ) -> Self {
        let port = world.other.enter(port);
        let (sender, asked) = mpsc::unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serve = move || {
            while !stopped.load(Ordering::Relaxed) {
                let Some(question) = receive(&port) else { continue };
                let to =
                    if question.has.is_unspecified() { Ipv4Addr::BROADCAST } else { question.has };
                for answer in policy(&question) {
                    // The link may be down just now.
                    let _ = port.send_to(&answer.bytes(), (to, 68));
                }
                let _ = sender.send(question);
            }
        };
        Self { asked: Mutex::new(asked), stop, thread: Some(std::thread::spawn(serve)) }
    }

    /// Waits for a message of the client that `wanted` says yes to.
    pub(crate) async fn heard(&self, wanted: impl Fn(&Asked) -> bool) -> Asked {
        let mut log = self.asked.lock().await;
        loop {
            let asked = log.recv().await.expect("the server runs");
            if wanted(&asked) {
                return asked;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn port() -> UdpSocket {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .expect("a socket");
    setsockopt(&fd, sockopt::BindToDevice, &"srv0".into()).expect("bound to srv0");
    setsockopt(&fd, sockopt::Broadcast, &true).expect("may broadcast");
    setsockopt(&fd, sockopt::Ipv4PacketInfo, &true).expect("shows where packets went");
    bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 67)).expect("port 67 is free");
    let port: UdpSocket = fd.into();
    // The thread looks from time to time whether it is to stop.
    port.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    port
}

fn receive(port: &UdpSocket) -> Option<Asked> {
    let mut bytes = [0; 1500];
    let mut space = cmsg_space!(nix::libc::in_pktinfo);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let got =
        recvmsg::<SockaddrIn>(port.as_raw_fd(), &mut into, Some(&mut space), MsgFlags::empty())
            .ok()?;
    let broadcast = got.cmsgs().expect("the control buffer fits").any(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => info.ipi_addr.s_addr == u32::MAX,
        _ => false,
    });
    let len = got.bytes;
    let packet = DhcpPacket::new_checked(&bytes[..len]).expect("the client sends whole messages");
    let repr = DhcpRepr::parse(&packet).expect("the client sends sound messages");
    Some(Asked {
        kind: repr.message_type,
        xid: repr.transaction_id,
        mac: repr.client_hardware_address.0,
        has: repr.client_ip,
        wants: repr.requested_ip,
        server: repr.server_identifier,
        broadcast,
    })
}

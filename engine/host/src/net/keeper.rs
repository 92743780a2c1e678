//! Keeps one link as its spec wants it: listens to the kernel, to the network and to the clock, and
//! carries out what the DHCP client and the plan say.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::apply::{Kernel, Notice};
use super::dhcp::socket::{self, Datagrams, PacketSocket};
use super::dhcp::{Action, Client, Event, Lease, NO_SERVER};
use super::plan::{self, Change, Choice, Seen, Wanted};
use super::resolv;
use super::{Cidr, LinkSelector, LinkSpec, LinkStatus, NetError, NetErrorKind, NetEvent, Progress};

/// Larger than any answer that the client asks for (option 57), whatever the MTU.
const BUFFER: usize = 2048;

/// Runs until `stop` fires or is dropped.
pub(super) async fn run(spec: LinkSpec, out: Out, mut stop: oneshot::Receiver<()>) {
    let mut kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(error) => {
            out.progress.send_replace(Progress::Failed(error));
            return;
        }
    };
    loop {
        let link = tokio::select! {
            link = find(&mut kernel, &spec, &out) => link,
            _ = &mut stop => return,
        };
        let mut keeper = Keeper::new(&spec, &out, &mut kernel, link);
        match keeper.keep(&mut stop).await {
            Ended::Done => return,
            Ended::Gone => out.progress.send_replace(Progress::Waiting),
        };
    }
}

/// Where news go.
pub(super) struct Out {
    pub(super) events: mpsc::Sender<NetEvent>,
    pub(super) progress: watch::Sender<Progress>,
    /// What stands between the link and its configuration, as of now.
    pub(super) awaits: watch::Sender<String>,
}

impl Out {
    /// A reader that does not keep up misses news; the link does not wait for it.
    fn emit(&self, event: NetEvent) {
        match &event {
            NetEvent::Waiting { why } | NetEvent::Retrying { why, .. } => self.awaits(why),
            NetEvent::LinkChosen { .. }
            | NetEvent::Leased { .. }
            | NetEvent::Renewed { .. }
            | NetEvent::Expired { .. }
            | NetEvent::Declined { .. }
            | NetEvent::Incomplete { .. } => {}
        }
        let _ = self.events.try_send(event);
    }

    fn awaits(&self, what: &str) {
        self.awaits.send_replace(what.to_owned());
    }
}

/// Waits until the link of `spec` is there, raising what must be up to be seen.
async fn find(kernel: &mut Kernel, spec: &LinkSpec, out: &Out) -> Seen {
    let mut told = String::new();
    // A link that would not be raised is left alone until it changes: trying again at its own notices
    // could go on for ever.
    let mut refused: Vec<Seen> = Vec::new();
    loop {
        match kernel.links().await {
            Ok(links) => match plan::choose(spec, &links) {
                Choice::Use(link) => return link.clone(),
                Choice::Raise(links) => {
                    for link in links {
                        if refused.contains(link) {
                            continue;
                        }
                        if let Err(errno) = kernel.change(link.index, &Change::Raise).await {
                            let why = format!(
                                "{}: cannot {}: {}",
                                link.name,
                                Change::Raise,
                                errno.desc()
                            );
                            out.emit(NetEvent::Incomplete { why });
                            refused.push(link.clone());
                        }
                    }
                }
                Choice::Wait => {
                    let why = plan::awaited(spec, &links);
                    if why != told {
                        out.emit(NetEvent::Waiting { why: why.clone() });
                        told = why;
                    }
                }
            },
            Err(error) => {
                out.progress.send_replace(Progress::Failed(error));
            }
        }
        kernel.notice().await;
    }
}

/// Why a keeper left its link.
enum Ended {
    /// It was told to, or there is nothing to keep.
    Done,
    /// The link is gone.
    Gone,
}

/// What woke the keeper.
enum Wake {
    Stop,
    Notice(Notice),
    Frame(Vec<u8>),
    Datagram(Vec<u8>),
    Arp(Vec<u8>),
    Timer,
}

struct Keeper<'a> {
    spec: &'a LinkSpec,
    out: &'a Out,
    kernel: &'a mut Kernel,
    link: Seen,
    start: Instant,
    client: Option<Client>,
    /// The lease in effect and when it ends.
    lease: Option<(Lease, Option<Duration>)>,
    /// What was applied last: what is Keel's on this link.
    applied: Wanted,
    resolv_conf: Option<String>,
    frames: Option<PacketSocket>,
    arp: Option<(std::net::Ipv4Addr, PacketSocket)>,
    datagrams: Option<Datagrams>,
}

impl<'a> Keeper<'a> {
    fn new(spec: &'a LinkSpec, out: &'a Out, kernel: &'a mut Kernel, link: Seen) -> Self {
        let client = |mac| Client::new(mac, spec.timing.clone(), fastrand::u64(..), Duration::ZERO);
        Self {
            spec,
            out,
            kernel,
            start: Instant::now(),
            client: link.mac.filter(|_| spec.dhcp).map(client),
            link,
            lease: None,
            applied: Wanted::default(),
            resolv_conf: None,
            frames: None,
            arp: None,
            datagrams: None,
        }
    }

    async fn keep(&mut self, stop: &mut oneshot::Receiver<()>) -> Ended {
        self.out.emit(NetEvent::LinkChosen { name: self.link.name.clone(), mac: self.link.mac });
        if self.spec.dhcp && self.client.is_none() {
            let error = NetError {
                kind: NetErrorKind::NotEthernet(self.link.name.clone()),
                source: Errno::EPFNOSUPPORT,
            };
            self.out.progress.send_replace(Progress::Failed(error));
        }
        if self.spec.dhcp {
            self.out.awaits(NO_SERVER);
        }
        self.reconcile().await;
        if self.spec.selector == LinkSelector::Loopback {
            // Nothing ever happens to lo: it needs no keeper.
            return Ended::Done;
        }
        loop {
            match self.wake(stop).await {
                Wake::Stop => {
                    self.handle(Event::Stop).await;
                    // What could not be taken away was told; there is nobody left to try again.
                    let _ = self.apply(Wanted::default()).await;
                    return Ended::Done;
                }
                Wake::Notice(Notice::Link(index)) if index != self.link.index => {}
                Wake::Notice(Notice::Link(_) | Notice::Missed) => {
                    match self.kernel.link(self.link.index).await {
                        Ok(Some(seen)) => self.changed(seen).await,
                        Ok(None) => return self.gone(),
                        // What cannot be read is not acted upon; the next notice asks again.
                        Err(_) => {}
                    }
                }
                Wake::Frame(frame) => self.handle(Event::Frame(&frame)).await,
                Wake::Datagram(message) => self.handle(Event::Datagram(&message)).await,
                Wake::Arp(frame) => self.handle(Event::Arp(&frame)).await,
                Wake::Timer => {
                    if !self.link.carrier {
                        self.handle(Event::Trouble("the link has no carrier".to_owned())).await;
                    }
                    self.handle(Event::Timer).await;
                }
            }
        }
    }

    async fn wake(&mut self, stop: &mut oneshot::Receiver<()>) -> Wake {
        let deadline = self.client.as_ref().and_then(Client::deadline);
        let timer = sleep_until(self.start + deadline.unwrap_or_default());
        let (mut frame, mut datagram, mut arp) = ([0; BUFFER], [0; BUFFER], [0; BUFFER]);
        tokio::select! {
            _ = stop => Wake::Stop,
            notice = self.kernel.notice() => Wake::Notice(notice),
            bytes = socket::frame(self.frames.as_ref(), &mut frame) => Wake::Frame(bytes.to_vec()),
            bytes = socket::datagram(self.datagrams.as_ref(), &mut datagram) => Wake::Datagram(bytes.to_vec()),
            bytes = socket::frame(self.arp.as_ref().map(|(_, socket)| socket), &mut arp) => Wake::Arp(bytes.to_vec()),
            () = timer, if deadline.is_some() => Wake::Timer,
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn gone(&mut self) -> Ended {
        if let Some((lease, _)) = self.lease.take() {
            let why = format!("link {} is gone", self.link.name);
            self.out.emit(NetEvent::Expired { address: lease.address, why });
        }
        Ended::Gone
    }

    /// The kernel shows the link anew.
    async fn changed(&mut self, seen: Seen) {
        let before = std::mem::replace(&mut self.link, seen);
        if before == self.link {
            return;
        }
        self.reconcile().await;
        if self.link.carrier && self.link.carrier_ups != before.carrier_ups {
            self.handle(Event::CarrierBack).await;
        }
    }

    /// Lets the client take in `event` and does as it says.
    async fn handle(&mut self, event: Event<'_>) {
        let now = self.now();
        let Some(client) = &mut self.client else { return };
        let actions = client.handle(event, now);
        // What the actions need is open before they are done; what is no longer needed closes after.
        self.open_ears();
        for action in actions {
            self.perform(action).await;
        }
        self.close_ears();
    }

    async fn perform(&mut self, action: Action) {
        let sent = match action {
            Action::Frame(frame) => self.frames.as_ref().map(|socket| socket.send(&frame)),
            Action::Arp(frame) => self.arp.as_ref().map(|(_, socket)| socket.send(&frame)),
            Action::Datagram { to, message } => {
                self.datagrams.as_ref().map(|socket| socket.send(to, &message))
            }
            Action::Configure { lease, expires, renewed } => {
                return self.configure(*lease, expires, renewed).await;
            }
            Action::Deconfigure => {
                self.lease = None;
                return self.reconcile().await;
            }
            Action::Report(event) => return self.out.emit(event),
        };
        if let Some(Err(error)) = sent {
            self.trouble("cannot send", &error);
        }
    }

    async fn configure(&mut self, lease: Lease, expires: Option<Duration>, renewed: bool) {
        let address = Cidr::v4(lease.address, lease.prefix);
        let (dns, hostname) = (lease.dns.clone(), lease.hostname.clone());
        self.lease = Some((lease, expires));
        self.reconcile().await;
        if let Some(name) = hostname.as_ref().filter(|_| self.spec.hostname_from_dhcp)
            && let Err(errno) = nix::unistd::sethostname(name)
        {
            let why = format!("cannot set the host name to {name}: {}", errno.desc());
            self.out.emit(NetEvent::Incomplete { why });
        }
        let ttl = expires.map(|expires| expires.saturating_sub(self.now()));
        if renewed {
            self.out.emit(NetEvent::Renewed { address, ttl });
        } else {
            let routes = self.applied.routes.iter().filter(|route| route.leased).copied().collect();
            self.out.emit(NetEvent::Leased { address, routes, dns, hostname, ttl });
        }
    }

    /// Gives the link what spec and lease want, and tells how it is then.
    async fn reconcile(&mut self) {
        let now = self.now();
        let lease = self
            .lease
            .as_ref()
            .map(|(lease, expires)| (lease, expires.map(|e| e.saturating_sub(now))));
        let wanted = plan::wanted(self.spec, lease, self.link.index);
        let applied = self.apply(wanted).await;
        let settled = self.lease.is_some() || !self.spec.dhcp;
        self.write_resolv_conf().await;
        let progress = match applied {
            Err(error) => Progress::Failed(error),
            Ok(()) if settled => Progress::Up(Box::new(self.status())),
            Ok(()) if self.spec.dhcp && self.client.is_none() => return,
            Ok(()) => Progress::Waiting,
        };
        self.out.progress.send_replace(progress);
    }

    async fn apply(&mut self, wanted: Wanted) -> Result<(), NetError> {
        let index = self.link.index;
        let Some(observed) = self.kernel.observe(index).await? else { return Ok(()) };
        let changes = plan::changes(&wanted, &self.applied, &observed);
        self.applied = wanted;
        let mut outcome = Ok(());
        for change in changes {
            if let Err(errno) = self.kernel.change(index, &change).await {
                if change.is_essential() && outcome.is_ok() {
                    let kind = NetErrorKind::Change {
                        link: self.link.name.clone(),
                        change: change.to_string(),
                    };
                    outcome = Err(NetError { kind, source: errno });
                }
                let why = format!("{}: cannot {change}: {}", self.link.name, errno.desc());
                self.out.emit(NetEvent::Incomplete { why });
            }
        }
        outcome
    }

    fn status(&self) -> LinkStatus {
        let lease = self.lease.as_ref().map(|(lease, _)| lease);
        LinkStatus {
            name: self.link.name.clone(),
            index: self.link.index,
            addresses: self.applied.addresses.iter().map(|address| address.cidr).collect(),
            routes: self.applied.routes.clone(),
            dns: plan::dns(self.spec, lease),
            search: lease.map(|lease| lease.search.clone()).unwrap_or_default(),
            lease: lease.cloned(),
        }
    }

    /// Writes resolv.conf if it is to change. A file can hang, so it is written off this thread.
    ///
    /// A link that knows no name server leaves the file to others, unless what it wrote there has
    /// come to nothing.
    async fn write_resolv_conf(&mut self) {
        let Some(path) = &self.spec.resolv_conf else { return };
        let status = self.status();
        if status.dns.is_empty() && self.resolv_conf.is_none() {
            return;
        }
        let text = resolv::render(&status.dns, &status.search);
        if self.resolv_conf.as_ref() == Some(&text) {
            return;
        }
        let (to, content) = (path.clone(), text.clone());
        let written = tokio::task::spawn_blocking(move || resolv::write(&to, &content)).await;
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => self.resolv_conf = Some(text),
            Err(error) => {
                let why = format!("cannot write {}: {error}", path.display());
                self.out.emit(NetEvent::Incomplete { why });
            }
        }
    }

    fn open_ears(&mut self) {
        let Some(ears) = self.client.as_ref().map(Client::ears) else { return };
        let index = self.link.index;
        if ears.frames && self.frames.is_none() {
            self.frames = self.opened(PacketSocket::dhcp(index));
        }
        if ears.datagrams && self.datagrams.is_none() {
            self.datagrams = self.opened(Datagrams::open(&self.link.name));
        }
        if let Some(address) = ears.arp
            && self.arp.as_ref().is_none_or(|(guarded, _)| *guarded != address)
        {
            self.arp =
                self.opened(PacketSocket::arp(index, address)).map(|socket| (address, socket));
        }
    }

    fn close_ears(&mut self) {
        let Some(ears) = self.client.as_ref().map(Client::ears) else { return };
        self.frames.take_if(|_| !ears.frames);
        self.datagrams.take_if(|_| !ears.datagrams);
        self.arp.take_if(|_| ears.arp.is_none());
    }

    fn opened<T>(&mut self, socket: io::Result<T>) -> Option<T> {
        socket.inspect_err(|error| self.trouble("cannot open a socket", error)).ok()
    }

    /// The client names it with its next attempt.
    fn trouble(&mut self, what: &str, error: &io::Error) {
        let now = self.now();
        if let Some(client) = &mut self.client {
            client.handle(Event::Trouble(format!("{what}: {error}")), now);
        }
    }
}

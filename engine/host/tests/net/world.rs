//! A small network: two network namespaces joined by a veth, a node in one and whatever it is to
//! meet in the other. Namespaces have no name: the kernel removes them with their last file.

use std::fs::File;
use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use keel_host::net::{Link, LinkSelector, LinkSpec, NetEvent, Timing, start};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

/// No test may take longer.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Netns(File);

impl Netns {
    pub(crate) fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
            File::open("/proc/thread-self/ns/net").expect("a namespace")
        });
        let netns = Self(made.join().expect("the thread runs"));
        netns.ip("link set lo up");
        netns
    }

    /// Runs `inside` on a thread in the namespace; what the thread starts is in it too.
    pub(crate) fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("the namespace lives");
                inside()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs ip(8) and returns what it prints.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let output = self.enter(|| {
            Command::new("ip")
                .args(arguments.split_whitespace())
                .output()
                .expect("ip(8) is installed")
        });
        assert!(
            output.status.success(),
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("ip(8) prints text")
    }

    /// A name that ip(8) takes for the namespace.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

pub(crate) struct World {
    pub(crate) node: Netns,
    pub(crate) other: Netns,
    pub(crate) dir: TempDir,
}

impl World {
    /// `eth0` of the node, still down, leads to `srv0`, 10.77.0.1/24.
    pub(crate) fn new() -> Self {
        let world = Self {
            node: Netns::new(),
            other: Netns::new(),
            dir: tempfile::tempdir().expect("a temporary folder"),
        };
        world.plug("eth0", "srv0");
        world.other.ip("addr add 10.77.0.1/24 dev srv0");
        world
    }

    /// Joins the two by one more pair; the other end is up.
    pub(crate) fn plug(&self, here: &str, there: &str) {
        self.node.ip(&format!(
            "link add {here} type veth peer name {there} netns {}",
            self.other.path()
        ));
        self.other.ip(&format!("link set {there} up"));
    }

    /// Raises eth0 and waits until srv0 sends: what is sent before is lost.
    pub(crate) fn connect(&self) {
        self.node.ip("link set eth0 up");
        while !self.other.ip("link show dev srv0").contains("state UP") {
            std::thread::yield_now();
        }
    }

    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.dir.path().join("resolv.conf")
    }

    /// DHCP on the first ethernet link, with waits for the impatient.
    pub(crate) fn spec(&self) -> LinkSpec {
        let ms = Duration::from_millis;
        let timing = Timing {
            retry_first: ms(300),
            retry_max: ms(600),
            probe_gap: ms(20),
            probe_wait: ms(100),
            announce_gap: ms(100),
            decline_wait: ms(50),
            renew_min: ms(100),
            shortest_lease: Duration::from_secs(1),
            ..Timing::default()
        };
        LinkSpec {
            dhcp: true,
            resolv_conf: Some(self.resolv_conf()),
            timing,
            ..LinkSpec::new(LinkSelector::FirstEthernetWithCarrier)
        }
    }

    /// Runs the test's own future as the node: in its network, with a host name of its own.
    pub(crate) fn node<F: Future<Output = ()>>(&self, inside: impl FnOnce() -> F + Send) {
        self.node.enter(|| {
            unshare(CloneFlags::CLONE_NEWUTS).expect("tests run as root");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                tokio::time::timeout(LIMIT, inside()).await.expect("the test hangs")
            });
        });
    }

    /// What eth0 has, in the words of ip(8): `10.77.0.50/24`, `default via …`.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let text = self.node.ip("-4 -o addr show dev eth0");
        text.lines()
            .map(|line| line.split_whitespace().nth(3).expect("an address").to_owned())
            .collect()
    }

    pub(crate) fn routes(&self) -> Vec<String> {
        let text = self.node.ip("-4 route show dev eth0");
        text.lines()
            .map(|line| line.split(" metric").next().expect("a route").trim().to_owned())
            .collect()
    }
}

/// The link under test and its news.
pub(crate) struct Subject {
    pub(crate) link: Link,
    news: tokio::sync::mpsc::Receiver<NetEvent>,
}

impl Subject {
    pub(crate) fn start(spec: LinkSpec) -> Self {
        let (events, news) = tokio::sync::mpsc::channel(64);
        Self { link: start(spec, events), news }
    }

    /// Waits for the news that `wanted` makes something of.
    pub(crate) async fn hear<T>(&mut self, mut wanted: impl FnMut(&NetEvent) -> Option<T>) -> T {
        loop {
            let event = self.news.recv().await.expect("the keeper goes on");
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }

    /// Waits for a lease and returns its address.
    pub(crate) async fn leased(&mut self) -> String {
        self.hear(|event| match event {
            NetEvent::Leased { address, .. } => Some(address.to_string()),
            _ => None,
        })
        .await
    }

    /// Waits until the link is no longer in order, and says why.
    pub(crate) async fn expired(&mut self) -> String {
        self.hear(|event| match event {
            NetEvent::Expired { address, why } => Some(format!("{address}: {why}")),
            _ => None,
        })
        .await
    }
}

/// dnsmasq as DHCP server on srv0.
pub(crate) struct Dnsmasq {
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Dnsmasq {
    pub(crate) fn start(world: &World, options: &[&str]) -> Self {
        let leases = world.dir.path().join("leases");
        let mut child = world.other.enter(|| {
            Command::new("dnsmasq")
                .args([
                    "--no-daemon",
                    "--conf-file=/dev/null",
                    "--port=0",
                    "--interface=srv0",
                    "--bind-interfaces",
                ])
                .args([
                    "--dhcp-range=10.77.0.50,10.77.0.60,255.255.255.0,2m",
                    "--no-ping",
                    "--user=root",
                ])
                .args(["--pid-file=", "--log-dhcp", "--log-facility=-"])
                .arg(format!("--dhcp-leasefile={}", Path::new(&leases).display()))
                .args(options)
                .stderr(Stdio::piped())
                .spawn()
                .expect("dnsmasq is installed")
        });
        let lines = BufReader::new(child.stderr.take().expect("its log is a pipe")).lines();
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, log }
    }

    /// Waits for a line of its log.
    pub(crate) fn says(&self, text: &str) {
        loop {
            let line = self
                .log
                .recv_timeout(LIMIT)
                .unwrap_or_else(|_| panic!("dnsmasq never says {text:?}"));
            if line.contains(text) {
                return;
            }
        }
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

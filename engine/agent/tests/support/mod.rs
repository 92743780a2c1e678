//! A running agent with an identity of its own, and clients of every kind.
#![allow(
    dead_code,
    unused_imports,
    clippy::allow_attributes,
    reason = "each test takes from here what it needs"
)]

pub(crate) mod door;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use rustls::{ClientConfig, ClientConnection, StreamOwned, SupportedProtocolVersion};
use tempfile::TempDir;

pub(crate) use self::door::client::{
    Connection, Messages, PATIENCE, client_config, end, read_to_end,
};
pub(crate) use self::door::pki;
use self::pki::Issued;

/// A running agent with an identity of its own; gone with the value.
pub(crate) struct Agent {
    pub(crate) folder: TempDir,
    pub(crate) child: Child,
    lines: Receiver<String>,
    seen: VecDeque<String>,
    pub(crate) address: SocketAddr,
    notified: UnixDatagram,
}

pub(crate) fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_keel-agent"))
}

pub(crate) fn folder_with_machine_id() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("machine-id"), "0f3a5c7e91b24d4e8a6b0123456789ab\n").unwrap();
    folder
}

/// Puts a file there whole, as a bootstrap does.
pub(crate) fn put(path: &Path, text: &str) {
    let draft = path.with_extension("new");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, path).unwrap();
}

/// An identity in a folder, and what the agent is to find before it starts.
pub(crate) struct Start {
    folder: TempDir,
    arguments: Vec<String>,
    own_mounts: bool,
}

impl Start {
    pub(crate) fn new() -> Self {
        let folder = folder_with_machine_id();
        let made = binary().args(["identity", "--dir"]).arg(folder.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        fs::create_dir(folder.path().join("trust")).unwrap();
        Self { folder, arguments: Vec::new(), own_mounts: false }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// With a cluster CA.
    pub(crate) fn cluster_ca(self, pem: &str) -> Self {
        put(&self.path("trust/cluster-ca.crt"), pem);
        self
    }

    /// With what the cluster CA has revoked.
    pub(crate) fn cluster_crl(self, pem: &str) -> Self {
        put(&self.path("trust/cluster-ca.crl"), pem);
        self
    }

    pub(crate) fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// In a mount namespace of its own.
    pub(crate) fn own_mounts(self) -> Self {
        Self { own_mounts: true, ..self }
    }

    pub(crate) fn start(self) -> Agent {
        let socket = self.path("notify");
        let notified = UnixDatagram::bind(&socket).unwrap();
        notified.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = match self.own_mounts {
            false => binary(),
            true => {
                let mut command = Command::new("unshare");
                command.arg("--mount").arg(env!("CARGO_BIN_EXE_keel-agent"));
                command
            }
        };
        let mut child = command
            .args(["serve", "--listen", "[::]:0", "--dir"])
            .arg(self.folder.path())
            .arg("--control")
            .arg(self.path("control.sock"))
            .arg("--cluster-ca")
            .arg(self.path("trust/cluster-ca.crt"))
            .arg("--cluster-crl")
            .arg(self.path("trust/cluster-ca.crl"))
            .arg("--audit-dir")
            .arg(self.path("audit"))
            .args(&self.arguments)
            .env("NOTIFY_SOCKET", &socket)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // The test may be over.
                let _ = out.send(line);
            }
        });
        let mut agent = Agent {
            folder: self.folder,
            child,
            lines,
            seen: VecDeque::new(),
            address: ([127, 0, 0, 1], 0).into(),
            notified,
        };
        let line = agent.logged("serving on ");
        let bound: SocketAddr = line.split([' ', ',']).nth(2).unwrap().parse().unwrap();
        agent.address.set_port(bound.port());
        assert_eq!(agent.notification(), "READY=1\n");
        agent
    }
}

impl Agent {
    pub(crate) fn start() -> Self {
        Start::new().start()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn notification(&self) -> String {
        let mut buffer = [0; 64];
        let len = self.notified.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    pub(crate) fn fingerprint(&self) -> String {
        fs::read_to_string(self.path("node.fingerprint")).unwrap().trim().to_owned()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let killed = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        assert!(killed.unwrap().success());
    }

    /// The same agent once more, after it has ended.
    pub(crate) fn again(mut self) -> Self {
        let folder = std::mem::replace(&mut self.folder, TempDir::new().unwrap());
        fs::remove_file(folder.path().join("notify")).unwrap();
        Start { folder, arguments: Vec::new(), own_mounts: false }.start()
    }

    /// Runs a command in its mount namespace.
    pub(crate) fn inside(&self, command: &[&str]) {
        let target = self.child.id().to_string();
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--mount", "--target", &target]).args(command);
        let ran = nsenter.output().unwrap();
        assert!(ran.status.success(), "{command:?}: {ran:?}");
    }

    /// The next line of the log that holds a text; lines before it are passed over.
    pub(crate) fn logged(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("no line with {text:?} among the last: {:#?}", self.seen)
            });
            if line.contains(text) {
                return line;
            }
            self.seen.push_back(line);
            if self.seen.len() > 50 {
                self.seen.pop_front();
            }
        }
    }

    pub(crate) fn tcp(&self) -> TcpStream {
        door::client::tcp(self.address)
    }

    /// Shakes hands with that version of TLS and those protocols on offer, and no certificate.
    pub(crate) fn tls(
        &self,
        version: &'static SupportedProtocolVersion,
        protocols: &[&[u8]],
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut config = client_config(version, None);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        self.tls_with(config)
    }

    pub(crate) fn tls_with(
        &self,
        config: ClientConfig,
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        door::client::tls(self.address, config)
    }

    /// What a client with that certificate, or none, learns of its refusal.
    pub(crate) fn refusal(&self, client: Option<&Issued>) -> String {
        door::client::refusal(self.address, client)
    }

    /// A connection for calls.
    pub(crate) async fn connect(&self, client: Option<&Issued>) -> Connection {
        self.connect_to(self.address, client).await
    }

    pub(crate) async fn connect_to(
        &self,
        address: SocketAddr,
        client: Option<&Issued>,
    ) -> Connection {
        Connection::open(address, client).await
    }

    /// A connection for calls, from that address of this host.
    pub(crate) async fn connect_from(&self, source: IpAddr) -> Connection {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let tcp = socket.connect(self.address).await.unwrap();
        Connection::over(tcp, self.address, None).await
    }

    /// HTTP/2 for requests of any kind, from that address of this host.
    pub(crate) async fn http2_from<B>(&self, source: IpAddr) -> SendRequest<B>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let tcp = socket.connect(self.address).await.unwrap();
        let (send, connection) = door::client::http2(tcp, self.address, None).await;
        tokio::spawn(connection);
        send
    }

    /// What one call on a connection of its own comes to: `OK`, or a code and its text.
    pub(crate) async fn call(&self, client: Option<&Issued>, method: &str) -> String {
        self.connect(client).await.call(method).await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

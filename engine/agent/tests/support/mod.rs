//! A running agent with an identity of its own, and clients of every kind.
#![allow(dead_code, clippy::allow_attributes, reason = "each test takes from here what it needs")]

pub(crate) mod pki;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tonic::Status;

use self::pki::Issued;

/// Longer than any answer takes on a busy machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

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
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
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
        let name = ServerName::from(self.address.ip());
        let mut stream =
            StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), self.tcp());
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// What a client with that certificate, or none, learns of its refusal. In TLS 1.3 it comes after the client's own handshake.
    pub(crate) fn refusal(&self, client: Option<&Issued>) -> String {
        let error = match self.tls_with(client_config(&TLS13, client)) {
            Err(error) => error,
            Ok(mut stream) => match stream.read(&mut [0; 1]) {
                Err(error) => error,
                Ok(read) => return format!("not refused: {read}"),
            },
        };
        error.to_string()
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
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        Self::over(tcp, address, client).await
    }

    /// A connection for calls, from that address of this host.
    pub(crate) async fn connect_from(&self, source: IpAddr) -> Connection {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let tcp = socket.connect(self.address).await.unwrap();
        Self::over(tcp, self.address, None).await
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
        let (send, connection) = http2(tcp, self.address, None).await;
        tokio::spawn(connection);
        send
    }

    async fn over(
        tcp: tokio::net::TcpStream,
        address: SocketAddr,
        client: Option<&Issued>,
    ) -> Connection {
        let (send, connection) = http2(tcp, address, client).await;
        let ended =
            tokio::spawn(async move { connection.await.map_err(|error| format!("{error:?}")) });
        Connection { send, ended }
    }

    /// What one call on a connection of its own comes to: `OK`, or a code and its text.
    pub(crate) async fn call(&self, client: Option<&Issued>, method: &str) -> String {
        self.connect(client).await.call(method).await
    }
}

/// Speaks HTTP/2 over TLS on a connection.
async fn http2<B>(
    tcp: tokio::net::TcpStream,
    address: SocketAddr,
    client: Option<&Issued>,
) -> (SendRequest<B>, impl Future<Output = hyper::Result<()>> + Send + use<B>)
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // As every client of HTTP/2 does: else a call's second packet waits for the acknowledgement of its first, 40 ms.
    tcp.set_nodelay(true).unwrap();
    let config = Arc::new(client_config(&TLS13, client));
    let name = ServerName::from(address.ip());
    let tls = TlsConnector::from(config).connect(name, tcp).await.unwrap();
    let io = TokioIo::new(tls);
    hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap()
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection for calls.
pub(crate) struct Connection {
    send: SendRequest<Full<Bytes>>,
    /// Ends with the connection.
    pub(crate) ended: tokio::task::JoinHandle<Result<(), String>>,
}

impl Connection {
    /// Begins a call whose request is the empty message, which every method takes.
    pub(crate) async fn begin(&mut self, method: &str) -> Result<http::Response<Incoming>, String> {
        self.begin_with(method, &[&[]]).await
    }

    /// Begins a call with these messages, as they are encoded; no more follow.
    pub(crate) async fn begin_with(
        &mut self,
        method: &str,
        messages: &[&[u8]],
    ) -> Result<http::Response<Incoming>, String> {
        let mut body = Vec::new();
        for message in messages {
            body.push(0);
            body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            body.extend(*message);
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://node{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        self.send.ready().await.map_err(|error| format!("{error:?}"))?;
        let answer = tokio::time::timeout(PATIENCE, self.send.send_request(request)).await.unwrap();
        answer.map_err(|error| format!("{error:?}"))
    }

    /// Begins a stream that goes on: its first message has come.
    pub(crate) async fn follow(&mut self, method: &str) -> Result<Incoming, String> {
        let answer = self.begin(method).await?;
        if Status::from_header_map(answer.headers()).is_some() {
            return Err(end(answer).await);
        }
        let mut body = answer.into_body();
        let first = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap();
        first.unwrap().map(|_| body).map_err(|error| format!("{error:?}"))
    }

    /// Waits until the node has closed it.
    pub(crate) async fn closed(&mut self) {
        let ended = tokio::time::timeout(PATIENCE, &mut self.ended).await;
        // How it ended is not what is asked.
        let _: Result<(), String> = ended.expect("the node closes it").unwrap();
    }

    /// What a call comes to: `OK`, or a code and its text, or what became of the connection.
    pub(crate) async fn call(&mut self, method: &str) -> String {
        match self.begin(method).await {
            Ok(answer) => end(answer).await,
            Err(error) => error,
        }
    }
}

/// The messages of an answer, one by one.
pub(crate) struct Messages {
    body: Incoming,
    bytes: Vec<u8>,
}

impl Messages {
    pub(crate) fn of(answer: http::Response<Incoming>) -> Self {
        Self { body: answer.into_body(), bytes: Vec::new() }
    }

    /// The next message, as it is encoded; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((length, rest)) =
                self.bytes.get(1..).and_then(|all| all.split_first_chunk())
                && let Some(message) = rest.get(..u32::from_be_bytes(*length) as usize)
            {
                let message = message.to_vec();
                self.bytes.drain(..5 + message.len());
                return Some(message);
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.unwrap()?;
            if let Ok(data) = frame.unwrap().into_data() {
                self.bytes.extend(data);
            }
        }
    }
}

/// How an answer ends.
pub(crate) async fn end(answer: http::Response<Incoming>) -> String {
    let in_headers = Status::from_header_map(answer.headers());
    let status = match in_headers {
        Some(status) => status,
        None => {
            let body = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await.unwrap();
            match body {
                Ok(body) => {
                    let trailers = body.trailers().cloned().unwrap_or_default();
                    Status::from_header_map(&trailers).expect("a call ends with a status")
                }
                Err(error) => return format!("{error:?}"),
            }
        }
    };
    match status.code() {
        tonic::Code::Ok => "OK".to_owned(),
        code => format!("{code:?}: {}", status.message()),
    }
}

/// How a client speaks TLS.
pub(crate) fn client_config(
    version: &'static SupportedProtocolVersion,
    client: Option<&Issued>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(ring::default_provider())));
    let mut config = match client {
        Some(client) => {
            // Whatever authorities the node names: what it makes of the certificate is the question.
            builder.with_client_cert_resolver(client.always())
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// What is in the node's certificate does not matter here: the tests compare its fingerprint.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Reads until the other side closes; a reset counts as that.
pub(crate) fn read_to_end(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            panic!("the agent holds the connection open")
        }
        _ => bytes,
    }
}

//! The real binary on loopback: what it accepts, what it refuses, how it starts and ends.

#![cfg(test)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Longer than any answer takes on a busy machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running agent with an identity of its own; gone with the value.
struct Agent {
    folder: TempDir,
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: SocketAddr,
    notified: UnixDatagram,
}

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_keel-agent"))
}

fn folder_with_machine_id() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("machine-id"), "0f3a5c7e91b24d4e8a6b0123456789ab\n").unwrap();
    folder
}

impl Agent {
    fn start() -> Self {
        let folder = folder_with_machine_id();
        let made = binary().args(["identity", "--dir"]).arg(folder.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let socket = folder.path().join("notify");
        let notified = UnixDatagram::bind(&socket).unwrap();
        notified.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut child = binary()
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--control",
                "/nonexistent/control.sock",
                "--dir",
            ])
            .arg(folder.path())
            .env("NOTIFY_SOCKET", &socket)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let line = line(&mut stderr);
        let address = line.split([' ', ',']).nth(2).unwrap().parse().unwrap();
        let agent = Self { folder, child, stderr, address, notified };
        assert_eq!(agent.notification(), "READY=1\n");
        agent
    }

    fn notification(&self) -> String {
        let mut buffer = [0; 64];
        let len = self.notified.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    fn fingerprint(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("node.fingerprint"))
            .unwrap()
            .trim()
            .to_owned()
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Shakes hands with that version of TLS and those protocols on offer.
    fn tls(
        &self,
        version: &'static SupportedProtocolVersion,
        protocols: &[&[u8]],
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(ring::default_provider())))
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::from(self.address.ip());
        let mut stream =
            StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), self.tcp());
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    fn log_line(&mut self) -> String {
        line(&mut self.stderr)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

/// What is in the certificate does not matter here: the tests compare its fingerprint.
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
fn read_to_end(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            panic!("the agent holds the connection open")
        }
        _ => bytes,
    }
}

#[test]
fn tls_1_3_with_http_2_and_the_certificate_on_record() {
    let agent = Agent::start();
    let mut stream = agent.tls(&TLS13, &[b"h2"]).unwrap();
    assert_eq!(stream.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(stream.conn.alpn_protocol(), Some(b"h2".as_slice()));
    let certificate = &stream.conn.peer_certificates().unwrap()[0];
    let digest: String =
        Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, agent.fingerprint());

    // RFC 9113, 3.4: the preface, and an empty SETTINGS frame; the answer is the server's own SETTINGS.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut header = [0; 9];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[3], 4, "{header:?} is no SETTINGS frame");
}

#[test]
fn tls_1_2_is_refused() {
    let mut agent = Agent::start();
    let error = agent.tls(&TLS12, &[b"h2"]).unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "the alert says why: {error}");
    let logged = agent.log_line();
    assert!(logged.contains("no TLS connection: peer is incompatible"), "{logged}");
}

#[test]
fn plaintext_is_refused() {
    let mut agent = Agent::start();
    for preface in
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]
    {
        let mut stream = agent.tcp();
        stream.write_all(preface).unwrap();
        let answer = read_to_end(stream);
        // Nothing, or a TLS alert (RFC 8446, 5.1: content type 21).
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
        let logged = agent.log_line();
        assert!(logged.contains("no TLS connection"), "{logged}");
    }
}

#[test]
fn other_protocols_inside_tls_are_refused() {
    let mut agent = Agent::start();
    let none = agent.tls(&TLS13, &[]).unwrap();
    assert_eq!(read_to_end(none), b"");
    assert!(agent.log_line().contains("the client did not ask for HTTP/2"));
    let error = agent.tls(&TLS13, &[b"http/1.1"]).unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn silent_peers_delay_nobody() {
    let agent = Agent::start();
    let silent: Vec<_> = (0..40).map(|_| agent.tcp()).collect();
    agent.tls(&TLS13, &[b"h2"]).unwrap();
    drop(silent);
}

#[test]
fn beyond_the_limit_connections_are_closed_at_once() {
    let mut agent = Agent::start();
    let mut silent: Vec<_> = (0..256).map(|_| agent.tcp()).collect();
    assert_eq!(read_to_end(agent.tcp()), b"");
    let logged = agent.log_line();
    assert!(logged.contains("refused, 256 connections are open"), "{logged}");
    // Those whose handshake is cut off give their place back.
    silent.pop();
    let logged = agent.log_line();
    assert!(logged.contains("no TLS connection"), "{logged}");
    agent.tls(&TLS13, &[b"h2"]).unwrap();
}

#[test]
fn sigterm_ends_it_cleanly() {
    let mut agent = Agent::start();
    let _open = agent.tls(&TLS13, &[b"h2"]).unwrap();
    let killed =
        Command::new("kill").arg("-TERM").arg(agent.child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert_eq!(agent.notification(), "STOPPING=1\n");
    assert!(agent.child.wait().unwrap().success());
    assert!(TcpStream::connect(agent.address).is_err());
}

#[test]
fn no_identity_no_service() {
    let folder = folder_with_machine_id();
    let output = binary()
        .args(["serve", "--listen", "127.0.0.1:0", "--dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("node.key") && stderr.ends_with("there is none yet\n"), "{stderr}");
}

#[test]
fn the_identity_command_prints_the_fingerprint() {
    let folder = folder_with_machine_id();
    let run = || {
        binary()
            .args(["identity", "--hostname", "n1", "--dir"])
            .arg(folder.path())
            .output()
            .unwrap()
    };
    let (first, second) = (run(), run());
    assert!(first.status.success() && second.status.success(), "{second:?}");
    assert_eq!(first.stdout, std::fs::read(folder.path().join("node.fingerprint")).unwrap());
    assert_eq!(first.stdout, second.stdout);
}

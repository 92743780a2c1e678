//! The real binary on loopback: what it accepts, what it refuses, how it starts and ends.

#![cfg(test)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use sha2::{Digest, Sha256};

use x509_parser::prelude::{FromDer, X509Certificate};

use support::{Agent, Start, binary, folder_with_machine_id, read_to_end};

#[test]
fn tls_1_3_with_http_2_and_the_key_on_record() {
    let agent = Agent::start();
    let mut stream = agent.tls(&TLS13, &[b"h2"]).unwrap();
    assert_eq!(stream.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(stream.conn.alpn_protocol(), Some(b"h2".as_slice()));
    let certificate = &stream.conn.peer_certificates().unwrap()[0];
    let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
    let digest: String = Sha256::digest(certificate.public_key().raw)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
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
    agent.logged("no TLS connection: peer is incompatible");
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
        agent.logged("no TLS connection: received corrupt message of type InvalidContentType");
    }
}

/// A handshake that stops before its end: within the record's head, within the ClientHello, and before there is anything of it.
#[test]
fn a_handshake_that_breaks_off_is_refused() {
    let mut agent = Agent::start();
    // RFC 8446, 5.1 and 4: a record of 512 bytes of handshake, in it a ClientHello of 508.
    let whole = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 40]].concat();
    for sent in [&whole[..0], &whole[..3], &whole[..5], &whole[..]] {
        let mut stream = agent.tcp();
        stream.write_all(sent).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_to_end(stream), b"");
        agent.logged("no TLS connection: unexpected end of file");
    }
}

#[test]
fn other_protocols_inside_tls_are_refused() {
    let mut agent = Agent::start();
    let none = agent.tls(&TLS13, &[]).unwrap();
    assert_eq!(read_to_end(none), b"");
    agent.logged("the client did not ask for HTTP/2");
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
fn sigterm_ends_it_cleanly() {
    let mut agent = Agent::start();
    let _open = agent.tls(&TLS13, &[b"h2"]).unwrap();
    agent.signal("-TERM");
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

/// What a program reads over HTTP/1.1.
fn page(stream: &mut (impl Read + Write), line: &str) -> String {
    write!(stream, "{line} HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
    String::from_utf8(read_to_end(stream)).unwrap()
}

#[test]
fn metrics_are_served_where_the_config_says() {
    let start = Start::new();
    let socket = start.path("metrics.sock");
    let mut agent = start.argument("--metrics").argument(socket.to_str().unwrap()).start();
    agent.tls(&TLS12, &[b"h2"]).unwrap_err();
    agent.logged("no TLS connection");
    let get = |line: &str| page(&mut UnixStream::connect(&socket).unwrap(), line);
    let text = get("GET /metrics");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    for line in
        ["keel_api_refused_connections_total 1\n", "keel_init_up 0\n", "keel_api_connections 0\n"]
    {
        assert!(text.contains(line), "{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(get("POST /metrics").starts_with("HTTP/1.1 405 "));
    assert!(get("GET /").starts_with("HTTP/1.1 404 "));
}

#[test]
fn an_identity_that_was_given_is_used_and_none_is_made() {
    let given = Start::new();
    let read = |name: &str| std::fs::read_to_string(given.path(name)).unwrap();
    let (certificate, key, fingerprint) =
        (read("node.crt"), read("node.key"), read("node.fingerprint"));
    let folder = folder_with_machine_id();
    let run = |key: &str| {
        binary()
            .args(["identity", "--dir"])
            .arg(folder.path())
            .env("KEEL_NODE_CERTIFICATE", &certificate)
            .env("KEEL_NODE_KEY", key)
            .output()
            .unwrap()
    };
    let taken = run(&key);
    assert!(taken.status.success(), "{taken:?}");
    assert_eq!(String::from_utf8(taken.stdout).unwrap(), fingerprint);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the machine id alone");

    let other = Start::new();
    let refused = run(&std::fs::read_to_string(other.path("node.key")).unwrap());
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    let keys = ["node.fingerprint"].map(|name| std::fs::read_to_string(other.path(name)).unwrap());
    assert!(said.contains(keys[0].trim()) && said.contains(fingerprint.trim()), "{said}");
    assert!(!said.contains("PRIVATE KEY"), "{said}");
}

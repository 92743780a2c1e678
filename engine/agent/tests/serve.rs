//! The real binary on loopback: what it accepts, what it refuses, how it starts and ends.

#![cfg(test)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use sha2::{Digest, Sha256};

use x509_parser::prelude::{FromDer, X509Certificate};

use support::{Agent, binary, folder_with_machine_id, read_to_end};

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
        agent.logged("no TLS connection");
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

//! Many peers at once that do nothing: the next honest call gets through all the same.

#![cfg(test)]

mod support;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use socket2::{Domain, Socket, Type};
use support::{Agent, client_config};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Half-open connections: a flood.
const HALF_OPEN: usize = 10_000;

/// The beginning of a ClientHello: a record of 512 bytes is announced, and little of it comes.
const BEGINNING: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

/// Lets this process hold that many sockets; how many it then may.
fn sockets(wanted: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let most = maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap());
    wanted.min(most - 200)
}

/// A connection from one of several addresses of this host, which begins a handshake at most.
fn half_open(agent: SocketAddr, number: usize) -> std::io::Result<TcpStream> {
    let last = u8::try_from(2 + number % 10).unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
    socket.connect(&agent.into())?;
    let mut stream = TcpStream::from(socket);
    if number.is_multiple_of(2) {
        stream.write_all(BEGINNING)?;
    }
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_who_say_nothing() {
    let agent = Agent::start();
    let (address, count) = (agent.address, sockets(HALF_OPEN));
    assert!(count > 2_000, "this machine lets nobody open many sockets: {count}");
    let flood = std::thread::spawn(move || {
        (0..count).filter_map(|number| half_open(address, number).ok()).collect::<Vec<_>>()
    });
    // While they come, from an address of its own and from one of theirs.
    let mut calls = 0;
    while !flood.is_finished() || calls < 20 {
        assert_eq!(agent.call(None, CHECK).await, "OK");
        calls += 1;
    }
    let held = flood.join().unwrap();
    assert!(held.len() > count / 2, "{} of {count} came through", held.len());
    assert_eq!(agent.call(None, CHECK).await, "OK");
    let open = std::fs::read_dir(format!("/proc/{}/fd", agent.child.id())).unwrap().count();
    assert!(open < 600, "the agent holds {open} files open");
    drop(held);
}

#[tokio::test]
async fn a_thousand_who_idle() {
    let agent = Agent::start();
    sockets(HALF_OPEN);
    let mut idle = Vec::new();
    // One more than one address may have; each has made a call.
    for _ in 0..1_025 {
        let mut connection = agent.connect(None).await;
        assert_eq!(connection.call(CHECK).await, "OK");
        idle.push(connection);
    }
    // Whoever was idle for longest had to go, and nobody else.
    idle[0].closed().await;
    assert_eq!(idle[1].call(CHECK).await, "OK");
    assert_eq!(agent.call(None, CHECK).await, "OK");
}

#[tokio::test]
async fn streams_that_never_end() {
    let agent = Agent::start();
    let from = |last: u8| agent.connect_from([127, 0, 0, last].into());
    // As many as one address may have, over as many connections as it likes.
    let mut held = Vec::new();
    for last in [2, 3] {
        for _ in 0..4 {
            let mut connection = from(last).await;
            for _ in 0..2 {
                let stream = connection.follow(WATCH).await.unwrap();
                held.push((last, stream));
            }
            let refused = match held.len() % 8 {
                0 => {
                    "ResourceExhausted: 8 such streams are open from this network already; end one of them first"
                }
                _ => "",
            };
            if !refused.is_empty() {
                assert_eq!(connection.call(WATCH).await, refused);
            }
            assert_eq!(connection.call(CHECK).await, "OK", "what ends is not a stream");
        }
    }
    // There may be no more, and there are, for who has none.
    let mut honest = from(4).await;
    let stream = honest.follow(WATCH).await.unwrap();
    // Its place was another's, who is told to go.
    let (first, given_up) = held.swap_remove(0);
    assert_eq!(first, 2);
    let end = tokio::time::timeout(support::PATIENCE, given_up.collect()).await.unwrap();
    let trailers = end.unwrap().trailers().cloned().unwrap_or_default();
    assert_eq!(trailers.get("grpc-status").unwrap(), "14");
    drop(stream);
    assert_eq!(honest.call(CHECK).await, "OK");
}

/// A whole ClientHello, as it goes over the wire.
fn client_hello() -> Vec<u8> {
    let config = Arc::new(client_config(&TLS13, None));
    let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let mut hello = Vec::new();
    ClientConnection::new(config, name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test(flavor = "multi_thread")]
async fn hands_that_are_shaken_byte_by_byte() {
    let mut agent = Agent::start();
    let slow: Vec<TcpStream> =
        (0..100).map(|number| half_open(agent.address, 2 * number + 1).unwrap()).collect();
    // A byte each time: ten seconds are over long before the last one.
    let hello = client_hello();
    let drip = std::thread::spawn(move || {
        for byte in &hello {
            std::thread::sleep(Duration::from_millis(100));
            // Those that were sent away are gone.
            let left = slow.iter().filter(|one| (&**one).write_all(&[*byte]).is_ok()).count();
            if left == 0 {
                return true;
            }
        }
        false
    });
    while !drip.is_finished() {
        assert_eq!(agent.call(None, CHECK).await, "OK");
    }
    assert!(drip.join().unwrap(), "all were sent away before they were done");
    agent.logged("no TLS connection: no handshake within 10 s");
}

//! Many peers at once that do nothing: the next honest call gets through all the same.

#![cfg(test)]

mod support;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use support::Agent;

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Half-open connections, as many as the issue of the day demands.
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

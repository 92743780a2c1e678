//! Takes connections: shakes hands, serves calls on them, and closes them when the time has come.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::authz;
use crate::calls::{Calls, Shared};
use crate::log::say;
use crate::peer::Peer;
use crate::places::{Place, Places};
use crate::tls::{self, Encrypted, Shown};
use crate::trust::{Refusal, State};

/// How long a peer may take for its handshake, in whole.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a connection may stand without a call.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// How long a call may take in whole that is no stream without an end: who does not take an answer holds its connection no longer.
const CALL: Duration = Duration::from_secs(5 * 60);

/// How long calls get to finish on a connection that has to go; streams end after that.
const FINISH: Duration = Duration::from_secs(10);

/// How long one gets that is about the very change of trust by which its connection has to go.
const SEEN_THROUGH: Duration = Duration::from_secs(150);

/// How long a stream's last word may take to arrive.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How long callers get to finish when the agent stops.
const GRACE: Duration = Duration::from_secs(2);

/// Calls at one time on one connection.
const STREAMS: u32 = 32;

/// The most bytes of headers.
const HEADERS: u32 = 16 * 1024;

/// What one stream, and one connection, may send before somebody has read it.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// A peer that vanished without a word is found out by an HTTP/2 ping after this long, if it does not answer in time.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(10);

/// All that connections share.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) routes: Routes,
    pub(crate) shown: Arc<Shown>,
    pub(crate) trust: watch::Receiver<Arc<State>>,
    pub(crate) places: Arc<Places>,
    pub(crate) shared: Arc<Shared>,
}

impl Server {
    /// Takes connections until `stopping` turns true, then lets those that stand finish.
    pub(crate) async fn run(self, listener: TcpListener, mut stopping: watch::Receiver<bool>) {
        /// Out of file descriptors: trying again at once would only burn time.
        const PAUSE: Duration = Duration::from_millis(250);

        let mut connections = JoinSet::new();
        loop {
            let incoming = tokio::select! {
                incoming = listener.accept() => incoming,
                Some(_) = connections.join_next() => continue,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            match incoming {
                Ok((stream, peer)) => {
                    // As people write it: an IPv4 address that came in by way of `[::]` is one all the same.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    let place = self.places.take(peer.ip());
                    let one = self.clone().connection(stream, peer, place, stopping.clone());
                    connections.spawn(one);
                }
                Err(error) => {
                    say(format_args!("cannot accept a connection: {error}"));
                    sleep(PAUSE).await;
                }
            }
        }
        drop(listener);
        let finished = async { while connections.join_next().await.is_some() {} };
        if timeout(GRACE, finished).await.is_err() {
            say("stopping although callers are not done");
        }
    }

    async fn connection(
        mut self,
        stream: TcpStream,
        address: SocketAddr,
        mut place: Place,
        mut stopping: watch::Receiver<bool>,
    ) {
        let state = self.trust.borrow().clone();
        let local = stream.local_addr().ok().map(|local| local.ip().to_canonical());
        let shake = timeout(HANDSHAKE, tls::shake_hands(stream, self.shown.clone(), state.clone()));
        let shaken = tokio::select! {
            shaken = shake => shaken.unwrap_or_else(|_| {
                let why = format!("no TLS connection: no handshake within {} s", HANDSHAKE.as_secs());
                Err(Refusal { subject: String::new(), why })
            }),
            () = place.leave.cancelled() => {
                let why = "no TLS connection: no handshake before others needed the place".to_owned();
                Err(Refusal { subject: String::new(), why })
            }
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        let shared = self.shared.clone();
        let refused = |refusal: Refusal| {
            shared.metrics.refused();
            shared.audit.refused(address, &refusal);
        };
        let (stream, client) = match shaken {
            Ok(shaken) => shaken,
            Err(refusal) => return refused(refusal),
        };
        let subject = || client.as_ref().map(|client| client.subject.clone()).unwrap_or_default();
        if let Err(full) = place.shaken() {
            return refused(Refusal { subject: subject(), why: full.to_string() });
        }
        // The trust may have changed while hands were shaken.
        let latest = self.trust.borrow_and_update().clone();
        if latest.generation != state.generation
            && let Err(why) = latest.readmit(client.as_deref())
        {
            return refused(Refusal { subject: subject(), why });
        }
        let peer = Arc::new(Peer::new(address, client, &latest).through(local));
        self.serve(TokioIo::new(stream), peer, Arc::new(place), stopping).await;
    }

    async fn serve(
        mut self,
        stream: TokioIo<Encrypted>,
        peer: Arc<Peer>,
        place: Arc<Place>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let over = CancellationToken::new();
        let calls = Calls {
            routes: self.routes.clone(),
            trust: self.trust.clone(),
            shared: self.shared.clone(),
            peer: peer.clone(),
            place: place.clone(),
            over: over.clone(),
        };
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADERS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER)
            .serve_connection(stream, calls);
        tokio::pin!(connection);

        // Until something says that it has to go; a peer that leaves by itself ends it here.
        let expiry = expiry(&peer);
        tokio::pin!(expiry);
        let limit = loop {
            let now = Instant::now();
            let look = (place.idle_since().unwrap_or(now) + IDLE).min(now + CALL);
            tokio::select! {
                // What a connection ended with is between it and the peer.
                _ = connection.as_mut() => return,
                changed = self.trust.changed() => {
                    if changed.is_err() {
                        break FINISH;
                    }
                    let state = self.trust.borrow_and_update().clone();
                    if let Err(why) = state.readmit(peer.client.as_deref()) {
                        say(format_args!("{}: connection closed: {why}", peer.address));
                        let seen_through = place.has_call(authz::outlives_its_trust);
                        break if seen_through { SEEN_THROUGH } else { FINISH };
                    }
                    peer.now_verified_under(&state);
                }
                () = &mut expiry => break FINISH,
                () = place.leave.cancelled() => break LAST_WORD,
                () = sleep_until(look) => {
                    let idle = place.idle_since().is_some_and(|since| since.elapsed() >= IDLE);
                    if idle || place.is_overdue(CALL) {
                        break LAST_WORD;
                    }
                }
                _ = stopping.wait_for(|stopping| *stopping) => break FINISH,
            }
        };
        connection.as_mut().graceful_shutdown();
        if timeout(limit, connection.as_mut()).await.is_ok() {
            return;
        }
        over.cancel();
        // Who does not take even that is cut off.
        let _ = timeout(LAST_WORD, connection).await;
    }
}

/// Ends when the peer's certificate does; never for a peer without one.
async fn expiry(peer: &Peer) {
    /// A clock that is set tells nobody: it is looked at again after this long.
    const LOOK: Duration = Duration::from_secs(60 * 60);

    let Some(client) = &peer.client else { return std::future::pending().await };
    loop {
        match client.not_after.duration_since(std::time::SystemTime::now()) {
            Ok(left) => sleep(left.min(LOOK) + Duration::from_secs(1)).await,
            Err(_) => return,
        }
    }
}

/// Lets this process open as many files as it may: each connection is one.
pub(crate) fn raise_file_limit() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(())
}

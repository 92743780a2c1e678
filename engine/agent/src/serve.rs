//! `keel-agent serve`: from an identity to a served API, and a clean end.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keel_proto::v1::journal_server::JournalServer;
use keel_proto::v1::node_server::NodeServer;
use keel_proto::v1::operation_server::OperationServer;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::authz::Gate;
use crate::identity::{Identity, IdentityError, Lasts};
use crate::listen;
use crate::log::{chain, say};
use crate::notify::{State, notify};
use crate::service::{Journal, Node, Operation};
use crate::tls;

/// How long callers get to finish when the agent stops.
const GRACE: Duration = Duration::from_secs(2);

/// Calls at one time on one connection.
const STREAMS: u32 = 32;

/// The most bytes of headers, and of a request. The questions are small.
const HEADERS: u32 = 16 * 1024;
const REQUEST: usize = 64 * 1024;

/// A peer that vanished without a word is found out by an HTTP/2 ping after this long, if it does not answer in time.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(10);

/// Why the agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot use the identity for TLS")]
    Tls(#[source] rustls::Error),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot start the agent's event loop")]
    Runtime(#[source] io::Error),
    #[error("the API ended by itself")]
    Server(#[source] tonic::transport::Error),
}

/// Serves the API until SIGTERM or SIGINT.
pub(crate) fn run(
    identity: &Path,
    spare: Option<&Path>,
    address: SocketAddr,
    control: PathBuf,
) -> Result<(), ServeError> {
    let (identity, lasts) = match spare {
        Some(spare) => Identity::load_or_spare(identity, spare)?,
        None => (Identity::load(identity)?, Lasts::ForGood),
    };
    if lasts == Lasts::ThisBoot {
        say("there is nowhere to keep an identity: this one ends with this boot");
    }
    let Identity { certified, fingerprint } = identity;
    let config = tls::server_config(certified).map_err(ServeError::Tls)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(ServeError::Runtime)?.block_on(serve(address, config, control, fingerprint))
}

async fn serve(
    address: SocketAddr,
    config: ServerConfig,
    control: PathBuf,
    fingerprint: String,
) -> Result<(), ServeError> {
    // Before READY=1, so that a signal sent on it finds us listening.
    let mut stop = Stop::new().map_err(ServeError::Runtime)?;
    let listener = listen::bind(address).and_then(TcpListener::from_std);
    let listener = listener.map_err(|source| ServeError::Listen { address, source })?;
    let bound = listener.local_addr().map_err(|source| ServeError::Listen { address, source })?;

    let (connections_in, connections) = mpsc::channel(1);
    let accepting = tokio::spawn(tls::accept(listener, Arc::new(config), connections_in));
    say(format_args!("serving on {bound}, fingerprint {fingerprint}"));
    tell(State::Ready);

    let (stopping_in, stopping) = watch::channel(false);
    let node = Node::new(control, fingerprint, stopping.clone());
    let node = Gate::before(NodeServer::new(node).max_decoding_message_size(REQUEST));
    let journal = JournalServer::new(Journal {}).max_decoding_message_size(REQUEST);
    let operation = OperationServer::new(Operation {}).max_decoding_message_size(REQUEST);
    let server = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_ANSWER))
        .add_service(node)
        .add_service(Gate::before(journal))
        .add_service(Gate::before(operation))
        .serve_with_incoming_shutdown(
            ReceiverStream::new(connections).map(Ok::<_, io::Error>),
            turned(stopping),
        );
    tokio::pin!(server);

    tokio::select! {
        ended = &mut server => return ended.map_err(ServeError::Server),
        () = stop.wait() => {}
    }
    tell(State::Stopping);
    accepting.abort();
    stopping_in.send_replace(true);
    match timeout(GRACE, server).await {
        Ok(ended) => ended.map_err(ServeError::Server),
        Err(_) => {
            say("stopping although callers are not done");
            Ok(())
        }
    }
}

/// Waits until the agent is stopping.
async fn turned(mut stopping: watch::Receiver<bool>) {
    // The sender is gone only when the server is.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn tell(state: State) {
    // Served all the same: init's deadline for readiness will say what it means to init.
    if let Err(error) = notify(state) {
        say(format_args!("cannot tell init that the agent is {state:?}: {}", chain(&error)));
    }
}

/// The signals that end the agent.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

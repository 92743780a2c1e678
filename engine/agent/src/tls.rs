//! TLS 1.3 and nothing older, before anything else is said.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::log::{chain, say};

/// HTTP/2 over TLS, as ALPN names it: RFC 9113, 3.2. gRPC speaks nothing else.
const H2: &[u8] = b"h2";

/// Connections at one time, those that still shake hands included.
const CONNECTIONS: usize = 256;

/// How long a peer may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How a server with that key and certificate speaks TLS.
pub(crate) fn server_config(certified: CertifiedKey) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![H2.to_vec()];
    // No resumption: who may do what is decided anew, by a full handshake, for each connection.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    /// Its place among [`CONNECTIONS`].
    _place: OwnedSemaphorePermit,
}

/// Accepts connections until it is dropped, or nobody takes them any more.
///
/// Handshakes run side by side: a peer that dawdles delays nobody else.
pub(crate) async fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    accepted: mpsc::Sender<Connection>,
) {
    /// Out of file descriptors: trying again at once would only burn time.
    const PAUSE: Duration = Duration::from_millis(250);

    let acceptor = TlsAcceptor::from(config);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut handshakes = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = listener.accept() => incoming,
            Some(_) = handshakes.join_next() => continue,
            () = accepted.closed() => return,
        };
        let (stream, peer) = match incoming {
            // As people write it: an IPv4 address that came in by way of `[::]` is one all the same.
            Ok((stream, peer)) => (stream, SocketAddr::new(peer.ip().to_canonical(), peer.port())),
            Err(error) => {
                say(format_args!("cannot accept a connection: {error}"));
                sleep(PAUSE).await;
                continue;
            }
        };
        // With every place taken, the peer learns at once by a closed connection, not by silence.
        let Ok(place) = places.clone().try_acquire_owned() else {
            say(format_args!("{peer}: refused, {CONNECTIONS} connections are open"));
            continue;
        };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        handshakes.spawn(async move {
            match shake_hands(acceptor, stream).await {
                // Not taken: the server is stopping.
                Ok(stream) => drop(accepted.send(Connection { stream, peer, _place: place }).await),
                Err(error) => say(format_args!("{peer}: no TLS connection: {}", chain(&error))),
            }
        });
    }
}

async fn shake_hands(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    // rustls lets a client pass that offers no protocol at all.
    match stream.get_ref().1.alpn_protocol() {
        Some(H2) => Ok(stream),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the client did not ask for HTTP/2")),
    }
}

/// Who is at the other end, for the services.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer { address: self.peer }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

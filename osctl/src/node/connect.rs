//! From what was typed to a client that can be called.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use keel_proto::v1::node_client::NodeClient;
use keel_proto::v1::operation_client::OperationClient;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::service_fn;

use crate::cli::NodeArgs;
use crate::error::Failure;
use crate::node::endpoint::Endpoint;
use crate::node::fingerprint::Fingerprint;
use crate::node::verifier::{Trust, Verifier, client_config};
use crate::output::Output;

/// How long reaching a node may take, and how long one answer.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(20);

/// A node that vanished while we wait for its events is found out by an HTTP/2 ping.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_ANSWER: Duration = Duration::from_secs(10);

/// The most bytes of an answer: some 100,000 units.
const LARGEST: usize = 32 * 1024 * 1024;

/// A node that cannot be reached, or is not the right one.
#[derive(Debug)]
struct ConnectError {
    endpoint: Endpoint,
    kind: ConnectErrorKind,
}

#[derive(Debug, thiserror::Error)]
enum ConnectErrorKind {
    #[error("its name cannot be resolved")]
    Resolve(#[source] io::Error),
    #[error("its name has no address")]
    NoAddress,
    #[error("it cannot be reached")]
    Tcp(#[source] io::Error),
    #[error("it did not answer within {} s", CONNECT.as_secs())]
    Silent,
    #[error("it does not speak TLS 1.3")]
    Tls(#[source] io::Error),
    #[error("its certificate has the fingerprint {seen}, not {expected}")]
    OtherNode { seen: Fingerprint, expected: Fingerprint },
    #[error("it does not speak gRPC")]
    Http2(#[source] tonic::transport::Error),
    #[error("TLS cannot be set up here")]
    Config(#[source] rustls::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot talk to {}: {}", self.endpoint, self.kind)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let next = match &error.kind {
            ConnectErrorKind::Resolve(_) | ConnectErrorKind::NoAddress => {
                "check the spelling, or give --endpoint the address that the node's console shows"
            }
            ConnectErrorKind::Tcp(_) | ConnectErrorKind::Silent => {
                "is the machine up and on this network? its console shows its address"
            }
            ConnectErrorKind::Tls(_) | ConnectErrorKind::Http2(_) => {
                "is this the port of a Keel node's API? it is 50051 unless something forwards it"
            }
            ConnectErrorKind::OtherNode { .. } => {
                "compare with the fingerprint on the node's console: unless it shows this one, something else answers \
                 at that address"
            }
            ConnectErrorKind::Config(_) => "this is a defect of osctl; please report it",
        };
        let failure = Self::new(error.to_string()).next(next);
        match error.kind {
            ConnectErrorKind::Resolve(source)
            | ConnectErrorKind::Tcp(source)
            | ConnectErrorKind::Tls(source) => failure.because(source),
            ConnectErrorKind::Http2(source) => failure.because(source),
            ConnectErrorKind::Config(source) => failure.because(source),
            ConnectErrorKind::NoAddress
            | ConnectErrorKind::Silent
            | ConnectErrorKind::OtherNode { .. } => failure,
        }
    }
}

/// Runs a conversation with a node to its end.
pub(crate) fn ask<T>(conversation: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| {
            let failure = Failure::new("cannot start an event loop").because(source);
            failure.next("this process may open too few files: see `ulimit -n`")
        })?
        .block_on(conversation)
}

/// Connects to the node that the command line names, and says on stderr what the user should know about the connection.
pub(crate) async fn connect(
    args: &NodeArgs,
    out: &mut Output,
) -> Result<NodeClient<Channel>, Failure> {
    Ok(reach(args, out).await?.node())
}

/// A connection to a node, for every service of it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    channel: Channel,
}

impl Connection {
    /// What the node is and how it stands.
    pub(crate) fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }

    /// What changes the node.
    pub(crate) fn operation(&self) -> OperationClient<Channel> {
        OperationClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }
}

/// As [`connect`], for every service of the node.
pub(crate) async fn reach(args: &NodeArgs, out: &mut Output) -> Result<Connection, Failure> {
    let (endpoint, trust) = read(args)?;
    if endpoint.typed_http {
        out.notice("http:// was typed, but what goes over the wire is TLS");
    }
    let verifier = Verifier::new(trust);
    let connected = timeout(CONNECT, open(&endpoint, trust, verifier.clone())).await;
    let channel = connected
        .unwrap_or(Err(ConnectErrorKind::Silent))
        .map_err(|kind| ConnectError { endpoint: endpoint.clone(), kind })?;
    if let (Trust::FirstUse, Some(seen)) = (trust, verifier.seen()) {
        out.notice(&format!(
            "{endpoint} is trusted for this call because it answered; to be sure next time: --fingerprint {seen}"
        ));
    }
    Ok(Connection { channel })
}

fn read(args: &NodeArgs) -> Result<(Endpoint, Trust), Failure> {
    let Some(text) = &args.endpoint else {
        return Err(
            Failure::usage("which node?").next("give --endpoint HOST, or set OSCTL_ENDPOINT")
        );
    };
    let endpoint = Endpoint::parse(text).map_err(|error| {
        Failure::usage(error.to_string()).next("write it as HOST, HOST:PORT or [IPV6]:PORT")
    })?;
    let trust = match &args.fingerprint {
        Some(text) => Trust::Pinned(text.parse().map_err(|error| {
            Failure::usage("--fingerprint is not a fingerprint")
                .because(Box::<dyn Error + Send + Sync>::from(error))
                .next(
                    "copy it from the node's console, or leave it out and compare what osctl shows",
                )
        })?),
        None => Trust::FirstUse,
    };
    Ok((endpoint, trust))
}

async fn open(
    endpoint: &Endpoint,
    trust: Trust,
    verifier: Arc<Verifier>,
) -> Result<Channel, ConnectErrorKind> {
    let config = client_config(verifier.clone()).map_err(ConnectErrorKind::Config)?;
    let tcp = dial(endpoint).await?;
    let tls = TlsConnector::from(Arc::new(config))
        .connect(server_name(endpoint), tcp)
        .await
        .map_err(|source| match (trust, verifier.seen()) {
            (Trust::Pinned(expected), Some(seen)) if seen != expected => {
                ConnectErrorKind::OtherNode { seen, expected }
            }
            _ => ConnectErrorKind::Tls(source),
        })?;
    speak_http2(tls).await.map_err(ConnectErrorKind::Http2)
}

/// Tries the host's addresses one after the other, as they were resolved.
async fn dial(endpoint: &Endpoint) -> Result<TcpStream, ConnectErrorKind> {
    let addresses = lookup_host((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(ConnectErrorKind::Resolve)?;
    let mut failed = ConnectErrorKind::NoAddress;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(ConnectErrorKind::Tcp)?;
                return Ok(stream);
            }
            Err(source) => failed = ConnectErrorKind::Tcp(source),
        }
    }
    Err(failed)
}

/// rustls wants a name. It is neither sent nor compared, so a host that is no DNS name gets any.
fn server_name(endpoint: &Endpoint) -> ServerName<'static> {
    ServerName::try_from(endpoint.host.clone())
        .unwrap_or_else(|_| ServerName::from(IpAddr::from([0, 0, 0, 0])))
}

/// gRPC over the one connection that was checked. It is never dialled again behind our back: when it is gone, the call
/// fails.
async fn speak_http2(tls: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    let connection = Arc::new(Mutex::new(Some(TokioIo::new(tls))));
    let connector = service_fn(move |_| {
        let connection = connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(connection.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    Channel::from_static("https://node")
        .timeout(ANSWER)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
}

/// A call that the node did not answer as hoped.
pub(crate) fn refused(what: &str, status: &Status) -> Failure {
    let next = match status.code() {
        Code::Unavailable => {
            "try again in a moment; if it stays like this, look at the node's console"
        }
        Code::DeadlineExceeded | Code::Cancelled => "try again; the node may be busy",
        Code::Unimplemented => {
            "the node runs an older Keel than this osctl; compare their versions"
        }
        Code::PermissionDenied | Code::Unauthenticated => {
            "the node is not in maintenance any more; show who you are"
        }
        Code::OutOfRange => "leave --from out to see all events of this boot",
        Code::ResourceExhausted => "wait until another caller has left",
        _ => "this is a defect; please report it with the node's log",
    };
    let failure = Failure::new(format!("the node did not {what}: {}", status.message())).next(next);
    match status.source() {
        Some(source) => failure.because(source.to_string()),
        None => failure,
    }
}

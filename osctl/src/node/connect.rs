//! From what was typed to a client that can be called.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use keel_proto::v1::cluster_client::ClusterClient;
use keel_proto::v1::config_client::ConfigClient;
use keel_proto::v1::journal_client::JournalClient;
use keel_proto::v1::node_client::NodeClient;
use keel_proto::v1::operation_client::OperationClient;
use rustls::pki_types::ServerName;
use tokio::io::AsyncBufRead as _;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::service_fn;

use crate::cli::NodeArgs;
use crate::error::Failure;
use crate::node::credentials::About;
use crate::node::endpoint::Endpoint;
use crate::node::fingerprint::Fingerprint;
use crate::node::known::{Added, KnownNodes};
use crate::node::refusal::{self, Refusal};
use crate::node::target::{self, Target};
use crate::node::verifier::{Verdict, Verifier, client_config};
use crate::output::Output;

/// How long reaching a node may take, and how long one answer.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(20);

/// How long a node's first word is waited for before we speak.
const FIRST_WORD: Duration = Duration::from_secs(3);

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
    #[error("{}", .0.what)]
    Refused(Refusal),
    #[error("its key has the fingerprint {seen}, not {expected}")]
    OtherNode { seen: Fingerprint, expected: Fingerprint },
    #[error("{0}")]
    Changed(Box<Changed>),
    #[error("its certificate is not to be trusted: {why}; its fingerprint is {seen}")]
    Unsigned { seen: Fingerprint, why: String },
    #[error("it is not known; its key has the fingerprint {seen}")]
    Unknown { seen: Fingerprint },
    #[error("it hung up right after the handshake")]
    HungUp(#[source] io::Error),
    #[error("it does not speak gRPC")]
    Http2(#[source] tonic::transport::Error),
    #[error("TLS cannot be set up here")]
    Config(#[source] rustls::Error),
    #[error("the certificate {origin} and its key do not belong together")]
    Mismatch { origin: String },
}

/// A node that shows another certificate than the one that is known.
#[derive(Debug)]
struct Changed {
    seen: Fingerprint,
    known: Vec<String>,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ITS CERTIFICATE IS NOT THE ONE THAT IS KNOWN")?;
        for known in &self.known {
            writeln!(f, "  known  {known}")?;
        }
        writeln!(f, "  shown  {}", self.seen)?;
        write!(
            f,
            "  Either the machine was installed anew or got a new identity, or something else answers at its address and\n  \
             would read what you send. Nothing was sent."
        )
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot talk to {}: {}", self.endpoint, self.kind)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let endpoint = &error.endpoint;
        let next = match &error.kind {
            ConnectErrorKind::Resolve(_) | ConnectErrorKind::NoAddress => {
                "check the spelling, or give --endpoint the address that the node's console shows".to_owned()
            }
            ConnectErrorKind::Tcp(_) | ConnectErrorKind::Silent => {
                "is the machine up and on this network? its console shows its address".to_owned()
            }
            ConnectErrorKind::Tls(_) | ConnectErrorKind::Http2(_) => {
                "is this the port of a Keel node's API? it is 50051 unless something forwards it".to_owned()
            }
            ConnectErrorKind::Refused(refusal) => refusal.next.clone(),
            ConnectErrorKind::OtherNode { .. } => {
                "compare with the fingerprint on the node's console: unless it shows this one, something else answers at \
                 that address"
                    .to_owned()
            }
            ConnectErrorKind::Changed(_) => format!(
                "compare with the fingerprint on the node's console; only if it shows the new one: \
                 osctl known-nodes remove {endpoint}"
            ),
            ConnectErrorKind::Unsigned { seen, .. } | ConnectErrorKind::Unknown { seen } => format!(
                "compare with the fingerprint on the node's console; if it is the same: \
                 osctl known-nodes add {endpoint} {seen}"
            ),
            ConnectErrorKind::HungUp(_) => {
                "try again; if it stays like this, the node is busy or lets nobody in from here: see its console".to_owned()
            }
            ConnectErrorKind::Config(_) => "this is a defect of osctl; please report it".to_owned(),
            ConnectErrorKind::Mismatch { .. } => {
                "give the certificate and the key that were made together".to_owned()
            }
        };
        let failure = Self::new(error.to_string()).next(next);
        match error.kind {
            ConnectErrorKind::Resolve(source)
            | ConnectErrorKind::Tcp(source)
            | ConnectErrorKind::HungUp(source)
            | ConnectErrorKind::Tls(source) => failure.because(source),
            ConnectErrorKind::Http2(source) => failure.because(source),
            ConnectErrorKind::Config(source) => failure.because(source),
            ConnectErrorKind::NoAddress
            | ConnectErrorKind::Silent
            | ConnectErrorKind::Refused(_)
            | ConnectErrorKind::OtherNode { .. }
            | ConnectErrorKind::Changed(_)
            | ConnectErrorKind::Unsigned { .. }
            | ConnectErrorKind::Unknown { .. }
            | ConnectErrorKind::Mismatch { .. } => failure,
        }
    }
}

/// One node that answered and is the right one.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    channel: Channel,
}

impl Connection {
    /// For tests: over whatever a test has.
    #[cfg(test)]
    pub(crate) fn over(channel: Channel) -> Self {
        Self { channel }
    }

    /// What the node is and how it stands.
    pub(crate) fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }

    /// What the node has said and recorded.
    pub(crate) fn journal(&self) -> JournalClient<Channel> {
        JournalClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }

    /// The node's cluster.
    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }

    /// The node's machine config through time.
    pub(crate) fn config(&self) -> ConfigClient<Channel> {
        ConfigClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }

    /// What changes the node.
    pub(crate) fn operation(&self) -> OperationClient<Channel> {
        OperationClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
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

/// Connects to the one node that the command line names, and says on stderr what the user should know about the connection.
pub(crate) async fn connect(
    args: &NodeArgs,
    out: &mut Output,
) -> Result<NodeClient<Channel>, Failure> {
    Ok(reach(args, out).await?.node())
}

/// As [`connect`], for every service of the node.
pub(crate) async fn reach(args: &NodeArgs, out: &mut Output) -> Result<Connection, Failure> {
    let target = one(args, out)?;
    let (connection, remark) = open(&target).await?;
    remark.into_iter().for_each(|remark| out.notice(&remark));
    Ok(connection)
}

/// The one node that is meant, for a command that makes no sense for several.
pub(crate) fn one(args: &NodeArgs, out: &mut Output) -> Result<Target, Failure> {
    let mut targets = target::read(args)?;
    targets.remarks.iter().for_each(|remark| out.notice(remark));
    match (targets.nodes.pop(), targets.nodes.len()) {
        (Some(target), 0) => Ok(target),
        (_, others) => {
            Err(Failure::usage(format!("this asks one node, and {} are named", others + 1))
                .next("give one --endpoint; status, units and inventory can ask several at once"))
        }
    }
}

/// Connects to a node that is meant. What comes with the connection is a remark on whether it is now known.
pub(crate) async fn open(target: &Target) -> Result<(Connection, Option<String>), Failure> {
    let endpoint = &target.endpoint;
    let verifier = Verifier::new(target.trust.clone(), target.credentials.authority.clone());
    let wrong = |kind| ConnectError { endpoint: endpoint.clone(), kind };
    let connected = timeout(CONNECT, establish(target, verifier.clone())).await;
    let channel = connected.unwrap_or(Err(ConnectErrorKind::Silent)).map_err(wrong)?;
    let remark = match verifier.seen() {
        Some((seen, Verdict::New)) => Some(remember(endpoint, *seen)?),
        _ => None,
    };
    Ok((Connection { channel }, remark))
}

/// Keeps the fingerprint of a node that is met for the first time, now that it has proved to have the key.
fn remember(endpoint: &Endpoint, seen: Fingerprint) -> Result<String, Failure> {
    let known = KnownNodes::open()?;
    match known.add(endpoint, seen, SystemTime::now()) {
        Ok(Added::New | Added::Same) => Ok(format!(
            "{endpoint} is known from now on by the fingerprint {seen}; compare it with the node's console"
        )),
        Ok(Added::Other(nodes)) => {
            let kind = changed(seen, &known, &nodes);
            Err(ConnectError { endpoint: endpoint.clone(), kind }.into())
        }
        Err(failure) => {
            let why: Vec<_> = failure.lines().into_iter().map(|(_, line)| line).collect();
            Ok(format!(
                "{endpoint} is trusted for this call by the fingerprint {seen}, which could not be kept: {}",
                why.join("; ")
            ))
        }
    }
}

fn changed(
    seen: Fingerprint,
    known: &KnownNodes,
    nodes: &[crate::node::known::KnownNode],
) -> ConnectErrorKind {
    let path = known.path();
    let line = |node: &crate::node::known::KnownNode| {
        let since = node.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
        format!("{}{since}, {path}:{}", node.fingerprint, node.line)
    };
    let known = nodes.iter().map(line).collect();
    ConnectErrorKind::Changed(Box::new(Changed { seen, known }))
}

async fn establish(target: &Target, verifier: Arc<Verifier>) -> Result<Channel, ConnectErrorKind> {
    let shown = target.credentials.identity.as_ref().map(|identity| &identity.about);
    let config = client_config(verifier.clone(), &target.credentials).map_err(|error| {
        match (error, shown) {
            (rustls::Error::InconsistentKeys(_), Some(about)) => {
                ConnectErrorKind::Mismatch { origin: about.origin.clone() }
            }
            (error, _) => ConnectErrorKind::Config(error),
        }
    })?;
    let tcp = dial(&target.endpoint).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let tls = connector.connect(server_name(&target.endpoint), tcp).await;
    let tls = tls.map_err(|source| match verifier.seen() {
        Some((seen, verdict)) => untrusted(target, *seen, verdict)
            .unwrap_or_else(|| refused_by(&source, shown).unwrap_or(ConnectErrorKind::Tls(source))),
        None => refused_by(&source, shown).unwrap_or(ConnectErrorKind::Tls(source)),
    })?;
    let tls = listen(tls)
        .await
        .map_err(|source| refused_by(&source, shown).unwrap_or(ConnectErrorKind::HungUp(source)))?;
    speak_http2(tls).await.map_err(ConnectErrorKind::Http2)
}

/// Waits for the node's first word, and leaves it to be read.
///
/// The client's handshake ends before the node has looked at the client's certificate, and a client that goes on to write may never read
/// why it was hung up on. An HTTP/2 server speaks first (RFC 9113, 3.4); one that does not is listened to for a moment only.
async fn listen(mut tls: TlsStream<TcpStream>) -> io::Result<TlsStream<TcpStream>> {
    let word = poll_fn(|cx| Pin::new(&mut tls).poll_fill_buf(cx).map_ok(<[u8]>::is_empty));
    match timeout(FIRST_WORD, word).await {
        Ok(Ok(true)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(Err(error)) => Err(error),
        Ok(Ok(false)) | Err(_) => Ok(tls),
    }
}

/// Why we did not trust the node, if that is why the handshake ended.
fn untrusted(target: &Target, seen: Fingerprint, verdict: &Verdict) -> Option<ConnectErrorKind> {
    match verdict {
        Verdict::Right | Verdict::New => None,
        Verdict::OtherThanPinned(expected) => {
            Some(ConnectErrorKind::OtherNode { seen, expected: *expected })
        }
        Verdict::Changed => Some(match KnownNodes::open() {
            Ok(known) => {
                let nodes = known.of(&target.endpoint).unwrap_or_default();
                changed(seen, &known, &nodes)
            }
            Err(_) => ConnectErrorKind::Changed(Box::new(Changed { seen, known: vec![] })),
        }),
        Verdict::Unsigned(error) => Some(ConnectErrorKind::Unsigned {
            seen,
            why: refusal::of_chain(error, SystemTime::now()),
        }),
        Verdict::Unknown => Some(ConnectErrorKind::Unknown { seen }),
    }
}

/// Why the node did not trust us, if it said so.
fn refused_by(error: &io::Error, shown: Option<&About>) -> Option<ConnectErrorKind> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::AlertReceived(alert) = error else { return None };
    refusal::of_alert(*alert, shown, SystemTime::now()).map(ConnectErrorKind::Refused)
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

/// What a certificate that an authority signed has to be for. An address's zone is this computer's own word, and in no certificate; a
/// host that is neither a name nor an address gets one that no certificate has.
fn server_name(endpoint: &Endpoint) -> ServerName<'static> {
    let host = endpoint.host.split('%').next().unwrap_or_default();
    ServerName::try_from(host.to_owned())
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
        Code::Unauthenticated => {
            "the node is not in maintenance any more: use --kubeconfig FILE, or --cert and --key"
        }
        Code::PermissionDenied if status.message().ends_with("in maintenance") => {
            "until the node knows a CA nobody may: give it one, as `agent.trusted-ca` in its machine config"
        }
        Code::PermissionDenied => {
            "your certificate's Organization gives no role for this: ask the cluster's admin, or do without"
        }
        Code::OutOfRange => "leave --from out to see all events of this boot",
        Code::ResourceExhausted => "wait until another caller has left",
        Code::NotFound => {
            "`osctl units` lists the node's units, and `osctl boot list` the boots that it remembers"
        }
        Code::InvalidArgument => "see what the command takes with --help",
        _ => "this is a defect; please report it with the node's log",
    };
    let failure = Failure::new(format!("the node did not {what}: {}", status.message())).next(next);
    match status.source() {
        Some(source) => failure.because(source.to_string()),
        None => failure,
    }
}

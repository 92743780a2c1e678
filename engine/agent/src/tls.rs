//! TLS 1.3 and nothing older, before anything else is said.

use std::io;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::log::chain;
use crate::trust::{Admission, Client, Door, Refusal, State};

/// HTTP/2 over TLS, as ALPN names it: RFC 9113, 3.2. gRPC speaks nothing else.
const H2: &[u8] = b"h2";

/// The key and certificate that the node shows: the one that its cluster signed, or else its own. Either may be replaced while the agent
/// runs; connections that stand are not touched.
#[derive(Debug)]
pub(crate) struct Shown {
    own: RwLock<Arc<CertifiedKey>>,
    /// With its last moment: after that the node's own is shown again.
    signed: RwLock<Option<(Arc<CertifiedKey>, SystemTime)>>,
}

impl Shown {
    pub(crate) fn new(own: CertifiedKey) -> Self {
        Self { own: RwLock::new(Arc::new(own)), signed: RwLock::default() }
    }

    pub(crate) fn replace(&self, own: CertifiedKey) {
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(own);
    }

    /// Shows another certificate of the cluster from now on, or none.
    pub(crate) fn sign(&self, signed: Option<(CertifiedKey, SystemTime)>) {
        let signed = signed.map(|(certified, until)| (Arc::new(certified), until));
        *self.signed.write().unwrap_or_else(PoisonError::into_inner) = signed;
    }

    /// What is shown at a moment.
    pub(crate) fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let signed = self.signed.read().unwrap_or_else(PoisonError::into_inner).clone();
        match signed {
            Some((certified, until)) if now <= until => certified,
            _ => self.own.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

/// The cryptography that all connections share.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(ring::default_provider()));

/// How one connection speaks TLS.
fn server_config(
    shown: Arc<Shown>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, rustls::Error> {
    let builder =
        ServerConfig::builder_with_provider(PROVIDER.clone()).with_protocol_versions(&[&TLS13])?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(shown);
    config.alpn_protocols = vec![H2.to_vec()];
    // No resumption: who may do what is decided anew, by a full handshake, for each connection.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A connection after its handshake. It is large, and moves from one hand to the next: in a box it has its size once.
pub(crate) type Encrypted = Box<TlsStream<TcpStream>>;

/// Shakes hands under that trust. A refusal says what the log is told; the client gets a TLS alert.
pub(crate) async fn shake_hands(
    stream: TcpStream,
    shown: Arc<Shown>,
    state: Arc<State>,
) -> Result<(Encrypted, Option<Arc<Client>>), Refusal> {
    let nobody = |why: String| Refusal { subject: String::new(), why };
    let failed = |error: io::Error| nobody(format!("no TLS connection: {}", chain(&error)));
    stream.set_nodelay(true).map_err(failed)?;
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(failed)?;
    let admission = match &state.door {
        Door::Open => None,
        Door::Guarded(_) | Door::Shut(_) => Some(Arc::new(Admission::new(state.clone()))),
    };
    let verifier = admission.clone().map(|admission| admission as Arc<dyn ClientCertVerifier>);
    let config = server_config(shown, verifier)
        .map_err(|error| nobody(format!("no TLS connection: {}", chain(&error))))?;
    let shaken = hello.into_stream(Arc::new(config)).await;
    let outcome = admission.and_then(|admission| admission.outcome());
    let stream = match (shaken, &outcome) {
        (Ok(stream), _) => Box::new(stream),
        (Err(_), Some(Err(refusal))) => return Err(refusal.clone()),
        (Err(error), _) => return Err(explain(error, &state)),
    };
    // rustls lets a client pass that offers no protocol at all.
    if stream.get_ref().1.alpn_protocol() != Some(H2) {
        return Err(nobody("no TLS connection: the client did not ask for HTTP/2".to_owned()));
    }
    match (&state.door, outcome) {
        (Door::Open, _) => Ok((stream, None)),
        (Door::Guarded(_), Some(Ok(client))) => Ok((stream, Some(client))),
        // rustls has taken a client that nothing here has verified.
        _ => Err(nobody("the client was not verified".to_owned())),
    }
}

fn explain(error: io::Error, state: &State) -> Refusal {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let why = match (inner, &state.door) {
        (Some(rustls::Error::NoCertificatesPresented), Door::Shut(why)) => {
            format!("the node lets nobody in: {why}")
        }
        (Some(rustls::Error::NoCertificatesPresented), _) => {
            "the client has no certificate, and the node is not in maintenance".to_owned()
        }
        _ => format!("no TLS connection: {}", chain(&error)),
    };
    Refusal { subject: String::new(), why }
}

//! A client of an API server, with as little to it as joining a cluster takes: TLS 1.3, one request a connection, all of it bounded
//! in time and size.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HOST, HeaderValue};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::error::JoinErrorKind;
use crate::log::utc;

/// How long one request may take, from the first packet to the last.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most bytes of an answer.
const LARGEST: usize = 1 << 20;

/// Where an API server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Server {
    /// Reads `https://HOST:PORT`; the port is 443 if it is not there.
    pub(crate) fn parse(url: &str) -> Result<Self, JoinErrorKind> {
        let wrong = || JoinErrorKind::Address(url.chars().take(100).collect());
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if uri.scheme_str() != Some("https") || !bare || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let behind = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        if authority.port_u16().is_none() && !behind.is_empty() {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        match uri.port_u16().unwrap_or(443) {
            0 => Err(wrong()),
            _ if host.is_empty() => Err(wrong()),
            port => Ok(Self { host, port }),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// JSON, or nothing.
    pub(crate) body: Value,
    /// What the server's clock said, if it said it.
    pub(crate) date: Option<SystemTime>,
}

/// A server, and how it is known to be the right one.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) server: Server,
    tls: Arc<ClientConfig>,
}

impl Http {
    /// A server whose certificate one of these CAs has signed.
    pub(crate) fn verified(server: Server, ca: &str) -> Result<Self, JoinErrorKind> {
        Self::as_client(server, ca, None)
    }

    /// The same, to which a certificate and its key, in one PEM, are shown.
    pub(crate) fn as_client(
        server: Server,
        ca: &str,
        credentials: Option<&[u8]>,
    ) -> Result<Self, JoinErrorKind> {
        let bad = |why: String| JoinErrorKind::BadCa(why);
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            let der = der.map_err(|error| bad(error.to_string()))?;
            roots.add(der).map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("it holds no certificate".to_owned()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| bad(error.to_string()))?;
        let builder = builder.with_root_certificates(roots);
        let tls = match credentials {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let wrong = |why: String| JoinErrorKind::Kubeconfig(why);
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
                let chain = chain.map_err(|error| wrong(error.to_string()))?;
                let key = PrivateKeyDer::from_pem_slice(pem)
                    .map_err(|_| wrong("there is no key in it".to_owned()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| wrong(error.to_string()))?
            }
        };
        Ok(Self { server, tls: Arc::new(tls) })
    }

    /// Whoever answers there. Nothing secret may be sent, and nothing believed.
    pub(crate) fn unverified(server: Server) -> Result<Self, JoinErrorKind> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| JoinErrorKind::BadCa(error.to_string()))?;
        let anybody = Arc::new(Anybody(provider));
        let tls = builder.dangerous().with_custom_certificate_verifier(anybody);
        Ok(Self { server, tls: Arc::new(tls.with_no_client_auth()) })
    }

    pub(crate) async fn get(
        &self,
        path: &str,
        token: Option<&str>,
    ) -> Result<Answer, JoinErrorKind> {
        self.call(Method::GET, path, token, None).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<Answer, JoinErrorKind> {
        self.call(Method::POST, path, token, Some(body)).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, JoinErrorKind> {
        let calling = self.exchange(method, path, token, body);
        tokio::time::timeout(PATIENCE, calling)
            .await
            .unwrap_or(Err(JoinErrorKind::Silent(PATIENCE)))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, JoinErrorKind> {
        let (response, _driving) = self.send(method, path, token, body).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST).collect().await;
        let body = body.map_err(|error| JoinErrorKind::NotKubernetes(error.to_string()))?;
        let date = head.headers.get(DATE).and_then(|date| date.to_str().ok());
        Ok(Answer {
            status: head.status.as_u16(),
            body: serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
            date: date.and_then(|date| httpdate::parse_http_date(date).ok()),
        })
    }

    /// Asks for something whose answer goes on and on: a JSON document a line.
    pub(crate) async fn watch(&self, path: &str) -> Result<Lines, JoinErrorKind> {
        let sending = self.send(Method::GET, path, None, None);
        let silent = Err(JoinErrorKind::Silent(PATIENCE));
        let (response, driving) =
            tokio::time::timeout(PATIENCE, sending).await.unwrap_or(silent)?;
        let status = response.status().as_u16();
        match status {
            200 => Ok(Lines { body: response.into_body(), read: Vec::new(), _driving: driving }),
            _ => Err(JoinErrorKind::NotKubernetes(format!("it answered a watch with {status}"))),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(Response<Incoming>, Driving), JoinErrorKind> {
        let Server { host, port } = &self.server;
        let broken = |error: hyper::Error| JoinErrorKind::NotKubernetes(error.to_string());
        let name = ServerName::try_from(host.clone())
            .map_err(|_| JoinErrorKind::Address(format!("https://{host}:{port}")))?;
        let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), *port))
            .await
            .map_err(JoinErrorKind::Resolve)?
            .collect();
        let stream = TcpStream::connect(&*addresses).await.map_err(JoinErrorKind::Unreachable)?;
        let shaken = TlsConnector::from(self.tls.clone()).connect(name, stream).await;
        let stream = shaken.map_err(|error| refused(error, host))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driving = Driving(tokio::spawn(connection).abort_handle());
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder().method(method).uri(path);
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        request = request.header(HOST, authority).header(ACCEPT, "application/json");
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| JoinErrorKind::TokenRefused)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| JoinErrorKind::NotKubernetes(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok((response, driving))
    }
}

/// What carries a connection; it ends with the value.
#[derive(Debug)]
struct Driving(AbortHandle);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer that goes on and on.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    /// What has been read of the next line.
    read: Vec<u8>,
    _driving: Driving,
}

impl Lines {
    /// The next line; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, JoinErrorKind> {
        let broken = |why: String| JoinErrorKind::NotKubernetes(why);
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).unwrap_or_default()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(error.to_string())),
                Some(Ok(frame)) => {
                    self.read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                    if self.read.len() > LARGEST {
                        return Err(broken("a line of it is too long".to_owned()));
                    }
                }
            }
        }
    }
}

/// Why a handshake failed.
fn refused(error: io::Error, host: &str) -> JoinErrorKind {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => {
            let source = rustls::Error::InvalidCertificate(why.clone());
            match why {
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => {
                    JoinErrorKind::NotValidNow { here: utc(SystemTime::now()), source }
                }
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => {
                    JoinErrorKind::WrongName { host: host.to_owned(), source }
                }
                _ => JoinErrorKind::WrongCa(source),
            }
        }
        _ if error.kind() == io::ErrorKind::ConnectionReset => JoinErrorKind::Unreachable(error),
        _ => JoinErrorKind::NotTls(error),
    }
}

/// Takes every certificate, but not every signature.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

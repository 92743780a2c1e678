//! A client that shows whatever certificate it is given, takes any that it is shown, and says what became of it.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};
use tokio_rustls::TlsConnector;
use tonic::Status;

use super::pki::Issued;

/// Longer than any answer takes on a busy machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A socket that gives up in the end.
pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Shakes hands.
pub(crate) fn tls(
    address: SocketAddr,
    config: ClientConfig,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::from(address.ip());
    let mut stream =
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp(address));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// What a client with that certificate, or none, learns of its refusal. In TLS 1.3 it comes after the client's own handshake.
pub(crate) fn refusal(address: SocketAddr, client: Option<&Issued>) -> String {
    let error = match tls(address, client_config(&TLS13, client)) {
        Err(error) => error,
        Ok(mut stream) => match stream.read(&mut [0; 1]) {
            Err(error) => error,
            Ok(read) => return format!("not refused: {read}"),
        },
    };
    error.to_string()
}

/// Speaks HTTP/2 over TLS on a connection.
pub(crate) async fn http2<B>(
    tcp: tokio::net::TcpStream,
    address: SocketAddr,
    client: Option<&Issued>,
) -> (SendRequest<B>, impl Future<Output = hyper::Result<()>> + Send + use<B>)
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // As every client of HTTP/2 does: else a call's second packet waits for the acknowledgement of its first, 40 ms.
    tcp.set_nodelay(true).unwrap();
    let config = Arc::new(client_config(&TLS13, client));
    let name = ServerName::from(address.ip());
    let tls = TlsConnector::from(config).connect(name, tcp).await.unwrap();
    let io = TokioIo::new(tls);
    hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap()
}

/// A connection for calls.
pub(crate) struct Connection {
    send: SendRequest<Full<Bytes>>,
    /// Ends with the connection.
    pub(crate) ended: tokio::task::JoinHandle<Result<(), String>>,
}

impl Connection {
    /// One to a node, with that certificate or none.
    pub(crate) async fn open(address: SocketAddr, client: Option<&Issued>) -> Self {
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        Self::over(tcp, address, client).await
    }

    /// Shakes hands over a socket, and speaks HTTP/2.
    pub(crate) async fn over(
        tcp: tokio::net::TcpStream,
        address: SocketAddr,
        client: Option<&Issued>,
    ) -> Self {
        let (send, connection) = http2(tcp, address, client).await;
        let ended =
            tokio::spawn(async move { connection.await.map_err(|error| format!("{error:?}")) });
        Self { send, ended }
    }

    /// Begins a call whose request is the empty message, which every method takes.
    pub(crate) async fn begin(&mut self, method: &str) -> Result<http::Response<Incoming>, String> {
        self.begin_with(method, &[&[]]).await
    }

    /// Begins a call with these messages, as they are encoded; no more follow.
    pub(crate) async fn begin_with(
        &mut self,
        method: &str,
        messages: &[&[u8]],
    ) -> Result<http::Response<Incoming>, String> {
        let mut body = Vec::new();
        for message in messages {
            body.push(0);
            body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            body.extend(*message);
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://node{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        self.send.ready().await.map_err(|error| format!("{error:?}"))?;
        let answer = tokio::time::timeout(PATIENCE, self.send.send_request(request)).await.unwrap();
        answer.map_err(|error| format!("{error:?}"))
    }

    /// Begins a stream that goes on: its first message has come.
    pub(crate) async fn follow(&mut self, method: &str) -> Result<Incoming, String> {
        let answer = self.begin(method).await?;
        if Status::from_header_map(answer.headers()).is_some() {
            return Err(end(answer).await);
        }
        let mut body = answer.into_body();
        let first = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap();
        first.unwrap().map(|_| body).map_err(|error| format!("{error:?}"))
    }

    /// Waits until the node has closed it.
    pub(crate) async fn closed(&mut self) {
        let ended = tokio::time::timeout(PATIENCE, &mut self.ended).await;
        // How it ended is not what is asked.
        let _: Result<(), String> = ended.expect("the node closes it").unwrap();
    }

    /// What a call comes to: `OK`, or a code and its text, or what became of the connection.
    pub(crate) async fn call(&mut self, method: &str) -> String {
        match self.begin(method).await {
            Ok(answer) => end(answer).await,
            Err(error) => error,
        }
    }
}

/// The messages of an answer, one by one.
pub(crate) struct Messages {
    body: Incoming,
    bytes: Vec<u8>,
}

impl Messages {
    pub(crate) fn of(answer: http::Response<Incoming>) -> Self {
        Self { body: answer.into_body(), bytes: Vec::new() }
    }

    /// The next message, as it is encoded; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((length, rest)) =
                self.bytes.get(1..).and_then(|all| all.split_first_chunk())
                && let Some(message) = rest.get(..u32::from_be_bytes(*length) as usize)
            {
                let message = message.to_vec();
                self.bytes.drain(..5 + message.len());
                return Some(message);
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.unwrap()?;
            if let Ok(data) = frame.unwrap().into_data() {
                self.bytes.extend(data);
            }
        }
    }
}

/// How an answer ends.
pub(crate) async fn end(answer: http::Response<Incoming>) -> String {
    let in_headers = Status::from_header_map(answer.headers());
    let status = match in_headers {
        Some(status) => status,
        None => {
            let body = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await.unwrap();
            match body {
                Ok(body) => {
                    let trailers = body.trailers().cloned().unwrap_or_default();
                    Status::from_header_map(&trailers).expect("a call ends with a status")
                }
                Err(error) => return format!("{error:?}"),
            }
        }
    };
    match status.code() {
        tonic::Code::Ok => "OK".to_owned(),
        code => format!("{code:?}: {}", status.message()),
    }
}

/// How a client speaks TLS.
pub(crate) fn client_config(
    version: &'static SupportedProtocolVersion,
    client: Option<&Issued>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(ring::default_provider())));
    let mut config = match client {
        Some(client) => {
            // Whatever authorities the node names: what it makes of the certificate is the question.
            builder.with_client_cert_resolver(client.always())
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// What is in the node's certificate does not matter here: the tests compare its fingerprint.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Reads until the other side closes; a reset counts as that.
pub(crate) fn read_to_end(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            panic!("the agent holds the connection open")
        }
        _ => bytes,
    }
}

//! Trust by fingerprint: a node signs its own certificate, so there is no chain to follow and no name to compare.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::node::fingerprint::Fingerprint;

/// HTTP/2 over TLS, as ALPN names it: RFC 9113, 3.2.
const H2: &[u8] = b"h2";

/// How a node is known to be the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Its certificate has this fingerprint.
    Pinned(Fingerprint),
    /// Whoever answers is believed for this call, and the user is shown who it was.
    FirstUse,
}

/// Checks a node's certificate, and keeps what it saw.
#[derive(Debug)]
pub(crate) struct Verifier {
    trust: Trust,
    seen: OnceLock<Fingerprint>,
    provider: CryptoProvider,
}

impl Verifier {
    pub(crate) fn new(trust: Trust) -> Arc<Self> {
        Arc::new(Self { trust, seen: OnceLock::new(), provider: ring::default_provider() })
    }

    /// The fingerprint of the certificate that the node showed.
    pub(crate) fn seen(&self) -> Option<Fingerprint> {
        self.seen.get().copied()
    }
}

/// How a client speaks TLS: 1.3 alone, and nobody is trusted but whom `verifier` accepts.
pub(crate) fn client_config(verifier: Arc<Verifier>) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec()];
    // The name is compared with nothing, so it need not be shown to the network.
    config.enable_sni = false;
    Ok(config)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = *self.seen.get_or_init(|| Fingerprint::of(end_entity));
        match self.trust {
            Trust::Pinned(expected) if expected != shown => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            Trust::Pinned(_) | Trust::FirstUse => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Never offered; and never taken.
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    /// The node proves that it has the key of the certificate that it showed.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

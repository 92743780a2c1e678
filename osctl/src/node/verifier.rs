//! Whether the node that answers is the right one: by its key's fingerprint, or by the authority that signed it.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::node::credentials::Credentials;
use crate::node::fingerprint::Fingerprint;

/// HTTP/2 over TLS, as ALPN names it: RFC 9113, 3.2.
const H2: &[u8] = b"h2";

/// How a node is known to be the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Its key has this fingerprint, and nothing else counts.
    Pinned(Fingerprint),
    /// It is signed by the authority, if there is one, or has one of these fingerprints.
    Known(Vec<Fingerprint>),
    /// It is signed by the authority. Without one, whoever answers first is believed and kept.
    FirstUse,
    /// It is signed by the authority. Nobody else is believed.
    KnownOnly,
}

/// What came of looking at a certificate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It is the one.
    Right,
    /// It is believed because nobody is known there.
    New,
    /// Another fingerprint was asked for.
    OtherThanPinned(Fingerprint),
    /// Another fingerprint is known.
    Changed,
    /// The authority did not sign it, and it is not known.
    Unsigned(Error),
    /// It is not known, and has to be.
    Unknown,
}

/// Decides by what is known of the node and what was shown. `chain` is what the authority says, where there is one.
fn judge(trust: &Trust, shown: Fingerprint, chain: Option<Result<(), Error>>) -> Verdict {
    if let Trust::Pinned(expected) = trust {
        return if *expected == shown {
            Verdict::Right
        } else {
            Verdict::OtherThanPinned(*expected)
        };
    }
    let unsigned = match chain {
        Some(Ok(())) => return Verdict::Right,
        Some(Err(error)) => Some(error),
        None => None,
    };
    match (trust, unsigned) {
        (Trust::Known(known), _) if known.contains(&shown) => Verdict::Right,
        (Trust::Known(_), _) => Verdict::Changed,
        (_, Some(error)) => Verdict::Unsigned(error),
        (Trust::KnownOnly, None) => Verdict::Unknown,
        (_, None) => Verdict::New,
    }
}

/// Checks a node's certificate, and keeps what it saw.
#[derive(Debug)]
pub(crate) struct Verifier {
    trust: Trust,
    authority: Option<Arc<WebPkiServerVerifier>>,
    seen: OnceLock<(Fingerprint, Verdict)>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(crate) fn new(trust: Trust, authority: Option<Arc<WebPkiServerVerifier>>) -> Arc<Self> {
        let provider = Arc::new(ring::default_provider());
        Arc::new(Self { trust, authority, seen: OnceLock::new(), provider })
    }

    /// The fingerprint of the key that the node showed, and what was made of it.
    pub(crate) fn seen(&self) -> Option<&(Fingerprint, Verdict)> {
        self.seen.get()
    }
}

/// How a client speaks TLS: 1.3 alone, and nobody is trusted but whom `verifier` accepts.
pub(crate) fn client_config(
    verifier: Arc<Verifier>,
    credentials: &Credentials,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &credentials.identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![H2.to_vec()];
    // A node serves one certificate, so its name need not be shown to the network.
    config.enable_sni = false;
    Ok(config)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (_, verdict) = self.seen.get_or_init(|| {
            let shown = Fingerprint::of(end_entity);
            let chain = self.authority.as_ref().map(|authority| {
                authority
                    .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                    .map(drop)
            });
            (shown, judge(&self.trust, shown, chain))
        });
        match verdict {
            Verdict::Right | Verdict::New => Ok(ServerCertVerified::assertion()),
            Verdict::Unsigned(error) => Err(error.clone()),
            Verdict::OtherThanPinned(_) | Verdict::Changed | Verdict::Unknown => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(byte: &str) -> Fingerprint {
        byte.repeat(32).parse().unwrap()
    }

    /// The certificate that is shown is always `aa`; what the authority says: nothing, yes, no.
    fn check(trust: Trust, expect: [Verdict; 3]) {
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let said = [None, Some(Ok(())), Some(Err(unknown))];
        let got = said.map(|chain| judge(&trust, fingerprint("aa"), chain));
        assert_eq!(got, expect, "{trust:?}");
    }

    #[test]
    fn who_is_believed() {
        use Verdict::{Changed, New, OtherThanPinned, Right, Unknown};
        let unsigned =
            || Verdict::Unsigned(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let (aa, bb) = (fingerprint("aa"), fingerprint("bb"));
        check(Trust::Pinned(aa), [Right, Right, Right]);
        let other = || OtherThanPinned(bb);
        check(Trust::Pinned(bb), [other(), other(), other()]);
        check(Trust::Known(vec![bb, aa]), [Right, Right, Right]);
        check(Trust::Known(vec![bb]), [Changed, Right, Changed]);
        check(Trust::FirstUse, [New, Right, unsigned()]);
        check(Trust::KnownOnly, [Unknown, Right, unsigned()]);
    }
}

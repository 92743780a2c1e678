//! Pins of public keys, as kubeadm writes them: `sha256:` and the hash of a SubjectPublicKeyInfo (RFC 7469, 2.4, in hexadecimal).

use std::fmt;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// SHA-256 of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin([u8; 32]);

impl Pin {
    /// Reads `sha256:` and 64 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end().strip_prefix("sha256:")?;
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(hash))
    }

    /// The pin of a certificate's key; none if it is no certificate.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(Self(Sha256::digest(certificate.tbs_certificate.subject_pki.raw).into()))
    }

    /// The pins of all certificates in PEM.
    pub(crate) fn all(pem: &str) -> Vec<Self> {
        let all = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
        all.filter_map(|der| Self::of(&der)).collect()
    }

    /// The certificates in PEM that have this pin, and the pins that there are.
    pub(crate) fn choose(self, pem: &str) -> (String, Vec<Self>) {
        let (mut chosen, mut found) = (String::new(), Vec::new());
        for der in CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok) {
            let Some(pin) = Self::of(&der) else { continue };
            found.push(pin);
            if pin == self {
                chosen.push_str(&in_pem(&der));
            }
        }
        (chosen, found)
    }
}

/// A certificate in PEM (RFC 7468).
fn in_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

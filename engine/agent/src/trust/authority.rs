//! A certificate authority that is trusted.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::client::moment;
use super::rfc4514;
use crate::identity::fingerprint;

/// A certificate authority.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    pub(crate) der: CertificateDer<'static>,
    /// As RFC 4514 writes it.
    pub(crate) subject: String,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub(crate) fingerprint: String,
    pub(crate) not_after: SystemTime,
    /// The file that it stands in.
    pub(crate) source: PathBuf,
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

/// Why a certificate cannot be a CA.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("it is no X.509 certificate")]
    Malformed,
    #[error("its basicConstraints do not say that it is one: it is the certificate of {0}")]
    NoCa(String),
    #[error("its keyUsage does not let it sign certificates")]
    MayNotSign,
    #[error(transparent)]
    Unusable(#[from] rustls::Error),
}

impl Authority {
    pub(super) fn new(der: CertificateDer<'static>, source: &Path) -> Result<Self, AuthorityError> {
        let (subject, not_after) = {
            let Ok((rest, certificate)) = X509Certificate::from_der(&der) else {
                return Err(AuthorityError::Malformed);
            };
            if !rest.is_empty() {
                return Err(AuthorityError::Malformed);
            }
            let subject = rfc4514(certificate.subject());
            if !certificate.is_ca() {
                return Err(AuthorityError::NoCa(subject));
            }
            if let Ok(Some(usage)) = certificate.key_usage()
                && !usage.value.key_cert_sign()
            {
                return Err(AuthorityError::MayNotSign);
            }
            (subject, moment(certificate.validity().not_after))
        };
        // Whether verification takes it too.
        RootCertStore::empty().add(der.clone())?;
        let fingerprint = fingerprint(&der);
        Ok(Self { der, subject, fingerprint, not_after, source: source.to_owned() })
    }
}

//! Who the user is to a node, and whose word is taken for who the node is: a client certificate and a certificate authority.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::Failure;
use crate::node::words::moment;

/// The most bytes of a file of certificates.
const LARGEST: u64 = 1024 * 1024;

/// What is shown to a node, and what a node is measured by.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    pub(crate) identity: Option<Identity>,
    pub(crate) authority: Option<Arc<WebPkiServerVerifier>>,
    /// What the user should know about the files.
    pub(crate) remarks: Vec<String>,
}

/// A client certificate and its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) about: About,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// Where it was read from.
    pub(crate) origin: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("about", &self.about).finish_non_exhaustive()
    }
}

/// Bytes, and the name of where they were.
pub(crate) struct Source {
    pub(crate) origin: String,
    pub(crate) bytes: Vec<u8>,
}

/// What cannot be used to show who one is.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {origin}")]
pub(crate) struct CredentialsError {
    origin: String,
    #[source]
    kind: CredentialsErrorKind,
}

#[derive(Debug, thiserror::Error)]
enum CredentialsErrorKind {
    #[error(transparent)]
    Read(io::Error),
    #[error("it is larger than {LARGEST} bytes")]
    Large,
    #[error("it holds no certificate in PEM form")]
    NoCertificate,
    #[error("it holds no private key in PEM form")]
    NoKey,
    #[error("it is damaged: {0}")]
    Pem(pem::Error),
    #[error("its certificate is damaged")]
    Damaged,
    #[error("it is no certificate authority that can be used: {0}")]
    Authority(String),
}

impl CredentialsErrorKind {
    fn of(self, origin: &str) -> CredentialsError {
        CredentialsError { origin: origin.to_owned(), kind: self }
    }
}

impl From<CredentialsError> for Failure {
    fn from(error: CredentialsError) -> Self {
        let next = match &error.kind {
            CredentialsErrorKind::Read(_) => "see whether the file is there and yours to read",
            CredentialsErrorKind::NoKey => {
                "give the key that belongs to the certificate, unencrypted, in PEM form"
            }
            _ => "give a file in PEM form, that begins with -----BEGIN CERTIFICATE-----",
        };
        Self::usage(error.to_string()).because(error.kind).next(next)
    }
}

/// Reads a file of certificates or a key; bounded.
pub(crate) fn read(path: &Path) -> Result<Source, CredentialsError> {
    let origin = path.display().to_string();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(CredentialsErrorKind::Read(source).of(&origin)),
        Ok(_) if bytes.len() as u64 > LARGEST => Err(CredentialsErrorKind::Large.of(&origin)),
        Ok(_) => Ok(Source { origin, bytes }),
    }
}

/// A remark in ssh's manner, where others may read what only its owner should.
#[cfg(unix)]
pub(crate) fn too_open(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        let path = path.display();
        format!("{path} holds a private key, and its mode {mode:04o} lets others at it: chmod 600 {path}")
    })
}

#[cfg(not(unix))]
pub(crate) fn too_open(_: &Path) -> Option<String> {
    None
}

/// What `--cert`, `--key` and `--ca` name.
pub(crate) fn from_files(
    pair: Option<(PathBuf, PathBuf)>,
    ca: Option<PathBuf>,
) -> Result<Credentials, CredentialsError> {
    let mut credentials = Credentials::default();
    if let Some((cert, key)) = pair {
        credentials.remarks.extend(too_open(&key));
        credentials.identity = Some(identity(&read(&cert)?, &read(&key)?)?);
    }
    if let Some(ca) = ca {
        credentials.authority = Some(authority(&read(&ca)?)?);
    }
    Ok(credentials)
}

/// A certificate, with those between it and its authority, and its key.
pub(crate) fn identity(cert: &Source, key: &Source) -> Result<Identity, CredentialsError> {
    let chain = certificates(cert)?;
    let key = PrivateKeyDer::from_pem_slice(&key.bytes).map_err(|error| {
        let kind = match error {
            pem::Error::NoItemsFound => CredentialsErrorKind::NoKey,
            error => CredentialsErrorKind::Pem(error),
        };
        kind.of(&key.origin)
    })?;
    let about = about(&chain[0], &cert.origin)
        .ok_or_else(|| CredentialsErrorKind::Damaged.of(&cert.origin))?;
    Ok(Identity { chain, key, about })
}

/// Who may have signed a node's certificate.
pub(crate) fn authority(ca: &Source) -> Result<Arc<WebPkiServerVerifier>, CredentialsError> {
    let wrong = |error: String| CredentialsErrorKind::Authority(error).of(&ca.origin);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .map_err(|error| wrong(error.to_string()))
}

fn certificates(source: &Source) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&source.bytes).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(CredentialsErrorKind::NoCertificate.of(&source.origin))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(CredentialsErrorKind::Pem(error).of(&source.origin)),
    }
}

fn about(certificate: &CertificateDer<'_>, origin: &str) -> Option<About> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let at = |seconds: i64| {
        let far = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(far)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(far)
        }
    };
    Some(About {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        not_before: at(parsed.validity().not_before.timestamp())?,
        not_after: at(parsed.validity().not_after.timestamp())?,
        origin: origin.to_owned(),
    })
}

impl About {
    /// Why this computer's clock holds it not to be valid, with both times.
    pub(crate) fn untimely(&self, now: SystemTime) -> Option<String> {
        let clock = moment(now);
        if now > self.not_after {
            Some(format!(
                "it ended at {}, and this computer's clock says {clock}",
                moment(self.not_after)
            ))
        } else if now < self.not_before {
            Some(format!(
                "it begins at {}, and this computer's clock says {clock}",
                moment(self.not_before)
            ))
        } else {
            None
        }
    }
}

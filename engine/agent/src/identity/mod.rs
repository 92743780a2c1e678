//! Who the node is on the network: a key and a certificate, made once and then never again.
//!
//! A client pins the certificate's fingerprint, so a node that made a new identity by itself would look like an
//! attacker. Whatever is wrong with the files is therefore an error for a person to look at. Only what a first run cut off by a
//! power failure leaves behind is carried on with: files appear whole and in the order key, certificate, fingerprint.

mod certificate;
mod files;
mod spare;

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use crate::identity::files::Files;
pub(crate) use crate::identity::spare::Lasts;

/// What the certificate is for, besides the machine id and this host itself.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) hostname: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// A key and the certificate that belongs to it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certified: CertifiedKey,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub(crate) fingerprint: String,
}

/// An identity that cannot be used or made.
#[derive(Debug)]
pub(crate) struct IdentityError {
    key: PathBuf,
    certificate: PathBuf,
    kind: IdentityErrorKind,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, certificate, kind } = self;
        write!(f, "identity {} with {}: {kind}", key.display(), certificate.display())
    }
}

impl Error for IdentityError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The kind is already in our own text; what lies below it is the source.
        self.kind.source()
    }
}

/// What is wrong with an identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityErrorKind {
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} holds no machine id", .path.display())]
    MachineId { path: PathBuf },
    #[error("the {} is missing although the {} is there; it will not be made again", .missing, .there)]
    Incomplete { missing: &'static str, there: &'static str },
    #[error("there is none yet")]
    Absent,
    #[error("the key's mode is {mode:03o}: others than root may use it")]
    Exposed { mode: u32 },
    #[error("the {what} is not PEM")]
    Pem { what: &'static str, source: pem::Error },
    #[error("the key and the certificate do not belong together, or one of them is broken")]
    Mismatch(#[source] rustls::Error),
    #[error("the certificate's fingerprint is {actual}, but {} says {recorded}", .path.display())]
    OtherFingerprint { path: PathBuf, recorded: String, actual: String },
    #[error("cannot make a key or certificate")]
    Make(#[source] rcgen::Error),
}

impl Identity {
    /// Reads what is there, or makes it if nothing is.
    pub(crate) fn locate_or_make(folder: &Path, names: &Names) -> Result<Self, IdentityError> {
        let files = Files::new(folder);
        make_what_is_missing(&files, names).map_err(|kind| files.error(kind))?;
        Self::load(folder)
    }

    /// Reads what is there.
    pub(crate) fn load(folder: &Path) -> Result<Self, IdentityError> {
        let files = Files::new(folder);
        read(&files).map_err(|kind| files.error(kind))
    }
}

fn make_what_is_missing(files: &Files, names: &Names) -> Result<(), IdentityErrorKind> {
    let key = files.key()?;
    let certificate = files.certificate()?;
    let recorded = files.fingerprint()?;
    let certificate = match (key, certificate, recorded) {
        (Some(_), Some(_), Some(_)) => return Ok(()),
        (Some(_), Some(certificate), None) => certificate,
        (None, Some(_), _) => return incomplete("key", "certificate"),
        (None, None, Some(_)) => return incomplete("key", "fingerprint"),
        (Some(_), None, Some(_)) => return incomplete("certificate", "fingerprint"),
        (key, None, None) => {
            let machine_id = files.machine_id()?;
            let key = match key {
                Some(key) => key,
                None => {
                    let key = certificate::new_key().map_err(IdentityErrorKind::Make)?;
                    files.publish_key(&key)?;
                    key
                }
            };
            let certificate = certificate::self_signed(&key, machine_id, names)
                .map_err(IdentityErrorKind::Make)?;
            files.publish_certificate(&certificate)?;
            certificate
        }
    };
    // Only an identity that is whole gets a fingerprint on the record.
    read(files)?;
    files.publish_fingerprint(&fingerprint(&parse_certificate(&certificate)?))
}

fn incomplete<T>(missing: &'static str, there: &'static str) -> Result<T, IdentityErrorKind> {
    Err(IdentityErrorKind::Incomplete { missing, there })
}

fn read(files: &Files) -> Result<Identity, IdentityErrorKind> {
    let (key, certificate) = match (files.key()?, files.certificate()?) {
        (Some(key), Some(certificate)) => (key, certificate),
        (None, None) if files.fingerprint()?.is_some() => return incomplete("key", "fingerprint"),
        (None, None) => return Err(IdentityErrorKind::Absent),
        (None, Some(_)) => return incomplete("key", "certificate"),
        (Some(_), None) => return incomplete("certificate", "key"),
    };
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|source| IdentityErrorKind::Pem { what: "key", source })?;
    let certificate = parse_certificate(&certificate)?;
    let actual = fingerprint(&certificate);
    let certified = CertifiedKey::from_der(vec![certificate], key, &ring::default_provider())
        .map_err(IdentityErrorKind::Mismatch)?;
    match files.fingerprint()? {
        Some(recorded) if recorded != actual => Err(IdentityErrorKind::OtherFingerprint {
            path: files.fingerprint.clone(),
            recorded,
            actual,
        }),
        _ => Ok(Identity { certified, fingerprint: actual }),
    }
}

fn parse_certificate(text: &str) -> Result<CertificateDer<'static>, IdentityErrorKind> {
    CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|source| IdentityErrorKind::Pem { what: "certificate", source })
}

/// SHA-256 over the certificate as it goes over the wire, in lower-case hexadecimal.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;

//! Who the node is on the network: a key and a certificate, made once and then never again.
//!
//! A client pins the fingerprint of the key, so a node that made a new identity by itself would look like an
//! attacker. Whatever is wrong with the files is therefore an error for a person to look at. Only what a first run cut off by a
//! power failure leaves behind is carried on with: files appear whole and in the order key, certificate, fingerprint. The certificate alone is
//! replaced when the machine's names change, or before it expires, by another one for the same key.

mod certificate;
mod files;
mod given;
mod renew;
mod signed;
mod spare;

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

#[cfg(test)]
pub(crate) use crate::identity::certificate::new_key;
use crate::identity::files::Files;
pub(crate) use crate::identity::given::Given;
pub(crate) use crate::identity::renew::{Current, keep_current, usable};
pub(crate) use crate::identity::signed::{Kept, Signed};
pub(crate) use crate::identity::spare::Lasts;
use crate::trust::{moment, rfc4514};

/// What the certificate is for, besides the machine id and this host itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) hostname: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// A key and the certificate that belongs to it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certified: CertifiedKey,
    /// SHA-256 of the public key, lower-case hexadecimal: what clients pin. It stays as it is when the certificate is renewed.
    pub(crate) fingerprint: String,
    pub(crate) details: Details,
}

/// What a certificate says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Details {
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub(crate) fingerprint: String,
    /// Who signed it, as RFC 4514 writes a name.
    pub(crate) issuer: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// Host names, addresses and URIs that it is for.
    pub(crate) names: Vec<String>,
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
    #[error("the machine config gives an identity, but its {what} is not there")]
    NotGiven { what: &'static str },
    #[error("there is none yet")]
    Absent,
    #[error("the key's mode is {mode:03o}: others than root may use it")]
    Exposed { mode: u32 },
    #[error("the {what} is not PEM")]
    Pem { what: &'static str, source: pem::Error },
    #[error(
        "the key and the certificate do not belong together: the key is {key}, the certificate is for {certificate} (SHA-256 of the public keys)"
    )]
    Mismatch { key: String, certificate: String },
    #[error("the key or the certificate is broken")]
    Broken(#[source] rustls::Error),
    #[error("the certificate is no X.509 certificate")]
    Malformed,
    #[error("the fingerprint is {actual}, but {} says {recorded}", .path.display())]
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

impl Identity {
    fn from_pem(key: &str, certificate: &str) -> Result<Self, IdentityErrorKind> {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|source| IdentityErrorKind::Pem { what: "key", source })?;
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
        let chain =
            chain.map_err(|source| IdentityErrorKind::Pem { what: "certificate", source })?;
        let Some(certificate) = chain.first() else {
            let source = pem::Error::NoItemsFound;
            return Err(IdentityErrorKind::Pem { what: "certificate", source });
        };
        let (details, actual) = details(certificate).ok_or(IdentityErrorKind::Malformed)?;
        let key = ring::default_provider()
            .key_provider
            .load_private_key(key)
            .map_err(IdentityErrorKind::Broken)?;
        let of_key = key.public_key().map(|key| hexadecimal(&Sha256::digest(&key)));
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| match (error, of_key) {
            (rustls::Error::InconsistentKeys(_), Some(key)) => {
                IdentityErrorKind::Mismatch { key, certificate: actual.clone() }
            }
            (error, _) => IdentityErrorKind::Broken(error),
        })?;
        Ok(Self { certified, fingerprint: actual, details })
    }
}

fn make_what_is_missing(files: &Files, names: &Names) -> Result<(), IdentityErrorKind> {
    let key = files.key()?;
    let certificate = files.certificate()?;
    let recorded = files.fingerprint()?;
    match (key, certificate, recorded) {
        (Some(_), Some(_), Some(_)) => return Ok(()),
        (Some(_), Some(_), None) => {}
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
        }
    }
    // Only an identity that is whole gets a fingerprint on the record.
    let identity = read(files)?;
    files.publish_fingerprint(&identity.fingerprint)
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
    let identity = Identity::from_pem(&key, &certificate)?;
    match files.fingerprint()? {
        Some(recorded) if recorded != identity.fingerprint => {
            Err(IdentityErrorKind::OtherFingerprint {
                path: files.fingerprint.clone(),
                recorded,
                actual: identity.fingerprint,
            })
        }
        _ => Ok(identity),
    }
}

/// SHA-256 over the certificate as it goes over the wire, in lower-case hexadecimal.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hexadecimal(&Sha256::digest(certificate))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a certificate says of itself, and the fingerprint of its public key.
fn details(der: &CertificateDer<'_>) -> Option<(Details, String)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = match certificate.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(name).collect(),
        _ => Vec::new(),
    };
    let public_key = hexadecimal(&Sha256::digest(certificate.public_key().raw));
    let details = Details {
        fingerprint: fingerprint(der),
        issuer: rfc4514(certificate.issuer()),
        not_before: moment(certificate.validity().not_before),
        not_after: moment(certificate.validity().not_after),
        names,
    };
    Some((details, public_key))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let sixteen = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            four.or_else(|_| sixteen()).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;

//! The certificate that the cluster has signed for the node's own key. It lies beside the identity, and the node shows it in place of the
//! self-signed one for as long as it is valid and the cluster's CA stands behind it. The key is the same, so a client that has pinned
//! the node's fingerprint sees no difference.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::files::{self, Files};
use crate::identity::{Identity, fingerprint};
use crate::log::chain;

/// The most bytes of such a file.
const LARGEST: u64 = 64 * 1024;

/// Where a certificate that the cluster has signed is kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    folder: PathBuf,
    path: PathBuf,
}

/// A certificate of the cluster that can be shown.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) identity: Identity,
    /// From when its life counts: what it says of itself, or when it came, whichever is later. A CA may date back what it signs.
    pub(crate) since: SystemTime,
}

impl Kept {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), path: folder.join("cluster.crt") }
    }

    /// The certificate that is kept, if it is one that can be shown now under these CAs.
    pub(crate) fn load(&self, authorities: &str, now: SystemTime) -> Result<Signed, String> {
        let text = self.text().ok_or("there is none")?;
        let came = fs::metadata(&self.path).and_then(|it| it.modified()).unwrap_or(now);
        self.check(&text, authorities, now).map(|identity| {
            let since = identity.details.not_before.max(came);
            // A file that is younger than the clock says nothing.
            Signed { since: since.min(now.max(identity.details.not_before)), identity }
        })
    }

    /// Whether a certificate is for this node's key, for its API, and signed by one of these CAs.
    pub(crate) fn check(
        &self,
        certificate: &str,
        authorities: &str,
        now: SystemTime,
    ) -> Result<Identity, String> {
        let identity = Files::new(&self.folder)
            .key()
            .and_then(|key| Identity::from_pem(&key.unwrap_or_default(), certificate))
            .map_err(|error| chain(&error))?;
        verified(&identity, authorities, now)?;
        Ok(identity)
    }

    /// Keeps a certificate in place of the one before.
    pub(crate) fn keep(&self, certificate: &str) -> io::Result<()> {
        files::replace(&self.folder, &self.path, certificate, 0o644)
    }

    /// What names the certificate that is kept, whatever it is worth; nothing without one.
    pub(crate) fn mark(&self) -> String {
        let text = self.text().unwrap_or_default();
        let first = CertificateDer::pem_slice_iter(text.as_bytes()).find_map(Result::ok);
        first.map(|der| fingerprint(&der)).unwrap_or_default()
    }

    /// The node's key, in PEM.
    pub(crate) fn key(&self) -> Result<String, String> {
        let key = Files::new(&self.folder).key().map_err(|error| chain(&error))?;
        key.ok_or_else(|| "the node has no key".to_owned())
    }

    fn text(&self) -> Option<String> {
        let small = fs::metadata(&self.path).is_ok_and(|it| it.len() <= LARGEST);
        small.then(|| fs::read_to_string(&self.path).ok()).flatten()
    }
}

fn verified(identity: &Identity, authorities: &str, now: SystemTime) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(authorities.as_bytes()).filter_map(Result::ok) {
        roots.add(der).map_err(|error| format!("the cluster's CA cannot be used: {error}"))?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| format!("the cluster's CA cannot be used: {error}"))?;
    let (own, others) =
        identity.certified.cert.split_first().ok_or("it holds no certificate".to_owned())?;
    // Its own names are no question here; any of them will do.
    let name =
        identity.details.names.iter().find_map(|name| ServerName::try_from(name.clone()).ok());
    let name = name.ok_or("it is for no name and no address")?;
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = UnixTime::since_unix_epoch(since);
    let verified = verifier.verify_server_cert(own, others, &name, &[], now);
    verified.map(drop).map_err(|error| error.to_string())
}

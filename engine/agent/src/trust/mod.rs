//! Whom the node lets in: the certificate authorities it knows, and what follows from there being none.
//!
//! A node is in maintenance until a CA is known, and bootstrapped from then on. A CA comes from the machine config
//! (`agent.trusted-ca`) and from a bootstrap, each as a file; both may hold several. The files may be replaced while the agent
//! runs. Whatever is wrong with a file never opens the node:
//!
//! - A file that breaks or goes away while the agent runs changes nothing: what it said before stays in force.
//! - A file that is broken from the start, or that the machine config promised and that is not there, shuts the node, unless
//!   the other file holds a CA.

mod authority;
mod client;
mod door;
mod follow;
mod name;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::VerifierBuilderError;
use tokio::sync::{Notify, watch};

pub(crate) use self::authority::Authority;
use self::authority::AuthorityError;
pub(crate) use self::client::{Client, ORGANIZATIONS, moment};
pub(crate) use self::door::{Admission, Door, Refusal, expired};
pub(crate) use self::follow::{follow, tell};
pub(crate) use self::name::rfc4514;
use crate::log::chain;

/// The most bytes of a file of certificates. A CA takes about 2 KiB.
const LARGEST: u64 = 1 << 20;

/// The files that say whom to trust.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The CAs of the machine config, if it has any.
    pub(crate) config: Option<Source>,
    /// The CRLs of the machine config, if it has any.
    pub(crate) config_crl: Option<Source>,
    /// The cluster's CAs, once there has been a bootstrap.
    pub(crate) cluster: PathBuf,
    /// What the cluster has revoked, if it says.
    pub(crate) cluster_crl: PathBuf,
}

impl Places {
    fn all(&self) -> impl Iterator<Item = &Path> {
        let config = [&self.config, &self.config_crl].into_iter().flatten();
        let files = config.filter_map(|source| match source {
            Source::File(path) => Some(path),
            Source::Text(_) => None,
        });
        files.chain([&self.cluster, &self.cluster_crl]).map(PathBuf::as_path)
    }
}

/// Where the machine config's word is.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// In a file, which has to be there.
    File(PathBuf),
    /// Here.
    Text(String),
}

/// What people are told of a text that stands in the machine config.
const CONFIG: &str = "the machine config";

/// Why a file does not say whom to trust.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} is not there", .0.display())]
    Absent(PathBuf),
    #[error("{} is larger than {LARGEST} bytes", .0.display())]
    Large(PathBuf),
    #[error("{} is not PEM", .0.display())]
    Pem(PathBuf, #[source] rustls::pki_types::pem::Error),
    #[error("{} holds no {}", .0.display(), .1)]
    Empty(PathBuf, &'static str),
    #[error("certificate {} of {} cannot be a CA", .1, .0.display())]
    Authority(PathBuf, usize, #[source] AuthorityError),
    #[error("cannot use the CRLs of {}", .0.display())]
    Crl(PathBuf, #[source] VerifierBuilderError),
}

/// What a file is for.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// It has to be there: the machine config says so.
    Promised,
    /// The cluster's CAs.
    Cluster,
    /// The cluster's CRLs; `first`: the agent has only just started.
    Revoked { first: bool },
}

/// What one file said when it was last read well.
#[derive(Debug, Clone)]
enum Known<T> {
    /// It has never been there.
    Never,
    /// It has never been read well.
    Broken,
    Good(Vec<T>),
}

impl<T> Known<T> {
    /// Takes what a file says now. The text is what is wrong with it.
    fn take(&mut self, read: Result<Vec<T>, SourceError>, of: Of) -> Option<String> {
        let error = match (read, of) {
            (Ok(items), _) => {
                *self = Self::Good(items);
                return None;
            }
            (Err(error), _) => error,
        };
        let absent = matches!(error, SourceError::Absent(_));
        match (&self, of) {
            (Self::Never, Of::Cluster | Of::Revoked { .. }) if absent => None,
            // Nothing is revoked by it, and no list is broken any more.
            (Self::Broken, Of::Revoked { .. }) if absent => {
                *self = Self::Never;
                None
            }
            (Self::Good(_), _) | (Self::Never, Of::Revoked { first: false }) => {
                Some(format!("{}; what was in force before stays so", chain(&error)))
            }
            _ => {
                *self = Self::Broken;
                Some(chain(&error))
            }
        }
    }

    fn items(&self) -> impl Iterator<Item = &T> {
        match self {
            Self::Good(items) => items.as_slice(),
            _ => &[],
        }
        .iter()
    }
}

/// Whom the node trusts, and why. A new one is made whenever a file has changed.
#[derive(Debug)]
pub(crate) struct State {
    /// Who may come in.
    pub(crate) door: Door,
    /// Rises with each change.
    pub(crate) generation: u64,
    /// What is wrong with files, in one line each. What they said before is in force.
    pub(crate) problems: Vec<String>,
}

impl State {
    /// The certificate authorities whose clients are let in.
    pub(crate) fn authorities(&self) -> &[Authority] {
        match &self.door {
            Door::Guarded(guard) => guard.authorities(),
            Door::Open | Door::Shut(_) => &[],
        }
    }
}

/// Everything of this room that reads what others wrote, on the same bytes. Returns the texts that people would be shown.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(bytes: &[u8]) -> Vec<String> {
    let file = Path::new("fuzzed");
    let mut shown = Vec::new();
    let mut certificates = vec![CertificateDer::from(bytes.to_vec())];
    certificates.extend(CertificateDer::pem_slice_iter(bytes).take(8).filter_map(Result::ok));
    let mut authorities = Vec::new();
    for der in certificates {
        if let Some(claim) = client::Claim::read(&der) {
            shown.extend([claim.subject.clone(), claim.issuer.clone()]);
            let client = Client::new(claim, &der, std::slice::from_ref(&der));
            let _role = client.role();
        }
        match Authority::new(der, file) {
            Ok(authority) => authorities.push(authority),
            Err(error) => shown.push(chain(&error)),
        }
    }
    let mut lists = vec![CertificateRevocationListDer::from(bytes.to_vec())];
    lists
        .extend(CertificateRevocationListDer::pem_slice_iter(bytes).take(8).filter_map(Result::ok));
    lists.retain(|list| door::check_crls(std::slice::from_ref(list)).is_ok());
    if !authorities.is_empty() {
        let _door = Door::guarded(authorities, lists);
    }
    shown
}

/// Reads the files, and publishes what they say.
#[derive(Debug)]
pub(crate) struct Trust {
    places: Places,
    config: Known<Authority>,
    cluster: Known<Authority>,
    config_crl: Known<CertificateRevocationListDer<'static>>,
    cluster_crl: Known<CertificateRevocationListDer<'static>>,
    state: watch::Sender<Arc<State>>,
    left: Arc<Notify>,
}

impl Trust {
    /// Reads the files for the first time.
    pub(crate) fn load(places: Places) -> Self {
        let nobody = State {
            door: Door::Shut("the trusted CAs are not read yet".to_owned()),
            generation: 0,
            problems: Vec::new(),
        };
        let mut trust = Self {
            places,
            config: Known::Never,
            cluster: Known::Never,
            config_crl: Known::Never,
            cluster_crl: Known::Never,
            state: watch::Sender::new(Arc::new(nobody)),
            left: Arc::default(),
        };
        trust.reload();
        trust
    }

    /// What is in force, and each change of it.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }

    /// Told by whoever has the node leave its cluster, once the files of that trust are gone.
    pub(crate) fn left(&self) -> Arc<Notify> {
        self.left.clone()
    }

    /// The node has left its cluster: what is not there any more does not stay in force.
    pub(crate) fn forget_cluster(&mut self) {
        self.cluster = Known::Never;
        self.cluster_crl = Known::Never;
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Reads the files again. Nothing is published if they say what they said before.
    pub(crate) fn reload(&mut self) -> Arc<State> {
        let Places { config, config_crl, cluster, cluster_crl } = &self.places;
        let current = self.state.borrow().clone();
        let first = current.generation == 0;
        let mut problems = Vec::new();
        if let Some(source) = config {
            problems.extend(self.config.take(source.authorities(), Of::Promised));
        }
        let read_cluster = read(cluster).and_then(|bytes| authorities(&bytes, cluster));
        problems.extend(self.cluster.take(read_cluster, Of::Cluster));
        if let Some(source) = config_crl {
            problems.extend(self.config_crl.take(source.crls(), Of::Promised));
        }
        let read_crl = read(cluster_crl).and_then(|bytes| crls(&bytes, cluster_crl));
        problems.extend(self.cluster_crl.take(read_crl, Of::Revoked { first }));

        let door = self.door(&problems);
        if !first && door.same(&current.door) && problems == current.problems {
            return current;
        }
        let state = Arc::new(State { door, generation: current.generation + 1, problems });
        self.state.send_replace(state.clone());
        state
    }

    fn door(&self, problems: &[String]) -> Door {
        let authorities: Vec<_> =
            self.config.items().chain(self.cluster.items()).cloned().collect();
        let broken_crl = [&self.config_crl, &self.cluster_crl]
            .into_iter()
            .any(|known| matches!(known, Known::Broken));
        let broken_ca =
            [&self.config, &self.cluster].into_iter().any(|known| matches!(known, Known::Broken));
        if broken_crl || (broken_ca && authorities.is_empty()) {
            // Who was revoked is not known, or who is trusted is not: then nobody is.
            return Door::Shut(problems.join("; "));
        }
        if authorities.is_empty() {
            return Door::Open;
        }
        let crls = self.config_crl.items().chain(self.cluster_crl.items()).cloned().collect();
        Door::guarded(authorities, crls)
    }
}

impl Source {
    /// Its bytes, and where people find them.
    fn read(&self) -> Result<(Vec<u8>, &Path), SourceError> {
        match self {
            Self::File(path) => Ok((read(path)?, path)),
            Self::Text(text) => Ok((text.clone().into_bytes(), Path::new(CONFIG))),
        }
    }

    fn authorities(&self) -> Result<Vec<Authority>, SourceError> {
        self.read().and_then(|(bytes, path)| authorities(&bytes, path))
    }

    fn crls(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, SourceError> {
        self.read().and_then(|(bytes, path)| crls(&bytes, path))
    }
}

/// A file's bytes.
fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SourceError::Absent(path.to_owned()),
        _ => SourceError::Read(path.to_owned(), source),
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(SourceError::Large(path.to_owned()));
    }
    Ok(bytes)
}

/// The CAs of a file, each once.
fn authorities(bytes: &[u8], path: &Path) -> Result<Vec<Authority>, SourceError> {
    let mut all: Vec<Authority> = Vec::new();
    for (at, der) in CertificateDer::pem_slice_iter(bytes).enumerate() {
        let der = der.map_err(|source| SourceError::Pem(path.to_owned(), source))?;
        let authority = Authority::new(der, path)
            .map_err(|source| SourceError::Authority(path.to_owned(), at + 1, source))?;
        if !all.contains(&authority) {
            all.push(authority);
        }
    }
    match all.is_empty() {
        true => Err(SourceError::Empty(path.to_owned(), "certificate")),
        false => Ok(all),
    }
}

/// The CRLs of a file, in PEM.
fn crls(
    bytes: &[u8],
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, SourceError> {
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    let all = all.map_err(|source| SourceError::Pem(path.to_owned(), source))?;
    if all.is_empty() {
        return Err(SourceError::Empty(path.to_owned(), "CRL"));
    }
    door::check_crls(&all).map_err(|source| SourceError::Crl(path.to_owned(), source))?;
    Ok(all)
}

#[cfg(test)]
mod tests;

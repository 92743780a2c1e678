//! What a user adds to an image: `name=path` on the command line, a manifest, or what this machine has.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use keel_unit::payload::PayloadManifest;
use thiserror::Error;

use crate::fetch::{Cache, FetchError, FetchErrorKind};
use crate::needs::{NeededProgram, Needs};
use crate::watch::Watch;

/// One file to add: a program by its name, or any file by its absolute path on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// `containerd` (a program, to `/usr/bin/containerd`) or `/opt/cni/bin/bridge` (that path).
    pub name: String,
    /// Where it is on this host.
    pub source: PathBuf,
    /// Its version, where that is known.
    pub version: Option<String>,
    /// The SHA-256 that the file must have.
    pub sha256: Option<String>,
    /// Where it was fetched from.
    pub url: Option<String>,
}

impl Payload {
    /// A file of which no more than the place is known.
    #[must_use]
    pub fn new(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        let (name, source) = (name.into(), source.into());
        Self { name, source, version: None, sha256: None, url: None }
    }

    /// Its path on the node.
    #[must_use]
    pub fn target(&self) -> String {
        if self.name.starts_with('/') {
            self.name.clone()
        } else {
            format!("/usr/bin/{}", self.name)
        }
    }

    /// A name without a directory is a program's; under an absolute path, data is welcome too.
    pub(crate) fn must_be_program(&self) -> bool {
        !self.name.starts_with('/')
    }
}

/// A payload that is not `name=path`.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a payload is name=path or /path/on/the/node=path, not {0:?}")]
pub struct PayloadError(pub String);

impl FromStr for Payload {
    type Err = PayloadError;

    fn from_str(text: &str) -> Result<Self, PayloadError> {
        let wrong = || PayloadError(text.to_owned());
        let (name, source) = text.split_once('=').ok_or_else(wrong)?;
        if name.is_empty() || source.is_empty() || (name.contains('/') && !name.starts_with('/')) {
            return Err(wrong());
        }
        Ok(Self::new(name, source))
    }
}

/// An entry of a manifest that cannot be had.
#[derive(Debug, Error)]
#[error("cannot take payload {name}")]
pub struct EntryError {
    /// Its name.
    pub name: String,
    /// Why.
    #[source]
    pub kind: EntryErrorKind,
}

/// Why an entry of a manifest cannot be had.
#[derive(Debug, Error)]
pub enum EntryErrorKind {
    /// What a server sends today is not what it sent yesterday.
    #[error(
        "it has a url and no sha256: `osctl image payload lock` fetches it once and writes that down"
    )]
    NotLocked,
    /// It cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// The payloads of a manifest that lies in the folder `base`. What has an address is fetched, or taken from the cache.
///
/// # Errors
/// See [`EntryErrorKind`].
pub fn from_manifest(
    manifest: &PayloadManifest,
    base: &Path,
    watch: &dyn Watch,
) -> Result<Vec<Payload>, EntryError> {
    let mut payloads = Vec::new();
    for entry in &manifest.payload {
        let name = entry.name.as_str().to_owned();
        let failed = |kind| EntryError { name: name.clone(), kind };
        let sha256 = entry.sha256.as_ref().map(|sum| sum.as_str().to_owned());
        let url = entry.url.as_ref().map(|url| url.as_str().to_owned());
        let source = match (&entry.path, &url) {
            (Some(path), _) => base.join(path.as_str()),
            (None, Some(url)) => {
                let sum = sha256.as_deref().ok_or_else(|| failed(EntryErrorKind::NotLocked))?;
                fetch(url, Some(sum), watch).map_err(|e| failed(e.into()))?.0
            }
            // The manifest's reader has refused it.
            (None, None) => continue,
        };
        let version = entry.version.as_ref().map(|version| version.as_str().to_owned());
        payloads.push(Payload { name, source, version, sha256, url });
    }
    Ok(payloads)
}

/// Fetches a file into this user's cache. Returns where it is and its SHA-256.
///
/// # Errors
/// As [`Cache::fetch`], and if there is no place for a cache.
pub fn fetch(
    url: &str,
    sha256: Option<&str>,
    watch: &dyn Watch,
) -> Result<(PathBuf, String), FetchError> {
    let none = || FetchError { url: url.to_owned(), kind: FetchErrorKind::NoCache };
    Cache::of_this_user().ok_or_else(none)?.fetch(url, sha256, watch)
}

/// Where programs are on a machine.
const PROGRAM_DIRS: [&str; 6] =
    ["usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "usr/local/sbin"];

/// The programs of a machine whose root this is, as far as it has what the units run, and those that they cannot do without
/// and that it does not have.
#[must_use]
pub fn found_below(root: &Path, needs: &Needs) -> (Vec<Payload>, Vec<NeededProgram>) {
    let (mut found, mut missing) = (Vec::<Payload>::new(), Vec::new());
    let required = needs.programs.iter().map(|program| (program, true));
    for (program, required) in required.chain(needs.useful.iter().map(|program| (program, false))) {
        let name = program.path.rsplit('/').next().unwrap_or(&program.path);
        if found.iter().any(|payload| payload.name == name) {
            continue;
        }
        let mut places = PROGRAM_DIRS.iter().map(|dir| root.join(dir).join(name));
        match places.find(|place| place.is_file()) {
            Some(place) => found.push(Payload::new(name, place)),
            None if required => missing.push(program.clone()),
            None => {}
        }
    }
    (found, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_a_name_and_a_path() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(
                text.parse::<Payload>().ok().map(|p| p.target()).as_deref(),
                expect,
                "{text}"
            );
        };
        check("runc=/pkg/usr/sbin/runc", Some("/usr/bin/runc"));
        check("/opt/cni/bin/bridge=bridge", Some("/opt/cni/bin/bridge"));
        check("runc", None);
        check("=x", None);
        check("runc=", None);
        check("bin/runc=x", None);
    }

    #[test]
    fn what_this_machine_has_is_taken_and_what_it_lacks_is_said() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["usr/bin", "usr/sbin"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        for file in ["usr/bin/containerd", "usr/sbin/runc", "usr/sbin/mkfs.ext4"] {
            std::fs::write(root.path().join(file), "").unwrap();
        }
        let needed = |path: &str| NeededProgram { path: path.into(), unit: "u".into() };
        let needs = Needs {
            programs: vec![needed("/usr/bin/containerd"), needed("/usr/bin/gone")],
            useful: ["/usr/bin/runc", "/usr/bin/mkfs.ext4", "/usr/bin/kubelet", "/usr/bin/runc"]
                .map(needed)
                .into(),
            ..Needs::default()
        };
        let (found, missing) = found_below(root.path(), &needs);
        let found: Vec<_> = found.iter().map(|payload| payload.name.as_str()).collect();
        assert_eq!(found, ["containerd", "runc", "mkfs.ext4"]);
        assert_eq!(missing, [needed("/usr/bin/gone")]);
    }

    #[test]
    fn a_manifest_is_taken_from_its_folder_and_what_is_not_locked_is_refused() {
        let read = |text: &str| keel_unit::payload::read("payload.toml", text).unwrap();
        let taken =
            read("schema = 1\n[[payload]]\nname = \"a\"\npath = \"bin/a\"\nversion = \"1\"\n");
        let taken = from_manifest(&taken, Path::new("/m"), &crate::Unwatched).unwrap();
        assert_eq!(taken[0].source, Path::new("/m/bin/a"));
        assert_eq!(taken[0].version.as_deref(), Some("1"));
        let open = read("schema = 1\n[[payload]]\nname = \"a\"\nurl = \"https://e.org/a\"\n");
        let error = from_manifest(&open, Path::new("/m"), &crate::Unwatched).unwrap_err();
        assert!(matches!(error.kind, EntryErrorKind::NotLocked), "{error}");
    }
}

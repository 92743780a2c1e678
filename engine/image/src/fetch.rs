//! Fetches files over HTTPS into a cache, each under its own SHA-256: what is there is known to be right.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::manifest::hex;
use crate::watch::Watch;

/// The largest file that is fetched: no program of a node comes near.
const LARGEST: u64 = 4 << 30;
/// A server that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file that could not be fetched.
#[derive(Debug, Error)]
#[error("cannot fetch {url}")]
pub struct FetchError {
    /// Where from.
    pub url: String,
    /// What went wrong.
    #[source]
    pub kind: FetchErrorKind,
}

/// What went wrong with a download.
#[derive(Debug, Error)]
pub enum FetchErrorKind {
    /// No folder for downloads.
    #[error("none of KEEL_CACHE, XDG_CACHE_HOME and HOME is set, so there is nowhere to keep it")]
    NoCache,
    /// The server, or the way to it.
    #[error(transparent)]
    Http(Box<ureq::Error>),
    /// The cache.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It broke off.
    #[error("the download broke off")]
    Read(#[source] io::Error),
    /// Not the file that was meant.
    #[error("its sha256 is {found}, and {expected} was expected")]
    Wrong {
        /// Of what came.
        found: String,
        /// Of what was meant.
        expected: String,
    },
    /// It was told to stop.
    #[error("stopped")]
    Cancelled,
}

/// The folder that downloads are kept in.
#[derive(Debug, Clone)]
pub struct Cache(PathBuf);

impl Cache {
    /// A cache in this folder.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// `$KEEL_CACHE`, else `keel` in `$XDG_CACHE_HOME`, else `~/.cache/keel`.
    #[must_use]
    pub fn of_this_user() -> Option<Self> {
        let set =
            |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = set("KEEL_CACHE")
            .or_else(|| Some(set("XDG_CACHE_HOME")?.join("keel")))
            .or_else(|| Some(set("HOME")?.join(".cache/keel")))?;
        Some(Self(dir.join("payload")))
    }

    /// The file of that address: from the cache if its checksum is known and it is there, else from the network. Returns
    /// where it is and its SHA-256.
    ///
    /// # Errors
    /// See [`FetchErrorKind`].
    pub fn fetch(
        &self,
        url: &str,
        sha256: Option<&str>,
        watch: &dyn Watch,
    ) -> Result<(PathBuf, String), FetchError> {
        self.get(url, sha256, watch).map_err(|kind| FetchError { url: url.to_owned(), kind })
    }

    fn get(
        &self,
        url: &str,
        sha256: Option<&str>,
        watch: &dyn Watch,
    ) -> Result<(PathBuf, String), FetchErrorKind> {
        if let Some(sha256) = sha256 {
            let path = self.0.join(sha256);
            if path.is_file() && sum_of(&path).is_ok_and(|found| found == sha256) {
                return Ok((path, sha256.to_owned()));
            }
        }
        let cannot = |path: &Path| {
            let path = path.to_owned();
            move |source| FetchErrorKind::Write { path, source }
        };
        fs::create_dir_all(&self.0).map_err(cannot(&self.0))?;
        let mut file = tempfile::NamedTempFile::new_in(&self.0).map_err(cannot(&self.0))?;
        let found = download(url, file.as_file_mut(), watch)?;
        if let Some(expected) = sha256.filter(|expected| *expected != found) {
            return Err(FetchErrorKind::Wrong { found, expected: expected.to_owned() });
        }
        let path = self.0.join(&found);
        file.persist(&path).map_err(|error| cannot(&path)(error.error))?;
        Ok((path, found))
    }
}

fn download(url: &str, to: &mut File, watch: &dyn Watch) -> Result<String, FetchErrorKind> {
    let http = |error| FetchErrorKind::Http(Box::new(error));
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        // No server may send us on to where anybody can change what comes.
        .https_only(url.starts_with("https:"))
        .user_agent(concat!("osctl/", env!("CARGO_PKG_VERSION")))
        .build();
    let mut response = config.new_agent().get(url).call().map_err(http)?;
    watch.begin(&format!("fetching {url}"), response.body().content_length());
    let mut body = response.body_mut().with_config().limit(LARGEST).reader();
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        if watch.cancelled() {
            return Err(FetchErrorKind::Cancelled);
        }
        let read = body.read(&mut buffer).map_err(FetchErrorKind::Read)?;
        if read == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
        to.write_all(&buffer[..read]).map_err(FetchErrorKind::Read)?;
        watch.advance(read as u64);
    }
}

/// The SHA-256 of a file.
///
/// # Errors
/// As reading it does.
pub fn sum_of(path: &Path) -> io::Result<String> {
    crate::manifest::blob_at(path, "").map(|blob| blob.sha256)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::testing::chain;
    use crate::watch::Unwatched;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    /// A server that answers once, with this body.
    fn server(body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .unwrap();
        });
        format!("http://{address}/file")
    }

    #[test]
    fn a_file_is_fetched_once_and_known_by_its_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let url = server("abc");
        let (path, sum) = cache.fetch(&url, None, &Unwatched).unwrap();
        assert_eq!((fs::read(&path).unwrap(), sum.as_str()), (b"abc".to_vec(), ABC));
        // Nobody listens there any more.
        assert_eq!(cache.fetch(&url, Some(ABC), &Unwatched).unwrap().0, path);
        fs::write(&path, "spoilt").unwrap();
        assert!(cache.fetch(&url, Some(ABC), &Unwatched).is_err());
        assert_eq!(cache.fetch(&server("abc"), Some(ABC), &Unwatched).unwrap().0, path);
    }

    #[test]
    fn another_file_than_the_one_that_was_meant_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let error = Cache::at(dir.path()).fetch(&server("abd"), Some(ABC), &Unwatched).unwrap_err();
        let text = chain(&error);
        assert!(text.contains("its sha256 is") && text.contains(ABC), "{text}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

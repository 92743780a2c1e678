//! What is noted on the disk while a bootstrap is under way, so that an agent that starts anew, or a machine that lost its power, sees it
//! through. There is no secret in it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::cluster::{Places, write};

/// The most bytes of one: two CAs and a name are a twentieth of it.
const LARGEST: u64 = 1 << 20;

/// A bootstrap that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) api_server: String,
    pub(crate) node_name: String,
    /// The cluster's CAs, in PEM.
    pub(crate) ca: String,
    /// The number of the config on trial, once there is one.
    pub(crate) generation: Option<u64>,
    /// Until when the node may be registered.
    pub(crate) until: SystemTime,
    /// Whether the machine config named a cluster before.
    pub(crate) named_before: bool,
    /// Whether the kubelet had certificates of its own before.
    pub(crate) had_own: bool,
    /// Whether a CA for the kubelet was there before.
    pub(crate) had_ca: bool,
    /// The digest of the kubeconfig for joining that was there before, if one was.
    pub(crate) given: Option<String>,
}

#[cfg(test)]
impl Default for Note {
    fn default() -> Self {
        Self {
            api_server: String::new(),
            node_name: String::new(),
            ca: String::new(),
            generation: None,
            until: SystemTime::UNIX_EPOCH,
            named_before: false,
            had_own: false,
            had_ca: false,
            given: None,
        }
    }
}

impl Note {
    fn read(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let until = value.get("until").and_then(Value::as_u64)?;
        // Where it does not say, what is there stays.
        let had = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(true);
        Some(Self {
            api_server: text("api_server")?,
            node_name: text("node_name")?,
            ca: text("ca")?,
            generation: value.get("generation").and_then(Value::as_u64),
            until: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(until))?,
            named_before: value.get("named_before").and_then(Value::as_bool)?,
            had_own: had("had_own"),
            had_ca: had("had_ca"),
            given: text("given"),
        })
    }

    /// The one that is on the disk.
    pub(crate) fn load(places: &Places) -> Option<Self> {
        let path = places.under_way();
        let about = fs::metadata(&path).ok().filter(|about| about.len() <= LARGEST)?;
        let text = fs::read_to_string(&path).ok().filter(|_| about.is_file())?;
        Self::read(&text)
    }

    /// Puts it on the disk.
    pub(crate) fn keep(&self, places: &Places) -> io::Result<()> {
        let until = self.until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let text = json!({
            "api_server": self.api_server,
            "node_name": self.node_name,
            "ca": self.ca,
            "generation": self.generation,
            "until": until.as_secs(),
            "named_before": self.named_before,
            "had_own": self.had_own,
            "had_ca": self.had_ca,
            "given": self.given,
        });
        write(&places.under_way(), &text.to_string())
    }

    /// Takes it from the disk.
    pub(crate) fn remove(places: &Places) -> io::Result<()> {
        gone(&places.under_way())
    }
}

/// Removes a file that need not be there.
pub(crate) fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            kubelet: folder.path().join("kubelet"),
            trusted: folder.path().join("trust/cluster-ca.crt"),
        };
        assert_eq!(Note::load(&places), None);
        let note = Note {
            api_server: "https://a:1".to_owned(),
            node_name: "n".to_owned(),
            ca: "PEM\n".to_owned(),
            generation: Some(3),
            until: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            had_ca: true,
            given: Some("ab".to_owned()),
            ..Note::default()
        };
        note.keep(&places).unwrap();
        assert_eq!(Note::load(&places), Some(note));
        fs::write(places.under_way(), "{\"until\": 1}").unwrap();
        assert_eq!(Note::load(&places), None);
        Note::remove(&places).unwrap();
        Note::remove(&places).unwrap();
        assert!(!places.under_way().exists());
    }
}

//! What a user adds to an image: `name=path` on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// One file to add: a program by its name, or any file by its absolute path on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// `containerd` (a program, to `/usr/bin/containerd`) or `/opt/cni/bin/bridge` (that path).
    pub name: String,
    /// Where it is on this host.
    pub source: PathBuf,
}

impl Payload {
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
        Ok(Self { name: name.to_owned(), source: PathBuf::from(source) })
    }
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
}

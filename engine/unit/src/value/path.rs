//! Paths and the sources of mounts.

use std::fmt;
use std::path::Path;

use super::id::Guid;
use super::text::{FsLabel, PartLabel};
use crate::keys::Text;

/// An absolute path without `.`, `..`, doubled or trailing slashes, so that equal paths are equal texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AbsPath(String);

impl AbsPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// Whether this path is `ancestor` or lies below it.
    pub fn lies_in(&self, ancestor: &AbsPath) -> bool {
        self.as_path().starts_with(ancestor.as_path())
    }
}

impl Text for AbsPath {
    const EXPECTED: &'static str = "an absolute path such as \"/var/lib/keel\"";
    const EXAMPLE: &'static str = "/var/lib/keel";
    const PATTERN: &'static str = r"^/([^/\x00-\x1f\x7f]+(/[^/\x00-\x1f\x7f]+)*)?$";

    fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err("it does not start with `/`".to_owned());
        };
        // PATH_MAX of Linux, with the closing NUL.
        if text.len() > 4095 {
            return Err("longer than 4095 bytes".to_owned());
        }
        if rest.is_empty() {
            return Ok(AbsPath(text.to_owned()));
        }
        for part in rest.split('/') {
            match part {
                "" => return Err("a doubled or trailing `/`".to_owned()),
                "." | ".." => return Err(format!("a `{part}` in the path")),
                _ if part.len() > 255 => return Err("a part is longer than 255 bytes".to_owned()),
                _ if part.chars().any(char::is_control) => {
                    return Err("a control character".to_owned());
                }
                _ => {}
            }
        }
        Ok(AbsPath(text.to_owned()))
    }
}

impl fmt::Display for AbsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is mounted or formatted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A device node, or the other path of a bind mount.
    Path(AbsPath),
    /// The name of a GPT partition: `PARTLABEL=keel-data`.
    PartLabel(PartLabel),
    /// The GUID of a GPT partition: `PARTUUID=…`.
    PartUuid(Guid),
    /// The label of a filesystem: `LABEL=…`.
    Label(FsLabel),
    /// The UUID of a filesystem: `UUID=…`.
    Uuid(Guid),
    /// A kernel filesystem has no source; the name is what `/proc/mounts` shows.
    Pseudo(String),
}

impl Text for Source {
    const EXPECTED: &'static str =
        "a path, PARTLABEL=…, PARTUUID=…, LABEL=…, UUID=… or the name of a kernel filesystem";
    const EXAMPLE: &'static str = "PARTLABEL=keel-data";
    const PATTERN: &'static str = r"^(/.*|(PARTLABEL|PARTUUID|LABEL|UUID)=.+|[A-Za-z0-9_-]+)$";

    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return AbsPath::parse(text).map(Source::Path);
        }
        match text.split_once('=') {
            Some(("PARTLABEL", v)) => PartLabel::parse(v).map(Source::PartLabel),
            Some(("PARTUUID", v)) => Guid::parse(v).map(Source::PartUuid),
            Some(("LABEL", v)) => FsLabel::parse(v).map(Source::Label),
            Some(("UUID", v)) => Guid::parse(v).map(Source::Uuid),
            Some((tag, _)) => Err(format!("`{}=` is not known", crate::keys::clip(tag))),
            None if text.is_empty()
                || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') =>
            {
                Err("neither a path nor the name of a kernel filesystem".to_owned())
            }
            None => Ok(Source::Pseudo(text.to_owned())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Path(path) => write!(f, "{path}"),
            Source::PartLabel(label) => write!(f, "PARTLABEL={label}"),
            Source::PartUuid(guid) => write!(f, "PARTUUID={guid}"),
            Source::Label(label) => write!(f, "LABEL={label}"),
            Source::Uuid(guid) => write!(f, "UUID={guid}"),
            Source::Pseudo(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Text>(text: &str, expect: bool) {
        assert_eq!(T::parse(text).is_ok(), expect, "{text:?}");
    }

    #[test]
    fn paths_and_sources() {
        for (text, expect) in [
            ("/", true),
            ("/var/lib/keel", true),
            ("var", false),
            ("/var/", false),
            ("//var", false),
            ("/var/../etc", false),
            ("/a\u{7}b", false),
        ] {
            check::<AbsPath>(text, expect);
        }
        check::<AbsPath>(&format!("/{}", "a/".repeat(3000)), false);
        for (text, expect) in [
            ("/dev/vda1", true),
            ("PARTLABEL=keel-data", true),
            ("PARTLABEL=", false),
            ("PARTUUID=zz", false),
            ("LABLE=x", false),
            ("proc", true),
            ("", false),
        ] {
            check::<Source>(text, expect);
        }
    }

    #[test]
    fn below_means_by_whole_parts() {
        let path = |t| AbsPath::parse(t).unwrap();
        assert!(path("/var/lib").lies_in(&path("/var")));
        assert!(path("/var").lies_in(&path("/var")));
        assert!(path("/var").lies_in(&path("/")));
        assert!(!path("/variable").lies_in(&path("/var")));
    }
}

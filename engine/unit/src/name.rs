//! Names of units.

use std::fmt;
use std::sync::Arc;

use crate::keys::Text;
use crate::kinds::KindName;

/// The name of a unit: `containerd`, `mount.data`, `link@eth0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitName(Arc<str>);

impl UnitName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as shared text.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The name that a unit of `kind` in a file `stem.toml` has.
    ///
    /// Targets, oneshots and services go by the stem (`containerd`), everything else by kind and stem (`mount.data`). A stem
    /// that names the kind itself (`mount.data.toml`, `link.toml`) is taken as it is.
    pub fn from_stem(kind: KindName, stem: &str) -> Result<UnitName, String> {
        let bare = matches!(kind, KindName::Target | KindName::Oneshot | KindName::Service);
        let (first, rest) = stem.split_once('.').unwrap_or((stem, ""));
        let name = match KindName::from_word(first) {
            Some(said) if said == kind && (!rest.is_empty() || !bare) => stem.to_owned(),
            Some(said) if said != kind && !rest.is_empty() => {
                return Err(format!("the file's name says `{said}`, its table says `{kind}`"));
            }
            _ if bare => stem.to_owned(),
            _ => format!("{kind}.{stem}"),
        };
        UnitName::parse(&name)
    }

    /// The name of one instance of a template: `link` and `eth0` give `link@eth0`. A `/` in the key, as in
    /// `net.ipv4.conf.eth0/100.forwarding`, becomes a `:`.
    pub fn instance(&self, key: &str) -> Result<UnitName, String> {
        UnitName::parse(&format!("{}@{}", self.0, key.replace('/', ":")))
    }
}

impl Text for UnitName {
    const EXPECTED: &'static str = "the name of a unit such as \"containerd\" or \"mount.data\"";
    const EXAMPLE: &'static str = "containerd";
    const PATTERN: &'static str = r"^[A-Za-z0-9_:][A-Za-z0-9_.@:-]{0,127}$";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        if text.len() > 128 {
            return Err("more than 128 characters".to_owned());
        }
        // A name becomes the name of a cgroup, so it may hold nothing that a path component may not.
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.@:".contains(*c))) {
            Some(c) => Err(format!("`{}` may not stand in a unit's name", c.escape_default())),
            None if text.starts_with(['.', '@', '-']) => {
                Err("it starts with `.`, `@` or `-`".to_owned())
            }
            None => Ok(UnitName(text.into())),
        }
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: KindName, stem: &str, expect: Option<&str>) {
        let got = UnitName::from_stem(kind, stem).ok();
        assert_eq!(got.as_ref().map(UnitName::as_str), expect, "{kind} in {stem}.toml");
    }

    #[test]
    fn a_file_names_its_unit() {
        check(KindName::Service, "containerd", Some("containerd"));
        check(KindName::Target, "storage", Some("storage"));
        check(KindName::Target, "network", Some("network"));
        check(KindName::Mount, "data", Some("mount.data"));
        check(KindName::Mount, "mount.data", Some("mount.data"));
        check(KindName::Partition, "partition.data", Some("partition.data"));
        check(KindName::Link, "link", Some("link"));
        check(KindName::Mount, "partition.data", None);
        check(KindName::Service, "mount.data", None);
        check(KindName::Target, "time", Some("time"));
        check(KindName::Service, "a b", None);
        check(KindName::Service, "../x", None);
        check(KindName::Service, "", None);
    }
}

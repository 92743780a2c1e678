//! The payload manifest: which programs and files go into an image beside Keel itself, and how they are known to be right.

use std::collections::HashMap;

use crate::config::Schema;
use crate::diagnostic::{Diagnostic, Report};
use crate::keys::{Fields, Text, decode_table, keys};
use crate::source::Sources;
use crate::tree::parse;

keys! {
    /// A payload manifest, `payload.toml`.
    pub struct PayloadManifest {
        /// Version of this format; always 1.
        schema "schema": Schema,
        /// The programs and files, each a `[[payload]]`.
        payload "payload": Vec<PayloadEntry> = "[]",
    }
    check = distinct_names;

    /// One program or file.
    pub struct PayloadEntry {
        /// A program's name, which goes to `/usr/bin` with the libraries that it needs; or any file's absolute path on the node.
        name "name": PayloadName,
        /// Where the file is on this machine, from the manifest's folder.
        path "path": Option<SourcePath>,
        /// Where to fetch it from.
        url "url": Option<HttpsUrl>,
        /// Its version, for the bill of materials; `osctl image payload lock` takes it from dpkg.
        version "version": Option<Version>,
        /// The SHA-256 of the file, which is what makes it the right one. A `url` needs it.
        sha256 "sha256": Option<Sha256>,
    }
    check = one_source;
}

fn distinct_names(manifest: &PayloadManifest, fields: &mut Fields<'_>) {
    let mut names = HashMap::new();
    for (i, entry) in manifest.payload.iter().enumerate() {
        if let Some(first) = names.insert(entry.name.target(), i) {
            let at = fields.span_in("payload", i, "name");
            let before = fields.span_in("payload", first, "name");
            let message = format!("two payloads go to `{}`", entry.name.target());
            let found = Diagnostic::new("named-twice", at, message).label("the second");
            fields.report(found.also(before, "the first"));
        }
    }
}

fn one_source(entry: &PayloadEntry, fields: &mut Fields<'_>) {
    match (&entry.path, &entry.url) {
        (Some(_), Some(_)) => {
            let at = fields.span_of("url");
            let message = "a payload has a `path` or a `url`, not both";
            fields.report(Diagnostic::new("bad-value", at, message));
        }
        (None, None) => {
            let found = Diagnostic::new("missing-key", fields.span(), "it is nowhere to be had");
            fields.report(found.help("say `path = \"…\"` or `url = \"https://…\"`"));
        }
        _ => {}
    }
}

/// Reads a payload manifest; `path` is shown in findings.
///
/// # Errors
/// The report of everything that is wrong with it.
pub fn read(path: &str, text: &str) -> Result<PayloadManifest, Report> {
    let (mut sources, mut findings) = (Sources::default(), Vec::new());
    let file = sources.add(path, without_passwords(text));
    let node = parse(&sources, file, &mut findings);
    let sound = findings.is_empty();
    let manifest = if sound { decode_table(&node, &mut findings) } else { None };
    manifest.filter(|_| findings.is_empty()).ok_or_else(|| Report::new(sources.into(), findings))
}

/// The text with every user and password in an address starred out, so that no finding can show one. No byte moves.
fn without_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end = after.find(|c: char| c == '/' || c == '"' || c == '\'' || c.is_whitespace());
        let authority = &after[..end.unwrap_or(after.len())];
        let secret = authority.rfind('@').unwrap_or(0);
        out.push_str(before);
        out.push_str(&"*".repeat(secret));
        rest = &after[secret..];
    }
    out.push_str(rest);
    out
}

macro_rules! text {
    ($(#[doc = $doc:literal])* $name:ident) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl $name {
            /// As it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

text! {
    /// `containerd` (a program) or `/opt/cni/bin/bridge` (that path on the node).
    PayloadName
}

impl PayloadName {
    /// Its path on the node.
    pub fn target(&self) -> String {
        if self.0.starts_with('/') { self.0.clone() } else { format!("/usr/bin/{}", self.0) }
    }
}

impl Text for PayloadName {
    const EXPECTED: &'static str =
        "a program's name such as \"runc\", or an absolute path on the node";
    const EXAMPLE: &'static str = "runc";
    const PATTERN: &'static str = r"^/?[^/]+";

    fn parse(text: &str) -> Result<Self, String> {
        let parts = text.strip_prefix('/').unwrap_or(text);
        if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err("an empty, `.` or `..` part".to_owned());
        }
        match text.find('/') {
            Some(at) if at > 0 => Err("neither a name nor an absolute path".to_owned()),
            _ => no_control(text).map(|()| Self(text.to_owned())),
        }
    }
}

text! {
    /// A file on this machine.
    SourcePath
}

impl Text for SourcePath {
    const EXPECTED: &'static str = "a file, such as \"/usr/sbin/runc\" or \"bin/kubelet\"";
    const EXAMPLE: &'static str = "/usr/sbin/runc";
    const PATTERN: &'static str = r"[^/]$";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.ends_with('/') {
            return Err("not the name of a file".to_owned());
        }
        no_control(text).map(|()| Self(text.to_owned()))
    }
}

text! {
    /// Where to fetch a file from, without a doubt about who answers.
    HttpsUrl
}

impl Text for HttpsUrl {
    const EXPECTED: &'static str =
        "an address such as \"https://dl.k8s.io/v1.33.1/bin/linux/amd64/kubelet\"";
    const EXAMPLE: &'static str = "https://dl.k8s.io/v1.33.1/bin/linux/amd64/kubelet";
    const PATTERN: &'static str = r"^https://";

    fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").ok_or("only https:// is fetched")?;
        let host = rest.split('/').next().unwrap_or_default();
        if host.is_empty() || text.chars().any(char::is_whitespace) {
            return Err("not an address".to_owned());
        }
        if host.contains('@') {
            return Err("a password in an address does not stay secret".to_owned());
        }
        no_control(text).map(|()| Self(text.to_owned()))
    }
}

text! {
    /// A version, in whatever scheme its maker has.
    Version
}

impl Text for Version {
    const EXPECTED: &'static str = "a version such as \"1.1.5+ds1-1+deb12u1\"";
    const EXAMPLE: &'static str = "1.1.5+ds1-1+deb12u1";
    const PATTERN: &'static str = r"^\S+$";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 128 || text.contains(char::is_whitespace) {
            return Err("not 1 to 128 characters without blanks".to_owned());
        }
        no_control(text).map(|()| Self(text.to_owned()))
    }
}

text! {
    /// The SHA-256 of a file.
    Sha256
}

impl Text for Sha256 {
    const EXPECTED: &'static str = "a SHA-256: 64 lowercase hexadecimal digits";
    const EXAMPLE: &'static str =
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const PATTERN: &'static str = r"^[0-9a-f]{64}$";

    fn parse(text: &str) -> Result<Self, String> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 64 || !text.bytes().all(hex) {
            return Err("not 64 lowercase hexadecimal digits".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

fn no_control(text: &str) -> Result<(), String> {
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("a control character ({})", c.escape_default())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Drawing;

    const GOOD: &str = r#"schema = 1

[[payload]]
name = "containerd"
path = "/usr/bin/containerd"
version = "1.6.20~ds1-1+deb12u3"

[[payload]]
name = "/opt/cni/bin/bridge"
url = "https://example.com/bridge"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"#;

    #[test]
    fn a_manifest_is_read_whole() {
        let manifest = read("payload.toml", GOOD).unwrap();
        let targets: Vec<_> = manifest.payload.iter().map(|entry| entry.name.target()).collect();
        assert_eq!(targets, ["/usr/bin/containerd", "/opt/cni/bin/bridge"]);
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let bad = r#"schema = 1

[[payload]]
name = "bin/containerd"
path = "/usr/bin/"
verison = "1"

[[payload]]
name = "kubelet"
url = "http://example.com/kubelet"
sha256 = "ABC"

[[payload]]
name = "runc"

[[payload]]
name = "ctr"
path = "ctr"
url = "https://me:secret@example.com/ctr"
"#;
        insta::assert_snapshot!(read("payload.toml", bad).unwrap_err().draw(Drawing::Plain));
        let twice = "schema = 1\n[[payload]]\nname = \"a\"\npath = \"b\"\n[[payload]]\nname = \"/usr/bin/a\"\npath = \"c\"\n";
        insta::assert_snapshot!(read("payload.toml", twice).unwrap_err().draw(Drawing::Plain));
    }
}

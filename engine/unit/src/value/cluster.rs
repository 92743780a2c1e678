//! What joins a node to a Kubernetes cluster: the API server's address, credentials, pins.

use std::fmt;

use super::Content;
use super::net::name;
use crate::diagnostic::Diagnostic;
use crate::keys::{Text, Value, mismatch};
use crate::secret::stands_for_one;
use crate::shape::Shape;
use crate::tree::{Node, Value as Raw};

name! {
    /// Where an API server answers: `https://`, a host, and a port if it is not 443.
    ApiServer, "the address of an API server such as \"https://203.0.113.10:6443\"", "https://203.0.113.10:6443",
    r"^https://[^/?#@\s]+/?$", api_server
}

fn api_server(text: &str) -> Result<(), String> {
    let Some(rest) = text.strip_prefix("https://") else {
        return Err("it begins with `https://`: a token never travels in the clear".to_owned());
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('@') {
        return Err("a password in an address does not stay secret".to_owned());
    }
    if authority.contains(['/', '?', '#']) {
        return Err("a host and a port are all that may stand behind `https://`".to_owned());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(six) => {
            let (host, rest) = six.split_once(']').ok_or("the `]` of the address is missing")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "not an IPv6 address in brackets")?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':').ok_or("a colon and a port follow the `]`")?),
            };
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':');
    if host.is_empty() || host.len() > 253 || !host.chars().all(letter) {
        return Err("not the name or the address of a host".to_owned());
    }
    let number = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
    };
    match port {
        Some(port) if !number(port) => Err("the port is not a number from 1 to 65535".to_owned()),
        _ => Ok(()),
    }
}

name! {
    /// The pin of a CA: SHA-256 of its public key (its SubjectPublicKeyInfo in DER), as `kubeadm token create --print-join-command` has it.
    CaHash, "a pin such as \"sha256:\" and 64 hexadecimal digits",
    "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", r"^sha256:[0-9a-f]{64}$", |text| {
        let digits = text.strip_prefix("sha256:").ok_or("it begins with `sha256:`")?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match digits.len() == 64 && digits.bytes().all(hex) {
            true => Ok(()),
            false => Err("not 64 lowercase hexadecimal digits behind `sha256:`".to_owned()),
        }
    }
}

name! {
    /// The release of a kubelet: major and minor.
    KubeletVersion, "a release of Kubernetes such as \"1.33\"", "1.33", r"^1\.[0-9]{2,3}$", |text| {
        let minor = text.strip_prefix("1.").filter(|m| m.bytes().all(|b| b.is_ascii_digit()));
        match minor.filter(|m| m.len() < 4).and_then(|m| m.parse::<u32>().ok()) {
            Some(20..) => Ok(()),
            Some(_) => Err("before 1.20, which is the oldest that is known here".to_owned()),
            None => Err("only major and minor stand here".to_owned()),
        }
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden<T>(pub T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl<T: Text> Value for Hidden<T> {
    fn expected() -> String {
        T::EXPECTED.to_owned()
    }

    fn shape() -> Shape {
        // Its pattern does not hold for a reference to a secret.
        Shape::Text { example: T::EXAMPLE, pattern: "" }
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let Raw::String(text) = &node.value else {
            findings.push(mismatch(node, T::EXPECTED));
            return None;
        };
        match T::parse(text) {
            Ok(value) => Some(Self(value)),
            Err(why) => {
                let found = Diagnostic::new("bad-value", node.span, why);
                findings.push(found.label(format!("expected {}", T::EXPECTED)));
                None
            }
        }
    }
}

/// What a node shows for its first certificate: a bootstrap token (`id.secret`), or the JWT of a service account.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken(String);

impl Text for JoinToken {
    const EXPECTED: &'static str =
        "a bootstrap token such as \"abcdef.0123456789abcdef\", or a JWT of three parts";
    const EXAMPLE: &'static str = "abcdef.0123456789abcdef";
    const PATTERN: &'static str = "";

    // No message repeats any of it.
    fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('.').collect();
        let small = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        let base64url = |part: &&str| {
            let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            // One letter alone is six bits, and a byte has eight.
            !part.is_empty() && part.len() % 4 != 1 && part.bytes().all(letter)
        };
        let whole = match parts.as_slice() {
            _ if stands_for_one(text) => true,
            [id, secret] => id.len() == 6 && secret.len() == 16 && small(id) && small(secret),
            [_, _, _] => text.len() <= 16_384 && parts.iter().all(base64url),
            _ => false,
        };
        let cut = text.trim() != text && Self::parse(text.trim()).is_ok();
        match (whole, parts.len()) {
            (true, _) => Ok(Self(text.to_owned())),
            (false, _) if cut => Err("the token has blanks or line ends around it".to_owned()),
            (false, 2) => Err("not a bootstrap token: that is 6 and 16 lowercase letters and digits with a dot between".to_owned()),
            (false, 3) => Err("not a JWT: that is three parts in base64url".to_owned()),
            _ => Err("neither a bootstrap token nor a JWT".to_owned()),
        }
    }
}

/// A kubeconfig, as far as that can be said without reading its YAML.
#[derive(Clone, PartialEq, Eq)]
pub struct Kubeconfig(Content);

impl Text for Kubeconfig {
    const EXPECTED: &'static str = "the text of a kubeconfig";
    const EXAMPLE: &'static str = "apiVersion: v1\nkind: Config\n";
    const PATTERN: &'static str = "";

    fn parse(text: &str) -> Result<Self, String> {
        if !stands_for_one(text) && !text.contains("clusters") {
            return Err("no kubeconfig: it has no `clusters`; its text stands here, and not the path of a file".to_owned());
        }
        if text.len() > 64 * 1024 {
            return Err("more than 64 KiB".to_owned());
        }
        Content::parse(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: Text>(text: &str, expect: &str) {
        let why = T::parse(text).err().unwrap_or_default();
        assert!(why.contains(expect) && expect.is_empty() == why.is_empty(), "{text}: {why}");
        assert!(text.len() < 8 || !why.contains(text), "{why}");
    }

    #[test]
    fn addresses_of_api_servers() {
        for good in [
            "https://a",
            "https://10.0.2.2:6443",
            "https://[2001:db8::1]:6443",
            "https://api.example.com/",
        ] {
            check::<ApiServer>(good, "");
        }
        check::<ApiServer>("http://a:6443", "never travels in the clear");
        check::<ApiServer>("a:6443", "begins with `https://`");
        check::<ApiServer>("https://u:p@a", "a password");
        check::<ApiServer>("https://a/path", "a host and a port are all");
        check::<ApiServer>("https://a?x", "a host and a port are all");
        check::<ApiServer>("https://a:0", "not a number from 1");
        check::<ApiServer>("https://a:+1", "not a number from 1");
        check::<ApiServer>("https://a:65536", "not a number from 1");
        check::<ApiServer>("https://:1", "not the name");
        check::<ApiServer>("https://[::1", "`]` of the address is missing");
        check::<ApiServer>("https://[::1]6443", "a colon and a port");
        check::<ApiServer>("https://::1", "not the name");
    }

    #[test]
    fn tokens() {
        check::<JoinToken>("abcdef.0123456789abcdef", "");
        check::<JoinToken>("eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2ln", "");
        check::<JoinToken>("<secret token>", "");
        check::<JoinToken>("abcdef.0123456789abcdeF", "not a bootstrap token");
        check::<JoinToken>("abcdef.0123456789abcde", "not a bootstrap token");
        check::<JoinToken>("abcdef.0123456789abcdef\n", "blanks or line ends");
        check::<JoinToken>("abcdef0123456789abcdef", "neither");
        check::<JoinToken>("", "neither");
        check::<JoinToken>("eyJ.eyJ.", "not a JWT");
        check::<JoinToken>("eyJh.ey+h.abcd", "not a JWT");
        check::<JoinToken>("a.b.c.d", "neither");
        assert_eq!(format!("{:?}", Hidden(JoinToken("hunter2".into()))), "<secret>");
    }

    #[test]
    fn pins_and_releases() {
        check::<CaHash>(CaHash::EXAMPLE, "");
        check::<CaHash>("sha256:BA", "not 64");
        check::<CaHash>("sha512:00", "begins with");
        check::<KubeletVersion>("1.20", "");
        check::<KubeletVersion>("1.133", "");
        check::<KubeletVersion>("1.19", "before 1.20");
        check::<KubeletVersion>("1.33.1", "only major and minor");
        check::<KubeletVersion>("v1.33", "only major and minor");
        check::<Kubeconfig>("/root/.kube/config", "not the path");
        check::<Kubeconfig>("clusters: []", "");
    }
}

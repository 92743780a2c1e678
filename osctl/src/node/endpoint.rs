//! What people type for a node: `[https://]HOST[:PORT]`.

use std::fmt;
use std::net::Ipv6Addr;

/// The port of keel-agent.
const PORT: u16 = 50051;

/// Where a node's API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// People type `http://`; what goes over the wire is TLS, and they should know.
    pub(crate) typed_http: bool,
}

/// Text that names no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an endpoint: {kind}")]
pub(crate) struct EndpointError {
    text: String,
    kind: EndpointErrorKind,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointErrorKind {
    #[error("unknown scheme `{0}`, expected https")]
    Scheme(String),
    #[error("it has no host")]
    NoHost,
    #[error("`{0}` is no port, expected 1 to 65535")]
    Port(String),
    #[error("unexpected `{0}` after the host and port")]
    Trailing(String),
    #[error("`{0}` is no host")]
    Host(String),
}

impl Endpoint {
    pub(crate) fn parse(text: &str) -> Result<Self, EndpointError> {
        parse(text).map_err(|kind| EndpointError { text: text.to_owned(), kind })
    }

    /// Whether it is the same node, however it was typed.
    pub(crate) fn same_place(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }
}

fn parse(text: &str) -> Result<Endpoint, EndpointErrorKind> {
    let (typed_http, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (true, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (false, rest),
        Some((scheme, _)) => return Err(EndpointErrorKind::Scheme(scheme.to_owned())),
        None => (false, text),
    };
    // One slash at the end is what a browser's address bar adds.
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(at) = rest.find(['/', '?', '#']) {
        return Err(EndpointErrorKind::Trailing(rest[at..].to_owned()));
    }
    let (host, port) = split(rest)?;
    let port = match port {
        Some(port) => parse_port(port)?,
        None => PORT,
    };
    let odd = |c: char| !(c.is_ascii_alphanumeric() || ".-_:%".contains(c));
    match host {
        "" => Err(EndpointErrorKind::NoHost),
        host if host.contains(odd) => Err(EndpointErrorKind::Host(host.to_owned())),
        host => Ok(Endpoint { host: one_spelling(host), port, typed_http }),
    }
}

/// A node is known by one spelling: names have no case (RFC 4343), and an IPv6 address is written as RFC 5952 has it.
fn one_spelling(host: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => address.to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

/// Host and port as they stand there. An IPv6 address has brackets, or no port.
fn split(text: &str) -> Result<(&str, Option<&str>), EndpointErrorKind> {
    if let Some(inner) = text.strip_prefix('[') {
        let (host, after) =
            inner.split_once(']').ok_or_else(|| EndpointErrorKind::Host(text.to_owned()))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(EndpointErrorKind::Trailing(after.to_owned())),
        };
    }
    match text.matches(':').count() {
        0 => Ok((text, None)),
        1 => Ok(text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))),
        _ => Ok((text, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, EndpointErrorKind> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|digit| digit.is_ascii_digit()) => Ok(port),
        _ => Err(EndpointErrorKind::Port(text.to_owned())),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match Endpoint::parse(text) {
            Ok(endpoint) => endpoint.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{text:?}");
    }

    #[test]
    fn endpoints() {
        check("10.0.0.7", "10.0.0.7:50051");
        check("10.0.0.7:1234", "10.0.0.7:1234");
        check("https://node-1.example.org/", "node-1.example.org:50051");
        check("http://127.0.0.1:50051", "127.0.0.1:50051");
        check("HTTPS://Node-1.Example.org", "node-1.example.org:50051");
        check("::1", "[::1]:50051");
        check("http://[2001:db8::1]/", "[2001:db8::1]:50051");
        check("[::1]", "[::1]:50051");
        check("2001:DB8:0:0::7", "[2001:db8::7]:50051");
        check("[fe80::1%eth0]:7", "[fe80::1%eth0]:7");
        check("ftp://a", "`ftp://a` is not an endpoint: unknown scheme `ftp`, expected https");
        check("", "`` is not an endpoint: it has no host");
        check(":50051", "`:50051` is not an endpoint: it has no host");
        check("a:0", "`a:0` is not an endpoint: `0` is no port, expected 1 to 65535");
        check("a:+1", "`a:+1` is not an endpoint: `+1` is no port, expected 1 to 65535");
        check("a:99999", "`a:99999` is not an endpoint: `99999` is no port, expected 1 to 65535");
        check(
            "https://a/b",
            "`https://a/b` is not an endpoint: unexpected `/b` after the host and port",
        );
        check("[::1]x", "`[::1]x` is not an endpoint: unexpected `x` after the host and port");
        check("[::1", "`[::1` is not an endpoint: `[::1` is no host");
        check("a b", "`a b` is not an endpoint: `a b` is no host");
        check("me@a", "`me@a` is not an endpoint: `me@a` is no host");
    }

    #[test]
    fn only_http_is_remarked_on() {
        assert!(Endpoint::parse("http://a").unwrap().typed_http);
        assert!(!Endpoint::parse("https://a").unwrap().typed_http);
        assert!(!Endpoint::parse("a").unwrap().typed_http);
    }
}

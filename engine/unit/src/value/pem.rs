//! Certificates and what else is written as PEM (RFC 7468), as far as it can be looked at without cryptography.

use crate::diagnostic::Diagnostic;
use crate::keys::{Value, mismatch};
use crate::shape::Shape;
use crate::source::Span;
use crate::tree::{Node, Value as Raw};

/// The most bytes that one key may hold: they go into a process's environment.
const LARGEST: usize = 64 * 1024;

/// Certificates, as one text or as several; each text may hold several of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates(pub Vec<String>);

/// Certificate revocation lists, as one text or as several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationLists(pub Vec<String>);

const CERTIFICATE: &str = "CERTIFICATE";
const LIST: &str = "X509 CRL";

fn shape(example: &'static str) -> Shape {
    let text = Shape::Text { example, pattern: "" };
    Shape::OneOf(vec![text.clone(), Shape::list(text)])
}

fn expected(label: &str) -> String {
    format!("PEM (\"-----BEGIN {label}-----…\"), or an array of such texts")
}

fn decode(node: &Node, label: &str, findings: &mut Vec<Diagnostic>) -> Option<Vec<String>> {
    let nodes: Vec<&Node> = match &node.value {
        Raw::String(_) => vec![node],
        Raw::Array(items) if !items.is_empty() => items.iter().collect(),
        _ => {
            findings.push(mismatch(node, &expected(label)));
            return None;
        }
    };
    let before = findings.len();
    let mut texts = Vec::new();
    for one in nodes {
        let Raw::String(text) = &one.value else {
            findings.push(mismatch(one, &format!("PEM (\"-----BEGIN {label}-----…\")")));
            continue;
        };
        match check(text, label) {
            Ok(()) => texts.push(text.clone()),
            Err(why) => {
                // Its beginning alone: what somebody took for a certificate may be a key.
                let at = Span { end: (one.span.start + 1).min(one.span.end), ..one.span };
                let found = Diagnostic::new("bad-value", at, why).label("expected PEM");
                findings.push(found.help(
                    "the text itself stands here, between three quotes, and not the path of a file",
                ));
            }
        }
    }
    if texts.iter().map(String::len).sum::<usize>() > LARGEST {
        let message = format!("more than {} KiB of PEM", LARGEST / 1024);
        findings.push(Diagnostic::new("out-of-range", node.span, message));
    }
    (findings.len() == before).then_some(texts)
}

/// Whether a text is whole PEM, each block of which may be what its label says.
fn check(text: &str, label: &str) -> Result<(), String> {
    let begun = text.matches("-----BEGIN ").count();
    if text.contains("PRIVATE KEY-----") {
        return Err("a private key stands here, where everybody can read it".to_owned());
    }
    let blocks = pem::parse_many(text).map_err(|error| format!("this is not PEM: {error}"))?;
    if blocks.is_empty() {
        return Err(format!("no \"-----BEGIN {label}-----\" with its end"));
    }
    if blocks.len() != begun {
        return Err("a block is cut off: its \"-----END …-----\" is missing".to_owned());
    }
    for (at, block) in blocks.iter().enumerate() {
        if block.tag() != label {
            return Err(format!("block {} is no {label} but a {}", at + 1, block.tag()));
        }
        if !is_sequence(block.contents()) {
            return Err(format!("block {} is no {label}: what it encodes is damaged", at + 1));
        }
    }
    Ok(())
}

/// Whether bytes are one SEQUENCE of DER (X.690, 8.1), as long as it says.
fn is_sequence(bytes: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = bytes else { return false };
    match usize::from(*first) {
        length @ 0..0x80 => rest.len() == length,
        more => {
            let Some((length, rest)) = rest.split_at_checked(more - 0x80) else { return false };
            let length = length.iter().try_fold(0_usize, |sum, byte| {
                sum.checked_mul(256).map(|sum| sum + usize::from(*byte))
            });
            length == Some(rest.len())
        }
    }
}

impl Value for Certificates {
    fn expected() -> String {
        expected(CERTIFICATE)
    }

    fn shape() -> Shape {
        shape("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        decode(node, CERTIFICATE, findings).map(Self)
    }
}

impl Value for RevocationLists {
    fn expected() -> String {
        expected(LIST)
    }

    fn shape() -> Shape {
        shape("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n")
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        decode(node, LIST, findings).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[track_caller]
    fn wrong(text: &str, expect: &str) {
        let why = super::check(text, CERTIFICATE).expect_err(text);
        assert!(why.contains(expect), "{why}");
    }

    #[test]
    fn certificates() {
        let one = block(CERTIFICATE, "MAA=");
        assert_eq!(check(&one, CERTIFICATE), Ok(()));
        assert_eq!(check(&format!("# a word\n{one}{one}"), CERTIFICATE), Ok(()));
        assert_eq!(check(&one.replace('\n', "\r\n"), CERTIFICATE), Ok(()));
        wrong("", "no \"-----BEGIN CERTIFICATE-----\"");
        wrong("/etc/ca.crt", "no \"-----BEGIN");
        wrong(&one[..one.len() - 10], "no \"-----BEGIN");
        wrong(&format!("{one}-----BEGIN CERTIFICATE-----\nMAA="), "cut off");
        wrong(&block(CERTIFICATE, "M"), "not PEM");
        wrong(&block(CERTIFICATE, "MAAA"), "damaged");
        wrong(&block(CERTIFICATE, "MAI="), "damaged");
        wrong(&block(LIST, "MAA="), "block 1 is no CERTIFICATE but a X509 CRL");
        wrong(&format!("{one}{}", block("EC PRIVATE KEY", "MAA=")), "a private key stands here");
    }

    #[test]
    fn lengths_of_der() {
        assert!(is_sequence(&[0x30, 0]));
        assert!(is_sequence(&[0x30, 1, 5]));
        assert!(is_sequence(&[0x30, 0x81, 1, 5]));
        assert!(!is_sequence(&[0x30, 0x82, 1]));
        assert!(!is_sequence(&[0x30, 0xff, 1, 5]));
        assert!(!is_sequence(&[0x31, 0]));
        assert!(!is_sequence(&[]));
    }
}

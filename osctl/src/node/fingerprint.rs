//! The fingerprint of a node's key: what a person compares to know that a node is the right one. It is the key's and not the
//! certificate's, because a node renews its certificate whenever its addresses change, with the same key.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};

/// SHA-256 of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

/// Text that is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 hexadecimal digits, as the node's console shows them; this has {digits}{}",
    .odd.map(|odd| format!(" and a `{odd}`")).unwrap_or_default())]
pub(crate) struct FingerprintError {
    digits: usize,
    odd: Option<char>,
}

impl Fingerprint {
    /// Of the key in a certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        match ParsedCertificate::try_from(certificate) {
            Ok(parsed) => Self(Sha256::digest(parsed.subject_public_key_info()).into()),
            // Nothing can be shown under it: it stands for what was sent.
            Err(_) => Self(Sha256::digest(certificate).into()),
        }
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Takes digits of either case, with or without the colons that other tools put between bytes and the `sha256:` before them.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let text = match text.split_at_checked(7) {
            Some((algorithm, digits)) if algorithm.eq_ignore_ascii_case("sha256:") => digits,
            _ => text,
        };
        let digits: Vec<_> = text.chars().filter(|c| *c != ':').collect();
        let values: Vec<_> = digits.iter().filter_map(|c| c.to_digit(16)).collect();
        let odd = digits.iter().copied().find(|c| !c.is_ascii_hexdigit());
        let wrong = FingerprintError { digits: values.len(), odd };
        let mut bytes = [0; 32];
        if odd.is_some() || values.len() != 2 * bytes.len() {
            return Err(wrong);
        }
        for (byte, pair) in bytes.iter_mut().zip(values.chunks(2)) {
            *byte = pair.iter().fold(0, |byte, digit| (byte << 4) | digit.to_le_bytes()[0]);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match text.parse::<Fingerprint>() {
            Ok(fingerprint) => fingerprint.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(got.ends_with(expect), "{text:?}: {got}");
    }

    #[test]
    fn fingerprints() {
        let plain = "0fab".repeat(16);
        check(&plain, &plain);
        check(&plain.to_uppercase(), &plain);
        check(&["0f"; 32].join(":"), &"0f".repeat(32));
        check(&format!("SHA256:{plain}"), &plain);
        check("sha256:", "this has 0");
        check("", "this has 0");
        check("0fab", "this has 4");
        check(&"0fab".repeat(17), "this has 68");
        check(&format!("{}x", "a".repeat(63)), "this has 63 and a `x`");
    }

    #[test]
    fn it_is_the_sha_256_of_the_bytes() {
        // FIPS 180-2, B.1: the digest of "abc".
        let of = Fingerprint::of(&CertificateDer::from(b"abc".as_slice()));
        assert_eq!(
            of.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}

//! What a node shows for its first certificate, and what it signs.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::Value;

/// A token. Nothing shows its secret part.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A bootstrap token: a public id, and a secret.
    Bootstrap { id: String, secret: String },
    /// The JWT of a service account, and when it expires, if it says.
    Jwt { text: String, expires: Option<SystemTime> },
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bootstrap { id, .. } => write!(f, "Bootstrap({id}.…)"),
            Self::Jwt { .. } => f.write_str("Jwt(…)"),
        }
    }
}

impl Token {
    /// Reads a token; none if it is neither of both.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let parts: Vec<&str> = text.split('.').collect();
        let small = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        match parts.as_slice() {
            [id, secret] if id.len() == 6 && secret.len() == 16 && small(id) && small(secret) => {
                Some(Self::Bootstrap { id: (*id).to_owned(), secret: (*secret).to_owned() })
            }
            [_, claims, signature] if text.len() <= 16_384 && !signature.is_empty() => {
                let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
                let claims: Value = serde_json::from_slice(&claims).ok()?;
                let seconds = claims.as_object()?.get("exp").and_then(Value::as_u64);
                let expires = seconds
                    .and_then(|s| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(s)));
                Some(Self::Jwt { text: text.to_owned(), expires })
            }
            _ => None,
        }
    }

    /// As it goes into a header.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Bootstrap { id, secret } => format!("{id}.{secret}"),
            Self::Jwt { text, .. } => text.clone(),
        }
    }
}

/// Whether a detached JWS (RFC 7515, appendix F) is of that content, by the token of that id and secret: HS256, as
/// Kubernetes' bootstrapsigner makes it.
pub(crate) fn signed(jws: &str, content: &[u8], id: &str, secret: &str) -> bool {
    let mut parts = jws.split('.');
    let (Some(header), Some(""), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let (Some(claims), Some(signature)) = (decoded(header), decoded(signature)) else {
        return false;
    };
    let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
    // `none`, and every other algorithm, is no signature by this token.
    if claims.get("alg").and_then(Value::as_str) != Some("HS256")
        || claims.get("kid").and_then(Value::as_str) != Some(id)
    {
        return false;
    }
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, input.as_bytes(), &signature).is_ok()
}

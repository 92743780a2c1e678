//! The identity that the machine config carries: then none is made, and none is kept.

use std::fmt;

use crate::identity::{Identity, IdentityError, IdentityErrorKind};

/// What people are told of its halves.
const CERTIFICATE: &str = "agent.certificate of the machine config";
const KEY: &str = "its key (KEEL_NODE_KEY)";

/// An identity that was given, in PEM.
#[derive(Clone)]
pub(crate) struct Given {
    /// The certificate, then what leads to its CA.
    pub(crate) certificate: Option<String>,
    pub(crate) key: Option<String>,
}

/// The key is never shown.
impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads an identity that was given.
    pub(crate) fn given(given: &Given) -> Result<Self, IdentityError> {
        let read = || {
            let missing = |what| IdentityErrorKind::NotGiven { what };
            let key = given.key.as_deref().ok_or(missing("key"))?;
            let certificate = given.certificate.as_deref().ok_or(missing("certificate"))?;
            Self::from_pem(key, certificate)
        };
        read().map_err(|kind| IdentityError {
            key: KEY.into(),
            certificate: CERTIFICATE.into(),
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Names, certificate};

    fn pair() -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("machine-id"), "0f3a5c7e91b24d4e8a6b0123456789ab")
            .unwrap();
        Identity::locate_or_make(folder.path(), &Names::default()).unwrap();
        let read = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
        (read("node.crt"), read("node.key"))
    }

    fn check(certificate: Option<&str>, key: Option<&str>, expect: Result<(), &str>) {
        let given =
            Given { certificate: certificate.map(str::to_owned), key: key.map(str::to_owned) };
        match (Identity::given(&given), expect) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(expect)) => {
                let error = error.to_string();
                assert!(error.contains(expect), "{error}");
                assert!(error.contains("KEEL_NODE_KEY") && error.contains("agent.certificate"));
            }
            (got, expect) => panic!("{got:?} and not {expect:?}"),
        }
        assert!(!format!("{given:?}").contains("PRIVATE KEY"));
    }

    #[test]
    fn what_may_be_given() {
        let (certificate, key) = pair();
        let (other, _) = pair();
        let (certificate, key) = (certificate.as_str(), key.as_str());
        check(Some(certificate), Some(key), Ok(()));
        check(Some(&format!("{certificate}{other}")), Some(key), Ok(()));
        check(Some(certificate), None, Err("its key is not there"));
        check(None, Some(key), Err("its certificate is not there"));
        check(Some(certificate), Some("x"), Err("the key is not PEM"));
        check(Some("x"), Some(key), Err("the certificate is not PEM"));
        check(Some(&other), Some(key), Err("do not belong together: the key is "));
        let fresh = certificate::new_key().unwrap();
        check(Some(certificate), Some(&fresh), Err("(SHA-256 of the public keys)"));
    }
}

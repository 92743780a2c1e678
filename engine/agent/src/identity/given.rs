//! The identity that the machine config carries: then none is made, and none is kept.

use std::path::PathBuf;

use crate::identity::files::Files;
use crate::identity::{Identity, IdentityError, IdentityErrorKind};

/// The files of an identity that was given.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Identity {
    /// Reads an identity that was given.
    pub(crate) fn given(given: &Given) -> Result<Self, IdentityError> {
        let files = Files::given(&given.key, &given.certificate);
        let read = || {
            let missing = |what| IdentityErrorKind::NotGiven { what };
            let key = files.key()?.ok_or(missing("key"))?;
            let certificate = files.certificate()?.ok_or(missing("certificate"))?;
            Self::from_pem(&key, &certificate)
        };
        read().map_err(|kind| files.error(kind))
    }
}

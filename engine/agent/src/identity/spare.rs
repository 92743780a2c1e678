//! The identity of a machine that has nowhere to keep one: its data partition is missing or was refused.
//!
//! Somebody has to be able to ask such a machine what is wrong with it, so it serves with a key that ends with this
//! boot. It is made only while the folder of the real one does not exist at all; an identity that is there and broken is
//! never gone around.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::identity::files::Files;
use crate::identity::{Identity, IdentityError, IdentityErrorKind, Names};

/// Names this boot, random, as a UUID (proc_sys_kernel(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl Identity {
    /// The identity in `folder`; where that folder does not exist, one that is made in `spare` for this boot.
    pub(crate) fn load_or_spare(
        folder: &Path,
        spare: &Path,
    ) -> Result<(Self, Lasts), IdentityError> {
        if folder.symlink_metadata().is_ok() {
            return Ok((Self::load(folder)?, Lasts::ForGood));
        }
        let files = Files::new(spare);
        prepare(&files, spare).map_err(|kind| files.error(kind))?;
        Ok((Self::locate_or_make(spare, &Names::default())?, Lasts::ThisBoot))
    }
}

/// How long an identity lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// As long as the data partition.
    ForGood,
    /// Until the machine goes down.
    ThisBoot,
}

fn prepare(files: &Files, spare: &Path) -> Result<(), IdentityErrorKind> {
    let wrong = |source| IdentityErrorKind::Write { path: spare.to_owned(), source };
    match DirBuilder::new().recursive(true).mode(0o700).create(spare) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(wrong(error)),
        _ => {}
    }
    if files.machine_id().is_ok() {
        return Ok(());
    }
    let path = Path::new(BOOT_ID);
    let id = fs::read_to_string(path)
        .map_err(|source| IdentityErrorKind::Read { path: path.to_owned(), source })?;
    files.publish_machine_id(&id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_is_made_only_where_there_is_no_folder() {
        let root = tempfile::tempdir().unwrap();
        let (folder, spare) = (root.path().join("data/identity"), root.path().join("run/identity"));
        let (first, lasts) = Identity::load_or_spare(&folder, &spare).unwrap();
        assert_eq!(lasts, Lasts::ThisBoot);
        // A restarted agent is the same agent.
        let (again, _) = Identity::load_or_spare(&folder, &spare).unwrap();
        assert_eq!(first.fingerprint, again.fingerprint);
        assert!(!folder.exists());

        fs::create_dir_all(&folder).unwrap();
        let error = Identity::load_or_spare(&folder, &spare).unwrap_err();
        assert!(error.to_string().contains("there is none yet"), "{error}");
    }
}

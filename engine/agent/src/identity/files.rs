//! The files of an identity. Each appears under its name whole and synced, or not at all; the certificate alone is ever replaced.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::identity::{IdentityError, IdentityErrorKind};

/// Where everything lies.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    machine_id: PathBuf,
    key: PathBuf,
    certificate: PathBuf,
    pub(crate) fingerprint: PathBuf,
}

/// A machine id: 128 bits that name this machine and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineId(u128);

impl MachineId {
    /// Reads 32 hexadecimal digits, as machine-id(5) has them, or a UUID with its hyphens. All zeros is no id.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end().replace('-', "");
        let right = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number =
            u128::from_str_radix(&digits, 16).ok().filter(|number| right && *number != 0)?;
        Some(Self(number))
    }

    /// As a UUID: RFC 9562, 4.
    pub(crate) fn hyphenated(self) -> String {
        let digits = self.to_string();
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Files {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            machine_id: folder.join("machine-id"),
            key: folder.join("node.key"),
            certificate: folder.join("node.crt"),
            fingerprint: folder.join("node.fingerprint"),
            folder: folder.to_owned(),
        }
    }

    pub(crate) fn error(&self, kind: IdentityErrorKind) -> IdentityError {
        IdentityError { key: self.key.clone(), certificate: self.certificate.clone(), kind }
    }

    /// The machine id. Init makes it, before anything asks for a certificate.
    pub(crate) fn machine_id(&self) -> Result<MachineId, IdentityErrorKind> {
        let path = self.machine_id.clone();
        read(&path)?
            .and_then(|text| MachineId::parse(&text))
            .ok_or(IdentityErrorKind::MachineId { path })
    }

    /// The key's text, if there is a key that nobody else may read.
    pub(crate) fn key(&self) -> Result<Option<String>, IdentityErrorKind> {
        let Some(text) = read(&self.key)? else { return Ok(None) };
        let metadata = fs::metadata(&self.key)
            .map_err(|source| IdentityErrorKind::Read { path: self.key.clone(), source })?;
        match metadata.permissions().mode() & 0o777 {
            mode if mode & 0o077 != 0 => Err(IdentityErrorKind::Exposed { mode }),
            _ => Ok(Some(text)),
        }
    }

    /// The certificate's text, if there is one.
    pub(crate) fn certificate(&self) -> Result<Option<String>, IdentityErrorKind> {
        read(&self.certificate)
    }

    /// The fingerprint on record, if there is one.
    pub(crate) fn fingerprint(&self) -> Result<Option<String>, IdentityErrorKind> {
        Ok(read(&self.fingerprint)?.map(|text| text.trim_end().to_owned()))
    }

    pub(crate) fn publish_machine_id(&self, id: &str) -> Result<(), IdentityErrorKind> {
        self.publish(&self.machine_id, id, 0o444)
    }

    pub(crate) fn publish_key(&self, pem: &str) -> Result<(), IdentityErrorKind> {
        self.publish(&self.key, pem, 0o600)
    }

    pub(crate) fn publish_certificate(&self, pem: &str) -> Result<(), IdentityErrorKind> {
        self.publish(&self.certificate, pem, 0o644)
    }

    /// Replaces the certificate in one step, by another one for the same key.
    pub(crate) fn replace_certificate(&self, pem: &str) -> Result<(), IdentityErrorKind> {
        let path = &self.certificate;
        replace(&self.folder, path, pem, 0o644)
            .map_err(|source| IdentityErrorKind::Write { path: path.to_owned(), source })
    }

    pub(crate) fn publish_fingerprint(&self, fingerprint: &str) -> Result<(), IdentityErrorKind> {
        self.publish(&self.fingerprint, &format!("{fingerprint}\n"), 0o644)
    }

    /// Makes a file that was not there: written under another name, synced, then given its own by link(2), which unlike
    /// rename(2) never replaces anything; the folder is synced last, so that the name survives a power failure too.
    fn publish(&self, path: &Path, text: &str, mode: u32) -> Result<(), IdentityErrorKind> {
        let write = || -> io::Result<()> {
            let draft = draft(path, text, mode)?;
            fs::hard_link(&draft, path)?;
            fs::remove_file(draft)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| IdentityErrorKind::Write { path: path.to_owned(), source })
    }
}

/// Puts a file in place of the one before, in one step.
pub(super) fn replace(folder: &Path, path: &Path, text: &str, mode: u32) -> io::Result<()> {
    fs::rename(draft(path, text, mode)?, path)?;
    File::open(folder)?.sync_all()
}

/// Writes what is to stand at a path under another name, and syncs it.
fn draft(path: &Path, text: &str, mode: u32) -> io::Result<PathBuf> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(draft)
}

/// A file's text; `None` if there is no file.
fn read(path: &Path) -> Result<Option<String>, IdentityErrorKind> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityErrorKind::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&str>) {
        assert_eq!(
            MachineId::parse(text).map(MachineId::hyphenated).as_deref(),
            expect,
            "{text:?}"
        );
    }

    #[test]
    fn machine_ids() {
        let uuid = "0f3a5c7e-91b2-4d4e-8a6b-0123456789ab";
        check("0f3a5c7e91b24d4e8a6b0123456789ab\n", Some(uuid));
        check("0F3A5C7E91B24D4E8A6B0123456789AB", Some(uuid));
        check(uuid, Some(uuid));
        check("", None);
        check("uninitialized\n", None);
        check("00000000000000000000000000000000\n", None);
        check("+f3a5c7e91b24d4e8a6b0123456789ab\n", None);
        check("0f3a5c7e91b24d4e8a6b0123456789abcd\n", None);
    }
}

//! The host name of the kernel, which every program asks for with uname(2).

use std::io;
use std::path::{Path, PathBuf};

use keel_unit::keys::Text;
use keel_unit::kinds;
use keel_unit::value::MachineId;

/// The host name that was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named(pub String);

/// The host name could not be set.
#[derive(Debug, thiserror::Error)]
pub enum HostnameError {
    /// The machine id, which the name is made from, could not be read.
    #[error("no host name is configured, and {} to make one from cannot be read", path.display())]
    MachineId {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What is in the file is no machine id.
    #[error("no host name is configured, and what {} holds is no machine id: {reason}", path.display())]
    NotAnId {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused the name.
    #[error("cannot set the host name {name:?}")]
    Set {
        /// The name.
        name: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// What a kernel is called that nobody has named (`CONFIG_DEFAULT_HOSTNAME`), and what says no more than that.
const NAMELESS: [&str; 3] = ["", "(none)", "localhost"];

/// Sets the host name that the unit says. Without one, a name that the machine has been given otherwise (by a DHCP server that was
/// quicker, on the kernel's command line) stays, and a machine without a name gets one that is made from the machine id.
///
/// `before` is what was set here last, which is not otherwise. None comes back if nothing was set.
pub fn apply(
    unit: &kinds::HostName,
    before: Option<&Named>,
) -> Result<Option<Named>, HostnameError> {
    let name = match &unit.name {
        Some(name) => name.to_string(),
        None if is_named(before) => return Ok(None),
        None => from_machine_id(unit.machine_id.as_path())?,
    };
    match nix::unistd::sethostname(&name) {
        Ok(()) => Ok(Some(Named(name))),
        Err(errno) => Err(HostnameError::Set { name, source: errno.into() }),
    }
}

/// Whether somebody else has named the machine.
fn is_named(before: Option<&Named>) -> bool {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let ours = before.is_some_and(|Named(before)| name == before.as_str());
    !ours && NAMELESS.iter().all(|nameless| name != *nameless)
}

/// `keel-` and the first eight digits of the machine id: enough to tell machines apart, short enough to type.
fn from_machine_id(path: &Path) -> Result<String, HostnameError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| HostnameError::MachineId { path: path.to_owned(), source })?;
    let id = MachineId::parse(text.trim_end())
        .map_err(|reason| HostnameError::NotAnId { path: path.to_owned(), reason })?;
    Ok(format!("keel-{}", &id.as_str()[..8]))
}

#[cfg(test)]
mod tests {
    use keel_unit::value::{AbsPath, Hostname};

    use super::*;

    /// Applies a unit in a UTS namespace of its own, in which the machine is called something already; gives what the kernel says
    /// afterwards.
    fn renamed(
        called: &'static str,
        before: Option<&'static str>,
        name: Option<&str>,
        machine_id: &str,
    ) -> Result<String, HostnameError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("machine-id");
        std::fs::write(&file, machine_id).unwrap();
        let unit = kinds::HostName {
            name: name.map(|name| Hostname::parse(name).unwrap()),
            machine_id: AbsPath::parse(file.to_str().unwrap()).unwrap(),
            timeout: None,
        };
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).unwrap();
            nix::unistd::sethostname(called).unwrap();
            let before = before.map(|name| Named(name.to_owned()));
            let set = apply(&unit, before.as_ref())?;
            let kernel = nix::unistd::gethostname().unwrap().into_string().unwrap();
            assert_eq!(set.map_or(called.to_owned(), |Named(name)| name), kernel);
            Ok(kernel)
        })
        .join()
        .unwrap()
    }

    fn named(name: Option<&str>, machine_id: &str) -> Result<String, HostnameError> {
        renamed("(none)", None, name, machine_id)
    }

    #[test]
    fn a_name_that_somebody_else_has_given_stays_unless_the_config_has_one() {
        let id = "0123456789abcdef0123456789abcdef\n";
        let check = |called, before, name, expect: &str| {
            assert_eq!(renamed(called, before, name, id).unwrap(), expect, "{called} {before:?}");
        };
        check("leased-7", None, None, "leased-7");
        check("leased-7", Some("keel-01234567"), None, "leased-7");
        check("leased-7", None, Some("node-1"), "node-1");
        check("localhost", None, None, "keel-01234567");
        // What this unit set for an earlier config does not bind the next one.
        check("node-1", Some("node-1"), None, "keel-01234567");
        // A name that stays needs no machine id.
        assert_eq!(renamed("leased-7", None, None, "").unwrap(), "leased-7");
    }

    #[test]
    fn names() {
        let id = "0123456789abcdef0123456789abcdef\n";
        assert_eq!(named(Some("node-1.example.org"), id).unwrap(), "node-1.example.org");
        assert_eq!(named(None, id).unwrap(), "keel-01234567");
        // A file that is there but not yet written (systemd's word for it).
        let error = named(None, "uninitialized\n").unwrap_err().to_string();
        assert!(error.contains("is no machine id: not 32 lowercase hexadecimal digits"), "{error}");
    }

    #[test]
    fn a_missing_machine_id_is_named() {
        let error = from_machine_id(Path::new("/nonexistent/machine-id")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no host name is configured, and /nonexistent/machine-id to make one from cannot be read"
        );
    }
}

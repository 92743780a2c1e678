//! Who this machine is: an id that is made once, kept on the data partition, and shown to programs in /etc/machine-id.

mod files;
pub mod plan;
pub(crate) mod random;

use std::io;
use std::path::{Path, PathBuf};

use keel_unit::keys::Text;
use keel_unit::kinds::Identity;
use keel_unit::value::MachineId;

use self::plan::Plan;
use crate::disk::error::error_of_kind;

/// The name of the file in the unit's directory.
const FILE: &str = "machine-id";

/// The machine's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityOutcome {
    /// The machine id.
    pub machine_id: MachineId,
    /// Whether this is the first boot of this machine: the id was stored just now.
    pub made: bool,
}

/// Reads the machine id, or makes it on first boot, and publishes it. Blocks until it is on the disk.
///
/// # Errors
/// When the id that is there cannot be read, is none, or is not the config's. It is never replaced.
pub fn activate(unit: &Identity) -> Result<IdentityOutcome, IdentityError> {
    let directory = unit.directory.as_path();
    let path = directory.join(FILE);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |kind| IdentityError { path, kind }
    };
    let stored = files::read(&path).map_err(IdentityErrorKind::Read).map_err(failed(&path))?;
    let plan = plan::plan(stored.as_deref(), unit.machine_id.as_ref()).map_err(failed(&path))?;
    let (machine_id, made) = match plan {
        Plan::Keep(id) => (id, false),
        Plan::Store(id) => (id, true),
        Plan::Make => (make().map_err(failed(&path))?, true),
    };
    let line = format!("{machine_id}\n");
    if made {
        files::make_directory(directory)
            .map_err(IdentityErrorKind::Write)
            .map_err(failed(directory))?;
        files::write(&path, line.as_bytes())
            .map_err(IdentityErrorKind::Write)
            .map_err(failed(&path))?;
    }
    publish(unit.publish.as_path(), &line).map_err(failed(unit.publish.as_path()))?;
    Ok(IdentityOutcome { machine_id, made })
}

/// A random UUID (version 4, RFC 9562) without its dashes, which is what machine-id(5) asks for.
fn make() -> Result<MachineId, IdentityErrorKind> {
    let uuid = random::random_uuid().map_err(IdentityErrorKind::Random)?;
    MachineId::parse(&uuid.simple().to_string())
        .map_err(|reason| IdentityErrorKind::Malformed { reason })
}

/// What stands at the public place is a copy: one that differs, or is no file at all, is replaced.
fn publish(path: &Path, line: &str) -> Result<(), IdentityErrorKind> {
    if files::read(path).is_ok_and(|content| content.as_deref() == Some(line.as_bytes())) {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).map_err(IdentityErrorKind::Write)?;
    files::write(path, line.as_bytes()).map_err(IdentityErrorKind::Write)
}

/// A machine without an identity.
#[derive(Debug)]
pub struct IdentityError {
    /// The file in question.
    pub path: PathBuf,
    /// What is wrong.
    pub kind: IdentityErrorKind,
}

error_of_kind!(IdentityError, |error| error.path.display());

/// What is wrong with a machine's identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityErrorKind {
    /// It is there and cannot be read.
    #[error("cannot read it, and a new one is not made in its place")]
    Read(#[source] io::Error),
    /// It cannot be written.
    #[error("cannot write it")]
    Write(#[source] io::Error),
    /// The kernel gave no random bits.
    #[error("the kernel gave no random bits to make it")]
    Random(#[source] io::Error),
    /// It is no machine id.
    #[error("it holds no machine id, and a new one is not made over it: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// The disk and the machine config say different ids.
    #[error("the disk says {stored}, the machine config says {configured}")]
    Mismatch {
        /// The one on the disk.
        stored: MachineId,
        /// The one of the config.
        configured: MachineId,
    },
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Machine {
        root: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            Self { root: tempfile::tempdir().unwrap() }
        }

        fn stored(&self) -> PathBuf {
            self.root.path().join("data/identity/machine-id")
        }

        fn published(&self) -> PathBuf {
            self.root.path().join("etc/machine-id")
        }

        fn boot(&self, configured: Option<&str>) -> Result<IdentityOutcome, IdentityError> {
            let path = |path: PathBuf| Text::parse(path.to_str().unwrap()).unwrap();
            activate(&Identity {
                directory: path(self.root.path().join("data/identity")),
                machine_id: configured.map(|id| MachineId::parse(id).unwrap()),
                publish: path(self.published()),
                timeout: None,
            })
        }

        fn store(&self, content: &[u8]) {
            fs::create_dir_all(self.stored().parent().unwrap()).unwrap();
            fs::write(self.stored(), content).unwrap();
        }
    }

    const A: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn an_id_is_made_once_and_kept() {
        let machine = Machine::new();
        let first = machine.boot(None).unwrap();
        assert!(first.made);
        let line = format!("{}\n", first.machine_id);
        let digits = first.machine_id.as_str().as_bytes();
        assert_eq!(digits[12], b'4', "version 4");
        assert!(b"89ab".contains(&digits[16]), "variant of RFC 9562");
        for path in [machine.stored(), machine.published()] {
            assert_eq!(fs::read_to_string(&path).unwrap(), line);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o444);
        }
        let directory = machine.stored().parent().unwrap().to_owned();
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_dir(directory).unwrap().count(), 1);

        // The next boot has a fresh root, or one with an older copy.
        fs::remove_file(machine.published()).unwrap();
        let second = machine.boot(None).unwrap();
        assert_eq!((second.made, &second.machine_id), (false, &first.machine_id));
        fs::remove_file(machine.published()).unwrap();
        fs::write(machine.published(), format!("{A}\n")).unwrap();
        machine.boot(None).unwrap();
        assert_eq!(fs::read_to_string(machine.published()).unwrap(), line);
        assert_ne!(Machine::new().boot(None).unwrap().machine_id, first.machine_id);
    }

    #[test]
    fn the_config_gives_the_id_of_a_new_machine_and_must_agree_with_an_old_one() {
        let machine = Machine::new();
        let first = machine.boot(Some(A)).unwrap();
        assert_eq!((first.made, first.machine_id.as_str()), (true, A));
        assert!(!machine.boot(Some(A)).unwrap().made);
        assert!(!machine.boot(None).unwrap().made);
        let error = machine.boot(Some("ffffffffffffffffffffffffffffffff")).unwrap_err().to_string();
        assert!(error.contains(A) && error.contains("ffffffffffffffffffffffffffffffff"), "{error}");
        assert_eq!(fs::read_to_string(machine.stored()).unwrap(), format!("{A}\n"));
    }

    #[test]
    fn what_is_no_id_is_an_error_and_stays() {
        let check = |content: &[u8]| {
            let machine = Machine::new();
            machine.store(content);
            let error = machine.boot(None).unwrap_err();
            assert!(matches!(error.kind, IdentityErrorKind::Malformed { .. }), "{error}");
            assert_eq!(fs::read(machine.stored()).unwrap(), content);
            assert!(!machine.published().exists());
        };
        check(b"");
        check(b"0123\n");
        check(b"\xff\xfe");
        check(&[b'a'; 10_000]);
    }

    #[test]
    fn what_is_no_file_is_an_error_and_stays() {
        let machine = Machine::new();
        fs::create_dir_all(machine.stored()).unwrap();
        assert!(matches!(machine.boot(None).unwrap_err().kind, IdentityErrorKind::Read(_)));
        fs::remove_dir(machine.stored()).unwrap();
        let elsewhere = machine.root.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, machine.stored()).unwrap();
        assert!(matches!(machine.boot(None).unwrap_err().kind, IdentityErrorKind::Read(_)));
        assert!(!elsewhere.exists());
        fs::remove_file(machine.stored()).unwrap();
        nix::unistd::mkfifo(&machine.stored(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(machine.boot(None).unwrap_err().kind, IdentityErrorKind::Read(_)));
    }

    #[test]
    fn what_a_power_cut_left_is_cleared_away() {
        let machine = Machine::new();
        machine.store(b"");
        fs::rename(machine.stored(), machine.stored().with_extension("new")).unwrap();
        assert!(machine.boot(None).unwrap().made);
        assert!(!machine.stored().with_extension("new").exists());
    }
}

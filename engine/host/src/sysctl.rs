//! Kernel parameters below /proc/sys.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use keel_unit::kinds;

/// What setting a parameter did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Set {
    /// It had that value.
    Unchanged,
    /// It had this value before.
    Changed {
        /// The value before.
        from: String,
    },
    /// It cannot be read, only written (`net.ipv4.route.flush`).
    Written,
}

/// A kernel parameter that could not be set.
#[derive(Debug)]
pub struct SysctlError {
    /// The parameter.
    pub key: String,
    /// Why not.
    pub kind: SysctlErrorKind,
}

impl fmt::Display for SysctlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sysctl {}: {}", self.key, self.kind)
    }
}

impl std::error::Error for SysctlError {
    /// The kind is said already; its own source is the next cause.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

/// Why a kernel parameter could not be set.
#[derive(Debug, thiserror::Error)]
pub enum SysctlErrorKind {
    /// The key has an empty part, or one that leaves /proc/sys.
    #[error("not the name of a kernel parameter")]
    Key,
    /// There is no such parameter.
    #[error("this kernel has no {}; its module may not be loaded", path.display())]
    Missing {
        /// The file that would be it.
        path: PathBuf,
    },
    /// The kernel refused the value.
    #[error("the kernel does not take {value:?}")]
    Refused {
        /// The value.
        value: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The parameter may not be written, or not be reached.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Sets what the unit says, below `root` (/proc/sys).
pub fn apply(root: &Path, unit: &kinds::Sysctl) -> Result<Set, SysctlError> {
    set(root, unit.key.as_str(), unit.value.as_str())
}

/// Sets the parameter `key` below `root` (/proc/sys) to `value`.
pub fn set(root: &Path, key: &str, value: &str) -> Result<Set, SysctlError> {
    set_parameter(root, key, value).map_err(|kind| SysctlError { key: key.to_owned(), kind })
}

fn set_parameter(root: &Path, key: &str, value: &str) -> Result<Set, SysctlErrorKind> {
    let path = root.join(relative_path(key).ok_or(SysctlErrorKind::Key)?);
    let write_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SysctlErrorKind::Missing { path: path.clone() },
        // What the kernel's own parsers say of a value: not a number, out of range, no such choice.
        io::ErrorKind::InvalidInput => SysctlErrorKind::Refused { value: value.to_owned(), source },
        _ if source.raw_os_error() == Some(nix::libc::ERANGE) => {
            SysctlErrorKind::Refused { value: value.to_owned(), source }
        }
        _ => SysctlErrorKind::Write { path: path.clone(), source },
    };

    let before = std::fs::read_to_string(&path).ok();
    if before.as_deref().is_some_and(|before| same_words(before, value)) {
        return Ok(Set::Unchanged);
    }
    // Without O_CREAT: a parameter that is not there is an error, and no file. One write: each is one command to
    // the kernel.
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).map_err(write_error)?;
    io::Write::write_all(&mut file, format!("{value}\n").as_bytes()).map_err(write_error)?;
    Ok(match before {
        Some(before) => Set::Changed { from: before.trim_end().to_owned() },
        None => Set::Written,
    })
}

/// The file of a parameter, by the rule of sysctl(8): the first separator says which of `.` and `/` separates; the other
/// then stands for a `.` inside of a part (`net/ipv4/conf/eth0.100/forwarding` and `net.ipv4.conf.eth0/100.forwarding`
/// are one).
fn relative_path(key: &str) -> Option<PathBuf> {
    let separated_by_slash = key.find(['.', '/']).is_some_and(|at| key[at..].starts_with('/'));
    let path: String = if separated_by_slash {
        key.to_owned()
    } else {
        key.chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect()
    };
    let sound =
        path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
    sound.then(|| path.into())
}

/// Whether the kernel shows this value: it puts tabs between the numbers of a list where a person writes blanks.
fn same_words(shown: &str, value: &str) -> bool {
    shown.split_whitespace().eq(value.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_keys() {
        let check = |key: &str, expect: Option<&str>| {
            assert_eq!(relative_path(key).as_deref(), expect.map(Path::new), "{key}");
        };
        check("net.ipv4.ip_forward", Some("net/ipv4/ip_forward"));
        check("net/ipv4/ip_forward", Some("net/ipv4/ip_forward"));
        check("net.ipv4.conf.eth0/100.forwarding", Some("net/ipv4/conf/eth0.100/forwarding"));
        check("net/ipv4/conf/eth0.100/forwarding", Some("net/ipv4/conf/eth0.100/forwarding"));
        check("panic", Some("panic"));
        check("", None);
        check("net..ipv4", None);
        check(".net", None);
        check("../etc/passwd", None);
        check("net/../../etc/passwd", None);
        check("a.//.b", None);
        check("a.b\0", None);
    }

    #[test]
    fn values_are_set_once() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("net/ipv4")).unwrap();
        std::fs::write(root.path().join("net/ipv4/ping_group_range"), "1\t0\n").unwrap();
        let check = |value: &str, expect: Set| {
            assert_eq!(set(root.path(), "net.ipv4.ping_group_range", value).unwrap(), expect);
        };
        check("1 0", Set::Unchanged);
        check("0 100", Set::Changed { from: "1\t0".into() });
        check("0 100", Set::Unchanged);
    }

    #[test]
    fn a_missing_parameter_is_named_and_not_made() {
        let root = tempfile::tempdir().unwrap();
        let error = set(root.path(), "net.bridge.bridge-nf-call-iptables", "1").unwrap_err();
        let path = root.path().join("net/bridge/bridge-nf-call-iptables");
        assert_eq!(
            error.to_string(),
            format!(
                "sysctl net.bridge.bridge-nf-call-iptables: this kernel has no {}; its module may not be loaded",
                path.display()
            )
        );
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(set(root.path(), "net.bridge.bridge-nf-call-iptables", "1").is_err());
        assert!(!path.exists());
    }

    /// Of the kernel itself, in a network namespace of this thread.
    #[test]
    fn the_kernel_takes_and_refuses() {
        let root = Path::new("/proc/sys");
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            // /proc/sys/net shows the namespace of the thread that opens it.
            let key = "net.ipv4.ip_default_ttl";
            let set_twice = (set(root, key, "63").unwrap(), set(root, key, "63").unwrap());
            assert_eq!(set_twice, (Set::Changed { from: "64".into() }, Set::Unchanged));
            let refused = set(root, key, "sixty").unwrap_err();
            assert_eq!(
                refused.to_string(),
                format!("sysctl {key}: the kernel does not take \"sixty\"")
            );
        })
        .join()
        .unwrap();
    }
}

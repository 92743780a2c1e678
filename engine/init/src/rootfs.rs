//! Makes the initramfs a root that containers can be started from.
//!
//! The kernel unpacks an initramfs into its own first mount, `rootfs`, which has no parent, and pivot_root(2) refuses a root
//! without a parent: runc could start no container. Moving to a tmpfs would copy every file and double the memory. This does
//! not copy: it binds `/` over itself and enters the new mount. The new mount shows the same files, and its parent is `rootfs`.

use std::fs;
use std::path::Path;

use keel_host::mount::table::{self, Mounted};
use keel_host::namespace;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot};
use thiserror::Error;

/// The root cannot be made one that containers can start from.
#[derive(Debug, Error)]
#[error("cannot {what}")]
pub(crate) struct RootError {
    what: &'static str,
    #[source]
    errno: Errno,
}

/// Leaves the kernel's first mount, if we are on it. In a namespace, or on a root that was switched already, changes nothing.
pub(crate) fn leave_rootfs() -> Result<(), RootError> {
    if !table::observe().is_ok_and(|table| is_rootfs(table::top(&table, Path::new("/")))) {
        return Ok(());
    }
    let fail = |what| move |errno| RootError { what, errno };
    mount(Some("/"), "/", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(fail("bind / over itself"))?;
    // A process's root directory is where its paths begin, below anything mounted there later. `..` of the root is the root, but
    // walked to, and a walk crosses into what is mounted on top.
    chdir("/..").map_err(fail("enter the new root"))?;
    chroot(".").map_err(fail("make the new root the root"))
}

/// Reads the kernel's command line, in a /proc that is mounted for as long as that takes if it is not mounted already.
pub(crate) fn command_line() -> Result<String, RootError> {
    let _look = ProcPeek::new()?;
    fs::read_to_string("/proc/cmdline").map_err(|error| RootError {
        what: "read the kernel's command line",
        errno: Errno::from_raw(error.raw_os_error().unwrap_or_default()),
    })
}

/// Leaves the console to what matters: kernel messages below warnings go to the kernel's log alone. (The first field of that file is
/// the console's log level, proc_sys_kernel(5).)
pub(crate) fn quieten_kernel() {
    // In a namespace the level is the host's.
    if is_machine()
        && let Ok(_look) = ProcPeek::new()
    {
        drop(fs::write("/proc/sys/kernel/printk", "4"));
    }
}

/// Whether a filesystem of its own is mounted there.
pub(crate) fn is_mount(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    device(path).is_some() && device(path) != path.parent().and_then(device)
}

/// Whether this is the machine itself, and not a PID namespace on one.
pub(crate) fn is_machine() -> bool {
    ProcPeek::new().is_ok_and(|_look| namespace::is_machine())
}

/// A /proc that is there while this lives.
pub(crate) struct ProcPeek {
    mounted: bool,
}

impl ProcPeek {
    pub(crate) fn new() -> Result<Self, RootError> {
        if Path::new("/proc/self").exists() {
            return Ok(Self { mounted: false });
        }
        // It exists, or mount says what is wrong.
        drop(fs::create_dir("/proc"));
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)
            .map_err(|errno| RootError { what: "mount /proc for a look", errno })?;
        Ok(Self { mounted: true })
    }
}

impl Drop for ProcPeek {
    fn drop(&mut self) {
        if self.mounted {
            let _ = umount2("/proc", MntFlags::MNT_DETACH);
        }
    }
}

/// Whether this is the kernel's first mount, not bound over: of type rootfs, and standing on no other.
fn is_rootfs(root: Option<&Mounted>) -> bool {
    root.is_some_and(|root| root.fstype == "rootfs" && root.id == root.parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_first_mount_is_left() {
        let check = |text: &str, expect: bool| {
            let table = table::parse(text.as_bytes()).unwrap();
            assert_eq!(is_rootfs(table::top(&table, Path::new("/"))), expect, "{text}");
        };
        check(
            "1 1 0:2 / / rw - rootfs rootfs rw,size=233924k\n22 1 0:21 / /proc rw - proc proc rw\n",
            true,
        );
        check(
            "23 1 0:2 / / rw - rootfs rootfs rw,size=233924k\n24 23 0:21 / /proc rw - proc proc rw\n",
            false,
        );
        check("28 25 0:22 / / rw,relatime - tmpfs tmpfs rw\n", false);
        check("21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n", false);
        check("", false);
    }
}

//! The part of an image that is the same for every machine: empty directories to mount on, device
//! nodes for the first instants, and the few files of `/etc` that programs cannot do without.

use crate::tree::{Tree, TreeError};

const DIRECTORIES: [(&str, u32); 12] = [
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/opt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/usr", 0o755),
    ("/var/lib/keel", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
];

/// No login is possible: no password, no shell. The names are for programs that look them up.
const FILES: [(&str, &str); 5] = [
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    (
        "/etc/os-release",
        concat!(
            "NAME=Keel\nID=keel\nPRETTY_NAME=\"Keel ",
            env!("CARGO_PKG_VERSION"),
            "\"\nVERSION_ID=",
            env!("CARGO_PKG_VERSION"),
            "\n"
        ),
    ),
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/nonexistent\nnobody:x:65534:65534:nobody:/nonexistent:/nonexistent\n",
    ),
];

/// Adds it all.
pub(crate) fn add(tree: &mut Tree) -> Result<(), TreeError> {
    for (path, mode) in DIRECTORIES {
        tree.directory(path, mode, "layout")?;
    }
    for (path, text) in FILES {
        tree.file(path, 0o644, text.as_bytes().to_vec(), "layout")?;
    }
    // Before init mounts devtmpfs the kernel opens /dev/console for its standard streams.
    tree.device("/dev/console", 0o600, 5, 1, "layout")?;
    tree.device("/dev/null", 0o666, 1, 3, "layout")
}

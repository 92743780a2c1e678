//! The `mount` kind.

use crate::diagnostic::Diagnostic;
use crate::keys::{Fields, keys, words};
use crate::value::{AbsPath, FileMode, FsType, MountOption, Source, Timespan};

words! {
    /// How mounts and unmounts below a mount point spread to its peers (mount_namespaces(7)).
    pub enum Propagation {
        /// Mounts spread in both directions.
        Shared = "shared",
        /// As `shared`, and for every mount below.
        Rshared = "rshared",
        /// Mounts spread from the peer only.
        Slave = "slave",
        /// As `slave`, and for every mount below.
        Rslave = "rslave",
        /// Mounts do not spread.
        Private = "private",
        /// As `private`, and for every mount below.
        Rprivate = "rprivate",
    }

    /// A controller of cgroup v2.
    pub enum Controller {
        /// Processor sets.
        Cpuset = "cpuset",
        /// Processor time.
        Cpu = "cpu",
        /// Block I/O.
        Io = "io",
        /// Memory.
        Memory = "memory",
        /// Huge pages.
        Hugetlb = "hugetlb",
        /// Number of processes.
        Pids = "pids",
        /// RDMA resources.
        Rdma = "rdma",
        /// Scalar resources.
        Misc = "misc",
    }
}

keys! {
    /// Mounts a filesystem. What is mounted already with the same source and type is left as it is.
    pub struct Mount {
        /// What is mounted: a device node, `PARTLABEL=…`, `LABEL=…`, or the name of a kernel filesystem.
        source "source": Option<Source>,
        /// Where it is mounted. The directory is made when it is missing.
        target "target": AbsPath,
        /// Type of the filesystem.
        fstype "fstype": Option<FsType>,
        /// Options as mount(8) takes them, one per item.
        options "options": Vec<MountOption> = "[]",
        /// How mounts below spread.
        propagation "propagation": Option<Propagation>,
        /// Controllers handed down to child groups; for `fstype = "cgroup2"` only. One that the kernel lacks is passed over.
        controllers "controllers": Vec<Controller> = "[]",
        /// Mode of the mount point when it is made.
        mode "mode": FileMode = "\"0755\"",
        /// The target is a mount already; only its propagation and controllers are set.
        existing "existing": bool = "false",
        /// How long it may take.
        timeout "timeout": Option<Timespan>,
    }
    check = complete;
}

fn complete(mount: &Mount, fields: &mut Fields<'_>) {
    if mount.existing {
        for key in ["source", "fstype", "options", "mode"] {
            if !fields.has(key) {
                continue;
            }
            let message = format!("a mount with `existing = true` takes no `{key}`");
            let found = Diagnostic::new("misplaced-key", fields.span_of(key), message);
            fields.report(found.label("the mount is there already"));
        }
        return;
    }
    for (key, missing) in [("source", mount.source.is_none()), ("fstype", mount.fstype.is_none())] {
        if missing {
            let found =
                Diagnostic::new("missing-key", fields.span(), format!("missing key `{key}`"));
            fields.report(found.help("only a mount with `existing = true` goes without"));
        }
    }
    if !mount.controllers.is_empty()
        && mount.fstype.as_ref().is_none_or(|t| t.as_str() != "cgroup2")
    {
        let found = Diagnostic::new(
            "misplaced-key",
            fields.span_of("controllers"),
            "only cgroup2 has controllers",
        );
        fields.report(found);
    }
}

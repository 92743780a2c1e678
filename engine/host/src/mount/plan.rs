//! From what is wanted and what is mounted to the steps between. Pure.

use std::path::PathBuf;

use keel_unit::kinds::{Controller, Mount, Propagation};
use keel_unit::value::Source;

use super::error::MountErrorKind;
use super::options::{Bind, Flags, Options};
use super::table::{self, Mounted};

/// What was looked at before deciding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The kernel's table.
    pub table: Vec<Mounted>,
    /// The device node that the source means, and its number; `None` for a kernel filesystem and for a bind mount.
    pub device: Option<(PathBuf, (u32, u32))>,
    /// For a bind mount: whether its source is a directory.
    pub source_is_directory: bool,
    /// For a bind mount: whether what is at the target is the very file or directory that is to be mounted there.
    pub is_bound: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the mount point and what leads to it.
    MakeDirectory {
        /// The mount point.
        path: PathBuf,
        /// Its mode, if it is made.
        mode: u32,
    },
    /// Make an empty file as the mount point of a file.
    MakeFile {
        /// The mount point.
        path: PathBuf,
    },
    /// Mount a filesystem.
    Mount {
        /// What.
        source: PathBuf,
        /// Where.
        target: PathBuf,
        /// Of which type.
        fstype: String,
        /// What the kernel heeds.
        flags: Flags,
        /// What the filesystem heeds.
        data: String,
    },
    /// Mount another place of the tree.
    Bind {
        /// Which one.
        source: PathBuf,
        /// Where.
        target: PathBuf,
        /// How much of it.
        bind: Bind,
    },
    /// Change the flags of one mount; mount(2) takes none along with a bind.
    ChangeFlags {
        /// Which mount.
        target: PathBuf,
        /// To these.
        flags: Flags,
    },
    /// Change the flags of a mount and the options of its filesystem.
    Remount {
        /// Which mount.
        target: PathBuf,
        /// To these.
        flags: Flags,
        /// And these.
        data: String,
    },
    /// Set how mounts below spread.
    Propagate {
        /// Which mount.
        target: PathBuf,
        /// In which way.
        propagation: Propagation,
    },
    /// Hand controllers down to child groups.
    Delegate {
        /// The hierarchy.
        target: PathBuf,
        /// Which controllers.
        controllers: Vec<Controller>,
    },
}

/// Decides on the steps.
///
/// # Errors
/// When something else is mounted at the target, or nothing where a mount is said to be.
pub fn plan(wanted: &Mount, observed: &Observed) -> Result<Vec<Step>, MountErrorKind> {
    let target = wanted.target.as_path().to_owned();
    let there = table::top(&observed.table, &target);
    let mut steps = match (wanted.existing, there) {
        (true, Some(_)) => Vec::new(),
        (true, None) => return Err(MountErrorKind::NotMounted),
        (false, there) => mount_steps(wanted, observed, there)?,
    };
    if let Some(propagation) = wanted
        .propagation
        .filter(|propagation| !there.is_some_and(|there| spreads(there, *propagation)))
    {
        steps.push(Step::Propagate { target: target.clone(), propagation });
    }
    if !wanted.controllers.is_empty() {
        steps.push(Step::Delegate { target, controllers: wanted.controllers.clone() });
    }
    Ok(steps)
}

fn mount_steps(
    wanted: &Mount,
    observed: &Observed,
    there: Option<&Mounted>,
) -> Result<Vec<Step>, MountErrorKind> {
    let target = wanted.target.as_path().to_owned();
    let Options { bind, flags, data } =
        Options::parse(&wanted.options).map_err(MountErrorKind::Option)?;
    let directory = Step::MakeDirectory { path: target.clone(), mode: wanted.mode.0 };
    let source = match (&wanted.source, &observed.device) {
        (None, _) => return Err(MountErrorKind::NoSource),
        (Some(_), Some((node, _))) => node.clone(),
        (Some(Source::Path(path)), None) => path.as_path().to_owned(),
        (Some(other), None) => PathBuf::from(other.to_string()),
    };
    if let Some(bind) = bind {
        let change = Step::ChangeFlags { target: target.clone(), flags };
        if observed.is_bound && there.is_some() {
            let heeded = there.is_some_and(|there| flags.are_shown_by(&there.options));
            return Ok(if heeded { Vec::new() } else { vec![change] });
        }
        let place = if observed.source_is_directory {
            directory
        } else {
            Step::MakeFile { path: target.clone() }
        };
        let mut steps = vec![place, Step::Bind { source, target, bind }];
        if flags != Flags::default() {
            steps.push(change);
        }
        return Ok(steps);
    }
    let Some(fstype) = wanted.fstype.as_ref().map(|fstype| fstype.as_str().to_owned()) else {
        return Err(MountErrorKind::NoSource);
    };
    let Some(there) = there else {
        return Ok(vec![directory, Step::Mount { source, target, fstype, flags, data }]);
    };
    // The source of a kernel filesystem is a mere name: the same type is the same thing.
    let same = there.fstype == fstype
        && observed.device.as_ref().is_none_or(|(_, number)| there.device == *number);
    if !same {
        let what = format!("{} from {}", there.fstype, there.source.display());
        return Err(MountErrorKind::Occupied { what });
    }
    let heeded = flags.are_shown_by(&there.options)
        && data.split(',').all(|option| {
            option.is_empty() || there.super_options.iter().any(|shown| shown == option)
        });
    Ok(if heeded { Vec::new() } else { vec![Step::Remount { target, flags, data }] })
}

/// Whether mounts below spread in that way already. What is recursive is done again, for what lies below.
fn spreads(there: &Mounted, propagation: Propagation) -> bool {
    let tagged = |tag: &str| there.propagation.iter().any(|field| field.starts_with(tag));
    match propagation {
        Propagation::Shared => tagged("shared:"),
        Propagation::Slave => tagged("master:") && !tagged("shared:"),
        Propagation::Private => there.propagation.is_empty(),
        Propagation::Rshared | Propagation::Rslave | Propagation::Rprivate => false,
    }
}

#[cfg(test)]
mod tests {
    use keel_unit::keys::Text;
    use keel_unit::value::FileMode;

    use super::*;

    fn parse<T: Text>(text: &str) -> T {
        T::parse(text).unwrap()
    }

    fn wanted(source: &str, target: &str, fstype: &str, options: &[&str]) -> Mount {
        Mount {
            source: Some(parse(source)),
            target: parse(target),
            fstype: Some(parse(fstype)),
            options: options.iter().map(|option| parse(option)).collect(),
            propagation: None,
            controllers: Vec::new(),
            mode: FileMode(0o755),
            existing: false,
            timeout: None,
        }
    }

    fn observed(mountinfo: &str) -> Observed {
        Observed { table: table::parse(mountinfo.as_bytes()).unwrap(), ..Observed::default() }
    }

    /// Steps as a person would type them.
    fn check(wanted: &Mount, observed: &Observed, expect: &[&str]) {
        let told = match plan(wanted, observed) {
            Ok(steps) => steps.iter().map(tell).collect(),
            Err(error) => vec![format!("error: {error}")],
        };
        assert_eq!(told, expect);
    }

    fn tell(step: &Step) -> String {
        match step {
            Step::MakeDirectory { path, mode } => format!("mkdir {mode:o} {}", path.display()),
            Step::MakeFile { path } => format!("touch {}", path.display()),
            Step::Mount { source, target, fstype, flags, data } => {
                format!(
                    "mount {fstype} {} {} {:?} {data}",
                    source.display(),
                    target.display(),
                    flags.0
                )
            }
            Step::Bind { source, target, bind } => {
                format!("{bind:?} {} {}", source.display(), target.display())
            }
            Step::ChangeFlags { target, flags } => {
                format!("flags {} {:?}", target.display(), flags.0)
            }
            Step::Remount { target, flags, data } => {
                format!("remount {} {:?} {data}", target.display(), flags.0)
            }
            Step::Propagate { target, propagation } => {
                format!("{} {}", propagation.as_str(), target.display())
            }
            Step::Delegate { target, controllers } => {
                let names: Vec<_> =
                    controllers.iter().map(|controller| controller.as_str()).collect();
                format!("delegate {} {}", target.display(), names.join(" "))
            }
        }
    }

    #[test]
    fn a_kernel_filesystem_is_mounted_once() {
        let proc = wanted("proc", "/proc", "proc", &["nosuid", "nodev", "noexec"]);
        check(
            &proc,
            &observed(""),
            &[
                "mkdir 755 /proc",
                "mount proc proc /proc MsFlags(MS_NOSUID | MS_NODEV | MS_NOEXEC) ",
            ],
        );
        check(
            &proc,
            &observed("22 1 0:21 / /proc rw,nosuid,nodev,noexec,relatime - proc whatever rw"),
            &[],
        );
        check(
            &proc,
            &observed("22 1 0:21 / /proc rw,relatime - proc proc rw"),
            &["remount /proc MsFlags(MS_NOSUID | MS_NODEV | MS_NOEXEC) "],
        );
        check(
            &proc,
            &observed("22 1 0:21 / /proc rw,relatime - tmpfs none rw"),
            &["error: something else is mounted there: tmpfs from none"],
        );
    }

    #[test]
    fn options_of_the_filesystem_are_compared_too() {
        let pts = wanted("devpts", "/dev/pts", "devpts", &["gid=5", "mode=620"]);
        check(&pts, &observed("3 1 0:24 / /dev/pts rw - devpts devpts rw,gid=5,mode=620"), &[]);
        check(
            &pts,
            &observed("3 1 0:24 / /dev/pts rw - devpts devpts rw,mode=600"),
            &["remount /dev/pts MsFlags(0x0) gid=5,mode=620"],
        );
    }

    #[test]
    fn a_device_is_the_same_by_its_number_not_by_its_name() {
        let data = wanted("PARTLABEL=keel-data", "/var/lib/keel", "ext4", &["nosuid"]);
        let on = |mountinfo: &str| Observed {
            device: Some(("/dev/vda1".into(), (254, 1))),
            ..observed(mountinfo)
        };
        check(
            &data,
            &on(""),
            &["mkdir 755 /var/lib/keel", "mount ext4 /dev/vda1 /var/lib/keel MsFlags(MS_NOSUID) "],
        );
        check(&data, &on("9 1 254:1 / /var/lib/keel rw,nosuid - ext4 /dev/root rw"), &[]);
        check(
            &data,
            &on("9 1 254:17 / /var/lib/keel rw,nosuid - ext4 /dev/vdb1 rw"),
            &["error: something else is mounted there: ext4 from /dev/vdb1"],
        );
        // The one below does not count, the one on top does.
        check(
            &data,
            &on(
                "9 1 254:1 / /var/lib/keel rw,nosuid - ext4 /dev/vda1 rw\n10 9 0:9 / /var/lib/keel rw - tmpfs t rw",
            ),
            &["error: something else is mounted there: tmpfs from t"],
        );
    }

    #[test]
    fn a_bind_mount_gets_its_flags_afterwards() {
        let bind = wanted("/var/lib/keel/etc", "/etc/keel", "none", &["bind", "ro"]);
        let directory = Observed { source_is_directory: true, ..Observed::default() };
        check(
            &bind,
            &directory,
            &[
                "mkdir 755 /etc/keel",
                "One /var/lib/keel/etc /etc/keel",
                "flags /etc/keel MsFlags(MS_RDONLY)",
            ],
        );
        let file = wanted("/run/id", "/etc/machine-id", "none", &["bind"]);
        check(
            &file,
            &Observed::default(),
            &["touch /etc/machine-id", "One /run/id /etc/machine-id"],
        );
        let bound = |mountinfo: &str| Observed {
            is_bound: true,
            source_is_directory: true,
            ..observed(mountinfo)
        };
        check(&bind, &bound("9 1 8:1 /etc /etc/keel ro - ext4 /dev/vda1 rw"), &[]);
        check(
            &bind,
            &bound("9 1 8:1 /etc /etc/keel rw - ext4 /dev/vda1 rw"),
            &["flags /etc/keel MsFlags(MS_RDONLY)"],
        );
    }

    #[test]
    fn propagation_and_controllers_come_last() {
        let root = Mount {
            source: None,
            fstype: None,
            existing: true,
            propagation: Some(Propagation::Rshared),
            ..wanted("none", "/", "none", &[])
        };
        check(&root, &observed("1 1 0:1 / / rw - tmpfs tmpfs rw"), &["rshared /"]);
        check(
            &root,
            &observed(""),
            &["error: nothing is mounted there, and the unit says that something is"],
        );
        let shared = Mount { propagation: Some(Propagation::Shared), ..root };
        check(&shared, &observed("1 1 0:1 / / rw shared:1 - tmpfs tmpfs rw"), &[]);
        check(&shared, &observed("1 1 0:1 / / rw master:1 - tmpfs tmpfs rw"), &["shared /"]);
        let cgroup = Mount {
            controllers: vec![Controller::Cpu, Controller::Pids],
            ..wanted("cgroup2", "/sys/fs/cgroup", "cgroup2", &["nsdelegate"])
        };
        check(
            &cgroup,
            &observed(""),
            &[
                "mkdir 755 /sys/fs/cgroup",
                "mount cgroup2 cgroup2 /sys/fs/cgroup MsFlags(0x0) nsdelegate",
                "delegate /sys/fs/cgroup cpu pids",
            ],
        );
        check(
            &cgroup,
            &observed("4 1 0:4 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate"),
            &["delegate /sys/fs/cgroup cpu pids"],
        );
    }
}

//! One cgroup per unit: where its processes live, what they may use, and how all of them end at once.
//!
//! Facts from the kernel's `Documentation/admin-guide/cgroup-v2.rst`. Needs `cgroup.kill`, so Linux 5.14.
//!
//! A cgroup that hands out controllers to children of its own must not hold processes ("no internal processes"). A service with
//! a delegated subtree (containerd, kubelet) therefore runs in a leaf, `main`, and has the level above to itself.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::AddWatchFlags;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::sync::Semaphore;

use super::watch::Watch;
use crate::mount::table::{self, Mounted};

/// The leaf in which the main process of a delegated unit runs.
const LEAF: &str = "main";

/// Controllers that units get, as far as the kernel has them.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];

/// How many cgroups are watched at once: the kernel gives a user 128 inotify instances in all. Others wait for their turn.
static WATCHED: Semaphore = Semaphore::const_new(64);

/// What the processes of one cgroup may use together. `None` leaves the kernel's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes above which processes of the cgroup are killed (`memory.max`).
    pub memory_max: Option<u64>,
    /// Bytes above which they are slowed down and reclaimed from (`memory.high`).
    pub memory_high: Option<u64>,
    /// How many processes and threads (`pids.max`).
    pub pids_max: Option<u64>,
    /// The share of the processor when it is contended, 1 to 10000; 100 is the default (`cpu.weight`).
    pub cpu_weight: Option<u64>,
    /// Microseconds of processor time in every 100 ms (`cpu.max`): 100000 is one processor.
    pub cpu_max: Option<u64>,
}

impl Limits {
    fn files(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("memory.max", self.memory_max.map(|bytes| bytes.to_string())),
            ("memory.high", self.memory_high.map(|bytes| bytes.to_string())),
            ("pids.max", self.pids_max.map(|count| count.to_string())),
            ("cpu.weight", self.cpu_weight.map(|weight| weight.to_string())),
            ("cpu.max", self.cpu_max.map(|micros| format!("{micros} 100000"))),
        ]
        .into_iter()
        .filter_map(|(file, value)| Some((file, value?)))
    }
}

/// A limit that this machine cannot enforce. The unit runs; the report says that it runs without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unapplied {
    /// The cgroup's file, which is named `controller.what`.
    pub limit: &'static str,
    /// The kernel's answer.
    pub errno: Errno,
}

impl fmt::Display for Unapplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let controller = self.limit.split('.').next().unwrap_or(self.limit);
        match self.errno {
            Errno::ENOENT => write!(
                f,
                "{} is not enforced: the kernel offers no {controller} controller",
                self.limit
            ),
            errno => write!(f, "{} is not enforced: {}", self.limit, errno.desc()),
        }
    }
}

/// Something about a cgroup failed.
#[derive(Debug, Error)]
#[error("{}: {kind}", path.display())]
pub struct CgroupError {
    /// The cgroup's directory, or a file in it.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub kind: CgroupErrorKind,
}

/// What failed about a cgroup.
#[derive(Debug, Error)]
pub enum CgroupErrorKind {
    /// There is no cgroup v2 hierarchy where one is expected.
    #[error("no cgroup v2 hierarchy is mounted here")]
    NotMounted,
    /// A name that would leave the hierarchy, or collide with a file of the kernel's.
    #[error("not a name for a cgroup")]
    Name,
    /// It cannot be made.
    #[error("cannot create the cgroup")]
    Create(#[source] io::Error),
    /// Its processes cannot be killed.
    #[error("cannot kill its processes")]
    Kill(#[source] io::Error),
    /// Its state cannot be read or watched.
    #[error("cannot read its state")]
    Read(#[source] io::Error),
    /// It cannot be removed.
    #[error("cannot remove the cgroup")]
    Remove(#[source] io::Error),
}

/// The part of the cgroup v2 hierarchy in which units live.
#[derive(Debug, Clone)]
pub struct Cgroups {
    base: PathBuf,
    /// The mount of the hierarchy that holds `base`.
    mount: Hierarchy,
}

/// Where the hierarchy is mounted, and which of its cgroups stands there: what turns a path of /proc/PID/cgroup into a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    target: PathBuf,
    /// As /proc/PID/cgroup names it: seen from the root of our cgroup namespace.
    root: PathBuf,
}

impl Hierarchy {
    /// The mount that a directory lies on. The last of the table is on top.
    fn holding(directory: &Path, table: &[Mounted]) -> Option<Self> {
        let mounts = table.iter().filter(|mount| mount.fstype == "cgroup2");
        let Mounted { target, root, .. } = mounts
            .filter(|mount| directory.starts_with(&mount.target))
            .max_by_key(|mount| mount.target.components().count())?;
        Some(Self { target: target.clone(), root: root.clone() })
    }

    /// The directory of a cgroup that /proc/PID/cgroup names; none if the mount does not show it.
    fn directory(&self, named: &str) -> Option<PathBuf> {
        Path::new(named).strip_prefix(&self.root).ok().map(|below| self.target.join(below))
    }
}

impl Cgroups {
    /// The hierarchy mounted at `root`, with units in its directory `name`. Makes that directory and hands the kernel's controllers
    /// down to it.
    pub fn at(root: &Path, name: &str) -> Result<Self, CgroupError> {
        let fail = |kind| CgroupError { path: root.to_path_buf(), kind };
        let mounted =
            statfs(root).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
        if !mounted {
            return Err(fail(CgroupErrorKind::NotMounted));
        }
        let base = child_path(root, name)?;
        let table = table::observe().map_err(|error| fail(CgroupErrorKind::Read(error)))?;
        let mount =
            Hierarchy::holding(root, &table).ok_or_else(|| fail(CgroupErrorKind::NotMounted))?;
        create(&base)?;
        enable_controllers(root);
        enable_controllers(&base);
        Ok(Self { base, mount })
    }

    /// The directory that holds the units' cgroups.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The cgroups of the hierarchy beside the one that holds the units.
    pub fn beside(&self) -> Vec<Cgroup> {
        let others = self.base.parent().map(children).into_iter().flatten().flatten();
        others.filter(|path| *path != self.base).map(|path| self.cgroup(path)).collect()
    }

    /// The cgroup that the unit `name` has, or would have.
    pub fn existing(&self, name: &str) -> Result<Cgroup, CgroupError> {
        Ok(self.cgroup(child_path(&self.base, name)?))
    }

    fn cgroup(&self, path: PathBuf) -> Cgroup {
        Cgroup { home: path.clone(), path, mount: self.mount.clone() }
    }

    /// The cgroup of the unit `name`, made with `limits` (or found, and given them), and which of them cannot be enforced here.
    ///
    /// `delegate` gives the service the level above its own processes, with controllers, for cgroups that it makes itself.
    pub fn unit(
        &self,
        name: &str,
        limits: &Limits,
        delegate: bool,
    ) -> Result<(Cgroup, Vec<Unapplied>), CgroupError> {
        let path = child_path(&self.base, name)?;
        create(&path)?;
        let unapplied = limits
            .files()
            .filter_map(|(limit, value)| {
                let error = write(&path.join(limit), &value).err()?;
                // In a cgroup that lacks the controller its files do not exist; opening one without O_CREAT is ENOENT, but
                // kernfs answers EACCES or EPERM for a file that it will not create.
                Some(Unapplied { limit, errno: errno(&error) })
            })
            .collect();
        let home = if delegate {
            let leaf = path.join(LEAF);
            create(&leaf)?;
            enable_controllers(&path);
            leaf
        } else {
            path.clone()
        };
        Ok((Cgroup { path, home, mount: self.mount.clone() }, unapplied))
    }
}

/// A name must be one path component that the kernel cannot have given to a file (`memory.max`, `cgroup.procs`).
fn child_path(parent: &Path, name: &str) -> Result<PathBuf, CgroupError> {
    let path = parent.join(name);
    let component =
        !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0', '\n']);
    let reserved = CONTROLLERS
        .iter()
        .chain(&["cgroup", "rdma", "misc"])
        .any(|controller| name.strip_prefix(controller).is_some_and(|rest| rest.starts_with('.')));
    if component && !reserved {
        Ok(path)
    } else {
        Err(CgroupError { path, kind: CgroupErrorKind::Name })
    }
}

fn create(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError { path: path.to_path_buf(), kind: CgroupErrorKind::Create(error) })
        }
        _ => Ok(()),
    }
}

/// Hands every controller down that this level has. One by one: a controller that cannot be handed down (cpu while real-time
/// threads run, say) must not keep the others back. What is missing shows up as an [`Unapplied`] limit of the unit that asks.
fn enable_controllers(path: &Path) {
    let control = path.join("cgroup.subtree_control");
    for controller in CONTROLLERS {
        drop(write(&control, &format!("+{controller}")));
    }
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// One unit's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
    home: PathBuf,
    mount: Hierarchy,
}

impl Cgroup {
    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A descriptor of the directory in which the main process starts, for `CLONE_INTO_CGROUP`.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        use std::os::unix::fs::OpenOptionsExt as _;
        fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_DIRECTORY)
            .open(&self.home)
            .map(Into::into)
    }

    /// Kills everything in the cgroup and below it, at once: nothing can fork its way out.
    pub fn kill(&self) -> Result<(), CgroupError> {
        match write(&self.path.join("cgroup.kill"), "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.error("cgroup.kill", CgroupErrorKind::Kill(error)))
            }
            _ if self.path.exists() && !self.path.join("cgroup.kill").exists() => {
                let old =
                    io::Error::new(io::ErrorKind::Unsupported, "the kernel is older than 5.14");
                Err(self.error("cgroup.kill", CgroupErrorKind::Kill(old)))
            }
            _ => Ok(()),
        }
    }

    /// The processes in it and below it.
    pub fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut pids = Vec::new();
        let mut pending = vec![self.path.clone()];
        while let Some(directory) = pending.pop() {
            pending.extend(
                children(&directory)
                    .map_err(|error| self.error("", CgroupErrorKind::Read(error)))?,
            );
            match fs::read_to_string(directory.join("cgroup.procs")) {
                Ok(text) => pids
                    .extend(text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw)),
                Err(error) if gone(&error) => {}
                Err(error) => return Err(self.error("cgroup.procs", CgroupErrorKind::Read(error))),
            }
        }
        Ok(pids)
    }

    /// Whether `cgroup`, a path as in `/proc/PID/cgroup`, is this cgroup or below it. A cgroup outside of our namespace's root has
    /// `..` in its path, and is none of ours.
    pub fn holds(&self, cgroup: &str) -> bool {
        let outside = Path::new(cgroup).components().any(|part| part == Component::ParentDir);
        self.mount.directory(cgroup).is_some_and(|found| !outside && found.starts_with(&self.path))
    }

    /// Whether any process lives in it or below it.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            Err(error) if gone(&error) => Ok(false),
            Err(error) => Err(self.error("cgroup.events", CgroupErrorKind::Read(error))),
        }
    }

    /// Waits until no process lives in it. The kernel tells through the modification of `cgroup.events`: nothing polls.
    pub async fn wait_empty(&self) -> Result<(), CgroupError> {
        // As a rule the main process was all that there was, and nothing is to be waited for.
        if !self.populated()? {
            return Ok(());
        }
        // Closed by nobody.
        let _turn = WATCHED.acquire().await.ok();
        let read = |error| self.error("cgroup.events", CgroupErrorKind::Read(error));
        let events = self.path.join("cgroup.events");
        let watch =
            match Watch::new(&events, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_DELETE_SELF) {
                Err(error) if gone(&error) => return Ok(()),
                watch => watch.map_err(read)?,
            };
        // The watch stands before the first look, so a change after the look is a wakeup.
        while self.populated()? {
            watch.changed().await.map_err(read)?;
        }
        Ok(())
    }

    /// Bytes of memory that its processes use now; none without a memory controller.
    pub fn memory_current(&self) -> Option<u64> {
        fs::read_to_string(self.path.join("memory.current")).ok()?.trim().parse().ok()
    }

    /// Removes it with all cgroups below. Fails while a process lives in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        remove_tree(&self.path).map_err(|error| self.error("", CgroupErrorKind::Remove(error)))
    }

    fn error(&self, file: &str, kind: CgroupErrorKind) -> CgroupError {
        let path = if file.is_empty() { self.path.clone() } else { self.path.join(file) };
        CgroupError { path, kind }
    }
}

/// A cgroup that was removed reads as ENOENT by path and as ENODEV through a descriptor.
fn gone(error: &io::Error) -> bool {
    matches!(errno(error), Errno::ENOENT | Errno::ENODEV)
}

fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()),
        Err(error) if gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Deepest first, with a list instead of recursion: a delegated subtree is as deep as its owner likes.
fn remove_tree(path: &Path) -> io::Result<()> {
    let mut found = vec![path.to_path_buf()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        found.extend(children(&directory)?);
        next += 1;
    }
    for directory in found.iter().rev() {
        match fs::remove_dir(directory) {
            Err(error) if !gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_hierarchy_and_off_the_kernels_files() {
        let check = |name: &str, expect: bool| {
            assert_eq!(child_path(Path::new("/cg/keel"), name).is_ok(), expect, "{name:?}");
        };
        check("service.containerd", true);
        check("link@eth0", true);
        check("", false);
        check("..", false);
        check(".", false);
        check("a/b", false);
        check("memory.max", false);
        check("cgroup.procs", false);
        check("memory-hog", true);
    }

    #[test]
    fn a_process_belongs_to_the_cgroup_that_holds_it() {
        // Mounted as init does it; a part of the hierarchy, mounted elsewhere; and a mount over another.
        let table = table::parse(
            b"30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
              31 1 0:26 /slice/node /run/cg rw - cgroup2 cgroup2 rw\n\
              32 1 0:5 / /run/cg/keel rw - tmpfs tmpfs rw\n",
        )
        .unwrap();
        let check = |path: &str, named: &str, expect: bool| {
            let path = PathBuf::from(path);
            let mount = Hierarchy::holding(&path, &table).unwrap();
            let cgroup = Cgroup { home: path.join(LEAF), path, mount };
            assert_eq!(cgroup.holds(named), expect, "{cgroup:?} {named}");
        };
        let unit = "/sys/fs/cgroup/keel/containerd";
        check(unit, "/keel/containerd", true);
        check(unit, "/keel/containerd/main", true);
        check(unit, "/outer/keel/containerd/main", false);
        check(unit, "/kubepods/pod1/keel/containerd", false);
        check(unit, "/keel/containerd-two", false);
        check(unit, "/kubepods/containerd", false);
        check(unit, "/keel", false);
        check(unit, "/", false);
        check(unit, "", false);
        check(unit, "/../keel/containerd", false);
        check(unit, "/keel/containerd/../web", false);
        let part = "/run/cg/keel/web";
        check(part, "/slice/node/keel/web/main", true);
        check(part, "/keel/web", false);
        assert_eq!(Hierarchy::holding(Path::new("/sys/fs"), &table), None);
    }

    #[test]
    fn an_unenforced_limit_says_why() {
        let check =
            |limit, errno, expect: &str| assert_eq!(Unapplied { limit, errno }.to_string(), expect);
        check(
            "memory.max",
            Errno::ENOENT,
            "memory.max is not enforced: the kernel offers no memory controller",
        );
        check(
            "cpu.weight",
            Errno::ERANGE,
            "cpu.weight is not enforced: Math result not representable",
        );
    }
}

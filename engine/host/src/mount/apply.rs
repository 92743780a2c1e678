//! Does as the plan says. Behaviour belongs there, not here.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use keel_unit::kinds::{Mount, Propagation};
use keel_unit::value::Source;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{major, minor};

use super::cgroup;
use super::error::{MountError, MountErrorKind};
use super::options::{Bind, Flags, Options};
use super::plan::{self, Observed, Step};
use super::table;
use crate::disk::inventory::Roots;
use crate::disk::source;

/// What activation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOutcome {
    /// The device that is mounted, if it is one.
    pub device: Option<PathBuf>,
    /// Whether it was mounted just now, and not before.
    pub mounted: bool,
    /// The controllers that are handed down, of those that the unit names.
    pub controllers: Vec<&'static str>,
}

/// Mounts what the unit says. Blocks, for as long as the device does.
///
/// # Errors
/// When it cannot be mounted. What is on the device has not been touched then.
pub fn activate(unit: &Mount, roots: &Roots) -> Result<MountOutcome, MountError> {
    let failed = |kind| MountError { target: unit.target.as_path().to_owned(), kind };
    let observed = observe(unit, roots).map_err(failed)?;
    let steps = plan::plan(unit, &observed).map_err(failed)?;
    let mounted = steps.iter().any(|step| matches!(step, Step::Mount { .. } | Step::Bind { .. }));
    let mut controllers = Vec::new();
    for step in &steps {
        controllers.extend(apply(step).map_err(failed)?);
    }
    Ok(MountOutcome { device: observed.device.map(|(node, _)| node), mounted, controllers })
}

/// Unmounts what the unit mounted; whether there was anything to unmount. Blocks until everything is written to the device.
///
/// Kernel filesystems stay: unmounting them saves nothing, and others need them to the end.
///
/// # Errors
/// [`MountErrorKind::Busy`] with the processes that hold it; the mount stays then.
pub fn deactivate(unit: &Mount) -> Result<bool, MountError> {
    let target = unit.target.as_path();
    if unit.existing || matches!(unit.source, Some(Source::Pseudo(_))) {
        return Ok(false);
    }
    match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(true),
        // Not a mount point (any more), or not there at all: it is as it should be.
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(false),
        Err(Errno::EBUSY) => {
            let kind = MountErrorKind::Busy { holders: holders(target) };
            Err(MountError { target: target.to_owned(), kind })
        }
        Err(errno) => {
            let kind = MountErrorKind::Call { what: "unmount".to_owned(), source: errno.into() };
            Err(MountError { target: target.to_owned(), kind })
        }
    }
}

fn observe(unit: &Mount, roots: &Roots) -> Result<Observed, MountErrorKind> {
    let looking = |path: &Path| {
        let path = path.to_owned();
        move |source| MountErrorKind::Observe { path, source }
    };
    let table = table::observe().map_err(looking(Path::new("/proc/thread-self/mountinfo")))?;
    let mut observed = Observed { table, ..Observed::default() };
    let bind = Options::parse(&unit.options).map_err(MountErrorKind::Option)?.bind.is_some();
    match &unit.source {
        None | Some(Source::Pseudo(_)) => {}
        Some(Source::Path(path)) if bind => {
            let from = fs::metadata(path.as_path()).map_err(looking(path.as_path()))?;
            let at = fs::metadata(unit.target.as_path()).ok();
            observed.source_is_directory = from.is_dir();
            observed.is_bound =
                at.is_some_and(|at| (at.dev(), at.ino()) == (from.dev(), from.ino()));
        }
        Some(device) => {
            let node = source::resolve(device, roots).map_err(MountErrorKind::Source)?;
            let number = fs::metadata(&node).map_err(looking(&node))?.rdev();
            let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            observed.device = Some((node, (narrow(major(number)), narrow(minor(number)))));
        }
    }
    Ok(observed)
}

fn apply(step: &Step) -> Result<Vec<&'static str>, MountErrorKind> {
    match step {
        Step::MakeDirectory { path, mode } => {
            make_directory(path, *mode).map_err(MountErrorKind::MakePoint)?
        }
        Step::MakeFile { path } => make_file(path).map_err(MountErrorKind::MakePoint)?,
        Step::Mount { source, target, fstype, flags, data } => {
            let what = format!("mount {fstype} from {}", source.display());
            call(what, Some(source), target, Some(fstype), flags.0, Some(data))?;
        }
        Step::Bind { source, target, bind } => {
            let what = format!("bind {}", source.display());
            let recursive =
                if *bind == Bind::Recursive { MsFlags::MS_REC } else { MsFlags::empty() };
            call(what, Some(source), target, None, MsFlags::MS_BIND | recursive, None)?;
        }
        Step::ChangeFlags { target, flags: Flags(flags) } => {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | *flags;
            call("change its flags".to_owned(), None, target, None, flags, None)?;
        }
        Step::Remount { target, flags: Flags(flags), data } => {
            let flags = MsFlags::MS_REMOUNT | *flags;
            call("change its options".to_owned(), None, target, None, flags, Some(data))?;
        }
        Step::Propagate { target, propagation } => {
            let what = format!("make it {}", propagation.as_str());
            call(what, None, target, None, propagation_flags(*propagation), None)?;
        }
        Step::Delegate { target, controllers } => return cgroup::delegate(target, controllers),
    }
    Ok(Vec::new())
}

fn call(
    what: String,
    source: Option<&PathBuf>,
    target: &Path,
    fstype: Option<&String>,
    flags: MsFlags,
    data: Option<&String>,
) -> Result<(), MountErrorKind> {
    let fstype = fstype.map(String::as_str);
    let data = data.map(String::as_str).filter(|data| !data.is_empty());
    mount(source, target, fstype, flags, data)
        .map_err(|errno| MountErrorKind::Call { what, source: errno.into() })
}

fn propagation_flags(propagation: Propagation) -> MsFlags {
    match propagation {
        Propagation::Shared => MsFlags::MS_SHARED,
        Propagation::Rshared => MsFlags::MS_SHARED | MsFlags::MS_REC,
        Propagation::Slave => MsFlags::MS_SLAVE,
        Propagation::Rslave => MsFlags::MS_SLAVE | MsFlags::MS_REC,
        Propagation::Private => MsFlags::MS_PRIVATE,
        Propagation::Rprivate => MsFlags::MS_PRIVATE | MsFlags::MS_REC,
    }
}

/// The mode is that of the mount point; what leads there gets the common one.
fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        // Another mount below the same directory was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

fn make_file(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    make_directory(path.parent().unwrap_or(Path::new("/")), 0o755)?;
    fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).map(drop)
}

/// More than a line of a console holds is of no use.
const MOST_HOLDERS: usize = 5;

/// Who has a file, a directory or a program below this path in use, as far as /proc tells.
fn holders(target: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let holder = |id: u32| {
        let directory = PathBuf::from(format!("/proc/{id}"));
        let descriptors = fs::read_dir(directory.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let links =
            ["cwd", "root", "exe"].into_iter().map(|link| directory.join(link)).chain(descriptors);
        let held = links
            .filter_map(|link| fs::read_link(link).ok())
            .find(|path| path.starts_with(target))?;
        let name = fs::read_to_string(directory.join("comm")).unwrap_or_default();
        Some(format!("{} ({id}: {})", name.trim_end(), held.display()))
    };
    ids.filter_map(holder).take(MOST_HOLDERS).collect()
}

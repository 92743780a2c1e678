//! The kinds whose work is done when it is done: mounts, modules, parameters, files, disks. One line each to their room.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keel_plan::Report;
use keel_unit::Kind;
use keel_unit::kinds::{HostName, Module};
use keel_unit::value::Source;

use super::program::reason;
use super::slot::{Activation, Slot};
use super::{Shared, leftover};
use crate::disk::{filesystem, partition};
use crate::hostname::HostnameError;
use crate::module::{Modules, Options, hotplug};
use crate::process::Asks;
use crate::{clock, device, hostname, identity, mount, sysctl};

/// How long what has to be done before an unmount may take. With what [`leftover::end`] takes, a mount's stop has 10 s.
const LAST_WORK: Duration = Duration::from_secs(2);

/// Does a unit's work.
pub(super) async fn run(shared: &Arc<Shared>, of: &Activation, asks: &mut Asks) -> Report {
    let worked = match &of.unit.kind {
        // Work that waits, and may simply be dropped when somebody has waited enough.
        Kind::Device(device) => tokio::select! {
            found = wait_for(device) => found,
            _ = asks.next() => return Report::Stopped,
        },
        Kind::Partition(unit) => {
            let (roots, say) = (&shared.roots, shared.say(&of.slot));
            tokio::select! {
                located = partition::activate(unit, roots, &say) => located.map(drop).map_err(|error| reason(&error)),
                _ = asks.next() => return Report::Stopped,
            }
        }
        // A tool that runs (e2fsck, mke2fs) ends when it is dropped.
        Kind::Filesystem(unit) => {
            let (roots, say) = (&shared.roots, shared.say(&of.slot));
            tokio::select! {
                made = filesystem::activate(unit, roots, &shared.tools, &say) => made.map(drop).map_err(|error| reason(&error)),
                _ = asks.next() => return Report::Stopped,
            }
        }
        // Work that a thread does. A thread cannot be taken back: whoever asks for an end hears of it when the work has ended,
        // and the scheduler knows what to make of one that never does.
        _ => {
            let (shared, of) = (shared.clone(), of.clone());
            tokio::task::spawn_blocking(move || work(&shared, &of))
                .await
                .unwrap_or_else(|error| Err(error.to_string()))
        }
    };
    match worked {
        Ok(()) => Report::Done,
        Err(why) => Report::Failed { why: why.into() },
    }
}

async fn wait_for(device: &keel_unit::kinds::Device) -> Result<(), String> {
    match device::Wanted::of(device) {
        Some(wanted) => device::wait(&wanted).await.map(drop).map_err(|error| reason(&error)),
        None => Ok(()),
    }
}

/// On a thread of its own.
fn work(shared: &Arc<Shared>, of: &Activation) -> Result<(), String> {
    fn said<T>(result: Result<T, impl std::error::Error>) -> Result<(), String> {
        result.map(drop).map_err(|error| reason(&error))
    }
    match &of.unit.kind {
        Kind::Module(module) => load(shared, &of.slot, module),
        Kind::Sysctl(unit) => said(sysctl::apply(Path::new("/proc/sys"), unit)),
        Kind::Hostname(unit) => said(name(shared, unit)),
        Kind::Time(unit) => said(clock::apply(unit)),
        Kind::File(unit) => said(shared.places.files.make(unit)),
        Kind::Identity(unit) => said(identity::activate(unit)),
        Kind::Mount(unit) => said(mount::activate(unit, &shared.roots)),
        // A target is reached by the scheduler alone; the others have their own tasks.
        Kind::Target(_)
        | Kind::Device(_)
        | Kind::Partition(_)
        | Kind::Filesystem(_)
        | Kind::Link(_)
        | Kind::Oneshot(_)
        | Kind::Service(_) => Ok(()),
    }
}

fn name(shared: &Shared, unit: &HostName) -> Result<(), HostnameError> {
    let mut named = shared.named();
    let set = hostname::apply(unit, named.as_ref())?;
    *named = set.or(named.take());
    Ok(())
}

/// Takes down what a unit left on the machine. Most leave what is wanted until the power goes: parameters, modules, and files, but for
/// one that the graph that is being taken on does not have.
pub(super) async fn take_down(shared: &Arc<Shared>, of: &Activation) -> Result<(), String> {
    let unit = match &of.unit.kind {
        Kind::Mount(unit) => unit,
        Kind::File(unit) => {
            remove(shared, of, unit.path.as_path()).await;
            return Ok(());
        }
        _ => return Ok(()),
    };
    // Kernel filesystems stay mounted to the end, so nobody has to leave them.
    if !unit.existing && !matches!(unit.source, Some(Source::Pseudo(_))) {
        leftover::end(shared).await;
        last_work(shared, unit.target.as_path()).await;
    }
    let unit = of.unit.clone();
    let unmount = move || match &unit.kind {
        Kind::Mount(unit) => mount::deactivate(unit).map(drop).map_err(|error| reason(&error)),
        _ => Ok(()),
    };
    tokio::task::spawn_blocking(unmount).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Removes what a file unit made, if it goes for good. Where that fails the file stays, which no other unit has to suffer for.
async fn remove(shared: &Arc<Shared>, of: &Activation, path: &Path) {
    if !shared.goes(path) {
        return;
    }
    let (files, path) = (shared.places.files.clone(), path.to_owned());
    let removed = tokio::task::spawn_blocking(move || files.remove(&path)).await;
    match removed {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => shared.fact(&of.slot, reason(&error)),
        Err(error) => shared.fact(&of.slot, error.to_string()),
    }
}

/// What has to be done while something is still mounted, if the disk lets it.
async fn last_work(shared: &Shared, target: &Path) {
    if let Some(last) = shared.before_unmount.get().filter(|last| last.target == target) {
        let work = last.work.clone();
        let done = tokio::task::spawn_blocking(move || work());
        // Of a disk that does not answer one hears when the unmount does not end.
        let _ = tokio::time::timeout(LAST_WORK, done).await;
    }
}

fn load(shared: &Arc<Shared>, slot: &Arc<Slot>, module: &Module) -> Result<(), String> {
    let modules = modules(shared)?;
    if let Some(name) = &module.name {
        let parameters = module.parameters.as_ref().map(|line| line.as_str()).unwrap_or_default();
        return modules.load(name.as_str(), parameters).map(drop).map_err(|error| reason(&error));
    }
    // Opened before the first look, so that no device falls between the look and the listening.
    let uevents = device::UeventSocket::open();
    tell(shared, slot, &modules.coldplug(Path::new("/sys")));
    let (shared, slot) = (shared.clone(), slot.clone());
    tokio::spawn(async move {
        let error = match uevents {
            Ok(uevents) => {
                let (telling, of) = (shared.clone(), slot.clone());
                let report = move |report| tell(&telling, &of, &report);
                let Err(error) = hotplug(modules, "/sys".into(), uevents, report).await;
                error
            }
            Err(error) => error,
        };
        shared.fact(&slot, format!("devices that appear from now on get no driver: {error}"));
    });
    Ok(())
}

fn tell(shared: &Shared, slot: &Arc<Slot>, report: &crate::module::ColdplugReport) {
    if !report.loaded.is_empty() {
        let names: Vec<_> = report.loaded.iter().map(ToString::to_string).collect();
        shared.fact(slot, format!("loaded {}", names.join(" ")));
    }
    // A driver that fails must not keep the machine down: the unit that needs its device says what is missing.
    for failed in &report.failed {
        shared.fact(slot, reason(failed));
    }
}

/// The tree of the running kernel. Read once, by whoever comes first; the others wait for that.
fn modules(shared: &Shared) -> Result<Arc<Modules>, String> {
    let open = || {
        let release = nix::sys::utsname::uname().map_err(|errno| errno.to_string())?;
        let release = release.release().to_string_lossy().into_owned();
        let modules =
            Modules::open(&shared.places.root, &release).map_err(|error| reason(&error))?;
        Ok(Arc::new(modules.with_options(options(shared))))
    };
    shared.modules.get_or_init(open).clone()
}

/// What is said of modules, on the command line and by the units. Known before any is loaded: coldplug, or a module that
/// needs this one, may come before the unit that has its parameters, and a module takes them only while it is loaded.
fn options(shared: &Shared) -> Options {
    let mut options = shared.places.modules.clone();
    for unit in shared.all_units().iter() {
        if let Kind::Module(Module { name: Some(name), parameters: Some(parameters), .. }) =
            &unit.kind
        {
            options.add_parameter(name.as_str(), parameters.as_str());
        }
    }
    options
}

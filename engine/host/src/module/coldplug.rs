//! Loads what the machine's own hardware asks for.
//!
//! Every device says in a `modalias` file what it is. A driver that is loaded may bring new devices (virtio_pci brings
//! the virtio bus with its disks and links). The kernel tells of those while the driver's init function runs, so their
//! drivers join the loading at once, and do not wait for everything that was found before them. Where the kernel's
//! word cannot be had, or some of it was lost, the devices are looked through again until nothing is new.
//!
//! A device that appears later still (USB, a disk behind a slow controller) is met by [`hotplug`](super::hotplug()).

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};

use super::loader::{Loaded, ModuleError, ModuleErrorKind, Modules};
use super::name::ModuleName;
use crate::device::{Received, Subscription};

/// How many modules are loaded at the same time, at most. A driver's init function mostly waits for its hardware, so
/// a machine with one core gains from a second thread too.
const MAX_THREADS: usize = 16;

/// What coldplug did.
#[derive(Debug, Default)]
pub struct ColdplugReport {
    /// In the kernel since now; what they needed is not listed.
    pub loaded: Vec<ModuleName>,
    /// Loaded and gone again: the driver found no hardware of its own. Usual for the processor's many drivers.
    pub declined: Vec<ModuleName>,
    /// What did not load.
    pub failed: Vec<ModuleError>,
    /// Devices that nothing in the tree knows, counted by what they say they are.
    pub unmatched: usize,
    /// How often the devices were looked through.
    pub looks: usize,
}

impl ColdplugReport {
    fn record(&mut self, module: ModuleName, result: Result<Loaded, ModuleErrorKind>) {
        match result {
            Ok(Loaded::Now) => self.loaded.push(module),
            Ok(Loaded::Already | Loaded::Builtin) => {}
            Err(ModuleErrorKind::Insert { source, .. }) if source.is_no_such_device() => {
                self.declined.push(module)
            }
            Err(kind) => self.failed.push(ModuleError { name: module.to_string(), kind }),
        }
    }
}

/// What devices have said they are since the machine started, and the modules that were asked for because of it; each is
/// asked for once, so that a driver that found no hardware of its own is left alone.
#[derive(Debug, Default)]
pub(super) struct Seen {
    aliases: BTreeSet<String>,
    asked: BTreeSet<ModuleName>,
}

impl Modules {
    /// Loads the modules for every device under `sys_root` (/sys) that was not seen before, in parallel, until no new
    /// device appears. Blocks.
    pub fn coldplug(&self, sys_root: &Path) -> ColdplugReport {
        // Without uevents the devices of each bus wait for all drivers that were found before them; nothing is missed.
        let uevents = Subscription::open().ok();
        self.coldplug_with(sys_root, uevents.as_ref())
    }

    pub(super) fn coldplug_with(
        &self,
        sys_root: &Path,
        uevents: Option<&Subscription>,
    ) -> ColdplugReport {
        let mut report = ColdplugReport::default();
        let all_told = Cell::new(uevents.is_some());
        let told = || {
            let mut told = Vec::new();
            let whole = uevents.is_some_and(|uevents| told_aliases(uevents, &mut told));
            all_told.set(all_told.get() && whole);
            told
        };
        loop {
            report.looks += 1;
            if !self.serve(modaliases(sys_root), told, &mut report) || all_told.get() {
                break;
            }
            all_told.set(uevents.is_some());
        }
        report.loaded.sort();
        report.declined.sort();
        report.failed.sort_by(|a, b| a.name.cmp(&b.name));
        report
    }

    /// Loads what serves those of `aliases` that are new, and what `told` says of after each load; false if nothing was
    /// new at all.
    pub(super) fn serve(
        &self,
        aliases: Vec<String>,
        told: impl Fn() -> Vec<String>,
        report: &mut ColdplugReport,
    ) -> bool {
        let seen = &mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut wanted) = self.wanted(aliases, seen, report) else { return false };
        if wanted.is_empty() {
            return true;
        }
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = (cores + 1).min(MAX_THREADS);
        let (queue, work) = mpsc::channel::<ModuleName>();
        let work = Mutex::new(work);
        let (done, results) = mpsc::channel();
        std::thread::scope(|scope| {
            // Owned by this closure: when it ends, whatever way, the queue closes and the threads end.
            let queue = queue;
            for _ in 0..threads {
                let (work, done) = (&work, done.clone());
                scope.spawn(move || {
                    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    while let Ok(module) = next() {
                        let result = self.load_module(&module, "");
                        if done.send((module, result)).is_err() {
                            break;
                        }
                    }
                });
            }
            let mut under_way = 0;
            loop {
                // No more than there are threads, so that what is told of next can still go first.
                while under_way < threads
                    && let Some(module) = wanted.pop_front()
                {
                    under_way += usize::from(queue.send(module).is_ok());
                }
                if under_way == 0 {
                    break;
                }
                let Ok((module, result)) = results.recv() else { break };
                under_way -= 1;
                report.record(module, result);
                // What has just appeared goes first: it hangs on a chain of drivers, and chains take longest.
                for module in self.wanted(told(), seen, report).into_iter().flatten().rev() {
                    wanted.push_front(module);
                }
            }
        });
        true
    }

    /// The modules that serve those of `aliases` that are new, each once, in the order to load them; `None` if none is
    /// new.
    fn wanted(
        &self,
        mut aliases: Vec<String>,
        seen: &mut Seen,
        report: &mut ColdplugReport,
    ) -> Option<VecDeque<ModuleName>> {
        aliases.sort_by_key(|alias| !may_bring_devices(alias));
        let mut wanted = None;
        for alias in aliases {
            if seen.aliases.contains(&alias) {
                continue;
            }
            let wanted = wanted.get_or_insert_with(VecDeque::new);
            let serving = self.tree.aliases.lookup(&alias);
            report.unmatched += usize::from(serving.is_empty());
            for module in serving {
                if self.tree.modules.contains_key(module)
                    && !self.options.is_blacklisted(module)
                    && seen.asked.insert(module.clone())
                {
                    wanted.push_back(module.clone());
                }
            }
            seen.aliases.insert(alias);
        }
        wanted
    }
}

/// Whether a driver for this may bring further devices, which other units wait for. Those go first; a power button can
/// wait.
fn may_bring_devices(alias: &str) -> bool {
    const BUSES: [&str; 9] =
        ["pci:", "virtio:", "vmbus:", "xen:", "usb:", "scsi:", "nvme:", "sdio:", "mmc:"];
    BUSES.iter().any(|bus| alias.starts_with(bus))
}

/// What the kernel has told of new devices, without waiting; false if some of it was lost.
fn told_aliases(uevents: &Subscription, told: &mut Vec<String>) -> bool {
    loop {
        match uevents.try_receive() {
            Ok(Some(Received::Event(event))) => {
                if event.adds()
                    && let Some(alias) = event.property("MODALIAS")
                {
                    told.push(alias.to_owned());
                }
            }
            Ok(None) => return true,
            Ok(Some(Received::Overrun)) | Err(_) => return false,
        }
    }
}

/// What every device says it is. Devices may vanish while this looks; that is no error.
///
/// Every device that the kernel tells of stands under a bus or a class (lib/kobject_uevent.c asks for one of them); the
/// processors say together what they are. A walk through all of /sys/devices finds the same, and takes longer.
fn modaliases(sys_root: &Path) -> Vec<String> {
    let buses = entries(&sys_root.join("bus")).map(|bus| bus.join("devices"));
    let classes = entries(&sys_root.join("class"));
    let found = buses.chain(classes).chain([sys_root.join("devices/system")]).flat_map(|dir| {
        entries(&dir).filter_map(|device| std::fs::read_to_string(device.join("modalias")).ok())
    });
    found.map(|alias| alias.trim().to_owned()).filter(|alias| !alias.is_empty()).collect()
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

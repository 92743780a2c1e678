//! Loads what the machine's own hardware asks for.
//!
//! Every device says in a `modalias` file what it is. A driver that is loaded may bring new devices (virtio_pci
//! brings the virtio bus with its disks and links), so the walk is repeated until it finds nothing new. A device
//! that appears later still (USB, a disk behind a slow controller) is met by [`hotplug`](super::hotplug()).

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::loader::{Loaded, ModuleError, ModuleErrorKind, Modules};
use super::name::ModuleName;

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
    /// How often the devices were looked through, the last time in vain.
    pub rounds: usize,
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

/// What devices have said they are, and what was made of it; each is asked for once.
#[derive(Debug, Default)]
pub(super) struct Seen {
    aliases: BTreeSet<String>,
    asked: BTreeSet<ModuleName>,
}

impl Modules {
    /// Loads the modules for every device under `sys_root` (/sys), in parallel, until no new device appears. Blocks.
    pub fn coldplug(&self, sys_root: &Path) -> ColdplugReport {
        self.coldplug_seen(sys_root, &mut Seen::default())
    }

    pub(super) fn coldplug_seen(&self, sys_root: &Path, seen: &mut Seen) -> ColdplugReport {
        let mut report = ColdplugReport::default();
        loop {
            report.rounds += 1;
            let aliases = modaliases(&sys_root.join("devices"));
            if !self.serve(aliases, seen, &mut report) {
                break;
            }
        }
        report.loaded.sort();
        report.declined.sort();
        report.failed.sort_by(|a, b| a.name.cmp(&b.name));
        report
    }

    /// Loads what serves those `aliases` that are new; false if none is.
    pub(super) fn serve(
        &self,
        aliases: impl IntoIterator<Item = String>,
        seen: &mut Seen,
        report: &mut ColdplugReport,
    ) -> bool {
        let mut any_new = false;
        let mut wanted = Vec::new();
        for alias in aliases {
            let serving = self.tree.aliases.lookup(&alias);
            if !seen.aliases.insert(alias) {
                continue;
            }
            any_new = true;
            if serving.is_empty() {
                report.unmatched += 1;
            }
            for module in serving {
                if self.tree.modules.contains_key(module)
                    && !self.options.is_blacklisted(module)
                    && seen.asked.insert(module.clone())
                {
                    wanted.push(module.clone());
                }
            }
        }
        self.load_all(wanted, report);
        any_new
    }

    /// Loads modules side by side.
    fn load_all(&self, wanted: Vec<ModuleName>, report: &mut ColdplugReport) {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = (cores + 1).min(MAX_THREADS).min(wanted.len());
        let queue = Mutex::new(wanted.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let report = Mutex::new(report);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(module) = next() {
                        let result = self.load_module(&module, "");
                        report
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .record(module, result);
                    }
                });
            }
        });
    }
}

/// What every device under `devices` says it is. Devices may vanish while this looks; that is no error.
fn modaliases(devices: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![devices.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            // Of the entry itself: sysfs links devices to each other in circles.
            let Ok(file_type) = entry.file_type() else { continue };
            if file_type.is_dir() {
                dirs.push(entry.path());
            } else if entry.file_name() == "modalias"
                && let Ok(alias) = std::fs::read_to_string(entry.path())
                && !alias.trim().is_empty()
            {
                found.insert(alias.trim().to_owned());
            }
        }
    }
    found
}

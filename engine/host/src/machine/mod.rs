//! The machine: carries out the effects that the scheduler decides on, through the rooms of this crate.
//!
//! Each activation of a unit is one tokio task ([`activation`](activation)). It owns what the unit holds (a process, a lease),
//! hears two words while it lives, *stop* and *kill*, and reports. Nothing here decides: no retry, no deadline, no order.
//! Whatever may block runs on tokio's blocking threads.

mod activation;
mod condition;
mod kind;
mod leftover;
mod link;
mod program;
mod slot;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use keel_exec::{Host, HostEvent};
use keel_plan::{Effect, Report, Token, UnitId};
use keel_unit::{Kind, Unit};
use nix::unistd::Pid;
use tokio::sync::mpsc;

use self::slot::{Activation, Said, Slot};
use crate::disk::Say;
use crate::disk::inventory::Roots;
use crate::file::Ledger;
use crate::hostname::Named;
use crate::module::{Modules, Options};
use crate::process::{
    Ask, Asks, Cgroups, FindCgroups, Journal, LogBounds, LogBuffer, Notifications, NotifyError,
    Reaper, ReaperTools,
};

/// Where things are on this machine, and what it was told when it started.
#[derive(Debug, Clone)]
pub struct Places {
    /// The directory that holds `lib/modules`.
    pub root: PathBuf,
    /// Where cgroup v2 is mounted, or will be.
    pub cgroup: PathBuf,
    /// The directory below it that holds the units' cgroups.
    pub cgroup_name: String,
    /// The socket for notifications of services.
    pub notify: PathBuf,
    /// What the kernel's command line says of modules.
    pub modules: Options,
    /// What file units have made.
    pub files: Ledger,
}

impl Default for Places {
    /// A node.
    fn default() -> Self {
        Self {
            root: "/".into(),
            cgroup: "/sys/fs/cgroup".into(),
            cgroup_name: "keel".into(),
            notify: "/run/keel/notify".into(),
            modules: Options::default(),
            files: Ledger::default(),
        }
    }
}

/// This machine, with the units that it is to carry out.
pub struct Machine {
    shared: Arc<Shared>,
    /// By [`UnitId`].
    slots: Vec<Arc<Slot>>,
    /// The ears of activations, by [`UnitId`].
    running: Vec<Option<mpsc::Sender<Ask>>>,
    happened: mpsc::UnboundedReceiver<(Arc<Slot>, Said)>,
}

/// What activations share.
struct Shared {
    /// All units, of the graph that runs.
    units: Mutex<Arc<[Arc<Unit>]>>,
    places: Places,
    roots: Roots,
    reaper: Reaper,
    tools: ReaperTools,
    cgroups: FindCgroups,
    notifications: OnceLock<Notifications>,
    modules: OnceLock<Result<Arc<Modules>, String>>,
    journal: Journal,
    named: Mutex<Option<Named>>,
    going_down: AtomicBool,
    before_unmount: OnceLock<LastWork>,
    /// While another graph is being taken on: the paths that it has file units for.
    heading_for: Mutex<Option<BTreeSet<PathBuf>>>,
    /// What activations have to say. Each says a few things in its life, and the executor hears them before anything else.
    events: mpsc::UnboundedSender<(Arc<Slot>, Said)>,
}

/// Work that is done before something is unmounted: where that is, and the work.
struct LastWork {
    target: PathBuf,
    work: Arc<dyn Fn() + Send + Sync>,
}

impl Machine {
    /// The machine for these units, which are numbered as in the transaction.
    pub fn new(units: Vec<Arc<Unit>>, places: Places, reaper: Reaper) -> Self {
        let (events, happened) = mpsc::unbounded_channel();
        let cgroups = find_cgroups(&places);
        let journal = Journal::new();
        let slots: Vec<Arc<Slot>> = (0..)
            .map(UnitId)
            .zip(&units)
            .map(|(id, unit)| Slot::new(id, unit.clone(), log_for(&journal, unit)))
            .collect();
        let shared = Shared {
            tools: ReaperTools::new(reaper.clone(), cgroups.clone()),
            units: Mutex::new(units.into()),
            places,
            roots: Roots::default(),
            reaper,
            cgroups,
            notifications: OnceLock::new(),
            modules: OnceLock::new(),
            journal,
            named: Mutex::default(),
            going_down: AtomicBool::new(false),
            before_unmount: OnceLock::new(),
            heading_for: Mutex::default(),
            events,
        };
        let running = slots.iter().map(|_| None).collect();
        Self { shared: Arc::new(shared), slots, running, happened }
    }

    /// Takes on the units of another graph. `moves` says which unit of the one before is which of these: it keeps its processes, its
    /// output and what is under way. A unit that is of another kind now has nothing in common with what it was but its name.
    pub fn adopt(&mut self, units: Vec<Arc<Unit>>, moves: &[Option<UnitId>]) {
        let mut kept: Vec<Option<usize>> = vec![None; units.len()];
        for (old, new) in moves.iter().enumerate().take(self.slots.len()) {
            let same = |new: &UnitId| {
                let before = self.slots[old].unit();
                units.get(new.index()).is_some_and(|unit| unit.kind.name() == before.kind.name())
            };
            match new.filter(same) {
                Some(new) => kept[new.index()] = Some(old),
                None => self.slots[old].leave(),
            }
        }
        let mut slots = Vec::with_capacity(units.len());
        let mut running = Vec::with_capacity(units.len());
        for (id, (unit, old)) in (0..).map(UnitId).zip(units.iter().zip(kept)) {
            match old {
                Some(old) => {
                    self.slots[old].renumber(id, unit.clone());
                    slots.push(self.slots[old].clone());
                    running.push(self.running[old].take());
                }
                None => {
                    let log = log_for(&self.shared.journal, unit);
                    slots.push(Slot::new(id, unit.clone(), log));
                    running.push(None);
                }
            }
        }
        (self.slots, self.running) = (slots, running);
        *self.shared.all_units_mut() = units.into();
    }

    /// From now on what goes down goes for another graph, which has file units for these paths; with none, it may well come up again.
    /// What a file unit made at any other path is removed when the unit goes down.
    pub fn heading_for(&self, paths: Option<BTreeSet<PathBuf>>) {
        *self.shared.heading_for() = paths;
    }

    /// The machine goes down: what is meant to outlive its unit is no longer meant to. What is on a disk is there in the next boot.
    pub fn going_down(&self) {
        self.heading_for(None);
        leftover::going_down(&self.shared);
    }

    /// Where disks are found, and what partition units have located.
    pub fn roots(&self) -> &Roots {
        &self.shared.roots
    }

    /// Has that done, each time, before a unit unmounts what is at `target`; on a thread of its own, and for 2 s at most, since a disk
    /// may not answer.
    pub fn before_unmount(&self, target: PathBuf, work: impl Fn() + Send + Sync + 'static) {
        // Said once, when the machine is made.
        drop(self.shared.before_unmount.set(LastWork { target, work: Arc::new(work) }));
    }

    /// The unit that mounts something at `target`.
    pub fn mount_at(&self, target: &Path) -> Option<UnitId> {
        let mounts = |unit: &Unit| matches!(&unit.kind, Kind::Mount(mount) if mount.target.as_path() == target);
        let at = self.shared.all_units().iter().position(|unit| mounts(unit))?;
        u32::try_from(at).ok().map(UnitId)
    }

    /// The output of all units that run programs.
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// The last output of a unit that runs a program.
    pub fn log(&self, unit: UnitId) -> Option<&LogBuffer> {
        self.slots.get(unit.index())?.log.as_ref()
    }

    /// The main process of a unit, while it runs.
    pub fn pid(&self, unit: UnitId) -> Option<Pid> {
        *self.slots.get(unit.index())?.pid()
    }

    /// Bytes of memory that a unit's processes use together.
    pub fn memory(&self, unit: UnitId) -> Option<u64> {
        self.pid(unit)?;
        let unit = self.slots.get(unit.index())?.unit();
        (self.shared.cgroups)()?.existing(unit.name.as_str()).ok()?.memory_current()
    }
}

impl Host for Machine {
    fn begin(&mut self, token: Token, effect: Effect) {
        let slot = &self.slots[token.unit.index()];
        let of = Activation { slot: slot.clone(), unit: slot.unit(), attempt: token.attempt };
        let running = &mut self.running[token.unit.index()];
        let ask = match effect {
            Effect::CheckCondition | Effect::Start => {
                let (asks, hears) = Asks::new();
                *running = Some(asks);
                activation::begin(self.shared.clone(), of, effect, hears);
                return;
            }
            Effect::Reload => {
                if let (Some(asks), Some(signal)) = (running, program::reload_signal(&of.unit)) {
                    let heard = asks.try_send(Ask::Signal(signal)).is_ok();
                    let done = if heard { "is told to read" } else { "has ended and cannot read" };
                    self.shared.fact(slot, format!("{done} its configuration again"));
                }
                return;
            }
            Effect::Stop => Ask::Stop,
            Effect::Kill => Ask::Kill,
        };
        // An activation that has ended (a file was written, a process is gone) has nobody to hear.
        let heard = running.as_ref().is_some_and(|asks| asks.try_send(ask).is_ok());
        if !heard {
            *running = None;
            activation::take_down(self.shared.clone(), of);
        }
    }

    async fn next(&mut self) -> HostEvent {
        loop {
            match self.happened.recv().await {
                Some((slot, said)) => {
                    // Of a unit that has left the graph nobody wants to hear.
                    if let Some(event) = said.by(&slot) {
                        return event;
                    }
                }
                // We hold a sender ourselves.
                None => std::future::pending().await,
            }
        }
    }
}

impl Shared {
    fn all_units_mut(&self) -> MutexGuard<'_, Arc<[Arc<Unit>]>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_units(&self) -> Arc<[Arc<Unit>]> {
        self.all_units_mut().clone()
    }

    fn tell(&self, slot: &Arc<Slot>, said: Said) {
        // Without a listener the machine is at its end, and nobody has to know.
        drop(self.events.send((slot.clone(), said)));
    }

    fn report(&self, of: &Activation, report: Report) {
        self.tell(&of.slot, Said::Report(of.attempt, report));
    }

    fn fact(&self, slot: &Arc<Slot>, text: impl Into<String>) {
        self.tell(slot, Said::Fact(text.into()));
    }

    /// A voice for a room of this crate, whose lines become facts about a unit.
    fn say(self: &Arc<Self>, slot: &Arc<Slot>) -> Say {
        let (shared, slot) = (self.clone(), slot.clone());
        Arc::new(move |text| shared.fact(&slot, text))
    }

    fn heading_for(&self) -> MutexGuard<'_, Option<BTreeSet<PathBuf>>> {
        self.heading_for.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the graph that is being taken on has no file unit for that path.
    fn goes(&self, path: &Path) -> bool {
        self.heading_for().as_ref().is_some_and(|paths| !paths.contains(path))
    }

    /// The host name that a unit set last.
    fn named(&self) -> MutexGuard<'_, Option<Named>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens from the first time that a service wants it: before that, /run is not mounted.
    fn notifications(&self) -> Result<Notifications, NotifyError> {
        if let Some(listening) = self.notifications.get() {
            return Ok(listening.clone());
        }
        let listening = Notifications::listen(&self.places.notify)?;
        Ok(self.notifications.get_or_init(|| listening).clone())
    }
}

/// Finds the hierarchy once it is mounted, and then keeps it.
fn find_cgroups(places: &Places) -> FindCgroups {
    let (root, name) = (places.cgroup.clone(), places.cgroup_name.clone());
    let found = OnceLock::new();
    Arc::new(move || {
        if found.get().is_none()
            && let Ok(cgroups) = Cgroups::at(&root, &name)
        {
            drop(found.set(cgroups));
        }
        found.get().cloned()
    })
}

fn log_for(journal: &Journal, unit: &Unit) -> Option<LogBuffer> {
    let size = match &unit.kind {
        Kind::Oneshot(oneshot) => oneshot.log,
        Kind::Service(service) => service.log,
        _ => return None,
    };
    let bytes = usize::try_from(size.0).unwrap_or(usize::MAX);
    let bounds = LogBounds { bytes, ..LogBounds::default() };
    Some(journal.unit(unit.name.as_str(), bounds))
}

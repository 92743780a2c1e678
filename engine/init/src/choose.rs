//! Which of its configs a machine boots: the one that has its turn, else the last that was good, else the image's own.
//!
//! Where the image's config stands in for one that holds, because that came too late or makes no graph any more, the machine still lets in
//! only whom that one lets in. Were it otherwise, a disk that is slow, or an image that is new, would open a closed machine.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use keel_host::file::Ledger;
use keel_plan::{BootGraph, EdgeKind, UnitId};
use keel_unit::config::{rescue, shut};
use keel_unit::{Kind, load};

use crate::arguments::Arguments;
use crate::boot::{self, Boot, StandIn};
use crate::mutate::files;
use crate::store::{Disk, Folder, Store};

/// Where configs are kept.
pub(crate) const STORAGE: &str = "/var/lib/keel";
const FOLDER: &str = "configs";

/// Where it is kept what file units have made. Beside the configs, for root alone.
const LEDGER: &str = "files";

/// A config that says nothing of whom to let in.
const SILENT: &str = "schema = 1\n";

/// What was found on the data partition.
pub(crate) struct Looked {
    /// None where it cannot be used.
    pub(crate) store: Option<Store<Folder>>,
    /// None: the image's own config.
    pub(crate) chosen: Option<Chosen>,
    /// What of the image's config may run where it stands in for one that held, the best first.
    pub(crate) stand_ins: Vec<StandIn>,
    /// What is to be told of it.
    pub(crate) notes: Vec<String>,
}

/// A config of this machine's own.
pub(crate) struct Chosen {
    pub(crate) number: u64,
    pub(crate) text: String,
    pub(crate) boot: Boot,
}

/// Looks, and decides. With `may_try`, nothing has begun that has to wait for it: a config that waits for its turn gets it, and what no
/// unit wants any more is removed. Takes as long as the disk does.
pub(crate) fn look(arguments: &Arguments, may_try: bool, ledger: &Ledger) -> Looked {
    let (mut looked, word) = match store() {
        Ok(mut store) => {
            let word = word(&store);
            let compile = |text: &str| boot::from_text(arguments, text);
            let (chosen, notes) = choose(&mut store, may_try, compile);
            let stand_ins = Vec::new();
            (Looked { store: Some(store), chosen, stand_ins, notes }, word)
        }
        Err(error) => {
            let what =
                format!("{STORAGE}/{FOLDER} cannot be read, the image's config holds: {error}");
            let stand_ins = Vec::new();
            (Looked { store: None, chosen: None, stand_ins, notes: vec![what] }, Word::Lost)
        }
    };
    if looked.chosen.is_none() || !may_try {
        let words = words(word, &load::text(&arguments.config).unwrap_or_default());
        if !words.is_empty() {
            looked.stand_ins = boot::stand_ins(arguments, &words);
        }
    }
    if looked.store.is_some() {
        reconcile(&mut looked, may_try, ledger);
    }
    looked
}

/// The configs on the data partition.
pub(crate) fn store() -> io::Result<Store<Folder>> {
    Folder::on(Path::new(STORAGE), FOLDER).and_then(Store::open)
}

/// Whom the machine is to let in if the image's config stands in for its own.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// Whom the image says: no other config has ever held.
    Image,
    /// Whom this config says, which held last.
    Of(String),
    /// Nobody knows whom.
    Lost,
}

fn word<D: Disk>(store: &Store<D>) -> Word {
    let mut held = store.book().trusted().peekable();
    if held.peek().is_none() {
        // A book that says so is to be believed if no later one is broken.
        return if store.damage().is_empty() { Word::Image } else { Word::Lost };
    }
    held.find_map(|number| store.text(number).ok()).map_or(Word::Lost, Word::Of)
}

/// What is laid over the image's config for that, the best first; nothing if the image's config may stand as it is.
fn words(word: Word, image: &str) -> Vec<String> {
    let is_shut = || rescue(image).last().is_some_and(|last| last == shut());
    match word {
        Word::Image => Vec::new(),
        Word::Of(text) => rescue(&text).into_iter().filter(|word| word != SILENT).collect(),
        // Whoever can give the machine an image can get in.
        Word::Lost if is_shut() => Vec::new(),
        Word::Lost => vec![shut().to_owned()],
    }
}

/// Removes what file units of another config have left, before any unit of this one begins. Not for a config that may be gone back from,
/// nor for the image's where it only stands in.
fn reconcile(looked: &mut Looked, may_try: bool, ledger: &Ledger) {
    let path = Path::new(STORAGE).join(FOLDER).join(LEDGER);
    if let Err(error) = ledger.keep_at(&path) {
        looked.notes.push(format!("{}: {error}; what file units have left stays", path.display()));
        return;
    }
    let on_trial = looked.store.as_ref().is_some_and(|it| it.book().pending.is_some());
    if let (Some(chosen), true, false) = (&looked.chosen, may_try, on_trial) {
        let wanted = files(&chosen.boot.graph);
        looked.notes.extend(swept(ledger, |path| wanted.contains(path)));
    }
}

/// Removes what no file unit wants any more, and says so.
pub(crate) fn swept(ledger: &Ledger, wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let (removed, failed) = ledger.sweep(wanted);
    let gone = removed.iter().map(|path| format!("{}: removed, no unit has it", path.display()));
    let stays = failed.iter().map(|error| format!("{error}, which no unit has any more"));
    gone.chain(stays).collect()
}

/// The units that have to be up before the configs can be read, and all that these wait for; none where no unit mounts the place.
pub(crate) fn way_to_the_store(graph: &BootGraph) -> Option<HashSet<UnitId>> {
    let mounts = |id: &UnitId| matches!(&graph.unit(*id).kind, Kind::Mount(mount) if mount.target.as_path() == Path::new(STORAGE));
    let mount = graph.ids().find(mounts)?;
    let (mut way, mut open) = (HashSet::from([mount]), vec![mount]);
    while let Some(id) = open.pop() {
        let needs = graph.dependencies(id).filter(|(_, edge)| edge.kind != EdgeKind::Conflicts);
        for (other, _) in needs {
            if way.insert(other) {
                open.push(other);
            }
        }
    }
    Some(way)
}

/// The units that are up and the same in another graph: there they are up from the start.
pub(crate) fn adopted(
    old: &BootGraph,
    new: &BootGraph,
    is_up: impl Fn(UnitId) -> bool,
) -> HashSet<String> {
    let same = |id: &UnitId| {
        let unit = old.unit(*id);
        // What a partition unit has found is known to the run that found it; looking again costs nothing.
        let lasts = !matches!(unit.kind, Kind::Partition(_) | Kind::Service(_) | Kind::Target(_));
        let twin = new.find(unit.name.as_str()).map(|twin| new.unit(twin));
        lasts && is_up(*id) && twin.is_some_and(|twin| twin.tree() == unit.tree())
    };
    old.ids().filter(same).map(|id| old.unit(id).name.to_string()).collect()
}

/// The config to boot. Each that cannot be booted is told of, and marked.
fn choose<D: Disk>(
    store: &mut Store<D>,
    may_try: bool,
    compile: impl Fn(&str) -> Result<Boot, String>,
) -> (Option<Chosen>, Vec<String>) {
    let mut notes: Vec<String> =
        store.damage().iter().map(|damage| format!("configs: {damage}; left out")).collect();
    let load = |store: &Store<D>, number: u64| -> Result<Chosen, String> {
        let text =
            store.text(number).map_err(|error| format!("its text cannot be read: {error}"))?;
        let boot = compile(&text)?;
        Ok(Chosen { number, text, boot })
    };
    if let Some(pending) = store.book().pending.clone().filter(|it| may_try || it.tried) {
        let number = pending.number;
        let undo = |store: &mut Store<D>, notes: &mut Vec<String>, why: &str| {
            notes.push(format!(
                "config {number} does not hold: {}",
                why.lines().next().unwrap_or(why)
            ));
            let book = store.book().undone(why);
            // If that fails, the next boot finds what this one found.
            if let Err(error) = store.commit(book) {
                notes.push(format!("that cannot be noted: {error}"));
            }
        };
        if pending.tried {
            undo(store, &mut notes, "the machine went down before it was known to be good");
        } else {
            match load(store, number) {
                // Noted before it is tried: it gets one boot.
                Ok(chosen) => match store.commit(store.book().tried()) {
                    Ok(()) => return (Some(chosen), notes),
                    Err(error) => notes.push(format!(
                        "config {number} waits for its turn, but that cannot be noted: {error}"
                    )),
                },
                Err(why) => {
                    undo(store, &mut notes, &format!("it makes no graph any more: {why}"));
                }
            }
        }
    }
    let good = store.book().good;
    let candidates: Vec<u64> =
        good.into_iter().chain(store.book().good_before().map(|page| page.number)).collect();
    for number in candidates {
        match load(store, number) {
            Ok(chosen) => {
                if good != Some(number) {
                    fall_back(store, Some(number), &mut notes);
                }
                return (Some(chosen), notes);
            }
            Err(why) => {
                notes.push(format!("config {number} makes no graph any more, and is left out:"));
                notes.extend(why.lines().map(|line| format!("  {line}")));
            }
        }
    }
    if good.is_some() {
        notes.push("no config of this machine's own is left: the image's holds".to_owned());
        fall_back(store, None, &mut notes);
    }
    (None, notes)
}

fn fall_back<D: Disk>(store: &mut Store<D>, to: Option<u64>, notes: &mut Vec<String>) {
    let book = store.book().fallen_back(to, "it makes no graph with this image");
    if let Err(error) = store.commit(book) {
        notes.push(format!("that cannot be noted: {error}"));
    }
}

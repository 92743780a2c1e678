//! Which of its configs a machine boots: the one that has its turn, else the last that was good, else the image's own.

use std::collections::HashSet;
use std::path::Path;

use keel_plan::{BootGraph, EdgeKind, UnitId};
use keel_unit::Kind;

use crate::arguments::Arguments;
use crate::boot::{self, Boot};
use crate::store::{Disk, Folder, Store};

/// Where configs are kept.
pub(crate) const STORAGE: &str = "/var/lib/keel";
const FOLDER: &str = "configs";

/// What was found on the data partition.
pub(crate) struct Looked {
    /// None where it cannot be used.
    pub(crate) store: Option<Store<Folder>>,
    /// None: the image's own config.
    pub(crate) chosen: Option<Chosen>,
    /// What is to be told of it.
    pub(crate) notes: Vec<String>,
}

/// A config of this machine's own.
pub(crate) struct Chosen {
    pub(crate) number: u64,
    pub(crate) text: String,
    pub(crate) boot: Boot,
}

/// Looks, and decides. With `may_try`, a config that waits for its turn gets it. Takes as long as the disk does.
pub(crate) fn look(arguments: &Arguments, may_try: bool) -> Looked {
    let storage = Path::new(STORAGE);
    match Folder::on(storage, FOLDER).and_then(Store::open) {
        Ok(mut store) => {
            let compile = |text: &str| boot::from_text(arguments, text);
            let (chosen, notes) = choose(&mut store, may_try, compile);
            Looked { store: Some(store), chosen, notes }
        }
        Err(error) => {
            let what =
                format!("{STORAGE}/{FOLDER} cannot be read, the image's config holds: {error}");
            Looked { store: None, chosen: None, notes: vec![what] }
        }
    }
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

//! What differs between two graphs, and what follows from that for the boot.
//!
//! The difference is one of names: units by their name, keys by their path, edges by their ends and what they say. Where a file, a line
//! or the reason of an edge is another, the machine does the same. So two graphs are the same here exactly if their digests are.

mod markdown;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::export::{Edge, Export, Setting, Unit};

pub use self::markdown::markdown;
pub use self::text::text;

/// The difference between two graphs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    /// The graph before.
    pub old: Side,
    /// The graph after.
    pub new: Side,
    /// Units that are only in the new graph.
    pub added: Vec<Entry>,
    /// Units that are only in the old graph.
    pub removed: Vec<Entry>,
    /// Units in both that differ.
    pub changed: Vec<Changed>,
    /// Edges that are only in the new graph.
    pub edges_added: Vec<Edge>,
    /// Edges that are only in the old graph.
    pub edges_removed: Vec<Edge>,
    /// Units in both that begin or are up at another time, the greatest change first.
    pub shifted: Vec<Shift>,
}

/// One of the two graphs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// Its digest.
    pub digest: String,
    /// The goal of its boot.
    pub goal: String,
    /// Number of units.
    pub units: usize,
    /// Number of edges.
    pub edges: usize,
    /// From the start to the goal.
    pub total_ms: u64,
    /// The units that decide how long it takes.
    pub critical_path: Vec<String>,
}

/// A unit that is on one side alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its stage.
    pub stage: Option<String>,
    /// What it is, for people.
    pub description: String,
    /// Where it stands.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// A unit that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// Its kind before and after, if that differs.
    pub kind: Option<[String; 2]>,
    /// Whether the goal starts it, before and after, if that differs.
    pub started: Option<[bool; 2]>,
    /// The keys that differ, in order.
    pub keys: Vec<Key>,
}

/// A key that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Key {
    /// Its path, as `service.stop-timeout`.
    pub key: String,
    /// Its value before; nothing if it was not written.
    pub old: Option<Setting>,
    /// Its value after.
    pub new: Option<Setting>,
}

/// A unit that is expected at another time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shift {
    /// The unit.
    pub unit: String,
    /// When it begins, before and after.
    pub begins_ms: [u64; 2],
    /// When it is up, before and after.
    pub up_ms: [u64; 2],
}

impl Shift {
    /// By how much later it begins, in milliseconds; less than 0 is earlier.
    pub fn begins_later(&self) -> i64 {
        later(self.begins_ms)
    }

    /// By how much later it is up.
    pub fn up_later(&self) -> i64 {
        later(self.up_ms)
    }
}

pub(crate) fn later([old, new]: [u64; 2]) -> i64 {
    i64::try_from(new).unwrap_or(i64::MAX) - i64::try_from(old).unwrap_or(i64::MAX)
}

impl Diff {
    /// Compares two graphs.
    pub fn new(old: &Export, new: &Export) -> Diff {
        let (before, after) = (by_name(old), by_name(new));
        let only = |these: &BTreeMap<&str, &Unit>, others: &BTreeMap<&str, &Unit>| {
            let alone = these.iter().filter(|(name, _)| !others.contains_key(*name));
            alone.map(|(_, unit)| entry(unit)).collect::<Vec<_>>()
        };
        let both = || before.iter().filter_map(|(name, old)| Some((*old, *after.get(name)?)));
        let mut shifted: Vec<Shift> = both().filter_map(|(old, new)| shift(old, new)).collect();
        shifted.sort_by_key(|shift| {
            let most = shift.begins_later().abs().max(shift.up_later().abs());
            (std::cmp::Reverse(most), shift.begins_ms[1])
        });
        Diff {
            old: side(old),
            new: side(new),
            added: only(&after, &before),
            removed: only(&before, &after),
            changed: both().filter_map(|(old, new)| changed(old, new)).collect(),
            edges_added: edges_only(new, old),
            edges_removed: edges_only(old, new),
            shifted,
        }
    }

    /// Whether the two graphs are the same.
    pub fn is_empty(&self) -> bool {
        let Diff { old, new, added, removed, changed, edges_added, edges_removed, shifted: _ } =
            self;
        old.goal == new.goal
            && (added.is_empty() && removed.is_empty() && changed.is_empty())
            && (edges_added.is_empty() && edges_removed.is_empty())
    }

    /// Whether both sides say when their units are expected.
    pub fn timed(&self) -> bool {
        !self.old.critical_path.is_empty() && !self.new.critical_path.is_empty()
    }

    /// By how much longer the boot takes, in milliseconds; less than 0 is shorter.
    pub fn longer(&self) -> i64 {
        later([self.old.total_ms, self.new.total_ms])
    }
}

fn by_name(graph: &Export) -> BTreeMap<&str, &Unit> {
    graph.units.iter().map(|unit| (unit.name.as_str(), unit)).collect()
}

fn side(graph: &Export) -> Side {
    Side {
        digest: graph.digest.clone(),
        goal: graph.goal.clone(),
        units: graph.units.len(),
        edges: graph.edges.len(),
        total_ms: graph.predicted.total_ms,
        critical_path: graph.predicted.critical_path.clone(),
    }
}

fn entry(unit: &Unit) -> Entry {
    Entry {
        name: unit.name.clone(),
        kind: unit.kind.clone(),
        stage: unit.stage.clone(),
        description: unit.description.clone(),
        file: unit.file.clone(),
        line: unit.line,
    }
}

fn changed(old: &Unit, new: &Unit) -> Option<Changed> {
    let paths: BTreeSet<&String> = old.keys.keys().chain(new.keys.keys()).collect();
    let keys: Vec<Key> = paths
        .into_iter()
        .map(|path| (path, old.keys.get(path), new.keys.get(path)))
        .filter(|(_, old, new)| old.map(|s| &s.value) != new.map(|s| &s.value))
        .map(|(path, old, new)| Key { key: path.clone(), old: old.cloned(), new: new.cloned() })
        .collect();
    let kind = (old.kind != new.kind).then(|| [old.kind.clone(), new.kind.clone()]);
    let started = (old.started != new.started).then_some([old.started, new.started]);
    let differs = kind.is_some() || started.is_some() || !keys.is_empty();
    differs.then(|| Changed { name: new.name.clone(), kind, started, keys })
}

/// The edges of one graph that are not in the other.
fn edges_only(these: &Export, others: &Export) -> Vec<Edge> {
    fn said(edge: &Edge) -> (&str, &str, &str, Option<&str>) {
        (&edge.from, &edge.to, &edge.kind, edge.awaits.as_deref())
    }
    let others: BTreeSet<_> = others.edges.iter().map(said).collect();
    let mut only: Vec<Edge> =
        these.edges.iter().filter(|edge| !others.contains(&said(edge))).cloned().collect();
    only.sort_by(|a, b| said(a).cmp(&said(b)));
    only
}

fn shift(old: &Unit, new: &Unit) -> Option<Shift> {
    let begins_ms = [old.begins_ms?, new.begins_ms?];
    let up_ms = [old.up_ms?, new.up_ms?];
    let moved = begins_ms[0] != begins_ms[1] || up_ms[0] != up_ms[1];
    moved.then(|| Shift { unit: new.name.clone(), begins_ms, up_ms })
}

//! What all pictures show: the units that the goal starts, in layers and by stage, and the edges that say something new.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use keel_unit::words::Await;

use crate::export::{Export, Unit};
use crate::graph::EdgeKind;
use crate::transaction::UnitId;

/// A graph made ready for drawing.
pub(crate) struct Scene<'a> {
    pub(crate) export: &'a Export,
    /// For each unit, what it depends on.
    edges: Vec<Vec<(UnitId, EdgeKind)>>,
    pub(crate) goal: UnitId,
    /// The layer of each unit that is started, from 0: one behind the deepest that it waits for.
    pub(crate) layer: Vec<Option<usize>>,
    /// Number of layers.
    pub(crate) layers: usize,
    /// Units that are started, by stage, stages in the order in which boot passes them; those of no stage come first.
    pub(crate) stages: Vec<Stage<'a>>,
    /// One for each pair of units that has one.
    pub(crate) lines: Vec<Line>,
    /// Units that the goal does not start.
    pub(crate) idle: Vec<UnitId>,
    /// What decides how long the boot takes, in order.
    pub(crate) path: Vec<UnitId>,
}

/// What a unit's state means to whoever looks at a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It is up.
    Up,
    /// It is on its way, up or down, or waits.
    Moving,
    /// It failed.
    Failed,
    /// It is down, and nobody misses it.
    Down,
}

impl Standing {
    pub(crate) const ALL: [Standing; 4] =
        [Standing::Up, Standing::Moving, Standing::Failed, Standing::Down];

    /// The standing that a state's word tells of.
    fn of(state: &str) -> Standing {
        match state {
            "failed" | "failed(dependency)" => Standing::Failed,
            "inactive" | "skipped" => Standing::Down,
            active if active.starts_with("active") => Standing::Up,
            _ => Standing::Moving,
        }
    }

    /// Its name in drawings.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Standing::Up => "up",
            Standing::Moving => "moving",
            Standing::Failed => "failed",
            Standing::Down => "down",
        }
    }

    /// Its colour, on a light ground as on a dark one.
    pub(crate) fn colour(self) -> &'static str {
        match self {
            Standing::Up => "#16a34a",
            Standing::Moving => "#ca8a04",
            Standing::Failed => "#dc2626",
            Standing::Down => "#9ca3af",
        }
    }

    /// Its mark in text.
    pub(crate) fn mark(self) -> char {
        match self {
            Standing::Up => '●',
            Standing::Moving => '◐',
            Standing::Failed => '✗',
            Standing::Down => '○',
        }
    }
}

/// A stage and its units, in order of their names.
pub(crate) struct Stage<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) units: Vec<UnitId>,
}

/// What is drawn between two units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    /// The unit that comes first, and that the other depends on.
    pub(crate) first: UnitId,
    /// The unit that depends on it.
    pub(crate) then: UnitId,
    pub(crate) look: Look,
    /// Whether both ends are neighbours on the critical path.
    pub(crate) critical: bool,
}

/// What a line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Look {
    /// Waits for it and fails without it.
    Firm,
    /// Waits for it, whatever becomes of it.
    Order,
    /// Fails without it, and does not wait.
    Need,
    /// Starts it too, and does not wait.
    Want,
}

impl Look {
    pub(crate) const ALL: [Look; 4] = [Look::Firm, Look::Order, Look::Need, Look::Want];

    /// What a legend says.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Look::Firm => "waits for it and fails without it",
            Look::Order => "waits for it, whatever becomes of it",
            Look::Need => "fails without it, does not wait",
            Look::Want => "starts it too, does not wait",
        }
    }

    /// What edges of these kinds look like. A conflict looks like nothing: only one of its two ends can be started.
    fn of(kinds: &BTreeSet<EdgeKind>) -> Option<Look> {
        let has = |wanted: fn(&EdgeKind) -> bool| kinds.iter().any(wanted);
        let strong = has(|k| matches!(k, EdgeKind::Requires | EdgeKind::BindsTo));
        let ordered = has(|k| k.awaits().is_some());
        match (ordered, strong) {
            (true, true) => Some(Look::Firm),
            (true, false) => Some(Look::Order),
            (false, true) => Some(Look::Need),
            (false, false) => has(|k| *k == EdgeKind::Wants).then_some(Look::Want),
        }
    }

    pub(crate) fn ordered(self) -> bool {
        matches!(self, Look::Firm | Look::Order)
    }
}

impl<'a> Scene<'a> {
    pub(crate) fn new(export: &'a Export) -> Scene<'a> {
        let named = export.units.iter().zip(0..).map(|(unit, at)| (unit.name.as_str(), UnitId(at)));
        let ids: HashMap<&str, UnitId> = named.collect();
        let mut edges: Vec<Vec<(UnitId, EdgeKind)>> = vec![Vec::new(); export.units.len()];
        for edge in &export.edges {
            let (from, to) = (ids.get(edge.from.as_str()), ids.get(edge.to.as_str()));
            if let (Some(from), Some(to), Some(kind)) = (from, to, edge_kind(edge)) {
                edges[from.index()].push((*to, kind));
            }
        }
        let is_started = |id: &UnitId| export.units[id.index()].started;
        let order: Vec<UnitId> = order(&edges).into_iter().filter(is_started).collect();
        let mut layer: Vec<Option<usize>> = vec![None; export.units.len()];
        for id in &order {
            let before = edges[id.index()].iter().filter(|(_, kind)| kind.awaits().is_some());
            let deepest = before.filter_map(|(other, _)| layer[other.index()]).max();
            layer[id.index()] = Some(deepest.map_or(0, |deepest| deepest + 1));
        }
        let path = export.predicted.critical_path.iter();
        let path: Vec<UnitId> = path.filter_map(|name| ids.get(name.as_str()).copied()).collect();
        let of_stage = stages(export, &layer, &ids);
        Scene {
            export,
            goal: ids.get(export.goal.as_str()).copied().unwrap_or(UnitId(0)),
            layers: layer.iter().flatten().max().map_or(0, |deepest| deepest + 1),
            stages: of_stage,
            lines: lines(&edges, &order, &path),
            idle: all(export).filter(|id| layer[id.index()].is_none()).collect(),
            layer,
            path,
            edges,
        }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = UnitId> + use<> {
        all(self.export)
    }

    pub(crate) fn unit(&self, unit: UnitId) -> &'a Unit {
        &self.export.units[unit.index()]
    }

    pub(crate) fn name(&self, unit: UnitId) -> &'a str {
        self.unit(unit).name.as_str()
    }

    pub(crate) fn stage(&self, unit: UnitId) -> Option<&'a str> {
        self.unit(unit).stage.as_deref()
    }

    pub(crate) fn is_target(&self, unit: UnitId) -> bool {
        self.unit(unit).kind == "target"
    }

    pub(crate) fn critical(&self, unit: UnitId) -> bool {
        self.unit(unit).critical
    }

    /// How the unit stands on the node that the graph comes from.
    pub(crate) fn standing(&self, unit: UnitId) -> Option<Standing> {
        self.unit(unit).state.as_deref().map(Standing::of)
    }

    /// What a unit depends on, in order of the other units' names.
    pub(crate) fn dependencies(&self, unit: UnitId) -> &[(UnitId, EdgeKind)] {
        &self.edges[unit.index()]
    }

    /// Number of units that are started.
    pub(crate) fn started(&self) -> usize {
        self.export.units.len() - self.idle.len()
    }
}

fn all(export: &Export) -> impl Iterator<Item = UnitId> + use<> {
    (0..export.units.len()).map(|at| UnitId(at as u32))
}

/// An edge of a newer version's kind is not drawn.
pub(crate) fn edge_kind(edge: &crate::export::Edge) -> Option<EdgeKind> {
    Some(match edge.kind.as_str() {
        "requires" => EdgeKind::Requires,
        "wants" => EdgeKind::Wants,
        "binds-to" => EdgeKind::BindsTo,
        "conflicts" => EdgeKind::Conflicts,
        "after" => EdgeKind::After(match edge.awaits.as_deref() {
            Some("started") => Await::Started,
            Some("exited") => Await::Exited,
            _ => Await::Ready,
        }),
        _ => return None,
    })
}

/// As [`crate::order`]: topological, and of those that could come next the first by name. What stands in a circle, which no graph
/// of ours has, is left out.
fn order(edges: &[Vec<(UnitId, EdgeKind)>]) -> Vec<UnitId> {
    let mut held = vec![0usize; edges.len()];
    let mut later: Vec<Vec<UnitId>> = vec![Vec::new(); edges.len()];
    for (from, own) in edges.iter().enumerate() {
        for (to, _) in own.iter().filter(|(_, kind)| kind.awaits().is_some()) {
            held[from] += 1;
            later[to.index()].push(UnitId(from as u32));
        }
    }
    let free = (0..edges.len()).filter(|at| held[*at] == 0).map(|at| Reverse(UnitId(at as u32)));
    let mut free: BinaryHeap<Reverse<UnitId>> = free.collect();
    let mut order = Vec::with_capacity(edges.len());
    while let Some(Reverse(id)) = free.pop() {
        order.push(id);
        for other in &later[id.index()] {
            held[other.index()] -= 1;
            if held[other.index()] == 0 {
                free.push(Reverse(*other));
            }
        }
    }
    order
}

/// The started units by stage. A stage comes before another if its own target does.
fn stages<'a>(
    export: &'a Export,
    layer: &[Option<usize>],
    ids: &HashMap<&str, UnitId>,
) -> Vec<Stage<'a>> {
    let mut members: BTreeMap<Option<&str>, Vec<UnitId>> = BTreeMap::new();
    for id in all(export).filter(|id| layer[id.index()].is_some()) {
        members.entry(export.units[id.index()].stage.as_deref()).or_default().push(id);
    }
    let mut stages: Vec<Stage<'_>> =
        members.into_iter().map(|(name, units)| Stage { name, units }).collect();
    stages.sort_by_key(|stage| {
        let target = stage.name.and_then(|name| ids.get(name));
        (target.map(|id| layer[id.index()]), stage.name)
    });
    stages
}

/// The lines between started units. An ordering that follows from others is left out: it would hide them.
fn lines(edges: &[Vec<(UnitId, EdgeKind)>], order: &[UnitId], path: &[UnitId]) -> Vec<Line> {
    let mut place: Vec<Option<usize>> = vec![None; edges.len()];
    order.iter().enumerate().for_each(|(at, id)| place[id.index()] = Some(at));
    let neighbours: BTreeSet<(UnitId, UnitId)> =
        path.windows(2).map(|pair| (pair[0], pair[1])).collect();

    let mut lines = Vec::new();
    for &then in order {
        let mut pairs: BTreeMap<UnitId, BTreeSet<EdgeKind>> = BTreeMap::new();
        for (first, kind) in &edges[then.index()] {
            if place[first.index()].is_some() {
                pairs.entry(*first).or_default().insert(*kind);
            }
        }
        lines.extend(pairs.into_iter().filter_map(|(first, kinds)| {
            let critical = neighbours.contains(&(first, then));
            Some(Line { first, then, look: Look::of(&kinds)?, critical })
        }));
    }
    let ordering: Vec<(usize, usize)> = lines
        .iter()
        .filter(|line| line.look.ordered())
        .filter_map(|line| Some((place[line.first.index()]?, place[line.then.index()]?)))
        .collect();
    let mut implied = redundant(order.len(), &ordering).into_iter();
    lines.retain(|line| !line.look.ordered() || !implied.next().unwrap_or(false) || line.critical);
    lines
}

/// Which of these edges `(first, then)` between `0..nodes` follow from others, where `first < then` in each. Edges stand in
/// order of `then`.
///
/// What comes before a node is kept as a set of bits, for so many nodes at a time: memory stays linear in nodes.
fn redundant(nodes: usize, edges: &[(usize, usize)]) -> Vec<bool> {
    const WORDS: usize = 64;
    const BLOCK: usize = WORDS * 64;
    let mut redundant = vec![false; edges.len()];
    for block in (0..nodes).step_by(BLOCK) {
        let inside = |node: usize| node.checked_sub(block).filter(|at| *at < BLOCK);
        let mut before: Vec<[u64; WORDS]> = vec![[0; WORDS]; nodes];
        let mut at = 0;
        while at < edges.len() {
            let then = edges[at].1;
            let own = at..at + edges[at..].iter().take_while(|edge| edge.1 == then).count();
            at = own.end;
            // What comes before the others that come before it.
            let mut far = [0; WORDS];
            for (first, _) in &edges[own.clone()] {
                far.iter_mut().zip(&before[*first]).for_each(|(word, more)| *word |= more);
            }
            let mut all = far;
            for edge in own {
                if let Some(bit) = inside(edges[edge].0) {
                    redundant[edge] |= far[bit / 64] >> (bit % 64) & 1 == 1;
                    all[bit / 64] |= 1 << (bit % 64);
                }
            }
            before[then] = all;
        }
    }
    redundant
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(nodes: usize, edges: &[(usize, usize)], expect: &[(usize, usize)]) {
        let redundant = redundant(nodes, edges);
        let dropped: Vec<_> =
            edges.iter().zip(redundant).filter(|(_, gone)| *gone).map(|(edge, _)| *edge).collect();
        assert_eq!(dropped, expect);
    }

    #[test]
    fn an_edge_that_follows_from_others_is_redundant() {
        check(0, &[], &[]);
        check(2, &[(0, 1)], &[]);
        check(3, &[(0, 1), (0, 2), (1, 2)], &[(0, 2)]);
        check(4, &[(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)], &[(0, 3)]);
        // The first node is far from the last, in another block.
        let chain = (1..10_000).map(|then| (then - 1, then));
        let mut edges: Vec<_> = chain.chain([(0, 9_999), (4_095, 4_097)]).collect();
        edges.sort_by_key(|(first, then)| (*then, *first));
        check(10_000, &edges, &[(4_095, 4_097), (0, 9_999)]);
    }
}

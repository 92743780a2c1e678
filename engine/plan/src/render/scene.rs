//! What all pictures show: the units that the goal starts, in layers and by stage, and the edges that say something new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::forecast::Forecast;
use crate::graph::{BootGraph, EdgeKind};
use crate::transaction::{Transaction, UnitId};

/// A graph made ready for drawing.
pub(crate) struct Scene<'a> {
    pub(crate) graph: &'a BootGraph,
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
    pub(crate) forecast: Forecast,
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
    pub(crate) fn new(graph: &'a BootGraph, transaction: &Transaction) -> Scene<'a> {
        let mut layer: Vec<Option<usize>> = vec![None; graph.len()];
        for job in transaction.jobs() {
            let before = transaction.spec(job.unit).after.iter();
            let deepest = before.filter_map(|(other, _)| layer[other.index()]).max();
            layer[job.unit.index()] = Some(deepest.map_or(0, |deepest| deepest + 1));
        }
        let forecast = Forecast::new(graph, &Arc::new(transaction.clone()));
        let order: Vec<UnitId> = transaction.jobs().iter().map(|job| job.unit).collect();
        Scene {
            graph,
            goal: transaction.goal(),
            layers: layer.iter().flatten().max().map_or(0, |deepest| deepest + 1),
            stages: stages(graph, &layer),
            lines: lines(graph, &order, &forecast),
            idle: graph.ids().filter(|id| layer[id.index()].is_none()).collect(),
            layer,
            forecast,
        }
    }

    pub(crate) fn name(&self, unit: UnitId) -> &'a str {
        self.graph.unit(unit).name.as_str()
    }

    /// Number of units that are started.
    pub(crate) fn started(&self) -> usize {
        self.graph.len() - self.idle.len()
    }
}

/// The started units by stage. A stage comes before another if its own target does.
fn stages<'a>(graph: &'a BootGraph, layer: &[Option<usize>]) -> Vec<Stage<'a>> {
    let mut members: BTreeMap<Option<&str>, Vec<UnitId>> = BTreeMap::new();
    for id in graph.ids().filter(|id| layer[id.index()].is_some()) {
        members.entry(graph.stage(id).map(|stage| stage.as_str())).or_default().push(id);
    }
    let mut stages: Vec<Stage<'_>> =
        members.into_iter().map(|(name, units)| Stage { name, units }).collect();
    stages.sort_by_key(|stage| {
        let target = stage.name.and_then(|name| graph.find(name));
        (target.map(|id| layer[id.index()]), stage.name)
    });
    stages
}

/// The lines between started units. An ordering that follows from others is left out: it would hide them.
fn lines(graph: &BootGraph, order: &[UnitId], forecast: &Forecast) -> Vec<Line> {
    let mut place: Vec<Option<usize>> = vec![None; graph.len()];
    order.iter().enumerate().for_each(|(at, id)| place[id.index()] = Some(at));
    let stretches = &forecast.path.stretches;
    let neighbours: BTreeSet<(UnitId, UnitId)> =
        stretches.windows(2).map(|pair| (pair[0].unit, pair[1].unit)).collect();

    let mut lines = Vec::new();
    for &then in order {
        let mut pairs: BTreeMap<UnitId, BTreeSet<EdgeKind>> = BTreeMap::new();
        for (first, edge) in graph.dependencies(then) {
            if place[first.index()].is_some() {
                pairs.entry(first).or_default().insert(edge.kind);
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

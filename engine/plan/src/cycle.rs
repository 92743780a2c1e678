//! Ordering cycles: found, cut down to the smallest, and shown edge by edge. Never mended by dropping an edge.

use std::collections::VecDeque;

use keel_unit::Diagnostic;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::graph::{BootGraph, Edge, EdgeKind};

/// One finding per knot of units that wait for each other: its smallest cycle.
pub(crate) fn cycles(graph: &BootGraph) -> Vec<Diagnostic> {
    let ordering = graph.graph.filter_map(
        |_, _| Some(()),
        |_, edge| matches!(edge.kind, EdgeKind::After(_)).then_some(edge),
    );
    let mut findings = Vec::new();
    for knot in kosaraju_scc(&ordering) {
        let alone = knot.len() == 1 && ordering.find_edge(knot[0], knot[0]).is_none();
        if !alone {
            findings
                .extend(smallest(&ordering, &knot).map(|cycle| finding(graph, &ordering, &cycle)));
        }
    }
    findings
}

/// Most edges that are walked in search of the smallest cycle of one knot. The search is quadratic at worst; a knot of thousands of
/// units that needs more than this gets the smallest cycle that was found until then.
const MOST_WALKED: usize = 10_000_000;

/// The smallest cycle within a strongly connected set.
///
/// The smallest cycle through a node is found breadth-first, no deeper than the best so far. That node then needs no
/// second look, nor does any that leads nowhere without it, so a ring of any length costs one walk.
fn smallest(ordering: &DiGraph<(), &Edge>, knot: &[NodeIndex]) -> Option<Vec<NodeIndex>> {
    let mut search = Search {
        ordering,
        inside: vec![false; ordering.node_count()],
        reached: vec![(0, NodeIndex::end()); ordering.node_count()],
        round: 0,
        left: MOST_WALKED,
    };
    knot.iter().for_each(|n| search.inside[n.index()] = true);
    let mut best: Option<Vec<NodeIndex>> = None;
    let mut sorted = knot.to_vec();
    sorted.sort();
    for start in sorted {
        if !search.inside[start.index()] {
            continue;
        }
        let limit = best.as_ref().map_or(usize::MAX, Vec::len);
        if let Some(cycle) = search.through(start, limit) {
            best = Some(cycle);
        }
        if search.left == 0 && best.is_some() {
            break;
        }
        search.inside[start.index()] = false;
        peel(ordering, start, &mut search.inside);
    }
    best
}

struct Search<'g, 'e> {
    ordering: &'g DiGraph<(), &'e Edge>,
    /// Nodes that may still be on a cycle that was not seen.
    inside: Vec<bool>,
    /// For each node the round in which it was reached last, and from where.
    reached: Vec<(u32, NodeIndex)>,
    round: u32,
    /// Edges that may still be walked.
    left: usize,
}

impl Search<'_, '_> {
    /// The smallest cycle through `start` that has fewer than `limit` nodes.
    fn through(&mut self, start: NodeIndex, limit: usize) -> Option<Vec<NodeIndex>> {
        self.round += 1;
        let mut queue = VecDeque::from([(start, 1)]);
        while let Some((at, length)) = queue.pop_front() {
            if length >= limit || self.left == 0 {
                return None;
            }
            for next in self.ordering.neighbors(at) {
                self.left = self.left.saturating_sub(1);
                if next == start {
                    return Some(self.way(start, at));
                }
                if self.inside[next.index()] && self.reached[next.index()].0 != self.round {
                    self.reached[next.index()] = (self.round, at);
                    queue.push_back((next, length + 1));
                }
            }
        }
        None
    }

    /// The nodes from `start` to `end`, as they were reached in this round.
    fn way(&self, start: NodeIndex, end: NodeIndex) -> Vec<NodeIndex> {
        let mut way = vec![end];
        let mut at = end;
        while at != start {
            at = self.reached[at.index()].1;
            way.push(at);
        }
        way.reverse();
        way
    }
}

/// Takes out every node that can be on no cycle any more, now that `gone` is out.
fn peel(ordering: &DiGraph<(), &Edge>, gone: NodeIndex, inside: &mut [bool]) {
    let mut suspects: Vec<NodeIndex> = ordering.neighbors_undirected(gone).collect();
    while let Some(node) = suspects.pop() {
        if !inside[node.index()] {
            continue;
        }
        let leads =
            |direction| ordering.neighbors_directed(node, direction).any(|n| inside[n.index()]);
        if !(leads(petgraph::Outgoing) && leads(petgraph::Incoming)) {
            inside[node.index()] = false;
            suspects.extend(ordering.neighbors_undirected(node));
        }
    }
}

/// A cycle longer than this is shown with its middle left out.
const LONGEST_SHOWN: usize = 12;

fn finding(graph: &BootGraph, ordering: &DiGraph<(), &Edge>, cycle: &[NodeIndex]) -> Diagnostic {
    let name = |n: NodeIndex| graph.graph[n].name.as_str();
    let edges: Vec<(NodeIndex, NodeIndex, &Edge)> = (0..cycle.len())
        .filter_map(|i| {
            let (from, to) = (cycle[i], cycle[(i + 1) % cycle.len()]);
            let edge = ordering.edges_connecting(from, to).min_by_key(|e| e.weight().span)?;
            Some((from, to, *edge.weight()))
        })
        .collect();
    let mut round: Vec<&str> = cycle.iter().map(|n| name(*n)).collect();
    let length = round.len();
    if length > LONGEST_SHOWN {
        round.splice(LONGEST_SHOWN / 2..length - LONGEST_SHOWN / 2, ["…"]);
    }
    round.push(name(cycle[0]));
    let say = |(from, to, edge): &(NodeIndex, NodeIndex, &Edge)| {
        format!("`{}` waits for `{}` ({})", name(*from), name(*to), edge.why)
    };
    let message = format!("ordering cycle of {length}: {}", round.join(" -> "));
    let Some((first, rest)) = edges.split_first() else {
        return Diagnostic::new("cycle", graph.graph[cycle[0]].span, message);
    };
    let mut found = Diagnostic::new("cycle", first.2.span, message).label(say(first));
    for edge in rest.iter().take(LONGEST_SHOWN) {
        found = found.also(edge.2.span, say(edge));
    }
    found.help("one of these orderings has to go; none is dropped to break the cycle")
}

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

/// The smallest cycle within a strongly connected set.
///
/// The smallest cycle through a node is found breadth-first, no deeper than the best so far. That node then needs no
/// second look, nor does any that leads nowhere without it, so a ring of any length costs one walk.
fn smallest(ordering: &DiGraph<(), &Edge>, knot: &[NodeIndex]) -> Option<Vec<NodeIndex>> {
    let mut inside = vec![false; ordering.node_count()];
    knot.iter().for_each(|n| inside[n.index()] = true);
    let mut best: Option<Vec<NodeIndex>> = None;
    let mut sorted = knot.to_vec();
    sorted.sort();
    for start in sorted {
        if !inside[start.index()] {
            continue;
        }
        let limit = best.as_ref().map_or(usize::MAX, Vec::len);
        if let Some(cycle) = through(ordering, start, &inside, limit) {
            best = Some(cycle);
        }
        inside[start.index()] = false;
        peel(ordering, start, &mut inside);
    }
    best
}

/// The smallest cycle through `start` that has fewer than `limit` nodes.
fn through(
    ordering: &DiGraph<(), &Edge>,
    start: NodeIndex,
    inside: &[bool],
    limit: usize,
) -> Option<Vec<NodeIndex>> {
    let mut from = std::collections::HashMap::new();
    let mut queue = VecDeque::from([(start, 1)]);
    while let Some((at, length)) = queue.pop_front() {
        if length >= limit {
            return None;
        }
        for next in ordering.neighbors(at) {
            if next == start {
                let mut cycle = vec![at];
                while let Some(before) = cycle.last().and_then(|n| from.get(n)) {
                    cycle.push(*before);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if inside[next.index()] && !from.contains_key(&next) {
                from.insert(next, at);
                queue.push_back((next, length + 1));
            }
        }
    }
    None
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

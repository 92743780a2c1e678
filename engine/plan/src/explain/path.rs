//! How two units depend on each other: the shortest chain for each thing that dependency can mean.

use serde::Serialize;

use super::{Depends, Hop, walk};
use crate::graph::EdgeKind;
use crate::transaction::UnitId;

/// What a chain means for its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Meaning {
    /// The one fails when the other does.
    Needs,
    /// The one begins when the other is done.
    WaitsFor,
    /// Whoever starts the one starts the other.
    Starts,
    /// Only one of them can be up.
    ConflictsWith,
}

impl Meaning {
    const ALL: [Meaning; 4] =
        [Meaning::Needs, Meaning::WaitsFor, Meaning::Starts, Meaning::ConflictsWith];

    /// As it stands between the names of two units.
    pub fn as_str(self) -> &'static str {
        match self {
            Meaning::Needs => "needs",
            Meaning::WaitsFor => "waits for",
            Meaning::Starts => "starts",
            Meaning::ConflictsWith => "conflicts with",
        }
    }

    fn follows(self, kind: EdgeKind) -> bool {
        match self {
            Meaning::Needs => matches!(kind, EdgeKind::Requires | EdgeKind::BindsTo),
            Meaning::WaitsFor => kind.awaits().is_some(),
            Meaning::Starts => kind.pulls_in(),
            Meaning::ConflictsWith => kind == EdgeKind::Conflicts,
        }
    }
}

/// A chain of dependency between two units.
#[derive(Debug, Clone, Serialize)]
pub struct Chain {
    /// The unit that depends on the other.
    pub from: String,
    /// The other.
    pub to: String,
    /// What that means; of two units that need each other in several ways along the same chain, all of them.
    pub means: Vec<Meaning>,
    /// The chain, shortest of all that mean it.
    pub hops: Vec<Hop>,
}

/// Every way in which one of two units depends on the other; those of `one` first.
pub fn chains(graph: &dyn Depends, one: UnitId, two: UnitId) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    for (from, to) in [(one, two), (two, one)] {
        for meaning in Meaning::ALL {
            // Who needs another starts it too; a conflict is with a unit itself, not along a chain.
            let needs = chains
                .iter()
                .any(|c| c.from == graph.name(from) && c.means.contains(&Meaning::Needs));
            if meaning == Meaning::Starts && needs {
                continue;
            }
            let Some(hops) = shortest(graph, from, to, &|kind| meaning.follows(kind)) else {
                continue;
            };
            if meaning == Meaning::ConflictsWith && hops.len() > 1 {
                continue;
            }
            let units =
                |hops: &[Hop]| -> Vec<String> { hops.iter().map(|h| h.to.clone()).collect() };
            let same = |chain: &&mut Chain| {
                chain.from == graph.name(from) && units(&chain.hops) == units(&hops)
            };
            match chains.iter_mut().find(same) {
                Some(chain) => {
                    chain.means.push(meaning);
                    for (all, hop) in chain.hops.iter_mut().zip(hops) {
                        all.edges.extend(hop.edges);
                    }
                }
                None => chains.push(Chain {
                    from: graph.name(from),
                    to: graph.name(to),
                    means: vec![meaning],
                    hops,
                }),
            }
        }
    }
    chains
}

/// The shortest chain of such edges from one unit to another that it depends on. Of several, the first by name.
pub(super) fn shortest(
    graph: &dyn Depends,
    from: UnitId,
    to: UnitId,
    follow: &dyn Fn(EdgeKind) -> bool,
) -> Option<Vec<Hop>> {
    if from == to {
        return None;
    }
    let before = walk(graph, from, follow);
    let mut hops = Vec::new();
    let mut at = to;
    while at != from {
        let above = before[at.index()]?;
        let reasons = graph.reasons(above, at).into_iter().filter(|(kind, _)| follow(*kind));
        hops.push(Hop {
            from: graph.name(above),
            to: graph.name(at),
            edges: reasons.map(|(_, reason)| reason).collect(),
        });
        at = above;
    }
    hops.reverse();
    Some(hops)
}

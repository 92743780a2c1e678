//! The boot graph: units as nodes, requirements and orderings as separate edges, each with its provenance.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use keel_unit::diagnostic::nearest;
use keel_unit::source::{Location, Sources, Span};
use keel_unit::words::Await;
use keel_unit::{Unit, UnitName};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use crate::digest::Digest;
use crate::transaction::UnitId;

/// What an edge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EdgeKind {
    /// The one must be active for the other.
    Requires,
    /// The one is started together with the other.
    Wants,
    /// As `Requires`, and the stop of the one stops the other.
    BindsTo,
    /// The one waits for the other.
    After(Await),
    /// The one is stopped when the other starts.
    Conflicts,
}

impl EdgeKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            EdgeKind::Requires => "requires",
            EdgeKind::Wants => "wants",
            EdgeKind::BindsTo => "binds-to",
            EdgeKind::After(_) => "after",
            EdgeKind::Conflicts => "conflicts",
        }
    }

    /// What an ordering edge waits for.
    pub fn awaits(self) -> Option<Await> {
        match self {
            EdgeKind::After(awaits) => Some(awaits),
            _ => None,
        }
    }

    /// Whether the edge draws the other unit into the transaction.
    pub fn pulls_in(self) -> bool {
        matches!(self, EdgeKind::Requires | EdgeKind::Wants | EdgeKind::BindsTo)
    }
}

/// Why an edge is in the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    /// Somebody wrote it: the word that says so.
    Written(&'static str),
    /// It follows from what the units do.
    Implied(String),
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Provenance::Written(word) => f.write_str(word),
            Provenance::Implied(reason) => write!(f, "implied: {reason}"),
        }
    }
}

/// An edge: the unit that it leaves depends on the unit that it enters.
#[derive(Debug, Clone)]
pub struct Edge {
    /// What it says.
    pub kind: EdgeKind,
    /// Why it is there.
    pub why: Provenance,
    /// Where it was written, or where the key stands that implies it.
    pub span: Span,
}

/// The units of a machine and how they depend on each other. Free of ordering cycles; nodes are in order of their names, so
/// that equal inputs give equal graphs.
#[derive(Debug, Clone)]
pub struct BootGraph {
    pub(crate) graph: DiGraph<Arc<Unit>, Edge>,
    pub(crate) names: HashMap<UnitName, NodeIndex>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) digest: Digest,
}

impl BootGraph {
    /// Number of units.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether there is no unit.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All ids, in order of the units' names.
    pub fn ids(&self) -> impl Iterator<Item = UnitId> + use<> {
        (0..self.graph.node_count() as u32).map(UnitId)
    }

    /// The unit with this id. Ids come from this graph, so there is one.
    pub fn unit(&self, id: UnitId) -> &Arc<Unit> {
        &self.graph[node(id)]
    }

    /// The unit of this name.
    pub fn find(&self, name: &str) -> Option<UnitId> {
        let name = <UnitName as keel_unit::keys::Text>::parse(name).ok()?;
        self.names.get(&name).map(|n| id(*n))
    }

    /// The units that were probably meant by a name that is none: those whose kind was left out or put behind, the instances of a
    /// template, or else the one that differs by a slip.
    pub fn meant(&self, name: &str) -> Vec<&UnitName> {
        let names = || self.graph.node_weights().map(|unit| &unit.name);
        let turned = name.rsplit_once('.').map(|(rest, kind)| format!("{kind}.{rest}"));
        let other_form = |known: &&UnitName| {
            let known = known.as_str();
            let short = known.split_once('.').is_some_and(|(_, rest)| rest == name);
            let instance = known.split_once('@').is_some_and(|(of, key)| of == name || key == name);
            short || instance || turned.as_deref() == Some(known)
        };
        let mut meant: Vec<&UnitName> = names().filter(other_form).collect();
        if meant.is_empty() {
            let near = nearest(name, names().map(UnitName::as_str));
            meant.extend(names().filter(|known| near == Some(known.as_str())));
        }
        meant
    }

    /// What a unit depends on, in order of the other units' names.
    pub fn dependencies(&self, unit: UnitId) -> impl Iterator<Item = (UnitId, &Edge)> {
        let mut edges: Vec<_> =
            self.graph.edges(node(unit)).map(|e| (id(e.target()), e.weight())).collect();
        edges.sort_by_key(|(other, edge)| (*other, edge.kind));
        edges.into_iter()
    }

    /// What depends on a unit, in order of the other units' names.
    pub fn dependents(&self, unit: UnitId) -> impl Iterator<Item = (UnitId, &Edge)> {
        let incoming = self.graph.edges_directed(node(unit), petgraph::Direction::Incoming);
        let mut edges: Vec<_> = incoming.map(|e| (id(e.source()), e.weight())).collect();
        edges.sort_by_key(|(other, edge)| (*other, edge.kind));
        edges.into_iter()
    }

    /// Number of edges.
    pub fn edge_count(&self) -> usize {
        self.graph.edge_count()
    }

    /// The stage of a unit: the target that it is part of, the first if there are several. A target that is part of another one is a
    /// stage itself, and its own; `boot` has none.
    pub fn stage(&self, unit: UnitId) -> Option<&UnitName> {
        let unit = self.unit(unit);
        match unit.part_of.first() {
            Some(_) if unit.kind.name() == keel_unit::KindName::Target => Some(&unit.name),
            Some(stage) => Some(&stage.unit),
            None => None,
        }
    }

    /// The digest of the graph: equal for equal units, parameters and edges, on every machine.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// `file:line` of a span in one of the graph's files.
    pub fn locate(&self, span: Span) -> Location {
        self.sources.locate(span)
    }

    /// The files that the graph comes from.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }
}

pub(crate) fn node(id: UnitId) -> NodeIndex {
    NodeIndex::new(id.index())
}

pub(crate) fn id(node: NodeIndex) -> UnitId {
    UnitId(node.index() as u32)
}

//! A graph that was exported, by a node or by an older version, to look for chains in.

use std::collections::HashMap;

use super::{Depends, Reason};
use crate::export::Export;
use crate::graph::EdgeKind;
use crate::render::edge_kind;
use crate::transaction::UnitId;

/// An exported graph with its edges by unit.
pub struct Exported<'a> {
    export: &'a Export,
    ids: HashMap<&'a str, UnitId>,
    /// For each unit, the places of its edges.
    edges: Vec<Vec<(UnitId, EdgeKind, usize)>>,
}

impl<'a> Exported<'a> {
    /// Makes its edges ready. One that leads nowhere, or says what this version does not know, is left out.
    pub fn new(export: &'a Export) -> Exported<'a> {
        let named = export.units.iter().zip(0..).map(|(unit, at)| (unit.name.as_str(), UnitId(at)));
        let ids: HashMap<&str, UnitId> = named.collect();
        let mut edges = vec![Vec::new(); export.units.len()];
        for (at, edge) in export.edges.iter().enumerate() {
            let (from, to) = (ids.get(edge.from.as_str()), ids.get(edge.to.as_str()));
            if let (Some(from), Some(to), Some(kind)) = (from, to, edge_kind(edge)) {
                edges[from.index()].push((*to, kind, at));
            }
        }
        Exported { export, ids, edges }
    }

    /// The unit of this name.
    pub fn find(&self, name: &str) -> Option<UnitId> {
        self.ids.get(name).copied()
    }
}

impl Depends for Exported<'_> {
    fn units(&self) -> usize {
        self.edges.len()
    }

    fn name(&self, unit: UnitId) -> String {
        self.export.units[unit.index()].name.clone()
    }

    fn edges(&self, unit: UnitId) -> Vec<(UnitId, EdgeKind)> {
        self.edges[unit.index()].iter().map(|(other, kind, _)| (*other, *kind)).collect()
    }

    fn reasons(&self, unit: UnitId, other: UnitId) -> Vec<(EdgeKind, Reason)> {
        let edges = self.edges[unit.index()].iter().filter(|(to, ..)| *to == other);
        let reason = |(_, kind, at): &(UnitId, EdgeKind, usize)| {
            let edge = &self.export.edges[*at];
            let reason = Reason {
                kind: kind.as_str(),
                awaits: kind.awaits().map(|awaits| awaits.as_str()),
                why: edge.why.clone(),
                file: edge.file.clone(),
                line: edge.line,
            };
            (*kind, reason)
        };
        edges.map(reason).collect()
    }
}

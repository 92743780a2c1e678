//! Graphviz.

use std::collections::BTreeMap;
use std::fmt::Write;

use keel_unit::KindName;

use crate::graph::{BootGraph, EdgeKind};
use crate::transaction::UnitId;

/// The graph for `dot`: stages as clusters, an arrow from each unit to what it waits for. Solid arrows are requirements,
/// dashed ones are ordering alone or weaker.
pub fn dot(graph: &BootGraph) -> String {
    let mut out = String::from(
        "digraph boot {\n  rankdir=RL;\n  node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=10];\n  edge [fontname=\"sans-serif\", fontsize=8];\n",
    );
    let mut stages: BTreeMap<Option<&str>, Vec<UnitId>> = BTreeMap::new();
    for id in graph.ids() {
        stages.entry(graph.stage(id).map(|s| s.as_str())).or_default().push(id);
    }
    for (stage, members) in stages {
        let indent = match stage {
            Some(stage) => {
                let _ = writeln!(out, "  subgraph \"cluster_{stage}\" {{\n    label=\"{stage}\";");
                "    "
            }
            None => "  ",
        };
        for id in members {
            let unit = graph.unit(id);
            let shape = if unit.kind.name() == KindName::Target { ", shape=ellipse" } else { "" };
            let _ = writeln!(
                out,
                "{indent}\"{}\" [label=\"{}\\n{}\"{shape}];",
                unit.name,
                unit.name,
                unit.kind.name()
            );
        }
        if stage.is_some() {
            out.push_str("  }\n");
        }
    }
    for id in graph.ids() {
        // One arrow for each pair: requirement and ordering between two units are one line to the eye.
        let mut pairs: BTreeMap<UnitId, Vec<EdgeKind>> = BTreeMap::new();
        for (other, edge) in graph.dependencies(id) {
            pairs.entry(other).or_default().push(edge.kind);
        }
        for (other, kinds) in pairs {
            let has = |wanted: fn(&EdgeKind) -> bool| kinds.iter().any(wanted);
            let strong = has(|k| matches!(k, EdgeKind::Requires | EdgeKind::BindsTo));
            let ordered = has(|k| k.awaits().is_some());
            let style = match () {
                () if has(|k| *k == EdgeKind::Conflicts) => "color=red, dir=both, style=dotted",
                () if strong && ordered => "style=solid",
                () if strong => "style=solid, arrowhead=empty",
                () if ordered => "style=dashed",
                () => "style=dotted, arrowhead=empty",
            };
            let _ = writeln!(
                out,
                "  \"{}\" -> \"{}\" [{style}];",
                graph.unit(id).name,
                graph.unit(other).name
            );
        }
    }
    out.push_str("}\n");
    out
}

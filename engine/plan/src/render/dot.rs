//! Graphviz.

use std::fmt::Write;

use keel_unit::KindName;

use super::scene::{Look, Scene};
use crate::graph::BootGraph;
use crate::transaction::{Transaction, UnitId};

/// The graph for `dot`: stages as clusters, an arrow from each unit to those that wait for it. Solid arrows are requirements,
/// dashed ones are ordering alone or weaker; the critical path is red.
pub fn dot(graph: &BootGraph, transaction: &Transaction) -> String {
    let scene = Scene::new(graph, transaction);
    let mut out = String::from(
        "digraph boot {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=10];\n  edge [fontname=\"sans-serif\", fontsize=8];\n",
    );
    for stage in &scene.stages {
        let indent = match stage.name {
            Some(name) => {
                let _ = writeln!(out, "  subgraph \"cluster_{name}\" {{\n    label=\"{name}\";");
                "    "
            }
            None => "  ",
        };
        stage.units.iter().for_each(|id| node(&mut out, &scene, *id, indent));
        if stage.name.is_some() {
            out.push_str("  }\n");
        }
    }
    scene.idle.iter().for_each(|id| node(&mut out, &scene, *id, "  "));
    for line in &scene.lines {
        let style = match line.look {
            Look::Firm => "style=solid",
            Look::Order => "style=dashed",
            Look::Need => "style=solid, arrowhead=empty",
            Look::Want => "style=dotted, arrowhead=empty",
        };
        let critical = if line.critical { ", color=\"#c2410c\", penwidth=2.5" } else { "" };
        let (first, then) = (scene.name(line.first), scene.name(line.then));
        let _ = writeln!(out, "  \"{first}\" -> \"{then}\" [{style}{critical}];");
    }
    out.push_str("}\n");
    out
}

fn node(out: &mut String, scene: &Scene<'_>, id: UnitId, indent: &str) {
    let kind = scene.graph.unit(id).kind.name();
    let shape = if kind == KindName::Target { ", shape=ellipse" } else { "" };
    let look = match (scene.layer[id.index()], scene.forecast.critical(id)) {
        (None, _) => ", color=gray, fontcolor=gray",
        (_, true) => ", color=\"#c2410c\", penwidth=2.5",
        _ => "",
    };
    let name = scene.name(id);
    let _ = writeln!(out, "{indent}\"{name}\" [label=\"{name}\\n{kind}\"{shape}{look}];");
}

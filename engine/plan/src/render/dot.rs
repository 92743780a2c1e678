//! Graphviz.

use std::fmt::Write;

use super::scene::{Look, Scene};
use crate::export::Export;
use crate::transaction::UnitId;

/// The graph for `dot`: stages as clusters, an arrow from each unit to those that wait for it. Solid arrows are requirements,
/// dashed ones are ordering alone or weaker; the critical path is red.
pub fn dot(export: &Export) -> String {
    let scene = Scene::new(export);
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
    let kind = &scene.unit(id).kind;
    let shape = if scene.is_target(id) { ", shape=ellipse" } else { "" };
    let look = match (scene.layer[id.index()], scene.critical(id)) {
        (None, _) => ", color=gray, fontcolor=gray",
        (_, true) => ", color=\"#c2410c\", penwidth=2.5",
        _ => "",
    };
    let (name, unit) = (scene.name(id), scene.unit(id));
    let (state, fill) = match (&unit.state, scene.standing(id)) {
        (Some(state), Some(standing)) => (
            format!("\\n{state}"),
            format!(", style=\"rounded,filled\", fillcolor=\"{}40\"", standing.colour()),
        ),
        _ => Default::default(),
    };
    let _ =
        writeln!(out, "{indent}\"{name}\" [label=\"{name}\\n{kind}{state}\"{shape}{look}{fill}];");
}

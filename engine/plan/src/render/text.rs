//! Text for a terminal: a tree of layers, whose units may run side by side, each with what it waits for.

use std::fmt::Write;

use keel_unit::KindName;
use keel_unit::value::people;

use super::scene::Scene;
use crate::graph::BootGraph;
use crate::transaction::{Transaction, UnitId};

/// The transaction in layers. A layer holds the units whose last prerequisite is in the layer before. A star marks what decides
/// how long the boot takes.
pub fn text(graph: &BootGraph, transaction: &Transaction) -> String {
    let scene = Scene::new(graph, transaction);
    let mut layers: Vec<Vec<UnitId>> = vec![Vec::new(); scene.layers];
    for id in graph.ids() {
        if let Some(layer) = scene.layer[id.index()] {
            layers[layer].push(id);
        }
    }
    let layout = Columns::of(&scene);
    let mut out = String::new();
    let path = &scene.forecast.path;
    let _ = writeln!(
        out,
        "goal {}, {} units in {} layers, {}",
        scene.name(scene.goal),
        scene.started(),
        layers.len(),
        graph.digest()
    );
    let _ = writeln!(
        out,
        "* the critical path: {} units, {} predicted, {} side by side at most",
        path.stretches.len(),
        people(path.total),
        path.side_by_side
    );
    for (own, members) in layers.iter().enumerate() {
        let side = match members.len() {
            1 => String::new(),
            many => format!(", {many} side by side"),
        };
        let _ = writeln!(out, "\nlayer {}{side}", own + 1);
        for (at, id) in members.iter().enumerate() {
            let branch = if at + 1 == members.len() { "└─" } else { "├─" };
            let _ = writeln!(out, "{branch}{}", layout.line(&scene, *id, own));
        }
    }
    if !scene.idle.is_empty() {
        let idle: Vec<&str> = scene.idle.iter().map(|id| scene.name(*id)).collect();
        let _ = writeln!(out, "\nnot started by this goal: {}", idle.join(", "));
    }
    out
}

/// How wide the columns are.
struct Columns {
    name: usize,
    stage: usize,
}

impl Columns {
    fn of(scene: &Scene<'_>) -> Columns {
        let widest = |text: &dyn Fn(UnitId) -> usize| {
            let started = scene.graph.ids().filter(|id| scene.layer[id.index()].is_some());
            started.map(text).max().unwrap_or(0)
        };
        let stage = |id: UnitId| scene.graph.stage(id).map_or(0, |stage| stage.as_str().len());
        Columns { name: widest(&|id| scene.name(id).len()), stage: widest(&stage) }
    }

    fn line(&self, scene: &Scene<'_>, id: UnitId, layer: usize) -> String {
        let unit = scene.graph.unit(id);
        let kind = unit.kind.name();
        let mark = if scene.forecast.critical(id) { '*' } else { ' ' };
        let deadline = match unit.deadline() {
            Some(deadline) if kind != KindName::Target => format!("within {}", people(deadline)),
            _ => String::new(),
        };
        let condition = if unit.condition.is_empty() { "" } else { " (conditional)" };
        // Only the last layer before is what a unit really waits for; what lies deeper is done by then.
        let last = |other: UnitId| scene.layer[other.index()].is_some_and(|l| l + 1 == layer);
        let mut holds: Vec<UnitId> = scene
            .graph
            .dependencies(id)
            .filter(|(other, edge)| edge.kind.awaits().is_some() && last(*other))
            .map(|(other, _)| other)
            .collect();
        holds.dedup();
        let holds: Vec<&str> = holds.into_iter().map(|id| scene.name(id)).collect();
        let waits = match holds.is_empty() {
            true => String::new(),
            false => format!("  <- {}", holds.join(", ")),
        };
        let (name, stage) = (self.name, self.stage);
        let line = format!(
            "{mark} {:name$}  {:stage$}  {:10}  {deadline:17}{condition}{waits}",
            unit.name.as_str(),
            scene.graph.stage(id).map_or("", |stage| stage.as_str()),
            kind.as_str(),
        );
        line.trim_end().to_owned()
    }
}

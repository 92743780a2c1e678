//! Text for a terminal: a tree of layers, whose units may run side by side, each with what it waits for.

use std::fmt::Write;
use std::time::Duration;

use keel_unit::value::people;

use super::scene::Scene;
use crate::export::Export;
use crate::transaction::UnitId;

/// The transaction in layers. A layer holds the units whose last prerequisite is in the layer before. A star marks what decides
/// how long the boot takes.
pub fn text(export: &Export) -> String {
    let scene = Scene::new(export);
    let mut layers: Vec<Vec<UnitId>> = vec![Vec::new(); scene.layers];
    for id in scene.ids() {
        if let Some(layer) = scene.layer[id.index()] {
            layers[layer].push(id);
        }
    }
    let layout = Columns::of(&scene);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "goal {}, {} units in {} layers, {}",
        scene.name(scene.goal),
        scene.started(),
        layers.len(),
        export.digest
    );
    let _ = writeln!(
        out,
        "* the critical path: {} units, {} predicted, {} side by side at most",
        scene.path.len(),
        people(Duration::from_millis(export.predicted.total_ms)),
        export.predicted.side_by_side
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
    /// 0 where no state is known.
    state: usize,
}

impl Columns {
    fn of(scene: &Scene<'_>) -> Columns {
        let widest = |text: &dyn Fn(UnitId) -> usize| {
            let started = scene.ids().filter(|id| scene.layer[id.index()].is_some());
            started.map(text).max().unwrap_or(0)
        };
        let stage = |id: UnitId| scene.stage(id).map_or(0, str::len);
        let state = |id: UnitId| scene.unit(id).state.as_ref().map_or(0, |state| state.len() + 4);
        Columns {
            name: widest(&|id| scene.name(id).len()),
            stage: widest(&stage),
            state: widest(&state),
        }
    }

    fn line(&self, scene: &Scene<'_>, id: UnitId, layer: usize) -> String {
        let unit = scene.unit(id);
        let mark = if scene.critical(id) { '*' } else { ' ' };
        let deadline = match unit.deadline_ms.map(Duration::from_millis) {
            Some(deadline) if !scene.is_target(id) => format!("within {}", people(deadline)),
            _ => String::new(),
        };
        let condition = if unit.conditional { " (conditional)" } else { "" };
        let state = match (&unit.state, scene.standing(id)) {
            (Some(state), Some(standing)) => format!("{} {state}", standing.mark()),
            _ => String::new(),
        };
        // Only the last layer before is what a unit really waits for; what lies deeper is done by then.
        let last = |other: UnitId| scene.layer[other.index()].is_some_and(|l| l + 1 == layer);
        let mut holds: Vec<UnitId> = scene
            .dependencies(id)
            .iter()
            .filter(|(other, kind)| kind.awaits().is_some() && last(*other))
            .map(|(other, _)| *other)
            .collect();
        holds.dedup();
        let holds: Vec<&str> = holds.into_iter().map(|id| scene.name(id)).collect();
        let waits = match holds.is_empty() {
            true => String::new(),
            false => format!("  <- {}", holds.join(", ")),
        };
        let (name, stage, wide) = (self.name, self.stage, self.state);
        let line = format!(
            "{mark} {:name$}  {:stage$}  {:10}  {state:wide$}{deadline:13}{condition}{waits}",
            unit.name,
            scene.stage(id).unwrap_or_default(),
            unit.kind,
        );
        line.trim_end().to_owned()
    }
}

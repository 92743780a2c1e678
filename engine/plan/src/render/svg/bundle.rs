//! Bundles: where each of several units is waited for by each of several others, one knot between them says the same with far
//! fewer lines. `after = ["module"]` in a template makes such a graph.

use std::collections::BTreeMap;

use crate::render::scene::{Look, Scene};
use crate::transaction::UnitId;

/// Fewest units on the one side, and fewest on the other.
const FEWEST: (usize, usize) = (3, 2);

/// Units that the same others wait for.
pub(super) struct Bundle {
    pub(super) look: Look,
    /// The layer of those that come first.
    pub(super) layer: usize,
    pub(super) firsts: Vec<UnitId>,
    pub(super) thens: Vec<UnitId>,
}

/// Finds the bundles of a scene.
pub(super) fn bundles(scene: &Scene<'_>) -> Vec<Bundle> {
    let mut thens: BTreeMap<(UnitId, Look), Vec<UnitId>> = BTreeMap::new();
    for line in scene.lines.iter().filter(|line| line.look.ordered()) {
        thens.entry((line.first, line.look)).or_default().push(line.then);
    }
    type Alike<'a> = (usize, Option<&'a str>, Look, Vec<UnitId>);
    let mut alike: BTreeMap<Alike<'_>, Vec<UnitId>> = BTreeMap::new();
    for ((first, look), mut thens) in thens {
        thens.sort_unstable();
        if let Some(layer) = scene.layer[first.index()]
            && thens.len() >= FEWEST.1
        {
            let stage = scene.stage(first);
            alike.entry((layer, stage, look, thens)).or_default().push(first);
        }
    }
    alike
        .into_iter()
        .filter(|(_, firsts)| firsts.len() >= FEWEST.0)
        .map(|((layer, _, look, thens), firsts)| Bundle { look, layer, firsts, thens })
        .collect()
}

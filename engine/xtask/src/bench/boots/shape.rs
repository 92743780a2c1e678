//! The graphs that are measured: one-shot units alone, each of which runs a program that does nothing.

use std::fmt;

/// How the units of a graph depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// None depends on another
    Side,
    /// 20 layers, each unit depends on three random ones of the layer before
    Layers,
    /// Each depends on the one before
    Chain,
}

impl Shape {
    pub(super) const ALL: [Self; 3] = [Self::Side, Self::Layers, Self::Chain];

    /// Its name on the command line and in results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Side => "side",
            Self::Layers => "layers",
            Self::Chain => "chain",
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Side => "side by side",
            Self::Layers => "20 layers",
            Self::Chain => "chain",
        })
    }
}

const LAYERS: usize = 20;
const PER_UNIT: usize = 3;

/// For each unit, by its number, the earlier ones that it requires and comes after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Graph(pub(super) Vec<Vec<usize>>);

impl Graph {
    /// The same words give the same graph.
    pub(super) fn new(shape: Shape, units: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let layer = units.div_ceil(LAYERS).max(1);
        let before = |i: usize| match shape {
            Shape::Side => Vec::new(),
            Shape::Chain => i.checked_sub(1).into_iter().collect(),
            Shape::Layers => {
                let Some(first) = (i / layer).checked_sub(1).map(|before| before * layer) else {
                    return Vec::new();
                };
                let mut picked: Vec<_> =
                    random.choose_multiple(first..first + layer, PER_UNIT.min(layer));
                picked.sort_unstable();
                picked
            }
        };
        Graph((0..units).map(before).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let check = |shape, units, expect: &[&[usize]]| {
            let Graph(found) = Graph::new(shape, units);
            assert_eq!(found, expect, "{shape}");
        };
        check(Shape::Side, 2, &[&[], &[]]);
        check(Shape::Chain, 3, &[&[], &[0], &[1]]);
        check(Shape::Layers, 3, &[&[], &[0], &[1]]);
    }

    #[test]
    fn each_unit_of_a_layer_depends_on_three_of_the_one_before() {
        let Graph(found) = Graph::new(Shape::Layers, 100);
        assert_eq!(found, Graph::new(Shape::Layers, 100).0);
        for (i, before) in found.iter().enumerate() {
            assert_eq!(before.len(), if i < 5 { 0 } else { 3 });
            assert!(before.iter().all(|other| other / 5 + 1 == i / 5), "{i}: {before:?}");
        }
    }
}

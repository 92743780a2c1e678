//! What a page lists, and in which order.

use std::collections::BTreeMap;

use keel_proto::v1::{Unit, UnitProcesses, UnitState};

use super::model::{Model, Tab};
use crate::node::millis;

/// The units of a stage.
#[derive(Debug)]
pub(crate) struct Layer<'a> {
    pub(crate) name: &'a str,
    began: u64,
    pub(crate) units: Vec<&'a Unit>,
}

impl Model {
    /// The names that one can go through on this page, as they stand there.
    pub(crate) fn names(&self) -> Vec<String> {
        match self.tab {
            Tab::Boot => {
                let layers = self.layers();
                layers.iter().flat_map(|layer| &layer.units).map(|unit| unit.name.clone()).collect()
            }
            Tab::Units => self.by_state().iter().map(|unit| unit.name.clone()).collect(),
            Tab::Processes => self.by_load().iter().map(|unit| unit.unit.clone()).collect(),
            Tab::Events => self.selected.iter().cloned().collect(),
        }
    }

    fn passes(&self, name: &str) -> bool {
        name.contains(self.filter.as_str())
    }

    /// The units in the layers that the boot goes through: by stage, the stages in the order in which their work began.
    pub(crate) fn layers(&self) -> Vec<Layer<'_>> {
        let mut layers: BTreeMap<Option<&str>, Layer<'_>> = BTreeMap::new();
        for unit in self.units.units.iter().filter(|unit| self.passes(&unit.name)) {
            let stage = unit.stage.as_deref();
            let layer = layers.entry(stage).or_insert_with(|| Layer {
                name: stage.unwrap_or("no stage"),
                began: u64::MAX,
                units: Vec::new(),
            });
            let boot = unit.boot.as_ref();
            let began = boot.and_then(|boot| boot.began.as_ref().or(boot.ended.as_ref()));
            if let Some(began) = began {
                layer.began = layer.began.min(millis(Some(began)));
            }
            layer.units.push(unit);
        }
        let mut layers: Vec<_> = layers.into_values().collect();
        layers.sort_by_key(|layer| (layer.name == "no stage", layer.began));
        layers
    }

    /// The units, those first that need a look.
    pub(crate) fn by_state(&self) -> Vec<&Unit> {
        let rank = |unit: &Unit| match unit.state() {
            UnitState::Failed => 0,
            UnitState::Activating => 1,
            UnitState::Deactivating => 2,
            UnitState::Waiting => 3,
            UnitState::Running => 4,
            UnitState::Exited => 5,
            UnitState::Skipped => 6,
            UnitState::Inactive | UnitState::Unspecified => 7,
        };
        let mut units: Vec<_> =
            self.units.units.iter().filter(|unit| self.passes(&unit.name)).collect();
        units.sort_by(|a, b| (rank(a), &a.name).cmp(&(rank(b), &b.name)));
        units
    }

    /// The units that have processes, the busiest first.
    pub(crate) fn by_load(&self) -> Vec<&UnitProcesses> {
        let key = |unit: &UnitProcesses| {
            (self.load.get(&unit.unit).copied().unwrap_or(0), unit.memory_bytes.unwrap_or(0))
        };
        let mut units: Vec<_> =
            self.processes.iter().filter(|unit| self.passes(&unit.unit)).collect();
        units.sort_by(|a, b| key(b).cmp(&key(a)).then_with(|| a.unit.cmp(&b.unit)));
        units
    }
}

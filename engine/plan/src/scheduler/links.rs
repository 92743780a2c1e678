//! The edges, backwards: who has to be told about a unit. Compressed rows, built once in linear time.

use crate::transaction::{Spec, Transaction, UnitId};

/// For each unit, the units that refer to it.
#[derive(Debug)]
pub(crate) struct Links {
    /// Ordered after it.
    pub(super) later: Rows,
    /// Requiring it or bound to it.
    pub(super) needed_by: Rows,
    /// Bound to it.
    pub(super) bound_by: Rows,
    /// In conflict with it, whichever of the two says so.
    pub(super) conflicts: Rows,
}

impl Links {
    pub(crate) fn new(transaction: &Transaction) -> Links {
        let edges = |of: &dyn Fn(&Spec) -> Vec<UnitId>| {
            let mut rows = Vec::new();
            for id in transaction.ids() {
                rows.extend(of(transaction.spec(id)).into_iter().map(|to| (to, id)));
            }
            rows
        };
        let mut conflicts = edges(&|spec| spec.conflicts.clone());
        for index in 0..conflicts.len() {
            let (to, id) = conflicts[index];
            conflicts.push((id, to));
        }
        let units = transaction.units().len();
        Links {
            later: Rows::new(units, &edges(&|spec| spec.after.iter().map(|&(to, _)| to).collect())),
            needed_by: Rows::new(
                units,
                &edges(&|spec| [&spec.requires[..], &spec.binds_to[..]].concat()),
            ),
            bound_by: Rows::new(units, &edges(&|spec| spec.binds_to.clone())),
            conflicts: Rows::new(units, &conflicts),
        }
    }
}

/// One row of units for each unit.
#[derive(Debug)]
pub(crate) struct Rows {
    starts: Vec<u32>,
    items: Vec<UnitId>,
}

impl Rows {
    /// From pairs of a row and an item in it, which keep their order.
    fn new(units: usize, pairs: &[(UnitId, UnitId)]) -> Rows {
        let mut starts = vec![0; units + 1];
        for (row, _) in pairs {
            starts[row.index() + 1] += 1;
        }
        for row in 1..starts.len() {
            starts[row] += starts[row - 1];
        }
        let mut next = starts.clone();
        let mut items = vec![UnitId(0); pairs.len()];
        for &(row, item) in pairs {
            items[next[row.index()] as usize] = item;
            next[row.index()] += 1;
        }
        Rows { starts, items }
    }

    pub(super) fn of(&self, id: UnitId) -> &[UnitId] {
        &self.items[self.starts[id.index()] as usize..self.starts[id.index() + 1] as usize]
    }
}

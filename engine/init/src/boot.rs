//! From the files of the image to what is to be run.

use std::sync::Arc;

use keel_plan::{BootGraph, PlanError, Transaction, plan, resolve};
use keel_unit::{load, lower};

use crate::arguments::Arguments;

/// What this boot is to do.
pub(crate) struct Boot {
    pub(crate) graph: BootGraph,
    pub(crate) transaction: Arc<Transaction>,
}

/// Reads units and config, and plans the way to the goal. An error is a report for people, one finding a line.
pub(crate) fn load(arguments: &Arguments) -> Result<Boot, String> {
    let input = load::load(&arguments.units, Some(&arguments.config));
    let set = lower(input).map_err(|report| report.to_string())?;
    let graph = resolve(set).map_err(|report| report.to_string())?;
    let transaction = plan(&graph, &arguments.goal).map_err(|error| match error {
        PlanError::Invalid(report) => report.to_string(),
        error => error.to_string(),
    })?;
    Ok(Boot { graph, transaction: Arc::new(transaction) })
}

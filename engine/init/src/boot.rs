//! From the files of the image to what is to be run.

use std::sync::Arc;

use keel_plan::{BootGraph, PlanError, Transaction, compile};
use keel_unit::diagnostic::Drawing;
use keel_unit::load;

use crate::arguments::Arguments;

/// What this boot is to do.
pub(crate) struct Boot {
    pub(crate) graph: BootGraph,
    pub(crate) transaction: Arc<Transaction>,
}

/// Reads units and config, and plans the way to the goal. An error is a report for people, with the text underlined as
/// `osctl validate` does it; in ASCII, because nobody knows what is at the other end of a serial line.
pub(crate) fn load(arguments: &Arguments) -> Result<Boot, String> {
    let input = load::load(&arguments.units, Some(&arguments.config));
    let (graph, transaction) = compile(input, &arguments.goal).map_err(|error| match error {
        PlanError::Invalid(report) => report.draw(Drawing::Ascii),
        error => error.to_string(),
    })?;
    Ok(Boot { graph, transaction: Arc::new(transaction) })
}

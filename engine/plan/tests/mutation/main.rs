//! A change of graph on a machine that runs: what it asks of each unit, what comes of it, and what comes of it when it goes wrong.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod decisions;
mod properties;
mod trips;

use std::sync::Arc;

use keel_plan::mutation::Side;
use keel_plan::{BOOT, compile};
use keel_unit::Input;

/// Units as `name: body`, separated by lines of `---`, with `boot` that wants all that is part of it.
fn side(units: &str) -> Side {
    let mut input = Input::default();
    input.unit("units/boot.toml", "[target]\n");
    for unit in units.split("---\n").filter(|unit| !unit.trim().is_empty()) {
        let (path, body) = unit.trim_start().split_once('\n').unwrap();
        input.unit(&format!("units/{}.toml", path.trim()), body.to_owned());
    }
    let (graph, transaction) =
        compile(input, BOOT).unwrap_or_else(|error| panic!("{error:?}\n{units}"));
    Side { graph: Arc::new(graph), transaction: Arc::new(transaction) }
}

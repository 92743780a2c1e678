//! Pictures of a boot, recorded or simulated: bars in a terminal, a Gantt chart, and the events that trace viewers read.

mod chrome;
mod svg;
mod text;

pub use chrome::chrome;
pub use svg::svg;
pub use text::{Bar, Tone, bars};

use std::collections::HashMap;
use std::time::Duration;

use crate::trace::{StateName, Trace};

/// When the last thing in a trace happened; at least the total.
fn horizon(trace: &Trace) -> Duration {
    let last = trace.units.iter().filter_map(|unit| unit.ended().max(unit.began())).max();
    last.unwrap_or_default().max(trace.total())
}

/// The places of all units, in the order in which they began (or, without an activation, ended). At one instant, a unit stands behind
/// what it waited for.
fn in_time(trace: &Trace) -> Vec<usize> {
    let depths = depths(trace);
    let mut places: Vec<usize> = (0..trace.units.len()).collect();
    places.sort_by_key(|&place| {
        let unit = &trace.units[place];
        let at = unit.began().or(unit.ended()).unwrap_or(Duration::MAX);
        (at, unit.ended().unwrap_or(Duration::MAX), depths[place], place)
    });
    places
}

/// How long the chain of waits behind each unit is.
fn depths(trace: &Trace) -> Vec<usize> {
    let places: HashMap<&str, usize> =
        trace.units.iter().enumerate().map(|(place, unit)| (unit.name.as_str(), place)).collect();
    let waited_for = |place: usize| {
        trace.units[place].waited_for.as_deref().and_then(|name| places.get(name).copied())
    };
    let mut depths: Vec<Option<usize>> = vec![None; trace.units.len()];
    for place in 0..trace.units.len() {
        // Down to what is known, and back up; what a chain comes back to is where it began.
        let mut chain = Vec::new();
        let mut next = Some(place);
        let mut depth = 0;
        while let Some(place) = next {
            match depths[place] {
                Some(known) => {
                    depth = known + 1;
                    break;
                }
                None => {
                    depths[place] = Some(0);
                    chain.push(place);
                    next = waited_for(place);
                }
            }
        }
        for place in chain.into_iter().rev() {
            depths[place] = Some(depth);
            depth += 1;
        }
    }
    depths.into_iter().map(Option::unwrap_or_default).collect()
}

/// Whether something went wrong with a unit in this state.
fn is_bad(state: StateName) -> bool {
    matches!(state, StateName::Failed)
}

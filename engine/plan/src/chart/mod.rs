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

/// A span of time as a person says it, to three digits.
pub fn people(span: Duration) -> String {
    let micros = span.as_micros();
    let millis = span.as_millis();
    match micros {
        0 => "0 ms".to_owned(),
        1..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        10_000..1_000_000 => format!("{millis} ms"),
        1_000_000..60_000_000 => format!("{}.{:02} s", millis / 1000, millis % 1000 / 10),
        _ => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1000),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_three_digits_at_most() {
        let check = |micros: u64, expect: &str| {
            assert_eq!(people(Duration::from_micros(micros)), expect);
        };
        check(0, "0 ms");
        check(99, "0.0 ms");
        check(1_250, "1.2 ms");
        check(9_999, "9.9 ms");
        check(10_000, "10 ms");
        check(999_999, "999 ms");
        check(1_000_000, "1.00 s");
        check(59_999_999, "59.99 s");
        check(90_000_000, "1 min 30 s");
    }
}

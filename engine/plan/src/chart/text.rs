//! Bars of text, one line for each unit.

use std::time::Duration;

use keel_unit::value::people;

use super::{horizon, in_time, is_bad};
use crate::path::working_from;
use crate::trace::{StateName, Trace, UnitTrace};

/// One line, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    /// The line, without its end.
    pub text: String,
    /// How it may be coloured.
    pub tone: Tone,
}

/// What a line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// The names of the columns.
    Heading,
    /// A unit that decided how long the boot took.
    Critical,
    /// A unit that came up beside.
    Plain,
    /// A unit that failed.
    Bad,
    /// A unit that had nothing to do.
    Faint,
}

/// A boot as a waterfall, `width` columns for the bars.
///
/// `█` on the critical path, `▒` beside it, `·` waiting for a processor, `◆` reached without work, `○` skipped, `✗` failed.
pub fn bars(trace: &Trace, width: usize) -> Vec<Bar> {
    let (end, width) = (horizon(trace), width.max(1));
    let critical = trace.critical();
    let has_slack = trace.units.iter().any(|unit| unit.slack_us.is_some());
    let longest = trace.units.iter().map(|unit| unit.name.len()).max().unwrap_or(0).max(4);
    let mut lines = Vec::with_capacity(trace.units.len() + 1);
    let columns = |name: &str, began: &str, took: &str, slack: &str, bar: &str| {
        let slack = if has_slack { format!("{slack:>9}  ") } else { String::new() };
        format!("{name:longest$}  {began:>9}  {took:>9}  {slack}{bar}").trim_end().to_owned()
    };
    let to = people(end);
    let scale = format!("0{to:>rest$}", rest = width.saturating_sub(1));
    lines
        .push(Bar { text: columns("UNIT", "BEGAN", "TOOK", "SLACK", &scale), tone: Tone::Heading });
    for place in in_time(trace) {
        let unit = &trace.units[place];
        let began = unit.began().or(unit.ended()).map(people).unwrap_or_default();
        let took = unit.began().map(|_| people(unit.took(end))).unwrap_or_default();
        let slack = match unit.slack_us {
            Some(slack) => people(Duration::from_micros(slack)),
            None if unit.ended_us.is_some() => "free".to_owned(),
            None => String::new(),
        };
        let bar = bar(unit, critical[place], end, width);
        let tone = match unit.state {
            state if is_bad(state) => Tone::Bad,
            StateName::Skipped => Tone::Faint,
            _ if critical[place] => Tone::Critical,
            _ => Tone::Plain,
        };
        lines.push(Bar { text: columns(&unit.name, &began, &took, &slack, &bar), tone });
    }
    lines
}

fn bar(unit: &UnitTrace, critical: bool, end: Duration, width: usize) -> String {
    let at = |time: Duration| {
        if end.is_zero() {
            return 0;
        }
        let place = time.as_micros() * width as u128 / end.as_micros();
        usize::try_from(place).unwrap_or(width).min(width.saturating_sub(1))
    };
    let last = unit.ended().unwrap_or(end);
    let mark = match unit.state {
        state if is_bad(state) => Some('✗'),
        StateName::Skipped => Some('○'),
        _ if unit.took(end).is_zero() => Some('◆'),
        _ => None,
    };
    let mut cells = vec![' '; width];
    if let Some((began, working)) = unit.began().zip(working_from(unit)) {
        let (from, to) = (at(began), at(last));
        // Anybody may have written the file.
        let work = at(working).clamp(from, to);
        cells[from..work].fill('·');
        // What ends in a cell in which it did not begin fills that cell only if it reaches into it.
        let past = if to > work && at_edge(last, end, width) { to } else { to + 1 };
        cells[work..past].fill(if critical { '█' } else { '▒' });
    }
    if let (Some(mark), Some(cell)) = (mark, cells.get_mut(at(last)))
        && (unit.ended_us.is_some())
    {
        *cell = mark;
    }
    cells.into_iter().collect::<String>().trim_end().to_owned()
}

/// Whether an instant lies on the line between two cells.
fn at_edge(time: Duration, end: Duration, width: usize) -> bool {
    time < end && (time.as_micros() * width as u128).is_multiple_of(end.as_micros().max(1))
}

//! By how much each unit could be late without the goal being late.

use std::time::Duration;

use crate::machine::Machine;
use crate::simulate::Simulation;
use crate::timeline::Span;
use crate::transaction::{Await, Class, Transaction, UnitId};

/// The slack of every unit, by [`UnitId`]: by how much later it could have ended without the goal coming any later. None for a unit
/// that the goal does not wait for, or that did not end.
///
/// Backwards from the goal: a unit's slack is the least, over those that wait for it, of their own slack and the time between
/// its end and their beginning. With few processors the one who waits for a processor waits for the unit that has it; that a late unit
/// would also change the order in which processors are given out is not foreseen.
pub fn slack(
    transaction: &Transaction,
    machine: &Machine,
    run: &Simulation,
) -> Vec<Option<Duration>> {
    let spans = run.timeline.spans();
    let mut slack: Vec<Option<Duration>> = vec![None; spans.len()];
    let goal = transaction.goal();
    if spans[goal.index()].ended.is_none() {
        return slack;
    }
    slack[goal.index()] = Some(Duration::ZERO);
    // Whoever waits for a unit ends after it; at one instant, the order of the jobs decides.
    let mut order: Vec<(Duration, usize, UnitId)> = transaction
        .jobs()
        .iter()
        .enumerate()
        .filter_map(|(place, job)| Some((spans[job.unit.index()].ended?, place, job.unit)))
        .collect();
    order.sort_unstable();
    for (_, _, unit) in order.into_iter().rev() {
        let Some(late) = slack[unit.index()] else { continue };
        let span = &spans[unit.index()];
        let held_until = span.began.or(span.ended).unwrap_or_default();
        for &(other, awaits) in &transaction.spec(unit).after {
            if let Some(free) = freed(transaction, machine, &spans[other.index()], awaits) {
                let by = held_until.saturating_sub(free).saturating_add(late);
                tighten(&mut slack[other.index()], by);
            }
        }
        let queued = run.queued.get(unit.index()).filter(|queued| !queued.waited.is_zero());
        if let Some(behind) = queued.and_then(|queued| queued.behind) {
            tighten(&mut slack[behind.index()], late);
        }
    }
    slack
}

/// When an edge let go.
fn freed(
    transaction: &Transaction,
    machine: &Machine,
    span: &Span,
    awaits: Await,
) -> Option<Duration> {
    let ended = span.ended?;
    let early = awaits == Await::Started && transaction.spec(span.unit).class == Class::Service;
    match span.began.filter(|_| early) {
        Some(began) => {
            let behaviour = &machine.behaviours()[span.unit.index()];
            Some(ended.min(began + behaviour.started_in.min(behaviour.takes)))
        }
        None => Some(ended),
    }
}

fn tighten(slack: &mut Option<Duration>, by: Duration) {
    *slack = Some(slack.map_or(by, |known| known.min(by)));
}

//! A run costs what its edges cost, whatever the shape of the graph: counted, not timed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use keel_plan::{
    Action, Await, Class, Effect, Event, Job, JobKind, Report, Scheduler, ShutdownKind, Spec,
    Token, Transaction, UnitId,
};

/// Edges looked at per unit and edge of the graph, for a boot and a shutdown together; it is 6 to 10.
const MOST: f64 = 12.0;

/// Which units a unit is after.
type Shape<'a> = &'a dyn Fn(u32) -> Vec<u32>;

/// Boots and shuts down a graph of so many units, each after and requiring those that `before` says. Answers come in
/// the order of `pick`, out of those that are open.
fn effort(units: u32, before: Shape<'_>, pick: impl Fn(usize) -> usize) -> f64 {
    let mut edges = 0;
    let mut specs = Vec::new();
    for unit in 0..units {
        let before: Vec<UnitId> = before(unit).into_iter().map(UnitId).collect();
        edges += 2 * before.len();
        specs.push(Spec {
            after: before.iter().map(|&unit| (unit, Await::Ready)).collect(),
            requires: before,
            ..Spec::new(format!("u{unit}"), Class::Oneshot)
        });
    }
    let jobs = (0..units).map(|unit| Job { unit: UnitId(unit), kind: JobKind::Start }).collect();
    let transaction = Arc::new(Transaction::new(UnitId(units - 1), jobs, specs).unwrap());
    let mut scheduler = Scheduler::new(transaction, 1);
    let mut open: VecDeque<(Token, Effect)> = VecDeque::new();
    for event in [Event::Submit, Event::Shutdown(ShutdownKind::Halt)] {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            for action in scheduler.handle(event, Duration::ZERO) {
                if let Action::Begin { token, effect } = action {
                    open.push_back((token, effect));
                }
            }
            let answered = (!open.is_empty()).then(|| open.swap_remove_back(pick(open.len())));
            next = answered.flatten().map(|(token, effect)| {
                let report = if effect == Effect::Start { Report::Done } else { Report::Stopped };
                Event::Report { token, report }
            });
        }
    }
    let down = |unit| scheduler.status(UnitId(unit)).state.is_down();
    assert!((0..units).all(down), "the run ended with everything down");
    scheduler.effort() as f64 / f64::from(units + edges as u32)
}

#[test]
fn a_run_costs_what_its_edges_cost_whatever_their_shape() {
    let first = |_: usize| 0;
    let last = |open: usize| open - 1;
    for units in [100, 1000, 10_000] {
        let side = f64::from(units).sqrt() as u32;
        let spread = |unit: u32| {
            let draw = |k: u32| unit.wrapping_mul(2_654_435_761).rotate_left(7 * k) % unit;
            if unit == 0 { vec![] } else { (1..=3).map(draw).collect() }
        };
        let nothing = |_: u32| Vec::new();
        let chain = |unit: u32| if unit == 0 { vec![] } else { vec![unit - 1] };
        let star = |unit: u32| if unit == 0 { vec![] } else { vec![0] };
        let gather = |unit: u32| if unit == units - 1 { (0..unit).collect() } else { vec![] };
        // Complete layers of the square root of the units: as many edges as a graph of so many layers can have.
        let layers = |unit: u32| {
            let layer = unit / side;
            if layer == 0 { vec![] } else { ((layer - 1) * side..layer * side).collect() }
        };
        let backwards = |unit: u32| {
            let mut before: Vec<u32> = gather(unit);
            before.reverse();
            before
        };
        let shapes: [(&str, Shape<'_>); 7] = [
            ("nothing", &nothing),
            ("spread", &spread),
            ("chain", &chain),
            ("star", &star),
            ("gather", &gather),
            ("backwards", &backwards),
            ("layers", &layers),
        ];
        for (name, before) in shapes {
            // A million edges is more than this needs.
            if name == "layers" && units > 1000 {
                continue;
            }
            for (order, per_edge) in
                [("first", effort(units, before, first)), ("last", effort(units, before, last))]
            {
                assert!(
                    per_edge < MOST,
                    "{name} of {units}, {order} answered first: {per_edge} per edge"
                );
            }
        }
    }
}

//! The graphs that benchmarks measure. The same size gives the same graph on every machine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use keel_plan::{
    Action, Await, Class, Effect, Event, Job, JobKind, Report, Scheduler, Spec, Token, Transaction,
    UnitId,
};
use keel_unit::Input;

/// What each unit comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Three others each, near ones and far ones, as in a boot.
    Tree,
    /// The one before it.
    Chain,
}

/// Unit files: `u0` and so on, and the goal that waits for all of them. Each is its path and its text.
pub fn texts(shape: Shape, size: usize) -> Vec<(String, String)> {
    let unit = |i: usize| {
        let others = match shape {
            Shape::Tree => vec![i / 2, i / 3, i.saturating_sub(1)],
            Shape::Chain => vec![i.saturating_sub(1)],
        };
        let others: Vec<String> =
            others.iter().filter(|o| **o < i).map(|o| format!("\"u{o}\"")).collect();
        let body = format!(
            "description = \"Unit {i}\"\npart-of = \"boot\"\nafter = [{}]\n\n[oneshot]\n\
             exec = [\"/usr/bin/true\"]\ntimeout = \"10s\"\n",
            others.join(", ")
        );
        (format!("units/u{i}.toml"), body)
    };
    let goal = ("units/boot.toml".to_owned(), "[target]\n".to_owned());
    (0..size).map(unit).chain([goal]).collect()
}

/// The same, as what a folder of units is read into.
pub fn input(texts: &[(String, String)]) -> Input {
    let mut input = Input::default();
    texts.iter().for_each(|(path, text)| input.unit(path, text.as_str()));
    input
}

const EDGES: u64 = 3;

/// Units with three edges each, to units anywhere before them, and a goal that waits for every one: the widest row
/// that a graph can have. `None` if the scheduler does not take it.
pub fn transaction(size: u32) -> Option<Arc<Transaction>> {
    let mut state = 1u64;
    let mut draw = |below: u32| {
        // Knuth's MMIX multiplier and increment; any generator will do that gives the same graph each time.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        UnitId(((state >> 33) % u64::from(below)) as u32)
    };
    let mut units: Vec<Spec> = Vec::new();
    for index in 0..size {
        let before: Vec<UnitId> = (0..EDGES).filter(|_| index > 0).map(|_| draw(index)).collect();
        units.push(Spec {
            deadline: Duration::from_secs(30),
            after: before.iter().map(|&unit| (unit, Await::Ready)).collect(),
            requires: before,
            ..Spec::new(format!("unit-{index}"), Class::Oneshot)
        });
    }
    let everything = (0..size).map(UnitId);
    units.push(Spec {
        after: everything.map(|unit| (unit, Await::Ready)).collect(),
        ..Spec::new("goal", Class::Target)
    });
    let jobs = (0..=size).map(|unit| Job { unit: UnitId(unit), kind: JobKind::Start }).collect();
    Transaction::new(UnitId(size), jobs, units).ok().map(Arc::new)
}

/// Answers every effect at once: begins with `first`, in turn, and goes on until nothing is left to say. How many events and actions
/// that took.
pub fn run(transaction: &Arc<Transaction>, first: &[Event]) -> (usize, usize) {
    let mut scheduler = Scheduler::new(Arc::clone(transaction), 1);
    let mut begun: VecDeque<(Token, Effect)> = VecDeque::new();
    let mut now = Duration::ZERO;
    let (mut events, mut actions) = (0, 0);
    for first in first {
        let mut next = Some(first.clone());
        while let Some(event) = next.take() {
            now += Duration::from_micros(10);
            events += 1;
            for action in scheduler.handle(event, now) {
                actions += 1;
                if let Action::Begin { token, effect } = action {
                    begun.push_back((token, effect));
                }
            }
            next = begun.pop_front().map(|(token, effect)| {
                let report = if effect == Effect::Start { Report::Done } else { Report::Stopped };
                Event::Report { token, report }
            });
        }
    }
    (events, actions)
}

//! `keel-gate FIGURE ROUNDS`: does one kind of work so many times, and nothing that differs between the rounds beside it. Run under
//! callgrind with one round and with two, the difference is what the work costs.

use std::env;
use std::hint::black_box;
use std::process::ExitCode;

use keel_gate::{Shape, input, run, texts, transaction};
use keel_plan::{BOOT, Event, plan, resolve};
use keel_unit::{lower, tree};

/// How many units and, of `events`, how many events: the request, and a report of each unit but the goal.
const SIZE: usize = 1_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [figure, rounds] => rounds.parse().ok().and_then(|rounds| measure(figure, rounds)),
        _ => None,
    };
    match done {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

fn measure(figure: &str, rounds: usize) -> Option<()> {
    let texts = texts(Shape::Tree, SIZE);
    match figure {
        "parse" => repeat(rounds, || {
            let input = input(&texts);
            let mut findings = Vec::new();
            let read = |(file, _): &(_, _)| tree::parse(&input.sources, *file, &mut findings);
            Some(input.units.iter().map(read).count())
        }),
        "lower" => repeat(rounds, || lower(input(&texts)).ok()),
        "resolve" => {
            let set = lower(input(&texts)).ok()?;
            // One for each round that may come, so that every run has as many.
            let mut sets = vec![set.clone(), set];
            repeat(rounds, || resolve(sets.pop()?).ok())
        }
        "plan" => {
            let graph = resolve(lower(input(&texts)).ok()?).ok()?;
            repeat(rounds, || plan(&graph, BOOT).ok())
        }
        "events" => {
            let transaction = transaction(u32::try_from(SIZE - 1).ok()?)?;
            repeat(rounds, || {
                let (events, _) = run(&transaction, &[Event::Submit]);
                (events == SIZE).then_some(events)
            })
        }
        _ => None,
    }
}

fn repeat<T>(rounds: usize, mut work: impl FnMut() -> Option<T>) -> Option<()> {
    (0..rounds).try_for_each(|_| black_box(work()).map(drop))
}

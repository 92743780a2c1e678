//! The executor on the fake host does what the simulator says, for random graphs on random machines.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use keel_exec::{Executor, Happening};
use keel_plan::{Action, Machine, Script, State, UnitId, simulate};
use keel_testkit::fake::FakeHost;
use keel_testkit::random::{Case, cases};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// A transition, without its reasons.
type Moved = (Duration, UnitId, State, State);

/// Runs under paused time until every job has its result.
fn executed(case: &Case, machine: Machine, seed: u64) -> Vec<Moved> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let started = tokio::time::Instant::now();
        let host = FakeHost::new(machine, started);
        let mut executor = Executor::new(case.transaction.clone(), host, seed, started);
        let mut moved = Vec::new();
        loop {
            match executor.next().await {
                Happening::Transition(t) => moved.push((t.at, t.unit, t.from, t.to)),
                Happening::Finished(_) | Happening::Down(_) => return moved,
                _ => {}
            }
        }
    })
}

fn simulated(case: &Case, machine: Machine, seed: u64) -> Vec<Moved> {
    let run = simulate(&case.transaction, machine, seed, &Script::default());
    let mut moved = Vec::new();
    for (_, action) in run.log {
        match action {
            Action::Announce(t) => moved.push((t.at, t.unit, t.from, t.to)),
            Action::Finished(_) | Action::Down(_) => break,
            _ => {}
        }
    }
    moved
}

proptest! {
    #[test]
    fn the_executor_does_what_the_simulator_says(case in cases(12), seed in any::<u64>()) {
        let simulated = simulated(&case, case.machine.clone(), seed);
        let executed = executed(&case, case.machine.clone(), seed);
        prop_assert_eq!(executed, simulated);
    }
}

#[test]
fn a_request_beside_the_run_is_served() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let case = cases(6).new_tree(&mut runner).unwrap().current();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let down = runtime.block_on(async {
        let started = tokio::time::Instant::now();
        let host = FakeHost::sound(&case.transaction, started);
        let mut executor = Executor::new(case.transaction.clone(), host, 1, started);
        while !matches!(executor.next().await, Happening::Finished(_)) {}
        executor.shut_down(keel_plan::ShutdownKind::PowerOff);
        loop {
            if let Happening::Down(kind) = executor.next().await {
                break (
                    kind,
                    executor
                        .transaction()
                        .ids()
                        .all(|id| executor.scheduler().status(id).state.is_down()),
                );
            }
        }
    });
    assert_eq!(down, (keel_plan::ShutdownKind::PowerOff, true));
}

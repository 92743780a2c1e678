//! What the laptop simulates is what the node does: for random graphs on random machines, with random requests, the
//! executor does the same things as the simulator, in the same order, for the same reasons, at the same instants.

use std::sync::Arc;
use std::time::Duration;

use keel_exec::Happening;
use keel_plan::{
    Action, BOOT, Effect, Estimates, Event, Fault, FaultKind, Script, ShutdownKind, Simulation,
    Token, Trace, compile, fallible, simulate,
};
use keel_testkit::notation::ms;
use keel_testkit::random::{Case, cases, request, requests};
use keel_testkit::run::run;
use keel_testkit::scenario::root;
use keel_unit::load::load;
use proptest::prelude::*;

/// What the simulator tells, in the executor's words.
fn told(simulation: &Simulation) -> Vec<(Duration, Happening)> {
    let happening = |action: &Action| {
        Some(match action.clone() {
            Action::Announce(transition) => Happening::Transition(transition),
            Action::Refused { job, why } => Happening::Refused { job, why },
            Action::Emergency { unit, why } => Happening::Emergency { unit, why },
            Action::Reboot { unit, why } => Happening::Reboot { unit, why },
            Action::Finished(outcome) => Happening::Finished(outcome),
            Action::Down(kind) => Happening::Down(kind),
            _ => return None,
        })
    };
    simulation.log.iter().filter_map(|(at, action)| Some((*at, happening(action)?))).collect()
}

fn begun(simulation: &Simulation) -> Vec<(Duration, Token, Effect)> {
    let effects = simulation.log.iter().filter_map(|(at, action)| match action {
        Action::Begin { token, effect } => Some((*at, *token, *effect)),
        _ => None,
    });
    effects.collect()
}

fn check(case: &Case, seed: u64, script: &Script) -> Result<(), TestCaseError> {
    let simulation = simulate(&case.transaction, case.machine.clone(), seed, script);
    let run = run(&case.transaction, case.machine.clone(), seed, script);
    let mut told = told(&simulation);
    // One action may come after the end in the same breath: a machine that goes down as the boot ends.
    told.truncate(run.happened.len().max(told.len() - 1));
    for (simulated, executed) in told.iter().zip(&run.happened) {
        prop_assert_eq!(simulated, executed);
    }
    prop_assert_eq!(told.len(), run.happened.len());
    prop_assert_eq!(begun(&simulation), run.begun);
    Ok(())
}

/// What ships, with the durations of a recorded boot, on machines of few processors and of many, with each unit failing and hanging in
/// turn.
#[test]
fn the_demos_boot_is_what_the_simulator_said() {
    let text = std::fs::read_to_string(root().join("testdata/traces/demo.json")).unwrap();
    let trace = Trace::parse(&text).unwrap();
    let input = load(&root().join("units"), Some(&root().join("machine-configs/qemu.toml")));
    let (graph, transaction) = compile(input, BOOT).unwrap();
    let transaction = Arc::new(transaction);
    let mut machine = Estimates::new(&graph, &[trace], 50).machine(&transaction);
    for unit in transaction.ids() {
        // tokio's timers count whole milliseconds.
        let behaviour = machine.behaviour(unit);
        behaviour.takes = ms(behaviour.takes.as_millis() as u64);
        behaviour.started_in = ms(behaviour.started_in.as_millis() as u64);
    }
    let fail = FaultKind::Fail { why: "injected".into() };
    for processors in [None, Some(1), Some(2)] {
        for (unit, fault) in fallible(&transaction).into_iter().flat_map(|unit| {
            [None, Some(fail.clone()), Some(FaultKind::Hang)].map(|fault| (unit, fault))
        }) {
            let mut machine = machine.clone();
            machine.behaviour(unit).fault = fault.map(Fault::always);
            if let Some(processors) = processors {
                machine = machine.with_processors(processors);
            }
            let case = Case { transaction: transaction.clone(), machine };
            check(&case, 7, &Script::default()).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_boot_is_what_the_simulator_said(case in cases(14), seed in any::<u64>()) {
        check(&case, seed, &Script::default())?;
    }

    #[test]
    fn a_life_is_what_the_simulator_said(
        case in cases(14),
        seed in any::<u64>(),
        asked in requests(12, 3000),
    ) {
        let asked = asked.iter().map(|(at, kind, unit)| (ms(*at), request(&case, *kind, unit)));
        let mut events: Vec<(Duration, Event)> = asked.collect();
        events.push((ms(3000), Event::Shutdown(ShutdownKind::PowerOff)));
        check(&case, seed, &Script { events, keep_running: true, ..Script::default() })?;
    }
}

//! What the laptop simulates is what the node does: for random graphs on random machines, with random requests, the
//! executor does the same things as the simulator, in the same order, for the same reasons, at the same instants.

use std::time::Duration;

use keel_exec::Happening;
use keel_plan::{Action, Effect, Event, Script, ShutdownKind, Simulation, Token, simulate};
use keel_testkit::notation::ms;
use keel_testkit::random::{Case, cases, request, requests};
use keel_testkit::run::run;
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

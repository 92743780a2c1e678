//! What the tests of the scheduler start from: a graph of a few lines, booted, and its histories compared.

use keel_plan::{Action, Event, Job, JobKind, Script, ShutdownKind, Simulation, UnitId, simulate};
use keel_testkit::notation::{history, ms, read};

/// Boots the graph and compares the histories of the units that are named.
pub(crate) fn check(graph: &str, expect: &[(&str, &str)]) -> Simulation {
    check_script(graph, Script::default(), expect)
}

pub(crate) fn check_script(graph: &str, script: Script, expect: &[(&str, &str)]) -> Simulation {
    let (transaction, machine) = read(graph);
    let run = simulate(&transaction, machine, 1, &script);
    for &(name, states) in expect {
        let unit = transaction.find(name).unwrap();
        assert_eq!(history(&run, unit), states, "history of {name} in\n{graph}");
    }
    assert_eq!(run.ignored, 0, "the machine says nothing that the scheduler has no use for");
    run
}

pub(crate) fn requests(graph: &str, requests: &[(u64, JobKind, &str)], until: u64) -> Script {
    let (transaction, _) = read(graph);
    let event = |&(at, kind, name): &(u64, JobKind, &str)| {
        (ms(at), Event::Request(Job { unit: transaction.find(name).unwrap(), kind }))
    };
    Script {
        events: requests.iter().map(event).collect(),
        keep_running: true,
        horizon: ms(until),
        ..Script::default()
    }
}

pub(crate) fn shutdown(at: u64) -> Script {
    let events = vec![(ms(at), Event::Shutdown(ShutdownKind::PowerOff))];
    Script { events, keep_running: true, ..Script::default() }
}

/// `(unit, culprit, sentence)` of everything degraded.
pub(crate) fn degraded(graph: &str, run: &Simulation) -> Vec<(String, String, String)> {
    let (transaction, _) = read(graph);
    let outcome = run.outcome.as_ref().expect("the run ended");
    let name = |unit: UnitId| transaction.spec(unit).name.to_string();
    let shortfalls = outcome.degraded.iter();
    shortfalls
        .map(|it| (name(it.unit), name(it.culprit), it.why.describe(&transaction).to_string()))
        .collect()
}

pub(crate) fn count(run: &Simulation, matches: impl Fn(&Action) -> bool) -> usize {
    run.log.iter().filter(|(_, action)| matches(action)).count()
}

//! Explanations: how a failure ends, and by which chains two units depend on each other.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use keel_plan::explain::{Chain, Exported, chains, explain};
use keel_plan::export::Export;
use keel_plan::{BOOT, BootGraph, Ending, Transaction, compile};
use keel_unit::Input;

/// Units as `name: words`, one a line; each is a oneshot of `boot` that takes 100 ms.
fn planned(units: &str) -> (BootGraph, Arc<Transaction>) {
    let mut input = Input::default();
    input.unit("units/boot.toml", "[target]\n");
    for line in units.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, words) = line.split_once(':').unwrap();
        let words = words.trim().replace("; ", "\n");
        let work = "[oneshot]\nexec = [\"/bin/x\"]\ntimeout = \"1s\"\n";
        let part = if words.contains("idle") { "" } else { "part-of = \"boot\"\n" };
        let words = words.replace("idle", "");
        let body = format!("{part}duration = \"100ms\"\n{words}\n{work}");
        input.unit(&format!("units/{name}.toml"), body);
    }
    let (graph, transaction) = compile(input, BOOT).unwrap_or_else(|error| panic!("{error:?}"));
    (graph, Arc::new(transaction))
}

/// How the boot ends if `unit` fails, after how many attempts and when, and what is lost.
fn check(units: &str, unit: &str, expect: (Ending, u32, u64, &[&str])) {
    let (graph, transaction) = planned(units);
    let said = explain(&graph, &transaction, graph.find(unit).unwrap()).if_it_fails.unwrap();
    let lost: Vec<&str> = said.lost.iter().map(|loss| loss.unit.as_str()).collect();
    assert_eq!((said.end, said.attempts, said.ends_ms, &lost[..]), expect, "{unit} of\n{units}");
}

#[test]
fn a_failure_ends_as_its_policy_says() {
    let alone = "a:\nb: after = \"a\"";
    check(alone, "a", (Ending::Degraded, 1, 200, &[]));
    let needed = "a:\nb: requires = \"a\"; after = \"a\"\nc: requires = \"b\"; after = \"b\"\nd:";
    check(needed, "a", (Ending::Degraded, 1, 100, &["b", "c"]));
    check(needed, "c", (Ending::Degraded, 1, 300, &[]));
    let again = "a: failure = { on = \"retry\", attempts = 2, delay = \"1s\", max-delay = \"1s\" }";
    let (graph, transaction) = planned(again);
    let said = explain(&graph, &transaction, graph.find("a").unwrap()).if_it_fails.unwrap();
    assert_eq!((said.end, said.attempts, said.instead_of_ms), (Ending::Degraded, 2, 100));
    assert!(said.ends_ms >= 1_000, "{said:?}");
    let emergency = "a: failure = { on = \"emergency\" }\nb: after = \"a\"";
    check(emergency, "a", (Ending::Emergency, 1, 200, &["boot"]));
    let reboot = "a: failure = { on = \"reboot\" }\nb: after = \"a\"";
    let (graph, transaction) = planned(reboot);
    let said = explain(&graph, &transaction, graph.find("a").unwrap()).if_it_fails.unwrap();
    assert_eq!(said.end, Ending::Reboot);
}

#[test]
fn what_is_lost_says_why() {
    let lost = |units: &str| {
        let (graph, transaction) = planned(units);
        let said = explain(&graph, &transaction, graph.find("a").unwrap()).if_it_fails.unwrap();
        said.lost.into_iter().map(|loss| format!("{}: {}", loss.unit, loss.why)).collect::<Vec<_>>()
    };
    let needs = "a:\nb: requires = \"a\"; after = \"a\"";
    assert_eq!(lost(needs), ["b: needs a, which is not up"]);
    let bound = "a:\nb: binds-to = \"a\"; after = { unit = \"a\", await = \"started\" }";
    assert_eq!(lost(bound), ["b: bound to a, which is not up"]);
}

#[test]
fn what_cannot_fail_has_no_consequence() {
    let (graph, transaction) = planned("a: condition = { when = false }\nb: idle");
    for name in ["a", "b", "boot"] {
        let said = explain(&graph, &transaction, graph.find(name).unwrap());
        assert!(said.if_it_fails.is_none(), "{name}");
    }
    let idle = explain(&graph, &transaction, graph.find("b").unwrap());
    assert!(!idle.started && idle.pulled_in_by.is_empty() && idle.chain.is_empty());
    let skipped = explain(&graph, &transaction, graph.find("a").unwrap());
    assert!(skipped.expected.unwrap().skipped);
}

#[test]
fn a_unit_leads_up_to_the_goal() {
    let (graph, transaction) = planned("a: idle\nb: requires = \"a\"; idle\nc: wants = \"b\"");
    let said = explain(&graph, &transaction, graph.find("a").unwrap());
    let chain: Vec<_> = said.chain.iter().map(|hop| (hop.to.as_str(), hop.from.as_str())).collect();
    assert_eq!(chain, [("a", "b"), ("b", "c"), ("c", "boot")]);
    assert_eq!(said.pulled_in_by.len(), 1);
}

/// Chains as `needs, waits for: c b a`.
fn check_chains(units: &str, one: &str, two: &str, expect: &[&str]) {
    let (graph, transaction) = planned(units);
    let line = |chain: &Chain| {
        let means: Vec<&str> = chain.means.iter().map(|means| means.as_str()).collect();
        let units = chain.hops.iter().map(|hop| hop.to.as_str());
        let units: Vec<&str> = [chain.from.as_str()].into_iter().chain(units).collect();
        format!("{}: {}", means.join(", "), units.join(" "))
    };
    let (one, two) = (graph.find(one).unwrap(), graph.find(two).unwrap());
    let got: Vec<String> = chains(&graph, one, two).iter().map(line).collect();
    // One that was exported says the same.
    let export = Export::new(&graph, &transaction);
    let exported = chains(&Exported::new(&export), one, two);
    assert_eq!(format!("{exported:?}"), format!("{:?}", chains(&graph, one, two)));
    assert_eq!(got, expect, "{units}");
}

#[test]
fn each_meaning_has_its_shortest_chain() {
    let units = "a:\nb: requires = \"a\"; after = \"a\"\nc: requires = \"b\"; after = [\"a\", \"b\"]\nd: wants = \"c\"\nx:";
    check_chains(units, "b", "a", &["needs, waits for: b a"]);
    check_chains(units, "a", "b", &["needs, waits for: b a"]);
    check_chains(units, "c", "a", &["needs: c b a", "waits for: c a"]);
    check_chains(units, "d", "a", &["starts: d c b a"]);
    check_chains(units, "x", "a", &[]);
    // Each needs the other, and only one of them waits.
    let both = "a: requires = \"b\"\nb: requires = \"a\"; after = \"a\"";
    check_chains(both, "a", "b", &["needs: a b", "needs, waits for: b a"]);
    check_chains("a: idle; conflicts = \"b\"\nb:", "b", "a", &["conflicts with: a b"]);
}

//! What holds for every graph and every sequence of changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use keel_plan::mutation::{Decision, End, Mutation, Node, Side, Trip};
use keel_plan::{Behaviour, Effect, Event, Fault, FaultKind, Machine, ShutdownKind, State, UnitId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::side;

/// One unit of a config, as far as it varies.
#[derive(Debug, Clone)]
struct Drawn {
    there: bool,
    wanted: bool,
    /// What its work is. Of each unit the last one fails.
    variant: u8,
    description: bool,
    unmet: bool,
    edges: Vec<(prop::sample::Index, &'static str, bool)>,
}

const UNITS: [(&str, &str); 9] = [
    ("mount.m0", "mount"),
    ("file.f1", "file"),
    ("o2", "oneshot"),
    ("s3", "service"),
    ("link.l4", "link"),
    ("s5", "reloads"),
    ("t6", "target"),
    ("s7", "service"),
    ("o8", "oneshot"),
];
const FAILS: u8 = 3;

fn drawn() -> impl Strategy<Value = Drawn> {
    let word = prop_oneof![Just("requires"), Just("wants"), Just("binds-to"), Just("after")];
    let edges = vec((any::<prop::sample::Index>(), word, any::<bool>()), 0..3);
    let variant = prop_oneof![6 => Just(0u8), 2 => Just(1), 2 => Just(2), 1 => Just(FAILS)];
    let odd = proptest::bool::weighted(0.1);
    (
        proptest::bool::weighted(0.85),
        proptest::bool::weighted(0.9),
        variant,
        any::<bool>(),
        odd,
        edges,
    )
        .prop_map(|(there, wanted, variant, description, unmet, edges)| Drawn {
            there,
            wanted,
            variant,
            description,
            unmet,
            edges,
        })
}

/// Configs one after another. Each keeps most of the one before: that is what a change is.
fn configs() -> impl Strategy<Value = Vec<Vec<Drawn>>> {
    let first = vec(drawn(), UNITS.len());
    let later = vec(vec(proptest::option::weighted(0.3, drawn()), UNITS.len()), 1..5);
    (first, later).prop_map(|(first, later)| {
        let mut configs = vec![first];
        for changes in later {
            let mut next = configs[configs.len() - 1].clone();
            next.iter_mut()
                .zip(changes)
                .for_each(|(unit, change)| *unit = change.unwrap_or(unit.clone()));
            configs.push(next);
        }
        configs
    })
}

fn text(config: &[Drawn]) -> String {
    let mut units = Vec::new();
    for (at, (unit, (name, kind))) in config.iter().zip(UNITS).enumerate() {
        if !unit.there {
            continue;
        }
        let mut text = format!("{name}\n");
        let mut words: [(&str, BTreeSet<&str>); 4] =
            ["requires", "wants", "binds-to", "after"].map(|word| (word, BTreeSet::new()));
        for (to, word, ordered) in unit.edges.iter().filter(|_| at > 0) {
            let to = to.index(at);
            if config[to].there {
                let mut add = |word: &str| {
                    let (_, names) = words.iter_mut().find(|(known, _)| *known == word).unwrap();
                    names.insert(UNITS[to].0);
                };
                add(word);
                // Without an order, which of two comes first is anybody's guess, and so is what comes of it.
                if *ordered || *word != "wants" {
                    add("after");
                }
            }
        }
        for (word, names) in words.iter().filter(|(_, names)| !names.is_empty()) {
            text += &format!("{word} = {names:?}\n").replace('{', "[").replace('}', "]");
        }
        if unit.wanted {
            text += "part-of = \"boot\"\n";
        }
        if unit.description {
            text += "description = \"Described\"\n";
        }
        if unit.unmet {
            text += "condition = { when = false }\n";
        }
        let variant = unit.variant;
        text += &match kind {
            "mount" => format!(
                "[mount]\nsource = \"/dev/vd{variant}\"\nfstype = \"ext4\"\ntarget = \"/m\"\n"
            ),
            "file" => format!("[file]\npath = \"/m/f{variant}\"\ncontent = \"x\"\n"),
            "oneshot" => format!("[oneshot]\nexec = [\"/bin/x\", \"{variant}\"]\n"),
            "link" => format!("[link]\nname = \"eth{variant}\"\n"),
            "reloads" => format!(
                "[service]\nexec = [\"/bin/x\", \"{variant}\"]\nrestart = \"never\"\nreload-signal = \"SIGHUP\"\n"
            ),
            "target" => "[target]\n".to_owned(),
            _ => format!("[service]\nexec = [\"/bin/x\", \"{variant}\"]\nrestart = \"never\"\n"),
        };
        if kind != "target" {
            text += "timeout = \"10s\"\n";
        }
        units.push(text);
    }
    units.join("---\n")
}

/// The machine: the last variant of everything fails, what is not to be is skipped, and times differ.
fn imagined(side: &Side) -> Machine {
    let mut machine = Machine::new(side.transaction.clone());
    for id in side.transaction.ids() {
        let unit = side.graph.unit(id);
        let debug = format!("{:?}", unit.kind);
        let fails =
            ["/dev/vd3", "/m/f3", "[\"3\"]", "eth3"].iter().any(|mark| debug.contains(mark));
        let takes = Duration::from_millis(10 + 7 * u64::from(id.0));
        *machine.behaviour(id) = Behaviour {
            takes,
            started_in: takes / 2,
            unmet: (!unit.condition.when).then(|| "is not to be".into()),
            fault: fails.then(|| Fault::always(FaultKind::Fail { why: "broken".into() })),
            ..Behaviour::default()
        };
    }
    machine
}

const LONG: Duration = Duration::from_secs(3600);

/// By name, from nothing.
fn booted(side: &Side) -> Node {
    let mut node = Node::new(side.clone(), 7, imagined);
    node.boot(LONG);
    node
}

fn named(node: &Node) -> Vec<(String, State)> {
    let name = |id: UnitId| node.side().graph.unit(id).name.to_string();
    // What is down is down, whatever once became of it.
    let seen = |state: State| if state.is_down() { State::Inactive } else { state };
    let states = node.side().transaction.ids().zip(node.states());
    states.map(|(id, state)| (name(id), seen(state))).collect()
}

/// Units of which nothing changed, nor of anything that they are connected to.
fn untouched(from: &Side, to: &Side) -> BTreeSet<String> {
    let mut touched: BTreeSet<String> = BTreeSet::new();
    for side in [from, to] {
        for id in side.graph.ids() {
            let unit = side.graph.unit(id);
            let other = if std::ptr::eq(side, from) { to } else { from };
            let edges = |side: &Side, id| -> BTreeSet<_> {
                let graph = &side.graph;
                graph
                    .dependencies(id)
                    .map(|(to, e)| (graph.unit(to).name.clone(), e.kind))
                    .collect()
            };
            let starts = |side: &Side, id| side.transaction.jobs().iter().any(|job| job.unit == id);
            let same = other.graph.find(unit.name.as_str()).is_some_and(|there| {
                format!("{:?}", other.graph.unit(there).kind) == format!("{:?}", unit.kind)
                    && other.graph.unit(there).condition.when == unit.condition.when
                    && edges(side, id) == edges(other, there)
                    && starts(side, id) == starts(other, there)
            });
            if !same {
                touched.insert(unit.name.to_string());
            }
        }
    }
    // What is connected to something touched, in whatever way; `boot` is connected to all.
    loop {
        let before = touched.len();
        for side in [from, to] {
            for id in side.graph.ids().filter(|id| side.graph.unit(*id).name.as_str() != "boot") {
                let name = side.graph.unit(id).name.to_string();
                let near = side
                    .graph
                    .dependencies(id)
                    .any(|(to, _)| touched.contains(side.graph.unit(to).name.as_str()));
                if near {
                    touched.insert(name);
                }
            }
        }
        if touched.len() == before {
            break;
        }
    }
    let names = from.graph.ids().map(|id| from.graph.unit(id).name.to_string());
    names.filter(|name| !touched.contains(name)).collect()
}

fn check_kept(
    mutation: &Mutation,
    trip: &Trip,
    before: &[(String, State)],
    untouched: &BTreeSet<String>,
) -> Result<(), TestCaseError> {
    let decision = |name: &str| {
        let change = mutation.changes.iter().find(|change| change.unit.as_str() == name);
        change.map_or(Decision::Keep, |change| change.decision)
    };
    let was_up = |name: &str| before.iter().any(|(it, state)| it == name && state.is_active());
    for (_, name, effect) in &trip.begun {
        prop_assert!(!untouched.contains(&**name), "{effect:?} of {name}, which nothing concerns");
        // Back again, what the mutation itself left alone may have gone down with what it started.
        if trip.end == Some(End::Reached) && was_up(name) {
            match decision(name) {
                Decision::Keep => prop_assert!(false, "{effect:?} of {name}, which is kept"),
                Decision::Reload => prop_assert_eq!(*effect, Effect::Reload, "{}", name),
                _ => {}
            }
        }
    }
    Ok(())
}

fn check(configs: &[Vec<Drawn>], first_wait: u64) -> Result<(), TestCaseError> {
    let mut node = Node::new(side(&text(&configs[0])), 7, imagined);
    node.boot(Duration::from_millis(first_wait));
    for (at, config) in configs.iter().enumerate().skip(1) {
        let (from, to) = (node.side().clone(), side(&text(config)));
        let settled = at > 1 || first_wait > 60_000;
        let (mutation, before) = (node.plan(&to), named(&node));
        if mutation.needs_reboot() {
            continue;
        }
        node.mutate(to.clone());
        let trip = node.pass(LONG);
        prop_assert_eq!(node.scheduler().mistake(), None);
        let end = trip.end.clone();
        let expect = match &end {
            Some(End::Reached) => &to,
            Some(End::RolledBack { .. }) => &from,
            other => return Err(TestCaseError::fail(format!("it ended in {other:?}"))),
        };
        prop_assert_eq!(node.side().graph.digest(), expect.graph.digest());
        let (now, from_nothing) = (named(&node), named(&booted(expect)));
        if !settled {
            // In the middle of a boot: all that the boot brings up is up. What one graph let begin without something that the other
            // requires, and that fails later, has begun.
            for (seen, expect) in now.iter().zip(&from_nothing) {
                prop_assert!(seen == expect || expect.1.is_down(), "{:?}, not {:?}", seen, expect);
            }
            return Ok(());
        }
        prop_assert_eq!(now, from_nothing, "after {:?}, {:?}", end, mutation);
        if settled {
            check_kept(&mutation, &trip, &before, &untouched(&from, &to))?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the way, the machine is as its last config makes it from nothing; and nothing is touched that need not be.
    #[test]
    fn any_way_leads_where_the_last_config_leads(configs in configs(), first_wait in prop_oneof![0..200u64, Just(3_600_000)]) {
        check(&configs, first_wait)?;
    }

    /// A shutdown at any moment of a mutation takes everything down.
    #[test]
    fn a_shutdown_takes_the_place_of_a_mutation(configs in configs(), wait in 0..200u64, then in 0..100u64) {
        let mut node = Node::new(side(&text(&configs[0])), 7, imagined);
        node.boot(Duration::from_millis(wait));
        let to = side(&text(&configs[1]));
        prop_assume!(!node.plan(&to).needs_reboot());
        node.mutate(to);
        node.pass(Duration::from_millis(then));
        node.give(Event::Shutdown(ShutdownKind::PowerOff));
        let trip = node.pass(LONG);
        prop_assert!(trip.down);
        prop_assert!(node.states().iter().all(|state| state.is_down()));
        prop_assert_eq!(node.scheduler().mistake(), None);
    }

    /// There and back again changes nothing but what was changed; and the same config twice changes nothing at all.
    #[test]
    fn the_same_again_is_nothing(configs in configs()) {
        let mut node = booted(&side(&text(&configs[0])));
        let again = side(&text(&configs[0]));
        prop_assert!(node.plan(&again).is_nothing());
        node.mutate(Side { transaction: Arc::clone(&again.transaction), ..again });
        let trip = node.pass(LONG);
        prop_assert_eq!(trip.end, Some(End::Reached));
        prop_assert!(trip.begun.is_empty() && trip.transitions.is_empty(), "{:?}", trip.begun);
    }
}

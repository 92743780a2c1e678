//! Mutations carried out on an imagined node, in every situation that it may be in.

use std::collections::BTreeMap;
use std::time::Duration;

use keel_plan::mutation::{End, Node, Side, Trip};
use keel_plan::{
    Behaviour, Blame, Effect, Event, ExitStatus, Fault, FaultKind, Machine, ShutdownKind, State, Up,
};

use crate::side;

const LONG: Duration = Duration::from_secs(600);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A node on which each unit takes 100 ms, stops in 10 ms, and has the fault that `faults` gives for its name and its arguments.
fn node(units: &str, faults: fn(&str, &str) -> Option<FaultKind>) -> Node {
    Node::new(side(units), 7, move |side: &Side| {
        let mut machine = Machine::new(side.transaction.clone());
        for id in side.transaction.ids() {
            let unit = side.graph.unit(id);
            let fault = faults(unit.name.as_str(), &format!("{:?}", unit.kind));
            *machine.behaviour(id) = Behaviour {
                takes: ms(100),
                started_in: ms(50),
                stops_in: ms(10),
                fault: fault.map(Fault::always),
                ..Behaviour::default()
            };
        }
        machine
    })
}

fn sound(_: &str, _: &str) -> Option<FaultKind> {
    None
}

/// What was begun, as `stop web`.
fn begun(trip: &Trip) -> Vec<String> {
    let word = |effect| match effect {
        Effect::CheckCondition => "check",
        Effect::Start => "start",
        Effect::Stop => "stop",
        Effect::Kill => "kill",
        Effect::Reload => "reload",
    };
    trip.begun.iter().map(|(_, name, effect)| format!("{} {name}", word(*effect))).collect()
}

fn state(node: &Node, unit: &str) -> State {
    node.scheduler().state(node.side().graph.find(unit).unwrap())
}

fn service(name: &str, words: &str, version: u32, more: &str) -> String {
    format!(
        "{name}\npart-of = \"boot\"\n{words}[service]\nexec = [\"/bin/{name}\", \"v{version}\"]\n{more}timeout = \"10s\"\n"
    )
}

/// A chain: `c` requires `b`, which requires `a`; and `alone`.
fn chain(versions: [u32; 4], more: &str) -> String {
    let [a, b, c, alone] = versions;
    [
        service("a", "", a, more),
        service("b", "requires = \"a\"\nafter = \"a\"\n", b, more),
        service("c", "requires = \"b\"\nafter = \"b\"\n", c, more),
        service("alone", "", alone, more),
    ]
    .join("---\n")
}

#[test]
fn down_in_reverse_and_up_in_order_and_nothing_else() {
    let mut node = node(&chain([1; 4], ""), sound);
    node.boot(LONG);
    node.mutate(side(&chain([1, 2, 1, 1], "")));
    let trip = node.pass(LONG);
    assert_eq!(trip.end, Some(End::Reached));
    assert_eq!(begun(&trip), ["stop c", "stop b", "start b", "start c"]);
    // As long as the two stops and the two starts, one after another.
    assert_eq!(trip.took, ms(220));
}

#[test]
fn what_is_done_in_place_is_read_again_when_it_is_there() {
    let units = |content: &str| {
        let file = format!(
            "conf\npart-of = \"boot\"\n[file]\npath = \"/c\"\ncontent = \"{content}\"\ntimeout = \"1s\"\n"
        );
        let reads = "wants = \"file.conf\"\nafter = \"file.conf\"\n";
        [
            file,
            service("web", reads, 1, ""),
            service("log", reads, 1, "reload-signal = \"SIGHUP\"\n"),
        ]
        .join("---\n")
    };
    let mut node = node(&units("one"), sound);
    node.boot(LONG);
    node.mutate(side(&units("two")));
    let trip = node.pass(LONG);
    assert_eq!(trip.end, Some(End::Reached));
    assert_eq!(
        begun(&trip),
        ["stop web", "stop file.conf", "start file.conf", "start web", "reload log"]
    );
}

/// The new version of each unit fails in turn, in every way: the old graph comes back, with everything that was up.
#[test]
fn each_unit_fails_in_turn_and_the_old_graph_comes_back() {
    let check = |faults: fn(&str, &str) -> Option<FaultKind>, culprit: &str, why: &str| {
        let mut node = node(&chain([1; 4], "restart = \"never\"\n"), faults);
        node.boot(LONG);
        let base = *node.side().graph.digest();
        node.mutate(side(&chain([2; 4], "restart = \"never\"\n")));
        let trip = node.pass(LONG);
        let Some(End::RolledBack { fault, undone }) = &trip.end else { panic!("{:?}", trip.end) };
        assert_eq!((fault.culprit.as_str(), fault.why.as_str()), (culprit, why));
        assert!(!undone.is_empty());
        assert_eq!(*node.side().graph.digest(), base);
        for unit in ["a", "b", "c", "alone"] {
            assert_eq!(
                state(&node, unit),
                State::Active(Up::Running),
                "{unit}, when {culprit} fails"
            );
        }
        assert_eq!(node.scheduler().mistake(), None);
    };
    fn new(kind: &str) -> bool {
        kind.contains("v2")
    }
    fn f(of: &str, name: &str, kind: &str, fault: FaultKind) -> Option<FaultKind> {
        (name == of && new(kind)).then_some(fault)
    }
    check(
        |name, kind| f("a", name, kind, FaultKind::Fail { why: "no such file".into() }),
        "a",
        "no such file",
    );
    check(
        |name, kind| f("b", name, kind, FaultKind::Fail { why: "no such file".into() }),
        "b",
        "no such file",
    );
    check(
        |name, kind| f("c", name, kind, FaultKind::Fail { why: "no such file".into() }),
        "c",
        "no such file",
    );
    check(
        |name, kind| f("alone", name, kind, FaultKind::Fail { why: "no such file".into() }),
        "alone",
        "no such file",
    );
    check(|name, kind| f("a", name, kind, FaultKind::Hang), "a", "timed out after 10 s");
    check(|name, kind| f("c", name, kind, FaultKind::Hang), "c", "timed out after 10 s");
    // Up, and gone before the rest is up.
    check(
        |name, kind| {
            f("a", name, kind, FaultKind::Exit { after: ms(20), status: ExitStatus::Code(3) })
        },
        "a",
        "exited with code 3",
    );
}

#[test]
fn a_way_back_that_fails_too_ends_degraded_and_goes_on() {
    // `a` comes up once, and never again; and what is new of `b` fails.
    let mut node = node(&chain([1; 4], "restart = \"never\"\n"), |name, kind| match (name, kind) {
        ("b", kind) if kind.contains("v2") => Some(FaultKind::Fail { why: "broken".into() }),
        _ => None,
    });
    node.boot(LONG);
    let to = side(&chain([2, 2, 1, 1], "restart = \"never\"\n"));
    node.mutate(to);
    // The disk of `a` goes away meanwhile.
    node.spoil(|side| {
        let mut machine = Machine::new(side.transaction.clone());
        for id in side.transaction.ids() {
            let name = side.graph.unit(id).name.as_str();
            let debug = format!("{:?}", side.graph.unit(id).kind);
            let gone = name == "a" && debug.contains("v1") || name == "b" && debug.contains("v2");
            let fault =
                gone.then(|| Fault::always(FaultKind::Fail { why: "input/output error".into() }));
            machine.behaviour(id).fault = fault;
        }
        machine
    });
    let trip = node.pass(LONG);
    let Some(End::Degraded { fault, missing, .. }) = &trip.end else { panic!("{:?}", trip.end) };
    assert_eq!(fault.culprit.as_str(), "b");
    let missing: BTreeMap<&str, &str> =
        missing.iter().map(|(unit, why)| (unit.as_str(), why.as_str())).collect();
    assert_eq!(missing["a"], "input/output error");
    assert_eq!(missing.keys().copied().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(state(&node, "alone"), State::Active(Up::Running));
}

#[test]
fn what_cannot_be_stopped_is_not_left_half_way() {
    let units = |source: &str| {
        let disk = format!(
            "disk\npart-of = \"boot\"\n[mount]\nsource = \"{source}\"\nfstype = \"ext4\"\ntarget = \"/disk\"\ntimeout = \"1s\"\n"
        );
        let uses = "working-directory = \"/disk/db\"\n";
        [disk, service("db", "", 1, uses), service("alone", "", 1, "")].join("---\n")
    };
    // Its stop, and its kill, take longer than anybody waits.
    let mut node = Node::new(side(&units("/dev/vdb")), 7, |side: &Side| {
        let mut machine = Machine::new(side.transaction.clone());
        let disk = side.graph.find("mount.disk").unwrap();
        machine.behaviour(disk).stops_in = Duration::from_secs(3600);
        machine
    });
    node.boot(LONG);
    node.mutate(side(&units("/dev/vdc")));
    let trip = node.pass(LONG);
    let Some(End::RolledBack { fault, .. }) = &trip.end else { panic!("{:?}", trip.end) };
    assert_eq!((fault.culprit.as_str(), fault.why.as_str()), ("mount.disk", "could not be killed"));
    assert_eq!(
        begun(&trip),
        ["stop db", "stop mount.disk", "kill mount.disk", "start mount.disk", "start db"]
    );
    assert_eq!(state(&node, "db"), State::Active(Up::Running));
}

/// In the middle of a boot, and in the pause before a restart: whatever is carried over goes on where it was.
#[test]
fn what_is_under_way_goes_on() {
    // 130 ms into the boot `a` and `alone` are up, and `b` activates.
    let mut node = node(&chain([1; 4], ""), sound);
    node.boot(ms(130));
    assert_eq!(state(&node, "b"), State::Activating);
    node.mutate(side(&chain([1, 1, 2, 1], "")));
    let trip = node.pass(LONG);
    assert_eq!(trip.end, Some(End::Reached));
    // It is not begun anew, and what waited begins when it is up: as what it is now.
    assert_eq!(begun(&trip), ["start c"]);
    assert_eq!(trip.took, ms(170));

    // `crashes` waits out its pause over the change, and its patience too: the restart comes when it would have come.
    let crashing = |other: u32| {
        let pause = "restart = \"always\"\nrestart-delay = \"5s\"\nrestart-max-delay = \"5s\"\n";
        [service("crashes", "", 1, pause), service("other", "", other, "")].join("---\n")
    };
    let start_of =
        |trip: &Trip| trip.begun.iter().find(|(_, name, _)| &**name == "crashes").unwrap().0;
    let faults: fn(&str, &str) -> Option<FaultKind> = |name, _| {
        let exit = FaultKind::Exit { after: ms(200), status: ExitStatus::Code(1) };
        (name == "crashes").then_some(exit)
    };
    let mut undisturbed = crate::trips::node(&crashing(1), faults);
    undisturbed.boot(ms(400));
    let expect = start_of(&undisturbed.pass(ms(6000)));
    let mut node = crate::trips::node(&crashing(1), faults);
    node.boot(ms(400));
    assert_eq!(state(&node, "crashes"), State::Waiting);
    node.mutate(side(&crashing(2)));
    let trip = node.pass(ms(6000));
    assert_eq!(trip.end, Some(End::Reached));
    assert_eq!(start_of(&trip), expect);
}

/// What the new graph takes down on its own account, and is still going down when the mutation turns round, comes up again.
#[test]
fn what_is_on_its_way_down_comes_back_too() {
    let fails: fn(&str, &str) -> Option<FaultKind> =
        |name, _| (name == "a").then(|| FaultKind::Fail { why: "broken".into() });
    let never = "restart = \"never\"\n";
    let bound = "binds-to = \"a\"\nafter = \"a\"\n";
    let from = [service("a", "", 1, never), service("web", "", 1, never)].join("---\n");
    let to = [
        service("a", "", 1, never),
        service("web", bound, 1, never),
        service("new", bound, 1, never),
    ];
    let mut node = node(&from, fails);
    // Both are under way: nothing says yet that `a` will fail, and `web` and `new` with it.
    node.boot(ms(0));
    node.mutate(side(&to.join("---\n")));
    let trip = node.pass(LONG);
    assert!(matches!(&trip.end, Some(End::RolledBack { .. })), "{:?}", trip.end);
    assert_eq!(state(&node, "web"), State::Active(Up::Running));
}

/// A unit fails while the old graph is cleared: that concerns who needs it in the new one, and nobody else.
#[test]
fn who_needs_a_unit_no_more_does_not_fail_with_it() {
    let fails: fn(&str, &str) -> Option<FaultKind> =
        |name, _| (name == "a").then(|| FaultKind::Fail { why: "broken".into() });
    let units = |needs: &str| {
        [
            service("a", "", 1, ""),
            service("b", needs, 1, ""),
            service("c", "requires = \"a\"\nafter = \"a\"\n", 1, ""),
        ]
    };
    let mut from = units("requires = \"a\"\nafter = \"a\"\n").to_vec();
    from.push(service("goes", "", 1, ""));
    let mut node = node(&from.join("---\n"), fails);
    // `a` fails at 100 ms, and `goes` is down at 105 ms.
    node.boot(ms(95));
    node.mutate(side(&units("").join("---\n")));
    let trip = node.pass(ms(200));
    assert_eq!(trip.end, Some(End::Reached));
    assert_eq!(state(&node, "b"), State::Active(Up::Running));
    assert_eq!(state(&node, "c"), State::Failed(Blame::Dependency));
}

/// A unit that was skipped let up what requires it. If it fails now, the next boot would not bring that up.
#[test]
fn from_skipped_to_failed_is_a_failure() {
    let skipped = "condition = { when = false }\n";
    let once = |name: &str, words: &str| {
        format!("{name}\n{words}[oneshot]\nexec = [\"/bin/{name}\"]\ntimeout = \"10s\"\n")
    };
    let web = service("web", "requires = \"x\"\nafter = \"x\"\n", 1, "");
    let from = [once("x", skipped), web.clone()].join("---\n");
    let bound = format!("binds-to = \"m\"\nafter = \"m\"\n{skipped}");
    let to = [once("m", skipped), once("x", &bound), web].join("---\n");
    let mut node = Node::new(side(&from), 7, |side: &Side| {
        let mut machine = Machine::new(side.transaction.clone());
        for id in side.transaction.ids().filter(|id| !side.graph.unit(*id).condition.when) {
            machine.behaviour(id).unmet = Some("is not to be".into());
        }
        machine
    });
    node.boot(LONG);
    assert_eq!(
        (state(&node, "x"), state(&node, "web")),
        (State::Skipped, State::Active(Up::Running))
    );
    node.mutate(side(&to));
    let trip = node.pass(LONG);
    let Some(End::RolledBack { fault, .. }) = &trip.end else { panic!("{:?}", trip.end) };
    assert_eq!(fault.unit.as_str(), "x");
    assert_eq!(
        (state(&node, "x"), state(&node, "web")),
        (State::Skipped, State::Active(Up::Running))
    );
    assert!(!begun(&trip).iter().any(|it| it.ends_with(" web")), "{:?}", begun(&trip));
}

/// What was down gets another try in the new graph, and still waits for it when the mutation turns round: it is down again.
#[test]
fn what_still_waits_for_another_try_is_as_it_was() {
    let once = |name: &str, words: &str| {
        format!("{name}\n{words}[oneshot]\nexec = [\"/bin/{name}\"]\ntimeout = \"10s\"\n")
    };
    let wanted = |name: &str, words: &str| once(name, &format!("part-of = \"boot\"\n{words}"));
    let skipped = "condition = { when = false }\n";
    let lost = format!("binds-to = \"gone\"\nafter = \"gone\"\n{skipped}");
    let (bad, web) = (wanted("bad", ""), wanted("web", "requires = \"x\"\nafter = \"x\"\n"));
    let from = [bad.clone(), once("gone", ""), once("x", &lost), web.clone()];
    // It fails at once, for what it needs has failed before.
    let new = wanted("new", "requires = \"bad\"\nafter = \"bad\"\n");
    let to = [bad, new, once("x", skipped), web];
    let mut node = Node::new(side(&from.join("---\n")), 7, |side: &Side| {
        let mut machine = Machine::new(side.transaction.clone());
        for id in side.transaction.ids() {
            let unit = side.graph.unit(id);
            let broken = || Fault::always(FaultKind::Fail { why: "broken".into() });
            *machine.behaviour(id) = Behaviour {
                takes: ms(100),
                unmet: (!unit.condition.when).then(|| "is not to be".into()),
                fault: ["bad", "gone"].contains(&unit.name.as_str()).then(broken),
                ..Behaviour::default()
            };
        }
        machine
    });
    node.boot(LONG);
    let down = State::Failed(Blame::Dependency);
    assert_eq!((state(&node, "x"), state(&node, "web")), (down, down));
    node.mutate(side(&to.join("---\n")));
    let trip = node.pass(LONG);
    assert!(matches!(&trip.end, Some(End::RolledBack { .. })), "{:?}", trip.end);
    assert_eq!((state(&node, "x"), state(&node, "web")), (down, down));
}

#[test]
fn a_shutdown_wins() {
    let mut node = node(&chain([1; 4], ""), sound);
    node.boot(LONG);
    node.mutate(side(&chain([2; 4], "")));
    node.pass(ms(5));
    node.give(Event::Shutdown(ShutdownKind::PowerOff));
    let trip = node.pass(LONG);
    assert!(trip.down && trip.end.is_none());
    assert!(begun(&trip).iter().all(|it| it.starts_with("stop")), "{:?}", begun(&trip));
}

/// Numbers of units differ from graph to graph; what is adopted costs what the units are, and nothing per edge that is not there.
#[test]
fn names_are_what_counts() {
    let many = |from: u32, to: u32| {
        (from..to)
            .map(|n| service(&format!("s{n:03}"), "", 1, ""))
            .collect::<Vec<_>>()
            .join("---\n")
    };
    let mut node = node(&many(100, 300), sound);
    node.boot(LONG);
    node.mutate(side(&many(50, 250)));
    let trip = node.pass(LONG);
    assert_eq!(trip.end, Some(End::Reached));
    let starts = begun(&trip).iter().filter(|it| it.starts_with("start")).count();
    let stops = begun(&trip).iter().filter(|it| it.starts_with("stop")).count();
    assert_eq!((starts, stops, trip.begun.len()), (50, 50, 100));
    assert!(node.states().iter().all(|state| state.is_active()));
}

//! What simulations are relied on for: slack, processors, failures one by one, traces, comparisons and predictions.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keel_plan::{
    About, Await, BOOT, Basis, BootGraph, Class, Ending, Estimates, FaultKind, Job, JobKind, Load,
    Machine, SEED, Script, Simulation, Source, Spec, StateName, Trace, Transaction, USUAL, UnitId,
    UnitTrace, chart, compare, compile, each, fallible, predict, simulate, slack,
};
use keel_unit::load::load;
use proptest::prelude::*;
use proptest::sample::Index;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn shipped() -> (BootGraph, Arc<Transaction>) {
    static SHIPPED: OnceLock<(BootGraph, Arc<Transaction>)> = OnceLock::new();
    let planned = SHIPPED.get_or_init(|| {
        let input = load(&root().join("units"), Some(&root().join("machine-configs/qemu.toml")));
        let (graph, transaction) = compile(input, BOOT).unwrap();
        (graph, Arc::new(transaction))
    });
    planned.clone()
}

fn run(transaction: &Arc<Transaction>, machine: &Machine) -> Simulation {
    simulate(transaction, machine.clone(), SEED, &Script::default())
}

fn traced(graph: &BootGraph, transaction: &Arc<Transaction>, machine: &Machine) -> Trace {
    let run = run(transaction, machine);
    Trace::simulated(graph, transaction, &run, &slack(transaction, machine, &run), None)
}

/// Units that take some time and wait for some of those before them, and a goal that waits for all but the last.
fn graphs() -> impl Strategy<Value = (Arc<Transaction>, Machine)> {
    let unit = (1..100u64, proptest::collection::vec(any::<Index>(), 0..4));
    proptest::collection::vec(unit, 2..14).prop_map(|drawn| {
        let mut units: Vec<Spec> = Vec::new();
        for (index, (_, edges)) in drawn.iter().enumerate() {
            let edges = edges.iter().filter(|_| index > 0);
            let after = edges.map(|to| (UnitId(to.index(index) as u32), Await::Ready));
            units.push(Spec {
                after: after.collect(),
                ..Spec::new(format!("u{index}"), Class::Oneshot)
            });
        }
        let goal = UnitId(units.len() as u32);
        let after = (0..goal.0 - 1).map(|unit| (UnitId(unit), Await::Ready)).collect();
        units.push(Spec { after, ..Spec::new("goal", Class::Target) });
        let jobs = (0..=goal.0).map(|unit| Job { unit: UnitId(unit), kind: JobKind::Start });
        let transaction = Arc::new(Transaction::new(goal, jobs.collect(), units).unwrap());
        let mut machine = Machine::new(transaction.clone());
        for (id, (takes, _)) in transaction.ids().zip(&drawn) {
            machine.behaviour(id).takes = ms(*takes);
        }
        (transaction, machine)
    })
}

fn goal_at(transaction: &Arc<Transaction>, machine: &Machine) -> Duration {
    run(transaction, machine).timeline.spans()[transaction.goal().index()].ended.unwrap()
}

/// For each activation: when it had what it needed, and when it ended.
fn at_work(run: &Simulation) -> Vec<(Duration, Duration)> {
    let spans = run.timeline.spans().iter().zip(&run.queued);
    spans.filter_map(|(span, queued)| Some((span.began? + queued.waited, span.ended?))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A unit that is late by its slack changes nothing for the goal; a millisecond more, and the goal is late by that.
    #[test]
    fn slack_is_exactly_what_a_unit_may_be_late_by((transaction, machine) in graphs()) {
        let sound = run(&transaction, &machine);
        let at = goal_at(&transaction, &machine);
        let slack = slack(&transaction, &machine, &sound);
        for id in transaction.ids().filter(|id| *id != transaction.goal()) {
            let late = |by: Duration| {
                let mut machine = machine.clone();
                machine.behaviour(id).takes += by;
                goal_at(&transaction, &machine)
            };
            match slack[id.index()] {
                Some(slack) => {
                    prop_assert_eq!(late(slack), at);
                    prop_assert_eq!(late(slack + ms(1)), at + ms(1));
                }
                None => prop_assert_eq!(late(ms(100_000)), at),
            }
        }
    }

    /// No more work at once than there are processors, never one idle while another waits, and nobody is forgotten.
    #[test]
    fn processors_are_given_out_one_by_one(
        (transaction, machine) in graphs(),
        processors in 1..5usize,
        waiting in any::<Index>(),
    ) {
        let without = goal_at(&transaction, &machine);
        let few = machine.clone().with_processors(processors);
        let limited = run(&transaction, &few);
        prop_assert_eq!(limited.outcome.as_ref().map(|outcome| outcome.reached), Some(true));
        prop_assert!(goal_at(&transaction, &few) >= without);
        let working = at_work(&limited);
        for (from, _) in &working {
            let beside = working.iter().filter(|(began, ended)| began <= from && from < ended).count();
            prop_assert!(beside <= processors, "{} at work at {:?}", beside, from);
        }
        if processors == 1 {
            let work: Duration = working.iter().map(|(from, to)| *to - *from).sum();
            let last = working.iter().map(|(_, to)| *to).max();
            prop_assert_eq!(last, Some(work));
        }
        // What waits for something outside never waits for a processor.
        let unit = UnitId(waiting.index(transaction.units().len() - 1) as u32);
        let mut few = few;
        few.behaviour(unit).load = Load::Waits;
        prop_assert_eq!(run(&transaction, &few).queued[unit.index()].waited, Duration::ZERO);
    }

    /// A trace is read back as it was written, and a replay of a simulated boot is that boot.
    #[test]
    fn a_simulated_boot_replays_exactly(takes in proptest::collection::vec(0..2_000_000u64, 60)) {
        let (graph, transaction) = shipped();
        let mut machine = Estimates::new(&graph, &[], 50).machine(&transaction);
        for (id, takes) in transaction.ids().zip(takes) {
            machine.behaviour(id).takes = Duration::from_micros(takes);
        }
        let trace = traced(&graph, &transaction, &machine);
        prop_assert_eq!(&Trace::parse(&trace.json()).unwrap(), &trace);
        let replay = predict(&graph, &transaction, &trace, &[], 50, Basis::Replay);
        prop_assert_eq!(replay.predicted, replay.measured);
        prop_assert_eq!(replay.off(), 0.0);
        for unit in &replay.units {
            prop_assert_eq!(unit.ended, unit.to_end, "{}", &unit.name);
        }
        prop_assert!(replay.unmatched.is_empty());
        let same = compare(std::slice::from_ref(&trace), &trace);
        prop_assert!(same.changes.is_empty());
    }
}

#[test]
fn the_shipped_boot_fails_the_same_way_on_any_number_of_threads() {
    let (graph, transaction) = shipped();
    let machine = Estimates::new(&graph, &[], 50).machine(&transaction);
    let units = fallible(&transaction);
    let trials = |threads| {
        let fault = FaultKind::Fail { why: "injected".into() };
        each(
            &transaction,
            &machine,
            &Script::default(),
            &units,
            &fault,
            NonZeroUsize::new(threads).unwrap(),
        )
    };
    let one = trials(1);
    assert!(one.len() > 25);
    assert_eq!(trials(3), one);
    assert_eq!(trials(64), one);
    let name = |unit: UnitId| &*transaction.spec(unit).name;
    let containerd = one.iter().find(|trial| name(trial.unit) == "containerd").unwrap();
    assert_eq!(containerd.ended.ending, Ending::Degraded);
    assert_eq!(containerd.lost.iter().map(|unit| name(*unit)).collect::<Vec<_>>(), ["kubelet"]);
    assert!(
        one.iter().all(|trial| name(trial.unit) != "time.clock"),
        "what is skipped cannot fail"
    );
}

#[test]
fn durations_come_from_traces_then_hints_then_kinds() {
    let (graph, transaction) = shipped();
    let mut traces = Vec::new();
    for takes in [100, 300, 200] {
        let mut machine = Estimates::new(&graph, &[], 50).machine(&transaction);
        machine.behaviour(transaction.find("containerd").unwrap()).takes = ms(takes);
        machine.behaviour(transaction.find("kubelet").unwrap()).unmet = Some("no config".into());
        let mut trace = traced(&graph, &transaction, &machine);
        // One that failed tells nothing about how long it takes to come up.
        trace.units.iter_mut().find(|unit| unit.name == "keel-agent").unwrap().state =
            StateName::Failed;
        traces.push(trace);
    }
    let check = |percentile, unit: &str, takes: u64, source| {
        let estimates = Estimates::new(&graph, &traces, percentile);
        let estimate = &estimates.units()[graph.find(unit).unwrap().index()];
        assert_eq!((estimate.takes, estimate.source), (ms(takes), source), "{unit}");
        estimate.clone()
    };
    assert_eq!(check(50, "containerd", 200, Source::Traces(3)).p95, Some(ms(300)));
    check(100, "containerd", 300, Source::Traces(3));
    check(1, "containerd", 100, Source::Traces(3));
    check(50, "keel-agent", 300, Source::Kind);
    let kubelet = check(50, "kubelet", 300, Source::Kind);
    assert_eq!(kubelet.unmet.as_deref(), Some("no config"), "skipped there, skipped here");
}

#[test]
fn a_text_that_is_no_trace_is_refused_with_a_reason() {
    let (graph, transaction) = shipped();
    let machine = Estimates::new(&graph, &[], 50).machine(&transaction);
    let good = traced(&graph, &transaction, &machine);
    let check = |text: &str, expect: &str| {
        let error = Trace::parse(text).unwrap_err().kind.to_string();
        assert!(error.contains(expect), "{error}");
    };
    check("", "EOF");
    check("[]", "`format` is \"\", not \"keel-boot-trace\"");
    check("{}", "`format` is \"\", not \"keel-boot-trace\"");
    check(
        r#"{"format": "keel-boot-trace", "version": 2}"#,
        "it has version 2; this osctl reads up to 1",
    );
    check(r#"{"format": "keel-boot-trace", "version": 1}"#, "missing field `origin`");
    let edited = |edit: &dyn Fn(&mut Trace)| {
        let mut trace = good.clone();
        edit(&mut trace);
        trace.json()
    };
    check(&edited(&|trace| trace.units[0].name = "\u{1b}[2J".into()), "is no name of a unit");
    check(&edited(&|trace| trace.units[1].name = trace.units[0].name.clone()), "twice");
    check(&edited(&|trace| trace.goal = "moon".into()), "its goal `moon` is not among its units");
    check(
        &edited(&|trace| (trace.units[0].began_us, trace.units[0].ended_us) = (Some(2), Some(1))),
        "ends before it begins",
    );
    assert!(
        Trace::parse(&good.json().replace("\"state\"", "\"later\": 1, \"state\"")).is_ok(),
        "unknown keys are passed over"
    );
}

/// A console gives the same trace as the lines on it, whatever the kernel writes between them.
#[test]
fn a_console_is_read() {
    let (graph, transaction) = shipped();
    let machine = Estimates::new(&graph, &[], 50).machine(&transaction);
    let trace = traced(&graph, &transaction, &machine);
    let mut lines: Vec<String> =
        trace.units.iter().map(|unit| format!("{}{}", keel_plan::SPAN, unit.json())).collect();
    lines.insert(3, "[    1.2] random: crng init done".into());
    let report = format!(
        r#"{}{{"digest": "{}", "goal": "boot", "outcome": "reached", "total_us": {}, "reached": true}}"#,
        keel_plan::REPORT,
        trace.digest,
        trace.total_us
    );
    let read = |lines: &[String]| Trace::from_console(lines.iter().map(String::as_str));
    assert!(read(&lines).unwrap_err().to_string().contains("not a boot trace"));
    lines.push(report);
    let read = read(&lines).unwrap();
    assert_eq!(
        (read.units, read.total_us, read.outcome),
        (trace.units, trace.total_us, trace.outcome)
    );
}

/// Whatever stands in a file that is a trace, it is drawn and not stumbled over.
fn hostile() -> impl Strategy<Value = Trace> {
    let time = || prop_oneof![Just(None), any::<u64>().prop_map(Some), (0..50u64).prop_map(Some)];
    let other = || proptest::option::of((0..8u32).prop_map(|unit| format!("u{unit}")));
    let state = prop_oneof![
        Just(StateName::Running),
        Just(StateName::Failed),
        Just(StateName::Skipped),
        Just(StateName::Activating),
        Just(StateName::Unknown),
    ];
    let unit = (time(), time(), other(), other(), time(), time(), state);
    let units = proptest::collection::vec(unit, 1..8);
    (units, any::<u64>(), proptest::option::of(any::<u64>())).prop_map(|(drawn, total, kernel)| {
        let units = drawn.into_iter().enumerate().map(
            |(place, (began, ended, waited_for, queued_behind, queued, slack, state))| UnitTrace {
                name: format!("u{place}"),
                kind: "oneshot".into(),
                stage: (place % 3 == 0).then(|| "u0".into()),
                state,
                began_us: began,
                ended_us: ended.map(|ended| ended.max(began.unwrap_or(0))),
                waited_for,
                attempts: 1,
                why: Some("\u{1b}[2J<&>".into()),
                queued_us: queued,
                queued_behind,
                slack_us: slack,
            },
        );
        let (digest, goal, about) = ("?".to_owned(), "u0".to_owned(), About::default());
        Trace::recorded(digest, goal, Ending::Missed, total, kernel, about, units.collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_strange_trace_is_drawn(trace in hostile(), width in 0..80usize) {
        prop_assert_eq!(&Trace::parse(&trace.json()).unwrap(), &trace);
        prop_assert_eq!(chart::bars(&trace, width).len(), trace.units.len() + 1);
        let picture = chart::svg(&trace);
        let raw = picture.contains('\u{1b}') || picture.contains("<&>");
        prop_assert!(!raw, "{}", picture);
        prop_assert!(!picture.contains("NaN") && !picture.contains("inf"), "{}", picture);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&chart::chrome(&trace)).is_ok());
        // Whoever is to blame for whom, even in a circle: nobody twice.
        let mut path: Vec<_> = trace.critical_path().iter().map(|link| link.unit).collect();
        path.sort_unstable();
        prop_assert!(path.windows(2).all(|two| two[0] != two[1]), "{:?}", path);
        let compared = compare(std::slice::from_ref(&trace), &trace);
        prop_assert!(compared.changes.is_empty());
    }
}

#[test]
fn the_critical_path_goes_through_processors() {
    let (graph, transaction) = shipped();
    let machine = Estimates::new(&graph, &[], 50).machine(&transaction).with_processors(1);
    let run = run(&transaction, &machine);
    let slack = slack(&transaction, &machine, &run);
    let trace = Trace::simulated(&graph, &transaction, &run, &slack, Some(1));
    let path = trace.critical_path();
    assert!(path.iter().any(|link| link.for_processor), "{path:?}");
    assert!(path.windows(2).all(|pair| pair[0].to <= pair[1].from));
    assert_eq!(path.last().map(|link| link.to), Some(trace.total()));
    let drawn: String = chart::bars(&trace, 60).into_iter().map(|bar| bar.text + "\n").collect();
    assert!(drawn.contains('·'), "waiting for a processor is drawn: {drawn}");
}

#[test]
fn pictures_are_well_formed_and_the_same_each_time() {
    let (graph, transaction) = shipped();
    let machine = Estimates::new(&graph, &[], 50).machine(&transaction);
    let trace = traced(&graph, &transaction, &machine);
    let picture = chart::svg(&trace);
    assert_eq!(picture, chart::svg(&trace));
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    for unit in &trace.units {
        assert!(picture.contains(&format!(">{}</text>", unit.name)), "{}", unit.name);
    }
    let events: serde_json::Value = serde_json::from_str(&chart::chrome(&trace)).unwrap();
    let events = events["traceEvents"].as_array().unwrap();
    let of = |what: &str| events.iter().filter(|event| event["ph"] == what).count();
    assert_eq!(of("X") + of("i"), trace.units.len());
    // Nothing in one thread overlaps: viewers draw such events wrongly.
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let (ts, end) = (
            event["ts"].as_u64().unwrap(),
            event["ts"].as_u64().unwrap() + event["dur"].as_u64().unwrap(),
        );
        let same_thread = events.iter().filter(|other| {
            other["ph"] == "X"
                && other["pid"] == event["pid"]
                && other["tid"] == event["tid"]
                && *other != event
        });
        for other in same_thread {
            let (other_ts, dur) = (other["ts"].as_u64().unwrap(), other["dur"].as_u64().unwrap());
            assert!(other_ts >= end || other_ts + dur <= ts, "{event} {other}");
        }
    }
}

/// The page about simulations shows the table that the code has.
#[test]
fn the_books_table_of_durations_is_the_codes() {
    let page = std::fs::read_to_string(root().join("docs/simulation.md")).unwrap();
    for usual in USUAL {
        let which =
            if usual.which.is_empty() { String::new() } else { format!(" ({})", usual.which) };
        let does = if usual.load == Load::Works { "works" } else { "waits" };
        let row = format!("| `{}`{which} | {} ms | {does} |", usual.kind, usual.takes.as_millis());
        assert!(page.contains(&row), "not in docs/simulation.md: {row}");
    }
}

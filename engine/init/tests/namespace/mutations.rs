//! Another config on a machine that runs: what need not change keeps its processes, and what goes wrong is undone without a reboot.

use keel_control::{ApplyMode, Decision, Fate, GenerationResult};

use super::configs::{apply, history, wanted};
use super::*;

/// The pid of a service.
pub(super) fn pid(machine: &Machine, unit: &str) -> Option<u32> {
    let units = ask(machine, async |init| init.units().await).expect("units");
    units.units.iter().find(|it| it.name == unit).expect("the unit").pid
}

pub(super) fn digest(machine: &Machine) -> String {
    ask(machine, async |init| init.status().await).expect("a status").digest
}

#[test]
fn a_change_touches_what_it_must_and_is_undone_if_it_fails() {
    let keep = tempfile::tempdir().expect("a temporary directory");
    let mount = format!(
        "part-of = \"boot\"\n[mount]\nsource = \"{}\"\ntarget = \"/var/lib/keel\"\nfstype = \"none\"\noptions = [\"bind\"]\ntimeout = \"20s\"\n",
        keep.path().display()
    );
    let reads = "part-of = \"boot\"\nwants = \"file.greeting\"\nafter = \"file.greeting\"\n";
    let service = |more: &str, script: &str| {
        format!(
            "part-of = \"boot\"\n{more}[service]\nexec = [\"/bin/sh\", \"-c\", '{script}']\ntimeout = \"20s\"\n"
        )
    };
    let reads_only = reads.trim_start_matches("part-of = \"boot\"\n");
    let keeps = service("", "exec sleep 1000");
    let restarts = service(reads_only, "echo read $(cat {dir}/greeting); exec sleep 1000");
    let reloads = service(
        reads_only,
        "trap \"cat {dir}/greeting > {dir}/reloaded\" HUP; while :; do sleep 0.05; done",
    )
    .replace("timeout", "reload-signal = \"SIGHUP\"\ntimeout");
    let strict = format!(
        "{reads}[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"! grep broken {{dir}}/greeting\"]\ntimeout = \"20s\"\n"
    );
    let units = [
        BOOT,
        ("data.toml", mount.as_str()),
        (
            "greeting.toml",
            "part-of = \"boot\"\n[file]\npath = \"{dir}/greeting\"\ncontent = \"{{ machine.hostname }}\"\ntimeout = \"20s\"\n",
        ),
        ("keeps.toml", keeps.as_str()),
        ("restarts.toml", restarts.as_str()),
        ("reloads.toml", reloads.as_str()),
        ("strict.toml", strict.as_str()),
    ];
    let named = |name: &str| format!("schema = 1\n[machine]\nhostname = \"{name}\"\n");
    let mut machine = Machine::boot_with("mutations", &named("one"), &units);
    machine.report();
    let before = ["keeps", "restarts", "reloads"].map(|unit| pid(&machine, unit));
    assert!(before.iter().all(Option::is_some), "{before:?}");

    // What is said is what is done.
    let applied = apply(&machine, wanted(&named("two"), ApplyMode::NoReboot)).unwrap();
    assert_eq!((applied.fate, applied.plan.needs_reboot), (Fate::Begun, false));
    let mut changes: Vec<_> =
        applied.plan.changes.iter().map(|it| (it.unit.as_str(), it.decision)).collect();
    changes.sort_by_key(|(unit, _)| *unit);
    assert_eq!(
        changes,
        [
            ("file.greeting", Decision::Rerun),
            ("reloads", Decision::Reload),
            ("restarts", Decision::Restart),
            ("strict", Decision::Rerun),
        ]
    );
    machine.line(&["config 1 holds"]);
    assert_eq!(machine.read("greeting"), "two");
    machine.until("reloaded", |text| text == "two");
    let after = ["keeps", "restarts", "reloads"].map(|unit| pid(&machine, unit));
    assert_eq!((before[0], before[2]), (after[0], after[2]), "what is kept, or reloaded, runs on");
    assert!(after[1].is_some() && after[1] != before[1], "what restarts is another process");
    assert_eq!(history(&machine), (vec![GenerationResult::Good], Some(1)));
    assert_eq!(digest(&machine), applied.plan.target);

    // One unit does not come up: all of it is undone, and it is said why, in the unit's own words.
    let failing = apply(&machine, wanted(&named("broken"), ApplyMode::Auto)).unwrap();
    let undone = machine.line(&["config 2 was undone: strict"]);
    assert!(undone.contains("broken"), "{undone}");
    assert_eq!(machine.read("greeting"), "two");
    assert_eq!(digest(&machine), failing.plan.base);
    assert_eq!(pid(&machine, "keeps"), before[0]);
    assert!(pid(&machine, "restarts").is_some());
    let results = vec![GenerationResult::Good, GenerationResult::RolledBack];
    assert_eq!(history(&machine), (results, Some(1)));
    let status = ask(&machine, async |init| init.status().await).unwrap();
    assert_eq!((status.state, status.degraded), (keel_control::GoalState::Reached, vec![]));

    // Nobody says that it is well: it goes back by itself, as it runs.
    let trial = keel_control::Apply { timeout_ms: 200, ..wanted(&named("three"), ApplyMode::Try) };
    assert_eq!(apply(&machine, trial).unwrap().fate, Fate::OnTrial);
    machine.line(&["config 3 is reached, and is undone unless it is confirmed"]);
    machine.line(&["config 3 was undone: nobody confirmed it"]);
    assert_eq!(machine.read("greeting"), "two");
    assert_eq!(pid(&machine, "keeps"), before[0]);

    // Somebody does, and a description that changes touches nothing at all.
    assert_eq!(
        apply(&machine, wanted(&named("four"), ApplyMode::Try)).unwrap().fate,
        Fate::OnTrial
    );
    machine.line(&["config 4 is reached"]);
    assert_eq!(ask(&machine, async |init| init.confirm().await), Ok(4));
    let pids = ["keeps", "restarts", "reloads"].map(|unit| pid(&machine, unit));
    let described = format!("{}[units.keeps]\ndescription = \"Keeps\"\n", named("four"));
    let applied = apply(&machine, wanted(&described, ApplyMode::Auto)).unwrap();
    assert_eq!((applied.plan.changes.len(), applied.plan.base == applied.plan.target), (0, false));
    machine.line(&["config 5 holds"]);
    assert_eq!(["keeps", "restarts", "reloads"].map(|unit| pid(&machine, unit)), pids);
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

//! Units are explained, and started and stopped as it was planned.

use super::*;

pub(super) fn steer(
    machine: &Machine,
    unit: &str,
    verb: UnitVerb,
    dry_run: bool,
) -> Result<UnitPlan, String> {
    let ask_for = ControlUnit { unit: unit.to_owned(), verb, dry_run, digest: None };
    ask(machine, async |init| init.control_unit(ask_for).await)
}

/// A plan as `stop web! requires base`; `!` where something that runs is interrupted.
fn told(plan: &UnitPlan) -> Vec<String> {
    let line = |job: &keel_control::PlannedJob| {
        let mark = if job.interrupts { "!" } else { "" };
        // Where the unit files lie differs from run to run.
        let why = job.why.split(": ").next().unwrap_or_default();
        format!("{:?} {}{mark} {why}", job.verb, job.unit)
    };
    plan.jobs.iter().map(line).collect()
}

fn state(machine: &Machine, unit: &str) -> UnitState {
    let detail = ask(machine, async |init| init.unit(unit.to_owned()).await);
    detail.expect("there is such a unit").unit.state
}

/// Reads what has happened, and what happens, until the unit is in that state.
pub(super) fn until_state(machine: &Machine, unit: &str, wanted: UnitState) {
    let reading = async {
        let connect = async || Control::connect(&machine.control_socket()).await;
        let mut init = connect().await.expect("init's socket");
        let events = connect().await.expect("init's socket");
        let mut events = events.watch(1, true).await.expect("its events");
        loop {
            let batch = events.next().await.expect("init").expect("it goes on");
            let mut states = batch.events.iter().filter_map(|event| match &event.what {
                Happened::Transition { unit: of, to, .. } if of == unit => Some(*to),
                _ => None,
            });
            // It may have been so before, and be so no longer.
            if states.any(|to| to == wanted)
                && init.unit(unit.to_owned()).await.expect("the unit").unit.state == wanted
            {
                return;
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let read = runtime
        .expect("a runtime")
        .block_on(async { tokio::time::timeout(PATIENCE, reading).await });
    read.unwrap_or_else(|_| panic!("{unit} does not become {wanted:?}"));
}

#[test]
fn units_are_explained_and_steered_as_planned() {
    let mut machine = Machine::boot(
        "steer",
        &[
            BOOT,
            (
                "base.toml",
                "part-of = \"boot\"\n[service]\nexec = [\"/bin/sleep\", \"1000\"]\ntimeout = \"20s\"\n",
            ),
            (
                "web.toml",
                "part-of = \"boot\"\nrequires = [\"base\"]\nafter = [\"base\"]\n[service]\nexec = [\"/bin/sleep\", \"1000\"]\ntimeout = \"20s\"\n",
            ),
            (
                "broken.toml",
                "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"echo no such disk; exit 3\"]\ntimeout = \"20s\"\n",
            ),
            (
                "lacking.toml",
                "part-of = \"boot\"\nrequires = [\"broken\"]\nafter = [\"broken\"]\n[oneshot]\nexec = [\"/bin/true\"]\ntimeout = \"20s\"\n",
            ),
            (
                "mount.proc.toml",
                "part-of = \"boot\"\n[mount]\nsource = \"proc\"\ntarget = \"/proc\"\nfstype = \"proc\"\ntimeout = \"5s\"\n",
            ),
            (
                "file.secret.toml",
                "part-of = \"boot\"\n[file]\npath = \"{dir}/secret\"\nsecret = true\ncontent = \"hunter2\"\ntimeout = \"5s\"\n",
            ),
        ],
    );
    let report = machine.report();

    let graph = ask(&machine, async |init| init.export_graph().await).expect("a graph");
    let text = String::from_utf8(graph).expect("JSON");
    assert!(!text.contains("hunter2"), "a secret in an exported graph");
    let graph: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(graph["digest"], report["digest"]);
    let of = |name: &str| {
        let units = graph["units"].as_array().expect("units");
        units.iter().find(|unit| unit["name"] == name).expect("the unit").clone()
    };
    assert_eq!(of("web")["state"], "active(running)");
    assert_eq!(of("lacking")["state"], "failed(dependency)");

    let lacking = ask(&machine, async |init| init.unit("lacking".to_owned()).await).expect("it");
    assert_eq!(lacking.blocked_by, ["lacking", "broken"]);
    assert_eq!(
        lacking.last_lines.iter().map(|line| &*line.text).collect::<Vec<_>>(),
        ["no such disk"]
    );
    assert!(lacking.file.ends_with("lacking.toml"), "{}", lacking.file);
    let holds: Vec<_> = lacking.dependencies.iter().filter(|edge| edge.holds_up).collect();
    assert!(
        holds.iter().all(|edge| edge.unit == "broken" && edge.provenance.contains("lacking.toml:"))
    );
    assert!(holds.iter().any(|edge| edge.word == "requires"), "{lacking:?}");
    let unknown = ask(&machine, async |init| init.unit("lackin".to_owned()).await);
    assert_eq!(unknown, Err("there is no unit `lackin`; did you mean lacking?".to_owned()));

    let planned = steer(&machine, "base", UnitVerb::Stop, true).expect("a plan");
    assert_eq!(told(&planned), ["Stop web! requires base", "Stop base! asked for"]);
    assert_eq!(state(&machine, "web"), UnitState::Running, "that was only a question");
    assert_eq!(steer(&machine, "base", UnitVerb::Stop, false).as_ref(), Ok(&planned));
    until_state(&machine, "base", UnitState::Inactive);
    assert_eq!(state(&machine, "web"), UnitState::Inactive);
    let started = steer(&machine, "web", UnitVerb::Start, false).expect("a plan");
    assert_eq!(told(&started), ["Start base web requires it", "Start web asked for"]);
    until_state(&machine, "web", UnitState::Running);
    assert_eq!(told(&steer(&machine, "web", UnitVerb::Start, false).expect("a plan")), [""; 0]);

    let kept = steer(&machine, "mount.proc", UnitVerb::Stop, false).expect_err("it is kept");
    assert!(kept.starts_with("mount.proc is a filesystem of the kernel's"), "{kept}");
    let elsewhere = ControlUnit {
        unit: "web".to_owned(),
        verb: UnitVerb::Stop,
        dry_run: false,
        digest: Some("sha256:00".to_owned()),
    };
    let other =
        ask(&machine, async |init| init.control_unit(elsewhere).await).expect_err("a digest");
    assert!(other.ends_with("and no longer sha256:00"), "{other}");
    let nothing = Reset { dry_run: true, confirm: None };
    let nothing = ask(&machine, async |init| init.reset(nothing).await);
    assert_eq!(nothing, Err("this machine has no data partition".to_owned()));

    let stops = ask(&machine, async |init| init.rehearse_shutdown().await).expect("an order");
    let place = |unit: &str| stops.iter().position(|stop| stop == unit).expect("it is stopped");
    assert!(place("web") < place("base"), "{stops:?}");
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

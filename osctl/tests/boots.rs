//! `osctl graph simulate` and `osctl boot` as people use them: the real binary, its output and its exit codes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const QEMU: [&str; 2] = ["--config", "machine-configs/qemu.toml"];
/// The boot of `cargo xtask demo`, once: QEMU without hardware virtualisation, on two processors.
const DEMO: &str = "testdata/traces/demo.json";
/// Another one, as the node's API told it.
const DEMO_LATER: &str = "testdata/traces/demo-2.json";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn osctl(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osctl"));
    command.args(arguments).env_remove("OSCTL_ENDPOINT").env_remove("OSCTL_FINGERPRINT");
    command.current_dir(root()).output().unwrap()
}

/// Runs, expects this exit code, and gives what was printed on both streams.
fn check(arguments: &[&str], code: i32) -> (String, String) {
    let output = osctl(arguments);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stdout}{stderr}");
    (stdout, stderr)
}

fn simulate(arguments: &[&str], code: i32) -> String {
    check(&[&["graph", "simulate"], &QEMU[..], arguments].concat(), code).0
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_a_simulation_prints() {
    insta::assert_snapshot!("simulate", simulate(&[], 0));
    insta::assert_snapshot!("simulate-one-processor", simulate(&["--cpus", "1"], 0));
    let broken = ["--each-failure", "--assert", "keel-agent is active", "--budget", "1s"];
    let text = simulate(&broken, 1);
    let (_, table) = text.split_once("IF IT FAILS").unwrap();
    insta::assert_snapshot!("each-failure", format!("IF IT FAILS{table}"));
}

#[test]
fn exit_codes_say_whether_what_must_hold_holds() {
    let check = |arguments: &[&str], code| drop(simulate(arguments, code));
    check(&["--assert", "boot is whole within 1m"], 0);
    check(&["--assert", "boot is whole", "--fail", "containerd"], 1);
    check(&["--assert", "kubelet is not active", "--fail", "containerd"], 0);
    check(&["--assert", "containerd is active", "--fail", "containerd"], 0);
    check(&["--budget", "1m"], 0);
    check(&["--budget", "10ms"], 1);
    check(&["--budget", "10s", "--hang", "link@primary"], 1);
    check(
        &[
            "--each-failure",
            "--assert",
            "keel-agent is active unless mount.proc, mount.sys, mount.dev, mount.run, mount.cgroup fails",
        ],
        0,
    );
    check(&["--each-failure=both", "--assert", "boot is reached"], 0);
    check(&["--each-failure=hang", "--assert", "boot is reached within 1s"], 1);
    check(&["--format", "svg", "--budget", "10ms"], 1);
}

#[test]
fn what_was_typed_wrong_is_explained() {
    let check = |arguments: &[&str], expect: &str| {
        let (_, stderr) = check(&[&["graph", "simulate"], &QEMU[..], arguments].concat(), 2);
        assert!(stderr.contains(expect), "{arguments:?}: {stderr}");
    };
    check(&["--fail", "kublet"], "next: did you mean `kubelet`?");
    check(&["--fail", "services"], "services is a target and does no work");
    check(&["--hang", "containerd", "--fail", "containerd"], "cannot both fail and hang");
    check(&["--slow", "containerd=fast"], "`fast` is no factor such as x3");
    check(&["--skip", "containerd"], "containerd has no condition");
    check(&["--assert", "kublet is active"], "there is no unit `kublet` (did you mean `kubelet`?)");
    check(&["--budget", "5"], "a unit is missing after 5");
    check(&["--trace", "no-such.json"], "cannot read the trace no-such.json");
    check(&["--cpus", "0"], "0 is not in 1..=65536");
}

#[test]
fn faults_are_combined() {
    let simulated =
        |arguments: &[&str]| json(&simulate(&[&["--format", "json"], arguments].concat(), 0));
    let sound = simulated(&[]);
    assert_eq!(
        (&sound["outcome"], sound["broken"].as_array().unwrap().len()),
        (&Value::from("reached"), 0)
    );
    let slow = simulated(&["--slow", "link@primary=×3"]);
    let by = slow["total_us"].as_u64().unwrap() - sound["total_us"].as_u64().unwrap();
    assert_eq!(by, 2_000_000, "the link takes a second, and everything waits for it");
    for written in ["link@primary=x3", "link@primary=3"] {
        assert_eq!(simulated(&["--slow", written])["total_us"], slow["total_us"]);
    }
    let bad = simulated(&["--fail", "containerd", "--slow", "link@primary=3"]);
    assert_eq!(
        (&bad["outcome"], &bad["trace"]["units"][0]["slack_us"].is_u64()),
        (&Value::from("degraded"), &true)
    );
    assert_eq!(simulated(&["--output", "json"]), sound, "both ways to say JSON say the same");
}

#[test]
fn a_simulated_boot_is_looked_at_like_a_recorded_one() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("simulated.json");
    let saved = saved.to_str().unwrap();
    simulate(&["--save", saved], 0);
    let (shown, _) = check(&["boot", "show", saved], 0);
    assert!(shown.starts_with("boot reached in 1.45 s (simulated)\n"), "{shown}");
    let (compared, _) = check(&["boot", "compare", saved, saved], 0);
    assert!(compared.contains("no unit took another time"), "{compared}");
    let (predicted, _) =
        check(&[&["boot", "predict", saved], &QEMU[..], &["--output", "json"]].concat(), 0);
    assert_eq!(json(&predicted)["replay"]["off_percent"], 0.0);
}

#[test]
fn what_a_recorded_boot_looks_like() {
    insta::assert_snapshot!("show", check(&["boot", "show", DEMO], 0).0);
    insta::assert_snapshot!("blame", check(&["boot", "blame", DEMO], 0).0);
    insta::assert_snapshot!("critical-chain", check(&["boot", "critical-chain", DEMO], 0).0);
    insta::assert_snapshot!(
        "critical-chain-agent",
        check(&["boot", "critical-chain", DEMO, "keel-agent"], 0).0
    );
    let (picture, _) = check(&["boot", "plot", DEMO], 0);
    assert!(picture.starts_with("<svg ") && picture.contains("Recorded boot: boot "), "{picture}");
    let (_, stderr) = check(&["boot", "critical-chain", DEMO, "keel-agnet"], 2);
    assert!(stderr.contains("did you mean `keel-agent`?"), "{stderr}");
}

#[test]
fn two_boots_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let mut trace = json(&fs::read_to_string(root().join(DEMO)).unwrap());
    let units = trace["units"].as_array_mut().unwrap();
    units.retain(|unit| unit["name"] != "hostname");
    let agent = units.iter_mut().find(|unit| unit["name"] == "keel-agent").unwrap();
    agent["ended_us"] = (agent["ended_us"].as_u64().unwrap() + 500_000).into();
    let containerd = units.iter_mut().find(|unit| unit["name"] == "containerd").unwrap();
    containerd["state"] = "failed".into();
    trace["total_us"] = (trace["total_us"].as_u64().unwrap() * 2).into();
    let slower = folder.path().join("slower.json");
    fs::write(&slower, trace.to_string()).unwrap();
    let slower = slower.to_str().unwrap();
    insta::assert_snapshot!("compare", check(&["boot", "compare", DEMO, slower], 0).0);
    check(&["boot", "compare", DEMO, DEMO, slower, "--allow", "101"], 0);
    check(&["boot", "compare", DEMO, slower, "--allow", "99"], 1);
    check(&["boot", "compare", slower, DEMO, "--allow", "0"], 0);
    check(&["boot", "compare", DEMO], 2);
}

#[test]
fn trace_viewers_get_events() {
    for viewer in ["perfetto", "chrome"] {
        let (events, _) = check(&["boot", "export", DEMO, "--format", viewer], 0);
        let events = json(&events);
        let events = events["traceEvents"].as_array().unwrap();
        let agent = events.iter().find(|event| event["name"] == "keel-agent").unwrap();
        assert_eq!((&agent["ph"], &agent["cat"]), (&Value::from("X"), &Value::from("service")));
    }
}

/// The simulator, given the durations of a real boot, says when that boot's goal was up to within a few percent: what is off is time in
/// which nothing moved, such as a busy machine's own delays.
#[test]
fn the_demos_boot_is_predicted() {
    let (text, _) = check(&[&["boot", "predict", DEMO], &QEMU[..]].concat(), 0);
    insta::assert_snapshot!("predict", text);
    let (predicted, _) =
        check(&[&["boot", "predict", DEMO], &QEMU[..], &["--output", "json"]].concat(), 0);
    let off = json(&predicted)["replay"]["off_percent"].as_f64().unwrap();
    assert!(off.abs() < 5.0, "off by {off} %");
    // Another boot of the same machine, an hour later: what its neighbours did to it is what the forecast cannot know.
    let later = [&["boot", "predict", DEMO_LATER], &QEMU[..]].concat();
    let with = [&later[..], &["--trace", DEMO]].concat();
    insta::assert_snapshot!("predict-from-another", check(&with, 0).0);
    let off = |arguments: &[&str], which: &str| {
        let text = check(&[arguments, &["--output", "json"]].concat(), 0).0;
        json(&text)[which]["off_percent"].as_f64().unwrap().abs()
    };
    assert!(off(&with, "before") < off(&later, "before"), "a recorded boot beats guesses");
    assert!(off(&with, "replay") < 5.0);
}

#[test]
fn a_file_that_is_no_trace_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: &str, code: i32, expect: &str| {
        let file = folder.path().join("file");
        fs::write(&file, text).unwrap();
        let (_, stderr) = check(&["boot", "show", file.to_str().unwrap()], code);
        assert!(stderr.contains(expect), "{stderr}");
    };
    check("{}", 1, "`format` is \"\", not \"keel-boot-trace\"");
    check(
        r#"{"format": "keel-boot-trace", "version": 9}"#,
        1,
        "it has version 9; this osctl reads up to 1",
    );
    check("some console\nwithout a report\n", 1, "boot with keel.report=json");
}

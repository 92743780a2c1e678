//! The real binary as PID 1 of a PID and mount namespace: units start, are watched and go down, and everything else that PID 1 owes a
//! machine. util-linux's `unshare` makes the namespace; the units are in testdata.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use keel_control::{
    Control, ControlError, ControlErrorKind, ControlUnit, Happened, Reset, UnitPlan, UnitState,
    UnitVerb,
};
use keel_testkit::program::program;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use self::machine::{Machine, PATIENCE, look_at_changes};

const BOOT: (&str, &str) = ("boot.toml", "description = \"goal\"\n[target]\n");

const SIGINT: i32 = 2;
const SIGHUP: i32 = 1;

#[test]
fn it_boots_reports_and_goes_down_in_reverse() {
    let mut machine = Machine::boot(
        "order",
        &[
            BOOT,
            (
                "first.toml",
                "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"echo first >> {dir}/order\"]\ntimeout = \"20s\"\n",
            ),
            (
                "second.toml",
                "part-of = \"boot\"\nrequires = [\"first\"]\nafter = [\"first\"]\n[service]\n\
                 exec = [\"/bin/sh\", \"-c\", \"echo second >> {dir}/order; trap 'echo second stops >> {dir}/order; exit 0' TERM; while :; do sleep 1; done\"]\n\
                 timeout = \"20s\"\n",
            ),
            (
                "third.toml",
                "part-of = \"boot\"\nafter = [\"second\"]\n[service]\n\
                 exec = [\"/bin/sh\", \"-c\", \"echo third >> {dir}/order; trap 'echo third stops >> {dir}/order; exit 0' TERM; touch {dir}/armed; while :; do sleep 1; done\"]\n\
                 timeout = \"20s\"\n",
            ),
        ],
    );
    let report = machine.report();
    assert_eq!(report["reached"], true, "{report}");
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    assert!(report["total_ms"].as_u64() >= report["critical_path_ms"].as_u64(), "{report}");
    assert!(
        report["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")),
        "{report}"
    );
    // Both traps are set: a shell that has not come so far dies of the signal without a word.
    machine.until("order", |order| order.lines().count() == 3);
    machine.until("armed", |_| machine.shared("armed").exists());

    machine.signal("TERM");
    assert_eq!(
        machine.end(),
        Some(SIGINT),
        "reboot(2) ends a namespace's init with SIGINT for power-off"
    );
    // A service that is ready as soon as it runs may be overtaken by the next one's first word; not in stopping.
    let order = machine.read("order");
    assert!(
        order.starts_with(
            "first
"
        ) && order.ends_with(
            "
third stops
second stops
"
        ),
        "{order}"
    );
    assert!(machine.position(&["stopped", "third"]) < machine.position(&["stopped", "second"]));
    assert!(machine.position(&["stopped", "second"]) < machine.position(&["stopped", "first"]));
    machine.position(&["Powering off."]);
}

#[test]
fn ctrl_alt_del_reboots() {
    let mut machine = Machine::boot("reboot", &[BOOT]);
    machine.report();
    machine.signal("INT");
    assert_eq!(
        machine.end(),
        Some(SIGHUP),
        "reboot(2) ends a namespace's init with SIGHUP for a restart"
    );
    machine.position(&["Rebooting."]);
}

/// The words of a UPS, of container runtimes, of systemd and of busybox. In a PID namespace the kernel ends init with SIGINT for
/// power-off and for halt.
#[test]
fn every_signal_that_means_something_ends_the_machine_as_it_means() {
    for (signal, ends_by, last_word) in [
        ("PWR", SIGINT, "Powering off."),
        ("USR1", SIGINT, "Halted"),
        ("USR2", SIGINT, "Powering off."),
        // SIGRTMIN+3 to +5 (signal(7)).
        ("37", SIGINT, "Halted"),
        ("38", SIGINT, "Powering off."),
        ("39", SIGHUP, "Rebooting."),
    ] {
        let mut machine = Machine::boot(&format!("signal-{signal}"), &[BOOT]);
        machine.report();
        machine.signal(signal);
        assert_eq!(machine.end(), Some(ends_by), "{signal}");
        machine.position(&[last_word]);
    }
}

#[test]
fn a_service_that_dies_comes_back_and_leaves_nothing_behind() {
    let mut machine = Machine::boot(
        "restart",
        &[
            BOOT,
            (
                "web.toml",
                // Each run leaves a child that ignores SIGTERM and has a session of its own.
                "part-of = \"boot\"\n[service]\n\
                 exec = [\"/bin/sh\", \"-c\", \"setsid sh -c \\\"trap '' TERM; sleep 1000\\\" & echo run >> {dir}/runs; sleep 0.05; exit 3\"]\n\
                 restart = \"always\"\nrestart-delay = \"1ms\"\nrestart-max-delay = \"20ms\"\ntimeout = \"20s\"\n",
            ),
        ],
    );
    machine.report();
    machine.until("runs", |runs| runs.lines().count() >= 3);
    let rss = || machine.status("VmRSS");
    let early = rss();
    machine.until("runs", |runs| runs.lines().count() >= 23);
    let late = rss();
    let kib = |rss: &str| rss.trim_end_matches(" kB").trim().parse::<u64>().expect("a number");
    assert!(kib(&late) <= kib(&early) + 512, "PID 1 grew from {early} to {late} over 20 restarts");
    // At any moment at most one run's processes are there: the shell, its child's shell and the sleep, twice over while one ends.
    let alive =
        fs::read_to_string(machine.cgroup.join("keel/web/cgroup.procs")).unwrap_or_default();
    assert!(alive.lines().count() <= 4, "{alive}");
    machine.line(&["again", "web", "exited with code 3"]);
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

#[test]
fn ten_thousand_orphans_are_reaped() {
    let mut machine = Machine::boot(
        "orphans",
        &[
            BOOT,
            (
                "bomb.toml",
                "part-of = \"boot\"\n[oneshot]\n\
                 exec = [\"/bin/sh\", \"-c\", \"i=0; while [ $i -lt 10000 ]; do i=$((i+1)); ( : & ); done\"]\n\
                 timeout = \"60s\"\n",
            ),
        ],
    );
    let report = machine.report();
    assert_eq!(report["reached"], true, "{report}");
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    let children = format!("/proc/{0}/task/{0}/children", machine.init);
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(&children).expect("init's children").is_empty() {
        assert!(Instant::now() < deadline, "zombies are left");
        // The kernel has no event for it that anybody but the parent gets.
        std::thread::yield_now();
    }
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

#[test]
fn a_failure_degrades_with_its_last_words_and_a_hang_is_killed() {
    let mut machine = Machine::boot(
        "degraded",
        &[
            BOOT,
            (
                "bad.toml",
                "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"echo line one; echo the disk is full >&2; exit 4\"]\ntimeout = \"20s\"\n",
            ),
            (
                "child.toml",
                "part-of = \"boot\"\nrequires = [\"bad\"]\nafter = [\"bad\"]\n[oneshot]\nexec = [\"/bin/true\"]\ntimeout = \"20s\"\n",
            ),
            (
                "hang.toml",
                "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"trap '' TERM; sleep 1000 & wait; wait\"]\ntimeout = \"300ms\"\n",
            ),
            (
                "gone.toml",
                "part-of = \"boot\"\n[service]\nexec = [\"/no/such/daemon\"]\nrestart = \"never\"\ntimeout = \"20s\"\n",
            ),
            (
                "unmet.toml",
                "part-of = \"boot\"\n[condition]\npath-exists = [\"/no/such/file\"]\n[oneshot]\nexec = [\"/bin/true\"]\ntimeout = \"20s\"\n",
            ),
        ],
    );
    let report = machine.report();
    assert_eq!(report["reached"], true, "{report}");
    let mut degraded: Vec<String> = report["degraded"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|unit| {
            format!(
                "{}: {}",
                unit["unit"].as_str().unwrap_or(""),
                unit["why"].as_str().unwrap_or("")
            )
        })
        .collect();
    degraded.sort();
    assert_eq!(
        degraded,
        [
            "bad: exited with status 4: the disk is full",
            "child: needs bad, which is not up",
            "gone: /no/such/daemon: no such file",
            "hang: timed out after 300 ms",
        ]
    );
    let bad = machine.position(&["FAILED", "bad"]);
    assert!(machine.seen[bad + 1].ends_with("| line one"), "{}", machine.seen[bad + 1]);
    assert!(machine.seen[bad + 2].ends_with("| the disk is full"), "{}", machine.seen[bad + 2]);
    machine.position(&["skipped", "unmet", "/no/such/file does not exist"]);
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

/// A FIFO that nobody writes to stands for a disk that does not answer: who opens it waits for ever.
#[test]
fn a_disk_that_does_not_answer_does_not_hold_up_pid_1() {
    let mut machine = Machine::boot(
        "stuck",
        &[
            BOOT,
            (
                "stuck.toml",
                "part-of = \"boot\"\n[oneshot]\n\
                 exec = [\"/bin/sh\", \"-c\", \"mkdir -p /run/keel/identity && mkfifo /run/keel/identity/node.fingerprint\"]\n\
                 timeout = \"20s\"\n",
            ),
        ],
    );
    let report = machine.report();
    assert_eq!(report["reached"], true, "{report}");
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    assert_eq!(report["fingerprint"], serde_json::Value::Null, "{report}");
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

#[test]
fn readiness_by_notification_and_by_socket() {
    let notify = "import os,socket,time\\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\\ntime.sleep(.2)\\n\
                  s.sendto(b'READY=1',os.environ['NOTIFY_SOCKET'])\\ntime.sleep(1000)";
    let answer = "import socket,time\\ns=socket.socket(socket.AF_UNIX)\\ns.bind('{dir}/answer.sock')\\ntime.sleep(.2)\\n\
                  s.listen()\\ntime.sleep(1000)";
    let service = |script: &str, ready: &str| {
        format!(
            "part-of = \"boot\"\n[service]\nexec = [\"/usr/bin/python3\", \"-c\", \"{script}\"]\nready = \"{ready}\"\ntimeout = \"25s\"\n"
        )
    };
    let mut machine = Machine::boot(
        "ready",
        &[
            BOOT,
            ("notifies.toml", &service(notify, "notify")),
            ("answers.toml", &service(answer, "{dir}/answer.sock")),
            // Never says a word.
            (
                "silent.toml",
                &service("import time; time.sleep(1000)", "notify").replace("25s", "500ms"),
            ),
        ],
    );
    let report = machine.report();
    assert_eq!(
        report["degraded"],
        serde_json::json!([{ "unit": "silent", "why": "timed out after 500 ms" }]),
        "{report}"
    );
    let took = |unit: &str| {
        let line = &machine.seen[machine.position(&["ready", unit])];
        line.split_whitespace()
            .rev()
            .nth(1)
            .and_then(|ms| ms.parse::<u64>().ok())
            .expect("milliseconds")
    };
    assert!(took("notifies") >= 200 && took("answers") >= 200);
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

#[test]
fn a_broken_graph_keeps_the_machine_up_and_says_why() {
    let mut machine = Machine::boot(
        "broken",
        &[
            BOOT,
            (
                "typo.toml",
                "part-of = \"boot\"\n[oneshot]\nexecute = [\"/bin/true\"]\ntimeout = \"1s\"\n",
            ),
        ],
    );
    machine.line(&["EMERGENCY", "make no graph"]);
    machine.line(&["typo.toml:3"]);
    machine.line(&["execute = "]);
    machine.line(&["osctl validate"]);
    machine.signal("INT");
    assert_eq!(machine.end(), Some(SIGHUP));
}

/// A config that cannot be read still leaves a machine that one can ask what is wrong: network and agent, and nothing else.
#[test]
fn a_broken_config_leaves_a_machine_that_can_be_reached() {
    let target = |stage: &'static str| (stage, "part-of = \"boot\"\n[target]\n");
    let oneshot = |word: &str, stage: &str| {
        format!(
            "part-of = \"{stage}\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"echo {word} >> {dir}/ran\"]\ntimeout = \"20s\"\n",
            dir = "{dir}"
        )
    };
    let mut machine = Machine::boot_with(
        "rescue",
        "schema = 1\n[machine]\nhostnam = \"x\"\n",
        &[
            BOOT,
            target("api-filesystems.toml"),
            target("modules.toml"),
            target("network.toml"),
            target("identity.toml"),
            ("uplink.toml", &oneshot("link", "network")),
            ("keel-agent.toml", &oneshot("agent", "boot")),
            ("workload.toml", &oneshot("workload", "boot")),
        ],
    );
    machine.line(&["EMERGENCY", "make no graph"]);
    machine.line(&["config.toml:3"]);
    machine.line(&["hostnam = "]);
    let report = machine.report();
    assert_eq!(
        (&report["goal"], &report["reached"]),
        (&"keel-rescue".into(), &false.into()),
        "{report}"
    );
    assert_eq!(report["emergency"], true, "{report}");
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    let mut ran: Vec<_> = machine.read("ran").lines().map(str::to_owned).collect();
    ran.sort();
    assert_eq!(ran, ["agent", "link"]);
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

#[test]
fn failure_policies_emergency_and_reboot() {
    let failing = |policy: &str| {
        format!(
            "part-of = \"boot\"\n[failure]\non = \"{policy}\"\n[oneshot]\nexec = [\"/bin/false\"]\ntimeout = \"20s\"\n"
        )
    };
    let mut machine = Machine::boot("emergency", &[BOOT, ("vital.toml", &failing("emergency"))]);
    machine.line(&["EMERGENCY", "vital", "exited with status 1"]);
    let report = machine.report();
    assert_eq!(report["reached"], false, "{report}");
    // It stays up until somebody says otherwise.
    machine.signal("USR1");
    assert_eq!(machine.end(), Some(SIGINT));
    machine.position(&["Halted"]);

    let mut machine = Machine::boot("policy", &[BOOT, ("vital.toml", &failing("reboot"))]);
    assert_eq!(machine.end(), Some(SIGHUP));
    machine.position(&["rebooting, as its failure policy says"]);
}

/// What keel-agent asks over the control socket, asked by the same client.
#[test]
fn the_control_socket_answers() {
    use keel_control::{GoalState, Shutdown};
    let mut machine = Machine::boot(
        "control",
        &[
            BOOT,
            (
                "web.toml",
                "description = \"a service\"\npart-of = \"boot\"\n[service]\nexec = [\"/bin/sleep\", \"1000\"]\ntimeout = \"20s\"\n",
            ),
        ],
    );
    let report = machine.report();
    let socket = machine.control_socket();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut control = Control::connect(&socket).await.unwrap();
        let status = control.status().await.unwrap();
        assert_eq!((status.state, status.goal.as_str()), (GoalState::Reached, "boot"));
        assert_eq!(report["digest"], status.digest);
        assert!(status.boot.is_some_and(|boot| !boot.critical_path.is_empty()));

        let units = control.units().await.unwrap();
        let web = units.units.iter().find(|unit| unit.name == "web").unwrap();
        assert_eq!((web.state, web.kind.as_str(), web.attempts), (UnitState::Running, "service", 1));
        assert_eq!(web.description, "a service");
        assert!(web.pid.is_some_and(|pid| pid > 1) && web.took_ms.is_some() && web.note.is_none(), "{web:?}");

        let events = Control::connect(&socket).await.unwrap();
        let mut watch = events.watch(1, false).await.unwrap();
        let first = watch.next().await.unwrap().unwrap();
        assert_eq!(first.events.first().map(|event| event.seq), Some(1));
        let up = |event: &keel_control::Event| matches!(&event.what, Happened::Transition { unit, to: UnitState::Running, .. } if unit == "web");
        assert!(first.events.iter().any(up), "{first:?}");

        control.shutdown(Shutdown::Reboot).await.unwrap();
    });
    assert_eq!(machine.end(), Some(SIGHUP));
}

/// An agent that comes back at once whenever it is killed, on a port of its own.
fn agent(port: u16) -> String {
    let agent = program(env!("CARGO_BIN_EXE_keel-init"), "keel-agent");
    let agent = agent.display();
    format!(
        "part-of = \"boot\"\nafter = [\"certificate\"]\n[service]\n\
         exec = [\"{agent}\", \"serve\", \"--listen\", \"127.0.0.1:{port}\", \"--dir\", \"{{dir}}/identity\", \
         \"--cluster-ca\", \"{{dir}}/ca.crt\", \"--audit-dir\", \"{{dir}}/audit\"]\n\
         ready = \"notify\"\nrestart = \"always\"\nrestart-delay = \"1ms\"\nrestart-max-delay = \"20ms\"\n\
         start-limit = {{ burst = 200, interval = \"10m\" }}\ntimeout = \"20s\"\n"
    )
}

/// The agent's identity, made once.
fn certificate() -> String {
    let agent = program(env!("CARGO_BIN_EXE_keel-init"), "keel-agent");
    let agent = agent.display();
    let make = format!(
        "mkdir -p {{dir}}/identity && (test -e {{dir}}/identity/node.key || \
         (echo 0f3a5c7e91b24d4e8a6b0123456789ab > {{dir}}/identity/machine-id && {agent} identity --dir {{dir}}/identity))"
    );
    format!(
        "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"{make}\"]\ntimeout = \"20s\"\n"
    )
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// An osctl that asks a node.
fn osctl(home: &Path, endpoint: &str, what: &[&str]) -> Command {
    let mut osctl = Command::new(program(env!("CARGO_BIN_EXE_keel-init"), "osctl"));
    osctl.args(["--endpoint", endpoint, "--output", "json"]).args(what);
    osctl.env("OSCTL_HOME", home).stderr(Stdio::null());
    osctl
}

#[test]
fn it_is_nothing_but_pid_1() {
    let output = Command::new(env!("CARGO_BIN_EXE_keel-init")).output().expect("the binary");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("PID 1"));
}

/// Asks init over its control socket, as the agent does.
fn ask<T>(
    machine: &Machine,
    question: impl AsyncFnOnce(&mut Control) -> Result<T, ControlError>,
) -> Result<T, String> {
    let socket = machine.control_socket();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut control = Control::connect(&socket).await.expect("init's socket");
        question(&mut control).await.map_err(|error| match error.kind {
            ControlErrorKind::Refused(refusal) => refusal.kind.to_string(),
            kind => panic!("{kind}"),
        })
    })
}

#[path = "namespace/configs.rs"]
mod configs;
#[path = "namespace/disks.rs"]
mod disks;
#[path = "namespace/files.rs"]
mod files;
#[path = "namespace/forget.rs"]
mod forget;
#[path = "namespace/kills.rs"]
mod kills;
#[path = "namespace/machine.rs"]
mod machine;
#[path = "namespace/mutations.rs"]
mod mutations;
#[path = "namespace/outside.rs"]
mod outside;
#[path = "namespace/records.rs"]
mod records;
#[path = "namespace/scale.rs"]
mod scale;
#[path = "namespace/secrets.rs"]
mod secrets;
#[path = "namespace/steering.rs"]
mod steering;
#[path = "namespace/trust.rs"]
mod trust;
